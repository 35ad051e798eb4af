//! Reading and writing memory: addresses, padding, gathers.
//!
//! Invariants:
//! - No address outside of the buffer is ever read: padding and bad lanes are masked,
//!   or read from a zeroed stack slot instead.
//! - Memory of `F16`, `BF16`, `U8` and `Bool` is converted at the border: inside kernels
//!   they are `f32` lanes (always representable) and `i1` lanes.

use inkwell::IntPredicate as I;
use inkwell::types::VectorType;
use inkwell::values::IntValue;

use super::big::LINE;
use super::emitter::Emitter;
use super::frame::{At, Base, Frame, Values};
use super::plan::{GatherAxis, Range, Source};
use super::vector::{V, built, lanes};
use crate::compilers::llvm_cpu::ir::{Id, Scalar};
use crate::compilers::llvm_cpu::vmath;
use crate::dtype::DType;
use crate::shape::{Expr, Layer};

impl<'a, 'c> Emitter<'a, 'c> {
    /// The access a node reads, and its index operand if it gathers.
    pub(super) fn read_by(&self, id: Id) -> (&'a Source, Option<Id>) {
        match self.plan.nest.body[id] {
            Scalar::Load(a) | Scalar::Valid(a) | Scalar::Position(a) => {
                (&self.plan.sources[a], None)
            }
            Scalar::Gather { access, index, .. } => (&self.plan.sources[access], Some(index)),
            ref other => unreachable!("{other:?} reads nothing"),
        }
    }

    /// `ok && more`.
    fn also(&self, ok: Option<IntValue<'c>>, more: IntValue<'c>) -> Option<IntValue<'c>> {
        Some(ok.map_or(more, |ok| self.iand(ok, more)))
    }

    /// The fixed part of an access in a row.
    pub fn base(&mut self, frame: &Frame<'c>, id: Id) -> Base<'c> {
        let (source, index) = self.read_by(id);
        let mut start = self.expr(source.offset);
        let mut ok = None;
        for (dim, &coord) in frame.coords.iter().enumerate() {
            if Some(dim) == frame.dim {
                continue;
            }
            if !source.strides[dim].is_zero() {
                let stride = self.expr(source.strides[dim]);
                let coord = self.shared(coord, source.each[dim]);
                start = self.iadd(start, self.imul(coord, stride));
            }
            if let Some((lo, hi)) = source.valid[dim] {
                let (lo, hi) = (self.expr(lo), self.expr(hi));
                ok = self.also(ok, self.icmp(I::SGE, coord, lo));
                ok = self.also(ok, self.icmp(I::SLT, coord, hi));
            }
        }
        if let (Some(axis), Some(index)) = (&source.gather, index)
            && let Some(index) = frame.uniform[index]
        {
            let at = At {
                lanes: 1,
                col: start,
                active: None,
            };
            let (offset, good) = self.gathered(axis, index, &at);
            start = self.iadd(start, self.ops.extract(offset, 0).into_int_value());
            if let Some(good) = good {
                ok = self.also(ok, self.ops.extract(good, 0).into_int_value());
            }
        }
        let range = frame.dim.and_then(|dim| source.valid[dim]);
        let range = range.map(|(lo, hi)| (self.expr(lo), self.expr(hi)));
        Base { start, ok, range }
    }

    /// Address part of computed coordinates on the gathered axis, and which of them
    /// are not padding. Reports coordinates outside of the axis.
    fn gathered(&mut self, axis: &GatherAxis, index: V<'c>, at: &At<'c>) -> (V<'c>, Option<V<'c>>) {
        let l = at.lanes;
        let wide = self.ops.sext(index, self.ops.i64s(l));
        let size = self.expr(axis.size);
        let size = self.ops.splat_int(size, l);
        let bad = self.ops.icmp(I::UGE, wide, size);
        self.report(bad, index, at);
        let zero = self.ops.i64(l, 0);
        let coord = self.ops.select(bad, zero, wide);
        let stride = self.expr(axis.stride);
        let offset = self.ops.mul(coord, self.ops.splat_int(stride, l));
        let empty = axis.size.as_const().is_none_or(|size| size <= 0);
        let good = empty.then(|| self.ops.icmp(I::SGT, size, zero));
        (offset, self.within(good, coord, axis.valid))
    }

    /// `mask` and "`coord` is in `range`".
    fn within(&mut self, mask: Option<V<'c>>, coord: V<'c>, range: Range) -> Option<V<'c>> {
        let Some((lo, hi)) = range else { return mask };
        let l = lanes(coord);
        let lo = self.expr(lo);
        let hi = self.expr(hi);
        let above = self.ops.icmp(I::SGE, coord, self.ops.splat_int(lo, l));
        let below = self.ops.icmp(I::SLT, coord, self.ops.splat_int(hi, l));
        self.both(mask, Some(self.ops.and(above, below)))
    }

    /// The conjunction of two masks; `None` is all lanes.
    pub(super) fn both(&self, a: Option<V<'c>>, b: Option<V<'c>>) -> Option<V<'c>> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.ops.and(a, b)),
            (a, b) => a.or(b),
        }
    }

    /// Which lanes of the top layer are not padding.
    pub(super) fn top_mask(&self, base: &Base<'c>, at: &At<'c>) -> Option<V<'c>> {
        let row = base.ok.map(|ok| self.ops.splat_int(ok, at.lanes));
        let range = base.range.map(|(lo, hi)| {
            let cols = self.cols(at);
            let above = self
                .ops
                .icmp(I::SGE, cols, self.ops.splat_int(lo, at.lanes));
            let below = self
                .ops
                .icmp(I::SLT, cols, self.ops.splat_int(hi, at.lanes));
            self.ops.and(above, below)
        });
        self.both(row, range)
    }

    /// The buffer index of every lane, and which lanes are not padding.
    fn indices(
        &mut self,
        frame: &Frame<'c>,
        at: &At<'c>,
        values: &Values<'c>,
        id: Id,
    ) -> (V<'c>, Option<V<'c>>) {
        let (source, index) = self.read_by(id);
        let base = frame.bases[id].expect("the row has emitted the bases of its accesses");
        let mut mask = self.top_mask(&base, at);
        let mut linear = self.ops.splat_int(base.start, at.lanes);
        if let Some(dim) = frame.dim
            && !source.strides[dim].is_zero()
        {
            let stride = self.expr(source.strides[dim]);
            let stride = self.ops.splat_int(stride, at.lanes);
            let cols = self.shared_cols(at, source.each[dim]);
            linear = self.ops.add(linear, self.ops.mul(cols, stride));
        }
        if let (Some(axis), Some(index)) = (&source.gather, index)
            && frame.uniform[index].is_none()
        {
            let index = values[index].expect("operands come first");
            let (offset, good) = self.gathered(axis, index, at);
            linear = self.ops.add(linear, offset);
            mask = self.both(mask, good);
        }
        for layer in &source.below {
            (linear, mask) = self.through(layer, linear, mask);
        }
        (linear, mask)
    }

    /// From an index over a layer's dims, row-major, to what the layer makes of it.
    fn through(
        &mut self,
        layer: &Layer,
        linear: V<'c>,
        mut mask: Option<V<'c>>,
    ) -> (V<'c>, Option<V<'c>>) {
        let l = lanes(linear);
        let numel = layer
            .dims
            .iter()
            .try_fold(1i64, |n, d| n.checked_mul(d.as_const()?));
        // Lanes that are padding may hold anything; they stay masked.
        let narrow = l > 1 && numel.is_some_and(|n| n <= i64::from(i32::MAX));
        let kind = if narrow {
            self.ops.i32s(l)
        } else {
            self.ops.i64s(l)
        };
        let mut rest = if narrow {
            self.ops.trunc(linear, kind)
        } else {
            linear
        };
        let offset = self.expr(layer.offset);
        let mut out = self.ops.splat_int(offset, l);
        for dim in (0..layer.dims.len()).rev() {
            let mut coord = rest;
            if dim > 0 {
                // A layer of no elements is never read, but its lanes are computed.
                let size = self.expr(layer.dims[dim].max(Expr::from(1)));
                let size = self.ops.splat_int(size, l);
                let size = if narrow {
                    self.ops.trunc(size, kind)
                } else {
                    size
                };
                coord = self.ops.urem(rest, size);
                rest = self.ops.udiv(rest, size);
            }
            if narrow {
                coord = self.ops.sext(coord, self.ops.i64s(l));
            }
            if !layer.strides[dim].is_zero() {
                let stride = self.expr(layer.strides[dim]);
                out = self
                    .ops
                    .add(out, self.ops.mul(coord, self.ops.splat_int(stride, l)));
            }
            let range = layer.valid.as_ref().map(|valid| valid[dim]);
            let all = range.is_none_or(|(lo, hi)| lo.is_zero() && hi == layer.dims[dim]);
            mask = self.within(mask, coord, range.filter(|_| !all));
        }
        (out, mask)
    }

    /// The value of a `Valid` node.
    pub fn valid(&mut self, frame: &Frame<'c>, at: &At<'c>, values: &Values<'c>, id: Id) -> V<'c> {
        let (_, mask) = self.indices(frame, at, values, id);
        mask.unwrap_or_else(|| self.ops.i1(at.lanes, true))
    }

    /// The value of a `Position` node.
    pub fn position(
        &mut self,
        frame: &Frame<'c>,
        at: &At<'c>,
        values: &Values<'c>,
        id: Id,
    ) -> V<'c> {
        let (linear, mask) = self.indices(frame, at, values, id);
        let zero = self.ops.i64(at.lanes, 0);
        let linear = mask.map_or(linear, |mask| self.ops.select(mask, linear, zero));
        self.ops.trunc(linear, self.ops.i32s(at.lanes))
    }

    /// The value of a `Load` or `Gather` node.
    pub fn read(&mut self, frame: &Frame<'c>, at: &At<'c>, values: &Values<'c>, id: Id) -> V<'c> {
        let (source, _) = self.read_by(id);
        let raw = self.near(frame, at, id).unwrap_or_else(|| {
            let (linear, mask) = self.indices(frame, at, values, id);
            let mask = self.both(mask, at.active);
            self.scattered(source, linear, mask, self.memory(source.dtype, at.lanes))
        });
        self.unpacked(source.dtype, raw)
    }

    /// Consecutive elements from `first` on.
    pub(super) fn consecutive(
        &self,
        source: &Source,
        first: IntValue<'c>,
        mask: Option<V<'c>>,
        kind: VectorType<'c>,
    ) -> V<'c> {
        let buffer = self.pointers[source.input];
        let at = self.ops.element(kind.get_element_type(), buffer, first);
        let align = source.dtype.size() as u32;
        match mask {
            None => self.ops.load(kind, at, align).into_vector_value(),
            Some(mask) => self.ops.load_masked(kind, at, mask, align),
        }
    }

    /// Elements anywhere.
    fn scattered(
        &self,
        source: &Source,
        linear: V<'c>,
        mask: Option<V<'c>>,
        kind: VectorType<'c>,
    ) -> V<'c> {
        let l = lanes(linear);
        let buffer = self.pointers[source.input];
        let size = source.dtype.size() as u32;
        if l >= 8 && size >= 4 {
            let base = built(self.ops.builder.build_ptr_to_int(
                buffer,
                self.ops.context.i64_type(),
                "",
            ));
            let bytes = self.ops.mul(linear, self.ops.i64(l, i64::from(size)));
            let at = self.ops.add(self.ops.splat_int(base, l), bytes);
            let mask = mask.unwrap_or_else(|| self.ops.i1(l, true));
            return self.ops.gather(kind, at, mask, size);
        }
        let element = kind.get_element_type();
        (0..l).fold(kind.get_poison(), |vector, lane| {
            let index = self.ops.extract(linear, lane).into_int_value();
            let mut at = self.ops.element(element, buffer, index);
            if let Some(mask) = mask {
                let good = self.ops.extract(mask, lane).into_int_value();
                at = built(self.ops.builder.build_select(good, at, self.zeros, ""))
                    .into_pointer_value();
            }
            self.ops
                .insert(vector, self.ops.load(element, at, size), lane)
        })
    }

    /// Writes lanes of the result from output element `first` on.
    pub fn write(&self, first: IntValue<'c>, value: V<'c>, at: &At<'c>) {
        let dtype = self.plan.nest.dtype;
        let value = self.packed(dtype, value);
        let element = value.get_type().get_element_type();
        let output = *self.pointers.last().expect("the output is in the table");
        let to = self.ops.element(element, output, first);
        let align = dtype.size() as u32;
        match at.active {
            _ if at.lanes == 1 => self.ops.store(self.ops.extract(value, 0), to, align),
            None if self.past_caches => {
                let size = align * at.lanes;
                self.ops.store_past_caches(value, to, size.min(LINE));
            }
            None => self.ops.store(value.into(), to, align),
            Some(mask) => self.ops.store_masked(value, to, mask, align),
        }
    }

    /// Vectors as they are in memory.
    pub fn memory(&self, dtype: DType, lanes: u32) -> VectorType<'c> {
        match dtype {
            DType::F32 => self.ops.f32s(lanes),
            DType::F64 => self.ops.f64s(lanes),
            DType::F16 | DType::BF16 => self.ops.i16s(lanes),
            DType::I32 => self.ops.i32s(lanes),
            DType::U8 | DType::Bool => self.ops.i8s(lanes),
        }
    }

    /// From the representation in memory to that in kernels.
    pub fn unpacked(&self, dtype: DType, raw: V<'c>) -> V<'c> {
        let l = lanes(raw);
        match dtype {
            DType::F32 | DType::F64 | DType::I32 => raw,
            DType::U8 => self.ops.zext(raw, self.ops.i32s(l)),
            DType::Bool => self.ops.icmp(I::NE, raw, self.ops.i8s(l).const_zero()),
            DType::BF16 => {
                let wide = self.ops.zext(raw, self.ops.i32s(l));
                self.ops
                    .bits(self.ops.shl(wide, self.ops.i32(l, 16)), self.ops.f32s(l))
            }
            DType::F16 if self.has_f16 => {
                let half = self.ops.bits(raw, self.ops.context.f16_type().vec_type(l));
                self.ops.fpext(half, self.ops.f32s(l))
            }
            DType::F16 => vmath::f16_value(&self.ops, raw),
        }
    }

    /// From the representation in kernels to that in memory.
    pub fn packed(&self, dtype: DType, value: V<'c>) -> V<'c> {
        let l = lanes(value);
        match dtype {
            DType::F32 | DType::F64 | DType::I32 => value,
            DType::U8 => self.ops.trunc(value, self.ops.i8s(l)),
            DType::Bool => self.ops.zext(value, self.ops.i8s(l)),
            DType::BF16 => {
                let bits = self.ops.bits(value, self.ops.i32s(l));
                self.ops
                    .trunc(self.ops.lshr(bits, self.ops.i32(l, 16)), self.ops.i16s(l))
            }
            DType::F16 if self.has_f16 => {
                let half = self
                    .ops
                    .fptrunc(value, self.ops.context.f16_type().vec_type(l));
                self.ops.bits(half, self.ops.i16s(l))
            }
            DType::F16 => vmath::f16_bits(&self.ops, value),
        }
    }
}
