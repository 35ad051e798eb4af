//! The values of a GGUF file's metadata.

use serde::Serialize;

/// A value of the metadata.
#[allow(missing_docs, reason = "the variants are named after what they hold")]
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// Values of one type.
#[allow(missing_docs, reason = "the variants are named after what they hold")]
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
}

/// The numbers that files have for types.
pub(super) mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

impl Value {
    /// The number that files have for its type.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Value::U8(_) => kind::U8,
            Value::I8(_) => kind::I8,
            Value::U16(_) => kind::U16,
            Value::I16(_) => kind::I16,
            Value::U32(_) => kind::U32,
            Value::I32(_) => kind::I32,
            Value::U64(_) => kind::U64,
            Value::I64(_) => kind::I64,
            Value::F32(_) => kind::F32,
            Value::F64(_) => kind::F64,
            Value::Bool(_) => kind::BOOL,
            Value::String(_) => kind::STRING,
            Value::Array(_) => kind::ARRAY,
        }
    }

    /// Its type in words, for messages and listings.
    pub fn type_name(&self) -> String {
        match self {
            Value::Array(array) => format!("[{}; {}]", array.type_name(), array.len()),
            scalar => kind_name(scalar.kind()).to_owned(),
        }
    }

    /// An integer of any type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(x) => Some(x.into()),
            Value::U16(x) => Some(x.into()),
            Value::U32(x) => Some(x.into()),
            Value::U64(x) => Some(x),
            Value::I8(x) => x.try_into().ok(),
            Value::I16(x) => x.try_into().ok(),
            Value::I32(x) => x.try_into().ok(),
            Value::I64(x) => x.try_into().ok(),
            _ => None,
        }
    }

    /// A floating-point number. An `f32` becomes the `f64` of the same shortest decimal, so that `1e-6` stays `1e-6`.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(x) => x.to_string().parse().ok(),
            Value::F64(x) => Some(x),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(x) => Some(x),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(x) => Some(x),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(x) => Some(x),
            _ => None,
        }
    }
}

impl Array {
    /// The number that files have for the type of its elements.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Array::U8(_) => kind::U8,
            Array::I8(_) => kind::I8,
            Array::U16(_) => kind::U16,
            Array::I16(_) => kind::I16,
            Array::U32(_) => kind::U32,
            Array::I32(_) => kind::I32,
            Array::U64(_) => kind::U64,
            Array::I64(_) => kind::I64,
            Array::F32(_) => kind::F32,
            Array::F64(_) => kind::F64,
            Array::Bool(_) => kind::BOOL,
            Array::String(_) => kind::STRING,
            Array::Array(_) => kind::ARRAY,
        }
    }

    /// The type of its elements in words.
    pub fn type_name(&self) -> &'static str {
        kind_name(self.kind())
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(x) => x.len(),
            Array::I8(x) => x.len(),
            Array::U16(x) => x.len(),
            Array::I16(x) => x.len(),
            Array::U32(x) => x.len(),
            Array::I32(x) => x.len(),
            Array::U64(x) => x.len(),
            Array::I64(x) => x.len(),
            Array::F32(x) => x.len(),
            Array::F64(x) => x.len(),
            Array::Bool(x) => x.len(),
            Array::String(x) => x.len(),
            Array::Array(x) => x.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, if they are strings.
    pub fn as_strings(&self) -> Option<&[String]> {
        match self {
            Array::String(x) => Some(x),
            _ => None,
        }
    }

    /// The elements, if they are `f32`.
    pub fn as_f32s(&self) -> Option<&[f32]> {
        match self {
            Array::F32(x) => Some(x),
            _ => None,
        }
    }

    /// The elements, if they are `i32`.
    pub fn as_i32s(&self) -> Option<&[i32]> {
        match self {
            Array::I32(x) => Some(x),
            _ => None,
        }
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        kind::U8 => "u8",
        kind::I8 => "i8",
        kind::U16 => "u16",
        kind::I16 => "i16",
        kind::U32 => "u32",
        kind::I32 => "i32",
        kind::U64 => "u64",
        kind::I64 => "i64",
        kind::F32 => "f32",
        kind::F64 => "f64",
        kind::BOOL => "bool",
        kind::STRING => "string",
        _ => "array",
    }
}

macro_rules! from {
    ($($ty:ty => $variant:ident),* $(,)?) => {
        $(
            impl From<$ty> for Value {
                fn from(x: $ty) -> Value {
                    Value::$variant(x)
                }
            }
            impl From<Vec<$ty>> for Value {
                fn from(x: Vec<$ty>) -> Value {
                    Value::Array(Array::$variant(x))
                }
            }
        )*
    };
}

from!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, String => String, Array => Array,
);

impl From<&str> for Value {
    fn from(x: &str) -> Value {
        Value::String(x.to_owned())
    }
}
