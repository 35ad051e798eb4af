//! Sums of products of whole numbers, by the instructions that a target has.

use inkwell::context::Context;
use inkwell::values::{BasicValueEnum, VectorValue};

use super::ir::GROUP;
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// How whole numbers are multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dots {
    /// `vpdpbusd`: four products of an unsigned and a signed byte, added to an `i32`.
    Vnni,
    /// AVX2, weights below 16: `vpmaddubsw` gives sums of two in `i16`, at most 2 * 15 * 127 = 3810; eight of these
    /// (30480) fit.
    Nibbles,
    /// AVX2: `vpmaddubsw` of |w| and `a` with the sign of w, at most 2 * 128 * 127 = 32512, in rows; `vpmaddwd` of words
    /// in tiles.
    Words,
    /// Whatever LLVM makes of widening, multiplying and adding.
    Plain,
}

impl Dots {
    /// What a target multiplies blocks of a type with.
    pub fn of(ty: BlockType, target: &Target) -> Dots {
        let wide = target.lanes() >= 8;
        match ty {
            _ if wide && target.has("avx512vnni") && target.has("avx512vl") => Dots::Vnni,
            BlockType::Q4_0 if wide => Dots::Nibbles,
            _ if wide => Dots::Words,
            _ => Dots::Plain,
        }
    }

    /// What is added to weights to make them unsigned.
    pub fn offset(self, ty: BlockType) -> i32 {
        match (self, ty) {
            (Dots::Vnni | Dots::Nibbles, BlockType::Q4_0) => 8,
            (Dots::Vnni, _) => 128,
            _ => 0,
        }
    }

    /// What sums of activations are multiplied by to take that back.
    pub fn factor(self, ty: BlockType) -> i32 {
        -self.offset(ty)
    }

    /// Whether tiles are made of 16-bit numbers.
    pub fn has_words(self) -> bool {
        matches!(self, Dots::Words | Dots::Plain)
    }
}

/// Vectors of whole numbers.
pub struct Whole<'e, 'm, 'c> {
    /// Where code goes.
    pub e: &'e Emit<'m, 'c>,
    /// How to multiply.
    pub dots: Dots,
}

impl<'c> Whole<'_, '_, 'c> {
    fn context(&self) -> &'c Context {
        self.e.context
    }

    /// A constant in every lane.
    pub fn splat(&self, bits: u32, value: i64, lanes: u32) -> VectorValue<'c> {
        let kind = match bits {
            8 => self.context().i8_type(),
            16 => self.context().i16_type(),
            _ => self.context().i32_type(),
        };
        let value = kind.const_int(value as u64, true);
        self.e.splat(value.into(), lanes).into_vector_value()
    }

    /// The numbers of a block of weights at `from`: 32 bytes, signed or, with [`Dots::offset`] added, unsigned.
    pub fn weights(
        &self,
        ty: BlockType,
        from: inkwell::values::PointerValue<'c>,
    ) -> VectorValue<'c> {
        let (e, b) = (self.e, &self.e.builder);
        let bytes = |n: u32| {
            let from = e.at(self.context().i8_type(), from, e.int(2));
            let kind = self.context().i8_type().vec_type(n);
            e.load(kind, from, 1).into_vector_value()
        };
        match ty {
            BlockType::Q8_0 => {
                let w = bytes(32);
                match self.dots.offset(ty) {
                    0 => w,
                    _ => b.build_xor(w, self.splat(8, -128, 32), "").expect(BUILT),
                }
            }
            BlockType::Q4_0 => {
                // The bytes twice; of the second copy, every 32-bit lane moves by 4, and what that brings into a byte
                // from its neighbour is masked away.
                let both = bytes(16).into();
                let twice: Vec<u32> = (0..32).map(|i| i % 16).collect();
                let words = self.context().i32_type();
                let by: Vec<_> = (0..8).map(|i| words.const_int(i / 4 * 4, false)).collect();
                let both = e.shuffle(both, both, &twice);
                let both = b.build_bit_cast(both, words.vec_type(8), "").expect(BUILT);
                let by = inkwell::types::VectorType::const_vector(&by);
                let moved = b.build_right_shift(both.into_vector_value(), by, false, "");
                let kind = self.context().i8_type().vec_type(32);
                let moved = b
                    .build_bit_cast(moved.expect(BUILT), kind, "")
                    .expect(BUILT);
                let w = b.build_and(moved.into_vector_value(), self.splat(8, 15, 32), "");
                let w = w.expect(BUILT);
                match self.dots.offset(ty) {
                    0 => b.build_int_sub(w, self.splat(8, 8, 32), "").expect(BUILT),
                    _ => w,
                }
            }
            other => unreachable!("{other} has no kernels"),
        }
    }

    /// Eight sums of four products of bytes, added to `sums`, which is what [`Dots::factor`] makes of the activations.
    pub fn of_block(
        &self,
        w: VectorValue<'c>,
        a: VectorValue<'c>,
        sums: VectorValue<'c>,
    ) -> VectorValue<'c> {
        let b = &self.e.builder;
        match self.dots {
            Dots::Vnni => self.vnni(sums, w, a),
            Dots::Nibbles => {
                let pairs = self.pairs(w, a);
                let fours = self.words(pairs, self.splat(16, 1, 16));
                b.build_int_add(fours, sums, "").expect(BUILT)
            }
            Dots::Words => {
                let magnitude = self.call(
                    "llvm.abs",
                    &[w.into(), self.e.context.bool_type().const_zero().into()],
                    true,
                );
                let signed = self.call("llvm.x86.avx2.psign.b", &[a.into(), w.into()], false);
                let pairs = self.pairs(magnitude, signed);
                self.words(pairs, self.splat(16, 1, 16))
            }
            Dots::Plain => {
                let wide = self.context().i16_type().vec_type(GROUP as u32);
                let widen = |x| b.build_int_s_extend(x, wide, "").expect(BUILT);
                let halves = self.plain(widen(w), widen(a));
                self.neighbours(halves)
            }
        }
    }

    fn call(
        &self,
        name: &str,
        arguments: &[inkwell::values::BasicMetadataValueEnum<'c>],
        overloaded: bool,
    ) -> VectorValue<'c> {
        let first = arguments[0].into_vector_value().get_type().into();
        let types: &[_] = if overloaded { &[first] } else { &[] };
        let result = self.e.intrinsic(name, types, arguments);
        result.expect("it has a result").into_vector_value()
    }

    /// `sums + Σ4 w a` on bytes, `w` unsigned.
    pub fn vnni(
        &self,
        sums: VectorValue<'c>,
        w: VectorValue<'c>,
        a: VectorValue<'c>,
    ) -> VectorValue<'c> {
        let bits = 32 * sums.get_type().get_size();
        let name = format!("llvm.x86.avx512.vpdpbusd.{bits}");
        let function = self.e.declared(&name, &[]);
        // Its operands are vectors of `i32` in older versions, of bytes in newer ones.
        let kind = function.get_type().get_param_types()[1].into_vector_type();
        let cast = |x: VectorValue<'c>| self.e.builder.build_bit_cast(x, kind, "").expect(BUILT);
        let arguments = [sums.into(), cast(w).into(), cast(a).into()];
        let result = self.e.call(function, &arguments);
        result.expect("it has a result").into_vector_value()
    }

    /// Sums of two products of bytes, `w` unsigned (`vpmaddubsw`).
    pub fn pairs(&self, w: VectorValue<'c>, a: VectorValue<'c>) -> VectorValue<'c> {
        self.call("llvm.x86.avx2.pmadd.ub.sw", &[w.into(), a.into()], false)
    }

    /// Sums of two products of 16-bit numbers.
    pub fn words(&self, w: VectorValue<'c>, a: VectorValue<'c>) -> VectorValue<'c> {
        match self.dots {
            Dots::Plain => self.plain(w, a),
            _ => self.call("llvm.x86.avx2.pmadd.wd", &[w.into(), a.into()], false),
        }
    }

    fn plain(&self, w: VectorValue<'c>, a: VectorValue<'c>) -> VectorValue<'c> {
        let b = &self.e.builder;
        let wide = self.context().i32_type().vec_type(w.get_type().get_size());
        let widen = |x| b.build_int_s_extend(x, wide, "").expect(BUILT);
        let products = b.build_int_mul(widen(w), widen(a), "").expect(BUILT);
        self.neighbours(products)
    }

    /// Sums of neighbouring lanes.
    fn neighbours(&self, x: VectorValue<'c>) -> VectorValue<'c> {
        let half = x.get_type().get_size() / 2;
        let lanes = |first: u32| -> Vec<u32> { (0..half).map(|i| 2 * i + first).collect() };
        let x: BasicValueEnum<'c> = x.into();
        let (even, odd) = (
            self.e.shuffle(x, x, &lanes(0)),
            self.e.shuffle(x, x, &lanes(1)),
        );
        let sum =
            self.e
                .builder
                .build_int_add(even.into_vector_value(), odd.into_vector_value(), "");
        sum.expect(BUILT)
    }

    /// As `f32`, rounded to nearest.
    pub fn to_float(&self, x: VectorValue<'c>) -> BasicValueEnum<'c> {
        let kind = self.context().f32_type().vec_type(x.get_type().get_size());
        let float = self.e.builder.build_signed_int_to_float(x, kind, "");
        float.expect(BUILT).into()
    }
}
