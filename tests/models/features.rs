//! Every feature of a configuration that a port may forget changes the logits by as much as in transformers.

use brain_blitz::formats::{ModelConfig, open_model};
use brain_blitz::generation::Session;
use brain_blitz::nn::RopeScaling;
use brain_blitz::nn::models::LayerType;
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
