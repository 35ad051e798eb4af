//! Arithmetic on expressions: conversion, ring operations, division, minimum and maximum.

use super::node::{Atom, Monomial, Term, monomial_order};
use super::recent::{Operation, recent};
use super::{Expr, RUN, Repr};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// The terms of a polynomial under construction.
type Terms = SmallVec<[Term; 4]>;

/// Saturates at ±`i64::MAX`.
pub(super) fn clamp(value: i128) -> i64 {
    value.clamp(-(i64::MAX as i128), i64::MAX as i128) as i64
}

/// `floor(a / b)`, 0 for a divisor of 0.
pub(super) fn floor_div(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let (a, b) = (a as i128, b as i128);
    clamp(a.div_euclid(b) - ((b < 0 && a.rem_euclid(b) != 0) as i128))
}

/// `a - b * floor(a / b)`, so `a` for a divisor of 0.
pub(super) fn floor_mod(a: i64, b: i64) -> i64 {
    clamp(a as i128 - b as i128 * floor_div(a, b) as i128)
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl From<i64> for Expr {
    /// The constant; `i64::MIN` becomes `-i64::MAX`.
    fn from(value: i64) -> Self {
        Expr(Repr::Const(value.max(-i64::MAX)))
    }
}

impl From<i32> for Expr {
    fn from(value: i32) -> Self {
        Expr::from(value as i64)
    }
}

impl From<usize> for Expr {
    /// The constant; saturates at `i64::MAX`.
    fn from(value: usize) -> Self {
        Expr::from(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<char> for Expr {
    /// The symbol.
    ///
    /// # Panics
    /// If the character is not a letter, `_` or [`RUN`].
    fn from(symbol: char) -> Self {
        assert!(
            is_symbol(symbol),
            "{symbol:?} cannot be a symbol: use a letter"
        );
        Expr::from_atom(Atom::Symbol(symbol))
    }
}

/// Whether a character can be a symbol.
pub(super) fn is_symbol(symbol: char) -> bool {
    symbol.is_alphabetic() || symbol == '_' || symbol == RUN
}

/// A constant as terms, to treat all operands alike.
fn terms_of(e: Expr) -> Terms {
    match e.0 {
        Repr::Const(0) => Terms::new(),
        Repr::Const(value) => Terms::from_iter([Term {
            atoms: Monomial::new(),
            coeff: value,
        }]),
        Repr::Node(node) => node.terms.iter().cloned().collect(),
    }
}

/// `a + scale * b`, by merging the two ordered lists.
fn add_scaled(a: Expr, b: Expr, scale: i64) -> Expr {
    let (a, b) = (terms_of(a), terms_of(b));
    let mut sum = Terms::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    let scaled = |mut term: Term| {
        term.coeff = clamp(term.coeff as i128 * scale as i128);
        term
    };
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return Expr::from_terms(&sum),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => monomial_order(&x.atoms, &y.atoms),
        };
        match order {
            Ordering::Less => sum.extend(a.next()),
            Ordering::Greater => sum.extend(b.next().map(scaled)),
            Ordering::Equal => {
                let (x, y) = a.next().zip(b.next()).expect("both were peeked");
                let coeff = clamp(x.coeff as i128 + y.coeff as i128 * scale as i128);
                if coeff != 0 {
                    sum.push(Term { coeff, ..x });
                }
            }
        }
    }
}

fn multiply(a: Expr, b: Expr) -> Expr {
    let (a, b) = (terms_of(a), terms_of(b));
    let mut products = Terms::with_capacity(a.len() * b.len());
    for x in &a {
        for y in &b {
            let mut atoms = x.atoms.clone();
            atoms.extend_from_slice(&y.atoms);
            atoms.sort_unstable();
            let coeff = clamp(x.coeff as i128 * y.coeff as i128);
            products.push(Term { atoms, coeff });
        }
    }
    products.sort_by(|x, y| monomial_order(&x.atoms, &y.atoms));
    let mut sum = Terms::with_capacity(products.len());
    for term in products {
        match sum.last_mut() {
            Some(last) if last.atoms == term.atoms => {
                last.coeff = clamp(last.coeff as i128 + term.coeff as i128);
            }
            _ => sum.push(term),
        }
    }
    sum.retain(|term| term.coeff != 0);
    Expr::from_terms(&sum)
}

/// [`add_scaled`] by 1 or -1.
fn sum(operation: Operation, [a, b]: [Expr; 2]) -> Expr {
    let scale = if operation == Operation::Sub { -1 } else { 1 };
    recent(operation, [a, b], || [add_scaled(a, b, scale); 2])[0]
}

/// [`multiply`].
fn product([a, b]: [Expr; 2]) -> Expr {
    recent(Operation::Mul, [a, b], || [multiply(a, b); 2])[0]
}

impl<T: Into<Expr>> Add<T> for Expr {
    type Output = Expr;

    fn add(self, other: T) -> Expr {
        match (self.0, other.into().0) {
            (Repr::Const(a), Repr::Const(b)) => Expr::from(clamp(a as i128 + b as i128)),
            (_, Repr::Const(0)) => self,
            (Repr::Const(0), b) => Expr(b),
            (_, b) => sum(Operation::Add, [self, Expr(b)]),
        }
    }
}

impl<T: Into<Expr>> Sub<T> for Expr {
    type Output = Expr;

    fn sub(self, other: T) -> Expr {
        match (self.0, other.into().0) {
            (Repr::Const(a), Repr::Const(b)) => Expr::from(clamp(a as i128 - b as i128)),
            (_, Repr::Const(0)) => self,
            (_, b) if self == Expr(b) => Expr::from(0),
            (_, b) => sum(Operation::Sub, [self, Expr(b)]),
        }
    }
}

impl<T: Into<Expr>> Mul<T> for Expr {
    type Output = Expr;

    fn mul(self, other: T) -> Expr {
        match (self.0, other.into().0) {
            (Repr::Const(a), Repr::Const(b)) => Expr::from(clamp(a as i128 * b as i128)),
            (_, Repr::Const(0)) | (Repr::Const(0), _) => Expr::from(0),
            (_, Repr::Const(1)) => self,
            (Repr::Const(1), b) => Expr(b),
            (_, b) => product([self, Expr(b)]),
        }
    }
}

impl Neg for Expr {
    type Output = Expr;

    fn neg(self) -> Expr {
        Expr::from(0) - self
    }
}

impl<T: Into<Expr>> AddAssign<T> for Expr {
    fn add_assign(&mut self, other: T) {
        *self = *self + other;
    }
}

impl<T: Into<Expr>> SubAssign<T> for Expr {
    fn sub_assign(&mut self, other: T) {
        *self = *self - other;
    }
}

impl<T: Into<Expr>> MulAssign<T> for Expr {
    fn mul_assign(&mut self, other: T) {
        *self = *self * other;
    }
}

impl Expr {
    /// `floor(self / divisor)`; 0 for a divisor of 0.
    pub fn floor_div(self, divisor: impl Into<Expr>) -> Expr {
        let divisor = divisor.into();
        match (self.as_const(), divisor.as_const()) {
            (Some(a), Some(b)) => Expr::from(floor_div(a, b)),
            (_, Some(0)) | (Some(0), _) => Expr::from(0),
            (_, Some(1)) => self,
            (None, Some(b)) if b < 0 => (-self).floor_div(-divisor),
            (None, Some(b)) => self.div_const(b),
            (_, None) => match self.small_beside(divisor) {
                Some(quotient) => quotient,
                None => Expr::from_atom(Atom::FloorDiv(self, divisor)),
            },
        }
    }

    /// `self - divisor * floor(self / divisor)`, which has the sign of the divisor; `self` for a divisor of 0.
    #[expect(
        clippy::should_implement_trait,
        reason = "Rust's `%` takes the sign of the dividend, this one that of the divisor"
    )]
    pub fn rem(self, divisor: impl Into<Expr>) -> Expr {
        let divisor = divisor.into();
        match (self.as_const(), divisor.as_const()) {
            (Some(a), Some(b)) => Expr::from(floor_mod(a, b)),
            (_, Some(0)) => self,
            (_, Some(1)) | (Some(0), _) => Expr::from(0),
            (None, Some(b)) if b < 0 => -(-self).rem(-divisor),
            (None, Some(b)) => self.mod_const(b),
            (_, None) if self == divisor => Expr::from(0),
            (_, None) => match self.small_beside(divisor) {
                Some(quotient) => self - quotient * divisor,
                None => Expr::from_atom(Atom::Mod(self, divisor)),
            },
        }
    }

    /// `ceil(self / divisor)`; 0 for a divisor of 0.
    pub fn ceil_div(self, divisor: impl Into<Expr>) -> Expr {
        -(-self).floor_div(divisor)
    }

    /// The smaller of two values.
    pub fn min(self, other: impl Into<Expr>) -> Expr {
        let other = other.into();
        match (self - other).bounds() {
            (Some(0), Some(0)) => self.cmp_min(other),
            (Some(0..), _) => other,
            (_, Some(..=0)) => self,
            _ => Expr::from_atom(Atom::Min(self.cmp_min(other), self.cmp_max(other))),
        }
    }

    /// The larger of two values.
    pub fn max(self, other: impl Into<Expr>) -> Expr {
        let other = other.into();
        match (self - other).bounds() {
            (Some(0), Some(0)) => self.cmp_min(other),
            (Some(0..), _) => self,
            (_, Some(..=0)) => other,
            _ => Expr::from_atom(Atom::Max(self.cmp_min(other), self.cmp_max(other))),
        }
    }

    /// The first of two in the order of forms.
    fn cmp_min(self, other: Expr) -> Expr {
        Ord::min(self, other)
    }

    fn cmp_max(self, other: Expr) -> Expr {
        Ord::max(self, other)
    }

    /// The quotient of a division by a symbolic divisor, where it is a known constant.
    fn small_beside(self, divisor: Expr) -> Option<Expr> {
        if divisor.bounds().0? <= 0 {
            return None;
        }
        if self == divisor {
            return Some(Expr::from(1));
        }
        let smaller = (divisor - self).bounds().0? > 0;
        (smaller && self.is_nonnegative()).then(|| Expr::from(0))
    }

    /// `self = divisor * quotient + rest`: terms with a divisible coefficient go to the quotient,
    /// and the rest has a constant in `0..divisor`.
    fn extract(self, divisor: i64) -> (Expr, Expr) {
        let (mut quotient, mut rest) = (Terms::new(), Terms::new());
        for term in terms_of(self) {
            let (q, r) = (
                floor_div(term.coeff, divisor),
                floor_mod(term.coeff, divisor),
            );
            if r == 0 {
                quotient.push(Term { coeff: q, ..term });
            } else if term.atoms.is_empty() {
                rest.push(Term {
                    coeff: r,
                    ..term.clone()
                });
                if q != 0 {
                    quotient.push(Term { coeff: q, ..term });
                }
            } else {
                rest.push(term);
            }
        }
        (Expr::from_terms(&quotient), Expr::from_terms(&rest))
    }

    /// `self = g * first + second` with `0 <= second < g`, where `g` is what the divisor and all
    /// coefficients beside the constant have in common.
    fn common(self, divisor: i64) -> (i64, Expr, i64) {
        let terms = terms_of(self);
        let factors = terms.iter().filter(|term| !term.atoms.is_empty());
        let g = factors.fold(divisor, |g, term| gcd(g, term.coeff));
        let constant = terms.last().filter(|term| term.atoms.is_empty());
        let second = floor_mod(constant.map_or(0, |term| term.coeff), g);
        let (first, _) = (self - second).extract(g);
        (g, first, second)
    }

    /// Division by a constant greater than 1.
    fn div_const(self, divisor: i64) -> Expr {
        let (quotient, rest) = self.extract(divisor);
        if let (Some(0..), Some(high)) = rest.bounds()
            && high < divisor
        {
            return quotient;
        }
        let (g, first, _) = rest.common(divisor);
        if g > 1 {
            return quotient + first.floor_div(divisor / g);
        }
        if let [Term { atoms, coeff: 1 }] = rest.terms()
            && let [Atom::FloorDiv(inner, by)] = atoms.as_slice()
            && let Some(by @ 1..) = by.as_const()
        {
            return quotient + inner.floor_div(clamp(by as i128 * divisor as i128));
        }
        if rest.terms().first().is_some_and(|lead| lead.coeff < 0) {
            // `floor(-x / c) = -floor((x + c - 1) / c)`; one of the two forms is enough.
            return quotient - (-rest + (divisor - 1)).div_const(divisor);
        }
        quotient + Expr::from_atom(Atom::FloorDiv(rest, Expr::from(divisor)))
    }

    /// Remainder of a division by a constant greater than 1.
    fn mod_const(self, divisor: i64) -> Expr {
        let mut reduced = Terms::new();
        let mut unwrapped = Expr::from(0);
        for term in terms_of(self) {
            let coeff = floor_mod(term.coeff, divisor);
            match *term.atoms.as_slice() {
                _ if coeff == 0 => {}
                // `k*(x % m)` and `k*x` differ by a multiple of `k*m`.
                [Atom::Mod(inner, by)]
                    if by.as_const().is_some_and(|by| {
                        floor_mod(clamp(by as i128 * coeff as i128), divisor) == 0
                    }) =>
                {
                    unwrapped += inner * coeff;
                }
                _ => reduced.push(Term { coeff, ..term }),
            }
        }
        let reduced = Expr::from_terms(&reduced);
        if !unwrapped.is_zero() {
            return (reduced + unwrapped).rem(divisor);
        }
        if let (Some(0..), Some(high)) = reduced.bounds()
            && high < divisor
        {
            return reduced;
        }
        let (g, first, second) = reduced.common(divisor);
        if g > 1 {
            return first.rem(divisor / g) * g + second;
        }
        if reduced.as_const().is_some() {
            return reduced.rem(divisor);
        }
        Expr::from_atom(Atom::Mod(reduced, Expr::from(divisor)))
    }

    /// Polynomial division: `self = quotient * divisor + rest`, where no term of the rest can be
    /// divided by the leading term of the divisor. An identity for all values of the symbols;
    /// constants round toward zero. A divisor of 0 leaves everything in the rest.
    pub(crate) fn div_poly(self, divisor: Expr) -> (Expr, Expr) {
        match (self.as_const(), divisor.as_const()) {
            (_, Some(0)) => (Expr::from(0), self),
            (_, Some(1)) => (self, Expr::from(0)),
            (Some(a), Some(b)) => (Expr::from(a / b), Expr::from(a % b)),
            _ => {
                let compute = || self.divide(divisor).into();
                recent(Operation::Div, [self, divisor], compute).into()
            }
        }
    }

    fn divide(self, divisor: Expr) -> (Expr, Expr) {
        let nothing = (Expr::from(0), self);
        let (mut quotient, mut rest, mut kept) = (Expr::from(0), self, Expr::from(0));
        let Some(lead) = terms_of(divisor).first().cloned() else {
            return nothing;
        };
        // Each round removes a leading term, unless coefficients saturate.
        for _ in 0..MAX_ROUNDS {
            let Some(term) = terms_of(rest).first().cloned() else {
                return (quotient, kept);
            };
            let coeff = term.coeff / lead.coeff;
            let left = match divide_atoms(&term.atoms, &lead.atoms) {
                Some(atoms) if coeff != 0 => {
                    let part = Expr::from_terms(&[Term { atoms, coeff }]);
                    quotient += part;
                    rest -= part * divisor;
                    term.coeff % lead.coeff
                }
                _ => term.coeff,
            };
            if left != 0 {
                let left = Expr::from_terms(&[Term {
                    coeff: left,
                    ..term
                }]);
                kept += left;
                rest -= left;
            }
        }
        nothing
    }
}

/// Terms that polynomial division treats before it gives up.
const MAX_ROUNDS: usize = 64;

/// The atoms that are left when `divisor`'s are taken away, if they are all there.
fn divide_atoms(atoms: &Monomial, divisor: &Monomial) -> Option<Monomial> {
    let mut left = atoms.clone();
    for atom in divisor {
        let at = left.iter().position(|other| other == atom)?;
        left.remove(at);
    }
    Some(left)
}
