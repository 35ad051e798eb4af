//! `Generic`: rewrites that hold on every machine and change no bit.
//!
//! One group of passes, repeated until none of them finds anything:
//!
//! | pass | rewrite |
//! |---|---|
//! | [`DeadCode`] | nodes that no kept value needs go away |
//! | [`Cse`] | equal ops on equal operands become one |
//! | [`ConstantFolding`] | ops on constants become constants |
//! | [`Algebra`] | identities such as `x * 1` → `x` |
//! | [`ViewElimination`] | copies that no reader needs become views |
//!
//! Invariants, for each pass:
//! - *exact*: every kept value has the same bits before and after, as the reference executor computes it, for every
//!   input including NaN, infinities and zeros of both signs (which NaN it is may change). What is only nearly equal
//!   (reassociation, `x + 0.0` → `x`, `x * 0` → `0`, `recip(recip(x))` → `x`) is not done here.
//! - `Input` nodes stay, even unused ones: users hold handles to them and go on calling `set`.
//! - a kept value never becomes a view of an `Input`. It is a snapshot of one execution; the input's memory changes
//!   with the next `set` or when a state is updated.
//! - a [`Kernel`](crate::op::Kernel)'s operands are not touched: it reads their buffers as they lie in memory.
//! - `Detach` stays, for `Autograd` needs it (except around formats that carry no gradient). A back end treats it as
//!   its operand.
//! - one sweep over the nodes in topological order per run, each node looked at once: linear but for the ordering's
//!   `n log n`. A sweep sees what it has replaced before, so chains collapse in one run.
//!
//! *Hits* count replaced and removed nodes. Only nodes that some kept value needs are looked at, so a rewrite counts
//! once, not again for the leftovers that wait for [`DeadCode`].

mod algebra;
mod constant_folding;
mod cse;
mod dead_code;
mod sweep;
#[cfg(test)]
mod tests;
mod view_elimination;

pub use algebra::Algebra;
pub use constant_folding::ConstantFolding;
pub use cse::Cse;
pub use dead_code::DeadCode;
pub(in crate::compilers) use sweep::needed;
pub use view_elimination::ViewElimination;

use super::{Compiler, Group, PassList, Report};

/// Machine-independent rewrites that change no bit; see the [module](self).
///
/// ```
/// use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
/// let y = (x.recip() + x.recip()).retrieve();
/// let report = cx.compile(Generic, ());
/// assert_eq!(report.hits("cse"), 1);
/// cx.execute();
/// assert_eq!(y.data(), [2.0, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Generic;

impl Compiler for Generic {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.group(
            Group::Fixpoint,
            vec![
                Box::new(DeadCode),
                Box::new(Cse),
                Box::new(ConstantFolding),
                Box::new(Algebra),
                Box::new(ViewElimination),
            ],
        );
    }
}
