//! Right operands that few rows use, read where they are.
//!
//! Before: `x[m, k] * w[k, n]`, whose columns are neighbours in memory. After: the same tiles and loops, but nothing of
//! the right operand is packed, as that costs as much as some rows of multiply-adds. Steps are cut into short pieces:
//! their rows are read from left to right, a tile of columns at a time, while those further right are asked for.
//!
//! Bits: those of packed operands; only where numbers are read differs.
//!
//! Deliberately absent: formats other than F32, padding, targets without masked loads, and operands whose steps are
//! neighbours, which few rows multiply by dot products ([`super::dot`]).

use std::sync::Arc;

use super::ir::{Contraction, collapse};
use super::linear::linear;
use super::micro::{DirectFn, Tile, emit_direct};
use super::plan::{Blocks, Parts, Side, Sizes};
use super::stored::Stored;
use super::walk::{Size, Walk};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit_masked::has_masks;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::error::Result;
use crate::shape::{Expr, numel};

/// The most rows: with more, packing pays.
pub const ROWS: usize = 32;

/// Steps in a piece: so few that rows of any distance share the caches.
const STEPS: usize = 128;

/// The kernels for a number of rows.
#[derive(Debug)]
struct Kernels {
    rows: u32,
    /// The symbol for each number of vectors.
    symbols: Vec<String>,
    object: Vec<u8>,
}

impl Kernels {
    /// Compiled once per process.
    fn of(target: &Target, tile: Tile, rows: u32, cache: &ObjectCache) -> Result<Arc<Kernels>> {
        static MADE: OncePerProcess<(Target, Tile, u32), Kernels> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), tile, rows), |_| {
            let sizes = || (1..=tile.vectors).map(|vectors| (rows, vectors));
            let symbols: Vec<_> = sizes()
                .map(|size| direct_symbol(tile, size, target))
                .collect();
            let object = compile_module_cached(target, cache, |context, module| {
                for (size, symbol) in sizes().zip(&symbols) {
                    emit_direct(context, module, symbol, tile, size);
                }
                Ok(())
            })?;
            Ok(Kernels {
                rows,
                symbols,
                object,
            })
        })
    }
}

/// The symbol of the kernel for so many rows and vectors.
pub fn direct_symbol(tile: Tile, size: (u32, u32), target: &Target) -> String {
    format!("{}_direct", tile.symbol(size, target))
}

/// Where the right operand is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    start: Size,
    batch: Walk,
    stride: Size,
}

impl Place {
    /// The address of a batch's column `n` in step `k`, and how far steps are apart.
    pub(super) fn row(
        &self,
        base: *const u8,
        [batch, n, k]: [usize; 3],
        params: &[i64],
    ) -> (*const f32, i64) {
        let stride = self.stride.value(params);
        let offset = self.start.value(params) as isize + self.batch.offset(batch, params);
        let offset = offset + n as isize + k as isize * stride as isize;
        (base.cast::<f32>().wrapping_offset(offset), stride)
    }
}

/// The code, ready to be linked.
#[derive(Clone, Debug)]
pub(super) struct CompiledDirect {
    /// Those for every number of rows that a tile may have.
    kernels: Vec<Arc<Kernels>>,
    tile: Tile,
    place: Place,
}

impl CompiledDirect {
    /// Nothing if the operands do not fit, or there always are many rows.
    pub(super) fn new(
        c: &Contraction,
        (target, tile): (&Target, Tile),
        cache: &ObjectCache,
        params: &mut Params,
    ) -> Result<Option<CompiledDirect>> {
        let rows = numel(&c.m).as_usize();
        let is_number = Stored::of(&c.rhs) == Stored::Number(DType::F32);
        if rows.is_some_and(|m| m > ROWS) || !is_number || !has_masks(tile.lanes, DType::F32) {
            return Ok(None);
        }
        let Some(form) = linear(&c.rhs.view).filter(|linear| linear.masks.is_empty()) else {
            return Ok(None);
        };
        let (first, last) = (c.batch.len(), c.batch.len() + c.n.len());
        let steps = &form.index.steps;
        let columns = collapse(&c.n, &steps[first..last]);
        let is_row = columns.len() < 2 && columns.iter().all(|(_, stride)| stride.is_one());
        let stride = match collapse(&c.k, &steps[last..])[..] {
            [] => Expr::from(0),
            [(_, stride)] => stride,
            _ => return Ok(None),
        };
        if !is_row || stride.is_one() {
            return Ok(None);
        }
        let height = tile.rows as usize;
        // Parts of the output are cut between tiles.
        let needed = |&own: &u32| {
            let own = own as usize;
            rows.is_none_or(|m| own == m % height || own == height && m >= height)
        };
        let kernels = (1..=tile.rows).filter(needed);
        let kernels = kernels.map(|rows| Kernels::of(target, tile, rows, cache));
        Ok(Some(CompiledDirect {
            kernels: kernels.collect::<Result<_>>()?,
            tile,
            place: Place {
                start: Size::of(form.index.start, params),
                batch: Walk::of(&c.batch, &steps[..first], params),
                stride: Size::of(stride, params),
            },
        }))
    }

    pub(super) fn link(&self, jit: &Jit) -> Result<Direct> {
        let vectors = self.tile.vectors as usize;
        let mut kernels = vec![None; self.tile.rows as usize * vectors];
        for own in &self.kernels {
            jit.add_once(&own.symbols[0], &own.object)?;
            let slots = kernels.chunks_mut(vectors).nth(own.rows as usize - 1);
            let slots = slots.expect("no part of a tile is larger than the tile");
            for (slot, symbol) in slots.iter_mut().zip(&own.symbols) {
                let address = jit.address(symbol)?;
                // SAFETY: the symbol is of a function that `emit_direct` wrote, with this signature.
                *slot = Some(unsafe { std::mem::transmute::<*const (), DirectFn>(address) });
            }
        }
        Ok(Direct {
            kernels,
            place: self.place.clone(),
        })
    }
}

/// What reads right operands where they are.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    /// The kernel for each number of rows that a tile may have, and within that for each number of vectors.
    pub(super) kernels: Vec<Option<DirectFn>>,
    pub(super) place: Place,
}

impl Direct {
    /// Whether this is the way for these sizes.
    pub(super) fn fits(&self, sizes: Sizes) -> bool {
        sizes.m <= ROWS
    }

    /// How operands are cut then.
    pub(super) fn blocks(&self, blocks: Blocks) -> Blocks {
        Blocks {
            kc: blocks.kc.min(STEPS),
            first: Side::Lhs,
            stays: Side::Rhs,
            ..blocks
        }
    }

    /// How the work is cut: each thread reads its own columns, since the right operand is the large one. Without panels
    /// they may start at any vector.
    pub(super) fn cut(&self, sizes: Sizes, tile: Tile, threads: usize) -> (Parts, Tile) {
        let unit = Tile { vectors: 1, ..tile };
        let is_wide = sizes.n.div_ceil(unit.lanes as usize) >= threads;
        let split = is_wide.then_some(Side::Rhs);
        (Parts::of(sizes, unit, threads, true, split), unit)
    }
}
