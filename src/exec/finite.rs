//! Where a computation first leaves the numbers: for a loss that became NaN.
//!
//! The reference executor computes the graph again from its inputs' data as they are now, and looks at every result. So
//! the states must not have been overwritten by the bad step: record the update with
//! [`step_when`](crate::train::optim::Optimizer::step_when) the loss is finite.

use super::reference::evaluate_while;
use crate::array::Array;
use crate::error::Result;
use crate::graph::{Dag, Graph, NodeIndex};
use crate::op::Op;

/// An op that gave what is no finite number, of operands that were.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// The op with its type, name and the line that recorded it.
    pub node: String,
    /// The first element, in row-major order.
    pub element: usize,
    /// What it is: NaN or an infinity.
    pub value: f64,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (node, element, value) = (&self.node, self.element, self.value);
        write!(
            f,
            "{node} is the first to give {value}, at element {element}"
        )
    }
}

impl Graph {
    /// The op that first gives NaN of operands without NaN, or, if there is none, the first that gives an infinity of
    /// finite operands. Constants may be infinite (masks are); an input that was given NaN is named itself.
    ///
    /// Every op is computed by the reference executor, as before code was generated: that takes long for large graphs.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, -2.0, 4.0]);
    /// let mut loss = (x.sqrt() * 2.0).dynamic().sum(..);
    /// cx.compile(<(Generic, LlvmCpu)>::default(), &mut loss);
    /// cx.execute();
    /// assert!(loss.data()[0].is_nan());
    /// let found = cx.first_not_finite()?.expect("the loss is NaN");
    /// assert!(found.node.starts_with("sqrt f32[3]") && found.element == 1, "{found}");
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the graph cannot be executed: an input has no data, a symbol no value.
    pub fn first_not_finite(&self) -> Result<Option<NotFinite>> {
        let inner = self.lock();
        let has_kernels = |dag: &Dag| dag.ids().any(|id| matches!(dag.node(id).op, Op::Kernel(_)));
        let mut stages = inner.stages.iter().rev().map(|(_, dag)| dag);
        let dag = match has_kernels(&inner.dag) {
            true => stages.find(|dag| !has_kernels(dag)).unwrap_or(&inner.dag),
            false => &inner.dag,
        };
        let mut found = Found::default();
        evaluate_while(dag, &inner.state, |node, operands, result| {
            found.see(dag, node, operands, result);
            found.nan.is_none()
        })?;
        Ok(found.nan.or(found.infinity))
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    nan: Option<NotFinite>,
    infinity: Option<NotFinite>,
}

impl Found {
    fn see(&mut self, dag: &Dag, node: NodeIndex, operands: &[Array], result: &Array) {
        let first = |array: &Array, f: fn(f64) -> bool| {
            let values = array.dtype().is_float().then(|| array.to_f64())?;
            let at = values.iter().position(|&x| f(x))?;
            Some((at, values[at]))
        };
        let found = |f: fn(f64) -> bool| {
            let (element, value) = first(result, f)?;
            let new = operands.iter().all(|operand| first(operand, f).is_none());
            new.then(|| NotFinite {
                node: dag.describe(node),
                element,
                value,
            })
        };
        self.nan = self.nan.take().or_else(|| found(f64::is_nan));
        if !matches!(dag.node(node).op, Op::Constant(_)) {
            self.infinity = self.infinity.take().or_else(|| found(f64::is_infinite));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;

    #[test]
    fn finite_graphs_and_masks_are_fine() {
        let mut cx = Graph::new();
        let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
        let hidden = x.dynamic().gt(2.0).where_(f64::NEG_INFINITY, x.dynamic());
        hidden.slice_axis(0, 0, 1).softmax(1).retrieve();
        assert_eq!(cx.first_not_finite().expect("all is set"), None);
    }

    #[test]
    fn infinities_are_named_where_there_is_no_nan() {
        let mut cx = Graph::new();
        let x = cx.tensor::<R1<2>>().set([1.0, 0.0]);
        (x.recip() + 1.0).retrieve();
        let found = cx.first_not_finite().expect("all is set").expect("1 / 0");
        assert!(found.node.starts_with("recip"), "{found}");
        assert_eq!((found.element, found.value), (1, f64::INFINITY));
    }

    #[test]
    fn an_input_with_nan_is_named_itself() {
        let mut cx = Graph::new();
        let x = cx.tensor::<R1<2>>().set([1.0, f32::NAN]).set_name("pixels");
        x.sqrt().retrieve();
        let found = cx.first_not_finite().expect("all is set").expect("NaN");
        assert!(found.node.contains("\"pixels\""), "{found}");
    }

    #[test]
    fn nothing_is_computed_after_a_nan() {
        let mut cx = Graph::new();
        let x = cx.input((2, 2), DType::F32).set_name("pixels");
        x.set([[1.0, f32::NAN], [2.0, 3.0]]);
        // A row that is not there.
        let rows = cx.input((1, 2), DType::I32).set([[7, 7]]);
        x.gather(0, rows).retrieve();
        let found = cx
            .first_not_finite()
            .expect("it stops before")
            .expect("NaN");
        assert!(found.node.contains("\"pixels\""), "{found}");
    }
}
