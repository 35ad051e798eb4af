//! What memory a graph will need: by making its kernels, without their code, and planning their buffers.

use rustc_hash::{FxHashMap, FxHashSet};

use super::net::{Item, Net};
use crate::compilers::PassList;
use crate::error::Result;
use crate::exec::forecast::Forecast;
use crate::exec::schedule::{Place, Schedule};
use crate::graph::{Dag, NodeIndex};
use crate::op::Op;
use crate::shape::Symbols;
use crate::storage::ALIGNMENT;

/// One result that is written to memory.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    /// What lies in it.
    pub item: Item,
    pub bytes: usize,
    /// The steps that write it and read it, in order.
    pub uses: Vec<usize>,
    /// The last step that needs it; `usize::MAX` if it stays.
    pub last: usize,
}

impl Buffer {
    /// The steps around `step` that use it: from the last before it that does, to the next after it, if the step itself
    /// does not; with `reads`, to the step itself, if that does.
    pub fn gap(&self, step: usize, reads: bool) -> Option<(usize, usize)> {
        let after = self.uses.partition_point(|&at| at < step);
        let next = *self.uses.get(after)?;
        (after > 0 && (next == step) == reads).then(|| (self.uses[after - 1], next))
    }
}

/// How a graph would be executed.
pub(super) struct Estimate {
    /// Bytes of all buffers together, as they are laid out.
    pub arena_bytes: usize,
    /// Bytes that each step needs.
    pub live: Vec<usize>,
    /// What each step computes.
    pub steps: Vec<Item>,
    pub buffers: Vec<Buffer>,
    /// The buffer in which an item lies.
    pub buffer_of: FxHashMap<Item, usize>,
    /// When each item would be computed without kernels; `None` for inputs and what nothing needs.
    pub position: Vec<Option<usize>>,
    /// Items that are there to stay once they are computed.
    pub kept: FxHashSet<Item>,
    /// Who reads each item, with the number of the operand.
    pub readers: Vec<Vec<(Item, usize)>>,
}

fn item_of(dag: &Dag, node: NodeIndex) -> Item {
    let name = dag.node(node).name.as_deref();
    let number = name.and_then(|name| name.parse().ok());
    number.expect("every node was named, and new ones take the name of one they replace")
}

/// The passes that decide which results are written to memory.
fn kernels() -> PassList {
    #[cfg_attr(not(feature = "llvm-backend"), allow(unused_mut))]
    let mut list = PassList::default();
    #[cfg(feature = "llvm-backend")]
    crate::compilers::llvm_cpu::kernels(&mut list);
    list
}

impl Estimate {
    pub fn new(net: &Net<'_>, symbols: &Symbols) -> Result<Estimate> {
        let plain = net.applied()?;
        let mut dag = plain.clone();
        for pass in kernels().iter() {
            pass.run(&dag)?.apply(&mut dag)?;
        }
        let forecast = Forecast::new(&dag, symbols)?;
        let steps = forecast.schedule.steps.iter();
        let mut estimate = Estimate {
            arena_bytes: forecast.plan.arena_bytes,
            live: vec![0; forecast.schedule.steps.len()],
            steps: steps.map(|step| item_of(&dag, step.node)).collect(),
            buffers: Vec::new(),
            buffer_of: FxHashMap::default(),
            position: vec![None; net.len()],
            kept: FxHashSet::default(),
            readers: vec![Vec::new(); net.len()],
        };
        estimate.order(net, &plain)?;
        estimate.lay_out(net, &dag, &forecast);
        Ok(estimate)
    }

    /// The largest number of bytes that a step needs, and how many steps need so many.
    pub fn peak(&self) -> (usize, usize) {
        let peak = self.live.iter().copied().max().unwrap_or(0);
        (peak, self.live.iter().filter(|&&n| n == peak).count())
    }

    fn order(&mut self, net: &Net<'_>, plain: &Dag) -> Result<()> {
        for (at, step) in Schedule::new(plain)?.steps.iter().enumerate() {
            let item = item_of(plain, step.node);
            self.position[item] = Some(at);
            for (slot, (operand, _)) in net.operands(item).into_iter().enumerate() {
                self.readers[operand].push((item, slot));
            }
        }
        let kept = plain.kept_nodes().into_iter();
        self.kept = kept.map(|node| item_of(plain, node)).collect();
        Ok(())
    }

    fn lay_out(&mut self, net: &Net<'_>, dag: &Dag, forecast: &Forecast) {
        let schedule = &forecast.schedule;
        for (lifetime, &size) in schedule.buffers.iter().zip(&forecast.sizes) {
            let item = written(net, dag, lifetime.node);
            let bytes = size.next_multiple_of(ALIGNMENT);
            let end = lifetime.last.min(self.live.len() - 1);
            (lifetime.first..=end).for_each(|step| self.live[step] += bytes);
            self.buffer_of.entry(item).or_insert(self.buffers.len());
            self.buffers.push(Buffer {
                item,
                bytes,
                uses: vec![lifetime.first],
                last: lifetime.last,
            });
        }
        for (at, step) in schedule.steps.iter().enumerate() {
            for &operand in &step.operands {
                if let Some(Place::Arena(buffer)) = schedule.places.get(operand) {
                    let uses = &mut self.buffers[buffer].uses;
                    if uses.last() != Some(&at) {
                        uses.push(at);
                    }
                }
            }
        }
    }
}

/// What lies in a kernel's buffer: what the kernel's node was, or a factor of it that was written out.
fn written(net: &Net<'_>, dag: &Dag, node: NodeIndex) -> Item {
    let item = item_of(dag, node);
    let numel = dag.node(node).ty.numel();
    if net.dag.node(net.origin(item)).ty.numel() == numel {
        return item;
    }
    let operands = net.operands(item).into_iter().map(|operand| operand.0);
    let is_it = |&operand: &Item| {
        let of = net.dag.node(net.origin(operand));
        of.ty.numel() == numel && !matches!(of.op, Op::Input { .. })
    };
    operands.into_iter().find(is_it).unwrap_or(item)
}
