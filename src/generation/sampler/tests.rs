//! What a sampler chooses, and how often.

use super::*;
use proptest::prelude::*;

fn sampling(temperature: f32, top_k: usize, top_p: f32) -> Sampling {
    Sampling {
        temperature,
        top_k,
        top_p,
        seed: 5,
        ..Sampling::default()
    }
}

/// How often each token is chosen in `n` draws.
fn counts(settings: Sampling, logits: &[f32], n: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(settings).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..n {
        counts[sampler.sample(logits).unwrap() as usize] += 1;
    }
    counts
}

const LOGITS: [f32; 5] = [1.0, 3.0, f32::NAN, 2.0, f32::NEG_INFINITY];

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    assert_eq!(sampler.sample(&[1.0, 7.0, 7.0, 2.0]).unwrap(), 1);
    assert_eq!(sampler.sample(&LOGITS).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NAN, -1e30]).unwrap(), 1);
    assert_eq!(sampler.sample(&[0.0, f32::INFINITY]).unwrap(), 1);
}

#[test]
fn draws_follow_the_softmax() {
    let n = 20_000;
    let temperature = 0.7;
    let found = counts(sampling(temperature, 0, 1.0), &LOGITS, n);
    let weight = |logit: f32| f64::from(logit / temperature).exp();
    let sum: f64 = [1.0, 3.0, 2.0].map(weight).iter().sum();
    for (id, &count) in found.iter().enumerate() {
        let logit = LOGITS[id];
        let p = if logit.is_nan() {
            0.0
        } else {
            weight(logit) / sum
        };
        // Four standard deviations of a binomial count.
        let bound = 4.0 * (n as f64 * p * (1.0 - p)).sqrt();
        let error = (count as f64 - n as f64 * p).abs();
        assert!(
            error <= bound,
            "token {id}: {count} of {n}, expected {}",
            n as f64 * p
        );
    }
}

#[test]
fn top_k_keeps_the_k_largest_and_of_equals_the_first() {
    let logits = [1.0, 0.0, 1.0, 1.0, 0.5];
    let found = counts(sampling(5.0, 2, 1.0), &logits, 500);
    assert!(found[0] > 0 && found[2] > 0, "{found:?}");
    assert_eq!(found[0] + found[2], 500, "{found:?}");
    assert_eq!(counts(sampling(5.0, 1, 1.0), &logits, 50)[0], 50);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    // Probabilities 1/8, 1/2, 1/4, 1/8.
    let logits = [0.0, 4.0_f32.ln(), 2.0_f32.ln(), 0.0];
    let kept = |p: f32| {
        let found = counts(sampling(1.0, 0, p), &logits, 400);
        found
            .iter()
            .map(|&count| usize::from(count > 0))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(0.4), [0, 1, 0, 0]);
    assert_eq!(kept(0.6), [0, 1, 1, 0]);
    assert_eq!(kept(0.8), [1, 1, 1, 0]);
    assert_eq!(kept(0.99), [1, 1, 1, 1]);
}

#[test]
fn a_seed_names_one_sequence() {
    let logits: Vec<f32> = (0..64).map(|i| (i % 7) as f32 * 0.1).collect();
    let draw = |seed: u64| -> Vec<u32> {
        let settings = Sampling {
            seed,
            ..sampling(1.0, 40, 0.9)
        };
        let mut sampler = Sampler::new(settings).unwrap();
        (0..12).map(|_| sampler.sample(&logits).unwrap()).collect()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // Pinned: the sequence must not depend on the machine.
    assert_eq!(draw(1), PINNED);
}

const PINNED: [u32; 12] = [31, 6, 31, 61, 46, 31, 12, 13, 25, 6, 45, 4];

#[test]
fn extreme_temperatures_and_logits_still_choose() {
    assert_eq!(counts(sampling(1e-38, 0, 1.0), &LOGITS, 9)[1], 9);
    let all = counts(sampling(f32::MAX, 0, 1.0), &LOGITS, 600);
    assert!(all[0] > 100 && all[1] > 100 && all[3] > 100, "{all:?}");
    let infinite = [0.0, f32::INFINITY, f32::INFINITY];
    let found = counts(sampling(1.0, 0, 0.9), &infinite, 100);
    assert!(found[0] == 0 && found[1] > 0 && found[2] > 0, "{found:?}");
    let found = counts(sampling(1.0, 3, 0.5), &[f32::MAX, f32::MIN, 0.0], 9);
    assert_eq!(found, [9, 0, 0]);
}

#[test]
fn impossible_settings_and_logits_are_errors() {
    for settings in [
        sampling(-1.0, 0, 1.0),
        sampling(f32::NAN, 0, 1.0),
        sampling(f32::INFINITY, 0, 1.0),
        sampling(1.0, 0, 0.0),
        sampling(1.0, 0, 1.5),
        sampling(1.0, 0, f32::NAN),
    ] {
        assert!(Sampler::new(settings).is_err(), "{settings:?}");
    }
    for settings in [Sampling::greedy(), sampling(1.0, 2, 0.5)] {
        let mut sampler = Sampler::new(settings).unwrap();
        let error = sampler.sample(&[f32::NAN, f32::NEG_INFINITY]).unwrap_err();
        assert!(error.to_string().contains("1 are NaN"), "{error}");
        assert!(sampler.sample(&[]).is_err());
    }
}

#[test]
fn min_p_keeps_what_is_likely_enough_beside_the_most_likely() {
    // Probabilities 1/8, 1/2, 1/4, 1/8.
    let logits = [0.0, 4.0_f32.ln(), 2.0_f32.ln(), 0.0];
    let kept = |min_p: f32, top_p: f32| -> Vec<u32> {
        let settings = Sampling {
            min_p,
            ..sampling(1.0, 0, top_p)
        };
        let found = Sampler::new(settings).unwrap().probabilities(&logits);
        found.unwrap().iter().map(|&(id, _)| id).collect()
    };
    assert_eq!(kept(0.0, 1.0), [0, 1, 2, 3]);
    assert_eq!(kept(0.24, 1.0), [0, 1, 2, 3]);
    assert_eq!(kept(0.26, 1.0), [1, 2]);
    assert_eq!(kept(0.51, 1.0), [1]);
    assert_eq!(kept(1.0, 1.0), [1]);
    // Top-p comes first, and both hold.
    assert_eq!(kept(0.26, 0.4), [1]);
    assert_eq!(kept(0.1, 0.8), [0, 1, 2]);
}

#[test]
fn the_penalty_divides_logits_above_zero_and_multiplies_others() {
    let settings = Sampling {
        repeat_penalty: 2.0,
        repeat_last_n: 3,
        ..sampling(1.0, 0, 1.0)
    };
    let logits = [2.0, -1.0, 0.0, 2.0];
    let ratios = |seen: &[u32]| -> Vec<f64> {
        let mut sampler = Sampler::new(settings).unwrap();
        sampler.observe(seen);
        let found = sampler.probabilities(&logits).unwrap();
        found.iter().map(|&(_, p)| (p / found[3].1).ln()).collect()
    };
    let close = |found: Vec<f64>, expected: [f64; 4]| {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{found:?} for {expected:?}");
        }
    };
    close(ratios(&[]), [0.0, -3.0, -2.0, 0.0]);
    close(ratios(&[0]), [-1.0, -3.0, -2.0, 0.0]);
    close(ratios(&[1, 2]), [0.0, -4.0, -2.0, 0.0]);
    // However often, and only among the last three; an id without a logit does no harm.
    close(ratios(&[0, 0, 0]), [-1.0, -3.0, -2.0, 0.0]);
    close(ratios(&[0, 1, 99, 99]), [0.0, -4.0, -2.0, 0.0]);
}

#[test]
fn greedy_with_a_penalty_counts_what_it_chose_until_it_forgets() {
    let settings = Sampling {
        repeat_penalty: 4.0,
        repeat_last_n: 2,
        ..Sampling::greedy()
    };
    let logits = [1.0, 3.0, 2.0, 1.5];
    let mut sampler = Sampler::new(settings).unwrap();
    let mut next = || sampler.sample(&logits).unwrap();
    assert_eq!([next(), next(), next(), next(), next()], [1, 2, 3, 1, 2]);
    sampler.forget();
    assert_eq!(sampler.sample(&logits).unwrap(), 1);
    let none = Sampling {
        repeat_last_n: 0,
        ..settings
    };
    let mut sampler = Sampler::new(none).unwrap();
    sampler.observe(&[1, 1]);
    assert_eq!(sampler.sample(&logits).unwrap(), 1);
}

#[test]
fn settings_of_the_other_steps_are_checked_too() {
    let base = sampling(1.0, 0, 1.0);
    for settings in [
        Sampling {
            min_p: -0.1,
            ..base
        },
        Sampling { min_p: 1.1, ..base },
        Sampling {
            min_p: f32::NAN,
            ..base
        },
        Sampling {
            repeat_penalty: 0.0,
            ..base
        },
        Sampling {
            repeat_penalty: f32::INFINITY,
            ..base
        },
    ] {
        assert!(Sampler::new(settings).is_err(), "{settings:?}");
    }
}

proptest! {
    #[test]
    fn each_step_only_narrows_and_the_most_likely_stays(
        logits in proptest::collection::vec(-8.0_f32..8.0, 1..60),
        temperature in 0.1_f32..3.0,
        top_k in 0_usize..70,
        top_p in 0.01_f32..=1.0,
        min_p in 0.0_f32..=1.0,
        penalty in 0.5_f32..2.0,
        seen in proptest::collection::vec(0_u32..60, 0..20),
        seed: u64,
    ) {
        let full = Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repeat_penalty: penalty,
            repeat_last_n: 10,
            seed,
        };
        let found = |settings: Sampling| {
            let mut sampler = Sampler::new(settings).unwrap();
            sampler.observe(&seen);
            let probabilities = sampler.probabilities(&logits).unwrap();
            (probabilities, sampler.sample(&logits).unwrap())
        };
        let ids = |of: &[(u32, f64)]| -> Vec<u32> { of.iter().map(|&(id, _)| id).collect() };
        let (narrow, chosen) = found(full);
        let greedy = found(Sampling { temperature: 0.0, ..full }).1;
        prop_assert!(ids(&narrow).contains(&chosen));
        prop_assert!(ids(&narrow).contains(&greedy));
        let sum: f64 = narrow.iter().map(|&(_, p)| p).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        let most = narrow.iter().map(|&(_, p)| p).fold(0.0, f64::max);
        prop_assert!(narrow.iter().all(|&(_, p)| p >= 0.999_999 * f64::from(min_p) * most));
        prop_assert!(top_k == 0 || narrow.len() <= top_k);
        for wider in [
            Sampling { top_k: 0, ..full },
            Sampling { min_p: 0.0, ..full },
            Sampling { min_p: 0.0, top_p: 1.0, ..full },
            Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, ..full },
        ] {
            // Without top-k, top-p counts more tokens; it can only reach its sum later.
            let wide = ids(&found(wider).0);
            prop_assert!(ids(&narrow).iter().all(|id| wide.contains(id)), "{wider:?}");
        }
    }
}
