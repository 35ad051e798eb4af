//! Writing the code that copies operands of a matrix product into panels.
//!
//! Before: any view of f32, f16 or bf16, or blocks (the module `pack_blocks`). After: panels of `width` rows each, stored
//! `[panel][k][width]` in f32, the last panel filled up with zeros.
//!
//! # ABI
//! [`PackFn`]: `fn(src, params, batch, row, rows, k, steps, dst)` packs rows `row .. row + rows`
//! and steps `k .. k + steps` of one batch. `batch`, `row` and `k` are row-major linear indices
//! over their dims.
//!
//! Ways, chosen from the structure of the view, all with the same result:
//! - rows next to each other in memory: a vector copy per step, under a mask in the last panel;
//! - steps next to each other: squares transposed in registers (the module `transpose`), in the last panel with zeros
//!   for rows that are not there; the last square may overlap the one before;
//! - any other linear form, also with padding: offsets of the panel's rows are computed once, and
//!   the elements of a step are gathered;
//! - anything else: one element at a time with all of the view's arithmetic.
//!
//! Padding is not read at all, or from a zero on the stack: nothing outside of the buffer is
//! touched.

use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::gather::Gather;
use super::ir::{Step, collapse};
use super::linear::{Form, linear};
use super::stored::{Stored, unit};
use crate::compilers::llvm_cpu::emit::Emit;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::ir::Access;
use crate::dtype::DType;
use crate::shape::{Dims, Expr};

/// A compiled packing function; see the module's documentation.
pub type PackFn = unsafe extern "C" fn(
    src: *const u8,
    params: *const i64,
    batch: i64,
    row: i64,
    rows: i64,
    k: i64,
    steps: i64,
    dst: *mut f32,
);

/// One operand: dims of its view are `batch ++ rows ++ k`.
pub struct Operand<'a> {
    /// What is read.
    pub access: &'a Access,
    /// Dims of the batch.
    pub batch: &'a Dims,
    /// Dims of the rows.
    pub rows: &'a Dims,
    /// Dims that are summed over.
    pub k: &'a Dims,
    /// Rows in a panel.
    pub width: u32,
    /// Floats in a vector; 1 for no vectors.
    pub lanes: u32,
}

/// Writes the packing function of `operand` into `module`, reading symbolic sizes from `params`; and distances too,
/// so that operands which lie alike have the same code.
pub fn emit_pack<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    operand: &Operand<'_>,
    params: &mut Params,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let kinds = [ptr, ptr, int, int, int, int, int, ptr];
    let e = Emit::function(context, module, symbol, &kinds);
    for pointer in [0, 1, 7] {
        e.noalias(pointer);
    }
    let pack = Pack { operand, e: &e };
    match linear(&operand.access.view) {
        Some(linear) if Stored::of(operand.access) == Stored::Q8_0 => {
            let unit = unit(operand.access, operand.batch, operand.rows, operand.k);
            let unit = unit.expect("products are checked before they are compiled");
            pack.blocks(unit, &linear.index, params);
        }
        Some(linear) if linear.masks.is_empty() => pack.affine(&linear.index, params),
        Some(linear) => pack.masked(&linear, params),
        None => pack.general(params),
    }
    e.finish();
}

pub(super) struct Pack<'p, 'm, 'c> {
    pub(super) operand: &'p Operand<'p>,
    pub(super) e: &'p Emit<'m, 'c>,
}

/// One panel while it is written: the first row, how many rows there are, and where it goes.
pub(super) struct Panel<'c> {
    pub(super) first: IntValue<'c>,
    pub(super) rows: IntValue<'c>,
    pub(super) dst: PointerValue<'c>,
}

/// A list of steps with the sizes as values.
pub(super) type Walk<'c> = Vec<(IntValue<'c>, IntValue<'c>)>;

impl<'p, 'm, 'c> Pack<'p, 'm, 'c> {
    pub(super) fn batch(&self) -> IntValue<'c> {
        self.e.int_argument(2)
    }

    pub(super) fn k_begin(&self) -> IntValue<'c> {
        self.e.int_argument(5)
    }

    pub(super) fn steps(&self) -> IntValue<'c> {
        self.e.int_argument(6)
    }

    pub(super) fn width(&self) -> IntValue<'c> {
        self.e.int(self.operand.width.into())
    }

    /// Writes the loop over panels.
    pub(super) fn panels(&self, body: impl FnOnce(Panel<'c>)) {
        let e = self.e;
        let (begin, rows, dst) = (e.int_argument(3), e.int_argument(4), e.pointer_argument(7));
        e.each(e.int(0), rows, self.operand.width.into(), |done| {
            body(Panel {
                first: e.add(begin, done),
                rows: e.min(e.sub(rows, done), self.width()),
                dst: e.at(e.f32(), dst, e.mul(done, self.steps())),
            });
        });
    }

    /// Writes zeros into the columns of a panel that have no row.
    pub(super) fn fill(&self, panel: &Panel<'c>) {
        let e = self.e;
        e.each(e.int(0), self.steps(), 1, |step| {
            e.each(panel.rows, self.width(), 1, |column| {
                e.store(e.f32().const_zero(), self.slot(panel, step, column), 4);
            });
        });
    }

    /// The address of one element of a panel.
    pub(super) fn slot(
        &self,
        panel: &Panel<'c>,
        step: IntValue<'c>,
        column: IntValue<'c>,
    ) -> PointerValue<'c> {
        let e = self.e;
        e.at(e.f32(), panel.dst, e.add(e.mul(step, self.width()), column))
    }

    // ---- linear forms without padding

    fn affine(&self, form: &Form, params: &mut Params) {
        let (e, o) = (self.e, self.operand);
        let (batch, rows) = (o.batch.len(), o.batch.len() + o.rows.len());
        let strides = &form.steps;
        let [batch_steps, row_steps, k_steps] = [
            collapse(o.batch, &strides[..batch]),
            collapse(o.rows, &strides[batch..rows]),
            collapse(o.k, &strides[rows..]),
        ];
        let offset = self.walk_offset(&self.values(&batch_steps, params), self.batch());
        let base = e.add(self.told(params, form.start), offset);
        let kind = self.storage();
        let src = e.at(kind, e.pointer_argument(0), base);
        let (row_walk, k_walk) = (
            self.values(&row_steps, params),
            self.values(&k_steps, params),
        );
        let unit = |steps: &[Step]| matches!(steps, [(_, stride)] if stride.is_one());
        let vectors = o.lanes > 1;
        let gather = Gather::new(self, src, Vec::new());
        self.panels(|panel| {
            let row = |row| vec![self.walk_offset(&row_walk, row)];
            let step = |k| vec![self.walk_offset(&k_walk, k)];
            let full = e.compare(IntPredicate::EQ, panel.rows, self.width());
            let copied = || self.copied(src, &panel, &k_walk);
            let transposed = |whole| self.transposed(src, &panel, &row_walk, whole);
            match (unit(&row_steps), unit(&k_steps)) {
                (true, _) if vectors && self.has_masks() => {
                    e.branch(full, copied, || self.copied_in_part(src, &panel, &k_walk));
                }
                (true, _) if vectors => {
                    let slow = || self.gathered(&gather, &panel, &row, &step);
                    e.branch(full, copied, slow);
                }
                (_, true) if vectors => e.branch(full, || transposed(true), || transposed(false)),
                _ => self.gathered(&gather, &panel, &row, &step),
            }
        });
    }

    /// Sizes and distances. A known size is written into the code, since divisions by it are slow otherwise; nothing is
    /// divided by the first.
    pub(super) fn values(&self, steps: &[Step], params: &mut Params) -> Walk<'c> {
        let steps = steps.iter().enumerate();
        let values = steps.map(|(position, &(dim, stride))| {
            let dim = match position {
                0 => self.e.int(1),
                _ => self.e.expr(params, 1, dim),
            };
            (dim, self.told(params, stride))
        });
        values.collect()
    }

    /// A value from the table, unless it says how elements lie.
    fn told(&self, params: &mut Params, value: Expr) -> IntValue<'c> {
        match value.as_const() {
            Some(0 | 1) => self.e.expr(params, 1, value),
            _ => self.e.told(1, params.push(value)),
        }
    }

    /// The offset of a row-major linear index.
    pub(super) fn walk_offset(&self, walk: &Walk<'c>, mut index: IntValue<'c>) -> IntValue<'c> {
        let e = self.e;
        let mut offset = e.int(0);
        for (position, &(dim, stride)) in walk.iter().enumerate().rev() {
            let coordinate = if position == 0 {
                index
            } else {
                let (rest, coordinate) = e.div_rem(index, dim);
                index = rest;
                coordinate
            };
            offset = e.add(offset, e.mul(coordinate, stride));
        }
        offset
    }

    // ---- any view

    fn general(&self, params: &mut Params) {
        let (e, o) = (self.e, self.operand);
        let sizes = |params: &mut Params, dims: &Dims| -> Vec<_> {
            dims.iter().map(|&dim| e.expr(params, 1, dim)).collect()
        };
        let (batch, rows, k) = (
            sizes(params, o.batch),
            sizes(params, o.rows),
            sizes(params, o.k),
        );
        let reader = e.reader(&o.access.view, params, 1, self.storage());
        let batch = e.unravel(self.batch(), &batch);
        self.panels(|panel| {
            e.each(e.int(0), panel.rows, 1, |column| {
                let row = e.unravel(e.add(panel.first, column), &rows);
                e.each(e.int(0), self.steps(), 1, |step| {
                    let k = e.unravel(e.add(self.k_begin(), step), &k);
                    let coordinates = [&batch[..], &row[..], &k[..]].concat();
                    let (from, _) = reader.address(e, e.pointer_argument(0), &coordinates);
                    e.store(self.read(from, 1), self.slot(&panel, step, column), 4);
                });
            });
            self.fill(&panel);
        });
    }

    // ---- elements

    /// How one element is stored.
    pub(super) fn storage(&self) -> BasicTypeEnum<'c> {
        match self.operand.access.dtype {
            DType::F32 => self.e.f32().into(),
            DType::F16 => self.e.context.f16_type().into(),
            DType::BF16 => self.e.context.i16_type().into(),
            other => unreachable!("checked before: no packing of {}", other.name()),
        }
    }

    /// `lanes` neighbouring elements as f32.
    pub(super) fn read(&self, from: PointerValue<'c>, lanes: u32) -> BasicValueEnum<'c> {
        self.e.read_f32(self.operand.access.dtype, from, lanes)
    }
}
