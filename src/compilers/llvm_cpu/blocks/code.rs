//! Products with block weights, linked: what they need, and who calls what. The module `run` has the loops around kernels.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::activations::record_bytes;
use super::compiled::{Functions, Lookups};
use super::form::{Dots, Form};
use super::ir::{BlockProduct, Part};
use super::lookup::{PANELS, TABLE_BYTES};
use super::run::{Pack, Run};
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::compilers::llvm_cpu::jit::Jit;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{KernelCall, NativeCode, Packing, Work};
use crate::shape::Symbols;
use crate::storage::ALIGNMENT;

/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 18;

/// A product with block weights that can be run.
#[derive(Debug)]
pub struct BlockCode {
    pub(super) name: String,
    pub(super) key: u64,
    pub(super) product: BlockProduct,
    pub(super) form: Form,
    pub(super) dots: Dots,
    /// Of each part.
    pub(super) packings: Vec<Packing>,
    pub(super) functions: Functions,
    pub(super) _jit: Arc<Jit>,
}

/// The most rows of activations whose products are looked up where an instruction multiplies fours of bytes: more are
/// multiplied faster then.
const LOOKED_UP: usize = 2;

/// Shares of the rows that each thread has, where it has rows of its own: none waits long for the others in the end.
const SHARES: usize = 8;

/// Rows below which a share of them is not worth going through all panels.
const FEWEST: usize = 4;

/// Bytes of records and tables that stay in a thread's second cache while panels pass.
const TABLES: usize = 384 << 10;

impl BlockCode {
    /// The same code, whose panels are kept in files of a folder.
    pub fn with_folder(mut self, folder: Option<&Path>) -> BlockCode {
        for packing in &mut self.packings {
            packing.folder = folder.map(Path::to_path_buf);
        }
        self
    }

    pub(super) fn record_bytes(&self) -> usize {
        record_bytes(self.product.n_groups(), self.dots)
    }

    /// The kernels that look up the products of `m` rows, if they do.
    fn lookups(&self, m: usize) -> Option<&Lookups> {
        let most = match self.dots {
            Dots::Vnni => LOOKED_UP,
            _ => usize::MAX,
        };
        self.functions.lookups.as_ref().filter(|_| m <= most)
    }

    /// How many of `m` rows are looked up before the next ones.
    fn looked_up_at_once(&self, m: usize) -> usize {
        let fitting = TABLES / self.looked_up_row() / 2 * 2;
        m.min(fitting.max(2))
    }

    /// Bytes of a row's record and the tables behind it.
    pub(super) fn looked_up_row(&self) -> usize {
        self.record_bytes() + self.product.n_groups() * TABLE_BYTES
    }

    /// Bytes of what a thread makes of rows to look their products up, where there are `m`.
    pub(super) fn looked_up_bytes(&self, m: usize) -> usize {
        self.looked_up_at_once(m) * self.looked_up_row()
    }

    fn n_panels(&self) -> usize {
        self.product.parts.iter().map(Part::n_panels).sum()
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(&self) -> usize {
        let bytes = self.form.panel_bytes(self.product.n_blocks());
        bytes.iter().sum()
    }

    /// Where a panel begins in each region, from the beginning of so many.
    pub(super) fn panel(&self, n_panels: usize, at: usize) -> [usize; 3] {
        let bytes = self.form.panel_bytes(self.product.n_blocks());
        let before = [0, bytes[0], bytes[0] + bytes[1]].map(|bytes| bytes * n_panels);
        std::array::from_fn(|i| before[i] + at * bytes[i])
    }

    /// Whether products can do without panels that are kept.
    fn can_wait(&self) -> bool {
        self.functions.turn.is_some()
    }

    /// Panels that a thread has room for when none are kept.
    pub(super) fn room(&self) -> usize {
        match self.functions.lookups {
            Some(_) => PANELS,
            None => 1,
        }
    }

    /// Bytes of that room.
    pub(super) fn room_bytes(&self) -> usize {
        let bytes = self.room() * self.panel_bytes();
        match self.can_wait() {
            true => bytes.next_multiple_of(ALIGNMENT),
            false => 0,
        }
    }

    /// All rows by all panels, through tables.
    fn look_up(&self, run: &Run<'_>, lookups: &Lookups, (n_threads, n_panels): (usize, usize)) {
        let m = run.m;
        let at_once = self.looked_up_at_once(m).max(1);
        let rows = |i: usize, each: usize| i * each..((i + 1) * each).min(m);
        // Where there are rows enough, each thread has some of its own, and nobody makes tables that another one makes.
        let few = (m / (SHARES * n_threads) / 2 * 2).min(at_once);
        if few >= FEWEST {
            let some = |thread, range: Range<usize>| {
                for i in range {
                    run.make_tables(lookups, thread, rows(i, few));
                    run.look_up(lookups, thread, (rows(i, few), 0..n_panels));
                }
            };
            return pool::for_each_range_after(n_threads, m.div_ceil(few), &|_| (), &some);
        }
        for i in 0..m.div_ceil(at_once) {
            let begin = |thread| run.make_tables(lookups, thread, rows(i, at_once));
            // As many panels at once as the largest kernel takes.
            let look_up = |thread, fours: Range<usize>| {
                let panels = fours.start * PANELS..(fours.end * PANELS).min(n_panels);
                run.look_up(lookups, thread, (rows(i, at_once), panels));
            };
            pool::for_each_range_after(n_threads, n_panels.div_ceil(PANELS), &begin, &look_up);
        }
    }
}

impl NativeCode for BlockCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&[self.product.m], symbols, params)?;
        let m = params[start].max(0) as usize;
        let cost = m
            .saturating_mul(self.product.n())
            .saturating_mul(self.product.k);
        let n_threads = if cost < SERIAL { 1 } else { n_threads };
        let activations = match self.lookups(m) {
            Some(_) => n_threads * self.looked_up_bytes(m),
            None => m * self.record_bytes(),
        };
        Ok(Work {
            units: self.n_panels(),
            cost,
            n_threads,
            scratch_bytes: n_threads * self.room_bytes() + activations,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.product.m], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let m = call.params[0].max(0) as usize;
        let n_parts = self.product.parts.len();
        let (operands, panels) = call.buffers.split_at(call.buffers.len() - n_parts);
        let [.., out] = operands else {
            unreachable!("operands and the result come before packed weights");
        };
        let (n_threads, n_panels) = (call.work.n_threads, call.work.units);
        let run = Run {
            code: self,
            m,
            activations: call.buffers[self.product.activations].cast_const().cast(),
            operands,
            panels,
            out: out.cast(),
            rooms: call.scratch,
            scratch: call.scratch.wrapping_add(n_threads * self.room_bytes()),
        };
        if let Some(lookups) = self.lookups(m) {
            self.look_up(&run, lookups, (n_threads, n_panels));
            return Ok(());
        }
        // A single row is rounded faster than a thread starts.
        let rounding = if m * self.product.k < SERIAL {
            1
        } else {
            n_threads
        };
        pool::for_each_range(rounding, m, &|rows| rows.for_each(|row| run.round(row)));
        let multiply = |thread, panels| run.multiply(thread, panels);
        pool::for_each_range_after(n_threads, n_panels, &|_| (), &multiply);
        Ok(())
    }

    fn packings(&self) -> &[Packing] {
        &self.packings
    }

    // SAFETY: the trait's contract: `from` has all rows of a part, `to` room for all its panels.
    unsafe fn pack(&self, number: usize, from: *const u8, to: *mut u8, n_threads: usize) {
        let part = self.product.parts[number];
        let n_panels = part.n_panels();
        let all = Pack {
            code: self,
            part,
            rows: from,
            panels: to,
            n_panels,
        };
        pool::for_each_range(n_threads, n_panels, &|panels| {
            panels.for_each(|at| all.panel(at, at));
        });
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiled::{CompiledBlocks, assembly};
    use super::super::form::COLUMNS;
    use super::super::panel;
    use super::*;
    use crate::blocks::BlockType;
    use crate::compilers::llvm_cpu::cache::ObjectCache;
    use crate::compilers::llvm_cpu::target::Target;
    use crate::op::ActivationScheme as Scheme;

    fn product(scheme: Scheme, ty: BlockType, n: usize) -> BlockProduct {
        BlockProduct {
            ty,
            scheme,
            m: 's'.into(),
            k: 512,
            activations: 0,
            parts: [Part { weights: 1, n }].into_iter().collect(),
        }
    }

    fn code(scheme: Scheme, ty: BlockType, target: &str, n: usize) -> Option<BlockCode> {
        let target = Target::for_cpu(target).unwrap();
        let product = product(scheme, ty, n);
        let kernels = CompiledBlocks::of(&product, &target, &ObjectCache::disabled()).unwrap();
        let jit = Arc::new(Jit::new().unwrap());
        target
            .can_run_here()
            .then(|| kernels.link(&product, ("test".into(), 1), &jit).unwrap())
    }

    /// Bytes of scratch memory with so many rows, beyond their records.
    fn tables(code: &BlockCode, m: usize) -> usize {
        let mut symbols = Symbols::default();
        symbols.set('s', m as i64);
        let bytes = |n_threads| {
            let work = code.prepare(&symbols, n_threads, &mut Vec::new());
            work.unwrap().scratch_bytes
        };
        assert_eq!(bytes(1), bytes(3), "too little work for several");
        bytes(1) - code.room_bytes() - m * code.record_bytes()
    }

    #[test]
    fn panels_are_looked_up_by_fours_and_blocks_are_asked_for_into_the_first_cache() {
        let target = Target::for_cpu("x86-64-v3").unwrap();
        let text = |ty| {
            let product = product(Scheme::for_weights(ty), ty, 40);
            assembly(&product, &target).unwrap()
        };
        let (signs, nibbles) = (text(BlockType::Q1_0), text(BlockType::Q4_0));
        assert!(signs.contains("\nblock_lookup_Q1_0_1x4x16_"), "{signs}");
        let asked = |text: &str, instruction| text.matches(instruction).count() > 0;
        assert!(asked(&nibbles, "prefetcht0") && !asked(&nibbles, "prefetcht1"));
        assert!(asked(&signs, "prefetcht1"), "tables are in the first cache");
    }

    #[test]
    fn what_pays_for_unsigned_numbers_is_added_once_for_a_block() {
        let target = Target::for_cpu("znver4").unwrap();
        let text = assembly(&product(Scheme::A8G128, BlockType::Q1_0, 40), &target).unwrap();
        let kernel = text.split("\nblocks_Q1_0_4_12x16_").nth(1).unwrap();
        let kernel = &kernel[..kernel.find("retq").unwrap()];
        let count = |instruction| kernel.matches(instruction).count();
        assert_eq!(count("vpdpbusd"), 12 * 8);
        // One for each row, before the loop over a block's groups, and nothing else is read into all lanes but activations.
        assert_eq!(count("vpbroadcastd"), 12);
        assert_eq!(count("{1to16}"), 12 * 8 + 12);
    }

    #[test]
    fn threads_that_share_a_product_have_tables_of_their_own() {
        let symbols = Symbols::from_iter([('s', 1)]);
        for (ty, of_each) in [(BlockType::Q1_0, 3), (BlockType::Q4_0, 1)] {
            let scheme = Scheme::for_weights(ty);
            let Some(code) = code(scheme, ty, "x86-64-v3", 1024) else {
                return;
            };
            let bytes = |n_threads| {
                let work = code.prepare(&symbols, n_threads, &mut Vec::new());
                work.unwrap().scratch_bytes - n_threads * code.room_bytes()
            };
            assert_eq!(bytes(3), of_each * bytes(1), "{ty}");
        }
    }

    #[test]
    fn products_with_signs_are_looked_up_where_that_is_faster() {
        let Some(code_of_signs) = code(Scheme::A8G128, BlockType::Q1_0, "x86-64-v3", 40) else {
            return;
        };
        let of_row = 512 / 32 * 256;
        assert_eq!(tables(&code_of_signs, 1), of_row);
        assert_eq!(tables(&code_of_signs, 3), 3 * of_row);
        // Not more than a cache holds.
        let bytes = code_of_signs.looked_up_bytes(100_000);
        assert!((TABLES - 2 * code_of_signs.looked_up_row()..=TABLES).contains(&bytes));
        // Bytes are multiplied faster, where an instruction adds up four products.
        if let Some(code) = code(Scheme::A8G128, BlockType::Q1_0, "znver4", 40) {
            assert_eq!([1, 2].map(|m| tables(&code, m)), [of_row, 2 * of_row]);
            assert_eq!(tables(&code, 3), 0);
        }
        // Scales for shorter groups; more than a bit; no vectors.
        for (scheme, ty, target) in [
            (Scheme::A8G32, BlockType::Q1_0, "x86-64-v3"),
            (Scheme::A8G256, BlockType::TQ2_0, "x86-64-v3"),
            (Scheme::A8G128, BlockType::Q1_0, "scalar"),
        ] {
            let code = code(scheme, ty, target, 40).expect("it runs here");
            assert_eq!(tables(&code, 1), 0, "{scheme:?} {ty} {target}");
        }
    }

    /// Targets with vectors.
    const VECTORS: [&str; 3] = ["x86-64-v3", "native", "znver4"];

    /// Types of which functions lay panels out.
    const TURNED: [BlockType; 4] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q8_0,
        BlockType::Q1_0,
    ];

    /// Any blocks, whose scales are numbers.
    fn rows(ty: BlockType, n: usize) -> Vec<u8> {
        let bytes = (0..n * 512 / ty.block_len() * ty.block_bytes()).map(|i| (i * 89 % 251) as u8);
        let mut bytes: Vec<u8> = bytes.collect();
        for (i, block) in bytes.chunks_exact_mut(ty.block_bytes()).enumerate() {
            for &at in ty.scale_offsets() {
                let scale = half::f16::from_f32(0.5 + (i % 7) as f32);
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        bytes
    }

    /// Both panels and a part of another, in memory that vectors can be stored to.
    fn packed(code: &BlockCode, rows: &[u8]) -> crate::storage::AlignedBytes {
        let mut panels = crate::storage::AlignedBytes::try_zeroed(code.packings[0].bytes).unwrap();
        // SAFETY: rows of all columns, and the packing's bytes.
        unsafe { code.pack(0, rows.as_ptr(), panels.as_mut_slice().as_mut_ptr(), 1) };
        panels
    }

    #[test]
    fn panels_that_are_turned_are_those_that_are_written_word_by_word() {
        let n = 2 * COLUMNS + 5;
        let turned = TURNED.map(|ty| (ty, true));
        let all = turned.into_iter().chain([(BlockType::Q4_K, false)]);
        for ((ty, turns), cpu) in all.flat_map(|ty| VECTORS.map(|cpu| (ty, cpu))) {
            let Some(code) = code(Scheme::for_weights(ty), ty, cpu, n) else {
                continue;
            };
            assert_eq!(code.can_wait(), turns, "{ty}");
            let rows = rows(ty, n);
            let found = packed(&code, &rows);
            let blocks = code.product.n_blocks();
            let sizes = code.form.panel_bytes(blocks);
            for (at, rows) in rows.chunks(COLUMNS * code.product.row_bytes()).enumerate() {
                let mut panel = sizes.map(|bytes| vec![0; bytes]);
                panel::pack(ty, rows, blocks, panel.each_mut().map(|r| &mut r[..]));
                for ((expected, from), bytes) in panel.iter().zip(code.panel(3, at)).zip(sizes) {
                    let found = &found.as_slice()[from..][..bytes];
                    assert!(found == expected, "{ty} {cpu} panel {at}");
                }
            }
        }
    }

    #[test]
    fn products_are_the_same_without_panels_that_are_kept() {
        let n = 6 * COLUMNS + 5;
        for (ty, cpu) in TURNED.iter().flat_map(|&ty| VECTORS.map(|cpu| (ty, cpu))) {
            let Some(code) = code(Scheme::for_weights(ty), ty, cpu, n) else {
                continue;
            };
            let rows = rows(ty, n);
            let panels = packed(&code, &rows);
            for m in [1, 2, 3, 29] {
                let x: Vec<f32> = (0..m * 512).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
                let run = |panels: *const u8, n_threads: usize| {
                    let mut params = Vec::new();
                    let symbols = Symbols::from_iter([('s', m as i64)]);
                    let mut work = code.prepare(&symbols, n_threads, &mut params).unwrap();
                    // Whatever it costs.
                    (work.n_threads, work.scratch_bytes) = (n_threads, 4 * work.scratch_bytes);
                    let mut scratch =
                        crate::storage::AlignedBytes::try_zeroed(work.scratch_bytes).unwrap();
                    let mut y = vec![f32::NAN; m * n];
                    let operands = [x.as_ptr().cast(), rows.as_ptr()].map(<*const u8>::cast_mut);
                    let call = KernelCall {
                        buffers: &[
                            operands[0],
                            operands[1],
                            y.as_mut_ptr().cast(),
                            panels.cast_mut(),
                        ],
                        scratch: scratch.as_mut_slice().as_mut_ptr(),
                        params: &params,
                        work,
                    };
                    // SAFETY: buffers of the product's sizes, and what `pack` wrote or nothing.
                    unsafe { code.run(&call) }.unwrap();
                    y
                };
                let expected = run(panels.as_slice().as_ptr(), 1);
                assert!(expected.iter().all(|y| y.is_finite()));
                for n_threads in [1, 3] {
                    let found = run(std::ptr::null(), n_threads);
                    assert!(
                        found == expected,
                        "{ty} {cpu} {m} rows, {n_threads} threads"
                    );
                }
            }
        }
    }
}
