//! Random graphs, samples of every op and broken texts, through the text form and back.

use proptest::prelude::*;

use super::parse;
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, text, verify};
use crate::op::table::ROWS;
use crate::op::{BinaryOp, ConstantValue, Literal, Op, ReduceOp, ScatterMode, UnaryOp};
use crate::shape::Expr;

/// One decision of the random graph: what to do, and with which of the tensors so far.
type Choice = (u8, u8, u8);

const NAMES: [&str; 4] = [
    "x",
    "a \"quoted\" name",
    "; no comment\n",
    "\u{1F600}\\{}<>",
];

/// A graph of many ops and views, the same for the same choices.
fn random_graph(choices: &[Choice]) -> Graph {
    let mut cx = Graph::new();
    let mut tensors = vec![
        cx.input((2, 3), DType::F32),
        cx.input(('s', 4), DType::F32),
        cx.input((2, 3), DType::I32),
        cx.input((4, Expr::from('s') * 2 + 1), DType::BF16),
        cx.input((), DType::Bool),
    ];
    for &(what, a, b) in choices {
        let x = tensors[a as usize % tensors.len()];
        let new = match what % 4 {
            0 => movement(x, b),
            1 => leaf(x, b),
            2 => keep(&cx, x, b),
            _ => operation(&tensors, x, b),
        };
        tensors.extend(new);
    }
    cx
}

/// A view of `x`; `None` where it does not fit.
fn movement(x: GraphTensor, how: u8) -> Option<GraphTensor> {
    let (dims, axis) = (x.dims(), usize::from(how >> 4));
    if dims.is_empty() || dims.len() > 5 {
        return Some(x.look("insert", |view| view.insert(0, usize::from(how % 3))));
    }
    let axis = axis % dims.len();
    let mut order: Vec<usize> = (0..dims.len()).collect();
    order.rotate_left(axis);
    let mut fits = None;
    x.look("any", |view| {
        let moved = match how % 9 {
            0 => view.permute(&order),
            1 => view.slice(axis, 1, dims[axis], 1),
            2 => view.pad(axis, 1, Expr::from('p')),
            3 => view.flip(axis),
            4 => view.repeat(axis, 2),
            5 => view.merge(0, dims.len()),
            6 => view.insert(axis, 't'),
            7 => view.unfold(axis, 2, 1, 1),
            _ => view.slice(axis, 0, dims[axis] - 1, 2),
        };
        fits = moved.ok();
        Ok(fits.clone().unwrap_or_else(|| view.clone()))
    });
    let view = fits?;
    Some(x.look("any", |_| Ok(view)))
}

fn leaf(x: GraphTensor, how: u8) -> Option<GraphTensor> {
    let value = [0.1, -0.0, f64::NAN, f64::NEG_INFINITY, 1e-40][usize::from(how) % 5];
    let literal = Literal::new(DType::ALL[usize::from(how) % 7], value);
    let op = match how % 4 {
        0 => Op::Iota {
            len: Expr::from('s') + usize::from(how),
        },
        1 => Op::Random {
            dims: x.dims(),
            seed: u64::MAX - u64::from(how),
            step: Expr::from('#') * 2,
        },
        2 => Op::Constant(ConstantValue::Size(Expr::from('s').rem(7) - 3)),
        _ => Op::Constant(ConstantValue::Literal(literal)),
    };
    Some(GraphTensor::leaf(x.graph, op))
}

/// Names, outputs and state updates.
fn keep(cx: &Graph, x: GraphTensor, how: u8) -> Option<GraphTensor> {
    match how % 3 {
        0 => {
            x.set_name(NAMES[usize::from(how >> 2) % NAMES.len()]);
        }
        1 => {
            x.retrieve();
        }
        _ => {
            let inputs = cx.inputs();
            if let Some(state) = inputs.into_iter().find(|input| input.ty() == x.ty()) {
                state.assign(x);
            }
        }
    }
    None
}

fn operation(tensors: &[GraphTensor], x: GraphTensor, how: u8) -> Option<GraphTensor> {
    let (rank, dtype) = (x.rank(), x.dtype());
    let axis = usize::from(how >> 4) % rank.max(1);
    let y = tensors.iter().copied().rfind(|y| y.ty() == x.ty())?;
    let index = tensors
        .iter()
        .copied()
        .find(|i| i.dims() == x.dims() && i.dtype() == DType::I32);
    let both = |op: BinaryOp| GraphTensor::record(Op::Binary(op), &[x, y]);
    Some(match how % 10 {
        0 if dtype.is_float() => GraphTensor::record(Op::Unary(UnaryOp::Exp2), &[x]),
        1..=5 | 8 if dtype == DType::U8 => GraphTensor::record(Op::Contiguous, &[x]),
        1 => both(BinaryOp::Add),
        2 => both(BinaryOp::LessThan),
        3 => GraphTensor::record(Op::Select, &[both(BinaryOp::LessThan), x, y]),
        4 if rank > 0 => {
            let axes = [axis].into_iter().collect();
            GraphTensor::record(Op::Reduce(ReduceOp::Sum, axes), &[x])
        }
        5 => GraphTensor::record(Op::Reduce(ReduceOp::Max, Default::default()), &[x]),
        6 => GraphTensor::record(Op::Cast(DType::ALL[usize::from(how) % 7]), &[x]),
        7 if rank > 0 => GraphTensor::record(Op::Gather { axis }, &[x, index?]),
        8 if rank > 0 => {
            let mode = ScatterMode::Max;
            GraphTensor::record(Op::Scatter { axis, mode }, &[x, index?, y])
        }
        9 => GraphTensor::record(Op::Detach, &[x]),
        _ => GraphTensor::record(Op::Contiguous, &[x]),
    })
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec(any::<Choice>(), 0..60)
}

/// Prints, parses, verifies and prints again.
fn round_trip(printed: &str) {
    let dag = parse(printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
    verify(&dag).unwrap_or_else(|e| panic!("{e}\n{printed}"));
    assert_eq!(text::print(&dag), printed);
}

proptest! {
    #[test]
    fn random_graphs_round_trip(choices in choices()) {
        let cx = random_graph(&choices);
        cx.inspect(|dag| verify(dag).expect("recording keeps the invariants"));
        round_trip(&cx.to_text());
    }

    #[test]
    fn broken_texts_are_errors_or_graphs(
        choices in choices(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..8), 1..6),
    ) {
        let mut text = random_graph(&choices).to_text().into_bytes();
        let signs = b"%${}[]()<>,:;=@\"\\ \n09-+*/sut#xf2";
        for (at, what, len) in cuts {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            let copied: Vec<u8> = text[at..end].to_vec();
            match what % 4 {
                0 => drop(text.drain(at..end)),
                1 => text[at] = signs[usize::from(what) / 4 % signs.len()],
                2 => text.insert(at, signs[usize::from(what) / 4 % signs.len()]),
                _ => drop(text.splice(at..at, copied)),
            }
            if text.is_empty() {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text);
        match parse(&text) {
            Ok(dag) => round_trip(&text::print(&dag)),
            Err(e) => prop_assert!(matches!(e, crate::Error::Parse { .. }), "{e}"),
        }
    }
}

#[test]
fn samples_of_every_op_round_trip() {
    let mut seen = Vec::new();
    for row in ROWS {
        for sample in (row.samples)() {
            let mut cx = Graph::new();
            let record = |x: &crate::array::Array| cx.input(x.dims(), x.dtype());
            let inputs: Vec<GraphTensor> = sample.inputs.iter().map(record).collect();
            let out = if inputs.is_empty() {
                GraphTensor::leaf(cx.id(), sample.op)
            } else {
                GraphTensor::record(sample.op, &inputs)
            };
            out.retrieve();
            round_trip(&cx.to_text());
            seen.push(row.name);
        }
    }
    seen.dedup();
    // Inputs are in all graphs, and custom ops cannot be read.
    assert_eq!(seen.len(), ROWS.len() - 2, "{seen:?}");
}

#[test]
fn what_is_read_executes_like_what_was_printed() {
    let text = "%0 = input<0> : f32[2, 3] \"x\"\n\
                %1 = constant<2.0> : f32[]\n\
                %2 = mul(%0, %1 {[2, 3] * (0, 0) + 0}) : f32[2, 3]\n\
                out %2 {[3, 2] * (1, 3) + 0}\n";
    let mut cx = Graph::from_text(text).unwrap();
    assert_eq!(cx.to_text(), text);
    cx.inputs()[0].set([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    cx.execute();
    assert_eq!(cx.outputs()[0].data(), [2.0, 8.0, 4.0, 10.0, 6.0, 12.0]);
}

#[test]
fn inputs_come_in_the_order_of_their_numbers() {
    let cx = Graph::from_text("%0 = input<4> : f32[2]\n%1 = input<1> : f32[3]\n").unwrap();
    let types: Vec<String> = cx.inputs().iter().map(|x| x.ty().to_string()).collect();
    assert_eq!(types, ["f32[3]", "f32[2]"]);
}
