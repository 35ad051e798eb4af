//! Matrix products: compiled per contraction, run over any number of threads.
//!
//! Compiled code does two things: packing operands into panels, which depends on their views, and
//! the micro-kernel, which depends on the target only and is shared. The loops around them are
//! plain Rust: for each part of the output (one per thread), blocks of columns, blocks of K and
//! blocks of rows, so that packed blocks stay in the caches.
//!
//! [`CompiledGemm::new`] makes the code, in any thread; [`CompiledGemm::link`] gives a [`Gemm`],
//! which holds on to the [`Jit`] its code lives in; [`Gemm::run`] allocates nothing.
//!
//! The bits of the output depend neither on the target nor on the number of threads.
//!
//! ```
//! # fn main() -> brain_blitz::error::Result<()> {
//! use std::sync::Arc;
//! use brain_blitz::compilers::llvm_cpu::{cache::ObjectCache, ir::Access, jit::Jit, target::Target};
//! use brain_blitz::compilers::llvm_cpu::gemm::{Call, CompiledGemm, Rhs};
//! use brain_blitz::compilers::llvm_cpu::gemm::ir::Contraction;
//! use brain_blitz::dtype::DType;
//! use brain_blitz::shape::{IntoDims, Symbols, View};
//!
//! // [s, 2] times [3, 2] transposed, for any s.
//! let access = |input, view| Access { input, dtype: DType::F32, view };
//! let contraction = Contraction {
//!     batch: ().into_dims(),
//!     m: 's'.into_dims(),
//!     n: 3.into_dims(),
//!     k: 2.into_dims(),
//!     lhs: access(0, View::contiguous(('s', 2))),
//!     rhs: access(1, View::contiguous((3, 2))),
//!     out_strides: (3, 1).into_dims(),
//!     dtype: DType::F32,
//! };
//! let compiled = CompiledGemm::new(&contraction, &Target::native(), &ObjectCache::disabled())?;
//! let gemm = compiled.link(&Arc::new(Jit::new()?))?;
//!
//! let symbols: Symbols = [('s', 2)].into_iter().collect();
//! let eval = |expr: &brain_blitz::shape::Expr| expr.eval(&symbols).expect("s is set");
//! let params: Vec<i64> = compiled.params().iter().map(eval).collect();
//! let (lhs, rhs) = ([1f32, 2.0, 3.0, 4.0], [1f32, 0.0, 0.0, 1.0, 1.0, 1.0]);
//! let mut out = [0f32; 6];
//! let mut scratch = vec![0; gemm.scratch_bytes(gemm.sizes(&params), 1)];
//! let call = Call {
//!     lhs: lhs.as_ptr().cast(),
//!     rhs: Rhs::Raw(rhs.as_ptr().cast()),
//!     out: out.as_mut_ptr(),
//!     params: &params,
//!     scratch: &mut scratch,
//!     threads: 1,
//! };
//! // SAFETY: the buffers are as large as the views say.
//! unsafe { gemm.run(call) };
//! assert_eq!(out, [1.0, 2.0, 3.0, 3.0, 4.0, 7.0]);
//! # Ok(())
//! # }
//! ```

mod ahead;
pub mod asm;
pub mod broad;
mod call;
pub mod direct;
pub mod dot;
mod dot_code;
pub mod few;
mod gather;
pub mod heads;
pub mod ir;
mod linear;
pub mod micro;
mod micros;
pub mod objects;
mod pack;
mod pack_blocks;
pub mod packed;
mod packing;
mod panels;
mod place;
mod plan;
pub mod rows;
mod run;
mod runs;
pub mod slim;
pub mod stored;
mod sums;
pub mod sums_code;
pub mod tiled;
mod transpose;
mod walk;
mod widen;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use self::ahead::AskFn;
use self::broad::CompiledBroad;
pub use self::call::{Call, Rhs};
use self::direct::{CompiledDirect, Direct};
use self::dot::{CompiledDots, Dots};
use self::ir::Contraction;
use self::micro::MicroFn;
pub use self::micro::Tile;
use self::micros::{Micros, emit_micros, micro_symbols};
use self::packing::{CompiledPack, PackCode, emit_side};
use self::place::Place;
pub use self::plan::{Blocks, Side, Sizes};
use self::plan::{Parts, Scratch};
pub use self::run::Done;
use self::run::Job;
use self::slim::{CompiledSlim, Slim, SlimFn};
use self::stored::Stored;
use self::sums::{CompiledSums, Sums};
use self::walk::{Size, Walk};
use self::widen::WidenFn;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, assembly};
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::shape::{Expr, numel};

/// Everything known about a product before it runs.
#[derive(Clone, Debug)]
struct Shape {
    tile: Tile,
    blocks: Blocks,
    /// batch, m, n, k.
    sizes: [Size; 4],
    /// Output offsets along batch, m, n.
    out: [Walk; 3],
    /// How the right operand is stored.
    rhs: Stored,
}

/// A matrix product's code, ready to be linked.
#[derive(Clone, Debug)]
pub struct CompiledGemm {
    /// The packing functions of the left and the right operand.
    packs: [CompiledPack; 2],
    micro: Arc<Micros>,
    params: Params,
    shape: Shape,
    dots: Option<CompiledDots>,
    sums: Option<CompiledSums>,
    direct: Option<CompiledDirect>,
    slim: Option<Arc<CompiledSlim>>,
    broad: Option<CompiledBroad>,
    /// Where rows of the right operand are that can be asked for.
    ahead: Option<Place>,
}

impl CompiledGemm {
    /// Compiles a product for a target.
    ///
    /// # Errors
    /// A contraction that does not pass [`Contraction::check`]; failure of LLVM.
    pub fn new(c: &Contraction, target: &Target, cache: &ObjectCache) -> Result<CompiledGemm> {
        CompiledGemm::with_tile(c, target, Tile::of(target), cache)
    }

    /// Compiles a product for a target and another tile than its usual one, which does not change its bits.
    ///
    /// # Errors
    /// Those of [`CompiledGemm::new`].
    pub fn with_tile(
        c: &Contraction,
        target: &Target,
        tile: Tile,
        cache: &ObjectCache,
    ) -> Result<CompiledGemm> {
        c.check()?;
        let micro = Micros::of(target, tile, cache)?;
        let mut params = Params::default();
        let (batch, m) = (c.batch.len(), c.batch.len() + c.m.len());
        let shape = Shape {
            tile,
            blocks: Blocks::of(tile),
            sizes: [&c.batch, &c.m, &c.n, &c.k].map(|dims| Size::of(numel(dims), &mut params)),
            out: [
                Walk::of(&c.batch, &c.out_strides[..batch], &mut params),
                Walk::of(&c.m, &c.out_strides[batch..m], &mut params),
                Walk::of(&c.n, &c.out_strides[m..], &mut params),
            ],
            rhs: Stored::of(&c.rhs),
        };
        let dots = CompiledDots::new(c, target, cache, &mut params)?;
        let sums = match shape.rhs {
            Stored::Q8_0 => CompiledSums::new(c, target, cache, &mut params)?,
            Stored::Number(_) => None,
        };
        let direct = CompiledDirect::new(c, (target, tile), cache, &mut params)?;
        let broad = CompiledBroad::new(c, target, cache, &mut params)?;
        let slim = numel(&c.n).as_usize().and_then(|n| Slim::of(tile, n));
        let slim = slim.map(|slim| CompiledSlim::new(slim, target, cache));
        let mut pack = |side| CompiledPack::new((c, side), (target, tile), cache, &mut params);
        let packs = [pack(0)?, pack(1)?];
        let ahead = ahead::place(c, &mut params);
        Ok(CompiledGemm {
            packs,
            micro,
            params,
            shape,
            dots,
            sums,
            direct,
            slim: slim.transpose()?,
            broad,
            ahead,
        })
    }

    /// The assembly text of all code that a product runs, for reading.
    ///
    /// # Errors
    /// Those of [`CompiledGemm::new`].
    pub fn assembly(c: &Contraction, target: &Target) -> Result<String> {
        c.check()?;
        let tile = Tile::of(target);
        assembly(target, |context, module| {
            for side in [0, 1] {
                let params = &mut Params::default();
                emit_side(context, module, (c, side), (target, tile), params);
            }
            let symbols = micro_symbols(tile, target);
            emit_micros(context, module, tile, &symbols);
            Ok(())
        })
    }

    /// The expressions whose values [`Call::params`] holds, in order.
    pub fn params(&self) -> &[Expr] {
        self.params.exprs()
    }

    /// Links the code. Equal products linked to the same `jit` share it.
    ///
    /// # Errors
    /// Failure of the linker.
    pub fn link(&self, jit: &Arc<Jit>) -> Result<Gemm> {
        let (micro, widen, ask) = self.micro.link(jit)?;
        Ok(Gemm {
            pack_lhs: self.packs[0].link(jit)?,
            pack_rhs: self.packs[1].link(jit)?,
            micro,
            widen,
            shape: self.shape.clone(),
            dots: self.dots.as_ref().map(|dots| dots.link(jit)).transpose()?,
            sums: self.sums.as_ref().map(|sums| sums.link(jit)).transpose()?,
            direct: self
                .direct
                .as_ref()
                .map(|direct| direct.link(jit))
                .transpose()?,
            slim: self.slim.as_ref().map(|slim| slim.link(jit)).transpose()?,
            broad: (self.broad.as_ref())
                .map(|broad| broad.link(jit))
                .transpose()?,
            ahead: self.ahead.clone().map(|place| (place, ask)),
            _jit: jit.clone(),
        })
    }
}

/// A matrix product that can be run.
#[derive(Debug, Clone)]
pub struct Gemm {
    pack_lhs: PackCode,
    pack_rhs: PackCode,
    /// The micro-kernel for each number of rows, and within that for each number of vectors.
    micro: Vec<MicroFn>,
    widen: WidenFn,
    shape: Shape,
    dots: Option<Dots>,
    sums: Option<Sums>,
    direct: Option<Direct>,
    /// What computes the last tile of each row of the output.
    slim: Option<(Slim, SlimFn)>,
    /// What reads many rows where they are.
    broad: Option<broad::Rows>,
    ahead: Option<(Place, AskFn)>,
    /// Keeps the code alive.
    _jit: Arc<Jit>,
}

impl Gemm {
    /// The sizes in an execution with these parameter values.
    pub fn sizes(&self, params: &[i64]) -> Sizes {
        let [batch, m, n, k] = self
            .shape
            .sizes
            .map(|size| size.value(params).max(0) as usize);
        Sizes { batch, m, n, k }
    }

    /// How its operands are cut.
    pub fn blocks(&self) -> Blocks {
        self.shape.blocks
    }

    /// The same product with operands cut in another way, which does not change its bits.
    ///
    /// # Panics
    /// Unless the blocks fit the tile.
    pub fn with_blocks(mut self, blocks: Blocks) -> Gemm {
        assert!(blocks.fits(self.shape.tile), "{blocks:?}");
        self.shape.blocks = blocks;
        self
    }

    /// How much scratch memory a call needs.
    pub fn scratch_bytes(&self, sizes: Sizes, threads: usize) -> usize {
        let Shape { tile, blocks, .. } = self.shape;
        // Whether the right operand will be packed beforehand is not known here, and with fewer
        // rows or another cut a part needs no more than this.
        let one = Scratch::of(blocks.fit(sizes, tile), sizes, tile, false).floats();
        let parts = [false, true].map(|packed| self.parts(sizes, threads, packed));
        let direct = self.direct.as_ref().filter(|direct| direct.fits(sizes));
        let direct = direct.map(|direct| direct.cut(sizes, tile, threads).0);
        let most = parts.into_iter().chain(direct).map(Parts::count).max();
        let panels = one * most.unwrap_or(1) * 4 + ALIGN;
        let broad = self.broad_here(sizes);
        panels.max(broad.map_or(0, |rows| rows.scratch_bytes(sizes, threads)))
    }

    /// [`Gemm::scratch_bytes`] of calls whose right operand is not packed.
    pub fn raw_scratch_bytes(&self, sizes: Sizes, threads: usize) -> usize {
        match self.broad_here(sizes) {
            Some(rows) => rows.scratch_bytes(sizes, threads),
            None => self.scratch_bytes(sizes, threads),
        }
    }

    /// Computes the product.
    ///
    /// # Panics
    /// If `params` or `scratch` is too short.
    ///
    /// # Safety
    /// `lhs` and `rhs` hold every element that the views read with these parameters (a packed
    /// `rhs` comes from [`Gemm::pack_all`] with equal sizes), `out` every element that the output
    /// strides reach, no two output elements are the same one, and `out` overlaps no other memory
    /// of the call. The target of the code runs on this machine.
    pub unsafe fn run(&self, call: Call<'_>) {
        // SAFETY: the caller's promise.
        unsafe { self.run_telling(call, None) };
    }

    /// [`Gemm::run`], telling `done` of every finished block.
    ///
    /// # Panics
    /// As [`Gemm::run`].
    ///
    /// # Safety
    /// That of [`Gemm::run`]. What `done` does to the output stays within the block that it is told of.
    pub unsafe fn run_telling(&self, mut call: Call<'_>, done: Option<&Done<'_>>) {
        let sizes = self.sizes(call.params);
        if let (Some(rows), Some(ldc)) = (self.broad_here(sizes), self.plain(call.params)) {
            let params = call.params;
            let batches = |batch| self.shape.out[0].offset(batch, params);
            // SAFETY: the caller's promise.
            if unsafe { rows.run(sizes, &mut call, (&batches, ldc), done) } {
                return;
            }
        }
        let tile = self.shape.tile;
        let direct = self.direct.as_ref();
        let direct = direct.filter(|direct| direct.fits(sizes) && !call.rhs.is_packed());
        let blocks = self.shape.blocks.fit(sizes, tile);
        let blocks = direct.map_or(blocks, |direct| direct.blocks(blocks));
        let (ready, packed) = (call.rhs.is_ready(), call.rhs.is_packed());
        let scratch = Scratch::of(blocks, sizes, tile, ready || direct.is_some());
        let (parts, unit) = match direct {
            Some(direct) => direct.cut(sizes, tile, call.threads),
            None => (self.parts(sizes, call.threads, packed), tile),
        };
        let pad = call.scratch.as_ptr().align_offset(ALIGN);
        let needed = pad + scratch.floats() * parts.count() * 4;
        assert!(
            call.scratch.len() >= needed,
            "scratch of a matrix product is too small"
        );
        // SAFETY: `pad` bytes are inside of the scratch memory.
        let memory = unsafe { call.scratch.as_mut_ptr().add(pad) }.cast::<f32>();
        let job = Job {
            gemm: self,
            sizes,
            blocks,
            scratch,
            memory,
            plain: self.plain(call.params),
            lhs: call.lhs,
            rhs: call.rhs,
            direct,
            out: call.out,
            origin: 0,
            params: call.params,
            done,
        };
        let part = |index: usize| {
            let [batch, m, n] = parts.part(index, sizes, unit);
            job.part(index, batch, m, n);
        };
        pool::for_each_range(call.threads, parts.count(), &|range| range.for_each(part));
    }

    /// Whether [`Gemm::run_few`] is the better way for these sizes: few rows or columns, of operands that it can read.
    pub fn is_few(&self, sizes: Sizes) -> bool {
        let is_broad = self.broad_for(sizes).is_some();
        !is_broad && self.dots.as_ref().is_some_and(|dots| dots.fits(sizes))
    }

    /// What reads many rows where they are, if these sizes are for that.
    fn broad_for(&self, sizes: Sizes) -> Option<&broad::Rows> {
        self.broad.as_ref().filter(|rows| rows.suits(sizes))
    }

    /// The same, where the target has the code.
    fn broad_here(&self, sizes: Sizes) -> Option<&broad::Rows> {
        self.broad_for(sizes).filter(|rows| rows.is_compiled())
    }

    /// How much scratch memory [`Gemm::run_few`] needs.
    pub fn few_scratch_bytes(&self, sizes: Sizes) -> usize {
        self.dots
            .as_ref()
            .map_or(0, |dots| dots.scratch_bytes(sizes))
    }

    /// Computes the product without packing anything, in another order of summation than [`Gemm::run`]: that of
    /// [`dot`].
    ///
    /// # Panics
    /// Unless [`Gemm::is_few`].
    ///
    /// # Safety
    /// That of [`Gemm::run`], with a right operand as it is; `scratch` has [`Gemm::few_scratch_bytes`], aligned to 4.
    pub unsafe fn run_few(
        &self,
        operands: [*const u8; 2],
        out: *mut f32,
        params: &[i64],
        scratch: *mut u8,
        threads: usize,
    ) {
        // SAFETY: the caller's promise, for the only product.
        unsafe { self.run_few_telling(&[(operands, out)], params, scratch, threads, None) };
    }

    /// Whether the right operand is in blocks.
    pub fn reads_blocks(&self) -> bool {
        self.shape.rhs == Stored::Q8_0
    }

    /// How threads share a call.
    fn parts(&self, sizes: Sizes, threads: usize, packed: bool) -> Parts {
        let Shape { tile, blocks, .. } = self.shape;
        Parts::of(sizes, tile, threads, packed, blocks.split)
    }

    /// The distance between rows of the output if columns are neighbours and rows equally far.
    fn plain(&self, params: &[i64]) -> Option<i64> {
        let [_, m, n] = &self.shape.out;
        m.stride(params).filter(|_| n.stride(params) == Some(1))
    }
}

/// Alignment of scratch memory: a cache line, and the largest vector.
pub(super) const ALIGN: usize = 64;
