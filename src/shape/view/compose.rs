//! Two layers as one, where that is exact.
//!
//! `top` addresses linear indices of `below`, row-major over `below.dims`. The linear index of the
//! smallest valid coordinate of `top` (its *corner*) and every stride of `top` are written in the
//! mixed radix of `below.dims`. If walking from the corner to the opposite one never carries from
//! one digit to the next, each digit is an affine function of the coordinates, so the two layers
//! are one. What must hold is proved from bounds and assumptions; a wrong guess for the digits
//! only makes the proof fail. All of this may assume that `top` has a valid element: without one
//! it reads nothing, and the result, whose mask lies inside `top`'s, reads nothing too.

use super::proof::Assumptions;
use super::{Layer, Ranges};
use crate::shape::{Dims, Expr, same_size};
use smallvec::SmallVec;

/// Brings the top layer into normal form and merges layers from the top as long as possible.
pub(super) fn collapse(layers: &mut SmallVec<[Layer; 1]>, known: &Assumptions) {
    loop {
        let top = layers.pop().expect("a view has at least one layer");
        let top = top.normalize(known);
        if top.is_empty() || top.is_padding() {
            layers.clear();
        }
        let merged = match layers.last() {
            Some(below) => merge(below, &top, known),
            None => None,
        };
        let Some(merged) = merged else {
            layers.push(top);
            return;
        };
        layers.pop();
        layers.push(merged);
    }
}

/// One layer that reads what `top` reads through `below`.
fn merge(below: &Layer, top: &Layer, known: &Assumptions) -> Option<Layer> {
    if below.is_padding() && !top.dims.is_empty() {
        return Some(Layer::padding(top.dims.clone()));
    }
    let plain = below.without_ones();
    let merged = below.merged();
    if plain.dims.len() == merged.dims.len() {
        return merge_exactly(&plain, top, known);
    }
    merge_exactly(&merged, top, known).or_else(|| merge_exactly(&plain, top, known))
}

/// How an axis of the top layer is walked, starting at the corner.
struct Walk {
    /// Whether the linear index falls as the coordinate rises.
    falling: bool,
    /// The first valid coordinate, and one past the last.
    range: (Expr, Expr),
    /// What one step away from the corner adds to each digit.
    digits: Dims,
    /// How many steps there are from the corner to the opposite end.
    extent: Expr,
}

impl Walk {
    /// The coordinate where the walk starts.
    fn corner(&self) -> Expr {
        match self.falling {
            true => self.range.1 - 1,
            false => self.range.0,
        }
    }

    /// What one step up the coordinate adds to a digit.
    fn signed(&self, digit: usize) -> Expr {
        match self.falling {
            true => -self.digits[digit],
            false => self.digits[digit],
        }
    }
}

fn merge_exactly(below: &Layer, top: &Layer, known: &Assumptions) -> Option<Layer> {
    let radix = Radix::new(&below.dims);
    let mut walks: SmallVec<[Walk; 4]> = SmallVec::new();
    let mut base = top.offset;
    for (axis, &stride) in top.strides.iter().enumerate() {
        let range = top.range(axis);
        let falling = match stride.bounds() {
            (Some(0..), _) => false,
            (_, Some(..=0)) => true,
            _ => return None,
        };
        let walk = Walk {
            falling,
            range,
            digits: radix.digits(if falling { -stride } else { stride }),
            extent: range.1 - range.0 - 1,
        };
        base += stride * walk.corner();
        walks.push(walk);
    }
    let corner = radix.digits(base);
    if !stays_inside(below, &corner, &walks, known) {
        return None;
    }
    let ranges = mask(below, top, &corner, &walks, known)?;
    Some(assemble(below, top, &corner, &walks, ranges))
}

/// Whether every digit stays between 0 and its dim on the whole walk.
fn stays_inside(below: &Layer, corner: &Dims, walks: &[Walk], known: &Assumptions) -> bool {
    (0..below.dims.len()).all(|digit| {
        let rising = walks
            .iter()
            .all(|walk| known.nonnegative(walk.digits[digit]));
        rising
            && known.nonnegative(corner[digit])
            && known.less(furthest(corner, walks, digit), below.dims[digit])
    })
}

/// The value of a digit at the end of the walk.
fn furthest(corner: &Dims, walks: &[Walk], digit: usize) -> Expr {
    walks.iter().fold(corner[digit], |sum, walk| {
        sum + walk.digits[digit] * walk.extent
    })
}

/// The layer whose digits are as found.
fn assemble(
    below: &Layer,
    top: &Layer,
    corner: &Dims,
    walks: &[Walk],
    ranges: Option<Ranges>,
) -> Layer {
    let mut offset = below.offset;
    let mut strides = Dims::from_elem(Expr::from(0), walks.len());
    for (digit, &stride) in below.strides.iter().enumerate() {
        let mut origin = corner[digit];
        for (walk, total) in walks.iter().zip(&mut strides) {
            origin -= walk.signed(digit) * walk.corner();
            *total += walk.signed(digit) * stride;
        }
        offset += origin * stride;
    }
    Layer {
        dims: top.dims.clone(),
        strides,
        offset,
        valid: ranges,
    }
}

/// The mask of both layers in coordinates of the top one; `None` if it is not a box.
fn mask(
    below: &Layer,
    top: &Layer,
    corner: &Dims,
    walks: &[Walk],
    known: &Assumptions,
) -> Option<Option<Ranges>> {
    if below.valid.is_none() {
        return Some(top.valid.clone());
    }
    let mut ranges = top.ranges();
    for digit in 0..below.dims.len() {
        let (low, high) = below.range(digit);
        let last = furthest(corner, walks, digit);
        let never = known.less(last, low) || known.nonnegative(corner[digit] - high);
        if never {
            let nowhere = (Expr::from(0), Expr::from(0));
            ranges.first_mut()?.clone_from(&nowhere);
            return Some(Some(ranges));
        }
        if !known.nonnegative(corner[digit] - low) {
            let bound = low - corner[digit];
            let (axis, steps) = solve(walks, digit, |other| bound - other, known)?;
            narrow(&mut ranges[axis], &walks[axis], Some(steps), None, known);
        }
        if !known.less(last, high) {
            let bound = high - corner[digit];
            let (axis, steps) = solve(walks, digit, |other| bound - other, known)?;
            narrow(&mut ranges[axis], &walks[axis], None, Some(steps), known);
        }
    }
    Some(Some(ranges))
}

/// The axis that alone decides whether a digit has reached a bound, and the number of steps on it
/// after which it has: `ceil((bound - others) / digit)`, the same whatever the other axes add.
fn solve(
    walks: &[Walk],
    digit: usize,
    distance: impl Fn(Expr) -> Expr,
    known: &Assumptions,
) -> Option<(usize, Expr)> {
    (0..walks.len()).find_map(|axis| {
        let size = walks[axis].digits[digit];
        if !known.less(Expr::from(0), size) {
            return None;
        }
        let others = walks.iter().enumerate().filter(|&(other, _)| other != axis);
        let most = others.fold(Expr::from(0), |sum, (_, walk)| {
            sum + walk.digits[digit] * walk.extent
        });
        let first = distance(Expr::from(0)).ceil_div(size);
        let last = distance(most).ceil_div(size);
        same_size(first, last).then_some((axis, first))
    })
}

/// Cuts the steps before `from` and those at or after `to` off a range.
fn narrow(
    range: &mut (Expr, Expr),
    walk: &Walk,
    from: Option<Expr>,
    to: Option<Expr>,
    known: &Assumptions,
) {
    let (low, high) = walk.range;
    let (low, high) = match walk.falling {
        false => (from.map(|from| low + from), to.map(|to| low + to)),
        true => (to.map(|to| high - to), from.map(|from| high - from)),
    };
    if let Some(low) = low {
        range.0 = known.max(range.0, low);
    }
    if let Some(high) = high {
        range.1 = known.min(range.1, high);
    }
}

/// The row-major number system of some dims.
struct Radix {
    /// What each digit counts; `None` for a digit that is always 0.
    weights: SmallVec<[Option<Expr>; 4]>,
}

impl Radix {
    fn new(dims: &[Expr]) -> Radix {
        let mut weight = Expr::from(1);
        let mut weights: SmallVec<[Option<Expr>; 4]> = dims
            .iter()
            .rev()
            .map(|&dim| {
                let own = weight;
                weight *= dim;
                (!dim.is_one()).then_some(own)
            })
            .collect();
        weights.reverse();
        Radix { weights }
    }

    /// Digits with `Σ digit * weight = value`, if the last weight is 1; a guess that is right if
    /// all digits turn out to be in range.
    fn digits(&self, value: Expr) -> Dims {
        let mut rest = value;
        let digits = self.weights.iter().map(|weight| {
            let Some(weight) = *weight else {
                return Expr::from(0);
            };
            let (mut digit, mut left) = rest.div_poly(weight);
            if left.bounds().1.is_some_and(|high| high < 0) {
                digit -= 1;
                left += weight;
            }
            rest = left;
            digit
        });
        digits.collect()
    }
}
