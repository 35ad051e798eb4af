//! How a buffer is looked at: movement operations as data.
//!
//! A [`View`] is a stack of [`Layer`]s. The last layer has the logical dims; a coordinate `c` of
//! it gives `l = offset + Σ c[d] * strides[d]`, and is *padding* (it reads as zero) if some `c[d]`
//! is outside `valid[d] = [low, high)`. For the layer below, `l` is unravelled row-major over that
//! layer's dims to a coordinate, and so on; in the first layer, `l` is the index of the buffer's
//! element.
//!
//! Every movement returns a new view that stays in one layer where that is exact, with symbolic
//! sizes if it can be proved for all their values, and puts a layer on top where it is not.
//!
//! Invariants of the normal form that all operations return:
//! - the stride of an axis of size 1 is 0, and a mask that hides nothing is `None`;
//! - a view without elements is contiguous, and one of nothing but padding is a single layer
//!   (unless it is a scalar, which has no axis to carry the mask);
//! - what had to be assumed about symbols (a slice that ends inside its axis) is kept as
//!   [`View::requirements`], and checked when the view is resolved.
//!
//! A view does not know its buffer: whoever owns the buffer compares [`ConcreteView::max_index`]
//! with its length, or relies on having built the view from the buffer's dims.

mod compose;
mod concrete;
mod layer;
mod movement;
mod proof;
mod text;

#[cfg(test)]
mod tests;

pub use concrete::{ConcreteLayer, ConcreteView};

use super::{Dims, Expr, IntoDims, ResolveError, Symbols, numel, same_size};
use proof::Assumptions;
use smallvec::SmallVec;

/// Half-open ranges of valid coordinates, one for each axis.
pub type Ranges = SmallVec<[(Expr, Expr); 4]>;

/// One affine step of a [`View`], see the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Sizes of the axes.
    pub dims: Dims,
    /// What one step along each axis adds to the linear index.
    pub strides: Dims,
    /// Linear index of the coordinate that is 0 everywhere.
    pub offset: Expr,
    /// Where the coordinates are not padding; `None` means everywhere.
    pub valid: Option<Ranges>,
}

/// A way to look at a buffer, see the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    layers: SmallVec<[Layer; 1]>,
    requirements: Assumptions,
}

impl View {
    /// The buffer as it is: row-major, all of it.
    pub fn contiguous(dims: impl IntoDims) -> View {
        let dims = dims.into_dims();
        let mut requirements = Assumptions::default();
        for &dim in &dims {
            requirements.assume(dim);
        }
        View {
            layers: SmallVec::from_iter([Layer::contiguous(dims)]),
            requirements,
        }
    }

    /// The logical dims.
    pub fn dims(&self) -> &[Expr] {
        &self.top().dims
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// The number of logical elements.
    pub fn numel(&self) -> Expr {
        numel(self.dims())
    }

    /// The layers; the first addresses the buffer, the last has the logical dims.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Expressions that must not be negative for the view to have a meaning, beyond what holds
    /// for all values of the symbols.
    pub fn requirements(&self) -> &[Expr] {
        self.requirements.list()
    }

    /// The only layer, if there is just one.
    pub fn single(&self) -> Option<&Layer> {
        match self.layers.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether logical element `i` (row-major) is element `i` of the buffer, for all `i`. The
    /// buffer may be longer than the view; [`View::is_identity`] asks that too.
    pub fn is_contiguous(&self) -> bool {
        self.single().is_some_and(Layer::is_contiguous)
    }

    /// Whether the view is all of a buffer of `buffer` elements, in the buffer's order.
    pub fn is_identity(&self, buffer: Expr) -> bool {
        self.is_contiguous() && same_size(self.numel(), buffer)
    }

    /// Whether what is seen depends on the coordinate `axis`.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn walks(&self, axis: usize) -> bool {
        let top = &self.layers[self.layers.len() - 1];
        let all = (Expr::from(0), top.dims[axis]);
        let padded = top.valid.as_ref().is_some_and(|valid| valid[axis] != all);
        padded || !top.strides[axis].is_zero()
    }

    /// Whether some element may be padding.
    pub fn is_masked(&self) -> bool {
        self.layers.iter().any(|layer| layer.valid.is_some())
    }

    /// The view with numbers in place of symbols.
    ///
    /// # Errors
    /// If a symbol has no value, or if the values contradict the requirements (or make a size
    /// negative).
    pub fn resolve(&self, symbols: &Symbols) -> Result<ConcreteView, ResolveError> {
        ConcreteView::new(self, symbols)
    }

    /// Looks at this view through `outer`, a view of a contiguous copy of `self`: reading the
    /// result from the buffer of `self` is reading `outer` from that copy. `outer` must have been
    /// built for a buffer of as many elements as `self` has.
    pub fn compose(&self, outer: &View) -> View {
        let mut requirements = self.requirements.clone();
        requirements.extend(&outer.requirements);
        let mut layers = self.layers.clone();
        for layer in &outer.layers {
            layers.push(layer.clone());
            compose::collapse(&mut layers, &requirements);
        }
        View {
            layers,
            requirements,
        }
    }

    /// The first `n` layers as a view of the buffer, and the others as a view of a contiguous copy of what these show:
    /// `below.compose(&top)` shows what the view does. `None` if one of both would have no layer.
    ///
    /// ```
    /// # use brain_blitz::shape::View;
    /// // Windows of three over five elements with a zero on both sides.
    /// let padded = View::contiguous(5).pad(0, 1, 1)?;
    /// let windows = padded.unfold(0, 3, 1, 1)?;
    /// let (below, top) = windows.split_layers(1).expect("a mask and overlapping windows");
    /// assert_eq!(top, View::contiguous(7).unfold(0, 3, 1, 1)?);
    /// assert_eq!((below.compose(&top), below), (windows, padded));
    /// # Ok::<(), brain_blitz::shape::ShapeError>(())
    /// ```
    pub fn split_layers(&self, n: usize) -> Option<(View, View)> {
        let part = |layers: &[Layer]| View {
            layers: layers.iter().cloned().collect(),
            requirements: self.requirements.clone(),
        };
        let (below, top) = self.layers.split_at_checked(n)?;
        (!below.is_empty() && !top.is_empty()).then(|| (part(below), part(top)))
    }

    fn top(&self) -> &Layer {
        self.layers.last().expect("a view has at least one layer")
    }

    /// The view with another top layer in the place of the present one.
    fn replace_top(&self, top: Layer, requirements: Assumptions) -> View {
        let mut layers = self.layers.clone();
        layers.pop();
        layers.push(top);
        compose::collapse(&mut layers, &requirements);
        View {
            layers,
            requirements,
        }
    }

    /// The view with one more layer, over a contiguous copy of what is there.
    fn push_top(&self, top: Layer, requirements: Assumptions) -> View {
        let mut layers = self.layers.clone();
        layers.push(top);
        compose::collapse(&mut layers, &requirements);
        View {
            layers,
            requirements,
        }
    }
}
