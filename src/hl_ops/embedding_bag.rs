//! Rows of a table, put together by bags.

use super::movement::expand_view;
use super::operand::fail;
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::op::Op;

/// What becomes of the rows of a bag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum BagMode {
    /// Their sum.
    Sum,
    /// Their mean; 0 of none.
    #[default]
    Mean,
    /// The largest of each column; 0 of none.
    Max,
}

/// How bags are put together.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddingBag {
    /// What becomes of the rows.
    pub mode: BagMode,
    /// A row that does not count.
    pub padding_index: Option<i32>,
    /// Factors of the rows, in the shape of the indices. For sums only.
    pub weights: Option<GraphTensor>,
}

/// For each of `len` indices, in which bag it is: `I32 [len]`. Bags start at `offsets [bags]`.
#[track_caller]
fn bags_of(ids: GraphTensor, offsets: GraphTensor) -> GraphTensor {
    let len = ids.dims()[0];
    let at = GraphTensor::leaf(ids.graph, Op::Iota { len }).unsqueeze(1);
    offsets.le(at).cast(DType::I32).sum(1) - 1
}

impl GraphTensor {
    /// The rows of the table `[rows, d]` that the indices name, put together: indices `I32 [bags, n]` are bags of one
    /// size; of indices `[len]`, bag `i` is `offsets[i] .. offsets[i + 1]`, the last one to the end. Gives `[bags, d]`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{BagMode, EmbeddingBag};
    /// let mut cx = Graph::new();
    /// let table = cx.tensor::<R2<3, 1>>().set([[1.0], [10.0], [100.0]]).dynamic();
    /// let ids = cx.input(3, DType::I32).set([2, 1, 0]);
    /// let offsets = cx.input(2, DType::I32).set([0, 1]);
    /// let rule = EmbeddingBag { mode: BagMode::Sum, ..Default::default() };
    /// let y = table.embedding_bag(ids, Some(offsets), &rule).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [100.0, 11.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes do not fit, indices are not `I32`, or there are weights and the mode is not a sum.
    #[track_caller]
    pub fn embedding_bag(
        self,
        ids: GraphTensor,
        offsets: Option<GraphTensor>,
        rule: &EmbeddingBag,
    ) -> GraphTensor {
        let op = "embedding_bag";
        let (table, list) = (self.ty(), ids.ty());
        let is_flat = list.dims.len() == 1 && offsets.is_some();
        let is_even = list.dims.len() == 2 && offsets.is_none();
        let weights_fit = rule.weights.is_none() || rule.mode == BagMode::Sum;
        if table.dims.len() != 2 || !(is_flat || is_even) || !weights_fit {
            fail(op, format!("rows of {table} by {list}, {rule:?}"));
        }
        let x = self.wide(op);
        let rows = x.index_select(0, ids); // [.., d]
        let mut counts = ids.cast(x.dtype()).ones_like();
        if let Some(padding) = rule.padding_index {
            counts = ids.ne(padding).cast(x.dtype());
        }
        let factor = rule.weights.map(|weights| weights.cast(x.dtype()));
        let factor = factor.map_or(counts, |factor| counts.ne(0.0).where_(factor, 0.0));
        let bags = match offsets {
            Some(offsets) => Bags::At(bags_of(ids, offsets), offsets),
            None => Bags::Even,
        };
        let out = match rule.mode {
            BagMode::Sum => bags.sum(rows * factor.unsqueeze(-1)),
            BagMode::Mean => {
                let sum = bags.sum(rows * factor.unsqueeze(-1));
                let n = bags.sum(counts.unsqueeze(-1)).maximum(1.0);
                sum / n
            }
            BagMode::Max => {
                let lowest = counts.ne(0.0).unsqueeze(-1);
                let largest = bags.max(lowest.where_(rows, f32::NEG_INFINITY));
                let n = bags.sum(counts.unsqueeze(-1));
                n.eq(0.0).where_(0.0, largest)
            }
        };
        out.narrowed(self)
    }
}

/// Which rows belong together.
enum Bags {
    /// Those of axis 1.
    Even,
    /// Those with the same number of a bag; the offsets say how many bags there are.
    At(GraphTensor, GraphTensor),
}

impl Bags {
    #[track_caller]
    fn sum(&self, rows: GraphTensor) -> GraphTensor {
        match *self {
            Bags::Even => rows.sum(1),
            Bags::At(bag, offsets) => {
                let (start, index) = written(rows, bag, offsets, 0.0);
                start.scatter_add(0, index, rows)
            }
        }
    }

    #[track_caller]
    fn max(&self, rows: GraphTensor) -> GraphTensor {
        match *self {
            Bags::Even => rows.max(1),
            Bags::At(bag, offsets) => {
                let (start, index) = written(rows, bag, offsets, f64::NEG_INFINITY);
                start.scatter_max(0, index, rows)
            }
        }
    }
}

/// Where rows `[len, d]` are written: bags `[bags, d]` of `neutral`, and an index in the shape of the rows.
#[track_caller]
fn written(
    rows: GraphTensor,
    bag: GraphTensor,
    offsets: GraphTensor,
    neutral: f64,
) -> (GraphTensor, GraphTensor) {
    let dims = rows.dims();
    let start = GraphTensor::scalar(rows.graph, rows.dtype(), neutral);
    let start = start.expand([offsets.dims()[0], dims[1]]);
    let column = bag.unsqueeze(1);
    let index = column.look("embedding_bag", |view| expand_view(view, &dims));
    (start, index)
}
