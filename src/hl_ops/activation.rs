//! Activation functions.
//!
//! Where a formula has two sides, the side that is not chosen is kept finite, so that no gradient becomes NaN through
//! it. Those with an exponential are stable for any number.

use std::f64::consts;

use super::binary::numeric;
use super::operand::{broadcast_dims, fail};
use crate::graph::{GraphTensor, Shape};

const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

/// `-|x|`, with the slope of `x` at 0.
#[track_caller]
fn minus_size(x: GraphTensor) -> GraphTensor {
    x.gt(0.0).where_(-x, x)
}

/// `x` below 0, else 0.
#[track_caller]
fn negative_part(x: GraphTensor) -> GraphTensor {
    x.minimum(0.0)
}

/// `max(x, 0) + log(1 + exp(-|x|))`.
#[track_caller]
fn softplus(x: GraphTensor) -> GraphTensor {
    x.maximum(0.0) + minus_size(x).exp().log1p()
}

/// With `e = exp(x)`, `tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2)`, which is 1 from 20 on.
#[track_caller]
fn mish(x: GraphTensor) -> GraphTensor {
    let e = x.minimum(20.0).exp();
    let e = e * (e + 2.0);
    x * (e / (e + 2.0))
}

/// With `u = sqrt(2 / pi) (x + 0.044715 x³)`, `(1 + tanh(u)) / 2 = sigmoid(2 u)`.
#[track_caller]
fn gelu_tanh(x: GraphTensor) -> GraphTensor {
    let scale = 2.0 * consts::FRAC_2_SQRT_PI * consts::FRAC_1_SQRT_2;
    let inner = (x + x * x * x * 0.044715) * scale;
    x * inner.sigmoid()
}

/// `x` as rows of halves along an axis: the first and the second.
#[track_caller]
fn halves(x: GraphTensor, axis: isize) -> [GraphTensor; 2] {
    let ty = x.ty();
    let rank = ty.dims.len();
    let Some(axis) = axis
        .checked_add_unsigned(if axis < 0 { rank } else { 0 })
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
    else {
        fail("glu", format!("there is no axis {axis} in {ty}"));
    };
    let size = ty.dims[axis];
    let half = size.floor_div(2);
    if half * 2 != size {
        fail(
            "glu",
            format!("axis {axis} of {ty} has no two equal halves"),
        );
    }
    let first = x.look("glu", |view| view.slice(axis, 0, half, 1));
    [first, x.look("glu", |view| view.slice(axis, half, size, 1))]
}

impl GraphTensor {
    /// The gated linear unit: the first half of an axis times the sigmoid of the second. Negative axes count from the
    /// last.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input(4, DType::F32).set([1.0, 2.0, 0.0, 100.0]);
    /// let y = x.glu(-1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.5, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis or its size is odd, or the format is not a floating-point one.
    #[track_caller]
    pub fn glu(self, axis: isize) -> GraphTensor {
        let [value, gate] = halves(self, axis);
        value * gate.sigmoid()
    }

    /// x where it is above 0, `weight * x` elsewhere. A weight of more than one element has one for each channel,
    /// which is axis 1 (or the only axis).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 2), DType::F32).set([[-1.0, -1.0]]);
    /// let weight = cx.input(2, DType::F32).set([0.5, 0.25]);
    /// let y = x.prelu(weight).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-0.5, -0.25]);
    /// ```
    ///
    /// # Panics
    /// If shapes or formats do not fit.
    #[track_caller]
    pub fn prelu(self, weight: GraphTensor) -> GraphTensor {
        let rank = self.rank();
        let aligned = weight.look("prelu", |view| {
            if view.numel().is_one() {
                return view.reshape(());
            }
            let channels_last = Ok(view.clone());
            (2..rank).fold(channels_last, |view, _| {
                let view = view?;
                view.insert(view.rank(), 1)
            })
        });
        let dims = self.dims();
        if broadcast_dims(&dims, &aligned.dims()).as_ref() != Some(&dims) {
            let (x, weight) = (self.ty(), weight.ty());
            fail("prelu", format!("a weight {weight} for channels of {x}"));
        }
        self.gt(0.0).where_(self, negative_part(self) * aligned)
    }
}

impl<S: Shape> GraphTensor<S> {
    /// `max(x, 0)`; NaN stays, and the slope at 0 is 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1.0, 2.0]);
    /// let y = x.relu().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 2.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn relu(self) -> GraphTensor<S> {
        numeric("relu", self.dynamic());
        // The inner choice tells NaN from numbers at most 0.
        let rest = self.lt(1.0).where_(self.full_like(0.0), self);
        self.gt(0.0).where_(self, rest)
    }

    /// x where it is above 0, `slope * x` elsewhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1.0, 2.0]);
    /// let y = x.leaky_relu(0.25).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-0.25, 2.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn leaky_relu(self, slope: f64) -> GraphTensor<S> {
        let x = self.wide("leaky_relu");
        x.gt(0.0).where_(x, x * slope).narrowed(self)
    }

    /// x where it is above 0, `alpha * (exp(x) - 1)` elsewhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1.0, 2.0]);
    /// let y = x.elu(0.5).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-0.31606027941427883, 2.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn elu(self, alpha: f64) -> GraphTensor<S> {
        let x = self.wide("elu");
        x.gt(0.0)
            .where_(x, negative_part(x).expm1() * alpha)
            .narrowed(self)
    }

    /// x where it is above 0, `alpha * (exp(x / alpha) - 1)` elsewhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1.0, 2.0]);
    /// let y = x.celu(0.5).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-0.43233235838169365, 2.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn celu(self, alpha: f64) -> GraphTensor<S> {
        let x = self.wide("celu");
        x.gt(0.0)
            .where_(x, (negative_part(x) / alpha).expm1() * alpha)
            .narrowed(self)
    }

    /// The self-normalizing unit (Klambauer et al., 2017): `scale * elu(x, alpha)` with the paper's two constants.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1.0, 2.0]);
    /// let y = x.selu().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-1.1113307378125625, 2.101401974710961]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn selu(self) -> GraphTensor<S> {
        let x = self.wide("selu");
        (x.elu(SELU_ALPHA) * SELU_SCALE).narrowed(self)
    }

    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.gelu().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.841344746068543]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn gelu(self) -> GraphTensor<S> {
        let x = self.wide("gelu");
        (x * 0.5 * ((x * consts::FRAC_1_SQRT_2).erf() + 1.0)).narrowed(self)
    }

    /// [`GraphTensor::gelu`] with `tanh(sqrt(2 / pi) (x + 0.044715 x³))` in place of the error function.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.gelu_tanh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.8411919906082768]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn gelu_tanh(self) -> GraphTensor<S> {
        let x = self.wide("gelu_tanh");
        gelu_tanh(x).narrowed(self)
    }

    /// `x * sigmoid(x)`, also called swish.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.silu().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.7310585786300049]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn silu(self) -> GraphTensor<S> {
        let x = self.wide("silu");
        (x * x.sigmoid()).narrowed(self)
    }

    /// `log(1 + exp(x))`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 100.0]);
    /// let y = x.softplus().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.6931471805599453, 100.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn softplus(self) -> GraphTensor<S> {
        let x = self.wide("softplus");
        softplus(x).narrowed(self)
    }

    /// `log(sigmoid(x))`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, -100.0]);
    /// let y = x.logsigmoid().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-0.6931471805599453, -100.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn logsigmoid(self) -> GraphTensor<S> {
        let x = self.wide("logsigmoid");
        (negative_part(x) - minus_size(x).exp().log1p()).narrowed(self)
    }

    /// `x * tanh(softplus(x))`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.mish().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.8650983882673103]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn mish(self) -> GraphTensor<S> {
        let x = self.wide("mish");
        mish(x).narrowed(self)
    }
}
