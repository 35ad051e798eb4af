//! How the numbers of a product's operand lie in memory, and reading those in blocks.
//!
//! Numbers of a floating-point format lie one behind the other. A block of Q8_0 holds 32 numbers in 34 bytes: a scale in `f16`
//! and 32 whole numbers of 8 bits. A view of blocks counts their numbers: element `i` is number `i % 32` of block `i / 32`.
//! `scale * whole number` is exact in `f32` (11 times 7 bits), so products have the bits that they have after
//! [`Op::Dequantize`](crate::op::Op::Dequantize).
//!
//! Only right operands are blocks, and only where rows of numbers that are neighbours begin with a block ([`unit()`]).

use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::ir::collapse;
use super::linear::linear;
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::ir::Access;
use crate::dtype::DType;
use crate::shape::{Dims, Expr};

/// Numbers of a block.
pub const LEN: usize = 32;
/// Bytes of a block.
pub const BYTES: usize = 34;
/// Bytes of a block before its numbers.
const SCALE: usize = 2;

/// How numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stored {
    /// One behind the other.
    Number(DType),
    /// In blocks of [`BlockType::Q8_0`].
    Q8_0,
}

/// What lies next to each other in an operand in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Steps of K.
    Steps,
    /// Rows of the operand.
    Rows,
}

impl Stored {
    /// How the numbers of an operand are stored. Products know no bytes but those of blocks.
    pub fn of(access: &Access) -> Stored {
        match access.dtype {
            DType::U8 => Stored::Q8_0,
            dtype => Stored::Number(dtype),
        }
    }

    /// For names.
    pub fn name(self) -> &'static str {
        match self {
            Stored::Number(dtype) => dtype.name(),
            Stored::Q8_0 => BlockType::Q8_0.name(),
        }
    }

    /// Bytes of so many numbers, or of a distance: of blocks, whole ones.
    pub fn bytes(self, numbers: isize) -> isize {
        match self {
            Stored::Number(dtype) => numbers * dtype.size() as isize,
            Stored::Q8_0 => numbers / LEN as isize * BYTES as isize,
        }
    }

    /// Bytes of a row of so many numbers, which begins with a block.
    pub fn row_bytes(self, numbers: usize) -> usize {
        match self {
            Stored::Number(dtype) => numbers * dtype.size(),
            Stored::Q8_0 => numbers.div_ceil(LEN) * BYTES,
        }
    }
}

/// What lies next to each other in an operand in blocks, whose view's dims are `batch ++ rows ++ k`; nothing if it cannot be
/// read: then runs of neighbours do not begin with blocks, or there is padding.
pub fn unit(access: &Access, batch: &Dims, rows: &Dims, k: &Dims) -> Option<Unit> {
    let linear = linear(&access.view).filter(|linear| linear.masks.is_empty())?;
    let steps = &linear.index.steps;
    let (batch_steps, others) = steps.split_at(batch.len());
    let (row_steps, k_steps) = others.split_at(rows.len());
    let block = Expr::from(LEN);
    let whole = |x: &Expr| x.div_poly(block).1.is_zero();
    let is_unit = |dims: &Dims, steps: &[Expr]| matches!(collapse(dims, steps)[..], [(_, stride)] if stride.is_one());
    let begins = whole(&linear.index.start) && batch_steps.iter().all(whole);
    if begins && is_unit(k, k_steps) && row_steps.iter().all(whole) {
        return Some(Unit::Steps);
    }
    (begins && is_unit(rows, row_steps) && k_steps.iter().all(whole)).then_some(Unit::Rows)
}

/// Numbers of `f16` that a scale is the first of where it is read.
const WITH_SCALE: u32 = 4;

/// A block whose scale is read.
#[derive(Clone, Copy)]
pub struct Block<'c> {
    numbers: PointerValue<'c>,
    /// In the first lane.
    scale: BasicValueEnum<'c>,
}

impl<'c> Emit<'_, 'c> {
    /// The block with number `index`, or its neighbour `behind` blocks after it, of those from `base` on.
    pub fn block(&self, base: PointerValue<'c>, index: IntValue<'c>, behind: usize) -> Block<'c> {
        let byte = self.context.i8_type();
        let shift = self.int(LEN.trailing_zeros().into());
        let number = self.builder.build_right_shift(index, shift, true, "");
        let number = self.add(number.expect(BUILT), self.int(behind as i64));
        let start = self.at(byte, base, self.mul(number, self.int(BYTES as i64)));
        // A scale alone would be inserted into a register that something else waits for. What is read with it is of the block.
        let half = self.context.f16_type().vec_type(WITH_SCALE);
        let scale = self.load(half, start, 1).into_vector_value();
        let wide = self.f32().vec_type(WITH_SCALE);
        let scale = self.builder.build_float_ext(scale, wide, "");
        Block {
            numbers: self.at(byte, start, self.int(SCALE as i64)),
            scale: scale.expect(BUILT).into(),
        }
    }

    /// `lanes` numbers of a block from number `first` on, which is a multiple of `lanes`.
    pub fn numbers(&self, block: Block<'c>, first: IntValue<'c>, lanes: u32) -> BasicValueEnum<'c> {
        let (byte, word, b) = (
            self.context.i8_type(),
            self.context.i32_type(),
            &self.builder,
        );
        let from = self.at(byte, block.numbers, first);
        if lanes == 1 {
            let whole = self.load(byte, from, 1).into_int_value();
            let value = b.build_signed_int_to_float(whole, self.f32(), "");
            let scale = self.extract(block.scale, 0).into_float_value();
            let value = b.build_float_mul(value.expect(BUILT), scale, "");
            return value.expect(BUILT).into();
        }
        let whole = self.load(byte.vec_type(lanes), from, 1).into_vector_value();
        let whole = b.build_int_s_extend(whole, word.vec_type(lanes), "");
        let kind = self.f32().vec_type(lanes);
        let value = b.build_signed_int_to_float(whole.expect(BUILT), kind, "");
        let scale = self.shuffle(block.scale, block.scale, &vec![0; lanes as usize]);
        let scale = scale.into_vector_value();
        let value = b.build_float_mul(value.expect(BUILT), scale, "");
        value.expect(BUILT).into()
    }

    /// The place of number `index` in its block.
    pub fn in_block(&self, index: IntValue<'c>) -> IntValue<'c> {
        let mask = self.int(LEN as i64 - 1);
        self.builder.build_and(index, mask, "").expect(BUILT)
    }
}
