//! Products of few rows without packing: weighted sums of rows, and single batches of a product.
//!
//! A chain of products may go on with one of the independent products before another begins, as attention of a token does with
//! its heads. Each is then computed by the thread that calls, which says what it will read next: memory is asked for that while
//! the last rows are computed, as one stream from operand to operand.
//!
//! Bits: those of [`Gemm::run_few`], and of [`Gemm::run`] for weighted sums of rows.

use super::dot::DotCall;
use super::ir::Contraction;
use super::plan::Sizes;
use super::sums::{self, CompiledSums, SumsCall};
use super::{CompiledGemm, Gemm};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;

impl CompiledGemm {
    /// The same product `c` with the code of [`Gemm::sums_of`], if its operands fit.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn with_sums(
        mut self,
        c: &Contraction,
        target: &Target,
        cache: &ObjectCache,
    ) -> Result<CompiledGemm> {
        if self.sums.is_none() {
            self.sums = CompiledSums::new(c, target, cache, &mut self.params)?;
        }
        Ok(self)
    }
}

/// A product of which single batches are computed.
#[derive(Clone, Copy, Debug)]
pub struct HeadCall<'a> {
    /// The buffers that the operands' views look at.
    pub operands: [*const u8; 2],
    /// The output buffer, of all batches.
    pub out: *mut f32,
    /// Values of the code's parameters.
    pub params: &'a [i64],
    /// What the thread reads behind the batch: it is asked for while the last rows are computed.
    pub then: *const u8,
}

impl Gemm {
    /// Whether [`Gemm::run_sums`] is the way for these sizes: few rows, and blocks whose columns are neighbours.
    pub fn is_summed(&self, sizes: Sizes) -> bool {
        self.reads_blocks() && self.sums.is_some() && sizes.m <= sums::MOST
    }

    /// Computes the product without packing anything, with the bits of [`Gemm::run`].
    ///
    /// # Panics
    /// Unless [`Gemm::is_summed`].
    ///
    /// # Safety
    /// That of [`Gemm::run`], with a right operand as it is.
    pub unsafe fn run_sums(
        &self,
        operands: [*const u8; 2],
        out: *mut f32,
        params: &[i64],
        threads: usize,
    ) {
        let sums = self.sums.as_ref().expect("is_summed was asked");
        let call = SumsCall {
            sizes: self.sizes(params),
            operands,
            out,
            walks: &self.shape.out,
            params,
        };
        assert!(self.is_summed(call.sizes), "too many rows");
        // SAFETY: the caller's promise.
        unsafe { sums.run(&call, threads) };
    }

    /// Whether [`Gemm::dots_of`] computes products of these sizes.
    pub fn has_dots(&self, sizes: Sizes) -> bool {
        let dots = self.dots.as_ref().filter(|dots| dots.fits(sizes));
        dots.is_some_and(|dots| dots.scratch_bytes(sizes) == 0)
    }

    /// Whether [`Gemm::sums_of`] computes products of these sizes.
    pub fn has_sums(&self, sizes: Sizes) -> bool {
        self.sums.is_some() && sizes.m <= sums::MOST
    }

    /// Computes one batch, as [`Gemm::run_few`] does.
    ///
    /// # Panics
    /// Unless [`Gemm::has_dots`].
    ///
    /// # Safety
    /// That of [`Gemm::run_few`]; no other thread writes this batch of the output.
    pub unsafe fn dots_of(&self, call: &HeadCall<'_>, batch: usize) {
        let sizes = self.sizes(call.params);
        assert!(self.has_dots(sizes), "rows that dot products cannot read");
        let dots = self.dots.as_ref().expect("it has dot products");
        dots.run_batch(&self.dot_call(call, sizes), batch, call.then);
    }

    fn dot_call<'a>(&'a self, call: &HeadCall<'a>, sizes: Sizes) -> DotCall<'a> {
        DotCall {
            sizes,
            operands: call.operands,
            out: call.out,
            walks: &self.shape.out,
            params: call.params,
            written: None,
        }
    }

    /// Computes one batch as weighted sums of the right operand's rows, with the bits of [`Gemm::run`].
    ///
    /// # Panics
    /// Unless [`Gemm::has_sums`].
    ///
    /// # Safety
    /// That of [`Gemm::run`], with a right operand as it is; no other thread writes this batch of the output.
    pub unsafe fn sums_of(&self, call: &HeadCall<'_>, batch: usize) {
        let sizes = self.sizes(call.params);
        assert!(self.has_sums(sizes), "no code for so many rows");
        let sums = self.sums.as_ref().expect("it has sums");
        let then = call.then;
        let call = SumsCall {
            sizes,
            operands: call.operands,
            out: call.out,
            walks: &self.shape.out,
            params: call.params,
        };
        // SAFETY: the caller's promise.
        unsafe { sums.run_batch(&call, batch, then) };
    }

    /// Where the right operand's first row of a batch begins, given its buffer, for [`HeadCall::then`]; the buffer, if no
    /// such rows are read.
    pub fn start_of(&self, rhs: *const u8, batch: usize, params: &[i64]) -> *const u8 {
        match (&self.sums, &self.dots) {
            (Some(sums), _) => sums.start(rhs, batch, params),
            (None, Some(dots)) => dots.places[1].row(rhs, (batch, 0), params),
            (None, None) => rhs,
        }
    }
}
