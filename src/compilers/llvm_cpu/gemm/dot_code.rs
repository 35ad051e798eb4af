//! Writing the code of dot products, which [`super::dot`] calls and documents.
//!
//! Blocks are read a whole block at a time, also the last one of a row: its scale is widened once, and it is in memory.
//! Elements one behind the other are read sixteen at a time. Nothing behind the last ones of a row is read: they are read
//! under a mask where the target has loads for that, and copied to the stack first where it has none.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::stored::{self, Stored};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::emit_masked::has_masks;
use crate::compilers::llvm_cpu::lower::STRIPES;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;

/// The most rows of one operand in a kernel.
pub(super) const MOST: usize = 6;

/// Rows of the small and of the large operand that the largest kernel of a target takes: as many as fit its registers.
pub fn shape(stored: [Stored; 2], target: &Target) -> (usize, usize) {
    match target.lanes() {
        // Scales of blocks need registers too.
        16 if stored.contains(&Stored::Q8_0) => (4, 4),
        16 => (6, 4),
        8 => (2, 3),
        4 => (1, 2),
        _ => (1, 1),
    }
}

/// The sizes that kernels are made for.
pub fn shapes(stored: [Stored; 2], target: &Target) -> impl Iterator<Item = (usize, usize)> {
    let (few, many) = shape(stored, target);
    let many = if many > 1 { vec![many, 1] } else { vec![1] };
    (1..=few).flat_map(move |few| many.clone().into_iter().map(move |many| (few, many)))
}

/// The symbol of a kernel.
pub fn symbol(stored: [Stored; 2], (few, many): (usize, usize), target: &Target) -> String {
    let isa = target.symbol_part();
    let [a, b] = stored.map(Stored::name);
    format!("dot_{a}x{b}_f32_{few}x{many}_{isa}")
}

/// Writes a kernel into `module`.
pub fn emit_dot<'c>(
    context: &'c Context,
    module: &Module<'c>,
    stored: [Stored; 2],
    shape: (usize, usize),
    target: &Target,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let name = symbol(stored, shape, target);
    let e = Emit::function(context, module, &name, &[int, ptr, ptr, ptr, ptr]);
    (1..4).for_each(|pointer| e.noalias(pointer));
    let dot = Dot {
        e: &e,
        stored,
        shape,
        lanes: target.lanes(),
    };
    dot.emit();
    e.finish();
}

struct Dot<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    stored: [Stored; 2],
    shape: (usize, usize),
    lanes: u32,
}

/// Where steps of a row are read.
enum Source<'c> {
    Numbers(DType, PointerValue<'c>),
    Block(stored::Block<'c>),
}

/// The rows of both operands.
type Pointers<'c> = [Vec<PointerValue<'c>>; 2];

impl<'c> Dot<'_, '_, 'c> {
    /// Steps of a round: a block, if there are any.
    fn round(&self) -> u32 {
        match self.stored.contains(&Stored::Q8_0) {
            true => stored::LEN as u32,
            false => STRIPES,
        }
    }

    fn emit(&self) {
        let e = self.e;
        let k = e.int_argument(0);
        let row = |side: u32, row: usize| {
            let table = e.pointer_argument(side + 1);
            let from = e.at(e.ptr(), table, e.int(row as i64));
            e.load(e.ptr(), from, 8).into_pointer_value()
        };
        let rows: Pointers<'c> = [
            (0..self.shape.0).map(|r| row(0, r)).collect(),
            (0..self.shape.1).map(|r| row(1, r)).collect(),
        ];
        let tails = self.reserve(&rows);
        let parts = (STRIPES / self.lanes) as usize;
        let count = self.shape.0 * self.shape.1 * parts;
        let zeros = vec![e.vector(self.lanes).const_zero(); count];
        let round = i64::from(self.round());
        let whole = e.builder.build_and(k, e.int(-round), "").expect(BUILT);
        let sums = e.carry((e.int(0), whole, round), zeros, |at, sums| {
            self.prefetch(at);
            self.step(&rows, [at; 2], None, sums)
        });
        // Runs once or not at all.
        let rest = e.sub(k, whole);
        let sums = e.carry((whole, k, round), sums, |at, sums| {
            self.copy_tails(&rows, &tails, at, rest);
            let from = |side: usize| match self.is_copied(side) {
                Some(_) => e.int(0),
                None => at,
            };
            self.step(&tails, [from(0), from(1)], Some(rest), sums)
        });
        let sums = sums.chunks(parts).map(|sums| self.folded(sums.to_vec()));
        for (index, sums) in self.tree(sums.collect()).into_iter().enumerate() {
            let first = e.int(index as i64 * i64::from(self.lanes));
            e.store(sums, e.at(e.f32(), e.pointer_argument(3), first), 4);
        }
    }

    /// Asks for memory behind `next` as fast as the rows are used: one stream of neighbouring cache lines, which the
    /// machine reads faster than several rows at once.
    fn prefetch(&self, at: IntValue<'c>) {
        let (e, round) = (self.e, i64::from(self.round()));
        let bytes = self.stored[1].bytes(round as isize) as i64 * self.shape.1 as i64;
        let rounds = e.builder.build_int_exact_signed_div(at, e.int(round), "");
        let from = e.mul(rounds.expect(BUILT), e.int(bytes));
        let from = e.at(e.context.i8_type(), e.pointer_argument(4), from);
        for line in (0..bytes).step_by(64) {
            e.prefetch(from, line, 2);
        }
    }

    /// How an element is stored.
    fn kind(&self, dtype: DType) -> BasicTypeEnum<'c> {
        match dtype {
            DType::F32 => self.e.f32().into(),
            _ => self.e.context.i16_type().into(),
        }
    }

    /// A round from these steps of either operand on; only its first `rest` steps count, if given.
    fn step(
        &self,
        rows: &Pointers<'c>,
        at: [IntValue<'c>; 2],
        rest: Option<IntValue<'c>>,
        sums: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, parts) = (self.e, (STRIPES / self.lanes) as usize);
        let mut next = sums.to_vec();
        let sources = [0, 1].map(|side| self.sources(side, &rows[side], at[side]));
        for part in 0..(self.round() / self.lanes) as usize {
            let first = part as i64 * i64::from(self.lanes);
            let valid = rest.map(|rest| e.lanes_below(self.lanes, e.sub(rest, e.int(first))));
            let read = |side: usize| -> Vec<BasicValueEnum<'c>> {
                let valid = valid.filter(|_| self.is_copied(side).is_none());
                let values = sources[side].iter();
                let value = |source| self.read(source, e.int(first), valid);
                values.map(value).collect()
            };
            let (few, many) = (read(0), read(1));
            for (i, &a) in few.iter().enumerate() {
                for (j, &b) in many.iter().enumerate() {
                    let sum = &mut next[(i * many.len() + j) * parts + part % parts];
                    let new = e.fma(a, b, *sum);
                    *sum = valid.map_or(new, |valid| e.select(valid, new, *sum));
                }
            }
        }
        next
    }

    /// Where rows of one operand are read from, from step `at` on.
    fn sources(&self, side: usize, rows: &[PointerValue<'c>], at: IntValue<'c>) -> Vec<Source<'c>> {
        let e = self.e;
        let source = |&row: &PointerValue<'c>| match self.stored[side] {
            Stored::Number(dtype) => Source::Numbers(dtype, e.at(self.kind(dtype), row, at)),
            Stored::Q8_0 => Source::Block(e.block(row, at, 0)),
        };
        rows.iter().map(source).collect()
    }

    /// A vector of a row, `first` steps behind where its source begins; only its `valid` lanes, if given, unless of a
    /// block.
    fn read(
        &self,
        source: &Source<'c>,
        first: IntValue<'c>,
        valid: Option<BasicValueEnum<'c>>,
    ) -> BasicValueEnum<'c> {
        let e = self.e;
        match *source {
            Source::Numbers(dtype, from) => {
                // SAFETY: not marked `inbounds`: behind the row's end no lane is valid.
                let from = unsafe { e.builder.build_gep(self.kind(dtype), from, &[first], "") };
                let from = from.expect(BUILT);
                match valid {
                    Some(valid) => e.masked_read_f32(dtype, from, self.lanes, valid),
                    None => e.read_f32(dtype, from, self.lanes),
                }
            }
            Source::Block(block) => e.numbers(block, first, self.lanes),
        }
    }

    /// The format of an operand whose last steps are copied before they are read: where the target has no masked loads of
    /// it.
    fn is_copied(&self, side: usize) -> Option<DType> {
        match self.stored[side] {
            Stored::Number(dtype) => (!has_masks(self.lanes, dtype)).then_some(dtype),
            Stored::Q8_0 => None,
        }
    }

    /// A round's elements of the stack for each row that is copied; the row itself of others.
    fn reserve(&self, rows: &Pointers<'c>) -> Pointers<'c> {
        let e = self.e;
        let reserve = |side: usize| {
            let one = |&row: &PointerValue<'c>| {
                if self.is_copied(side).is_none() {
                    return row;
                }
                let bytes = 4 * self.round();
                let kind = e.context.i8_type().array_type(bytes);
                let place = e.builder.build_alloca(kind, "tail").expect(BUILT);
                let zero = e.context.i8_type().vec_type(bytes).const_zero();
                e.store(zero, place, 1);
                place
            };
            rows[side].iter().map(one).collect()
        };
        [reserve(0), reserve(1)]
    }

    /// Copies the last steps of rows, so that whole vectors can be read.
    fn copy_tails(
        &self,
        rows: &Pointers<'c>,
        to: &Pointers<'c>,
        at: IntValue<'c>,
        rest: IntValue<'c>,
    ) {
        let e = self.e;
        if [0, 1].iter().all(|&side| self.is_copied(side).is_none()) {
            return;
        }
        e.each(e.int(0), rest, 1, |index| {
            for side in 0..2 {
                let Some(dtype) = self.is_copied(side) else {
                    continue;
                };
                let kind = self.kind(dtype);
                for (&from, &to) in rows[side].iter().zip(&to[side]) {
                    let value = e.load(kind, e.at(kind, from, e.add(at, index)), 2);
                    e.store(value, e.at(kind, to, index), 2);
                }
            }
        });
    }

    /// 16 partial sums in one vector or several: as many as the vector has lanes.
    fn folded(&self, mut parts: Vec<BasicValueEnum<'c>>) -> BasicValueEnum<'c> {
        while parts.len() > 1 {
            let (low, high) = parts.split_at(parts.len() / 2);
            let pairs = low.iter().zip(high);
            parts = pairs.map(|(&a, &b)| self.e.fadd(a, b)).collect();
        }
        parts[0]
    }

    /// From vectors of partial sums, one for each element, to vectors of elements in the same order.
    ///
    /// A vector holds the partial sums of some elements one after the other. Of two vectors, the first halves of all
    /// elements' partial sums are added to the second halves, which gives one vector, with half as many for each.
    fn tree(&self, mut sums: Vec<BasicValueEnum<'c>>) -> Vec<BasicValueEnum<'c>> {
        let mut each = self.lanes;
        while each > 1 {
            each /= 2;
            let chosen = |first: u32| -> Vec<u32> {
                let lanes = 0..2 * self.lanes;
                lanes.filter(|lane| lane / each % 2 == first).collect()
            };
            let (low, high) = (chosen(0), chosen(1));
            let add = |pair: &[BasicValueEnum<'c>]| {
                let (a, b) = (pair[0], pair[pair.len() - 1]);
                let e = self.e;
                e.fadd(e.shuffle(a, b, &low), e.shuffle(a, b, &high))
            };
            sums = sums.chunks(2).map(add).collect();
        }
        sums
    }
}
