//! Sampling the last axes at places that are data.
//!
//! An output reads 1, 2 or 4 elements along each axis and weighs them; their places are computed from the grid, put inside
//! the input, and looked up in one gather for each combination.

use super::movement::expand_view;
use super::operand::fail;
use super::resize::cubic_weights;
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::shape::{Dims, Expr, numel};

/// How values between elements are found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Sampling {
    /// The nearest element; of two, the one at an even coordinate.
    Nearest,
    /// Between two elements along each axis, on a line.
    #[default]
    Linear,
    /// Between four elements along each axis, on a cubic with `a = -3/4` (Keys 1981).
    Cubic,
}

/// What stands outside of the input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Outside {
    /// Zeros.
    #[default]
    Zeros,
    /// The nearest element.
    Border,
    /// The input, mirrored at its borders.
    Reflection,
}

/// Elements read along one axis: their coordinates, whether they count, and their weights.
struct Tap {
    /// `F32 [n, o..]`, inside the axis.
    at: GraphTensor,
    inside: Option<GraphTensor>,
    weight: Option<GraphTensor>,
}

/// One axis of the input.
#[derive(Clone, Copy)]
struct Line {
    size: i64,
    align_corners: bool,
    outside: Outside,
}

impl Line {
    /// A coordinate mirrored at the borders until it is inside.
    #[track_caller]
    fn reflected(self, at: GraphTensor) -> GraphTensor {
        let (low, span) = match self.align_corners {
            true => (0.0, (self.size - 1) as f64),
            false => (-0.5, self.size as f64),
        };
        if span == 0.0 {
            return at.zeros_like();
        }
        let distance = (at - low).abs();
        let rest = distance % span;
        let is_forward = ((distance / span).floor() % 2.0).eq(0.0);
        is_forward.where_(rest + low, span - rest + low)
    }

    /// A coordinate put inside, unless what is outside is 0.
    #[track_caller]
    fn folded(self, at: GraphTensor) -> GraphTensor {
        let at = match self.outside {
            Outside::Zeros => return at,
            Outside::Border => at,
            Outside::Reflection => self.reflected(at),
        };
        at.clamp(0.0, (self.size - 1) as f64)
    }

    /// The tap at a whole coordinate.
    #[track_caller]
    fn tap(self, at: GraphTensor, weight: Option<GraphTensor>) -> Tap {
        let last = (self.size - 1) as f64;
        let inside = match self.outside {
            Outside::Zeros => Some(at.ge(0.0) & at.le(last)),
            _ => None,
        };
        // A NaN reads the first element.
        let at = at.isnan().where_(0.0, at).clamp(0.0, last);
        Tap { at, inside, weight }
    }

    /// What is read for coordinates `[n, o..]` between -1 and 1.
    #[track_caller]
    fn taps(self, grid: GraphTensor, how: Sampling) -> Vec<Tap> {
        let size = self.size as f64;
        let at = match self.align_corners {
            true => (grid + 1.0) * 0.5 * (size - 1.0),
            false => ((grid + 1.0) * size - 1.0) * 0.5,
        };
        match how {
            Sampling::Nearest => vec![self.tap(self.folded(at).round(), None)],
            Sampling::Linear => {
                let at = self.folded(at);
                let left = at.floor();
                let t = at - left;
                vec![self.tap(left, Some(1.0 - t)), self.tap(left + 1.0, Some(t))]
            }
            Sampling::Cubic => {
                let left = at.floor();
                let weights = cubic_weights(at - left).into_iter().enumerate();
                let tap = |(i, weight)| {
                    let at = self.folded(left + (i as f64 - 1.0));
                    self.tap(at, Some(weight))
                };
                weights.map(tap).collect()
            }
        }
    }
}

/// A choice of one tap of each axis: the row-major place, whether it counts, its weight.
#[derive(Clone, Copy, Default)]
struct Corner {
    place: Option<GraphTensor>,
    inside: Option<GraphTensor>,
    weight: Option<GraphTensor>,
}

/// Both, if there are both; else the one there is.
fn both<T: Copy>(a: Option<T>, b: Option<T>, f: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(f(a, b)),
        (a, b) => a.or(b),
    }
}

impl Corner {
    #[track_caller]
    fn with(self, tap: &Tap, size: i64) -> Corner {
        let at = tap.at.cast(DType::I32);
        let place = match self.place {
            Some(place) => place * size as i32 + at,
            None => at,
        };
        Corner {
            place: Some(place),
            inside: both(self.inside, tap.inside, |a, b| a & b),
            weight: both(self.weight, tap.weight, |a, b| a * b),
        }
    }

    /// The elements of `flat [n, c, all]` at this corner, weighted: `[n, c, outputs]`.
    #[track_caller]
    fn read(self, flat: GraphTensor, outputs: Expr) -> GraphTensor {
        let [n, c] = [0, 1].map(|axis| flat.dims()[axis]);
        let whole = Dims::from_iter([n, c, outputs]);
        let over_channels = |x: GraphTensor| {
            x.look("grid_sample", |view| {
                expand_view(&view.reshape([n, Expr::from(1), outputs])?, &whole)
            })
        };
        let place = self.place.expect("there is an axis");
        let mut out = flat.gather(2, over_channels(place));
        if let Some(inside) = self.inside {
            out = over_channels(inside).where_(out, 0.0);
        }
        match self.weight {
            Some(weight) => out * over_channels(weight),
            None => out,
        }
    }
}

impl GraphTensor {
    /// The input `[n, c, s..]` at the places of a grid `[n, o.., d]`, for `d` axes `s..`: `[n, c, o..]`. A place has the
    /// coordinate of the last axis first; -1 and 1 are the centres of the first and last elements where corners are
    /// aligned, else their outer borders (Jaderberg et al. 2015).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{Outside, Sampling};
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 1, 1, 3), DType::F32).set([[[[1.0, 2.0, 4.0]]]]);
    /// let grid = cx.input((1, 1, 2, 2), DType::F32).set([[[[-1.0, 0.0], [0.5, 0.0]]]]);
    /// let y = x.grid_sample(grid, Sampling::Linear, Outside::Border, true).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes do not fit, an axis `s..` is symbolic or empty, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn grid_sample(
        self,
        grid: GraphTensor,
        how: Sampling,
        outside: Outside,
        align_corners: bool,
    ) -> GraphTensor {
        let (op, ty, places) = ("grid_sample", self.ty(), grid.ty());
        let d = ty.dims.len().saturating_sub(2);
        let fits = d > 0 && places.dims.len() == d + 2 && places.dims[d + 1] == Expr::from(d);
        if !fits {
            fail(op, format!("{ty} at places {places}"));
        }
        let (x, grid) = (self.wide(op), grid.wide(op));
        let mut corners = vec![Corner::default()];
        for (i, dim) in ty.dims[2..].iter().enumerate() {
            let Some(size @ 1..) = dim.as_const() else {
                fail(op, format!("the sizes of {ty} must be known"));
            };
            let line = Line {
                size,
                align_corners,
                outside,
            };
            let own = grid.slice_axis(-1, d - 1 - i, d - i).squeeze(-1); // [n, o..]
            let taps = line.taps(own, how);
            let each = corners.iter().flat_map(|corner| {
                let with = |tap| corner.with(tap, size);
                taps.iter().map(with).collect::<Vec<_>>()
            });
            corners = each.collect();
        }
        let flat = x.flatten(2, -1);
        let outputs = &places.dims[1..=d];
        let read = |corner: Corner| corner.read(flat, numel(outputs));
        let sum = corners.into_iter().map(read).reduce(|a, b| a + b);
        let out = sum.expect("there is a corner");
        let dims = ty.dims[..2].iter().chain(outputs).copied();
        out.reshape(dims.collect::<Dims>()).narrowed(self)
    }
}
