//! What an operation *is*, once.
//!
//! [`Op`] is a closed enum: twelve primitives (`Log2 Exp2 Sin Sqrt Recip`, `Add Mul Mod LessThan`, `SumReduce
//! MaxReduce`, `Contiguous`) and only those others that the twelve cannot express at their natural cost. Each op has one row in the
//! [`table`]: name, arity, shape and format rule, algebraic properties, reference `eval` and samples. Everything that
//! a pass, a test or the text form wants to know about an op it reads there.
//!
//! Equality and hash are structural: two ops are equal exactly when they compute the same function of their operands
//! (an [`Op::Input`] is equal only to itself, through its number).
//!
//! This module knows no graph and names no compiler.

use std::sync::Arc;

use crate::blocks::{BlockType, SignMatrix};
use crate::dtype::DType;
use crate::shape::{Dims, Expr, IntoDims};

mod binary;
mod custom;
pub mod gradient;
mod indexing;
mod kernel;
mod known;
mod leaf;
mod literal;
mod low_bit;
pub mod math;
pub mod planes;
pub mod random;
mod reduce;
mod samples;
mod signs;
pub mod table;
mod unary;

pub use custom::{CustomHandle, CustomOp};
pub use kernel::{
    Kernel, KernelCall, KernelInput, KernelStep, NativeCode, NativeSequence, Packing, SequenceCall,
    SequencePart, Work,
};
pub use known::KnownGradient;
pub use literal::Literal;
pub use low_bit::{ActivationScheme, OUTLIER_TOP, activation_scale, outlier_scale};
pub use planes::{PlanePart, Planes};
pub(crate) use reduce::larger;
pub use samples::Sample;
#[cfg(feature = "llvm-backend")]
pub(crate) use signs::is_not_below_0;
pub use signs::{SignPart, pack_signs, unpack_signs};
pub use table::{EvalContext, OpRow};

/// Shape and number format of a tensor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// The dimensions, outermost first.
    pub dims: Dims,
    /// The elements' format.
    pub dtype: DType,
}

impl TensorType {
    /// A type of these dimensions and format.
    pub fn new(dims: impl IntoDims, dtype: DType) -> TensorType {
        TensorType {
            dims: dims.into_dims(),
            dtype,
        }
    }

    /// Number of elements.
    pub fn numel(&self) -> Expr {
        crate::shape::numel(&self.dims)
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

/// Functions of one number. Floating formats only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnaryOp {
    /// Logarithm to base 2.
    Log2,
    /// 2 to the power of x.
    Exp2,
    /// Sine of x in radians.
    Sin,
    /// Square root, correctly rounded.
    Sqrt,
    /// `1 / x`, correctly rounded.
    Recip,
}

/// Functions of two numbers of the same format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinaryOp {
    /// Sum; `or` of booleans; integers wrap.
    Add,
    /// Product; `and` of booleans; integers wrap.
    Mul,
    /// Remainder with the sign of the dividend (C's `fmod`); an integer remainder by 0 is 0.
    Mod,
    /// Whether left < right; any comparison with NaN is false. Gives `Bool`.
    LessThan,
}

/// How a dimension is folded away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceOp {
    /// Sum (`any` of booleans); 0 over nothing.
    Sum,
    /// Largest value, NaN if there is one; the format's smallest value over nothing.
    Max,
}

/// What a [`Op::Scatter`] does where it writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScatterMode {
    /// The update replaces the old value; of several for one place the last in row-major order stays.
    Set,
    /// Updates are added in row-major order.
    Add,
    /// The largest stays.
    Max,
}

/// Value of an [`Op::Constant`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConstantValue {
    /// A number.
    Literal(Literal),
    /// The value of a symbolic expression at execution, as `I32`.
    Size(Expr),
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Data that comes from outside, told apart by its number.
    Input {
        /// Number within the graph.
        id: u32,
        /// What the data looks like.
        ty: TensorType,
    },
    /// A single number (no dimensions). Leaf, since no op makes a number out of nothing.
    Constant(ConstantValue),
    /// `0, 1, .. len - 1` as `I32`. Leaf: as a sum of ones it would cost O(n²).
    Iota {
        /// How many.
        len: Expr,
    },
    /// Uniform `F32` numbers in [0, 1): element `i` is a pure function of `seed`, `step` and `i` ([`random`]).
    /// Leaf: no arithmetic on floats makes good bits.
    Random {
        /// Dimensions.
        dims: Dims,
        /// The stream.
        seed: u64,
        /// Evaluated at execution; a new value draws new numbers.
        step: Expr,
    },
    /// A function of one number.
    Unary(UnaryOp),
    /// A function of two numbers.
    Binary(BinaryOp),
    /// `where(condition, a, b)`. Not `c*a + (1-c)*b`, which turns an infinity on the unused side into NaN.
    Select,
    /// Folds these axes (sorted, distinct) away.
    Reduce(ReduceOp, AxisSet),
    /// The operand's view written out.
    Contiguous,
    /// `out[i..] = data[i.. with coordinate axis = index[i..]]`. As one-hot times table it would cost the whole table.
    Gather {
        /// The axis of `data` that the index walks.
        axis: usize,
    },
    /// `base` with `updates[i..]` written at `[i.. with coordinate axis = index[i..]]`; the transpose of [`Op::Gather`].
    Scatter {
        /// The axis of `base` that the index walks.
        axis: usize,
        /// What happens to the old value.
        mode: ScatterMode,
    },
    /// The same numbers in another format. Arithmetic cannot change a format.
    Cast(DType),
    /// The operand, through which no gradient flows.
    Detach,
    /// The first operand, but gradients flow to the second (Bengio et al. 2013, straight-through estimators). As
    /// `x + detach(q - x)` the forward value would be rounded twice.
    StraightThrough,
    /// The first operand, a function of the second whose gradient is known in closed form ([`KnownGradient`]).
    KnownGradient(KnownGradient),
    /// Blocks of a low-bit format, stored as `U8`, of numbers.
    Quantize(BlockType),
    /// Numbers from blocks of a low-bit format, stored as `U8`.
    Dequantize(BlockType),
    /// The operand rounded to 8 bits or fewer, as numbers ([`ActivationScheme`]).
    FakeQuantize(ActivationScheme),
    /// A bit for each element of a row, set where it is not below 0.
    PackSigns,
    /// 1 for a set bit and -1 for another, of rows of so many.
    UnpackSigns(usize),
    /// Rows of numbers of a few bits: a scale and planes of bits, as `U8`.
    PackPlanes(Planes),
    /// Levels or scales of rows of so many numbers in planes of bits.
    UnpackPlanes(usize, Planes, PlanePart),
    /// A part of a matrix whose numbers are sums of scaled signs, stored as `U8`.
    SignMatrix(SignMatrix, SignPart),
    /// A user's own operation.
    Custom(CustomHandle),
    /// A compiled piece of graph. It keeps what it replaced.
    Kernel(Arc<Kernel>),
}

/// A sorted set of axes.
pub type AxisSet = smallvec::SmallVec<[usize; 4]>;

impl Op {
    /// The op's row in the table.
    pub fn row(&self) -> &'static OpRow {
        table::row_of(self)
    }

    /// The op's name, as in the text form.
    pub fn name(&self) -> &'static str {
        self.row().name
    }

    /// A leaf has no operands.
    pub fn is_leaf(&self) -> bool {
        matches!(
            self,
            Op::Input { .. } | Op::Constant(_) | Op::Iota { .. } | Op::Random { .. }
        )
    }

    /// Whether the result is the first operand, and the rest only matters to gradients.
    pub fn only_matters_to_gradients(&self) -> bool {
        matches!(
            self,
            Op::Detach | Op::StraightThrough | Op::KnownGradient(_)
        )
    }

    /// Type of the result for operands of these types.
    ///
    /// # Errors
    /// A sentence that says which operand does not fit and why.
    pub fn infer(&self, inputs: &[TensorType]) -> Result<TensorType, String> {
        (self.row().infer)(self, inputs)
    }

    /// Symbols that the op itself (not its operands) depends on.
    pub fn exprs(&self) -> Vec<Expr> {
        match self {
            Op::Input { ty, .. } => ty.dims.to_vec(),
            Op::Constant(ConstantValue::Size(e)) => vec![*e],
            Op::Iota { len } => vec![*len],
            Op::Random { dims, step, .. } => dims.iter().copied().chain([*step]).collect(),
            _ => Vec::new(),
        }
    }
}
