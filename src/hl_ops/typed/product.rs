//! Static shapes of products.

use crate::graph::{Dyn, R0, R1, R2, R3, R4, Shape};

/// Shapes that `matmul` takes on its left, with `Rhs` on its right.
#[diagnostic::on_unimplemented(
    message = "`matmul` cannot multiply `{Self}` by `{Rhs}`",
    label = "the inner sizes, or the leading ones, differ",
    note = "`[.., m, k]` times `[.., k, n]` is `[.., m, n]`; `.dynamic()` on both gives up static shapes"
)]
pub trait MatMul<Rhs: Shape>: Shape {
    /// Shape of the product.
    type Output: Shape;
}

impl<Rhs: Shape> MatMul<Rhs> for Dyn {
    type Output = Dyn;
}

/// Shapes that `dot` takes on its left, with `Rhs` on its right.
#[diagnostic::on_unimplemented(
    message = "`dot` needs two vectors of one size, not `{Self}` and `{Rhs}`",
    label = "not two vectors of one size"
)]
pub trait Dot<Rhs: Shape>: Shape {
    /// Shape of the product.
    type Output: Shape;
}

impl Dot<Dyn> for Dyn {
    type Output = Dyn;
}

impl<const N: usize> Dot<R1<N>> for R1<N> {
    type Output = R0;
}

/// Shapes that `outer` takes on its left, with `Rhs` on its right.
#[diagnostic::on_unimplemented(
    message = "`outer` needs two vectors, not `{Self}` and `{Rhs}`",
    label = "not two vectors"
)]
pub trait Outer<Rhs: Shape>: Shape {
    /// Shape of the product.
    type Output: Shape;
}

impl Outer<Dyn> for Dyn {
    type Output = Dyn;
}

impl<const M: usize, const N: usize> Outer<R1<N>> for R1<M> {
    type Output = R2<M, N>;
}

/// `[consts] left, right => output`.
macro_rules! products {
    ($([$($dim:ident),*] $left:ty, $right:ty => $output:ty;)*) => {
        $(impl<$(const $dim: usize),*> MatMul<$right> for $left {
            type Output = $output;
        })*
    };
}

products! {
    [K] R1<K>, R1<K> => R0;
    [K, N] R1<K>, R2<K, N> => R1<N>;
    [M, K] R2<M, K>, R1<K> => R1<M>;
    [M, K, N] R2<M, K>, R2<K, N> => R2<M, N>;
    [B, M, K] R3<B, M, K>, R1<K> => R2<B, M>;
    [B, M, K, N] R3<B, M, K>, R2<K, N> => R3<B, M, N>;
    [B, M, K, N] R3<B, M, K>, R3<B, K, N> => R3<B, M, N>;
    [B, M, K, N] R2<M, K>, R3<B, K, N> => R3<B, M, N>;
    [A, B, M, K, N] R4<A, B, M, K>, R2<K, N> => R4<A, B, M, N>;
    [A, B, M, K, N] R4<A, B, M, K>, R4<A, B, K, N> => R4<A, B, M, N>;
    [K] R1<K>, Dyn => Dyn;
    [M, K] R2<M, K>, Dyn => Dyn;
    [B, M, K] R3<B, M, K>, Dyn => Dyn;
    [A, B, M, K] R4<A, B, M, K>, Dyn => Dyn;
}
