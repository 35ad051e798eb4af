//! Windows with the rows of the other operand in the lanes: the gradients of a convolution's weights.
//!
//! First the other operand is written out with its rows as neighbours, in vectors, one for each step. Then a unit has the
//! sums of some positions within the window in registers, one vector for each; a step multiplies its vector by the elements that the
//! positions see of the image, each of which is read where it lies. So the image is not packed, and each unit reads the
//! other operand once.

use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::{Axis, POSITIONS, Windows, function, pieces, place};
use crate::compilers::llvm_cpu::emit::Emit;

/// `fn(other, packed, first unit, behind the last unit)`: writes the other operand out; a unit is a step of the first
/// summed dim.
pub(super) type PackFn = unsafe extern "C" fn(*const f32, *mut f32, i64, i64);

/// `fn(image, packed, out, first unit, behind the last unit)`.
pub(super) type TapsFn = unsafe extern "C" fn(*const f32, *const f32, *mut f32, i64, i64);

/// The most positions of a unit.
const SUMS: usize = 13;

/// How far the loop over the last summed dim is unrolled where it can be.
const UNROLL: [i64; 2] = [4, 2];

/// What threads share.
pub(super) struct Plan {
    /// Floats in a vector: no more than there are rows, rounded up.
    lanes: u32,
    /// Vectors for each step.
    blocks: i64,
    /// How many dims of the window are walked by units.
    n_outer: usize,
    /// Distances of positions in the image and in the output, in one list for each unit of an outer position.
    chunks: Vec<Vec<(i64, i64)>>,
}

impl Plan {
    pub(super) fn of(windows: &Windows, lanes: u32) -> Plan {
        let lanes = lanes.min((windows.rows.size as u32).next_power_of_two());
        let (mut n_outer, mut size) = (windows.kept.len(), 1);
        while n_outer > 0 && size * windows.kept[n_outer - 1].size <= POSITIONS {
            n_outer -= 1;
            size *= windows.kept[n_outer].size;
        }
        let mut positions = vec![(0, 0)];
        for axis in &windows.kept[n_outer..] {
            let further = |&(from, to): &(i64, i64)| {
                (0..axis.size).map(move |i| (from + i * axis.from, to + i * axis.to))
            };
            positions = positions.iter().flat_map(further).collect();
        }
        let n_chunks = positions.len().div_ceil(SUMS);
        let cut = |i: usize| positions.len() * i / n_chunks;
        let chunks = (0..n_chunks).map(|i| positions[cut(i)..cut(i + 1)].to_vec());
        Plan {
            lanes,
            blocks: pieces(windows.rows.size, lanes.into()),
            n_outer,
            chunks: chunks.collect(),
        }
    }

    /// How many units there are.
    pub(super) fn units(&self, windows: &Windows) -> usize {
        let outer = &windows.kept[..self.n_outer];
        let outer: i64 = outer.iter().map(|axis| axis.size).product();
        outer as usize * self.chunks.len() * self.blocks as usize
    }

    /// Floats of the other operand as it is written out.
    pub(super) fn packed(&self, windows: &Windows) -> usize {
        (self.blocks * windows.n_steps()) as usize * self.lanes as usize
    }
}

/// Writes the function that writes the other operand out.
pub(super) fn emit_pack<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    (windows, plan): (&Windows, &Plan),
) {
    let e = function(context, module, symbol, 2);
    let taps = Taps {
        e: &e,
        windows,
        plan,
    };
    let from = e.at(e.f32(), e.pointer_argument(0), e.int(windows.starts[1]));
    let (first, rest) = windows.steps.split_first().expect("something is summed");
    e.each(e.int_argument(2), e.int_argument(3), 1, |unit| {
        let from = e.at(e.f32(), from, e.mul(unit, e.int(first.to)));
        taps.pack(rest, from, unit);
    });
    e.finish();
}

/// Writes the function that computes.
pub(super) fn emit<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    (windows, plan): (&Windows, &Plan),
) {
    let e = function(context, module, symbol, 3);
    let most = plan.chunks.iter().map(Vec::len).max();
    let most = most.expect("a window has positions") as u32;
    let room = e.f32().array_type(most * plan.lanes);
    let room = e.builder.build_alloca(room, "sums");
    let room = room.expect(crate::compilers::llvm_cpu::emit::BUILT);
    let taps = Taps {
        e: &e,
        windows,
        plan,
    };
    e.each(e.int_argument(3), e.int_argument(4), 1, |unit| {
        let (unit, block) = e.div_rem(unit, e.int(plan.blocks));
        let (outer, chunk) = e.div_rem(unit, e.int(plan.chunks.len() as i64));
        taps.choose(0, chunk, &|positions| {
            taps.unit(outer, block, positions, room);
        });
    });
    e.finish();
}

struct Taps<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    windows: &'e Windows,
    plan: &'e Plan,
}

type Values<'c> = Vec<BasicValueEnum<'c>>;

/// Writes the code for some positions.
type Body<'b> = dyn Fn(&[(i64, i64)]) + 'b;

impl<'c> Taps<'_, '_, 'c> {
    /// Writes the vectors of step `at` of the dims before `axes`, and all steps of these.
    fn pack(&self, axes: &[Axis], from: PointerValue<'c>, at: IntValue<'c>) {
        let (e, rows) = (self.e, self.windows.rows);
        if let Some((axis, rest)) = axes.split_first() {
            e.each(e.int(0), e.int(axis.size), 1, |i| {
                let from = e.at(e.f32(), from, e.mul(i, e.int(axis.to)));
                self.pack(rest, from, e.add(e.mul(at, e.int(axis.size)), i));
            });
            return;
        }
        let lanes = i64::from(self.plan.lanes);
        for row in 0..self.plan.blocks * lanes {
            let (block, lane) = (row / lanes, row % lanes);
            let value = match row < rows.size {
                true => e.load(e.f32(), e.at(e.f32(), from, e.int(row * rows.from)), 4),
                false => e.f32().const_zero().into(),
            };
            let to = e.add(e.int(block * self.windows.n_steps()), at);
            let to = e.add(e.mul(to, e.int(lanes)), e.int(lane));
            e.store(value, e.at(e.f32(), e.pointer_argument(1), to), 4);
        }
    }

    /// Writes code for each list of positions, of which the one with number `chunk` runs.
    fn choose(&self, first: usize, chunk: IntValue<'c>, body: &Body<'_>) {
        let (e, positions) = (self.e, &self.plan.chunks[first]);
        if first + 1 == self.plan.chunks.len() {
            return body(positions);
        }
        let is_it = e.compare(IntPredicate::EQ, chunk, e.int(first as i64));
        let others = || self.choose(first + 1, chunk, body);
        e.branch(is_it, || body(positions), others);
    }

    /// The sums of some positions within the window, for some rows of the other operand.
    fn unit(
        &self,
        outer: IntValue<'c>,
        block: IntValue<'c>,
        positions: &[(i64, i64)],
        room: PointerValue<'c>,
    ) {
        let (e, w) = (self.e, self.windows);
        let axes = &w.kept[..self.plan.n_outer];
        let [from, to] = place(e, outer, axes, w.starts[0]);
        let lanes = i64::from(self.plan.lanes);
        let image = e.at(e.f32(), e.pointer_argument(0), from);
        let packed = e.mul(block, e.int(w.n_steps() * lanes));
        let packed = e.at(e.f32(), e.pointer_argument(1), packed);
        let zero = e.vector(self.plan.lanes).const_zero();
        let sums = vec![zero; positions.len()];
        let sums = self.steps(&w.steps, (image, packed), e.int(0), sums, positions);
        for (i, &sum) in sums.iter().enumerate() {
            e.store(sum, e.at(e.f32(), room, e.int(i as i64 * lanes)), 4);
        }
        let row = e.mul(block, e.int(lanes));
        let out = e.add(to, e.mul(row, e.int(w.rows.to)));
        let out = e.at(e.f32(), e.pointer_argument(2), out);
        let n_rows = e.min(e.sub(e.int(w.rows.size), row), e.int(lanes));
        e.each(e.int(0), n_rows, 1, |lane| {
            let out = e.at(e.f32(), out, e.mul(lane, e.int(w.rows.to)));
            for (i, &(_, to)) in positions.iter().enumerate() {
                let at = e.add(e.int(i as i64 * lanes), lane);
                let sum = e.load(e.f32(), e.at(e.f32(), room, at), 4);
                e.store(sum, e.at(e.f32(), out, e.int(to)), 4);
            }
        });
    }

    /// All steps of some summed dims, in order; `at` is the number of the step of those before.
    fn steps(
        &self,
        axes: &[Axis],
        (image, packed): (PointerValue<'c>, PointerValue<'c>),
        at: IntValue<'c>,
        sums: Values<'c>,
        positions: &[(i64, i64)],
    ) -> Values<'c> {
        let e = self.e;
        let Some((axis, rest)) = axes.split_first() else {
            return self.step(image, packed, at, sums, positions);
        };
        let unroll = UNROLL.into_iter().find(|by| axis.size % by == 0);
        let unroll = unroll.filter(|_| rest.is_empty()).unwrap_or(1);
        let at = e.mul(at, e.int(axis.size));
        e.carry((e.int(0), e.int(axis.size), unroll), sums, |i, sums| {
            let each = 0..unroll;
            each.fold(sums.to_vec(), |sums, by| {
                let i = e.add(i, e.int(by));
                let image = e.at(e.f32(), image, e.mul(i, e.int(axis.from)));
                self.steps(rest, (image, packed), e.add(at, i), sums, positions)
            })
        })
    }

    fn step(
        &self,
        image: PointerValue<'c>,
        packed: PointerValue<'c>,
        at: IntValue<'c>,
        sums: Values<'c>,
        positions: &[(i64, i64)],
    ) -> Values<'c> {
        let (e, lanes) = (self.e, self.plan.lanes);
        let from = e.at(e.f32(), packed, e.mul(at, e.int(lanes.into())));
        let rows = e.load(e.vector(lanes), from, 4 * lanes);
        let each = sums.into_iter().zip(positions);
        each.map(|(sum, &(from, _))| {
            let seen = e.load(e.f32(), e.at(e.f32(), image, e.int(from)), 4);
            e.fma(e.splat(seen, lanes), rows, sum)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn windows(rows: i64, kept: &[i64]) -> Windows {
        let axis = |size, from, to| Axis { size, from, to };
        Windows {
            kind: Kind::Taps,
            inputs: [0, 1],
            starts: [0, 0],
            kept: kept.iter().map(|&size| axis(size, 1, 1)).collect(),
            rows: axis(rows, 784, 25),
            steps: vec![axis(784, 1, 1)],
        }
    }

    #[test]
    fn units_cover_all_positions_with_few_sums_each() {
        for kept in [&[5, 5][..], &[6, 5, 5], &[64], &[3, 7, 7, 3], &[1]] {
            let windows = windows(6, kept);
            let plan = Plan::of(&windows, 16);
            assert!(plan.chunks.iter().all(|chunk| chunk.len() <= SUMS));
            let inside: usize = plan.chunks.iter().map(Vec::len).sum();
            let outer: i64 = kept[..plan.n_outer].iter().product();
            assert_eq!(inside as i64 * outer, kept.iter().product::<i64>());
        }
    }

    #[test]
    fn vectors_are_not_longer_than_the_rows_need() {
        let lanes = |rows, lanes| {
            let plan = Plan::of(&windows(rows, &[5, 5]), lanes);
            (plan.lanes, plan.blocks)
        };
        assert_eq!(lanes(6, 16), (8, 1));
        assert_eq!(lanes(16, 16), (16, 1));
        assert_eq!(lanes(16, 8), (8, 2));
        assert_eq!(lanes(20, 16), (16, 2));
        assert_eq!(lanes(6, 1), (1, 6));
    }
}
