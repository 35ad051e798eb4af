//! Figures of rows and texts against other programs, and what cannot be evaluated.

use brain_blitz::generation::evaluate::{Bleu, Divergence, Scores, Windows, evaluate, greedy};
use brain_blitz::generation::session::{Rows, Session};

use crate::support::{close, figures, session, shakespeare, tiny};

#[test]
fn bleu_is_that_of_sacrebleu() {
    let cases = figures().bleu;
    assert_eq!(cases.len(), 5);
    for case in cases {
        let mut bleu = Bleu::default();
        for (text, reference) in case.texts.iter().zip(&case.references) {
            bleu.add(text, reference);
        }
        for order in 1..=4 {
            close(bleu.precision(order), case.precisions[order - 1], 1e-9);
            close(bleu.score(order), case.scores[order - 1], 1e-9);
        }
        close(bleu.brevity_penalty(), case.brevity_penalty, 1e-9);
    }
}

#[test]
fn divergence_is_that_of_torch() {
    let case = figures().divergence;
    let (mut found, mut scores) = (Divergence::default(), Scores::default());
    for ((reference, model), &target) in case.reference.iter().zip(&case.model).zip(&case.targets) {
        found.add(reference, model, target);
        scores.add(model, target);
    }
    assert_eq!(found.n(), 40);
    close(found.kl_mean(), case.kl_mean, 1e-9);
    close(found.kl_quantile(0.99), case.kl_p99, 1e-9);
    close(found.kl_quantile(0.5), case.kl_median, 1e-9);
    close(found.agreement(), case.agreement, 1e-12);
    close(found.rms_delta_p(), case.rms_delta_p, 1e-9);
    close(found.logit_mse(), case.logit_mse, 1e-9);
    close(found.logit_cosine(), case.logit_cosine, 1e-9);
    close(scores.perplexity(), case.perplexity, 1e-9);
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let ids: Vec<u32> = (3..30).collect();
    let windows = Windows::new(&ids, Some(2), 16, 16).unwrap();
    let message = |model: &mut Session, reference: Option<&mut Session>| {
        let found = evaluate(model, reference, &windows, &mut |_, _| ());
        found.unwrap_err().to_string()
    };
    let mut small = session(&tiny(), Rows::All, 16, None);
    let mut last = session(&tiny(), Rows::Last, 16, None);
    let mut trained = session(&shakespeare(), Rows::All, 16, None);
    assert!(message(&mut small, Some(&mut trained)).contains("2048 and 512"));
    assert!(message(&mut last, None).contains("all rows"));
    assert!(greedy(&mut small, &[], 4).is_err());
    let mut short = session(&tiny(), Rows::All, 8, None);
    assert!(message(&mut short, None).contains("do not fit the context of 8"));
    let windows = Windows::new(&[511, 512], Some(2), 16, 16).unwrap();
    let error = evaluate(&mut small, None, &windows, &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("token 512"), "{error}");
}
