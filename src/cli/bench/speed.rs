//! A model's speed: reading a prompt and generating.
//!
//! One round that is not counted comes first. Every round starts from an empty context, feeds the prompt at once and
//! then one token at a time; sampling and text are not part of it. Rates are medians over the rounds.
//!
//! Where the machine's limits are known, rates are also given as parts of them: decoding reads every weight and the
//! caches once for a token, so it is compared with the bandwidth of reading, as it is right then; reading a prompt
//! multiplies every weight but the embedding's with every token, so it is compared with the peak of multiply-adds.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use brain_blitz::formats::ModelConfig;
use brain_blitz::generation::session::{Info, Session};
use brain_blitz::op::random;
use serde::Serialize;

use super::compile::Times;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::model::RunArgs;
use crate::cli::progress::Bar;
use brain_blitz::exec::profile::Limits;

/// Prompt length when none is asked for.
const PROMPT_TOKENS: usize = 512;
/// Generated tokens when no number is asked for.
const GENERATE_TOKENS: usize = 64;

/// How much is measured.
#[derive(clap::Args, Debug)]
pub struct SpeedArgs {
    /// Length of the prompt [default: 512, or what the model's context has room for]
    #[arg(long, value_name = "N")]
    prompt_tokens: Option<NonZeroUsize>,
    /// Tokens to generate after it [default: 64, or a quarter of a shorter context]
    #[arg(long, value_name = "N")]
    generate_tokens: Option<NonZeroUsize>,
    /// Rounds; medians over them are reported
    #[arg(long, value_name = "N", default_value = "5")]
    repeat: NonZeroUsize,
}

/// What is measured; the fields of `--json`.
#[derive(Serialize, Debug, Default)]
pub struct Results {
    load_s: f64,
    compile_s: f64,
    /// Bringing weights into the order of kernels.
    pack_s: f64,
    /// Compiling and packing, by the GB (1e9 bytes) that the weights have as f16.
    ready_s_per_f16_gb: f64,
    /// Compiling with an empty cache and with a full one, each in a process of its own; `null` where not measured.
    compile_cold_s: Option<f64>,
    compile_warm_s: Option<f64>,
    prefill_tok_s: f64,
    prefill_tok_s_min: f64,
    prefill_tok_s_max: f64,
    decode_tok_s: f64,
    decode_tok_s_min: f64,
    decode_tok_s_max: f64,
    /// Parts of the machine's limits; `null` where those are not known.
    prefill_peak_fraction: Option<f64>,
    decode_bandwidth_fraction: Option<f64>,
    /// Bytes a second that could be read right after the rounds.
    read_bytes_per_s: Option<f64>,
    flop_per_prompt_token: f64,
    bytes_read_per_token: f64,
    /// `null` where the system does not tell.
    peak_rss_bytes: Option<u64>,
    weight_bytes: u64,
    kv_cache: String,
    kv_cache_bytes: usize,
    arena_bytes: usize,
    nodes_recorded: usize,
    nodes_compiled: usize,
    kernels: usize,
    distinct_kernels: usize,
    cache_hits: usize,
    layers: usize,
    prompt_tokens: usize,
    generate_tokens: usize,
    repeat: usize,
    threads: usize,
    cpu: String,
}

/// How many tokens a round feeds.
#[derive(Debug, PartialEq, Eq)]
pub struct Lengths {
    /// At once.
    pub prompt: usize,
    /// One by one.
    pub generate: usize,
    /// Whether a default had to be cut.
    pub reduced: bool,
}

impl Lengths {
    /// The lengths that the arguments ask for, in a model's context.
    ///
    /// # Errors
    /// If they do not fit it.
    pub fn of(args: &SpeedArgs, config: &ModelConfig) -> Outcome<Lengths> {
        Lengths::fit(
            config.max_position_embeddings(),
            args.prompt_tokens.map(NonZeroUsize::get),
            args.generate_tokens.map(NonZeroUsize::get),
        )
    }

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

/// Random tokens for a round.
pub fn tokens(n: usize, config: &ModelConfig) -> Vec<u32> {
    let vocab = config.vocab_size();
    let id = |x: f32| (x * vocab as f32) as u32 % vocab as u32;
    random::uniform(0, 0, n).into_iter().map(id).collect()
}

/// Tokens a second of every round that counts.
struct Rates {
    prefill: Vec<f64>,
    decode: Vec<f64>,
    arena_bytes: usize,
}

fn rounds(
    args: &SpeedArgs,
    session: &mut Session,
    lengths: &Lengths,
    bar: &mut Bar,
) -> Outcome<Rates> {
    let config = session.config();
    let ids = tokens(lengths.prompt + lengths.generate, config);
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
    Ok(Rates {
        prefill,
        decode,
        arena_bytes,
    })
}

impl Results {
    /// Sets rates beside what the machine can do.
    pub fn compare(&mut self, limits: &Limits) {
        let [prefill, decode] = [
            self.prefill_tok_s * self.flop_per_prompt_token / limits.flops,
            self.decode_tok_s * self.bytes_read_per_token / limits.read_bytes,
        ];
        self.prefill_peak_fraction = Some(prefill);
        self.decode_bandwidth_fraction = Some(decode);
        self.read_bytes_per_s = Some(limits.read_bytes);
    }
}

/// Measures the session; `times` are of compiling in fresh processes.
///
/// # Errors
/// If an execution fails.
pub fn measure(
    args: &SpeedArgs,
    run: &RunArgs,
    session: &mut Session,
    lengths: &Lengths,
    times: Option<&Times>,
    bar: &mut Bar,
) -> Outcome<Results> {
    let rates = rounds(args, session, lengths, bar)?;
    let config = session.config();
    let (prefill, decode) = (Spread::of(rates.prefill), Spread::of(rates.decode));
    let info = session.info();
    let flop_per_prompt_token = flop_per_prompt_token(config, lengths);
    let bytes_read_per_token = bytes_per_token(session, lengths);
    let threads = run.threads();
    Ok(Results {
        load_s: info.load_s,
        compile_s: info.compile_s,
        pack_s: info.pack_s,
        ready_s_per_f16_gb: ready_s_per_f16_gb(info),
        compile_cold_s: times.map(|times| times.cold_s),
        compile_warm_s: times.map(|times| times.warm_s),
        prefill_tok_s: prefill.median,
        prefill_tok_s_min: prefill.min,
        prefill_tok_s_max: prefill.max,
        decode_tok_s: decode.median,
        decode_tok_s_min: decode.min,
        decode_tok_s_max: decode.max,
        prefill_peak_fraction: None,
        decode_bandwidth_fraction: None,
        read_bytes_per_s: None,
        flop_per_prompt_token,
        bytes_read_per_token,
        peak_rss_bytes: peak_rss_bytes(),
        weight_bytes: info.weight_bytes,
        kv_cache: session.cache_type().to_string(),
        kv_cache_bytes: session.cache_bytes(),
        arena_bytes: rates.arena_bytes,
        nodes_recorded: info.nodes_recorded,
        nodes_compiled: info.nodes_compiled,
        kernels: info.kernels,
        distinct_kernels: info.distinct_kernels,
        cache_hits: cache_hits(),
        layers: config.num_hidden_layers(),
        prompt_tokens: lengths.prompt,
        generate_tokens: lengths.generate,
        repeat: args.repeat.get(),
        threads,
        cpu: run.cpu(),
    })
}

/// Positions that all layers see together from `position` tokens on, its own included.
fn visible(config: &ModelConfig, position: usize) -> usize {
    let windows = config.windows().into_iter();
    let seen = windows.map(|window| window.map_or(position, |window| position.min(window)));
    seen.sum()
}

/// Products of matrices and of attention, for one token in the middle of the prompt. The logits of one token a prompt
/// are left out.
fn flop_per_prompt_token(config: &ModelConfig, lengths: &Lengths) -> f64 {
    let tables = if config.is_tied() { 1 } else { 2 };
    let embedding = tables * config.vocab_size() * config.hidden_size();
    let weights = config
        .parameter_count()
        .unwrap_or(0)
        .saturating_sub(embedding);
    let width = config.num_attention_heads() * config.head_dim();
    let seen = visible(config, lengths.prompt.div_ceil(2));
    2.0 * weights as f64 + 4.0 * (width * seen) as f64
}

/// All weights, and the keys and values that a token in the middle of what is generated sees.
fn bytes_per_token(session: &Session, lengths: &Lengths) -> f64 {
    let config = session.config();
    let head = session.cache_type().row_bytes(config.head_dim());
    let row = 2 * config.num_key_value_heads() * head;
    let seen = visible(config, lengths.prompt + lengths.generate.div_ceil(2));
    session.info().weight_bytes as f64 + (row * seen) as f64
}

/// Seconds from loaded weights to a session that can be fed, storing weights in fewer bits included, by the GB of weights.
fn ready_s_per_f16_gb(info: &Info) -> f64 {
    let gb = (2 * info.parameters).max(1) as f64 / 1e9;
    (info.compile_s + info.pack_s) / gb
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

/// A rate with its smallest and largest value, and which part it is of what the machine can do.
fn speed(median: f64, [min, max]: [f64; 2], part: Option<f64>, of: &str) -> String {
    let part = part.map(|part| format!(", {:.0} % of {of}", 100.0 * part));
    let part = part.unwrap_or_default();
    format!("{median:.1} tokens/s   ({min:.1} to {max:.1}{part})")
}

/// The results for a reader.
pub fn table(r: &Results) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let compile = format!(
        "{:.3} s   ({} nodes to {}, {} kernels, {} distinct, {} from the cache)",
        r.compile_s,
        r.nodes_recorded,
        r.nodes_compiled,
        r.kernels,
        r.distinct_kernels,
        r.cache_hits
    );
    let fresh = r.compile_cold_s.zip(r.compile_warm_s).map(|(cold, warm)| {
        format!("{cold:.3} s with an empty cache, {warm:.3} s with a full one")
    });
    let ready = format!(
        "{:.3} s after loading, {:.3} s for each GB that the weights have as f16",
        r.compile_s + r.pack_s,
        r.ready_s_per_f16_gb
    );
    let prefill = speed(
        r.prefill_tok_s,
        [r.prefill_tok_s_min, r.prefill_tok_s_max],
        r.prefill_peak_fraction,
        "the peak of multiply-adds",
    );
    let read = r.read_bytes_per_s.unwrap_or_default() / 1e9;
    let decode = speed(
        r.decode_tok_s,
        [r.decode_tok_s_min, r.decode_tok_s_max],
        r.decode_bandwidth_fraction,
        &format!("{read:.1} GB/s, what can be read now"),
    );
    let measured = format!(
        "{} prompt and {} generated tokens, {} rounds",
        r.prompt_tokens, r.generate_tokens, r.repeat
    );
    let cache = format!("{}, {}", mib(r.kv_cache_bytes as u64), r.kv_cache);
    let peak = r.peak_rss_bytes.map_or("unknown".into(), mib);
    let rows = [
        ("cpu", Some(format!("{}, {} threads", r.cpu, r.threads))),
        ("load", Some(format!("{:.3} s", r.load_s))),
        ("compile", Some(compile)),
        ("in new process", fresh),
        ("pack", Some(format!("{:.3} s", r.pack_s))),
        ("ready", Some(ready)),
        ("prefill", Some(prefill)),
        ("decode", Some(decode)),
        ("peak memory", Some(peak)),
        ("weights", Some(mib(r.weight_bytes))),
        ("kv cache", Some(cache)),
        ("working memory", Some(mib(r.arena_bytes as u64))),
        ("measured", Some(measured)),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<15} {value}");
        }
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
