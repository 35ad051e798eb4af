//! What can be wrong with a shape, a view or their text.

use super::Expr;
use std::fmt;

/// A symbol of an expression has no value in this execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the symbol '{symbol}' has no value")]
pub struct UnsetSymbol {
    /// The symbol without a value.
    pub symbol: char,
}

/// Why a view cannot be given numbers for its symbols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A symbol has no value.
    #[error(transparent)]
    Unset(#[from] UnsetSymbol),
    /// The values contradict what a movement operation required when it was recorded.
    #[error("`{condition}` must not be negative, but is {value}")]
    Impossible {
        /// The expression that must be at least zero.
        condition: Expr,
        /// What it is with the symbols' values.
        value: i64,
    },
}

/// A text that is not an expression or a view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at}")]
pub struct ParseError {
    /// Byte offset of the problem in the text.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

/// A movement operation that has no meaning on the given shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// An axis that the shape does not have.
    #[error("axis {axis} is out of range for {} of rank {}", List(dims), dims.len())]
    AxisOutOfRange {
        /// The axis asked for.
        axis: usize,
        /// The shape.
        dims: Box<[Expr]>,
    },
    /// An order of axes that is not a permutation.
    #[error("{order:?} is not a permutation of the {} axes of {}", dims.len(), List(dims))]
    NotAPermutation {
        /// The order asked for.
        order: Vec<usize>,
        /// The shape.
        dims: Box<[Expr]>,
    },
    /// A reshape that changes the number of elements.
    #[error(
        "cannot reshape {} ({} elements) to {} ({} elements)",
        List(from),
        super::numel(from),
        List(to),
        super::numel(to)
    )]
    Reshape {
        /// The shape before.
        from: Box<[Expr]>,
        /// The shape asked for.
        to: Box<[Expr]>,
    },
    /// An axis that must have size 1 to be expanded or squeezed.
    #[error("cannot {what} axis {axis} of {}: its size is not 1", List(dims))]
    NotOne {
        /// `expand` or `squeeze`.
        what: &'static str,
        /// The axis.
        axis: usize,
        /// The shape.
        dims: Box<[Expr]>,
    },
    /// A size that is negative.
    #[error("a size cannot be negative: {size}")]
    NegativeSize {
        /// The size.
        size: Expr,
    },
    /// A slice that leaves its axis, or has a step of 0.
    #[error(
        "cannot slice {start}..{end} with step {step} from axis {axis} of {}",
        List(dims)
    )]
    Slice {
        /// First index.
        start: Expr,
        /// One past the last index, in the direction of the step.
        end: Expr,
        /// Distance between indices.
        step: i64,
        /// The axis.
        axis: usize,
        /// The shape.
        dims: Box<[Expr]>,
    },
    /// A negative padding.
    #[error(
        "cannot pad axis {axis} of {} by {before} before and {after} after",
        List(dims)
    )]
    Pad {
        /// Elements before.
        before: Expr,
        /// Elements after.
        after: Expr,
        /// The axis.
        axis: usize,
        /// The shape.
        dims: Box<[Expr]>,
    },
    /// A window that does not fit in its axis, or with an extent, step or dilation of 0.
    #[error(
        "cannot unfold axis {axis} of {} into windows of {size} with step {step} and dilation {dilation}",
        List(dims)
    )]
    Unfold {
        /// Elements in a window.
        size: Expr,
        /// Distance of windows.
        step: i64,
        /// Distance of the elements in a window.
        dilation: i64,
        /// The axis.
        axis: usize,
        /// The shape.
        dims: Box<[Expr]>,
    },
    /// Other dims than the operation needs.
    #[error("expected {}, found {}", List(expected), List(found))]
    Mismatch {
        /// What is needed.
        expected: Box<[Expr]>,
        /// What is there.
        found: Box<[Expr]>,
    },
}

/// Displays dims as `[2, s, 4]`.
pub(crate) struct List<'a>(pub(crate) &'a [Expr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, dim) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}
