//! A naive interpreter of nests: one point at a time, from the definitions.
//!
//! Only the order of a reduction is taken from the plan, since it is part of a
//! kernel's meaning: which dims are merged and along which one vectors run.

use crate::compilers::llvm_cpu::ir::{BinaryOp, Id, Literal, Nest, ReduceOp, Scalar, UnaryOp};
use crate::compilers::llvm_cpu::lower::plan::{Along, Plan};
use crate::compilers::llvm_cpu::lower::stages::reachable;
use crate::dtype::DType;
use crate::op::{math, random};
use crate::shape::{ConcreteView, Expr, Symbols};

/// A scalar; `F16` and `BF16` are `F`.
#[derive(Clone, Copy, Debug)]
pub enum Val {
    F(f32),
    D(f64),
    I(i32),
    B(bool),
}

use Val::{B, D, F, I};

/// An `f32` result as a value of `dtype`.
fn rounded(dtype: DType, x: f32) -> Val {
    match dtype {
        DType::F16 => F(half::f16::from_f32(x).to_f32()),
        DType::BF16 => F(half::bf16::from_f32(x).to_f32()),
        _ => F(x),
    }
}

pub fn decode(dtype: DType, bytes: &[u8]) -> Val {
    let n = |len: usize| <[u8; 8]>::try_from([&bytes[..len], &[0; 8][len..]].concat()).unwrap();
    let bits = u64::from_le_bytes(n(dtype.size()));
    match dtype {
        DType::F32 => F(f32::from_bits(bits as u32)),
        DType::F64 => D(f64::from_bits(bits)),
        DType::F16 => F(half::f16::from_bits(bits as u16).to_f32()),
        DType::BF16 => F(half::bf16::from_bits(bits as u16).to_f32()),
        DType::I32 | DType::U8 => I(bits as u32 as i32),
        DType::Bool => B(bits != 0),
    }
}

fn cast(from: Val, to: DType) -> Val {
    match (from, to) {
        (F(x), DType::Bool) => B(x != 0.0),
        (D(x), DType::Bool) => B(x != 0.0),
        (I(x), DType::Bool) => B(x != 0),
        (F(x), DType::I32) => I(x as i32),
        (D(x), DType::I32) => I(x as i32),
        (F(x), DType::U8) => I(i32::from(x as u8)),
        (D(x), DType::U8) => I(i32::from(x as u8)),
        (I(x), DType::U8) => I(x.clamp(0, 255)),
        (F(x), DType::F64) => D(f64::from(x)),
        (I(x), DType::F64) => D(f64::from(x)),
        (B(x), DType::Bool) => B(x),
        (B(x), to) => cast(I(i32::from(x)), to),
        (I(x), DType::I32) => I(x),
        (D(x), DType::F64) => D(x),
        (F(x), to) => rounded(to, x),
        (D(x), to) => rounded(to, x as f32),
        (I(x), to) => rounded(to, x as f32),
    }
}

fn unary(op: UnaryOp, dtype: DType, a: Val) -> Val {
    match (op, a) {
        (UnaryOp::Log2, F(x)) => rounded(dtype, math::log2(x)),
        (UnaryOp::Exp2, F(x)) => rounded(dtype, math::exp2(x)),
        (UnaryOp::Sin, F(x)) => rounded(dtype, math::sin(x)),
        (UnaryOp::Sqrt, F(x)) => rounded(dtype, x.sqrt()),
        (UnaryOp::Recip, F(x)) => rounded(dtype, 1.0 / x),
        (UnaryOp::Sqrt, D(x)) => D(x.sqrt()),
        (UnaryOp::Recip, D(x)) => D(1.0 / x),
        other => panic!("{other:?} is not lowered"),
    }
}

fn binary(op: BinaryOp, dtype: DType, a: Val, b: Val) -> Val {
    use BinaryOp::{Add, LessThan, Mod, Mul};
    match (op, a, b) {
        (Add, F(a), F(b)) => rounded(dtype, a + b),
        (Mul, F(a), F(b)) => rounded(dtype, a * b),
        (Mod, F(a), F(b)) => rounded(dtype, a % b),
        (LessThan, F(a), F(b)) => B(a < b),
        (Add, D(a), D(b)) => D(a + b),
        (Mul, D(a), D(b)) => D(a * b),
        (Mod, D(a), D(b)) => D(a % b),
        (LessThan, D(a), D(b)) => B(a < b),
        (Add, I(a), I(b)) => I(a.wrapping_add(b)),
        (Mul, I(a), I(b)) => I(a.wrapping_mul(b)),
        (Mod, I(a), I(b)) => I(if b == 0 { 0 } else { a.wrapping_rem(b) }),
        (LessThan, I(a), I(b)) => B(a < b),
        (Add, B(a), B(b)) => B(a | b),
        (Mul, B(a), B(b)) => B(a & b),
        (LessThan, B(a), B(b)) => B(!a & b),
        other => panic!("{other:?} is not lowered"),
    }
}

fn combine(kind: ReduceOp, a: Val, b: Val) -> Val {
    let max = kind == ReduceOp::Max;
    match (a, b) {
        (B(a), B(b)) => B(a | b),
        (I(a), I(b)) => I(if max { a.max(b) } else { a.wrapping_add(b) }),
        (F(a), F(b)) => F(if !max {
            a + b
        } else if b > a || b.is_nan() {
            b
        } else {
            a
        }),
        (D(a), D(b)) => D(if !max {
            a + b
        } else if b > a || b.is_nan() {
            b
        } else {
            a
        }),
        other => panic!("{other:?} have unequal types"),
    }
}

fn identity(kind: ReduceOp, dtype: DType) -> Val {
    let max = kind == ReduceOp::Max;
    match dtype {
        DType::Bool => B(false),
        DType::I32 => I(if max { i32::MIN } else { 0 }),
        DType::F64 => D(if max { f64::NEG_INFINITY } else { 0.0 }),
        _ => F(if max { f32::NEG_INFINITY } else { 0.0 }),
    }
}

/// One execution.
pub struct Interpreter<'a> {
    nest: &'a Nest,
    plan: &'a Plan<'a>,
    symbols: &'a Symbols,
    inputs: &'a [Vec<u8>],
    views: Vec<ConcreteView>,
    /// Bad indices met.
    pub bad: Vec<i32>,
}

fn eval(e: Expr, symbols: &Symbols) -> usize {
    usize::try_from(e.eval(symbols).unwrap()).unwrap()
}

/// All coordinates of some dims, row-major.
fn points(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![vec![]], |all, &n| {
        all.iter()
            .flat_map(|p| (0..n).map(|i| [&p[..], &[i]].concat()))
            .collect()
    })
}

impl<'a> Interpreter<'a> {
    pub fn new(plan: &'a Plan<'a>, symbols: &'a Symbols, inputs: &'a [Vec<u8>]) -> Self {
        let nest = plan.nest;
        let views = nest
            .loads
            .iter()
            .map(|a| a.view.resolve(symbols).unwrap())
            .collect();
        Interpreter {
            nest,
            plan,
            symbols,
            inputs,
            views,
            bad: vec![],
        }
    }

    /// The whole output.
    pub fn run(&mut self) -> Vec<Val> {
        let dims = |dims: &[Expr]| {
            dims.iter()
                .map(|&d| eval(d, self.symbols))
                .collect::<Vec<_>>()
        };
        let (space, reduce) = (
            points(&dims(&self.nest.space)),
            points(&dims(&self.nest.reduce)),
        );
        let mut out = Vec::new();
        for row in &space {
            let mut reduced = vec![];
            for stage in 0..self.nest.stages.len() {
                reduced.push(self.reduced(stage, row, &reduce, &reduced));
            }
            if self.nest.per_point {
                for point in &reduce {
                    out.push(
                        self.phase(&[row, &point[..]].concat(), &[self.nest.result], &reduced)[0],
                    );
                }
            } else {
                out.push(self.phase(row, &[self.nest.result], &reduced)[0]);
            }
        }
        out
    }

    /// The result of a stage for one row.
    fn reduced(&mut self, stage: usize, row: &[usize], reduce: &[Vec<usize>], done: &[Val]) -> Val {
        let reduction = self.nest.stages[stage];
        let dtype = self.plan.types[reduction.value];
        let last = eval(*self.plan.reduce.last().unwrap(), self.symbols);
        let by_stripes = self.plan.is_by_rows() || self.plan.along() == Along::Reduced;
        let mut accs = vec![identity(reduction.kind, dtype); if by_stripes { 16 } else { 1 }];
        let stripes = accs.len();
        for (i, r) in reduce.iter().enumerate() {
            let at = [row, r].concat();
            let acc = &mut accs[i % last % stripes];
            *acc = match self.plan.turns[stage].factors {
                None => combine(
                    reduction.kind,
                    *acc,
                    self.phase(&at, &[reduction.value], done)[0],
                ),
                Some((a, b)) => match (*acc, &self.phase(&at, &[a, b], done)[..]) {
                    (F(acc), [F(a), F(b)]) => F(a.mul_add(*b, acc)),
                    (D(acc), [D(a), D(b)]) => D(a.mul_add(*b, acc)),
                    other => panic!("{other:?} is not fused"),
                },
            };
        }
        while accs.len() > 1 {
            let high = accs.split_off(accs.len() / 2);
            accs = accs
                .iter()
                .zip(high)
                .map(|(&a, b)| combine(reduction.kind, a, b))
                .collect();
        }
        match accs[0] {
            F(x) => rounded(dtype, x),
            other => other,
        }
    }

    /// The values of `roots` at a point.
    fn phase(&mut self, point: &[usize], roots: &[Id], reduced: &[Val]) -> Vec<Val> {
        let mut values: Vec<Option<Val>> = vec![None; self.nest.body.len()];
        for id in reachable(self.nest, roots) {
            values[id] = Some(self.node(point, &values, id, reduced));
        }
        roots.iter().map(|&id| values[id].unwrap()).collect()
    }

    fn read(&self, access: usize, at: &[usize]) -> Val {
        let load = &self.nest.loads[access];
        let size = load.dtype.size();
        match self.views[access].index(&at[..self.views[access].dims().len()]) {
            None => decode(load.dtype, &[0; 8]),
            Some(i) => decode(load.dtype, &self.inputs[load.input][i * size..]),
        }
    }

    fn gather(&mut self, point: &[usize], access: usize, axis: usize, index: i32) -> Val {
        let view = &self.views[access];
        let mut at = point[..view.dims().len()].to_vec();
        let size = view.dims()[axis];
        let good = usize::try_from(index).ok().filter(|&i| i < size);
        if good.is_none() {
            self.bad.push(index);
        }
        at[axis] = good.unwrap_or(0);
        if size == 0 {
            decode(self.nest.loads[access].dtype, &[0; 8])
        } else {
            self.read(access, &at)
        }
    }

    fn node(&mut self, point: &[usize], values: &[Option<Val>], id: Id, reduced: &[Val]) -> Val {
        let value = |id: Id| values[id].unwrap();
        let types = &self.plan.types;
        match self.nest.body[id] {
            Scalar::Load(access) => self.read(access, point),
            Scalar::Gather {
                access,
                axis,
                index,
            } => {
                let I(index) = value(index) else {
                    panic!("an index is I32")
                };
                self.gather(point, access, axis, index)
            }
            Scalar::Const(literal) => decode(literal.dtype(), &literal.bits().to_le_bytes()),
            Scalar::Coord(axis) => I(point[axis] as i32),
            Scalar::Size(e) => I(e.eval(self.symbols).unwrap() as i32),
            Scalar::Approx(..) => unreachable!("these nests are exact"),
            Scalar::Unary(UnaryOp::Exp2, a) if self.exponent(a).is_some() => {
                let F(x) = value(self.exponent(a).unwrap()) else {
                    panic!("an F32")
                };
                F(math::exp(x))
            }
            Scalar::Unary(op, a) => unary(op, types[a], value(a)),
            Scalar::Binary(op, a, b) => binary(op, types[a], value(a), value(b)),
            Scalar::Select {
                cond,
                then,
                otherwise,
            } => match value(cond) {
                B(true) => value(then),
                _ => value(otherwise),
            },
            Scalar::Cast(to, a) => cast(value(a), to),
            Scalar::Valid(access) => {
                let view = &self.views[access];
                B(view.index(&point[..view.dims().len()]).is_some())
            }
            Scalar::Reduced(stage) => reduced[stage],
            Scalar::Position(access) => {
                let view = &self.views[access];
                I(view.index(&point[..view.dims().len()]).unwrap_or(0) as i32)
            }
            Scalar::Random { seed, step, index } => {
                let I(index) = value(index) else {
                    panic!("an index is I32")
                };
                let (step, index) = (step.eval(self.symbols).unwrap() as u64, index as u32);
                let words = random::block(seed, step, u64::from(index / 4));
                F(random::unit(words[index as usize % 4]))
            }
        }
    }

    /// `x` of `x * LOG2_E`.
    fn exponent(&self, id: Id) -> Option<Id> {
        let log2_e = Scalar::Const(Literal::new(DType::F32, std::f64::consts::LOG2_E));
        match self.nest.body[id] {
            Scalar::Binary(BinaryOp::Mul, a, b) if self.nest.body[b] == log2_e => Some(a),
            Scalar::Binary(BinaryOp::Mul, a, b) if self.nest.body[a] == log2_e => Some(b),
            _ => None,
        }
    }
}
