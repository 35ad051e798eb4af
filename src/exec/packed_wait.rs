//! Packed operands that can wait ([`Packing::can_wait`]).
//!
//! Where there is a lot to pack and code can do without, the first execution, on which somebody waits most, packs none of it,
//! and each of the next ones a part. What code reads until then is the input.
//!
//! [`Packing::can_wait`]: crate::op::Packing::can_wait

use super::packed::{Entry, PackedOperands, Source};

/// Bytes of operands that are packed at once, though code could do without.
const AT_ONCE: usize = 64 << 20;

/// Executions that share what is more, if each operand is a small part of it.
const SHARED_BY: usize = 8;

/// How much is packed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// Everything.
    All,
    /// What the first execution packs.
    First,
    /// What the execution that begins packs.
    Execution,
}

impl PackedOperands {
    /// Bytes of operands that can wait which this execution packs, if all are too many for it; `version` is an input's.
    pub(super) fn allowance(&self, version: &impl Fn(u32) -> u64) -> Option<usize> {
        let [mut all, mut stale] = [0, 0];
        for entry in self.entries.iter().filter(|entry| entry.can_wait()) {
            let bytes = entry.packing().bytes;
            all += bytes;
            if entry.version != entry.input.map(version) {
                stale += bytes;
            }
        }
        (stale > AT_ONCE).then_some(AT_ONCE.max(all / SHARED_BY))
    }

    /// Before an operand is packed that is larger than an execution's part, so that both copies of it are in memory: all inputs
    /// that were read as they are leave memory. They come back as they are read.
    pub(super) fn leave_room<'a>(
        &self,
        most: usize,
        version: &impl Fn(u32) -> u64,
        source: &impl Fn(u32) -> Source<'a>,
    ) {
        let waited = |entry: &&Entry| {
            entry.is_absent() && entry.waited.is_some() && entry.waited == entry.input.map(version)
        };
        let mut waited_ones = self.entries.iter().filter(waited);
        if waited_ones.any(|entry| entry.packing().bytes > most) {
            let inputs = self
                .entries
                .iter()
                .filter(waited)
                .flat_map(|entry| entry.input);
            inputs.for_each(|input| source(input).storage.rest());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::packed::tests::{held, operands, refreshed};
    use super::*;
    use crate::storage::{SharedMemory, Storage};

    /// Memory that counts how often it was told to rest.
    struct Resting(Vec<u8>, AtomicUsize);

    impl SharedMemory for Resting {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn rest(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_much_waits_for_one_execution_and_is_shared_by_the_next() {
        const MB: usize = 1 << 20;
        let (mut operands, data) = operands(&[70 * MB, 30 * MB, 30 * MB, 20 * MB], true);
        for version in [1, 2] {
            let mut first = || refreshed((&mut operands, &data), Extent::First, version);
            assert_eq!(
                [first(), first()],
                [(0, 4, vec![0, 1, 2, 3]), (0, 4, vec![0, 1, 2, 3])]
            );
            let mut next = || refreshed((&mut operands, &data), Extent::Execution, version);
            assert_eq!(next(), (0, 4, vec![0, 1, 2, 3]));
            // One that is larger than an execution's part is all of it.
            assert_eq!(next(), (1, 3, vec![1, 2, 3]));
            assert_eq!(next(), (2, 1, vec![3]));
            assert_eq!(next(), (1, 0, vec![]));
            assert_eq!(next(), (0, 0, vec![]));
        }
        for (entry, data) in data.iter().enumerate() {
            assert!(held(&operands, entry, data.bytes().len()) == data.bytes());
        }
    }

    #[test]
    fn inputs_that_waited_leave_memory_before_a_large_one_is_packed() {
        const MB: usize = 1 << 20;
        let (mut operands, data) = operands(&[70 * MB, 40 * MB, 40 * MB], true);
        let inputs = data.iter().map(|data| {
            let resting = Resting(data.bytes().to_vec(), AtomicUsize::new(0));
            Arc::new(resting)
        });
        let inputs: Vec<Arc<Resting>> = inputs.collect();
        let data: Vec<Storage> = inputs.iter().map(|x| Storage::Shared(x.clone())).collect();
        let mut rests = || {
            let (packed, ..) = refreshed((&mut operands, &data), Extent::Execution, 1);
            let rests = inputs.iter().map(|x| x.1.swap(0, Ordering::Relaxed));
            (packed, rests.collect::<Vec<_>>())
        };
        assert_eq!(rests(), (0, vec![0, 0, 0]));
        // Before, and once more when it was read to be packed.
        assert_eq!(rests(), (1, vec![2, 1, 1]));
        assert_eq!(rests(), (1, vec![0, 1, 0]));
        assert_eq!(rests(), (1, vec![0, 0, 1]));
    }

    #[test]
    fn what_is_little_or_has_to_be_there_does_not_wait() {
        const MB: usize = 1 << 20;
        for (sizes, can_wait) in [([40 * MB, 20 * MB], true), ([40 * MB, 40 * MB], false)] {
            let (mut operands, data) = operands(&sizes, can_wait);
            let found = refreshed((&mut operands, &data), Extent::First, 1);
            assert_eq!(found, (2, 0, vec![]));
        }
        let (mut operands, data) = operands(&[40 * MB, 40 * MB], true);
        let found = refreshed((&mut operands, &data), Extent::All, 1);
        assert_eq!(found, (2, 0, vec![]));
    }
}
