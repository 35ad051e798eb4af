//! Numbers that are only signs, as tensors: what the `Binarize` compiler writes into graphs, for those who write it
//! themselves.

use crate::blocks::SignMatrix;
use crate::graph::{GraphTensor, Shape};
use crate::op::{Op, SignPart};

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
        let x = self;
        let sign = x.lt(0.0).where_(x.full_like(-1.0), x.full_like(1.0));
        self.straight_through_clipped(sign, 1.0)
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

    /// A part of a matrix of signs, given by its bytes `u8[panels, bytes of a panel]`.
    ///
    /// # Panics
    /// If the bytes are not those of such a matrix, or it has no such part.
    #[track_caller]
    pub fn sign_matrix(self, matrix: SignMatrix, part: SignPart) -> GraphTensor {
        GraphTensor::record(Op::SignMatrix(matrix, part), &[self])
    }
}
