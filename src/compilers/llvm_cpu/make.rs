//! What a kernel is compiled as → machine code, linked.
//!
//! Before: jobs of [`super::codegen`], all different. After: for each the code that the executor calls, or why there is
//! none. Jobs are compiled on as many threads as there are cores; all are linked by one linker, whose names follow from
//! what the code does, so that parts that several jobs share are linked once.
//!
//! A product is compiled and linked once, for its chosen tile and blocks, packed operands or not; loops for few rows are
//! made where its sizes may be such.
//!
//! Deliberately absent: which kernels are equal, which operands are packed once ([`super::packed`]), and how products
//! are cut ([`super::tune`]).

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHasher;

use super::attention::{AttentionCode, Part, Reach};
use super::binary::{code::CompiledSigns, rows::RowsCode};
use super::blocks::{compiled::CompiledBlocks, decode::DecodeCode};
use super::cache::ObjectCache;
use super::code::{GemmCode, NestCode, PackedRhs, is_narrow};
use super::codegen::Job;
use super::epilogue::{self, EpilogueCode, TileCode};
use super::gemm::CompiledGemm;
use super::gemm::ir::Contraction;
use super::ir::Nest;
use super::jit::Jit;
use super::lower;
use super::lower::tile::{TileFn, TileNest, lower_tile};
use super::packed::Packs;
use super::sequence::Linker;
use super::target::Target;
use super::tune::Choice;
use super::windows::Windows;
use super::windows::code::WindowsCode;
use super::work::Work;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::op::NativeCode;
use crate::shape::{Expr, numel};

/// The code of a job, or why there is none.
pub(super) type Code = std::result::Result<Arc<dyn NativeCode>, String>;

/// Compiles every job, on as many threads as there are cores, and links the objects.
pub(super) fn compile_all(jobs: &[Job], target: &Target, packs: &Packs) -> Result<Vec<Code>> {
    let cache = ObjectCache::from_knobs();
    let linker = Arc::new(Linker {
        jit: Arc::new(Jit::new()?),
        target: target.clone(),
    });
    let results: Vec<Mutex<Option<Code>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let maker = Maker {
        cache: &cache,
        linker: &linker,
        packs,
    };
    let (n_threads, order) = (pool::default_threads(), order(jobs));
    pool::for_each_range(n_threads, jobs.len(), &|range| {
        for &i in &order[range] {
            let code = maker.compile(&jobs[i]).map_err(|e| e.to_string());
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
        }
    });
    let taken = results
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(taken.map(|code| code.expect("every job was run")).collect())
}

/// In which order jobs are begun: a product first, the others last. They share code that the first one makes, for which
/// the others would have to wait.
fn order(jobs: &[Job]) -> Vec<usize> {
    let is_product = |&i: &usize| {
        let work = &jobs[i].work;
        matches!(
            work,
            Work::Product(..) | Work::Epilogue(..) | Work::Attention(..)
        )
    };
    let (products, others): (Vec<usize>, Vec<usize>) = (0..jobs.len()).partition(is_product);
    let (first, rest) = products.split_at(products.len().min(1));
    [first, &others, rest].concat()
}

/// The most multiply-adds of a product that is little.
const LITTLE: usize = 1 << 20;

fn key_of(work: &Work) -> u64 {
    let mut hasher = FxHasher::default();
    work.identity().hash(&mut hasher);
    hasher.finish()
}

/// Where code comes from and goes to.
struct Maker<'a> {
    cache: &'a ObjectCache,
    linker: &'a Arc<Linker>,
    packs: &'a Packs,
}

impl Maker<'_> {
    fn compile(&self, job: &Job) -> Result<Arc<dyn NativeCode>> {
        let key = key_of(&job.work);
        Ok(match &job.work {
            Work::Loops(nest) => Arc::new(self.loops(&job.name, key, nest)?),
            Work::Decode(rows) => Arc::new(DecodeCode {
                name: job.name.replacen("decode", &rows.make().name(), 1),
                key,
                rows: (**rows).clone(),
            }),
            Work::Blocks(product) => {
                let Linker { jit, target } = &**self.linker;
                let name = job.name.replacen("blocks", product.ty.name(), 1);
                let compiled = CompiledBlocks::of(product, target, self.cache)?;
                let code = compiled.link(product, (name, key), jit)?;
                Arc::new(code.with_folder(self.packs.folder.as_deref()))
            }
            Work::Signs(product) => {
                let Linker { jit, target } = &**self.linker;
                let compiled = CompiledSigns::of(target, self.cache)?;
                Arc::new(compiled.link(product, (job.name.clone(), key), (jit, self.cache))?)
            }
            Work::SignRows(rows) => {
                let Linker { jit, target } = &**self.linker;
                let name = job.name.replacen("sign_rows", rows.words().0, 1);
                let tools = (target, self.cache);
                Arc::new(RowsCode::new((name, key), (**rows).clone(), tools, jit)?)
            }
            Work::Product(nest, product) => {
                match self.narrow_loops(&job.name, key, nest.as_ref(), product) {
                    Some(nest) if is_always_narrow(product) && is_little(product) => Arc::new(nest),
                    narrow => Arc::new(self.product(job, key, narrow, product)?),
                }
            }
            Work::Windows(_, windows) => Arc::new(self.windows(job, key, windows)?),
            Work::Epilogue(parts, nests) => return self.epilogue(job, key, parts, nests),
            Work::Attention(parts, nests) => Arc::new(AttentionCode {
                name: job.name.clone(),
                key,
                scores: {
                    let product = &parts.scores_product;
                    let narrow = self.narrow_loops(&job.name, key, nests[0].as_ref(), product);
                    self.product(job, key, narrow, product)?
                },
                rows: self.loops(&job.name, key, &parts.nest)?,
                values: {
                    let product = &parts.values_product;
                    let narrow = self.narrow_loops(&job.name, key, nests[1].as_ref(), product);
                    // Few rows are computed as weighted sums.
                    let compiled = self.compiled(job, product)?;
                    let target = &self.linker.target;
                    let compiled = compiled.with_sums(product, target, self.cache)?;
                    self.linked(job, key, narrow, product, compiled)?
                },
                operands: [&parts.scores, &parts.rows, &parts.values]
                    .map(|part| part.operands.clone()),
                space: parts.nest.space.to_vec(),
                reach: Reach::of(parts),
            }),
        })
    }

    fn windows(&self, job: &Job, key: u64, windows: &Windows) -> Result<WindowsCode> {
        let Linker { jit, target } = &**self.linker;
        let name = job.name.replacen("contraction", "windows", 1);
        WindowsCode::new((name, key), windows.clone(), target, self.cache, jit)
    }

    fn epilogue(
        &self,
        job: &Job,
        key: u64,
        parts: &epilogue::Parts,
        (product, all): &(Option<Nest>, Option<Nest>),
    ) -> Result<Arc<dyn NativeCode>> {
        let name = &job.name;
        let all = self.narrow_loops(name, key, all.as_ref(), &parts.product);
        let all = match all {
            Some(all) if is_always_narrow(&parts.product) && is_little(&parts.product) => {
                return Ok(Arc::new(all));
            }
            all => all,
        };
        let narrow = self.narrow_loops(name, key, product.as_ref(), &parts.product);
        let operands = |part: &Part| {
            let inputs = 0..part.operands.len();
            inputs.map(|input| part.operand(input)).collect()
        };
        Ok(Arc::new(EpilogueCode {
            name: name.replacen("contraction", "gemm", 1),
            key: match job.packed.is_empty() {
                true => key,
                false => !key,
            },
            product: self.product(job, key, narrow, &parts.product)?,
            operands: parts.products.iter().map(operands).collect(),
            tile: self.tile(&parts.tile)?,
            rest: parts.rest.operands.clone(),
            in_place: parts.products.len() == 1
                && parts.tile.nest.dtype == DType::F32
                && parts.tile.keeps_order(),
            loops: all,
        }))
    }

    fn tile(&self, tile: &TileNest) -> Result<TileCode> {
        let Linker { jit, target } = &**self.linker;
        let lowered = lower_tile(tile, target, self.cache);
        let lowered = lowered.map_err(|e| Error::msg(e.to_string()))?;
        jit.add_once(&lowered.symbol, &lowered.object)?;
        let address = jit.address(&lowered.symbol)?;
        Ok(TileCode {
            // SAFETY: the symbol is of a function that `lower_tile` wrote, with this signature.
            function: unsafe { std::mem::transmute::<*const (), TileFn>(address) },
            params: lowered.params,
            _linker: self.linker.clone(),
        })
    }

    /// The code of a job's product, whose right operands are packed once if the job says so.
    fn product(
        &self,
        job: &Job,
        key: u64,
        narrow: Option<NestCode>,
        product: &Contraction,
    ) -> Result<GemmCode> {
        self.linked(job, key, narrow, product, self.compiled(job, product)?)
    }

    fn compiled(&self, job: &Job, product: &Contraction) -> Result<CompiledGemm> {
        let (target, choice) = (&self.linker.target, self.choice(job));
        CompiledGemm::with_tile(product, target, choice.tile, self.cache)
    }

    /// How a job's product is cut.
    fn choice(&self, job: &Job) -> Choice {
        let target = &self.linker.target;
        job.choice.unwrap_or_else(|| Choice::of(target))
    }

    fn linked(
        &self,
        job: &Job,
        key: u64,
        narrow: Option<NestCode>,
        product: &Contraction,
        compiled: CompiledGemm,
    ) -> Result<GemmCode> {
        let choice = self.choice(job);
        let gemm = compiled.link(&self.linker.jit)?.with_blocks(choice.blocks);
        let packed = (!job.packed.is_empty())
            .then(|| PackedRhs::new(product, &gemm, &job.packed, self.packs));
        let packing = packed.as_ref().and_then(|packed| packed.packings.first());
        let layout = packing.map_or(0, |packing| packing.layout);
        let kind = if packed.is_some() {
            "gemm_packed"
        } else {
            "gemm"
        };
        Ok(GemmCode {
            params: compiled.params().to_vec(),
            gemm,
            key: key ^ layout,
            name: job.name.replacen("contraction", kind, 1),
            lhs: product.lhs.input,
            rhs: product.rhs.input,
            narrow: narrow.map(Arc::new),
            packed,
        })
    }

    /// The loops for few rows of a product, unless it always has many, or they cannot be lowered.
    fn narrow_loops(
        &self,
        name: &str,
        key: u64,
        nest: Option<&Nest>,
        product: &Contraction,
    ) -> Option<NestCode> {
        let nest = nest.filter(|_| may_be_narrow(product))?;
        self.loops(name, key, nest).ok()
    }

    fn loops(&self, name: &str, key: u64, nest: &Nest) -> Result<NestCode> {
        let Linker { jit, target } = &**self.linker;
        let lowered =
            lower::lower_cached(nest, target, self.cache).map_err(|e| Error::msg(e.to_string()))?;
        jit.add_once(&lowered.symbol, &lowered.object)?;
        Ok(NestCode {
            name: name.into(),
            key,
            function: jit.lookup(&lowered.symbol)?,
            symbol: lowered.symbol,
            params: lowered.params,
            units: lowered.units,
            cost: cost_of(nest),
            linker: self.linker.clone(),
        })
    }
}

/// Whether a product is so small that it may be part of one function for a whole graph.
fn is_little(product: &Contraction) -> bool {
    let dims = [&product.batch, &product.m, &product.n, &product.k];
    let size = dims.map(|dims| numel(dims));
    let size = size.into_iter().reduce(|a, b| a * b);
    size.and_then(|size| size.as_usize())
        .is_some_and(|size| size <= LITTLE)
}

/// About how many additions a nest costs: what is reduced is computed per point, the rest per value of the result.
fn cost_of(nest: &Nest) -> Expr {
    let reduced = nest.stages.last().map_or(0, |stage| stage.value + 1);
    let per_point = if nest.per_point {
        nest.body.len()
    } else {
        reduced
    };
    let rows = numel(&nest.space);
    rows * numel(&nest.reduce) * per_point + rows * (nest.body.len() - per_point)
}

/// Whether a product runs as a loop nest at some size.
fn may_be_narrow(product: &Contraction) -> bool {
    let size = |dims| numel(dims).as_usize().unwrap_or(0);
    is_narrow(size(&product.m), size(&product.n))
}

/// Whether a product runs as a loop nest at any size.
fn is_always_narrow(product: &Contraction) -> bool {
    let size = |dims| numel(dims).as_usize().unwrap_or(usize::MAX);
    is_narrow(size(&product.m), size(&product.n))
}
