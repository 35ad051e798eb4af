//! What a matrix product is called with.

#[cfg(doc)]
use super::{CompiledGemm, Gemm};
use crate::dtype::DType;

/// The right operand of a call.
#[derive(Clone, Copy, Debug)]
pub enum Rhs {
    /// The buffer that its view looks at.
    Raw(*const u8),
    /// Panels that [`Gemm::pack_all`] made of it, in this format.
    Packed(*const u8, DType),
}

impl Rhs {
    /// Whether its panels are read where they are.
    pub(super) fn is_ready(self) -> bool {
        matches!(self, Rhs::Packed(_, DType::F32))
    }

    /// Whether it was packed before the call.
    pub(super) fn is_packed(self) -> bool {
        matches!(self, Rhs::Packed(..))
    }
}

/// One execution of a [`Gemm`].
#[derive(Debug)]
pub struct Call<'a> {
    /// The buffer that the left operand's view looks at.
    pub lhs: *const u8,
    /// The right operand.
    pub rhs: Rhs,
    /// The output buffer.
    pub out: *mut f32,
    /// Values of [`CompiledGemm::params`].
    pub params: &'a [i64],
    /// At least [`Gemm::scratch_bytes`] for the same sizes and threads, of any content.
    pub scratch: &'a mut [u8],
    /// The most threads to use.
    pub threads: usize,
}
