//! Rows of weights → panels ([`super::form`]).

use half::f16;

use super::form::{COLUMNS, Factors, Form, GROUP};
use crate::blocks::{self, BlockType};

/// Lays `rows` (at most [`COLUMNS`], each of `blocks` blocks, one after the other) out as a panel, whose numbers, factors and
/// scales are given; what is missing is 0 with scale 0.
///
/// # Panics
/// If a slice is too short, or there are no kernels for the type.
pub fn pack(ty: BlockType, rows: &[u8], blocks: usize, panel: [&mut [u8]; 3]) {
    let [numbers, factors, scales] = panel;
    let form = Form::of(ty).expect("a type with kernels");
    let offsets = ty.scale_offsets();
    let negated = blocks::subtracted_scale(ty);
    let row_bytes = blocks * ty.block_bytes();
    let n_rows = (rows.len() / row_bytes.max(1)).min(COLUMNS);
    if n_rows < COLUMNS {
        for region in [&mut *numbers, &mut *factors, &mut *scales] {
            region.fill(0);
        }
    }
    let flip = flip(ty);
    let (bytes, scale_bytes) = (ty.block_bytes(), form.n_scales() * 2 * COLUMNS);
    let block_numbers = form.groups * form.number_bytes();
    let block_factors = form.groups * form.n_factors() * COLUMNS;
    for at in 0..blocks {
        let numbers = &mut numbers[at * block_numbers..][..block_numbers];
        let factors = &mut factors[at * block_factors..][..block_factors];
        let scales = &mut scales[at * scale_bytes..][..scale_bytes];
        for (column, row) in rows.chunks_exact(row_bytes).take(n_rows).enumerate() {
            let block = &row[at * bytes..][..bytes];
            for (i, &from) in offsets.iter().enumerate() {
                let mut scale = [block[from], block[from + 1]];
                if negated == Some(i) {
                    scale = (-f16::from_le_bytes(scale)).to_le_bytes();
                }
                scales[2 * (i * COLUMNS + column)..][..2].copy_from_slice(&scale);
            }
            match codes_from(ty) {
                _ if form.is_signs() => put_signs(&block[2..], numbers, column),
                Some(from) => {
                    put_words(&block[from..], flip, numbers, column);
                }
                None => {
                    let to = (&mut *numbers, &mut *factors);
                    put_groups((ty, &form), block, flip, to, column);
                }
            }
        }
    }
}

/// What bits of every byte of a block are turned over on the way into a panel: numbers of Q8_0 are signed in blocks, where
/// other types' have an offset.
pub(super) fn flip(ty: BlockType) -> u8 {
    match ty {
        BlockType::Q8_0 => 0x80,
        _ => 0,
    }
}

/// Where in a block the codes begin of a type whose bytes lie in panels as they do in blocks: of halves of bytes, the low ones
/// are the first half of the numbers in both.
pub(super) fn codes_from(ty: BlockType) -> Option<usize> {
    match ty {
        BlockType::Q4_0 | BlockType::Q8_0 => Some(2),
        BlockType::Q4_1 => Some(4),
        _ => None,
    }
}

/// Bytes of a block, four by four.
fn put_words(codes: &[u8], flip: u8, numbers: &mut [u8], column: usize) {
    let flip = u32::from_ne_bytes([flip; 4]);
    let words = codes.as_chunks::<4>().0;
    for (word, to) in words.iter().zip(numbers.chunks_exact_mut(4 * COLUMNS)) {
        let word = u32::from_ne_bytes(*word) ^ flip;
        to[4 * column..][..4].copy_from_slice(&word.to_ne_bytes());
    }
}

/// The groups of a block, taken apart and put together.
fn put_groups(
    (ty, form): (BlockType, &Form),
    block: &[u8],
    flip: u8,
    (numbers, factors): (&mut [u8], &mut [u8]),
    column: usize,
) {
    let n = form.n_factors() * COLUMNS;
    for g in 0..form.groups {
        let mut codes = blocks::codes_of(ty, block, g);
        codes.iter_mut().for_each(|code| *code ^= flip);
        let numbers = &mut numbers[g * form.number_bytes()..][..form.number_bytes()];
        put_numbers(form, &codes, numbers, column);
        if form.factors != Factors::None {
            let factors = &mut factors[g * n..][..n];
            put_factors(form, blocks::factors_of(ty, block, g), factors, column);
        }
    }
}

/// The numbers of a group of a column, plane by plane.
fn put_numbers(form: &Form, codes: &[u8; GROUP], numbers: &mut [u8], column: usize) {
    let mut from = 0;
    for plane in form.planes {
        let to = &mut numbers[from..][..plane.bits * 4 * COLUMNS];
        match plane.bits {
            1 => put_plane::<1>(codes, plane.at, to, column),
            2 => put_plane::<2>(codes, plane.at, to, column),
            4 => put_plane::<4>(codes, plane.at, to, column),
            _ => put_plane::<8>(codes, plane.at, to, column),
        }
        from += to.len();
    }
}

/// Bits of a block, which are all it has beside its scale: bit `4 p + j` of a group becomes bit `p` of byte `j`.
fn put_signs(bits: &[u8], numbers: &mut [u8], column: usize) {
    let groups = numbers.chunks_exact_mut(4 * COLUMNS);
    for (word, to) in bits.as_chunks::<4>().0.iter().zip(groups) {
        let word = u32::from_le_bytes(*word);
        for (j, to) in to.chunks_exact_mut(COLUMNS).enumerate() {
            // Every fourth bit, moved to its neighbour, these pairs, and so on.
            let bits = word >> j & 0x1111_1111;
            let bits = (bits | bits >> 3) & 0x0303_0303;
            let bits = (bits | bits >> 6) & 0x000f_000f;
            to[column] = (bits | bits >> 12) as u8;
        }
    }
}

fn put_plane<const BITS: usize>(codes: &[u8; GROUP], at: usize, numbers: &mut [u8], column: usize) {
    let mask = u8::MAX >> (8 - BITS);
    for vector in 0..BITS {
        let mut four = [0; 4];
        for turn in 0..8 / BITS {
            let codes = &codes[4 * (vector + turn * BITS)..][..4];
            for (byte, code) in four.iter_mut().zip(codes) {
                *byte |= (code >> at & mask) << (turn * BITS);
            }
        }
        numbers[4 * (vector * COLUMNS + column)..][..4].copy_from_slice(&four);
    }
}

/// Factors of scales and minima, of the whole group or of both halves.
fn put_factors(form: &Form, (scales, mins): ([i8; 2], [i8; 2]), factors: &mut [u8], column: usize) {
    let each = if form.factors == Factors::Halves {
        2
    } else {
        1
    };
    let all = scales[..each].iter().chain(&mins[..each]);
    for (i, factor) in all.take(form.n_factors()).enumerate() {
        factors[i * COLUMNS + column] = factor.to_le_bytes()[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number of a panel, as its description says.
    fn number(form: &Form, numbers: &[u8], (group, i, column): (usize, usize, usize)) -> u8 {
        let (four, byte) = (i / 4, i % 4);
        let mut from = group * form.number_bytes();
        let mut code = 0;
        for plane in form.planes {
            let at = match form.is_signs() {
                true => from + byte * COLUMNS + column,
                false => from + 4 * (four % plane.bits * COLUMNS + column) + byte,
            };
            let bits = numbers[at] >> (four / plane.bits * plane.bits);
            code |= (bits & (u8::MAX >> (8 - plane.bits))) << plane.at;
            from += plane.bits * 4 * COLUMNS;
        }
        code
    }

    /// What panels mean is what blocks mean.
    #[test]
    fn panels_hold_the_numbers_of_blocks() {
        for ty in BlockType::all() {
            let Some(form) = Form::of(ty) else { continue };
            for n_rows in [16, 5] {
                let (blocks, bytes) = (3, ty.block_bytes());
                let mut rows: Vec<u8> = (0..n_rows * blocks * bytes)
                    .map(|i| (i * 73 % 251) as u8)
                    .collect();
                for (i, block) in rows.chunks_exact_mut(bytes).enumerate() {
                    for (j, &at) in ty.scale_offsets().iter().enumerate() {
                        let scale = f16::from_f32(0.5 + i as f32 + 0.25 * j as f32);
                        block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                    }
                }
                let mut expected = vec![0.0; n_rows * blocks * ty.block_len()];
                ty.dequantize(&rows, &mut expected).unwrap();
                let mut panel = form.panel_bytes(blocks).map(|bytes| vec![0xaa; bytes]);
                pack(ty, &rows, blocks, panel.each_mut().map(|r| &mut r[..]));
                let [numbers, factors, scales] = &panel;
                let factor = |group: usize, i: usize, column: usize| {
                    let at = (group * form.n_factors() + i) * COLUMNS + column;
                    f32::from(factors[at] as i8)
                };
                let k = blocks * ty.block_len();
                for (at, expected) in expected.iter().enumerate() {
                    let (column, group, i) = (at / k, at % k / GROUP, at % GROUP);
                    let scale = |i: usize| {
                        let block = group / form.groups * form.n_scales() + i;
                        let at = 2 * (block * COLUMNS + column);
                        f16::from_le_bytes([scales[at], scales[at + 1]]).to_f32()
                    };
                    let half = if form.factors == Factors::Halves {
                        i / 16
                    } else {
                        0
                    };
                    let each = form.n_factors() / form.n_scales();
                    let times = |i: usize| match each {
                        0 => scale(i),
                        _ => scale(i) * factor(group, i * each + half, column),
                    };
                    let u = i32::from(number(&form, numbers, (group, i, column)));
                    let min = if form.has_min { times(1) } else { 0.0 };
                    let found = times(0) * (u - form.offset) as f32 + min;
                    assert_eq!(found, *expected, "{ty} row {column} number {}", at % k);
                }
                for column in n_rows..COLUMNS {
                    assert_eq!(scales[2 * column], 0, "{ty}");
                }
            }
        }
    }
}
