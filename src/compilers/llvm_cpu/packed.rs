//! Which operands of matrix products are packed once.
//!
//! Before: `x[s, k] * w[n, k]` with an input `w`, packed at every execution that has many rows. After: the product's
//! code takes `w` in panels ([`super::gemm::packed`]); the executor packs it when it changes and keeps it.
//!
//! Only right operands: inputs in F32 or BF16 that the graph does not assign to, of fixed sizes, for products that may
//! have many rows and have more than a few columns. With few rows a product still reads the input as it is, row by row,
//! in the order of dot products, which panels do not have. Products that share a kernel with what is made of them ([`super::epilogue`]) have their
//! operands packed once as well, all or none. The bits are those of operands that are packed at every execution.
//!
//! Off unless asked for: as few rows need the input itself, packed operands take memory in addition, as much as the
//! weights of the products. Weights in a mapped file only take what the system has to spare; with a folder for packed
//! operands these are mapped too.

use std::path::PathBuf;

use super::attention::Part;
use super::cache::Key;
use super::code::{NARROW, PackedRhs};
use super::contraction::contraction_of;
use super::epilogue;
use super::gemm::few::FEW;
use super::gemm::ir::Contraction;
use super::gemm::{Gemm, Sizes};
use crate::dtype::DType;
use crate::graph::{Dag, NodeIndex};
use crate::op::{Kernel, Op, Packing};
use crate::shape::{Dims, numel};

/// Whether operands are packed once, and where packed ones are kept.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    /// Whether any are.
    pub wanted: bool,
    /// A folder for files of packed operands.
    pub folder: Option<PathBuf>,
}

/// The right operands of a kernel's products, by their numbers, if all of them are to be packed once; empty if not.
pub(super) fn constant_rhs(dag: &Dag, id: NodeIndex, kernel: &Kernel) -> Vec<usize> {
    let Some((product, products)) = products_of(kernel) else {
        return vec![];
    };
    let m = numel(&product.m).as_usize();
    let many_rows = m.is_none_or(|m| m > FEW);
    let sizes = sizes_of(&product).filter(|sizes| many_rows && sizes.n > NARROW);
    let operands = dag.operands(id);
    let is_constant = |&operand: &usize| {
        let (source, view) = &operands[operand];
        let is_input = matches!(dag.node(*source).op, Op::Input { .. });
        let is_state = dag.assigns().iter().any(|&(state, _)| {
            let state = dag.source(state);
            state.is_ok_and(|state| state.node == *source)
        });
        is_input && dag.is_whole(*source, view) && !is_state
    };
    let right: Vec<usize> = products.iter().map(|sides| sides[1]).collect();
    let is_left = |operand| products.iter().any(|sides| sides[0] == operand);
    let all = right
        .iter()
        .all(|right| is_constant(right) && !is_left(*right));
    match sizes.is_some() && all {
        true => right,
        false => vec![],
    }
}

/// What the products of a kernel have in common, and the numbers of the left and the right operand of each.
fn products_of(kernel: &Kernel) -> Option<(Contraction, Vec<[usize; 2]>)> {
    if let Some(product) = contraction_of(kernel) {
        let sides = [product.lhs.input, product.rhs.input];
        return Some((product, vec![sides]));
    }
    let parts = epilogue::parts_of(kernel)?;
    let sides = |part: &Part| {
        [&parts.product.lhs, &parts.product.rhs].map(|access| part.operand(access.input))
    };
    let products = parts.products.iter().map(sides).collect();
    Some((parts.product, products))
}

/// The sizes of a right operand that can be packed once; those of the left one are not in them.
fn sizes_of(product: &Contraction) -> Option<Sizes> {
    let size = |dims: &Dims| numel(dims).as_usize();
    let is_fixed = product.rhs.view.layers().iter().all(|layer| {
        let valid = layer.valid.iter().flatten();
        let valid = valid.flat_map(|(low, high)| [low, high]);
        let all = layer.dims.iter().chain(&layer.strides).chain(valid);
        all.chain([&layer.offset])
            .all(|expr| expr.as_const().is_some())
    });
    let is_known = matches!(product.rhs.dtype, DType::F32 | DType::BF16);
    let sizes = Sizes {
        batch: size(&product.batch)?,
        m: 0,
        n: size(&product.n)?,
        k: size(&product.k)?,
    };
    (is_fixed && is_known && sizes.batch * sizes.n * sizes.k > 0).then_some(sizes)
}

impl PackedRhs {
    /// How these operands of a kernel are packed for a product's code.
    pub(super) fn new(
        product: &Contraction,
        gemm: &Gemm,
        operands: &[usize],
        packs: &Packs,
    ) -> PackedRhs {
        let sizes = sizes_of(product).expect("asked for before");
        let dtype = product.rhs.dtype;
        let view = product.rhs.view.to_string();
        let what = format!(
            "{} {dtype} {sizes:?} {}",
            env!("CARGO_PKG_VERSION"),
            gemm.panels_layout(sizes)
        );
        let layout = Key::of(&[view.as_bytes(), what.as_bytes()]).short();
        let packing = |&operand: &usize| Packing {
            operand,
            bytes: gemm.panels_bytes(sizes, dtype),
            layout,
            folder: packs.folder.clone(),
            can_wait: false,
        };
        PackedRhs {
            packings: operands.iter().map(packing).collect(),
            dtype,
            sizes,
        }
    }
}
