//! Computing values again instead of keeping them: less memory for more time.
//!
//! ```text
//! %1 = product(%x, %w)             %1 = product(%x, %w)
//! %2 = exp2(%1)                    %2 = exp2(%1)
//! %3 = forward(%2)            →    %3 = forward(%2)
//! %4 = backward(%3, %2, %1)        %5 = exp2(%1)                 late: just before its reader
//!                                  %4 = backward(%3, %5, %1)
//! ```
//! What a layer computed is needed again by its gradient, so a training step keeps nearly all of it until the way back.
//! [`Remat`] looks for the step that needs most memory, lets the best of the values go that are only kept over it, and
//! computes them again before their next use; then it looks again, until the plan keeps to the budget (`choose`). What
//! it counts are the bytes of the executor's own memory plan, for the kernels that `LlvmCpu` makes (`estimate`): values
//! that never were in memory need no saving. Elementwise values that are computed again become part of the kernel that
//! reads them.
//!
//! It comes after everything else but the back end: `(Generic, Remat::new(bytes), LlvmCpu::native())`. In a build
//! without LLVM it plans for the graph as it is.
//!
//! Invariants:
//! - the same ops on the same operands, so the same bits; random numbers are functions of their seed and place;
//! - a state that is read again is read before it changes: the schedule sees to that, as for every reader;
//! - what is computed again is [late](crate::graph::Turn::Late), so no pass takes it for what it repeats;
//! - each change that is kept makes the peak lower, or as high in fewer steps; so it ends, and never makes it worse.
//!
//! What it deliberately does not do: it does not repeat scatters, custom ops and kernels, and moves no step of the graph.
//! The choice is greedy and not optimal (Jain et al., "Checkmate", 2020, solve an integer program).

mod choose;
mod estimate;
mod net;

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashSet;

use self::choose::{Candidate, Choice, Kind};
use self::estimate::Estimate;
use self::net::{Item, Net};
use super::{Compiler, Pass, PassList, Report};
use crate::error::Result;
use crate::graph::{Dag, Patch};
use crate::shape::Symbols;

/// How often memory is planned at most.
const MOST_PLANS: usize = 300;

/// Keeps a graph's intermediate results within a number of bytes, by computing some of them again (Chen et al.,
/// "Training Deep Nets with Sublinear Memory Cost", 2016); see the [module](self).
///
/// Counted is what [`Stats::arena_bytes`](crate::graph::state::Stats) says of an execution: results in between and
/// results that are read afterwards, not inputs and states. Where the budget is out of reach, memory is saved as far as
/// that goes. The report's note names the bytes before and after; its hits are the operands that are computed again.
///
/// Symbolic sizes are those of [`Remat::at`], or those that [`Graph::set_dim`](crate::graph::Graph::set_dim) gave before
/// compiling; with other sizes the results are the same, and memory is what it comes to. Sizes without either are an
/// error.
///
/// ```
/// use brain_blitz::compilers::Remat;
/// use brain_blitz::prelude::*;
/// let step = |budget: usize| {
///     let mut cx = Graph::new();
///     let w = cx.input((8, 8), DType::F32).set(vec![0.1; 64]);
///     let mut x = cx.input((100, 8), DType::F32).set(vec![0.5; 800]);
///     for _ in 0..6 {
///         x = x.matmul(w).silu().sin();
///     }
///     let dw = cx.compile(Autograd::new(w, x.sum(..)), ())[0].retrieve();
///     let report = cx.compile((Generic, Remat::new(budget), LlvmCpu::native()), ());
///     cx.execute();
///     (dw.data(), cx.stats().arena_bytes, report)
/// };
/// let (all, bytes, _) = step(usize::MAX);
/// let (same, fewer, report) = step(bytes * 3 / 4);
/// assert_eq!(same, all);
/// assert!(fewer <= bytes * 3 / 4, "{report}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remat {
    budget: usize,
    symbols: Symbols,
}

impl Remat {
    /// For a budget in bytes.
    pub fn new(budget: usize) -> Remat {
        Remat {
            budget,
            symbols: Symbols::new(),
        }
    }

    /// The size that a symbol is taken to have, instead of the one it has when the graph is compiled.
    pub fn at(mut self, symbol: char, size: usize) -> Remat {
        self.symbols.set(symbol, size as i64);
        self
    }
}

impl Compiler for Remat {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        // A value that only gradients needed is not kept for them.
        list.push(super::forget_gradients::ForgetGradients);
        list.push(super::generic::DeadCode);
        list.push(Rematerialise {
            remat: self.clone(),
            notes: Mutex::default(),
        });
    }
}

/// The pass `remat`; a hit is an operand that is computed again.
struct Rematerialise {
    remat: Remat,
    notes: Mutex<Vec<String>>,
}

impl Rematerialise {
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass for Rematerialise {
    fn name(&self) -> &str {
        "remat"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        self.run_sized(dag, &Symbols::new())
    }

    fn run_sized(&self, dag: &Dag, symbols: &Symbols) -> Result<Patch> {
        let mut symbols = symbols.clone();
        self.remat
            .symbols
            .iter()
            .for_each(|(symbol, size)| symbols.set(symbol, size));
        let budget = self.remat.budget;
        let mut search = Search::new(dag, symbols, budget)?;
        let before = search.estimate.arena_bytes;
        let (net, after) = search.run()?;
        let again = match net.n_again() {
            0 => String::new(),
            n => format!(", {n} nodes are computed again"),
        };
        let out_of_reach = match after > budget {
            true => ", which is out of reach",
            false => "",
        };
        *self.locked() = vec![format!(
            "{before} bytes became {after} with a budget of {budget}{out_of_reach}{again}"
        )];
        Ok(net.patch()?.0)
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.locked())
    }
}

/// The graph with the lowest peak so far.
struct Search<'a> {
    net: Net<'a>,
    estimate: Estimate,
    symbols: Symbols,
    budget: usize,
    n_plans: usize,
    /// What did not help at the present peak.
    banned: FxHashSet<(Item, Kind)>,
}

impl<'a> Search<'a> {
    fn new(dag: &'a Dag, symbols: Symbols, budget: usize) -> Result<Search<'a>> {
        let net = Net::new(dag);
        Ok(Search {
            estimate: Estimate::new(&net, &symbols)?,
            net,
            symbols,
            budget,
            n_plans: 1,
            banned: FxHashSet::default(),
        })
    }

    /// The graph that needs least memory, or just as little as it may, and its bytes. A lower peak can need a larger
    /// arena, if its buffers fit less well.
    fn run(&mut self) -> Result<(Net<'a>, usize)> {
        let mut best = (self.net.clone(), self.estimate.arena_bytes);
        while best.1 > self.budget && self.n_plans < MOST_PLANS {
            let kinds = [Kind::Kept, Kind::Read, Kind::Product];
            let mut helps = false;
            for kind in kinds {
                helps = helps || self.improve(kind)?;
            }
            if !helps {
                break;
            }
            if self.estimate.arena_bytes < best.1 {
                best = (self.net.clone(), self.estimate.arena_bytes);
            }
        }
        Ok(best)
    }

    /// Lets some values go at the peak; `false` if there are none whose going helps.
    fn improve(&mut self, kind: Kind) -> Result<bool> {
        let (peak, _) = self.estimate.peak();
        let at = self.estimate.live.iter().position(|&live| live == peak);
        let Some(step) = at else { return Ok(false) };
        // Buffers do not fill the arena: what is more than the plan's own peak has to go from that.
        let lost = self.estimate.arena_bytes - peak.min(self.estimate.arena_bytes);
        let excess = peak.saturating_sub(self.budget.saturating_sub(lost)).max(1);
        let choice = Choice {
            net: &self.net,
            estimate: &self.estimate,
            symbols: &self.symbols,
            step,
            kind,
        };
        let mut candidates = choice.candidates(&self.banned)?;
        let mut most = usize::MAX;
        while self.n_plans < MOST_PLANS {
            let taken = enough(&candidates, excess);
            let taken = &taken[..taken.len().min(most)];
            if taken.is_empty() {
                return Ok(false);
            }
            let net = choice.without(&self.net, taken)?;
            let estimate = Estimate::new(&net, &self.symbols)?;
            self.n_plans += 1;
            let key = |estimate: &Estimate| (estimate.peak(), estimate.arena_bytes);
            if key(&estimate) < key(&self.estimate) {
                (self.net, self.estimate) = (net, estimate);
                self.banned.clear();
                return Ok(true);
            }
            match taken {
                [one] => {
                    let item = one.item;
                    self.banned.insert((item, kind));
                    candidates.retain(|other| other.item != item);
                }
                several => most = several.len() / 2,
            }
        }
        Ok(false)
    }
}

/// The first values that have so many bytes together.
fn enough(candidates: &[Candidate], bytes: usize) -> &[Candidate] {
    let mut sum = 0;
    let n = candidates.iter().take_while(|value| {
        let is_missing = sum < bytes;
        sum += value.bytes;
        is_missing
    });
    &candidates[..n.count()]
}
