//! Reads of elements that are close together, without a gather.
//!
//! ```text
//! step 2:         a0 .. a1 .. | .. a2 .. a3     →     a0 a1 a2 a3      two vectors, one shuffle
//! each 2 times:   b0 b1                         →     b0 b0 b1 b1      half a vector, one shuffle
//! ```
//! Windows of a pool are steps; what goes back through one, or a picture that is enlarged, repeats elements.
//!
//! Invariant: nothing before the first or behind the last of the elements is read. The last vector of a step ends with
//! the last element, and where lanes are missing, only what they would read is.

use inkwell::types::VectorType;
use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::frame::{At, Base, Frame};
use super::plan::{NEAR, Source};
use super::vector::{V, built};
use crate::compilers::llvm_cpu::ir::Id;

impl<'c> Emitter<'_, 'c> {
    /// The elements that a node reads, if vectors hold them; `None` where they are anywhere.
    pub fn near(&mut self, frame: &Frame<'c>, at: &At<'c>, id: Id) -> Option<V<'c>> {
        let (source, index) = self.read_by(id);
        let dim = frame.dim?;
        let fixed = index.is_none_or(|index| frame.uniform[index].is_some());
        if at.lanes == 1 || !fixed || !source.below.is_empty() {
            return None;
        }
        let base = frame.bases[id].expect("the row has emitted the bases of its accesses");
        let kind = self.memory(source.dtype, at.lanes);
        let padded = base.ok.is_some() || base.range.is_some();
        match (source.strides[dim].as_const()?, source.each[dim]) {
            (1, 1) => {
                let mask = self.both(self.top_mask(&base, at), at.active);
                let first = self.iadd(base.start, at.col);
                Some(self.consecutive(source, first, mask, kind))
            }
            (1, each) if i64::from(at.lanes) % each == 0 && !padded => {
                Some(self.repeated(source, &base, at, each))
            }
            (step @ 2..=NEAR, 1) if source.dtype.size() == 4 && !padded => {
                Some(self.stepped(source, &base, at, kind, step as u32))
            }
            _ => None,
        }
    }

    /// Neighbours, each so many times. The first lane's coordinate is a multiple of the lanes.
    fn repeated(&self, source: &Source, base: &Base<'c>, at: &At<'c>, each: i64) -> V<'c> {
        let (each, n) = (each as u32, at.lanes / each as u32);
        let first = self.iadd(base.start, self.shared(at.col, i64::from(each)));
        let lanes: Vec<u32> = (0..n).map(|i| i * each).collect();
        let active = at.active.filter(|_| n > 1);
        let mask = active.map(|active| self.ops.shuffle(active, active, &lanes));
        let few = self.consecutive(source, first, mask, self.memory(source.dtype, n));
        let order: Vec<u32> = (0..at.lanes).map(|lane| lane / each).collect();
        self.ops.shuffle(few, few, &order)
    }

    /// Every `step`th element: whole vectors, of which lanes are picked.
    fn stepped(
        &self,
        source: &Source,
        base: &Base<'c>,
        at: &At<'c>,
        kind: VectorType<'c>,
        step: u32,
    ) -> V<'c> {
        let l = at.lanes;
        let first = self.imul(at.col, self.int(i64::from(step)));
        let first = self.iadd(base.start, first);
        let span = (l - 1) * step + 1;
        let mut out = kind.get_poison();
        for start in (0..span).step_by(l as usize) {
            // Overlaps the vector before it rather than to reach beyond the last element.
            let from = start.min(span - l);
            let is_here = |element: u32| element >= start && element < start + l;
            let mask = at.active.map(|active| {
                let lane = |element: u32| match is_here(element) && element.is_multiple_of(step) {
                    true => element / step,
                    false => l,
                };
                let order: Vec<u32> = (from..from + l).map(lane).collect();
                self.ops.shuffle(active, self.ops.i1(l, false), &order)
            });
            let from_first = self.iadd(first, self.int(i64::from(from)));
            let part = self.consecutive(source, from_first, mask, kind);
            let lane = |lane: u32| match is_here(lane * step) {
                true => l + lane * step - from,
                false => lane,
            };
            let order: Vec<u32> = (0..l).map(lane).collect();
            out = self.ops.shuffle(out, part, &order);
        }
        out
    }

    /// The coordinate of the element that `each` neighbours share.
    pub fn shared(&self, coord: IntValue<'c>, each: i64) -> IntValue<'c> {
        match each {
            1 => coord,
            _ => built(
                self.ops
                    .builder
                    .build_int_unsigned_div(coord, self.int(each), ""),
            ),
        }
    }

    /// [`Emitter::shared`] for the coordinates of all lanes.
    pub fn shared_cols(&self, at: &At<'c>, each: i64) -> V<'c> {
        let cols = self.cols(at);
        if each == 1 {
            return cols;
        }
        // Division of longer integers is slow; sizes of repeated elements are known to fit.
        let l = at.lanes;
        let cols = self.ops.trunc(cols, self.ops.i32s(l));
        let cols = self.ops.udiv(cols, self.ops.i32(l, each as i32));
        self.ops.zext(cols, self.ops.i64s(l))
    }
}
