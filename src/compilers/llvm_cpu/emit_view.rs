//! Writing the arithmetic of symbolic sizes and of views.
//!
//! Sizes that are not constants come from a table of parameters, which the host evaluates once
//! per execution: [`Params`] is the order of that table. Everything that reads the table does so
//! where the builder stands, so build readers outside of loops.

use inkwell::IntPredicate;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::emit::{BUILT, Emit};
use crate::dtype::DType;
use crate::shape::{Expr, View};

/// The symbolic expressions that compiled code needs the values of, in the order of its table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    exprs: Vec<Expr>,
}

impl Params {
    /// The position of an expression's value, a new one if it has none yet.
    pub fn slot(&mut self, expr: Expr) -> usize {
        let found = self.exprs.iter().position(|known| *known == expr);
        found.unwrap_or_else(|| {
            self.exprs.push(expr);
            self.exprs.len() - 1
        })
    }

    /// A position of its own for an expression's value.
    pub fn push(&mut self, expr: Expr) -> usize {
        self.exprs.push(expr);
        self.exprs.len() - 1
    }

    /// Puts others behind these; gives the position of the first.
    pub fn append(&mut self, others: &Params) -> usize {
        let first = self.exprs.len();
        self.exprs.extend(&others.exprs);
        first
    }

    /// All expressions, in order.
    pub fn exprs(&self) -> &[Expr] {
        &self.exprs
    }
}

impl<'m, 'c> Emit<'m, 'c> {
    /// The value of an expression: an immediate, or a load from the parameter table, which is the
    /// function's argument `table`.
    pub fn expr(&self, params: &mut Params, table: u32, expr: Expr) -> IntValue<'c> {
        match expr.as_const() {
            Some(value) => self.int(value),
            None => self.told(table, params.slot(expr)),
        }
    }

    /// The value at a position of the parameter table, which is the function's argument `table`.
    pub fn told(&self, table: u32, slot: usize) -> IntValue<'c> {
        let slot = self.int(slot as i64);
        let from = self.at(self.i64(), self.pointer_argument(table), slot);
        self.load(self.i64(), from, 8).into_int_value()
    }

    /// `(a / b, a % b)` for `a >= 0`. A divisor of 0 is taken as 1: it can only be the size of a
    /// dim that has no elements, and then nothing is read.
    pub fn div_rem(&self, a: IntValue<'c>, b: IntValue<'c>) -> (IntValue<'c>, IntValue<'c>) {
        let one = self.int(1);
        let b = match b.get_sign_extended_constant() {
            Some(value) => self.int(value.max(1)),
            None => {
                let positive = self.compare(IntPredicate::SGT, b, one);
                self.builder
                    .build_select(positive, b, one, "")
                    .expect(BUILT)
                    .into_int_value()
            }
        };
        if b.get_sign_extended_constant() == Some(1) {
            return (a, self.int(0));
        }
        let quotient = self.builder.build_int_unsigned_div(a, b, "").expect(BUILT);
        let remainder = self.builder.build_int_unsigned_rem(a, b, "").expect(BUILT);
        (quotient, remainder)
    }

    /// The coordinates of a row-major linear index. The first is not reduced: an index in range
    /// gives coordinates in range.
    pub fn unravel(&self, mut index: IntValue<'c>, dims: &[IntValue<'c>]) -> Vec<IntValue<'c>> {
        let mut coordinates = vec![self.int(0); dims.len()];
        for axis in (1..dims.len()).rev() {
            (index, coordinates[axis]) = self.div_rem(index, dims[axis]);
        }
        if let Some(first) = coordinates.first_mut() {
            *first = index;
        }
        coordinates
    }

    /// Prepares reading a view whose elements are stored as `element`.
    pub fn reader(
        &self,
        view: &View,
        params: &mut Params,
        table: u32,
        element: BasicTypeEnum<'c>,
    ) -> Reader<'c> {
        let mut value = |expr| self.expr(params, table, expr);
        let layers = view.layers().iter().map(|layer| {
            let sizes = layer.dims.iter().map(|&dim| value(dim)).collect();
            let strides = layer.strides.iter().map(|&stride| value(stride)).collect();
            let mut bounds = Vec::new();
            let valid = layer.valid.iter().flatten().zip(&layer.dims).enumerate();
            for (axis, (&(low, high), &dim)) in valid {
                let low = (!low.is_zero()).then(|| value(low));
                let high = (high != dim).then(|| value(high));
                bounds.push(Bounds { axis, low, high });
            }
            ReaderLayer {
                sizes,
                strides,
                offset: value(layer.offset),
                bounds,
            }
        });
        let layers = layers.collect();
        let zero = self.builder.build_alloca(element, "padding").expect(BUILT);
        self.builder
            .build_store(zero, element.const_zero())
            .expect(BUILT);
        Reader {
            layers,
            zero,
            element,
        }
    }

    /// `lanes` neighbouring elements of a float dtype, converted to f32.
    ///
    /// # Panics
    /// For dtypes other than F32, F16 and BF16.
    pub fn read_f32(&self, dtype: DType, from: PointerValue<'c>, lanes: u32) -> BasicValueEnum<'c> {
        let float = self.vector(lanes);
        match dtype {
            DType::F32 => self.load(float, from, 4),
            DType::BF16 => self.read_bf16(from, lanes),
            DType::F16 if lanes == 1 => {
                let value = self
                    .load(self.context.f16_type(), from, 2)
                    .into_float_value();
                self.builder
                    .build_float_ext(value, self.f32(), "")
                    .expect(BUILT)
                    .into()
            }
            DType::F16 => {
                let half = self.context.f16_type().vec_type(lanes);
                let value = self.load(half, from, 2).into_vector_value();
                let kind = float.into_vector_type();
                self.builder
                    .build_float_ext(value, kind, "")
                    .expect(BUILT)
                    .into()
            }
            other => panic!("no f32 is read from {}", other.name()),
        }
    }

    /// A bf16 is the upper half of an f32.
    fn read_bf16(&self, from: PointerValue<'c>, lanes: u32) -> BasicValueEnum<'c> {
        let short = self.context.i16_type();
        match lanes {
            1 => self.widen_bf16(self.load(short, from, 2), lanes),
            lanes => self.widen_bf16(self.load(short.vec_type(lanes), from, 2), lanes),
        }
    }

    /// The values of bf16 bits.
    pub(super) fn widen_bf16(&self, bits: BasicValueEnum<'c>, lanes: u32) -> BasicValueEnum<'c> {
        let (word, b) = (self.context.i32_type(), &self.builder);
        let sixteen = self.splat(word.const_int(16, false).into(), lanes);
        let bits: BasicValueEnum<'c> = match bits {
            BasicValueEnum::VectorValue(bits) => {
                let wide = b.build_int_z_extend(bits, word.vec_type(lanes), "");
                let wide = b.build_left_shift(wide.expect(BUILT), sixteen.into_vector_value(), "");
                wide.expect(BUILT).into()
            }
            bits => {
                let wide = b.build_int_z_extend(bits.into_int_value(), word, "");
                let wide = b.build_left_shift(wide.expect(BUILT), sixteen.into_int_value(), "");
                wide.expect(BUILT).into()
            }
        };
        b.build_bit_cast(bits, self.vector(lanes), "").expect(BUILT)
    }
}

/// The values of a view's sizes, ready for computing addresses.
pub struct Reader<'c> {
    layers: Vec<ReaderLayer<'c>>,
    zero: PointerValue<'c>,
    element: BasicTypeEnum<'c>,
}

struct ReaderLayer<'c> {
    sizes: Vec<IntValue<'c>>,
    strides: Vec<IntValue<'c>>,
    offset: IntValue<'c>,
    bounds: Vec<Bounds<'c>>,
}

/// Where coordinates of an axis are not padding; a missing bound holds always.
struct Bounds<'c> {
    axis: usize,
    low: Option<IntValue<'c>>,
    high: Option<IntValue<'c>>,
}

impl<'c> Reader<'c> {
    /// The address of the element at `coordinates`, and whether it is not padding (`None`: it
    /// never is). For padding the address is that of a zero.
    pub fn address(
        &self,
        e: &Emit<'_, 'c>,
        base: PointerValue<'c>,
        coordinates: &[IntValue<'c>],
    ) -> (PointerValue<'c>, Option<IntValue<'c>>) {
        let mut valid = None;
        let mut coordinates = coordinates.to_vec();
        let mut index = e.int(0);
        for (below, layer) in self.layers.iter().enumerate().rev() {
            for bounds in &layer.bounds {
                let at = coordinates[bounds.axis];
                let low = bounds.low.map(|low| e.compare(IntPredicate::SGE, at, low));
                let high = bounds
                    .high
                    .map(|high| e.compare(IntPredicate::SLT, at, high));
                for test in [low, high].into_iter().flatten() {
                    valid = Some(match valid {
                        None => test,
                        Some(all) => e.builder.build_and(all, test, "").expect(BUILT),
                    });
                }
            }
            let terms = coordinates.iter().zip(&layer.strides);
            index = terms.fold(layer.offset, |sum, (&at, &stride)| {
                e.add(sum, e.mul(at, stride))
            });
            if below > 0 {
                coordinates = e.unravel(index, &self.layers[below - 1].sizes);
            }
        }
        let Some(valid) = valid else {
            return (e.at(self.element, base, index), None);
        };
        // SAFETY: not marked `inbounds`: the address of padding is computed, but not used.
        let address = unsafe { e.builder.build_gep(self.element, base, &[index], "") };
        let address = address.expect(BUILT);
        let address = e
            .builder
            .build_select(valid, address, self.zero, "")
            .expect(BUILT);
        (address.into_pointer_value(), Some(valid))
    }
}
