//! Windows of tokens: in sequence they cover the stream, at random they are drawn anew in each epoch.

use std::collections::BTreeSet;

use brain_blitz::train::data::{DataLoader, Dataset, TextDataset};

fn starts(data: &TextDataset, epoch: u64) -> Vec<i32> {
    let start = |index| data.sample(index, epoch).unwrap()[0].to_i32()[0];
    (0..data.len()).map(start).collect()
}

#[test]
fn windows_in_sequence_cover_the_stream() {
    let data = TextDataset::new(0..11, 3).unwrap();
    assert_eq!(starts(&data, 0), [0, 3, 6]);
    assert_eq!(starts(&data, 1), [0, 3, 6], "every epoch has the same");
    let batch = data.batch(&[2, 0], 0).unwrap();
    assert_eq!(batch[0].to_i32(), [6, 7, 8, 0, 1, 2]);
    assert_eq!(batch[1].to_i32(), [7, 8, 9, 1, 2, 3]);
    assert_eq!(batch[1].dims(), [2, 3]);
    // The last window needs the token after it.
    assert_eq!(TextDataset::new(0..9, 3).unwrap().len(), 2);
    assert_eq!(TextDataset::new(0..10, 3).unwrap().len(), 3);
}

#[test]
fn random_windows_start_everywhere_and_differ_by_epoch_and_seed() {
    let data = |seed| TextDataset::new(0..13, 3).unwrap().random(400, seed);
    let first = starts(&data(1), 0);
    assert_eq!(first.len(), 400);
    let seen: BTreeSet<i32> = first.iter().copied().collect();
    assert_eq!(
        seen,
        (0..10).collect(),
        "every start, and none past the end"
    );
    assert_ne!(first, starts(&data(1), 1));
    assert_ne!(first, starts(&data(2), 0));
    assert_eq!(first, starts(&data(1), 0));
    let last = data(1).sample(399, 0).unwrap();
    let moved: Vec<i32> = last[0].to_i32().iter().map(|token| token + 1).collect();
    assert_eq!(last[1].to_i32(), moved);
}

#[test]
fn a_loader_asks_for_the_windows_of_its_epoch() {
    let data = || TextDataset::new(0..100, 5).unwrap().random(4, 9);
    let loader = DataLoader::new(data(), 4);
    let mut epochs = (0..2).map(|epoch| loader.epoch(epoch).next().unwrap().unwrap().arrays);
    assert_eq!(
        epochs.next().unwrap(),
        data().batch(&[0, 1, 2, 3], 0).unwrap()
    );
    assert_eq!(
        epochs.next().unwrap(),
        data().batch(&[0, 1, 2, 3], 1).unwrap()
    );
}

#[test]
fn a_stream_without_a_window_is_an_error() {
    for (n, length) in [(3, 3), (0, 1), (5, 0)] {
        let error = TextDataset::new(0..n, length).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{n} tokens have no window")),
            "{error}"
        );
    }
    let error = TextDataset::new([1, u32::MAX], 1).unwrap_err().to_string();
    assert_eq!(error, "token 4294967295 does not fit i32");
    let data = TextDataset::new(0..4, 3).unwrap();
    assert_eq!(data.sample(1, 0).unwrap_err().to_string(), "window 1 of 1");
}
