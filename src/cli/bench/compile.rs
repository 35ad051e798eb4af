//! How long compiling takes: with an empty cache, and with a full one.
//!
//! Both are measured in processes of their own, as a user meets them: the first compilation of a process also
//! initializes LLVM and reads what it needs from disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use brain_blitz::Error;
use brain_blitz::generation::session::Session;
use serde::{Deserialize, Serialize};

use super::{Format, ShapeArgs};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::model::RunArgs;
use crate::cli::output;

/// What `bench --compile` prints.
#[derive(Serialize, Deserialize, Debug)]
struct Compiled {
    record_s: f64,
    compile_s: f64,
    nodes_recorded: usize,
    nodes_compiled: usize,
    kernels: usize,
    distinct_kernels: usize,
    /// Seconds of each pass.
    passes: BTreeMap<String, f64>,
}

/// Seconds to compile, with an empty cache and then with a full one.
pub struct Times {
    /// Every kernel is compiled.
    pub cold_s: f64,
    /// Every kernel is read from disk.
    pub warm_s: f64,
}

/// Prints what compiling this session took.
///
/// # Errors
/// If standard output is closed.
pub fn report(session: &Session, json: bool) -> Outcome {
    let info = session.info();
    let passes = info.report.passes.iter();
    let compiled = Compiled {
        record_s: info.load_s,
        compile_s: info.compile_s,
        nodes_recorded: info.nodes_recorded,
        nodes_compiled: info.nodes_compiled,
        kernels: info.kernels,
        distinct_kernels: info.distinct_kernels,
        passes: passes
            .map(|pass| (pass.name.clone(), pass.time.as_secs_f64()))
            .collect(),
    };
    if json {
        return output::write_json(&compiled);
    }
    output::write(&format!(
        "{:<15} {:.3} s\n{:<15} {:.3} s   ({} nodes to {}, {} kernels, {} distinct)\n{}",
        "record",
        compiled.record_s,
        "compile",
        compiled.compile_s,
        compiled.nodes_recorded,
        compiled.nodes_compiled,
        compiled.kernels,
        compiled.distinct_kernels,
        info.report
    ))
}

/// Compiles a synthetic model twice, each time in a new process, with a cache that is empty at first. Nothing is
/// measured where nothing is compiled.
///
/// # Errors
/// If a process cannot be started, or fails.
pub fn in_fresh_processes(
    run: &RunArgs,
    shape: &ShapeArgs,
    name: &str,
    context: usize,
) -> Outcome<Option<Times>> {
    if run.cpu() == "reference" {
        return Ok(None);
    }
    let folder = format!("brain-blitz-compile-{}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    let once = || compile_in(&folder, run, shape, name, context);
    let times = once().and_then(|cold| Ok((cold, once()?)));
    // What stays behind is in the folder for temporary files.
    let _ = std::fs::remove_dir_all(&folder);
    let (cold, warm) = times?;
    Ok(Some(Times {
        cold_s: cold.compile_s,
        warm_s: warm.compile_s,
    }))
}

fn compile_in(
    cache: &Path,
    run: &RunArgs,
    shape: &ShapeArgs,
    name: &str,
    context: usize,
) -> Outcome<Compiled> {
    let failed = |source| Error::Io {
        path: "this program".into(),
        source,
    };
    let program = std::env::current_exe().map_err(failed)?;
    let precision = match shape.precision {
        Format::F32 => "f32",
        Format::Bf16 => "bf16",
        Format::F16 => "f16",
    };
    let mut command = Command::new(program);
    command
        .args(["bench", "--compile", "--json", "--synthetic", name])
        .args(["--precision", precision, "--cpu", &run.cpu()])
        .args(["--threads", &run.threads().to_string()])
        .args(["--kv-cache", &run.kv_cache().to_string()])
        .args(["--math", run.math().name()])
        // One token less than there is room for, which makes the same room.
        .args([
            "--prompt-tokens",
            &(context - 1).to_string(),
            "--generate-tokens",
            "1",
        ])
        .env("BB_CACHE_DIR", cache)
        .env_remove("BB_CACHE")
        .env_remove("BB_DEBUG")
        .stderr(Stdio::inherit());
    if let Some(layers) = shape.layers {
        command.args(["--layers", &layers.to_string()]);
    }
    let output = command.output().map_err(failed)?;
    let parsed = serde_json::from_slice(&output.stdout);
    match parsed {
        Ok(compiled) if output.status.success() => Ok(compiled),
        _ => Err(Failure::new("compiling in a new process failed")),
    }
}
