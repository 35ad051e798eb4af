//! Rows of weights → a panel ([`super::form`]), by machine code.
//!
//! Where codes lie in panels as they do in blocks, or a bit is all there is, a panel is a matrix of words turned: 16 rows, of
//! which four words each make four vectors with the words of all rows. Pieces of 16 bytes are put together first, four rows
//! apart, so that every shuffle behind that stays in its 16 bytes, and lanes come out in the order of the rows.
//!
//! ```text
//! blocks: [16 rows][blocks]{scale, words}  ->  numbers: [blocks][words][16 columns], scales: [blocks][16 columns] f16
//! ```
//! It takes about as long as reading the rows from memory does, so products need not wait for panels that are kept.
//! Other types, and panels that are not full, are laid out by [`super::panel::pack`], to which this is equal.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{PointerValue, VectorValue};

use super::form::{COLUMNS, Form};
use super::panel::{codes_from, flip};
use crate::blocks::{self, BlockType};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// `fn(blocks, rows, each, next, numbers, scales)`: [`COLUMNS`] rows of so many blocks, `each` bytes from one to the next, one
/// behind the other; the rows at `next`, as many, are asked for.
pub type TurnFn = unsafe extern "C" fn(
    blocks: i64,
    rows: *const u8,
    each: i64,
    next: *const u8,
    numbers: *mut u8,
    scales: *mut u8,
);

/// Words of a row that are turned together.
const WORDS: usize = 4;

/// Whether a target turns rows of a type.
pub fn fits(target: &Target, ty: BlockType) -> bool {
    target.lanes() >= 8 && codes(ty).is_some() && blocks::subtracted_scale(ty).is_none()
}

/// Where in a block the words begin that are turned.
fn codes(ty: BlockType) -> Option<usize> {
    match Form::of(ty)?.is_signs() {
        true => Some(2),
        false => codes_from(ty),
    }
}

/// Writes [`TurnFn`] into `module`.
///
/// # Panics
/// If the type has no words to turn ([`fits`]).
pub fn emit_turn<'c>(context: &'c Context, module: &Module<'c>, name: &str, ty: BlockType) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, int, ptr, ptr, ptr]);
    [4, 5].into_iter().for_each(|pointer| e.noalias(pointer));
    let form = Form::of(ty).expect("a type with kernels");
    let (byte, bytes) = (context.i8_type(), ty.block_bytes());
    let from = codes(ty).expect("a type whose words are turned");
    let row = |i: usize| {
        let before = e.mul(e.int_argument(2), e.int(i as i64));
        e.at(byte, e.pointer_argument(1), before)
    };
    let rows: [PointerValue<'c>; COLUMNS] = std::array::from_fn(row);
    let turn = Turn {
        e: &e,
        flip: flip(ty),
        is_signs: form.is_signs(),
    };
    e.each(e.int(0), e.int_argument(0), 1, |block| {
        let of = |pointer, each: usize| e.at(byte, pointer, e.mul(block, e.int(each as i64)));
        // The next panel is read from its beginning to its end, as this one's blocks come.
        let next = of(e.pointer_argument(3), COLUMNS * bytes);
        for line in (0..(COLUMNS * bytes) as i64).step_by(64) {
            e.prefetch(next, line, 3);
        }
        let rows = rows.map(|row| of(row, bytes));
        let numbers = of(e.pointer_argument(4), form.groups * form.number_bytes());
        for word in (from..bytes).step_by(4 * WORDS) {
            let to = e.at(byte, numbers, e.int(((word - from) * COLUMNS) as i64));
            turn.words(&rows, word, to);
        }
        let scales = of(e.pointer_argument(5), form.n_scales() * 2 * COLUMNS);
        for (i, &at) in ty.scale_offsets().iter().enumerate() {
            let to = e.at(byte, scales, e.int((i * 2 * COLUMNS) as i64));
            e.store(turn.scales(&rows, at), to, 16);
        }
    });
    e.finish();
}

struct Turn<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    /// What bytes are changed by.
    flip: u8,
    is_signs: bool,
}

impl<'c> Turn<'_, '_, 'c> {
    /// [`WORDS`] words of all rows, `at` bytes from where these are.
    fn words(&self, rows: &[PointerValue<'c>; COLUMNS], at: usize, to: PointerValue<'c>) {
        let (e, byte) = (self.e, self.e.context.i8_type());
        let four = e.context.i32_type().vec_type(WORDS as u32);
        let piece = |row: usize| {
            let from = e.at(byte, rows[row], e.int(at as i64));
            e.load(four, from, 1).into_vector_value()
        };
        let join = |x: VectorValue<'c>, y: VectorValue<'c>| {
            let n = 2 * x.get_type().get_size();
            self.shuffle(x, y, &(0..n).collect::<Vec<_>>())
        };
        let pieces = |first: usize| {
            let [a, b, c, d] = [0, 4, 8, 12].map(|i| piece(first + i));
            join(join(a, b), join(c, d))
        };
        let [a, b, c, d] = [0, 1, 2, 3].map(pieces);
        // Of two vectors' pieces the low halves, or the high ones, one element of each in turn; then two.
        let mixed = |x, y, half: u32, size: u32| {
            let lane = |i: u32| {
                let (place, within) = (i % 4 / size, i % size);
                let source = place % 2 * COLUMNS as u32;
                source + i / 4 * 4 + half * 2 + place / 2 * size + within
            };
            self.shuffle(x, y, &(0..COLUMNS as u32).map(lane).collect::<Vec<_>>())
        };
        for half in 0..2 {
            let (low, high) = (mixed(a, b, half, 1), mixed(c, d, half, 1));
            for which in 0..2 {
                let word = mixed(low, high, which, 2);
                let n = (2 * half + which) as usize * 4 * COLUMNS;
                self.put(word, e.at(byte, to, e.int(n as i64)));
            }
        }
    }

    /// A word of all rows, as panels have it.
    fn put(&self, word: VectorValue<'c>, to: PointerValue<'c>) {
        let (e, b, lanes) = (self.e, &self.e.builder, COLUMNS as u32);
        let constant = |x: i64| e.constants(32, x, lanes);
        if !self.is_signs {
            let flip = constant(i64::from(u32::from_ne_bytes([self.flip; 4])));
            let word = b.build_xor(word, flip, "").expect(BUILT);
            return e.store(word, to, 32);
        }
        let right = |x, by| {
            let moved = b.build_right_shift(x, constant(by), false, "");
            moved.expect(BUILT)
        };
        let narrow = e.context.i8_type().vec_type(lanes);
        for j in 0..4 {
            // Every fourth bit, moved to its neighbour, these pairs, and so on.
            let mut bits = right(word, j);
            for (by, mask) in [(0, 0x1111_1111), (3, 0x0303_0303), (6, 0x000f_000f)] {
                if by > 0 {
                    bits = b.build_or(bits, right(bits, by), "").expect(BUILT);
                }
                bits = b.build_and(bits, constant(mask), "").expect(BUILT);
            }
            let bits = b.build_or(bits, right(bits, 12), "").expect(BUILT);
            let bits = b.build_int_truncate(bits, narrow, "").expect(BUILT);
            let at = e.int(j * COLUMNS as i64);
            e.store(bits, e.at(e.context.i8_type(), to, at), 16);
        }
    }

    /// The scale of all rows that is `at` bytes from where these are.
    fn scales(&self, rows: &[PointerValue<'c>; COLUMNS], at: usize) -> VectorValue<'c> {
        let (e, half) = (self.e, self.e.context.i16_type());
        let mut all = half.vec_type(COLUMNS as u32).const_zero();
        for (i, row) in rows.iter().enumerate() {
            let from = e.at(e.context.i8_type(), *row, e.int(at as i64));
            let scale = e.load(half, from, 1);
            all = e.insert(all.into(), scale, i as u32).into_vector_value();
        }
        all
    }

    fn shuffle(&self, x: VectorValue<'c>, y: VectorValue<'c>, order: &[u32]) -> VectorValue<'c> {
        self.e
            .shuffle(x.into(), y.into(), order)
            .into_vector_value()
    }
}
