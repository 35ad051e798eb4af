//! The memory plan: one arena in which buffers that are never needed at once share bytes.
//!
//! The largest buffers are placed first, each at the lowest offset where it touches no buffer that is needed at the
//! same time (greedy by size: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020). Placing
//! them in the order of the steps would leave holes that the large ones do not fit. Where that needs more than the steps do,
//! other orders are tried (`Order`) and the best is taken.
//!
//! All tables keep their capacity, so planning again (symbols changed) allocates nothing once the largest plan was
//! seen; while sizes stay the same up to their alignment, so does the plan.

use std::cmp::Reverse;

use super::schedule::Lifetime;
use crate::storage::ALIGNMENT;

/// Where each buffer lies.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlan {
    /// Offset of each buffer in the arena, in bytes.
    pub offsets: Vec<usize>,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// Largest sum of sizes of buffers needed at once: no plan can be smaller.
    pub peak_live_bytes: usize,
    spans: Vec<Span>,
    /// Buffers from the largest to the smallest.
    order: Vec<usize>,
    /// Buffers that have their place, by offset.
    placed: Vec<usize>,
    /// Offsets by the best order so far.
    best: Vec<usize>,
    /// By how much the live bytes change with each step.
    changes: Vec<isize>,
}

/// One buffer: the steps that need it, and its size with what aligns the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: usize,
    last: usize,
    size: usize,
}

/// Which buffers are placed first.
#[derive(Clone, Copy)]
enum Order {
    /// The largest, of equal ones the first.
    Size,
    /// The largest, of equal ones those that are needed longest.
    SizeThenLength,
    /// Those with the largest product of size and steps.
    Area,
    /// Those that are needed longest.
    Length,
}

impl Span {
    fn of(lifetime: &Lifetime, bytes: usize) -> Span {
        Span {
            first: lifetime.first,
            last: lifetime.last,
            size: bytes.next_multiple_of(ALIGNMENT),
        }
    }

    fn is_needed_with(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl MemoryPlan {
    /// Plans for these lifetimes and sizes in bytes.
    pub fn plan(&mut self, lifetimes: &[Lifetime], sizes: &[usize]) {
        let spans = || lifetimes.iter().zip(sizes).map(|(l, &n)| Span::of(l, n));
        if self.spans.iter().copied().eq(spans()) {
            return;
        }
        self.spans.clear();
        self.spans.extend(spans());
        self.measure();
        self.place(Order::Size);
        for order in [Order::SizeThenLength, Order::Area, Order::Length] {
            if self.arena_bytes <= self.peak_live_bytes {
                break;
            }
            let bytes = self.arena_bytes;
            self.best.clone_from(&self.offsets);
            self.place(order);
            if self.arena_bytes >= bytes {
                self.arena_bytes = bytes;
                std::mem::swap(&mut self.best, &mut self.offsets);
            }
        }
    }

    /// The largest sum of sizes needed at once.
    fn measure(&mut self) {
        let n_steps = self.spans.iter().map(|span| span.first + 1).max();
        self.changes.clear();
        self.changes.resize(n_steps.unwrap_or(0), 0);
        for span in &self.spans {
            self.changes[span.first] += span.size as isize;
            let end = span.last.checked_add(1);
            if let Some(change) = end.and_then(|end| self.changes.get_mut(end)) {
                *change -= span.size as isize;
            }
        }
        let mut live = 0;
        let sums = self.changes.iter().map(|change| {
            live += change;
            live
        });
        self.peak_live_bytes = sums.max().unwrap_or(0).unsigned_abs();
    }

    fn place(&mut self, order: Order) {
        let spans = &self.spans;
        self.order.clear();
        self.order.extend(0..spans.len());
        let n_steps = self.changes.len();
        let rank = |&i: &usize| {
            let Span { first, last, size } = spans[i];
            let length = last.min(n_steps) - first + 1;
            let rank = match order {
                Order::Size => (size, 0),
                Order::SizeThenLength => (size, length),
                Order::Area => (size.saturating_mul(length), size),
                Order::Length => (length, size),
            };
            (Reverse(rank), i)
        };
        self.order.sort_unstable_by_key(rank);
        self.offsets.clear();
        self.offsets.resize(spans.len(), 0);
        self.placed.clear();
        self.arena_bytes = 0;
        for &i in &self.order {
            let span = spans[i];
            if span.size == 0 {
                continue;
            }
            let mut offset = 0;
            for &other in &self.placed {
                if !span.is_needed_with(spans[other]) {
                    continue;
                }
                if offset + span.size <= self.offsets[other] {
                    break;
                }
                offset = offset.max(self.offsets[other] + spans[other].size);
            }
            self.offsets[i] = offset;
            self.arena_bytes = self.arena_bytes.max(offset + span.size);
            let at = self
                .placed
                .partition_point(|&other| self.offsets[other] <= offset);
            self.placed.insert(at, i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::NodeIndex;
    use proptest::prelude::*;

    fn lifetimes(spans: &[(usize, usize)]) -> Vec<Lifetime> {
        spans
            .iter()
            .map(|&(first, last)| Lifetime {
                node: NodeIndex::new(0),
                first,
                last,
            })
            .collect()
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let spans: Vec<_> = (0..10).map(|i| (i, i + 1)).collect();
        let mut plan = MemoryPlan::default();
        plan.plan(&lifetimes(&spans), &[640; 10]);
        assert_eq!(plan.arena_bytes, 1280);
        assert_eq!(plan.peak_live_bytes, 1280);
    }

    #[test]
    fn a_large_buffer_fits_where_two_small_ones_were() {
        // In the order of the steps, the third would not fit between the first and the second.
        let spans = [(0, 1), (0, 3), (1, 2), (2, 4)];
        let sizes = [640, 64, 640, 1280];
        let mut plan = MemoryPlan::default();
        plan.plan(&lifetimes(&spans), &sizes);
        assert_eq!(plan.peak_live_bytes, 640 + 64 + 1280);
        assert_eq!(plan.arena_bytes, plan.peak_live_bytes);
    }

    #[test]
    fn where_the_largest_first_leave_holes_another_order_is_better() {
        let spans = [(0, 1), (1, 2), (2, 5), (3, 6)];
        let sizes = [256, 64, 64, 256];
        let mut plan = MemoryPlan::default();
        plan.plan(&lifetimes(&spans), &sizes);
        assert_eq!((plan.arena_bytes, plan.peak_live_bytes), (320, 320));
        plan.place(Order::Size);
        assert_eq!(plan.arena_bytes, 384);
    }

    #[test]
    fn a_plan_stays_until_a_size_changes_by_more_than_its_alignment() {
        let spans = lifetimes(&[(0, 1), (1, 2), (2, usize::MAX)]);
        let mut plan = MemoryPlan::default();
        plan.plan(&spans, &[100, 200, 300]);
        let before = plan.offsets.clone();
        plan.offsets[0] = 7;
        plan.plan(&spans, &[101, 201, 299]);
        assert_eq!(plan.offsets[0], 7, "not planned again");
        plan.plan(&spans, &[100, 200, 800]);
        assert_ne!(plan.offsets, before);
        assert_eq!(plan.arena_bytes, 256 + 832);
    }

    proptest! {
        #[test]
        fn buffers_needed_at_once_never_overlap(spans in prop::collection::vec((0usize..6, 1usize..500), 1..60)) {
            let spans: Vec<_> = spans.iter().enumerate().map(|(i, &(len, size))| (i, i + len, size)).collect();
            let life = lifetimes(&spans.iter().map(|s| (s.0, s.1)).collect::<Vec<_>>());
            let sizes: Vec<_> = spans.iter().map(|s| s.2).collect();
            let mut plan = MemoryPlan::default();
            plan.plan(&life, &sizes);
            for a in 0..spans.len() {
                prop_assert!(plan.offsets[a] + sizes[a] <= plan.arena_bytes);
                prop_assert_eq!(plan.offsets[a] % ALIGNMENT, 0);
                for b in 0..a {
                    let at_once = spans[a].0 <= spans[b].1;
                    let apart = plan.offsets[a] + sizes[a] <= plan.offsets[b] || plan.offsets[b] + sizes[b] <= plan.offsets[a];
                    prop_assert!(!at_once || apart, "{} and {}", a, b);
                }
            }
            prop_assert!(plan.arena_bytes >= plan.peak_live_bytes);
        }
    }
}
