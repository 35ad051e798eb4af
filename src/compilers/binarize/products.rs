//! Products with weights of signs → products of signs, times scales.

use super::layers::Product;
use super::site::{Operand, Site};
use super::{Chosen, SignActivations};
use crate::blocks::SignMatrix;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{
    ActivationScheme, BinaryOp, ConstantValue, Op, PlanePart, Planes, ReduceOp, SignPart,
};
use crate::shape::View;

/// The pass; a hit is a product.
pub struct SignFactors {
    chosen: Chosen,
}

impl SignFactors {
    pub(super) fn new(chosen: Chosen) -> SignFactors {
        SignFactors { chosen }
    }
}

impl Pass for SignFactors {
    fn name(&self) -> &str {
        "sign-factors"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let chosen = self
            .chosen
            .lock()
            .expect("nothing panics while it is locked");
        for mul in dag.topological()? {
            if dag.node(mul).op != Op::Binary(BinaryOp::Mul) {
                continue;
            }
            for (slot, (node, view)) in dag.operands(mul).into_iter().enumerate() {
                let Some((bytes, matrix)) = numbers(dag, node) else {
                    continue;
                };
                let Op::Input { id, .. } = dag.node(bytes).op else {
                    continue;
                };
                let sizes = (matrix.rows(), matrix.columns());
                let products = Product::all_of(dag, mul, (slot, view), sizes);
                for product in products.into_iter().flatten() {
                    let rewrite = Rewrite {
                        site: Site {
                            dag,
                            at: product.sum,
                        },
                        product,
                        bytes,
                        matrix,
                    };
                    match chosen.get(&id) {
                        None | Some(SignActivations::Kept) => {}
                        Some(activations) => rewrite.write(&mut patch, *activations)?,
                    }
                }
            }
        }
        Ok(patch)
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

/// The input and the layout of the signs that a node is the numbers of, perhaps by way of a narrower format.
fn numbers(dag: &Dag, node: NodeIndex) -> Option<(NodeIndex, SignMatrix)> {
    let (source, view) = *dag.operands(node).first()?;
    match dag.node(node).op {
        Op::SignMatrix(matrix, SignPart::Numbers) => Some((source, matrix)),
        Op::Cast(_) if dag.is_whole(source, view) => numbers(dag, source),
        _ => None,
    }
}

/// One product that is being written.
struct Rewrite<'a> {
    site: Site<'a>,
    product: Product,
    /// The input with the signs.
    bytes: NodeIndex,
    matrix: SignMatrix,
}

impl Rewrite<'_> {
    fn write(&self, patch: &mut Patch, activations: SignActivations) -> Result<()> {
        let Product { sum, k, .. } = self.product;
        let dag = self.site.dag;
        let (x, view) = dag.operands(self.product.mul)[1 - self.product.weight];
        // A sign has no size to scale by.
        let is_sign = binary_sign(dag, x);
        let activations = match is_sign {
            true => SignActivations::Signs,
            false => activations,
        };
        // Signs of signs are those of the numbers themselves, which then need not be written.
        let (x, view) = match signed(dag, x) {
            Some((x, seen)) => (x, seen.compose(view)),
            None => (levels(dag, x).unwrap_or(x), view.clone()),
        };
        let mut walked: Vec<usize> = (0..view.rank())
            .filter(|&axis| axis != k && view.walks(axis))
            .collect();
        let kept: Vec<usize> = walked
            .iter()
            .map(|&axis| axis - usize::from(axis > k))
            .collect();
        walked.push(k);
        let (rows, back) = view.written_out(&walked).expect("axes of the view");
        // Where it is said already what is lost, rounding again would be a little different.
        let is_rounded = !is_sign && rounded(dag, x).is_some_and(|is| is.scheme().is_some());
        let planes = match is_rounded {
            true => self.before_rounding(x, &rows),
            false => {
                let planes = activations.scheme().and_then(|scheme| scheme.planes());
                planes.map(|planes| (planes, (NodeRef::Old(x), rows.clone())))
            }
        };
        let (factor, size) = match planes {
            Some((planes, rows)) => self.by_planes(patch, planes, (rows, back))?,
            None if is_rounded => ((NodeRef::Old(x), view.clone()), None),
            None => {
                let rows = (NodeRef::Old(x), rows);
                self.by_numbers(patch, (rows, back), activations)?
            }
        };
        let mut out = self.terms(patch, factor)?;
        if let Some(size) = size {
            let size = (size, self.over_result(patch, size, &kept));
            let whole = self.site.whole(patch, out);
            out = self
                .site
                .add(patch, Op::Binary(BinaryOp::Mul), vec![whole, size])?;
        }
        patch.replace_with(self.site.dag, sum, out);
        Ok(())
    }

    /// Levels of rows, and the scales that their products are multiplied by then.
    fn by_planes(
        &self,
        patch: &mut Patch,
        planes: Planes,
        (rows, back): (Operand, View),
    ) -> Result<(Operand, Option<NodeRef>)> {
        let bytes = self.site.add(patch, Op::PackPlanes(planes), vec![rows])?;
        let bytes = self.site.whole(patch, bytes);
        let mut part = |part| {
            let op = Op::UnpackPlanes(self.matrix.columns(), planes, part);
            self.site.add(patch, op, vec![bytes.clone()])
        };
        let levels = part(PlanePart::Levels)?;
        Ok(((levels, back), Some(part(PlanePart::Scales)?)))
    }

    /// What rows become that are no planes, and what their products are multiplied by then.
    fn by_numbers(
        &self,
        patch: &mut Patch,
        (rows, back): (Operand, View),
        activations: SignActivations,
    ) -> Result<(Operand, Option<NodeRef>)> {
        let columns = self.matrix.columns();
        if activations == SignActivations::Bytes {
            let op = Op::FakeQuantize(ActivationScheme::A8Tok);
            return Ok(((self.site.add(patch, op, vec![rows])?, back), None));
        }
        let bits = self.site.add(patch, Op::PackSigns, vec![rows.clone()])?;
        let bits = self.site.whole(patch, bits);
        let signs = self.site.add(patch, Op::UnpackSigns(columns), vec![bits])?;
        let size = match activations {
            SignActivations::ScaledSigns => Some(self.site.mean_magnitude(patch, rows, columns)?),
            _ => None,
        };
        Ok(((signs, back), size))
    }

    /// What a node rounds to levels of a few bits, if these rows are its own.
    fn before_rounding(&self, x: NodeIndex, rows: &View) -> Option<(Planes, Operand)> {
        let dag = self.site.dag;
        let Op::FakeQuantize(scheme) = dag.node(x).op else {
            return None;
        };
        let whole = rows.dims()[..] == dag.node(x).ty.dims[..] && dag.is_whole(x, rows);
        let (source, view) = dag.operands(x)[0];
        let planes = scheme.planes().filter(|_| whole)?;
        Some((planes, (NodeRef::Old(source), view.clone())))
    }

    /// A node whose axes are these ones of the result, repeated along the others.
    fn over_result(&self, patch: &Patch, node: NodeRef, axes: &[usize]) -> View {
        let mut view = self.site.whole(patch, node).1;
        let dims = &self.site.dag.node(self.product.sum).ty.dims;
        for (axis, dim) in dims.iter().enumerate() {
            if !axes.contains(&axis) {
                view = view.insert(axis, *dim).expect("an axis of the result");
            }
        }
        view
    }

    /// For each base the product of signs, times scales; all of them added.
    fn terms(&self, patch: &mut Patch, (factor, back): Operand) -> Result<NodeRef> {
        let Product {
            weight, n, k, mul, ..
        } = self.product;
        let (_, seen) = self.site.dag.operands(mul)[weight];
        let axes = [k].into_iter().collect();
        let reduce = Op::Reduce(ReduceOp::Sum, axes);
        let bytes = (
            NodeRef::Old(self.bytes),
            View::contiguous(self.site.dag.node(self.bytes).ty.dims.clone()),
        );
        let part = |part| Op::SignMatrix(self.matrix, part);
        let mut out = None;
        for base in 0..self.matrix.bases() {
            let signs = self
                .site
                .add(patch, part(SignPart::Signs(base)), vec![bytes.clone()])?;
            let mut operands = vec![(factor, back.clone()); 2];
            operands[weight] = (signs, seen.clone());
            let products = self.site.add(patch, Op::Binary(BinaryOp::Mul), operands)?;
            let products = self.site.whole(patch, products);
            let sum = self.site.add(patch, reduce.clone(), vec![products])?;
            let scales = self
                .site
                .add(patch, part(SignPart::Scales(base)), vec![bytes.clone()])?;
            let scales = (
                scales,
                self.over_result(patch, scales, &[n - usize::from(n > k)]),
            );
            let operands = vec![self.site.whole(patch, sum), scales];
            let term = self.site.add(patch, Op::Binary(BinaryOp::Mul), operands)?;
            out = Some(match out {
                None => term,
                Some(before) => {
                    let both = [before, term].map(|node| self.site.whole(patch, node));
                    self.site
                        .add(patch, Op::Binary(BinaryOp::Add), both.to_vec())?
                }
            });
        }
        Ok(out.expect("there is a base"))
    }
}

/// What a node's numbers are rounded to already, if they are.
pub(super) fn rounded(dag: &Dag, node: NodeIndex) -> Option<SignActivations> {
    if let Some(levels) = levels(dag, node) {
        let planes = |is: &SignActivations| is.scheme().and_then(|scheme| scheme.planes());
        let is_it = |is: &SignActivations| match dag.node(levels).op {
            Op::UnpackPlanes(_, of, _) => planes(is) == Some(of),
            _ => false,
        };
        return SignActivations::ALL.into_iter().find(is_it);
    }
    match &dag.node(node).op {
        Op::FakeQuantize(scheme) => SignActivations::of_scheme(*scheme),
        _ => binary_sign(dag, node).then_some(SignActivations::Signs),
    }
}

/// The levels that a node is, element by element, without what is only there for gradients.
fn levels(dag: &Dag, node: NodeIndex) -> Option<NodeIndex> {
    match &dag.node(node).op {
        Op::UnpackPlanes(_, _, PlanePart::Levels) => Some(node),
        Op::StraightThrough => {
            let (value, seen) = dag.operands(node)[0];
            levels(dag, value).filter(|_| dag.is_whole(value, seen))
        }
        _ => None,
    }
}

/// The `x` of which a node is `where(x < 0, -1, 1)`, if that is what it is, and the view of it: around it, in padding, there is 0,
/// whose sign is 1 wherever it is taken.
fn signed(dag: &Dag, node: NodeIndex) -> Option<(NodeIndex, View)> {
    if !binary_sign(dag, node) {
        return None;
    }
    let operands = dag.operands(node);
    if dag.node(node).op == Op::StraightThrough {
        let (value, seen) = operands[0];
        return signed(dag, value).filter(|_| dag.is_whole(value, seen));
    }
    let (condition, seen) = operands[0];
    let [(x, view), (limit, _)] = dag.operands(condition)[..] else {
        return None;
    };
    let same = dag.node(x).ty.dtype == dag.node(node).ty.dtype;
    let fits = same && dag.is_whole(condition, seen);
    (fits && is_literal(dag, limit, 0.0)).then(|| (x, view.clone()))
}

/// Whether a node is this number.
fn is_literal(dag: &Dag, node: NodeIndex, value: f64) -> bool {
    matches!(&dag.node(node).op, Op::Constant(ConstantValue::Literal(literal)) if literal.to_array().to_f64() == [value])
}

/// Whether a node is `where(x < 0, -1, 1)`.
fn binary_sign(dag: &Dag, node: NodeIndex) -> bool {
    let operands = dag.operands(node);
    let is = |at: usize, value| is_literal(dag, operands[at].0, value);
    match &dag.node(node).op {
        Op::Select => {
            let (condition, _) = operands[0];
            let is_below = dag.node(condition).op == Op::Binary(BinaryOp::LessThan);
            is_below && is(1, -1.0) && is(2, 1.0)
        }
        Op::StraightThrough => binary_sign(dag, operands[0].0),
        _ => false,
    }
}
