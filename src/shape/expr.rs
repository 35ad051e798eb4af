//! Symbolic integers: the sizes, strides and offsets of shapes.
//!
//! An [`Expr`] is two words and `Copy`: a constant, or a reference to a node of one process-wide,
//! append-only, hash-consed store. A node is a polynomial in canonical form: a sorted sum of
//! `coefficient × product of atoms`, an atom being a symbol (one character), a floor division, a
//! remainder, a minimum or a maximum. Two expressions are equal exactly if their canonical forms
//! are, and comparing them compares a pointer. Arithmetic of constants never touches the store.
//!
//! Invariants:
//! - symbols are sizes, so at least 0; [`Expr::bounds`] relies on it;
//! - ordering, hashing and display depend on the structure only, never on the order of creation;
//! - arithmetic is exact up to ±`i64::MAX` and saturates there (the identities that canonical
//!   forms use hold for values that do not saturate);
//! - division rounds toward minus infinity and is 0 for a divisor of 0, so that every expression
//!   has a value; `a % b` is always `a - b*(a/b)`, so it has the sign of its divisor.
//!
//! Simplification is local and cheap: it does not prove arbitrary identities, and nothing is ever
//! freed (a program uses a bounded number of distinct sizes).

mod arith;
mod bounds;
mod node;
mod recent;
mod text;

#[cfg(test)]
mod tests;

use super::{Symbols, UnsetSymbol};
use node::{Atom, Node, Term};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// The predefined symbol "index of this execution", counted by the executor.
pub const RUN: char = '#';

/// An integer, perhaps with symbols in it. See the module's documentation for its arithmetic.
#[derive(Clone, Copy)]
pub struct Expr(Repr);

#[derive(Clone, Copy)]
enum Repr {
    Const(i64),
    Node(&'static Node),
}

impl Expr {
    /// The value, if it does not depend on a symbol.
    pub fn as_const(self) -> Option<i64> {
        match self.0 {
            Repr::Const(value) => Some(value),
            Repr::Node(_) => None,
        }
    }

    /// The value as a size, if it is constant and not negative.
    pub fn as_usize(self) -> Option<usize> {
        self.as_const().and_then(|value| value.try_into().ok())
    }

    /// Whether this is the constant 0.
    pub fn is_zero(self) -> bool {
        self.as_const() == Some(0)
    }

    /// Whether this is the constant 1.
    pub fn is_one(self) -> bool {
        self.as_const() == Some(1)
    }

    /// Whether this is at least 0 for all values of its symbols, as far as bounds can tell.
    pub fn is_nonnegative(self) -> bool {
        self.bounds().0.is_some_and(|low| low >= 0)
    }

    /// The symbols that occur, in order, each once.
    pub fn symbols(self) -> SmallVec<[char; 2]> {
        let mut found = SmallVec::new();
        self.collect_symbols(&mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect_symbols(self, found: &mut SmallVec<[char; 2]>) {
        for atom in self.terms().iter().flat_map(|term| &term.atoms) {
            match *atom {
                Atom::Symbol(symbol) => found.push(symbol),
                Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                    a.collect_symbols(found);
                    b.collect_symbols(found);
                }
            }
        }
    }

    /// The value with the given values of symbols.
    ///
    /// # Errors
    /// If a symbol that occurs has no value.
    pub fn eval(self, symbols: &Symbols) -> Result<i64, UnsetSymbol> {
        let node = match self.0 {
            Repr::Const(value) => return Ok(value),
            Repr::Node(node) => node,
        };
        let mut sum = 0i128;
        for term in &node.terms {
            let mut product = term.coeff;
            for atom in &term.atoms {
                product = arith::clamp(product as i128 * atom.eval(symbols)? as i128);
            }
            sum += product as i128;
        }
        Ok(arith::clamp(sum))
    }

    /// The expression with every occurrence of `symbol` replaced by `by`.
    pub fn substitute(self, symbol: char, by: Expr) -> Expr {
        let node = match self.0 {
            Repr::Const(_) => return self,
            Repr::Node(node) => node,
        };
        node.terms.iter().fold(Expr::from(0), |sum, term| {
            let factors = term.atoms.iter().map(|atom| atom.substitute(symbol, by));
            sum + factors.fold(Expr::from(term.coeff), |product, factor| product * factor)
        })
    }

    /// The terms of the polynomial, without the constant 0; a constant has no node and no terms.
    fn terms(self) -> &'static [Term] {
        match self.0 {
            Repr::Const(_) => &[],
            Repr::Node(node) => &node.terms,
        }
    }
}

impl Atom {
    fn eval(&self, symbols: &Symbols) -> Result<i64, UnsetSymbol> {
        Ok(match *self {
            Atom::Symbol(symbol) => symbols.get(symbol).ok_or(UnsetSymbol { symbol })?,
            Atom::FloorDiv(a, b) => arith::floor_div(a.eval(symbols)?, b.eval(symbols)?),
            Atom::Mod(a, b) => arith::floor_mod(a.eval(symbols)?, b.eval(symbols)?),
            Atom::Min(a, b) => a.eval(symbols)?.min(b.eval(symbols)?),
            Atom::Max(a, b) => a.eval(symbols)?.max(b.eval(symbols)?),
        })
    }

    fn substitute(&self, symbol: char, by: Expr) -> Expr {
        let inside = |e: Expr| e.substitute(symbol, by);
        match *self {
            Atom::Symbol(name) if name == symbol => by,
            Atom::Symbol(name) => Expr::from(name),
            Atom::FloorDiv(a, b) => inside(a).floor_div(inside(b)),
            Atom::Mod(a, b) => inside(a).rem(inside(b)),
            Atom::Min(a, b) => inside(a).min(inside(b)),
            Atom::Max(a, b) => inside(a).max(inside(b)),
        }
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Repr::Const(a), Repr::Const(b)) => a == b,
            (Repr::Node(a), Repr::Node(b)) => std::ptr::eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Expr {}

impl PartialOrd for Expr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An order of forms, for sorting, constants first; it says nothing about values.
impl Ord for Expr {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Repr::Const(a), Repr::Const(b)) => a.cmp(&b),
            (Repr::Const(_), Repr::Node(_)) => Ordering::Less,
            (Repr::Node(_), Repr::Const(_)) => Ordering::Greater,
            (Repr::Node(a), Repr::Node(b)) if std::ptr::eq(a, b) => Ordering::Equal,
            (Repr::Node(a), Repr::Node(b)) => a.terms.cmp(&b.terms),
        }
    }
}

impl Hash for Expr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            Repr::Const(value) => value.hash(state),
            Repr::Node(node) => node.hash.hash(state),
        }
    }
}
