//! The published files of MNIST and Fashion-MNIST: their names, hashes and mirrors, and finding them here.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::formats::{Bytes, digest, idx};
use crate::knobs;
use crate::train::data::fetch::{Remote, fetch};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// MNIST.
    Digits,
    /// Fashion-MNIST.
    Fashion,
}

/// Which part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// 60,000 images.
    Train,
    /// 10,000 images.
    Test,
}

impl Kind {
    /// The folder for this kind's files inside a folder of data sets.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Digits => "mnist",
            Kind::Fashion => "fashion-mnist",
        }
    }

    /// Mean and standard deviation of the training images' pixels, scaled to 0 to 1: what [`Mnist::normalize`](super::Mnist::normalize) takes.
    pub fn statistics(self) -> (f32, f32) {
        match self {
            Kind::Digits => (0.1307, 0.3081),
            Kind::Fashion => (0.2860, 0.3530),
        }
    }

    /// What the ten labels mean.
    pub fn classes(self) -> [&'static str; 10] {
        match self {
            Kind::Digits => ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            Kind::Fashion => [
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ],
        }
    }

    fn mirrors(self) -> &'static [&'static str] {
        match self {
            Kind::Digits => &[
                "https://storage.googleapis.com/cvdf-datasets/mnist",
                "https://ossci-datasets.s3.amazonaws.com/mnist",
            ],
            Kind::Fashion => &[
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            ],
        }
    }

    /// The files with the images and with the labels.
    fn files(self, split: Split) -> &'static [Published; 2] {
        match (self, split) {
            (Kind::Digits, Split::Train) => &DIGITS[0],
            (Kind::Digits, Split::Test) => &DIGITS[1],
            (Kind::Fashion, Split::Train) => &FASHION[0],
            (Kind::Fashion, Split::Test) => &FASHION[1],
        }
    }
}

/// One of the published files.
struct Published {
    name: &'static str,
    /// Of the packed file.
    size: u64,
    sha256: &'static str,
    /// Of what it unpacks to, where that is known.
    plain_sha256: Option<&'static str>,
}

impl Published {
    const fn new(
        name: &'static str,
        size: u64,
        sha256: &'static str,
        plain_sha256: Option<&'static str>,
    ) -> Published {
        Published {
            name,
            size,
            sha256,
            plain_sha256,
        }
    }
}

const DIGITS: [[Published; 2]; 2] = [
    [
        Published::new(
            TRAIN_IMAGES,
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            Some("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ),
        Published::new(
            TRAIN_LABELS,
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            Some("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        ),
    ],
    [
        Published::new(
            TEST_IMAGES,
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            Some("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        ),
        Published::new(
            TEST_LABELS,
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            Some("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ),
    ],
];

const FASHION: [[Published; 2]; 2] = [
    [
        Published::new(
            TRAIN_IMAGES,
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            None,
        ),
        Published::new(
            TRAIN_LABELS,
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            Some("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        ),
    ],
    [
        Published::new(
            TEST_IMAGES,
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            None,
        ),
        Published::new(
            TEST_LABELS,
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            Some("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ),
    ],
];

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// A published file: where it was found and what it holds, unpacked.
pub(super) type Found = (PathBuf, Bytes);

/// The files with the images and with the labels, from `folder`, from `BB_DATA` or from the cache folder.
///
/// # Errors
/// If a file is not there and cannot be fetched, or is not the published one.
pub(super) fn open(kind: Kind, split: Split, folder: Option<&Path>) -> Result<[Found; 2]> {
    let folder = folder.map(Path::to_path_buf).or_else(knobs::data_dir);
    let file = |published: &Published| match &folder {
        Some(folder) => {
            let file = find(folder, kind, published)?;
            let plain = verified(&file, published)?;
            Ok((file, plain))
        }
        None => cached(kind, published),
    };
    let [images, labels] = kind.files(split);
    Ok([file(images)?, file(labels)?])
}

/// The file in a folder that the user named.
fn find(folder: &Path, kind: Kind, published: &Published) -> Result<PathBuf> {
    let packed = format!("{}.gz", published.name);
    let places = [folder.join(kind.folder()), folder.to_path_buf()];
    let names = [packed.as_str(), published.name];
    let mut files = places
        .iter()
        .flat_map(|place| names.map(|name| place.join(name)));
    files.find(|file| file.is_file()).ok_or_else(|| {
        let below = kind.folder();
        Error::msg(format!(
            "{}: has neither {packed} nor {}, and no folder {below} with one of them",
            folder.display(),
            published.name,
        ))
    })
}

/// The file in the cache folder with its plain bytes, fetched when it is not there or is damaged.
fn cached(kind: Kind, published: &Published) -> Result<(PathBuf, Bytes)> {
    let Some(cache) = knobs::data_cache_dir() else {
        return Err(Error::msg(format!(
            "there is no cache folder to fetch {} into (neither XDG_CACHE_HOME nor HOME is set); name a folder that \
             has it (BB_DATA=FOLDER)",
            published.name
        )));
    };
    let packed = format!("{}.gz", published.name);
    let file = cache.join(kind.folder()).join(&packed);
    if file.is_file()
        && let Ok(plain) = verified(&file, published)
    {
        return Ok((file, plain));
    }
    let mirrors = kind.mirrors().iter();
    let remote = Remote {
        urls: mirrors.map(|mirror| format!("{mirror}/{packed}")).collect(),
        sha256: published.sha256,
        size: published.size,
    };
    fetch(&remote, &file)?;
    let plain = verified(&file, published)?;
    Ok((file, plain))
}

/// The plain bytes of a file that is the published one.
fn verified(file: &Path, published: &Published) -> Result<Bytes> {
    let bytes = Bytes::map(file)?;
    let plain = idx::unpack(file, &bytes)?;
    let original = digest::sha256(&bytes) == published.sha256;
    match published.plain_sha256 {
        _ if original => {}
        Some(expected) => digest::check(file, &plain, expected)?,
        None => digest::check(file, &bytes, published.sha256)?,
    }
    Ok(plain)
}
