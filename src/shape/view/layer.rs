//! What can be done within one layer.

use super::proof::Assumptions;
use super::{Layer, Ranges};
use crate::shape::{Dims, Expr};

/// Row-major strides; 0 for axes of size 1.
pub(super) fn row_major(dims: &[Expr]) -> Dims {
    let mut stride = Expr::from(1);
    let mut strides: Dims = dims
        .iter()
        .rev()
        .map(|&dim| {
            let own = stride;
            stride *= dim;
            if dim.is_one() { Expr::from(0) } else { own }
        })
        .collect();
    strides.reverse();
    strides
}

impl Layer {
    /// A layer that changes nothing.
    pub(super) fn contiguous(dims: Dims) -> Layer {
        Layer {
            strides: row_major(&dims),
            dims,
            offset: Expr::from(0),
            valid: None,
        }
    }

    /// A layer of nothing but padding; the dims must not be empty.
    pub(super) fn padding(dims: Dims) -> Layer {
        let zero = Expr::from(0);
        Layer {
            strides: dims.iter().map(|_| zero).collect(),
            valid: Some(dims.iter().map(|_| (zero, zero)).collect()),
            offset: zero,
            dims,
        }
    }

    /// Whether coordinates map to themselves, read row-major.
    pub fn is_contiguous(&self) -> bool {
        let in_order = || {
            let mut expected = Expr::from(1);
            for (axis, (dim, stride)) in self.dims.iter().zip(&self.strides).enumerate().rev() {
                if dim.is_one() {
                    continue;
                }
                if *stride != expected {
                    return false;
                }
                // Products of symbols are not for nothing, and no axis follows the outermost one.
                if axis > 0 {
                    expected *= *dim;
                }
            }
            true
        };
        self.valid.is_none() && self.offset.is_zero() && in_order()
    }

    /// The valid coordinates of an axis.
    pub fn range(&self, axis: usize) -> (Expr, Expr) {
        match &self.valid {
            Some(valid) => valid[axis],
            None => (Expr::from(0), self.dims[axis]),
        }
    }

    /// The valid coordinates of all axes.
    pub(super) fn ranges(&self) -> Ranges {
        (0..self.dims.len()).map(|axis| self.range(axis)).collect()
    }

    /// Whether no coordinate is outside the valid range of an axis.
    pub(super) fn is_unmasked(&self, axis: usize) -> bool {
        match &self.valid {
            Some(valid) => valid[axis] == (Expr::from(0), self.dims[axis]),
            None => true,
        }
    }

    /// Whether there is nothing but padding.
    pub(super) fn is_padding(&self) -> bool {
        let nowhere = |range: &(Expr, Expr)| range.0 == range.1;
        self.valid
            .as_ref()
            .is_some_and(|valid| valid.iter().any(nowhere))
    }

    /// Whether there are no elements at all.
    pub(super) fn is_empty(&self) -> bool {
        self.dims.iter().any(|dim| dim.is_zero())
    }

    /// The same layer in normal form.
    pub(super) fn normalize(mut self, known: &Assumptions) -> Layer {
        if self.is_empty() {
            return Layer::contiguous(self.dims);
        }
        for (stride, dim) in self.strides.iter_mut().zip(&self.dims) {
            if dim.is_one() {
                *stride = Expr::from(0);
            }
        }
        let Some(valid) = &mut self.valid else {
            return self;
        };
        let mut masked = false;
        for (range, &dim) in valid.iter_mut().zip(&self.dims) {
            if known.nonnegative(range.0 - range.1) {
                return Layer::padding(self.dims);
            }
            let zero = Expr::from(0);
            if known.nonnegative(-range.0) {
                range.0 = zero;
            }
            if known.nonnegative(range.1 - dim) {
                range.1 = dim;
            }
            masked |= *range != (zero, dim);
        }
        if !masked {
            self.valid = None;
        }
        self
    }

    /// The layer with its axes in another order, a permutation.
    pub(super) fn permute(&self, order: &[usize]) -> Layer {
        Layer {
            dims: order.iter().map(|&axis| self.dims[axis]).collect(),
            strides: order.iter().map(|&axis| self.strides[axis]).collect(),
            offset: self.offset,
            valid: self
                .valid
                .as_ref()
                .map(|valid| order.iter().map(|&axis| valid[axis]).collect()),
        }
    }

    /// The layer with a new axis along which nothing changes.
    pub(super) fn insert(&self, axis: usize, size: Expr) -> Layer {
        let mut layer = self.clone();
        layer.dims.insert(axis, size);
        layer.strides.insert(axis, Expr::from(0));
        if let Some(valid) = &mut layer.valid {
            valid.insert(axis, (Expr::from(0), size));
        }
        layer
    }

    /// The layer without an axis; what it has at coordinate 0 of the axis stays.
    pub(super) fn remove(&self, axis: usize) -> Layer {
        let mut layer = self.clone();
        layer.dims.remove(axis);
        layer.strides.remove(axis);
        if let Some(valid) = &mut layer.valid {
            valid.remove(axis);
        }
        layer
    }

    /// The coordinates `start, start + step, ...` of an axis, `len` of them, all inside it.
    pub(super) fn slice(
        &self,
        axis: usize,
        (start, step, len): (Expr, i64, Expr),
        known: &Assumptions,
    ) -> Layer {
        let mut layer = self.clone();
        layer.offset += start * self.strides[axis];
        layer.strides[axis] *= step;
        layer.dims[axis] = len;
        if !self.is_unmasked(axis) {
            let (low, high) = self.range(axis);
            // Before: `start + step * c` is at least `low` and less than `high`.
            let (low, high) = match step > 0 {
                true => ((low - start).ceil_div(step), (high - start).ceil_div(step)),
                false => (
                    (start - high).floor_div(-step) + 1,
                    (start - low).floor_div(-step) + 1,
                ),
            };
            let zero = Expr::from(0);
            layer.set_range(axis, (known.max(low, zero), known.min(high, len)));
        } else if let Some(valid) = &mut layer.valid {
            valid[axis] = (Expr::from(0), len);
        }
        layer
    }

    /// The layer with padding around an axis.
    pub(super) fn pad(&self, axis: usize, before: Expr, after: Expr) -> Layer {
        let mut layer = self.clone();
        let (low, high) = self.range(axis);
        layer.offset -= before * self.strides[axis];
        layer.dims[axis] += before + after;
        layer.valid = Some(self.ranges());
        layer.set_range(axis, (low + before, high + before));
        layer
    }

    /// The diagonal `c, c + shift` of two axes as a new last axis of `len`.
    pub(super) fn diagonal(
        &self,
        (first, second): (usize, usize),
        (low, high): (Expr, Expr),
        len: Expr,
        known: &Assumptions,
    ) -> Layer {
        let a = self.slice(first, (low, 1, len), known);
        let mut layer = a.slice(second, (high, 1, len), known);
        let stride = layer.strides[first] + layer.strides[second];
        let (a, b) = (layer.range(first), layer.range(second));
        let range = (known.max(a.0, b.0), known.min(a.1, b.1));
        for axis in [first.max(second), first.min(second)] {
            layer = layer.remove(axis);
        }
        layer.dims.push(len);
        layer.strides.push(stride);
        if let Some(valid) = &mut layer.valid {
            valid.push(range);
        }
        layer
    }

    fn set_range(&mut self, axis: usize, range: (Expr, Expr)) {
        let valid = self.valid.as_mut();
        valid.expect("a masked layer has ranges")[axis] = range;
    }

    /// The layer over the same linear indices with as few axes as possible: no axis of size 1, and
    /// neighbours that are walked as one merged. Masked axes merge only with what is inside them.
    pub(super) fn merged(&self) -> Layer {
        let mut layer = self.without_ones();
        let mut axis = layer.dims.len();
        while axis >= 2 {
            axis -= 1;
            let (dim, stride) = (layer.dims[axis], layer.strides[axis]);
            let outer = axis - 1;
            if !layer.is_unmasked(axis) || layer.strides[outer] != stride * dim {
                continue;
            }
            layer.dims[outer] *= dim;
            layer.strides[outer] = stride;
            if let Some(valid) = &mut layer.valid {
                valid[outer] = (valid[outer].0 * dim, valid[outer].1 * dim);
            }
            layer = layer.remove(axis);
        }
        layer
    }

    /// The layer without the axes of size 1, except masked ones.
    pub(super) fn without_ones(&self) -> Layer {
        let mut layer = self.clone();
        for axis in (0..self.dims.len()).rev() {
            if self.dims[axis].is_one() && self.is_unmasked(axis) {
                layer = layer.remove(axis);
            }
        }
        layer
    }
}
