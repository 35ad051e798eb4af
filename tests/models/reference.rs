//! Every checkpoint on every pipeline.

use brain_blitz::formats::ModelConfig;
use brain_blitz::generation::Session;
use brain_blitz::prelude::*;

use crate::support::{NAMES, assert_golden, folder, golden, max_diff, options};

fn check(cpu: &str) {
    for name in NAMES {
        let mut session = Session::load(&folder(name), &options(cpu), &mut |_| ()).unwrap();
        assert_golden(&mut session, name, cpu);
    }
}

#[test]
fn reference() {
    check("reference");
}

#[cfg(feature = "llvm-backend")]
mod compiled {
    use super::*;
    use brain_blitz::op::Op;

    #[test]
    fn scalar() {
        check("scalar");
    }

    #[test]
    fn avx2() {
        check("x86-64-v3");
    }

    #[test]
    fn native() {
        check("native");
    }

    #[test]
    fn nothing_falls_back_and_attention_is_a_kernel_in_each_layer() {
        for name in NAMES {
            for cpu in ["scalar", "x86-64-v3", "native"] {
                let session = Session::load(&folder(name), &options(cpu), &mut |_| ()).unwrap();
                let (mut attention, mut rest) = (0, Vec::new());
                session.graph().inspect(|dag| {
                    for id in dag.ids() {
                        match &dag.node(id).op {
                            Op::Kernel(kernel) if kernel.code().is_some() => {
                                attention += usize::from(kernel.name() == "attention");
                            }
                            Op::Input { .. } | Op::Scatter { .. } => {}
                            _ => rest.push(dag.describe(id)),
                        }
                    }
                });
                assert_eq!(rest, Vec::<String>::new(), "{name} on {cpu}: not compiled");
                let layers = session.config().num_hidden_layers();
                assert_eq!(attention, layers, "{name} on {cpu}");
            }
        }
    }

    #[test]
    fn threads_and_pieces_change_nothing() {
        for name in NAMES {
            let prompt = golden(name).prompt;
            let mut all: Vec<Vec<u32>> = Vec::new();
            for threads in [1, 3] {
                let mut options = options("native");
                options.threads = Some(threads);
                let mut session = Session::load(&folder(name), &options, &mut |_| ()).unwrap();
                let whole = session.feed(&prompt).unwrap().to_vec();
                all.push(whole.iter().map(|x| x.to_bits()).collect());
                session.reset();
                let mut pieces = Vec::new();
                for piece in prompt.chunks(7) {
                    pieces.extend_from_slice(session.feed(piece).unwrap());
                }
                // Different kernels run for few rows and for many, and sum in different orders.
                let diff = max_diff(&whole, &pieces);
                assert!(diff < 2e-4, "{name}: a logit differs by {diff} in pieces");
            }
            assert_eq!(all[0], all[1], "{name}");
        }
    }
}

#[test]
fn parameters_are_those_of_the_checkpoint_and_are_counted() {
    for name in NAMES {
        let (config, weights) =
            brain_blitz::formats::open_model(&folder(name), DType::F32).unwrap();
        let mut cx = Graph::new();
        let model = config.build(&mut cx, 8, &|_| DType::F32);
        let mut names: Vec<String> = Vec::new();
        for (name, _) in model.parameters().iter() {
            names.push(name.to_owned());
        }
        names.sort();
        let mut stored = weights.names();
        stored.sort_unstable();
        assert_eq!(names, stored, "{name}");
        let n = model.parameters().n_elements();
        assert_eq!(config.parameter_count(), Some(n), "{name}");
        let text = std::fs::read_to_string(folder(name).join("ref_meta.json")).unwrap();
        let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(meta["params"], n, "{name}");
    }
}

/// Sequences that stand for themselves have the logits of the cached way.
#[test]
fn sequences_without_cache() {
    for name in NAMES {
        let golden = golden(name);
        let (config, weights) =
            brain_blitz::formats::open_model(&folder(name), DType::F32).unwrap();
        let mut cx = Graph::new();
        let model = config.build(&mut cx, 64, &|_| DType::F32);
        for (name, parameter) in model.parameters().iter() {
            let bytes = weights.get(name).unwrap().convert_to(DType::F32).unwrap();
            parameter.set(bytes.cast::<f32>().unwrap());
        }
        let n = golden.prompt.len();
        let tokens = cx.input((1, n), DType::I32);
        tokens.set(
            golden
                .prompt
                .iter()
                .map(|&id| id as i32)
                .collect::<Vec<_>>(),
        );
        let logits = model.forward_sequences(tokens).retrieve();
        cx.compile(Generic, ());
        cx.execute();
        let diff = max_diff(&logits.data(), &golden.logits);
        assert!(diff < 5e-4, "{name}: a logit differs by {diff}");
    }
}

#[test]
fn every_checkpoint_is_of_its_own_kind() {
    let kinds = NAMES.map(|name| match ModelConfig::open(folder(name)).unwrap() {
        ModelConfig::Gemma2(_) => "gemma2".to_owned(),
        ModelConfig::Gemma3(_) => "gemma3".to_owned(),
        ModelConfig::Llama(config) => format!("{:?}", config.family).to_lowercase(),
    });
    assert_eq!(
        kinds,
        ["llama", "llama", "mistral", "qwen2", "qwen3", "gemma3"]
    );
}
