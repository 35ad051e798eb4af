//! Low-bit weights, caches and activations as tensors: what the `Quantize` compiler writes into graphs, for those who write
//! it themselves.

use crate::blocks::BlockType;
use crate::graph::GraphTensor;
use crate::op::{ActivationScheme, Op};

impl GraphTensor {
    /// Blocks of numbers, rounded as ggml rounds them: of rows `f32[.., blocks * numbers]` to their bytes,
    /// `u8[.., blocks * bytes]`. Executing fails where a number is not finite or too large for the type. No gradient flows
    /// back.
    ///
    /// ```
    /// use brain_blitz::{blocks::BlockType, prelude::*};
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 32), DType::F32).set(vec![254.0; 32]);
    /// let blocks = x.quantize(BlockType::Q8_0);
    /// assert_eq!(blocks.ty().to_string(), "u8[1, 34]");
    /// let y = blocks.dequantize(BlockType::Q8_0).retrieve(); // a scale of 2
    /// cx.execute();
    /// assert_eq!(y.data(), [254.0; 32]);
    /// ```
    ///
    /// # Panics
    /// If the tensor is not of `F32`, its last axis is no known number of whole blocks, or there is no encoder for the
    /// type.
    #[track_caller]
    pub fn quantize(self, ty: BlockType) -> GraphTensor {
        GraphTensor::record(Op::Quantize(ty), &[self])
    }

    /// The numbers of blocks: of a tensor of bytes whose last axis is a row of whole blocks, `[.., blocks * bytes]`, to
    /// `f32[.., blocks * numbers]`.
    ///
    /// ```
    /// use brain_blitz::{blocks::BlockType, prelude::*};
    /// let mut bytes = vec![0; 34];
    /// BlockType::Q8_0.quantize(&[1.0; 32], &mut bytes)?;
    /// let mut cx = Graph::new();
    /// let w = cx.input((1, 34), DType::U8);
    /// w.set(bytes);
    /// let y = w.dequantize(BlockType::Q8_0).retrieve();
    /// cx.execute();
    /// assert!(y.data().iter().all(|x| (x - 1.0).abs() < 1e-3));
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the tensor is not of `U8`, its last axis is no known number of whole blocks, or there is no decoder for the
    /// type.
    #[track_caller]
    pub fn dequantize(self, ty: BlockType) -> GraphTensor {
        GraphTensor::record(Op::Dequantize(ty), &[self])
    }

    /// The same numbers rounded to 8 bits or fewer in groups along the last axis. Gradients flow through as if nothing had
    /// been rounded, but not to what lies beyond the levels of few bits.
    ///
    /// ```
    /// use brain_blitz::{op::ActivationScheme, prelude::*};
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 3), DType::F32).set([[254.0, 3.1, -1.2]]);
    /// let y = x.fake_quantize(ActivationScheme::A8Tok).retrieve(); // a scale of 2
    /// cx.execute();
    /// assert_eq!(y.data(), [254.0, 4.0, -2.0]);
    /// ```
    ///
    /// # Panics
    /// If the tensor is not of `F32` or has no axis.
    #[track_caller]
    pub fn fake_quantize(self, scheme: ActivationScheme) -> GraphTensor {
        GraphTensor::record(Op::FakeQuantize(scheme), &[self])
    }
}
