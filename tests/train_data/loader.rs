//! The loader: every sample once an epoch, orders that are functions of seed and epoch, prefetching, resuming.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brain_blitz::array::{Array, Data};
use brain_blitz::error::{Error, Result};
use brain_blitz::train::data::{Batch, DataLoader, Dataset, Position, Subset, TensorDataset};
use proptest::prelude::*;

/// The numbers below `n`, and their squares in rows of two.
fn numbers(n: usize) -> TensorDataset {
    let index = Array::new(vec![n], Data::I32((0..n as i32).collect()));
    let squares = (0..2 * n).map(|i| ((i / 2) * (i / 2)) as f32).collect();
    let squares = Array::new(vec![n, 2], Data::F32(squares));
    TensorDataset::new(vec![index, squares]).unwrap()
}

fn loader(n: usize, size: usize) -> DataLoader<TensorDataset> {
    DataLoader::new(numbers(n), size)
}

fn batches(epoch: impl Iterator<Item = Result<Batch>>) -> Vec<Batch> {
    epoch.map(Result::unwrap).collect()
}

fn ids(batches: &[Batch]) -> Vec<i32> {
    let ids = batches.iter().map(|batch| batch.arrays[0].to_i32());
    ids.flatten().collect()
}

proptest! {
    #[test]
    fn every_sample_comes_once_an_epoch(
        n in 0usize..200, size in 1usize..50, seed in any::<u64>(), epoch in any::<u64>(), prefetch in 0usize..3,
    ) {
        let epoch = epoch % (u64::MAX - 1);
        let loader = loader(n, size).shuffle(seed).prefetch(prefetch);
        let batches = batches(loader.epoch(epoch));
        prop_assert_eq!(batches.len(), loader.n_batches());
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.arrays[0].dims()[0]).collect();
        prop_assert!(sizes.iter().rev().skip(1).all(|&found| found == size));
        let mut seen = ids(&batches);
        seen.sort();
        prop_assert_eq!(seen, (0..n as i32).collect::<Vec<_>>());
        for batch in &batches {
            let squares = batch.arrays[0].to_i32().into_iter().flat_map(|i| [(i * i) as f32; 2]);
            prop_assert_eq!(batch.arrays[1].to_f32(), squares.collect::<Vec<_>>());
        }
    }

    #[test]
    fn dropping_the_last_keeps_whole_batches_only(n in 0usize..200, size in 1usize..50, seed in any::<u64>()) {
        let all = loader(n, size).shuffle(seed);
        let whole = loader(n, size).shuffle(seed).drop_last(true);
        let (all, whole) = (batches(all.epoch(3)), batches(whole.epoch(3)));
        prop_assert_eq!(whole.len(), n / size);
        for (a, b) in whole.iter().zip(&all) {
            prop_assert_eq!(a.arrays[0].dims(), [size]);
            prop_assert_eq!(&a.arrays, &b.arrays);
        }
    }

    #[test]
    fn prefetching_changes_nothing(n in 1usize..100, size in 1usize..20, depth in 1usize..5, seed in any::<u64>()) {
        let here = loader(n, size).shuffle(seed);
        let ahead = loader(n, size).shuffle(seed).prefetch(depth);
        prop_assert_eq!(batches(here.epoch(1)), batches(ahead.epoch(1)));
    }

    #[test]
    fn a_run_goes_on_after_any_batch(
        n in 1usize..100, size in 1usize..20, stop in any::<prop::sample::Index>(), drop in any::<bool>(),
    ) {
        let loader = loader(n, size).shuffle(5).drop_last(drop);
        let whole: Vec<Batch> = (0..3).flat_map(|epoch| batches(loader.epoch(epoch))).collect();
        prop_assume!(!whole.is_empty());
        let stop = stop.index(whole.len());
        let Position { epoch, .. } = whole[stop].next;
        let mut rest = batches(loader.resume(whole[stop].next));
        for epoch in epoch + 1..3 {
            rest.extend(batches(loader.epoch(epoch)));
        }
        if epoch < 3 {
            prop_assert_eq!(&rest[..], &whole[stop + 1..]);
        } else {
            prop_assert_eq!(stop, whole.len() - 1);
        }
    }
}

#[test]
fn orders_differ_by_epoch_and_seed_and_are_the_same_on_every_machine() {
    let shuffled = loader(10, 3).shuffle(7);
    // Computed by a program of its own in Python: Philox4x32-10 and algorithm P.
    assert_eq!(shuffled.order(0), ORDER_OF_SEED_7[0]);
    assert_eq!(shuffled.order(1), ORDER_OF_SEED_7[1]);
    assert_ne!(loader(10, 3).shuffle(8).order(0), shuffled.order(0));
    assert_eq!(loader(10, 3).order(4), (0..10).collect::<Vec<_>>());
}

const ORDER_OF_SEED_7: [[usize; 10]; 2] = [
    [1, 0, 6, 2, 3, 7, 5, 4, 9, 8],
    [7, 0, 6, 2, 4, 3, 1, 8, 5, 9],
];

#[test]
fn every_order_is_about_as_likely() {
    let loader = loader(3, 1).shuffle(1);
    let mut counts = std::collections::BTreeMap::new();
    for epoch in 0..6000 {
        *counts.entry(loader.order(epoch)).or_insert(0) += 1;
    }
    // Six orders, 1000 each; the standard deviation is 29.
    assert_eq!(counts.len(), 6);
    assert!(
        counts.values().all(|count| (850..1150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn a_position_is_behind_its_batch() {
    let loader = loader(5, 2);
    let next: Vec<Position> = batches(loader.epoch(4))
        .iter()
        .map(|batch| batch.next)
        .collect();
    let at = |epoch, batch| Position { epoch, batch };
    assert_eq!(next, [at(4, 1), at(4, 2), at(5, 0)]);
    assert_eq!(loader.resume(at(4, 3)).count(), 0);
    assert_eq!(loader.resume(at(4, 99)).count(), 0);
}

/// Fails or panics at one sample, and counts what is asked of it.
struct Broken {
    at: usize,
    panics: bool,
    asked: AtomicUsize,
}

impl Dataset for Broken {
    fn len(&self) -> usize {
        100
    }

    fn sample(&self, index: usize, _epoch: u64) -> Result<Vec<Array>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match (index == self.at, self.panics) {
            (true, true) => panic!("sample {index} panics"),
            (true, false) => Err(Error::msg(format!("sample {index} fails"))),
            _ => Ok(vec![Array::new(vec![], Data::I32(vec![index as i32]))]),
        }
    }
}

fn broken(at: usize, panics: bool) -> Broken {
    let asked = AtomicUsize::new(0);
    Broken { at, panics, asked }
}

#[test]
fn an_error_ends_the_epoch() {
    for prefetch in [0, 2] {
        let loader = DataLoader::new(broken(5, false), 2).prefetch(prefetch);
        let found: Vec<Result<Batch>> = loader.epoch(0).collect();
        assert_eq!(found.len(), 3);
        assert!(found[..2].iter().all(Result::is_ok));
        assert_eq!(found[2].as_ref().unwrap_err().to_string(), "sample 5 fails");
    }
}

#[test]
fn a_panic_in_the_thread_reaches_the_caller() {
    for prefetch in [0, 2] {
        let loader = DataLoader::new(broken(5, true), 2).prefetch(prefetch);
        let read = std::panic::AssertUnwindSafe(|| loader.epoch(0).count());
        let panic = std::panic::catch_unwind(read).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "sample 5 panics");
    }
}

#[test]
fn the_queue_is_bounded_and_the_thread_ends_with_the_iterator() {
    let data = Arc::new(broken(100, false));
    let loader = DataLoader::new(Arc::clone(&data), 1).prefetch(3);
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    drop(epoch);
    // One used, three in the queue, one in the thread's hand.
    let asked = data.asked.load(Ordering::SeqCst);
    assert!((1..=5).contains(&asked), "{asked}");
    drop(loader);
    assert_eq!(
        Arc::strong_count(&data),
        1,
        "the thread still has the data set"
    );
}

#[test]
fn fields_must_have_one_number_of_samples() {
    let array = |dims: &[usize]| Array::zeros(dims.to_vec(), brain_blitz::dtype::DType::F32);
    for fields in [vec![], vec![array(&[])], vec![array(&[2, 3]), array(&[3])]] {
        let error = TensorDataset::new(fields).unwrap_err().to_string();
        assert!(error.contains("the number of samples"), "{error}");
    }
    let error = numbers(3).batch(&[1, 3], 0).unwrap_err().to_string();
    assert_eq!(error, "sample 3 of a data set of 3");
}

#[test]
fn samples_are_rows_of_batches() {
    let data = numbers(4);
    let sample = data.sample(3, 0).unwrap();
    assert_eq!((sample[0].dims(), sample[1].dims()), (&[][..], &[2][..]));
    assert_eq!(sample[1].to_f32(), [9.0, 9.0]);
}

#[test]
fn samples_of_different_types_are_no_batch() {
    struct Growing;
    impl Dataset for Growing {
        fn len(&self) -> usize {
            3
        }
        fn sample(&self, index: usize, _epoch: u64) -> Result<Vec<Array>> {
            Ok(vec![Array::new(vec![index], Data::I32(vec![1; index]))])
        }
    }
    let error = Growing.batch(&[1, 2], 0).unwrap_err().to_string();
    assert!(
        error.contains("differ: [([1], I32)] and [([2], I32)]"),
        "{error}"
    );
    assert_eq!(Growing.batch(&[2, 2], 0).unwrap()[0].dims(), [2, 2]);
}

#[test]
fn a_split_has_every_sample_on_one_side() {
    let data = Arc::new(numbers(10));
    let train = Subset::new(Arc::clone(&data), 0..7).unwrap();
    let held_out = Subset::new(Arc::clone(&data), 7..10).unwrap();
    let all = |subset: Subset<_>| ids(&batches(DataLoader::new(subset, 4).shuffle(1).epoch(0)));
    let (train, held_out) = (all(train), all(held_out));
    assert_eq!((train.len(), held_out.len()), (7, 3));
    assert_eq!(
        train.iter().chain(&held_out).collect::<BTreeSet<_>>().len(),
        10
    );
    assert!(held_out.iter().all(|&id| id >= 7));
    assert!(Subset::new(data, [10]).is_err());
}
