//! Rows of activations in 8 bits, as the kernels read them.
//!
//! A row of `b` groups of 32 becomes a *record*:
//!
//! | from byte | what |
//! |---|---|
//! | 0 | 32 `i8` a group |
//! | 32 b | 2 `i32` a group: the sum of its numbers times [`RowForm::factor`], or those of its halves |
//! | 40 b | a group's scale, `f32` |
//! | 44 b | 2 `f32` a group: the sum of its numbers times its scale, or those of its halves |
//! | 52 b | 2 `i32` a group, if it has an outlying four: four `i8`, the high digits of its numbers, and the four |
//! | 52 b | with [`Dots::Words`] 32 `i16` a group, of each four the numbers 0, 2, 1 and 3; nothing from 0 then |
//!
//! A number of an outlying four is 128 times its high digit and what lies among the 32 `i8`
//! ([`ActivationScheme::A8G32Outlier`]); words hold it as it is.
//!
//! The first sums pay for weights that are stored unsigned, `Σ (u - c) a = Σ u a - c Σ a`, the second ones for minima,
//! `Σ m x = m Σ x`. Where products of several groups are added up as whole numbers ([`RowForm::summed`]), the first sum of the
//! first of them is that of all.
//!
//! The numbers are those of [`activation_scale`](crate::op::activation_scale), bit for bit: largest magnitude by
//! comparing bit patterns (so infinities and NaNs show), rounding by adding and subtracting 1.5 * 2^23.

use inkwell::FloatPredicate;
use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::VectorType;
use inkwell::values::{BasicValueEnum, FloatValue, IntValue, PointerValue, VectorValue};

use super::form::{Dots, Factors, Form, GROUP};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::op::{ActivationScheme, OUTLIER_TOP};

/// `fn(groups, x, record)`: writes the record of a row.
pub type RoundFn = unsafe extern "C" fn(groups: i64, x: *const f32, record: *mut u8);

/// What a record depends on beside the scheme.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowForm {
    /// What sums of whole numbers are multiplied by.
    pub factor: i32,
    /// Whether halves of groups have sums of their own.
    pub halves: bool,
    /// How many groups' products are added up as whole numbers, where they share a scale; otherwise 1.
    pub summed: usize,
    /// Whether numbers are words.
    pub words: bool,
}

impl RowForm {
    /// For weights of a form, of which products of so many groups are added up as whole numbers.
    pub fn of(form: &Form, dots: Dots, summed: usize) -> RowForm {
        RowForm {
            factor: -form.offset,
            halves: form.factors == Factors::Halves,
            summed,
            words: dots == Dots::Words,
        }
    }
}

/// A part of a record.
#[derive(Clone, Copy)]
pub struct Part {
    /// Bytes before it, for each group of the row.
    from: usize,
    /// Bytes of a group.
    step: usize,
}

const fn part(from: usize, step: usize) -> Part {
    Part { from, step }
}

/// The numbers, `i8`.
pub const NUMBERS: Part = part(0, 32);
/// Sums of whole numbers.
pub const SUMS: Part = part(32, 8);
/// Scales.
pub const SCALES: Part = part(40, 4);
/// Sums of rounded numbers.
pub const TOTALS: Part = part(44, 8);

impl Part {
    /// Where a group's share lies in the record of a row of `groups` groups.
    pub fn of<'c>(
        self,
        e: &Emit<'_, 'c>,
        record: PointerValue<'c>,
        groups: IntValue<'c>,
        group: IntValue<'c>,
    ) -> PointerValue<'c> {
        let start = e.mul(groups, e.int(self.from as i64));
        let at = e.add(start, e.mul(group, e.int(self.step as i64)));
        e.at(e.context.i8_type(), record, at)
    }
}

/// The outlying four.
pub const OUTLIERS: Part = part(52, 8);

/// The numbers as words, in pairs: even ones and odd ones of each four.
pub const WORDS: Part = part(52, 64);

/// Bytes of a record of `groups` groups, a multiple of 64.
pub fn record_bytes(groups: usize, dots: Dots) -> usize {
    let last = match dots {
        Dots::Words => WORDS,
        _ => OUTLIERS,
    };
    ((last.from + last.step) * groups).next_multiple_of(64)
}

/// What a high digit is worth: two to this.
pub const DIGIT: i64 = 7;

/// 1.5 * 2^23: a number below 2^22 added to it is rounded to a whole number, to even at a tie.
pub(in crate::compilers::llvm_cpu) const MAGIC: f32 = 12_582_912.0;

/// Whole numbers nearest to `x * factor`, lane by lane; all 0 if the factor, one number, is 0.
pub(in crate::compilers::llvm_cpu) fn rounded<'c>(
    e: &Emit<'_, 'c>,
    x: BasicValueEnum<'c>,
    factor: BasicValueEnum<'c>,
) -> BasicValueEnum<'c> {
    let (b, x) = (&e.builder, x.into_vector_value());
    let lanes = x.get_type().get_size();
    let word = e.context.i32_type();
    let zero = e.context.f32_type().const_zero();
    let none = b.build_float_compare(FloatPredicate::OEQ, factor.into_float_value(), zero, "");
    let magic = e.context.f32_type().const_float(f64::from(MAGIC));
    let factor = e.splat(factor, lanes).into_vector_value();
    let scaled = b.build_float_mul(x, factor, "").expect(BUILT);
    let sum = e.fadd(scaled.into(), e.splat(magic.into(), lanes));
    let kind = word.vec_type(lanes);
    let bits = b.build_bit_cast(sum, kind, "").expect(BUILT);
    let offset = word.const_int(u64::from(MAGIC.to_bits()), false);
    let offset = e.splat(offset.into(), lanes).into_vector_value();
    let whole = b.build_int_sub(bits.into_vector_value(), offset, "");
    let nothing = kind.const_zero().into();
    e.select(
        none.expect(BUILT).into(),
        nothing,
        whole.expect(BUILT).into(),
    )
}

/// Writes the function that makes records into `module`, for a scheme of 8 bits.
pub fn emit_round<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    scheme: ActivationScheme,
    form: RowForm,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr]);
    (1..3).for_each(|pointer| e.noalias(pointer));
    let round = Round { e: &e, form };
    let n = e.int_argument(0);
    let step = |group: usize| (group / GROUP) as i64;
    match scheme {
        ActivationScheme::A8G32 => e.each(e.int(0), n, 1, |block| round.single(block)),
        ActivationScheme::A8G32Outlier => e.each(e.int(0), n, 1, |block| round.outlier(block)),
        ActivationScheme::A8G128 | ActivationScheme::A8G256 => {
            // Rows of any length have the same groups.
            let blocks = step(scheme.group(0));
            e.each(e.int(0), n, blocks, |first| {
                round.several(first, e.min(e.add(first, e.int(blocks)), n));
            });
        }
        _ => round.several(e.int(0), n),
    }
    e.finish();
}

struct Round<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    form: RowForm,
}

impl<'c> Round<'_, '_, 'c> {
    fn lanes(&self) -> u32 {
        GROUP as u32
    }

    /// The block's numbers.
    fn load(&self, block: IntValue<'c>) -> BasicValueEnum<'c> {
        let e = self.e;
        let from = e.at(
            e.f32(),
            e.pointer_argument(1),
            e.mul(block, e.int(GROUP as i64)),
        );
        e.load(e.vector(self.lanes()), from, 4)
    }

    /// Magnitudes as whole numbers, which order like them.
    fn bits(&self, x: BasicValueEnum<'c>) -> BasicValueEnum<'c> {
        let e = self.e;
        let kind = e.context.i32_type().vec_type(self.lanes());
        let bits = e.builder.build_bit_cast(x, kind, "").expect(BUILT);
        let mask = e.context.i32_type().const_int(0x7fff_ffff, false);
        let mask = e.splat(mask.into(), self.lanes()).into_vector_value();
        let and = e.builder.build_and(bits.into_vector_value(), mask, "");
        and.expect(BUILT).into()
    }

    fn largest(&self, bits: BasicValueEnum<'c>) -> IntValue<'c> {
        let reduce = self.e.intrinsic(
            "llvm.vector.reduce.umax",
            &[bits.get_type()],
            &[bits.into()],
        );
        reduce.expect("it has a result").into_int_value()
    }

    fn larger(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        let more = self.e.compare(IntPredicate::UGT, a, b);
        self.e
            .select(more.into(), a.into(), b.into())
            .into_int_value()
    }

    /// A magnitude with these bits, times a factor.
    fn times(&self, bits: IntValue<'c>, factor: f32) -> FloatValue<'c> {
        let (e, b) = (self.e, &self.e.builder);
        let value = b.build_bit_cast(bits, e.f32(), "").expect(BUILT);
        let factor = e.context.f32_type().const_float(f64::from(factor));
        let product = b.build_float_mul(value.into_float_value(), factor, "");
        product.expect(BUILT)
    }

    /// Scale and factor of a group whose largest magnitude has these bits.
    fn scale(&self, largest: IntValue<'c>) -> [BasicValueEnum<'c>; 2] {
        self.inverse(self.times(largest, 1.0 / 127.0), largest)
    }

    /// A scale as it is stored, and the factor, of a group whose largest magnitude has these bits.
    fn inverse(&self, scale: FloatValue<'c>, largest: IntValue<'c>) -> [BasicValueEnum<'c>; 2] {
        let e = self.e;
        let float = |x: f32| e.context.f32_type().const_float(f64::from(x));
        let tiny = float(f32::MIN_POSITIVE);
        let is_tiny = e
            .builder
            .build_float_compare(FloatPredicate::ULT, scale, tiny, "");
        let is_tiny = is_tiny.expect(BUILT);
        let infinity = e.context.i32_type().const_int(0x7f80_0000, false);
        let is_wild = e.compare(IntPredicate::UGE, largest, infinity);
        let inverse = e
            .builder
            .build_float_div(float(1.0), scale, "")
            .expect(BUILT);
        let zero = float(0.0).into();
        let scale = e.select(is_tiny.into(), zero, scale.into());
        let scale = e.select(is_wild.into(), float(f32::NAN).into(), scale);
        let none = e.builder.build_or(is_tiny, is_wild, "").expect(BUILT);
        [scale, e.select(none.into(), zero, inverse.into())]
    }

    /// A block with a scale of its own.
    fn single(&self, block: IntValue<'c>) {
        let x = self.load(block);
        let [scale, inverse] = self.scale(self.largest(self.bits(x)));
        self.store(block, rounded(self.e, x, inverse), scale);
    }

    /// A block with a scale of its own for all but the four with the largest number.
    fn outlier(&self, block: IntValue<'c>) {
        let (e, b) = (self.e, &self.e.builder);
        let word = e.context.i32_type();
        let x = self.load(block);
        let fours = self.fours(self.bits(x));
        let largest = self.largest(fours.into());
        let order: Vec<_> = (0..8).map(|i| word.const_int(i, false)).collect();
        let order = VectorType::const_vector(&order);
        let is_largest = b.build_int_compare(
            IntPredicate::EQ,
            fours,
            e.splat(largest.into(), 8).into_vector_value(),
            "",
        );
        let none = e.constants(32, 8, 8);
        let first = e.select(is_largest.expect(BUILT).into(), order.into(), none.into());
        let first = e.intrinsic(
            "llvm.vector.reduce.umin",
            &[first.get_type()],
            &[first.into()],
        );
        let four = first.expect("it has a result").into_int_value();
        let is_four = |lanes: u32, order: VectorValue<'c>| {
            let four = e.splat(four.into(), lanes).into_vector_value();
            let same = b.build_int_compare(IntPredicate::EQ, order, four, "");
            same.expect(BUILT).into()
        };
        let zeros = e.constants(32, 0, 8).into();
        let others = e.select(is_four(8, order), zeros, fours.into());
        let plain = self.times(self.largest(others), 1.0 / 127.0);
        let wide = self.times(largest, 1.0 / OUTLIER_TOP);
        let more = b.build_float_compare(FloatPredicate::OGT, plain, wide, "");
        let scale = e.select(more.expect(BUILT).into(), plain.into(), wide.into());
        let [scale, inverse] = self.inverse(scale.into_float_value(), largest);
        let whole = rounded(e, x, inverse).into_vector_value();
        let lanes: Vec<u32> = (0..self.lanes()).map(|i| i / 4).collect();
        let order = e
            .shuffle(order.into(), order.into(), &lanes)
            .into_vector_value();
        match self.form.words {
            true => self.store_numbers(block, whole.into()),
            false => {
                let digits = self.digits(whole, is_four(self.lanes(), order));
                self.store_high(block, digits[0], four);
                self.store_numbers(block, digits[1].into());
            }
        }
        self.store_sums(block, whole.into(), scale);
    }

    /// The largest of each four of magnitudes.
    fn fours(&self, bits: BasicValueEnum<'c>) -> VectorValue<'c> {
        let halved = |x: BasicValueEnum<'c>, half: u32| {
            let lanes = |first: u32| -> Vec<u32> { (0..half).map(|i| 2 * i + first).collect() };
            let [even, odd] = [0, 1].map(|first| self.e.shuffle(x, x, &lanes(first)));
            let max = self
                .e
                .intrinsic("llvm.umax", &[even.get_type()], &[even.into(), odd.into()]);
            max.expect("it has a result")
        };
        halved(halved(bits, 16), 8).into_vector_value()
    }

    /// High and low digits of whole numbers; high ones are 0 but in some lanes.
    fn digits(&self, whole: VectorValue<'c>, lanes: BasicValueEnum<'c>) -> [VectorValue<'c>; 2] {
        let (e, b) = (self.e, &self.e.builder);
        let all = |value: i64| e.constants(32, value, self.lanes());
        let half = b
            .build_int_add(whole, all(1 << (DIGIT - 1)), "")
            .expect(BUILT);
        let high = b
            .build_right_shift(half, all(DIGIT), true, "")
            .expect(BUILT);
        let high = e
            .select(lanes, high.into(), all(0).into())
            .into_vector_value();
        let worth = b.build_left_shift(high, all(DIGIT), "").expect(BUILT);
        let low = b.build_int_sub(whole, worth, "").expect(BUILT);
        [high, low]
    }

    /// Stores the high digits of a four, which others have none of, and where its weights lie.
    fn store_high(&self, group: IntValue<'c>, high: VectorValue<'c>, four: IntValue<'c>) {
        let (e, b) = (self.e, &self.e.builder);
        let word = e.context.i32_type();
        let bytes = e.context.i8_type().vec_type(self.lanes());
        let narrow = b.build_int_truncate(high, bytes, "").expect(BUILT);
        let words = b.build_bit_cast(narrow, word.vec_type(8), "").expect(BUILT);
        let all = e.intrinsic(
            "llvm.vector.reduce.or",
            &[words.get_type()],
            &[words.into()],
        );
        let at = self.place(OUTLIERS, group);
        e.store(all.expect("it has a result"), at, 4);
        e.store(four, e.at(word, at, e.int(1)), 4);
    }

    /// Blocks that share a scale.
    fn several(&self, first: IntValue<'c>, end: IntValue<'c>) {
        let e = self.e;
        let zero = e.context.i32_type().const_zero().into();
        let largest = e.carry((first, end, 1), vec![zero], |block, largest| {
            let here = self.largest(self.bits(self.load(block)));
            vec![self.larger(largest[0].into_int_value(), here).into()]
        });
        let [scale, inverse] = self.scale(largest[0].into_int_value());
        e.each(first, end, 1, |block| {
            self.store(block, rounded(e, self.load(block), inverse), scale);
        });
        if self.form.summed > 1 {
            let summed = self.form.summed as i64;
            e.each(first, end, summed, |block| self.gather_sums(block));
        }
    }

    /// The sum of a block's groups for the first of them.
    fn gather_sums(&self, first: IntValue<'c>) {
        let (e, word) = (self.e, self.e.context.i32_type());
        let sum = |group: i64| {
            let from = self.place(SUMS, e.add(first, e.int(group)));
            e.load(word, from, 4).into_int_value()
        };
        let all = (1..self.form.summed as i64).fold(sum(0), |all, group| {
            let sum = e.builder.build_int_add(all, sum(group), "");
            sum.expect(BUILT)
        });
        e.store(all, self.place(SUMS, first), 4);
    }

    /// Where a group's share of a part is written.
    fn place(&self, part: Part, group: IntValue<'c>) -> PointerValue<'c> {
        let e = self.e;
        part.of(e, e.pointer_argument(2), e.int_argument(0), group)
    }

    fn store(&self, group: IntValue<'c>, whole: BasicValueEnum<'c>, scale: BasicValueEnum<'c>) {
        self.store_numbers(group, whole);
        self.store_sums(group, whole, scale);
    }

    /// Stores whole numbers that fit bytes, or words.
    fn store_numbers(&self, group: IntValue<'c>, whole: BasicValueEnum<'c>) {
        let (e, b, n) = (self.e, &self.e.builder, self.lanes());
        if !self.form.words {
            let bytes = e.context.i8_type().vec_type(n);
            let narrow = b.build_int_truncate(whole.into_vector_value(), bytes, "");
            return e.store(narrow.expect(BUILT), self.place(NUMBERS, group), 1);
        }
        let pairs: Vec<u32> = (0..n)
            .map(|i| i / 4 * 4 + [0, 2, 1, 3][i as usize % 4])
            .collect();
        let whole = e.shuffle(whole, whole, &pairs).into_vector_value();
        let words = e.context.i16_type().vec_type(n);
        let narrow = b.build_int_truncate(whole, words, "").expect(BUILT);
        e.store(narrow, self.place(WORDS, group), 1);
    }

    /// Stores a scale, and the sums of whole numbers.
    fn store_sums(
        &self,
        group: IntValue<'c>,
        whole: BasicValueEnum<'c>,
        scale: BasicValueEnum<'c>,
    ) {
        let (e, b) = (self.e, &self.e.builder);
        e.store(scale, self.place(SCALES, group), 4);
        let half = |first: u32| -> Vec<u32> { (first..first + 16).collect() };
        let parts = match self.form.halves {
            true => vec![
                e.shuffle(whole, whole, &half(0)),
                e.shuffle(whole, whole, &half(16)),
            ],
            false => vec![whole],
        };
        for (i, part) in parts.into_iter().enumerate() {
            let sum = e.intrinsic("llvm.vector.reduce.add", &[part.get_type()], &[part.into()]);
            let sum = sum.expect("it has a result").into_int_value();
            let factor = e.context.i32_type();
            let factor = factor.const_int(i64::from(self.form.factor) as u64, true);
            let at = |part| {
                e.at(
                    e.context.i32_type(),
                    self.place(part, group),
                    e.int(i as i64),
                )
            };
            e.store(b.build_int_mul(sum, factor, "").expect(BUILT), at(SUMS), 4);
            let total = b.build_signed_int_to_float(sum, e.f32(), "").expect(BUILT);
            let total = b.build_float_mul(total, scale.into_float_value(), "");
            e.store(total.expect(BUILT), at(TOTALS), 4);
        }
    }
}
