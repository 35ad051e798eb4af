//! A compiler of one's own: a pass that the library does not have, in the pipeline beside those that it has.
//!
//! `cargo run --example custom_compiler`
//!
//! The pass replaces `exp(a) * exp(b)` by `exp(a + b)`: one expensive operation less. That is not exact (it rounds elsewhere
//! and overflows later), so the library leaves it to its users.

use brain_blitz::compilers::{Compiler, Pass, PassList, Report};
use brain_blitz::graph::{Dag, NodeIndex, NodeRef, Patch};
use brain_blitz::op::{BinaryOp, Op, UnaryOp};
use brain_blitz::prelude::*;

/// `exp2(a) * exp2(b)` → `exp2(a + b)`, where nothing else reads the factors.
struct ProductOfPowers;

/// What an `Exp2` node reads, if `id` is one that only its product needs.
fn exponent(dag: &Dag, id: NodeIndex) -> Option<(NodeIndex, &brain_blitz::shape::View)> {
    let only_here = dag.readers(id).count() == 1 && !dag.kept_nodes().contains(&id);
    let is_power = dag.node(id).op == Op::Unary(UnaryOp::Exp2);
    (only_here && is_power).then(|| dag.operands(id)[0])
}

impl Pass for ProductOfPowers {
    fn name(&self) -> &str {
        "product-of-powers"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for product in dag.topological()? {
            if dag.node(product).op != Op::Binary(BinaryOp::Mul) {
                continue;
            }
            // A factor may be seen through a view (broadcast, transposed): the exponent is then seen through it too.
            let mut exponents = Vec::new();
            for (factor, outer) in dag.operands(product) {
                let Some((source, inner)) = exponent(dag, factor) else {
                    break;
                };
                exponents.push((NodeRef::Old(source), inner.compose(outer)));
            }
            if exponents.len() < 2 {
                continue;
            }
            let whole = brain_blitz::shape::View::contiguous(dag.node(product).ty.dims.clone());
            let sum = patch.add(dag, Op::Binary(BinaryOp::Add), exponents, product)?;
            let power = patch.add(dag, Op::Unary(UnaryOp::Exp2), vec![(sum, whole)], product)?;
            patch.replace_with(dag, product, power);
        }
        Ok(patch)
    }
}

/// The pass as a compiler, so that it composes with others as a tuple.
#[derive(Default)]
struct FewerPowers;

impl Compiler for FewerPowers {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(ProductOfPowers);
    }
}

fn main() {
    let mut cx = Graph::new();
    let a = cx
        .input((2, 3), DType::F32)
        .set([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    let b = cx
        .input((2, 3), DType::F32)
        .set([[1.0, 1.0, 1.0], [-1.0, -2.0, -3.0]]);
    let product = (a.exp2() * b.exp2()).retrieve();

    let report = cx.compile(<(Generic, FewerPowers, LlvmCpu)>::default(), ());
    print!("{report}");
    assert_eq!(report.hits("product-of-powers"), 1, "the pass fired");

    cx.execute();
    println!("{product:?}");
    assert_eq!(product.data(), [2.0, 4.0, 8.0, 4.0, 4.0, 4.0]);
    cx.display();
}
