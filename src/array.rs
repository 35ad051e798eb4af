//! Host arrays: a shape, a number format and plain vectors of numbers.
//!
//! [`Array`] is what the reference executor computes with and what a user gets when reading a tensor. It is always
//! contiguous and row-major. It knows no graph and no symbol.

use crate::dtype::DType;
use crate::shape::ConcreteView;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The elements of an [`Array`], by format.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `f32` elements.
    F32(Vec<f32>),
    /// `f64` elements.
    F64(Vec<f64>),
    /// `f16` elements.
    F16(Vec<f16>),
    /// `bf16` elements.
    BF16(Vec<bf16>),
    /// `i32` elements.
    I32(Vec<i32>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Booleans, one byte each.
    Bool(Vec<u8>),
}

/// Runs `$body` with `$v` bound to the typed vector inside `$data`.
#[macro_export]
#[doc(hidden)]
macro_rules! each_dtype {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::array::Data::F32($v) => $body,
            $crate::array::Data::F64($v) => $body,
            $crate::array::Data::F16($v) => $body,
            $crate::array::Data::BF16($v) => $body,
            $crate::array::Data::I32($v) => $body,
            $crate::array::Data::U8($v) => $body,
            $crate::array::Data::Bool($v) => $body,
        }
    };
}

/// Like [`each_dtype`], and wraps the resulting vector in the same variant again.
#[macro_export]
#[doc(hidden)]
macro_rules! map_dtype {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::array::Data::F32($v) => $crate::array::Data::F32($body),
            $crate::array::Data::F64($v) => $crate::array::Data::F64($body),
            $crate::array::Data::F16($v) => $crate::array::Data::F16($body),
            $crate::array::Data::BF16($v) => $crate::array::Data::BF16($body),
            $crate::array::Data::I32($v) => $crate::array::Data::I32($body),
            $crate::array::Data::U8($v) => $crate::array::Data::U8($body),
            $crate::array::Data::Bool($v) => $crate::array::Data::Bool($body),
        }
    };
}

/// A contiguous, row-major array in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    dims: Vec<usize>,
    data: Data,
}

impl Array {
    /// An array of these dimensions.
    ///
    /// # Panics
    /// If the number of elements is not the product of `dims`.
    pub fn new(dims: Vec<usize>, data: Data) -> Array {
        let len = each_dtype!(&data, v => v.len());
        assert_eq!(
            len,
            dims.iter().product::<usize>(),
            "an array of {dims:?} with {len} elements"
        );
        Array { dims, data }
    }

    /// All zeros.
    pub fn zeros(dims: Vec<usize>, dtype: DType) -> Array {
        let n = dims.iter().product();
        let data = match dtype {
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::F64 => Data::F64(vec![0.0; n]),
            DType::F16 => Data::F16(vec![f16::ZERO; n]),
            DType::BF16 => Data::BF16(vec![bf16::ZERO; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::U8 => Data::U8(vec![0; n]),
            DType::Bool => Data::Bool(vec![0; n]),
        };
        Array { dims, data }
    }

    /// Copies raw little-endian bytes into an array.
    ///
    /// # Panics
    /// If `bytes` is not exactly `dims` elements of `dtype` long.
    pub fn from_bytes(dims: Vec<usize>, dtype: DType, bytes: &[u8]) -> Array {
        let n = dims.iter().product::<usize>();
        assert_eq!(
            n * dtype.size(),
            bytes.len(),
            "bytes do not match the shape"
        );
        let data = match dtype {
            DType::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F64 => Data::F64(bytemuck::pod_collect_to_vec(bytes)),
            DType::F16 => Data::F16(bytemuck::pod_collect_to_vec(bytes)),
            DType::BF16 => Data::BF16(bytemuck::pod_collect_to_vec(bytes)),
            DType::I32 => Data::I32(bytemuck::pod_collect_to_vec(bytes)),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::Bool => Data::Bool(bytes.to_vec()),
        };
        Array { dims, data }
    }

    /// What `view` reads of a buffer of this format; padding reads zero.
    ///
    /// # Panics
    /// If `bytes` is no whole number of elements, or shorter than what the view reads.
    pub fn look_at(bytes: &[u8], dtype: DType, view: &ConcreteView) -> Array {
        let size = dtype.size();
        if let Some(first) = view.contiguous_from() {
            let len = view.numel() * size;
            let start = if len == 0 { 0 } else { first * size };
            let part = &bytes[start..start + len];
            return Array::from_bytes(view.dims().to_vec(), dtype, part);
        }
        Array::from_bytes(vec![bytes.len() / size], dtype, bytes).look(view)
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Takes the elements out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The number format.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I32(_) => DType::I32,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        each_dtype!(&self.data, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as bytes.
    pub fn bytes(&self) -> &[u8] {
        each_dtype!(&self.data, v => bytemuck::cast_slice(v))
    }

    /// The elements as `f64`, whatever their format.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U8(v) | Data::Bool(v) => v.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// The elements as `f32`, whatever their format.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            // Exact, so without a detour over `f64`.
            Data::F16(v) => {
                let mut numbers = vec![0.0; v.len()];
                v.convert_to_f32_slice(&mut numbers);
                numbers
            }
            Data::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
            _ => self.to_f64().into_iter().map(|x| x as f32).collect(),
        }
    }

    /// The elements as `f32`, whatever their format; those of a `f32` array are not copied.
    pub fn into_f32(self) -> Vec<f32> {
        match self.data {
            Data::F32(v) => v,
            _ => self.to_f32(),
        }
    }

    /// The elements as `i32`: fractions are cut towards zero, values saturate, NaN is 0.
    pub fn to_i32(&self) -> Vec<i32> {
        match &self.data {
            Data::I32(v) => v.clone(),
            _ => self.to_f64().into_iter().map(|x| x as i32).collect(),
        }
    }

    /// The same numbers in another format: to floats rounds to nearest even, to `I32` and `U8` cuts towards zero
    /// and saturates (NaN is 0), to `Bool` is `x != 0`.
    pub fn cast(&self, dtype: DType) -> Array {
        let data = match (dtype, &self.data) {
            (DType::F32, Data::F64(v)) => Data::F32(v.iter().map(|&x| x as f32).collect()),
            (DType::F32, _) => Data::F32(self.to_f32()),
            (DType::F64, _) => Data::F64(self.to_f64()),
            (DType::F16, Data::F64(v)) => Data::F16(v.iter().map(|&x| f16::from_f64(x)).collect()),
            (DType::F16, _) => Data::F16(self.to_f32().into_iter().map(f16::from_f32).collect()),
            (DType::BF16, Data::F64(v)) => {
                Data::BF16(v.iter().map(|&x| bf16::from_f64(x)).collect())
            }
            (DType::BF16, _) => Data::BF16(self.to_f32().into_iter().map(bf16::from_f32).collect()),
            (DType::I32, _) => Data::I32(self.to_i32()),
            (DType::U8, _) => Data::U8(self.to_f64().into_iter().map(|x| x as u8).collect()),
            (DType::Bool, _) => Data::Bool(
                self.to_f64()
                    .into_iter()
                    .map(|x| u8::from(x != 0.0))
                    .collect(),
            ),
        };
        Array {
            dims: self.dims.clone(),
            data,
        }
    }

    /// What `view` reads of this array's elements; padding reads zero.
    pub fn look(&self, view: &ConcreteView) -> Array {
        let data = map_dtype!(&self.data, v => {
            let mut out = Vec::with_capacity(view.numel());
            view.for_each_index(|_, index| out.push(index.map_or_else(Default::default, |i| v[i])));
            out
        });
        Array {
            dims: view.dims().to_vec(),
            data,
        }
    }

    /// Whether two arrays have one type and hold the same bits, any NaN being equal to any other.
    pub fn same_bits(&self, other: &Array) -> bool {
        fn same<T: Copy + PartialEq>(a: &[T], b: &[T], bits: impl Fn(T) -> u64) -> bool {
            #[allow(clippy::eq_op)]
            let equal = |(&x, &y): (&T, &T)| (x != x && y != y) || bits(x) == bits(y);
            a.len() == b.len() && a.iter().zip(b).all(equal)
        }
        self.dims == other.dims
            && match (&self.data, &other.data) {
                (Data::F32(a), Data::F32(b)) => same(a, b, |x| u64::from(x.to_bits())),
                (Data::F64(a), Data::F64(b)) => same(a, b, f64::to_bits),
                (Data::F16(a), Data::F16(b)) => same(a, b, |x: f16| u64::from(x.to_bits())),
                (Data::BF16(a), Data::BF16(b)) => same(a, b, |x: bf16| u64::from(x.to_bits())),
                (a, b) => a == b,
            }
    }

    /// The same elements under other dimensions.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshaped(self, dims: Vec<usize>) -> Array {
        Array::new(dims, self.data)
    }
}

/// Numbers printed per dimension before the middle is left out.
const EDGE: usize = 6;

impl std::fmt::Display for Array {
    /// Nested brackets, one innermost row a line; the middle of long dimensions is left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cells: Vec<String> = match &self.data {
            Data::F32(v) => v.iter().map(|x| format!("{x:?}")).collect(),
            Data::I32(v) => v.iter().map(ToString::to_string).collect(),
            Data::Bool(v) => v.iter().map(|&x| (x != 0).to_string()).collect(),
            _ => self.to_f64().iter().map(|x| format!("{x:?}")).collect(),
        };
        let width = cells.iter().map(String::len).max().unwrap_or(0);
        write_level(f, &cells, &self.dims, width, 1)
    }
}

fn write_level(
    f: &mut std::fmt::Formatter<'_>,
    cells: &[String],
    dims: &[usize],
    width: usize,
    depth: usize,
) -> std::fmt::Result {
    let Some((&n, inner)) = dims.split_first() else {
        return f.write_str(cells.first().map_or("", String::as_str));
    };
    let separator = if inner.is_empty() {
        ", ".to_string()
    } else {
        format!(",\n{}", " ".repeat(depth))
    };
    let stride = inner.iter().product::<usize>();
    f.write_str("[")?;
    for i in 0..n {
        if n > 2 * EDGE && i == EDGE {
            write!(f, "{separator}…")?;
        }
        if n > 2 * EDGE && (EDGE..n - EDGE).contains(&i) {
            continue;
        }
        if i > 0 {
            f.write_str(&separator)?;
        }
        if inner.is_empty() {
            write!(f, "{:>width$}", cells[i])?;
        } else {
            write_level(
                f,
                &cells[i * stride..(i + 1) * stride],
                inner,
                width,
                depth + 1,
            )?;
        }
    }
    f.write_str("]")
}
