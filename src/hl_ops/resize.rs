//! Resampling the last axes at other sizes.
//!
//! One axis after the other, the last one first: the places that an output reads, and their weights, are computed from its coordinate, and the
//! elements looked up. An output at coordinate `i` lies at `(i + 1/2) scale - 1/2` of the input, or at
//! `i (n - 1) / (m - 1)` where corners are aligned.

use super::operand::fail;
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::op::Op;
use crate::shape::{Dims, Expr};

/// How values between elements are found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interpolation {
    /// The element at `floor(i scale)`.
    Nearest,
    /// The element at `floor((i + 1/2) scale)`.
    NearestExact,
    /// Between two elements, on a line.
    Linear {
        /// Whether the first and last elements keep their places.
        align_corners: bool,
    },
    /// Between four elements, on a cubic with `a = -3/4` (Keys 1981).
    Cubic {
        /// Whether the first and last elements keep their places.
        align_corners: bool,
    },
}

/// The factor of the cubic.
const A: f64 = -0.75;

/// The weights of the elements at distances `1 + t`, `t`, `r = 1 - t` and `1 + r`, in factors, so that those near 0 are exact:
/// `A t r²`, `r (1 + t - (A + 2) t²)`, and the same with `t` and `r` exchanged, in reverse.
#[track_caller]
pub(super) fn cubic_weights(t: GraphTensor) -> [GraphTensor; 4] {
    let r = 1.0 - t;
    let near = |t: GraphTensor, r: GraphTensor| r * (t - t.square() * (A + 2.0) + 1.0);
    let far = |t: GraphTensor, r: GraphTensor| t * r.square() * A;
    [far(t, r), near(t, r), near(r, t), far(r, t)]
}

/// One axis: `n` elements become `m`, `scale` apart.
struct Line {
    axis: usize,
    n: i64,
    m: i64,
    scale: f64,
}

impl Line {
    /// The coordinates of the outputs, `F32 [m]`.
    #[track_caller]
    fn outputs(&self, x: GraphTensor) -> GraphTensor {
        let len = Expr::from(self.m);
        GraphTensor::leaf(x.graph, Op::Iota { len }).cast(DType::F32)
    }

    /// Where the outputs lie in the input.
    #[track_caller]
    fn places(&self, x: GraphTensor, align_corners: bool) -> GraphTensor {
        let i = self.outputs(x);
        if !align_corners {
            return (i + 0.5) * self.scale - 0.5;
        }
        let step = match self.m {
            1 => 0.0,
            m => (self.n - 1) as f64 / (m - 1) as f64,
        };
        i * step
    }

    /// The elements of `x` at whole coordinates `F32 [m]`, clamped to the axis.
    #[track_caller]
    fn look_up(&self, x: GraphTensor, at: GraphTensor) -> GraphTensor {
        let inside = at.clamp(0.0, (self.n - 1) as f64);
        x.index_select(self.axis, inside.cast(DType::I32))
    }

    /// Weights `[m]` along the axis of `x`.
    #[track_caller]
    fn along(&self, x: GraphTensor, weight: GraphTensor) -> GraphTensor {
        let mut dims: Dims = x.dims().iter().map(|_| Expr::from(1)).collect();
        dims[self.axis] = Expr::from(self.m);
        weight.cast(x.dtype()).reshape(dims)
    }

    #[track_caller]
    fn resample(&self, x: GraphTensor, how: Interpolation) -> GraphTensor {
        match how {
            Interpolation::Nearest => self.look_up(x, (self.outputs(x) * self.scale).floor()),
            Interpolation::NearestExact => {
                self.look_up(x, ((self.outputs(x) + 0.5) * self.scale).floor())
            }
            Interpolation::Linear { align_corners } => {
                let at = self.places(x, align_corners).maximum(0.0);
                let left = at.floor();
                let t = self.along(x, at - left);
                let (a, b) = (self.look_up(x, left), self.look_up(x, left + 1.0));
                a * (1.0 - t) + b * t
            }
            Interpolation::Cubic { align_corners } => {
                let at = self.places(x, align_corners);
                let left = at.floor();
                let terms = cubic_weights(at - left).into_iter().enumerate();
                let terms = terms.map(|(i, weight)| {
                    self.look_up(x, left + (i as f64 - 1.0)) * self.along(x, weight)
                });
                let sum = terms.reduce(|a, b| a + b);
                sum.expect("a cubic has four terms")
            }
        }
    }
}

impl GraphTensor {
    /// The last axes resampled at these sizes. Distances in the input are the ratios of sizes, or one by `scale_factors`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Interpolation;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 3.0]).dynamic();
    /// let linear = Interpolation::Linear { align_corners: false };
    /// let y = x.resize(&[4], None, linear).retrieve();
    /// let z = x.resize(&[4], None, Interpolation::Nearest).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.5, 2.5, 3.0]);
    /// assert_eq!(z.data(), [1.0, 1.0, 3.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not as many axes, one is symbolic or empty, or the format is not a floating-point one.
    #[track_caller]
    pub fn resize(
        self,
        sizes: &[usize],
        scale_factors: Option<&[f64]>,
        how: Interpolation,
    ) -> GraphTensor {
        let ty = self.ty();
        let fits = scale_factors.is_none_or(|factors| factors.len() == sizes.len());
        let Some(first) = ty.dims.len().checked_sub(sizes.len()).filter(|_| fits) else {
            fail("resize", format!("{ty} at {sizes:?}"));
        };
        let mut x = self.wide("resize");
        for (i, &m) in sizes.iter().enumerate().rev() {
            let Some(n @ 1..) = ty.dims[first + i].as_const() else {
                fail("resize", format!("{ty} at {sizes:?}"));
            };
            let m = m as i64;
            let scale = match scale_factors {
                Some(factors) => 1.0 / factors[i],
                None => n as f64 / m as f64,
            };
            let axis = first + i;
            let line = Line { axis, n, m, scale };
            x = line.resample(x, how);
        }
        x.narrowed(self)
    }
}
