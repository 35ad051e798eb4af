//! Maps over more dims, where these make every operand one walk.
//!
//! Before: `x[8, s, 256] <- [8, s, 2, 128] * (.., -128, 1)`, halves exchanged, over the points of `[8, s, 256]`: where an
//! element is takes divisions, of every lane. After: the same map over `[8, s, 2, 128]`, in which each operand has a stride
//! for each dim. The result is the same buffer, for it is stored row-major.
//!
//! Not taken: dims whose last one is short, maps that know their coordinates or gather, and reductions, whose order is that of their dims.

use std::borrow::Cow;

use crate::compilers::llvm_cpu::ir::{Nest, Scalar};
use crate::shape::{Layer, numel};

/// Elements of a row that fill the longest vectors: shorter ones are better gathered.
const LONG: i64 = 16;

/// The nest, over dims that an operand's view has below its top, if all views are one layer then.
pub(super) fn split(nest: &Nest) -> Cow<'_, Nest> {
    let is_fixed = |node: &Scalar| matches!(node, Scalar::Coord(_) | Scalar::Gather { .. });
    if !nest.stages.is_empty() || nest.body.iter().any(is_fixed) {
        return Cow::Borrowed(nest);
    }
    let below = nest
        .loads
        .iter()
        .filter_map(|load| load.view.layers().iter().rev().nth(1));
    let fits = |layer: &&Layer| {
        let last = layer.dims.last().and_then(|dim| dim.as_const());
        last.is_some_and(|last| last >= LONG) && numel(&layer.dims) == numel(&nest.space)
    };
    let mut candidates = below.filter(fits);
    let found = candidates.find_map(|layer| {
        let mut split = nest.clone();
        split.space = layer.dims.clone();
        for load in &mut split.loads {
            load.view = load.view.reshape(layer.dims.as_slice()).ok()?;
        }
        let is_one = split.loads.iter().all(|load| load.view.layers().len() == 1);
        is_one.then_some(split)
    });
    found.map_or(Cow::Borrowed(nest), Cow::Owned)
}
