//! MNIST's form on small files, its published files when they are there, and what is said when they are not.

use std::fs;
use std::path::Path;

use brain_blitz::knobs;
use brain_blitz::train::data::mnist::{Kind, Mnist, Split, pixel_values};
use brain_blitz::train::data::{DataLoader, Dataset};
use tempfile::{TempDir, tempdir};

use super::idx::{file, packed};

/// Three images of 2 x 2 and their labels.
fn small() -> TempDir {
    let folder = tempdir().unwrap();
    let images = file(8, &[3, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7, 255, 0, 51, 102]);
    fs::write(folder.path().join("images"), packed(&images)).unwrap();
    fs::write(folder.path().join("labels"), file(8, &[3], &[7, 0, 9])).unwrap();
    folder
}

fn from(folder: &Path) -> brain_blitz::Result<Mnist> {
    Mnist::from_files(folder.join("images"), folder.join("labels"))
}

#[test]
fn images_and_labels_come_in_batches() {
    let folder = small();
    let data = from(folder.path()).unwrap();
    assert_eq!(data.len(), 3);
    let batch = data.batch(&[2, 0], 0).unwrap();
    assert_eq!(
        (batch[0].dims(), batch[1].dims()),
        (&[2, 2, 2][..], &[2][..])
    );
    assert_eq!(batch[0].to_f32()[..4], [1.0, 0.0, 0.2, 0.4]);
    assert_eq!(batch[1].to_i32(), [9, 7]);
    let data = data.normalize(0.5, 0.25).with_dims(&[1, 4]);
    let sample = data.sample(2, 0).unwrap();
    assert_eq!((sample[0].dims(), sample[1].dims()), (&[1, 4][..], &[][..]));
    let expected = [1.0f32, 0.0, 0.2, 0.4].map(|x| (x - 0.5) / 0.25);
    assert_eq!(sample[0].to_f32(), expected);
    assert!(data.batch(&[3], 0).is_err());
}

#[test]
fn normalized_pixels_have_mean_0_and_deviation_1() {
    // A data set with every value once: mean 1/2, variance (256^2 - 1) / 12 / 255^2.
    let std = ((65_535.0f64 / 12.0).sqrt() / 255.0) as f32;
    let values = pixel_values(0.5, std);
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 256.0;
    let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 256.0;
    assert!(
        mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6,
        "{mean} {variance}"
    );
}

#[test]
fn files_that_do_not_belong_together_are_errors() {
    let folder = small();
    let labels = folder.path().join("labels");
    let failure = || from(folder.path()).unwrap_err().to_string();
    fs::write(&labels, file(8, &[2], &[7, 0])).unwrap();
    assert!(
        failure().ends_with("labels: dimensions: 2 labels for 3 images"),
        "{}",
        failure()
    );
    fs::write(&labels, file(8, &[3, 1], &[7, 0, 1])).unwrap();
    assert!(
        failure().contains("U8[3, 1] is not U8 with 1 dimensions"),
        "{}",
        failure()
    );
    fs::write(&labels, file(12, &[3], &[0; 12])).unwrap();
    assert!(failure().contains("I32[3] is not U8"), "{}", failure());
}

#[test]
fn a_folder_without_the_files_or_with_others_is_an_error() {
    let folder = tempdir().unwrap();
    let open = || {
        Mnist::open(Kind::Fashion, Split::Test, Some(folder.path()))
            .unwrap_err()
            .to_string()
    };
    let expected = "has neither t10k-images-idx3-ubyte.gz nor t10k-images-idx3-ubyte, and no folder fashion-mnist";
    assert!(open().contains(expected), "{}", open());
    let below = folder.path().join("fashion-mnist");
    fs::create_dir(&below).unwrap();
    fs::write(
        below.join("t10k-images-idx3-ubyte"),
        file(8, &[1, 1, 1], &[0]),
    )
    .unwrap();
    assert!(
        open().contains("t10k-images-idx3-ubyte: SHA-256: is "),
        "{}",
        open()
    );
}

/// The published files have a test only where somebody put them: they are not part of this repository.
#[test]
fn the_published_digits_are_what_they_should_be() {
    let Some(folder) = knobs::data_dir() else {
        println!("skipped: BB_DATA names no folder with MNIST");
        return;
    };
    let test = Mnist::open(Kind::Digits, Split::Test, Some(&folder)).unwrap();
    assert_eq!(test.len(), 10_000);
    assert_eq!(test.labels()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let (mean, std) = Kind::Digits.statistics();
    let train = Mnist::open(Kind::Digits, Split::Train, Some(&folder)).unwrap();
    assert_eq!(train.len(), 60_000);
    assert_eq!(train.labels()[..5], [5, 0, 4, 1, 9]);
    let loader = DataLoader::new(train.normalize(mean, std), 1000)
        .shuffle(1)
        .prefetch(2);
    let (mut sum, mut squares, mut labels) = (0.0, 0.0, [0; 10]);
    for batch in loader.epoch(0) {
        let batch = batch.unwrap();
        for x in batch.arrays[0].to_f64() {
            sum += x;
            squares += x * x;
        }
        batch.arrays[1]
            .to_i32()
            .iter()
            .for_each(|&label| labels[label as usize] += 1);
    }
    let n = 60_000.0 * 784.0;
    assert!((sum / n).abs() < 1e-3 && (squares / n - 1.0).abs() < 1e-3);
    assert_eq!(
        labels,
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    );
}
