//! Results that no cache holds are stored past the caches.
//!
//! A store to memory that is not cached first reads it. Where a result is so large that none of it stays in a cache for
//! its reader, whole vectors are written straight to memory instead. Whether it is that large is decided when the kernel
//! is made: results of symbolic size are stored as usual. The machine wants such stores aligned, which is asked for each
//! unit.

use inkwell::IntPredicate as I;
use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::plan::Plan;
use super::vector::built;
use crate::shape::numel;

/// Bytes of a cache line.
pub const LINE: u32 = 64;
/// Bytes of a result that no cache holds.
const BIG: i64 = 48 << 20;

impl Plan<'_> {
    /// Whether the result is larger than any cache.
    pub fn is_big(&self) -> bool {
        let size = numel(&self.nest.output()).as_const();
        size.is_some_and(|n| n.saturating_mul(self.nest.dtype.size() as i64) >= BIG)
    }
}

impl<'c> Emitter<'_, 'c> {
    /// Emits `body`, which stores output elements from `first` on, whole vectors first.
    pub fn storing(&mut self, first: IntValue<'c>, body: impl Fn(&mut Self)) {
        if self.lanes < 8 || !self.plan.is_big() {
            return body(self);
        }
        let output = *self.pointers.last().expect("the output is in the table");
        let kind = self.memory(self.plan.nest.dtype, 1).get_element_type();
        let start = self.ops.element(kind, output, first);
        let int = self.ops.context.i64_type();
        let address = built(self.ops.builder.build_ptr_to_int(start, int, ""));
        let odd = self.iand(address, self.int(i64::from(LINE) - 1));
        let (aligned, not) = (
            self.icmp(I::EQ, odd, self.int(0)),
            self.icmp(I::NE, odd, self.int(0)),
        );
        self.when(aligned, |e| {
            e.past_caches = true;
            body(e);
            e.past_caches = false;
        });
        self.when(not, body);
    }

    /// Ends a kernel: what was stored past the caches is there for other threads.
    pub fn finish_stores(&mut self) {
        if self.lanes >= 8 && self.plan.is_big() {
            self.ops.store_fence();
        }
    }
}
