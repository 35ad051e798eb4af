//! Which operands of matrix products are packed once.
//!
//! Before: `x[s, k] * w[n, k]` with an input `w`, packed at every execution that has many rows. After: the product's
//! code takes `w` in panels ([`super::gemm::packed`]); the executor packs it when it changes and keeps it.
//!
//! Only right operands: inputs in F32 or BF16 that the graph does not assign to, of fixed sizes, for products whose
//! number of rows is not always small. With few rows a product still reads the input as it is, row by row, which is
//! faster than reading panels. A product that shares a kernel with what is made of it ([`super::epilogue`]) packs its
//! operands at every execution. The bits are those of operands that are packed at every execution.
//!
//! Off unless asked for: as few rows need the input itself, packed operands take memory in addition, as much as the
//! weights of the products. Weights in a mapped file only take what the system has to spare; with a folder for packed
//! operands these are mapped too.

use std::path::PathBuf;

use super::cache::{Key, ObjectCache};
use super::code::{GemmCode, PackedRhs};
use super::contraction::contraction_of;
use super::gemm::few::FEW;
use super::gemm::ir::Contraction;
use super::gemm::{CompiledGemm, Sizes};
use super::sequence::Linker;
use crate::dtype::DType;
use crate::error::Result;
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

/// Whether a kernel is a product whose right operand is to be packed once.
pub(super) fn has_constant_rhs(dag: &Dag, id: NodeIndex, kernel: &Kernel) -> bool {
    let Some(product) = contraction_of(kernel) else {
        return false;
    };
    let (rhs, m) = (product.rhs.input, numel(&product.m).as_usize());
    let operands = dag.operands(id);
    let (source, view) = &operands[rhs];
    let is_input = matches!(dag.node(*source).op, Op::Input { .. }) && dag.is_whole(*source, view);
    let is_state = dag.assigns().iter().any(|&(state, _)| {
        let state = dag.source(state);
        state.is_ok_and(|state| state.node == *source)
    });
    let many_rows = m.is_none_or(|m| m > FEW);
    is_input && !is_state && many_rows && rhs != product.lhs.input && sizes_of(&product).is_some()
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

impl GemmCode {
    /// The same product with its right operand packed once.
    pub(super) fn packing(
        self,
        product: &Contraction,
        packs: &Packs,
        linker: &Linker,
        cache: &ObjectCache,
    ) -> Result<GemmCode> {
        let sizes = sizes_of(product).expect("asked for before");
        let (target, dtype) = (&linker.target, product.rhs.dtype);
        let compiled = CompiledGemm::new(product, target, cache)?;
        let gemm = compiled
            .with_panels_of(dtype, target, cache)?
            .link(&linker.jit)?
            .with_blocks(self.gemm.blocks());
        let view = product.rhs.view.to_string();
        let what = format!(
            "{} {dtype} {sizes:?} {}",
            env!("CARGO_PKG_VERSION"),
            gemm.panels_layout(sizes)
        );
        let layout = Key::of(&[view.as_bytes(), what.as_bytes()]).short();
        let packing = Packing {
            operand: product.rhs.input,
            bytes: gemm.panels_bytes(sizes, dtype),
            layout,
            folder: packs.folder.clone(),
        };
        Ok(GemmCode {
            gemm,
            key: self.key ^ layout,
            name: self.name.replacen("gemm", "gemm_packed", 1),
            packing: Some(PackedRhs {
                packing,
                dtype,
                sizes,
            }),
            ..self
        })
    }
}
