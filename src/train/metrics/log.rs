//! Metrics as lines of JSON: one object a line, for this crate's plots and any other tool.
//!
//! ```text
//! {"step":100,"epoch":0.5,"time":12.25,"loss":1.75,"lr":0.001}
//! ```
//!
//! Every line is one write to the file, so a killed process leaves whole lines and perhaps a part of one, without the
//! newline at its end; readers ignore that part. JSON has no NaN and no infinity: they are written as `null` and read
//! as NaN.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result};
use crate::formats::{Bytes, format_error, io_error};

/// The longest file that is read.
const LONGEST_LOG: u64 = 1 << 32;
/// What every line has.
const FIXED: [&str; 3] = ["step", "epoch", "time"];

/// The numbers of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The step.
    pub step: u64,
    /// How many epochs are behind, with the part of the one that is not.
    pub epoch: f64,
    /// Seconds since the run began, without the time between a stop and the resumption.
    pub time: f64,
    /// All other numbers, by name.
    pub values: BTreeMap<String, f64>,
}

/// A line of the file; `null` stands for what is not finite.
#[derive(Serialize, Deserialize)]
struct Line {
    step: u64,
    epoch: Option<f64>,
    time: f64,
    #[serde(flatten)]
    values: BTreeMap<String, Option<f64>>,
}

/// Writes metrics to a file.
///
/// ```
/// use brain_blitz::train::metrics::log::{self, MetricsLog};
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let file = folder.path().join("metrics.jsonl");
/// let mut metrics = MetricsLog::create(&file)?;
/// metrics.write(1, 0.5, &[("loss", 2.5), ("lr", 0.1)])?;
/// metrics.write(2, 1.0, &[("loss", 2.0), ("lr", 0.1)])?;
/// // The run is killed, and goes on from a checkpoint of step 1.
/// let mut metrics = MetricsLog::resume(&file, 1)?;
/// metrics.write(2, 1.0, &[("loss", 1.9), ("lr", 0.1)])?;
/// let losses: Vec<f64> = log::read(&file)?.iter().map(|record| record.values["loss"]).collect();
/// assert_eq!(losses, [2.5, 1.9]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    start: Instant,
    /// Seconds of the run before `start`.
    before: f64,
}

impl MetricsLog {
    /// Starts a new file; one that is there is replaced.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: impl Into<PathBuf>) -> Result<MetricsLog> {
        MetricsLog::start(path.into(), b"", 0.0)
    }

    /// Goes on with a file after `step`: lines of later steps, and a part of a line at the end, are removed. A file that
    /// is not there is started.
    ///
    /// # Errors
    /// If the file cannot be read or written, or has a line that is no record.
    pub fn resume(path: impl Into<PathBuf>, step: u64) -> Result<MetricsLog> {
        let path = path.into();
        if !path.exists() {
            return MetricsLog::create(path);
        }
        let text = Bytes::read(&path, LONGEST_LOG)?;
        let (mut kept, mut before) = (Vec::with_capacity(text.len()), 0.0f64);
        for (line, record) in records(&path, &text) {
            let record = record?;
            if record.step <= step {
                kept.extend_from_slice(line);
                before = before.max(record.time);
            }
        }
        MetricsLog::start(path, &kept, before)
    }

    fn start(path: PathBuf, contents: &[u8], before: f64) -> Result<MetricsLog> {
        atomic::write_bytes(&path, contents)?;
        let file = OpenOptions::new().append(true).open(&path);
        match file {
            Err(source) => Err(io_error(&path, source)),
            Ok(file) => Ok(MetricsLog {
                path,
                file,
                start: Instant::now(),
                before,
            }),
        }
    }

    /// Adds the numbers of a step.
    ///
    /// # Errors
    /// If the file cannot be written, or a value's name occurs twice or is one that every line has.
    pub fn write(&mut self, step: u64, epoch: f64, values: &[(&str, f64)]) -> Result<()> {
        let mut named = BTreeMap::new();
        for &(name, value) in values {
            let twice = named.insert(name.to_owned(), finite(value)).is_some();
            if twice || FIXED.contains(&name) {
                return Err(Error::msg(format!("two metrics have the name {name:?}")));
            }
        }
        let line = Line {
            step,
            epoch: finite(epoch),
            time: self.before + self.start.elapsed().as_secs_f64(),
            values: named,
        };
        let mut text = serde_json::to_string(&line).expect("numbers and text are JSON");
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .map_err(|source| io_error(&self.path, source))
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Reads all records of a file.
///
/// # Errors
/// If it cannot be read, or has a line that is no record; the message has the line's number and place.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let text = Bytes::read(path, LONGEST_LOG)?;
    let all = records(path, &text);
    all.map(|(_, record)| record).collect()
}

/// The whole lines of a file, with their newlines and what they say.
fn records<'a>(
    path: &'a Path,
    text: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], Result<Record>)> + use<'a> {
    let mut at = 0;
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let whole = lines.filter(|line| line.ends_with(b"\n"));
    whole.enumerate().map(move |(number, line)| {
        let start = at;
        at += line.len() as u64;
        let wrong = |error: serde_json::Error| {
            let field = format!("line {}", number + 1);
            format_error(path, field, Some(start), error.to_string())
        };
        let parsed = serde_json::from_slice::<Line>(line).map_err(wrong);
        (line, parsed.map(Record::from))
    })
}

impl From<Line> for Record {
    fn from(line: Line) -> Record {
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let values = line.values.into_iter();
        Record {
            step: line.step,
            epoch: number(line.epoch),
            time: line.time,
            values: values.map(|(name, value)| (name, number(value))).collect(),
        }
    }
}
