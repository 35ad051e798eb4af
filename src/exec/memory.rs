//! The memory plan: one arena in which buffers that are never needed at once share bytes.
//!
//! Offsets are chosen in the order of the steps: each buffer takes the smallest hole that it fits, else the end of the
//! arena; when its last reader is done, its bytes become a hole again. All tables keep their capacity, so planning again (symbols
//! changed) allocates nothing once the largest plan was seen.

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
    holes: Vec<(usize, usize)>,
    expiring: Vec<(usize, usize)>,
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

impl MemoryPlan {
    /// Plans for these lifetimes (in order of their first step) and sizes in bytes.
    pub fn plan(&mut self, lifetimes: &[Lifetime], sizes: &[usize]) {
        self.offsets.clear();
        self.holes.clear();
        self.expiring.clear();
        self.arena_bytes = 0;
        self.peak_live_bytes = 0;
        let mut live = 0;
        for (i, lifetime) in lifetimes.iter().enumerate() {
            live -= self.expire(sizes, lifetime.first);
            let size = aligned(sizes[i]);
            live += size;
            self.peak_live_bytes = self.peak_live_bytes.max(live);
            let offset = self.take(size);
            self.offsets.push(offset);
            if lifetime.last != usize::MAX {
                self.expiring.push((lifetime.last, i));
            }
        }
    }

    /// Frees buffers whose last reader ran before `step`; returns their bytes.
    fn expire(&mut self, sizes: &[usize], step: usize) -> usize {
        let mut freed = 0;
        let mut k = 0;
        while k < self.expiring.len() {
            let (last, i) = self.expiring[k];
            if last < step {
                let size = aligned(sizes[i]);
                freed += size;
                self.give_back(self.offsets[i], size);
                self.expiring.swap_remove(k);
            } else {
                k += 1;
            }
        }
        freed
    }

    /// The smallest hole that fits; else the arena grows, from its last hole if that one is at the end.
    fn take(&mut self, size: usize) -> usize {
        if size == 0 {
            return 0;
        }
        let fitting = self
            .holes
            .iter()
            .enumerate()
            .filter(|(_, hole)| hole.1 >= size);
        if let Some((k, &(offset, len))) = fitting.min_by_key(|(_, hole)| hole.1) {
            if len == size {
                self.holes.remove(k);
            } else {
                self.holes[k] = (offset + size, len - size);
            }
            return offset;
        }
        if let Some(&(offset, len)) = self.holes.last()
            && offset + len == self.arena_bytes
        {
            self.holes.pop();
            self.arena_bytes = offset + size;
            return offset;
        }
        let offset = self.arena_bytes;
        self.arena_bytes += size;
        offset
    }

    /// Returns bytes; holes stay sorted and never touch.
    fn give_back(&mut self, offset: usize, size: usize) {
        if size == 0 {
            return;
        }
        let k = self.holes.partition_point(|hole| hole.0 < offset);
        self.holes.insert(k, (offset, size));
        if k + 1 < self.holes.len() && offset + size == self.holes[k + 1].0 {
            self.holes[k].1 += self.holes[k + 1].1;
            self.holes.remove(k + 1);
        }
        if k > 0 && self.holes[k - 1].0 + self.holes[k - 1].1 == offset {
            self.holes[k - 1].1 += self.holes[k].1;
            self.holes.remove(k);
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
