//! `brain-blitz bench`: how fast a model loads, reads a prompt and generates.
//!
//! One round that is not counted comes first. Every round starts from an empty context, feeds the prompt at once and
//! then one token at a time; sampling and text are not part of it. Rates are medians over the rounds.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use brain_blitz::formats::Gemma2Config;
use brain_blitz::generation::session::{Rows, Session};
use brain_blitz::op::random;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::model::{ModelArgs, context_for};
use super::progress::Bar;
use super::{output, tell};

/// Prompt length when none is asked for.
const PROMPT_TOKENS: usize = 512;
/// Generated tokens when no number is asked for.
const GENERATE_TOKENS: usize = 64;

/// What `bench` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Length of the prompt [default: 512, or what the model's context has room for]
    #[arg(long, value_name = "N")]
    prompt_tokens: Option<NonZeroUsize>,
    /// Tokens to generate after it [default: 64, or a quarter of a shorter context]
    #[arg(long, value_name = "N")]
    generate_tokens: Option<NonZeroUsize>,
    /// Rounds; medians over them are reported
    #[arg(long, value_name = "N", default_value = "5")]
    repeat: NonZeroUsize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz bench --model models/gemma2-shakespeare --prompt-tokens 128
  brain-blitz bench --model models/gemma2-shakespeare --threads 1 --json

Rates are tokens per second: prefill while reading the prompt, decode while generating. Loading maps
the weights into memory; compiling is faster when compiled kernels are in the cache.";

/// What is measured; the fields of `--json`.
#[derive(Serialize, Debug, Default)]
struct Results {
    load_s: f64,
    compile_s: f64,
    prefill_tok_s: f64,
    prefill_tok_s_min: f64,
    prefill_tok_s_max: f64,
    decode_tok_s: f64,
    decode_tok_s_min: f64,
    decode_tok_s_max: f64,
    /// `null` where the system does not tell.
    peak_rss_bytes: Option<u64>,
    weight_bytes: u64,
    arena_bytes: usize,
    nodes_recorded: usize,
    nodes_compiled: usize,
    kernels: usize,
    cache_hits: usize,
    prompt_tokens: usize,
    generate_tokens: usize,
    repeat: usize,
    threads: usize,
    cpu: String,
}

/// Runs the command.
///
/// # Errors
/// If the numbers of tokens do not fit the model's context, or the model cannot be loaded.
pub fn run(args: &Args) -> Outcome {
    let config = args.model.open_config()?;
    let lengths = Lengths::fit(
        config.max_position_embeddings,
        args.prompt_tokens.map(NonZeroUsize::get),
        args.generate_tokens.map(NonZeroUsize::get),
    )?;
    let quiet = args.model.quiet || args.json;
    if lengths.reduced && !quiet {
        tell(&format!(
            "note: the model's context is {} tokens; measuring with a prompt of {} and {} generated",
            config.max_position_embeddings, lengths.prompt, lengths.generate
        ));
    }
    let mut bar = Bar::new(quiet);
    let context = context_for(lengths.prompt + lengths.generate, &config);
    let session = args.model.load(Rows::Last, context, &mut bar)?;
    let results = measure(args, session, &config, &lengths, &mut bar)?;
    match args.json {
        true => output::write_json(&results),
        false => output::write(&table(&results)),
    }
}

/// How many tokens a round feeds.
#[derive(Debug, PartialEq, Eq)]
struct Lengths {
    prompt: usize,
    generate: usize,
    /// Whether a default had to be cut.
    reduced: bool,
}

impl Lengths {
    /// The lengths asked for, or the defaults cut to what a context has room for.
    fn fit(context: usize, prompt: Option<usize>, generate: Option<usize>) -> Outcome<Lengths> {
        let wanted = prompt.unwrap_or(1).saturating_add(generate.unwrap_or(1));
        if wanted > context {
            let asked = |n: Option<usize>| n.map_or("at least 1".into(), |n| n.to_string());
            return Err(Failure::new(format!(
                "a prompt of {} and {} generated tokens do not fit the model's context (max_position_embeddings) of {context}",
                asked(prompt), asked(generate)
            ))
            .hint("lower --prompt-tokens or --generate-tokens"));
        }
        let generate_room = context - prompt.unwrap_or(1);
        let default = GENERATE_TOKENS.min((context / 4).max(1)).min(generate_room);
        let generated = generate.unwrap_or(default);
        let read = prompt.unwrap_or(PROMPT_TOKENS.min(context - generated));
        Ok(Lengths {
            prompt: read,
            generate: generated,
            reduced: read < prompt.unwrap_or(PROMPT_TOKENS)
                || generated < generate.unwrap_or(GENERATE_TOKENS),
        })
    }
}

fn measure(
    args: &Args,
    mut session: Session,
    config: &Gemma2Config,
    lengths: &Lengths,
    bar: &mut Bar,
) -> Outcome<Results> {
    let (n, vocab) = (lengths.prompt + lengths.generate, config.vocab_size);
    let id = |x: f32| (x * vocab as f32) as u32 % vocab as u32;
    let ids: Vec<u32> = random::uniform(0, 0, n).into_iter().map(id).collect();
    let (prompt, rest) = ids.split_at(lengths.prompt);
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let mut arena_bytes = 0;
    let rounds = args.repeat.get();
    for round in 0..=rounds {
        bar.measuring(round, rounds + 1);
        session.reset();
        let start = Instant::now();
        session.feed(prompt)?;
        let read = rate(prompt.len(), start);
        arena_bytes = session.stats().arena_bytes.max(arena_bytes);
        let start = Instant::now();
        for &id in rest {
            session.feed(&[id])?;
        }
        let generated = rate(rest.len(), start);
        arena_bytes = session.stats().arena_bytes.max(arena_bytes);
        if round > 0 {
            prefill.push(read);
            decode.push(generated);
        }
    }
    bar.clear();
    let (prefill, decode) = (Spread::of(prefill), Spread::of(decode));
    let info = session.info();
    Ok(Results {
        load_s: info.load_s,
        compile_s: info.compile_s,
        prefill_tok_s: prefill.median,
        prefill_tok_s_min: prefill.min,
        prefill_tok_s_max: prefill.max,
        decode_tok_s: decode.median,
        decode_tok_s_min: decode.min,
        decode_tok_s_max: decode.max,
        peak_rss_bytes: peak_rss_bytes(),
        weight_bytes: info.weight_bytes,
        arena_bytes,
        nodes_recorded: info.nodes_recorded,
        nodes_compiled: info.nodes_compiled,
        kernels: info.kernels,
        cache_hits: cache_hits(),
        prompt_tokens: lengths.prompt,
        generate_tokens: lengths.generate,
        repeat: rounds,
        threads: args.model.threads(),
        cpu: args.model.cpu(),
    })
}

/// How many kernels of this process's only model were not compiled but found on disk.
fn cache_hits() -> usize {
    #[cfg(feature = "llvm-backend")]
    return brain_blitz::compilers::llvm_cpu::cache::hits();
    #[cfg(not(feature = "llvm-backend"))]
    return 0;
}

/// Tokens per second since `start`.
fn rate(n: usize, start: Instant) -> f64 {
    // A clock that has not moved yet must not give infinity, which JSON does not have.
    n as f64 / start.elapsed().as_secs_f64().max(1e-9)
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Of at least one number, none NaN.
    fn of(mut numbers: Vec<f64>) -> Spread {
        numbers.sort_by(f64::total_cmp);
        let half = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            0 => (numbers[half - 1] + numbers[half]) / 2.0,
            _ => numbers[half],
        };
        Spread {
            min: numbers[0],
            median,
            max: numbers[numbers.len() - 1],
        }
    }
}

/// The most memory that this process had at once, where the system tells (Linux).
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn table(r: &Results) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let speed =
        |median: f64, min: f64, max: f64| format!("{median:.1} tokens/s   ({min:.1} to {max:.1})");
    let rows = [
        ("cpu", format!("{}, {} threads", r.cpu, r.threads)),
        ("load", format!("{:.3} s", r.load_s)),
        (
            "compile",
            format!(
                "{:.3} s   ({} nodes to {}, {} kernels, {} from the cache)",
                r.compile_s, r.nodes_recorded, r.nodes_compiled, r.kernels, r.cache_hits
            ),
        ),
        (
            "prefill",
            speed(r.prefill_tok_s, r.prefill_tok_s_min, r.prefill_tok_s_max),
        ),
        (
            "decode",
            speed(r.decode_tok_s, r.decode_tok_s_min, r.decode_tok_s_max),
        ),
        (
            "peak memory",
            r.peak_rss_bytes.map_or("unknown".into(), mib),
        ),
        ("weights", mib(r.weight_bytes)),
        ("working memory", mib(r.arena_bytes as u64)),
        (
            "measured",
            format!(
                "{} prompt and {} generated tokens, {} rounds",
                r.prompt_tokens, r.generate_tokens, r.repeat
            ),
        ),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<15} {value}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(
        context: usize,
        prompt: Option<usize>,
        generate: Option<usize>,
    ) -> Option<(usize, usize, bool)> {
        let lengths = Lengths::fit(context, prompt, generate).ok()?;
        Some((lengths.prompt, lengths.generate, lengths.reduced))
    }

    #[test]
    fn defaults_shrink_to_the_context_and_explicit_lengths_do_not() {
        assert_eq!(fit(8192, None, None), Some((512, 64, false)));
        assert_eq!(fit(256, None, None), Some((192, 64, true)));
        assert_eq!(fit(8, None, None), Some((6, 2, true)));
        assert_eq!(fit(2, None, None), Some((1, 1, true)));
        assert_eq!(fit(256, Some(250), None), Some((250, 6, true)));
        assert_eq!(fit(256, Some(128), Some(128)), Some((128, 128, false)));
        assert_eq!(fit(256, None, Some(250)), Some((6, 250, true)));
        assert_eq!(fit(256, Some(129), Some(128)), None);
        assert_eq!(fit(256, Some(256), None), None);
        assert_eq!(fit(1, None, None), None);
        assert_eq!(fit(256, Some(usize::MAX), Some(usize::MAX)), None);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).median, 2.0);
        let four = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((four.min, four.median, four.max), (1.0, 2.5, 4.0));
    }
}
