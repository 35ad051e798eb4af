//! Activation functions made of pieces of straight lines, and their kin.

use super::binary::numeric;
use crate::graph::{GraphTensor, Shape};

impl<S: Shape> GraphTensor<S> {
    /// `min(max(x, 0), 6)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([-1.0, 2.0, 8.0]);
    /// let y = x.relu6().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 2.0, 6.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn relu6(self) -> GraphTensor<S> {
        self.clamp(0.0, 6.0)
    }

    /// x cut to `low .. high`; the usual range is -1 to 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-3.0, 0.5]);
    /// let y = x.hardtanh(-1.0, 1.0).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-1.0, 0.5]).all(close));
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn hardtanh(self, low: f64, high: f64) -> GraphTensor<S> {
        self.clamp(low, high)
    }

    /// `relu6(x + 3) / 6`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-4.0, 0.0]);
    /// let y = x.hardsigmoid().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.5]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn hardsigmoid(self) -> GraphTensor<S> {
        let x = self.wide("hardsigmoid");
        ((x + 3.0).relu6() * (1.0 / 6.0)).narrowed(self)
    }

    /// `x * hardsigmoid(x)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-4.0, 1.0]);
    /// let y = x.hardswish().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.6666666666666666]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn hardswish(self) -> GraphTensor<S> {
        let x = self.wide("hardswish");
        (x * x.hardsigmoid()).narrowed(self)
    }

    /// `x / (1 + |x|)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1.0, 3.0]);
    /// let y = x.softsign().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-0.5, 0.75]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn softsign(self) -> GraphTensor<S> {
        let x = self.wide("softsign");
        (x / (x.abs() + 1.0)).narrowed(self)
    }

    /// x moved by `lambda` towards 0, and 0 nearer to it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-2.0, 0.25]);
    /// let y = x.softshrink(0.5).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-1.5, 0.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn softshrink(self, lambda: f64) -> GraphTensor<S> {
        let x = self.wide("softshrink");
        let below = x.lt(-lambda).where_(x + lambda, x * 0.0);
        x.gt(lambda).where_(x - lambda, below).narrowed(self)
    }

    /// x, but 0 in `-lambda ..= lambda`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-2.0, 0.25]);
    /// let y = x.hardshrink(0.5).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[-2.0, 0.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn hardshrink(self, lambda: f64) -> GraphTensor<S> {
        numeric("hardshrink", self.dynamic());
        let inside = self.ge(-lambda) & self.le(lambda);
        self.masked_fill(inside, 0.0)
    }

    /// `x - tanh(x)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.tanhshrink().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 0.23840584404423515]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn tanhshrink(self) -> GraphTensor<S> {
        let x = self.wide("tanhshrink");
        (x - x.tanh()).narrowed(self)
    }

    /// x where it is above `limit`, `value` elsewhere; NaN stays.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-2.0, 5.0]);
    /// let y = x.threshold(1.0, 7.0).retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
    /// assert!(y.data().iter().zip(&[7.0, 5.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn threshold(self, limit: f64, value: f64) -> GraphTensor<S> {
        numeric("threshold", self.dynamic());
        self.masked_fill(self.le(limit), value)
    }
}
