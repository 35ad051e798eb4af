//! Every feature that a port may forget changes the logits by as much as in transformers.

use brain_blitz::formats::gemma2_config::{Activation, LayerType};
use brain_blitz::formats::{Checkpoint, Gemma2Config};
use brain_blitz::generation::Session;

use crate::support::{folder, golden, max_diff, options};

/// How far each of two logits may be off.
const TOLERANCE: f64 = 5e-4;

/// A feature's name in `ref_meta.json`, and the configuration without it.
type Ablation = (&'static str, fn(&mut Gemma2Config));

const ABLATIONS: &[Ablation] = &[
    ("no_attn_softcap", |c| c.attn_logit_softcapping = None),
    ("no_final_softcap", |c| c.final_logit_softcapping = None),
    ("all_global", |c| c.layer_types.fill(LayerType::Full)),
    ("all_sliding", |c| c.layer_types.fill(LayerType::Sliding)),
    ("swapped_layer_types", |c| {
        c.layer_types.iter_mut().for_each(|kind| {
            *kind = match kind {
                LayerType::Full => LayerType::Sliding,
                LayerType::Sliding => LayerType::Full,
            }
        })
    }),
    ("window_off_by_one", |c| c.sliding_window += 1),
    ("window_one_less", |c| c.sliding_window -= 1),
    ("qscalar_headdim", |c| {
        let head_dim = c.head_dim as f64;
        c.query_pre_attn_scalar = match c.query_pre_attn_scalar == head_dim {
            true => 2.0 * head_dim,
            false => head_dim,
        };
    }),
    ("gelu_exact", |c| c.hidden_activation = Activation::Gelu),
];

fn check(name: &str) {
    let text = std::fs::read_to_string(folder(name).join("ref_meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
    let golden = golden(name);
    let checkpoint = Checkpoint::open(folder(name)).unwrap();
    let logits = |change: fn(&mut Gemma2Config)| {
        let mut config = Gemma2Config::open(folder(name)).unwrap();
        change(&mut config);
        let mut session =
            Session::new(config, &checkpoint, &options("reference", 1), &mut |_| ()).unwrap();
        session.feed(&golden.prompt).unwrap().to_vec()
    };
    let whole = logits(|_| ());
    let measured = meta.as_object().unwrap().keys();
    let n_measured = measured.filter(|key| key.starts_with("sens_")).count();
    assert_eq!(n_measured, ABLATIONS.len(), "features in ref_meta.json");
    for (feature, change) in ABLATIONS {
        let expected = meta[format!("sens_{feature}")].as_f64().unwrap();
        let found = f64::from(max_diff(&whole, &logits(*change)));
        assert!(
            (found - expected).abs() <= 2.0 * TOLERANCE,
            "{name} with {feature}: logits change by {found}, in transformers by {expected}"
        );
    }
}

#[test]
fn tiny() {
    check("tiny");
}

#[test]
fn odd() {
    check("odd");
}

#[test]
fn bf16() {
    check("bf16");
}
