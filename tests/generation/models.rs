//! Figures of the trained model against transformers, and of the same in blocks.

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::{Checkpoint, Tokenizer};
use brain_blitz::generation::evaluate::{Evaluation, Windows, evaluate, greedy};
use brain_blitz::generation::session::{Rows, Session};

use crate::support::{close, figures, session, shakespeare, text};

fn ids() -> Vec<u32> {
    let tokenizer = Tokenizer::open(shakespeare()).unwrap();
    tokenizer.encode(&text(), false).unwrap()
}

fn trained(quant: Option<BlockType>) -> Session {
    session(&shakespeare(), Rows::All, 128, quant)
}

#[cfg(feature = "llvm-backend")]
#[test]
fn weights_are_packed_before_the_first_token_if_asked() {
    let (mut packed, mut plain) = (
        trained(Some(BlockType::Q8_0)),
        trained(Some(BlockType::Q8_0)),
    );
    assert_eq!(packed.stats().packed_bytes, 0, "loading packs nothing");
    packed.pack().unwrap();
    let bytes = packed.stats().packed_bytes;
    assert!(bytes > 1 << 20);
    let expected = plain.feed(&[2, 17]).unwrap().to_vec();
    assert_eq!(packed.feed(&[2, 17]).unwrap(), expected);
    assert_eq!(packed.stats().packed_bytes, bytes);
}

#[test]
fn perplexity_is_that_of_transformers() {
    let (ids, mut model) = (ids(), trained(None));
    let cases = figures().perplexity;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let windows = Windows::new(&ids, case.bos.then_some(2), case.context, case.stride);
        let found = evaluate(&mut model, None, &windows.unwrap(), &mut |_, _| ()).unwrap();
        assert_eq!(found.scores.n(), case.tokens);
        close(found.scores.mean(), case.nats, 1e-5);
    }
}

fn compared(quant: Option<BlockType>) -> Evaluation {
    let ids = ids();
    let windows = Windows::new(&ids, Some(2), 128, 128).unwrap();
    let (mut model, mut reference) = (trained(quant), trained(None));
    let found = evaluate(&mut model, Some(&mut reference), &windows, &mut |_, _| ());
    let found = found.unwrap();
    assert_eq!(found.divergence.n(), ids.len());
    found
}

fn ratio(found: &Evaluation) -> f64 {
    found.scores.perplexity() / found.reference.unwrap().perplexity()
}

#[test]
fn the_same_model_diverges_by_exactly_nothing() {
    let found = compared(None);
    assert_eq!(found.divergence.kl_mean(), 0.0);
    assert_eq!(found.divergence.kl_quantile(1.0), 0.0);
    assert_eq!(found.divergence.agreement(), 1.0);
    assert_eq!(found.divergence.rms_delta_p(), 0.0);
    assert_eq!(ratio(&found), 1.0);
}

#[test]
fn eight_bits_cost_little_and_four_more() {
    let (eight, four) = (
        compared(Some(BlockType::Q8_0)),
        compared(Some(BlockType::Q4_0)),
    );
    assert!(eight.divergence.kl_mean() > 0.0, "nothing was quantized");
    assert!(eight.divergence.kl_mean() < 0.002);
    assert!(
        (0.998..=1.002).contains(&ratio(&eight)),
        "{}",
        ratio(&eight)
    );
    assert!(four.divergence.kl_mean() > 4.0 * eight.divergence.kl_mean());
    assert!(
        ratio(&four) > ratio(&eight) && ratio(&four) <= 1.08,
        "{}",
        ratio(&four)
    );
    assert!(four.divergence.agreement() < eight.divergence.agreement());
}

#[test]
fn continuations_are_the_reference_models() {
    let folder = shakespeare();
    let file = Checkpoint::open(folder.join("reference.safetensors")).unwrap();
    let read = |name: &str| -> Vec<u32> {
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&file.get(name).unwrap().bytes);
        ids.into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect()
    };
    let (prompt, all) = (read("0/input_ids"), read("0/greedy_ids"));
    let mut model = trained(None);
    let (found, (n_fed, _)) = greedy(&mut model, &prompt, 40).unwrap();
    assert_eq!(found, all[prompt.len()..]);
    assert_eq!(n_fed, 39, "the last token is not fed");
}
