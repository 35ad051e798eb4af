//! Bounds of an expression over all values of its symbols, by interval arithmetic.
//!
//! Plain intervals forget that two atoms are related, so three rewritings are tried as well:
//! `c*(x/c) = x - x % c`, its reverse, and replacing a minimum or maximum by either argument.

use super::node::{Atom, Node, Term};
use super::{Expr, Repr};
use rustc_hash::FxHashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

/// The bounds that have been asked for. They are not kept in the nodes, so that an expression has
/// no interior mutability and can be the key of a map.
static KNOWN: LazyLock<RwLock<FxHashMap<Expr, Interval>>> = LazyLock::new(RwLock::default);

/// Stands for infinity; larger than any product of two values.
const INFINITY: i128 = 1 << 126;

/// A closed interval; a bound of ±[`INFINITY`] is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Interval {
    low: i128,
    high: i128,
}

fn saturate(value: i128) -> i128 {
    value.clamp(-INFINITY, INFINITY)
}

fn product(a: i128, b: i128) -> i128 {
    if a == 0 || b == 0 {
        0
    } else if a.abs() >= INFINITY || b.abs() >= INFINITY {
        INFINITY * a.signum() * b.signum()
    } else {
        saturate(a.saturating_mul(b))
    }
}

impl Interval {
    const ALL: Interval = Interval {
        low: -INFINITY,
        high: INFINITY,
    };

    fn point(value: i64) -> Self {
        let value = value as i128;
        Interval {
            low: value,
            high: value,
        }
    }

    fn add(self, other: Self) -> Self {
        // Opposite infinities cannot meet: a low bound is never +INFINITY, nor a high one -INFINITY.
        let side = |a: i128, b: i128| match (a.abs() >= INFINITY, b.abs() >= INFINITY) {
            (true, _) => a,
            (_, true) => b,
            _ => saturate(a + b),
        };
        Interval {
            low: side(self.low, other.low),
            high: side(self.high, other.high),
        }
    }

    fn mul(self, other: Self) -> Self {
        let corners = [
            product(self.low, other.low),
            product(self.low, other.high),
            product(self.high, other.low),
            product(self.high, other.high),
        ];
        Interval {
            low: corners.into_iter().fold(INFINITY, i128::min),
            high: corners.into_iter().fold(-INFINITY, i128::max),
        }
    }

    fn meet(self, other: Self) -> Self {
        Interval {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
        }
    }
}

impl Expr {
    /// The smallest and the largest value over all values of the symbols in `0..`, as far as a
    /// cheap analysis can tell; `None` if there is no known bound.
    pub fn bounds(self) -> (Option<i64>, Option<i64>) {
        let Interval { low, high } = self.interval();
        (i64::try_from(low).ok(), i64::try_from(high).ok())
    }

    fn interval(self) -> Interval {
        match self.0 {
            Repr::Const(value) => Interval::point(value),
            Repr::Node(node) => {
                // The map only grows, by whole entries: a panic elsewhere cannot spoil it.
                let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(&interval) = known.get(&self) {
                    return interval;
                }
                drop(known);
                let interval = node_interval(node);
                let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(self, interval);
                interval
            }
        }
    }
}

/// The best of all ways of looking at a polynomial.
fn node_interval(node: &Node) -> Interval {
    let mut best = plain(&node.terms);
    for expanded in [
        expand(&node.terms, div_as_mod),
        expand(&node.terms, mod_as_div),
    ]
    .into_iter()
    .flatten()
    {
        best = best.meet(match expanded.0 {
            Repr::Const(value) => Interval::point(value),
            Repr::Node(other) => plain(&other.terms),
        });
    }
    best.meet(by_cases(&node.terms))
}

fn plain(terms: &[Term]) -> Interval {
    terms.iter().fold(Interval::point(0), |sum, term| {
        let atoms = term.atoms.iter().map(atom_interval);
        sum.add(atoms.fold(Interval::point(term.coeff), Interval::mul))
    })
}

fn atom_interval(atom: &Atom) -> Interval {
    match *atom {
        Atom::Symbol(_) => Interval {
            low: 0,
            high: INFINITY,
        },
        Atom::FloorDiv(a, b) => div_interval(a.interval(), b),
        Atom::Mod(a, b) => mod_interval(a.interval(), b.interval()),
        Atom::Min(a, b) => {
            let (a, b) = (a.interval(), b.interval());
            Interval {
                low: a.low.min(b.low),
                high: a.high.min(b.high),
            }
        }
        Atom::Max(a, b) => {
            let (a, b) = (a.interval(), b.interval());
            Interval {
                low: a.low.max(b.low),
                high: a.high.max(b.high),
            }
        }
    }
}

fn div_interval(a: Interval, divisor: Expr) -> Interval {
    match divisor.as_const() {
        Some(by @ 1..) => {
            let side = |x: i128| match x.abs() >= INFINITY {
                true => x,
                false => x.div_euclid(by as i128),
            };
            Interval {
                low: side(a.low),
                high: side(a.high),
            }
        }
        // A quotient of nonnegative numbers is at most the dividend, and 0 for a divisor of 0.
        _ if a.low >= 0 && divisor.interval().low >= 0 => Interval {
            low: 0,
            high: a.high,
        },
        _ => Interval::ALL,
    }
}

fn mod_interval(a: Interval, b: Interval) -> Interval {
    if b.low < 0 {
        return Interval::ALL;
    }
    let below = if b.high >= INFINITY {
        INFINITY
    } else {
        b.high - 1
    };
    let high = if a.low >= 0 { below.min(a.high) } else { below };
    match b.low {
        // A divisor of 0 leaves the dividend.
        0 => Interval {
            low: a.low.min(0),
            high: a.high.max(high),
        },
        _ => Interval { low: 0, high },
    }
}

/// `coeff * (x / c)` as `coeff / c * (x - x % c)`, if `c` divides the coefficient.
fn div_as_mod(atom: &Atom, coeff: i64) -> Option<(Expr, i64)> {
    let Atom::FloorDiv(x, by) = *atom else {
        return None;
    };
    let by = by.as_const().filter(|&by| by > 0 && coeff % by == 0)?;
    Some((x - x.rem(by), coeff / by))
}

/// `coeff * (x % c)` as `coeff * (x - c*(x / c))`.
fn mod_as_div(atom: &Atom, coeff: i64) -> Option<(Expr, i64)> {
    let Atom::Mod(x, by) = *atom else { return None };
    Some((x - x.floor_div(by) * by, coeff))
}

/// Replaces in each term the first atom that `rewrite` knows; `None` if there is none, or if the
/// result is the same polynomial.
fn expand(terms: &[Term], rewrite: fn(&Atom, i64) -> Option<(Expr, i64)>) -> Option<Expr> {
    let mut changed = false;
    let mut sum = Expr::from(0);
    for term in terms {
        let mut atoms = term.atoms.clone();
        let found = (0..atoms.len()).find_map(|at| Some((at, rewrite(&atoms[at], term.coeff)?)));
        let (factor, coeff) = match found {
            Some((at, (factor, coeff))) => {
                changed = true;
                atoms.remove(at);
                (factor, coeff)
            }
            None => (Expr::from(1), term.coeff),
        };
        sum += factor * Expr::from_terms(&[Term { atoms, coeff }]);
    }
    changed.then_some(sum)
}

/// A minimum or maximum in a linear term is one of its arguments: looks at both polynomials.
fn by_cases(terms: &[Term]) -> Interval {
    let is_choice = |atom: &Atom| matches!(atom, Atom::Min(..) | Atom::Max(..));
    let choices = terms.iter().flat_map(|term| &term.atoms);
    // Every choice doubles the work, so only few are tried.
    if !(1..=3).contains(&choices.filter(|atom| is_choice(atom)).count()) {
        return Interval::ALL;
    }
    let Some(at) = terms
        .iter()
        .position(|term| matches!(term.atoms.as_slice(), [only] if is_choice(only)))
    else {
        return Interval::ALL;
    };
    let coeff = terms[at].coeff;
    let (a, b, is_min) = match terms[at].atoms[0] {
        Atom::Min(a, b) => (a, b, true),
        Atom::Max(a, b) => (a, b, false),
        _ => return Interval::ALL,
    };
    let others = [&terms[..at], &terms[at + 1..]].concat();
    let others = Expr::from_terms(&others);
    let (a, b) = (
        (others + a * coeff).interval(),
        (others + b * coeff).interval(),
    );
    // The smaller of the two polynomials, if true, else the larger.
    match is_min == (coeff > 0) {
        true => Interval {
            low: a.low.min(b.low),
            high: a.high.min(b.high),
        },
        false => Interval {
            low: a.low.max(b.low),
            high: a.high.max(b.high),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_beyond_every_product_of_two_values() {
        assert!(INFINITY >= i64::MAX as i128 * i64::MAX as i128);
        assert_eq!(product(INFINITY, -3), -INFINITY);
        assert_eq!(super::super::arith::clamp(INFINITY), i64::MAX);
    }
}
