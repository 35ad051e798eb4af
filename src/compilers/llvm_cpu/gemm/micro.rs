//! The inner loop of matrix products: a tile of C kept in registers while K runs.
//!
//! `C[i][j] = fma(A[k][i], B[k][j], C[i][j])` for k = 0, 1, ... in this order, in every tile size
//! and vector width: each element is one sequential chain of fused multiply-adds, so the bits of a
//! product do not depend on the target, on the tile or on how K is cut into blocks (the chain
//! continues from what C holds).
//!
//! The accumulators are phi values, never memory. The loop over K is unrolled by four, with a
//! second loop for the rest.
//!
//! Tiles at the edges of C need no detour: the last vector of a row is loaded and stored under a mask where C ends
//! inside of it, and of two neighbouring numbers of rows one kernel serves both, which computes the last row twice.
//!
//! Where few rows use an element of B, it is read where it is: kernels for that ([`emit_direct`]) are told how far rows of
//! B are apart, read the last vector of each under the mask of C, and ask for the same rows' next columns.
//!
//! # ABI
//! [`MicroFn`]: `fn(k, a, b, c, ldc, fresh, rows, columns, next)`; [`DirectFn`] has `ldb` behind these.
//! - `a`: `k` rows of `panel` floats, of which the first ones are used (4-byte alignment);
//! - `b`: `k` rows of [`Tile::columns`] floats, aligned to the vector size;
//! - `c`: `rows` rows of `columns` floats, `ldc` floats apart (4-byte alignment);
//! - `fresh`: not 0 if C starts from zero instead of from what is there (then it is not read);
//! - `rows`: those of the kernel, or one less unless there is a kernel for that;
//! - `columns`: those in the kernel's vectors, the last of which has at least one;
//! - `next`: a tile of C, also `ldc` apart, that will be needed after this one; only asked for, not read;
//! - `ldb`: `b` is `k` rows of `columns` floats, `ldb` floats apart (4-byte alignment).

use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValue, BasicValueEnum, IntValue, PhiValue, PointerValue};

use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// A compiled micro-kernel; see the module's documentation.
pub type MicroFn = unsafe extern "C" fn(
    k: i64,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: i64,
    fresh: i64,
    rows: i64,
    columns: i64,
    next: *const f32,
);

/// A compiled micro-kernel that reads B where it is; see the module's documentation.
pub type DirectFn = unsafe extern "C" fn(
    k: i64,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: i64,
    fresh: i64,
    rows: i64,
    columns: i64,
    next: *const f32,
    ldb: i64,
);

/// How far the loop over K is unrolled.
pub(super) const UNROLL: u32 = 4;

/// How many steps of K ahead A is prefetched.
const AHEAD: u32 = 32;

/// The shape of the register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows of C, which are columns of a packed panel of A.
    pub rows: u32,
    /// Vectors in a row of C.
    pub vectors: u32,
    /// Floats in a vector.
    pub lanes: u32,
}

impl Tile {
    /// The tile that fills the registers of a target, leaving room for a row of B and one of A.
    pub fn of(target: &Target) -> Tile {
        Tile::all(target)[0]
    }

    /// The tiles that may be worth trying on a target, the usual one first: others need fewer loads of one operand and
    /// more of the other, or fit sizes better.
    pub fn all(target: &Target) -> Vec<Tile> {
        let lanes = target.lanes();
        let sizes: &[(u32, u32)] = match lanes {
            16 => &[(12, 2), (8, 3), (6, 4)],
            8 => &[(6, 2), (4, 3)],
            _ => &[(4, 2)],
        };
        let tile = |&(rows, vectors)| Tile {
            rows,
            vectors,
            lanes,
        };
        sizes.iter().map(tile).collect()
    }

    /// Floats in a row of C.
    pub fn columns(self) -> u32 {
        self.vectors * self.lanes
    }

    /// The sizes of C that micro-kernels are made for, as rows and vectors: the last is the full tile.
    pub fn kernels(self) -> impl Iterator<Item = (u32, u32)> {
        let rows = [1, 2, 3, 4, 6, 8, 10, 12, 14]
            .into_iter()
            .filter(move |&rows| rows <= self.rows);
        rows.flat_map(move |rows| (1..=self.vectors).map(move |vectors| (rows, vectors)))
    }

    /// All sizes of a part of C, as rows and vectors, in the order in which kernels are kept.
    pub fn parts(self) -> impl Iterator<Item = (u32, u32)> {
        (1..=self.rows).flat_map(move |rows| (1..=self.vectors).map(move |vectors| (rows, vectors)))
    }

    /// The symbol of the micro-kernel for so many rows and vectors.
    pub fn symbol(self, (rows, vectors): (u32, u32), target: &Target) -> String {
        let isa = target.symbol_part();
        let columns = vectors * self.lanes;
        let of = match (rows, vectors) == (self.rows, self.vectors) {
            true => String::new(),
            false => format!("_of_{}x{}", self.rows, self.columns()),
        };
        format!("gemm_f32xf32_f32_{rows}x{columns}{of}_{isa}")
    }
}

/// Writes the micro-kernel `symbol` for the first rows and vectors of `tile` into `module`.
pub fn emit_micro<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    tile: Tile,
    size: (u32, u32),
) {
    Micro::new(context, module, symbol, tile, size, Source::Panel).emit();
}

/// Writes the micro-kernel `symbol` that reads B where it is, for the first rows and vectors of `tile`, into `module`. The
/// target has masked loads.
pub fn emit_direct<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    tile: Tile,
    size: (u32, u32),
) {
    Micro::new(context, module, symbol, tile, size, Source::Rows).emit();
}

/// Where B is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// In a packed panel.
    Panel,
    /// Where it is.
    Rows,
}

struct Micro<'m, 'c> {
    e: Emit<'m, 'c>,
    tile: Tile,
    rows: u32,
    vectors: u32,
    source: Source,
}

/// What a loop over K carries from step to step.
struct Carried<'c> {
    k: IntValue<'c>,
    a: PointerValue<'c>,
    b: PointerValue<'c>,
    sums: Vec<BasicValueEnum<'c>>,
}

impl<'c> Carried<'c> {
    fn values(self) -> Vec<BasicValueEnum<'c>> {
        [vec![self.k.into(), self.a.into(), self.b.into()], self.sums].concat()
    }

    /// The inverse of `values`.
    fn of(mut values: impl Iterator<Item = BasicValueEnum<'c>>) -> Carried<'c> {
        let mut next = || values.next().expect("k, a and b come first");
        Carried {
            k: next().into_int_value(),
            a: next().into_pointer_value(),
            b: next().into_pointer_value(),
            sums: values.collect(),
        }
    }
}

impl<'m, 'c> Micro<'m, 'c> {
    fn new(
        context: &'c Context,
        module: &'m Module<'c>,
        symbol: &str,
        tile: Tile,
        (rows, vectors): (u32, u32),
        source: Source,
    ) -> Micro<'m, 'c> {
        let (int, ptr) = (
            context.i64_type().into(),
            context.ptr_type(Default::default()).into(),
        );
        let mut kinds = vec![int, ptr, ptr, ptr, int, int, int, int, ptr];
        if source == Source::Rows {
            kinds.push(int);
        }
        let e = Emit::function(context, module, symbol, &kinds);
        for pointer in 1..4 {
            e.noalias(pointer);
        }
        Micro {
            e,
            tile,
            rows,
            vectors,
            source,
        }
    }

    fn emit(self) {
        let e = &self.e;
        let k = e.int_argument(0);
        let columns = e.int((self.vectors * self.tile.lanes).into());
        let whole = e.compare(IntPredicate::EQ, e.int_argument(7), columns);
        self.prefetch_next();
        let start = Carried {
            k: e.int(0),
            a: e.pointer_argument(1),
            b: e.pointer_argument(2),
            sums: self.initial(whole),
        };
        let mask = e.int(-i64::from(UNROLL));
        let steps = e.builder.build_and(k, mask, "steps").expect(BUILT);
        let valid = self.mask().filter(|_| self.source == Source::Rows);
        let middle = self.run(start, steps, UNROLL, valid);
        let end = self.run(middle, k, 1, valid);
        e.branch(
            whole,
            || self.store(&end.sums, None),
            || self.store(&end.sums, self.mask()),
        );
        self.e.finish();
    }

    /// Asks for the tile of C after this one: it is in L2 when its turn comes.
    fn prefetch_next(&self) {
        let e = &self.e;
        for row in 0..self.rows {
            let offset = e.mul(e.int_argument(4), e.int(row.into()));
            let line = e.at(e.f32(), e.pointer_argument(8), offset);
            for bytes in (0..4 * self.vectors * self.tile.lanes).step_by(64) {
                e.prefetch(line, bytes.into(), 2);
            }
        }
    }

    /// Which lanes of a row's last vector are in C; nothing if there is only one lane.
    fn mask(&self) -> Option<BasicValueEnum<'c>> {
        let (e, lanes) = (&self.e, self.tile.lanes);
        let before = e.int(((self.vectors - 1) * lanes).into());
        let rest = e.sub(e.int_argument(7), before);
        (lanes > 1).then(|| e.lanes_below(lanes, rest))
    }

    /// The address of a vector of the tile of C, and whether it is its row's last.
    fn c_at(&self, index: usize) -> (PointerValue<'c>, bool) {
        let e = &self.e;
        let (row, vector) = (index as u32 / self.vectors, index as u32 % self.vectors);
        let mut at = e.int(row.into());
        if row > 0 && row + 1 == self.rows {
            // It may be one too many: then it is the row before.
            at = e.min(at, e.sub(e.int_argument(6), e.int(1)));
        }
        let base = e.at(e.f32(), e.pointer_argument(3), e.mul(e.int_argument(4), at));
        let address = e.at(e.f32(), base, e.int((vector * self.tile.lanes).into()));
        (address, vector + 1 == self.vectors)
    }

    /// C in registers.
    fn load(&self, mask: Option<BasicValueEnum<'c>>) -> Vec<BasicValueEnum<'c>> {
        let (e, kind) = (&self.e, self.e.vector(self.tile.lanes));
        let load = |index| match (self.c_at(index), mask) {
            ((from, true), Some(mask)) => e.masked_load(kind, from, mask),
            ((from, _), _) => e.load(kind, from, 4),
        };
        (0..(self.rows * self.vectors) as usize).map(load).collect()
    }

    /// The sums into C, the last row first: where it is one too many, the right one overwrites it.
    fn store(&self, sums: &[BasicValueEnum<'c>], mask: Option<BasicValueEnum<'c>>) {
        for (index, &sum) in sums.iter().enumerate().rev() {
            match (self.c_at(index), mask) {
                ((to, true), Some(mask)) => self.e.masked_store(sum, to, mask),
                ((to, _), _) => self.e.store(sum, to, 4),
            }
        }
    }

    /// What the sums start from: zero, or C.
    fn initial(&self, whole: IntValue<'c>) -> Vec<BasicValueEnum<'c>> {
        let (e, kind) = (&self.e, self.e.vector(self.tile.lanes));
        let entry = self.here();
        let [old, plain, masked, ready] = self.blocks(["old", "plain", "masked", "ready"]);
        let fresh = e.compare(IntPredicate::NE, e.int_argument(5), e.int(0));
        let jump = |when, yes, no| {
            e.builder
                .build_conditional_branch(when, yes, no)
                .expect(BUILT)
        };
        jump(fresh, ready, old);
        e.builder.position_at_end(old);
        jump(whole, plain, masked);
        let loaded = [
            (plain, None),
            (masked, self.tile.lanes.gt(&1).then_some(())),
        ];
        let loaded = loaded.map(|(block, partial)| {
            e.builder.position_at_end(block);
            let values = self.load(partial.and_then(|()| self.mask()));
            e.builder.build_unconditional_branch(ready).expect(BUILT);
            values
        });
        e.builder.position_at_end(ready);
        let zero = kind.const_zero();
        let each = loaded[0].iter().zip(&loaded[1]);
        each.map(|(a, b)| {
            self.phi(&[(&zero, entry), (a, plain), (b, masked)])
                .as_basic_value()
        })
        .collect()
    }

    /// `while k < end { step k .. k + unroll }`; `end - k` is a multiple of `unroll`. Of each row's last vector of B only
    /// what is `valid` is read, if given.
    fn run(
        &self,
        start: Carried<'c>,
        end: IntValue<'c>,
        unroll: u32,
        valid: Option<BasicValueEnum<'c>>,
    ) -> Carried<'c> {
        let e = &self.e;
        let before = self.here();
        let [body, after] = self.blocks(["steps", "stepped"]);
        let any = e.compare(IntPredicate::SLT, start.k, end);
        e.builder
            .build_conditional_branch(any, body, after)
            .expect(BUILT);

        e.builder.position_at_end(body);
        let start = start.values();
        let phis: Vec<_> = start
            .iter()
            .map(|value| self.phi(&[(value, before)]))
            .collect();
        let mut next = Carried::of(phis.iter().map(|phi| phi.as_basic_value()));
        for step in 0..unroll {
            self.step(&mut next, step, valid);
        }
        next.k = e.add(next.k, e.int(unroll.into()));
        next.a = e.at(e.f32(), next.a, e.int((unroll * self.tile.rows).into()));
        next.b = self.b_at(next.b, unroll);
        let more = e.compare(IntPredicate::SLT, next.k, end);
        e.builder
            .build_conditional_branch(more, body, after)
            .expect(BUILT);
        let next = next.values();
        for (phi, value) in phis.iter().zip(&next) {
            phi.add_incoming(&[(value, body)]);
        }

        e.builder.position_at_end(after);
        let both = start.iter().zip(&next);
        Carried::of(both.map(|(old, new)| self.phi(&[(old, before), (new, body)]).as_basic_value()))
    }

    /// The row of B `steps` behind `b`.
    fn b_at(&self, b: PointerValue<'c>, steps: u32) -> PointerValue<'c> {
        let e = &self.e;
        let Source::Rows = self.source else {
            return e.at(e.f32(), b, e.int((steps * self.tile.columns()).into()));
        };
        let offset = e.mul(e.int_argument(9), e.int(steps.into()));
        // SAFETY: not marked `inbounds`: behind the last row it may lie outside of the operand, and is not read then.
        let row = unsafe { e.builder.build_gep(e.f32(), b, &[offset], "") };
        row.expect(BUILT)
    }

    /// The vectors of a row of B.
    fn row_of_b(
        &self,
        row: PointerValue<'c>,
        valid: Option<BasicValueEnum<'c>>,
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, tile) = (&self.e, self.tile);
        let kind = e.vector(tile.lanes);
        let load = |vector: u32| {
            let from = e.at(e.f32(), row, e.int((vector * tile.lanes).into()));
            let align = match self.source {
                Source::Panel => tile.lanes * 4,
                Source::Rows => 4,
            };
            match valid.filter(|_| vector + 1 == self.vectors) {
                Some(valid) => e.masked_load(kind, from, valid),
                None => e.load(kind, from, align),
            }
        };
        let values = (0..self.vectors).map(load).collect();
        if self.source == Source::Rows {
            let bytes = 4 * tile.columns();
            for line in (0..bytes).step_by(64) {
                e.prefetch(row, (bytes + line).into(), 2);
            }
        }
        values
    }

    /// One step of K: a row of B times each of the row of A.
    fn step(&self, carried: &mut Carried<'c>, step: u32, valid: Option<BasicValueEnum<'c>>) {
        let (e, tile) = (&self.e, self.tile);
        let b = self.row_of_b(self.b_at(carried.b, step), valid);
        // One prefetch per cache line of 16 floats that this step enters.
        if (step * tile.rows) % 16 < tile.rows {
            let ahead = (step + AHEAD) * tile.rows;
            e.prefetch(carried.a, i64::from(4 * ahead), 3);
        }
        for row in 0..self.rows {
            let from = e.at(e.f32(), carried.a, e.int((step * tile.rows + row).into()));
            let a = e.splat(e.load(e.f32(), from, 4), tile.lanes);
            for vector in 0..self.vectors {
                let sum = &mut carried.sums[(row * self.vectors + vector) as usize];
                *sum = e.fma(a, b[vector as usize], *sum);
            }
        }
    }

    fn phi(&self, incoming: &[(&dyn BasicValue<'c>, BasicBlock<'c>)]) -> PhiValue<'c> {
        let kind = incoming[0].0.as_basic_value_enum().get_type();
        let phi = self.e.builder.build_phi(kind, "").expect(BUILT);
        phi.add_incoming(incoming);
        phi
    }

    fn here(&self) -> BasicBlock<'c> {
        self.e.builder.get_insert_block().expect("positioned")
    }

    fn blocks<const N: usize>(&self, names: [&str; N]) -> [BasicBlock<'c>; N] {
        names.map(|name| self.e.context.append_basic_block(self.e.function, name))
    }
}
