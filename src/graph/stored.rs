//! Inputs whose data is stored otherwise than it was: in another format, or in blocks.
//!
//! Their number stays, and what read them reads a cast or a `dequantize` instead; the driver converts the data.

use std::sync::Arc;

use super::dag::{Dag, Edge, Node, NodeIndex, Source};
use super::patch::{move_values, redirect};
use crate::blocks::{BlockType, SignFit, SignMatrix};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Op, SignPart, TensorType};
use crate::shape::{Expr, View};

/// What an input's data becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoredAs {
    /// Numbers of another floating-point format.
    Format(DType),
    /// Blocks along the last axis.
    Blocks(BlockType),
    /// Signs and scales of a matrix.
    Signs(SignMatrix, SignFit),
}

/// What an input's bytes are, where these are no numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// Blocks along the last axis.
    Blocks(BlockType),
    /// Signs and scales of a matrix.
    Signs,
}

impl Dag {
    /// The input whose bytes a node decodes, perhaps to another format than `F32`, and what they are.
    pub(super) fn stored_as(&self, node: NodeIndex) -> Option<(u32, Encoding)> {
        let whole_operand = |node: NodeIndex| {
            let (source, view) = *self.operands(node).first()?;
            self.is_whole(source, view).then_some(source)
        };
        let decoded = match self.node(node).op {
            Op::Cast(_) => whole_operand(node)?,
            _ => node,
        };
        let encoding = match self.node(decoded).op {
            Op::Dequantize(ty) => Encoding::Blocks(ty),
            Op::SignMatrix(_, SignPart::Numbers) => Encoding::Signs,
            _ => return None,
        };
        match self.node(whole_operand(decoded)?).op {
            Op::Input { id, .. } => Some((id, encoding)),
            _ => None,
        }
    }

    /// How an input's data is stored.
    ///
    /// # Panics
    /// If no input has this number.
    pub(super) fn input_type(&self, input: u32) -> TensorType {
        let types = self.ids().filter_map(|id| match &self.node(id).op {
            Op::Input { id, ty } if *id == input => Some(ty.clone()),
            _ => None,
        });
        types.last().expect("the caller found the input")
    }
}

impl StoredAs {
    /// Changes an input; what reads it reads what its data now stands for.
    ///
    /// # Errors
    /// If its rows are no whole blocks.
    pub(super) fn store(self, dag: &mut Dag, input: NodeIndex) -> Result<()> {
        match self {
            StoredAs::Format(dtype) => store_input(dag, input, dtype),
            StoredAs::Blocks(ty) => return store_as_blocks(dag, input, ty),
            StoredAs::Signs(matrix, _) => return store_as_signs(dag, input, matrix),
        }
        Ok(())
    }
}

/// Gives an input its new format; whatever reads it, reads a cast.
fn store_input(dag: &mut Dag, input: NodeIndex, dtype: DType) {
    let node = dag.node_mut(input);
    let old = std::mem::replace(&mut node.ty.dtype, dtype);
    if let Op::Input { ty, .. } = &mut node.op {
        ty.dtype = dtype;
    }
    let dims = node.ty.dims.clone();
    let view = View::contiguous(dims.clone());
    let (location, turn) = (node.location, node.turn);
    let cast = dag.add_node(Node {
        op: Op::Cast(old),
        ty: TensorType { dims, dtype: old },
        name: None,
        location,
        turn,
    });
    let target = Source {
        node: cast,
        view: view.clone(),
    };
    redirect(dag, input, &target);
    let view = Arc::new(view);
    dag.nodes.add_edge(input, cast, Edge { slot: 0, view });
}

/// Makes an input one of bytes; whatever reads it or stands for it gets the numbers in them, in its old format.
fn store_as_blocks(dag: &mut Dag, input: NodeIndex, blocks: BlockType) -> Result<()> {
    let ty = dag.node(input).ty.clone();
    let row = ty.dims.last().and_then(|dim| dim.as_usize());
    let bytes = row
        .and_then(|row| blocks.bytes_of(row))
        .ok_or_else(|| Error::Node {
            node: dag.describe(input),
            what: format!("has no rows of whole blocks of {blocks}"),
        })?;
    let mut stored = TensorType {
        dims: ty.dims.clone(),
        dtype: DType::U8,
    };
    *stored.dims.last_mut().expect("it has a last axis") = Expr::from(bytes);
    store_encoded(dag, input, stored, Op::Dequantize(blocks));
    Ok(())
}

/// Makes an input one of panels of signs; whatever reads it or stands for it gets the numbers, in its old format.
fn store_as_signs(dag: &mut Dag, input: NodeIndex, matrix: SignMatrix) -> Result<()> {
    let ty = dag.node(input).ty.clone();
    if ty.dims[..] != TensorType::new((matrix.rows(), matrix.columns()), ty.dtype).dims[..] {
        return Err(Error::Node {
            node: dag.describe(input),
            what: format!("is no matrix of signs {matrix}"),
        });
    }
    let stored = TensorType::new((matrix.panels(), matrix.panel_bytes()), DType::U8);
    let numbers = Op::SignMatrix(matrix, SignPart::Numbers);
    store_encoded(dag, input, stored, numbers);
    Ok(())
}

/// Makes an input one of type `stored`, of which `decode` makes the numbers.
fn store_encoded(dag: &mut Dag, input: NodeIndex, stored: TensorType, decode: Op) {
    let Node {
        ty, location, turn, ..
    } = dag.node(input).clone();
    let mut add = |op, dtype| {
        dag.add_node(Node {
            op,
            ty: TensorType {
                dims: ty.dims.clone(),
                dtype,
            },
            name: None,
            location,
            turn,
        })
    };
    let numbers = add(decode, DType::F32);
    let seen = match ty.dtype {
        DType::F32 => numbers,
        dtype => add(Op::Cast(dtype), dtype),
    };
    let whole = View::contiguous(ty.dims.clone());
    let target = Source {
        node: seen,
        view: whole.clone(),
    };
    redirect(dag, input, &target);
    move_values(dag, &[(input, target)]);
    if seen != numbers {
        let view = Arc::new(whole);
        dag.nodes.add_edge(numbers, seen, Edge { slot: 0, view });
    }
    let view = Arc::new(View::contiguous(stored.dims.clone()));
    dag.nodes.add_edge(input, numbers, Edge { slot: 0, view });
    let node = dag.node_mut(input);
    if let Op::Input { ty, .. } = &mut node.op {
        *ty = stored.clone();
    }
    node.ty = stored;
}
