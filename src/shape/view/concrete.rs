//! Views with numbers in place of symbols, for reading.

use super::{Layer, View};
use crate::shape::{Expr, ResolveError, Symbols};
use smallvec::SmallVec;

/// One layer of a [`ConcreteView`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConcreteLayer {
    /// Sizes of the axes.
    pub dims: SmallVec<[usize; 6]>,
    /// What one step along each axis adds to the linear index.
    pub strides: SmallVec<[i64; 6]>,
    /// Linear index of the coordinate that is 0 everywhere.
    pub offset: i64,
    /// Where the coordinates are not padding, inside `0..dims[axis]`; `None` means everywhere.
    pub valid: Option<SmallVec<[(usize, usize); 6]>>,
}

/// A [`View`] for certain values of its symbols.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConcreteView {
    layers: SmallVec<[ConcreteLayer; 1]>,
}

impl ConcreteView {
    pub(super) fn new(view: &View, symbols: &Symbols) -> Result<ConcreteView, ResolveError> {
        for &condition in view.requirements() {
            nonnegative(condition, symbols)?;
        }
        let layers = view.layers().iter();
        let layers = layers.map(|layer| ConcreteLayer::new(layer, symbols));
        Ok(ConcreteView {
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// The logical dims.
    pub fn dims(&self) -> &[usize] {
        &self.top().dims
    }

    /// The number of logical elements (saturating).
    pub fn numel(&self) -> usize {
        numel(self.dims())
    }

    /// The layers; the first addresses the buffer, the last has the logical dims.
    pub fn layers(&self) -> &[ConcreteLayer] {
        &self.layers
    }

    /// The buffer element at a coordinate; `None` for padding.
    ///
    /// # Panics
    /// If the coordinate does not have as many entries as there are axes.
    pub fn index(&self, coordinate: &[usize]) -> Option<usize> {
        let top = self.top();
        assert_eq!(
            coordinate.len(),
            top.dims.len(),
            "a coordinate has an entry for each axis"
        );
        let mut linear = top.offset;
        for (axis, &at) in coordinate.iter().enumerate() {
            if !top.contains(axis, at) {
                return None;
            }
            linear += at as i64 * top.strides[axis];
        }
        self.descend(linear)
    }

    /// The highest buffer index that may be read, `None` if nothing is read: the exact maximum for
    /// a single layer, else an upper bound that lies inside the buffer the view was built for.
    pub fn max_index(&self) -> Option<usize> {
        let spans: Option<SmallVec<[_; 2]>> = self.layers.iter().map(ConcreteLayer::span).collect();
        let (_, highest) = *spans?.first()?;
        usize::try_from(highest).ok()
    }

    /// Whether all reads lie inside a buffer of `len` elements, and all coordinates inside their
    /// layers. Views that movements have made of a buffer always fit it; one that was parsed from a
    /// text may not, and must not be given to code that does not check indices.
    pub fn fits(&self, len: usize) -> bool {
        let spans: Option<SmallVec<[_; 2]>> = self.layers.iter().map(ConcreteLayer::span).collect();
        let Some(spans) = spans else {
            return true;
        };
        let below = self.layers.iter().map(|layer| numel(&layer.dims));
        let limits = std::iter::once(len).chain(below);
        spans
            .into_iter()
            .zip(limits)
            .all(|((low, high), limit)| low >= 0 && high < limit as i128)
    }

    /// If logical element `i` (row-major) is element `first + i` of the buffer for all `i`, that
    /// first element.
    pub fn contiguous_from(&self) -> Option<usize> {
        let [only] = self.layers.as_slice() else {
            return None;
        };
        if only.valid.is_some() {
            return None;
        }
        let mut expected = 1;
        for (&dim, &stride) in only.dims.iter().zip(&only.strides).rev() {
            if dim != 1 && stride != expected {
                return None;
            }
            expected = expected.saturating_mul(dim as i64);
        }
        usize::try_from(only.offset).ok()
    }

    /// Calls `visit(i, index)` for each logical element `i` in row-major order with the index of
    /// its buffer element, `None` for padding.
    pub fn for_each_index(&self, mut visit: impl FnMut(usize, Option<usize>)) {
        let rows = Rows::new(self.top());
        let mut walk = Odometer::new(self.top());
        let mut at = 0;
        for _ in 0..rows.n_rows {
            let (low, high) = rows.valid_in(&walk);
            for _ in 0..low {
                visit(at, None);
                at += 1;
            }
            let mut linear = walk.linear + low as i64 * rows.step;
            for _ in low..high {
                visit(at, self.descend(linear));
                at += 1;
                linear += rows.step;
            }
            for _ in high..rows.len {
                visit(at, None);
                at += 1;
            }
            walk.advance(self.top());
        }
    }

    /// The buffer index of each logical element in row-major order, `None` for padding.
    pub fn iter(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        let rows = Rows::new(self.top());
        let mut walk = Odometer::new(self.top());
        (0..rows.n_rows).flat_map(move |_| {
            let (linear, (low, high)) = (walk.linear, rows.valid_in(&walk));
            walk.advance(self.top());
            (0..rows.len).map(move |column| match low <= column && column < high {
                true => self.descend(linear + column as i64 * rows.step),
                false => None,
            })
        })
    }

    fn top(&self) -> &ConcreteLayer {
        self.layers.last().expect("a view has at least one layer")
    }

    /// From a linear index that the top layer gives to the buffer's.
    #[inline]
    fn descend(&self, mut linear: i64) -> Option<usize> {
        for layer in self.layers[..self.layers.len() - 1].iter().rev() {
            linear = layer.through(linear)?;
        }
        Some(usize::try_from(linear).expect("a valid coordinate lies in the buffer"))
    }
}

impl ConcreteLayer {
    fn new(layer: &Layer, symbols: &Symbols) -> Result<ConcreteLayer, ResolveError> {
        let dims = layer.dims.iter().map(|&dim| nonnegative(dim, symbols));
        let dims = dims.collect::<Result<SmallVec<[usize; 6]>, _>>()?;
        let strides = layer.strides.iter().map(|stride| stride.eval(symbols));
        let strides = strides.collect::<Result<_, _>>()?;
        let valid = match &layer.valid {
            Some(valid) => {
                let mut ranges = SmallVec::new();
                for (&(low, high), &dim) in valid.iter().zip(&dims) {
                    let inside = |e: i64| e.clamp(0, dim as i64) as usize;
                    let range = (inside(low.eval(symbols)?), inside(high.eval(symbols)?));
                    ranges.push(range);
                }
                Some(ranges)
            }
            None => None,
        };
        Ok(ConcreteLayer {
            dims,
            strides,
            offset: layer.offset.eval(symbols)?,
            valid,
        })
    }

    /// The valid coordinates of an axis.
    pub fn range(&self, axis: usize) -> (usize, usize) {
        match &self.valid {
            Some(valid) => valid[axis],
            None => (0, self.dims[axis]),
        }
    }

    /// The lowest and the highest linear index of valid coordinates, `None` if there are none.
    fn span(&self) -> Option<(i128, i128)> {
        let start = self.offset as i128;
        (0..self.dims.len()).try_fold((start, start), |(lowest, highest), axis| {
            let (low, high) = self.range(axis);
            let stride = self.strides[axis] as i128;
            let (first, last) = (low as i128 * stride, (high as i128 - 1) * stride);
            let span = (
                lowest.saturating_add(first.min(last)),
                highest.saturating_add(first.max(last)),
            );
            (low < high).then_some(span)
        })
    }

    #[inline]
    fn contains(&self, axis: usize, at: usize) -> bool {
        match &self.valid {
            Some(valid) => valid[axis].0 <= at && at < valid[axis].1,
            None => true,
        }
    }

    /// The linear index below this layer of a linear index above it; `None` for padding.
    #[inline]
    fn through(&self, mut above: i64) -> Option<i64> {
        let mut linear = self.offset;
        for (axis, &dim) in self.dims.iter().enumerate().rev() {
            let dim = dim as i64;
            let at = if dim == 0 { 0 } else { above % dim };
            above = if dim == 0 { 0 } else { above / dim };
            if !self.contains(axis, at as usize) {
                return None;
            }
            linear += at * self.strides[axis];
        }
        Some(linear)
    }
}

/// The last axis of a layer, and how often it is walked; a scalar is one row of one element.
#[derive(Clone, Copy)]
struct Rows {
    n_rows: usize,
    len: usize,
    step: i64,
    valid: (usize, usize),
}

impl Rows {
    fn new(layer: &ConcreteLayer) -> Rows {
        let Some((&len, outer)) = layer.dims.split_last() else {
            return Rows {
                n_rows: 1,
                len: 1,
                step: 0,
                valid: (0, 1),
            };
        };
        let (low, high) = layer.range(outer.len());
        Rows {
            n_rows: if len == 0 { 0 } else { numel(outer) },
            len,
            step: layer.strides[outer.len()],
            // An empty range is one at 0, so that the parts of a row add up to it.
            valid: if low < high { (low, high) } else { (0, 0) },
        }
    }

    /// The valid part of the row that is walked now.
    fn valid_in(&self, walk: &Odometer) -> (usize, usize) {
        match walk.n_outside {
            0 => self.valid,
            _ => (0, 0),
        }
    }
}

/// Walks over the rows of a layer: all axes but the last.
struct Odometer {
    coordinate: SmallVec<[usize; 6]>,
    linear: i64,
    /// How many of the coordinates are padding.
    n_outside: usize,
}

impl Odometer {
    fn new(layer: &ConcreteLayer) -> Odometer {
        let n_outer = layer.dims.len().saturating_sub(1);
        Odometer {
            coordinate: SmallVec::from_elem(0, n_outer),
            linear: layer.offset,
            n_outside: (0..n_outer)
                .filter(|&axis| !layer.contains(axis, 0))
                .count(),
        }
    }

    fn advance(&mut self, layer: &ConcreteLayer) {
        for axis in (0..self.coordinate.len()).rev() {
            let (at, stride) = (self.coordinate[axis], layer.strides[axis]);
            let wraps = at + 1 >= layer.dims[axis];
            let next = if wraps { 0 } else { at + 1 };
            self.n_outside += !layer.contains(axis, next) as usize;
            self.n_outside -= !layer.contains(axis, at) as usize;
            self.coordinate[axis] = next;
            self.linear += (next as i64 - at as i64) * stride;
            if !wraps {
                return;
            }
        }
    }
}

fn nonnegative(condition: Expr, symbols: &Symbols) -> Result<usize, ResolveError> {
    let value = condition.eval(symbols)?;
    usize::try_from(value).map_err(|_| ResolveError::Impossible { condition, value })
}

fn numel(dims: &[usize]) -> usize {
    if dims.contains(&0) {
        return 0;
    }
    dims.iter()
        .fold(1usize, |product, &dim| product.saturating_mul(dim))
}
