//! What is assumed about symbols, and what follows from it.

use crate::shape::Expr;

/// Expressions that are not negative in any execution that takes place: the view checks them
/// when it is resolved, so everything else may rely on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Assumptions {
    /// Sorted, without repetition, and none of them a constant or provable from bounds alone.
    list: Vec<Expr>,
}

/// How many assumptions one proof may use.
const MAX_STEPS: usize = 3;

impl Assumptions {
    pub(super) fn list(&self) -> &[Expr] {
        &self.list
    }

    /// Assumes that `e` is not negative; false if that can never be.
    pub(super) fn assume(&mut self, e: Expr) -> bool {
        if self.nonnegative(e) {
            return true;
        }
        self.insert(e)
    }

    /// Assumes that `e` is not negative, even if that follows from other assumptions; false if it
    /// can never be.
    pub(super) fn insert(&mut self, e: Expr) -> bool {
        if e.bounds().1.is_some_and(|high| high < 0) {
            return false;
        }
        if !e.is_nonnegative()
            && let Err(at) = self.list.binary_search(&e)
        {
            self.list.insert(at, e);
        }
        true
    }

    /// Assumes that two expressions are equal; false if that can never be.
    pub(super) fn assume_equal(&mut self, a: Expr, b: Expr) -> bool {
        self.assume(a - b) && self.assume(b - a)
    }

    /// Adds all of `other`.
    pub(super) fn extend(&mut self, other: &Assumptions) {
        for &e in &other.list {
            self.assume(e);
        }
    }

    /// Whether `e >= 0` follows.
    pub(super) fn nonnegative(&self, e: Expr) -> bool {
        match e.as_const() {
            Some(value) => value >= 0,
            None => e.is_nonnegative() || self.follows(e, MAX_STEPS),
        }
    }

    /// Whether `a < b` follows.
    pub(super) fn less(&self, a: Expr, b: Expr) -> bool {
        self.nonnegative(b - a - 1)
    }

    /// `e = quotient * assumption + rest` with neither part negative.
    fn follows(&self, e: Expr, steps: usize) -> bool {
        if steps == 0 {
            return false;
        }
        self.list.iter().any(|&known| {
            let (quotient, rest) = e.div_poly(known);
            !quotient.is_zero()
                && quotient.is_nonnegative()
                && (rest.is_nonnegative() || self.follows(rest, steps - 1))
        })
    }

    /// The smaller of two, as simple as the assumptions allow.
    pub(super) fn min(&self, a: Expr, b: Expr) -> Expr {
        if self.nonnegative(b - a) {
            a
        } else if self.nonnegative(a - b) {
            b
        } else {
            a.min(b)
        }
    }

    /// The larger of two, as simple as the assumptions allow.
    pub(super) fn max(&self, a: Expr, b: Expr) -> Expr {
        if self.nonnegative(b - a) {
            b
        } else if self.nonnegative(a - b) {
            a
        } else {
            a.max(b)
        }
    }
}
