//! What recurrent layers have in common: stacks of cells that walk a sequence, in one direction or both.
//!
//! The sequence is unrolled, so its length is part of the graph. What a step takes from the input is computed for all steps
//! at once, in one matrix product; only the part that depends on the state before goes step by step.

use super::init::Init;
use super::module::Visitor;
use crate::dtype::DType;
use crate::error::Error;
use crate::graph::{Graph, GraphTensor};
use crate::shape::Expr;

/// Sizes of a recurrent layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecurrentConfig {
    /// Width of the input.
    pub input: usize,
    /// Width of a state.
    pub hidden: usize,
    /// How many layers are stacked; each reads the outputs of the one before.
    pub layers: usize,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether a second stack walks backwards; outputs are then those of both side by side.
    pub bidirectional: bool,
    /// Whether inputs and outputs are `[batch, steps, width]`, not `[steps, batch, width]`.
    pub batch_first: bool,
}

impl RecurrentConfig {
    /// One layer with biases in one direction, over `[steps, batch, width]`.
    pub fn new(input: usize, hidden: usize) -> RecurrentConfig {
        RecurrentConfig {
            input,
            hidden,
            layers: 1,
            bias: true,
            bidirectional: false,
            batch_first: false,
        }
    }

    fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }
}

/// The parameters of one direction of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// What the input is multiplied with, `[gates * hidden, input]`.
    pub ih: GraphTensor,
    /// What the state is multiplied with, `[gates * hidden, hidden]`.
    pub hh: GraphTensor,
    /// Biases of both products, `[gates * hidden]`.
    pub biases: Option<[GraphTensor; 2]>,
}

impl Weights {
    fn new(cx: &mut Graph, config: &RecurrentConfig, gates: usize, n_in: usize) -> Weights {
        let rows = gates * config.hidden;
        let ih = cx.input((rows, n_in), DType::F32);
        let hh = cx.input((rows, config.hidden), DType::F32);
        let biases = config
            .bias
            .then(|| [(); 2].map(|()| cx.input(rows, DType::F32)));
        Weights { ih, hh, biases }
    }

    /// What all steps take from their inputs `[s, b, input]`: `[s, b, gates * hidden]`.
    #[track_caller]
    fn of_inputs(&self, x: GraphTensor) -> GraphTensor {
        product(x, self.ih, self.biases.map(|biases| biases[0]))
    }

    /// What a step takes from the state before `[b, hidden]`: `[b, gates * hidden]`.
    #[track_caller]
    pub(super) fn of_state(&self, h: GraphTensor) -> GraphTensor {
        product(h, self.hh, self.biases.map(|biases| biases[1]))
    }
}

#[track_caller]
fn product(x: GraphTensor, weight: GraphTensor, bias: Option<GraphTensor>) -> GraphTensor {
    let out = x.matmul(weight.cast(x.dtype()).transpose(0, 1));
    match bias {
        Some(bias) => out + bias.cast(x.dtype()),
        None => out,
    }
}

/// Layers of cells whose state is `N` vectors, the first of which is the output.
#[derive(Clone, Debug)]
pub(super) struct Stack<const N: usize> {
    pub config: RecurrentConfig,
    /// One for each layer and direction: layer 0 forward, layer 0 backward, layer 1 forward ...
    pub weights: Vec<Weights>,
}

/// Outputs of all steps, and the states after the last, each `[layers * directions, batch, hidden]`.
pub(super) type Run<const N: usize> = (GraphTensor, [GraphTensor; N]);

impl<const N: usize> Stack<N> {
    pub fn new(cx: &mut Graph, config: RecurrentConfig, gates: usize) -> Stack<N> {
        let mut weights = Vec::new();
        for layer in 0..config.layers {
            let n_in = match layer {
                0 => config.input,
                _ => config.hidden * config.directions(),
            };
            for _ in 0..config.directions() {
                weights.push(Weights::new(cx, &config, gates, n_in));
            }
        }
        Stack { config, weights }
    }

    /// Walks `x [steps, batch, input]` (or `[steps, input]`; the batch may come first) with cells that make a step's state
    /// of what it takes from the input, and of the state before.
    #[track_caller]
    pub fn run(
        &self,
        x: GraphTensor,
        initial: Option<[GraphTensor; N]>,
        step: impl Fn(&Weights, GraphTensor, [GraphTensor; N]) -> [GraphTensor; N],
    ) -> Run<N> {
        let is_single = x.rank() == 2;
        let batched = |x: GraphTensor| if is_single { x.unsqueeze(1) } else { x };
        let swapped = |x: GraphTensor| match self.config.batch_first && !is_single {
            true => x.transpose(0, 1),
            false => x,
        };
        let mut x = batched(swapped(x));
        let initial = initial.map(|states| states.map(batched));
        let directions = self.config.directions();
        let mut last: [Vec<GraphTensor>; N] = std::array::from_fn(|_| Vec::new());
        for (layer, weights) in self.weights.chunks(directions).enumerate() {
            let mut outputs = Vec::new();
            for (back, weights) in weights.iter().enumerate() {
                let at = layer * directions + back;
                let start = initial.map(|states| states.map(|state| row(state, at)));
                let (out, end) = walk(weights, x, start, back == 1, self.config.hidden, &step);
                outputs.push(out);
                for (all, state) in last.iter_mut().zip(end) {
                    all.push(state);
                }
            }
            x = match outputs.as_slice() {
                [one] => *one,
                both => GraphTensor::concat(both, 2),
            };
        }
        let unbatched = |x: GraphTensor| if is_single { x.squeeze(1) } else { x };
        let states = last.map(|all| unbatched(GraphTensor::stack(&all, 0)));
        (swapped(unbatched(x)), states)
    }

    /// Names the parameters as PyTorch does: `weight_ih_l0`, `bias_hh_l1_reverse` ...
    pub fn visit(&self, visitor: &mut Visitor<'_>) {
        let bound = 1.0 / (self.config.hidden.max(1) as f32).sqrt();
        let init = Init::Uniform(-bound, bound);
        let directions = self.config.directions();
        for (i, weights) in self.weights.iter().enumerate() {
            let end = if i % directions == 1 { "_reverse" } else { "" };
            let layer = i / directions;
            visitor.parameter(&format!("weight_ih_l{layer}{end}"), weights.ih, init);
            visitor.parameter(&format!("weight_hh_l{layer}{end}"), weights.hh, init);
            if let Some([ih, hh]) = weights.biases {
                visitor.parameter(&format!("bias_ih_l{layer}{end}"), ih, init);
                visitor.parameter(&format!("bias_hh_l{layer}{end}"), hh, init);
            }
        }
    }
}

/// Row `i` of the first axis.
#[track_caller]
pub(super) fn row(x: GraphTensor, i: usize) -> GraphTensor {
    x.slice_axis(0, i, i + 1).squeeze(0)
}

/// The number of steps of `x [steps, ..]`.
#[track_caller]
pub(super) fn steps(x: GraphTensor) -> usize {
    let ty = x.ty();
    let known = ty.dims[0].as_usize().filter(|&steps| steps > 0);
    known.unwrap_or_else(|| {
        let what =
            "a sequence is unrolled: its number of steps must be known and not 0".to_string();
        let (op, what) = ("recurrent".into(), format!("{what}, in {ty}"));
        Error::Shape { op, what }.raise()
    })
}

/// One direction of one layer over `x [s, b, input]`: outputs `[s, b, hidden]`, and the last state.
#[track_caller]
fn walk<const N: usize>(
    weights: &Weights,
    x: GraphTensor,
    initial: Option<[GraphTensor; N]>,
    is_backward: bool,
    hidden: usize,
    step: impl Fn(&Weights, GraphTensor, [GraphTensor; N]) -> [GraphTensor; N],
) -> (GraphTensor, [GraphTensor; N]) {
    let n = steps(x);
    let inputs = weights.of_inputs(x);
    let zeros = || {
        let zero = GraphTensor::scalar(x.graph, x.dtype(), 0.0);
        [zero.expand([x.dims()[1], Expr::from(hidden)]); N]
    };
    let mut state = initial.unwrap_or_else(zeros);
    let mut outputs = Vec::new();
    for i in 0..n {
        let at = if is_backward { n - 1 - i } else { i };
        state = step(weights, row(inputs, at), state);
        outputs.push(state[0]);
    }
    if is_backward {
        outputs.reverse();
    }
    (GraphTensor::stack(&outputs, 0), state)
}
