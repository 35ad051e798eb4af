//! How tokens are cut into feeds changes nothing, and what cannot be fed is refused.

use crate::support::{folder, golden, max_diff, session};

/// Different kernels run for one row and for many, and sum in different orders.
const TOLERANCE: f32 = 2e-4;

fn check_pieces(cpu: &str) {
    for name in ["tiny", "odd"] {
        let prompt = golden(name).prompt;
        let mut session = session(&folder(name), cpu, 1);
        let whole = session.feed(&prompt).unwrap().to_vec();
        for size in [1, 3, 7] {
            session.reset();
            let mut pieces = Vec::new();
            for piece in prompt.chunks(size) {
                pieces.extend_from_slice(session.feed(piece).unwrap());
            }
            assert_eq!(session.position(), prompt.len());
            let diff = max_diff(&whole, &pieces);
            assert!(
                diff < TOLERANCE,
                "{name} on {cpu} in pieces of {size}: a logit differs by {diff}"
            );
        }
    }
}

#[test]
fn pieces_on_the_reference_executor() {
    check_pieces("reference");
}

#[cfg(feature = "llvm-backend")]
#[test]
fn pieces_compiled() {
    check_pieces("native");
}

#[cfg(feature = "llvm-backend")]
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for name in ["tiny", "bf16"] {
        let golden = golden(name);
        let mut all = Vec::new();
        for threads in [1, 2, 3] {
            let mut session = session(&folder(name), "native", threads);
            let mut bits: Vec<u32> = Vec::new();
            for tokens in [&golden.prompt, &golden.greedy] {
                bits.extend(session.feed(tokens).unwrap().iter().map(|x| x.to_bits()));
            }
            for &token in &golden.greedy[..3] {
                bits.extend(session.feed(&[token]).unwrap().iter().map(|x| x.to_bits()));
            }
            all.push(bits);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let golden = golden("odd");
    let mut session = session(&folder("odd"), "reference", 1);
    let (capacity, vocab) = (session.capacity(), session.vocab_size());
    session.feed(&golden.prompt).unwrap();
    let message = |session: &mut brain_blitz::generation::Session, tokens: &[u32]| {
        session.feed(tokens).unwrap_err().to_string()
    };
    assert_eq!(
        message(&mut session, &[vocab as u32]),
        format!("token {vocab} is not in the vocabulary of {vocab}")
    );
    let needed = capacity + 1;
    let too_many = vec![1; needed - golden.prompt.len()];
    assert_eq!(
        message(&mut session, &too_many),
        format!("{needed} tokens do not fit the context of {capacity}")
    );
    assert_eq!(message(&mut session, &[]), "no tokens to feed");
    assert_eq!(session.position(), golden.prompt.len());
    let first = golden.greedy[0];
    let after = session.feed(&[first]).unwrap();
    let diff = max_diff(after, &golden.greedy_logits[vocab..2 * vocab]);
    assert!(diff < 5e-4, "a logit differs by {diff} after refused feeds");
}
