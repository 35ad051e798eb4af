//! Signs of windows → signs of pixels, packed once and seen in windows.
//!
//! ```text
//! %2 = pack_signs(%1 {windows of [s, 32, 8, 8], padded}) : u8[s, 64, 36]
//! %3 = unpack_signs<288>(%2) : f32[s, 64, 288]
//!
//! %1 = what it was, with channels as the last axis : f32[s, 8, 8, 32]
//! %2 = pack_signs(%1 {padded}) : u8[s, 10, 10, 4]
//! %3 = unpack_signs<32>(%2) : f32[s, 10, 10, 32], seen as windows
//! ```
//! Each number's sign was packed as often as there are windows with it. Now it is once, and a kernel of products of signs takes
//! its rows from the pixels' bytes ([`super::windows`]). What is around the image is packed with it: the sign of 0 is +1.
//!
//! Numbers that nothing else reads are computed with channels innermost, through pools and norms up to a matrix product, each
//! by the same operations in the same order: so packing reads neighbours, and vectors of these kernels are channels. What
//! others read too is written once more, in that order.
//!
//! Taken where every reader multiplies by a constant matrix of signs, whose columns are brought into the order of pixels once.
//! Not taken: matrices so wide that the bits between a pixel's last channel and its last byte cost more than they bring (few
//! channels, many rows of the matrix).

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::windows::{Windows, fine_axes};
use crate::blocks::SignMatrix;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{BinaryOp, Op, ReduceOp, SignPart};
use crate::shape::{Dims, Expr, View, numel};

/// The pass; a hit is a packing.
pub struct SignWindows;

impl Pass for SignWindows {
    fn name(&self) -> &str {
        "sign-windows"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let mut channels = Channels {
            dag,
            kept: dag.kept_nodes(),
            moved: FxHashMap::default(),
        };
        for id in dag.topological()? {
            if let Some(found) = Found::of(dag, id, &channels.kept) {
                channels.write(&mut patch, id, &found)?;
            }
        }
        Ok(patch)
    }
}

/// Signs that are packed by windows.
struct Found {
    /// What they are the signs of.
    x: NodeIndex,
    /// The image in it, with what is around; its axis of channels.
    image: View,
    axis: usize,
    /// The windows, over pixels.
    rows: View,
    /// What reads them.
    readers: Vec<NodeIndex>,
}

impl Found {
    fn of(dag: &Dag, id: NodeIndex, kept: &BTreeSet<NodeIndex>) -> Option<Found> {
        if dag.node(id).op != Op::PackSigns || kept.contains(&id) {
            return None;
        }
        let (x, view) = dag.operands(id)[0];
        if dag.is_whole(x, view) {
            return None;
        }
        let is_masked = view.layers()[0].valid.is_some();
        let (image, windows) = match view.split_layers(1).filter(|_| is_masked) {
            Some(both) => both,
            None => (View::contiguous(dag.node(x).ty.dims.clone()), view.clone()),
        };
        let axis = channel_axis(image.dims(), &windows)?;
        let pixels: Dims = order(image.rank(), axis)
            .iter()
            .map(|&axis| image.dims()[axis])
            .collect();
        let rows = in_order(&pixels, axis).compose(&windows);
        let channels = image.dims()[axis].as_usize()?;
        let found = Windows::of(&rows, rows.rank() - 1, channels)?;
        let (mut readers, mut panels) = (Vec::new(), 0);
        for (reader, _, seen) in dag.readers(id) {
            let is_unpacked = matches!(dag.node(reader).op, Op::UnpackSigns(_));
            if !is_unpacked || !dag.is_whole(id, seen) || kept.contains(&reader) {
                return None;
            }
            for (product, slot, _) in dag.readers(reader) {
                panels += matrix(dag, product, slot)?.panels();
            }
            readers.push(reader);
        }
        (panels > 0 && pays(&found, panels)).then_some(Found {
            x,
            image,
            axis,
            rows,
            readers,
        })
    }
}

/// The most numbers of a constant that is written out in each execution.
const SMALL: usize = 1 << 12;

/// Whether a node is a constant of few numbers.
fn is_small(dag: &Dag, node: NodeIndex) -> bool {
    let numbers = dag.node(node).ty.numel().as_usize();
    matches!(dag.node(node).op, Op::Input { .. }) && numbers.is_some_and(|n| n <= SMALL)
}

/// Whether more bytes of a row, one step of each panel, cost less than packing a window's numbers again.
fn pays(windows: &Windows, panels: usize) -> bool {
    let more = windows.row_bytes() - windows.columns().div_ceil(8);
    more * panels <= 2 * windows.columns()
}

/// The constant matrix of signs that a node multiplies the other operand by.
fn matrix(dag: &Dag, product: NodeIndex, slot: usize) -> Option<SignMatrix> {
    if dag.node(product).op != Op::Binary(BinaryOp::Mul) {
        return None;
    }
    let (signs, _) = dag.operands(product)[1 - slot];
    let Op::SignMatrix(matrix, SignPart::Signs(_)) = dag.node(signs).op else {
        return None;
    };
    let (bytes, _) = dag.operands(signs)[0];
    let is_state = |&(state, _): &(_, _)| {
        let source = dag.source(state);
        source.is_ok_and(|source| source.node == bytes)
    };
    let is_input = matches!(dag.node(bytes).op, Op::Input { .. });
    (is_input && !dag.assigns().iter().any(is_state)).then_some(matrix)
}

/// The axis of the image that is whole in each row: of several the longest.
fn channel_axis(dims: &[Expr], windows: &View) -> Option<usize> {
    let (axes, _) = fine_axes(windows)?;
    let columns = axes.last()?;
    let is_whole = |axis: &usize| {
        let (dim, stride) = (dims[*axis], numel(&dims[*axis + 1..]));
        columns.contains(&(dim, stride)) || (dim.is_one() && dims.len() > 1)
    };
    let all = (0..dims.len()).filter(is_whole);
    all.max_by_key(|&axis| dims[axis].as_usize())
}

/// All axes, this one as the last.
fn order(rank: usize, last: usize) -> Vec<usize> {
    let others = (0..rank).filter(|&axis| axis != last);
    others.chain([last]).collect()
}

/// What lies with an axis as the last one, seen with it where it was.
fn in_order(dims: &[Expr], axis: usize) -> View {
    let order = order(dims.len(), axis);
    let place = |axis: usize| order.iter().position(|&at| at == axis);
    let places: Vec<usize> = (0..dims.len()).map_while(place).collect();
    let view = View::contiguous(dims.iter().copied().collect::<Dims>());
    view.permute(&places).expect("each axis once")
}

/// Nodes with their channels as the last axis.
struct Channels<'a> {
    dag: &'a Dag,
    kept: BTreeSet<NodeIndex>,
    moved: FxHashMap<(NodeIndex, usize), NodeRef>,
}

impl Channels<'_> {
    fn write(&mut self, patch: &mut Patch, id: NodeIndex, found: &Found) -> Result<()> {
        let (dag, axis) = (self.dag, found.axis);
        let order = order(found.image.rank(), axis);
        let operand = match padding(&dag.node(found.x).ty.dims, &found.image) {
            Some(around) => {
                let x = self.last(patch, found.x, axis)?;
                let mut view = View::contiguous(patch.ty(dag, x).dims.clone());
                for (at, &axis) in order.iter().enumerate() {
                    let (before, after) = around[axis];
                    view = view.pad(at, before, after).expect("it was padded so");
                }
                (x, view)
            }
            None => {
                let view = found.image.permute(&order).expect("each axis once");
                let x = patch.add(dag, Op::Contiguous, vec![(NodeRef::Old(found.x), view)], id)?;
                (x, View::contiguous(patch.ty(dag, x).dims.clone()))
            }
        };
        let channels = found.image.dims()[axis].as_usize();
        let channels = channels.expect("it was found so");
        let bits = patch.add(dag, Op::PackSigns, vec![operand], id)?;
        let whole = View::contiguous(patch.ty(dag, bits).dims.clone());
        let signs = patch.add(dag, Op::UnpackSigns(channels), vec![(bits, whole)], id)?;
        for &reader in &found.readers {
            patch.replace(reader, signs, found.rows.clone());
        }
        Ok(())
    }

    /// A node with an axis as the last: computed so, or written out so.
    fn last(&mut self, patch: &mut Patch, node: NodeIndex, axis: usize) -> Result<NodeRef> {
        let rank = self.dag.node(node).ty.dims.len();
        if axis + 1 == rank {
            return Ok(NodeRef::Old(node));
        }
        if let Some(moved) = self.computed(patch, node, axis)? {
            return Ok(moved);
        }
        let view = View::contiguous(self.dag.node(node).ty.dims.clone());
        let view = view.permute(&order(rank, axis)).expect("each axis once");
        patch.add(
            self.dag,
            Op::Contiguous,
            vec![(NodeRef::Old(node), view)],
            node,
        )
    }

    /// A node computed with an axis as the last, if only one other reads it.
    fn computed(
        &mut self,
        patch: &mut Patch,
        node: NodeIndex,
        axis: usize,
    ) -> Result<Option<NodeRef>> {
        let dag = self.dag;
        if let Some(&moved) = self.moved.get(&(node, axis)) {
            return Ok(Some(moved));
        }
        if self.kept.contains(&node) || dag.readers(node).count() != 1 {
            return Ok(None);
        }
        let rank = dag.node(node).ty.dims.len();
        let (op, axis_of, order) = match &dag.node(node).op {
            op @ (Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_)) => {
                (op.clone(), axis, order(rank, axis))
            }
            Op::Reduce(kind, axes) => {
                let (source, view) = dag.operands(node)[0];
                let kept: Vec<usize> = (0..view.rank()).filter(|a| !axes.contains(a)).collect();
                let mut all: Vec<usize> = order(rank, axis).iter().map(|&a| kept[a]).collect();
                all.extend(axes.iter().copied());
                let axes = (rank..view.rank()).collect();
                let op = Op::Reduce(*kind, axes);
                let is_product = dag.node(source).op == Op::Binary(BinaryOp::Mul);
                if *kind == ReduceOp::Sum && is_product && !view.is_masked() {
                    let product = self.product(patch, source, view, (&all, rank - 1))?;
                    let moved = patch.add(dag, op, vec![product], node)?;
                    self.moved.insert((node, axis), moved);
                    return Ok(Some(moved));
                }
                if *kind != ReduceOp::Max {
                    // Other sums would be added in another order.
                    return Ok(None);
                }
                (op, kept[axis], all)
            }
            _ => return Ok(None),
        };
        let mut operands = Vec::new();
        for (source, view) in dag.operands(node) {
            operands.push(self.operand(patch, (source, view), axis_of, &order)?);
        }
        let moved = patch.add(dag, op, operands, node)?;
        self.moved.insert((node, axis), moved);
        Ok(Some(moved))
    }

    /// The product that a sum reads through a view, with its axes in another order, `channels` among them. What is around an image
    /// is written out, for then its windows are steps in memory; a small constant, with channels as the last axis.
    fn product(
        &self,
        patch: &mut Patch,
        product: NodeIndex,
        seen: &View,
        (order, channels): (&[usize], usize),
    ) -> Result<(NodeRef, View)> {
        let dag = self.dag;
        let mut factors = Vec::new();
        for (source, view) in dag.operands(product) {
            let view = view.compose(seen).permute(order).expect("each axis once");
            let is_around = view.layers()[0].valid.is_some();
            let walked = (0..view.rank()).filter(|&axis| axis != channels && view.walks(axis));
            let walked: Vec<usize> = walked.chain([channels]).collect();
            let is_last = view.walks(channels);
            let (write, back) = match view.split_layers(1).filter(|_| is_around) {
                Some(both) => both,
                None if is_small(dag, source) && is_last => {
                    view.written_out(&walked).expect("axes of the view")
                }
                None => {
                    factors.push((is_last, (NodeRef::Old(source), view)));
                    continue;
                }
            };
            let written = vec![(NodeRef::Old(source), write)];
            let written = patch.add(dag, Op::Contiguous, written, product)?;
            factors.push((is_last, (written, back)));
        }
        // The right factor's rows are what lies together in the result.
        factors.sort_by_key(|(is_last, _)| *is_last);
        let factors = factors.into_iter().map(|(_, factor)| factor).collect();
        let op = dag.node(product).op.clone();
        let product = patch.add(dag, op, factors, product)?;
        let whole = View::contiguous(patch.ty(dag, product).dims.clone());
        Ok((product, whole))
    }

    /// An operand with its axes in another order, of what has the channels that are its axis `axis` as the last axis if that
    /// can be.
    fn operand(
        &mut self,
        patch: &mut Patch,
        (source, view): (NodeIndex, &View),
        axis: usize,
        order: &[usize],
    ) -> Result<(NodeRef, View)> {
        let dims = &self.dag.node(source).ty.dims;
        let layer = view.single().filter(|layer| layer.valid.is_none());
        let walked = layer.map(|layer| (layer.dims[axis], layer.strides[axis]));
        let is_it =
            |&at: &usize| !dims[at].is_one() && walked == Some((dims[at], numel(&dims[at + 1..])));
        let own = (0..dims.len()).find(is_it).filter(|at| at + 1 < dims.len());
        let permuted = |view: &View| view.permute(order).expect("each axis once");
        if let Some(own) = own
            && let Some(moved) = self.computed(patch, source, own)?
        {
            let lies = patch.ty(self.dag, moved).dims.clone();
            return Ok((moved, permuted(&in_order(&lies, own).compose(view))));
        }
        Ok((NodeRef::Old(source), permuted(view)))
    }
}

/// How much is around a buffer of these sizes in a view, if that is all that it adds.
fn padding(dims: &[Expr], view: &View) -> Option<Vec<(Expr, Expr)>> {
    let layer = view
        .single()
        .filter(|layer| layer.dims.len() == dims.len())?;
    let around: Vec<(Expr, Expr)> = (0..dims.len())
        .map(|axis| {
            let (low, high) = layer.range(axis);
            (low, layer.dims[axis] - high)
        })
        .collect();
    let mut padded = View::contiguous(dims.iter().copied().collect::<Dims>());
    for (axis, &(before, after)) in around.iter().enumerate() {
        padded = padded.pad(axis, before, after).ok()?;
    }
    (padded == *view).then_some(around)
}
