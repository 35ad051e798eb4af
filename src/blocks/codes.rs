//! The grid of a block's numbers, and its codes one by one.
//!
//! A block whose scales stand has a [`Line`] for each of its numbers: the values that codes can give it. With that a number
//! can get another code without the scales being chosen again.

use super::{BlockType, half_at, k_decode};

/// What the codes of a number mean: `scale * (code - offset) + min`, computed in `f32` as decoders do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) scale: f32,
    pub(super) min: f32,
    offset: i32,
    lowest: i32,
    highest: i32,
}

impl Line {
    /// That of no number.
    pub(super) const NONE: Line = Line {
        scale: 0.0,
        min: 0.0,
        offset: 0,
        lowest: 0,
        highest: 0,
    };

    /// The code whose value is nearest to `x`, and the value. Where all have the same, the lowest.
    pub(super) fn nearest(&self, x: f64) -> (i32, f32) {
        let steps = (x - f64::from(self.min)) / f64::from(self.scale);
        // A scale of 0 gives no number, which becomes 0.
        let code = (steps.round_ties_even() as i32).saturating_add(self.offset);
        let code = code.clamp(self.lowest, self.highest);
        (code, self.value(code))
    }

    fn value(&self, code: i32) -> f32 {
        self.scale * (code - self.offset) as f32 + self.min
    }
}

/// Whether there are lines for blocks of a type.
pub(super) fn has_lines(ty: BlockType) -> bool {
    use BlockType as T;
    matches!(
        ty,
        T::Q2_0 | T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 | T::Q8_0 | T::Q4_K | T::Q6_K
    )
}

/// The lines of a block; what is beyond its numbers stays.
///
/// # Panics
/// If the type has none.
pub(super) fn lines(ty: BlockType, block: &[u8], lines: &mut [Line]) {
    use BlockType as T;
    let symmetric = |offset: i32, lowest: i32, highest: i32| Line {
        scale: half_at(block, 0),
        min: 0.0,
        offset,
        lowest,
        highest,
    };
    let affine = |highest: i32| Line {
        min: half_at(block, 2),
        ..symmetric(0, 0, highest)
    };
    match ty {
        // The fourth code is no encoder's.
        T::Q2_0 => lines.fill(symmetric(1, 0, 2)),
        T::Q4_0 => lines.fill(symmetric(8, 0, 15)),
        T::Q5_0 => lines.fill(symmetric(16, 0, 31)),
        T::Q8_0 => lines.fill(symmetric(0, -127, 127)),
        T::Q4_1 => lines.fill(affine(15)),
        T::Q5_1 => lines.fill(affine(31)),
        T::Q4_K => {
            let (d, dmin) = (half_at(block, 0), half_at(block, 2));
            for (j, lines) in lines.chunks_mut(32).enumerate() {
                let (s, m) = k_decode::scale_and_min(&block[4..16], j);
                lines.fill(Line {
                    scale: d * f32::from(s),
                    min: -(dmin * f32::from(m)),
                    ..symmetric(0, 0, 15)
                });
            }
        }
        T::Q6_K => {
            let d = half_at(block, 208);
            for (j, lines) in lines.chunks_mut(16).enumerate() {
                lines.fill(Line {
                    scale: d * f32::from(block[192 + j] as i8),
                    ..symmetric(32, 0, 63)
                });
            }
        }
        other => unreachable!("{other} has no lines"),
    }
}

/// Gives number `i` of a block a code of its line.
///
/// # Panics
/// If the type has no lines.
pub(super) fn put(ty: BlockType, block: &mut [u8], i: usize, code: i32) {
    use BlockType as T;
    let code = code as u8;
    let mut bits = |at: usize, shift: usize, width: u32| {
        let mask = ((1u16 << width) - 1) as u8;
        let byte = &mut block[at];
        *byte = *byte & !(mask << shift) | (code & mask) << shift;
    };
    // Of 32 numbers the first 16 are in the low halves of bytes.
    let nibble = |from: usize| (from + i % 16, i / 16 * 4, 4);
    match ty {
        T::Q2_0 => bits(2 + i / 4, 2 * (i % 4), 2),
        T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 => {
            let (at, shift, width) = nibble(ty.block_bytes() - 16);
            bits(at, shift, width);
            if matches!(ty, T::Q5_0 | T::Q5_1) {
                let byte = &mut block[ty.block_bytes() - 20 + i / 8];
                *byte = *byte & !(1 << (i % 8)) | (code >> 4 & 1) << (i % 8);
            }
        }
        T::Q8_0 => block[2 + i] = code,
        T::Q4_K => bits(16 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4),
        T::Q6_K => {
            // Of each 128 numbers, the second 64 are in the high halves.
            bits(i / 128 * 64 + i % 64, i / 64 % 2 * 4, 4);
            let (at, shift) = (128 + i / 128 * 32 + i % 32, i / 32 % 4 * 2);
            block[at] = block[at] & !(3 << shift) | (code >> 4 & 3) << shift;
        }
        other => unreachable!("{other} has no lines"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::test_numbers;

    /// Every code of every number decodes to what its line says.
    #[test]
    fn what_lines_say_is_what_decoders_give() {
        let types = BlockType::all().filter(|ty| has_lines(*ty));
        for ty in types {
            let n = ty.block_len();
            let mut next = test_numbers(3);
            let x: Vec<f32> = (0..n).map(|_| next() + 0.3).collect();
            let mut block = vec![0; ty.block_bytes()];
            ty.quantize(&x, &mut block).unwrap();
            let mut all = vec![Line::NONE; n];
            lines(ty, &block, &mut all);
            let mut expected = vec![0.0; n];
            for turn in 0..256 {
                for (i, line) in all.iter().enumerate() {
                    let span = line.highest - line.lowest + 1;
                    let code = line.lowest + (turn + 7 * i as i32) % span;
                    put(ty, &mut block, i, code);
                    expected[i] = line.value(code);
                    let (found, value) = line.nearest(f64::from(expected[i]));
                    assert_eq!((found, value), (code, expected[i]), "{ty} {i}");
                }
                let mut decoded = vec![0.0; n];
                ty.dequantize(&block, &mut decoded).unwrap();
                assert_eq!(decoded, expected, "{ty}");
            }
        }
    }

    #[test]
    fn a_scale_of_nothing_gives_a_code() {
        let mut all = [Line::NONE; 32];
        lines(BlockType::Q4_0, &[0; 18], &mut all);
        for x in [0.0, 1.0, -1.0] {
            assert_eq!(all[0].nearest(x).1, 0.0);
        }
    }
}
