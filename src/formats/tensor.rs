//! A tensor as a file stores it: name, element type, shape and bytes.
//!
//! Files store more element types than the framework computes with ([`DType`]). [`TensorView::convert_to`] goes from
//! one to the other without losing anything: the same type (no copy), an exact widening, or integers that are checked
//! to fit. It does not round; a conversion that could is left to a cast in the graph, where it is visible.

use bytemuck::Pod;
use half::{bf16, f16};

use super::bytes::Bytes;
use super::quote;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// The element types of safetensors files; npy files use some of them.
#[allow(
    non_camel_case_types,
    reason = "the variants are the names that the files use"
)]
#[allow(missing_docs, reason = "the variants are the names that the files use")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoredType {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// Every stored type with its name in a safetensors header and its size in bits, in the order of increasing size.
const STORED_TYPES: [(StoredType, &str, usize); 22] = [
    (StoredType::F4, "F4", 4),
    (StoredType::F6_E2M3, "F6_E2M3", 6),
    (StoredType::F6_E3M2, "F6_E3M2", 6),
    (StoredType::BOOL, "BOOL", 8),
    (StoredType::U8, "U8", 8),
    (StoredType::I8, "I8", 8),
    (StoredType::F8_E5M2, "F8_E5M2", 8),
    (StoredType::F8_E4M3, "F8_E4M3", 8),
    (StoredType::F8_E8M0, "F8_E8M0", 8),
    (StoredType::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
    (StoredType::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
    (StoredType::I16, "I16", 16),
    (StoredType::U16, "U16", 16),
    (StoredType::F16, "F16", 16),
    (StoredType::BF16, "BF16", 16),
    (StoredType::I32, "I32", 32),
    (StoredType::U32, "U32", 32),
    (StoredType::F32, "F32", 32),
    (StoredType::C64, "C64", 64),
    (StoredType::F64, "F64", 64),
    (StoredType::I64, "I64", 64),
    (StoredType::U64, "U64", 64),
];

impl StoredType {
    /// Every stored type, smaller elements first.
    pub fn all() -> impl Iterator<Item = StoredType> {
        STORED_TYPES.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (StoredType, &'static str, usize) {
        let mut rows = STORED_TYPES.iter();
        rows.find(|row| row.0 == self)
            .expect("the table has every variant")
    }

    /// The type that a safetensors header calls `name`.
    pub fn from_name(name: &str) -> Option<StoredType> {
        STORED_TYPES
            .iter()
            .find(|row| row.1 == name)
            .map(|row| row.0)
    }

    /// Its name in a safetensors header.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bits of one element; some types have less than a byte.
    pub fn bits(self) -> usize {
        self.row().2
    }

    /// The framework's type with the same bytes, if it has one.
    pub fn to_dtype(self) -> Option<DType> {
        match self {
            StoredType::F32 => Some(DType::F32),
            StoredType::F64 => Some(DType::F64),
            StoredType::F16 => Some(DType::F16),
            StoredType::BF16 => Some(DType::BF16),
            StoredType::I32 => Some(DType::I32),
            StoredType::U8 => Some(DType::U8),
            StoredType::BOOL => Some(DType::Bool),
            _ => None,
        }
    }

    /// The bytes of a tensor of this type, or what is wrong with such a shape.
    pub(super) fn bytes_of(self, shape: &[usize]) -> Result<usize, String> {
        let elements = shape
            .iter()
            .try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let bits = elements.and_then(|elements| elements.checked_mul(self.bits()));
        match bits {
            None => Err(format!("the size of {}{shape:?} overflows", self.name())),
            Some(bits) if bits % 8 != 0 => Err(format!(
                "{}{shape:?} is not a whole number of bytes",
                self.name()
            )),
            Some(bits) => Ok(bits / 8),
        }
    }
}

impl From<DType> for StoredType {
    fn from(dtype: DType) -> StoredType {
        match dtype {
            DType::F32 => StoredType::F32,
            DType::F64 => StoredType::F64,
            DType::F16 => StoredType::F16,
            DType::BF16 => StoredType::BF16,
            DType::I32 => StoredType::I32,
            DType::U8 => StoredType::U8,
            DType::Bool => StoredType::BOOL,
        }
    }
}

/// A tensor of a file. Cloning it copies no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView {
    /// Its name in the file.
    pub name: String,
    /// Its element type in the file.
    pub dtype: StoredType,
    /// Its dimensions, outermost first; the data is in row-major order.
    pub shape: Vec<usize>,
    /// Its data, little-endian, without padding. What a reader returns has exactly the bytes that type and shape ask
    /// for; the alignment is what the file gave it (see [`Bytes::aligned`]).
    pub bytes: Bytes,
}

impl TensorView {
    /// A tensor that owns a copy of `data`.
    ///
    /// # Panics
    /// If `shape` does not have as many elements as `data`, or `dtype`'s elements are not of `T`'s size.
    #[track_caller]
    pub fn from_slice<T: Pod>(
        name: impl Into<String>,
        dtype: StoredType,
        shape: &[usize],
        data: &[T],
    ) -> TensorView {
        let name = name.into();
        assert_eq!(
            dtype.bits(),
            size_of::<T>() * 8,
            "{name}: the size of an element"
        );
        assert_eq!(
            dtype.bytes_of(shape),
            Ok(size_of_val(data)),
            "{name}: shape {shape:?} and {} elements",
            data.len()
        );
        TensorView {
            name,
            dtype,
            shape: shape.to_vec(),
            bytes: Bytes::copy_of(bytemuck::cast_slice(data)),
        }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The data as elements of `dtype`, aligned for them. Nothing is copied when the tensor is stored as `dtype` and
    /// the file aligned it.
    ///
    /// Exact conversions only: the same type; F16 and BF16 to F32 or F64, F32 to F64; any integer type to I32 if every
    /// element fits.
    ///
    /// # Errors
    /// If there is no exact conversion, an integer does not fit, or a BOOL is neither 0 nor 1. The message names the
    /// tensor; the caller knows the file.
    pub fn convert_to(&self, dtype: DType) -> Result<Bytes> {
        if self.dtype == StoredType::from(dtype) {
            return self.unchanged();
        }
        match (self.dtype, dtype) {
            (StoredType::F16, DType::F32) => self.map(|x: f16| Ok(x.to_f32())),
            (StoredType::F16, DType::F64) => self.map(|x: f16| Ok(x.to_f64())),
            (StoredType::BF16, DType::F32) => self.map(|x: bf16| Ok(x.to_f32())),
            (StoredType::BF16, DType::F64) => self.map(|x: bf16| Ok(x.to_f64())),
            (StoredType::F32, DType::F64) => self.map(|x: f32| Ok(f64::from(x))),
            (StoredType::I8, DType::I32) => self.map(|x: i8| Ok(i32::from(x))),
            (StoredType::U8, DType::I32) => self.map(|x: u8| Ok(i32::from(x))),
            (StoredType::I16, DType::I32) => self.map(|x: i16| Ok(i32::from(x))),
            (StoredType::U16, DType::I32) => self.map(|x: u16| Ok(i32::from(x))),
            (StoredType::U32, DType::I32) => self.map(fitting::<u32>),
            (StoredType::I64, DType::I32) => self.map(fitting::<i64>),
            (StoredType::U64, DType::I32) => self.map(fitting::<u64>),
            (stored, _) => Err(self.error(format!(
                "there is no exact conversion from {} to {}",
                stored.name(),
                dtype.name()
            ))),
        }
    }

    fn unchanged(&self) -> Result<Bytes> {
        if self.dtype == StoredType::BOOL
            && let Some(at) = self.bytes.iter().position(|&byte| byte > 1)
        {
            let byte = self.bytes[at];
            return Err(self.error(format!("element {at} of a BOOL tensor is {byte}")));
        }
        Ok(self.bytes.aligned(self.dtype.bits() / 8))
    }

    fn map<T: Pod, U: Pod>(&self, convert: impl Fn(T) -> Result<U, String>) -> Result<Bytes> {
        if !self.bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(self.error("the data is not a whole number of elements"));
        }
        let elements = self.bytes.len() / size_of::<T>();
        let mut failed = None;
        let converted = Bytes::build(elements * size_of::<U>(), |target| {
            let sources = self.bytes.chunks_exact(size_of::<T>());
            let targets = target.chunks_exact_mut(size_of::<U>());
            for (at, (source, target)) in sources.zip(targets).enumerate() {
                match convert(bytemuck::pod_read_unaligned(source)) {
                    Ok(value) => target.copy_from_slice(bytemuck::bytes_of(&value)),
                    Err(what) => {
                        failed = Some(format!("element {at} {what}"));
                        return;
                    }
                }
            }
        });
        match failed {
            Some(what) => Err(self.error(what)),
            None => Ok(converted),
        }
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::Message(format!("tensor {}: {what}", quote(&self.name)))
    }
}

fn fitting<T: Copy + std::fmt::Display + TryInto<i32>>(value: T) -> Result<i32, String> {
    value
        .try_into()
        .map_err(|_| format!("is {value}, which does not fit i32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_safetensors_crate() {
        for stored in StoredType::all() {
            let name = serde_json::Value::from(stored.name());
            let theirs: ::safetensors::Dtype = serde_json::from_value(name).unwrap();
            assert_eq!(theirs.bitsize(), stored.bits(), "{}", stored.name());
            assert_eq!(StoredType::from_name(stored.name()), Some(stored));
        }
        let sizes: Vec<usize> = StoredType::all().map(StoredType::bits).collect();
        assert!(sizes.is_sorted());
    }

    #[test]
    fn the_same_type_is_not_copied() {
        let tensor = TensorView::from_slice("x", StoredType::F32, &[2], &[1.0f32, 2.0]);
        assert_eq!(
            tensor.convert_to(DType::F32).unwrap().as_ptr(),
            tensor.bytes.as_ptr()
        );
    }

    #[test]
    fn exact_conversions() {
        let tensor = TensorView::from_slice("x", StoredType::BF16, &[2], &[0x3fc0u16, 0xc000]);
        let bytes = tensor.convert_to(DType::F32).unwrap();
        assert_eq!(bytes.cast::<f32>(), Some(&[1.5, -2.0][..]));
        let bytes = tensor.convert_to(DType::F64).unwrap();
        assert_eq!(bytes.cast::<f64>(), Some(&[1.5, -2.0][..]));
        let ids = [i64::from(i32::MIN), 7, i64::from(i32::MAX)];
        let bytes =
            TensorView::from_slice("ids", StoredType::I64, &[3], &ids).convert_to(DType::I32);
        assert_eq!(
            bytes.unwrap().cast::<i32>(),
            Some(&[i32::MIN, 7, i32::MAX][..])
        );
    }

    #[test]
    fn inexact_conversions_are_refused() {
        let refused = |tensor: TensorView, dtype| tensor.convert_to(dtype).unwrap_err().to_string();
        let ids = TensorView::from_slice("ids", StoredType::I64, &[2], &[1i64, 1 << 31]);
        assert_eq!(
            refused(ids, DType::I32),
            r#"tensor "ids": element 1 is 2147483648, which does not fit i32"#
        );
        let wide = TensorView::from_slice("w", StoredType::F64, &[1], &[0.1f64]);
        assert_eq!(
            refused(wide, DType::F32),
            r#"tensor "w": there is no exact conversion from F64 to f32"#
        );
        let mask = TensorView::from_slice("m", StoredType::BOOL, &[3], &[0u8, 1, 2]);
        assert_eq!(
            refused(mask, DType::Bool),
            r#"tensor "m": element 2 of a BOOL tensor is 2"#
        );
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(StoredType::F32.bytes_of(&[]), Ok(4));
        assert_eq!(StoredType::F4.bytes_of(&[2, 3]), Ok(3));
        assert!(
            StoredType::F4
                .bytes_of(&[3])
                .unwrap_err()
                .contains("whole number of bytes")
        );
        assert!(
            StoredType::F32
                .bytes_of(&[usize::MAX, 2])
                .unwrap_err()
                .contains("overflows")
        );
        assert!(
            StoredType::F32
                .bytes_of(&[usize::MAX / 4])
                .unwrap_err()
                .contains("overflows")
        );
    }
}
