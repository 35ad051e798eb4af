//! Every feature of a configuration that a port may forget changes the logits by as much as in transformers.

use brain_blitz::formats::{ModelConfig, open_model};
use brain_blitz::generation::{CacheType, Options, Session};
use brain_blitz::nn::RopeScaling;
use brain_blitz::nn::models::LayerType;
use brain_blitz::op::{Op, TensorType};
use brain_blitz::prelude::*;

use crate::support::{NAMES, TOLERANCE, folder, golden, max_diff, options};

/// The configuration without the feature that `ref_meta.json` calls so.
fn without(feature: &str, config: &ModelConfig) -> ModelConfig {
    let mut changed = config.clone();
    match &mut changed {
        ModelConfig::Gemma2(_) => panic!("Gemma 2 has tests of its own"),
        ModelConfig::Gemma3(c) => match feature {
            "rope_unscaled" => c.rope.scaling = RopeScaling::None,
            "one_rope" => c.rope_local = c.rope.clone(),
            "local_rope" => c.rope = c.rope_local.clone(),
            "all_global" => c.layer_types.fill(LayerType::Full),
            "no_final_softcap" => c.final_logit_softcapping = None,
            "qscalar_headdim" => c.query_pre_attn_scalar = c.head_dim as f64,
            "window_off_by_one" => c.sliding_window += 1,
            "window_one_less" => c.sliding_window -= 1,
            other => panic!("unknown feature {other}"),
        },
        ModelConfig::Llama(c) => match feature {
            "theta_10000" => {
                (c.rope.theta, c.rope.scaling) = (10_000.0, RopeScaling::None);
            }
            "rope_unscaled" => c.rope.scaling = RopeScaling::None,
            "window_off_by_one" => c.sliding_window = c.sliding_window.map(|n| n + 1),
            "window_one_less" => c.sliding_window = c.sliding_window.map(|n| n - 1),
            other => panic!("unknown feature {other}"),
        },
    }
    assert_ne!(&changed, config, "{feature}");
    changed
}

#[test]
fn features_change_logits_by_as_much_as_in_transformers() {
    let mut n_features = 0;
    for name in NAMES {
        let text = std::fs::read_to_string(folder(name).join("ref_meta.json")).unwrap();
        let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
        let golden = golden(name);
        let (config, weights) = open_model(&folder(name), DType::F32).unwrap();
        let logits = |config: ModelConfig| {
            let options = options("reference");
            let mut session = Session::new(config, &*weights, &options, &mut |_| ()).unwrap();
            session.feed(&golden.prompt).unwrap().to_vec()
        };
        let whole = logits(config.clone());
        for (key, expected) in meta.as_object().unwrap() {
            let Some(feature) = key.strip_prefix("sens_") else {
                continue;
            };
            n_features += 1;
            let expected = expected.as_f64().unwrap() as f32;
            let found = max_diff(&whole, &logits(without(feature, &config)));
            assert!(
                (found - expected).abs() <= 2.0 * TOLERANCE,
                "{name} with {feature}: logits change by {found}, in transformers by {expected}"
            );
        }
    }
    assert_eq!(n_features, 19, "features in all of ref_meta.json");
}

/// Attention kernels that read both caches as they are kept.
fn small_attentions(session: &Session) -> usize {
    let kept = session.cache_type().dtype();
    session.graph().inspect(|dag| {
        let kernels = dag.ids().filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) if kernel.name() == "attention" => Some(kernel.operands()),
            _ => None,
        });
        let small = |operands: &[TensorType]| {
            let small = operands.iter().filter(|ty| ty.dtype == kept);
            small.count() == 2 && kept != DType::F32
        };
        kernels.filter(|operands| small(operands)).count()
    })
}

#[test]
fn caches_of_fewer_bits_keep_every_model_near_its_logits() {
    let cpus: &[&str] = match cfg!(feature = "llvm-backend") {
        true => &["reference", "native", "x86-64-v3"],
        false => &["reference"],
    };
    for (name, cpu) in NAMES
        .into_iter()
        .flat_map(|name| cpus.iter().map(move |cpu| (name, *cpu)))
    {
        let golden = golden(name);
        let run = |cache: CacheType| {
            let options = Options {
                cache,
                ..options(cpu)
            };
            let mut session = Session::load(&folder(name), &options, &mut |_| ()).unwrap();
            session.feed(&golden.prompt).unwrap();
            let logits = session.feed(&golden.greedy[..1]).unwrap().to_vec();
            (logits, session)
        };
        let (exact, whole) = run(CacheType::F32);
        for (ty, bits) in [(CacheType::F16, 11), (CacheType::Q8_0, 7)] {
            let (rounded, small) = run(ty);
            let width = whole.config().head_dim();
            let rows = whole.cache_bytes() / CacheType::F32.row_bytes(width);
            assert_eq!(small.cache_bytes(), rows * ty.row_bytes(width), "{name}");
            let layers = small.config().num_hidden_layers();
            let found = [&whole, &small].map(small_attentions);
            let wanted = if cpu == "reference" { 0 } else { layers };
            assert_eq!(found, [0, wanted], "{name} on {cpu} in {ty}");
            // Half a unit of the last bit of keys and values, in parts of the largest logit, in each of a few layers.
            let largest = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
            let diff = max_diff(&rounded, &exact);
            let most = largest * 0.5f32.powi(bits) * layers as f32;
            assert!(
                diff > 0.0 && diff < most,
                "{name} on {cpu} in {ty}: {diff} of {largest}"
            );
        }
    }
}
