//! Packing of linear forms without padding in vectors.
//!
//! Before: rows next to each other in memory. After: a panel `[k][width]` in f32.
//!
//! In a panel with fewer rows than it has room for, what is not there is not read and becomes zero.

use inkwell::values::PointerValue;

use super::pack::{Pack, Panel, Walk};
use super::transpose::LINE;
use crate::compilers::llvm_cpu::emit_masked::has_masks;

impl<'c> Pack<'_, '_, 'c> {
    /// Whether vectors of the elements can be read under a mask.
    pub(super) fn has_masks(&self) -> bool {
        has_masks(self.operand.lanes, self.operand.access.dtype)
    }

    /// A full panel whose rows are neighbours in memory.
    pub(super) fn copied(&self, src: PointerValue<'c>, panel: &Panel<'c>, k_walk: &Walk<'c>) {
        let (e, kind) = (self.e, self.storage());
        let src = e.at(kind, src, panel.first);
        e.each(e.int(0), self.steps(), 1, |step| {
            let from = self.walk_offset(k_walk, e.add(self.k_begin(), step));
            let from = e.at(kind, src, from);
            let bytes = i64::from(self.operand.width) * self.operand.access.dtype.size() as i64;
            // The same step of the next panel.
            for line in (0..bytes).step_by(LINE) {
                e.prefetch(from, bytes + line, 2);
            }
            let values = self.read(from, self.operand.width);
            e.store(values, self.slot(panel, step, e.int(0)), 4);
        });
    }

    /// Any panel whose rows are neighbours in memory.
    pub(super) fn copied_in_part(
        &self,
        src: PointerValue<'c>,
        panel: &Panel<'c>,
        k_walk: &Walk<'c>,
    ) {
        let (e, kind, o) = (self.e, self.storage(), self.operand);
        let src = e.at(kind, src, panel.first);
        let mut chunks = Vec::new();
        let mut column = 0;
        while column < o.width {
            let fits = |lanes: &u32| *lanes <= o.lanes && column + lanes <= o.width;
            let lanes = [16, 8, 4, 2].into_iter().find(fits);
            let lanes = lanes.expect("panels have an even width");
            let rest = e.sub(panel.rows, e.int(column.into()));
            chunks.push((column, lanes, e.lanes_below(lanes, rest)));
            column += lanes;
        }
        e.each(e.int(0), self.steps(), 1, |step| {
            let from = self.walk_offset(k_walk, e.add(self.k_begin(), step));
            let from = e.at(kind, src, from);
            for &(column, lanes, valid) in &chunks {
                let column = e.int(column.into());
                let from = e.at(kind, from, column);
                let values = e.masked_read_f32(o.access.dtype, from, lanes, valid);
                e.store(values, self.slot(panel, step, column), 4);
            }
        });
    }
}
