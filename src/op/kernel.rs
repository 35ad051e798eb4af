//! Compiled pieces of graph.
//!
//! A [`Kernel`] holds the steps that it replaced ([`KernelStep`]), so that the reference executor can run, print and
//! check a graph at any stage, and, when a back end could lower it, the [`NativeCode`] that does the same faster.
//! Equality and hash are those of the steps and of the code's presence: equal kernels are compiled once.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Op, TensorType};
use crate::error::{Error, Result};
use crate::shape::{Symbols, View};

/// Where a step takes an operand from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KernelInput {
    /// The kernel's operand of this number, as its buffer lies in memory.
    Operand(usize),
    /// The result of an earlier step.
    Step(usize),
}

/// One op inside a kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KernelStep {
    /// What it computes.
    pub op: Op,
    /// Its operands, each looked at through a view.
    pub inputs: Vec<(KernelInput, View)>,
    /// Type of its result.
    pub ty: TensorType,
}

/// A compiled node: the last step's value is the result.
///
/// Code and steps belong together: what runs is chosen by the code, and the sizes of its buffers by the steps. So
/// the fields cannot be exchanged from outside, and attaching code is `unsafe`.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// For listings: what it does.
    pub(crate) name: String,
    /// The ops that it replaced, in order.
    pub(crate) steps: Vec<KernelStep>,
    /// Types of the operands' buffers.
    pub(crate) operands: Vec<TensorType>,
    /// The native code; `None` means the reference executor runs the steps.
    code: Option<Arc<dyn NativeCode>>,
}

impl Kernel {
    /// A kernel without native code.
    pub fn new(name: String, steps: Vec<KernelStep>, operands: Vec<TensorType>) -> Kernel {
        Kernel {
            name,
            steps,
            operands,
            code: None,
        }
    }

    /// The same kernel with native code.
    ///
    /// # Safety
    /// The code must have been made for these steps and operand types: under any values of the symbols for which the
    /// steps' views fit, it may access its operands' and its result's buffers only, and no more of them than their
    /// types say.
    pub unsafe fn with_code(mut self, code: Arc<dyn NativeCode>) -> Kernel {
        self.code = Some(code);
        self
    }

    /// For listings: what it does.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ops that it replaced, in order.
    pub fn steps(&self) -> &[KernelStep] {
        &self.steps
    }

    /// Types of the operands' buffers.
    pub fn operands(&self) -> &[TensorType] {
        &self.operands
    }

    /// The native code; `None` means the reference executor runs the steps.
    pub fn code(&self) -> Option<&Arc<dyn NativeCode>> {
        self.code.as_ref()
    }

    /// Whether each element of the result needs at most the element at its own place of this operand, and the kernel
    /// computes each element once: then the result may be written over the operand.
    pub fn is_pointwise_in(&self, operand: usize) -> bool {
        let mut reads: Vec<bool> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let at_place = |(input, view): &(KernelInput, View)| {
                let from = match *input {
                    KernelInput::Operand(i) => i == operand,
                    KernelInput::Step(i) => reads[i],
                };
                from.then(|| view.is_identity(step.ty.numel()))
            };
            let found: Vec<bool> = step.inputs.iter().filter_map(at_place).collect();
            let is_pointwise = match &step.op {
                Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) => true,
                Op::Contiguous => true,
                op if op.only_matters_to_gradients() => true,
                Op::Constant(_) | Op::Iota { .. } | Op::Gather { .. } => found.is_empty(),
                _ => return false,
            };
            if !is_pointwise || found.contains(&false) {
                return false;
            }
            reads.push(!found.is_empty());
        }
        true
    }

    /// Type of the result.
    ///
    /// # Panics
    /// If there are no steps, which no compiler makes.
    pub fn ty(&self) -> &TensorType {
        &self.steps.last().expect("a kernel has steps").ty
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.operands == other.operands
            && self.steps == other.steps
            && self.code.is_some() == other.code.is_some()
    }
}

impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operands.hash(state);
        self.steps.hash(state);
    }
}

/// What one call of native code amounts to at certain sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Independent pieces, in whatever way the code counts them.
    pub units: usize,
    /// About how many additions they cost together.
    pub cost: usize,
    /// How many threads work.
    pub n_threads: usize,
    /// Working memory of a call.
    pub scratch_bytes: usize,
}

/// One call of native code.
pub struct KernelCall<'a> {
    /// The buffers of the operands in order, then that of the result, then one for each of
    /// [`NativeCode::packings`], in order.
    pub buffers: &'a [*mut u8],
    /// Working memory of [`Work::scratch_bytes`], 64-byte aligned.
    pub scratch: *mut u8,
    /// What [`NativeCode::prepare`] appended.
    pub params: &'a [i64],
    /// What [`NativeCode::prepare`] returned.
    pub work: Work,
}

/// How native code wants one of its operands to lie in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The operand's number.
    pub operand: usize,
    /// How many bytes it takes.
    pub bytes: usize,
    /// What the bytes depend on beside the operand's: equal in every process that would make the same ones.
    pub layout: u64,
    /// A folder for files with packed operands; `None` for no such files.
    pub folder: Option<PathBuf>,
    /// Whether a call can do without: where its buffer is null, the code reads the operand itself, a little slower.
    pub can_wait: bool,
}

/// Machine code for a kernel.
///
/// Everything that follows from the symbols' values is computed by [`NativeCode::prepare`], once per change of a
/// symbol, so that [`NativeCode::run`] does nothing but the work.
pub trait NativeCode: std::fmt::Debug + Send + Sync {
    /// Name of the generated code: `{op}_{shape}_{isa}`.
    fn name(&self) -> &str;

    /// Evaluates what a call needs for these sizes on up to `n_threads` threads: appends its parameters, always equally
    /// many, to `params`, and says how much work there is.
    ///
    /// # Errors
    /// If a symbol has no value.
    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work>;

    /// Whether what [`NativeCode::prepare`] gives may change with this symbol.
    fn depends_on(&self, symbol: char) -> bool;

    /// Runs the code; the bits do not depend on the number of threads.
    ///
    /// # Errors
    /// An index out of range.
    ///
    /// # Safety
    /// The buffers must be as large as the kernel's operand and result types say under the symbols for which the
    /// call was prepared, that of a packed operand as its packing says; the result and the scratch memory must overlap
    /// nothing else in the call, except that the result may be the buffer of an operand in which the kernel is pointwise
    /// ([`Kernel::is_pointwise_in`]).
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()>;

    /// The operands that this code also takes packed. A call then has another buffer for each, in order, behind that of
    /// the result: what [`NativeCode::pack`] has written, which the caller may keep as long as the operand is the same, or
    /// null where [`Packing::can_wait`].
    fn packings(&self) -> &[Packing] {
        &[]
    }

    /// Packs the operand of one of [`NativeCode::packings`], given by its number, on some threads.
    ///
    /// # Safety
    /// `from` is a buffer as large as the operand's type says, `to` has [`Packing::bytes`], is aligned to 64 bytes and
    /// overlaps nothing else.
    unsafe fn pack(&self, _number: usize, _from: *const u8, _to: *mut u8, _n_threads: usize) {
        unreachable!("only called for code that has a packing");
    }

    /// The generated assembly, for those who want to read it.
    fn assembly(&self) -> Option<String> {
        None
    }

    /// Identity of the machine code: kernels with the same key share it.
    fn code_key(&self) -> u64;

    /// The name of the one function that does everything at any size, if there is one: several such can become a
    /// [`NativeSequence`].
    fn symbol(&self) -> Option<&str> {
        None
    }

    /// One function that makes the calls of these parts in order.
    ///
    /// # Errors
    /// If this code cannot do that.
    fn link(&self, _parts: &[SequencePart<'_>]) -> Result<Arc<dyn NativeSequence>> {
        Err(Error::msg("this code is not linked to sequences"))
    }
}

/// One call in a sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequencePart<'a> {
    /// [`NativeCode::symbol`].
    pub symbol: &'a str,
    /// Number of [`KernelCall::buffers`].
    pub n_buffers: usize,
    /// Number of [`KernelCall::params`].
    pub n_params: usize,
}

/// All calls of a sequence: the tables of its parts, one behind the other.
pub struct SequenceCall<'a> {
    /// The parts' buffers.
    pub buffers: &'a [*mut u8],
    /// The parts' parameters.
    pub params: &'a [i64],
    /// The parts' [`Work::units`].
    pub units: &'a [i64],
    /// A word for each part.
    pub errors: &'a mut [i64],
}

/// Machine code that does several kernels in one call, on one thread.
pub trait NativeSequence: std::fmt::Debug + Send + Sync {
    /// Runs all parts.
    ///
    /// # Errors
    /// The first part that found an index out of range, by its number.
    ///
    /// # Panics
    /// If a table has another length than the parts need.
    ///
    /// # Safety
    /// That of [`NativeCode::run`], for each part.
    unsafe fn run(&self, call: SequenceCall<'_>) -> Result<(), (usize, Error)>;
}
