//! A sum of shifted views of one product → one product of windows: the gradient of a convolution by its input.
//!
//! ```text
//! %2 = mul(%dy {[n, y, x, c, i, j, o]}, %w {..})
//! %3 = sum_reduce<o>(%2) : f32[n, y, x, c, i, j]          %2 = mul(%dy {windows of dy with zeros around it}, %w {reversed})
//! %4 = add(%3 {moved by 0, 0}, %3 {moved by 0, 1})   →    %3 = sum_reduce<i, j, o>(%2) : f32[n, c, y', x']
//! %5 = add(%4, %3 {moved by 1, 0}) ..
//! ```
//! An element of the image is in several windows, and its gradient is the sum over these. Written out, the product is as many times as large as a
//! window has elements, and the sum reads it at distant places. What a term reads in a window that is not there is zero;
//! here it is a zero of `dy` times a weight, which makes a difference for weights that are not finite.
//!
//! Not touched: sums over some of the windows' elements only, windows that lie apart (strides), and what would not become
//! a product of [`Windows`]: with many channels the product is packed, and zeros would be multiplied for nothing.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::Windows;
use crate::compilers::Pass;
use crate::compilers::llvm_cpu::contraction::contraction_of;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{AxisSet, BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp, TensorType};
use crate::shape::view::Layer;
use crate::shape::{Dims, Expr, View};

/// The fewest and the most terms of a sum.
const TERMS: std::ops::RangeInclusive<usize> = 4..=256;

/// The pass.
pub struct Shifted;

impl Pass for Shifted {
    fn name(&self) -> &str {
        "shifted"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let kept = dag.kept_nodes();
        let mut inner: FxHashSet<NodeIndex> = FxHashSet::default();
        for id in dag.topological()?.into_iter().rev() {
            if inner.contains(&id) || !is_sum(dag, id) {
                continue;
            }
            let mut found = Found::default();
            found.collect(dag, id, &kept);
            if let Some(product) = product_of(dag, &found.terms) {
                inner.extend(found.sums);
                product.replace(dag, &mut patch, id)?;
            }
        }
        Ok(patch)
    }
}

fn is_sum(dag: &Dag, id: NodeIndex) -> bool {
    let node = dag.node(id);
    node.op == Op::Binary(BinaryOp::Add) && node.ty.dtype == DType::F32
}

/// A sum of sums.
#[derive(Default)]
struct Found<'a> {
    terms: Vec<(NodeIndex, &'a View)>,
    /// The sums inside, which nothing else reads.
    sums: Vec<NodeIndex>,
}

impl<'a> Found<'a> {
    /// Adds what a sum is made of; some of it is left out where that are too many terms for a product.
    fn collect(&mut self, dag: &'a Dag, id: NodeIndex, kept: &BTreeSet<NodeIndex>) {
        for (operand, view) in dag.operands(id) {
            if self.terms.len().max(self.sums.len()) > *TERMS.end() {
                return;
            }
            let is_inner = is_sum(dag, operand)
                && dag.is_whole(operand, view)
                && dag.node(operand).ty.dims == dag.node(id).ty.dims
                && dag.readers(operand).count() == 1
                && !kept.contains(&operand);
            if is_inner {
                self.sums.push(operand);
                self.collect(dag, operand, kept);
            } else {
                self.terms.push((operand, view));
            }
        }
    }
}

/// The layer that moves a term, below one that only reshapes.
fn mover(view: &View) -> Option<Layer> {
    match view.split_layers(view.layers().len() - 1) {
        Some((below, top)) if top.is_identity(below.numel()) => below.single().cloned(),
        Some(_) => None,
        None => view.single().cloned(),
    }
}

fn numbers<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Option<Vec<i64>> {
    exprs.into_iter().map(|expr| expr.as_const()).collect()
}

/// One axis of windows: the axis of the product that numbers the elements of a window, the one that numbers windows, and
/// how far elements are apart.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Axis {
    element: usize,
    window: usize,
    distance: i64,
}

/// How terms walk the product.
struct Walk {
    /// For each axis of the sum the product's axis, if it is longer than 1.
    place: Vec<Option<usize>>,
    /// Sizes of the sum's axes.
    sizes: Vec<i64>,
    windows: Vec<Axis>,
}

/// Where a term begins: the element of the window, and the coordinates of the sum.
struct Term {
    element: Vec<i64>,
    low: Vec<i64>,
}

/// A term of a sum over windows, if all of the windows' elements are in it.
fn term(layer: &Layer, place: &[Option<usize>], dims: &[i64]) -> Option<Term> {
    let ranges: Vec<(Expr, Expr)> = (0..place.len()).map(|axis| layer.range(axis)).collect();
    let low = numbers(ranges.iter().map(|range| &range.0))?;
    let high = numbers(ranges.iter().map(|range| &range.1))?;
    let strides = numbers(&layer.strides)?;
    let moved = low.iter().zip(&strides).map(|(low, stride)| low * stride);
    let mut rest = layer.offset.as_const()? + moved.sum::<i64>();
    let mut element = vec![0; dims.len()];
    for (axis, &size) in dims.iter().enumerate().rev() {
        (rest, element[axis]) = (rest.div_euclid(size), rest.rem_euclid(size));
    }
    for (axis, walked) in place.iter().enumerate() {
        let whole = walked.map_or(1, |walked| dims[walked]);
        let starts = walked.is_none_or(|walked| element[walked] == 0);
        if !starts || high[axis] - low[axis] != whole {
            return None;
        }
    }
    (rest == 0).then_some(Term { element, low })
}

/// The axis of a row-major product for each axis of a layer.
fn places(layer: &Layer, dims: &[i64]) -> Option<Vec<Option<usize>>> {
    let stride_of = |axis: usize| dims[axis + 1..].iter().product::<i64>();
    let sizes = numbers(&layer.dims)?;
    let place = |(&stride, &size): (&i64, &i64)| {
        let walks = |&axis: &usize| dims[axis] > 1 && stride_of(axis) == stride;
        match size {
            1 => Some(None),
            _ => (0..dims.len()).find(walks).map(Some),
        }
    };
    numbers(&layer.strides)?
        .iter()
        .zip(&sizes)
        .map(place)
        .collect()
}

/// How the terms of a sum, all of one product of these sizes, walk it.
fn walk_of(layers: &[Layer], dims: &[i64]) -> Option<Walk> {
    let first = &layers[0];
    let alike = |layer: &Layer| layer.dims == first.dims && layer.strides == first.strides;
    if !layers.iter().all(alike) {
        return None;
    }
    let place = places(first, dims)?;
    let terms: Option<Vec<Term>> = layers.iter().map(|l| term(l, &place, dims)).collect();
    let terms = terms?;
    let elements: FxHashSet<&[i64]> = terms.iter().map(|term| &term.element[..]).collect();
    let walked = |axis: &usize| place.contains(&Some(*axis));
    let inside: Vec<usize> = (0..dims.len())
        .filter(|axis| !walked(axis) && dims[*axis] > 1)
        .collect();
    let all: i64 = inside.iter().map(|&axis| dims[axis]).product();
    if elements.len() != terms.len() || all != terms.len() as i64 {
        return None;
    }
    let mut windows = Vec::new();
    for &element in &inside {
        let is_next = |term: &&Term| {
            let at = |axis: usize| i64::from(axis == element);
            (0..dims.len()).all(|axis| term.element[axis] == at(axis))
        };
        let next = terms.iter().find(is_next)?;
        let axis = next.low.iter().position(|&low| low > 0)?;
        let window = place[axis]?;
        if windows.iter().any(|w: &Axis| w.window == window) {
            return None;
        }
        windows.push(Axis {
            element,
            window,
            distance: next.low[axis],
        });
    }
    let sizes = numbers(&first.dims)?;
    let walk = Walk {
        place,
        sizes,
        windows,
    };
    terms
        .iter()
        .all(|term| walk.explains(term, dims))
        .then_some(walk)
}

impl Walk {
    fn window(&self, place: Option<usize>) -> Option<&Axis> {
        self.windows.iter().find(|axis| place == Some(axis.window))
    }

    /// Whether a term begins where its element of the window lies, and the sum is as large as all windows.
    fn explains(&self, term: &Term, dims: &[i64]) -> bool {
        (0..self.place.len()).all(|axis| {
            let inside = self.place[axis].map_or(1, |place| dims[place]);
            let (low, reach) = match self.window(self.place[axis]) {
                Some(w) => (
                    term.element[w.element] * w.distance,
                    (dims[w.element] - 1) * w.distance,
                ),
                None => (0, 0),
            };
            term.low[axis] == low && self.sizes[axis] == inside + reach
        })
    }

    /// A factor of the product, seen over the product's axes and then the summed ones, as one of the new product's: seen
    /// over the sum's axes, the summed axes, and the elements of a window from the last to the first.
    fn factor(&self, view: &View, dims: &[i64]) -> Option<View> {
        let mut axes: Vec<usize> = (0..view.rank()).filter(|&axis| view.walks(axis)).collect();
        // Neighbours stay neighbours where the factor is written out.
        if let Some(layer) = view.single() {
            axes.sort_by_key(|&axis| std::cmp::Reverse(layer.strides[axis].as_const()));
        }
        let (mut seen, _) = view.written_out(&axes).ok()?;
        let at = |axes: &[usize], axis: usize| axes.iter().position(|&walked| walked == axis);
        // All zeros first: then the windows are one layer.
        for w in &self.windows {
            let reach = (dims[w.element] - 1) * w.distance;
            seen = match (at(&axes, w.window), at(&axes, w.element)) {
                (Some(_), Some(_)) => return None,
                (Some(window), None) => seen.pad(window, reach, reach).ok()?,
                (None, Some(element)) => seen.flip(element).ok()?,
                (None, None) => seen,
            };
        }
        for w in &self.windows {
            if let Some(window) = at(&axes, w.window) {
                seen = seen.unfold(window, dims[w.element], 1, w.distance).ok()?;
                axes.push(w.element);
            }
        }
        let result = self.axes(view, dims);
        let order = result.iter().filter_map(|(axis, _)| at(&axes, (*axis)?));
        seen = seen.permute(&order.collect::<Vec<usize>>()).ok()?;
        for (i, (axis, size)) in result.into_iter().enumerate() {
            if axis.is_none_or(|axis| !axes.contains(&axis)) {
                seen = seen.insert(i, size).ok()?;
            }
        }
        Some(seen)
    }

    /// The axes of the new product: which of the old one's they come from, and their sizes.
    fn axes(&self, view: &View, dims: &[i64]) -> Vec<(Option<usize>, Expr)> {
        let kept = self.place.iter().copied().zip(&self.sizes);
        let kept = kept.map(|(place, &size)| (place, Expr::from(size)));
        let elements = self.windows.iter().map(|w| w.element);
        let elements = elements.map(|element| (Some(element), Expr::from(dims[element])));
        let summed = dims.len()..view.rank();
        let summed = summed.map(|axis| (Some(axis), view.dims()[axis]));
        kept.chain(summed).chain(elements).collect()
    }
}

/// The product that takes the place of a sum.
struct Product {
    factors: [(NodeIndex, View); 2],
    /// Axes of the product that stay.
    n_kept: usize,
}

fn product_of(dag: &Dag, terms: &[(NodeIndex, &View)]) -> Option<Product> {
    let &(source, _) = terms.first()?;
    let same = terms.iter().all(|term| term.0 == source);
    if !TERMS.contains(&terms.len()) || !same || dag.readers(source).count() != terms.len() {
        return None;
    }
    let Op::Reduce(ReduceOp::Sum, axes) = &dag.node(source).op else {
        return None;
    };
    let (mul, seen) = dag.operands(source)[0];
    if dag.node(mul).op != Op::Binary(BinaryOp::Mul) {
        return None;
    }
    let dims = numbers(&dag.node(source).ty.dims)?;
    let layers: Option<Vec<Layer>> = terms.iter().map(|term| mover(term.1)).collect();
    let walk = walk_of(&layers?, &dims)?;
    let kept = (0..seen.rank()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let over_axes = |(node, view): (NodeIndex, &View)| {
        let view = view.compose(seen).permute(&order).ok()?;
        Some((node, view))
    };
    let operands = dag.operands(mul).into_iter().map(over_axes);
    let operands: Vec<(NodeIndex, View)> = operands.collect::<Option<_>>()?;
    // Windows that are not there count as zeros, which a factor has around it.
    let is_bounded = |w: &Axis| operands.iter().any(|(_, view)| view.walks(w.window));
    if !walk.windows.iter().all(is_bounded) {
        return None;
    }
    let factor = |(node, view): (NodeIndex, View)| Some((node, walk.factor(&view, &dims)?));
    let factors: Option<Vec<_>> = operands.into_iter().map(factor).collect();
    let product = Product {
        factors: <[_; 2]>::try_from(factors?).ok()?,
        n_kept: walk.sizes.len(),
    };
    product.is_windows(dag).then_some(product)
}

impl Product {
    fn dims(&self) -> Dims {
        self.factors[0].1.dims().iter().copied().collect()
    }

    fn kept(&self) -> Dims {
        self.dims()[..self.n_kept].iter().copied().collect()
    }

    fn sum(&self) -> Op {
        let axes: AxisSet = (self.n_kept..self.dims().len()).collect();
        Op::Reduce(ReduceOp::Sum, axes)
    }

    /// Whether it is computed where its image lies.
    fn is_windows(&self, dag: &Dag) -> bool {
        let factor = |i: usize| (KernelInput::Operand(i), self.factors[i].1.clone());
        let steps = vec![
            KernelStep {
                op: Op::Binary(BinaryOp::Mul),
                inputs: vec![factor(0), factor(1)],
                ty: TensorType::new(self.dims(), DType::F32),
            },
            KernelStep {
                op: self.sum(),
                inputs: vec![(KernelInput::Step(0), View::contiguous(self.dims()))],
                ty: TensorType::new(self.kept(), DType::F32),
            },
        ];
        let operands = self
            .factors
            .iter()
            .map(|(node, _)| dag.node(*node).ty.clone());
        let kernel = Kernel::new("contraction".into(), steps, operands.collect());
        contraction_of(&kernel).is_some_and(|product| Windows::of(&product).is_some())
    }

    fn replace(self, dag: &Dag, patch: &mut Patch, id: NodeIndex) -> Result<()> {
        let (dims, sum) = (self.dims(), self.sum());
        let flat = View::contiguous(self.kept());
        let view = flat.reshape(dag.node(id).ty.dims.clone());
        let view = view.map_err(|why| crate::error::Error::msg(why.to_string()))?;
        let factors = self.factors.map(|(node, view)| (NodeRef::Old(node), view));
        let mul = patch.add(dag, Op::Binary(BinaryOp::Mul), factors.into(), id)?;
        let seen = View::contiguous(dims);
        let sum = patch.add(dag, sum, vec![(mul, seen)], id)?;
        patch.replace(id, sum, view);
        Ok(())
    }
}
