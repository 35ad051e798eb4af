//! Kernel nodes without code → the same nodes with machine code.
//!
//! Each kernel's steps become a loop nest or a matrix product. Equal ones are compiled once, on as many threads as
//! the machine has; the code of layers that repeat is shared. What cannot be lowered keeps running on the reference
//! executor; the notes name it and say why.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::{FxHashMap, FxHasher};

use super::cache::ObjectCache;
use super::code::{GemmCode, NestCode, is_narrow};
use super::contraction::contraction_of;
use super::gemm::CompiledGemm;
use super::gemm::ir::Contraction;
use super::ir::Nest;
use super::jit::Jit;
use super::lower;
use super::nest::nest_of;
use super::sequence::Linker;
use super::target::Target;
use crate::compilers::Pass;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{Kernel, NativeCode, Op};
use crate::shape::numel;

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
    nest: Nest,
    contraction: Option<Contraction>,
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
        let mut number_of: FxHashMap<Nest, usize> = FxHashMap::default();
        let mut kernels: Vec<(NodeIndex, usize)> = Vec::new();
        for id in dag.topological()? {
            let Op::Kernel(kernel) = &dag.node(id).op else {
                continue;
            };
            if kernel.code().is_some() {
                continue;
            }
            match job_of(kernel, target) {
                Ok(job) => {
                    let jobs = &mut run.jobs;
                    let number = *number_of.entry(job.nest.clone()).or_insert_with(|| {
                        jobs.push(job);
                        jobs.len() - 1
                    });
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
            let text = match (&job.contraction, asm) {
                (Some(contraction), true) => {
                    CompiledGemm::assembly(contraction, target).map_err(|e| e.to_string())
                }
                (_, true) => lower::assembly(&job.nest, target).map_err(|e| e.to_string()),
                (_, false) => lower::ir_text(&job.nest, target).map_err(|e| e.to_string()),
            };
            out.push_str(&format!(
                "; {}\n{}\n",
                job.name,
                text.unwrap_or_else(|why| format!("; {why}"))
            ));
        }
        Some(out)
    }
}

fn job_of(kernel: &Kernel, target: &Target) -> std::result::Result<Job, String> {
    let nest = nest_of(kernel)?;
    let contraction = contraction_of(kernel);
    let dims: Vec<String> = nest
        .space
        .iter()
        .chain(&nest.reduce)
        .map(|dim| dim.to_string().replace(' ', ""))
        .collect();
    let name = format!("{}_{}_{}", kernel.name, dims.join("x"), target.name());
    Ok(Job {
        name,
        nest,
        contraction,
    })
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
    let n_threads = pool::default_threads();
    pool::for_each_range(n_threads, jobs.len(), &|range| {
        for i in range {
            let code = compile(&jobs[i], &cache, &linker).map_err(|e| e.to_string());
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
        }
    });
    let taken = results
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(taken.map(|code| code.expect("every job was run")).collect())
}

fn key_of(nest: &Nest) -> u64 {
    let mut hasher = FxHasher::default();
    nest.hash(&mut hasher);
    hasher.finish()
}

fn compile(job: &Job, cache: &ObjectCache, linker: &Arc<Linker>) -> Result<Arc<dyn NativeCode>> {
    let nest = compile_nest(job, cache, linker);
    let Some(contraction) = &job.contraction else {
        return Ok(Arc::new(nest?));
    };
    let narrow = match nest {
        Ok(nest) if is_always_narrow(contraction) => return Ok(Arc::new(nest)),
        nest => nest.ok().map(Arc::new),
    };
    let compiled = CompiledGemm::new(contraction, &linker.target, cache)?;
    let gemm = compiled.link(&linker.jit)?;
    Ok(Arc::new(GemmCode {
        params: compiled.params().to_vec(),
        gemm,
        key: key_of(&job.nest),
        name: job.name.replacen("contraction", "gemm", 1),
        lhs: contraction.lhs.input,
        rhs: contraction.rhs.input,
        narrow,
    }))
}

/// Whether a product runs as a loop nest at any size.
fn is_always_narrow(contraction: &Contraction) -> bool {
    let size = |dims| numel(dims).as_usize().unwrap_or(usize::MAX);
    is_narrow(size(&contraction.m), size(&contraction.n))
}

fn compile_nest(job: &Job, cache: &ObjectCache, linker: &Arc<Linker>) -> Result<NestCode> {
    let lowered = lower::lower_cached(&job.nest, &linker.target, cache)
        .map_err(|e| Error::msg(e.to_string()))?;
    linker.jit.add_once(&lowered.symbol, &lowered.object)?;
    let points = numel(&job.nest.space) * numel(&job.nest.reduce);
    Ok(NestCode {
        name: job.name.clone(),
        key: key_of(&job.nest),
        function: linker.jit.lookup(&lowered.symbol)?,
        symbol: lowered.symbol,
        params: lowered.params,
        units: lowered.units,
        cost: points * job.nest.body.len(),
        linker: linker.clone(),
    })
}
