//! Random nests: any view, any operation, any type.

use proptest::prelude::*;

use super::check;
use crate::compilers::llvm_cpu::ir::{
    Access, BinaryOp, Id, Literal, Nest, ReduceOp, Reduction, Scalar, UnaryOp,
};
use crate::dtype::DType;
use crate::shape::{Dims, Expr, Symbols, View};

const TYPES: [DType; 6] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I32,
    DType::Bool,
];

/// A small generator of random numbers (xorshift), seeded by the test case.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.word() >> 33) % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The bytes of an element: mostly moderate values, sometimes any bits.
fn element(rng: &mut Rng, dtype: DType) -> Vec<u8> {
    let bits = rng.word();
    if dtype == DType::Bool {
        return vec![(bits >> 40) as u8 & 1];
    }
    let small = (rng.below(2001) as f64 - 1000.0) / 100.0;
    let literal = Literal::new(dtype, small);
    let bits = if rng.below(4) == 0 {
        bits
    } else {
        literal.bits()
    };
    bits.to_le_bytes()[..dtype.size()].to_vec()
}

pub fn buffer(rng: &mut Rng, dtype: DType, len: usize) -> Vec<u8> {
    (0..len).flat_map(|_| element(rng, dtype)).collect()
}

fn sizes(dims: &[Expr]) -> Vec<usize> {
    dims.iter().map(|d| d.as_usize().unwrap()).collect()
}

/// A view of the given dims, and the length of its buffer.
pub fn view(rng: &mut Rng, dims: &[usize], depth: usize) -> (View, usize) {
    let base = || (View::contiguous(dims), dims.iter().product());
    if depth == 0 || dims.is_empty() {
        return base();
    }
    let axis = rng.below(dims.len());
    let mut inner = dims.to_vec();
    match rng.below(6) {
        0 => {
            let mut order: Vec<usize> = (0..dims.len()).collect();
            (1..order.len()).for_each(|i| order.swap(i, rng.below(i + 1)));
            (0..order.len()).for_each(|i| inner[order[i]] = dims[i]);
            let (view, len) = self::view(rng, &inner, depth - 1);
            (view.permute(&order).unwrap(), len)
        }
        1 => {
            inner[axis] = 1;
            let (view, len) = self::view(rng, &inner, depth - 1);
            (view.expand(axis, dims[axis] as i64).unwrap(), len)
        }
        2 => {
            let (before, after) = (rng.below(4), rng.below(4));
            inner[axis] += before + after;
            let (view, len) = self::view(rng, &inner, depth - 1);
            let end = before + dims[axis];
            let view = view.slice(axis, before as i64, end as i64, 1).unwrap();
            (
                if rng.below(2) == 0 {
                    view.flip(axis).unwrap()
                } else {
                    view
                },
                len,
            )
        }
        3 => {
            let before = rng.below(dims[axis] + 1).min(3);
            let after = rng.below(dims[axis] - before + 1).min(3);
            inner[axis] -= before + after;
            let (view, len) = self::view(rng, &inner, depth - 1);
            (view.pad(axis, before as i64, after as i64).unwrap(), len)
        }
        4 => {
            inner[axis] = dims[axis] * 2;
            let (view, len) = self::view(rng, &inner, depth - 1);
            (view.slice(axis, 0i64, inner[axis] as i64, 2).unwrap(), len)
        }
        _ => reshaped(rng, dims, depth),
    }
}

/// A transposed matrix under other dims: more than one layer.
fn reshaped(rng: &mut Rng, dims: &[usize], depth: usize) -> (View, usize) {
    let n: usize = dims.iter().product();
    let factor = [2, 3, 5, 1].into_iter().find(|f| n.is_multiple_of(*f));
    let factor = factor.expect("1 divides everything");
    let (view, len) = view(rng, &[factor, n / factor], depth - 1);
    let view = view.permute(&[1, 0]).unwrap();
    (view.reshape(dims).unwrap(), len)
}

/// Grows a body.
struct Growing<'r> {
    rng: &'r mut Rng,
    nest: Nest,
    inputs: Vec<Vec<u8>>,
}

impl Growing<'_> {
    fn push(&mut self, node: Scalar) -> Id {
        self.nest.body.push(node);
        self.nest.body.len() - 1
    }

    /// A buffer, and an access to it of dims `dims`.
    fn access(&mut self, dims: &[usize]) -> usize {
        let depth = self.rng.below(4);
        let dtype = self.rng.pick(&TYPES);
        let (view, len) = view(self.rng, dims, depth);
        self.inputs.push(buffer(self.rng, dtype, len));
        self.nest.loads.push(Access {
            input: self.inputs.len() - 1,
            dtype,
            view,
        });
        self.nest.loads.len() - 1
    }

    /// A value that is there or new, of type `dtype`, for a point of `dims`.
    fn leaf(&mut self, dims: &[usize], dtype: DType) -> Id {
        let node = match self.rng.below(8) {
            0 => Scalar::Const(Literal::new(dtype, self.rng.below(9) as f64 - 4.0)),
            1 if !dims.is_empty() => Scalar::Coord(self.rng.below(dims.len())),
            2 if !dims.is_empty() => {
                let index = self.leaf(dims, DType::I32);
                let axis = self.rng.below(dims.len());
                let mut inner = dims.to_vec();
                inner[axis] = self.rng.below(6);
                Scalar::Gather {
                    access: self.access(&inner),
                    axis,
                    index,
                }
            }
            3 => {
                let access = self.access(dims);
                self.push(Scalar::Load(access));
                match self.rng.below(3) {
                    0 => Scalar::Valid(access),
                    1 => Scalar::Position(access),
                    _ => Scalar::Random {
                        seed: self.rng.word(),
                        step: Expr::from(self.rng.word() as i64 >> 20),
                        index: self.push(Scalar::Position(access)),
                    },
                }
            }
            _ => Scalar::Load(self.access(dims)),
        };
        let id = self.push(node);
        self.push(Scalar::Cast(dtype, id))
    }

    /// `e^x` as the pattern that kernels compute accurately.
    fn exponential(&mut self, dims: &[usize], depth: usize) -> Id {
        let x = self.tree(dims, DType::F32, depth - 1);
        let log2_e = Literal::new(DType::F32, std::f64::consts::LOG2_E);
        let c = self.push(Scalar::Const(log2_e));
        let scaled = self.push(Scalar::Binary(BinaryOp::Mul, x, c));
        self.push(Scalar::Unary(UnaryOp::Exp2, scaled))
    }

    /// An expression of type `dtype`.
    fn tree(&mut self, dims: &[usize], dtype: DType, depth: usize) -> Id {
        if depth == 0 {
            return self.leaf(dims, dtype);
        }
        use UnaryOp::{Exp2, Log2, Recip, Sin, Sqrt};
        let float = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        match self.rng.below(6) {
            0 if float || dtype == DType::F64 => {
                let all = [Sqrt, Recip, Log2, Exp2, Sin];
                let a = self.tree(dims, dtype, depth - 1);
                let op = self.rng.pick(&all[..if float { 5 } else { 2 }]);
                self.push(Scalar::Unary(op, a))
            }
            1 if dtype == DType::Bool => {
                let inner = self.rng.pick(&TYPES);
                let (a, b) = (
                    self.tree(dims, inner, depth - 1),
                    self.tree(dims, inner, depth - 1),
                );
                self.push(Scalar::Binary(BinaryOp::LessThan, a, b))
            }
            2 => {
                let cond = self.tree(dims, DType::Bool, depth - 1);
                let (then, otherwise) = (self.tree(dims, dtype, depth - 1), self.leaf(dims, dtype));
                self.push(Scalar::Select {
                    cond,
                    then,
                    otherwise,
                })
            }
            3 => {
                let inner = self.rng.pick(&TYPES);
                let a = self.tree(dims, inner, depth - 1);
                self.push(Scalar::Cast(dtype, a))
            }
            4 if dtype == DType::F32 => self.exponential(dims, depth),
            _ => {
                let ops = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Mod];
                let op = ops[self.rng.below(if dtype == DType::Bool { 2 } else { 3 })];
                let (a, b) = (
                    self.tree(dims, dtype, depth - 1),
                    self.tree(dims, dtype, depth - 1),
                );
                self.push(Scalar::Binary(op, a, b))
            }
        }
    }
}

/// Some dims, at most `most` elements or so.
fn dims(rng: &mut Rng, rank: usize, most: usize) -> Vec<usize> {
    let mut left = most;
    (0..rank)
        .map(|_| {
            let n = match rng.below(16) {
                0 => 0,
                1..4 => 1,
                _ => 1 + rng.below(left.clamp(1, 37)),
            };
            left /= n.max(1);
            n
        })
        .collect()
}

fn empty(space: &[usize], reduce: &[usize]) -> Nest {
    let exprs = |dims: &[usize]| dims.iter().map(|&d| Expr::from(d)).collect::<Dims>();
    Nest {
        space: exprs(space),
        reduce: exprs(reduce),
        loads: vec![],
        body: vec![],
        stages: vec![],
        per_point: false,
        result: 0,
        dtype: DType::F32,
        n_inputs: 0,
    }
}

fn random(seed: u64, reduces: bool) -> (Nest, Vec<Vec<u8>>) {
    let rng = &mut Rng::new(seed);
    let rank = rng.below(4);
    let space = dims(rng, rank, 400);
    let rank = if reduces { rng.below(4) } else { 0 };
    let reduce = dims(rng, rank, 200);
    let mut growing = Growing {
        rng,
        nest: empty(&space, &reduce),
        inputs: vec![],
    };
    let (dtype, depth) = (growing.rng.pick(&TYPES), growing.rng.below(4));
    let mut result = growing.tree(&[space.clone(), reduce.clone()].concat(), dtype, depth);
    let mut out = dtype;
    if reduces {
        let kind = growing.rng.pick(&[ReduceOp::Sum, ReduceOp::Max]);
        let value = result;
        growing.nest.stages.push(Reduction { kind, value });
        result = growing.push(Scalar::Reduced(0));
        if growing.rng.below(2) == 0 {
            out = growing.rng.pick(&TYPES);
            let other = growing.tree(&space, out, 1);
            let cast = growing.push(Scalar::Cast(out, result));
            result = growing.push(Scalar::Binary(BinaryOp::Add, cast, other));
        }
    }
    let Growing {
        mut nest, inputs, ..
    } = growing;
    (nest.result, nest.dtype, nest.n_inputs) = (result, out, inputs.len());
    assert!(sizes(&nest.space).len() == space.len());
    (nest, inputs)
}

/// One to three reductions over rows, each using those before it, and a result per row or per point.
fn random_rows(seed: u64) -> (Nest, Vec<Vec<u8>>) {
    let rng = &mut Rng::new(seed);
    let rank = rng.below(3);
    let space = dims(rng, rank, 40);
    let reduce = dims(rng, 1, 200);
    let per_point = rng.below(3) > 0;
    let dtype = rng.pick(&TYPES);
    let mut growing = Growing {
        rng,
        nest: empty(&space, &reduce),
        inputs: vec![],
    };
    let all = [space.clone(), reduce].concat();
    let mut before: Option<Id> = None;
    for stage in 0..1 + growing.rng.below(3) {
        // What a stage before computed is used again, as the numerator of a softmax is.
        let inner = growing.rng.pick(&[dtype, dtype, DType::F32]);
        let mut value = growing.tree(&all, inner, 2);
        if let Some(before) = before {
            let cast = growing.push(Scalar::Cast(inner, before));
            value = growing.push(Scalar::Binary(BinaryOp::Add, value, cast));
        }
        if stage > 0 {
            let reduced = growing.push(Scalar::Reduced(stage - 1));
            let cast = growing.push(Scalar::Cast(inner, reduced));
            value = growing.push(Scalar::Binary(BinaryOp::Mul, value, cast));
        }
        before = Some(value);
        let kind = growing.rng.pick(&[ReduceOp::Sum, ReduceOp::Max]);
        growing.nest.stages.push(Reduction { kind, value });
    }
    let mut result = growing.push(Scalar::Reduced(0));
    result = growing.push(Scalar::Cast(dtype, result));
    let of = if per_point { &all } else { &space };
    let mut others = vec![growing.tree(of, dtype, 1)];
    let last = growing.nest.stages.len() - 1;
    others.push(growing.push(Scalar::Reduced(last)));
    others.extend(before.filter(|_| per_point));
    for other in others {
        let cast = growing.push(Scalar::Cast(dtype, other));
        result = growing.push(Scalar::Binary(BinaryOp::Add, result, cast));
    }
    let Growing {
        mut nest, inputs, ..
    } = growing;
    (nest.result, nest.dtype, nest.n_inputs) = (result, dtype, inputs.len());
    nest.per_point = per_point;
    (nest, inputs)
}

/// `BB_LONG` multiplies the number of random cases.
fn cases() -> u32 {
    if std::env::var_os("BB_LONG").is_some() {
        1000
    } else {
        40
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn maps(seed in any::<u64>()) {
        let (nest, inputs) = random(seed, false);
        check(&nest, &[(Symbols::new(), inputs)]);
    }

    #[test]
    fn reductions(seed in any::<u64>()) {
        let (nest, inputs) = random(seed, true);
        check(&nest, &[(Symbols::new(), inputs)]);
    }

    #[test]
    fn rows(seed in any::<u64>()) {
        let (nest, inputs) = random_rows(seed);
        check(&nest, &[(Symbols::new(), inputs)]);
    }
}
