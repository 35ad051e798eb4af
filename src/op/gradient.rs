//! What a gradient rule is made of.
//!
//! An op's rule stands beside the op (`OpRow::gradient`). Given the *upstream* gradient (of the loss by the op's
//! result), it builds the gradients of the loss by the op's operands, out of ops. A rule knows neither graph nor
//! compiler: it builds through a [`GradientBuilder`], which the `Autograd` compiler implements.
//!
//! An op without a rule has a result that carries no gradient: it is constant almost everywhere (`LessThan`), has no
//! operands, or stops gradients by definition (`Detach`).

use smallvec::{SmallVec, smallvec};

use super::{AxisSet, BinaryOp, ConstantValue, Literal, Op, ReduceOp, TensorType, UnaryOp};
use crate::dtype::DType;
use crate::shape::Expr;

/// A value that rules read and build: an operand, a result, or what a rule made of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Var(pub(crate) usize);

/// Where a rule puts what it builds.
pub trait GradientBuilder {
    /// Shape and format.
    fn ty(&self, x: Var) -> TensorType;

    /// An op on values.
    ///
    /// # Errors
    /// If they do not fit the op.
    fn apply(&mut self, op: Op, operands: &[Var]) -> Result<Var, String>;

    /// The value repeated `size` times along a new axis in front of `axis`.
    ///
    /// # Errors
    /// If there are fewer axes.
    fn insert(&mut self, x: Var, axis: usize, size: Expr) -> Result<Var, String>;

    /// The elements in row-major order under other dimensions.
    ///
    /// # Errors
    /// If their number differs.
    fn reshape(&mut self, x: Var, dims: &[Expr]) -> Result<Var, String>;
}

/// Gradients by each operand; `None` where there is none.
pub type Gradients = SmallVec<[Option<Var>; 3]>;

/// A rule; see [`Rule`] for what it is told.
pub type Gradient = fn(&Rule<'_>, &mut dyn GradientBuilder) -> Result<Gradients, String>;

/// What a rule is told about a node.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// The op.
    pub op: &'a Op,
    /// Its operands, as the op sees them: through their views.
    pub operands: &'a [Var],
    /// Its result.
    pub result: Var,
    /// Gradient of the loss by the result, of the result's type.
    pub upstream: Var,
    /// By which operands a gradient is asked for; a rule may leave out the others.
    pub wanted: &'a [bool],
}

impl Rule<'_> {
    /// The gradient by operand `i` where it is asked for.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn when(
        &self,
        i: usize,
        f: impl FnOnce() -> Result<Var, String>,
    ) -> Result<Option<Var>, String> {
        if self.wanted[i] {
            f().map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The words rules are written in.
impl dyn GradientBuilder + '_ {
    /// `a + b`.
    ///
    /// # Errors
    /// If shapes or formats differ.
    pub fn add(&mut self, a: Var, b: Var) -> Result<Var, String> {
        self.apply(Op::Binary(BinaryOp::Add), &[a, b])
    }

    /// `a * b`.
    ///
    /// # Errors
    /// If shapes or formats differ.
    pub fn mul(&mut self, a: Var, b: Var) -> Result<Var, String> {
        self.apply(Op::Binary(BinaryOp::Mul), &[a, b])
    }

    /// `1 / x`.
    ///
    /// # Errors
    /// If the format is no floating-point one.
    pub fn recip(&mut self, x: Var) -> Result<Var, String> {
        self.apply(Op::Unary(UnaryOp::Recip), &[x])
    }

    /// `x * factor`.
    ///
    /// # Errors
    /// If the format has no product.
    pub fn scale(&mut self, x: Var, factor: f64) -> Result<Var, String> {
        let factor = self.fill(x, factor)?;
        self.mul(x, factor)
    }

    /// `a - b`.
    ///
    /// # Errors
    /// If shapes or formats differ.
    pub fn sub(&mut self, a: Var, b: Var) -> Result<Var, String> {
        let minus = self.scale(b, -1.0)?;
        self.add(a, minus)
    }

    /// A number in the shape and format of `like`.
    ///
    /// # Errors
    /// Never for a floating-point format.
    pub fn fill(&mut self, like: Var, value: f64) -> Result<Var, String> {
        let ty = self.ty(like);
        self.fill_as(&ty, value)
    }

    /// A number in a shape and format.
    ///
    /// # Errors
    /// Never for a floating-point format.
    pub fn fill_as(&mut self, ty: &TensorType, value: f64) -> Result<Var, String> {
        let literal = ConstantValue::Literal(Literal::new(ty.dtype, value));
        let number = self.apply(Op::Constant(literal), &[])?;
        let dims = ty.dims.iter().enumerate();
        dims.into_iter()
            .try_fold(number, |x, (axis, &dim)| self.insert(x, axis, dim))
    }

    /// Where `condition`, `a`, elsewhere `b`.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn select(&mut self, condition: Var, a: Var, b: Var) -> Result<Var, String> {
        self.apply(Op::Select, &[condition, a, b])
    }

    /// `a < b`.
    ///
    /// # Errors
    /// If shapes or formats differ.
    pub fn less(&mut self, a: Var, b: Var) -> Result<Var, String> {
        self.apply(Op::Binary(BinaryOp::LessThan), &[a, b])
    }

    /// `x`, or 0 where `condition`.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn zero_where(&mut self, condition: Var, x: Var) -> Result<Var, String> {
        let zero = self.fill(x, 0.0)?;
        self.select(condition, zero, x)
    }

    /// Sum over these axes, which disappear.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn sum(&mut self, x: Var, axes: AxisSet) -> Result<Var, String> {
        if axes.is_empty() {
            return Ok(x);
        }
        self.apply(Op::Reduce(ReduceOp::Sum, axes), &[x])
    }

    /// The value of a reduction over `axes`, repeated along them.
    ///
    /// # Errors
    /// If the dimensions do not fit.
    pub fn spread(&mut self, x: Var, axes: &AxisSet, dims: &[Expr]) -> Result<Var, String> {
        axes.iter()
            .try_fold(x, |x, &axis| self.insert(x, axis, dims[axis]))
    }

    /// `0, 1, ..` in row-major order of these dimensions, as `I32`.
    ///
    /// # Errors
    /// Never.
    pub fn positions(&mut self, dims: &[Expr]) -> Result<Var, String> {
        let len = crate::shape::numel(dims);
        let flat = self.apply(Op::Iota { len }, &[])?;
        self.reshape(flat, dims)
    }

    /// The value in another format.
    ///
    /// # Errors
    /// Never.
    pub fn cast(&mut self, x: Var, dtype: DType) -> Result<Var, String> {
        self.apply(Op::Cast(dtype), &[x])
    }
}

/// The upstream gradient goes through as it is.
pub(super) fn pass(rule: &Rule<'_>, _: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    Ok(smallvec![Some(rule.upstream)])
}
