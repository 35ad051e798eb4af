//! Running an attention kernel: blocks of rows, or heads, over threads.
//!
//! With few rows a thread takes a whole head (a batch): its scores, then the weights, then the sums of values, all in one job
//! of the threads. Otherwise, for some batches at a time, first keys and values are packed into panels, then threads take blocks of query rows:
//! scores = rows times packed keys, weights from scores, result rows = weights times packed values. Scores and weights
//! of a block are reused while they are in the cache.
//!
//! The result does not depend on the number of threads, nor on which keys' products were skipped.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::code::{AttentionCode, KEYS, Layout};
use super::parts::From;
use crate::compilers::llvm_cpu::code::{GemmCode, Prepared};
use crate::compilers::llvm_cpu::gemm::Gemm;
use crate::compilers::llvm_cpu::gemm::heads::HeadCall;
use crate::compilers::llvm_cpu::gemm::rows::{Packing, RowsCall};
use crate::exec::pool;
use crate::op::KernelCall;

/// One execution, as all threads see it.
pub(super) struct Run<'a> {
    pub(super) code: &'a AttentionCode,
    pub(super) call: &'a KernelCall<'a>,
    pub(super) layout: Layout,
    pub(super) parts: [Prepared<'a>; 3],
    /// Sizes of the dims whose points are the rows.
    pub(super) space: &'a [i64],
    /// Those of `reach`.
    pub(super) numbers: &'a [i64],
    pub(super) inputs: [SmallVec<[*mut u8; 8]>; 3],
    pub(super) scratch: *mut f32,
    pub(super) error: AtomicI64,
}

// SAFETY: operands are only read; each thread writes its own piece of scratch memory, its own parts of the packed
// operands and its own rows of the result.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    /// Where the packed keys and values of a batch are, the first of those packed now being `first`.
    fn packed(&self, batch: usize, first: usize) -> (*mut f32, *mut f32) {
        let Layout {
            keys_len,
            values_len,
            ..
        } = self.layout;
        // SAFETY: scratch memory begins with room for `layout.batches` such pairs.
        unsafe {
            let keys = self.scratch.add((batch - first) * (keys_len + values_len));
            (keys, keys.add(keys_len))
        }
    }

    /// Computes heads of few rows, of which nothing is packed.
    pub(super) fn heads(&self, threads: usize) {
        pool::for_each_range(threads, self.layout.scores.batch, &|heads| {
            heads.for_each(|head| self.head(head));
        });
    }

    /// One of them: all scores lie at the beginning of the scratch memory, all weights behind them.
    fn head(&self, head: usize) {
        let (code, scores) = (self.code, self.scratch);
        let weights = scores.wrapping_add(self.layout.scores_len);
        let first = head * self.layout.scores.m;
        let input = |part: usize, number: usize| self.inputs[part][number].cast_const();
        let (keys, values) = (&code.scores, &code.values);
        // Keys, values, the next head's keys: one is asked for while the one before is read.
        let start = |part: usize, product: &GemmCode, head: usize| {
            let params = self.parts[part].params;
            product
                .gemm
                .start_of(input(part, product.rhs), head, params)
        };
        let next = (head + 1).min(self.layout.scores.batch - 1);
        let scores_call = HeadCall {
            operands: [keys.lhs, keys.rhs].map(|number| input(0, number)),
            out: scores,
            params: self.parts[0].params,
            then: start(2, values, head),
        };
        let values_call = HeadCall {
            operands: [weights.cast_const().cast(), input(2, values.rhs)],
            out: self.call.buffers[self.call.buffers.len() - 1].cast(),
            params: self.parts[2].params,
            then: start(0, keys, next),
        };
        // SAFETY: operands and result are as large as their types say, and the scratch memory has room for all scores and
        // weights; each head writes its own.
        unsafe {
            keys.gemm.dots_of(&scores_call, head);
            let rows = first..first + self.layout.scores.m;
            self.weigh(rows, scores.cast(), weights.cast());
            values.gemm.sums_of(&values_call, head);
        }
    }

    /// Computes all batches, some at a time: keys and values are packed, then blocks of rows take them.
    pub(super) fn packed_batches(&self) {
        let Layout { scores, .. } = self.layout;
        for first in (0..scores.batch).step_by(self.layout.batches.max(1)) {
            let batches = first..(first + self.layout.batches).min(scores.batch);
            self.pack(batches.clone());
            self.blocks(batches);
        }
    }

    /// Packs keys and values of some batches.
    fn pack(&self, batches: Range<usize>) {
        let Layout { scores, values, .. } = self.layout;
        let (keys, value) = (&self.code.scores, &self.code.values);
        // A unit packs KEYS keys, or KEYS values, of one batch.
        let columns = KEYS.next_multiple_of(keys.gemm.panel());
        let pieces = [scores.n.div_ceil(columns), values.k.div_ceil(KEYS)];
        let per_batch = pieces[0] + pieces[1];
        let one = |unit: usize| {
            let batch = batches.start + unit / per_batch;
            let (to_keys, to_values) = self.packed(batch, batches.start);
            let piece = unit % per_batch;
            let packing = |k_block| Packing { batch, k_block };
            // SAFETY: the operands hold what their views read; pieces do not overlap.
            unsafe {
                if piece < pieces[0] {
                    let n = piece * columns..((piece + 1) * columns).min(scores.n);
                    let rhs = self.inputs[0][keys.rhs];
                    keys.gemm.pack_part(
                        packing(scores.k),
                        rhs,
                        self.parts[0].params,
                        (n, 0),
                        to_keys,
                    );
                } else {
                    let k = (piece - pieces[0]) * KEYS;
                    let rhs = self.inputs[2][value.rhs];
                    let n = 0..values.n;
                    value.gemm.pack_part(
                        packing(KEYS),
                        rhs,
                        self.parts[2].params,
                        (n, k),
                        to_values,
                    );
                }
            }
        };
        pool::for_each_range(
            self.call.work.n_threads,
            batches.len() * per_batch,
            &|units| {
                units.for_each(one);
            },
        );
    }

    /// Computes the rows of some batches, whose keys and values are packed.
    fn blocks(&self, batches: Range<usize>) {
        let Layout { scores, block, .. } = self.layout;
        let per_batch = scores.m.div_ceil(block);
        let n_units = batches.len() * per_batch;
        let next = AtomicUsize::new(0);
        pool::broadcast(self.call.work.n_threads.min(n_units), &|thread, _| {
            loop {
                // From the last block to the first: under a causal mask the last are the longest.
                let taken = next.fetch_add(1, Ordering::Relaxed);
                let Some(unit) = n_units.checked_sub(taken + 1) else {
                    return;
                };
                let batch = batches.start + unit / per_batch;
                let m = unit % per_batch * block;
                let rows = m..(m + block).min(scores.m);
                self.block(thread, batch, rows, self.packed(batch, batches.start));
            }
        });
    }

    /// Computes one block of rows.
    fn block(
        &self,
        thread: usize,
        batch: usize,
        m: Range<usize>,
        (keys, values): (*mut f32, *mut f32),
    ) {
        let layout = &self.layout;
        let n = layout.scores.n;
        let first = batch * layout.scores.m + m.start;
        let seen = self.seen(first..first + m.len());
        // SAFETY: scratch memory has room for every thread behind the packed operands.
        let (scores, weights, work) = unsafe {
            let own = self
                .scratch
                .add(layout.packed_len() + thread * layout.thread_len());
            let weights = own.add(layout.scores_len);
            (own, weights, weights.add(layout.scores_len))
        };
        let product = |code: &Gemm, call: RowsCall<'_>, k_block: usize| {
            // SAFETY: packed operands are complete, see `pack`; scores, weights and result have room for these rows.
            unsafe { code.rows(&call, k_block) }
        };
        let scores_call = RowsCall {
            batch,
            m: m.clone(),
            n: seen.clone(),
            k: 0..layout.scores.k,
            lhs: self.inputs[0][self.code.scores.lhs].cast_const(),
            packed: keys,
            out: scores,
            origin: (first * n) as isize,
            params: self.parts[0].params,
            scratch: work,
        };
        product(&self.code.scores.gemm, scores_call, layout.scores.k);
        // The code looks for row `first` at its place among all rows.
        let shifted = |own: *mut f32| own.cast::<u8>().wrapping_sub(4 * first * n);
        self.weigh(first..first + m.len(), shifted(scores), shifted(weights));
        let values_call = RowsCall {
            batch,
            m,
            n: 0..layout.values.n,
            k: seen,
            lhs: shifted(weights).cast_const(),
            packed: values,
            out: self.call.buffers[self.call.buffers.len() - 1].cast(),
            origin: 0,
            params: self.parts[2].params,
            scratch: work,
        };
        product(&self.code.values.gemm, values_call, KEYS);
    }

    /// Weights from scores, for some rows.
    fn weigh(&self, rows: Range<usize>, scores: *mut u8, weights: *mut u8) {
        let mut pointers: SmallVec<[*mut u8; 16]> = SmallVec::new();
        let from = self.code.operands[1].iter().zip(&self.inputs[1]);
        pointers.extend(from.map(|(from, &input)| match from {
            From::Part => scores,
            From::Operand(_) => input,
        }));
        pointers.push(weights);
        // SAFETY: the code reads its own rows of the scores only, which are there, and writes these rows of the weights.
        unsafe {
            (self.code.rows.function)(
                pointers.as_ptr(),
                self.parts[1].params.as_ptr(),
                rows.start as i64,
                rows.end as i64,
                self.error.as_ptr(),
            );
        }
    }

    /// The keys that some of these rows may see, in whole blocks.
    fn seen(&self, rows: Range<usize>) -> Range<usize> {
        let n = self.layout.scores.n;
        let Some(reach) = &self.code.reach else {
            return 0..n;
        };
        let mut at = self.coordinates(rows);
        let key = at.len();
        at.push((0, 0));
        let mut hidden = |block: usize| {
            let first = block * KEYS;
            at[key] = (first as i64, (first + KEYS).min(n) as i64 - 1);
            !reach.may_count(self.numbers, &at)
        };
        let mut blocks = 0..n.div_ceil(KEYS);
        while blocks.len() > 1 && hidden(blocks.end - 1) {
            blocks.end -= 1;
        }
        while blocks.len() > 1 && hidden(blocks.start) {
            blocks.start += 1;
        }
        // One block is left even if it is hidden: then its rows have no weights, and the result says so.
        blocks.start * KEYS..(blocks.end * KEYS).min(n)
    }

    /// An interval of coordinates per dim of the rows.
    fn coordinates(&self, rows: Range<usize>) -> SmallVec<[(i64, i64); 8]> {
        let mut at: SmallVec<[(i64, i64); 8]> = SmallVec::new();
        let (mut first, mut last) = (rows.start as i64, rows.end as i64 - 1);
        for &size in self.space.iter().rev() {
            let size = size.max(1);
            let same = first / size == last / size;
            at.push(match same {
                true => (first % size, last % size),
                false => (0, size - 1),
            });
            (first, last) = (first / size, last / size);
        }
        at.reverse();
        at
    }
}
