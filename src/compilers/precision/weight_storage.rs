//! Weights of 32 bits → weights of 16 bits.
//!
//! ```text
//! %0 = input<0> : f32[3, 2] "w.weight"         %0 = input<0> : bf16[3, 2] "w.weight"
//! %2 = mul(%1 {..}, %0 {..}) : f32[4, 3, 2]  →  %1 = cast<f32>(%0) : f32[3, 2]
//!                                              %3 = mul(%2 {..}, %1 {..}) : f32[4, 3, 2]
//! ```
//! A weight is an `F32` input of static size and two or more dimensions whose name says so, and which is neither a
//! state nor kept. Vectors (biases, scales of norms) stay: they are a thousandth of the bytes and matter more.
//!
//! Handles go on standing for the input: `set` rounds what it is given, and data set before is converted by the
//! driver. Rounding is to nearest, ties to even.
//!
//! What it deliberately does not do: quantize below 16 bits, or convert states, which a graph writes itself.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{IsWeight, is_narrow};
use crate::compilers::Pass;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Patch};
use crate::op::Op;

/// The pass; a hit is a weight whose format changed.
pub struct WeightStorage {
    dtype: DType,
    is_weight: IsWeight,
    note: RefCell<Option<String>>,
}

impl WeightStorage {
    pub(super) fn new(dtype: DType, is_weight: IsWeight) -> WeightStorage {
        debug_assert!(is_narrow(dtype));
        WeightStorage {
            dtype,
            is_weight,
            note: RefCell::new(None),
        }
    }

    fn is_convertible(&self, dag: &Dag, id: NodeIndex) -> bool {
        let node = dag.node(id);
        let named = node
            .name
            .as_ref()
            .is_some_and(|name| (self.is_weight)(name));
        matches!(node.op, Op::Input { .. })
            && node.ty.dtype == DType::F32
            && node.ty.dims.len() >= 2
            && node.ty.numel().as_usize().is_some()
            && named
    }
}

impl Pass for WeightStorage {
    fn name(&self) -> &str {
        "weight-storage"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let kept = dag.kept_nodes();
        let weights: BTreeSet<NodeIndex> = dag
            .ids()
            .filter(|id| !kept.contains(id) && self.is_convertible(dag, *id))
            .collect();
        for &id in &weights {
            patch.store(id, self.dtype);
        }
        let note = "no input was stored in 16 bits: a weight is named, of static size, and has two dimensions or more";
        *self.note.borrow_mut() = weights.is_empty().then(|| note.to_string());
        Ok(patch)
    }

    fn notes(&self) -> Vec<String> {
        self.note.borrow().iter().cloned().collect()
    }

    fn is_lossy(&self) -> bool {
        true
    }
}
