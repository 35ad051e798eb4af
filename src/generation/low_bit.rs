//! Layers that a file declares to be of signs or of three values are computed as such.

use std::collections::BTreeMap;

use super::session::Info;
use crate::compilers::binarize::{Choice, SignScheme};
use crate::compilers::{Binarize, Generic};
use crate::error::{Error, Result};
use crate::formats::{LowBitLayer, Weights};
use crate::graph::Graph;
use crate::nn::Module;

/// Stores the parameters that `file` declares so, whose numbers the graph has, as signs and scales, which loses nothing; then
/// their inputs become what the file says.
///
/// # Errors
/// If such a parameter is not only multiplied by whole rows, and those of compiling.
pub(super) fn store(
    graph: &mut Graph,
    model: &(impl Module + ?Sized),
    file: &dyn Weights,
    info: &mut Info,
) -> Result<()> {
    let mut layers: BTreeMap<String, LowBitLayer> = BTreeMap::new();
    for (name, parameter) in model.parameters().iter() {
        if let Some(layer) = file.low_bit(name) {
            parameter.set_name(name);
            layers.insert(name.to_string(), layer);
        }
    }
    if layers.is_empty() {
        return Ok(());
    }
    let declared = layers.clone();
    let binarize = Binarize::w1a8().plan(move |layer, _| match declared.get(&layer.name) {
        Some(layer) => Choice::Binarize(scheme(*layer), "the file declares it".into()),
        None => Choice::Stay("the file does not declare it".into()),
    });
    let report = graph.try_compile((Generic, binarize), ())?;
    for stored in &report.signed {
        layers.remove(&stored.name);
        info.replaced(stored.bytes_before, stored.bytes);
    }
    match layers.into_keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::msg(format!(
            "{}: tensor {name:?} is declared to be of few bits, but the model does more with it than multiply",
            file.source().display()
        ))),
    }
}

fn scheme(layer: LowBitLayer) -> SignScheme {
    SignScheme {
        bases: 1 + usize::from(layer.ternary),
        fit: layer.fit(),
        activations: layer.inputs,
    }
}
