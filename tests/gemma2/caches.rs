//! Caches in 16 bits: half the memory, no copy in `F32`, and logits near those of the whole numbers.

use std::path::Path;

use brain_blitz::generation::{CacheType, Options, Session};

use crate::support::{folder, options};
#[cfg(feature = "llvm-backend")]
use crate::support::{golden, max_diff};

const SMALL: [CacheType; 2] = [CacheType::F16, CacheType::BF16];

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
fn half_the_memory_is_kept() {
    for name in ["tiny", "odd", "bf16"] {
        let bytes = |ty: CacheType| {
            let session = session(&folder(name), "reference", 1, ty);
            let kept = state_bytes(&session);
            assert_eq!((session.cache_type(), session.cache_bytes()), (ty, kept));
            kept
        };
        let whole = bytes(CacheType::F32);
        assert!(whole > 0, "{name}");
        for ty in SMALL {
            assert_eq!(2 * bytes(ty), whole, "{name} in {ty}");
        }
    }
}

#[cfg(feature = "llvm-backend")]
mod compiled {
    use std::path::PathBuf;

    use brain_blitz::dtype::DType;
    use brain_blitz::generation::{Rows, synthetic};
    use brain_blitz::op::Op;

    use super::*;

    fn shakespeare() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare")
    }

    const CPUS: [&str; 3] = ["native", "x86-64-v3", "scalar"];

    /// How many attention kernels there are, and the formats of their operands that are not in `F32`.
    fn attention(session: &Session) -> (usize, Vec<DType>) {
        session.graph().inspect(|dag| {
            let kernels = dag.ids().filter_map(|id| match &dag.node(id).op {
                Op::Kernel(kernel) if kernel.name() == "attention" => Some(kernel.clone()),
                _ => None,
            });
            let kernels: Vec<_> = kernels.collect();
            let operands = kernels.iter().flat_map(|kernel| kernel.operands());
            let small = operands.map(|ty| ty.dtype).filter(|ty| ty.size() == 2);
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

    #[test]
    fn no_copy_of_a_cache_is_made_and_only_new_rows_are_written() {
        let config = synthetic::config("gemma2-tiny").unwrap();
        let row = config.num_key_value_heads * config.head_dim;
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
                let written = 2 * config.num_hidden_layers * row * cache.dtype().size();
                assert_eq!(one.state_bytes_written, written, "{cpu}, {cache}");
                session.reset();
                session.feed(&tokens).unwrap();
                let all = session.stats();
                [one, all].map(|stats| [stats.arena_bytes, stats.scratch_bytes])
            };
            let whole = memory(CacheType::F32);
            // Less than the keys of one layer in F32.
            let [arena, scratch] = whole[0];
            let keys = tokens.len() * row * size_of::<f32>();
            assert!(arena + scratch < keys, "{cpu}: {whole:?}, {keys}");
            for ty in SMALL {
                let small = memory(ty);
                let pairs = small.as_flattened().iter().zip(whole.as_flattened());
                assert!(
                    pairs.into_iter().all(|(a, b)| a <= b),
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
    /// format's last bit; what they are weighted and summed to should not change by more, in parts of the largest logit.
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
            for (ty, bits) in [(CacheType::F16, 11), (CacheType::BF16, 8)] {
                let diff = max_diff(&logits(ty), &exact);
                let unit = largest * 0.5f32.powi(bits);
                assert!(
                    diff > 0.0 && diff < unit,
                    "{ty} on {cpu}: {diff} of {largest}"
                );
            }
        }
    }
}
