//! Sums of products of bytes, by the instructions that a target has: an accumulator that takes fours of products.

use inkwell::types::VectorType;
use inkwell::values::{BasicMetadataValueEnum, BasicValueEnum, VectorValue};

use super::form::{Dots, Form};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// How fours of weights and activations are multiplied and added up, each 32-bit lane by itself.
pub struct Whole<'e, 'm, 'c> {
    /// Where code goes.
    pub e: &'e Emit<'m, 'c>,
    /// With what.
    pub dots: Dots,
    /// Lanes of 32 bits.
    pub lanes: u32,
    /// Whether weights are signed bytes.
    signed: bool,
    /// How many fours an accumulator takes before it is widened.
    most: usize,
}

/// A sum on its way.
#[derive(Clone, Copy)]
pub struct Sum<'c> {
    /// What is widened already.
    wide: VectorValue<'c>,
    /// Sums of pairs in `i16`, with [`Dots::Avx2`].
    pairs: Option<VectorValue<'c>>,
    /// How many fours these hold.
    held: usize,
}

impl<'e, 'm, 'c> Whole<'e, 'm, 'c> {
    /// For weights of a form.
    pub fn new(e: &'e Emit<'m, 'c>, dots: Dots, lanes: u32, form: &Form) -> Self {
        Whole {
            e,
            dots,
            lanes,
            signed: dots.is_signed(form),
            // A pair is at most 2 u 127, with 2 * 128 * 127 for signed bytes.
            most: (i32::from(i16::MAX) / (2 * form.largest().min(128) * 127)) as usize,
        }
    }

    /// Vectors of `i32`.
    pub fn ints(&self) -> VectorType<'c> {
        self.e.context.i32_type().vec_type(self.lanes)
    }

    /// Vectors of bytes.
    pub fn bytes(&self) -> VectorType<'c> {
        self.e.context.i8_type().vec_type(4 * self.lanes)
    }

    /// A sum that begins with this.
    pub fn start(&self, wide: VectorValue<'c>) -> Sum<'c> {
        Sum {
            wide,
            pairs: None,
            held: 0,
        }
    }

    /// Adds products of bytes.
    pub fn add(&self, sum: Sum<'c>, w: VectorValue<'c>, a: VectorValue<'c>) -> Sum<'c> {
        match self.dots {
            Dots::Vnni => self.start(self.vnni(sum.wide, w, a)),
            Dots::Plain => self.start(self.plus(sum.wide, self.plain(w, a))),
            Dots::Avx2 => {
                let pairs = self.pairs(w, a);
                let next = Sum {
                    pairs: Some(sum.pairs.map_or(pairs, |old| self.plus(old, pairs))),
                    held: sum.held + 1,
                    ..sum
                };
                match next.held == self.most {
                    true => self.start(self.finish(next)),
                    false => next,
                }
            }
        }
    }

    /// The sum.
    pub fn finish(&self, sum: Sum<'c>) -> VectorValue<'c> {
        let Some(pairs) = sum.pairs else {
            return sum.wide;
        };
        let ones = self.e.constants(16, 1, 2 * self.lanes);
        let fours = self.call(
            "llvm.x86.avx2.pmadd.wd",
            &[pairs.into(), ones.into()],
            false,
        );
        self.plus(sum.wide, fours)
    }

    /// As `f32`, exact below 2^24.
    pub fn to_float(&self, x: VectorValue<'c>) -> VectorValue<'c> {
        let kind = self.e.context.f32_type().vec_type(self.lanes);
        let float = self.e.builder.build_signed_int_to_float(x, kind, "");
        float.expect(BUILT)
    }

    /// `a + b`.
    pub fn plus(&self, a: VectorValue<'c>, b: VectorValue<'c>) -> VectorValue<'c> {
        self.e.builder.build_int_add(a, b, "").expect(BUILT)
    }

    fn call(
        &self,
        name: &str,
        arguments: &[BasicMetadataValueEnum<'c>],
        overloaded: bool,
    ) -> VectorValue<'c> {
        let first = arguments[0].into_vector_value().get_type().into();
        let types: &[_] = if overloaded { &[first] } else { &[] };
        let result = self.e.intrinsic(name, types, arguments);
        result.expect("it has a result").into_vector_value()
    }

    /// `sums + Σ4 w a` on bytes, `w` unsigned.
    fn vnni(
        &self,
        sums: VectorValue<'c>,
        w: VectorValue<'c>,
        a: VectorValue<'c>,
    ) -> VectorValue<'c> {
        let name = format!("llvm.x86.avx512.vpdpbusd.{}", 32 * self.lanes);
        let function = self.e.declared(&name, &[]);
        // Its operands are vectors of `i32` in older versions, of bytes in newer ones.
        let kind = function.get_type().get_param_types()[1].into_vector_type();
        let cast = |x: VectorValue<'c>| self.e.builder.build_bit_cast(x, kind, "").expect(BUILT);
        let arguments = [sums.into(), cast(w).into(), cast(a).into()];
        let result = self.e.call(function, &arguments);
        result.expect("it has a result").into_vector_value()
    }

    /// Sums of two products of bytes. Signed weights are taken as |w| times the activation with the sign of w.
    fn pairs(&self, w: VectorValue<'c>, a: VectorValue<'c>) -> VectorValue<'c> {
        let multiply = |w: VectorValue<'c>, a: VectorValue<'c>| {
            self.call("llvm.x86.avx2.pmadd.ub.sw", &[w.into(), a.into()], false)
        };
        if !self.signed {
            return multiply(w, a);
        }
        let no = self.e.context.bool_type().const_zero();
        let magnitude = self.call("llvm.abs", &[w.into(), no.into()], true);
        let signed = self.call("llvm.x86.avx2.psign.b", &[a.into(), w.into()], false);
        multiply(magnitude, signed)
    }

    /// Sums of four products of bytes.
    fn plain(&self, w: VectorValue<'c>, a: VectorValue<'c>) -> VectorValue<'c> {
        let b = &self.e.builder;
        let wide = self.e.context.i32_type().vec_type(4 * self.lanes);
        let a = b.build_int_s_extend(a, wide, "").expect(BUILT);
        let w = match self.signed {
            true => b.build_int_s_extend(w, wide, "").expect(BUILT),
            false => b.build_int_z_extend(w, wide, "").expect(BUILT),
        };
        self.neighbours(self.neighbours(b.build_int_mul(w, a, "").expect(BUILT)))
    }

    /// Sums of neighbouring lanes.
    fn neighbours(&self, x: VectorValue<'c>) -> VectorValue<'c> {
        let half = x.get_type().get_size() / 2;
        let x: BasicValueEnum<'c> = x.into();
        let lanes = |first: u32| -> Vec<u32> { (0..half).map(|i| 2 * i + first).collect() };
        let [even, odd] = [0, 1].map(|first| self.e.shuffle(x, x, &lanes(first)));
        self.plus(even.into_vector_value(), odd.into_vector_value())
    }
}
