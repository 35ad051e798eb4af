//! Operands that native code wants in an order of its own, packed once and kept.
//!
//! Before: an input's data, `[n, k]`. After: the same values as [`NativeCode::pack`] writes them, kept until the input
//! changes: every change is counted by [`Inputs`]. What is no constant input (a state, another kernel's result) is
//! packed for every call, or not at all where code can do without. Two calls with the same input and layout share one packed copy.
//!
//! One operand is packed at a time. The input's own data stays: other kernels and whoever reads it may still need it.
//! Another owner of the data is told that it will hardly be read again: a mapped file's pages then leave memory.
//!
//! All of them lie in one memory, so that small ones are in large pages too, and none begins a page of its own.
//!
//! Where there is a lot to pack and code can do without, it waits ([`super::packed_wait`]).
//!
//! With a folder, packed operands are written to files and mapped the next time ([`super::packed_file`]).
//!
//! [`Inputs`]: crate::graph::state::Inputs

use std::sync::Arc;

use super::packed_file::{self, Contents};
use super::packed_wait::Extent;
use crate::error::Result;
use crate::op::{NativeCode, Packing};
use crate::storage::{ALIGNMENT, AlignedBytes, Storage};

/// Where packed bytes are.
enum Memory {
    /// From this byte of the memory of all.
    Shared(usize),
    /// Memory that is given back when a file can be read instead.
    Own(AlignedBytes),
    File(packed_file::Mapped),
}

/// One packed operand.
pub(super) struct Entry {
    code: Arc<dyn NativeCode>,
    /// Which of the code's packings it is.
    number: usize,
    /// The input that it is packed from, if that only changes between executions.
    pub(super) input: Option<u32>,
    memory: Memory,
    /// The version of the input that the memory holds.
    pub(super) version: Option<u64>,
    /// The version of the input that an execution has done without.
    pub(super) waited: Option<u64>,
}

/// All packed operands of an executable.
#[derive(Default)]
pub(super) struct PackedOperands {
    pub(super) entries: Vec<Entry>,
    /// The memory of those that have none of their own, once something was packed.
    memory: AlignedBytes,
    /// The bytes that it needs.
    needed: usize,
    /// All of them, the largest first: packed in this order, both copies of it are in memory while there is little else.
    order: Vec<usize>,
    /// The number of the inputs' changes for which all constant ones are packed.
    fresh_at: Option<u64>,
    /// Operands packed or read since the last time somebody asked.
    pub(super) counts: Counts,
}

/// What was done.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) packed: usize,
    pub(super) read: usize,
    /// Those that a later execution packs.
    pub(super) waiting: usize,
}

/// A source of an operand's bytes.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) start: *const u8,
    /// What its owner said when the start was asked for.
    pub(super) len: usize,
    pub(super) storage: &'a Storage,
}

impl PackedOperands {
    /// The number of the entry for a packing of `code`, given by its number there; `input` if it is of a constant one.
    pub(super) fn entry(
        &mut self,
        (code, number): (&Arc<dyn NativeCode>, usize),
        input: Option<u32>,
    ) -> usize {
        let layout = code.packings()[number].layout;
        let same = |entry: &Entry| {
            entry.input.is_some() && entry.input == input && entry.packing().layout == layout
        };
        if let Some(found) = self.entries.iter().position(same) {
            return found;
        }
        let packing = &code.packings()[number];
        let memory = match packing.folder {
            Some(_) => Memory::Own(AlignedBytes::default()),
            None => {
                self.needed += packing.bytes.next_multiple_of(ALIGNMENT);
                // Somewhere, once there is memory.
                Memory::Shared(0)
            }
        };
        self.entries.push(Entry {
            code: code.clone(),
            number,
            input,
            memory,
            version: None,
            waited: None,
        });
        let new = self.entries.len() - 1;
        let bytes = |entry: usize| self.entries[entry].packing().bytes;
        let place = self
            .order
            .partition_point(|&entry| bytes(entry) >= bytes(new));
        self.order.insert(place, new);
        new
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all that are packed or have room for it.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |entry: &Entry| match &entry.memory {
            Memory::Shared(_) if self.memory.is_empty() || entry.is_absent() => 0,
            Memory::Shared(_) => entry.packing().bytes.next_multiple_of(ALIGNMENT),
            Memory::Own(bytes) => bytes.len(),
            Memory::File(mapped) => mapped.bytes().len(),
        };
        self.entries.iter().map(bytes).sum()
    }

    /// Packs constant operands whose input changed, or a part of them; whether any may lie elsewhere now. `changes` is the
    /// number of all inputs' changes, `version` and `source` are an input's.
    ///
    /// # Errors
    /// If there is no memory.
    ///
    /// # Safety
    /// Sources are as large as the operands' types say, and nobody writes to them meanwhile.
    pub(super) unsafe fn refresh<'a>(
        &mut self,
        extent: Extent,
        changes: u64,
        n_threads: usize,
        version: impl Fn(u32) -> u64,
        source: impl Fn(u32) -> Source<'a>,
    ) -> Result<bool> {
        if self.is_empty() || self.fresh_at == Some(changes) {
            return Ok(false);
        }
        let mut moved = self.memory.len() < self.needed;
        if moved {
            self.memory = AlignedBytes::try_zeroed(self.needed)?;
            self.place();
        }
        let allowance = match extent {
            Extent::All => None,
            Extent::First | Extent::Execution => self.allowance(&version),
        };
        if let Some(most) = allowance.filter(|_| extent == Extent::Execution) {
            self.leave_room(most, &version, &source);
        }
        let (mut late, mut waiting) = (0, 0);
        for &at in &self.order {
            let entry = &mut self.entries[at];
            let Some(input) = entry.input else {
                moved |= entry.reserve()?;
                continue;
            };
            let current = version(input);
            if entry.version == Some(current) {
                continue;
            }
            // Whoever can wait reads the input while there is nothing packed from it.
            moved |= entry.version.take().is_some() || entry.can_wait();
            if let Some(most) = allowance.filter(|_| entry.can_wait()) {
                let has_waited = entry.waited == Some(current);
                if extent == Extent::Execution {
                    entry.waited = Some(current);
                }
                let bytes = entry.packing().bytes;
                if !has_waited || late > 0 && late + bytes > most {
                    waiting += 1;
                    continue;
                }
                late += bytes;
            }
            let source = source(input);
            // SAFETY: the caller's promise.
            moved |= unsafe { entry.fill(&self.memory, source, n_threads, &mut self.counts)? };
            entry.version = Some(current);
            source.storage.rest();
        }
        self.counts.waiting = waiting;
        self.fresh_at = (waiting == 0).then_some(changes);
        Ok(moved)
    }

    /// Gives those without memory of their own places in the new one, in the order in which they are packed: what is not
    /// packed yet does not share large pages with what is, and takes no memory.
    fn place(&mut self) {
        let mut from = 0;
        for &at in &self.order {
            let entry = &mut self.entries[at];
            if let Memory::Shared(place) = &mut entry.memory {
                *place = from;
                entry.version = None;
                from += entry.packing().bytes.next_multiple_of(ALIGNMENT);
            }
        }
    }

    /// Where an operand lies packed; null if it is not.
    pub(super) fn start(&self, entry: usize) -> *mut u8 {
        let entry = &self.entries[entry];
        match entry.is_absent() {
            true => std::ptr::null_mut(),
            false => entry.start(&self.memory),
        }
    }

    /// Packs an operand that is no constant from `from`.
    ///
    /// # Safety
    /// `from` is as large as the operand's type says, and [`PackedOperands::refresh`] has reserved memory.
    pub(super) unsafe fn pack_now(&mut self, entry: usize, from: *const u8, n_threads: usize) {
        let entry = &self.entries[entry];
        if entry.input.is_none() {
            // SAFETY: the caller's promise; memory was reserved for the packing.
            unsafe {
                let to = entry.start(&self.memory);
                entry.code.pack(entry.number, from, to, n_threads);
            }
            self.counts.packed += 1;
        }
    }
}

impl Entry {
    pub(super) fn packing(&self) -> &Packing {
        &self.code.packings()[self.number]
    }

    /// Where it lies; `shared` is the memory of all.
    fn start(&self, shared: &AlignedBytes) -> *mut u8 {
        match &self.memory {
            Memory::Shared(from) => shared.start().wrapping_add(*from),
            Memory::Own(bytes) => bytes.start(),
            // Code only reads packed operands.
            Memory::File(mapped) => mapped.bytes().as_ptr().cast_mut(),
        }
    }

    /// Whether code can do without it for a while; it need not where it may be found in a file.
    pub(super) fn can_wait(&self) -> bool {
        self.packing().can_wait && self.packing().folder.is_none()
    }

    /// Whether code does without it now.
    pub(super) fn is_absent(&self) -> bool {
        self.can_wait() && self.version.is_none()
    }

    /// Makes room of its own where there is none; whether it lies elsewhere now.
    fn reserve(&mut self) -> Result<bool> {
        let bytes = self.packing().bytes;
        match &self.memory {
            Memory::Shared(_) => return Ok(false),
            Memory::Own(own) if own.len() >= bytes => return Ok(false),
            _ => {}
        }
        self.memory = Memory::Own(AlignedBytes::try_zeroed(bytes)?);
        Ok(true)
    }

    /// Packs from a constant input, or finds it packed in a file; whether it lies elsewhere now.
    ///
    /// # Safety
    /// `source` is as large as the operand's type says, and nobody writes to it meanwhile.
    unsafe fn fill(
        &mut self,
        shared: &AlignedBytes,
        source: Source<'_>,
        n_threads: usize,
        counts: &mut Counts,
    ) -> Result<bool> {
        let packing = self.packing();
        let contents = packing.folder.clone().map(|folder| {
            // SAFETY: the caller vouches for the source.
            let bytes = unsafe { std::slice::from_raw_parts(source.start, source.len) };
            let contents = Contents::of(bytes, packing.layout, packing.bytes);
            (folder, contents)
        });
        if let Some((folder, contents)) = &contents
            && let Some(mapped) = contents.find(folder)
        {
            self.memory = Memory::File(mapped);
            counts.read += 1;
            return Ok(true);
        }
        let moved = self.reserve()?;
        // SAFETY: the caller vouches for the source; there is room for the packing.
        unsafe {
            let to = self.start(shared);
            self.code.pack(self.number, source.start, to, n_threads);
        }
        counts.packed += 1;
        if let (Some((folder, contents)), Memory::Own(bytes)) = (&contents, &self.memory)
            && let Some(mapped) = contents.keep(folder, bytes.as_slice())
        {
            // The system can take a file's pages back.
            self.memory = Memory::File(mapped);
            return Ok(true);
        }
        Ok(moved)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::op::{KernelCall, Work};
    use crate::shape::Symbols;

    /// Code that wants its operand as it is.
    #[derive(Debug)]
    struct Copies([Packing; 1]);

    /// Operands of so many bytes, each with all bytes equal to its number and one more, and where they are.
    pub(in crate::exec) fn operands(
        sizes: &[usize],
        can_wait: bool,
    ) -> (PackedOperands, Vec<Storage>) {
        let data = (1u8..)
            .zip(sizes)
            .map(|(i, &n)| Storage::Owned(AlignedBytes::copy_of(&vec![i; n])))
            .collect();
        let mut operands = PackedOperands::default();
        for (input, &bytes) in (0..).zip(sizes) {
            let code: Arc<dyn NativeCode> = Arc::new(Copies([Packing {
                operand: 0,
                bytes,
                layout: 0,
                folder: None,
                can_wait,
            }]));
            operands.entry((&code, 0), Some(input));
        }
        (operands, data)
    }

    pub(in crate::exec) fn source(data: &[Storage], input: u32) -> Source<'_> {
        let storage = &data[input as usize];
        let (start, len) = storage.raw();
        Source {
            start: start.cast_const(),
            len,
            storage,
        }
    }

    impl NativeCode for Copies {
        fn name(&self) -> &str {
            "copies"
        }

        fn prepare(&self, _: &Symbols, _: usize, _: &mut Vec<i64>) -> Result<Work> {
            Ok(Work::default())
        }

        fn depends_on(&self, _: char) -> bool {
            false
        }

        // SAFETY: nothing is read or written.
        unsafe fn run(&self, _: &KernelCall<'_>) -> Result<()> {
            Ok(())
        }

        fn packings(&self) -> &[Packing] {
            &self.0
        }

        // SAFETY: both have the packing's bytes.
        unsafe fn pack(&self, _: usize, from: *const u8, to: *mut u8, _: usize) {
            // SAFETY: as above.
            unsafe { to.copy_from_nonoverlapping(from, self.0[0].bytes) };
        }

        fn code_key(&self) -> u64 {
            0
        }
    }

    /// Refreshes operands of this version; how many were packed, how many wait, and which are nowhere.
    pub(in crate::exec) fn refreshed(
        (operands, data): (&mut PackedOperands, &[Storage]),
        extent: Extent,
        version: u64,
    ) -> (usize, usize, Vec<usize>) {
        operands.counts = Counts::default();
        // SAFETY: sources are as large as the packings say, and nobody writes to them.
        unsafe { operands.refresh(extent, version, 1, |_| version, |input| source(data, input)) }
            .unwrap();
        let absent = (0..data.len()).filter(|&entry| operands.start(entry).is_null());
        (
            operands.counts.packed,
            operands.counts.waiting,
            absent.collect(),
        )
    }

    /// What is packed of an operand of so many bytes.
    pub(in crate::exec) fn held(operands: &PackedOperands, entry: usize, n: usize) -> &[u8] {
        // SAFETY: so many bytes were packed there.
        unsafe { std::slice::from_raw_parts(operands.start(entry), n) }
    }

    #[test]
    fn operands_lie_in_one_memory_in_the_order_in_which_they_are_packed() {
        let sizes = [100, 5000, 64];
        let (mut operands, data) = operands(&sizes, false);
        let source = |input| source(&data, input);
        // SAFETY: sources are as large as the packings say, and nobody writes to them.
        let moved = unsafe { operands.refresh(Extent::First, 1, 1, |_| 1, source) }.unwrap();
        assert!(moved);
        let starts = [1, 0, 2].map(|entry| operands.start(entry).addr());
        assert_eq!(starts.map(|at| at - starts[0]), [0, 5056, 5056 + 128]);
        assert_eq!(operands.bytes(), 128 + 5056 + 64);
        for (entry, n) in sizes.into_iter().enumerate() {
            assert_eq!(held(&operands, entry, n), data[entry].bytes());
        }
        // SAFETY: as above; nothing has changed.
        let moved = unsafe { operands.refresh(Extent::Execution, 1, 1, |_| 1, source) }.unwrap();
        assert!(!moved);
        assert_eq!(operands.counts.packed, 3);
    }
}
