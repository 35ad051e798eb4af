//! Weights that a file has in blocks stay in blocks.

use std::collections::BTreeMap;

use crate::blocks::BlockType;
use crate::compilers::{Generic, Quantize};
use crate::error::Result;
use crate::formats::Weights;
use crate::graph::Graph;
use crate::nn::Module;

/// Makes the parameters that `file` has in blocks inputs of such blocks, before any data is there: then the file's bytes
/// are their data as they are.
///
/// # Errors
/// Those of compiling.
pub(super) fn keep(
    graph: &mut Graph,
    model: &(impl Module + ?Sized),
    file: &dyn Weights,
) -> Result<()> {
    let mut types: BTreeMap<String, BlockType> = BTreeMap::new();
    for (name, parameter) in model.parameters().iter() {
        if let Some(tensor) = file.blocks(name) {
            parameter.set_name(name);
            types.insert(name.to_string(), tensor.ty);
        }
    }
    if types.is_empty() {
        return Ok(());
    }
    let plan = move |name: &str| types.get(name).copied();
    graph.try_compile((Generic, Quantize::mixed(plan).stored()), ())?;
    Ok(())
}
