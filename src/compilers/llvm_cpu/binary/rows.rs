//! Rows of numbers → bits or planes of bits, and what stands for these and matrices of signs alone.
//!
//! Packing is generated: 32 numbers, or 8, are compared with 0 and become a word. The rest of a row, and decoding, are the functions
//! that define the ops; threads take rows, or panels of a matrix.
//!
//! Rows may be pixels with others around them ([`Pixels`]), whose signs are those of 0; neighbouring pixels are packed together.
//! Not taken: rows whose numbers lie apart.

use std::sync::Arc;

use inkwell::FloatPredicate;
use inkwell::context::Context;
use inkwell::module::Module;

use super::planes::PlanePacker;
use crate::blocks::{PANEL_ROWS, SignMatrix};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::op::planes::scale_of_row;
use crate::op::{Kernel, KernelCall, KernelInput, NativeCode, Op, Work};
use crate::op::{PlanePart, Planes, SignPart, pack_signs, unpack_signs};
use crate::shape::{Expr, Symbols, View, numel};

/// Numbers below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 16;

/// Numbers that are packed at a time.
pub const WORD: usize = 32;

/// Packs so many words of numbers, of as many bits as the function was made for.
pub type PackFn = unsafe extern "C" fn(words: i64, x: *const f32, bits: *mut u8);

/// How rows lie that are not one after the other: axes of rows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pixels {
    /// For each axis its size, its step in numbers, the first that is there and the first behind these.
    axes: Vec<[Expr; 4]>,
    /// The place of coordinates that are all 0.
    first: Expr,
}

impl Pixels {
    /// The rows that a view shows, without their own axis.
    pub fn of(view: &View) -> Option<Pixels> {
        let layer = view.single()?;
        let (last, outer) = (view.rank().checked_sub(1)?, view.rank() - 1);
        let (low, high) = layer.range(last);
        let is_row = layer.strides[last].is_one() || layer.dims[last].is_one();
        let fits = is_row && low.is_zero() && high == layer.dims[last] && outer > 0;
        let axis = |axis: usize| {
            let (low, high) = layer.range(axis);
            [layer.dims[axis], layer.strides[axis], low, high]
        };
        let mut axes: Vec<_> = (0..outer).map(axis).collect();
        if outer == 1 {
            // Each row is a line, so that threads share them.
            axes.push([1.into(), 0.into(), 0.into(), 1.into()]);
        }
        fits.then_some(Pixels {
            axes,
            first: layer.offset,
        })
    }

    /// The number of lines: what all axes but the last one walk.
    fn lines(&self) -> Expr {
        let (_, outer) = self.axes.split_last().expect("there is an axis");
        outer.iter().fold(1.into(), |n: Expr, axis| n * axis[0])
    }

    /// All expressions.
    fn exprs(&self) -> Vec<Expr> {
        let all = self.axes.iter().flatten().copied();
        all.chain([self.first]).collect()
    }
}

/// A line of pixels.
struct Line {
    /// Pixels, and numbers from one to the next.
    n: usize,
    step: i64,
    /// Those that are there.
    there: std::ops::Range<usize>,
    /// The place of the first, there or not.
    start: i64,
}

impl Line {
    /// Line `number` of these, as [`Pixels::exprs`] were evaluated.
    fn new(number: usize, params: &[i64]) -> Line {
        let (first, axes) = params.split_last().expect("the first place is the last");
        let (last, outer) = axes
            .as_chunks::<4>()
            .0
            .split_last()
            .expect("there is an axis");
        let [n, step, low, high] = *last;
        let (mut rest, mut start, mut is_there) = (number as i64, *first, true);
        for [size, step, low, high] in outer.iter().rev() {
            // Without lines, nobody asks for one.
            let size = (*size).max(1);
            let at = rest % size;
            rest /= size;
            start += at * step;
            is_there &= (low..high).contains(&&at);
        }
        let n = n.max(0) as usize;
        let there = match is_there {
            true => {
                let end = (high.max(0) as usize).min(n);
                (low.max(0) as usize).min(end)..end
            }
            false => 0..0,
        };
        Line {
            n,
            step,
            there,
            start,
        }
    }
}

/// What is made of a row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Make {
    /// Bits of this many numbers.
    Bits(usize),
    /// Bits of this many numbers of pixels.
    Pixels(usize, Pixels),
    /// This many numbers of bits.
    Signs(usize),
    /// A part of a matrix, whose panels are the rows.
    Part(SignMatrix, SignPart),
    /// Planes of this many numbers.
    Planes(Planes, usize),
    /// Levels of this many numbers, or scales, of planes.
    Plane(Planes, usize, PlanePart),
}

/// Rows, one after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SignRows {
    make: Make,
    rows: Expr,
}

impl SignRows {
    /// The rows that a kernel of one step makes, if it does that.
    pub fn of(kernel: &Kernel) -> Option<SignRows> {
        let [step] = &kernel.steps[..] else {
            return None;
        };
        let Some((KernelInput::Operand(0), view)) = step.inputs.first() else {
            return None;
        };
        let stored = &kernel.operands[0];
        let whole = view.is_identity(stored.numel());
        let (last, outer) = view.dims().split_last()?;
        let make = match step.op {
            Op::PackSigns if whole => Make::Bits(last.as_usize()?),
            Op::PackSigns => Make::Pixels(last.as_usize()?, Pixels::of(view)?),
            Op::UnpackSigns(k) => Make::Signs(k),
            Op::SignMatrix(matrix, part) => Make::Part(matrix, part),
            Op::PackPlanes(planes) => Make::Planes(planes, last.as_usize()?),
            Op::UnpackPlanes(k, planes, part) => Make::Plane(planes, k, part),
            _ => return None,
        };
        let (rows, is_bits) = match &make {
            Make::Pixels(_, pixels) => (pixels.lines(), true),
            _ => (numel(outer), false),
        };
        (whole || is_bits).then_some(SignRows { make, rows })
    }

    /// For names: what is made, rows and their length.
    pub fn words(&self) -> (&'static str, Vec<Expr>) {
        let (name, k) = match self.make {
            Make::Bits(k) => ("pack_signs", k),
            Make::Pixels(k, _) => ("pack_pixels", k),
            Make::Signs(k) => ("unpack_signs", k),
            Make::Part(matrix, _) => ("sign_matrix", matrix.columns()),
            Make::Planes(_, k) => ("pack_planes", k),
            Make::Plane(_, k, _) => ("unpack_planes", k),
        };
        (name, vec![self.rows, k.into()])
    }

    /// Numbers in a row.
    fn numbers(&self, params: &[i64]) -> usize {
        match self.make {
            Make::Bits(k) | Make::Signs(k) | Make::Planes(_, k) | Make::Plane(_, k, _) => k,
            Make::Pixels(k, _) => k * Line::new(0, &params[1..]).n,
            Make::Part(matrix, _) => PANEL_ROWS * matrix.columns(),
        }
    }
}

/// Writes the function that packs words of so many signs into `module`.
pub fn emit_pack<'c>(context: &'c Context, module: &Module<'c>, name: &str, bits: usize) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr]);
    (1..3).for_each(|pointer| e.noalias(pointer));
    e.each(e.int(0), e.int_argument(0), 1, |at| {
        let from = e.at(
            e.f32(),
            e.pointer_argument(1),
            e.mul(at, e.int(bits as i64)),
        );
        let kind = e.context.f32_type().vec_type(bits as u32);
        let x = e.load(kind, from, 4).into_vector_value();
        // Not below 0, as NaN is not.
        let signs = e
            .builder
            .build_float_compare(FloatPredicate::UGE, x, kind.const_zero(), "");
        let bits = std::num::NonZeroU32::new(bits as u32).expect("words have bits");
        let word = e.context.custom_width_int_type(bits);
        let word = word.expect("LLVM has integers of any width");
        let signs = e
            .builder
            .build_bit_cast(signs.expect(BUILT), word, "")
            .expect(BUILT);
        let to = e.at(word, e.pointer_argument(2), at);
        e.store(signs.into_int_value(), to, 1);
    });
    e.finish();
}

/// The code.
#[derive(Debug)]
pub struct RowsCode {
    name: String,
    key: u64,
    rows: SignRows,
    /// By words of 32 numbers, and of 8.
    pack: [PackFn; 2],
    /// Where planes are packed.
    planes: Option<PlanePacker>,
    _jit: Arc<Jit>,
}

impl RowsCode {
    /// Compiles and links.
    ///
    /// # Errors
    /// Failure of LLVM or the linker.
    pub fn new(
        (name, key): (String, u64),
        rows: SignRows,
        (target, cache): (&Target, &ObjectCache),
        jit: &Arc<Jit>,
    ) -> Result<RowsCode> {
        let symbols = [WORD, 8].map(|bits| format!("pack_{bits}_signs_{}", target.symbol_part()));
        static MADE: OncePerProcess<Target, Vec<u8>> = OncePerProcess::new();
        let object = MADE.get_or_make(target.clone(), |target| {
            compile_module_cached(target, cache, |context, module| {
                for (symbol, bits) in symbols.iter().zip([WORD, 8]) {
                    emit_pack(context, module, symbol, bits);
                }
                Ok(())
            })
        })?;
        jit.add_once(&symbols[0], &object)?;
        let addresses = [jit.address(&symbols[0])?, jit.address(&symbols[1])?];
        // SAFETY: the symbols are of functions that `emit_pack` wrote, with this signature.
        let pack = unsafe { std::mem::transmute::<[*const (); 2], [PackFn; 2]>(addresses) };
        let planes = match rows.make {
            Make::Planes(planes, _) => Some(PlanePacker::link(planes, (target, cache), jit)?),
            _ => None,
        };
        Ok(RowsCode {
            name,
            key,
            rows,
            pack,
            planes,
            _jit: jit.clone(),
        })
    }

    /// Packs `n` numbers.
    ///
    /// # Safety
    /// They are there, and room for their bits.
    unsafe fn pack(&self, x: *const f32, n: usize, bits: *mut u8) {
        let (words, bytes) = (n / WORD, n % WORD / 8);
        let [first, second] = [words * WORD, words * WORD + bytes * 8];
        // SAFETY: the caller's; whole words, then whole bytes, then what is left.
        unsafe {
            (self.pack[0])(words as i64, x, bits);
            (self.pack[1])(bytes as i64, x.add(first), bits.add(first / 8));
            let x = super::run::floats(x.add(second), n - second);
            let bits = std::slice::from_raw_parts_mut(bits.add(second / 8), x.len().div_ceil(8));
            pack_signs(&x, bits);
        }
    }

    /// Packs a line of pixels of `k` numbers.
    ///
    /// # Safety
    /// `x` is the buffer in which it is.
    unsafe fn line(&self, x: *const f32, k: usize, line: &Line, bits: &mut [u8]) {
        let bytes = k.div_ceil(8);
        let there = line.there.start * bytes..line.there.end * bytes;
        let (before, rest) = bits.split_at_mut(there.start);
        let (bits, after) = rest.split_at_mut(there.len());
        for around in [before, after] {
            around.fill(0xff);
            if !k.is_multiple_of(8) {
                let last = around.iter_mut().skip(bytes - 1).step_by(bytes);
                last.for_each(|byte| *byte >>= 8 - k % 8);
            }
        }
        let start = line.start + line.there.start as i64 * line.step;
        let x = |pixel: usize| x.wrapping_offset((start + pixel as i64 * line.step) as isize);
        let n = line.there.len();
        // SAFETY: a view never leaves its buffer; a pixel's bytes, or those of all where pixels fill them and are neighbours.
        unsafe {
            if line.step == k as i64 && k.is_multiple_of(8) {
                return self.pack(x(0), n * k, bits.as_mut_ptr());
            }
            for pixel in 0..n {
                self.pack(x(pixel), k, bits[pixel * bytes..].as_mut_ptr());
            }
        }
    }

    /// Makes row `row` of `call`.
    ///
    /// # Safety
    /// The buffers are as large as the steps say; nobody else makes this row.
    unsafe fn row(&self, from: *const u8, to: *mut u8, row: usize, params: &[i64]) {
        // SAFETY: each slice is a row of its buffer, or a panel of the matrix and its share of the result.
        unsafe {
            let floats = |start: usize, n: usize| {
                std::slice::from_raw_parts_mut(to.cast::<f32>().add(start), n)
            };
            match self.rows.make {
                Make::Pixels(k, _) => {
                    let line = Line::new(row, &params[1..]);
                    let bytes = line.n * k.div_ceil(8);
                    let bits = std::slice::from_raw_parts_mut(to.add(row * bytes), bytes);
                    self.line(from.cast(), k, &line, bits);
                }
                Make::Bits(k) => {
                    let (x, bytes) = (from.cast::<f32>().add(row * k), k.div_ceil(8));
                    self.pack(x, k, to.add(row * bytes));
                }
                Make::Signs(k) => {
                    let bytes = k.div_ceil(8);
                    let bits = std::slice::from_raw_parts(from.add(row * bytes), bytes);
                    unpack_signs(bits, floats(row * k, k));
                }
                Make::Planes(planes, k) => {
                    let bytes = planes.row_bytes(k);
                    let x = super::run::floats(from.cast::<f32>().add(row * k), k);
                    let packed = std::slice::from_raw_parts_mut(to.add(row * bytes), bytes);
                    let packer = self.planes.as_ref().expect("it was linked with the code");
                    packer.pack(&x, packed);
                }
                Make::Plane(planes, k, part) => {
                    let bytes = planes.row_bytes(k);
                    let packed = std::slice::from_raw_parts(from.add(row * bytes), bytes);
                    match part {
                        PlanePart::Levels => planes.unpack(packed, floats(row * k, k)),
                        PlanePart::Scales => floats(row, 1)[0] = scale_of_row(packed),
                    }
                }
                Make::Part(matrix, part) => {
                    let size = matrix.panel_bytes();
                    let panel = std::slice::from_raw_parts(from.add(row * size), size);
                    let first = row * PANEL_ROWS;
                    let rows = PANEL_ROWS.min(matrix.rows() - first);
                    let columns = matrix.columns();
                    let one = SignMatrix::new(rows, columns, matrix.bases());
                    let one = one.expect("a part of a matrix is a matrix");
                    let all = || floats(first * columns, rows * columns);
                    match part {
                        SignPart::Numbers => one.numbers(panel, all()),
                        SignPart::Signs(base) => one.signs(panel, base, all()),
                        SignPart::Scales(base) => one.scales(panel, base, floats(first, rows)),
                    }
                }
            }
        }
    }
}

struct Run<'a>(*const u8, *mut u8, &'a [i64]);

// SAFETY: operands are only read; each row of the result is written by one thread.
unsafe impl Sync for Run<'_> {}

impl NativeCode for RowsCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&[self.rows.rows], symbols, params)?;
        if let Make::Pixels(_, pixels) = &self.rows.make {
            evaluate(&pixels.exprs(), symbols, params)?;
        }
        let units = params[start].max(0) as usize;
        let cost = units.saturating_mul(self.rows.numbers(&params[start..]));
        Ok(Work {
            units,
            cost,
            n_threads: if cost < SERIAL { 1 } else { n_threads },
            scratch_bytes: 0,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        let pixels = match &self.rows.make {
            Make::Pixels(_, pixels) => pixels.exprs(),
            _ => vec![],
        };
        has(&[self.rows.rows], symbol) || has(&pixels, symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let run = Run(call.buffers[0].cast_const(), call.buffers[1], call.params);
        pool::for_each_range(call.work.n_threads, call.work.units, &|rows| {
            let run = &run;
            for row in rows {
                // SAFETY: as above; a range is one thread's alone.
                unsafe { self.row(run.0, run.1, row, run.2) };
            }
        });
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
