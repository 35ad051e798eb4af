//! Lists of sizes.

use super::Expr;
use smallvec::SmallVec;

/// The sizes of a tensor's axes, outermost first.
pub type Dims = SmallVec<[Expr; 4]>;

/// The number of elements: the product of `dims`, 1 for no dims.
pub fn numel(dims: &[Expr]) -> Expr {
    dims.iter()
        .fold(Expr::from(1), |product, &dim| product * dim)
}

/// Whether two expressions are equal for all values of their symbols, as far as can be proved.
pub fn same_size(a: Expr, b: Expr) -> bool {
    a == b || (a - b).bounds() == (Some(0), Some(0))
}

/// What can be written where dims are expected: `()`, `5`, `'s'`, `[2, 3]`, `(2, 's', 4)`, slices and vectors.
pub trait IntoDims {
    /// The dims.
    fn into_dims(self) -> Dims;
}

impl IntoDims for () {
    fn into_dims(self) -> Dims {
        Dims::new()
    }
}

macro_rules! single_dim {
    ($($kind:ty),*) => {$(
        impl IntoDims for $kind {
            fn into_dims(self) -> Dims {
                Dims::from_iter([Expr::from(self)])
            }
        }
    )*};
}
single_dim!(Expr, usize, i64, i32, char);

impl<T: Into<Expr>, const N: usize> IntoDims for [T; N] {
    fn into_dims(self) -> Dims {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Expr>> IntoDims for Vec<T> {
    fn into_dims(self) -> Dims {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Copy + Into<Expr>> IntoDims for &[T] {
    fn into_dims(self) -> Dims {
        self.iter().map(|&dim| dim.into()).collect()
    }
}

impl<T: Copy + Into<Expr>, const N: usize> IntoDims for &[T; N] {
    fn into_dims(self) -> Dims {
        self.as_slice().into_dims()
    }
}

impl<T: Copy + Into<Expr>> IntoDims for &Vec<T> {
    fn into_dims(self) -> Dims {
        self.as_slice().into_dims()
    }
}

impl IntoDims for Dims {
    fn into_dims(self) -> Dims {
        self
    }
}

impl IntoDims for &Dims {
    fn into_dims(self) -> Dims {
        self.clone()
    }
}

macro_rules! tuple_dims {
    ($($name:ident)+) => {
        impl<$($name: Into<Expr>),+> IntoDims for ($($name,)+) {
            #[allow(non_snake_case)]
            fn into_dims(self) -> Dims {
                let ($($name,)+) = self;
                Dims::from_iter([$($name.into()),+])
            }
        }
    };
}
tuple_dims!(A);
tuple_dims!(A B);
tuple_dims!(A B C);
tuple_dims!(A B C D);
tuple_dims!(A B C D E);
tuple_dims!(A B C D E F);
tuple_dims!(A B C D E F G);
tuple_dims!(A B C D E F G H);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_looks_like_dims_converts() {
        let expected = Dims::from_iter([Expr::from(2), Expr::from('s'), Expr::from(4)]);
        assert_eq!((2, 's', 4usize).into_dims(), expected);
        assert_eq!((&expected).into_dims(), expected);
        assert_eq!(expected.as_slice().into_dims(), expected);
        assert_eq!(expected.to_vec().into_dims(), expected);
        assert_eq!([2, 3].into_dims(), (2, 3).into_dims());
        assert_eq!((&[2usize, 3]).into_dims(), (2i64, 3).into_dims());
        assert_eq!(().into_dims().len(), 0);
        assert_eq!('s'.into_dims()[0], Expr::from('s'));
        assert_eq!(numel(&[]), Expr::from(1));
        assert_eq!(numel(&expected), Expr::from('s') * 8);
    }
}
