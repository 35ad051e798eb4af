//! The options that every command has: which model, on how many threads, for which CPU.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use brain_blitz::Error;
use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::Math;
use brain_blitz::formats::gguf::is_gguf;
use brain_blitz::formats::{Calibration, ModelConfig, ModelFiles};
use brain_blitz::generation::Quant;
use brain_blitz::generation::session::{CacheType, Options, Rows, Session};
use brain_blitz::knobs;

use super::failure::{Failure, Outcome};
use super::progress::Bar;

/// The smallest room for tokens that a session is made with, so that short texts share compiled kernels.
const SMALLEST_CONTEXT: usize = 512;

/// Which model, and what it runs on.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgs {
    /// Folder of a Hugging Face checkpoint (config.json, model.safetensors or its shards, tokenizer.json),
    /// or a GGUF file, of a Gemma 2 or 3, Llama, SmolLM2, Mistral, Qwen 2 or 3
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
    /// The files, once they are open.
    #[arg(skip)]
    files: OnceLock<ModelFiles>,
}

/// What a model runs on.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Threads to compute with [default: $BB_THREADS, else the machine's cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// CPU to compile for: native, scalar, x86-64-v3, ..., or reference to compile nothing
    /// [default: $BB_CPU, else native]
    #[arg(long, value_name = "NAME")]
    cpu: Option<String>,
    /// Store weights in blocks of this type, q8_0, q4_0, ..., as files of this type have them, or as signs, w1a8, w1a1, ...
    /// [default: as the model has them]
    #[arg(long, value_name = "TYPE", value_parser = quant)]
    quant: Option<Quant>,
    /// Blocks of the embedding and the output layer then
    /// [default: for the output layer q6_k, or q8_0 where its rows are no whole 256 numbers or --quant says it]
    #[arg(long, value_name = "TYPE", value_parser = block_type)]
    embedding: Option<BlockType>,
    /// Choose the scales of these blocks by FILE, which `convert --save-importance` wrote
    #[arg(long = "importance", value_name = "FILE", value_parser = calibration)]
    calibration: Option<Arc<Calibration>>,
    /// Keep keys and values of attention as f32, as f16 or bf16 (half the memory), or as q8_0 (about a quarter): all but
    /// f32 round
    #[arg(long, value_name = "TYPE", default_value_t)]
    kv_cache: CacheType,
    /// How to compute exp, tanh, sigmoid, gelu and rsqrt: exact, lut (by tables) or approx (by short polynomials),
    /// the last two with errors of about 1e-4
    #[arg(long, value_name = "MODE", default_value_t)]
    math: Math,
    /// Keep weights in the order that kernels read them in files of DIR, and map them the next time: nothing is packed then,
    /// for which models in K-quants would wait, and DIR takes as much room as the model [default: $BB_PACK_DIR, else none]
    #[arg(long, value_name = "DIR")]
    pack_dir: Option<PathBuf>,
    /// Measure how to compute matrix products that there are no records of, which takes a while
    /// [default: $BB_TUNE]; records are kept for every later run
    #[arg(long)]
    tune: bool,
    /// No progress and no notes on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// What is known about the columns of weights.
///
/// # Errors
/// If the file cannot be read.
pub fn calibration(path: &str) -> Result<Arc<Calibration>, String> {
    let opened = Calibration::open(path).map_err(|error| error.to_string());
    opened.map(Arc::new)
}

/// A number of threads, as options take it.
///
/// # Errors
/// If it is none.
pub fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 thread is needed".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("not a number of threads".into()),
    }
}

/// A way to store weights.
///
/// # Errors
/// If there is none of this name; tells what there is.
pub fn quant(text: &str) -> Result<Quant, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// A type that matrices can be stored in.
///
/// # Errors
/// If there is none of this name, or no encoder for it.
pub fn block_type(text: &str) -> Result<BlockType, String> {
    let ty: BlockType = text.parse().map_err(|error: Error| error.to_string())?;
    match ty.can_quantize() {
        true => Ok(ty),
        false => Err(format!("there is no encoder for {ty}")),
    }
}

impl ModelArgs {
    /// A model given in another way than by these arguments' own options.
    pub fn new(model: PathBuf, run: RunArgs) -> ModelArgs {
        let files = OnceLock::new();
        ModelArgs { model, run, files }
    }

    /// The checkpoint's folder, or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.model
    }

    /// The same model for another CPU; the reference executor computes exactly.
    pub fn with_cpu(&self, name: &str) -> ModelArgs {
        let math = match name {
            "reference" => Math::Exact,
            _ => self.run.math,
        };
        ModelArgs {
            run: RunArgs {
                cpu: Some(name.to_owned()),
                math,
                ..self.run.clone()
            },
            ..self.clone()
        }
    }

    /// The same model with its weights stored in this way, or as it has them.
    pub fn with_quant(&self, quant: Option<Quant>) -> ModelArgs {
        ModelArgs {
            run: RunArgs {
                quant,
                ..self.run.clone()
            },
            ..self.clone()
        }
    }

    /// The same model with keys and values kept in this format.
    pub fn with_kv_cache(&self, kv_cache: CacheType) -> ModelArgs {
        ModelArgs {
            run: RunArgs {
                kv_cache,
                ..self.run.clone()
            },
            ..self.clone()
        }
    }

    /// The same model with functions computed in this mode.
    pub fn with_math(&self, math: Math) -> ModelArgs {
        ModelArgs {
            run: RunArgs {
                math,
                ..self.run.clone()
            },
            ..self.clone()
        }
    }

    /// The way to store weights that was asked for.
    pub fn quant(&self) -> Option<Quant> {
        self.run.quant
    }

    /// The model's files, opened the first time that somebody asks.
    ///
    /// # Errors
    /// If there is no model, or its file is damaged.
    pub fn files(&self) -> Outcome<&ModelFiles> {
        if self.files.get().is_none() {
            check_path(&self.model)?;
            let _ = self.files.set(ModelFiles::open(&self.model)?);
        }
        Ok(self.files.get().expect("set above"))
    }

    /// Reads the model's configuration, after checking what can be checked without reading weights.
    ///
    /// # Errors
    /// If the path is not a checkpoint's folder, its configuration is not one of a supported model, or this machine
    /// cannot run code for the CPU that was asked for.
    pub fn open_config(&self) -> Outcome<ModelConfig> {
        let files = self.files()?;
        self.run.check()?;
        Ok(files.config()?)
    }

    /// Loads and compiles the model, with room for `context` tokens, or for as many as [`Options`] has by default. Its weights are
    /// packed as far as the first tokens need them.
    ///
    /// # Errors
    /// If a file is damaged or does not fit the configuration, or compiling fails.
    pub fn load(
        &self,
        rows: Rows,
        context: impl Into<Option<usize>>,
        bar: &mut Bar,
    ) -> Outcome<Session> {
        let mut session = self.load_to_look_at(rows, context, bar)?;
        packing(&mut session, bar, Session::pack_first)?;
        Ok(session)
    }

    /// As [`ModelArgs::load`], with all weights packed.
    ///
    /// # Errors
    /// As [`ModelArgs::load`].
    pub fn load_packed(
        &self,
        rows: Rows,
        context: impl Into<Option<usize>>,
        bar: &mut Bar,
    ) -> Outcome<Session> {
        let mut session = self.load_to_look_at(rows, context, bar)?;
        pack(&mut session, bar)?;
        Ok(session)
    }

    /// As [`ModelArgs::load`], for a model that is not fed: nothing is packed.
    ///
    /// # Errors
    /// As [`ModelArgs::load`].
    pub fn load_to_look_at(
        &self,
        rows: Rows,
        context: impl Into<Option<usize>>,
        bar: &mut Bar,
    ) -> Outcome<Session> {
        let options = self.run.options(rows, context);
        let loaded = Session::of_model(self.files()?, &options, &mut |progress| bar.show(progress));
        bar.clear();
        Ok(loaded?)
    }
}

/// Packs all of a model's weights.
///
/// # Errors
/// If there is no memory.
pub fn pack(session: &mut Session, bar: &mut Bar) -> Outcome {
    packing(session, bar, Session::pack)
}

fn packing(
    session: &mut Session,
    bar: &mut Bar,
    how: fn(&mut Session) -> brain_blitz::Result<()>,
) -> Outcome {
    bar.packing();
    let packed = how(session);
    bar.clear();
    Ok(packed?)
}

impl RunArgs {
    /// The name of the CPU that is compiled for.
    pub fn cpu(&self) -> String {
        self.cpu.clone().unwrap_or_else(default_cpu)
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        let default = brain_blitz::exec::pool::default_threads;
        self.threads.unwrap_or_else(default)
    }

    /// The format that keys and values are kept in.
    pub fn kv_cache(&self) -> CacheType {
        self.kv_cache
    }

    /// How functions are computed.
    pub fn math(&self) -> Math {
        self.math
    }

    /// Finds out early whether this machine can run code for the CPU that was asked for.
    ///
    /// # Errors
    /// If it cannot, or there is no such CPU, or the functions' mode is none of the reference executor's.
    pub fn check(&self) -> Outcome {
        if self.math != Math::Exact && self.cpu() == "reference" {
            let failure = Failure::new(format!("the reference knows no `--math {}`", self.math));
            return Err(failure.hint("--cpu native has it; `--math exact` is for any CPU"));
        }
        check_cpu(&self.cpu())
    }

    /// How a session is made that has room for `context` tokens, or for as many as [`Options`] has by default.
    pub fn options(&self, rows: Rows, context: impl Into<Option<usize>>) -> Options {
        Options {
            cpu: self.cpu(),
            threads: Some(self.threads()),
            context: context.into(),
            cache: self.kv_cache,
            logits: rows,
            quant: self.quant,
            embedding: self.embedding,
            calibration: self.calibration.clone().unwrap_or_default(),
            packed: self.pack_dir.clone(),
            tune: self.tune,
            math: self.math,
        }
    }
}

/// The room for tokens to make a session with that will hold `needed`: a few sizes only, since kernels are compiled
/// for each.
pub fn context_for(needed: usize, config: &ModelConfig) -> usize {
    let rounded = needed
        .max(SMALLEST_CONTEXT)
        .checked_next_power_of_two()
        .unwrap_or(usize::MAX);
    rounded.min(config.max_position_embeddings())
}

/// The CPU that is compiled for unless an option says otherwise.
pub fn default_cpu() -> String {
    let default = match cfg!(feature = "llvm-backend") {
        true => "native",
        false => "reference",
    };
    knobs::cpu().unwrap_or_else(|| default.to_owned())
}

fn check_path(path: &Path) -> Outcome {
    let kind = path.metadata().map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })?;
    const HINT: &str = "give a GGUF file, or the folder of a Hugging Face checkpoint: config.json, model.safetensors, tokenizer.json";
    let what = match kind.is_dir() {
        true if path.join("config.json").exists() => return Ok(()),
        true => "holds no config.json",
        false if is_gguf(path) => return Ok(()),
        false => "is neither a folder nor a GGUF file",
    };
    let failure = Failure::new(format!("{}: {what}", path.display()));
    Err(failure.hint(HINT))
}

#[cfg(feature = "llvm-backend")]
fn check_cpu(name: &str) -> Outcome {
    use brain_blitz::compilers::llvm_cpu::Target;
    if name == "reference" {
        return Ok(());
    }
    let known = || Target::known_names().collect::<Vec<_>>().join(", ");
    let Ok(target) = Target::for_cpu(name) else {
        return Err(Failure::new(format!(
            "unknown CPU `{name}`; known: reference, {}",
            known()
        )));
    };
    match target.can_run_here() {
        true => Ok(()),
        false => Err(
            Failure::new(format!("this machine cannot run code for `{name}`"))
                .hint("--cpu native compiles for this machine"),
        ),
    }
}

#[cfg(not(feature = "llvm-backend"))]
fn check_cpu(name: &str) -> Outcome {
    match name {
        "reference" => Ok(()),
        _ => Err(Failure::new(format!(
            "unknown CPU `{name}`; known: reference (this program was built without LLVM)"
        ))),
    }
}
