//! Maps that are applied to finished tiles of a matrix product, while these are in a cache.
//!
//! Before: a [`TileNest`], a map over the points of a product in the order of the product, `rows ++ columns`. After: one
//! function ([`TileFn`]) that computes any rectangle of it. The product's values are read from a tile, whose rows lie
//! `distance` elements apart, or from the whole product, which is a tile too. Everything else is read through its views;
//! the result may lie in another order of dims.
//!
//! How far the rows of a tile are apart is known when the code runs, so it is an argument: in the plan it is the symbol
//! `DISTANCE`. As no view has it, rows and columns are never merged to one dim.
//!
//! Where the result is in the order of the product, the tile may lie in the result's own memory: an element is read
//! before it is written, by the same lane.
//!
//! Invariant: a point's value does not depend on the rectangle that it is computed in.
//!
//! Deliberately absent: reductions, gathers, and results whose neighbours are not neighbours in a row of the product.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::frame::Done;
use super::plan::{Plan, Source};
use super::{CannotLower, Lowered, fnv};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::ir::{Nest, Scalar};
use crate::compilers::llvm_cpu::jit;
use crate::compilers::llvm_cpu::target::Target;
use crate::shape::{Expr, Layer, View, numel};

/// The symbol of the distance between a tile's rows: a letter that nobody chooses for a size. It never leaves this
/// module.
const DISTANCE: char = 'ᛞ';

/// A compiled tile nest: like [`KernelFn`](crate::compilers::llvm_cpu::jit::KernelFn), with rows for units, then the
/// first column, the one after the last, and the distance between a tile's rows. A tile's pointer is to where row and
/// column zero of the product would be.
pub type TileFn = unsafe extern "C" fn(
    ptrs: *const *mut u8,
    params: *const i64,
    begin: i64,
    end: i64,
    errors: *mut i64,
    first: i64,
    last: i64,
    distance: i64,
);

/// A map over the points of a product.
#[derive(Clone, Debug, PartialEq)]
pub struct TileNest {
    /// What is computed; its dims are those of the product's rows, then those of its columns.
    pub nest: Nest,
    /// How many dims are of rows.
    pub n_rows: usize,
    /// The inputs that are products.
    pub tiles: Vec<usize>,
    /// The result's elements over the nest's dims.
    pub out: View,
}

impl TileNest {
    /// Whether the result lies in memory as the product does.
    pub fn keeps_order(&self) -> bool {
        self.out.is_identity(numel(&self.nest.space))
    }

    /// Whether a nest's access is of a product.
    fn is_tile(&self, access: usize) -> bool {
        let reads = |node: &Scalar| *node == Scalar::Load(access);
        self.tiles.contains(&self.nest.loads[access].input) && self.nest.body.iter().any(reads)
    }

    /// The plan, whose last source is the result. With it, how many of its dims are of rows.
    fn plan(&self) -> Result<(Plan<'_>, usize), CannotLower> {
        let fail = |why: &str| CannotLower(format!("a tile's map {why}"));
        let gathers = |node: &Scalar| matches!(node, Scalar::Gather { .. } | Scalar::Coord(_));
        if !self.nest.stages.is_empty() || self.nest.body.iter().any(gathers) {
            return Err(fail("is no plain map"));
        }
        if uses_distance(&self.nest) {
            return Err(fail("has a size of that name"));
        }
        let accesses = 0..self.nest.loads.len();
        let Some(tile) = accesses.clone().find(|&access| self.is_tile(access)) else {
            return Err(fail("does not read it"));
        };
        let out = self.out.single().filter(|layer| layer.valid.is_none());
        let out = out.ok_or_else(|| fail("has no plain result"))?;
        let strides = self.tile_strides();
        let plan = Plan::with_sources(&self.nest, |mut sources| {
            for access in accesses.filter(|&access| self.is_tile(access)) {
                sources[access].strides.clone_from(&strides);
            }
            sources.push(Source {
                input: self.nest.n_inputs,
                dtype: self.nest.dtype,
                strides: out.strides.to_vec(),
                each: vec![1; strides.len()],
                valid: vec![None; strides.len()],
                offset: out.offset,
                below: vec![],
                gather: None,
            });
            sources
        })?;
        let strides = &plan.sources[tile].strides;
        let n_rows = strides.iter().filter(|s| has_distance(s)).count();
        let last = plan.space.len() - 1;
        let out = plan.sources.last().expect("the result was added");
        if n_rows == 0 || n_rows > last || !out.strides[last].is_one() {
            return Err(fail("has no rows of neighbours"));
        }
        Ok((plan, n_rows))
    }

    /// How far each dim moves in a tile.
    fn tile_strides(&self) -> Vec<Expr> {
        let (rows, columns) = self.nest.space.split_at(self.n_rows);
        let along = |dims: &[Expr], unit: Expr| -> Vec<Expr> {
            (0..dims.len())
                .map(|dim| unit * numel(&dims[dim + 1..]))
                .collect()
        };
        let mut strides = along(rows, Expr::from(DISTANCE));
        strides.extend(along(columns, Expr::from(1)));
        strides
    }
}

fn has_distance(stride: &Expr) -> bool {
    stride.symbols().contains(&DISTANCE)
}

/// Whether the symbol is in a nest, in spite of its strangeness.
fn uses_distance(nest: &Nest) -> bool {
    let of_layer = |layer: &Layer| {
        let ranges = layer.valid.iter().flatten();
        let ranges = ranges.flat_map(|range| [range.0, range.1]);
        let sizes = layer.dims.iter().chain(&layer.strides).copied();
        sizes
            .chain(ranges)
            .chain([layer.offset])
            .any(|e| has_distance(&e))
    };
    let of_node = |node: &Scalar| match node {
        Scalar::Size(e) | Scalar::Random { step: e, .. } => has_distance(e),
        _ => false,
    };
    let mut layers = nest.loads.iter().flat_map(|access| access.view.layers());
    nest.space.iter().any(has_distance) || layers.any(of_layer) || nest.body.iter().any(of_node)
}

/// Whether a tile nest has code.
pub fn can_lower(tile: &TileNest) -> bool {
    tile.plan().is_ok()
}

/// Compiles a tile nest for a target; what was compiled earlier is taken from `cache`. Units are rows.
///
/// # Errors
/// A nest that is not of the form that [`TileNest`] describes, or a failure of LLVM.
pub fn lower_tile(
    tile: &TileNest,
    target: &Target,
    cache: &ObjectCache,
) -> Result<Lowered, CannotLower> {
    let (plan, n_rows) = tile.plan()?;
    let mut built = (String::new(), vec![]);
    let object = jit::compile_module_cached(target, cache, |context, module| {
        built = build(context, module, &plan, n_rows, target);
        Ok(())
    })?;
    let (symbol, params) = built;
    Ok(Lowered {
        symbol,
        object,
        params,
        units: numel(&plan.space[..n_rows]),
    })
}

/// Fills `module`; gives the function's name and the expressions of its parameters.
fn build<'c>(
    context: &'c Context,
    module: &Module<'c>,
    plan: &Plan<'_>,
    n_rows: usize,
    target: &Target,
) -> (String, Vec<Expr>) {
    let mut emitter = Emitter::new(context, module, plan, target, ("tile", 3));
    emitter.tile(n_rows);
    let params = emitter.finish();
    let symbol = format!("tile_{:016x}", fnv(module.print_to_string().to_bytes()));
    let function = module.get_function("tile");
    let function = function.expect("the function was just made");
    function.as_global_value().set_name(&symbol);
    (symbol, params)
}

impl<'c> Emitter<'_, 'c> {
    /// Emits a tile nest.
    fn tile(&mut self, n_rows: usize) {
        let (rows, columns) = self.plan.space.split_at(n_rows);
        let (first, last) = (self.more(0), self.more(1));
        self.bind_distance(rows);
        let some = self.icmp(inkwell::IntPredicate::SLT, first, last);
        self.when(some, |e| {
            e.for_each_unit(rows, |e, _, coords| {
                e.tile_row(coords, columns, first, last)
            });
        });
    }

    /// Computes what a tile's strides along rows are.
    fn bind_distance(&mut self, rows: &[Expr]) {
        let sources = self.plan.sources.iter();
        let Some(tile) = sources
            .clone()
            .find(|source| source.strides.iter().any(has_distance))
        else {
            unreachable!("the plan was made with one")
        };
        for (dim, &stride) in tile.strides[..rows.len()].iter().enumerate() {
            let between = self.expr(numel(&rows[dim + 1..]));
            let value = self.imul(between, self.more(2));
            self.bind(stride, value);
        }
    }

    /// Columns `first..last` of a row. The last dim is walked in vectors, the others of the columns one by one.
    fn tile_row(
        &mut self,
        mut coords: Vec<IntValue<'c>>,
        columns: &[Expr],
        first: IntValue<'c>,
        last: IntValue<'c>,
    ) {
        let (&inner, outer) = columns.split_last().expect("a product has columns");
        if outer.is_empty() {
            coords.push(self.int(0));
            self.tile_run(&coords, first, last);
            return;
        }
        let size = self.expr(inner);
        let (from, _) = self.divide(first, size);
        let (to, _) = self.divide(self.isub(last, self.int(1)), size);
        let to = self.iadd(to, self.int(1));
        self.for_each((from, to, 1), |e, run| {
            coords.extend(e.unravel(run, outer));
            coords.push(e.int(0));
            let start = e.imul(run, size);
            let (first, last) = (e.isub(first, start), e.isub(last, start));
            let before = e.icmp(inkwell::IntPredicate::SLT, first, e.int(0));
            let first = e.choose(before, e.int(0), first);
            let last = e.imin(last, size);
            e.tile_run(&coords, first, last);
        });
    }

    /// A run of neighbours along the last dim.
    fn tile_run(&mut self, coords: &[IntValue<'c>], first: IntValue<'c>, last: IntValue<'c>) {
        let plan = self.plan;
        let row = plan.space.len() - 1;
        let frame = self.row(plan.last(), Some(row), coords, &Done::default());
        let out = plan.sources.last().expect("the result is the last source");
        let mut to = self.expr(out.offset);
        for (&coord, &stride) in coords.iter().zip(&out.strides).take(row) {
            let stride = self.expr(stride);
            to = self.iadd(to, self.imul(coord, stride));
        }
        self.lanes_of_row((first, last), None, |e, at| {
            let values = e.evaluate(&frame, &at);
            let result = values[plan.nest.result].expect("the result is evaluated");
            e.write(e.iadd(to, at.col), result, &at);
        });
    }
}
