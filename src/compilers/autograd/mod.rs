//! Gradients as more graph.
//!
//! ```text
//! y = x * x                       loss ∂y = 1
//! gradient by x             →     ∂x = ∂y * x + ∂y * x
//! ```
//! [`Autograd`] walks the graph backwards from the losses, asks each op's own rule (`op::gradient`) for the gradients
//! by its operands, and sends them back through the views under which the operands were read (`transpose`). What
//! comes out are primitive ops and views like all others: every later pass works on them, matrix products among them
//! become the same kernels, and the gradient of a gradient needs nothing new.
//!
//! Only nodes between the parameters and the losses are visited. Gradients that reach a node on several ways are
//! added in an order that depends on the graph alone, so equal graphs give equal bits.
//!
//! What it deliberately does not do: it changes nothing that is there, and it keeps nothing: a gradient that nobody
//! reads, retrieves or assigns from is dead code. Where an op has a kink, its rule says which side counts.

use super::{Compiler, Pass, PassList, Report};
use crate::compilers::Keep;
use crate::error::Result;
use crate::graph::{Dag, Graph, GraphTensor, Patch, Shape, ValueId};

mod build;
mod transpose;
mod walk;

/// Gradients of the sum of some losses by some parameters.
///
/// The gradients come back in the order of the parameters, each in its parameter's shape and format. A parameter may
/// be any floating-point value: an input, a part of one, or something computed.
///
/// ```
/// use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.tensor::<R0>().set(3.0);
/// let y = x * x;
/// let dy = cx.compile(Autograd::new(x, y), ()); // 2x
/// let ddy = cx.compile(Autograd::new(x, dy[0]), ()); // 2
/// cx.compile(<(Generic, LlvmCpu)>::default(), (dy[0], ddy[0]));
/// cx.execute();
/// assert_eq!((dy[0].data(), ddy[0].data()), (vec![6.0], vec![2.0]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autograd {
    params: Vec<(u32, ValueId)>,
    losses: Vec<(u32, ValueId)>,
    weights: Option<Vec<(u32, ValueId)>>,
}

impl Autograd {
    /// Gradients by `params` of the sum of all elements of all `losses`: handles, or tuples or vectors of them.
    pub fn new(params: impl Keep, losses: impl Keep) -> Autograd {
        Autograd {
            params: collected(params),
            losses: collected(losses),
            weights: None,
        }
    }

    /// Weighs the losses' elements by `weights`, tensors of the losses' shapes: gradients of
    /// `sum(loss * weight)`, also called the product of the weights with the Jacobian matrix.
    pub fn weighted(mut self, weights: impl Keep) -> Autograd {
        self.weights = Some(collected(weights));
        self
    }
}

fn collected(handles: impl Keep) -> Vec<(u32, ValueId)> {
    let mut all = Vec::new();
    handles.collect(&mut all);
    all
}

/// The gradients of an [`Autograd`] that was compiled: a slice of handles, one for each parameter.
#[derive(Clone, Debug)]
pub struct Grads {
    /// What the compilation did; its values are the gradients.
    pub report: Report,
}

impl From<Report> for Grads {
    fn from(report: Report) -> Grads {
        Grads { report }
    }
}

impl std::ops::Deref for Grads {
    type Target = [GraphTensor];

    fn deref(&self) -> &[GraphTensor] {
        &self.report.values
    }
}

impl Keep for Grads {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        self.report.values.collect(out);
    }
}

impl Compiler for Autograd {
    type Output = Grads;

    fn passes(&self, list: &mut PassList) {
        list.push(Differentiate(self.clone()));
    }

    fn handles(&self) -> Vec<(u32, ValueId)> {
        let weights = self.weights.iter().flatten();
        let all = self.params.iter().chain(&self.losses).chain(weights);
        all.copied().collect()
    }
}

/// The pass `autograd`; a hit is a parameter.
struct Differentiate(Autograd);

impl Pass for Differentiate {
    fn name(&self) -> &str {
        "autograd"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let values = |handles: &[(u32, ValueId)]| handles.iter().map(|h| h.1).collect::<Vec<_>>();
        walk::gradients(
            dag,
            &values(&self.0.params),
            &values(&self.0.losses),
            self.0.weights.as_deref().map(values).as_deref(),
        )
    }
}

/// What [`Graph::no_grad`] can stop gradients at: handles, and tuples, vectors and arrays of them.
pub trait StopGradients {
    /// The same values, through which no gradient flows.
    fn stop(self) -> Self;
}

impl<S: Shape> StopGradients for GraphTensor<S> {
    #[track_caller]
    fn stop(self) -> Self {
        self.detach()
    }
}

impl<T: StopGradients> StopGradients for Vec<T> {
    fn stop(self) -> Self {
        self.into_iter().map(T::stop).collect()
    }
}

impl<T: StopGradients, const N: usize> StopGradients for [T; N] {
    fn stop(self) -> Self {
        self.map(T::stop)
    }
}

impl<A: StopGradients, B: StopGradients> StopGradients for (A, B) {
    fn stop(self) -> Self {
        (self.0.stop(), self.1.stop())
    }
}

impl<A: StopGradients, B: StopGradients, C: StopGradients> StopGradients for (A, B, C) {
    fn stop(self) -> Self {
        (self.0.stop(), self.1.stop(), self.2.stop())
    }
}

impl Graph {
    /// What `f` gives, as constants: no gradient flows into what it recorded.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([2.0, 3.0]);
    /// let scale = cx.no_grad(|| x.abs().dynamic().max(..));
    /// let loss = (x.dynamic() * scale.expand(2)).sum(..);
    /// let dx = cx.compile(Autograd::new(x, loss), ())[0].retrieve();
    /// cx.execute();
    /// assert_eq!(dx.data(), [3.0, 3.0]);
    /// ```
    pub fn no_grad<T: StopGradients>(&self, f: impl FnOnce() -> T) -> T {
        f().stop()
    }
}
