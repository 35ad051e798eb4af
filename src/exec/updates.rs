//! States that get new values: which ones a graph has, and which are not written in place.

use super::schedule::{Place, Schedule};
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::op::Op;
use crate::shape::View;

/// A state that gets a new value after all steps.
pub(super) struct Update {
    pub(super) id: u32,
    pub(super) node: NodeIndex,
    pub(super) view: View,
    /// Whether the new value is a whole buffer of the arena.
    pub(super) is_plain: bool,
}

/// All states, and those that are not updated in place.
pub(super) fn updates(dag: &Dag, schedule: &Schedule) -> Result<(Vec<u32>, Vec<Update>)> {
    let (mut states, mut updates) = (Vec::new(), Vec::new());
    for &(target, new) in dag.assigns() {
        let (target, new) = (dag.source(target)?, dag.source(new)?);
        let Op::Input { id, .. } = dag.node(target.node).op else {
            continue;
        };
        states.push(id);
        let place = schedule.places.get(new.node);
        if place != Some(Place::Input(id)) {
            let in_arena = matches!(place, Some(Place::Arena(_)));
            updates.push(Update {
                id,
                node: new.node,
                view: new.view.clone(),
                is_plain: in_arena && dag.is_whole(new.node, &new.view),
            });
        }
    }
    Ok((states, updates))
}
