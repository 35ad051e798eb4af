//! Polynomials and the store that keeps each of them once.

use super::{Expr, Repr};
use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

/// What a product is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Atom {
    Symbol(char),
    FloorDiv(Expr, Expr),
    Mod(Expr, Expr),
    Min(Expr, Expr),
    Max(Expr, Expr),
}

/// The atoms of a product, sorted, with repetition; none for the constant term.
pub(super) type Monomial = SmallVec<[Atom; 2]>;

/// `coeff × product of atoms`; the coefficient is not 0.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Term {
    pub(super) atoms: Monomial,
    pub(super) coeff: i64,
}

/// The order of terms in a polynomial: higher degree first, so the constant comes last, then by
/// the atoms. This is a monomial order: multiplying both sides by the same atoms keeps it.
pub(super) fn monomial_order(a: &Monomial, b: &Monomial) -> Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        monomial_order(&self.atoms, &other.atoms).then(self.coeff.cmp(&other.coeff))
    }
}

/// A polynomial that is not a constant: terms in order, no two with the same atoms.
pub(super) struct Node {
    pub(super) terms: Box<[Term]>,
    /// Hash of the structure, the same in every process.
    pub(super) hash: u64,
}

type Store = FxHashMap<&'static [Term], &'static Node>;

static STORE: LazyLock<Mutex<Store>> = LazyLock::new(Mutex::default);

impl Expr {
    /// The expression of terms that are already in canonical form.
    pub(super) fn from_terms(terms: &[Term]) -> Expr {
        match terms {
            [] => return Expr::from(0),
            [only] if only.atoms.is_empty() => return Expr::from(only.coeff),
            _ => {}
        }
        // A panic while the lock is held cannot leave the map half changed.
        let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = store.get(terms) {
            return Expr(Repr::Node(node));
        }
        let mut hasher = FxHasher::default();
        terms.hash(&mut hasher);
        let node: &'static Node = Box::leak(Box::new(Node {
            terms: terms.into(),
            hash: hasher.finish(),
        }));
        store.insert(&node.terms, node);
        Expr(Repr::Node(node))
    }

    /// The expression that is one atom.
    pub(super) fn from_atom(atom: Atom) -> Expr {
        Expr::from_terms(&[Term {
            atoms: SmallVec::from_iter([atom]),
            coeff: 1,
        }])
    }
}
