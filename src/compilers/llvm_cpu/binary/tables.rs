//! A row of `f32` → its numbers in 8 bits, as tables of sums.
//!
//! Of four neighbouring whole numbers `q = 16 h + l` (`l` below 16, `h` from -8 to 7) there are 16 sums of some of them. For each
//! of the 16 choices a table has the sum of the `l`, another the sum of the `h` plus 32: both from 0 to 60. For a byte of
//! columns that is four tables of 16 bytes, of the lower four and of the upper four.
//!
//! ```text
//! x: f32[k]   ->   [k / 8][4][16] u8, the sum of all q: i32, the scale: f32
//! ```

//! What a row is rounded to is what [`activation_scale`](crate::op::activation_scale) says, bit for bit: the largest magnitude
//! is found by comparing bit patterns (so infinities and NaNs show), and adding 1.5 * 2^23 rounds, to even at a tie.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, VectorValue};

use crate::compilers::llvm_cpu::blocks::activations::{MAGIC, rounded};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// Bytes of the tables of eight columns.
pub const TABLE_BYTES: usize = 64;

/// What is added to a sum of upper parts, so that it is not negative.
pub const OFFSET: i32 = 32;

/// What there is to know about a row beside its tables.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct RowFacts {
    /// What the whole numbers are multiplied by.
    pub scale: f32,
    /// Their sum.
    pub total: i32,
}

/// Numbers of a row that are looked at together for the largest one.
const WIDE: usize = 16;

/// Writes the bits of the largest magnitude of so many times 16 numbers.
pub type LargestFn = unsafe extern "C" fn(sixteens: i64, x: *const f32, largest: *mut u32);

/// Writes the tables of so many times eight numbers, each times a factor; adds their sum to a total.
pub type BuildFn = unsafe extern "C" fn(
    eights: i64,
    x: *const f32,
    factor: *const f32,
    tables: *mut u8,
    total: *mut i32,
);

/// The functions that make tables.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    /// What finds the scale.
    pub largest: LargestFn,
    /// What writes tables.
    pub build: BuildFn,
}

impl Builder {
    /// Writes the tables of a row.
    ///
    /// # Panics
    /// If there is not exactly as much room as whole bytes of columns need.
    pub fn tables(self, x: &[f32], tables: &mut [u8]) -> RowFacts {
        assert_eq!(tables.len(), x.len().div_ceil(8) * TABLE_BYTES);
        let (scale, factor) = self.scale(x);
        let (whole, rest) = x.split_at(x.len() / 8 * 8);
        let mut total = 0;
        let mut write = |x: &[f32], tables: &mut [u8]| {
            let (eights, to) = (x.len() / 8, tables.as_mut_ptr());
            // SAFETY: so many numbers, and room for their tables.
            unsafe { (self.build)(eights as i64, x.as_ptr(), &factor, to, &mut total) }
        };
        let (first, last) = tables.split_at_mut(whole.len() * TABLE_BYTES / 8);
        write(whole, first);
        if !rest.is_empty() {
            let mut eight = [0.0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            write(&eight, last);
        }
        RowFacts { scale, total }
    }

    /// What a row is divided by, and the factor that does it.
    pub fn scale(self, x: &[f32]) -> (f32, f32) {
        let (whole, rest) = x.split_at(x.len() / WIDE * WIDE);
        let mut largest = 0u32;
        // SAFETY: so many numbers.
        unsafe { (self.largest)((whole.len() / WIDE) as i64, whole.as_ptr(), &mut largest) };
        let bits = rest.iter().map(|x| x.to_bits() & 0x7fff_ffff);
        let largest = f32::from_bits(bits.fold(largest, u32::max));
        crate::op::activation_scale(&[largest])
    }
}

/// Whole numbers nearest to `x * factor`, which are 127 in magnitude at most; all 0 if the factor is 0.
///
/// # Panics
/// If there is less room than numbers.
pub fn quantized(x: &[f32], factor: f32, to: &mut [i16]) {
    let to = &mut to[..x.len()];
    if factor == 0.0 {
        return to.fill(0);
    }
    for (q, x) in to.iter_mut().zip(x) {
        *q = ((x * factor + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits())) as i16;
    }
}

/// Writes [`LargestFn`] into `module`.
pub fn emit_largest<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr]);
    let kind = context.i32_type().vec_type(WIDE as u32);
    let sign = e.constants(32, 0x7fff_ffff, WIDE as u32);
    let range = (e.int(0), e.int_argument(0), 1);
    let largest = e.carry(range, vec![kind.const_zero().into()], |at, largest| {
        let from = e.at(kind, e.pointer_argument(1), at);
        let bits = e.load(kind, from, 4).into_vector_value();
        let bits = e.builder.build_and(bits, sign, "").expect(BUILT);
        let both = [largest[0].into(), bits.into()];
        let larger = e.intrinsic("llvm.umax", &[kind.into()], &both);
        vec![larger.expect("it has a result")]
    });
    let one = e.intrinsic(
        "llvm.vector.reduce.umax",
        &[kind.into()],
        &[largest[0].into()],
    );
    e.store(one.expect("it has a result"), e.pointer_argument(2), 4);
    e.finish();
}

/// Writes [`BuildFn`] into `module`.
pub fn emit_build<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr, ptr]);
    (1..5).for_each(|pointer| e.noalias(pointer));
    let word = context.i32_type();
    let factor = e.load(e.f32(), e.pointer_argument(2), 4);
    let totals = vec![word.vec_type(8).const_zero().into()];
    let range = (e.int(0), e.int_argument(0), 1);
    let totals = e.carry(range, totals, |at, totals| {
        let from = e.at(e.f32(), e.pointer_argument(1), e.mul(at, e.int(8)));
        let x = e.load(e.vector(8), from, 4);
        let whole = rounded(&e, x, factor).into_vector_value();
        let to = e.mul(at, e.int(TABLE_BYTES as i64));
        let to = e.at(context.i8_type(), e.pointer_argument(3), to);
        e.store(sums(&e, whole), to, 1);
        let total = totals[0].into_vector_value();
        let total = e.builder.build_int_add(total, whole, "").expect(BUILT);
        vec![total.into()]
    });
    let kind = word.vec_type(8).into();
    let total = e.intrinsic("llvm.vector.reduce.add", &[kind], &[totals[0].into()]);
    let before = e.load(word, e.pointer_argument(4), 4).into_int_value();
    let total: IntValue<'c> = total.expect("it has a result").into_int_value();
    let total = e.builder.build_int_add(before, total, "").expect(BUILT);
    e.store(total, e.pointer_argument(4), 4);
    e.finish();
}

/// The four tables of eight whole numbers, one after the other.
fn sums<'c>(e: &Emit<'_, 'c>, whole: VectorValue<'c>) -> VectorValue<'c> {
    let (b, byte) = (&e.builder, e.context.i8_type());
    let narrow = |x| b.build_int_truncate(x, byte.vec_type(8), "").expect(BUILT);
    let low = narrow(b.build_and(whole, e.constants(32, 15, 8), "").expect(BUILT));
    let high = b
        .build_right_shift(whole, e.constants(32, 4, 8), true, "")
        .expect(BUILT);
    let high = narrow(high);
    let all: Vec<u32> = (0..16).collect();
    let parts = e.shuffle(low.into(), high.into(), &all);
    let zeros: BasicValueEnum<'c> = byte.vec_type(16).const_zero().into();
    // Tables of lower and upper parts of the first four, then of the last four. A lane of 16 is a 0.
    let lanes = |at: u32| -> Vec<u32> {
        let part = |lane: u32| lane / 16 % 2 * 8 + lane / 32 * 4 + at;
        let chosen = |lane: u32| {
            if (lane % 16) >> at & 1 == 1 {
                part(lane)
            } else {
                16
            }
        };
        (0..TABLE_BYTES as u32).map(chosen).collect()
    };
    let offsets: Vec<IntValue<'c>> = (0..TABLE_BYTES as u64)
        .map(|lane| byte.const_int(lane / 16 % 2 * OFFSET as u64, false))
        .collect();
    let mut sum = inkwell::types::VectorType::const_vector(&offsets);
    for at in 0..4 {
        let part = e.shuffle(parts, zeros, &lanes(at)).into_vector_value();
        sum = b.build_int_add(sum, part, "").expect(BUILT);
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compilers::llvm_cpu::jit::{Jit, compile_module};
    use crate::compilers::llvm_cpu::target::Target;

    fn build(name: &str, x: &[f32], tables: &mut [u8]) -> RowFacts {
        let target = Target::for_cpu(name).unwrap();
        let object = compile_module(&target, |context, module| {
            emit_largest(context, module, "largest");
            emit_build(context, module, "build");
            Ok(())
        });
        let jit = Arc::new(Jit::new().unwrap());
        jit.add_object(&object.unwrap()).unwrap();
        // SAFETY: the functions were written with these signatures.
        let builder = unsafe {
            Builder {
                largest: std::mem::transmute::<*const (), LargestFn>(
                    jit.address("largest").unwrap(),
                ),
                build: std::mem::transmute::<*const (), BuildFn>(jit.address("build").unwrap()),
            }
        };
        builder.tables(x, tables)
    }

    fn targets() -> Vec<&'static str> {
        let all = ["native", "x86-64-v3", "scalar"];
        let runs = |name: &&str| Target::for_cpu(name).unwrap().can_run_here();
        all.into_iter().filter(runs).collect()
    }

    #[test]
    fn tables_hold_the_sums_of_all_choices() {
        let mut x = vec![127.0, -127.0, 64.0, -65.0, 3.0, -1.0, 0.5, 1.5, -2.5, 126.4];
        x.extend([-127.0; 4]);
        x.extend([127.0; 4]);
        let mut whole = vec![127, -127, 64, -65, 3, -1, 0, 2, -2, 126];
        whole.extend([-127; 4]);
        whole.extend([127; 4]);
        whole.extend([0; 6]);
        for target in targets() {
            let mut tables = [0; 3 * TABLE_BYTES];
            let facts = build(target, &x, &mut tables);
            let total = whole.iter().sum();
            assert_eq!(facts, RowFacts { scale: 1.0, total });
            for (at, four) in whole.chunks(4).enumerate() {
                for choice in 0..16 {
                    let chosen = four
                        .iter()
                        .enumerate()
                        .filter(|(i, _)| choice >> i & 1 == 1);
                    let expected: i32 = chosen.map(|(_, q)| *q).sum();
                    let low = i32::from(tables[32 * at + choice]);
                    let high = i32::from(tables[32 * at + 16 + choice]);
                    assert!(low <= 60 && high <= 60);
                    assert_eq!(low + 16 * (high - OFFSET), expected, "{four:?} {choice}");
                }
            }
        }
    }

    #[test]
    fn rows_without_scale_are_zero() {
        for value in [0.0, 1e-40, f32::NAN, f32::INFINITY] {
            for k in [3, 16, 40] {
                let mut x = vec![value * 0.5; k];
                x[k - 1] = value;
                let mut tables = vec![0; k.div_ceil(8) * TABLE_BYTES];
                let facts = build("native", &x, &mut tables);
                assert_eq!((facts.total, facts.scale.is_nan()), (0, !value.is_finite()));
                for two in tables.chunks(32) {
                    assert!(two[..16].iter().all(|sum| *sum == 0));
                    assert!(two[16..].iter().all(|sum| i32::from(*sum) == OFFSET));
                }
            }
        }
    }
}
