//! Plans of whole models, which read a text many times: the definitions of operations would take minutes.

use brain_blitz::formats::open_model;
use brain_blitz::generation::evaluate::Windows;
use brain_blitz::generation::plan::{Grouping, Request, plan};
use brain_blitz::generation::{Options, Progress};

use super::*;

#[test]
fn a_models_plan_keeps_the_budget_and_is_no_worse_than_one_type_for_all() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare");
    let (config, weights) = open_model(&folder, DType::F32).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| 100 + i * 37 % 900).collect();
    let windows = Windows::new(&ids, config.bos_token_id(), 40, 40).unwrap();
    let options = Options {
        threads: Some(1),
        context: Some(64),
        ..Options::default()
    };
    let request = Request {
        types: vec![BlockType::Q8_0, BlockType::Q4_0],
        grouping: Grouping::Kind,
        ..Request::new(5.5)
    };
    let (mut told, show) = (Vec::new(), &mut |_: Progress<'_>| ());
    let mut tell = |done, all| told.push((done, all));
    let found = plan(
        config, &*weights, &windows, &request, &options, show, &mut tell,
    )
    .unwrap();
    // Seven kinds of matrices in layers, the embedding, and the norms.
    assert_eq!(found.plan.entries().len(), 9, "{}", found.plan);
    assert!(found.plan.bits_per_weight() <= 5.5, "{}", found.plan);
    assert!(found.plan.bits_per_weight() > 4.6, "{}", found.plan);
    let same = |name: &str| {
        found
            .plan
            .get(&format!("model.layers.{name}.mlp.down_proj.weight"))
    };
    assert_eq!(same("0"), same("5"));
    let [(BlockType::Q4_0, uniform)] = found.uniform[..] else {
        panic!("one type of two fits: {:?}", found.uniform);
    };
    assert!(
        found.kl < 0.9 * uniform && found.kl > 0.0,
        "{} {uniform}",
        found.kl
    );
    assert_eq!(told.last(), Some(&(16, 16)));
}
