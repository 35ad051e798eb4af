//! Some rows of activations by the [`COLUMNS`] rows of weights of a panel.
//!
//! Lanes are rows of weights: fours of neighbouring numbers of each next to each other, so that the same four of a row of
//! activations is multiplied in every lane, and nothing has to be added across lanes.
//!
//! Where a four of a group of activations has more bits than a byte ([`crate::op::ActivationScheme::A8G32Outlier`]), its high digits
//! are multiplied once more, by the four of weights that the record names.
//!
//! Bits: of each group of 32, or half of one where halves have factors, or all of a block where both factors have one scale
//! there ([`Form::summed`]), the sum of products is exact; as `f32`, times
//! the weights' scale (an `f16`, times the integer factor), it is added times the activations' scale by a fused
//! multiply-add; then, where there is one, the minimum times the sum of the rounded activations. Group after group.

use std::cmp::Ordering;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::VectorType;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::activations::{DIGIT, NUMBERS, OUTLIERS, SCALES, SUMS, TOTALS, WORDS};
use super::dot::{Four, Whole};
use super::form::{COLUMNS, Dots, Factors, Form};
use super::strip;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// `fn(blocks, numbers, factors, scales, records, each, out, width)`: a panel, and records of activations, `each` bytes from
/// one to the next; results go to 16 columns of rows that are `width` elements apart.
pub type TileFn = unsafe extern "C" fn(
    blocks: i64,
    numbers: *const u8,
    factors: *const u8,
    scales: *const u8,
    records: *const u8,
    each: i64,
    out: *mut f32,
    width: i64,
);

/// Rows of activations of the largest kernel.
pub const HIGHEST: usize = 12;

/// How far ahead of a group's numbers memory is asked for, into the first cache, in bytes.
const AHEAD: i64 = 4096;

/// Rows of activations of the kernels of a target, the largest first, where products of so many groups are added up as whole
/// numbers.
pub fn heights(target: &Target, dots: Dots, summed: usize) -> &'static [usize] {
    match target.lanes() {
        _ if has_strips(dots, summed) => &[HIGHEST, strip::ROWS, STRIP, 2, 1],
        16 => &[HIGHEST, 8, 4, 2, 1],
        _ => &[4, 2, 1],
    }
}

/// Rows from which on a kernel is a [`strip`].
const STRIP: usize = 4;

/// Whether kernels of many rows are [`strip`]s: sums of eight lanes, group by group.
fn has_strips(dots: Dots, summed: usize) -> bool {
    matches!(dots, Dots::Pairs | Dots::Words) && summed == 1
}

/// Writes a kernel into `module`, for so many groups whose products are added up as whole numbers: 1, or those of a block; and
/// whether groups of activations have outlying fours.
pub fn emit_tile<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    (form, dots, lanes): (Form, Dots, u32),
    (rows, summed, has_outliers): (usize, usize, bool),
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let arguments = [int, ptr, ptr, ptr, ptr, int, ptr, int];
    let e = Emit::function(context, module, name, &arguments);
    [1, 2, 3, 4, 6]
        .into_iter()
        .for_each(|pointer| e.noalias(pointer));
    let record = |i: usize| {
        let before = e.mul(e.int_argument(5), e.int(i as i64));
        e.at(e.context.i8_type(), e.pointer_argument(4), before)
    };
    // Wide vectors of bytes are only multiplied by `vpdpbusd`.
    let lanes = match dots {
        Dots::Vnni => lanes.min(COLUMNS as u32),
        _ => 8,
    };
    let blocks = e.int_argument(0);
    let kernel = Kernel {
        whole: Whole::new(&e, dots, lanes, &form),
        form,
        summed,
        // High digits are in words already.
        has_outliers: has_outliers && dots != Dots::Words,
        groups: e.mul(blocks, e.int(form.groups as i64)),
        records: (0..rows).map(record).collect(),
    };
    if has_strips(dots, summed) && rows >= STRIP {
        kernel.strip();
        return e.finish();
    }
    let n = kernel.n();
    let zeros = vec![e.vector(lanes).const_zero(); rows * n];
    let range = (e.int(0), blocks, 1);
    let sums = e.carry(range, zeros, |block, sums| kernel.block(block, sums));
    for (i, sum) in sums.into_iter().enumerate() {
        let row = e.mul(e.int_argument(7), e.int((i / n) as i64));
        let at = e.add(row, e.int((i % n) as i64 * i64::from(lanes)));
        e.store(sum, e.at(e.f32(), e.pointer_argument(6), at), 4);
    }
    e.finish();
}

pub(super) struct Kernel<'e, 'm, 'c> {
    pub(super) whole: Whole<'e, 'm, 'c>,
    pub(super) form: Form,
    /// Groups whose products are added up as whole numbers.
    summed: usize,
    /// Whether a four of each group of activations has high digits.
    has_outliers: bool,
    /// Groups in a row.
    pub(super) groups: IntValue<'c>,
    pub(super) records: Vec<PointerValue<'c>>,
}

impl<'c> Kernel<'_, '_, 'c> {
    /// Vectors in a row of a panel.
    pub(super) fn n(&self) -> usize {
        COLUMNS / self.whole.lanes as usize
    }

    /// A place in a region of the panel, given by its argument: `each` bytes for every one before `index`.
    fn place(&self, region: u32, index: IntValue<'c>, each: usize) -> PointerValue<'c> {
        let e = self.whole.e;
        let at = e.mul(index, e.int(each as i64));
        e.at(e.context.i8_type(), e.pointer_argument(region), at)
    }

    fn block(&self, block: IntValue<'c>, sums: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let (e, form) = (self.whole.e, &self.form);
        let scales = self.block_scales(block);
        let first = e.mul(block, e.int(form.groups as i64));
        if form.groups == 1 {
            return self.group(first, &scales, sums);
        }
        let end = e.add(first, e.int(form.groups as i64));
        if self.summed > 1 {
            let values = |sums: &[BasicValueEnum<'c>]| -> Vec<_> {
                sums.iter().map(|sum| sum.into_vector_value()).collect()
            };
            // What the first group's sums are of is the whole block.
            let starts = self.starts(first, 0).into_iter().map(Into::into).collect();
            let all = e.carry((first, end, 1), starts, |group, all| {
                let next = self.sums(group, self.numbers(group), 0, &values(all));
                next.into_iter().map(Into::into).collect()
            });
            let all = values(&all);
            let mut next = sums.to_vec();
            self.scale_unit((first, 0), &scales, &all, &mut next);
            return next;
        }
        e.carry((first, end, 1), sums.to_vec(), |group, sums| {
            self.group(group, &scales, sums)
        })
    }

    /// All scales of a block; memory is asked for ahead of them.
    pub(super) fn block_scales(&self, block: IntValue<'c>) -> Vec<VectorValue<'c>> {
        let bytes = self.form.n_scales() * 2 * COLUMNS;
        let scales = self.place(3, block, bytes);
        for line in (0..bytes as i64).step_by(64) {
            self.whole.e.prefetch(scales, AHEAD + line, 3);
        }
        let all = 0..self.form.n_scales() * self.n();
        all.map(|i| self.scale(scales, i)).collect()
    }

    /// Vector `i` of the scales of a block.
    fn scale(&self, scales: PointerValue<'c>, i: usize) -> VectorValue<'c> {
        let (e, lanes) = (self.whole.e, self.whole.lanes);
        let halves = e.context.f16_type().vec_type(lanes);
        let from = e.int(2 * i as i64 * i64::from(lanes));
        let from = e.at(e.context.i8_type(), scales, from);
        let halves = e.load(halves, from, 16).into_vector_value();
        let wide = e.context.f32_type().vec_type(lanes);
        e.builder.build_float_ext(halves, wide, "").expect(BUILT)
    }

    fn group(
        &self,
        group: IntValue<'c>,
        scales: &[VectorValue<'c>],
        sums: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let mut next = sums.to_vec();
        let numbers = self.numbers(group);
        for unit in 0..8 / self.form.unit() {
            let whole = self.sums(group, numbers, unit, &self.starts(group, unit));
            self.scale_unit((group, unit), scales, &whole, &mut next);
        }
        next
    }

    /// Adds the sums of a unit, scaled.
    fn scale_unit(
        &self,
        (group, unit): (IntValue<'c>, usize),
        scales: &[VectorValue<'c>],
        whole: &[VectorValue<'c>],
        sums: &mut [BasicValueEnum<'c>],
    ) {
        let n = self.n();
        for j in 0..n {
            let scales = self.scales(group, scales, (unit, j));
            for (i, record) in self.records.iter().enumerate() {
                let sum = &mut sums[i * n + j];
                *sum = self.scaled((*record, group, unit), scales, (whole[i * n + j], *sum));
            }
        }
    }

    /// A sum of whole numbers, scaled, and what there is already.
    pub(super) fn scaled(
        &self,
        (record, group, unit): (PointerValue<'c>, IntValue<'c>, usize),
        [scale, min]: [Option<VectorValue<'c>>; 2],
        (whole, sum): (VectorValue<'c>, BasicValueEnum<'c>),
    ) -> BasicValueEnum<'c> {
        let e = self.whole.e;
        let value = self.whole.to_float(whole);
        let value = e.builder.build_float_mul(value, scale.expect("always"), "");
        let by = SCALES.of(e, record, self.groups, group);
        let sum = e.fma(value.expect(BUILT).into(), self.splat(by), sum);
        let Some(min) = min else { return sum };
        let by = TOTALS.of(e, record, self.groups, group);
        let by = e.at(e.f32(), by, e.int(unit as i64));
        e.fma(min.into(), self.splat(by), sum)
    }

    /// Where the numbers of a group lie; memory is asked for ahead of them.
    pub(super) fn numbers(&self, group: IntValue<'c>) -> PointerValue<'c> {
        let bytes = self.form.number_bytes();
        let numbers = self.place(1, group, bytes);
        for line in (0..bytes as i64).step_by(64) {
            self.whole.e.prefetch(numbers, AHEAD + line, 3);
        }
        numbers
    }

    /// A number in every lane.
    fn splat(&self, from: PointerValue<'c>) -> BasicValueEnum<'c> {
        let e = self.whole.e;
        e.splat(e.load(e.f32(), from, 4), self.whole.lanes)
    }

    /// Scale and minimum of vector `j` of a unit, the block's times its own factors.
    pub(super) fn scales(
        &self,
        group: IntValue<'c>,
        scales: &[VectorValue<'c>],
        (unit, j): (usize, usize),
    ) -> [Option<VectorValue<'c>>; 2] {
        let (e, b, n) = (self.whole.e, &self.whole.e.builder, self.n());
        let lanes = self.whole.lanes;
        let n_factors = self.form.n_factors();
        let factors = self.place(2, group, n_factors * COLUMNS);
        [0, 1].map(|which| {
            let scale = *scales.get(which * n + j)?;
            if self.form.factors == Factors::None {
                return Some(scale);
            }
            let each = n_factors / self.form.n_scales();
            let at = (which * each + unit) * COLUMNS + j * lanes as usize;
            let from = e.at(e.context.i8_type(), factors, e.int(at as i64));
            let bytes = e.context.i8_type().vec_type(lanes);
            let bytes = e.load(bytes, from, 8).into_vector_value();
            let wide = b.build_int_s_extend(bytes, self.whole.ints(), "");
            let factor = self.whole.to_float(wide.expect(BUILT));
            Some(b.build_float_mul(scale, factor, "").expect(BUILT))
        })
    }

    /// What the sums of a unit begin with: what pays for weights that are stored unsigned.
    fn starts(&self, group: IntValue<'c>, unit: usize) -> Vec<VectorValue<'c>> {
        let start = |record: &PointerValue<'c>| {
            let start = self.start(*record, group, unit);
            std::iter::repeat_n(start, self.n())
        };
        self.records.iter().flat_map(start).collect()
    }

    /// That of a row.
    pub(super) fn start(
        &self,
        record: PointerValue<'c>,
        group: IntValue<'c>,
        unit: usize,
    ) -> VectorValue<'c> {
        let (e, whole) = (self.whole.e, &self.whole);
        if self.form.offset == 0 {
            return whole.ints().const_zero();
        }
        let from = SUMS.of(e, record, self.groups, group);
        let from = e.at(e.context.i32_type(), from, e.int(unit as i64));
        let sum = e.load(e.context.i32_type(), from, 4);
        e.splat(sum, whole.lanes).into_vector_value()
    }

    /// The exact sums of a unit, with those before it.
    fn sums(
        &self,
        group: IntValue<'c>,
        numbers: PointerValue<'c>,
        unit: usize,
        before: &[VectorValue<'c>],
    ) -> Vec<VectorValue<'c>> {
        let (e, n, whole, fours) = (self.whole.e, self.n(), &self.whole, self.form.unit());
        let mut sums: Vec<_> = before.iter().map(|sum| whole.begin(*sum)).collect();
        for four in (unit * fours..(unit + 1) * fours).step_by(whole.step()) {
            let here = four..four + whole.step();
            let weights = |j| {
                here.clone()
                    .flat_map(move |four| self.weights(numbers, four, j))
            };
            let weights: Vec<Four<'c>> = (0..n).map(|j| weights(j).collect()).collect();
            let parts = here.start * whole.parts()..here.end * whole.parts();
            for (i, record) in self.records.iter().enumerate() {
                let row = parts.clone();
                let row = row.map(|at| self.activations(*record, group, e.int(at as i64)));
                let row: Vec<VectorValue<'c>> = row.collect();
                for (j, w) in weights.iter().enumerate() {
                    let products = w.iter().copied().zip(row.iter().copied());
                    let sum = &mut sums[i * n + j];
                    *sum = whole.add(*sum, &products.collect::<Vec<_>>());
                }
            }
        }
        let sums = sums.into_iter().zip(before);
        let mut sums: Vec<_> = sums.map(|(sum, start)| whole.finish(sum, *start)).collect();
        if self.has_outliers {
            self.add_outliers(group, numbers, &mut sums);
        }
        sums
    }

    /// Adds products of the high digits of a group's outlying fours.
    fn add_outliers(
        &self,
        group: IntValue<'c>,
        numbers: PointerValue<'c>,
        sums: &mut [VectorValue<'c>],
    ) {
        let (e, b, n, whole) = (self.whole.e, &self.whole.e.builder, self.n(), &self.whole);
        let word = e.context.i32_type();
        let worth = e.constants(32, DIGIT, whole.lanes);
        for (record, sums) in self.records.iter().zip(sums.chunks_mut(n)) {
            let at = OUTLIERS.of(e, *record, self.groups, group);
            let high = e.splat(e.load(word, at, 4), whole.lanes);
            let high = b.build_bit_cast(high, whole.bytes(), "").expect(BUILT);
            let four = e.load(word, e.at(word, at, e.int(1)), 4).into_int_value();
            let four = b.build_int_z_extend(four, e.context.i64_type(), "");
            let vector = e.mul(four.expect(BUILT), e.int(4 * COLUMNS as i64));
            for (j, sum) in sums.iter_mut().enumerate() {
                let from = e.add(vector, e.int(4 * j as i64 * i64::from(whole.lanes)));
                let from = e.at(e.context.i8_type(), numbers, from);
                let weights = e.load(whole.bytes(), from, 32).into_vector_value();
                let start = whole.ints().const_zero();
                let digits = whole.add(start, &[(weights, high.into_vector_value())]);
                let moved = b.build_left_shift(digits, worth, "").expect(BUILT);
                *sum = whole.plus(*sum, moved);
            }
        }
    }

    /// Vector `j` of a four of weights, as it is multiplied.
    pub(super) fn weights(&self, numbers: PointerValue<'c>, four: usize, j: usize) -> Four<'c> {
        self.whole.weights(self.numbers_of(numbers, four, j))
    }

    /// Vector `j` of a four of weights: the bits of all planes, each moved to its place.
    fn numbers_of(&self, numbers: PointerValue<'c>, four: usize, j: usize) -> VectorValue<'c> {
        let (e, b, whole) = (self.whole.e, &self.whole.e.builder, &self.whole);
        if self.form.is_signs() {
            return self.signs(numbers, four, j);
        }
        let mut region = 0;
        let mut all: Option<VectorValue<'c>> = None;
        for plane in self.form.planes {
            let vector = four % plane.bits * COLUMNS + j * whole.lanes as usize;
            let from = e.int((region + 4 * vector) as i64);
            region += plane.bits * 4 * COLUMNS;
            let from = e.at(e.context.i8_type(), numbers, from);
            let mut bits = e.load(whole.ints(), from, 32).into_vector_value();
            let (is, should) = (four / plane.bits * plane.bits, plane.at);
            let by = |n: usize| e.constants(32, n as i64, whole.lanes);
            if is > should {
                let moved = b.build_right_shift(bits, by(is - should), false, "");
                bits = moved.expect(BUILT);
            } else if is < should {
                bits = b.build_left_shift(bits, by(should - is), "").expect(BUILT);
            }
            if plane.bits < 8 {
                // What came from a neighbouring byte goes away here too.
                let mask = ((1 << plane.bits) - 1) << plane.at;
                let mask = e.constants(32, mask * 0x0101_0101, whole.lanes);
                bits = b.build_and(bits, mask, "").expect(BUILT);
            }
            all = Some(match all {
                None => bits,
                Some(low) => b.build_or(low, bits, "").expect(BUILT),
            });
        }
        let all = all.expect("a form has planes");
        let bytes = b.build_bit_cast(all, whole.bytes(), "").expect(BUILT);
        bytes.into_vector_value()
    }

    /// [`Kernel::numbers_of`] a form whose numbers have one bit: the bytes of each column brought together first, once for all
    /// fours and rows.
    fn signs(&self, numbers: PointerValue<'c>, four: usize, j: usize) -> VectorValue<'c> {
        let (e, b, whole) = (self.whole.e, &self.whole.e.builder, &self.whole);
        let lanes = whole.lanes;
        let mixed = |x: VectorValue<'c>, y: VectorValue<'c>| {
            let n = x.get_type().get_size();
            let order: Vec<u32> = (0..2 * n).map(|i| i / 2 + i % 2 * n).collect();
            e.shuffle(x.into(), y.into(), &order).into_vector_value()
        };
        let cast = |x: VectorValue<'c>, kind: VectorType<'c>| {
            let cast = b.build_bit_cast(x, kind, "").expect(BUILT);
            cast.into_vector_value()
        };
        let byte = e.context.i8_type();
        let bytes = [0, 1, 2, 3].map(|place| {
            let from = place * COLUMNS + j * lanes as usize;
            let from = e.at(byte, numbers, e.int(from as i64));
            e.load(byte.vec_type(lanes), from, lanes)
                .into_vector_value()
        });
        let pairs = e.context.i16_type().vec_type(lanes);
        let [low, high] = [mixed(bytes[0], bytes[1]), mixed(bytes[2], bytes[3])];
        let all = cast(mixed(cast(low, pairs), cast(high, pairs)), whole.ints());
        let moved = match four.cmp(&1) {
            Ordering::Less => b.build_left_shift(all, e.constants(32, 1, lanes), ""),
            Ordering::Equal => Ok(all),
            Ordering::Greater => {
                let by = e.constants(32, four as i64 - 1, lanes);
                b.build_right_shift(all, by, false, "")
            }
        };
        // A bit is worth 2.
        let mask = e.constants(32, 0x0202_0202, lanes);
        let bits = b.build_and(moved.expect(BUILT), mask, "").expect(BUILT);
        cast(bits, whole.bytes())
    }

    /// A four of a row of activations in every lane, or one of its two parts.
    pub(super) fn activations(
        &self,
        record: PointerValue<'c>,
        group: IntValue<'c>,
        at: IntValue<'c>,
    ) -> VectorValue<'c> {
        let (e, whole) = (self.whole.e, &self.whole);
        let part = match whole.dots {
            Dots::Words => WORDS,
            _ => NUMBERS,
        };
        let word = e.context.i32_type();
        let from = part.of(e, record, self.groups, group);
        let all = e.splat(e.load(word, e.at(word, from, at), 4), whole.lanes);
        let all = e.builder.build_bit_cast(all, whole.vectors(), "");
        all.expect(BUILT).into_vector_value()
    }
}
