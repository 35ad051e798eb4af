//! Before/after files of passes, see `support/filetest.rs`.

#[path = "support/filetest.rs"]
mod filetest;

use brain_blitz::compilers::Pass;
use brain_blitz::graph::{Dag, NodeRef, Patch};
use brain_blitz::op::{Op, UnaryOp};

/// `recip(recip(x))` → `x`: shows how a pass is tested with files.
struct DoubleRecip;

impl Pass for DoubleRecip {
    fn name(&self) -> &str {
        "double-recip"
    }

    fn run(&self, dag: &Dag) -> brain_blitz::Result<Patch> {
        let recip = Op::Unary(UnaryOp::Recip);
        let mut patch = Patch::new();
        for outer in dag.ids().filter(|&id| dag.node(id).op == recip) {
            let (inner, outer_view) = dag.operands(outer)[0];
            if dag.node(inner).op == recip {
                let (x, inner_view) = dag.operands(inner)[0];
                patch.replace(outer, NodeRef::Old(x), inner_view.compose(outer_view));
            }
        }
        Ok(patch)
    }
}

#[test]
fn double_recip() {
    filetest::check("double-recip", || {
        filetest::Single(|| Box::new(DoubleRecip) as Box<dyn Pass>)
    });
}

#[cfg(feature = "llvm-backend")]
mod llvm_cpu {
    use brain_blitz::compilers::llvm_cpu::{
        attention, blocks, contraction, epilogue, fusion, layout, materialize,
    };
    use brain_blitz::compilers::{Pass, Remat, forget_gradients};

    use super::filetest;

    #[test]
    fn forget_gradients() {
        filetest::check("forget-gradients", || {
            filetest::Single(|| Box::new(forget_gradients::ForgetGradients) as Box<dyn Pass>)
        });
    }

    #[test]
    fn materialize() {
        filetest::check("materialize", || {
            filetest::Single(|| Box::new(materialize::Materialize) as Box<dyn Pass>)
        });
    }

    #[test]
    fn contraction() {
        filetest::check("contraction", || {
            filetest::Single(|| Box::new(contraction::ContractionPass) as Box<dyn Pass>)
        });
    }

    #[test]
    fn joint_products() {
        filetest::check("joint-products", || {
            filetest::Single(|| Box::new(blocks::joint::JointProducts) as Box<dyn Pass>)
        });
    }

    #[test]
    fn attention() {
        filetest::check("attention", || {
            filetest::Single(|| Box::new(attention::Attention) as Box<dyn Pass>)
        });
    }

    #[test]
    fn epilogue() {
        filetest::check("epilogue", || {
            filetest::Single(|| Box::new(epilogue::Epilogue) as Box<dyn Pass>)
        });
    }

    #[test]
    fn layout() {
        filetest::check("layout", || {
            filetest::Single(|| Box::new(layout::Layout) as Box<dyn Pass>)
        });
    }

    #[test]
    fn remat() {
        filetest::check("remat", || Remat::new(2 * 4096));
    }

    #[test]
    fn fusion() {
        filetest::check("fusion", || {
            filetest::Single(|| Box::new(fusion::Fusion) as Box<dyn Pass>)
        });
    }
}
