//! A row of `f32` → its numbers in 8 bits, as tables of sums.
//!
//! Of four neighbouring whole numbers `q = 16 h + l` (`l` below 16, `h` from -8 to 7) there are 16 sums of some of them. For each
//! of the 16 choices a table has the sum of the `l`, another the sum of the `h` plus 32: both from 0 to 60. For a byte of
//! columns that is four tables of 16 bytes, of the lower four and of the upper four.
//!
//! ```text
//! x: f32[k]   ->   [k / 8][4][16] u8, the sum of all q: i32, the scale: f32
//! ```

use crate::op::activation_scale;

/// Bytes of the tables of eight columns.
pub const TABLE_BYTES: usize = 64;

/// What is added to a sum of upper parts, so that it is not negative.
pub const OFFSET: i32 = 32;

/// What there is to know about a row beside its tables.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct RowFacts {
    /// What the whole numbers are multiplied by.
    pub scale: f32,
    /// Their sum.
    pub total: i32,
}

/// For each number of four, the choices that have it.
const CHOICES: [[u8; 16]; 4] = choices();

const fn choices() -> [[u8; 16]; 4] {
    let mut out = [[0; 16]; 4];
    let mut at = 0;
    while at < 64 {
        let is_in = (at % 16) >> (at / 16) & 1;
        out[at / 16][at % 16] = 255 * is_in as u8;
        at += 1;
    }
    out
}

/// Writes the tables of a row.
///
/// # Panics
/// If there is not as much room as whole bytes of columns need.
pub fn build(x: &[f32], tables: &mut [u8]) -> RowFacts {
    let (scale, inverse) = activation_scale(x);
    let mut total = 0;
    for (eight, tables) in x.chunks(8).zip(tables.chunks_exact_mut(TABLE_BYTES)) {
        let mut whole = [0i8; 8];
        // Without an inverse all are 0, also where x is no number.
        if inverse != 0.0 {
            for (q, x) in whole.iter_mut().zip(eight) {
                *q = nearest(x * inverse);
            }
        }
        total += whole.iter().map(|q| i32::from(*q)).sum::<i32>();
        for (four, two) in whole.chunks_exact(4).zip(tables.chunks_exact_mut(32)) {
            let (low, high) = two.split_at_mut(16);
            let part = |at: usize| [four[at] as u8 & 15, (four[at] >> 4) as u8];
            let parts = [part(0), part(1), part(2), part(3)];
            sums(low, 0, parts.map(|part| part[0]));
            sums(high, OFFSET as u8, parts.map(|part| part[1]));
        }
    }
    RowFacts { scale, total }
}

/// The whole number nearest to a number from -127 to 127, to even at a tie: adding 1.5 * 2^23 rounds to one.
fn nearest(x: f32) -> i8 {
    ((x + 12_582_912.0).to_bits() as i32 - 12_582_912f32.to_bits() as i32) as i8
}

/// The sums of all choices of four numbers, which wrap into place when some are negative.
fn sums(out: &mut [u8], offset: u8, parts: [u8; 4]) {
    for (i, out) in out.iter_mut().enumerate().take(16) {
        let chosen = |at: usize| CHOICES[at][i] & parts[at];
        let two = [
            chosen(0).wrapping_add(chosen(1)),
            chosen(2).wrapping_add(chosen(3)),
        ];
        *out = two[0].wrapping_add(two[1]).wrapping_add(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_the_sums_of_all_choices() {
        let x = [127.0, -127.0, 64.0, -65.0, 3.0, -1.0, 0.5, 1.5, -2.5, 126.4];
        let mut tables = [0; 2 * TABLE_BYTES];
        let facts = build(&x, &mut tables);
        let whole = [127, -127, 64, -65, 3, -1, 0, 2, -2, 126, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            facts,
            RowFacts {
                scale: 1.0,
                total: whole.iter().sum()
            }
        );
        for (at, four) in whole.chunks(4).enumerate() {
            for choice in 0..16 {
                let chosen = four
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| choice >> i & 1 == 1);
                let expected: i32 = chosen.map(|(_, q)| *q).sum();
                let low = i32::from(tables[32 * at + choice]);
                let high = i32::from(tables[32 * at + 16 + choice]);
                assert!(low <= 60 && high <= 60);
                assert_eq!(low + 16 * (high - OFFSET), expected, "{four:?} {choice}");
            }
        }
    }

    #[test]
    fn rows_without_scale_are_zero() {
        for x in [[0.0; 3], [1e-40; 3], [f32::NAN; 3], [f32::INFINITY; 3]] {
            let mut tables = [0; TABLE_BYTES];
            let facts = build(&x, &mut tables);
            assert_eq!(facts.total, 0);
            assert_eq!(facts.scale.is_nan(), !x[0].is_finite());
            assert!(tables[..16].iter().all(|sum| *sum == 0));
            assert!(tables[16..32].iter().all(|sum| i32::from(*sum) == OFFSET));
        }
    }
}
