//! Weights of the layers that the plan picks → signs and scales.

use std::cell::RefCell;

use super::layers::find;
use super::{Binarize, Choice, Chosen, Layer, SignActivations, SignScheme};
use crate::blocks::SignMatrix;
use crate::compilers::Pass;
use crate::compilers::calibrate::weight_name;
use crate::compilers::quantize::check_columns;
use crate::error::Result;
use crate::graph::{Dag, Patch};
use crate::op::Op;

/// The pass; a hit is a weight that is stored as signs.
pub struct SignWeights {
    binarize: Binarize,
    chosen: Chosen,
    notes: RefCell<Vec<String>>,
}

impl SignWeights {
    pub(super) fn new(binarize: Binarize, chosen: Chosen) -> SignWeights {
        SignWeights {
            binarize,
            chosen,
            notes: RefCell::default(),
        }
    }
}

impl Pass for SignWeights {
    fn name(&self) -> &str {
        "sign-weights"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let mut notes = Vec::new();
        let mut chosen = self
            .chosen
            .lock()
            .expect("nothing panics while it is locked");
        chosen.clear();
        for found in find(dag)? {
            let layer = &found.layer;
            let choice = match found.obstacle {
                Some(why) => Choice::Stay(why.into()),
                None => self.binarize.choose(layer),
            };
            notes.push(note(layer, &choice));
            let Choice::Binarize(scheme, _) = choice else {
                continue;
            };
            let matrix = SignMatrix::new(layer.rows, layer.columns, scheme.bases)?;
            patch.store_signs(found.weight, matrix, scheme.fit);
            let stats = &self.binarize.calibration;
            if let Some(stats) = stats.get(&weight_name(dag, found.weight)) {
                check_columns(dag, found.weight, stats.columns())?;
                patch.calibrate(found.weight, stats.clone());
            }
            if let Op::Input { id, .. } = dag.node(found.weight).op {
                chosen.insert(id, scheme.activations);
            }
        }
        if notes.is_empty() {
            notes.push("no constant is multiplied by whole rows".into());
        }
        *self.notes.borrow_mut() = notes;
        Ok(patch)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

fn note(layer: &Layer, choice: &Choice) -> String {
    let Layer {
        name,
        rows,
        columns,
        ..
    } = layer;
    let name = if name.is_empty() { "a weight" } else { name };
    match choice {
        Choice::Stay(why) => format!("{name} [{rows}, {columns}] stays: {why}"),
        Choice::Binarize(scheme, why) => {
            format!(
                "{name} [{rows}, {columns}] becomes {}: {why}",
                words(scheme)
            )
        }
    }
}

fn words(scheme: &SignScheme) -> String {
    let weights = match (scheme.fit.ternary, scheme.bases) {
        (true, _) => "three values".to_string(),
        (false, 1) => "signs".to_string(),
        (false, bases) => format!("{bases} bases of signs"),
    };
    let activations = match scheme.activations {
        SignActivations::Kept => "activations as they are",
        SignActivations::Bytes => "activations of 8 bits",
        SignActivations::FourBits => "activations of 4 bits",
        SignActivations::TwoBits => "activations of 2 bits",
        SignActivations::Signs => "signs",
        SignActivations::ScaledSigns => "signs times mean magnitudes",
    };
    format!("{weights} times {activations}")
}
