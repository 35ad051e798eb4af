//! One node of the body, for any number of lanes.
//!
//! Representation of values: `F32`, `F16` and `BF16` are `f32` lanes (the latter two
//! always representable), `F64` `f64`, `I32` and `U8` `i32`, `Bool` `i1`.

use inkwell::{FloatPredicate as F, IntPredicate as I};

use super::emitter::Emitter;
use super::frame::{At, Frame, Values};
use super::random::random;
use super::vector::{V, lanes};
use crate::compilers::llvm_cpu::ir::{BinaryOp, Id, Literal, Scalar, UnaryOp};
use crate::compilers::llvm_cpu::{approx, vmath};
use crate::dtype::DType;

impl<'c> Emitter<'_, 'c> {
    /// The value of node `id`, whose operands are in `values`.
    pub fn node(&mut self, frame: &Frame<'c>, at: &At<'c>, values: &Values<'c>, id: Id) -> V<'c> {
        let value = |id: Id| values[id].expect("operands come first");
        let plan = self.plan;
        match plan.nest.body[id] {
            Scalar::Load(_) | Scalar::Gather { .. } => self.read(frame, at, values, id),
            Scalar::Valid(_) => self.valid(frame, at, values, id),
            Scalar::Position(_) => self.position(frame, at, values, id),
            Scalar::Const(literal) => self.literal(literal, at.lanes),
            Scalar::Coord(axis) => self.coord(frame, at, plan.coords[axis]),
            Scalar::Size(expr) => {
                let size = self.expr(expr);
                self.ops
                    .trunc(self.ops.splat_int(size, at.lanes), self.ops.i32s(at.lanes))
            }
            Scalar::Approx(approximation, a) => {
                approx::emit::emit(&self.ops, approximation, value(a))
            }
            Scalar::Unary(UnaryOp::Exp2, a) if self.exponent(a).is_some() => {
                let x = self.exponent(a).expect("checked above");
                vmath::exp(&self.ops, value(x))
            }
            Scalar::Unary(op, a) => self.unary(op, plan.types[a], value(a)),
            Scalar::Binary(BinaryOp::Mod, a, b) => {
                let one = matches!(plan.nest.body[b], Scalar::Const(c) if c.as_f64() == 1.0);
                self.modulo(plan.types[a], value(a), value(b), one)
            }
            Scalar::Binary(op, a, b) => self.binary(op, plan.types[a], value(a), value(b)),
            Scalar::Select {
                cond,
                then,
                otherwise,
            } => self.ops.select(value(cond), value(then), value(otherwise)),
            Scalar::Cast(to, a) => self.cast(plan.types[a], to, value(a)),
            Scalar::Reduced(stage) => {
                // Checked: it is used after the stage only.
                let reduced = frame.done.reduced[stage];
                if lanes(reduced) == at.lanes {
                    reduced
                } else {
                    self.ops.splat(reduced, at.lanes)
                }
            }
            Scalar::Random { seed, step, index } => {
                let step = self.expr(step);
                let step = self.ops.splat_int(step, at.lanes);
                random(&self.ops, seed, step, value(index))
            }
        }
    }

    /// `x` if node `id` is `x * LOG2_E` on `F32`.
    fn exponent(&self, id: Id) -> Option<Id> {
        let Scalar::Binary(BinaryOp::Mul, a, b) = self.plan.nest.body[id] else {
            return None;
        };
        let log2_e = Literal::new(DType::F32, std::f64::consts::LOG2_E);
        let is = |id: Id| matches!(self.plan.nest.body[id], Scalar::Const(c) if c == log2_e);
        if is(b) {
            Some(a)
        } else if is(a) {
            Some(b)
        } else {
            None
        }
    }

    /// A constant in every lane.
    fn literal(&self, literal: Literal, l: u32) -> V<'c> {
        match literal.dtype() {
            DType::F64 => self.ops.f64(l, f64::from_bits(literal.bits())),
            DType::I32 | DType::U8 => self.ops.i32(l, literal.bits() as u32 as i32),
            DType::Bool => self.ops.i1(l, literal.bits() != 0),
            DType::F32 => self.ops.f32(l, f32::from_bits(literal.bits() as u32)),
            DType::F16 | DType::BF16 => self.ops.f32(l, literal.as_f64() as f32),
        }
    }

    /// The coordinate on a dim of the plan.
    fn coord(&self, frame: &Frame<'c>, at: &At<'c>, dim: Option<usize>) -> V<'c> {
        let wide = match dim {
            None => self.ops.i64(at.lanes, 0),
            Some(dim) if frame.dim == Some(dim) => self.cols(at),
            Some(dim) => self.ops.splat_int(frame.coords[dim], at.lanes),
        };
        self.ops.trunc(wide, self.ops.i32s(at.lanes))
    }

    /// An `f32` result as a value of `dtype`.
    pub fn rounded(&self, dtype: DType, value: V<'c>) -> V<'c> {
        match dtype {
            DType::BF16 => vmath::round_bf16(&self.ops, value),
            DType::F16 => self.unpacked(dtype, self.packed(dtype, value)),
            _ => value,
        }
    }

    fn unary(&self, op: UnaryOp, dtype: DType, a: V<'c>) -> V<'c> {
        let l = lanes(a);
        let result = match op {
            UnaryOp::Log2 => vmath::log2(&self.ops, a),
            UnaryOp::Exp2 => vmath::exp2(&self.ops, a),
            UnaryOp::Sin => vmath::sin(&self.ops, a),
            UnaryOp::Sqrt => self.ops.sqrt(a),
            UnaryOp::Recip if dtype == DType::F64 => self.ops.fdiv(self.ops.f64(l, 1.0), a),
            UnaryOp::Recip => self.ops.fdiv(self.ops.f32(l, 1.0), a),
        };
        self.rounded(dtype, result)
    }

    fn binary(&self, op: BinaryOp, dtype: DType, a: V<'c>, b: V<'c>) -> V<'c> {
        let ops = &self.ops;
        let result = match (op, dtype) {
            (BinaryOp::Add, DType::Bool) => ops.or(a, b),
            (BinaryOp::Mul, DType::Bool) => ops.and(a, b),
            (BinaryOp::LessThan, DType::Bool) => return ops.and(ops.not(a), b),
            (BinaryOp::Add, DType::I32) => ops.add(a, b),
            (BinaryOp::Mul, DType::I32) => ops.mul(a, b),
            (BinaryOp::LessThan, DType::I32) => return ops.icmp(I::SLT, a, b),
            (BinaryOp::Add, _) => ops.fadd(a, b),
            (BinaryOp::Mul, _) => ops.fmul(a, b),
            (BinaryOp::LessThan, _) => return ops.fcmp(F::OLT, a, b),
            (BinaryOp::Mod, _) => unreachable!("`modulo` emits it"),
        };
        self.rounded(dtype, result)
    }

    /// The remainder with the sign of the dividend. On floats it is a library call
    /// per lane, except by one, which is what takes fractions.
    fn modulo(&self, dtype: DType, a: V<'c>, b: V<'c>, by_one: bool) -> V<'c> {
        let ops = &self.ops;
        match dtype {
            DType::I32 => {
                // By 0 and by -1 the result is 0, as by 1; the division itself would trap.
                let l = lanes(a);
                let next = ops.add(b, ops.i32(l, 1));
                let special = ops.icmp(I::ULT, next, ops.i32(l, 2));
                ops.srem(a, ops.select(special, ops.i32(l, 1), b))
            }
            _ if by_one => ops.copysign(ops.fsub(a, ops.ftrunc(a)), a),
            _ => self.rounded(dtype, ops.frem(a, b)),
        }
    }

    /// Conversion with the meaning of Rust's `as`.
    fn cast(&self, from: DType, to: DType, a: V<'c>) -> V<'c> {
        let (ops, l) = (&self.ops, lanes(a));
        use DType::{Bool, F64, I32, U8};
        match (from, to) {
            _ if from == to => a,
            (U8, _) => self.cast(I32, to, a),
            (Bool, U8) => ops.zext(a, ops.i32s(l)),
            (_, U8) => {
                let (a, low, high) = (self.cast(from, I32, a), ops.i32(l, 0), ops.i32(l, 255));
                let a = ops.select(ops.icmp(I::SGT, a, low), a, low);
                ops.select(ops.icmp(I::SLT, a, high), a, high)
            }
            (I32, Bool) => ops.icmp(I::NE, a, ops.i32(l, 0)),
            (F64, Bool) => ops.fcmp(F::UNE, a, ops.f64(l, 0.0)),
            (_, Bool) => ops.fcmp(F::UNE, a, ops.f32(l, 0.0)),
            (Bool, I32) => ops.zext(a, ops.i32s(l)),
            (Bool, _) => self.cast(I32, to, ops.zext(a, ops.i32s(l))),
            (I32, F64) => ops.to_float(a, ops.f64s(l)),
            (I32, _) => self.rounded(to, ops.to_float(a, ops.f32s(l))),
            (_, I32) => ops.to_i32(a),
            (F64, _) => self.rounded(to, ops.fptrunc(a, ops.f32s(l))),
            (_, F64) => ops.fpext(a, ops.f64s(l)),
            _ => self.rounded(to, a),
        }
    }

    /// The larger of `a` and `b`, NaN if either is; `a` if they are equal. What `b` decides alone is kept out of the
    /// chain from one `a` to the next.
    pub fn larger(&self, dtype: DType, a: V<'c>, b: V<'c>) -> V<'c> {
        let ops = &self.ops;
        let nan = match dtype {
            DType::Bool => return ops.or(a, b),
            DType::I32 => return ops.select(ops.icmp(I::SGT, b, a), b, a),
            DType::F64 => ops.f64(lanes(a), f64::NAN),
            _ => ops.f32(lanes(a), f32::NAN),
        };
        let larger = ops.select(ops.fcmp(F::OGT, b, a), b, a);
        ops.select(ops.fcmp(F::UNO, b, b), nan, larger)
    }

    /// The vectors of `parts` one after the other, as one.
    pub fn concatenated(&self, mut parts: Vec<V<'c>>) -> V<'c> {
        while parts.len() > 1 {
            parts = parts
                .chunks(2)
                .map(|pair| {
                    let order: Vec<u32> = (0..2 * lanes(pair[0])).collect();
                    self.ops.shuffle(pair[0], pair[1], &order)
                })
                .collect();
        }
        parts.pop().expect("there is a part")
    }
}
