//! What is done to results by columns, and which counts of bits give which sign of that.
//!
//! ```text
//! y = ((columns - 2 count) * scale ∘ numbers ∘ ..)      ∘ is * or +, one number for each column of the result
//! bit = not (y < 0)                                  →  bit = (count < limit) != flip
//! ```
//! Each of these operations is monotone in its first operand, rounding too: a product with a number that is not negative, and a
//! sum, keep the order; a product with a negative one turns it round. So what they give together is monotone in the
//! count, as long as all of it is finite, which the ends of the range tell: everything else lies between. Then the sign changes at
//! most once, and where it does is found by halving the range, with the operations themselves. Both directions, scales of
//! 0 and numbers that cancel come out exactly, whatever rounding does near the border.
//!
//! Columns whose ends are infinite or NaN have no limit: their product computes numbers, and packs their signs.
//!
//! Limits are computed in every execution, from what the operands hold then: it takes as long as a few rows of the product
//! itself, so it is done from [`LEAST_ROWS`] on.

use smallvec::SmallVec;

use super::finish::Step;
use super::ir::{Factor, SignProduct};
use crate::blocks::PANEL_ROWS;
use crate::op::{BinaryOp, is_not_below_0};

/// Rows from which on limits are worth finding.
pub const LEAST_ROWS: usize = 8;

/// A number for each row of a panel.
pub type Panel = [f32; PANEL_ROWS];

/// What is done with a number for each column, in order.
pub type Operands = SmallVec<[Step; 8]>;

/// The counts that give a set bit, for the rows of a panel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Limits {
    /// What a count is compared with.
    pub limits: [u16; PANEL_ROWS],
    /// Which bits are set where the count is not below the limit.
    pub flips: u64,
}

/// Whether signs of this product's results may be told from counts.
///
/// Counts and limits, which are one more at most, are 16 bits.
pub fn has_limits(product: &SignProduct) -> bool {
    product.packed
        && product.factor == Factor::Signs
        && product.bases.len() == 1
        && product.sizes.is_none()
        && product.matrix.columns() < usize::from(u16::MAX)
}

/// The operations on the results of a panel.
pub struct After {
    scales: Panel,
    steps: SmallVec<[(BinaryOp, Panel); 8]>,
}

impl After {
    /// Of `n` columns from `first` on; numbers of others are 0.
    ///
    /// # Safety
    /// `scales` are 64 numbers; each operand has `first + n`. They may lie at any address.
    pub unsafe fn new(scales: *const f32, operands: &[Step], (first, n): (usize, usize)) -> After {
        let read = |from: *const f32, n: usize| {
            let mut panel = [0.0; PANEL_ROWS];
            let to = panel.as_mut_ptr().cast::<u8>();
            // SAFETY: the caller's promise; bytes may lie anywhere.
            unsafe { to.copy_from_nonoverlapping(from.cast(), n * size_of::<f32>()) };
            panel
        };
        let step = |step: &Step| (step.op(), read(step.numbers.wrapping_add(first), n));
        After {
            scales: read(scales, n),
            steps: operands.iter().map(step).collect(),
        }
    }

    /// The operations but the first one, the scale, in place.
    fn apply(&self, results: &mut Panel) {
        for (op, numbers) in &self.steps {
            combine(*op, results.iter_mut().zip(numbers.iter().copied()));
        }
    }

    /// What becomes of these counts. What is not finite on the way stays so: there are only sums and products.
    fn of(&self, columns: i32, counts: &[i32; PANEL_ROWS]) -> Panel {
        let mut y = [0.0; PANEL_ROWS];
        for ((y, count), scale) in y.iter_mut().zip(counts).zip(&self.scales) {
            *y = (columns - 2 * count) as f32 * scale;
        }
        self.apply(&mut y);
        y
    }

    /// The limits, if all columns have one.
    pub fn limits(&self, columns: usize) -> Option<Limits> {
        let columns = i32::try_from(columns).expect("such columns are counted in 16 bits");
        let (mut low, mut high) = ([0; PANEL_ROWS], [columns; PANEL_ROWS]);
        let (first, last) = (self.of(columns, &low), self.of(columns, &high));
        if !first.iter().chain(&last).all(|y| y.is_finite()) {
            return None;
        }
        // The bit of `low` is that of no difference at all; that of `high`, if it is another one, that of `columns`.
        for _ in 0..=columns.max(1).ilog2() {
            let mut middle = [0; PANEL_ROWS];
            for (middle, (low, high)) in middle.iter_mut().zip(low.iter().zip(&high)) {
                *middle = (low + high) / 2;
            }
            let y = self.of(columns, &middle);
            for i in 0..PANEL_ROWS {
                let same = is_not_below_0(y[i]) == is_not_below_0(first[i]);
                low[i] = if same { middle[i] } else { low[i] };
                high[i] = if same { high[i] } else { middle[i] };
            }
        }
        let mut out = Limits {
            limits: [0; PANEL_ROWS],
            flips: 0,
        };
        for i in 0..PANEL_ROWS {
            let changes = is_not_below_0(first[i]) != is_not_below_0(last[i]);
            let limit = if changes { high[i] } else { columns + 1 };
            out.limits[i] = limit as u16;
            out.flips |= u64::from(!is_not_below_0(first[i])) << i;
        }
        Some(out)
    }
}

/// `x = x op y` for all.
fn combine<'a>(op: BinaryOp, both: impl Iterator<Item = (&'a mut f32, f32)>) {
    match op {
        BinaryOp::Mul => both.for_each(|(x, y)| *x *= y),
        _ => both.for_each(|(x, y)| *x += y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers for 64 columns: both signs, zeros, some that cancel sums exactly, some near the border.
    fn panel(seed: usize) -> Panel {
        let number = |i: usize| match (i + seed) % 7 {
            0 => 0.0,
            1 => -0.0,
            2 => (i * 31 + seed) as f32 % 13.0 - 6.0,
            3 => 1.0 / (1.0 + i as f32),
            4 => -1.0 / (3.0 + i as f32),
            5 => 1e-30,
            _ => (seed as f32 - 2.0) * 0.7,
        };
        std::array::from_fn(number)
    }

    fn chain(seed: usize) -> After {
        let ops = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Mul, BinaryOp::Add];
        let steps = ops.iter().enumerate();
        After {
            scales: panel(seed),
            steps: steps.map(|(i, op)| (*op, panel(seed + i + 1))).collect(),
        }
    }

    #[test]
    fn limits_tell_the_sign_of_every_count() {
        for columns in [0usize, 1, 2, 31, 64, 257] {
            for seed in 0..14 {
                let after = chain(seed);
                let limits = after.limits(columns).expect("all of it is finite");
                for count in 0..=columns {
                    let y = after.of(columns as i32, &[count as i32; PANEL_ROWS]);
                    for (i, y) in y.iter().enumerate() {
                        let below = count < usize::from(limits.limits[i]);
                        let found = below != (limits.flips >> i & 1 == 1);
                        let is_negative = *y < 0.0;
                        assert_eq!(found, !is_negative, "{columns} {seed} {count} {i}: {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn both_directions_and_both_constants_come() {
        let mut after = chain(0);
        after.scales = [1.0; PANEL_ROWS];
        after.steps.clear();
        after.scales[1] = -1.0;
        after.scales[2] = 0.0;
        after.steps.push((BinaryOp::Add, [0.0; PANEL_ROWS]));
        after.steps[0].1[3] = -100.0;
        let limits = after.limits(10).expect("all of it is finite");
        // 10 - 2 count is not below 0 up to 5; turned round it is not from 5 on; then always, and never.
        assert_eq!(limits.limits[..4], [6, 5, 11, 11]);
        assert_eq!(limits.flips & 15, 0b1010);
    }

    #[test]
    fn what_is_not_finite_has_no_limits() {
        for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX] {
            for at in 0..3 {
                let mut after = chain(1);
                after.scales = [2.0; PANEL_ROWS];
                after
                    .steps
                    .iter_mut()
                    .for_each(|(_, panel)| *panel = [2.0; PANEL_ROWS]);
                assert!(after.limits(64).is_some());
                match at {
                    0 => after.scales[5] = odd,
                    at => after.steps[at].1[5] = odd,
                }
                assert_eq!(after.limits(64), None, "{odd} {at}");
            }
        }
    }

    #[test]
    fn the_most_columns_have_a_limit() {
        let mut after = chain(0);
        after.steps.clear();
        after.scales = [-1.0; PANEL_ROWS];
        after.scales[7] = 1.0;
        let limits = after.limits(usize::from(u16::MAX) - 1);
        let limits = limits.expect("all of it is finite");
        // 65534 - 2 count is 0 at 32767.
        assert_eq!(
            limits.limits[..8],
            [32767, 32767, 32767, 32767, 32767, 32767, 32767, 32768]
        );
    }
}
