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
//! # ABI
//! [`MicroFn`]: `fn(k, a, b, c, ldc, fresh)`.
//! - `a`: `k` rows of `panel` floats, of which the first `rows` are used (4-byte alignment);
//! - `b`: `k` rows of `columns` floats, aligned to the vector size;
//! - `c`: `rows` rows of `columns` floats, `ldc` floats apart (4-byte alignment);
//! - `fresh`: not 0 if C starts from zero instead of from what is there (then it is not read).

use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValue, BasicValueEnum, IntValue, PhiValue, PointerValue};

use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// A compiled micro-kernel; see the module's documentation.
pub type MicroFn =
    unsafe extern "C" fn(k: i64, a: *const f32, b: *const f32, c: *mut f32, ldc: i64, fresh: i64);

/// How far the loop over K is unrolled.
const UNROLL: u32 = 4;

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
        let (rows, vectors) = match target.lanes() {
            16 => (12, 2),
            8 => (6, 2),
            _ => (4, 2),
        };
        Tile {
            rows,
            vectors,
            lanes: target.lanes(),
        }
    }

    /// Floats in a row of C.
    pub fn columns(self) -> u32 {
        self.vectors * self.lanes
    }

    /// The numbers of rows that micro-kernels are made for: the last is the full tile.
    pub fn row_counts(self) -> impl Iterator<Item = u32> {
        [1, 2, 3, 4, 6, 8, 10, 12, 14]
            .into_iter()
            .filter(move |&rows| rows <= self.rows)
    }

    /// The symbol of the micro-kernel for `rows` rows.
    pub fn symbol(self, rows: u32, target: &Target) -> String {
        let isa = target.name().replace('-', "_");
        format!("gemm_f32xf32_f32_{rows}x{}_{isa}", self.columns())
    }
}

/// Writes the micro-kernel `symbol` for the first `rows` rows of `tile` into `module`.
pub fn emit_micro<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    tile: Tile,
    rows: u32,
) {
    Micro::new(context, module, symbol, tile, rows).emit();
}

struct Micro<'m, 'c> {
    e: Emit<'m, 'c>,
    tile: Tile,
    rows: u32,
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
        rows: u32,
    ) -> Self {
        let (int, ptr) = (
            context.i64_type().into(),
            context.ptr_type(Default::default()).into(),
        );
        let e = Emit::function(context, module, symbol, &[int, ptr, ptr, ptr, int, int]);
        for pointer in 1..4 {
            e.noalias(pointer);
        }
        Micro { e, tile, rows }
    }

    fn emit(self) {
        let e = &self.e;
        let k = e.int_argument(0);
        let start = Carried {
            k: e.int(0),
            a: e.pointer_argument(1),
            b: e.pointer_argument(2),
            sums: self.initial(),
        };
        let mask = e.int(-i64::from(UNROLL));
        let whole = e.builder.build_and(k, mask, "whole").expect(BUILT);
        let middle = self.run(start, whole, UNROLL);
        let end = self.run(middle, k, 1);
        for (index, sum) in end.sums.iter().enumerate() {
            e.store(*sum, self.c_at(index as u32), 4);
        }
        self.e.finish();
    }

    /// The address of vector `index` of the tile of C.
    fn c_at(&self, index: u32) -> PointerValue<'c> {
        let e = &self.e;
        let (row, vector) = (index / self.tile.vectors, index % self.tile.vectors);
        let base = e.at(
            e.f32(),
            e.pointer_argument(3),
            e.mul(e.int_argument(4), e.int(row.into())),
        );
        e.at(e.f32(), base, e.int((vector * self.tile.lanes).into()))
    }

    /// What the sums start from: zero, or C.
    fn initial(&self) -> Vec<BasicValueEnum<'c>> {
        let (e, kind) = (&self.e, self.e.vector(self.tile.lanes));
        let count = self.rows * self.tile.vectors;
        let entry = self.here();
        let [load, ready] = self.blocks(["load", "ready"]);
        let fresh = e.compare(IntPredicate::NE, e.int_argument(5), e.int(0));
        e.builder
            .build_conditional_branch(fresh, ready, load)
            .expect(BUILT);
        e.builder.position_at_end(load);
        let loaded: Vec<_> = (0..count)
            .map(|index| e.load(kind, self.c_at(index), 4))
            .collect();
        e.builder.build_unconditional_branch(ready).expect(BUILT);
        e.builder.position_at_end(ready);
        let zero = kind.const_zero();
        let merge = |value: BasicValueEnum<'c>| {
            self.phi(&[(&zero, entry), (&value, load)]).as_basic_value()
        };
        loaded.into_iter().map(merge).collect()
    }

    /// `while k < end { step k .. k + unroll }`; `end - k` is a multiple of `unroll`.
    fn run(&self, start: Carried<'c>, end: IntValue<'c>, unroll: u32) -> Carried<'c> {
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
            self.step(&mut next, step);
        }
        next.k = e.add(next.k, e.int(unroll.into()));
        next.a = e.at(e.f32(), next.a, e.int((unroll * self.tile.rows).into()));
        next.b = e.at(
            e.f32(),
            next.b,
            e.int((unroll * self.tile.columns()).into()),
        );
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

    /// One step of K: a row of B times each of the row of A.
    fn step(&self, carried: &mut Carried<'c>, step: u32) {
        let (e, tile) = (&self.e, self.tile);
        let kind = e.vector(tile.lanes);
        let b: Vec<_> = (0..tile.vectors)
            .map(|vector| {
                let offset = step * tile.columns() + vector * tile.lanes;
                e.load(
                    kind,
                    e.at(e.f32(), carried.b, e.int(offset.into())),
                    tile.lanes * 4,
                )
            })
            .collect();
        // One prefetch per cache line of 16 floats that this step enters.
        if (step * tile.rows) % 16 < tile.rows {
            let ahead = (step + AHEAD) * tile.rows;
            e.prefetch(carried.a, i64::from(4 * ahead));
        }
        for row in 0..self.rows {
            let from = e.at(e.f32(), carried.a, e.int((step * tile.rows + row).into()));
            let a = e.splat(e.load(e.f32(), from, 4), tile.lanes);
            for vector in 0..tile.vectors {
                let sum = &mut carried.sums[(row * tile.vectors + vector) as usize];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
    use crate::compilers::llvm_cpu::jit::{Jit, assembly, compile_module};

    fn all<'c>(
        target: &Target,
        tile: Tile,
    ) -> impl FnOnce(&'c Context, &Module<'c>) -> crate::error::Result<()> {
        move |context, module| {
            for rows in tile.row_counts() {
                emit_micro(context, module, &tile.symbol(rows, target), tile, rows);
            }
            Ok(())
        }
    }

    /// Every tile of a target against the definition, bit for bit, for fresh and continued C.
    fn check_bits(target: &Target) {
        let tile = Tile::of(target);
        let jit = Jit::new().unwrap();
        let object = compile_module(target, |c, m| all(target, tile)(c, m)).unwrap();
        jit.add_object(&object).unwrap();
        let (panel, columns) = (tile.rows as usize, tile.columns() as usize);
        let ldc = columns + 3;
        let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 7.0 - 6.0;
        for rows in tile.row_counts().map(|rows| rows as usize) {
            let address = jit.address(&tile.symbol(rows as u32, target)).unwrap();
            // SAFETY: a micro-kernel has this signature.
            let kernel = unsafe { std::mem::transmute::<*const (), MicroFn>(address) };
            for (k, fresh) in [
                (0, 1),
                (0, 0),
                (1, 1),
                (3, 0),
                (4, 1),
                (8, 0),
                (13, 1),
                (15, 0),
            ] {
                let a: Vec<f32> = (0..k * panel).map(value).collect();
                let mut b = vec![[0f32; 16]; (k * columns).div_ceil(16) + 1];
                let start = b.as_ptr().cast::<f32>().align_offset(64);
                let b = &mut b.as_flattened_mut()[start..];
                b.iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = value(i + 5));
                let mut c: Vec<f32> = (0..rows * ldc).map(|i| value(i + 9)).collect();
                let mut expected = c.clone();
                for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                    let c = &mut expected[i * ldc + j];
                    let start = if fresh != 0 { 0.0 } else { *c };
                    let products = (0..k).map(|p| (a[p * panel + i], b[p * columns + j]));
                    *c = products.fold(start, |sum, (a, b)| a.mul_add(b, sum));
                }
                // SAFETY: the slices are as large as the module's documentation asks, `b` aligned.
                unsafe {
                    kernel(
                        k as i64,
                        a.as_ptr(),
                        b.as_ptr(),
                        c.as_mut_ptr(),
                        ldc as i64,
                        fresh,
                    );
                }
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&c),
                    bits(&expected),
                    "{target} rows {rows} k {k} fresh {fresh}"
                );
            }
        }
    }

    #[test]
    fn tiles_compute_the_defined_bits_on_every_target_that_runs_here() {
        let mut ran = 0;
        for name in Target::known_names() {
            let target = Target::for_cpu(name).unwrap();
            if target.can_run_here() {
                check_bits(&target);
                ran += 1;
            }
        }
        assert!(ran >= 3, "native, scalar and the baseline run everywhere");
    }

    #[test]
    fn the_inner_loop_has_full_vectors_and_no_spills() {
        for (name, register) in [
            ("x86-64-v3", "ymm"),
            ("haswell", "ymm"),
            ("znver3", "ymm"),
            ("x86-64-v4", "zmm"),
            ("sapphirerapids", "zmm"),
            ("icelake-server", "zmm"),
            ("znver4", "zmm"),
            ("znver5", "zmm"),
        ] {
            let target = Target::for_cpu(name).unwrap();
            let tile = Tile::of(&target);
            let text = assembly(&target, |c, m| all(&target, tile)(c, m)).unwrap();
            for rows in tile.row_counts() {
                let inner = hot_loop(&text, &tile.symbol(rows, &target)).unwrap();
                let expected = (rows * tile.vectors * UNROLL) as usize;
                assert_eq!(
                    inner.fused(register),
                    expected,
                    "{name} {rows}\n{}",
                    inner.text
                );
                assert_eq!(inner.spills(), 0, "{name} {rows}\n{}", inner.text);
                assert_eq!(inner.calls(), 0, "{name} {rows}\n{}", inner.text);
            }
        }
    }

    #[test]
    fn a_tile_with_too_many_accumulators_is_seen_to_spill() {
        let target = Target::for_cpu("x86-64-v4").unwrap();
        let tile = Tile {
            rows: 14,
            vectors: 3,
            lanes: 16,
        };
        let text = assembly(&target, |c, m| all(&target, tile)(c, m)).unwrap();
        assert!(hot_loop(&text, &tile.symbol(14, &target)).unwrap().spills() > 0);
    }
}
