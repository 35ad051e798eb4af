//! A checkpoint, or a GGUF file, as a GGUF file with weights of another type.
//!
//! Matrices are stored in the type that is asked for, or in the nearest one whose blocks fit their rows; the report says
//! which. Vectors (norms) stay `F32`, and integers stay as they are. Data goes from the mapped input to the output in small
//! pieces, so the memory that is needed does not depend on the model.
//!
//! Layers that are declared to be of signs or of three values ([`LowBitLayer`]) stay so, whatever is asked for: they get
//! the smallest type that has their numbers exactly, and their declaration.
//!
//! The chat template of a checkpoint's folder goes along, and its tokenizer as the text of its `tokenizer.json`
//! (`tokenizer.huggingface.json`, a key that the format defines), which is exact, and as llama.cpp's lists where these
//! say the same.
//!
//! With a [`Calibration`] scales are chosen for the least error in what the model computes; with mean products in it, or asked
//! for a few matrices at a time ([`convert_with`]), errors of columns make up for each other too. The formats are the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::bytes::Bytes;
use super::super::calibration::Calibration;
use super::super::low_bit::{self, LowBitLayer};
use super::super::model_config::ModelConfig;
use super::super::tensor::{StoredType, TensorView};
use super::super::weights::open_folder;
use super::super::{chat_template, format_error, tokenizer};
use super::architecture::{Architecture, EMBEDDING, OUTPUT, ROPE_FACTORS, place};
use super::moments::{Known, Moments};
use super::recode::Recoding;
use super::{BlockTensor, Gguf, TensorInfo, Writer, is_gguf, tensor_field, tokenizer_write};
use crate::blocks::{BlockErrors, BlockType, ColumnStats};
use crate::error::{Error, Result};
use crate::exec::pool::default_threads;
use crate::nn::RopeScaling;

/// The key of what most weights are stored as.
const FILE_TYPE_KEY: &str = "general.file_type";
/// The version of ggml's block formats.
const QUANTIZATION_VERSION: u32 = 2;
/// The key of a tokenizer in the form of the `tokenizers` library.
pub(in super::super) const TOKENIZER_KEY: &str = "tokenizer.huggingface.json";

/// How a file is converted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The type of matrices.
    pub quant: BlockType,
    /// The type of the embedding and of the output layer, which are one matrix in many models. By default the output
    /// layer's is [`BlockType::of_output_layer`], and that of an embedding which is none the others', but 8 bits where
    /// those have fewer than three.
    pub embedding: Option<BlockType>,
    /// Other types of some matrices, by the names that the crate's models give their parameters.
    pub types: BTreeMap<String, BlockType>,
    /// What matrices are multiplied by, by such names or those of the input's tensors: errors in columns count by it.
    pub calibration: Arc<Calibration>,
    /// Threads that search for scales; by default as many as the machine has cores.
    pub threads: Option<usize>,
}

impl Options {
    /// All matrices of type `quant`, but see [`Options::embedding`].
    pub fn new(quant: BlockType) -> Options {
        Options {
            quant,
            embedding: None,
            types: BTreeMap::new(),
            calibration: Arc::default(),
            threads: None,
        }
    }

    /// Checks that there are encoders.
    fn check(&self) -> Result<()> {
        let other = self.types.values().copied();
        let mut all = other.chain([self.quant, self.output_type()]);
        match all.find(|ty| !ty.can_quantize()) {
            Some(ty) => Err(Error::msg(format!("there is no encoder for {ty}"))),
            None => Ok(()),
        }
    }

    /// The type of the output layer.
    fn output_type(&self) -> BlockType {
        self.embedding
            .unwrap_or_else(|| self.quant.of_output_layer())
    }

    /// The type of the embedding; `has_output` says whether another matrix is the output layer.
    fn embedding_type(&self, has_output: bool) -> BlockType {
        let default = self.quant.of_embedding(has_output);
        self.embedding.unwrap_or(default)
    }
}

/// What became of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Its name in the new file.
    pub name: String,
    /// The parameter that it is in the crate's models, else its name in the input.
    pub parameter: String,
    /// How it was stored.
    pub from: BlockType,
    /// How it is stored now.
    pub to: BlockType,
    /// What was asked for, if its rows do not fit that.
    pub instead_of: Option<BlockType>,
    /// Whether scales were chosen by what the tensor is multiplied by.
    pub calibrated: bool,
    /// The number of elements.
    pub elements: usize,
    /// Bytes before and after.
    pub bytes: (usize, usize),
}

impl Converted {
    /// Whether it was rounded to blocks with scales of `f16`, and is neither the embedding nor the output layer.
    pub fn has_new_scales(&self) -> bool {
        let is_rounded = self.from != self.to && self.to.block_len() > 1;
        let is_inner = !matches!(self.name.as_str(), EMBEDDING | OUTPUT);
        is_rounded && is_inner && !self.to.scale_offsets().is_empty()
    }
}

/// A tensor that is to be converted.
pub(super) struct Item {
    pub(super) tensor: BlockTensor,
    /// The parameter that it is in the crate's models, else its own name.
    pub(super) parameter: String,
    /// What is added to its numbers.
    add: f32,
    /// The order in which its rows are written, if it is another one.
    rows: Option<Vec<usize>>,
    /// What the input declares of it.
    low_bit: Option<LowBitLayer>,
}

impl Item {
    /// What is known about its columns.
    pub(super) fn stats<'a>(&self, calibration: &'a Calibration) -> Option<&'a Arc<ColumnStats>> {
        let stats = calibration.get(&self.parameter);
        stats.or_else(|| calibration.get(&self.tensor.name))
    }

    /// Hands on its numbers as blocks of type `to`, on so many threads, with what is known about its columns.
    ///
    /// # Errors
    /// As [`Recoding::run`], and if the calibration is of another model.
    fn recode(
        &self,
        to: BlockType,
        (stats, n_threads): (Option<&ColumnStats>, usize),
        emit: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (bytes, width) = (&self.tensor.bytes, self.tensor.shape.last());
        if let Some(stats) = stats.filter(|stats| Some(&stats.columns()) != width) {
            let what = format!("is calibrated with {} columns", stats.columns());
            return Err(Error::msg(format!(
                "{what}, but has {}",
                width.unwrap_or(&0)
            )));
        }
        let errors = stats
            .filter(|_| to.block_len() > 1)
            .map(|stats| BlockErrors::of(to, stats));
        let recoding = Recoding {
            from: self.tensor.ty,
            to,
            add: self.add,
            errors: errors.as_ref(),
            n_threads,
        };
        let Some(rows) = &self.rows else {
            return recoding.run(0, bytes, emit);
        };
        let row = bytes.len() / rows.len().max(1);
        let elements = self.tensor.elements() / rows.len().max(1);
        let mut rows = rows.iter();
        rows.try_for_each(|&i| recoding.run(i * elements, &bytes[i * row..][..row], emit))
    }
}

/// Converts the checkpoint's folder or GGUF file at `input` to a GGUF file at `output`, which is replaced in one step.
/// `progress` is told the bytes of the input that are done, and all.
///
/// # Errors
/// If the input is damaged, its model is one that GGUF files here do not describe, a number does not fit the type, or the
/// file cannot be written.
pub fn convert(
    input: &Path,
    output: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Converted>> {
    convert_with(input, output, options, None, progress)
}

/// As [`convert`], but what matrices are multiplied by is asked for when their turn comes, a few matrices at a time: mean
/// products of all of them may be more than there is memory for. `moments` is told the parameters of which
/// products are wanted, and gives a calibration that has these and the mean squares of all.
///
/// # Errors
/// As [`convert`], and those of `moments`.
pub fn convert_with(
    input: &Path,
    output: &Path,
    options: &Options,
    moments: Option<&mut Moments<'_>>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Converted>> {
    options.check()?;
    let (mut writer, items) = match is_gguf(input) {
        true => of_gguf(input)?,
        false => of_folder(input)?,
    };
    writer.set("general.quantization_version", QUANTIZATION_VERSION);
    if let Some(number) = file_type(options.quant) {
        writer.set(FILE_TYPE_KEY, number);
    }
    let has_output = items.iter().any(|item| item.tensor.name == OUTPUT);
    let planned = items.iter().map(|item| plan(item, options, has_output));
    let mut report: Vec<Converted> = planned.collect();
    for (item, planned) in items.iter().zip(&report) {
        writer.tensor(&item.tensor.name, planned.to, &item.tensor.shape);
    }
    let total = items
        .iter()
        .map(|item| item.tensor.bytes.len() as u64)
        .sum();
    let mut done = 0;
    progress(done, total);
    let n_threads = options.threads.unwrap_or_else(default_threads);
    let mut known = Known::new(&items, &report, options, moments);
    let mut next = 0..items.len();
    writer.write(output, &mut |info: &TensorInfo, sink| {
        let at = next
            .next()
            .expect("the writer asks for each tensor once, in order");
        let (item, stats) = (&items[at], known.stats(at)?);
        report[at].calibrated = stats.is_some() && info.ty.block_len() > 1;
        let stats = stats.as_deref();
        let (bytes, size) = (item.tensor.bytes.len() as u64, info.size().max(1) as u64);
        let mut written = 0;
        let recoded = item.recode(info.ty, (stats, n_threads), &mut |piece| {
            written += piece.len() as u64;
            let part = u128::from(bytes) * u128::from(written) / u128::from(size);
            progress(done + part as u64, total);
            sink.write(piece)
        });
        done += bytes;
        recoded.map_err(|error| match error {
            Error::Message(what) => {
                format_error(input, tensor_field(&item.tensor.name), None, what)
            }
            other => other,
        })
    })?;
    Ok(report)
}

/// The metadata and the tensors of a GGUF file, which keep their names and their order.
fn of_gguf(input: &Path) -> Result<(Writer, Vec<Item>)> {
    let file = Gguf::open(input)?;
    let mut writer = Writer::new();
    for (key, value) in file.metadata() {
        // The new file has another.
        if key != FILE_TYPE_KEY {
            writer.set(key, value.clone());
        }
    }
    let layers = file.low_bit_layers()?;
    let architecture = Architecture::of(&file).ok();
    let items = file.tensors().iter().map(|info| {
        let parameter = architecture.and_then(|known| known.parameter_name(&info.name));
        Ok(Item {
            tensor: file.get(&info.name)?,
            parameter: parameter.unwrap_or_else(|| info.name.clone()),
            add: 0.0,
            rows: None,
            low_bit: layers.get(&info.name).copied(),
        })
    });
    Ok((writer, items.collect::<Result<_>>()?))
}

/// The configuration as metadata, and the tensors under the names of GGUF files, of a checkpoint's folder.
fn of_folder(input: &Path) -> Result<(Writer, Vec<Item>)> {
    let config = ModelConfig::open(input)?;
    let weights = open_folder(input)?;
    let mut writer = Writer::new();
    config.to_gguf(&mut writer)?;
    if let Some(text) = tokenizer::text_of_folder(input)? {
        let starts = tokenizer::adds_bos_in_folder(input, text.as_bytes())?;
        tokenizer_write::add_lists(&text, config.vocab_size(), starts, &mut writer);
        writer.set(TOKENIZER_KEY, text);
    }
    if let Some(template) = chat_template::of_folder(input)? {
        writer.set(chat_template::KEY, template);
    }
    let mut items: Vec<Item> = rope_factors(&config).into_iter().collect();
    for parameter in weights.names() {
        // Some checkpoints have the embedding twice.
        if parameter == "lm_head.weight" && config.is_tied() {
            continue;
        }
        let item = item(&config, weights.get(parameter)?);
        let file = weights.source();
        let wrong = |what| format_error(file, tensor_field(parameter), None, what);
        let low_bit = weights.low_bit(parameter);
        let item = Item {
            low_bit,
            ..item.map_err(wrong)?
        };
        if let Some(layer) = low_bit {
            let key = format!("{}{}", low_bit::KEY_PREFIX, item.tensor.name);
            writer.set(key, layer.to_string());
        }
        items.push(item);
    }
    items.sort_by_key(|item| place(&item.tensor.name));
    Ok((writer, items))
}

/// A parameter as a file of the model's architecture has it, or what is wrong with it.
fn item(config: &ModelConfig, tensor: TensorView) -> Result<Item, String> {
    let architecture = Architecture::of_model(config);
    let name = architecture.tensor_name(&tensor.name);
    let name = name.ok_or("is no parameter of the model")?;
    let ty = match tensor.dtype {
        StoredType::F32 => BlockType::F32,
        StoredType::F16 => BlockType::F16,
        StoredType::BF16 => BlockType::BF16,
        other => {
            let name = other.name();
            return Err(format!("is of the type {name}, which is not converted"));
        }
    };
    let add = if architecture.adds_one(&name) {
        1.0
    } else {
        0.0
    };
    let is_turned = [".attn_q.", ".attn_k."]
        .iter()
        .any(|part| name.contains(part));
    let is_turned = is_turned && architecture.has_neighbours();
    let (n_rows, head_dim) = (tensor.shape.first().copied(), config.head_dim());
    let n_rows = n_rows.unwrap_or(0);
    if is_turned && !n_rows.is_multiple_of(head_dim) {
        return Err(format!(
            "has {n_rows} rows, which are no whole heads of {head_dim}"
        ));
    }
    let rows = is_turned.then(|| neighbours(n_rows, head_dim));
    let (parameter, shape, bytes) = (tensor.name, tensor.shape, tensor.bytes);
    let tensor = BlockTensor {
        name,
        ty,
        shape,
        bytes,
    };
    Ok(Item {
        tensor,
        parameter,
        add,
        rows,
        low_bit: None,
    })
}

/// The rows of heads of this width in an order in which what was half a head apart are neighbours.
fn neighbours(n_rows: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    let row = |i: usize| {
        let (head, within) = (i / head_dim * head_dim, i % head_dim);
        head + within / 2 + within % 2 * half
    };
    (0..n_rows).map(row).collect()
}

/// What Llama 3's frequencies are divided by, as a tensor.
fn rope_factors(config: &ModelConfig) -> Option<Item> {
    let ModelConfig::Llama(config) = config else {
        return None;
    };
    if matches!(config.rope.scaling, RopeScaling::Linear(_)) {
        return None;
    }
    let factors = config.rope.factors(config.head_dim)?;
    let numbers: &[u8] = bytemuck::cast_slice(&factors);
    let bytes = Bytes::build(numbers.len(), |target| target.copy_from_slice(numbers));
    let tensor = BlockTensor {
        name: ROPE_FACTORS.to_owned(),
        ty: BlockType::F32,
        shape: vec![factors.len()],
        bytes,
    };
    Some(Item {
        tensor,
        parameter: ROPE_FACTORS.to_owned(),
        add: 0.0,
        rows: None,
        low_bit: None,
    })
}

/// How a tensor is to be stored; `has_output` says whether the model has an output layer beside its embedding.
fn plan(item: &Item, options: &Options, has_output: bool) -> Converted {
    let other = options.types.get(&item.parameter);
    let wanted = match item.tensor.name.as_str() {
        _ if !item.tensor.ty.can_dequantize() => item.tensor.ty,
        _ if item.tensor.shape.iter().filter(|&&n| n != 1).count() < 2 => BlockType::F32,
        EMBEDDING => *other.unwrap_or(&options.embedding_type(has_output)),
        OUTPUT => *other.unwrap_or(&options.output_type()),
        _ => *other.unwrap_or(&options.quant),
    };
    let row = item.tensor.shape.last().copied().unwrap_or(1);
    let (wanted, to) = match item.low_bit {
        Some(layer) => (exact(layer, row), exact(layer, row)),
        None => (wanted, wanted.fitting(row)),
    };
    let elements = item.tensor.elements();
    let size = to.bytes_of(elements).expect("the rows are whole blocks");
    Converted {
        name: item.tensor.name.clone(),
        parameter: item.parameter.clone(),
        from: item.tensor.ty,
        to,
        instead_of: (to != wanted).then_some(wanted),
        calibrated: false,
        elements,
        bytes: (item.tensor.bytes.len(), size),
    }
}

/// The smallest type that has the numbers of such a layer exactly, and whose blocks fit rows of `row` elements.
fn exact(layer: LowBitLayer, row: usize) -> BlockType {
    let smallest = match layer.ternary {
        true => BlockType::TQ1_0,
        false => BlockType::Q1_0,
    };
    let mut candidates = [smallest, BlockType::Q2_0].into_iter();
    let fits = |ty: &BlockType| row.is_multiple_of(ty.block_len());
    candidates.find(fits).unwrap_or(BlockType::F16)
}

/// The number that llama.cpp has for files whose matrices are of type `ty`.
fn file_type(ty: BlockType) -> Option<u32> {
    Some(match ty {
        BlockType::F32 => 0,
        BlockType::F16 => 1,
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q8_0 => 7,
        BlockType::Q5_0 => 8,
        BlockType::Q5_1 => 9,
        BlockType::Q4_K => 14,
        BlockType::Q6_K => 18,
        BlockType::BF16 => 32,
        BlockType::TQ1_0 => 36,
        BlockType::TQ2_0 => 37,
        BlockType::Q1_0 => 40,
        _ => return None,
    })
}
