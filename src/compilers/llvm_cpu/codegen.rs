//! Kernel nodes without code → the same nodes with machine code.
//!
//! Each kernel's steps become a loop nest or a matrix product. Equal ones are compiled once, on as many threads as
//! the machine has; the code of layers that repeat is shared. What cannot be lowered keeps running on the reference
//! executor; the notes name it and say why.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::{FxHashMap, FxHasher};

use super::attention::{AttentionCode, From, Parts, Reach, parts_of};
use super::cache::ObjectCache;
use super::code::{GemmCode, NestCode, is_narrow};
use super::contraction::contraction_of;
use super::epilogue::{self, EpilogueCode, TileCode};
use super::gemm::CompiledGemm;
use super::gemm::ir::Contraction;
use super::ir::Nest;
use super::jit::Jit;
use super::lower;
use super::lower::tile::{TileFn, TileNest, lower_tile};
use super::nest::nest_of;
use super::sequence::Linker;
use super::target::Target;
use crate::compilers::Pass;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{Kernel, NativeCode, Op};
use crate::shape::{Expr, numel};

/// The pass.
pub struct Codegen {
    target: std::result::Result<Target, String>,
    emit_only: bool,
    run: Mutex<Run>,
}

/// What the last run made.
#[derive(Default)]
struct Run {
    notes: Vec<String>,
    jobs: Vec<Job>,
}

/// What a kernel is compiled as.
#[derive(Clone)]
struct Job {
    name: String,
    work: Work,
}

#[derive(Clone)]
enum Work {
    Loops(Nest),
    /// A matrix product, and loops for the shapes where packing does not pay.
    Product(Nest, Box<Contraction>),
    /// Scores, rows and values; loops for the two products.
    Attention(Box<Parts>, Box<[Nest; 2]>),
    /// Products and a map; loops for a product, and for everything where these have the same bits.
    Epilogue(Box<epilogue::Parts>, Box<(Nest, Option<Nest>)>),
}

/// Kernels with equal identities have the same code.
type Identity = (Vec<Nest>, Vec<From>);

impl Work {
    fn identity(&self) -> Identity {
        match self {
            Work::Loops(nest) | Work::Product(nest, _) => (vec![nest.clone()], vec![]),
            Work::Attention(parts, nests) => {
                let [scores, values] = &**nests;
                let operands = [&parts.scores, &parts.rows, &parts.values];
                let from = operands.into_iter().flat_map(|part| part.operands.clone());
                let nests = vec![scores.clone(), parts.nest.clone(), values.clone()];
                (nests, from.collect())
            }
            Work::Epilogue(parts, nests) => {
                let operands = parts.products.iter().chain([&parts.rest]);
                let from = operands.flat_map(|part| part.operands.clone());
                (vec![nests.0.clone(), parts.nest.clone()], from.collect())
            }
        }
    }

    /// Loops and products, for reading.
    fn listed(&self) -> (Vec<&Nest>, Vec<&Contraction>) {
        match self {
            Work::Loops(nest) => (vec![nest], vec![]),
            Work::Product(nest, product) => (vec![nest], vec![product]),
            Work::Attention(parts, _) => (
                vec![&parts.nest],
                vec![&parts.scores_product, &parts.values_product],
            ),
            Work::Epilogue(parts, _) => (vec![&parts.nest], vec![&parts.product]),
        }
    }
}

type Code = std::result::Result<Arc<dyn NativeCode>, String>;

impl Codegen {
    /// For a target; `emit_only` compiles without using the code.
    pub fn new(target: Result<Target>, emit_only: bool) -> Codegen {
        Codegen {
            target: target.map_err(|e| e.to_string()),
            emit_only,
            run: Mutex::default(),
        }
    }

    fn target(&self) -> Result<&Target> {
        let target = self.target.as_ref().map_err(|e| Error::msg(e.clone()))?;
        if !self.emit_only && !target.can_run_here() {
            let name = target.name();
            return Err(Error::msg(format!(
                "this machine cannot run code for `{name}`; compile for `native`, or only look at the code with `emit_only()`"
            )));
        }
        Ok(target)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass for Codegen {
    fn name(&self) -> &str {
        "codegen"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let target = self.target()?;
        let mut run = Run::default();
        let mut number_of: FxHashMap<Identity, usize> = FxHashMap::default();
        let mut known: FxHashMap<Arc<Kernel>, usize> = FxHashMap::default();
        let mut kernels: Vec<(NodeIndex, usize)> = Vec::new();
        for id in dag.topological()? {
            let Op::Kernel(kernel) = &dag.node(id).op else {
                continue;
            };
            if kernel.code().is_some() {
                continue;
            }
            // Equal layers have equal kernels: only the first one's nest is built.
            if let Some(&number) = known.get(kernel) {
                kernels.push((id, number));
                continue;
            }
            match job_of(kernel, target) {
                Ok(job) => {
                    let jobs = &mut run.jobs;
                    let number = *number_of.entry(job.work.identity()).or_insert_with(|| {
                        jobs.push(job);
                        jobs.len() - 1
                    });
                    known.insert(kernel.clone(), number);
                    kernels.push((id, number));
                }
                Err(why) => run.notes.push(format!(
                    "{} runs on the reference executor: {why}",
                    dag.describe(id)
                )),
            }
        }
        let codes = compile_all(&run.jobs, target)?;
        run.notes.push(format!(
            "{} kernels, {} distinct, for {}",
            kernels.len(),
            codes.len(),
            target.name()
        ));
        let patch = if self.emit_only {
            Patch::new()
        } else {
            attach(dag, &kernels, &codes, &mut run.notes)?
        };
        *self.locked() = run;
        Ok(patch)
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.locked().notes)
    }

    fn code(&self, asm: bool) -> Option<String> {
        let target = self.target.as_ref().ok()?;
        let run = self.locked();
        let mut out = String::new();
        for job in &run.jobs {
            out.push_str(&format!("; {}\n{}\n", job.name, text_of(job, target, asm)));
        }
        Some(out)
    }
}

/// The code of a kernel for a target, for reading: LLVM IR or assembly. Of a matrix product the IR is that of the loops
/// for a few rows.
pub fn text(kernel: &Kernel, target: &Target, asm: bool) -> String {
    match job_of(kernel, target) {
        Ok(job) => text_of(&job, target, asm),
        Err(why) => format!("; {why}"),
    }
}

fn text_of(job: &Job, target: &Target, asm: bool) -> String {
    let (nests, products) = job.work.listed();
    // A product's assembly is that of its packed form; its loops are for a few rows only.
    let nests = nests.into_iter();
    let nests = nests.filter(|_| !asm || !matches!(job.work, Work::Product(..)));
    let nests = nests.map(|nest| match asm {
        true => lower::assembly(nest, target).map_err(|e| e.to_string()),
        false => lower::ir_text(nest, target).map_err(|e| e.to_string()),
    });
    let products = products.into_iter().filter(|_| asm);
    let products =
        products.map(|product| CompiledGemm::assembly(product, target).map_err(|e| e.to_string()));
    let texts = nests.chain(products);
    let texts: Vec<String> = texts
        .map(|text| text.unwrap_or_else(|why| format!("; {why}")))
        .collect();
    texts.join("\n")
}

fn job_of(kernel: &Kernel, target: &Target) -> std::result::Result<Job, String> {
    let sizes = |product: &Contraction| {
        let dims = [&product.batch, &product.m, &product.n, &product.k];
        dims.map(|dims| numel(dims)).to_vec()
    };
    let (work, dims) = if let Some(parts) = parts_of(kernel) {
        let nests = [
            nest_of(&parts.scores.kernel)?,
            nest_of(&parts.values.kernel)?,
        ];
        let dims = sizes(&parts.scores_product);
        (Work::Attention(Box::new(parts), Box::new(nests)), dims)
    } else if let Some(parts) = epilogue::parts_of(kernel) {
        let product = nest_of(&parts.products[0].kernel)?;
        let all = nest_of(kernel).ok();
        let all = all.filter(|all| lower::adds_like(all, &product));
        let dims = sizes(&parts.product);
        (
            Work::Epilogue(Box::new(parts), Box::new((product, all))),
            dims,
        )
    } else {
        let nest = nest_of(kernel)?;
        let dims = nest.space.iter().chain(&nest.reduce).copied().collect();
        match contraction_of(kernel) {
            Some(contraction) => (Work::Product(nest, Box::new(contraction)), dims),
            None => (Work::Loops(nest), dims),
        }
    };
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| dim.to_string().replace(' ', ""))
        .collect();
    let name = format!("{}_{}_{}", kernel.name(), dims.join("x"), target.name());
    Ok(Job { name, work })
}

/// Gives the nodes their code.
fn attach(
    dag: &Dag,
    kernels: &[(NodeIndex, usize)],
    codes: &[Code],
    notes: &mut Vec<String>,
) -> Result<Patch> {
    let mut patch = Patch::new();
    let mut moved: FxHashMap<NodeIndex, NodeRef> = FxHashMap::default();
    for &(id, number) in kernels {
        let code = match &codes[number] {
            Ok(code) => code.clone(),
            Err(why) => {
                notes.push(format!(
                    "{} runs on the reference executor: {why}",
                    dag.describe(id)
                ));
                continue;
            }
        };
        let Op::Kernel(kernel) = &dag.node(id).op else {
            unreachable!("only kernels were collected")
        };
        // SAFETY: the code was compiled from a nest that is equal to this kernel's, so it reads and writes the same
        // elements of the same operands.
        let kernel = unsafe { (**kernel).clone().with_code(code) };
        let operands = dag.operands(id).into_iter().map(|(source, view)| {
            (
                moved.get(&source).copied().unwrap_or(NodeRef::Old(source)),
                view.clone(),
            )
        });
        let new = patch.add(dag, Op::Kernel(kernel.into()), operands.collect(), id)?;
        moved.insert(id, new);
        patch.replace_with(dag, id, new);
        patch.remove(id);
    }
    Ok(patch)
}

/// Compiles every job, on as many threads as there are cores, and links the objects.
fn compile_all(jobs: &[Job], target: &Target) -> Result<Vec<Code>> {
    let cache = ObjectCache::from_knobs();
    let linker = Arc::new(Linker {
        jit: Arc::new(Jit::new()?),
        target: target.clone(),
    });
    let results: Vec<Mutex<Option<Code>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let maker = Maker {
        cache: &cache,
        linker: &linker,
    };
    let n_threads = pool::default_threads();
    pool::for_each_range(n_threads, jobs.len(), &|range| {
        for i in range {
            let code = maker.compile(&jobs[i]).map_err(|e| e.to_string());
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
        }
    });
    let taken = results
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(taken.map(|code| code.expect("every job was run")).collect())
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
}

impl Maker<'_> {
    fn compile(&self, job: &Job) -> Result<Arc<dyn NativeCode>> {
        let key = key_of(&job.work);
        Ok(match &job.work {
            Work::Loops(nest) => Arc::new(self.loops(&job.name, key, nest)?),
            Work::Product(nest, product) => match self.loops(&job.name, key, nest) {
                Ok(nest) if is_always_narrow(product) && is_little(product) => Arc::new(nest),
                narrow => Arc::new(self.product(&job.name, key, narrow.ok(), product)?),
            },
            Work::Epilogue(parts, nests) => return self.epilogue(&job.name, key, parts, nests),
            Work::Attention(parts, nests) => Arc::new(AttentionCode {
                name: job.name.clone(),
                key,
                scores: {
                    let narrow = self.loops(&job.name, key, &nests[0]).ok();
                    self.product(&job.name, key, narrow, &parts.scores_product)?
                },
                rows: self.loops(&job.name, key, &parts.nest)?,
                values: {
                    let narrow = self.loops(&job.name, key, &nests[1]).ok();
                    self.product(&job.name, key, narrow, &parts.values_product)?
                },
                operands: [&parts.scores, &parts.rows, &parts.values]
                    .map(|part| part.operands.clone()),
                space: parts.nest.space.to_vec(),
                reach: Reach::of(parts),
            }),
        })
    }

    fn epilogue(
        &self,
        name: &str,
        key: u64,
        parts: &epilogue::Parts,
        (product, all): &(Nest, Option<Nest>),
    ) -> Result<Arc<dyn NativeCode>> {
        let all = all
            .as_ref()
            .and_then(|nest| self.loops(name, key, nest).ok());
        let all = match all {
            Some(all) if is_always_narrow(&parts.product) && is_little(&parts.product) => {
                return Ok(Arc::new(all));
            }
            all => all,
        };
        let narrow = self.loops(name, key, product).ok();
        let operand = |from: &From| match from {
            From::Operand(input) => *input,
            From::Part => unreachable!("products read operands"),
        };
        let operands = |part: &super::attention::Part| part.operands.iter().map(operand).collect();
        Ok(Arc::new(EpilogueCode {
            name: name.replacen("contraction", "gemm", 1),
            key,
            product: self.product(name, key, narrow, &parts.product)?,
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

    fn product(
        &self,
        name: &str,
        key: u64,
        narrow: Option<NestCode>,
        product: &Contraction,
    ) -> Result<GemmCode> {
        let compiled = CompiledGemm::new(product, &self.linker.target, self.cache)?;
        Ok(GemmCode {
            params: compiled.params().to_vec(),
            gemm: compiled.link(&self.linker.jit)?,
            key,
            name: name.replacen("contraction", "gemm", 1),
            lhs: product.lhs.input,
            rhs: product.rhs.input,
            narrow: narrow.map(Arc::new),
        })
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

/// Whether a product runs as a loop nest at any size.
fn is_always_narrow(product: &Contraction) -> bool {
    let size = |dims| numel(dims).as_usize().unwrap_or(usize::MAX);
    is_narrow(size(&product.m), size(&product.n))
}
