//! Rows of numbers → levels as planes of bits, and the kernels that count them.
//!
//! ```text
//! x: f32[k]  ->  16 sums of magnitudes  ->  scale and factor  ->  codes of 32 numbers  ->  a word of each plane
//! ```
//! A row is read twice, the second time from the nearest cache: for its mean magnitude, then 32 numbers at a time. Their codes are
//! found without a rounding instruction, which not every target has: a number that lies in the range of levels is cut to a whole
//! one, and one less where that is more. What the bytes are, [`Planes`] says; the rest of a row is packed by its functions.
//!
//! Kernels are those of [`super::counts`], with as many rows of bits as others of the target have, taken together in rows of
//! planes. They are compiled where a product needs them.

use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, VectorValue};
use inkwell::{FloatPredicate, IntPredicate};

use super::by_rows;
use super::counts::{self, CountFn, Form, Output, emit_count};
use super::ir::{Factor, SignProduct};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::op::Planes;
use crate::op::planes::{LANES, SCALE_BYTES, add_magnitudes, sum_of_lanes};

/// Numbers whose bits are stored at a time.
const WORD: usize = 32;

/// Writes the sums of magnitudes of so many times 16 numbers, lane by lane.
pub type MagnitudesFn = unsafe extern "C" fn(sixteens: i64, x: *const f32, lanes: *mut f32);

/// Writes so many words of every plane of numbers times a factor; planes are `step` bytes apart.
pub type PackPlanesFn =
    unsafe extern "C" fn(words: i64, x: *const f32, factor: *const f32, bits: *mut u8, step: i64);

/// Writes [`MagnitudesFn`] into `module`.
pub fn emit_magnitudes<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr]);
    let kind = context.f32_type().vec_type(LANES as u32);
    let range = (e.int(0), e.int_argument(0), 1);
    let sums = e.carry(range, vec![kind.const_zero().into()], |at, sums| {
        let x = e.load(kind, e.at(kind, e.pointer_argument(1), at), 4);
        let sizes = e.intrinsic("llvm.fabs", &[kind.into()], &[x.into()]);
        vec![e.fadd(sums[0], sizes.expect("it has a result"))]
    });
    e.store(sums[0], e.pointer_argument(2), 4);
    e.finish();
}

/// Writes [`PackPlanesFn`] into `module`.
pub fn emit_pack_planes<'c>(context: &'c Context, module: &Module<'c>, name: &str, planes: Planes) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr, int]);
    e.noalias(3);
    let (b, word) = (&e.builder, context.i32_type());
    let factor = e.splat(e.load(e.f32(), e.pointer_argument(2), 4), WORD as u32);
    e.each(e.int(0), e.int_argument(0), 1, |at| {
        let first = e.mul(at, e.int(WORD as i64));
        let from = e.at(e.f32(), e.pointer_argument(1), first);
        let x = e.load(e.vector(WORD as u32), from, 4).into_vector_value();
        let scaled = b.build_float_mul(x, factor.into_vector_value(), "");
        let codes = codes(&e, scaled.expect(BUILT), planes);
        for plane in 0..planes.n() {
            let bit = e.constants(32, 1 << plane, WORD as u32);
            let bits = b.build_and(codes, bit, "").expect(BUILT);
            let zero = codes.get_type().const_zero();
            let set = b.build_int_compare(IntPredicate::NE, bits, zero, "");
            let set = b.build_bit_cast(set.expect(BUILT), word, "").expect(BUILT);
            let start = e.mul(e.int_argument(4), e.int(plane as i64));
            let to = e.at(context.i8_type(), e.pointer_argument(3), start);
            e.store(set.into_int_value(), e.at(word, to, at), 1);
        }
    });
    e.finish();
}

/// How many levels lie below that of each number, which is given as so many double scales.
fn codes<'c>(e: &Emit<'_, 'c>, x: VectorValue<'c>, planes: Planes) -> VectorValue<'c> {
    let (b, lanes) = (&e.builder, x.get_type().get_size());
    let half = (planes.levels() / 2) as f64;
    let float = |value: f64| {
        let value = e.context.f32_type().const_float(value);
        e.splat(value.into(), lanes).into_vector_value()
    };
    let instead = |how: FloatPredicate, x: VectorValue<'c>, limit: VectorValue<'c>, other| {
        let is = b.build_float_compare(how, x, limit, "").expect(BUILT);
        let chosen: BasicValueEnum<'c> = b.build_select(is, other, x, "").expect(BUILT);
        chosen.into_vector_value()
    };
    let (low, high) = (float(-half), float(half - 0.5));
    let x = instead(FloatPredicate::UNO, x, x, x.get_type().const_zero());
    let x = instead(FloatPredicate::OLT, x, low, low);
    let x = instead(FloatPredicate::OGT, x, high, high);
    let kind = e.context.i32_type().vec_type(lanes);
    let whole = b.build_float_to_signed_int(x, kind, "").expect(BUILT);
    let back = b.build_signed_int_to_float(whole, x.get_type(), "");
    let is_more = b.build_float_compare(FloatPredicate::OLT, x, back.expect(BUILT), "");
    let one_less = b.build_int_s_extend(is_more.expect(BUILT), kind, "");
    let whole = b.build_int_add(whole, one_less.expect(BUILT), "");
    let half = e.constants(32, half as i64, lanes);
    b.build_int_add(whole.expect(BUILT), half, "").expect(BUILT)
}

/// What packs rows.
#[derive(Clone, Copy, Debug)]
pub struct PlanePacker {
    planes: Planes,
    magnitudes: MagnitudesFn,
    pack: PackPlanesFn,
}

impl PlanePacker {
    /// Compiles and links; `jit` must live as long as the result is used.
    ///
    /// # Errors
    /// Failure of LLVM or the linker.
    pub fn link(
        planes: Planes,
        (target, cache): (&Target, &ObjectCache),
        jit: &Jit,
    ) -> Result<PlanePacker> {
        let n = planes.n();
        let part = target.symbol_part();
        let [pack, magnitudes] = ["pack", "sizes"].map(|what| format!("planes_{n}_{what}_{part}"));
        static MADE: OncePerProcess<(Target, Planes), Vec<u8>> = OncePerProcess::new();
        let object = MADE.get_or_make((target.clone(), planes), |(target, planes)| {
            compile_module_cached(target, cache, |context, module| {
                emit_pack_planes(context, module, &pack, *planes);
                emit_magnitudes(context, module, &magnitudes);
                Ok(())
            })
        })?;
        jit.add_once(&pack, &object)?;
        // SAFETY: the symbols are of functions that were written just above, with these signatures.
        unsafe {
            Ok(PlanePacker {
                planes,
                magnitudes: std::mem::transmute::<*const (), MagnitudesFn>(
                    jit.address(&magnitudes)?,
                ),
                pack: std::mem::transmute::<*const (), PackPlanesFn>(jit.address(&pack)?),
            })
        }
    }

    /// Writes the bytes of a row.
    ///
    /// # Panics
    /// If there is not as much room as [`Planes::row_bytes`] says.
    pub fn pack(&self, x: &[f32], row: &mut [u8]) {
        assert_eq!(row.len(), self.planes.row_bytes(x.len()));
        let (whole, rest) = x.split_at(x.len() / LANES * LANES);
        let mut lanes = [0.0; LANES];
        let sixteens = (whole.len() / LANES) as i64;
        // SAFETY: so many numbers, and 16 lanes.
        unsafe { (self.magnitudes)(sixteens, whole.as_ptr(), lanes.as_mut_ptr()) };
        add_magnitudes(rest, &mut lanes);
        let (scale, factor) = self.planes.scale(x.len(), sum_of_lanes(lanes));
        let (first, bits) = row.split_at_mut(SCALE_BYTES);
        first.copy_from_slice(&scale.to_le_bytes());
        let step = x.len().div_ceil(8);
        let words = x.len() / WORD;
        // SAFETY: so many words of numbers; planes of `step` bytes, which hold so many words of bits.
        unsafe {
            let to = bits.as_mut_ptr();
            (self.pack)(words as i64, x.as_ptr(), &factor, to, step as i64);
        }
        let rest = &x[words * WORD..];
        if !rest.is_empty() {
            let from = words * WORD / 8;
            self.planes
                .pack_codes((rest, factor), &mut bits[from..], step);
        }
    }
}

/// The kernels that count planes, by rows, the most first.
#[derive(Debug)]
pub struct PlaneKernels {
    planes: Planes,
    counts: Vec<(usize, CountFn)>,
}

/// Rows of planes of the kernels of a target, the most first.
pub fn heights(target: &Target, planes: Planes) -> Vec<usize> {
    let lines = counts::heights(target).iter();
    let rows = lines.map(|lines| lines / planes.n());
    let rows: Vec<usize> = rows.filter(|rows| *rows > 0).collect();
    if rows.is_empty() { vec![1] } else { rows }
}

/// Writes the kernels that count planes into `module`.
pub fn emit_counts<'c>(
    context: &'c Context,
    module: &Module<'c>,
    (target, planes): (&Target, Planes),
) {
    let form = (Form::of(target), counts::lanes(target));
    let output = Output::Planes(planes);
    for rows in heights(target, planes) {
        let name = by_rows::symbol(target, output, rows);
        emit_count(context, module, &name, form, (rows, output));
    }
}

impl PlaneKernels {
    /// Compiles and links what a product needs, if that is any; `jit` must live as long as the result is used.
    ///
    /// # Errors
    /// Failure of LLVM or the linker.
    pub fn of(
        product: &SignProduct,
        (target, cache): (&Target, &ObjectCache),
        jit: &Arc<Jit>,
    ) -> Result<Option<PlaneKernels>> {
        let Factor::Planes { planes, .. } = product.factor else {
            return Ok(None);
        };
        static MADE: OncePerProcess<(Target, Planes), Vec<u8>> = OncePerProcess::new();
        let object = MADE.get_or_make((target.clone(), planes), |(target, planes)| {
            compile_module_cached(target, cache, |context, module| {
                emit_counts(context, module, (target, *planes));
                Ok(())
            })
        })?;
        let output = Output::Planes(planes);
        jit.add_once(&by_rows::symbol(target, output, 1), &object)?;
        let counts = by_rows::linked(jit, (target, output), &heights(target, planes))?;
        Ok(Some(PlaneKernels { planes, counts }))
    }

    /// What they count.
    pub fn planes(&self) -> Planes {
        self.planes
    }

    /// The kernel of the most rows up to so many, at least one.
    pub fn for_rows(&self, n: usize) -> (usize, CountFn) {
        by_rows::for_rows(&self.counts, n)
    }
}
