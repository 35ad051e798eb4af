//! What `convert` finds out by letting the model read a text: what weights are multiplied by, and what types cost.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::Calibrate;
use brain_blitz::dtype::DType;
use brain_blitz::formats::{Calibration, ModelConfig, Tokenizer, open_model};
use brain_blitz::generation::evaluate::Windows;
use brain_blitz::generation::plan::{Found, Grouping, Request, plan};
use brain_blitz::generation::{Options, calibrate};

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

/// A part of the text as tokens.
struct Sample {
    ids: Vec<u32>,
    bos: Option<u32>,
}

impl Sample {
    /// About `n` tokens of a text, in windows that are evenly spread over it.
    fn of(ids: &[u32], bos: Option<u32>, n: usize) -> Sample {
        let windows = n.div_ceil(CONTEXT).max(1);
        let last = ids.len().saturating_sub(CONTEXT);
        let start = |i: usize| match windows {
            1 => last / 2,
            _ => i * last / (windows - 1),
        };
        let ids = match ids.len() <= n {
            true => ids.to_vec(),
            false => (0..windows)
                .flat_map(|i| ids[start(i)..].iter().take(CONTEXT.min(n)).copied())
                .collect(),
        };
        Sample { ids, bos }
    }

    fn windows(&self) -> Outcome<Windows<'_>> {
        Ok(Windows::new(&self.ids, self.bos, CONTEXT, CONTEXT)?)
    }
}

impl SampleArgs {
    /// What weights are multiplied by: read from a file, found out with a text, or nothing.
    ///
    /// # Errors
    /// If the text or the model cannot be read, or the file cannot be written.
    pub fn calibration(&self, input: &Path, bar: &mut Bar) -> Outcome<Arc<Calibration>> {
        if let Some(path) = &self.save_importance {
            output::check_file(path)?;
        }
        let Some(path) = &self.calibrate else {
            return Ok(self.importance.clone().unwrap_or_default());
        };
        let sample = self.sample(input, path, self.sample_tokens)?;
        let (config, weights) = open_model(input, DType::F32)?;
        let options = self.options(context_for(CONTEXT, &config));
        let (windows, how) = (sample.windows()?, Calibrate::default());
        let bars = std::cell::RefCell::new(bar);
        let found = calibrate(
            config,
            &*weights,
            &windows,
            how,
            &options,
            &mut |progress| bars.borrow_mut().show(progress),
            &mut |done, all| bars.borrow_mut().counting("Calibrating", done, all),
        );
        bars.borrow_mut().clear();
        let found = found?;
        if let Some(path) = &self.save_importance {
            found.save(path)?;
        }
        Ok(Arc::new(found))
    }

    /// Types of the least divergence within so many bits.
    ///
    /// # Errors
    /// If the text or the model cannot be read, or the bits are too few.
    pub fn plan(
        &self,
        args: &super::Args,
        bits: f64,
        calibration: &Arc<Calibration>,
        bar: &mut Bar,
    ) -> Outcome<Found> {
        let path = self.calibrate.as_ref().expect("--bits requires it");
        let sample = self.sample(&args.input, path, self.plan_tokens)?;
        let (config, weights) = open_model(&args.input, DType::F32)?;
        let options = self.options(context_for(CONTEXT, &config));
        let request = Request {
            calibration: calibration.clone(),
            grouping: match args.by_kind {
                true => Grouping::Kind,
                false => Grouping::Tensor,
            },
            ..Request::new(bits)
        };
        let bars = std::cell::RefCell::new(bar);
        let found = plan(
            config,
            &*weights,
            &sample.windows()?,
            &request,
            &options,
            &mut |progress| bars.borrow_mut().show(progress),
            &mut |done, all| bars.borrow_mut().counting("Measuring", done, all),
        );
        bars.borrow_mut().clear();
        Ok(found?)
    }

    fn sample(&self, input: &Path, path: &Path, n: usize) -> Outcome<Sample> {
        let Some(mut tokenizer) = Tokenizer::find(input)? else {
            let input = input.display();
            let failure = Failure::new(format!("{input}: has no tokenizer to read a text with"));
            return Err(failure.hint("put the model's tokenizer.json into its folder"));
        };
        let bos = ModelConfig::open(input)?.bos_token_id();
        if bos.is_some() {
            tokenizer.set_bos(bos);
        }
        let ids = tokenizer.encode(&text::read(path)?, false)?;
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        Ok(Sample::of(&ids, bos, n))
    }

    fn options(&self, context: usize) -> Options {
        Options {
            cpu: default_cpu(),
            threads: self.threads,
            context: Some(context),
            ..Options::default()
        }
    }
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
