//! Convolutions of few channels: products of windows that are computed where the image lies.
//!
//! ```text
//! out[o, n, y, x] = Σ_{c, i, j} weight[o, c, i, j] * image[n, c, y + i, x + j]          rows
//! out[o, c, i, j] = Σ_{n, y, x} other[n, o, y, x] * image[n, c, y + i, x + j]           taps
//! ```
//! Both are matrix products whose one operand sees every element of an image several times. Packing it ([`super::gemm`])
//! writes each of these sights; with few rows in the other operand that takes longer than the product itself. Here nothing of the
//! image is packed. `rows`: neighbouring outputs are the lanes of vectors, loaded from the image as they lie, times one
//! weight. `taps`: the rows of the other operand are the lanes, times one element of the image.
//!
//! The zeros around an image are written out before ([`border`]), so that no element is padding. The gradient by an image
//! is a convolution too ([`shifted`]).
//!
//! Bits: every output is one chain of fused multiply-adds over the summed steps in row-major order, from zero, as it is
//! in a packed product. Whether a product is computed like this follows from its shape, not from the target.
//!
//! Deliberately absent: symbolic sizes, groups, formats other than `F32`, outputs that are not neighbours where the
//! image's elements are (strides in forward direction); these stay packed products.

pub mod border;
pub mod code;
mod rows;
pub mod shifted;
mod taps;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicMetadataTypeEnum;
use inkwell::values::IntValue;

use super::emit::Emit;
use super::gemm::ir::Contraction;
use crate::dtype::DType;
use crate::shape::view::Layer;
use crate::shape::{Dims, Expr};

/// Rows of the other operand: with fewer the product is a loop nest, with more packing is worth its cost.
const ROWS: std::ops::RangeInclusive<i64> = 5..=32;
/// Steps of an output of [`Kind::Rows`].
const STEPS: std::ops::RangeInclusive<i64> = 4..=4096;
/// The fewest neighbouring outputs that fill vectors.
const NEIGHBOURS: i64 = 8;
/// The most positions within a window that are told apart by constants.
const POSITIONS: i64 = 64;
/// The fewest steps of a sum of [`Kind::Taps`].
const LONG: i64 = 512;

/// A function of so many pointers, of which it writes through the last one alone, and of units: the first, and what is behind the
/// last.
fn function<'m, 'c>(
    context: &'c Context,
    module: &'m Module<'c>,
    symbol: &str,
    pointers: u32,
) -> Emit<'m, 'c> {
    let ptr: BasicMetadataTypeEnum<'c> = context.ptr_type(Default::default()).into();
    let int: BasicMetadataTypeEnum<'c> = context.i64_type().into();
    let mut kinds = vec![ptr; pointers as usize];
    kinds.extend([int, int]);
    let e = Emit::function(context, module, symbol, &kinds);
    e.noalias(pointers - 1);
    e
}

/// Where a number of some kept dims begins: in the image, and in the output.
fn place<'c>(
    e: &Emit<'_, 'c>,
    number: IntValue<'c>,
    axes: &[Axis],
    start: i64,
) -> [IntValue<'c>; 2] {
    let sizes: Vec<_> = axes.iter().map(|axis| e.int(axis.size)).collect();
    let each = e.unravel(number, &sizes).into_iter().zip(axes);
    each.fold([e.int(start), e.int(0)], |[from, to], (at, axis)| {
        [
            e.add(from, e.mul(at, e.int(axis.from))),
            e.add(to, e.mul(at, e.int(axis.to))),
        ]
    })
}

/// Along what the lanes of vectors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Neighbouring places of the image: many outputs, few steps.
    Rows,
    /// Rows of the other operand: few outputs, many steps.
    Taps,
}

/// A dim of a product, and how far its neighbours are apart in two of the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Its size.
    pub size: i64,
    /// The distance in the operand that walks it; for a summed dim in the image.
    pub from: i64,
    /// The distance in the output; for a summed dim in the other operand.
    pub to: i64,
}

/// A product of windows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// How it is computed.
    pub kind: Kind,
    /// Numbers of the kernel's operands: the image, the other one.
    pub inputs: [usize; 2],
    /// Where both start.
    pub starts: [i64; 2],
    /// Dims of the output that walk the image.
    pub kept: Vec<Axis>,
    /// The dim of the output that walks the other operand.
    pub rows: Axis,
    /// Summed dims.
    pub steps: Vec<Axis>,
}

impl Windows {
    /// The product as one of windows, once what its views' lower layers say is written out.
    pub fn of(c: &Contraction) -> Option<Windows> {
        let f32s = [c.lhs.dtype, c.rhs.dtype, c.dtype].map(|dtype| dtype == DType::F32);
        if f32s != [true; 3] || !c.batch.iter().all(|dim| dim.is_one()) {
            return None;
        }
        with_image_right(c).or_else(|| with_image_right(&c.swapped()))
    }

    /// The same, if both operands lie in memory as they are walked.
    pub fn ready(c: &Contraction) -> Option<Windows> {
        let is_single = c.lhs.view.single().is_some() && c.rhs.view.single().is_some();
        is_single.then(|| Windows::of(c)).flatten()
    }

    /// The number of outputs for each row of the other operand.
    pub fn n_kept(&self) -> i64 {
        self.kept.iter().map(|axis| axis.size).product()
    }

    /// The number of products that are summed.
    pub fn n_steps(&self) -> i64 {
        self.steps.iter().map(|axis| axis.size).product()
    }

    /// The number of multiply-adds.
    pub fn n_products(&self) -> usize {
        (self.n_kept() * self.n_steps() * self.rows.size) as usize
    }

    /// Whether the image's elements are seen more than once.
    fn overlaps(&self) -> bool {
        let axes = || self.kept.iter().chain(&self.steps);
        let reach: i64 = axes().map(|axis| (axis.size - 1) * axis.from).sum();
        self.n_kept() * self.n_steps() > reach + 1
    }

    fn is_worth_it(&self) -> bool {
        let last = self.kept.last();
        let fits = match self.kind {
            Kind::Rows => {
                let neighbours =
                    last.is_some_and(|x| x.from == 1 && x.to == 1 && x.size >= NEIGHBOURS);
                neighbours && STEPS.contains(&self.n_steps())
            }
            Kind::Taps => last.is_some_and(|x| x.size <= POSITIONS) && self.n_steps() >= LONG,
        };
        fits && ROWS.contains(&self.rows.size) && self.overlaps()
    }
}

/// In how many pieces of `each` something comes.
fn pieces(all: i64, each: i64) -> i64 {
    (all + each - 1) / each
}

/// The only layer that matters: the top one, if nothing in it is padding.
fn top(layers: &[Layer]) -> Option<&Layer> {
    layers.last().filter(|layer| layer.valid.is_none())
}

/// Numbers in the place of sizes, without dims of size 1. Only the other operand may be walked backwards.
fn axes(dims: &[Expr], from: &[Expr], to: &[Expr]) -> Option<Vec<Axis>> {
    let each = dims.iter().zip(from).zip(to);
    let each = each.map(|((size, from), to)| {
        Some(Axis {
            size: size.as_const().filter(|&size| size > 0)?,
            from: from.as_const().filter(|&step| step >= 0)?,
            to: to.as_const()?,
        })
    });
    let axes: Option<Vec<Axis>> = each.collect();
    Some(axes?.into_iter().filter(|axis| axis.size > 1).collect())
}

fn with_image_right(c: &Contraction) -> Option<Windows> {
    let image = top(c.rhs.view.layers())?;
    let other = c.lhs.view.single().filter(|layer| layer.valid.is_none())?;
    let (batch, m, n) = (c.batch.len(), c.m.len(), c.n.len());
    let steps = |layer: &Layer, kept: usize| -> Dims {
        layer.strides[batch + kept..].iter().copied().collect()
    };
    let kept = |layer: &Layer, kept: usize| -> Dims {
        layer.strides[batch..batch + kept].iter().copied().collect()
    };
    let [rows] = axes(&c.m, &kept(other, m), &c.out_strides[batch..batch + m])?[..] else {
        return None;
    };
    let windows = Windows {
        kind: Kind::Rows,
        inputs: [c.rhs.input, c.lhs.input],
        starts: [image.offset.as_const()?, other.offset.as_const()?],
        kept: axes(&c.n, &kept(image, n), &c.out_strides[batch + m..])?,
        rows,
        steps: axes(&c.k, &steps(image, n), &steps(other, m))?,
    };
    let kind = match windows.n_kept() >= windows.n_steps() {
        true => Kind::Rows,
        false => Kind::Taps,
    };
    let windows = Windows { kind, ..windows };
    windows.is_worth_it().then_some(windows)
}
