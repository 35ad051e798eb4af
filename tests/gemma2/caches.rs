//! Caches in 16 bits and in blocks of 8: less memory, no copy in `F32`, and logits near those of the whole numbers.

use std::path::Path;

use brain_blitz::generation::{CacheType, Options, Session};

use crate::support::{folder, options};
#[cfg(feature = "llvm-backend")]
use crate::support::{golden, max_diff};

fn session(folder: &Path, cpu: &str, threads: usize, cache: CacheType) -> Session {
    let options = Options {
        cache,
        ..options(cpu, threads)
    };
    Session::load(folder, &options, &mut |_| ()).unwrap()
}

/// Bytes of what the graph keeps from one execution to the next.
fn state_bytes(session: &Session) -> usize {
    session.graph().inspect(|dag| {
        let states = dag.assigns().iter().map(|&(state, _)| &dag.value(state).ty);
        let bytes = states.map(|ty| ty.numel().as_usize().unwrap() * ty.dtype.size());
        bytes.sum()
    })
}

#[test]
fn less_memory_is_kept() {
    for name in ["tiny", "odd", "bf16"] {
        let bytes = |ty: CacheType| {
            let session = session(&folder(name), "reference", 1, ty);
            let kept = state_bytes(&session);
            assert_eq!((session.cache_type(), session.cache_bytes()), (ty, kept));
            kept
        };
        let whole = bytes(CacheType::F32);
        assert!(whole > 0, "{name}");
        assert_eq!(
            [2 * bytes(CacheType::F16), 2 * bytes(CacheType::BF16)],
            [whole; 2],
            "{name}"
        );
        let width = session(&folder(name), "reference", 1, CacheType::F32)
            .config()
            .head_dim();
        let blocks = width.div_ceil(32) * 34;
        assert_eq!(bytes(CacheType::Q8_0) * width * 4, whole * blocks, "{name}");
    }
}

#[cfg(feature = "llvm-backend")]
mod compiled {
    use std::path::PathBuf;

    use brain_blitz::blocks::BlockType;
    use brain_blitz::dtype::DType;
    use brain_blitz::generation::{Rows, synthetic};
    use brain_blitz::op::Op;

    use super::*;

    fn shakespeare() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare")
    }

    const SMALL: [CacheType; 3] = [CacheType::F16, CacheType::BF16, CacheType::Q8_0];
    const CPUS: [&str; 3] = ["native", "x86-64-v3", "scalar"];

    /// How many attention kernels there are, and the formats of their operands that are neither in `F32` nor indices.
    fn attention(session: &Session) -> (usize, Vec<DType>) {
        session.graph().inspect(|dag| {
            let kernels = dag.ids().filter_map(|id| match &dag.node(id).op {
                Op::Kernel(kernel) if kernel.name() == "attention" => Some(kernel.clone()),
                _ => None,
            });
            let kernels: Vec<_> = kernels.collect();
            let operands = kernels.iter().flat_map(|kernel| kernel.operands());
            let small = operands.map(|ty| ty.dtype).filter(|ty| ty.size() <= 2);
            (kernels.len(), small.collect())
        })
    }

    #[test]
    fn attention_is_one_kernel_that_reads_the_caches_themselves() {
        for cpu in CPUS {
            for ty in CacheType::ALL {
                let session = session(&folder("odd"), cpu, 1, ty);
                let layers = session.config().num_hidden_layers();
                let caches = match ty {
                    CacheType::F32 => 0,
                    _ => 2 * layers,
                };
                let found = attention(&session);
                assert_eq!(found, (layers, vec![ty.dtype(); caches]), "{ty} on {cpu}");
                let notes = session.info().report.notes();
                let fallbacks = notes
                    .iter()
                    .find(|note| note.contains("reference executor"));
                assert_eq!(fallbacks, None, "{ty} on {cpu}");
            }
        }
    }

    /// Only weights make products round what they multiply.
    #[test]
    fn weights_in_blocks_leave_attention_as_it_is() {
        let options = Options {
            cache: CacheType::Q8_0,
            quant: Some(BlockType::Q8_0.into()),
            ..options("native", 1)
        };
        let session = Session::load(&shakespeare(), &options, &mut |_| ()).unwrap();
        let layers = session.config().num_hidden_layers();
        assert_eq!(attention(&session), (layers, vec![DType::U8; 2 * layers]));
    }

    #[test]
    fn no_copy_of_a_cache_is_made_and_only_new_rows_are_written() {
        let config = synthetic::config("gemma2-tiny").unwrap();
        let (heads, width) = (config.num_key_value_heads, config.head_dim);
        let tokens: Vec<u32> = (0..300).map(|i| i * 7 % 640).collect();
        for cpu in ["native", "x86-64-v3"] {
            let memory = |cache: CacheType| {
                let options = Options {
                    cache,
                    context: Some(512),
                    logits: Rows::Last,
                    ..options(cpu, 1)
                };
                let model = config.clone();
                let random = Session::random(model, DType::F32, 1, &options, &mut |_| ());
                let mut session = random.unwrap();
                for token in &tokens {
                    session.feed(&[*token]).unwrap();
                }
                let one = session.stats();
                let written = 2 * config.num_hidden_layers * heads * cache.row_bytes(width);
                assert_eq!(one.state_bytes_written, written, "{cpu}, {cache}");
                session.reset();
                session.feed(&tokens).unwrap();
                let all = session.stats();
                [one, all].map(|stats| [stats.arena_bytes, stats.scratch_bytes])
            };
            let whole = memory(CacheType::F32);
            // Less than the keys of one layer in F32.
            let [arena, scratch] = whole[0];
            let keys = tokens.len() * heads * width * size_of::<f32>();
            assert!(arena + scratch < keys, "{cpu}: {whole:?}, {keys}");
            for ty in SMALL {
                // New rows are made before they are written: in blocks they are a value of their own.
                let new = match ty {
                    CacheType::Q8_0 => tokens.len() * heads * ty.row_bytes(width),
                    _ => 0,
                };
                let small = memory(ty);
                let [one, all] = [0, 1].map(|feed| {
                    let pairs = small[feed].into_iter().zip(whole[feed]);
                    pairs.map(|(a, b)| a.saturating_sub(b)).max().unwrap()
                });
                assert!(
                    one == 0 && all <= new && new < keys,
                    "{cpu}, {ty}: {small:?}, {whole:?}"
                );
            }
        }
    }

    #[test]
    fn threads_and_vectors_do_not_change_the_bits() {
        let golden = golden("tiny");
        for ty in SMALL {
            let bits = |cpu: &str, threads: usize| {
                let mut session = session(&folder("tiny"), cpu, threads, ty);
                let mut logits = session.feed(&golden.prompt).unwrap().to_vec();
                for &token in &golden.greedy[..3] {
                    logits.extend_from_slice(session.feed(&[token]).unwrap());
                }
                logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            let one = bits("native", 1);
            for (cpu, threads) in [("native", 2), ("native", 3), ("x86-64-v3", 2)] {
                assert!(
                    bits(cpu, threads) == one,
                    "{ty} on {cpu}, {threads} threads"
                );
            }
        }
    }

    /// A prompt at once and its continuation token by token. Keys and values change by at most half a unit of their
    /// format's last bit (of blocks, of the largest number's); what they are weighted and summed to should not change by more, in parts of the largest logit.
    #[test]
    fn logits_stay_near() {
        let text: Vec<u32> = (0..60).map(|i| 3 + i * 31 % 200).collect();
        for cpu in ["native", "x86-64-v3"] {
            let logits = |ty: CacheType| {
                let mut session = session(&shakespeare(), cpu, 2, ty);
                let mut logits = session.feed(&text[..30]).unwrap().to_vec();
                for &token in &text[30..] {
                    logits.extend_from_slice(session.feed(&[token]).unwrap());
                }
                logits
            };
            let exact = logits(CacheType::F32);
            let largest = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (ty, bits) in [
                (CacheType::F16, 11),
                (CacheType::BF16, 8),
                (CacheType::Q8_0, 7),
            ] {
                let diff = max_diff(&logits(ty), &exact);
                let unit = largest * 0.5f32.powi(bits);
                assert!(
                    diff > 0.0 && diff < unit,
                    "{ty} on {cpu}: {diff} of {largest}"
                );
            }
        }
    }

    /// Divergence in nats and agreement of the likeliest token, over a text fed at once and one token at a time.
    #[test]
    fn blocks_change_hardly_any_probability() {
        let text: Vec<u32> = (0..160).map(|i| 3 + i * i * 31 % 2000).collect();
        let logits = |cache: CacheType| {
            let mut session = session(&shakespeare(), "native", 2, cache);
            let mut logits = session.feed(&text[..120]).unwrap().to_vec();
            for &token in &text[120..] {
                logits.extend_from_slice(session.feed(&[token]).unwrap());
            }
            logits
        };
        let [exact, rounded] = [CacheType::F32, CacheType::Q8_0].map(logits);
        let log_softmax = |row: &[f32]| {
            let largest = row.iter().fold(f32::MIN, |m, &x| m.max(x));
            let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
            let log = |x: &f32| f64::from(x - largest) - sum.ln();
            row.iter().map(log).collect::<Vec<_>>()
        };
        let best = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        let (mut divergence, mut same, width) = (0.0, 0, exact.len() / text.len());
        for (p, q) in exact.chunks(width).zip(rounded.chunks(width)) {
            let (p, q) = (log_softmax(p), log_softmax(q));
            divergence += p
                .iter()
                .zip(&q)
                .map(|(p, q)| p.exp() * (p - q))
                .sum::<f64>();
            same += usize::from(best(&p) == best(&q));
        }
        let mean = divergence / text.len() as f64;
        assert!(mean > 0.0 && mean < 1e-3, "{mean} nats");
        assert!(same * 100 >= text.len() * 97, "{same} of {}", text.len());
    }

    /// What was fed and taken back leaves nothing behind.
    #[test]
    fn blocks_are_written_over() {
        let text: Vec<u32> = (0..90).map(|i| 3 + i * 31 % 200).collect();
        let mut session = session(&shakespeare(), "native", 1, CacheType::Q8_0);
        session.feed(&text[..40]).unwrap();
        let wanted = session.feed(&text[40..60]).unwrap().to_vec();
        session.rewind(40).unwrap();
        session.feed(&text[55..90]).unwrap();
        session.rewind(40).unwrap();
        assert!(session.feed(&text[40..60]).unwrap() == wanted);
    }
}
