//! Algebraic identities that hold bit for bit.
//!
//! ```text
//! x + (-0.0), x * 1           →  x           (the table's `identity`, for every format)
//! (x * -1) * -1               →  x
//! x * 0, x and false          →  0           (I32 and Bool only)
//! x or true                   →  true
//! x and x, x or x             →  x           (Bool)
//! x < x                       →  false       (NaN too)
//! not not x                   →  x           (`not x` is `x < true`)
//! where(true, a, b)           →  a           where(c, a, a) → a        where(not c, a, b) → where(c, b, a)
//! cast<T>(x: T)               →  x
//! cast<C>(cast<B>(x: A))      →  cast<C>(x)  (A fits into B; just x if C is A)
//! gather(cast<C>(x), i)       →  cast<C>(gather(x, i))   (C is wider: fewer numbers are converted)
//! detach(detach(x))           →  detach(x)   detach(x: I32 or Bool) → x
//! max over no axis            →  x           (sum: I32 and Bool)
//! reduce over axes of size 1  →  they are dropped (a float's sum keeps one: 0.0 + -0.0 is 0.0)
//! max(max(x)), sum(sum(x))    →  one reduction over both sets of axes, where the order of comparing stays
//! ```
//! What it deliberately does not do, since bits would change:
//! - `x + 0.0` → `x`: -0.0 + 0.0 is 0.0;
//! - `x * 0` → `0` for floats: NaN, infinities and negative numbers give NaN or -0.0;
//! - `recip(recip(x))`, `sqrt(x) * sqrt(x)`, `log2(exp2(x))`: rounded twice;
//! - `(x * a) * b` → `x * (a * b)`, and sums of sums of floats: reassociation;
//! - a narrowing cast and back, or a cast to a 16-bit format from a wider one through a third: rounded differently.

mod cast;
mod elementwise;
mod reduce;

use super::sweep::{Operands, Seen, Sweep, sweep};
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};

/// The pass `algebra`; a hit is a node that became a simpler one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Algebra;

/// What a node and its operands can be replaced by.
type Rule = fn(&mut Sweep, NodeIndex, &Operands) -> Result<Option<Seen>>;

const RULES: [Rule; 10] = [
    elementwise::identity,
    elementwise::absorbing,
    elementwise::repeated,
    elementwise::undone,
    elementwise::select,
    elementwise::detach,
    cast::cast,
    cast::gathered,
    reduce::size_one_axes,
    reduce::nested,
];

impl Pass for Algebra {
    fn name(&self) -> &str {
        "algebra"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        sweep(dag, |sweep, id| {
            if sweep.is_pinned(id) || dag.node(id).op.is_leaf() {
                return Ok(());
            }
            let operands = sweep.operands(NodeRef::Old(id));
            for rule in RULES {
                if let Some(target) = rule(sweep, id, &operands)? {
                    sweep.replace(id, target);
                    return Ok(());
                }
            }
            Ok(())
        })
    }
}
