//! Packing of linear forms element by element, with or without padding.
//!
//! An element's offset, and each coordinate that decides whether it is padding, is a part that
//! depends on the row plus a part that depends on the step. The parts of the rows are kept in a
//! table on the stack; a step adds its own to all of them. Columns of a vector that come in few
//! [`super::runs`] are loaded run by run, others gathered.

use inkwell::IntPredicate;
use inkwell::types::VectorType;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::linear::{Form, Linear};
use super::pack::{Pack, Panel};
use super::runs::Runs;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::dtype::DType;
use crate::shape::Dims;

/// From the linear index of a row or step, its part of the offset and of each masked coordinate.
type Part<'a, 'c> = dyn Fn(IntValue<'c>) -> Vec<IntValue<'c>> + 'a;

/// What is gathered from where.
pub(super) struct Gather<'c> {
    src: PointerValue<'c>,
    /// A table of `width` numbers for the offset and for each masked coordinate.
    tables: Vec<PointerValue<'c>>,
    /// The number of valid values of each masked coordinate, which starts from 0.
    extents: Vec<IntValue<'c>>,
    /// Which columns are neighbours.
    runs: Runs<'c>,
    /// Where padding is read from.
    zero: PointerValue<'c>,
}

impl<'c> Gather<'c> {
    /// Reserves the tables; to be called outside of loops.
    pub(super) fn new(
        pack: &Pack<'_, '_, 'c>,
        src: PointerValue<'c>,
        extents: Vec<IntValue<'c>>,
    ) -> Gather<'c> {
        let (e, kind) = (pack.e, pack.storage());
        let table = e.i64().array_type(pack.operand.width);
        let reserve = |_| e.builder.build_alloca(table, "rows").expect(BUILT);
        let tables = (0..extents.len() + 1).map(reserve).collect();
        let zero = e.builder.build_alloca(kind, "padding").expect(BUILT);
        e.store(kind.const_zero(), zero, 2);
        Gather {
            src,
            tables,
            extents,
            runs: Runs::new(e, pack.operand.width),
            zero,
        }
    }
}

impl<'p, 'm, 'c> Pack<'p, 'm, 'c> {
    /// A view whose padding depends on linear forms.
    pub(super) fn masked(&self, linear: &Linear, params: &mut Params) {
        let (e, o) = (self.e, self.operand);
        let sizes = |params: &mut Params, dims: &Dims| -> Vec<_> {
            dims.iter().map(|&dim| e.expr(params, 1, dim)).collect()
        };
        let (batch, rows, k) = (
            sizes(params, o.batch),
            sizes(params, o.rows),
            sizes(params, o.k),
        );
        let mut forms = vec![linear.index.clone()];
        let mut extents = Vec::new();
        for mask in &linear.masks {
            let start = mask.form.start - mask.low;
            forms.push(Form {
                start,
                steps: mask.form.steps.clone(),
            });
            extents.push(e.expr(params, 1, (mask.high - mask.low).max(0)));
        }
        let starts: Vec<_> = forms
            .iter()
            .map(|form| e.expr(params, 1, form.start))
            .collect();
        let steps: Vec<_> = forms
            .iter()
            .map(|form| sizes(params, &form.steps))
            .collect();
        let part = |index: IntValue<'c>, dims: &[IntValue<'c>], first: usize| -> Vec<_> {
            let coordinates = e.unravel(index, dims);
            let dot = |steps: &Vec<IntValue<'c>>| {
                let terms = coordinates.iter().zip(&steps[first..]);
                terms.fold(e.int(0), |sum, (&at, &step)| e.add(sum, e.mul(at, step)))
            };
            steps.iter().map(dot).collect()
        };
        let base: Vec<_> = part(self.batch(), &batch, 0);
        let base: Vec<_> = base
            .into_iter()
            .zip(starts)
            .map(|(b, s)| e.add(b, s))
            .collect();
        let gather = Gather::new(self, e.pointer_argument(0), extents);
        let (first_row, first_k) = (o.batch.len(), o.batch.len() + o.rows.len());
        self.panels(|panel| {
            let row = |row| {
                let parts = part(row, &rows, first_row);
                parts
                    .into_iter()
                    .zip(&base)
                    .map(|(part, &base)| e.add(part, base))
                    .collect()
            };
            self.gathered(&gather, &panel, &row, &|step| part(step, &k, first_k));
        });
    }

    /// Packs any panel, given the parts of rows and of steps.
    pub(super) fn gathered(
        &self,
        gather: &Gather<'c>,
        panel: &Panel<'c>,
        row: &Part<'_, 'c>,
        step: &Part<'_, 'c>,
    ) {
        let e = self.e;
        let vectors = self.operand.lanes >= 8 && self.operand.access.dtype == DType::F32;
        e.each(e.int(0), panel.rows, 1, |column| {
            for (part, &table) in row(e.add(panel.first, column)).iter().zip(&gather.tables) {
                e.store(*part, e.at(e.i64(), table, column), 8);
            }
        });
        if vectors {
            e.each(panel.rows, self.width(), 1, |column| {
                for &table in &gather.tables {
                    e.store(e.int(0), e.at(e.i64(), table, column), 8);
                }
            });
            for chunk in self.chunks() {
                gather.runs.find(&chunk, gather.tables[0], panel.rows);
            }
        }
        e.each(e.int(0), self.steps(), 1, |index| {
            let parts = step(e.add(self.k_begin(), index));
            if vectors {
                self.gather_vectors(gather, panel, index, &parts);
            } else {
                self.gather_scalars(gather, panel, index, &parts);
            }
        });
        if !vectors {
            self.fill(panel);
        }
    }

    /// One step of a panel, one element after the other.
    fn gather_scalars(
        &self,
        gather: &Gather<'c>,
        panel: &Panel<'c>,
        index: IntValue<'c>,
        parts: &[IntValue<'c>],
    ) {
        let e = self.e;
        e.each(e.int(0), panel.rows, 1, |column| {
            let entry = |which: usize| {
                let from = e.at(e.i64(), gather.tables[which], column);
                e.add(e.load(e.i64(), from, 8).into_int_value(), parts[which])
            };
            // SAFETY: not marked `inbounds`: the address of padding is computed, but not used.
            let address = unsafe {
                e.builder
                    .build_gep(self.storage(), gather.src, &[entry(0)], "")
                    .expect(BUILT)
            };
            let mut from = address;
            for (mask, &extent) in gather.extents.iter().enumerate() {
                let valid = e.compare(IntPredicate::ULT, entry(mask + 1), extent);
                let chosen = e
                    .builder
                    .build_select(valid, from, gather.zero, "")
                    .expect(BUILT);
                from = chosen.into_pointer_value();
            }
            e.store(self.read(from, 1), self.slot(panel, index, column), 4);
        });
    }

    /// One step of a panel, in vectors with a mask.
    fn gather_vectors(
        &self,
        gather: &Gather<'c>,
        panel: &Panel<'c>,
        index: IntValue<'c>,
        parts: &[IntValue<'c>],
    ) {
        let e = self.e;
        for chunk in self.chunks() {
            let mut valid = chunk.below(panel.rows);
            for (mask, &extent) in gather.extents.iter().enumerate() {
                let at = chunk.entry(gather.tables[mask + 1], parts[mask + 1]);
                let inside = chunk.compare(at, extent);
                valid = e.builder.build_and(valid, inside, "").expect(BUILT);
            }
            let slot = self.slot(panel, index, chunk.column);
            let loaded = || gather.runs.copy(&chunk, gather.src, parts[0], valid, slot);
            let gathered = || {
                let offsets = chunk.entry(gather.tables[0], parts[0]);
                e.store(chunk.gather(gather.src, offsets, valid), slot, 4);
            };
            e.branch(gather.runs.are_few(&chunk), loaded, gathered);
        }
    }

    /// All columns of a panel, in vectors.
    fn chunks(&self) -> Vec<Chunk<'p, 'm, 'c>> {
        let width = self.operand.width;
        let (mut first, mut chunks) = (0, Vec::new());
        while first < width {
            let fits = |lanes: &u32| *lanes <= self.operand.lanes && first + lanes <= width;
            let lanes = [16, 8, 4, 2]
                .into_iter()
                .find(fits)
                .expect("panels have an even width");
            chunks.push(Chunk {
                e: self.e,
                column: self.e.int(first.into()),
                first,
                lanes,
            });
            first += lanes;
        }
        chunks
    }
}

/// Some neighbouring columns of a panel: at least two, and as many as a vector has lanes.
pub(super) struct Chunk<'e, 'm, 'c> {
    pub(super) e: &'e Emit<'m, 'c>,
    pub(super) column: IntValue<'c>,
    pub(super) first: u32,
    pub(super) lanes: u32,
}

impl<'c> Chunk<'_, '_, 'c> {
    fn splat(&self, value: IntValue<'c>) -> VectorValue<'c> {
        self.e.splat(value.into(), self.lanes).into_vector_value()
    }

    /// Which columns are below a number.
    fn below(&self, end: IntValue<'c>) -> VectorValue<'c> {
        let column = |lane: u32| self.e.int((self.first + lane).into());
        let columns: Vec<_> = (0..self.lanes).map(column).collect();
        self.compare(VectorType::const_vector(&columns), end)
    }

    /// `values < end`, without sign.
    fn compare(&self, values: VectorValue<'c>, end: IntValue<'c>) -> VectorValue<'c> {
        let end = self.splat(end);
        self.e
            .builder
            .build_int_compare(IntPredicate::ULT, values, end, "")
            .expect(BUILT)
    }

    /// The entries of a table, plus `part`.
    fn entry(&self, table: PointerValue<'c>, part: IntValue<'c>) -> VectorValue<'c> {
        let e = self.e;
        let from = e.at(e.i64(), table, self.column);
        let entries = e
            .load(e.i64().vec_type(self.lanes), from, 8)
            .into_vector_value();
        e.builder
            .build_int_add(entries, self.splat(part), "")
            .expect(BUILT)
    }

    /// Loads the floats at `offsets` from `src` where `valid`, zeros elsewhere.
    fn gather(
        &self,
        src: PointerValue<'c>,
        offsets: VectorValue<'c>,
        valid: VectorValue<'c>,
    ) -> BasicValueEnum<'c> {
        let (e, b) = (self.e, &self.e.builder);
        let base = b.build_ptr_to_int(src, e.i64(), "").expect(BUILT);
        let bytes = b
            .build_int_mul(offsets, self.splat(e.int(4)), "")
            .expect(BUILT);
        let bytes = b.build_int_add(bytes, self.splat(base), "").expect(BUILT);
        let pointers = e.ptr().vec_type(self.lanes);
        let addresses = b.build_int_to_ptr(bytes, pointers, "").expect(BUILT);
        e.masked_gather(e.vector(self.lanes), addresses.into(), valid.into())
    }
}
