//! Which values are computed again, and from what.
//!
//! At the step that needs most memory, every value that is kept over it without being used there may go and be computed
//! again before its next use; one that is used there may be computed by the step's own kernel. What that takes is
//! followed back to what is in memory at that time. Of the values that may go, those with the largest `bytes * steps / operations` come first (after Kirisame et al., "Dynamic Tensor
//! Rematerialization", 2021); matrix products are computed again only where nothing else helps.

use rustc_hash::{FxHashMap, FxHashSet};

use super::estimate::Estimate;
use super::net::{Item, Net};
use crate::error::Result;
use crate::exec::forecast::elements;
use crate::op::{BinaryOp, Op, ReduceOp, UnaryOp};
use crate::shape::{Symbols, numel};

/// The most nodes that are computed again for one value.
const MOST: usize = 512;

/// Which values may go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// Those that are kept over the step.
    Kept,
    /// Those that the step reads: its own kernel may compute them.
    Read,
    /// Those that are kept over the step, even if that takes matrix products.
    Product,
}

/// A value that may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub item: Item,
    pub bytes: usize,
    /// The step that needs it next.
    next: usize,
    score: f64,
}

/// What is computed again so that a value may go.
#[derive(Default)]
struct Again {
    /// Operands before readers.
    items: Vec<Item>,
    seen: FxHashSet<Item>,
    /// What stands for operands that are not computed again.
    there: FxHashMap<Item, Item>,
    /// Readers that read what is computed again, and which of it.
    routes: Vec<(Item, usize, Item)>,
    cost: f64,
}

/// A choice at one step of one estimate.
pub(super) struct Choice<'a, 'b> {
    pub net: &'b Net<'a>,
    pub estimate: &'b Estimate,
    pub symbols: &'b Symbols,
    /// The step that needs too much.
    pub step: usize,
    pub kind: Kind,
}

impl Choice<'_, '_> {
    /// The values that may go, best first.
    pub fn candidates(&self, banned: &FxHashSet<(Item, Kind)>) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for buffer in &self.estimate.buffers {
            let Some((since, next)) = buffer.gap(self.step, self.kind == Kind::Read) else {
                continue;
            };
            let item = buffer.item;
            if buffer.last == usize::MAX || banned.contains(&(item, self.kind)) {
                continue;
            }
            let Some(again) = self.again(item, next, &FxHashMap::default())? else {
                continue;
            };
            let kept = buffer.bytes as f64 * (next - since) as f64;
            found.push(Candidate {
                item,
                bytes: buffer.bytes,
                next,
                score: kept / (1.0 + again.cost),
            });
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
        Ok(found)
    }

    /// The graph in which these values are computed again.
    pub fn without<'a>(&self, net: &Net<'a>, values: &[Candidate]) -> Result<Net<'a>> {
        let mut net = net.clone();
        let mut made: FxHashMap<Item, Item> = FxHashMap::default();
        for value in values {
            let Some(again) = self.again(value.item, value.next, &made)? else {
                continue;
            };
            for item in again.items {
                let operands = net.operands(item).into_iter().map(|(operand, _)| {
                    let new = made.get(&operand).or_else(|| again.there.get(&operand));
                    new.copied().unwrap_or(operand)
                });
                let operands = operands.collect();
                made.insert(item, net.repeat(item, operands));
            }
            for (reader, slot, item) in again.routes {
                net.reroute(reader, slot, made[&item]);
            }
        }
        // Only now is known what else is computed again.
        let mut new: Vec<Item> = made.values().copied().collect();
        new.sort_unstable();
        for item in new {
            for (slot, (operand, _)) in net.operands(item).into_iter().enumerate() {
                if let Some(&instead) = made.get(&operand) {
                    net.reroute(item, slot, instead);
                }
            }
        }
        Ok(net)
    }

    /// Readers after this position need what is computed again.
    fn cut(&self) -> usize {
        let position = |&item: &Item| self.estimate.position[item];
        let steps = &self.estimate.steps;
        match self.kind {
            Kind::Read => steps[..self.step].iter().filter_map(position).max(),
            _ => position(&steps[self.step]),
        }
        .unwrap_or(usize::MAX)
    }

    fn is_late(&self, item: Item, cut: usize) -> bool {
        self.estimate.position[item].is_some_and(|at| at > cut)
    }

    /// What has to be computed again so that `value` is not needed between the step and `next`; `None` if that cannot be.
    fn again(
        &self,
        value: Item,
        next: usize,
        made: &FxHashMap<Item, Item>,
    ) -> Result<Option<Again>> {
        let cut = self.cut();
        let mut again = Again::default();
        // What is computed from the value inside of kernels, as far as it is before the step.
        let (mut open, mut cone) = (vec![value], FxHashSet::from_iter([value]));
        while let Some(item) = open.pop() {
            for &(reader, slot) in &self.estimate.readers[item] {
                if self.is_late(reader, cut) {
                    again.routes.push((reader, slot, item));
                } else if !self.is_written(reader) && cone.insert(reader) {
                    open.push(reader);
                }
            }
            if cone.len() > MOST {
                return Ok(None);
            }
        }
        again.routes.sort_unstable();
        for at in 0..again.routes.len() {
            let item = again.routes[at].2;
            if !self.follow(item, value, next, made, &mut again)? {
                return Ok(None);
            }
        }
        Ok((!again.routes.is_empty()).then_some(again))
    }

    /// Adds an item and what it is computed from; `false` if that cannot be computed again.
    fn follow(
        &self,
        item: Item,
        value: Item,
        next: usize,
        made: &FxHashMap<Item, Item>,
        again: &mut Again,
    ) -> Result<bool> {
        // An explicit stack: chains may be long.
        let mut open = vec![(item, false)];
        while let Some((item, operands_are_done)) = open.pop() {
            if operands_are_done {
                again.items.push(item);
                continue;
            }
            if made.contains_key(&item) || !again.seen.insert(item) {
                continue;
            }
            let may_be = match self.net.op(item) {
                Op::Input { .. } | Op::Scatter { .. } | Op::Custom(_) | Op::Kernel(_) => false,
                _ => self.kind == Kind::Product || !self.is_product(item),
            };
            if !may_be || again.seen.len() > MOST {
                return Ok(false);
            }
            again.cost += self.cost(item)?;
            open.push((item, true));
            for (operand, _) in self.net.operands(item) {
                match self.at(operand, next).filter(|_| operand != value) {
                    Some(there) => _ = again.there.insert(operand, there),
                    None => open.push((operand, false)),
                }
            }
        }
        Ok(true)
    }

    /// Whether an item is written to memory, now or always.
    fn is_written(&self, item: Item) -> bool {
        let estimate = self.estimate;
        estimate.kept.contains(&item) || estimate.buffer_of.contains_key(&item)
    }

    /// What stands for an item at step `next`, if something does: itself, or a repetition of it.
    fn at(&self, item: Item, next: usize) -> Option<Item> {
        let is_free = matches!(
            self.net.op(item),
            Op::Input { .. } | Op::Constant(_) | Op::Iota { .. }
        );
        let estimate = self.estimate;
        let lives = || {
            let buffer = estimate.buffer_of.get(&item);
            buffer.is_some_and(|&buffer| estimate.buffers[buffer].last >= next)
        };
        if is_free || estimate.kept.contains(&item) || lives() {
            return Some(item);
        }
        // Everything else costs less to repeat once more than it takes to keep.
        self.is_product(item)
            .then(|| self.living_repetition(item, next))?
    }

    /// A repetition of an item that is computed after the step and still needed at `next` or later.
    fn living_repetition(&self, item: Item, next: usize) -> Option<Item> {
        let estimate = self.estimate;
        self.net.repetitions(item).find(|again| {
            let buffer = estimate
                .buffer_of
                .get(again)
                .map(|&at| &estimate.buffers[at]);
            buffer.is_some_and(|b| b.uses[0] > self.step && b.last >= next && b.last != usize::MAX)
        })
    }

    /// A sum of products in which each element of either factor is used several times.
    fn is_product(&self, item: Item) -> bool {
        if !matches!(self.net.op(item), Op::Reduce(ReduceOp::Sum, _)) {
            return false;
        }
        let (product, _) = self.net.operands(item)[0];
        let again_and_again = |(factor, view): (Item, &crate::shape::View)| {
            let node = self.net.dag.node(self.net.origin(factor));
            numel(view.dims()) != node.ty.numel()
        };
        *self.net.op(product) == Op::Binary(BinaryOp::Mul)
            && self.net.operands(product).into_iter().all(again_and_again)
    }

    /// About how many additions an item takes.
    fn cost(&self, item: Item) -> Result<f64> {
        let each = match self.net.op(item) {
            Op::Unary(UnaryOp::Sqrt | UnaryOp::Recip) | Op::Gather { .. } => 4.0,
            Op::Unary(_) | Op::Binary(BinaryOp::Mod) => 10.0,
            Op::Random { .. } => 40.0,
            Op::Constant(_) | Op::Iota { .. } => 0.0,
            Op::Reduce(..) => {
                let (operand, _) = self.net.operands(item)[0];
                let n = elements(self.net.dag, self.net.origin(operand), self.symbols)?;
                return Ok(n as f64);
            }
            _ => 1.0,
        };
        let n = elements(self.net.dag, self.net.origin(item), self.symbols)?;
        Ok(each * n as f64)
    }
}
