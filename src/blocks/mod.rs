//! Block formats: weights of a few bits, a fixed number of them together with the scales that they share.
//!
//! ```text
//! 32 numbers, 128 bytes   ->   Q8_0: [d: f16][32 x i8], 34 bytes   ->   32 numbers d * q
//! ```
//!
//! The formats, their names and their numbers are those of ggml, which GGUF files store; one row of `TABLE` says all
//! about one of them. What ggml can store and this file can only measure (lattice codebooks, integers) has a row
//! too, so that every file can be listed.
//!
//! Invariants: a row of a matrix is a whole number of blocks, and blocks follow each other without padding. Encoding
//! is deterministic: the same numbers give the same bytes on every machine, which are those of ggml's reference
//! functions (`quantize_row_*_ref`) compiled without fused multiply-adds. Decoding gives ggml's `f32` bits.
//!
//! Beside them stand encoders that weigh errors by what the numbers are multiplied by ([`ColumnStats`]); their blocks
//! are of the same formats, with other scales.
//!
//! Deliberately absent: files, tensors, threads.

use half::{bf16, f16};

use crate::dtype::DType;
use crate::error::{Error, Result};

mod choice;
mod codes;
mod columns;
mod error_weights;
mod feedback;
mod k_decode;
mod k_encode;
mod k_weighted;
mod legacy;
mod plain;
mod rounding;
mod scale;
mod sign;
mod sign_calibrated;
mod sign_encode;
mod sign_fit;
mod sign_matrix;
mod squared_error;
mod ternary;
mod weighted;
#[cfg(feature = "llvm-backend")]
mod whole;

use rounding::{round, round_small, truncate};
#[cfg(feature = "llvm-backend")]
pub(crate) use whole::{codes_of, factors_of, subtracted_scale};

pub use columns::ColumnStats;
pub(crate) use error_weights::ErrorWeights;
pub(crate) use feedback::BlockErrors;
pub(crate) use sign_encode::RowEncoder;
pub use sign_matrix::{PANEL_ROWS, SignFit, SignMatrix};
pub(crate) use squared_error::SquaredError;

/// More than any type of several numbers to a block can hold: the largest is an `f16` times 128 times 32. Far below it,
/// no sum of an encoder overflows.
const LARGEST: f32 = 3e8;

/// Decodes any number of whole blocks; the slices' lengths belong together.
type Decode = fn(&[u8], &mut [f32]);
/// Encodes any number of whole blocks of finite numbers; the slices' lengths belong together.
type Encode = fn(&[f32], &mut [u8]);

/// How the numbers of a tensor are stored in a GGUF file. The variants have ggml's names.
#[allow(
    non_camel_case_types,
    missing_docs,
    reason = "the variants are the names that files use"
)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum BlockType {
    F32,
    F16,
    BF16,
    F64,
    I8,
    I16,
    I32,
    I64,
    Q1_0,
    Q2_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    TQ1_0,
    TQ2_0,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    NVFP4,
}

/// What there is to know about a type.
struct Row {
    ty: BlockType,
    name: &'static str,
    /// Its number in a file.
    id: u32,
    /// Numbers in a block.
    len: usize,
    /// Bytes of a block.
    bytes: usize,
    /// Where in a block `f16` scales are.
    scales: &'static [usize],
    decode: Option<Decode>,
    encode: Option<Encode>,
}

/// A row: name, number, numbers and bytes of a block, where its scales are, decoder, encoder.
macro_rules! row {
    ($ty:ident, $id:literal, $len:literal, $bytes:literal, $scales:expr, $decode:expr, $encode:expr) => {
        Row {
            ty: BlockType::$ty,
            name: stringify!($ty),
            id: $id,
            len: $len,
            bytes: $bytes,
            scales: &$scales,
            decode: $decode,
            encode: $encode,
        }
    };
}

#[rustfmt::skip]
static TABLE: [Row; 35] = [
    row!(F32, 0, 1, 4, [], Some(plain::decode_f32), Some(plain::encode_f32)),
    row!(F16, 1, 1, 2, [0], Some(plain::decode_f16), Some(plain::encode_f16)),
    row!(BF16, 30, 1, 2, [], Some(plain::decode_bf16), Some(plain::encode_bf16)),
    row!(F64, 28, 1, 8, [], None, None),
    row!(I8, 24, 1, 1, [], None, None),
    row!(I16, 25, 1, 2, [], None, None),
    row!(I32, 26, 1, 4, [], None, None),
    row!(I64, 27, 1, 8, [], None, None),
    row!(Q1_0, 41, 128, 18, [0], Some(sign::decode_q1_0), Some(sign::encode_q1_0)),
    row!(Q2_0, 42, 64, 18, [0], Some(sign::decode_q2_0), Some(sign::encode_q2_0)),
    row!(Q4_0, 2, 32, 18, [0], Some(legacy::decode_q4_0), Some(legacy::encode_q4_0)),
    row!(Q4_1, 3, 32, 20, [0, 2], Some(legacy::decode_q4_1), Some(legacy::encode_q4_1)),
    row!(Q5_0, 6, 32, 22, [0], Some(legacy::decode_q5_0), Some(legacy::encode_q5_0)),
    row!(Q5_1, 7, 32, 24, [0, 2], Some(legacy::decode_q5_1), Some(legacy::encode_q5_1)),
    row!(Q8_0, 8, 32, 34, [0], Some(legacy::decode_q8_0), Some(legacy::encode_q8_0)),
    row!(Q8_1, 9, 32, 36, [0, 2], None, None),
    row!(Q2_K, 10, 256, 84, [80, 82], Some(k_decode::q2_k), None),
    row!(Q3_K, 11, 256, 110, [108], Some(k_decode::q3_k), None),
    row!(Q4_K, 12, 256, 144, [0, 2], Some(k_decode::q4_k), Some(k_encode::q4_k)),
    row!(Q5_K, 13, 256, 176, [0, 2], Some(k_decode::q5_k), None),
    row!(Q6_K, 14, 256, 210, [208], Some(k_decode::q6_k), Some(k_encode::q6_k)),
    row!(Q8_K, 15, 256, 292, [], None, None),
    row!(TQ1_0, 34, 256, 54, [52], Some(ternary::decode_tq1_0), Some(ternary::encode_tq1_0)),
    row!(TQ2_0, 35, 256, 66, [64], Some(ternary::decode_tq2_0), Some(ternary::encode_tq2_0)),
    row!(IQ1_S, 19, 256, 50, [0], None, None),
    row!(IQ1_M, 29, 256, 56, [], None, None),
    row!(IQ2_XXS, 16, 256, 66, [0], None, None),
    row!(IQ2_XS, 17, 256, 74, [0], None, None),
    row!(IQ2_S, 22, 256, 82, [0], None, None),
    row!(IQ3_XXS, 18, 256, 98, [0], None, None),
    row!(IQ3_S, 21, 256, 110, [0], None, None),
    row!(IQ4_NL, 20, 32, 18, [0], Some(legacy::decode_iq4_nl), None),
    row!(IQ4_XS, 23, 256, 136, [0], None, None),
    row!(MXFP4, 39, 32, 17, [], None, None),
    row!(NVFP4, 40, 64, 36, [], None, None),
];

impl BlockType {
    /// Every type.
    pub fn all() -> impl ExactSizeIterator<Item = BlockType> {
        TABLE.iter().map(|row| row.ty)
    }

    fn row(self) -> &'static Row {
        // The table is in the order of the variants.
        &TABLE[self as usize]
    }

    /// Its name, as ggml spells it: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The type with this name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<BlockType> {
        let mut rows = TABLE.iter();
        let row = rows.find(|row| row.name.eq_ignore_ascii_case(name))?;
        Some(row.ty)
    }

    /// Its number in a GGUF file.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// The type with this number.
    pub fn from_id(id: u32) -> Option<BlockType> {
        TABLE.iter().find(|row| row.id == id).map(|row| row.ty)
    }

    /// The numbers that a block holds.
    pub fn block_len(self) -> usize {
        self.row().len
    }

    /// The bytes that a block takes.
    pub fn block_bytes(self) -> usize {
        self.row().bytes
    }

    /// Where in a block the `f16` scales are; empty where scales are stored otherwise or not at all.
    pub fn scale_offsets(self) -> &'static [usize] {
        self.row().scales
    }

    /// Bits of storage for one number, scales included.
    pub fn bits_per_weight(self) -> f64 {
        (self.block_bytes() * 8) as f64 / self.block_len() as f64
    }

    /// The bytes of `n` numbers, or `None` when they are no whole number of blocks or the size overflows.
    pub fn bytes_of(self, n: usize) -> Option<usize> {
        match n.is_multiple_of(self.block_len()) {
            true => (n / self.block_len()).checked_mul(self.block_bytes()),
            false => None,
        }
    }

    /// The format of graphs with the same bytes, if there is one.
    pub fn to_dtype(self) -> Option<DType> {
        match self {
            BlockType::F32 => Some(DType::F32),
            BlockType::F16 => Some(DType::F16),
            BlockType::BF16 => Some(DType::BF16),
            BlockType::F64 => Some(DType::F64),
            BlockType::I32 => Some(DType::I32),
            _ => None,
        }
    }

    /// Whether [`BlockType::dequantize`] knows the type.
    pub fn can_dequantize(self) -> bool {
        self.row().decode.is_some()
    }

    /// Whether [`BlockType::quantize`] knows the type.
    pub fn can_quantize(self) -> bool {
        self.row().encode.is_some()
    }

    /// The numbers in `source`, which is any number of blocks.
    ///
    /// ```
    /// use brain_blitz::blocks::BlockType;
    /// let mut block = [0; 34];
    /// BlockType::Q8_0.quantize(&[2.5; 32], &mut block)?;
    /// let mut x = [0.0; 32];
    /// BlockType::Q8_0.dequantize(&block, &mut x)?;
    /// assert!((x[7] - 2.5).abs() < 1e-2);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the type has no decoder here.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    #[track_caller]
    pub fn dequantize(self, source: &[u8], target: &mut [f32]) -> Result<()> {
        self.check_lengths(target.len(), source.len());
        let unknown = || Error::msg(format!("there is no decoder for {self}"));
        self.row().decode.ok_or_else(unknown)?(source, target);
        Ok(())
    }

    /// Stores the numbers of `source`, a whole number of blocks.
    ///
    /// # Errors
    /// If the type has no encoder here, a number is not finite, or a block's numbers are so large that its scale
    /// overflows `f16`.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    #[track_caller]
    pub fn quantize(self, source: &[f32], target: &mut [u8]) -> Result<()> {
        self.quantize_from(0, source, target)
    }

    /// [`BlockType::quantize`] of numbers of which the first is element `first` for messages.
    ///
    /// # Errors
    /// As [`BlockType::quantize`].
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    #[track_caller]
    pub(crate) fn quantize_from(
        self,
        first: usize,
        source: &[f32],
        target: &mut [u8],
    ) -> Result<()> {
        self.check_lengths(source.len(), target.len());
        let unknown = || Error::msg(format!("there is no encoder for {self}"));
        let encode = self.row().encode.ok_or_else(unknown)?;
        let bound = if self.block_len() > 1 {
            LARGEST
        } else {
            f32::MAX
        };
        let wrong = |x: &f32| x.is_nan() | (x.abs() > bound);
        // To look at all of them is vector code; to stop at the first is not.
        if source.iter().fold(false, |any, x| any | wrong(x))
            && let Some(at) = source.iter().position(wrong)
        {
            let (element, x) = (first + at, source[at]);
            let what = format!("element {element} is {x}, which {self} cannot hold");
            return Err(Error::msg(what));
        }
        encode(source, target);
        let mut blocks = target.chunks_exact(self.block_bytes());
        match blocks.position(|block| self.overflows(block)) {
            None => Ok(()),
            Some(at) => {
                let element = first + at * self.block_len();
                let what = format!("numbers from element {element} on are too large for {self}");
                Err(Error::msg(what))
            }
        }
    }

    /// As [`BlockType::quantize`], with scales of least error where an error of a number in column k counts `columns[k]`
    /// times: the mean squares of [`ColumnStats`]. `source` is a part of a matrix with so many columns, from element
    /// `first` of it on. No block's weighted error is above that of [`BlockType::quantize`]'s; types without scales are the same.
    ///
    /// ```
    /// use brain_blitz::blocks::BlockType;
    /// let x: Vec<f32> = (0..32).map(|i| (i as f32).sin()).collect();
    /// let mut columns = [1.0; 32];
    /// columns[3] = 1000.0; // whatever this column is multiplied by is large
    /// let off = |weighted: bool| {
    ///     let (mut block, mut y) = ([0; 18], [0.0; 32]);
    ///     match weighted {
    ///         true => BlockType::Q4_0.quantize_weighted(&x, &columns, 0, &mut block)?,
    ///         false => BlockType::Q4_0.quantize(&x, &mut block)?,
    ///     }
    ///     BlockType::Q4_0.dequantize(&block, &mut y)?;
    ///     brain_blitz::Result::Ok((x[3] - y[3]).abs())
    /// };
    /// assert!(off(true)? < 0.2 * off(false)?);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`BlockType::quantize`], and if `columns` or `first` is no whole number of blocks.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    #[track_caller]
    pub fn quantize_weighted(
        self,
        source: &[f32],
        columns: &[f32],
        first: usize,
        target: &mut [u8],
    ) -> Result<()> {
        self.quantize_from(first, source, target)?;
        let len = self.block_len();
        if len == 1 {
            return Ok(());
        }
        if columns.is_empty() || !columns.len().is_multiple_of(len) || !first.is_multiple_of(len) {
            let what = format!(
                "{} columns from {first} on are no whole blocks",
                columns.len()
            );
            return Err(Error::msg(what));
        }
        let blocks = target.chunks_exact_mut(self.block_bytes());
        for (at, (x, block)) in source.chunks_exact(len).zip(blocks).enumerate() {
            let column = (first + at * len) % columns.len();
            weighted::improve(self, x, &columns[column..column + len], block);
        }
        Ok(())
    }

    /// [`BlockType::quantize_weighted`] where there are weights of columns, else plainly; the first number is element `first`.
    ///
    /// # Errors
    /// As [`BlockType::quantize_weighted`].
    pub(crate) fn quantize_by(
        self,
        columns: Option<&[f32]>,
        first: usize,
        source: &[f32],
        target: &mut [u8],
    ) -> Result<()> {
        match columns {
            None => self.quantize_from(first, source, target),
            Some(columns) => self.quantize_weighted(source, columns, first, target),
        }
    }

    #[track_caller]
    fn check_lengths(self, numbers: usize, bytes: usize) {
        let asked = self.bytes_of(numbers);
        assert!(
            asked == Some(bytes),
            "{self}: {numbers} numbers are not {bytes} bytes"
        );
    }

    fn overflows(self, block: &[u8]) -> bool {
        let word = |at: usize| [block[at], block[at + 1]];
        match self {
            BlockType::BF16 => !bf16::from_le_bytes(word(0)).is_finite(),
            _ => {
                let mut scales = self.scale_offsets().iter();
                scales.any(|&at| !f16::from_le_bytes(word(at)).is_finite())
            }
        }
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for BlockType {
    type Err = Error;

    fn from_str(text: &str) -> Result<BlockType> {
        BlockType::from_name(text)
            .ok_or_else(|| Error::msg(format!("`{text}` is not a type of GGUF files")))
    }
}

/// The `f16` at `at` of a block.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Stores `x`, rounded to `f16`, at `at` of a block.
fn put_half(block: &mut [u8], at: usize, x: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
}

/// `1 / d`, or 0 for 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Numbers without a pattern for tests, from -1 to 1.
#[cfg(test)]
pub(crate) fn test_numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
