//! What a compilation did.

use std::time::Duration;

use crate::graph::{GraphTensor, SignedTensor, StoredTensor};

/// One pass's share, summed over its runs.
#[derive(Clone, Debug, Default)]
pub struct PassReport {
    /// The pass.
    pub name: String,
    /// How often it ran.
    pub runs: usize,
    /// Replacements and removals that it made.
    pub hits: usize,
    /// Time it took.
    pub time: Duration,
    /// What it had to say.
    pub notes: Vec<String>,
}

/// What a compilation did, pass by pass.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each pass, in order of first run.
    pub passes: Vec<PassReport>,
    /// Nodes before.
    pub nodes_before: usize,
    /// Nodes after.
    pub nodes_after: usize,
    /// Values that passes made, in order: the gradients of [`Autograd`](super::Autograd).
    pub values: Vec<GraphTensor>,
    /// Inputs that were stored in blocks, in order.
    pub stored: Vec<StoredTensor>,
    /// Inputs that were stored as signs and scales, in order.
    pub signed: Vec<SignedTensor>,
}

impl Report {
    /// Replacements and removals made by the pass of this name; 0 if it did not run.
    pub fn hits(&self, pass: &str) -> usize {
        self.passes
            .iter()
            .filter(|p| p.name == pass)
            .map(|p| p.hits)
            .sum()
    }

    /// Everything that the passes had to say, as `pass: note`.
    pub fn notes(&self) -> Vec<String> {
        let all = self.passes.iter().flat_map(|pass| {
            pass.notes
                .iter()
                .map(|note| format!("{}: {note}", pass.name))
        });
        all.collect()
    }

    pub(super) fn entry(&mut self, name: &str) -> &mut PassReport {
        if let Some(at) = self.passes.iter().position(|pass| pass.name == name) {
            return &mut self.passes[at];
        }
        self.passes.push(PassReport {
            name: name.to_string(),
            ..PassReport::default()
        });
        self.passes.last_mut().expect("pushed above")
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} nodes became {}", self.nodes_before, self.nodes_after)?;
        for pass in &self.passes {
            writeln!(
                f,
                "{:>24}  {:>2} runs  {:>6} hits  {:>9.3?}",
                pass.name, pass.runs, pass.hits, pass.time
            )?;
            for note in &pass.notes {
                writeln!(f, "{:>24}  {note}", "")?;
            }
        }
        for stored in &self.stored {
            writeln!(f, "{:>24}  {stored}", "")?;
        }
        for signed in &self.signed {
            writeln!(f, "{:>24}  {signed}", "")?;
        }
        Ok(())
    }
}
