//! Sums of products of bytes, by the instructions that a target has: an accumulator that takes fours of products.

use inkwell::types::VectorType;
use inkwell::values::{BasicMetadataValueEnum, BasicValueEnum, VectorValue};

use super::form::{Dots, Form};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// How fours of weights and activations are multiplied and added up, each 32-bit lane by itself.
///
/// A unit's sum begins with [`Whole::begin`], takes [`Whole::step`] fours at a time and becomes an `i32` by [`Whole::finish`].
pub struct Whole<'e, 'm, 'c> {
    /// Where code goes.
    pub e: &'e Emit<'m, 'c>,
    /// With what.
    pub dots: Dots,
    /// Lanes of 32 bits.
    pub lanes: u32,
    /// How many fours sums of pairs in `i16` hold.
    most: usize,
    /// Fours of a unit.
    unit: usize,
}

/// A four of weights in every lane, as instructions take it: bytes, or the even and the odd ones as words.
pub type Four<'c> = Vec<VectorValue<'c>>;

impl<'e, 'm, 'c> Whole<'e, 'm, 'c> {
    /// For weights of a form.
    pub fn new(e: &'e Emit<'m, 'c>, dots: Dots, lanes: u32, form: &Form) -> Self {
        Whole {
            e,
            dots,
            lanes,
            // A pair is at most 2 u 127.
            most: (i32::from(i16::MAX) / (2 * form.largest() * 127)) as usize,
            unit: form.unit(),
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

    /// Vectors of words.
    fn words(&self) -> VectorType<'c> {
        self.e.context.i16_type().vec_type(2 * self.lanes)
    }

    /// Whether sums of pairs hold a whole unit.
    fn holds_unit(&self) -> bool {
        self.dots == Dots::Pairs && self.most >= self.unit
    }

    /// How many fours [`Whole::add`] takes.
    pub fn step(&self) -> usize {
        match self.dots {
            Dots::Pairs if !self.holds_unit() => self.most,
            _ => 1,
        }
    }

    /// The accumulator of a unit whose sum begins with this.
    pub fn begin(&self, start: VectorValue<'c>) -> VectorValue<'c> {
        match self.holds_unit() {
            true => self.words().const_zero(),
            false => start,
        }
    }

    /// The sum of a unit that began with this.
    pub fn finish(&self, sum: VectorValue<'c>, start: VectorValue<'c>) -> VectorValue<'c> {
        match self.holds_unit() {
            true => self.plus(start, self.fours(sum)),
            false => sum,
        }
    }

    /// Vectors of weights or activations as they are multiplied.
    pub fn vectors(&self) -> VectorType<'c> {
        match self.dots {
            Dots::Words => self.words(),
            _ => self.bytes(),
        }
    }

    /// How many vectors a four has.
    pub fn parts(&self) -> usize {
        match self.dots {
            Dots::Words => 2,
            _ => 1,
        }
    }

    /// Weights, unsigned bytes, as they are multiplied.
    pub fn weights(&self, bytes: VectorValue<'c>) -> Four<'c> {
        if self.dots != Dots::Words {
            return vec![bytes];
        }
        let b = &self.e.builder;
        let words = b.build_bit_cast(bytes, self.words(), "").expect(BUILT);
        let words = words.into_vector_value();
        let all = |x: i64| self.e.constants(16, x, 2 * self.lanes);
        let even = b.build_and(words, all(0xff), "").expect(BUILT);
        let odd = b.build_right_shift(words, all(8), false, "").expect(BUILT);
        vec![even, odd]
    }

    /// Adds products of vectors of weights and of activations: those of [`Whole::step`] fours, or a part of one.
    pub fn add(
        &self,
        sum: VectorValue<'c>,
        products: &[(VectorValue<'c>, VectorValue<'c>)],
    ) -> VectorValue<'c> {
        let products = products.iter().copied();
        match self.dots {
            Dots::Vnni => products.fold(sum, |sum, (w, a)| self.vnni(sum, w, a)),
            Dots::Plain => products.fold(sum, |sum, (w, a)| self.plus(sum, self.plain(w, a))),
            Dots::Words => {
                let two = |w: VectorValue<'c>, a: VectorValue<'c>| {
                    self.call("llvm.x86.avx2.pmadd.wd", &[w.into(), a.into()])
                };
                products.fold(sum, |sum, (w, a)| self.plus(sum, two(w, a)))
            }
            Dots::Pairs => {
                let pairs = products
                    .map(|(w, a)| self.call("llvm.x86.avx2.pmadd.ub.sw", &[w.into(), a.into()]));
                let pairs = pairs.reduce(|x, y| self.plus(x, y)).expect("there is one");
                match self.holds_unit() {
                    true => self.plus(sum, pairs),
                    false => self.plus(sum, self.fours(pairs)),
                }
            }
        }
    }

    /// Sums of neighbouring words.
    fn fours(&self, pairs: VectorValue<'c>) -> VectorValue<'c> {
        let ones = self.e.constants(16, 1, 2 * self.lanes);
        self.call("llvm.x86.avx2.pmadd.wd", &[pairs.into(), ones.into()])
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

    fn call(&self, name: &str, arguments: &[BasicMetadataValueEnum<'c>]) -> VectorValue<'c> {
        let result = self.e.intrinsic(name, &[], arguments);
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

    /// Sums of four products of bytes.
    fn plain(&self, w: VectorValue<'c>, a: VectorValue<'c>) -> VectorValue<'c> {
        let b = &self.e.builder;
        let wide = self.e.context.i32_type().vec_type(4 * self.lanes);
        let a = b.build_int_s_extend(a, wide, "").expect(BUILT);
        let w = b.build_int_z_extend(w, wide, "").expect(BUILT);
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
