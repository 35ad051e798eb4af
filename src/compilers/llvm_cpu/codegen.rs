//! Kernel nodes without code → the same nodes with machine code.
//!
//! Each kernel's steps become a loop nest or a matrix product. Equal ones are compiled once, on as many threads as
//! the machine has; the code of layers that repeat is shared. What cannot be lowered keeps running on the reference
//! executor; the notes name it and say why.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::attention::parts_of;
use super::binary::{self, ir::SignProduct, rows::SignRows};
use super::blocks::{self, decode::BlockRows, ir::BlockProduct};
use super::cache::ObjectCache;
use super::contraction::contraction_of;
use super::epilogue;
use super::gemm::CompiledGemm;
use super::gemm::ir::Contraction;
use super::ir::Nest;
use super::lower;
use super::make::{Code, compile_all};
use super::nest::nest_of;
use super::packed::{self, Packs};
use super::refine::refined;
use super::target::Target;
use super::tune::{self, Choice, Tuning};
use super::windows::{self, Windows};
use super::work::{Identity, Work};
use crate::compilers::{Math, Pass};
use crate::error::{Error, Result};
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{Kernel, Op};
use crate::shape::{Expr, numel};

/// The pass.
pub struct Codegen {
    target: std::result::Result<Target, String>,
    emit_only: bool,
    packs: Packs,
    tuning: Tuning,
    math: Math,
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
pub(super) struct Job {
    pub(super) name: String,
    pub(super) work: Work,
    /// The right operands of its products if these are constants to be packed once, by their numbers.
    pub(super) packed: Vec<usize>,
    /// How its product is cut, if there is a record.
    pub(super) choice: Option<Choice>,
    /// How many functions of its loops are approximated.
    n_approximations: usize,
}

impl Job {
    /// The product whose blocks are chosen, of numbers; one with a map has those of one without.
    fn tuned(&self) -> Option<&Contraction> {
        let product = match &self.work {
            Work::Product(_, product) => Some(&**product),
            Work::Epilogue(parts, _) => Some(&parts.product),
            Work::Loops(_) | Work::Blocks(_) | Work::Decode(_) | Work::Attention(..) => None,
            Work::Windows(..) | Work::Signs(_) | Work::SignRows(_) => None,
        };
        product.filter(|product| !product.reads_blocks())
    }
}

impl Codegen {
    /// For a target; `emit_only` compiles without using the code. Constant operands of products are packed once if
    /// `packs` says so; `tuning` says how products are cut.
    pub fn new(target: Result<Target>, emit_only: bool, packs: Packs, tuning: Tuning) -> Codegen {
        Codegen {
            target: target.map_err(|e| e.to_string()),
            emit_only,
            packs,
            tuning,
            math: Math::Exact,
            run: Mutex::default(),
        }
    }

    /// The same, with functions computed in another mode.
    pub fn with_math(self, math: Math) -> Codegen {
        Codegen { math, ..self }
    }

    /// Measures products without record if asked to; says how many have one.
    fn tune(&self, run: &mut Run, target: &Target) {
        let Tuning {
            records,
            measures,
            told,
        } = &self.tuning;
        for job in &mut run.jobs {
            job.choice = job.tuned().and_then(|product| records.get(product, target));
        }
        let is_new = |job: &&mut Job| job.tuned().is_some() && job.choice.is_none();
        let new = run.jobs.iter_mut().filter(is_new);
        let new: Vec<&mut Job> = match measures & !self.emit_only {
            true => new.collect(),
            false => vec![],
        };
        let (cache, n_new, mut measured) = (ObjectCache::from_knobs(), new.len(), 0);
        let tell = |done: usize| {
            if let Some(told) = told.as_ref().filter(|_| n_new > 0) {
                (told.0)(done, n_new);
            }
        };
        tell(0);
        for (done, job) in new.into_iter().enumerate() {
            let product = job.tuned().expect("it was filtered by that");
            // What cannot be tried out (sizes that no usual number fits, no memory) keeps the blocks that it has.
            let choice = tune::tune(product, target, records, &cache);
            job.choice = choice.unwrap_or(None);
            measured += usize::from(job.choice.is_some());
            tell(done + 1);
        }
        let known = run.jobs.iter().filter(|job| job.choice.is_some()).count();
        if known > 0 {
            run.notes.push(format!(
                "{known} products in blocks of a record, {measured} of them just measured"
            ));
        }
    }

    /// Says how many functions are not computed exactly.
    fn tell_math(&self, run: &mut Run) {
        if self.math == Math::Exact {
            return;
        }
        let n: usize = run.jobs.iter().map(|job| job.n_approximations).sum();
        run.notes.push(format!(
            "{n} functions in distinct kernels are computed in the mode `{}`",
            self.math
        ));
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
        let mut number_of: FxHashMap<(Identity, Vec<usize>), usize> = FxHashMap::default();
        let mut known: FxHashMap<(Arc<Kernel>, Vec<usize>), usize> = FxHashMap::default();
        let mut kernels: Vec<(NodeIndex, usize)> = Vec::new();
        for id in dag.topological()? {
            let Op::Kernel(kernel) = &dag.node(id).op else {
                continue;
            };
            if kernel.code().is_some() {
                continue;
            }
            // Equal layers have equal kernels: only the first one's nest is built.
            let constant = match self.packs.wanted {
                true => packed::constant_rhs(dag, id, kernel),
                false => vec![],
            };
            let key = (kernel.clone(), constant);
            if let Some(&number) = known.get(&key) {
                kernels.push((id, number));
                continue;
            }
            match job_of(kernel, target) {
                Ok(mut job) => {
                    job.packed = key.1.clone();
                    job.n_approximations = job.work.approximate(self.math);
                    let jobs = &mut run.jobs;
                    let identity = (job.work.identity(), job.packed.clone());
                    let number = *number_of.entry(identity).or_insert_with(|| {
                        jobs.push(job);
                        jobs.len() - 1
                    });
                    known.insert(key, number);
                    kernels.push((id, number));
                }
                Err(why) => run.notes.push(format!(
                    "{} runs on the reference executor: {why}",
                    dag.describe(id)
                )),
            }
        }
        self.tune(&mut run, target);
        let codes = compile_all(&run.jobs, target, &self.packs)?;
        run.notes.push(format!(
            "{} kernels, {} distinct, for {}",
            kernels.len(),
            codes.len(),
            target.name()
        ));
        tell_windows(&mut run, &kernels);
        self.tell_math(&mut run);
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
    let whole = match &job.work {
        _ if !asm => None,
        Work::Blocks(product) => Some(blocks::compiled::assembly(product, target)),
        Work::Signs(_) => Some(binary::code::assembly(target)),
        Work::Windows(_, windows) => Some(windows::code::assembly(windows, target)),
        _ => None,
    };
    if let Some(text) = whole {
        return text.unwrap_or_else(|why| format!("; {why}"));
    }
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
    let (work, dims) = if let Some(product) = BlockProduct::of(kernel) {
        let dims = vec![product.m, product.n().into(), product.k.into()];
        (Work::Blocks(Box::new(product)), dims)
    } else if let Some(rows) = BlockRows::of(kernel) {
        let dims = rows.dims();
        (Work::Decode(Box::new(rows)), dims)
    } else if let Some(product) = SignProduct::of(kernel) {
        let (rows, columns) = (product.matrix.rows(), product.matrix.columns());
        let dims = vec![product.m, rows.into(), columns.into()];
        (Work::Signs(Box::new(product)), dims)
    } else if let Some(rows) = SignRows::of(kernel) {
        let dims = rows.words().1;
        (Work::SignRows(Box::new(rows)), dims)
    } else if let Some(parts) = parts_of(kernel) {
        let nests = [
            product_nest(&parts.scores.kernel, &parts.scores_product)?,
            product_nest(&parts.values.kernel, &parts.values_product)?,
        ];
        let dims = sizes(&parts.scores_product);
        (Work::Attention(Box::new(parts), Box::new(nests)), dims)
    } else if let Some(parts) = epilogue::parts_of(kernel) {
        let product = product_nest(&parts.products[0].kernel, &parts.product)?;
        let all = product.as_ref().and_then(|product| {
            let all = nest_of(kernel).ok();
            all.filter(|all| lower::adds_like(all, product))
        });
        let dims = sizes(&parts.product);
        (
            Work::Epilogue(Box::new(parts), Box::new((product, all))),
            dims,
        )
    } else {
        product_or_loops(kernel)?
    };
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| dim.to_string().replace(' ', ""))
        .collect();
    let name = format!("{}_{}_{}", kernel.name(), dims.join("x"), target.name());
    Ok(Job {
        name,
        work,
        packed: vec![],
        choice: None,
        n_approximations: 0,
    })
}

/// Numbers in a product's dims.
fn sizes(product: &Contraction) -> Vec<Expr> {
    let dims = [&product.batch, &product.m, &product.n, &product.k];
    dims.map(|dims| numel(dims)).to_vec()
}

/// A matrix product or loops, and their sizes.
fn product_or_loops(kernel: &Kernel) -> std::result::Result<(Work, Vec<Expr>), String> {
    let product = contraction_of(kernel);
    if let Some(product) = product.as_ref().filter(|product| product.reads_blocks()) {
        return Ok((
            Work::Product(None, Box::new(product.clone())),
            sizes(product),
        ));
    }
    let nest = nest_of(kernel)?;
    let dims = nest.space.iter().chain(&nest.reduce).copied().collect();
    let work = match product {
        Some(product) => match Windows::ready(&product) {
            Some(windows) => Work::Windows(nest, Box::new(windows)),
            None => Work::Product(Some(nest), Box::new(product)),
        },
        None => Work::Loops(refined(nest)),
    };
    Ok((work, dims))
}

/// The loops of a product; loops do not read blocks.
fn product_nest(
    kernel: &Kernel,
    product: &Contraction,
) -> std::result::Result<Option<Nest>, String> {
    match product.reads_blocks() {
        true => Ok(None),
        false => nest_of(kernel).map(Some),
    }
}

/// Says how many kernels are products of windows.
fn tell_windows(run: &mut Run, kernels: &[(NodeIndex, usize)]) {
    let is_windows = |(_, job): &&(_, usize)| matches!(run.jobs[*job].work, Work::Windows(..));
    let n = kernels.iter().filter(is_windows).count();
    if n > 0 {
        run.notes.push(format!(
            "{n} products of windows are computed where the image lies"
        ));
    }
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
