//! `brain-blitz inspect`: what is in a file of weights.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use brain_blitz::formats::gguf::{Array, Gguf, Value, is_gguf};
use brain_blitz::formats::{Checkpoint, StoredType};
use serde_json::{Map, json};

use super::failure::Outcome;
use super::output;

/// What `inspect` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A GGUF file, a safetensors file, or the folder of a checkpoint
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz inspect model-Q4_0.gguf
  brain-blitz inspect models/gemma2-shakespeare --json | jq .bits_per_weight

Prints the metadata, every tensor with its type, shape, bytes and bits per weight, and the sums of
each type. Long lists and texts in the metadata are shortened; with --json, lists of more than 64
entries become {\"type\", \"length\"}.";

/// The longest text of the metadata in a table.
const WIDEST: usize = 60;
/// The longest list of the metadata that JSON has whole.
const LONGEST: usize = 64;

/// What is told about a file.
struct Contents {
    format: &'static str,
    version: Option<u32>,
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    ty: &'static str,
    shape: Vec<usize>,
    bytes: usize,
}

impl Tensor {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Runs the command.
///
/// # Errors
/// If the file cannot be read, is damaged, or nobody takes the output.
pub fn run(args: &Args) -> Outcome {
    let contents = match is_gguf(&args.file) {
        true => of_gguf(&args.file)?,
        false => of_checkpoint(&args.file)?,
    };
    match args.json {
        true => output::write_json(&contents.json()),
        false => output::write(&contents.table()),
    }
}

fn of_gguf(path: &Path) -> Outcome<Contents> {
    let file = Gguf::open(path)?;
    let metadata = file.metadata().iter();
    let tensors = file.tensors().iter().map(|info| Tensor {
        name: info.name.clone(),
        ty: info.ty.name(),
        shape: info.shape.clone(),
        bytes: info.size(),
    });
    Ok(Contents {
        format: "gguf",
        version: Some(file.version()),
        metadata: metadata
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        tensors: tensors.collect(),
    })
}

fn of_checkpoint(path: &Path) -> Outcome<Contents> {
    let checkpoint = Checkpoint::open(path)?;
    let metadata = checkpoint.metadata().iter();
    let metadata = metadata.map(|(key, text)| (key.clone(), Value::from(text.as_str())));
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        let tensor = checkpoint.get(name)?;
        tensors.push(Tensor {
            name: name.to_owned(),
            ty: StoredType::name(tensor.dtype),
            shape: tensor.shape,
            bytes: tensor.bytes.len(),
        });
    }
    Ok(Contents {
        format: "safetensors",
        version: None,
        metadata: metadata.collect(),
        tensors,
    })
}

impl Contents {
    fn elements(&self) -> usize {
        self.tensors.iter().map(Tensor::elements).sum()
    }

    fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Tensors, elements and bytes of each type.
    fn by_type(&self) -> BTreeMap<&'static str, (usize, usize, usize)> {
        let mut sums = BTreeMap::new();
        for tensor in &self.tensors {
            let sum: &mut (usize, usize, usize) = sums.entry(tensor.ty).or_default();
            sum.0 += 1;
            sum.1 += tensor.elements();
            sum.2 += tensor.bytes;
        }
        sums
    }

    fn json(&self) -> serde_json::Value {
        let metadata = self
            .metadata
            .iter()
            .map(|(key, value)| (key.clone(), short_json(value)));
        let tensor = |tensor: &Tensor| {
            json!({
                "name": tensor.name,
                "type": tensor.ty,
                "shape": tensor.shape,
                "bytes": tensor.bytes,
            })
        };
        json!({
            "format": self.format,
            "version": self.version,
            "parameters": self.elements(),
            "bytes": self.bytes(),
            "bits_per_weight": bits(self.elements(), self.bytes()),
            "metadata": metadata.collect::<Map<_, _>>(),
            "tensors": self.tensors.iter().map(tensor).collect::<Vec<_>>(),
        })
    }

    fn table(&self) -> String {
        let version = self
            .version
            .map(|n| format!(" version {n}"))
            .unwrap_or_default();
        let mut out = format!("{}{version}\n", self.format);
        let rows = self
            .metadata
            .iter()
            .map(|(key, value)| [printable(key), value.type_name(), short_text(value)]);
        columns(&mut out, "metadata", rows.collect());
        let row = |tensor: &Tensor| {
            [
                printable(&tensor.name),
                tensor.ty.to_owned(),
                format!("{:?}", tensor.shape),
                tensor.bytes.to_string(),
            ]
        };
        columns(&mut out, "tensors", self.tensors.iter().map(row).collect());
        let mut sums: Vec<[String; 5]> = Vec::new();
        let mut sum = |name: &str, (tensors, elements, bytes): (usize, usize, usize)| {
            let bits = bits(elements, bytes).map(|bits| format!("{bits:.4} bits per weight"));
            sums.push([
                name.to_owned(),
                format!("{tensors} tensors"),
                format!("{elements} weights"),
                format!("{bytes} bytes"),
                bits.unwrap_or_default(),
            ]);
        };
        let by_type = self.by_type();
        by_type.iter().for_each(|(name, row)| sum(name, *row));
        sum("all", (self.tensors.len(), self.elements(), self.bytes()));
        columns(&mut out, "types", sums);
        out
    }
}

/// Bits of storage for each element.
fn bits(elements: usize, bytes: usize) -> Option<f64> {
    (elements > 0).then(|| bytes as f64 * 8.0 / elements as f64)
}

/// Adds a headed table whose columns are as wide as they must be.
fn columns<const N: usize>(out: &mut String, heading: &str, rows: Vec<[String; N]>) {
    let _ = write!(out, "\n{heading}\n");
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("  {cell:width$}"));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
}

/// A foreign text without what would move the cursor.
fn printable(text: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}

/// A value in one line.
fn short_text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string(&short_json(other)).unwrap_or_default(),
    };
    let text = printable(&text);
    match text.char_indices().nth(WIDEST) {
        None => text,
        Some((cut, _)) => format!("{}...", &text[..cut]),
    }
}

/// A value as JSON; long lists by their type and length.
fn short_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(array) if Array::len(array) > LONGEST => {
            json!({"type": array.type_name(), "length": array.len()})
        }
        // The shortest decimal.
        Value::F32(_) => json!(value.as_f64()),
        other => json!(other),
    }
}
