//! Layers of signs, or of three values, in files: how they are declared, and how safetensors files hold them.
//!
//! A *low-bit layer* is a matrix `[rows, columns]` each of whose rows is one number, an `f16`, times -1 and 1, or times
//! -1, 0 and 1. A file declares it by a string under the key `brain_blitz.low_bit.` and the tensor's name in the file: what its
//! weights are (`signs`, `ternary`), a space, and what the inputs that it multiplies become (`f32`, `a8_tok`, `a4_tok`,
//! `a2_tok`, `signs`, `scaled_signs`; see [`SignInputs`]). Without the declaration such a tensor is like any other.
//!
//! | file | where the key is | what is stored |
//! |---|---|---|
//! | GGUF | metadata | a tensor of `Q1_0`, `Q2_0`, `TQ1_0` or any other type that has the numbers exactly |
//! | safetensors | `__metadata__` | instead of `NAME`: `NAME.signs` U8 `[rows, columns / 8]`, `NAME.scales` F16 `[rows]` and, for three values, `NAME.nonzero` U8 `[rows, columns / 8]` |
//!
//! Bit `i` of byte `j` of a row belongs to column `8 j + i`. A set bit of `signs` is +1, another -1; where `nonzero` is not set
//! the number is 0, and so is the bit of `signs`.
//!
//! Invariant: packing, reading and packing again gives the same bytes. What it deliberately does not do: several bases,
//! scales for groups of a row (those are block types), columns that are no multiple of 8.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;

use super::safetensors::{Checkpoint, write_with_metadata};
use super::tensor::{StoredType, TensorView};
use super::weights::Weights;
use super::{format_error, tensor_field};
use crate::blocks::{SignFit, SignMatrix};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::SignInputs;

/// What keys of declarations begin with.
pub const KEY_PREFIX: &str = "brain_blitz.low_bit.";

/// What the names of the parts of a packed tensor end with.
const PARTS: [&str; 3] = [".signs", ".scales", ".nonzero"];

/// What is declared of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LowBitLayer {
    /// Whether 0 is among the values.
    pub ternary: bool,
    /// What its inputs become.
    pub inputs: SignInputs,
}

/// The names of what inputs become.
const INPUTS: [(&str, SignInputs); 6] = [
    ("f32", SignInputs::Kept),
    ("a8_tok", SignInputs::Bytes),
    ("a4_tok", SignInputs::FourBits),
    ("a2_tok", SignInputs::TwoBits),
    ("signs", SignInputs::Signs),
    ("scaled_signs", SignInputs::ScaledSigns),
];

impl LowBitLayer {
    /// How weights become signs or three values: with scales that `f16` holds.
    pub fn fit(self) -> SignFit {
        SignFit {
            ternary: self.ternary,
            half_scales: true,
        }
    }

    /// The matrix that kernels read.
    ///
    /// # Errors
    /// If it is too large.
    pub fn matrix(self, rows: usize, columns: usize) -> Result<SignMatrix> {
        SignMatrix::new(rows, columns, 1 + usize::from(self.ternary))
    }
}

impl std::fmt::Display for LowBitLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weights = if self.ternary { "ternary" } else { "signs" };
        let mut names = INPUTS.iter();
        let inputs = names.find(|(_, inputs)| *inputs == self.inputs);
        write!(f, "{weights} {}", inputs.expect("all have names").0)
    }
}

impl std::str::FromStr for LowBitLayer {
    type Err = Error;

    fn from_str(text: &str) -> Result<LowBitLayer> {
        let (weights, inputs) = text.split_once(' ').unwrap_or((text, ""));
        let inputs = INPUTS.iter().find(|(name, _)| *name == inputs);
        match (weights, inputs) {
            ("signs" | "ternary", Some(&(_, inputs))) => Ok(LowBitLayer {
                ternary: weights == "ternary",
                inputs,
            }),
            _ => Err(Error::msg(format!(
                "{} is not `signs` or `ternary`, a space, and one of f32, a8_tok, a4_tok, a2_tok, signs, scaled_signs",
                super::quote(text)
            ))),
        }
    }
}

/// The layers that keys and strings declare, by the names of tensors.
///
/// # Errors
/// If one says something else; the message calls the file `file`.
pub(super) fn declared<'a>(
    file: &Path,
    entries: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<BTreeMap<String, LowBitLayer>> {
    let ours = entries.filter_map(|(key, text)| Some((key, key.strip_prefix(KEY_PREFIX)?, text)));
    let layer = |(key, name, text): (&str, &str, Option<&str>)| {
        let layer = match text {
            Some(text) => text.parse().map_err(|error: Error| error.to_string()),
            None => Err("is no string".to_owned()),
        };
        let layer = layer.map_err(|what| format_error(file, key, None, what))?;
        Ok((name.to_owned(), layer))
    };
    ours.map(layer).collect()
}

/// Replaces the file at `path` by a safetensors file with these tensors, of which the `F32` matrices among `layers` are
/// rounded to signs or three values and packed.
///
/// # Errors
/// If a layer is not among the tensors, is no `F32` matrix with a multiple of 8 columns, has numbers that `f16` scales cannot
/// stand for, or writing fails.
pub fn write_packed(
    path: impl AsRef<Path>,
    tensors: &[TensorView],
    layers: &BTreeMap<String, LowBitLayer>,
) -> Result<()> {
    let path = path.as_ref();
    let mut all = Vec::new();
    for tensor in tensors {
        match layers.get(&tensor.name) {
            None => all.push(tensor.clone()),
            Some(layer) => {
                let parts = pack(tensor, *layer);
                let failed = |error: Error| {
                    format_error(path, tensor_field(&tensor.name), None, error.to_string())
                };
                all.extend(parts.map_err(failed)?);
            }
        }
    }
    let missing = |name: &&String| !tensors.iter().any(|tensor| tensor.name == **name);
    if let Some(name) = layers.keys().find(missing) {
        return Err(format_error(path, tensor_field(name), None, "is not there"));
    }
    let declared = layers
        .iter()
        .map(|(name, layer)| (format!("{KEY_PREFIX}{name}"), layer.to_string()));
    write_with_metadata(path, &all, &declared.collect())
}

/// The parts of a layer.
fn pack(tensor: &TensorView, layer: LowBitLayer) -> Result<Vec<TensorView>> {
    let &[rows, columns] = &tensor.shape[..] else {
        return Err(Error::msg("is no matrix"));
    };
    if tensor.dtype != StoredType::F32 || columns % 8 != 0 {
        return Err(Error::msg(
            "is not of the type F32, or its columns are no multiple of 8",
        ));
    }
    let aligned = tensor.convert_to(DType::F32)?;
    let rounded = round(bytemuck::cast_slice(&aligned), rows, columns, layer)?;
    let scale = |row: &[f32]| {
        let size = row.iter().fold(0.0f32, |size, x| size.max(x.abs()));
        f16::from_f32(size)
    };
    // A matrix without columns has no rows to look at.
    let mut scales: Vec<f16> = rounded.chunks(columns.max(1)).map(scale).collect();
    scales.resize(rows, f16::ZERO);
    let bits = |is: fn(f32) -> bool| -> Vec<u8> {
        let byte = |eight: &[f32]| {
            let bit = |(i, x): (usize, &f32)| u8::from(is(*x)) << i;
            eight.iter().enumerate().map(bit).sum()
        };
        rounded.chunks_exact(8).map(byte).collect()
    };
    let name = |part: &str| format!("{}{part}", tensor.name);
    let shape = [rows, columns / 8];
    let signs: Vec<u8> = match layer.ternary {
        true => bits(|x| x > 0.0),
        false => bits(|x| x.is_sign_positive()),
    };
    let scales: Vec<u16> = scales.into_iter().map(f16::to_bits).collect();
    let mut parts = vec![
        TensorView::from_slice(name(".signs"), StoredType::U8, &shape, &signs),
        TensorView::from_slice(name(".scales"), StoredType::F16, &[rows], &scales),
    ];
    if layer.ternary {
        let nonzero = bits(|x| x != 0.0);
        parts.push(TensorView::from_slice(
            name(".nonzero"),
            StoredType::U8,
            &shape,
            &nonzero,
        ));
    }
    Ok(parts)
}

/// The numbers that a layer with these weights has.
///
/// # Errors
/// If a weight is not finite, or a scale is more than `f16` holds.
pub fn round(numbers: &[f32], rows: usize, columns: usize, layer: LowBitLayer) -> Result<Vec<f32>> {
    let matrix = layer.matrix(rows, columns)?;
    let mut bytes = vec![0; matrix.bytes()];
    matrix.encode(layer.fit(), numbers, &mut bytes)?;
    let mut rounded = vec![0.0; numbers.len()];
    matrix.numbers(&bytes, &mut rounded);
    Ok(rounded)
}

/// A checkpoint, some of whose tensors are packed.
pub(super) struct Packed {
    checkpoint: Checkpoint,
    layers: BTreeMap<String, LowBitLayer>,
}

impl Packed {
    /// The checkpoint, or itself again if it declares no layer.
    ///
    /// # Errors
    /// If a declaration is not understood, or a part of a layer is missing or has another type or shape.
    pub(super) fn new(checkpoint: Checkpoint) -> Result<Result<Packed, Checkpoint>> {
        let entries = checkpoint.metadata().iter();
        let entries = entries.map(|(key, text)| (key.as_str(), Some(text.as_str())));
        let layers = declared(checkpoint.source(), entries)?;
        if layers.is_empty() {
            return Ok(Err(checkpoint));
        }
        let packed = Packed { checkpoint, layers };
        for (name, layer) in &packed.layers {
            packed.parts(name, *layer)?;
        }
        Ok(Ok(packed))
    }

    /// Sizes, signs, scales and, of three values, which are not 0.
    fn parts(&self, name: &str, layer: LowBitLayer) -> Result<([usize; 2], Vec<TensorView>)> {
        let n = PARTS.len() - usize::from(!layer.ternary);
        let part = |part: &&str| self.checkpoint.get(&format!("{name}{part}"));
        let parts: Vec<TensorView> = PARTS[..n].iter().map(part).collect::<Result<_>>()?;
        let wrong = |at: usize, what: String| {
            let field = tensor_field(&parts[at].name);
            Err(format_error(self.source(), field, None, what))
        };
        let &[rows, bytes] = &parts[0].shape[..] else {
            return wrong(
                0,
                format!("has the shape {:?}, of no matrix", parts[0].shape),
            );
        };
        // Without rows any number of columns takes no bytes.
        let Some(columns) = bytes.checked_mul(8) else {
            return wrong(0, format!("has {bytes} bytes for the bits of a row"));
        };
        let asked = [
            (StoredType::U8, vec![rows, bytes]),
            (StoredType::F16, vec![rows]),
            (StoredType::U8, vec![rows, bytes]),
        ];
        for (at, (part, (ty, shape))) in parts.iter().zip(asked).enumerate() {
            if (part.dtype, &part.shape) != (ty, &shape) {
                let (own, ty) = (part.dtype.name(), ty.name());
                return wrong(at, format!("is {own}{:?}, not {ty}{shape:?}", part.shape));
            }
        }
        Ok(([rows, columns], parts))
    }

    /// The numbers of a layer.
    fn numbers(&self, name: &str, layer: LowBitLayer) -> Result<TensorView> {
        let ([rows, columns], parts) = self.parts(name, layer)?;
        let bit = |part: &TensorView, i: usize| part.bytes[i / 8] >> (i % 8) & 1 == 1;
        let scale = |row: usize| {
            let at = &parts[1].bytes[2 * row..];
            f16::from_le_bytes([at[0], at[1]]).to_f32()
        };
        let number = |i: usize| match parts.get(2).is_none_or(|nonzero| bit(nonzero, i)) {
            false => 0.0,
            true if bit(&parts[0], i) => scale(i / columns),
            true => -scale(i / columns),
        };
        let numbers: Vec<f32> = (0..rows * columns).map(number).collect();
        let shape = [rows, columns];
        Ok(TensorView::from_slice(
            name,
            StoredType::F32,
            &shape,
            &numbers,
        ))
    }
}

impl Weights for Packed {
    fn source(&self) -> &Path {
        self.checkpoint.source()
    }

    fn names(&self) -> Vec<&str> {
        let is_part = |name: &&str| {
            let mut whole = PARTS.iter().filter_map(|part| name.strip_suffix(part));
            whole.any(|whole| self.layers.contains_key(whole))
        };
        let plain = self.checkpoint.names().filter(|name| !is_part(name));
        plain
            .chain(self.layers.keys().map(String::as_str))
            .collect()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        match self.layers.contains_key(name) {
            true => Some(StoredType::F32),
            false => Weights::stored_type(&self.checkpoint, name),
        }
    }

    fn get(&self, name: &str) -> Result<TensorView> {
        match self.layers.get(name) {
            Some(layer) => self.numbers(name, *layer),
            None => self.checkpoint.get(name),
        }
    }

    fn low_bit(&self, name: &str) -> Option<LowBitLayer> {
        self.layers.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, numbers: &[f32], columns: usize) -> TensorView {
        let shape = [numbers.len() / columns, columns];
        TensorView::from_slice(name, StoredType::F32, &shape, numbers)
    }

    fn waves(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7).sin() * 0.3).collect()
    }

    fn open(path: &Path) -> Packed {
        let checkpoint = Checkpoint::open(path).unwrap();
        Packed::new(checkpoint).unwrap().ok().unwrap()
    }

    #[test]
    fn layers_are_packed_read_and_packed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (
            folder.path().join("a.safetensors"),
            folder.path().join("b.safetensors"),
        );
        let inputs = [SignInputs::Bytes, SignInputs::ScaledSigns];
        let layer = |i: usize| LowBitLayer {
            ternary: i == 1,
            inputs: inputs[i],
        };
        let layers: BTreeMap<String, LowBitLayer> =
            [("one".to_owned(), layer(0)), ("three".to_owned(), layer(1))].into();
        let rows = waves(5 * 24);
        let tensors = [
            tensor("one", &rows, 24),
            tensor("three", &rows, 24),
            tensor("plain.signs", &rows[..24], 24),
        ];
        write_packed(&first, &tensors, &layers).unwrap();
        let read = open(&first);
        assert_eq!(read.names(), ["plain.signs", "one", "three"]);
        assert_eq!(read.low_bit("three"), Some(layer(1)));
        assert_eq!(read.low_bit("plain.signs"), None);
        assert_eq!(read.get("plain.signs").unwrap(), tensors[2]);
        let all: Vec<TensorView> = ["one", "three"].map(|name| read.get(name).unwrap()).into();
        for (at, tensor) in all.iter().enumerate() {
            let numbers: &[f32] = bytemuck::cast_slice(&tensor.bytes);
            assert_eq!(numbers, round(&rows, 5, 24, layer(at)).unwrap());
            for (x, y) in numbers.chunks(24).zip(rows.chunks(24)) {
                let size = x.iter().fold(0f32, |size, x| size.max(x.abs()));
                assert_eq!(f16::from_f32(size).to_f32(), size);
                assert!(x.iter().all(|x| x.abs() == size || at == 1 && *x == 0.0));
                assert!(x.iter().zip(y).all(|(x, y)| x * y >= 0.0));
            }
            assert_eq!(numbers.contains(&0.0), at == 1);
        }
        let again = [all[0].clone(), all[1].clone(), tensors[2].clone()];
        write_packed(&second, &again, &layers).unwrap();
        assert_eq!(
            std::fs::read(&first).unwrap(),
            std::fs::read(&second).unwrap()
        );
    }

    #[test]
    fn bits_lie_as_the_header_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut row = [-2.0; 16];
        (row[0], row[9], row[3]) = (2.0, 2.0, 0.0);
        let layer = LowBitLayer {
            ternary: true,
            inputs: SignInputs::Kept,
        };
        write_packed(
            &path,
            &[tensor("w", &row, 16)],
            &[("w".into(), layer)].into(),
        )
        .unwrap();
        let file = Checkpoint::open(&path).unwrap();
        assert_eq!(file.metadata()["brain_blitz.low_bit.w"], "ternary f32");
        assert_eq!(file.get("w.signs").unwrap().bytes[..], [0b1, 0b10]);
        assert_eq!(
            file.get("w.nonzero").unwrap().bytes[..],
            [0b1111_0111, 0xff]
        );
        assert_eq!(
            file.get("w.scales").unwrap().bytes[..],
            f16::from_f32(2.0).to_le_bytes()
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let layer = LowBitLayer {
            ternary: false,
            inputs: SignInputs::Bytes,
        };
        let fail = |tensors: &[TensorView], name: &str| {
            let layers = [(name.to_owned(), layer)].into();
            write_packed(&path, tensors, &layers)
                .unwrap_err()
                .to_string()
        };
        let odd = tensor("w", &waves(12), 12);
        assert!(fail(&[odd], "w").contains("no multiple of 8"));
        assert!(fail(&[tensor("w", &waves(8), 8)], "v").contains("\"v\": is not there"));
        let open = |tensors: &[TensorView], said: &str| {
            let said = [(format!("{KEY_PREFIX}w"), said.to_owned())].into();
            write_with_metadata(&path, tensors, &said).unwrap();
            let packed = Packed::new(Checkpoint::open(&path).unwrap());
            packed.map(drop).unwrap_err().to_string()
        };
        let signs = TensorView::from_slice("w.signs", StoredType::U8, &[2, 1], &[0u8, 1]);
        let scales = TensorView::from_slice("w.scales", StoredType::F16, &[3], &[0u16; 3]);
        let why = open(&[signs.clone(), scales], "signs a8_tok");
        assert!(
            why.contains("w.scales") && why.contains("is F16[3], not F16[2]"),
            "{why}"
        );
        assert!(open(std::slice::from_ref(&signs), "signs a8_tok").contains("w.scales"));
        let endless = TensorView::from_slice("w.signs", StoredType::U8, &[0, 1 << 61], &[0u8; 0]);
        let scales = TensorView::from_slice("w.scales", StoredType::F16, &[0], &[0u16; 0]);
        let why = open(&[endless, scales], "signs a8_tok");
        assert!(why.contains("2305843009213693952 bytes"), "{why}");
        let why = open(&[signs], "signs of the times");
        assert!(
            why.contains("\"signs of the times\" is not `signs`"),
            "{why}"
        );
    }
}
