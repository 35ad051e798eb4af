//! A right operand packed once, whole, for many executions.
//!
//! Before: any view of the operand. After: panels in the operand's own format where micro-kernels read that, else in
//! F32: for each batch and block of K, panels of the tile's columns, `[panel][k][columns]`, the last one filled up with
//! zeros. The blocks of K are those of [`Gemm::run`], so where a block of panels begins follows from the sizes alone.
//!
//! The values are those of the view, so the product's bits are those of the operand packed at every execution.

use super::micro::MicroFn;
use super::micros::Micros;
use super::plan::Sizes;
use super::{CompiledGemm, Gemm};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::pool;

/// The format of the panels that an operand of a format is packed to once.
pub fn panel_dtype(operand: DType) -> DType {
    match operand {
        DType::BF16 => DType::BF16,
        _ => DType::F32,
    }
}

/// Where panels are written, for threads.
struct Panels(*mut u8);

// SAFETY: each unit of work writes its own panel.
unsafe impl Sync for Panels {}

impl CompiledGemm {
    /// The same product, which can also take a right operand packed by [`Gemm::pack_all`] from one of format `operand`.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn with_panels_of(
        mut self,
        operand: DType,
        target: &Target,
        cache: &ObjectCache,
    ) -> Result<CompiledGemm> {
        self.narrow = match panel_dtype(operand) {
            DType::F32 => None,
            narrow => Some(Micros::of(target, narrow, cache)?),
        };
        Ok(self)
    }
}

impl Gemm {
    /// The number of floats [`Gemm::pack_rhs`] writes.
    pub fn packed_rhs_len(&self, sizes: Sizes) -> usize {
        let columns = self.shape.tile.columns() as usize;
        sizes.batch * sizes.n.next_multiple_of(columns) * sizes.k
    }

    /// Packs the whole right operand, once, for `Rhs::Packed` in any number of later calls with
    /// the same batch, n and k.
    ///
    /// # Safety
    /// `rhs` holds every element that the view reads with these parameters; `packed` has
    /// [`Gemm::packed_rhs_len`] floats, does not overlap `rhs`, and is aligned to 64 bytes.
    pub unsafe fn pack_rhs(&self, rhs: *const u8, params: &[i64], packed: *mut f32) {
        let sizes = self.sizes(params);
        let (columns, kc) = (
            self.shape.tile.columns() as usize,
            self.shape.blocks.steps(sizes.k),
        );
        let width = sizes.n.next_multiple_of(columns);
        for batch in 0..sizes.batch {
            for k in (0..sizes.k).step_by(kc) {
                let steps = kc.min(sizes.k - k);
                // SAFETY: the caller vouches for `rhs` and for room of `batch * width * k` floats,
                // of which this is the block of `width` times `steps` behind all earlier ones.
                unsafe {
                    let to = packed.add((batch * sizes.k + k) * width);
                    let (n, k, steps) = (sizes.n as i64, k as i64, steps as i64);
                    (self.pack_rhs)(rhs, params.as_ptr(), batch as i64, 0, n, k, steps, to);
                }
            }
        }
    }

    /// What [`Gemm::pack_all`] makes of an operand, in words: equal where the bytes are.
    pub fn panels_layout(&self, sizes: Sizes) -> String {
        let steps = self.shape.blocks.steps(sizes.k);
        format!("panels of {} in blocks of {steps}", self.panel())
    }

    /// The bytes that [`Gemm::pack_all`] writes.
    pub fn panels_bytes(&self, sizes: Sizes, operand: DType) -> usize {
        self.packed_rhs_len(sizes) * panel_dtype(operand).size()
    }

    /// Packs a whole right operand of format `operand` into panels of format [`panel_dtype`], on some threads. The
    /// operand's view has no symbols; of the sizes those of the left operand do not matter.
    ///
    /// # Safety
    /// `rhs` holds every element that the view reads; `to` has [`Gemm::panels_bytes`], does not
    /// overlap `rhs`, and is aligned to 64 bytes.
    pub unsafe fn pack_all(
        &self,
        (rhs, operand): (*const u8, DType),
        sizes: Sizes,
        to: *mut u8,
        threads: usize,
    ) {
        let (columns, kc) = (self.panel(), self.shape.blocks.steps(sizes.k));
        let (panels, width) = (sizes.n.div_ceil(columns), sizes.n.next_multiple_of(columns));
        let blocks = sizes.k.div_ceil(kc);
        let (rhs, to) = (Panels(rhs.cast_mut()), Panels(to));
        let size = panel_dtype(operand).size();
        let units = sizes.batch * blocks * panels;
        pool::for_each_range(threads, units, &|units| {
            let (rhs, to) = (&rhs, &to);
            let mut wide = vec![0f32; columns * kc];
            for unit in units {
                let (batch, block, panel) = (
                    unit / (blocks * panels),
                    unit / panels % blocks,
                    unit % panels,
                );
                let (n, k) = (panel * columns, block * kc);
                let (rows, steps) = (columns.min(sizes.n - n), kc.min(sizes.k - k));
                let offset = (batch * sizes.k + k) * width + n * steps;
                let to = to.0.wrapping_add(offset * size);
                let panel = match size {
                    4 => to.cast(),
                    _ => wide.as_mut_ptr(),
                };
                let [batch, n, rows, k, steps] = [batch, n, rows, k, steps].map(|i| i as i64);
                // SAFETY: the caller vouches for `rhs`; a panel has room for `columns` times `steps` floats.
                unsafe {
                    (self.pack_rhs)(rhs.0, std::ptr::null(), batch, n, rows, k, steps, panel)
                };
                if size == 2 {
                    // SAFETY: the panel's own room, for as many numbers as were packed.
                    let narrow = unsafe {
                        std::slice::from_raw_parts_mut(to.cast::<u16>(), columns * steps as usize)
                    };
                    for (to, from) in narrow.iter_mut().zip(&wide) {
                        // Exact: the number was widened from one of this format.
                        *to = (from.to_bits() >> 16) as u16;
                    }
                }
            }
        });
    }

    /// The micro-kernels that read panels of a format.
    pub(super) fn micro(&self, panels: DType) -> &[MicroFn] {
        match panels {
            DType::F32 => &self.micro,
            _ => &self.narrow,
        }
    }
}
