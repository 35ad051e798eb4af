//! Windows over an image with zeros around it → windows over the image with its zeros, written out.
//!
//! ```text
//! %2 = mul(%w, %x {windows <- padded})            %2 = contiguous(%x {padded})
//! %3 = sum_reduce<..>(%2)                    →    %3 = mul(%w, %2 {windows})
//!                                                 %4 = sum_reduce<..>(%3)
//! ```
//! A window sees each element several times, and would ask each time whether it is padding. A convolution and the
//! gradient of its weights read the same image, whose copies become one.
//!
//! Not touched: products that are not computed where the image lies (see [`Windows`]), and images of which much more is
//! padding than not.

use super::Windows;
use crate::compilers::Pass;
use crate::compilers::llvm_cpu::contraction::{candidate, contraction_of, write_factors};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Patch};
use crate::shape::View;

/// How many times as many elements an image may have with its zeros.
const MOST: i64 = 4;

/// The pass.
pub struct Border;

impl Pass for Border {
    fn name(&self) -> &str {
        "border"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let is_windows = |(kernel, _): &(_, _)| {
                contraction_of(kernel).is_some_and(|product| Windows::of(&product).is_some())
            };
            if candidate(dag, id).filter(is_windows).is_none() {
                continue;
            }
            write_factors(&mut patch, dag, id, |factor, view| {
                padded(dag, factor, view)
            })?;
        }
        Ok(patch)
    }
}

/// For windows over padding: the view of the image with its zeros, and that of the windows over it.
fn padded(dag: &Dag, factor: NodeIndex, view: &View) -> Option<(View, View)> {
    let node = dag.node(factor);
    let (below, top) = view.split_layers(view.layers().len() - 1)?;
    if node.ty.dtype != DType::F32 || !below.is_masked() || top.is_masked() {
        return None;
    }
    let [all, written, inside] =
        [top.numel(), below.numel(), node.ty.numel()].map(|size| size.as_const());
    let (all, written, inside) = (all?, written?, inside?);
    (written <= MOST * inside && written < all).then_some((below, top))
}
