//! A right operand packed once, whole, for many executions.
//!
//! Before: any view of the operand. After: panels in BF16 for such an operand (`widen` makes F32 of a block when
//! it is needed), else in F32: for each batch and block of K, panels of the tile's columns, `[panel][k][columns]`, the last one filled up with
//! zeros. The blocks of K are those of [`Gemm::run`], so where a block of panels begins follows from the sizes alone.
//!
//! The values are those of the view, so the product's bits are those of the operand packed at every execution.

use super::Gemm;
use super::packing::Part;
use super::plan::Sizes;
use crate::dtype::DType;
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

impl Gemm {
    /// What [`Gemm::pack_all`] makes of an operand, in words: equal where the bytes are.
    pub fn panels_layout(&self, sizes: Sizes) -> String {
        let steps = self.shape.blocks.steps(sizes.k);
        format!("panels of {} in blocks of {steps}", self.panel())
    }

    /// The bytes that [`Gemm::pack_all`] writes.
    pub fn panels_bytes(&self, sizes: Sizes, operand: DType) -> usize {
        let columns = sizes.n.next_multiple_of(self.panel());
        sizes.batch * columns * sizes.k * panel_dtype(operand).size()
    }

    /// Packs a whole right operand of format `operand` into panels of format [`panel_dtype`], on some threads, for
    /// [`Rhs::Packed`](super::Rhs::Packed) in any number of calls. Of the sizes those
    /// of the left operand do not matter; an operand whose view has no symbols needs no `params`.
    ///
    /// # Safety
    /// `rhs` holds every element that the view reads with these parameters; `to` has [`Gemm::panels_bytes`], does not
    /// overlap `rhs`, and is aligned to 64 bytes.
    pub unsafe fn pack_all(
        &self,
        (rhs, operand): (*const u8, DType),
        sizes: Sizes,
        params: &[i64],
        to: *mut u8,
        threads: usize,
    ) {
        let (columns, kc) = (self.panel(), self.shape.blocks.steps(sizes.k));
        let panels = sizes.n.div_ceil(columns);
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
                let offset = self.packed_offset(sizes, batch, n, k, steps);
                let to = to.0.wrapping_add(offset * size);
                let panel = match size {
                    4 => to.cast(),
                    _ => wide.as_mut_ptr(),
                };
                let part = Part {
                    batch,
                    row: n,
                    rows,
                    k,
                    steps,
                };
                // SAFETY: the caller vouches for `rhs`; a panel has room for `columns` times `steps` floats.
                unsafe { self.pack_rhs.run(rhs.0, params, part, panel) };
                if size == 2 {
                    // SAFETY: the panel's own room, for as many numbers as were packed.
                    let narrow = unsafe {
                        std::slice::from_raw_parts_mut(to.cast::<u16>(), columns * steps)
                    };
                    for (to, from) in narrow.iter_mut().zip(&wide) {
                        // Exact: the number was widened from one of this format.
                        *to = (from.to_bits() >> 16) as u16;
                    }
                }
            }
        });
    }
}
