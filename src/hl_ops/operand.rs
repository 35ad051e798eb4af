//! What can stand on the right of an operator: a tensor or a number.
//!
//! Two tensors are broadcast as in NumPy: shapes are aligned at the right, and a dimension of size 1 is repeated. A
//! symbolic dimension fits only itself and 1. A number takes the format of the tensor it meets, which has to be able to
//! hold it (no `1.5` for an `i32` tensor). Formats of two tensors are never mixed silently.

use crate::dtype::DType;
use crate::error::Error;
use crate::graph::{Dyn, GraphTensor, Shape};
use crate::shape::{Dims, Expr, same_size};

/// An operand before it met the tensor on its left.
#[derive(Clone, Copy, Debug)]
pub enum Term {
    /// A tensor.
    Tensor(GraphTensor),
    /// A number, without a format yet.
    Number(f64),
}

/// A tensor of shape `S`, or a number: `f32`, `f64`, `i32`, `usize` or `bool`.
pub trait Operand<S: Shape>: Copy {
    /// The operand, without its static shape.
    fn term(self) -> Term;
}

impl<S: Shape> Operand<S> for GraphTensor<S> {
    fn term(self) -> Term {
        Term::Tensor(self.dynamic())
    }
}

impl Operand<Dyn> for Term {
    fn term(self) -> Term {
        self
    }
}

macro_rules! numbers {
    ($($ty:ty: $x:ident => $value:expr;)*) => {
        $(impl<S: Shape> Operand<S> for $ty {
            fn term(self) -> Term {
                let $x = self;
                Term::Number($value)
            }
        })*
    };
}

numbers! {
    f32: x => f64::from(x);
    f64: x => x;
    i32: x => f64::from(x);
    usize: x => x as f64;
    bool: x => f64::from(u8::from(x));
}

impl Term {
    /// The operand as a tensor of the format that the other operand has; a number stays without dimensions.
    #[track_caller]
    pub(crate) fn tensor(self, graph: u32, dtype: DType, op: &str) -> GraphTensor {
        match self {
            Term::Tensor(tensor) => tensor,
            Term::Number(value) => number(graph, dtype, value, op),
        }
    }

    /// The number, if it is one.
    pub(crate) fn number(self) -> Option<f64> {
        match self {
            Term::Tensor(_) => None,
            Term::Number(value) => Some(value),
        }
    }
}

/// A constant of this format.
///
/// # Panics
/// At the caller's line, if the format cannot hold the number: a fraction for integers, anything but 0 and 1 for
/// booleans.
#[track_caller]
pub(crate) fn number(graph: u32, dtype: DType, value: f64, op: &str) -> GraphTensor {
    let fits = match dtype {
        DType::I32 => f64::from(value as i32) == value,
        DType::U8 => f64::from(value as u8) == value,
        DType::Bool => value == 0.0 || value == 1.0,
        _ => true,
    };
    if !fits {
        let what = format!("{dtype} cannot hold {value}; use `.cast(DType::F32)` on the tensor");
        fail(op, what);
    }
    GraphTensor::scalar(graph, dtype, value)
}

#[track_caller]
pub(crate) fn fail(op: &str, what: String) -> ! {
    Error::Shape {
        op: op.into(),
        what,
    }
    .raise()
}

/// The size that two sizes broadcast to.
fn broadcast_size(a: Expr, b: Expr) -> Option<Expr> {
    if same_size(a, b) || b.is_one() {
        Some(a)
    } else if a.is_one() {
        Some(b)
    } else {
        None
    }
}

/// The dims that two lists of dims broadcast to, if they do.
pub(crate) fn broadcast_dims(a: &[Expr], b: &[Expr]) -> Option<Dims> {
    let rank = a.len().max(b.len());
    let size = |dims: &[Expr], i: usize| {
        (i + dims.len())
            .checked_sub(rank)
            .map_or(Expr::from(1), |axis| dims[axis])
    };
    (0..rank)
        .map(|i| broadcast_size(size(a, i), size(b, i)))
        .collect()
}

/// All tensors broadcast to one shape.
///
/// # Panics
/// At the caller's line, if they do not fit each other.
#[track_caller]
pub(crate) fn broadcast<const N: usize>(op: &str, tensors: [GraphTensor; N]) -> [GraphTensor; N] {
    let mut dims = tensors[0].dims();
    for tensor in &tensors[1..] {
        let Some(both) = broadcast_dims(&dims, &tensor.dims()) else {
            let shapes: Vec<String> = tensors.iter().map(|t| t.ty().to_string()).collect();
            let what = format!("shapes do not broadcast: {}", shapes.join(" and "));
            fail(op, what);
        };
        dims = both;
    }
    let mut out = tensors;
    for tensor in &mut out {
        *tensor = tensor.broadcast_to(op, &dims);
    }
    out
}

impl GraphTensor {
    /// This tensor repeated along new leading axes and along its axes of size 1, to these dims.
    ///
    /// # Panics
    /// At the caller's line, if the dims are not reachable that way.
    #[track_caller]
    pub(crate) fn broadcast_to(self, op: &str, dims: &[Expr]) -> GraphTensor {
        let ty = self.ty();
        if ty.dims[..] == *dims {
            return self;
        }
        let fits = broadcast_dims(&ty.dims, dims).is_some_and(|both| {
            both.len() == dims.len() && both.iter().zip(dims).all(|(&a, &b)| same_size(a, b))
        });
        if !fits {
            fail(op, format!("{ty} does not broadcast to {dims:?}"));
        }
        let new = dims.len() - ty.dims.len();
        self.look(op, |view| {
            let mut view = view.clone();
            for (axis, &size) in dims.iter().enumerate() {
                if axis < new {
                    view = view.insert(axis, size)?;
                } else if ty.dims[axis - new].is_one() && !size.is_one() {
                    view = view.expand(axis, size)?;
                }
            }
            // Sizes may be equal without being written alike.
            view.reshape(dims)
        })
    }
}
