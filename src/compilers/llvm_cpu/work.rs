//! What a kernel is compiled as: loops, products, or what works on blocks and signs.
//!
//! [`super::codegen`] finds it in a kernel's steps, [`super::make`] makes code of it. Two kernels whose [`Identity`] is the
//! same share their code.

use super::approx::approximate;
use super::attention::{From, Parts};
use super::binary::{ir::SignProduct, rows::SignRows};
use super::blocks::{decode::BlockRows, ir::BlockProduct};
use super::epilogue;
use super::gemm::ir::Contraction;
use super::ir::Nest;
use super::windows::Windows;
use crate::compilers::Math;

/// The parts of a kernel that are compiled.
#[derive(Clone)]
pub(super) enum Work {
    Loops(Nest),
    /// A product with block weights.
    Blocks(Box<BlockProduct>),
    /// Blocks that are decoded.
    Decode(Box<BlockRows>),
    /// A product of signs.
    Signs(Box<SignProduct>),
    /// Signs that are packed or decoded.
    SignRows(Box<SignRows>),
    /// A matrix product, and loops for the shapes where packing does not pay, unless it reads blocks.
    Product(Option<Nest>, Box<Contraction>),
    /// A product of windows, and the loops that say which.
    Windows(Nest, Box<Windows>),
    /// Scores, rows and values; loops for the two products, unless these read blocks.
    Attention(Box<Parts>, Box<[Option<Nest>; 2]>),
    /// Products and a map; loops for a product, and for everything where these have the same bits.
    Epilogue(Box<epilogue::Parts>, Box<(Option<Nest>, Option<Nest>)>),
}

/// Kernels with equal identities have the same code.
pub(super) type Identity = (Vec<Nest>, Vec<From>, Option<Low>);

/// What works on blocks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Low {
    Product(BlockProduct),
    Rows(BlockRows),
    Signs(SignProduct),
    SignRows(SignRows),
    /// Products that read blocks, as text.
    Contractions(Vec<String>),
}

impl Low {
    /// Of some products, those without loops.
    fn of_products(products: &[(&Contraction, &Option<Nest>)]) -> Option<Low> {
        let without = products.iter().filter(|(_, nest)| nest.is_none());
        let texts: Vec<String> = without.map(|(product, _)| product.to_string()).collect();
        (!texts.is_empty()).then_some(Low::Contractions(texts))
    }
}

impl Work {
    pub(super) fn identity(&self) -> Identity {
        match self {
            Work::Loops(nest) | Work::Windows(nest, _) => (vec![nest.clone()], vec![], None),
            Work::Product(nest, product) => {
                let low = Low::of_products(&[(&**product, nest)]);
                (nest.iter().cloned().collect(), vec![], low)
            }
            Work::Blocks(product) => (vec![], vec![], Some(Low::Product((**product).clone()))),
            Work::Decode(rows) => (vec![], vec![], Some(Low::Rows((**rows).clone()))),
            Work::Signs(product) => (vec![], vec![], Some(Low::Signs((**product).clone()))),
            Work::SignRows(rows) => (vec![], vec![], Some(Low::SignRows((**rows).clone()))),
            Work::Attention(parts, nests) => {
                let [scores, values] = &**nests;
                let operands = [&parts.scores, &parts.rows, &parts.values];
                let from = operands.into_iter().flat_map(|part| part.operands.clone());
                let low = Low::of_products(&[
                    (&parts.scores_product, scores),
                    (&parts.values_product, values),
                ]);
                let loops = scores.iter().chain([&parts.nest]).chain(values);
                (loops.cloned().collect(), from.collect(), low)
            }
            Work::Epilogue(parts, nests) => {
                let operands = parts.products.iter().chain([&parts.rest]);
                let from = operands.flat_map(|part| part.operands.clone());
                let low = Low::of_products(&[(&parts.product, &nests.0)]);
                let loops = nests.0.iter().chain([&parts.nest]);
                (loops.cloned().collect(), from.collect(), low)
            }
        }
    }

    /// Replaces functions by approximations; gives their number.
    pub(super) fn approximate(&mut self, math: Math) -> usize {
        match self {
            Work::Loops(nest) => approximate(nest, math),
            Work::Attention(parts, _) => approximate(&mut parts.nest, math),
            Work::Epilogue(parts, nests) => {
                approximate(&mut parts.tile.nest, math);
                if let Some(all) = &mut nests.1 {
                    approximate(all, math);
                }
                approximate(&mut parts.nest, math)
            }
            // No functions are in them.
            Work::Product(..) | Work::Windows(..) | Work::Blocks(_) | Work::Decode(_) => 0,
            Work::Signs(_) | Work::SignRows(_) => 0,
        }
    }

    /// Loops and products, for reading.
    pub(super) fn listed(&self) -> (Vec<&Nest>, Vec<&Contraction>) {
        match self {
            Work::Loops(nest) | Work::Windows(nest, _) => (vec![nest], vec![]),
            Work::Blocks(_) | Work::Decode(_) | Work::Signs(_) | Work::SignRows(_) => {
                (vec![], vec![])
            }
            Work::Product(nest, product) => (nest.iter().collect(), vec![product]),
            Work::Attention(parts, _) => (
                vec![&parts.nest],
                vec![&parts.scores_product, &parts.values_product],
            ),
            Work::Epilogue(parts, _) => (vec![&parts.nest], vec![&parts.product]),
        }
    }
}
