//! Maps that read elements several times: strides over divided coordinates.
//!
//! ```text
//! over [8, 28]:  load x {[8, 28] <- [4, 2, 14, 2] * (14, 0, 1, 0)}     →     element (row / 2) * 14 + column / 2
//! ```
//! Such are the gradients of pools whose windows lie side by side, and enlarged pictures. As layers they cost divisions
//! for each lane's address and a gather; this way rows are walked, and neighbours are read as vectors ([`super::near`]).
//!
//! Not touched: reductions, padding, symbolic sizes, rows too short for vectors.

use super::plan::Source;
use crate::compilers::llvm_cpu::ir::Nest;
use crate::shape::{Expr, Layer};

/// The shortest row that is worth being walked by itself.
const SHORT: i64 = 8;

/// A nest's sources, without the layers that only repeat elements.
pub fn with_repeats(nest: &Nest, mut sources: Vec<Source>) -> Vec<Source> {
    let is_map = nest.stages.is_empty() && nest.reduce.is_empty();
    let sizes: Option<Vec<i64>> = nest.space.iter().map(|size| size.as_const()).collect();
    let Some(sizes) = sizes.filter(|sizes| is_map && is_worth(sizes)) else {
        return sources;
    };
    for (access, source) in sources.iter_mut().enumerate() {
        let [layer] = &source.below[..] else { continue };
        let layers = nest.loads[access].view.layers();
        let is_plain = layers.last().is_some_and(|top| top.is_contiguous());
        if !is_plain || source.gather.is_some() || layer.valid.is_some() {
            continue;
        }
        if let Some((strides, each)) = divided(&sizes, layer) {
            source.offset = layer.offset;
            (source.strides, source.each, source.below) = (strides, each, vec![]);
        }
    }
    sources
}

/// Whether the last dim fills vectors, and lanes can count all elements.
fn is_worth(sizes: &[i64]) -> bool {
    let all = sizes.iter().try_fold(1i64, |n, &size| n.checked_mul(size));
    let counts = all.is_some_and(|n| (1..=i64::from(i32::MAX)).contains(&n));
    counts && sizes.last().is_some_and(|&size| size >= SHORT)
}

/// Strides of dims over a layer of the same elements, and by what coordinates are divided first; `None` if that is not
/// all that the layer does.
fn divided(sizes: &[i64], layer: &Layer) -> Option<(Vec<Expr>, Vec<i64>)> {
    let mut parts = layer.dims.iter().zip(&layer.strides).rev();
    let (mut strides, mut each) = (vec![], vec![]);
    for &size in sizes.iter().rev() {
        let (mut count, mut stride, mut same) = (1, Expr::from(0), 1);
        while count < size {
            let (part, &step) = parts.next()?;
            let part = part.as_const().filter(|&part| part > 0)?;
            match stride.is_zero() {
                _ if part == 1 => {}
                true if step.is_zero() => same *= part,
                true => stride = step,
                false if step == stride * (count / same) => {}
                false => return None,
            }
            count *= part;
        }
        if count != size {
            return None;
        }
        strides.push(stride);
        each.push(if stride.is_zero() { 1 } else { same });
    }
    strides.reverse();
    each.reverse();
    Some((strides, each))
}
