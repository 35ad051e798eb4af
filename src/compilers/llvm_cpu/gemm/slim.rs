//! The last tile of a row of C where that has only a few columns, or a few more than whole vectors.
//!
//! Before: a panel of B with 17 columns in it, of which a vector of the ordinary micro-kernel would hold one. After: such
//! columns lie in vectors along the rows of C: `C[.., j] = fma(A[k][..], B[k][j], C[.., j])`, one multiply-add for all rows
//! of a tile instead of one for each row. Columns that fill vectors are computed as ever, beside them.
//!
//! Bits: those of the ordinary micro-kernel, one chain of fused multiply-adds over k for each element.
//!
//! # ABI
//! [`SlimFn`]: `fn(k, a, b, ldb, c, ldc, fresh, rows)`, as in [`super::micro`]: `b` is `k` rows, `ldb` floats apart (4-byte
//! alignment); `rows` are at most those of the tile, and exactly those in a kernel with whole vectors.
//!
//! Deliberately absent: sizes that are not known when a product is compiled, and targets without masked loads.

use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::micro::{Tile, UNROLL};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::emit_masked::has_masks;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::error::Result;

/// Multiply-adds that start before the first has its result.
const LATENCY: usize = 4;

/// A compiled kernel; see the module's documentation.
pub type SlimFn = unsafe extern "C" fn(
    k: i64,
    a: *const f32,
    b: *const f32,
    ldb: i64,
    c: *mut f32,
    ldc: i64,
    fresh: i64,
    rows: i64,
);

/// The columns of the last tile of a row of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slim {
    /// The register tile that it is a part of.
    pub tile: Tile,
    /// Whole vectors.
    pub vectors: u32,
    /// Columns behind them.
    pub columns: u32,
}

impl Slim {
    /// That of `n` columns of C, if its kernel is faster than the ordinary one.
    pub fn of(tile: Tile, n: usize) -> Option<Slim> {
        let last = (n % tile.columns() as usize) as u32;
        let (vectors, columns) = (last / tile.lanes, last % tile.lanes);
        // Multiply-adds for each step, compared with those of one more vector in each row.
        let most = match vectors {
            0 => tile.rows * 2 / 3,
            _ => tile.rows / 3,
        };
        let fits = tile.rows <= tile.lanes && has_masks(tile.lanes, DType::F32);
        let slim = Slim {
            tile,
            vectors,
            columns,
        };
        (fits && vectors < 2 && (1..=most).contains(&columns)).then_some(slim)
    }

    /// Whether so many rows and columns of a tile are computed by its kernel, given how many steps there are and whether
    /// sums start from zero: what is saved has to be more than what storing columns costs, element by element.
    pub(super) fn takes(self, [rows, columns]: [usize; 2], steps: usize, fresh: bool) -> bool {
        let [height, own] = [self.tile.rows, self.columns].map(|size| size as usize);
        let all = (self.vectors * self.tile.lanes) as usize + own;
        // Few chains of multiply-adds wait for their own results.
        let cost = match self.vectors {
            0 => own.max(LATENCY),
            _ => own,
        };
        let elements = rows * own * if fresh { 2 } else { 4 };
        let pays = rows > cost && steps * (rows - cost) > elements;
        columns == all && pays && (self.vectors == 0 || rows == height)
    }

    /// The kernel's symbol.
    pub fn symbol(self, target: &Target) -> String {
        let Slim {
            tile,
            vectors,
            columns,
        } = self;
        let whole = vectors * tile.lanes;
        let isa = target.symbol_part();
        format!("gemm_slim_{}x{whole}_{columns}_{isa}", tile.rows)
    }
}

/// The code, ready to be linked.
#[derive(Debug)]
pub(super) struct CompiledSlim {
    slim: Slim,
    symbol: String,
    object: Vec<u8>,
}

impl CompiledSlim {
    /// Compiled once per process.
    pub(super) fn new(
        slim: Slim,
        target: &Target,
        cache: &ObjectCache,
    ) -> Result<Arc<CompiledSlim>> {
        static MADE: OncePerProcess<(Target, Slim), CompiledSlim> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), slim), |_| {
            let symbol = slim.symbol(target);
            let object = compile_module_cached(target, cache, |context, module| {
                emit_slim(context, module, &symbol, slim);
                Ok(())
            })?;
            Ok(CompiledSlim {
                slim,
                symbol,
                object,
            })
        })
    }

    pub(super) fn link(&self, jit: &Jit) -> Result<(Slim, SlimFn)> {
        jit.add_once(&self.symbol, &self.object)?;
        let address = jit.address(&self.symbol)?;
        // SAFETY: the symbol is of a function that `emit_slim` wrote, with this signature.
        let function = unsafe { std::mem::transmute::<*const (), SlimFn>(address) };
        Ok((self.slim, function))
    }
}

/// Writes the kernel `symbol` into `module`.
pub fn emit_slim<'c>(context: &'c Context, module: &Module<'c>, symbol: &str, slim: Slim) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let kinds = [int, ptr, ptr, int, ptr, int, int, int];
    let e = Emit::function(context, module, symbol, &kinds);
    [1, 2, 4].into_iter().for_each(|pointer| e.noalias(pointer));
    Code { e: &e, slim }.emit();
    e.finish();
}

struct Code<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    slim: Slim,
}

impl<'c> Code<'_, '_, 'c> {
    fn emit(&self) {
        let (e, k) = (self.e, self.e.int_argument(0));
        let Slim {
            tile,
            vectors,
            columns,
        } = self.slim;
        let count = (vectors * tile.rows + columns) as usize;
        let zeros = vec![self.kind().const_zero(); count];
        // Runs once, or not at all if sums start from zero.
        let range = (e.int_argument(6), e.int(1), 1);
        let start = e.carry(range, zeros, |_, _| self.load());
        let mask = e.int(-i64::from(UNROLL));
        let whole = e.builder.build_and(k, mask, "whole").expect(BUILT);
        let range = (e.int(0), whole, i64::from(UNROLL));
        let sums = e.carry(range, start, |at, sums| {
            let step = |sums: Vec<_>, step: u32| self.step(e.add(at, e.int(step.into())), &sums);
            (0..UNROLL).fold(sums.to_vec(), step)
        });
        let sums = e.carry((whole, k, 1), sums, |at, sums| self.step(at, sums));
        self.store(&sums);
    }

    fn kind(&self) -> BasicTypeEnum<'c> {
        self.e.vector(self.slim.tile.lanes)
    }

    /// The address of an element of C; behind the last row, that one stands for all.
    fn c_at(&self, row: u32, column: u32) -> PointerValue<'c> {
        let e = self.e;
        let last = e.sub(e.int_argument(7), e.int(1));
        let row = match self.slim.vectors {
            0 => e.min(e.int(row.into()), last),
            _ => e.int(row.into()),
        };
        let offset = e.add(e.mul(e.int_argument(5), row), e.int(column.into()));
        e.at(e.f32(), e.pointer_argument(4), offset)
    }

    /// The columns behind the whole vectors.
    fn columns(&self) -> std::ops::Range<u32> {
        let first = self.slim.vectors * self.slim.tile.lanes;
        first..first + self.slim.columns
    }

    /// C in registers: rows of whole vectors, then columns.
    fn load(&self) -> Vec<BasicValueEnum<'c>> {
        let (e, tile) = (self.e, self.slim.tile);
        let rows = 0..tile.rows * self.slim.vectors;
        let mut all: Vec<_> = rows
            .map(|row| e.load(self.kind(), self.c_at(row, 0), 4))
            .collect();
        for column in self.columns() {
            let zero = self.kind().const_zero();
            let sums = (0..tile.rows).fold(zero, |sums, row| {
                let value = e.load(e.f32(), self.c_at(row, column), 4);
                e.insert(sums, value, row)
            });
            all.push(sums);
        }
        all
    }

    /// The sums into C, the last row first: rows that are not there are overwritten by the last that is.
    fn store(&self, sums: &[BasicValueEnum<'c>]) {
        let (e, tile) = (self.e, self.slim.tile);
        let (rows, columns) = sums.split_at((tile.rows * self.slim.vectors) as usize);
        for (row, &sum) in rows.iter().enumerate() {
            e.store(sum, self.c_at(row as u32, 0), 4);
        }
        for row in (0..tile.rows).rev() {
            for (column, &sums) in self.columns().zip(columns) {
                e.store(e.extract(sums, row), self.c_at(row, column), 4);
            }
        }
    }

    /// Step `k` of all sums.
    fn step(&self, k: IntValue<'c>, sums: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let (e, tile) = (self.e, self.slim.tile);
        let a = e.mul(k, e.int(tile.rows.into()));
        let a = e.at(e.f32(), e.pointer_argument(1), a);
        let b = e.mul(k, e.int_argument(3));
        let b = e.at(e.f32(), e.pointer_argument(2), b);
        let one = |from: PointerValue<'c>, index: u32| {
            let from = e.at(e.f32(), from, e.int(index.into()));
            e.splat(e.load(e.f32(), from, 4), tile.lanes)
        };
        let (rows, columns) = sums.split_at((tile.rows * self.slim.vectors) as usize);
        let mut next = Vec::with_capacity(sums.len());
        if !rows.is_empty() {
            let b = e.load(self.kind(), b, 4);
            let rows = rows.iter().enumerate();
            next.extend(rows.map(|(row, &sum)| e.fma(one(a, row as u32), b, sum)));
        }
        let valid = e.lanes_below(tile.lanes, e.int(tile.rows.into()));
        let a = e.masked_load(self.kind(), a, valid);
        let columns = self.columns().zip(columns);
        next.extend(columns.map(|(column, &sum)| e.fma(a, one(b, column), sum)));
        next
    }
}
