//! Data that `set` accepts: nested arrays, vectors, slices, single numbers and [`Array`]s.
//!
//! Numbers that have the tensor's format already are copied once, from where they are to where the tensor's are; others
//! are converted on the way.

use half::{bf16, f16};
use smallvec::SmallVec;

use crate::array::{Array, Data};
use crate::dtype::DType;

/// A number that tensors can be filled with. It is converted to the tensor's own format.
pub trait Element: Copy {
    /// Packs numbers.
    fn pack(values: Vec<Self>) -> Data;

    /// The bytes of numbers that lie in memory as a tensor's do, and the format of that tensor.
    fn bytes(_values: &[Self]) -> Option<(DType, &[u8])> {
        None
    }
}

macro_rules! element {
    ($($ty:ty => $variant:ident),*) => {
        $(impl Element for $ty {
            fn pack(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }

            fn bytes(values: &[$ty]) -> Option<(DType, &[u8])> {
                Some((DType::$variant, bytemuck::cast_slice(values)))
            }
        })*
    };
}

element!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i32 => I32, u8 => U8);

impl Element for bool {
    fn pack(values: Vec<Self>) -> Data {
        Data::Bool(values.into_iter().map(u8::from).collect())
    }

    fn bytes(values: &[bool]) -> Option<(DType, &[u8])> {
        Some((DType::Bool, bytemuck::cast_slice(values)))
    }
}

macro_rules! wide_integer {
    ($($ty:ty),*) => {
        $(impl Element for $ty {
            /// # Panics
            /// If a number does not fit `i32`, the only integer format.
            fn pack(values: Vec<Self>) -> Data {
                let narrow = |x| i32::try_from(x).unwrap_or_else(|_| panic!("{x} does not fit i32"));
                Data::I32(values.into_iter().map(narrow).collect())
            }
        })*
    };
}

wide_integer!(i64, u32, usize);

/// Numbers with their shape, when the form in which they came has one.
#[derive(Debug, Clone)]
pub struct Given {
    /// The shape; `None` for flat vectors and slices.
    pub dims: Option<Vec<usize>>,
    /// The numbers, row-major.
    pub data: Data,
}

/// Numbers where they are, as a tensor of their format has them in memory.
#[derive(Debug, Clone)]
pub struct GivenBytes<'a> {
    /// The shape; `None` for flat vectors and slices.
    pub dims: Option<SmallVec<[usize; 6]>>,
    /// The format.
    pub dtype: DType,
    /// The numbers, row-major.
    pub bytes: &'a [u8],
}

impl<'a> GivenBytes<'a> {
    fn flat<T: Element>(values: &'a [T]) -> Option<GivenBytes<'a>> {
        let (dtype, bytes) = T::bytes(values)?;
        Some(GivenBytes {
            dims: None,
            dtype,
            bytes,
        })
    }

    fn nested<T: Nested>(values: &'a T) -> Option<GivenBytes<'a>> {
        let (dtype, bytes) = T::bytes(std::slice::from_ref(values))?;
        let mut dims = SmallVec::new();
        T::dims(&mut |size| dims.push(size));
        Some(GivenBytes {
            dims: Some(dims),
            dtype,
            bytes,
        })
    }
}

/// What `set` accepts.
pub trait IntoData {
    /// The numbers, row-major, with their shape if they have one.
    fn into_data(self) -> Given;

    /// The same without copying them, if they lie in memory as a tensor's do.
    fn bytes(&self) -> Option<GivenBytes<'_>> {
        None
    }
}

impl IntoData for Array {
    fn into_data(self) -> Given {
        Given {
            dims: Some(self.dims().to_vec()),
            data: Array::into_data(self),
        }
    }

    fn bytes(&self) -> Option<GivenBytes<'_>> {
        Some(GivenBytes {
            dims: Some(self.dims().into()),
            dtype: self.dtype(),
            bytes: Array::bytes(self),
        })
    }
}

impl<T: Element> IntoData for Vec<T> {
    fn into_data(self) -> Given {
        Given {
            dims: None,
            data: T::pack(self),
        }
    }

    fn bytes(&self) -> Option<GivenBytes<'_>> {
        GivenBytes::flat(self)
    }
}

impl<T: Element> IntoData for &Vec<T> {
    fn into_data(self) -> Given {
        Given {
            dims: None,
            data: T::pack(self.clone()),
        }
    }

    fn bytes(&self) -> Option<GivenBytes<'_>> {
        GivenBytes::flat(self)
    }
}

impl<T: Element> IntoData for &[T] {
    fn into_data(self) -> Given {
        Given {
            dims: None,
            data: T::pack(self.to_vec()),
        }
    }

    fn bytes(&self) -> Option<GivenBytes<'_>> {
        GivenBytes::flat(self)
    }
}

macro_rules! single {
    ($($ty:ty),*) => {
        $(impl IntoData for $ty {
            fn into_data(self) -> Given {
                Given { dims: Some(Vec::new()), data: <$ty>::pack(vec![self]) }
            }

            fn bytes(&self) -> Option<GivenBytes<'_>> {
                GivenBytes::nested(self)
            }
        })*
    };
}

single!(f32, f64, f16, bf16, i32, bool, i64, u32, usize);

/// Numbers nested in arrays: `[[1.0, 2.0], [3.0, 4.0]]`.
pub trait Nested: Sized {
    /// The numbers' type.
    type Element: Element;
    /// Gives `add` the sizes of this level and below.
    fn dims(add: &mut dyn FnMut(usize));
    /// Adds the numbers, row-major.
    fn flatten(&self, out: &mut Vec<Self::Element>);
    /// [`Element::bytes`] of all numbers.
    fn bytes(values: &[Self]) -> Option<(DType, &[u8])>;
}

macro_rules! nested_leaf {
    ($($ty:ty),*) => {
        $(impl Nested for $ty {
            type Element = $ty;
            fn dims(_: &mut dyn FnMut(usize)) {}
            fn flatten(&self, out: &mut Vec<$ty>) {
                out.push(*self);
            }
            fn bytes(values: &[$ty]) -> Option<(DType, &[u8])> {
                <$ty as Element>::bytes(values)
            }
        })*
    };
}

nested_leaf!(f32, f64, f16, bf16, i32, bool, i64, u32, usize);

impl<T: Nested, const N: usize> Nested for [T; N] {
    type Element = T::Element;

    fn dims(add: &mut dyn FnMut(usize)) {
        add(N);
        T::dims(add);
    }

    fn bytes(values: &[Self]) -> Option<(DType, &[u8])> {
        T::bytes(values.as_flattened())
    }

    fn flatten(&self, out: &mut Vec<T::Element>) {
        self.iter().for_each(|inner| inner.flatten(out));
    }
}

impl<T: Nested, const N: usize> IntoData for [T; N] {
    fn into_data(self) -> Given {
        (&self).into_data()
    }

    fn bytes(&self) -> Option<GivenBytes<'_>> {
        GivenBytes::nested(self)
    }
}

impl<T: Nested, const N: usize> IntoData for &[T; N] {
    fn into_data(self) -> Given {
        let (mut dims, mut values) = (Vec::new(), Vec::new());
        <[T; N] as Nested>::dims(&mut |size| dims.push(size));
        self.flatten(&mut values);
        Given {
            dims: Some(dims),
            data: T::Element::pack(values),
        }
    }

    fn bytes(&self) -> Option<GivenBytes<'_>> {
        GivenBytes::nested(*self)
    }
}
