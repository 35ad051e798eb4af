//! The movement operations.

use super::layer::row_major;
use super::{Layer, View};
use crate::shape::{Dims, Expr, IntoDims, ShapeError, numel};

type Result<T> = std::result::Result<T, ShapeError>;

impl View {
    /// The axes in another order: axis `i` of the result is axis `order[i]`.
    ///
    /// # Errors
    /// If `order` is not a permutation of all axes.
    pub fn permute(&self, order: &[usize]) -> Result<View> {
        let mut seen = vec![false; self.rank()];
        let mut is_new = |axis: usize| match seen.get_mut(axis) {
            Some(seen) => !std::mem::replace(seen, true),
            None => false,
        };
        if order.len() != self.rank() || !order.iter().all(|&axis| is_new(axis)) {
            return Err(ShapeError::NotAPermutation {
                order: order.to_vec(),
                dims: self.dims().into(),
            });
        }
        Ok(self.replace_top(self.top().permute(order), self.requirements.clone()))
    }

    /// An axis of size 1 repeated `size` times.
    ///
    /// # Errors
    /// If there is no such axis, its size is not 1, or `size` is negative.
    pub fn expand(&self, axis: usize, size: impl Into<Expr>) -> Result<View> {
        self.squeeze_as("expand", axis)?.insert(axis, size)
    }

    /// A new axis of `size` in front of axis `axis` (or at the end), along which nothing changes.
    ///
    /// # Errors
    /// If `axis` is more than the rank, or `size` is negative.
    pub fn insert(&self, axis: usize, size: impl Into<Expr>) -> Result<View> {
        let size = size.into();
        let mut known = self.requirements.clone();
        if axis > self.rank() {
            return Err(self.no_axis(axis));
        }
        if !known.assume(size) {
            return Err(ShapeError::NegativeSize { size });
        }
        Ok(self.replace_top(self.top().insert(axis, size), known))
    }

    /// The coordinates `start, start + step, ...` before `end` of an axis. With a negative step,
    /// `start` is the highest and `end` (at least -1) is one below the lowest. Indices are not
    /// counted from the end, and must lie inside the axis.
    ///
    /// # Errors
    /// If there is no such axis, the step is 0, or the range leaves the axis or runs backwards for
    /// all values of the symbols. What depends on the values becomes a requirement.
    pub fn slice(
        &self,
        axis: usize,
        start: impl Into<Expr>,
        end: impl Into<Expr>,
        step: i64,
    ) -> Result<View> {
        let (start, end) = (start.into(), end.into());
        let dim = self.dim(axis)?;
        let mut known = self.requirements.clone();
        let (low, high) = if step > 0 {
            (start, end)
        } else {
            (end + 1, start + 1)
        };
        let fits = step != 0
            && step != i64::MIN
            && known.assume(low)
            && known.assume(dim - high)
            && known.assume(high - low);
        if !fits {
            return Err(ShapeError::Slice {
                start,
                end,
                step,
                axis,
                dims: self.dims().into(),
            });
        }
        let len = (high - low).ceil_div(step.abs());
        let top = self.top().slice(axis, (start, step, len), &known);
        Ok(self.replace_top(top, known))
    }

    /// The same view of another buffer, in which every `from` elements became `to` others (blocks of bytes, the numbers
    /// that they hold), if its last axis walks whole groups and all else whole groups' distances.
    ///
    /// ```
    /// # use brain_blitz::shape::View;
    /// // Rows 1 and 2 of four, each of two blocks of 34 bytes for 32 numbers.
    /// let bytes = View::contiguous([4, 68]).slice(0, 1, 3, 1)?;
    /// let numbers = View::contiguous([4, 64]).slice(0, 1, 3, 1)?;
    /// assert_eq!(bytes.regrouped(34, 32), Some(numbers));
    /// assert_eq!(bytes.slice(1, 2, 68, 1)?.regrouped(34, 32), None);
    /// # Ok::<(), brain_blitz::shape::ShapeError>(())
    /// ```
    pub fn regrouped(&self, from: usize, to: usize) -> Option<View> {
        let layer = self.single().filter(|_| !self.is_masked())?;
        let groups = |x: Expr| {
            let (groups, rest) = x.div_poly(Expr::from(from));
            rest.is_zero().then(|| groups * Expr::from(to))
        };
        let (&stride, outer) = layer.strides.split_last()?;
        let mut strides = outer.iter().map(|&x| groups(x)).collect::<Option<Dims>>()?;
        strides.push(stride);
        let mut dims = layer.dims.clone();
        let last = dims.last_mut()?;
        *last = groups(*last)?;
        let regrouped = Layer {
            dims,
            strides,
            offset: groups(layer.offset)?,
            valid: None,
        };
        stride
            .is_one()
            .then(|| self.replace_top(regrouped, self.requirements.clone()))
    }

    /// An axis with `before` and `after` elements of padding around it.
    ///
    /// # Errors
    /// If there is no such axis, or a size is negative.
    pub fn pad(
        &self,
        axis: usize,
        before: impl Into<Expr>,
        after: impl Into<Expr>,
    ) -> Result<View> {
        let (before, after) = (before.into(), after.into());
        self.dim(axis)?;
        let mut known = self.requirements.clone();
        if !known.assume(before) || !known.assume(after) {
            return Err(ShapeError::Pad {
                before,
                after,
                axis,
                dims: self.dims().into(),
            });
        }
        Ok(self.replace_top(self.top().pad(axis, before, after), known))
    }

    /// An axis in reverse order.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn flip(&self, axis: usize) -> Result<View> {
        let dim = self.dim(axis)?;
        self.slice(axis, dim - 1, -1, -1)
    }

    /// The elements in row-major order under other dims.
    ///
    /// # Errors
    /// If a dim is negative, or the number of elements differs for all values of the symbols;
    /// where it depends on the values, equality becomes a requirement.
    pub fn reshape(&self, dims: impl IntoDims) -> Result<View> {
        let dims = dims.into_dims();
        if dims.as_slice() == self.dims() {
            return Ok(self.clone());
        }
        let mut known = self.requirements.clone();
        if let Some(&size) = dims.iter().find(|&&dim| !known.assume(dim)) {
            return Err(ShapeError::NegativeSize { size });
        }
        if !known.assume_equal(self.numel(), numel(&dims)) {
            return Err(ShapeError::Reshape {
                from: self.dims().into(),
                to: dims.as_slice().into(),
            });
        }
        Ok(self.push_top(Layer::contiguous(dims), known))
    }

    /// An axis as two, `outer` times `inner`.
    ///
    /// # Errors
    /// If there is no such axis, or its size is not `outer * inner`.
    pub fn split(
        &self,
        axis: usize,
        outer: impl Into<Expr>,
        inner: impl Into<Expr>,
    ) -> Result<View> {
        self.dim(axis)?;
        let mut dims = Dims::from(self.dims());
        dims[axis] = outer.into();
        dims.insert(axis + 1, inner.into());
        self.reshape(dims)
    }

    /// `count` neighbouring axes, starting at `axis`, as one; a count of 0 is a new axis of size 1.
    ///
    /// # Errors
    /// If there are not as many axes.
    pub fn merge(&self, axis: usize, count: usize) -> Result<View> {
        let end = axis.checked_add(count).filter(|&end| end <= self.rank());
        let end = end.ok_or_else(|| self.no_axis(axis.saturating_add(count).saturating_sub(1)))?;
        let mut dims = Dims::from(&self.dims()[..axis]);
        dims.push(numel(&self.dims()[axis..end]));
        dims.extend_from_slice(&self.dims()[end..]);
        self.reshape(dims)
    }

    /// An axis `times` times in a row: `a b c` becomes `a b c a b c`.
    ///
    /// # Errors
    /// If there is no such axis, or `times` is negative.
    pub fn repeat(&self, axis: usize, times: impl Into<Expr>) -> Result<View> {
        self.dim(axis)?;
        self.insert(axis, times)?.merge(axis, 2)
    }

    /// Each element of an axis `times` times: `a b c` becomes `a a b b c c`.
    ///
    /// # Errors
    /// If there is no such axis, or `times` is negative.
    pub fn repeat_each(&self, axis: usize, times: impl Into<Expr>) -> Result<View> {
        self.dim(axis)?;
        self.insert(axis + 1, times)?.merge(axis, 2)
    }

    /// [`View::repeat`] of every axis, `times[i]` times axis `i`.
    ///
    /// # Errors
    /// If there are not as many times as axes, or one is negative.
    pub fn tile(&self, times: impl IntoDims) -> Result<View> {
        let times = times.into_dims();
        if times.len() != self.rank() {
            return Err(ShapeError::Mismatch {
                expected: self.dims().into(),
                found: times.as_slice().into(),
            });
        }
        let mut view = self.clone();
        for (axis, &times) in times.iter().enumerate() {
            view = view.repeat(axis, times)?;
        }
        Ok(view)
    }

    /// Sliding windows: the axis becomes the number of windows,
    /// `(n - dilation*(size - 1) - 1)/step + 1`, and a new last axis of `size` walks inside a
    /// window. Element `k` of window `w` is element `w*step + k*dilation`.
    ///
    /// # Errors
    /// If there is no such axis, `size`, `step` or `dilation` is not positive, or the window does
    /// not fit.
    pub fn unfold(
        &self,
        axis: usize,
        size: impl Into<Expr>,
        step: i64,
        dilation: i64,
    ) -> Result<View> {
        let size = size.into();
        let dim = self.dim(axis)?;
        let mut known = self.requirements.clone();
        let room = dim - (size - 1) * dilation - 1;
        if step <= 0 || dilation <= 0 || !known.assume(size - 1) || !known.assume(room) {
            return Err(ShapeError::Unfold {
                size,
                step,
                dilation,
                axis,
                dims: self.dims().into(),
            });
        }
        let mut windows = Layer::contiguous(self.dims().into());
        let stride = row_major(self.dims())[axis];
        windows.dims[axis] = room.floor_div(step) + 1;
        windows.strides[axis] = stride * step;
        windows.dims.push(size);
        windows.strides.push(stride * dilation);
        Ok(self.push_top(windows, known))
    }

    /// The diagonal of two axes: both are removed, and a new last axis walks over the elements
    /// whose coordinate on `second` is that on `first` plus `offset`.
    ///
    /// # Errors
    /// If the axes do not exist or are the same.
    pub fn diagonal(&self, first: usize, second: usize, offset: i64) -> Result<View> {
        let (rows, columns) = (self.dim(first)?, self.dim(second)?);
        if first == second {
            return Err(self.no_axis(second));
        }
        let known = self.requirements.clone();
        let offset = Expr::from(offset);
        let (low, high) = ((-offset).max(0), offset.max(0));
        let len = known.min(rows - low, columns - high);
        let len = known.max(len, Expr::from(0));
        let top = self
            .top()
            .diagonal((first, second), (low, high), len, &known);
        Ok(self.replace_top(top, known))
    }

    /// The view without an axis of size 1.
    ///
    /// # Errors
    /// If there is no such axis, or its size is not 1.
    pub fn squeeze(&self, axis: usize) -> Result<View> {
        self.squeeze_as("squeeze", axis)
    }

    /// For writing out what the view walks: the view of the axes `kept`, in this order, and the view of what is written
    /// that stands for this one. Nothing may change along the other axes.
    ///
    /// ```
    /// # use brain_blitz::shape::{IntoDims, View};
    /// // A transposed matrix, repeated along an axis in the middle.
    /// let seen = View::contiguous((2, 3)).permute(&[1, 0])?.insert(1, 5)?;
    /// let (write, back) = seen.written_out(&[0, 2])?;
    /// assert_eq!(write, View::contiguous((2, 3)).permute(&[1, 0])?);
    /// assert_eq!(back, View::contiguous((3, 2)).insert(1, 5)?);
    /// # Ok::<(), brain_blitz::shape::ShapeError>(())
    /// ```
    ///
    /// # Errors
    /// If `kept` names an axis twice or one that is not there.
    pub fn written_out(&self, kept: &[usize]) -> Result<(View, View)> {
        let others = (0..self.rank()).filter(|axis| !kept.contains(axis));
        let order: Vec<usize> = kept.iter().copied().chain(others).collect();
        let mut write = self.permute(&order)?;
        for axis in (kept.len()..order.len()).rev() {
            write = write.slice(axis, 0, 1, 1)?.squeeze(axis)?;
        }
        let mut back = View::contiguous(write.dims());
        for &axis in &order[kept.len()..] {
            back = back.insert(back.rank(), self.dims()[axis])?;
        }
        // Axis `order[i]` is now at `i`.
        let place = |axis: usize| order.iter().position(|&at| at == axis);
        let places: Vec<usize> = (0..order.len()).map_while(place).collect();
        Ok((write, back.permute(&places)?))
    }

    fn squeeze_as(&self, what: &'static str, axis: usize) -> Result<View> {
        let dim = self.dim(axis)?;
        if !dim.is_one() {
            return Err(ShapeError::NotOne {
                what,
                axis,
                dims: self.dims().into(),
            });
        }
        let top = self.top().remove(axis);
        if self.top().is_unmasked(axis) {
            return Ok(self.replace_top(top, self.requirements.clone()));
        }
        Ok(self.push_top(Layer::contiguous(top.dims), self.requirements.clone()))
    }

    fn dim(&self, axis: usize) -> Result<Expr> {
        let dim = self.dims().get(axis).copied();
        dim.ok_or_else(|| self.no_axis(axis))
    }

    fn no_axis(&self, axis: usize) -> ShapeError {
        ShapeError::AxisOutOfRange {
            axis,
            dims: self.dims().into(),
        }
    }
}
