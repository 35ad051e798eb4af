//! Reductions made of several ops: means, variances, norms, `logsumexp`.
//!
//! 16-bit formats are computed in `F32` and rounded once. Dividing by a symbolic size divides by its value when
//! executed.

use super::axes::{IntoAxes, axis_set};
use super::coordinates::{constant_like, int, less, pick};
use crate::graph::{GraphTensor, Shape};
use crate::op::AxisSet;
use crate::shape::{Expr, numel};

/// Number of elements that these axes hold.
fn count(x: GraphTensor, axes: &AxisSet) -> Expr {
    let dims = x.dims();
    let folded: Vec<Expr> = axes.iter().map(|&axis| dims[axis]).collect();
    numel(&folded)
}

/// `max(n - correction, 0)` in the format of `x`, a scalar.
#[track_caller]
fn degrees(x: GraphTensor, n: Expr, correction: f64) -> GraphTensor {
    if let Some(n) = n.as_const() {
        return constant_like(x, (n as f64 - correction).max(0.0));
    }
    let n = int(x.graph, n).cast(x.dtype());
    if correction == 0.0 {
        return n;
    }
    (n - correction).maximum(0.0)
}

#[track_caller]
fn mean_of(x: GraphTensor, axes: &AxisSet) -> GraphTensor {
    let sum = x.sum_keepdim(axes.as_slice());
    let n = count(x, axes);
    match n.as_const() {
        Some(n) => sum * (1.0 / n as f64),
        None => sum * degrees(x, n, 0.0).recip(),
    }
}

#[track_caller]
fn variance_of(x: GraphTensor, axes: &AxisSet, correction: f64) -> GraphTensor {
    let squares = (x - mean_of(x, axes)).square();
    let degrees = degrees(x, count(x, axes), correction);
    squares.sum_keepdim(axes.as_slice()) * degrees.recip()
}

#[track_caller]
fn deviation_of(x: GraphTensor, axes: &AxisSet, correction: f64) -> GraphTensor {
    variance_of(x, axes, correction).sqrt()
}

#[track_caller]
fn logsumexp_of(x: GraphTensor, axes: &AxisSet) -> GraphTensor {
    let largest = x.max_keepdim(axes.as_slice());
    // An infinity must not be taken away from itself. What is taken away does not matter to the gradient.
    let shift = largest.isinf().where_(0.0, largest).detach();
    (x - shift).exp().sum_keepdim(axes.as_slice()).log() + shift
}

/// The square root of the sum of squares, scaled by the largest magnitude so that squares stay in range.
#[track_caller]
fn euclidean(x: GraphTensor, axes: &AxisSet) -> GraphTensor {
    let magnitude = x.abs();
    let largest = magnitude.max_keepdim(axes.as_slice());
    let zero = constant_like(x, 0.0);
    let usable = less("norm", zero, largest) & largest.isfinite();
    let scale = pick("norm", usable, largest, constant_like(x, 1.0));
    let squares = (magnitude / scale).square();
    let sum = squares.sum_keepdim(axes.as_slice());
    // Chosen before and after: the root of 0 has no gradient.
    let some = sum.ne(0.0);
    some.where_(some.where_(sum, 1.0).sqrt(), 0.0) * scale
}

/// `x` to the power of `p`, for `x` that are not negative: in the tensor's own format, unlike [`GraphTensor::pow`].
#[track_caller]
fn power(x: GraphTensor, p: f64) -> GraphTensor {
    match p.fract() == 0.0 {
        true => x.pow(p),
        false => (x.log2() * p).exp2(),
    }
}

#[track_caller]
fn norm_of(x: GraphTensor, axes: &AxisSet, p: f64) -> GraphTensor {
    let kept = axes.as_slice();
    match p {
        f64::INFINITY => x.abs().max_keepdim(kept).maximum(0.0),
        f64::NEG_INFINITY => x.abs().min_keepdim(kept),
        0.0 => x.ne(0.0).cast(x.dtype()).sum_keepdim(kept),
        1.0 => x.abs().sum_keepdim(kept),
        2.0 => euclidean(x, axes),
        _ => power(power(x.abs(), p).sum_keepdim(kept), 1.0 / p),
    }
}

/// `$f` with the axes kept and without them.
macro_rules! statistic {
    ($(#[$doc:meta])* $name:ident, $keepdim:ident, ($($arg:ident: $ty:ty),*), $f:ident) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// If there are no such axes, or the format is not a floating-point one.
        #[track_caller]
        pub fn $name(self, axes: impl IntoAxes $(, $arg: $ty)*) -> GraphTensor {
            let axes = axis_set(stringify!($name), &self.ty(), axes);
            self.$keepdim(axes.as_slice() $(, $arg)*).squeeze(axes.as_slice())
        }

        #[doc = concat!("[`GraphTensor::", stringify!($name), "`] that keeps the axes, with size 1.")]
        ///
        /// ```
        /// # use brain_blitz::prelude::*;
        /// # let mut cx = Graph::new();
        /// let x = cx.tensor::<R2<2, 3>>();
        $(#[doc = concat!("let ", stringify!($arg), " = 2;")])*
        #[doc = concat!("assert_eq!(x.", stringify!($keepdim), "(1", $(", ", stringify!($arg),)* ").dims()[..], [2, 1].map(Expr::from));")]
        /// ```
        ///
        /// # Panics
        /// If there are no such axes, or the format is not a floating-point one.
        #[track_caller]
        pub fn $keepdim(self, axes: impl IntoAxes $(, $arg: $ty)*) -> GraphTensor {
            let axes = axis_set(stringify!($name), &self.ty(), axes);
            let x = self.wide(stringify!($name));
            $f(x, &axes $(, $arg.into())*).narrowed(self.dynamic())
        }
    };
}

impl<S: Shape> GraphTensor<S> {
    statistic! {
        /// Arithmetic mean over these axes; NaN over nothing.
        ///
        /// ```
        /// # use brain_blitz::prelude::*;
        /// let mut cx = Graph::new();
        /// let x = cx.input('s', DType::F32).set([1.0, 2.0, 6.0]);
        /// let y = x.mean(..).retrieve();
        /// cx.set_dim('s', 3);
        /// cx.execute();
        /// assert_eq!(y.data(), [3.0]);
        /// ```
        mean, mean_keepdim, (), mean_of
    }

    statistic! {
        /// Variance over these axes: the sum of squared distances from the mean, over the number of elements less
        /// `correction` (1 for a sample, 0 for a population). Two passes.
        ///
        /// ```
        /// # use brain_blitz::prelude::*;
        /// let mut cx = Graph::new();
        /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
        /// let y = x.var(0, 1).retrieve();
        /// cx.execute();
        /// assert_eq!(y.data(), [1.0]);
        /// ```
        var, var_keepdim, (correction: impl Into<f64>), variance_of
    }

    statistic! {
        /// The square root of [`GraphTensor::var`].
        ///
        /// ```
        /// # use brain_blitz::prelude::*;
        /// let mut cx = Graph::new();
        /// let x = cx.tensor::<R1<2>>().set([1.0, 5.0]);
        /// let y = x.std(0, 0).retrieve();
        /// cx.execute();
        /// assert_eq!(y.data(), [2.0]);
        /// ```
        std, std_keepdim, (correction: impl Into<f64>), deviation_of
    }

    statistic! {
        /// `log(sum(exp(x)))` over these axes, without overflow; -inf over nothing.
        ///
        /// ```
        /// # use brain_blitz::prelude::*;
        /// let mut cx = Graph::new();
        /// let x = cx.tensor::<R1<2>>().set([1000.0, f32::NEG_INFINITY]);
        /// let y = x.logsumexp(0).retrieve();
        /// cx.execute();
        /// assert_eq!(y.data(), [1000.0]);
        /// ```
        logsumexp, logsumexp_keepdim, (), logsumexp_of
    }

    statistic! {
        /// `(sum |x|^p)^(1/p)` over these axes; infinite `p` give the largest and smallest magnitude, 0 the number of
        /// elements that are not 0. For `p = 2` the squares stay in range.
        ///
        /// ```
        /// # use brain_blitz::prelude::*;
        /// let mut cx = Graph::new();
        /// let x = cx.tensor::<R1<2>>().set([3e30, 4e30]);
        /// let y = x.norm(0, 2).retrieve();
        /// cx.execute();
        /// assert_eq!(y.data(), [5e30]);
        /// ```
        norm, norm_keepdim, (p: impl Into<f64>), norm_of
    }
}
