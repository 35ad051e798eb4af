//! Numbers that are only signs, as tensors: what the `Binarize` compiler writes into graphs, for those who write it
//! themselves.

use crate::blocks::SignMatrix;
use crate::graph::{GraphTensor, Shape};
use crate::op::{Op, PlanePart, Planes, SignPart};

/// What stands for the gradient of a sign, which is 0 almost everywhere (a straight-through estimator, Bengio et al.
/// 2013).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SignEstimator {
    /// 1 everywhere.
    Identity,
    /// 1 where |x| is at most 1, else 0 (Hubara et al. 2016, section 1.3).
    #[default]
    Clipped,
    /// `2 - 2 |x|` where |x| is at most 1, else 0: the slope of a parabola on each side (Liu et al. 2018, section 3.3).
    ApproxSign,
}

impl SignEstimator {
    /// A tensor with the estimated gradient for `x`; its numbers mean nothing.
    #[track_caller]
    fn passed(self, x: GraphTensor) -> GraphTensor {
        let curve = match self {
            SignEstimator::Identity => return x,
            SignEstimator::Clipped => x,
            SignEstimator::ApproxSign => x * 2.0 - x * x.abs(),
        };
        x.abs().le(1.0).where_(curve, x.detach())
    }
}

impl<S: Shape> GraphTensor<S> {
    /// -1 where x is below 0 and 1 elsewhere, at zeros and NaN too. Gradients flow through where |x| is at most 1, as if
    /// this were x there (Hubara et al. 2016, section 1.3).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([0.5, -0.0, -2.0]);
    /// let y = x.binary_sign().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0, -1.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn binary_sign(self) -> GraphTensor<S> {
        self.straight_through_sign(self.raw_sign(), SignEstimator::Clipped)
    }

    /// [`binary_sign`](Self::binary_sign) with another estimate of its gradient.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::SignEstimator;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([0.25, -0.5, 2.0]);
    /// let y = x.binary_sign_with(SignEstimator::ApproxSign).retrieve();
    /// let dx = cx.compile(Autograd::new(x, y), ())[0].retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, -1.0, 1.0]);
    /// assert_eq!(dx.data(), [1.5, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn binary_sign_with(self, estimator: SignEstimator) -> GraphTensor<S> {
        self.straight_through_sign(self.raw_sign(), estimator)
    }

    /// The numbers of `value`, through which gradients flow to `self` as through a sign.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::SignEstimator;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([0.4, -0.1, 1.2]);
    /// let three_values = x.abs().gt(0.3).where_(x.sign(), x.zeros_like());
    /// let y = x.straight_through_sign(three_values, SignEstimator::Clipped).retrieve();
    /// let dx = cx.compile(Autograd::new(x, y), ())[0].retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 1.0]);
    /// assert_eq!(dx.data(), [1.0, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes or formats differ.
    #[track_caller]
    pub fn straight_through_sign(
        self,
        value: GraphTensor<S>,
        estimator: SignEstimator,
    ) -> GraphTensor<S> {
        let passed = estimator.passed(self.dynamic());
        passed.straight_through(value.dynamic()).retag()
    }

    /// -1 or 1, without a gradient.
    #[track_caller]
    pub(crate) fn raw_sign(self) -> GraphTensor<S> {
        let x = self;
        x.lt(0.0).where_(x.full_like(-1.0), x.full_like(1.0))
    }
}

impl GraphTensor {
    /// A bit for each element of rows of known length, `f32[.., k]` to `u8[.., k / 8]` (rounded up): set where it is not
    /// below 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 3), DType::F32).set([[0.5, -1.0, 2.0]]);
    /// let bits = x.pack_signs();
    /// let y = bits.unpack_signs(3).retrieve();
    /// bits.retrieve();
    /// cx.execute();
    /// assert_eq!((bits.array().bytes(), y.data()), (&[0b101][..], vec![1.0, -1.0, 1.0]));
    /// ```
    ///
    /// # Panics
    /// If this is not `F32`, or the length of its rows is not known.
    #[track_caller]
    pub fn pack_signs(self) -> GraphTensor {
        GraphTensor::record(Op::PackSigns, &[self])
    }

    /// 1 for a set bit and -1 for another: of rows of bytes the first `k` bits, `u8[.., k / 8]` to `f32[.., k]`.
    ///
    /// # Panics
    /// If this is not `U8` with rows of as many bytes as `k` bits need.
    #[track_caller]
    pub fn unpack_signs(self, k: usize) -> GraphTensor {
        GraphTensor::record(Op::UnpackSigns(k), &[self])
    }

    /// Rows of known length rounded to levels of a few bits, `f32[.., k]` to `u8[.., 4 + planes * (k / 8)]`: a scale and
    /// planes of bits.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::op::{PlanePart, Planes};
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 4), DType::F32).set([[0.5, -1.0, 9.0, 1.5]]); // a scale of 2
    /// let rows = x.pack_planes(Planes::Two);
    /// let levels = rows.unpack_planes(4, Planes::Two, PlanePart::Levels).retrieve();
    /// let scales = rows.unpack_planes(4, Planes::Two, PlanePart::Scales).retrieve();
    /// cx.execute();
    /// assert_eq!((levels.data(), scales.data()), (vec![1.0, -1.0, 3.0, 1.0], vec![2.0]));
    /// ```
    ///
    /// # Panics
    /// If this is not `F32`, or the length of its rows is not known.
    #[track_caller]
    pub fn pack_planes(self, planes: Planes) -> GraphTensor {
        GraphTensor::record(Op::PackPlanes(planes), &[self])
    }

    /// Levels `f32[.., k]` or scales `f32[..]` of rows that [`pack_planes`](Self::pack_planes) wrote.
    ///
    /// # Panics
    /// If this is not `U8` with rows of as many bytes as `k` numbers need.
    #[track_caller]
    pub fn unpack_planes(self, k: usize, planes: Planes, part: PlanePart) -> GraphTensor {
        GraphTensor::record(Op::UnpackPlanes(k, planes, part), &[self])
    }

    /// A part of a matrix of signs, given by its bytes `u8[panels, bytes of a panel]`.
    ///
    /// # Panics
    /// If the bytes are not those of such a matrix, or it has no such part.
    #[track_caller]
    pub fn sign_matrix(self, matrix: SignMatrix, part: SignPart) -> GraphTensor {
        GraphTensor::record(Op::SignMatrix(matrix, part), &[self])
    }
}
