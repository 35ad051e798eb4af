//! Number formats of tensors.
//!
//! A [`DType`] says how one element is stored. Arithmetic on `F16` and `BF16` is done in `f32` and rounded to the
//! format after every operation; `Bool` is one byte holding 0 or 1, with `or` as its addition and `and` as its
//! multiplication. `U8` is for storage: it is copied, indexed and cast.

use crate::error::{Error, Result};

/// The number format of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Two's complement 32-bit integers; arithmetic wraps.
    I32,
    /// Bytes without arithmetic, 0 to 255: what blocks of low-bit weights are stored as.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// All formats, in declaration order.
    pub const ALL: [DType; 7] = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U8,
        DType::Bool,
    ];

    /// The formats that have an arithmetic, in declaration order.
    pub const NUMERIC: [DType; 6] = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::Bool,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// The short lower-case name, as in the graph's text form.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }

    /// Whether the format holds fractions.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<DType> {
        DType::ALL
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| {
                Error::Message(format!(
                    "unknown number format `{text}`; known: f32, f64, f16, bf16, i32, u8, bool"
                ))
            })
    }
}
