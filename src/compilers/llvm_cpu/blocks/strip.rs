//! Many rows of activations by a panel, where registers are few.
//!
//! Eight lanes have 16 registers: two vectors of a panel times [`ROWS`] rows of sums fill them. So a group's weights are unpacked
//! into memory first, the loop over its fours has nothing but sums in registers, and what is summed up over groups lies in memory
//! too: not the result's, whose rows may be a multiple of 4096 bytes apart, which the first cache has few places for.
//!
//! ```text
//! for each group: room[8 fours][n] = unpacked weights
//!     for each six rows: sums = 0; for each four: sums[row][j] += room[four][j] * row[four];  totals[row][j] += scaled sums
//! ```
//! Sums and their order are those of [`tile`](super::tile).

use inkwell::types::VectorType;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::tile::Kernel;
use crate::compilers::llvm_cpu::emit::BUILT;

/// Rows whose sums are in registers.
pub const ROWS: usize = 6;

/// A kernel's own memory.
struct Room<'c> {
    /// A group's weights, as they are multiplied.
    weights: PointerValue<'c>,
    /// What is summed up over groups.
    totals: PointerValue<'c>,
}

/// Scale and minimum of each vector of a unit.
type Scales<'c> = Vec<[Option<VectorValue<'c>>; 2]>;

impl<'c> Kernel<'_, '_, 'c> {
    /// Writes all of the kernel.
    pub(super) fn strip(&self) {
        let e = self.whole.e;
        let floats = e.vector(self.whole.lanes).into_vector_type();
        let n_sums = self.records.len() * self.n();
        let reserve = |kind: VectorType<'c>, n: usize| {
            let room = e.builder.build_alloca(kind.array_type(n as u32), "room");
            room.expect(BUILT)
        };
        let room = Room {
            weights: reserve(self.whole.vectors(), 8 * self.n() * self.whole.parts()),
            totals: reserve(floats, n_sums),
        };
        for i in 0..n_sums {
            e.store(floats.const_zero(), self.total(&room, i), 32);
        }
        e.each(e.int(0), e.int_argument(0), 1, |block| {
            let scales = self.block_scales(block);
            let n = self.form.groups as i64;
            let first = e.mul(block, e.int(n));
            match n {
                1 => self.group_of_strip(first, &scales, &room),
                _ => e.each(first, e.add(first, e.int(n)), 1, |group| {
                    self.group_of_strip(group, &scales, &room);
                }),
            }
        });
        for i in 0..n_sums {
            let total = e.load(floats, self.total(&room, i), 32);
            e.store(total, self.result(i / self.n(), i % self.n()), 4);
        }
    }

    /// Where total `i` lies, those of a row next to each other.
    fn total(&self, room: &Room<'c>, i: usize) -> PointerValue<'c> {
        let e = self.whole.e;
        e.at(e.vector(self.whole.lanes), room.totals, e.int(i as i64))
    }

    /// Where a vector of a row of the result lies.
    fn result(&self, row: usize, j: usize) -> PointerValue<'c> {
        let e = self.whole.e;
        let before = e.mul(e.int_argument(7), e.int(row as i64));
        let at = e.add(before, e.int(j as i64 * i64::from(self.whole.lanes)));
        e.at(e.f32(), e.pointer_argument(6), at)
    }

    fn group_of_strip(&self, group: IntValue<'c>, scales: &[VectorValue<'c>], room: &Room<'c>) {
        let (e, n) = (self.whole.e, self.n());
        let numbers = self.numbers(group);
        for (four, j) in (0..8).flat_map(|four| (0..n).map(move |j| (four, j))) {
            for (part, weights) in self.weights(numbers, four, j).into_iter().enumerate() {
                let at = e.int(((four * self.whole.parts() + part) * n + j) as i64);
                e.store(weights, e.at(self.whole.vectors(), room.weights, at), 32);
            }
        }
        for unit in 0..8 / self.form.unit() {
            let scales = (0..n).map(|j| self.scales(group, scales, (unit, j)));
            let scales: Scales<'c> = scales.collect();
            let rows: Vec<usize> = (0..self.records.len()).collect();
            for rows in rows.chunks(ROWS) {
                self.rows_of_strip((group, unit), rows, &scales, room);
            }
        }
    }

    /// Adds a unit's products with some rows to the result.
    fn rows_of_strip(
        &self,
        (group, unit): (IntValue<'c>, usize),
        rows: &[usize],
        scales: &Scales<'c>,
        room: &Room<'c>,
    ) {
        let (e, n, whole) = (self.whole.e, self.n(), &self.whole);
        let record = |row: &usize| self.records[*row];
        // Read again in the end, if sums need it only then: registers would not hold it.
        let start = |row: &usize| self.start(record(row), group, unit);
        let begin = |row: &usize| vec![whole.begin(start(row)).into(); n];
        let zeros: Vec<BasicValueEnum<'c>> = rows.iter().flat_map(begin).collect();
        // Part by part, so that not more than `n` vectors of weights are in registers.
        let (parts, step) = (self.form.unit() * self.whole.parts(), whole.step());
        let first = e.int((unit * parts) as i64);
        let range = (first, e.add(first, e.int(parts as i64)), step as i64);
        let sums = e.carry(range, zeros, |first, sums| {
            let at = |i: usize| e.add(first, e.int(i as i64));
            let weights = |j| (0..step).map(move |i| self.unpacked(room, at(i), j));
            let weights: Vec<Vec<_>> = (0..n).map(|j| weights(j).collect()).collect();
            let mut next = sums.to_vec();
            for (row, sums) in rows.iter().zip(next.chunks_mut(n)) {
                let row = (0..step).map(|i| self.activations(record(row), group, at(i)));
                let row: Vec<VectorValue<'c>> = row.collect();
                for (sum, w) in sums.iter_mut().zip(&weights) {
                    let products: Vec<_> = w.iter().copied().zip(row.iter().copied()).collect();
                    *sum = whole.add(sum.into_vector_value(), &products).into();
                }
            }
            next
        });
        for (row, sums) in rows.iter().zip(sums.chunks(n)) {
            let start = start(row);
            for (j, sum) in sums.iter().enumerate() {
                let sum = whole.finish(sum.into_vector_value(), start);
                let to = self.total(room, row * n + j);
                let before = e.load(e.vector(whole.lanes), to, 32);
                let place = (record(row), group, unit);
                e.store(self.scaled(place, scales[j], (sum, before)), to, 32);
            }
        }
    }

    /// Vector `j` of a four of the room, or of a part of one.
    fn unpacked(&self, room: &Room<'c>, at: IntValue<'c>, j: usize) -> VectorValue<'c> {
        let e = self.whole.e;
        let at = e.add(e.mul(at, e.int(self.n() as i64)), e.int(j as i64));
        let from = e.at(self.whole.vectors(), room.weights, at);
        e.load(self.whole.vectors(), from, 32).into_vector_value()
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiled::assembly;
    use super::super::ir::{BlockProduct, Part};
    use super::ROWS;
    use crate::blocks::BlockType;
    use crate::compilers::llvm_cpu::target::Target;
    use crate::op::ActivationScheme;

    /// The loops of a kernel of 12 rows that have this instruction, each from its label to its jump.
    fn loops(ty: BlockType, instruction: &str) -> Vec<String> {
        let product = BlockProduct {
            ty,
            scheme: ActivationScheme::for_weights(ty),
            m: 's'.into(),
            k: 512,
            activations: 0,
            parts: [Part { weights: 1, n: 40 }].into_iter().collect(),
        };
        let target = Target::for_cpu("x86-64-v3").unwrap();
        let text = assembly(&product, &target).unwrap();
        let name = format!("\nblocks_{ty}_1");
        let mut kernels = text.split(&name).skip(1);
        let is_tall = |kernel: &&str| kernel.split(':').next().unwrap().contains("_12x16_");
        let kernel = kernels.find(is_tall).expect("there is one of 12 rows");
        let kernel = &kernel[..kernel.find("retq").unwrap()];
        let blocks = kernel.split("\n.LBB").map(|block| match block.find("\tj") {
            Some(jump) => &block[..jump],
            None => block,
        });
        let with = blocks.filter(|block| block.contains(instruction));
        with.map(str::to_owned).collect()
    }

    #[test]
    fn sums_of_a_loop_stay_in_registers() {
        for (ty, instruction) in [
            (BlockType::Q4_0, "vpmaddubsw"),
            (BlockType::Q4_K, "vpmaddubsw"),
            (BlockType::Q8_0, "vpmaddwd"),
        ] {
            let loops = loops(ty, instruction);
            // Of each round, two vectors of columns; others only add pairs up.
            let full: Vec<&String> = (loops.iter())
                .filter(|text| text.matches(instruction).count() == 2 * ROWS)
                .filter(|text| text.contains("vpbroadcastd"))
                .collect();
            assert_eq!(full.len(), 2, "{ty}: six rows, and six rows");
            for text in full {
                assert!(!text.contains("rsp"), "{ty}: {text}");
            }
        }
    }
}
