//! Data that `set` accepts: nested arrays, vectors, slices, single numbers and [`Array`]s.

use half::{bf16, f16};

use crate::array::{Array, Data};

/// A number that tensors can be filled with. It is converted to the tensor's own format.
pub trait Element: Copy {
    /// Packs numbers.
    fn pack(values: Vec<Self>) -> Data;
}

macro_rules! element {
    ($($ty:ty => $variant:ident),*) => {
        $(impl Element for $ty {
            fn pack(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
        })*
    };
}

element!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i32 => I32);

impl Element for bool {
    fn pack(values: Vec<Self>) -> Data {
        Data::Bool(values.into_iter().map(u8::from).collect())
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

/// What `set` accepts.
pub trait IntoData {
    /// The numbers, row-major, with their shape if they have one.
    fn into_data(self) -> Given;
}

impl IntoData for Array {
    fn into_data(self) -> Given {
        Given {
            dims: Some(self.dims().to_vec()),
            data: Array::into_data(self),
        }
    }
}

impl<T: Element> IntoData for Vec<T> {
    fn into_data(self) -> Given {
        Given {
            dims: None,
            data: T::pack(self),
        }
    }
}

impl<T: Element> IntoData for &Vec<T> {
    fn into_data(self) -> Given {
        Given {
            dims: None,
            data: T::pack(self.clone()),
        }
    }
}

impl<T: Element> IntoData for &[T] {
    fn into_data(self) -> Given {
        Given {
            dims: None,
            data: T::pack(self.to_vec()),
        }
    }
}

macro_rules! single {
    ($($ty:ty),*) => {
        $(impl IntoData for $ty {
            fn into_data(self) -> Given {
                Given { dims: Some(Vec::new()), data: <$ty>::pack(vec![self]) }
            }
        })*
    };
}

single!(f32, f64, f16, bf16, i32, bool, i64, u32, usize);

/// Numbers nested in arrays: `[[1.0, 2.0], [3.0, 4.0]]`.
pub trait Nested {
    /// The numbers' type.
    type Element: Element;
    /// Adds this level's shape and below to `dims`.
    fn dims(dims: &mut Vec<usize>);
    /// Adds the numbers, row-major.
    fn flatten(&self, out: &mut Vec<Self::Element>);
}

macro_rules! nested_leaf {
    ($($ty:ty),*) => {
        $(impl Nested for $ty {
            type Element = $ty;
            fn dims(_: &mut Vec<usize>) {}
            fn flatten(&self, out: &mut Vec<$ty>) {
                out.push(*self);
            }
        })*
    };
}

nested_leaf!(f32, f64, f16, bf16, i32, bool, i64, u32, usize);

impl<T: Nested, const N: usize> Nested for [T; N] {
    type Element = T::Element;

    fn dims(dims: &mut Vec<usize>) {
        dims.push(N);
        T::dims(dims);
    }

    fn flatten(&self, out: &mut Vec<T::Element>) {
        self.iter().for_each(|inner| inner.flatten(out));
    }
}

impl<T: Nested, const N: usize> IntoData for [T; N] {
    fn into_data(self) -> Given {
        let (mut dims, mut values) = (Vec::new(), Vec::new());
        <Self as Nested>::dims(&mut dims);
        self.flatten(&mut values);
        Given {
            dims: Some(dims),
            data: T::Element::pack(values),
        }
    }
}

impl<T: Nested, const N: usize> IntoData for &[T; N] {
    fn into_data(self) -> Given {
        let (mut dims, mut values) = (Vec::new(), Vec::new());
        <[T; N] as Nested>::dims(&mut dims);
        self.flatten(&mut values);
        Given {
            dims: Some(dims),
            data: T::Element::pack(values),
        }
    }
}
