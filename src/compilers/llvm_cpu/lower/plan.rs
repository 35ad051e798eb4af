//! What is decided about a nest before any code is emitted: fewer and longer dims,
//! and which dim becomes vectors; [`super::stages`] says what runs in which turn.
//!
//! Before: a nest with the dims of its graph. After: a [`Plan`] in which
//! - dims of constant size one are gone, unless padding depends on them;
//! - neighbouring dims that every access walks in one stride are one dim, so that
//!   rows are as long as they can be (`[4, 3]` contiguous becomes `[12]`);
//! - at least one space dim, and for reductions one reduced dim, remains;
//! - each access is strides over the remaining dims, per-dim ranges that are not
//!   padding, and the layers below.
//!
//! All decisions depend on the structure of the nest only, not on the target: the
//! order of a sum is part of them.

use super::CannotLower;
use super::check::check;
use super::repeats::with_repeats;
use super::stages::{Turn, keep_costly_values, turns};
use crate::compilers::llvm_cpu::ir::{Id, Nest, ReduceOp, Scalar};
use crate::dtype::DType;
use crate::shape::{Expr, Layer};

/// Reduced elements that do not fill half of the partial results, and kept ones that fill half of a vector.
const SMALL: i64 = 8;
/// The largest distance of elements that are read in vectors.
pub const NEAR: i64 = 4;

/// A half-open range of coordinates that are not padding; `None` is all of them.
pub type Range = Option<(Expr, Expr)>;

/// An access over the dims of a [`Plan`].
pub struct Source {
    /// Which input.
    pub input: usize,
    /// The type of its elements.
    pub dtype: DType,
    /// One stride per dim of `space ++ reduce`.
    pub strides: Vec<Expr>,
    /// For each dim, how many neighbours are the same element: coordinates are divided by it, then multiplied by the
    /// stride. See [`super::repeats`].
    pub each: Vec<i64>,
    /// One range per dim.
    pub valid: Vec<Range>,
    /// Where coordinate zero is.
    pub offset: Expr,
    /// The layers below, nearest first; empty if the strides address the buffer.
    pub below: Vec<Layer>,
    /// The gathered axis, which is not among the dims.
    pub gather: Option<GatherAxis>,
}

/// The axis of an access whose coordinate is computed.
pub struct GatherAxis {
    /// Number of positions.
    pub size: Expr,
    /// Distance between neighbours.
    pub stride: Expr,
    /// Positions that are not padding.
    pub valid: Range,
}

/// A nest, ready for emission.
pub struct Plan<'n> {
    /// The nest it was made from.
    pub nest: &'n Nest,
    /// The type of every node.
    pub types: Vec<DType>,
    /// Sizes of the output's dims; at least one.
    pub space: Vec<Expr>,
    /// Sizes of the reduced dims; empty for maps only.
    pub reduce: Vec<Expr>,
    /// From axes of the nest to dims of the plan; `None` where the size is one.
    pub coords: Vec<Option<usize>>,
    /// The accesses.
    pub sources: Vec<Source>,
    /// What is evaluated per stage, and for the result.
    pub turns: Vec<Turn>,
}

/// Along what a reduction's values are vectorised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Along {
    /// The last reduced dim, striped over [`super::reduce::STRIPES`] partial results.
    Reduced,
    /// The last kept dim; each element is reduced in sequence.
    Kept,
}

impl<'n> Plan<'n> {
    /// Checks and simplifies a nest.
    pub fn new(nest: &'n Nest) -> Result<Plan<'n>, CannotLower> {
        Plan::with_sources(nest, |sources| with_repeats(nest, sources))
    }

    /// [`Plan::new`] with other sources than the nest's accesses say; more may follow these.
    pub fn with_sources(
        nest: &'n Nest,
        change: impl FnOnce(Vec<Source>) -> Vec<Source>,
    ) -> Result<Plan<'n>, CannotLower> {
        check(nest)?;
        let types = nest.dtypes();
        let sources = change((0..nest.loads.len()).map(|i| source(nest, i)).collect());
        let mut plan = Plan {
            nest,
            turns: turns(nest, &types),
            types,
            space: nest.space.to_vec(),
            reduce: nest.reduce.to_vec(),
            coords: (0..nest.space.len() + nest.reduce.len())
                .map(Some)
                .collect(),
            sources,
        };
        plan.drop_ones();
        plan.merge();
        plan.pad_ranks();
        if plan.is_by_rows() && plan.reduce.len() > 1 {
            return Err(CannotLower("rows of more than one dim".into()));
        }
        if plan.is_by_rows() {
            keep_costly_values(&mut plan);
        }
        Ok(plan)
    }

    /// Whether there is more than one reduction and its epilogue.
    pub fn is_by_rows(&self) -> bool {
        self.nest.per_point || self.nest.stages.len() > 1
    }

    /// The turn of the result.
    pub fn last(&self) -> &Turn {
        self.turns.last().expect("there is a turn for the result")
    }

    /// Number of dims, kept and reduced.
    pub fn rank(&self) -> usize {
        self.space.len() + self.reduce.len()
    }

    /// Sizes of all dims.
    fn size(&self, dim: usize) -> Expr {
        match dim.checked_sub(self.space.len()) {
            None => self.space[dim],
            Some(dim) => self.reduce[dim],
        }
    }

    /// Along what a reduction is vectorised: the dim along which fewer accesses are
    /// scattered (neither contiguous nor the same element), the reduced one in a draw.
    /// A kept dim of a few elements does not fill vectors, nor does a small window.
    pub fn along(&self) -> Along {
        match self.has_small_windows() {
            true => Along::Kept,
            false => self.along_for(None),
        }
    }

    /// Whether a pool's windows are reduced, whose elements are read in vectors from window to window. The order of
    /// sums over one dim is that of rows with several of them, and that of products is that of other kernels.
    fn has_small_windows(&self) -> bool {
        let [stage] = &self.nest.stages[..] else {
            return false;
        };
        let is_free = stage.kind == ReduceOp::Max
            || (self.reduce.len() > 1 && self.turns[0].factors.is_none());
        let (kept, last) = (self.space.len() - 1, self.rank() - 1);
        let is_long = self.space[kept].as_const().is_some_and(|n| n >= SMALL);
        let is_small = self.size(last).as_const().is_some_and(|n| n < SMALL);
        let is_near = |source: &Source| {
            let stride = source.strides[kept].as_const();
            source.below.is_empty()
                && source.gather.is_none()
                && stride.is_some_and(|stride| (0..=NEAR).contains(&stride))
        };
        is_free && is_long && is_small && self.sources.iter().all(is_near)
    }

    /// [`Plan::along`] as if these nodes were all.
    pub fn along_for(&self, nodes: Option<&[Id]>) -> Along {
        let read = |access: usize| {
            let reads = |&id: &Id| match self.nest.body[id] {
                Scalar::Load(a)
                | Scalar::Valid(a)
                | Scalar::Position(a)
                | Scalar::Gather { access: a, .. } => a == access,
                _ => false,
            };
            nodes.is_none_or(|nodes| nodes.iter().any(reads))
        };
        let (kept, reduced) = (self.space.len() - 1, self.rank() - 1);
        let scattered = |dim: usize| {
            let bad = |&access: &usize| {
                let source = &self.sources[access];
                match source.strides[dim] {
                    stride if stride.is_zero() => false,
                    stride => !(source.below.is_empty() && stride.is_one()),
                }
            };
            let sources = (0..self.sources.len()).filter(|&access| read(access));
            sources.filter(bad).count()
        };
        let short = self.space[kept].as_const().is_some_and(|n| n < 4);
        if !short && scattered(kept) < scattered(reduced) {
            Along::Kept
        } else {
            Along::Reduced
        }
    }

    /// Which nodes of a phase differ between neighbours along `dim`; `None` is no dim.
    pub fn varying(&self, dim: Option<usize>) -> Vec<bool> {
        let mut varies: Vec<bool> = Vec::with_capacity(self.nest.body.len());
        for node in &self.nest.body {
            let mut any = match (node, dim) {
                (_, None) => false,
                (
                    Scalar::Load(a)
                    | Scalar::Valid(a)
                    | Scalar::Position(a)
                    | Scalar::Gather { access: a, .. },
                    Some(dim),
                ) => {
                    let source = &self.sources[*a];
                    !source.strides[dim].is_zero() || source.valid[dim].is_some()
                }
                (Scalar::Coord(axis), dim) => self.coords[*axis] == dim,
                (Scalar::Reduced(_), Some(dim)) => dim < self.space.len(),
                _ => false,
            };
            node.for_each_operand(|id| any |= varies[id]);
            varies.push(any);
        }
        varies
    }

    /// Removes a dim from everything.
    fn remove(&mut self, dim: usize) {
        match dim.checked_sub(self.space.len()) {
            None => drop(self.space.remove(dim)),
            Some(dim) => drop(self.reduce.remove(dim)),
        }
        for source in &mut self.sources {
            source.strides.remove(dim);
            source.each.remove(dim);
            source.valid.remove(dim);
        }
        for coord in &mut self.coords {
            *coord = match *coord {
                Some(d) if d == dim => None,
                Some(d) if d > dim => Some(d - 1),
                other => other,
            };
        }
    }

    fn drop_ones(&mut self) {
        for dim in (0..self.rank()).rev() {
            if self.size(dim).is_one() && self.sources.iter().all(|s| s.valid[dim].is_none()) {
                self.remove(dim);
            }
        }
    }

    /// Whether dims `dim` and `dim + 1` can be one.
    fn mergeable(&self, dim: usize) -> bool {
        let size = self.size(dim + 1);
        let is_walk = |s: &Source| s.each[dim] == 1 && s.each[dim + 1] == 1;
        let is_one = |s: &Source| s.strides[dim] == s.strides[dim + 1] * size;
        let named = |node: &Scalar| match node {
            Scalar::Coord(axis) => self.coords[*axis].is_some_and(|d| d == dim || d == dim + 1),
            _ => false,
        };
        dim + 1 != self.space.len()
            && self
                .sources
                .iter()
                .all(|s| s.valid[dim + 1].is_none() && is_walk(s) && is_one(s))
            && !self.nest.body.iter().any(named)
    }

    fn merge(&mut self) {
        for dim in (0..self.rank().saturating_sub(1)).rev() {
            if !self.mergeable(dim) {
                continue;
            }
            let inner = self.size(dim + 1);
            for source in &mut self.sources {
                source.valid[dim + 1] = source.valid[dim].map(|(lo, hi)| (lo * inner, hi * inner));
            }
            let merged = self.size(dim) * inner;
            match (dim + 1).checked_sub(self.space.len()) {
                None => self.space[dim + 1] = merged,
                Some(d) => self.reduce[d] = merged,
            }
            self.remove(dim);
        }
    }

    /// A map of no dims has one of size one, and so on.
    fn pad_ranks(&mut self) {
        if self.space.is_empty() {
            self.space.push(Expr::from(1));
            self.insert(0);
        }
        if self.reduce.is_empty() && !self.nest.stages.is_empty() {
            self.reduce.push(Expr::from(1));
            self.insert(self.space.len());
        }
    }

    fn insert(&mut self, dim: usize) {
        for source in &mut self.sources {
            source.strides.insert(dim, Expr::from(0));
            source.each.insert(dim, 1);
            source.valid.insert(dim, None);
        }
        for coord in self.coords.iter_mut().flatten() {
            *coord += usize::from(*coord >= dim);
        }
    }
}

/// Padding of one dim; a range that covers it all is none.
fn range(layer: &Layer, dim: usize) -> Range {
    let (lo, hi) = layer.valid.as_ref()?[dim];
    (!lo.is_zero() || hi != layer.dims[dim]).then_some((lo, hi))
}

/// Access `index` over the dims of the nest.
fn source(nest: &Nest, index: usize) -> Source {
    let access = &nest.loads[index];
    let layers = access.view.layers();
    let (top, below) = layers.split_last().expect("a view has a layer");
    let axis = nest.body.iter().find_map(|node| match node {
        Scalar::Gather { access, axis, .. } if *access == index => Some(*axis),
        _ => None,
    });
    let gather = axis.map(|axis| GatherAxis {
        size: top.dims[axis],
        stride: top.strides[axis],
        valid: range(top, axis),
    });
    let mut strides = top.strides.to_vec();
    let mut valid: Vec<Range> = (0..top.dims.len()).map(|dim| range(top, dim)).collect();
    if let Some(axis) = axis {
        strides[axis] = Expr::from(0);
        valid[axis] = None;
    }
    // What is read after the reduction does not depend on the reduced dims.
    let rank = nest.space.len() + nest.reduce.len();
    strides.resize(rank, Expr::from(0));
    valid.resize(rank, None);
    Source {
        input: access.input,
        dtype: access.dtype,
        each: vec![1; rank],
        strides,
        valid,
        offset: top.offset,
        below: below.iter().rev().cloned().collect(),
        gather,
    }
}
