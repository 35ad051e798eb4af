//! Random graphs: the bits before and after `Generic` are the same.

use super::same_bits;
use crate::compilers::Report;
use crate::graph::{Graph, GraphTensor};
use crate::op::random::block;
use crate::op::{BinaryOp, Literal, Op, ReduceOp, ScatterMode, UnaryOp};
use crate::prelude::*;
use crate::shape::View;

const SPECIAL: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    3.0,
    1e30,
    -1e-40,
    7.0,
    126.5,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

/// What identities are about.
const NEUTRAL: [f64; 4] = [0.0, -0.0, 1.0, -1.0];

/// Zeros of both signs win a maximum by their order.
const ZEROS: [f64; 3] = [0.0, -0.0, -1.0];

/// The largest tensor that is recorded.
const MAX_ELEMENTS: usize = 96;

/// Deterministic choices.
struct Choices {
    seed: u64,
    drawn: u64,
}

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        block(self.seed, 0, self.drawn)[0] as usize % n
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

struct Builder {
    cx: Graph,
    choose: Choices,
    pool: Vec<GraphTensor>,
    recorded: Vec<(Op, Vec<GraphTensor>)>,
    kept: Vec<GraphTensor>,
}

fn static_dims(x: GraphTensor) -> Vec<usize> {
    let dims = x.dims();
    dims.iter()
        .map(|dim| dim.as_usize().expect("static sizes only"))
        .collect()
}

impl Builder {
    fn new(seed: u64) -> Builder {
        let mut builder = Builder {
            cx: Graph::new(),
            choose: Choices { seed, drawn: 0 },
            pool: Vec::new(),
            recorded: Vec::new(),
            kept: Vec::new(),
        };
        for dtype in [
            DType::F32,
            DType::F32,
            DType::I32,
            DType::Bool,
            DType::BF16,
            DType::F16,
        ] {
            let dims = builder.choose.of(&[[2, 3], [1, 3], [3, 1]]);
            let x = builder.cx.input(dims, dtype);
            let n = dims[0] * dims[1];
            let zeros = builder.choose.below(2) == 0;
            let data: Vec<f64> = (0..n)
                .map(|_| builder.number(zeros.then_some(&ZEROS)))
                .collect();
            builder.pool.push(x.set(data));
        }
        builder.add_state();
        for _ in 0..40 {
            builder.step();
        }
        for _ in 0..12 {
            let value = builder.any();
            builder.kept.push(value.retrieve());
        }
        builder
    }

    /// A state that the graph updates from itself, kept together with a copy of its old value.
    fn add_state(&mut self) {
        let state = self
            .cx
            .input([2, 3], DType::F32)
            .set([[1.0, -0.0, 2.0], [f32::NAN, 0.0, -1.0]]);
        let copy = GraphTensor::record(Op::Contiguous, &[state]);
        let one = self.literal(DType::F32, 1.0, state);
        let next = self.record(Op::Binary(BinaryOp::Add), &[state, one]);
        state.assign(next);
        self.kept.push(copy.retrieve());
        self.pool.extend([state, copy]);
    }

    fn number(&mut self, palette: Option<&[f64]>) -> f64 {
        self.choose.of(palette.unwrap_or(&SPECIAL))
    }

    fn any(&mut self) -> GraphTensor {
        let at = self.choose.below(self.pool.len());
        self.pool[at]
    }

    fn record(&mut self, op: Op, operands: &[GraphTensor]) -> GraphTensor {
        self.recorded.push((op.clone(), operands.to_vec()));
        GraphTensor::record(op, operands)
    }

    /// A literal in the shape of another tensor.
    fn literal(&mut self, dtype: DType, value: f64, like: GraphTensor) -> GraphTensor {
        let mut x = GraphTensor::scalar(self.cx.id(), dtype, value);
        for (axis, &dim) in like.dims().iter().enumerate() {
            x = x.look("repeat", |view| view.insert(axis, dim));
        }
        x
    }

    /// Something of the format and shape of another tensor.
    fn partner(&mut self, dtype: DType, like: GraphTensor) -> GraphTensor {
        if self.choose.below(2) == 0 {
            let neutral = self.choose.below(3) > 0;
            let value = self.number(neutral.then_some(&NEUTRAL));
            return self.literal(dtype, value, like);
        }
        let dims = like.dims();
        let fitting: Vec<GraphTensor> = self
            .pool
            .iter()
            .copied()
            .filter(|x| x.dtype() == dtype && x.dims() == dims)
            .collect();
        if fitting.is_empty() {
            return self.literal(dtype, 1.0, like);
        }
        self.choose.of(&fitting)
    }

    fn step(&mut self) {
        let x = self.any();
        let made = match self.choose.below(15) {
            0 => Some(self.unary(x)),
            1..=3 => self.binary(x),
            4 => Some(self.select(x)),
            5 => Some(self.reduce(x)),
            6 => Some(self.record(Op::Detach, &[x])),
            11 | 12 => Some(self.record(Op::Contiguous, &[x])),
            7 => {
                let to = self.choose.of(&DType::NUMERIC);
                Some(self.record(Op::Cast(to), &[x]))
            }
            8 => self.indexed(x),
            9 => Some(self.leaf()),
            10 if !self.recorded.is_empty() => {
                let at = self.choose.below(self.recorded.len());
                let (op, operands) = self.recorded[at].clone();
                Some(GraphTensor::record(op, &operands))
            }
            _ => self.movement(x),
        };
        let fits = |x: &GraphTensor| static_dims(*x).iter().product::<usize>() <= MAX_ELEMENTS;
        self.pool.extend(made.filter(fits));
    }

    fn unary(&mut self, x: GraphTensor) -> GraphTensor {
        if !x.dtype().is_float() {
            return self.record(Op::Cast(DType::F32), &[x]);
        }
        let op = self.choose.of(&[
            UnaryOp::Recip,
            UnaryOp::Sqrt,
            UnaryOp::Exp2,
            UnaryOp::Log2,
            UnaryOp::Sin,
        ]);
        self.record(Op::Unary(op), &[x])
    }

    fn binary(&mut self, x: GraphTensor) -> Option<GraphTensor> {
        let op = self.choose.of(&[
            BinaryOp::Add,
            BinaryOp::Mul,
            BinaryOp::Mul,
            BinaryOp::LessThan,
            BinaryOp::Mod,
        ]);
        if op == BinaryOp::Mod && x.dtype() == DType::Bool {
            return None;
        }
        let y = self.partner(x.dtype(), x);
        let operands = if self.choose.below(2) == 0 {
            [x, y]
        } else {
            [y, x]
        };
        let once = self.record(Op::Binary(op), &operands);
        let again = op != BinaryOp::Add && once.dtype() == x.dtype() && self.choose.below(3) == 0;
        Some(if again {
            self.record(Op::Binary(op), &[once, y])
        } else {
            once
        })
    }

    fn select(&mut self, x: GraphTensor) -> GraphTensor {
        let condition = self.partner(DType::Bool, x);
        let y = self.partner(x.dtype(), x);
        self.record(Op::Select, &[condition, x, y])
    }

    fn reduce(&mut self, x: GraphTensor) -> GraphTensor {
        let kind = self.choose.of(&[ReduceOp::Sum, ReduceOp::Max]);
        let axes = (0..x.rank())
            .filter(|_| self.choose.below(2) == 0)
            .collect();
        let once = self.record(Op::Reduce(kind, axes), &[x]);
        let axes = (0..once.rank())
            .filter(|_| self.choose.below(2) == 0)
            .collect();
        self.record(Op::Reduce(kind, axes), &[once])
    }

    /// A gather or scatter along some axis, backwards.
    fn indexed(&mut self, x: GraphTensor) -> Option<GraphTensor> {
        let dims = static_dims(x);
        let axis = self.choose.below(dims.len().max(1));
        let &len = dims.get(axis)?;
        let leaf = Op::Iota {
            len: Expr::from(len),
        };
        let mut index = GraphTensor::leaf(self.cx.id(), leaf).look("flip", |view| view.flip(0));
        for (at, &dim) in dims.iter().enumerate().filter(|(at, _)| *at != axis) {
            index = index.look("repeat", |view| view.insert(at, dim));
        }
        if self.choose.below(2) == 0 {
            return Some(self.record(Op::Gather { axis }, &[x, index]));
        }
        let updates = self.partner(x.dtype(), x);
        let mode = self
            .choose
            .of(&[ScatterMode::Set, ScatterMode::Add, ScatterMode::Max]);
        Some(self.record(Op::Scatter { axis, mode }, &[x, index, updates]))
    }

    fn leaf(&mut self) -> GraphTensor {
        let graph = self.cx.id();
        match self.choose.below(4) {
            0 => GraphTensor::size(graph, Expr::from(self.choose.below(5))),
            1 => GraphTensor::leaf(
                graph,
                Op::Iota {
                    len: Expr::from(self.choose.below(3)),
                },
            ),
            2 => GraphTensor::leaf(
                graph,
                Op::Random {
                    dims: [Expr::from(2), Expr::from(3)].into_iter().collect(),
                    seed: self.choose.below(2) as u64,
                    step: Expr::from(self.choose.below(2)),
                },
            ),
            _ => {
                let (dtype, value) = (self.choose.of(&DType::NUMERIC), self.choose.of(&SPECIAL));
                let like = self.any();
                self.literal(dtype, value, like)
            }
        }
    }

    fn movement(&mut self, x: GraphTensor) -> Option<GraphTensor> {
        let dims = static_dims(x);
        let rank = dims.len();
        let axis = self.choose.below(rank.max(1));
        let n: usize = dims.iter().product();
        let which = self.choose.below(7);
        if rank == 0 && which != 5 {
            return None;
        }
        let moved = |view: &View| match which {
            0 => view.permute(&(0..rank).rev().collect::<Vec<_>>()),
            1 => view.pad(axis, 1, 0),
            2 => view.slice(axis, 0, dims[axis].div_ceil(2), 1),
            3 => view.flip(axis),
            4 => view.reshape([n]),
            5 => view.insert(0, 2),
            _ => view.reshape([vec![1], dims.clone()].concat()),
        };
        (rank < 4).then(|| x.look("move", moved))
    }
}

/// Builds the graph of a seed twice, compiles one of them, and compares two executions of both.
fn check(seed: u64) -> Report {
    let (mut plain, mut compiled) = (Builder::new(seed), Builder::new(seed));
    let recorded = compiled.cx.inspect(crate::graph::text::print);
    let report = compiled.cx.compile(Generic, &compiled.kept);
    let again = compiled.cx.compile(Generic, &compiled.kept);
    assert!(
        again.passes.iter().all(|pass| pass.hits == 0),
        "seed {seed}: a second run finds more: {again}\n{recorded}"
    );
    for run in 0..2 {
        plain.cx.execute();
        compiled.cx.execute();
        for (a, b) in plain.kept.iter().zip(&compiled.kept) {
            let (a, b) = (a.array(), b.array());
            assert!(
                same_bits(&a, &b),
                "seed {seed}, execution {run}: {a} became {b}\n{recorded}\n{}",
                compiled.cx.inspect(crate::graph::text::print)
            );
        }
    }
    report
}

#[test]
fn random_graphs_keep_their_bits() {
    let n = if crate::knobs::long_tests() {
        40_000
    } else {
        2000
    };
    let passes = [
        "dead-code",
        "cse",
        "constant-folding",
        "algebra",
        "view-elimination",
    ];
    let mut hits = [0; 5];
    for seed in 0..n {
        let report = check(seed);
        for (sum, pass) in hits.iter_mut().zip(passes) {
            *sum += report.hits(pass);
        }
    }
    for (sum, pass) in hits.iter().zip(passes) {
        assert!(*sum > n as usize / 4, "{pass} had {sum} hits in {n} graphs");
    }
}

#[test]
fn literals_of_every_special_value_are_told_apart_by_bits() {
    let zero = Literal::new(DType::F32, 0.0);
    assert_ne!(zero, Literal::new(DType::F32, -0.0));
    assert_eq!(
        Literal::new(DType::I32, 0.0),
        Literal::new(DType::I32, -0.0)
    );
}
