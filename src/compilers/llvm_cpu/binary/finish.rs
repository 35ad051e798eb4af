//! A row of a panel's results → what is stored of them: numbers, or the bits of their signs.
//!
//! ```text
//! f32[64], steps (* or +, f32[..] by columns)   ->   f32[columns], or u64
//! ```
//! The steps are data, not code: all products of a target share the two functions. Columns that are not there are neither read
//! nor written. [`super::after`] says the same of many rows at a time.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};
use inkwell::{FloatPredicate, IntPredicate};

use crate::blocks::PANEL_ROWS;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::op::BinaryOp;

/// What is done with a number for each column.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Step {
    /// Not 0 for a product, 0 for a sum.
    multiplies: u64,
    /// A number for each column of all.
    pub numbers: *const f32,
}

impl Step {
    /// `x op numbers`.
    ///
    /// # Panics
    /// If it is neither a product nor a sum.
    pub fn new(op: BinaryOp, numbers: *const f32) -> Step {
        assert!(matches!(op, BinaryOp::Mul | BinaryOp::Add), "{op:?}");
        Step {
            multiplies: u64::from(op == BinaryOp::Mul),
            numbers,
        }
    }

    /// Which of both it is.
    pub fn op(self) -> BinaryOp {
        match self.multiplies {
            0 => BinaryOp::Add,
            _ => BinaryOp::Mul,
        }
    }
}

impl Step {
    /// Whether step `at` of `steps` multiplies, and its numbers from column `first` on.
    pub(super) fn read<'c>(
        e: &Emit<'_, 'c>,
        steps: PointerValue<'c>,
        (at, first): (IntValue<'c>, IntValue<'c>),
    ) -> (IntValue<'c>, PointerValue<'c>) {
        let step = e.at(e.i64(), steps, e.mul(at, e.int(2)));
        let multiplies = e.load(e.i64(), step, 8).into_int_value();
        let numbers = e.load(e.ptr(), e.at(e.i64(), step, e.int(1)), 8);
        let numbers = e.at(e.f32(), numbers.into_pointer_value(), first);
        (e.compare(IntPredicate::NE, multiplies, e.int(0)), numbers)
    }
}

/// Finishes 64 results of a row.
///
/// Arguments: columns that there are; the results; how many steps, and these; the first column; where numbers of these columns
/// or a word of bits is stored. Numbers may lie at any address.
pub type FinishFn = unsafe extern "C" fn(
    columns: i64,
    results: *const f32,
    n_steps: i64,
    steps: *const Step,
    first: i64,
    out: *mut u8,
);

/// Writes [`FinishFn`] into `module`: what stores numbers, or packs their signs.
pub fn emit_finish<'c>(context: &'c Context, module: &Module<'c>, name: &str, packs: bool) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, int, ptr, int, ptr]);
    e.noalias(5);
    let whole = e.compare(
        IntPredicate::EQ,
        e.int_argument(0),
        e.int(PANEL_ROWS as i64),
    );
    e.branch(
        whole,
        || finish(&e, packs, None),
        || {
            let columns = e.lanes_below(PANEL_ROWS as u32, e.int_argument(0));
            finish(&e, packs, Some(columns));
        },
    );
    e.finish();
}

/// The steps, and storing.
fn finish<'c>(e: &Emit<'_, 'c>, packs: bool, valid: Option<BasicValueEnum<'c>>) {
    let kind = e.vector(PANEL_ROWS as u32);
    let read = |from: PointerValue<'c>| match valid {
        None => e.load(kind, from, 1),
        Some(valid) => e.masked_load(kind, from, valid),
    };
    let results = e.load(kind, e.pointer_argument(1), 4);
    let range = (e.int(0), e.int_argument(2), 1);
    let results = e.carry(range, vec![results], |at, results| {
        let (is_product, numbers) = Step::read(e, e.pointer_argument(3), (at, e.int_argument(4)));
        let (x, y) = (results[0].into_vector_value(), read(numbers));
        let product = e
            .builder
            .build_float_mul(x, y.into_vector_value(), "")
            .expect(BUILT);
        vec![e.select(is_product.into(), product.into(), e.fadd(x.into(), y))]
    });
    let out = e.pointer_argument(5);
    match (packs, valid) {
        (false, None) => e.store(results[0], out, 1),
        (false, Some(valid)) => e.masked_store(results[0], out, valid),
        (true, _) => {
            let x = results[0].into_vector_value();
            let zero = x.get_type().const_zero();
            // Not below 0, as NaN is not.
            let bits = e
                .builder
                .build_float_compare(FloatPredicate::UGE, x, zero, "");
            let word = e
                .builder
                .build_bit_cast(bits.expect(BUILT), e.i64(), "")
                .expect(BUILT);
            e.store(word, out, 8);
        }
    }
}
