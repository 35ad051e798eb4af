//! Rows of bits that are windows of an image: how they lie in its pixels, and the matrix in their order.
//!
//! ```text
//! bits of pixels u8[.., h, w, c / 8]   ->   rows of bits, a pixel's bytes after the other's
//! panels of [out, c h w]               ->   panels of [out, h w, c], a pixel's columns from a byte's first bit on
//! ```
//! A pixel's channels are packed once, however many windows it is in; a row is then copies of whole bytes. Bits of a pixel
//! behind its last channel are 0 in the matrix and, as packing made them, in rows, so that they never differ.
//!
//! Taken: windows whose axes walk pixels at steps that are known, over an unmasked image (what is around it was packed with it);
//! any order of channels among a row's columns. Not taken: images with sizes of symbols, rows that begin inside of a pixel.

use smallvec::SmallVec;

use crate::blocks::{PANEL_ROWS, SignMatrix};
use crate::compilers::llvm_cpu::code::evaluate;
use crate::error::Result;
use crate::shape::{Expr, Layer, Symbols, View, numel};

/// A size, and what one step adds to the place in the buffer.
type Axis = (Expr, Expr);

/// Windows as rows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Windows {
    /// Numbers of a pixel.
    channels: usize,
    /// Columns from one channel to the next.
    step: usize,
    /// For each pixel of a window how many pixels it is behind the first, and the column of its first channel.
    taps: Vec<(usize, usize)>,
    /// Neighbouring pixels of a window that are neighbours in memory: the first, and how many.
    runs: Vec<(usize, usize)>,
    /// The axes of rows: how many, and pixels from one to the next.
    rows: SmallVec<[(Expr, usize); 4]>,
    /// The first pixel of the first row.
    first: usize,
}

/// The axes that each axis of a view stands for, with their strides in the buffer; and the first element.
pub(super) fn fine_axes(view: &View) -> Option<(Vec<Vec<Axis>>, Expr)> {
    let (top, below) = view.layers().split_last()?;
    if view.is_masked() {
        return None;
    }
    let both = top.dims.iter().copied().zip(top.strides.iter().copied());
    let mut axes: Vec<Vec<Axis>> = both.map(|axis| vec![axis]).collect();
    let mut first = top.offset;
    for layer in below.iter().rev() {
        if !first.is_zero() {
            return None;
        }
        for axis in &mut axes {
            let parts: Option<Vec<Vec<Axis>>> =
                axis.iter().map(|axis| within(*axis, layer)).collect();
            *axis = parts?.concat();
        }
        first = layer.offset;
    }
    Some((axes, first))
}

/// The axes of a layer that one over its elements, in their order, walks.
fn within((dim, stride): Axis, layer: &Layer) -> Option<Vec<Axis>> {
    if dim.is_one() || stride.is_zero() {
        return Some(vec![(dim, 0.into())]);
    }
    let own = |axis: &usize| !layer.dims[*axis].is_one();
    let starts = |axis: &usize| own(axis) && numel(&layer.dims[axis + 1..]) == stride;
    let last = (0..layer.dims.len()).rev().find(starts)?;
    let (mut axes, mut walked) = (Vec::new(), Expr::from(1));
    for axis in (0..=last).rev().filter(own) {
        axes.insert(0, (layer.dims[axis], layer.strides[axis]));
        walked *= layer.dims[axis];
        if walked == dim {
            return Some(axes);
        }
    }
    None
}

impl Windows {
    /// The rows that a view `[.., columns]` of pixels `[.., channels]` is, of which the first `m` axes are rows and all others
    /// columns.
    pub fn of(view: &View, m: usize, channels: usize) -> Option<Windows> {
        let (axes, first) = fine_axes(view).filter(|_| channels > 0)?;
        let pixels = |places: Expr| {
            let places = places.as_usize()?;
            places.is_multiple_of(channels).then(|| places / channels)
        };
        let walked = |axes: &[Vec<Axis>]| {
            let axes: Vec<Axis> = axes.concat();
            axes.into_iter().filter(|(dim, _)| !dim.is_one())
        };
        let rows: Option<SmallVec<_>> = walked(&axes[..m])
            .map(|(dim, stride)| Some((dim, pixels(stride)?)))
            .collect();
        let sizes: Option<Vec<(usize, Expr)>> = walked(&axes[m..])
            .map(|(dim, stride)| Some((dim.as_usize()?, stride)))
            .collect();
        let mut sizes = sizes?;
        let step_of = |sizes: &[(usize, Expr)]| sizes.iter().map(|(dim, _)| dim).product();
        let is_channel = |&(dim, stride): &(usize, Expr)| stride.is_one() && dim == channels;
        let mut step = 0;
        let mut taps = vec![(0, 0)];
        let at = sizes.iter().position(is_channel);
        if at.is_none() && channels != 1 {
            return None;
        }
        if let Some(at) = at {
            step = step_of(&sizes[at + 1..]);
            // It walks no pixels, but its columns count.
            sizes[at].1 = 0.into();
        }
        for (i, &(dim, stride)) in sizes.iter().enumerate() {
            if at == Some(i) {
                continue;
            }
            let (stride, columns): (usize, usize) = (pixels(stride)?, step_of(&sizes[i + 1..]));
            let all = taps.iter().flat_map(|&(pixel, column)| {
                (0..dim).map(move |j| (pixel + j * stride, column + j * columns))
            });
            taps = all.collect();
        }
        Some(Windows {
            channels,
            step,
            runs: runs(&taps),
            taps,
            rows: rows?,
            first: pixels(first)?,
        })
    }

    /// Rows.
    pub fn m(&self) -> Expr {
        self.rows
            .iter()
            .fold(1.into(), |m: Expr, (dim, _)| m * *dim)
    }

    /// Whether there are no bits behind a pixel's last channel.
    pub fn fills_bytes(&self) -> bool {
        self.channels.is_multiple_of(8)
    }

    /// Bytes of a pixel.
    pub fn pixel_bytes(&self) -> usize {
        self.channels.div_ceil(8)
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.taps.len() * self.pixel_bytes()
    }

    /// Columns that rows stand for.
    pub fn columns(&self) -> usize {
        self.taps.len() * self.channels
    }

    /// Appends the numbers of the axes of rows.
    ///
    /// # Errors
    /// If a symbol has no value.
    pub fn evaluate(&self, symbols: &Symbols, params: &mut Vec<i64>) -> Result<()> {
        let dims: SmallVec<[Expr; 4]> = self.rows.iter().map(|(dim, _)| *dim).collect();
        evaluate(&dims, symbols, params)
    }

    /// Hands the bytes of rows `rows`, one run after the other, to `write`. `sizes` are what [`Windows::evaluate`] gave.
    ///
    /// # Safety
    /// `bits` are those of all pixels, and there are such rows.
    pub unsafe fn for_each_run(
        &self,
        bits: *const u8,
        sizes: &[i64],
        rows: std::ops::Range<usize>,
        mut write: impl FnMut(&[u8]),
    ) {
        let bytes = self.pixel_bytes();
        for row in rows {
            let (mut rest, mut pixel) = (row, self.first);
            for (&(_, step), &size) in self.rows.iter().zip(sizes).rev() {
                let size = size as usize;
                pixel += rest % size * step;
                rest /= size;
            }
            for &(start, n) in &self.runs {
                // SAFETY: the caller's; a view never leaves its buffer.
                write(unsafe {
                    std::slice::from_raw_parts(bits.add((pixel + start) * bytes), n * bytes)
                });
            }
        }
    }

    /// Writes the panels of a matrix in the order of rows.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    pub fn order(&self, matrix: SignMatrix, from: &[u8], to: &mut [u8]) {
        let scales = 4 * PANEL_ROWS;
        let parts = from.chunks(matrix.base_bytes());
        let written = to.chunks_mut(scales + PANEL_ROWS * self.row_bytes());
        assert_eq!(parts.len(), written.len(), "as many bases of panels");
        for (from, to) in parts.zip(written) {
            to[..scales].copy_from_slice(&from[..scales]);
            let (from, to) = (&from[scales..], &mut to[scales..]);
            let mut bytes = to.chunks_mut(PANEL_ROWS);
            for &(_, column) in &self.taps {
                for first in (0..self.channels).step_by(8) {
                    let byte = bytes.next().expect("a byte for eight channels");
                    byte.fill(0);
                    for channel in first..self.channels.min(first + 8) {
                        let k = column + channel * self.step;
                        let eight = &from[k / 8 * PANEL_ROWS..][..PANEL_ROWS];
                        for (byte, eight) in byte.iter_mut().zip(eight) {
                            *byte |= (eight >> (k % 8) & 1) << (channel - first);
                        }
                    }
                }
            }
        }
    }
}

/// Neighbours among pixels: the first ones, and how many.
fn runs(taps: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &(pixel, _) in taps {
        match runs.last_mut() {
            Some((start, n)) if *start + *n == pixel => *n += 1,
            _ => runs.push((pixel, 1)),
        }
    }
    runs
}
