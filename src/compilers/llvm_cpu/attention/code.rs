//! The code of an attention kernel: its three parts, and how memory is laid out for them.
//!
//! With few rows (a decoding step) packing does not pay: threads take heads, and each goes through the three parts of its own
//! ones, or the three parts run one after the other. Otherwise [`super::run`] goes through blocks of rows.

use std::sync::atomic::AtomicI64;

use smallvec::SmallVec;

use super::parts::From;
use super::reach::Reach;
use super::run::Run;
use crate::compilers::llvm_cpu::code::{
    GemmCode, NARROW, NestCode, Prepared, evaluate, has, prepare, reported, take,
};
use crate::compilers::llvm_cpu::gemm::Sizes;
use crate::error::Result;
use crate::op::{KernelCall, NativeCode, Work};
use crate::shape::{Expr, Symbols};

/// Keys in a block: values are packed and skipped by as many.
pub(super) const KEYS: usize = 128;

/// Bytes of scores and weights that one thread works on: half of a small L2 cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Bytes of packed keys and values at a time, unless one batch needs more.
const PACKED_BYTES: usize = 4 << 20;

/// The most tiles of rows in a block.
const MAX_TILES: usize = 8;

/// Multiply-adds below which a second thread costs more than it brings.
const WORK: usize = 1 << 18;

/// The alignment of every piece of scratch memory, in floats.
const LINE: usize = 16;

/// A compiled attention kernel.
#[derive(Debug)]
pub struct AttentionCode {
    pub(in crate::compilers::llvm_cpu) name: String,
    pub(in crate::compilers::llvm_cpu) key: u64,
    pub(in crate::compilers::llvm_cpu) scores: GemmCode,
    pub(in crate::compilers::llvm_cpu) rows: NestCode,
    pub(in crate::compilers::llvm_cpu) values: GemmCode,
    /// Where the operands of the three parts come from.
    pub(in crate::compilers::llvm_cpu) operands: [Vec<From>; 3],
    /// The dims whose points are the rows of scores.
    pub(in crate::compilers::llvm_cpu) space: Vec<Expr>,
    pub(in crate::compilers::llvm_cpu) reach: Option<Reach>,
}

/// Sizes and lengths of one execution, all lengths in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) scores: Sizes,
    pub(super) values: Sizes,
    /// Whether the parts run one after the other.
    pub(super) whole: bool,
    /// Batches packed at a time.
    pub(super) batches: usize,
    /// Packed keys and packed values of one batch.
    pub(super) keys_len: usize,
    pub(super) values_len: usize,
    /// Query rows in a block.
    pub(super) block: usize,
    /// Scores of a block, or all of them.
    pub(super) scores_len: usize,
    /// What the products work in.
    pub(super) product_len: usize,
}

impl Layout {
    pub(super) fn packed_len(&self) -> usize {
        self.batches * (self.keys_len + self.values_len)
    }

    /// Scratch memory of one thread.
    pub(super) fn thread_len(&self) -> usize {
        2 * self.scores_len + self.product_len
    }
}

impl AttentionCode {
    fn layout(&self, parts: &[Prepared<'_>; 3]) -> Layout {
        let (keys, queries) = (&self.scores.gemm, &self.values.gemm);
        let scores = keys.sizes(parts[0].params);
        let values = queries.sizes(parts[2].params);
        let n = scores.n;
        // Few keys or narrow values are no reason: then all scores of many rows would be in memory.
        // Blocks are read where they are in both products, or packed in both.
        let few_rows = match keys.reads_blocks() || queries.reads_blocks() {
            true => self.scores.is_unpacked(scores) && self.values.is_unpacked(values),
            false => scores.m <= n && self.scores.is_few(scores),
        };
        let whole = few_rows || scores.m <= NARROW || [scores.m, n, scores.k].contains(&0);
        if whole {
            let bytes = parts.iter().map(|part| part.work.scratch_bytes).max();
            return Layout {
                scores,
                values,
                whole,
                batches: 0,
                keys_len: 0,
                values_len: 0,
                block: scores.m,
                scores_len: (scores.batch * scores.m * n).next_multiple_of(LINE),
                product_len: bytes.unwrap_or(0).div_ceil(4).next_multiple_of(LINE),
            };
        }
        let tile = keys.tile_rows().max(queries.tile_rows());
        let fitting = BLOCK_BYTES / (8 * n) / tile * tile;
        let all = scores.m.next_multiple_of(tile);
        let block = fitting.clamp(tile, MAX_TILES * tile).min(all);
        let keys_len = keys.packed_batch_len(scores);
        let values_len = queries.packed_batch_len(values);
        let batches = PACKED_BYTES / 4 / (keys_len + values_len).max(1);
        Layout {
            scores,
            values,
            whole,
            batches: batches.clamp(1, scores.batch.max(1)),
            keys_len,
            values_len,
            block,
            scores_len: (block * n).next_multiple_of(LINE),
            product_len: keys
                .rows_scratch(block, scores.k)
                .max(queries.rows_scratch(block, KEYS)),
        }
    }

    /// How many threads take heads of few rows, if that is the way: operands are read where they are, and heads come out
    /// about even, since none is shared.
    fn by_heads(&self, layout: &Layout, threads: usize) -> Option<usize> {
        let Layout { scores, values, .. } = *layout;
        let is_there = ![scores.batch, scores.m, scores.n, scores.k].contains(&0);
        let can = self.scores.gemm.has_dots(scores) && self.values.gemm.has_sums(values);
        let work = |sizes: Sizes| sizes.batch * sizes.m * sizes.n * sizes.k;
        let threads = match work(scores) + work(values) < WORK {
            true => 1,
            false => threads.max(1),
        };
        let turns = scores.batch.div_ceil(threads);
        let is_even = 4 * turns * threads <= 5 * scores.batch;
        (layout.whole && is_there && can && is_even).then_some(threads)
    }

    /// What [`NativeCode::prepare`] appended: the parts, the sizes of the rows' dims, the numbers of `reach`.
    fn prepared<'a>(&self, mut params: &'a [i64]) -> ([Prepared<'a>; 3], &'a [i64], &'a [i64]) {
        let scores = take(&mut params, self.scores.n_params());
        let rows = take(&mut params, self.rows.params.len());
        let values = take(&mut params, self.values.n_params());
        let (space, numbers) = params.split_at(self.space.len());
        ([scores, rows, values], space, numbers)
    }

    /// The buffers of a part's operands.
    fn inputs(
        &self,
        part: usize,
        call: &KernelCall<'_>,
        before: *mut u8,
    ) -> SmallVec<[*mut u8; 8]> {
        let from = self.operands[part].iter();
        from.map(|from| match from {
            From::Operand(i) => call.buffers[*i],
            From::Part => before,
        })
        .collect()
    }

    /// The three parts one after the other.
    ///
    /// # Safety
    /// That of [`NativeCode::run`].
    unsafe fn run_whole(
        &self,
        call: &KernelCall<'_>,
        layout: &Layout,
        prepared: &[Prepared<'_>; 3],
    ) -> Result<()> {
        let scores = call.scratch;
        // SAFETY: the scratch memory has room for scores, weights and what a part needs, one behind the other.
        let (weights, rest) = unsafe {
            (
                scores.add(4 * layout.scores_len),
                scores.add(8 * layout.scores_len),
            )
        };
        let output = call.buffers[call.buffers.len() - 1];
        let parts: [(&dyn NativeCode, *mut u8, *mut u8); 3] = [
            (&self.scores, std::ptr::null_mut(), scores),
            (&self.rows, scores, weights),
            (&self.values, weights, output),
        ];
        for (part, (code, before, output)) in parts.into_iter().enumerate() {
            let mut buffers = self.inputs(part, call, before);
            buffers.push(output);
            let call = KernelCall {
                buffers: &buffers,
                scratch: rest,
                params: prepared[part].params,
                work: prepared[part].work,
            };
            // SAFETY: operands are those of the whole kernel or the part before's result, each as large as its type.
            unsafe { code.run(&call)? };
        }
        Ok(())
    }
}

impl NativeCode for AttentionCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        let parts: [&dyn NativeCode; 3] = [&self.scores, &self.rows, &self.values];
        let mut cost = 0usize;
        for code in parts {
            cost = cost.saturating_add(prepare(code, symbols, n_threads, params)?.cost);
        }
        evaluate(&self.space, symbols, params)?;
        if let Some(reach) = &self.reach {
            evaluate(reach.numbers(), symbols, params)?;
        }
        let (prepared, ..) = self.prepared(&params[start..]);
        let layout = self.layout(&prepared);
        let threads = if layout.whole { 1 } else { n_threads.max(1) };
        Ok(Work {
            units: 0,
            cost,
            n_threads,
            scratch_bytes: 4 * (layout.packed_len() + threads * layout.thread_len()),
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        let parts: [&dyn NativeCode; 3] = [&self.scores, &self.rows, &self.values];
        let numbers = self.reach.as_ref().map_or(&[][..], Reach::numbers);
        parts.iter().any(|part| part.depends_on(symbol))
            || has(&self.space, symbol)
            || has(numbers, symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let (parts, space, numbers) = self.prepared(call.params);
        let layout = self.layout(&parts);
        let by_heads = self.by_heads(&layout, call.work.n_threads);
        if layout.whole && by_heads.is_none() {
            // SAFETY: the same contract.
            return unsafe { self.run_whole(call, &layout, &parts) };
        }
        let run = Run {
            code: self,
            call,
            layout,
            parts,
            space,
            numbers,
            inputs: [0, 1, 2].map(|part| self.inputs(part, call, std::ptr::null_mut())),
            scratch: call.scratch.cast(),
            error: AtomicI64::new(0),
        };
        match by_heads {
            Some(threads) => run.heads(threads),
            None => run.packed_batches(),
        }
        reported(run.error.into_inner())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
