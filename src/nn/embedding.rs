//! A table of vectors, one for each token.

use super::init::Init;
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};

/// Looks rows of a table up.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    /// `[rows, width]`.
    pub weight: GraphTensor,
}

impl Embedding {
    /// A table with `f32` entries that have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::Embedding;
    /// let mut cx = Graph::new();
    /// let table = Embedding::new(&mut cx, 3, 2);
    /// table.weight.set([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]);
    /// let tokens = cx.input(2, DType::I32).set([2, 0]);
    /// let y = table.forward(tokens).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 2.5, 0.0, 0.5]);
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, rows: usize, width: usize) -> Embedding {
        let weight = cx.input((rows, width), DType::F32).set_name("weight");
        Embedding { weight }
    }

    /// `I32 [..]` to `F32 [.., width]`. A token that the table does not have is an error when executed.
    ///
    /// # Panics
    /// If `tokens` is not `I32`.
    #[track_caller]
    pub fn forward<S: Shape>(&self, tokens: GraphTensor<S>) -> GraphTensor {
        // The rows are widened after they are looked up, so that not the whole table is.
        let tokens = tokens.dynamic();
        self.weight.index_select(0, tokens).cast(DType::F32)
    }

    /// The table as an output layer: `[.., width]` to `[.., rows]`, each row's product with `x`.
    ///
    /// # Panics
    /// If the last axis of `x` is not `width` wide.
    #[track_caller]
    pub fn logits<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor {
        let x = x.dynamic();
        x.matmul(self.weight.cast(x.dtype()).transpose(0, 1))
    }
}

impl Module for Embedding {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::Normal(0.0, 1.0));
    }
}
