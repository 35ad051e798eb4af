//! What symbols are used for, so that an execution in which only some of them changed evaluates nothing else.
//!
//! From one token of a text to the next, the number of tokens before is all that changes: it is in what attention is called
//! with and in what some views assume, but in no buffer's size. Buffers then lie where they were, and most calls are
//! made as before.

use super::calls::Calls;
use super::schedule::Schedule;
use super::sizes::check_requirements;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::shape::{Expr, RUN, Symbols};

/// What one symbol is used for.
struct Affected {
    symbol: char,
    /// Whether a result or an input has another size with another value: then everything is laid out again.
    moves_buffers: bool,
    /// What views assume of the symbol, with a node that needs it.
    requirements: Vec<(Expr, NodeIndex)>,
    /// Calls whose parameters or work depend on it, or on the number of the execution.
    calls: Vec<usize>,
}

/// What evaluating some calls again has given.
pub(super) struct Again {
    /// How many calls.
    pub(super) calls: usize,
    /// The largest working memory of any call.
    pub(super) scratch: usize,
}

/// What each symbol is used for.
#[derive(Default)]
pub(super) struct Uses(Vec<Affected>);

impl Uses {
    /// Finds it out, unless it is known for these symbols.
    pub(super) fn find(
        &mut self,
        dag: &Dag,
        (schedule, requirements): (&Schedule, &[(Expr, NodeIndex)]),
        calls: &Calls,
        symbols: &Symbols,
    ) {
        let names = || symbols.iter().map(|(name, _)| name);
        if !names().eq(self.0.iter().map(|one| one.symbol)) {
            let one = |name| Affected::new(dag, schedule, requirements, calls, name);
            self.0 = names().map(one).collect();
        }
    }

    /// Whether all buffers stay where they are when these symbols change.
    pub(super) fn keep_buffers(&self, changed: &[char]) -> bool {
        let affected = |symbol: &char| self.0.iter().find(|one| one.symbol == *symbol);
        let keeps = |symbol: &char| affected(symbol).is_some_and(|one| !one.moves_buffers);
        changed.iter().all(keeps)
    }

    /// Checks what views assume of symbols that changed, and evaluates the calls that depend on them.
    ///
    /// # Errors
    /// An assumption that does not hold.
    pub(super) fn evaluate(
        &self,
        dag: &Dag,
        (changed, symbols): (&[char], &Symbols),
        n_threads: usize,
        calls: &mut Calls,
    ) -> Result<Again> {
        let mut again = Again {
            calls: 0,
            scratch: 0,
        };
        for one in self.0.iter().filter(|one| changed.contains(&one.symbol)) {
            check_requirements(dag, &one.requirements, symbols)?;
            again.scratch = calls.evaluate_again(dag, symbols, n_threads, &one.calls)?;
            again.calls += one.calls.len();
        }
        Ok(again)
    }
}

impl Affected {
    fn new(
        dag: &Dag,
        schedule: &Schedule,
        requirements: &[(Expr, NodeIndex)],
        calls: &Calls,
        symbol: char,
    ) -> Affected {
        let uses = |expr: &Expr| expr.symbols().contains(&symbol);
        let has = |node: NodeIndex| dag.node(node).ty.dims.iter().any(uses);
        let requirements = requirements.iter().filter(|(expr, _)| uses(expr));
        Affected {
            symbol,
            moves_buffers: schedule.places.nodes().any(has),
            requirements: requirements.copied().collect(),
            calls: calls.that_depend_on(|code| code.depends_on(RUN) || code.depends_on(symbol)),
        }
    }
}
