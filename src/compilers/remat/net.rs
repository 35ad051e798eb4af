//! The graph with some nodes computed again: what is tried, and what the patch is made of.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::Op;
use crate::shape::View;

/// Number of a node of the graph, or of one that is computed again.
pub(super) type Item = usize;

/// One node that is computed again.
#[derive(Clone)]
struct Again {
    of: NodeIndex,
    operands: Vec<Item>,
}

/// The nodes of a graph, some of them twice, and who reads which.
#[derive(Clone)]
pub(super) struct Net<'a> {
    pub dag: &'a Dag,
    /// The graph's own nodes; what is computed again is numbered after them.
    nodes: Vec<NodeIndex>,
    number: Vec<Item>,
    again: Vec<Again>,
    /// Operands of the graph's own nodes that are others than in the graph.
    routes: BTreeMap<(Item, usize), Item>,
}

impl<'a> Net<'a> {
    /// The graph as it is.
    pub fn new(dag: &'a Dag) -> Net<'a> {
        let nodes: Vec<NodeIndex> = dag.ids().collect();
        let mut number = vec![usize::MAX; dag.bound()];
        for (i, node) in nodes.iter().enumerate() {
            number[node.index()] = i;
        }
        Net {
            dag,
            nodes,
            number,
            again: Vec::new(),
            routes: BTreeMap::new(),
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.again.len()
    }

    /// Number of nodes that are computed again.
    pub fn n_again(&self) -> usize {
        self.again.len()
    }

    /// The number of a node of the graph.
    pub fn item(&self, node: NodeIndex) -> Item {
        self.number[node.index()]
    }

    /// The node of the graph that an item is, or is a repetition of.
    pub fn origin(&self, item: Item) -> NodeIndex {
        match item.checked_sub(self.nodes.len()) {
            None => self.nodes[item],
            Some(i) => self.again[i].of,
        }
    }

    /// The repetitions of the node that `item` is or repeats.
    pub fn repetitions(&self, item: Item) -> impl Iterator<Item = Item> + '_ {
        let of = self.origin(item);
        let all = self.again.iter().enumerate();
        all.filter(move |(_, again)| again.of == of)
            .map(|(i, _)| i + self.nodes.len())
    }

    /// What an item computes.
    pub fn op(&self, item: Item) -> &'a Op {
        &self.dag.node(self.origin(item)).op
    }

    /// The operands, with the views through which they are read.
    pub fn operands(&self, item: Item) -> Vec<(Item, &'a View)> {
        let operands = self.dag.operands(self.origin(item)).into_iter().enumerate();
        let operand = |(slot, (node, view))| {
            let operand = match item.checked_sub(self.nodes.len()) {
                Some(i) => self.again[i].operands[slot],
                None => {
                    let other = self.routes.get(&(item, slot));
                    other.copied().unwrap_or_else(|| self.item(node))
                }
            };
            (operand, view)
        };
        operands.map(operand).collect()
    }

    /// Computes `item` again, from these operands.
    pub fn repeat(&mut self, item: Item, operands: Vec<Item>) -> Item {
        let of = self.origin(item);
        self.again.push(Again { of, operands });
        self.len() - 1
    }

    /// Operand `slot` of `reader` shall be `item`.
    pub fn reroute(&mut self, reader: Item, slot: usize, item: Item) {
        match reader.checked_sub(self.nodes.len()) {
            Some(i) => self.again[i].operands[slot] = item,
            None => _ = self.routes.insert((reader, slot), item),
        }
    }

    /// What makes the graph this one, and the items of the patch's new nodes, in order.
    pub fn patch(&self) -> Result<(Patch, Vec<Item>)> {
        let (mut patch, mut order) = (Patch::new(), Vec::new());
        let mut made: FxHashMap<Item, NodeRef> = FxHashMap::default();
        let first = self.nodes.len();
        let mut open: Vec<(Item, bool)> = (first..self.len()).rev().map(|i| (i, false)).collect();
        while let Some((item, operands_are_made)) = open.pop() {
            if made.contains_key(&item) {
                continue;
            }
            let operands = self.operands(item);
            if !operands_are_made {
                open.push((item, true));
                let again = operands.iter().filter(|operand| operand.0 >= first);
                open.extend(again.map(|operand| (operand.0, false)));
                continue;
            }
            let sources = operands
                .into_iter()
                .map(|(operand, view)| (self.reference(operand, &made), view.clone()));
            let (op, origin) = (self.op(item).clone(), self.origin(item));
            made.insert(
                item,
                patch.add_late(self.dag, op, sources.collect(), origin)?,
            );
            order.push(item);
        }
        for (&(reader, slot), &item) in &self.routes {
            patch.reroute(self.nodes[reader], slot, self.reference(item, &made));
        }
        Ok((patch, order))
    }

    fn reference(&self, item: Item, made: &FxHashMap<Item, NodeRef>) -> NodeRef {
        match made.get(&item) {
            Some(&node) => node,
            None => NodeRef::Old(self.nodes[item]),
        }
    }

    /// The graph that the patch makes, in which each node's name is its item's number.
    pub fn applied(&self) -> Result<Dag> {
        let (patch, order) = self.patch()?;
        let mut dag = self.dag.clone();
        let (_, new) = patch.apply_numbered(&mut dag)?;
        for (item, &node) in self.nodes.iter().enumerate() {
            dag.set_name(node, &item.to_string());
        }
        for (item, node) in order.into_iter().zip(new) {
            dag.set_name(node, &item.to_string());
        }
        Ok(dag)
    }
}
