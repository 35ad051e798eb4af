//! Rows: which points of a kernel its reductions run over.
//!
//! A kernel with reductions has *kept* dims and *reduced* dims; a row is all points with the same kept coordinates. Its
//! result is either one value per row (`sum(x * y) + b`) or a value per point (`x / sum(x)`), in which case the reduced
//! dims are the last ones of the result. Every value in such a kernel is looked at through a view over
//! `space ++ reduce`; one that does not walk the reduced dims is evaluated once per row.
//!
//! Dims of size one are ignored where shapes are compared: `[4, 1]` and `[4]` have the same rows.
//!
//! Not expressed: reductions of one kernel over different dims, or over other dims than the last ones of a result per
//! point.

use crate::op::AxisSet;
use crate::shape::{Dims, Expr, View};

/// Kept and reduced dims of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Dims whose points are the rows.
    pub space: Dims,
    /// Dims of one row.
    pub reduce: Dims,
    /// Whether the result has a value per point instead of one per row.
    pub per_point: bool,
}

/// Whether two lists of dims are the same but for sizes of one.
fn alike<'d>(a: impl Iterator<Item = &'d Expr>, b: &[Expr]) -> bool {
    let b = b.iter().filter(|dim| !dim.is_one());
    a.filter(|dim| !dim.is_one()).eq(b)
}

impl Rows {
    /// The rows of a reduction of `operand` over `axes` whose result has the dims `space`.
    pub fn of_value(space: &[Expr], operand: &[Expr], axes: &AxisSet) -> Rows {
        Rows {
            space: space.iter().copied().collect(),
            reduce: axes.iter().map(|&axis| operand[axis]).collect(),
            per_point: false,
        }
    }

    /// The rows of a result with a value per point, into which a value per row is read through `view`: along the last
    /// dims nothing of it changes. `None` if it does.
    pub fn of_broadcast(view: &View) -> Option<Rows> {
        let dims = view.dims();
        let n_kept = (0..dims.len())
            .rposition(|axis| view.walks(axis))
            .map_or(0, |axis| axis + 1);
        let (space, reduce) = dims.split_at(n_kept);
        reduce.iter().any(|dim| !dim.is_one()).then(|| Rows {
            space: space.iter().copied().collect(),
            reduce: reduce.iter().copied().collect(),
            per_point: true,
        })
    }

    /// The rows of a reduction of `operand` over `axes`, for a result of dims `result`.
    pub fn of_result(result: &[Expr], operand: &[Expr], axes: &AxisSet) -> Option<Rows> {
        let value = Rows::of_value(result, operand, axes);
        if value.fits(operand, axes) {
            return Some(value);
        }
        (0..result.len()).rev().find_map(|n_kept| {
            let (space, reduce) = result.split_at(n_kept);
            let rows = Rows {
                space: space.iter().copied().collect(),
                reduce: reduce.iter().copied().collect(),
                per_point: true,
            };
            rows.fits(operand, axes).then_some(rows)
        })
    }

    /// Kept and reduced dims.
    pub fn all(&self) -> Dims {
        self.space.iter().chain(&self.reduce).copied().collect()
    }

    /// Whether reducing `axes` of dims `operand` is reducing these rows.
    pub fn fits(&self, operand: &[Expr], axes: &AxisSet) -> bool {
        let kept = (0..operand.len()).filter(|axis| !axes.contains(axis));
        alike(kept.map(|axis| &operand[axis]), &self.space)
            && alike(axes.iter().map(|&axis| &operand[axis]), &self.reduce)
    }

    /// The operand of a reduction that [fits](Rows::fits), seen over `space ++ reduce`.
    pub fn points(&self, view: &View, axes: &AxisSet) -> Option<View> {
        let kept = (0..view.rank()).filter(|axis| !axes.contains(axis));
        let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
        let view = view.permute(&order).ok()?;
        let all = self.all();
        if *view.dims() == all[..] {
            return Some(view);
        }
        view.reshape(all).ok()
    }

    /// A view over the kept dims or over all of them, as one over all.
    pub fn lifted(&self, view: &View) -> Option<View> {
        if view.rank() == self.space.len() + self.reduce.len() {
            return Some(view.clone());
        }
        if view.rank() != self.space.len() {
            return None;
        }
        self.reduce.iter().try_fold(view.clone(), |view, &size| {
            view.insert(view.rank(), size).ok()
        })
    }

    /// Whether a view over all dims is the same all along a row.
    pub fn is_per_row(&self, view: &View) -> bool {
        let first = self.space.len();
        view.rank() == first + self.reduce.len()
            && (first..view.rank()).all(|axis| !view.walks(axis))
    }

    /// Whether `view` reads, at each point or row, the result that a reduction has for this row.
    pub fn reads_own_row(&self, view: &View) -> bool {
        let own = self.lifted(&View::contiguous(self.space.clone()));
        own.zip(self.lifted(view))
            .is_some_and(|(own, view)| own.layers() == view.layers())
    }
}
