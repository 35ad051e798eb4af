//! Arithmetic of two tensors, or of a tensor and a number: the operators, and the functions beside them.
//!
//! `a - b` is recorded as `a + -1 * b` and `a / b` as `a * recip(b)`. On booleans `+` and `|` are "or", `*` and `&` are
//! "and".

use std::ops::{
    Add, AddAssign, BitAnd, BitOr, BitXor, Div, DivAssign, Mul, MulAssign, Neg, Not, Rem,
    RemAssign, Sub, SubAssign,
};

use super::operand::{Operand, Term, broadcast, fail, number};
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{BinaryOp, Op};

/// Both operands with one shape and format.
#[track_caller]
pub(crate) fn pair(op: &str, a: GraphTensor, b: Term) -> [GraphTensor; 2] {
    let dtype = a.dtype();
    let b = b.tensor(a.graph, dtype, op);
    if b.dtype() != dtype {
        let (a, b) = (a.ty(), b.ty());
        fail(
            op,
            format!("operands of different formats, {a} and {b}; use `.cast(..)` on one of them"),
        );
    }
    broadcast(op, [a, b])
}

#[track_caller]
fn binary(name: &str, op: BinaryOp, a: GraphTensor, b: Term) -> GraphTensor {
    GraphTensor::record(Op::Binary(op), &pair(name, a, b))
}

#[track_caller]
pub(crate) fn add(a: GraphTensor, b: Term) -> GraphTensor {
    binary("add", BinaryOp::Add, a, b)
}

#[track_caller]
pub(crate) fn mul(a: GraphTensor, b: Term) -> GraphTensor {
    binary("mul", BinaryOp::Mul, a, b)
}

#[track_caller]
fn sub(a: GraphTensor, b: Term) -> GraphTensor {
    numeric("sub", a);
    match b {
        Term::Number(b) => binary("sub", BinaryOp::Add, a, Term::Number(-b)),
        Term::Tensor(b) => {
            numeric("sub", b);
            let minus = mul(b, Term::Number(-1.0));
            binary("sub", BinaryOp::Add, a, Term::Tensor(minus))
        }
    }
}

#[track_caller]
fn div(a: GraphTensor, b: Term) -> GraphTensor {
    numeric("div", a);
    if a.dtype() == DType::I32 {
        let [a, b] = pair("div", a, b);
        return a.floor_divide(b);
    }
    match b {
        Term::Number(b) => binary("div", BinaryOp::Mul, a, Term::Number(1.0 / b)),
        Term::Tensor(b) => {
            let [a, b] = pair("div", a, Term::Tensor(b));
            binary("div", BinaryOp::Mul, a, Term::Tensor(b.recip()))
        }
    }
}

/// # Panics
/// At the caller's line, for booleans.
#[track_caller]
pub(crate) fn numeric(op: &str, a: GraphTensor) {
    if a.dtype() == DType::Bool {
        fail(
            op,
            format!("is not defined for booleans ({}); use `.cast(..)`", a.ty()),
        );
    }
}

/// # Panics
/// At the caller's line, for anything but booleans.
#[track_caller]
pub(crate) fn boolean(op: &str, a: GraphTensor) {
    if a.dtype() != DType::Bool {
        fail(op, format!("needs booleans, not {}", a.ty()));
    }
}

#[track_caller]
fn rem(a: GraphTensor, b: Term) -> GraphTensor {
    numeric("rem", a);
    binary("rem", BinaryOp::Mod, a, b)
}

#[track_caller]
fn logical(name: &str, op: BinaryOp, a: GraphTensor, b: Term) -> GraphTensor {
    boolean(name, a);
    binary(name, op, a, b)
}

macro_rules! operators {
    ($($trait:ident $method:ident $function:expr;)*) => {
        $(impl<S: Shape, T: Operand<S>> $trait<T> for GraphTensor<S> {
            type Output = GraphTensor<S>;

            #[track_caller]
            fn $method(self, other: T) -> GraphTensor<S> {
                $function(self.dynamic(), other.term()).retag()
            }
        })*
    };
}

operators! {
    Add add add;
    Sub sub sub;
    Mul mul mul;
    Div div div;
    Rem rem rem;
    BitAnd bitand and;
    BitOr bitor or;
    BitXor bitxor xor;
}

#[track_caller]
fn and(a: GraphTensor, b: Term) -> GraphTensor {
    logical("and", BinaryOp::Mul, a, b)
}

#[track_caller]
fn or(a: GraphTensor, b: Term) -> GraphTensor {
    logical("or", BinaryOp::Add, a, b)
}

#[track_caller]
fn xor(a: GraphTensor, b: Term) -> GraphTensor {
    boolean("xor", a);
    let [a, b] = pair("xor", a, b);
    (a | b) & !(a & b)
}

macro_rules! assigning_operators {
    ($($trait:ident $method:ident $op:tt;)*) => {
        $(impl<S: Shape, T: Operand<S>> $trait<T> for GraphTensor<S> {
            /// Makes this handle stand for the result; other handles to the old value keep it.
            #[track_caller]
            fn $method(&mut self, other: T) {
                *self = *self $op other;
            }
        })*
    };
}

assigning_operators! {
    AddAssign add_assign +;
    SubAssign sub_assign -;
    MulAssign mul_assign *;
    DivAssign div_assign /;
    RemAssign rem_assign %;
}

// With two floating-point types on the left, a literal such as `2.0` would have no type until the end of the function,
// and `(2.0 * x).sqrt()` would not compile. So there is one of each kind.
macro_rules! number_on_the_left {
    ($($ty:ty),*) => {
        $(
            impl<S: Shape> Add<GraphTensor<S>> for $ty {
                type Output = GraphTensor<S>;

                #[track_caller]
                fn add(self, tensor: GraphTensor<S>) -> GraphTensor<S> {
                    tensor + self
                }
            }

            impl<S: Shape> Mul<GraphTensor<S>> for $ty {
                type Output = GraphTensor<S>;

                #[track_caller]
                fn mul(self, tensor: GraphTensor<S>) -> GraphTensor<S> {
                    tensor * self
                }
            }

            impl<S: Shape> Sub<GraphTensor<S>> for $ty {
                type Output = GraphTensor<S>;

                #[track_caller]
                fn sub(self, tensor: GraphTensor<S>) -> GraphTensor<S> {
                    -tensor + self
                }
            }

            impl<S: Shape> Div<GraphTensor<S>> for $ty {
                type Output = GraphTensor<S>;

                #[track_caller]
                fn div(self, tensor: GraphTensor<S>) -> GraphTensor<S> {
                    tensor.filled("div", f64::from(self)) / tensor
                }
            }

            impl<S: Shape> Rem<GraphTensor<S>> for $ty {
                type Output = GraphTensor<S>;

                #[track_caller]
                fn rem(self, tensor: GraphTensor<S>) -> GraphTensor<S> {
                    tensor.filled("rem", f64::from(self)) % tensor
                }
            }
        )*
    };
}

number_on_the_left!(f64, i32);

impl<S: Shape> Neg for GraphTensor<S> {
    type Output = GraphTensor<S>;

    #[track_caller]
    fn neg(self) -> GraphTensor<S> {
        numeric("neg", self.dynamic());
        mul(self.dynamic(), Term::Number(-1.0)).retag()
    }
}

impl<S: Shape> Not for GraphTensor<S> {
    type Output = GraphTensor<S>;

    /// Of booleans only: `!b` is `b < true`.
    #[track_caller]
    fn not(self) -> GraphTensor<S> {
        boolean("not", self.dynamic());
        binary("not", BinaryOp::LessThan, self.dynamic(), Term::Number(1.0)).retag()
    }
}

impl<S: Shape> GraphTensor<S> {
    /// A tensor of this shape and format that holds `value` everywhere: no data, a constant seen many times.
    #[track_caller]
    pub(crate) fn filled(self, op: &str, value: f64) -> GraphTensor<S> {
        let ty = self.ty();
        number(self.graph, ty.dtype, value, op)
            .broadcast_to(op, &ty.dims)
            .retag()
    }
}
