//! What `convert` finds out by letting the model read a text: what weights are multiplied by, and what types cost.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::Calibrate;
use brain_blitz::dtype::DType;
use brain_blitz::error::Result;
use brain_blitz::formats::gguf::{self, Converted};
use brain_blitz::formats::{Calibration, ModelConfig, ModelFiles, Weights};
use brain_blitz::generation::evaluate::{Windows, prompt_starts};
use brain_blitz::generation::plan::{Found, Request, plan};
use brain_blitz::generation::{Options, Progress, calibrate};
use brain_blitz::train::rescale::{self, Learnt, learn_factors};

use super::model::{calibration, context_for, default_cpu, thread_count};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress::Bar;
use crate::cli::{at_least_one, output, text};

/// Tokens that are fed at once.
const CONTEXT: usize = 256;

/// The options that say which text.
#[derive(clap::Args, Debug)]
pub struct SampleArgs {
    /// Let the model read this text first, and choose scales by what weights are multiplied by; - for
    /// standard input
    #[arg(long, value_name = "TEXT", conflicts_with = "importance")]
    calibrate: Option<PathBuf>,
    /// Choose scales by FILE, which --save-importance wrote
    #[arg(long, value_name = "FILE", value_parser = calibration)]
    importance: Option<Arc<Calibration>>,
    /// Round the columns of matrices one after the other, and make up for each one's error in the others (GPTQ); needs
    /// memory for products of columns, 3 GB at most
    #[arg(long, requires = "calibrate")]
    feedback: bool,
    /// Let the model and the converted one read the text side by side in the end, and learn factors for rows of
    /// matrices and for norms that bring the predictions of both together
    #[arg(long, requires = "calibrate")]
    rescale: bool,
    /// Write what --calibrate found to FILE (safetensors)
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    save_importance: Option<PathBuf>,
    /// Tokens of the text that --calibrate reads, spread over it
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = at_least_one)]
    sample_tokens: usize,
    /// Tokens of the text that --bits measures predictions of, spread over it
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    plan_tokens: usize,
    /// Threads to compute with [default: $BB_THREADS, else the machine's cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// The text as tokens, and the model that reads it.
pub struct Text {
    files: ModelFiles,
    ids: Vec<u32>,
    bos: Option<u32>,
}

impl Text {
    /// About `n` of the tokens, in windows that are evenly spread over the text.
    fn part(&self, n: usize) -> Vec<u32> {
        let ids = &self.ids;
        if ids.len() <= n {
            return ids.clone();
        }
        let each = CONTEXT.min(n);
        let starts = prompt_starts(ids.len(), n.div_ceil(CONTEXT), each, 0);
        let windows = starts.into_iter().map(|at| &ids[at..at + each]);
        windows.flatten().copied().collect()
    }

    fn windows<'a>(&self, part: &'a [u32]) -> Result<Windows<'a>> {
        Windows::new(part, self.bos, CONTEXT, CONTEXT)
    }

    /// Does `work` with the model, the options that it runs with, and a bar for its progress.
    fn with_model<T>(
        &self,
        threads: Option<usize>,
        (what, bar): (&str, &mut Bar),
        work: impl FnOnce(Model<'_>) -> Result<T>,
    ) -> Result<T> {
        let config = self.files.config()?;
        let options = Options {
            cpu: default_cpu(),
            threads,
            context: Some(context_for(CONTEXT, &config)),
            ..Options::default()
        };
        let bars = RefCell::new(bar);
        let done = work(Model {
            config,
            weights: &*self.files.weights(DType::F32)?,
            options: &options,
            loading: &mut |progress| bars.borrow_mut().show(progress),
            counting: &mut |done, all| bars.borrow_mut().counting(what, done, all),
        });
        bars.borrow_mut().clear();
        done
    }
}

/// A model that is to read a text.
struct Model<'a> {
    config: ModelConfig,
    weights: &'a dyn Weights,
    options: &'a Options,
    loading: &'a mut dyn FnMut(Progress<'_>),
    counting: &'a mut dyn FnMut(usize, usize),
}

impl SampleArgs {
    /// Threads to compute with, if somebody said it.
    pub fn threads(&self) -> Option<usize> {
        self.threads
    }

    /// Reads the text, if there is one.
    ///
    /// # Errors
    /// If the text or the model cannot be read, or the model has no tokenizer.
    pub fn read(&self, input: &Path) -> Outcome<Option<Text>> {
        let Some(path) = &self.calibrate else {
            return Ok(None);
        };
        let files = ModelFiles::open(input)?;
        let Some(mut tokenizer) = files.tokenizer()? else {
            let input = input.display();
            let failure = Failure::new(format!("{input}: has no tokenizer to read a text with"));
            return Err(failure.hint("put the model's tokenizer.json into its folder"));
        };
        let bos = files.config()?.bos_token_id();
        if bos.is_some() {
            tokenizer.set_bos(bos);
        }
        let ids = tokenizer.encode(&text::read(path)?, false)?;
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        Ok(Some(Text { files, ids, bos }))
    }

    /// What weights are multiplied by: found out with the text, or read from a file, or nothing. `plans` says whether types
    /// are planned with it.
    ///
    /// # Errors
    /// If the model cannot be loaded, or the file cannot be written.
    pub fn calibration(
        &self,
        text: Option<&Text>,
        plans: bool,
        bar: &mut Bar,
    ) -> Outcome<Arc<Calibration>> {
        if let Some(path) = &self.save_importance {
            output::check_file(path)?;
        }
        let Some(text) = text else {
            return Ok(self.importance.clone().unwrap_or_default());
        };
        // With feedback the same is asked for when the matrices' turn comes.
        if self.feedback && self.save_importance.is_none() && !plans {
            return Ok(Arc::default());
        }
        let found = self.calibrated(text, Calibrate::default(), bar)?;
        if let Some(path) = &self.save_importance {
            found.save(path)?;
        }
        Ok(Arc::new(found))
    }

    /// Whether errors of columns are made up for in other columns.
    pub fn feeds_back(&self) -> bool {
        self.feedback
    }

    /// What weights are multiplied by, and of the weights of these names also the products.
    ///
    /// # Errors
    /// If the model cannot be loaded.
    pub fn moments(&self, text: &Text, names: &[String], bar: &mut Bar) -> Result<Calibration> {
        let how = Calibrate::default().with_products(usize::MAX);
        self.calibrated(text, how.only(names.iter().cloned()), bar)
    }

    fn calibrated(&self, text: &Text, how: Calibrate, bar: &mut Bar) -> Result<Calibration> {
        let part = text.part(self.sample_tokens);
        let windows = text.windows(&part)?;
        text.with_model(self.threads, ("Calibrating", bar), |model| {
            calibrate(
                model.config,
                model.weights,
                &windows,
                how,
                model.options,
                model.loading,
                model.counting,
            )
        })
    }

    /// Whether rows of the converted model are multiplied.
    pub fn rescales(&self) -> bool {
        self.rescale
    }

    /// Multiplies rows of the converted model's matrices and weights of its norms by what brings its predictions near those of the
    /// model that it was made of.
    ///
    /// # Errors
    /// If a model cannot be loaded, or the file cannot be written.
    pub fn rescale_rows(
        &self,
        text: &Text,
        (output, converted): (&Path, &[Converted]),
        bar: &mut Bar,
    ) -> Outcome<Learnt> {
        let part = text.part(self.sample_tokens);
        let windows = text.windows(&part)?;
        let learnt = text.with_model(self.threads, ("Rescaling", bar), |model| {
            let original = rescale::Model {
                config: model.config,
                weights: model.weights,
            };
            learn_factors(
                original,
                (output, converted),
                &windows,
                model.options,
                model.loading,
                model.counting,
            )
        })?;
        gguf::scale_rows(output, &learnt.factors)?;
        Ok(learnt)
    }

    /// Types of the least divergence of the text's predictions.
    ///
    /// # Errors
    /// If the model cannot be loaded, or the bits are too few.
    pub fn plan(&self, text: &Text, request: &Request, bar: &mut Bar) -> Outcome<Found> {
        let part = text.part(self.plan_tokens);
        let windows = text.windows(&part)?;
        text.with_model(self.threads, ("Measuring", bar), |model| {
            plan(
                model.config,
                model.weights,
                &windows,
                request,
                model.options,
                model.loading,
                model.counting,
            )
        })
        .map_err(Failure::from)
    }
}

/// What was learnt as JSON.
pub fn learnt_json(learnt: &Learnt) -> serde_json::Value {
    serde_json::json!({
        "tensors": learnt.factors.len(),
        "divergences": learnt.divergences,
    })
}

/// The plan as lines.
pub fn table(found: &Found) -> String {
    let mut out = format!("{}\n", found.plan);
    let _ = writeln!(out, "KL {:.3e} with all of it", found.kl);
    for (ty, kl) in &found.uniform {
        let _ = writeln!(out, "KL {kl:.3e} with {} for all", ty.name());
    }
    out
}

/// The plan as JSON.
pub fn json(found: &Found) -> serde_json::Value {
    let entries = found.plan.entries().iter().map(|entry| {
        serde_json::json!({
            "names": entry.names,
            "type": entry.chosen.ty.name(),
            "bits": entry.chosen.bytes as f64 * 8.0 / entry.n.max(1) as f64,
            "kl": entry.chosen.cost,
        })
    });
    let uniform = found.uniform.iter();
    let uniform = uniform.map(|(ty, kl): &(BlockType, f64)| (ty.name(), kl));
    serde_json::json!({
        "bits_per_weight": found.plan.bits_per_weight(),
        "kl": found.kl,
        "uniform_kl": uniform.collect::<std::collections::BTreeMap<_, _>>(),
        "entries": entries.collect::<Vec<_>>(),
    })
}
