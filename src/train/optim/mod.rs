//! Optimizers as graph.
//!
//! ```text
//! parameters, gradients  →  moments and weights that the step assigns to itself
//! ```
//! An optimizer records, for each parameter, its new value and those of its states. All of them are inputs that are
//! assigned to, so one execution of the compiled graph is a whole training step, and where nothing else needs the old
//! value the new one is written over it. What changes from step to step (the learning rate, corrections of the first
//! moments' bias) is computed from a counter that the graph moves on itself.
//!
//! ```
//! use brain_blitz::prelude::*;
//! use brain_blitz::train::optim::{Optimizer, Sgd};
//! let mut cx = Graph::new();
//! let w = cx.input(2, DType::F32).set([3.0, -2.0]);
//! let loss = (w * w).sum(..).retrieve();
//! let params = [w];
//! let grads = cx.compile(Autograd::new(&params, loss), ());
//! Sgd::new(0.25).step(&mut cx, &params, &grads);
//! cx.compile(<(Generic, LlvmCpu)>::default(), ());
//! for _ in 0..3 {
//!     cx.execute();
//! }
//! assert_eq!(w.data(), [0.375, -0.25]);
//! ```
//!
//! Formulas and defaults are PyTorch's (`torch.optim`), where it has the optimizer. A parameter in half precision is
//! computed with in `F32`, and so are its states.
//!
//! What it deliberately does not do: it computes no gradients, and it reads and writes no files: [`States`] names
//! everything that a checkpoint needs.

mod accumulate;
mod adagrad;
mod adam;
mod clip;
mod ema;
mod lion;
mod muon;
mod rmsprop;
mod sgd;
mod split;

pub use accumulate::{Accumulated, accumulate};
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use clip::{clip_grad_norm, clip_grad_value, grad_norm};
pub use ema::Ema;
pub use lion::Lion;
pub use muon::{Adjust, Muon};
pub use rmsprop::RmsProp;
pub use sgd::Sgd;
pub use split::Split;

use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::nn::Parameters;
use crate::train::schedule::Rate;

/// Parameters, with the names under which their states are found: `layer.weight` has the state `layer.weight.exp_avg`.
/// Tensors without names are numbered.
pub trait Named {
    /// Name and tensor of each.
    fn named(&self) -> Vec<(String, GraphTensor)>;
}

impl Named for Parameters {
    fn named(&self) -> Vec<(String, GraphTensor)> {
        let all = self.iter();
        all.map(|(name, tensor)| (name.to_string(), tensor))
            .collect()
    }
}

impl Named for [GraphTensor] {
    fn named(&self) -> Vec<(String, GraphTensor)> {
        let all = self.iter().enumerate();
        all.map(|(i, &tensor)| (i.to_string(), tensor)).collect()
    }
}

impl Named for Vec<GraphTensor> {
    fn named(&self) -> Vec<(String, GraphTensor)> {
        self.as_slice().named()
    }
}

impl<const N: usize> Named for [GraphTensor; N] {
    fn named(&self) -> Vec<(String, GraphTensor)> {
        self.as_slice().named()
    }
}

impl Named for [(&str, GraphTensor)] {
    fn named(&self) -> Vec<(String, GraphTensor)> {
        let all = self.iter();
        all.map(|&(name, tensor)| (name.to_string(), tensor))
            .collect()
    }
}

/// Inputs that a training step assigns to, beside the parameters: with them and the parameters' data, training goes
/// on as if it had not stopped.
#[derive(Clone, Debug, Default)]
pub struct States {
    entries: Vec<(String, GraphTensor)>,
    updated: Vec<GraphTensor>,
    rate: Option<GraphTensor>,
    when: Option<GraphTensor>,
}

impl<'a> IntoIterator for &'a States {
    type Item = (&'a str, GraphTensor);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}

impl States {
    /// Name and tensor of each state, the counter `step` first. Their data can be read with
    /// [`GraphTensor::array`] and set with [`GraphTensor::set`] between executions.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, GraphTensor)> {
        let all = self.entries.iter();
        all.map(|(name, tensor)| (name.as_str(), *tensor))
    }

    /// The state of this name.
    pub fn get(&self, name: &str) -> Option<GraphTensor> {
        let found = self.entries.iter().find(|entry| entry.0 == name);
        found.map(|entry| entry.1)
    }

    /// The parameters' new values, in the order of the parameters.
    pub fn updated(&self) -> &[GraphTensor] {
        &self.updated
    }

    /// The learning rate of the step, an `F64` of no dimensions; it can be kept with [`GraphTensor::retrieve`].
    pub fn rate(&self) -> Option<GraphTensor> {
        self.rate
    }

    /// A state with its first value everywhere, which becomes `new` after each execution, unless `when` is false.
    fn add(
        &mut self,
        cx: &mut Graph,
        name: String,
        (like, initial): (GraphTensor, f64),
        when: Option<GraphTensor>,
        next: impl FnOnce(GraphTensor) -> GraphTensor,
    ) -> GraphTensor {
        let state = cx.input(like.dims(), like.dtype()).set_name(&name);
        state.set_zeros();
        if initial != 0.0 {
            let n = state.ty().numel().as_usize();
            let n = n.expect("`set_zeros` refuses symbolic sizes");
            state.set(crate::array::Array::new(
                numbers(state),
                crate::array::Data::F64(vec![initial; n]),
            ));
        }
        let new = next(state);
        state.assign(unless_held(when, new, state));
        self.entries.push((name, state));
        new
    }

    /// Adds the states of another recorder.
    pub fn extend(&mut self, other: &States) {
        self.entries.extend(other.entries.iter().cloned());
    }
}

/// The sizes of a tensor that has no symbolic ones.
fn numbers(tensor: GraphTensor) -> Vec<usize> {
    let dims = tensor.dims();
    let size = |dim: &crate::shape::Expr| dim.as_usize().expect("the caller checked");
    dims.iter().map(size).collect()
}

/// `new`, or `old` where the condition is false.
fn unless_held(when: Option<GraphTensor>, new: GraphTensor, old: GraphTensor) -> GraphTensor {
    when.map_or(new, |when| when.where_(new, old))
}

/// One parameter in one step: what an optimizer's rule works with.
pub struct Update<'a> {
    cx: &'a mut Graph,
    states: &'a mut States,
    when: Option<GraphTensor>,
    name: &'a str,
    /// The parameter, in `F32` unless it is an `F64`.
    pub param: GraphTensor,
    /// Its gradient, in the same format.
    pub grad: GraphTensor,
    /// The learning rate, an `F64` of no dimensions.
    pub rate: GraphTensor,
    /// The number of this step, from 1: an `F64` of no dimensions.
    pub step: GraphTensor,
    /// The number of steps that were done, an `I32` of no dimensions.
    pub done: GraphTensor,
}

impl Update<'_> {
    /// The parameter's name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// A state of the parameter's shape, `initial` at first, that becomes what `next` makes of it; returns the new
    /// value.
    #[track_caller]
    pub fn state(
        &mut self,
        name: &str,
        initial: f64,
        next: impl FnOnce(GraphTensor) -> GraphTensor,
    ) -> GraphTensor {
        let name = format!("{}.{name}", self.name);
        let like = (self.param, initial);
        self.states.add(self.cx, name, like, self.when, next)
    }

    /// A scalar in the parameter's format.
    #[track_caller]
    pub fn narrow(&self, scalar: GraphTensor) -> GraphTensor {
        scalar.cast(self.param.dtype())
    }

    /// `1 - beta ^ step`: the part of a running average that was seen by this step, an `F64` of no dimensions with the
    /// digits of an `F32`.
    #[track_caller]
    pub fn seen(&self, beta: f64) -> GraphTensor {
        if beta <= 0.0 {
            return self.step.full_like(1.0);
        }
        let missing = (self.step * beta.ln()).cast(DType::F32).expm1();
        -missing.cast(DType::F64)
    }

    /// `old` moved towards `new`: `beta * old + (1 - beta) * new`.
    #[track_caller]
    pub fn average(old: GraphTensor, new: GraphTensor, beta: f64) -> GraphTensor {
        old * beta + new * (1.0 - beta)
    }
}

/// A rule that makes new parameters of gradients.
///
/// An optimizer of one's own is a struct with a rate and the update of one parameter:
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::optim::{Optimizer, Update};
/// use brain_blitz::train::schedule::Rate;
///
/// struct SignSgd(Rate);
///
/// impl Optimizer for SignSgd {
///     fn rate(&self) -> &Rate { &self.0 }
///     fn update(&self, at: &mut Update<'_>) -> GraphTensor {
///         at.param - at.grad.sign() * at.narrow(at.rate)
///     }
/// }
///
/// let mut cx = Graph::new();
/// let w = cx.input(2, DType::F32).set([3.0, -2.0]);
/// SignSgd(0.5.into()).step(&mut cx, &[w], &[w * 10.0]);
/// cx.execute();
/// assert_eq!(w.data(), [2.5, -1.5]);
/// ```
pub trait Optimizer {
    /// Where the learning rate comes from.
    fn rate(&self) -> &Rate;

    /// Records the states of one parameter and returns its new value.
    #[track_caller]
    fn update(&self, at: &mut Update<'_>) -> GraphTensor;

    /// Records one step: each execution moves the parameters once. `grads` are their gradients, in their order.
    ///
    /// # Panics
    /// At the caller's line, if there is not one gradient for each parameter, a parameter is no input, its size is
    /// symbolic, or shapes differ.
    #[track_caller]
    fn step(&self, cx: &mut Graph, params: &(impl Named + ?Sized), grads: &[GraphTensor]) -> States
    where
        Self: Sized,
    {
        record(self, cx, &params.named(), grads, None)
    }

    /// [`Optimizer::step`], which only counts where `when`, a boolean of no dimensions, is true: else parameters and
    /// states stay as they are.
    ///
    /// # Panics
    /// As [`Optimizer::step`].
    #[track_caller]
    fn step_when(
        &self,
        cx: &mut Graph,
        when: GraphTensor,
        params: &(impl Named + ?Sized),
        grads: &[GraphTensor],
    ) -> States
    where
        Self: Sized,
    {
        record(self, cx, &params.named(), grads, Some(when))
    }
}

/// In what the update of a tensor of this format is computed.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

#[track_caller]
fn record(
    optimizer: &dyn Optimizer,
    cx: &mut Graph,
    params: &[(String, GraphTensor)],
    grads: &[GraphTensor],
    when: Option<GraphTensor>,
) -> States {
    assert_eq!(
        params.len(),
        grads.len(),
        "an optimizer needs one gradient for each parameter"
    );
    let mut states = States {
        when,
        ..States::default()
    };
    let count = cx.scalar(0.0, DType::I32);
    let step = states.add(cx, "step".into(), (count, 0.0), when, |step| step + 1);
    let done = states.entries[0].1;
    let rate = optimizer.rate().record(done);
    states.rate = Some(rate);
    let step = step.cast(DType::F64);
    for ((name, param), grad) in params.iter().zip(grads) {
        let dtype = wide(param.dtype());
        let new = optimizer.update(&mut Update {
            cx,
            states: &mut states,
            when,
            name,
            param: param.cast(dtype),
            grad: grad.detach().cast(dtype),
            rate,
            step,
            done,
        });
        let new = unless_held(when, new.cast(param.dtype()), *param);
        param.assign(new);
        states.updated.push(new);
    }
    states
}
