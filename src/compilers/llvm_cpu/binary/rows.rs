//! Rows of numbers → bits or planes of bits, and what stands for these and matrices of signs alone.
//!
//! Packing is generated: 32 numbers are compared with 0 and become a word. The rest of a row, and decoding, are the functions
//! that define the ops; threads take rows, or panels of a matrix.

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
use crate::shape::{Expr, Symbols, numel};

/// Numbers below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 16;

/// Numbers that are packed at a time.
const WORD: usize = 32;

/// Packs so many words of numbers.
pub type PackFn = unsafe extern "C" fn(words: i64, x: *const f32, bits: *mut u8);

/// What is made of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Make {
    /// Bits of this many numbers.
    Bits(usize),
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
            Op::PackSigns => Make::Bits(last.as_usize()?),
            Op::UnpackSigns(k) => Make::Signs(k),
            Op::SignMatrix(matrix, part) => Make::Part(matrix, part),
            Op::PackPlanes(planes) => Make::Planes(planes, last.as_usize()?),
            Op::UnpackPlanes(k, planes, part) => Make::Plane(planes, k, part),
            _ => return None,
        };
        whole.then_some(SignRows {
            make,
            rows: numel(outer),
        })
    }

    /// For names: what is made, rows and their length.
    pub fn words(&self) -> (&'static str, Vec<Expr>) {
        let (name, k) = match self.make {
            Make::Bits(k) => ("pack_signs", k),
            Make::Signs(k) => ("unpack_signs", k),
            Make::Part(matrix, _) => ("sign_matrix", matrix.columns()),
            Make::Planes(_, k) => ("pack_planes", k),
            Make::Plane(_, k, _) => ("unpack_planes", k),
        };
        (name, vec![self.rows, k.into()])
    }

    /// Numbers in a row.
    fn numbers(&self) -> usize {
        match self.make {
            Make::Bits(k) | Make::Signs(k) | Make::Planes(_, k) | Make::Plane(_, k, _) => k,
            Make::Part(matrix, _) => PANEL_ROWS * matrix.columns(),
        }
    }
}

/// Writes the function that packs words of signs into `module`.
pub fn emit_pack<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
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
            e.mul(at, e.int(WORD as i64)),
        );
        let kind = e.context.f32_type().vec_type(WORD as u32);
        let x = e.load(kind, from, 4).into_vector_value();
        // Not below 0, as NaN is not.
        let bits = e
            .builder
            .build_float_compare(FloatPredicate::UGE, x, kind.const_zero(), "");
        let word = e.context.i32_type();
        let bits = e
            .builder
            .build_bit_cast(bits.expect(BUILT), word, "")
            .expect(BUILT);
        let to = e.at(word, e.pointer_argument(2), at);
        e.store(bits.into_int_value(), to, 1);
    });
    e.finish();
}

/// The code.
#[derive(Debug)]
pub struct RowsCode {
    name: String,
    key: u64,
    rows: SignRows,
    pack: PackFn,
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
        let symbol = format!("pack_signs_{}", target.symbol_part());
        static MADE: OncePerProcess<Target, Vec<u8>> = OncePerProcess::new();
        let object = MADE.get_or_make(target.clone(), |target| {
            compile_module_cached(target, cache, |context, module| {
                emit_pack(context, module, &symbol);
                Ok(())
            })
        })?;
        jit.add_once(&symbol, &object)?;
        // SAFETY: the symbol is of the function that `emit_pack` wrote, with this signature.
        let pack = unsafe { std::mem::transmute::<*const (), PackFn>(jit.address(&symbol)?) };
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

    /// Makes row `row` of `call`.
    ///
    /// # Safety
    /// The buffers are as large as the steps say; nobody else makes this row.
    unsafe fn row(&self, from: *const u8, to: *mut u8, row: usize) {
        // SAFETY: each slice is a row of its buffer, or a panel of the matrix and its share of the result.
        unsafe {
            let floats = |start: usize, n: usize| {
                std::slice::from_raw_parts_mut(to.cast::<f32>().add(start), n)
            };
            match self.rows.make {
                Make::Bits(k) => {
                    let (x, bytes) = (from.cast::<f32>().add(row * k), k.div_ceil(8));
                    let bits = to.add(row * bytes);
                    let words = k / WORD;
                    (self.pack)(words as i64, x, bits);
                    let x = super::run::floats(x.add(words * WORD), k % WORD);
                    let bits = bits.add(words * WORD / 8);
                    let bits = std::slice::from_raw_parts_mut(bits, x.len().div_ceil(8));
                    pack_signs(&x, bits);
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

struct Run(*const u8, *mut u8);

// SAFETY: operands are only read; each row of the result is written by one thread.
unsafe impl Sync for Run {}

impl NativeCode for RowsCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&[self.rows.rows], symbols, params)?;
        let units = params[start].max(0) as usize;
        let cost = units.saturating_mul(self.rows.numbers());
        Ok(Work {
            units,
            cost,
            n_threads: if cost < SERIAL { 1 } else { n_threads },
            scratch_bytes: 0,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.rows.rows], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let run = Run(call.buffers[0].cast_const(), call.buffers[1]);
        pool::for_each_range(call.work.n_threads, call.work.units, &|rows| {
            let run = &run;
            for row in rows {
                // SAFETY: as above; a range is one thread's alone.
                unsafe { self.row(run.0, run.1, row) };
            }
        });
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
