//! Which products are made of dot products, and what these need.
//!
//! Before: the sizes of a product. After: the side with few rows, the other one, and whether the few rows are written
//! out first because their steps lie apart (the module `place`).

use super::dot::Dots;
use super::place::Rows;
use super::plan::Sizes;

/// The most rows that are better not packed.
pub const FEW: usize = 32;

/// Rows of the other operand from which writing out few rows pays.
const LONG: usize = 256;

impl Dots {
    /// Whether this is the way to compute a product of these sizes.
    pub(super) fn fits(&self, sizes: Sizes) -> bool {
        let ([few, many], counts) = self.sides(sizes);
        let pays = self.places[few].has_rows() || counts[1] >= LONG;
        counts[0] <= FEW && self.places[many].has_rows() && pays
    }

    /// The side with few rows and the other one, with the numbers of their rows.
    pub(super) fn sides(&self, sizes: Sizes) -> ([usize; 2], [usize; 2]) {
        let sides = if sizes.m <= sizes.n || !self.same {
            [0, 1]
        } else {
            [1, 0]
        };
        (sides, sides.map(|side| [sizes.m, sizes.n][side]))
    }

    /// How much memory a call works in: for the few rows, if they have to be written out.
    pub(super) fn scratch_bytes(&self, sizes: Sizes) -> usize {
        let (sides, counts) = self.sides(sizes);
        let few = &self.places[sides[0]];
        match few.has_rows() {
            true => 0,
            false => sizes.batch * counts[0] * sizes.k * few.element(),
        }
    }

    /// Writes the few rows out where their steps lie apart.
    ///
    /// # Safety
    /// As for [`super::Gemm::run`]; `to` has [`Dots::scratch_bytes`], aligned to an element.
    pub(super) unsafe fn write_few(
        &self,
        sizes: Sizes,
        operands: [*const u8; 2],
        params: &[i64],
        to: *mut u8,
    ) -> Option<Rows> {
        let (sides, counts) = self.sides(sizes);
        let few = &self.places[sides[0]];
        let shape = [sizes.batch, counts[0], sizes.k];
        // SAFETY: the caller's operand, and room for its rows.
        unsafe { few.write_rows(operands[sides[0]], shape, params, to) }
    }
}
