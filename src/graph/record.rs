//! Recording: the few functions through which `hl_ops` puts ops and views into a graph.

use std::panic::Location;
use std::sync::Arc;

use smallvec::SmallVec;

use super::dag::{NodeIndex, Source, ValueId};
use super::handle::{Dyn, GraphTensor};
use super::registry::{Graph, Inner, with_graph};
use super::typed::Shape;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{ConstantValue, CustomHandle, CustomOp, Literal, Op, TensorType};
use crate::shape::{Dims, Expr, IntoDims, ShapeError, View};

impl Inner {
    /// What an op reads for a value: its source, through a cast where a compiler changed the format of an input.
    fn widened(
        &mut self,
        source: Source,
        value: ValueId,
        location: &'static Location<'static>,
    ) -> Result<(NodeIndex, View)> {
        let dtype = self.dag.value(value).ty.dtype;
        if self.dag.node(source.node).ty.dtype == dtype {
            return Ok((source.node, source.view));
        }
        let whole = View::contiguous(self.dag.node(source.node).ty.dims.clone());
        let cast = [(source.node, whole)];
        Ok((
            self.dag.push(Op::Cast(dtype), &cast, location)?,
            source.view,
        ))
    }

    fn record_leaf(&mut self, op: Op, location: &'static Location<'static>) -> Result<ValueId> {
        let node = self.dag.push(op, &[], location)?;
        let view = View::contiguous(self.dag.node(node).ty.dims.clone());
        Ok(self.dag.push_value(Source { node, view }, location))
    }

    fn record_op(
        &mut self,
        op: Op,
        operands: &[ValueId],
        location: &'static Location<'static>,
    ) -> Result<ValueId> {
        let mut sources: SmallVec<[_; 3]> = SmallVec::new();
        for &value in operands {
            let source = self.dag.source(value)?.clone();
            sources.push(self.widened(source, value, location)?);
        }
        let node = self.dag.push(op, &sources, location)?;
        let view = View::contiguous(self.dag.node(node).ty.dims.clone());
        Ok(self.dag.push_value(Source { node, view }, location))
    }
}

impl GraphTensor<Dyn> {
    /// Records `op` on these operands.
    ///
    /// # Panics
    /// At the caller's line, if they do not fit or belong to different graphs.
    #[track_caller]
    pub(crate) fn record(op: Op, operands: &[GraphTensor]) -> GraphTensor {
        let location = Location::caller();
        let graph = operands[0].graph;
        if operands.iter().any(|operand| operand.graph != graph) {
            let what = "operands from two different graphs; a graph's tensors can only be used with each other".to_string();
            Error::Shape {
                op: op.name().into(),
                what,
            }
            .raise();
        }
        let values: SmallVec<[ValueId; 3]> = operands.iter().map(|operand| operand.value).collect();
        let value = operands[0].with(|inner| inner.record_op(op, &values, location));
        GraphTensor::from_parts(graph, value)
    }

    /// The same data looked at differently: no op is recorded.
    ///
    /// # Panics
    /// At the caller's line, if the movement does not fit; `what` names it.
    #[track_caller]
    pub(crate) fn look(
        self,
        what: &str,
        f: impl FnOnce(&View) -> Result<View, ShapeError>,
    ) -> GraphTensor {
        let location = Location::caller();
        let value = self.with(|inner| {
            let source = inner.dag.source(self.value)?;
            let view = f(&source.view).map_err(|e| Error::Shape {
                op: what.into(),
                what: e.to_string(),
            })?;
            let source = Source {
                node: source.node,
                view,
            };
            Ok(inner.dag.push_value(source, location))
        });
        GraphTensor::from_parts(self.graph, value)
    }

    /// Records a leaf in the graph of this number.
    #[track_caller]
    pub(crate) fn leaf(graph: u32, op: Op) -> GraphTensor {
        let location = Location::caller();
        let value = match with_graph(graph, |inner| inner.record_leaf(op, location)) {
            Ok(done) => done,
            Err(e) => e.raise(),
        };
        GraphTensor::from_parts(graph, value)
    }

    /// A number of no dimensions.
    #[track_caller]
    pub(crate) fn scalar(graph: u32, dtype: DType, value: f64) -> GraphTensor {
        GraphTensor::leaf(
            graph,
            Op::Constant(ConstantValue::Literal(Literal::new(dtype, value))),
        )
    }

    /// The value of a size expression as an `I32` of no dimensions.
    #[track_caller]
    pub(crate) fn size(graph: u32, expr: Expr) -> GraphTensor {
        GraphTensor::leaf(graph, Op::Constant(ConstantValue::Size(expr)))
    }
}

impl Graph {
    /// An input of a static shape, `f32`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>().set([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.dims().len(), 2);
    /// ```
    ///
    /// # Panics
    /// Never for the shapes `R0` to `R6`.
    #[track_caller]
    pub fn tensor<S: Shape>(&mut self) -> GraphTensor<S> {
        let dims = S::dims().unwrap_or_else(|| {
            Error::msg("`tensor::<..>()` needs a static shape; use `input(dims, dtype)`").raise()
        });
        self.new_input(dims, DType::F32).retag()
    }

    /// An input whose shape is known now (`(2, 3)`) or in part only at execution (`('s', 64)`).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input(('s', 64), DType::F32);
    /// assert_eq!(x.ty().to_string(), "f32[s, 64]");
    /// ```
    #[track_caller]
    pub fn input(&mut self, dims: impl IntoDims, dtype: DType) -> GraphTensor {
        self.new_input(dims.into_dims(), dtype)
    }

    #[track_caller]
    fn new_input(&mut self, dims: Dims, dtype: DType) -> GraphTensor {
        let id = self.lock().dag.next_input();
        GraphTensor::leaf(
            self.id(),
            Op::Input {
                id,
                ty: TensorType { dims, dtype },
            },
        )
    }

    /// Records any op of the set; the tensor methods are the comfortable way to most.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::op::{Op, UnaryOp};
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, 9.0]);
    /// let y = cx.record(Op::Unary(UnaryOp::Sqrt), &[x.dynamic()]).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands do not fit the op or belong to another graph.
    #[track_caller]
    pub fn record(&mut self, op: Op, operands: &[GraphTensor]) -> GraphTensor {
        if operands.is_empty() {
            return GraphTensor::leaf(self.id(), op);
        }
        if operands.iter().any(|operand| operand.graph != self.id()) {
            let what = "operands of another graph".to_string();
            Error::Shape {
                op: op.name().into(),
                what,
            }
            .raise();
        }
        GraphTensor::record(op, operands)
    }

    /// Records a user's own op (see [`CustomOp`]).
    ///
    /// # Panics
    /// If the operands do not fit, or there are none.
    #[track_caller]
    pub fn custom(&mut self, op: Arc<dyn CustomOp>, operands: &[GraphTensor]) -> GraphTensor {
        assert!(
            !operands.is_empty(),
            "a custom op needs at least one operand"
        );
        GraphTensor::record(Op::Custom(CustomHandle(op)), operands)
    }
}
