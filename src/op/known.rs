//! Functions made of several ops whose gradient is known in closed form.
//!
//! `tanh` is a ratio of two polynomials. Differentiated op by op, its gradient reads a dozen tensors that only lead to the
//! result; `1 - y²` reads the result, which is there anyway. So a function may say what its gradient is: forwards its
//! value passes through, backwards the rule stands for all the ops that it is made of. Rules speak of operands and
//! results that have gradients themselves, so those of higher order need nothing new.

use std::fmt;

use smallvec::smallvec;

use super::gradient::{GradientBuilder, Gradients, Rule, Var};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{AxisSet, Op, TensorType, UnaryOp, samples};
use crate::array::Array;

/// A function `y` of `x` whose gradient is known; `g` is the upstream one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KnownGradient {
    /// `g (1 - y²)`.
    Tanh,
    /// `g y (1 - y)`.
    Sigmoid,
    /// `g 2 / sqrt(pi) exp(-x²)`.
    Erf,
    /// `y (g - sum(g y))`, with sums over these axes.
    Softmax(AxisSet),
    /// `g - exp(y) sum(g)`, with sums over these axes.
    LogSoftmax(AxisSet),
}

impl KnownGradient {
    /// The function's name in the text form, without axes.
    pub fn name(&self) -> &'static str {
        match self {
            KnownGradient::Tanh => "tanh",
            KnownGradient::Sigmoid => "sigmoid",
            KnownGradient::Erf => "erf",
            KnownGradient::Softmax(_) => "softmax",
            KnownGradient::LogSoftmax(_) => "log_softmax",
        }
    }

    /// The function of this name; only those of rows have axes.
    pub fn parse(name: &str, axes: AxisSet) -> Option<KnownGradient> {
        match (name, axes.is_empty()) {
            ("tanh", true) => Some(KnownGradient::Tanh),
            ("sigmoid", true) => Some(KnownGradient::Sigmoid),
            ("erf", true) => Some(KnownGradient::Erf),
            ("softmax", _) => Some(KnownGradient::Softmax(axes)),
            ("log_softmax", _) => Some(KnownGradient::LogSoftmax(axes)),
            _ => None,
        }
    }

    fn axes(&self) -> &[usize] {
        match self {
            KnownGradient::Softmax(axes) | KnownGradient::LogSoftmax(axes) => axes,
            _ => &[],
        }
    }
}

impl fmt::Display for KnownGradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        for (i, axis) in self.axes().iter().enumerate() {
            let before = if i == 0 { " " } else { ", " };
            write!(f, "{before}{axis}")?;
        }
        Ok(())
    }
}

pub(super) static KNOWN_GRADIENT: OpRow = OpRow::new(
    "known_gradient",
    Arity::Exact(2),
    infer,
    eval,
    samples::known_gradient,
)
.gradient(gradient);

/// The value and what it is a function of.
fn infer(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let (value, x) = (&inputs[0], &inputs[1]);
    if value != x {
        return Err(format!("operands of different types, {value} and {x}"));
    }
    if !value.dtype.is_float() {
        return Err(format!("needs floating-point operands, not {value}"));
    }
    let (axes, rank) = (function(op).axes(), value.dims.len());
    if let Some(axis) = axes.iter().find(|&&axis| axis >= rank) {
        return Err(format!("there is no axis {axis} in {value}"));
    }
    match axes.is_sorted_by(|a, b| a < b) {
        true => Ok(value.clone()),
        false => Err("axes are not sorted and distinct".into()),
    }
}

fn eval(_: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    Ok(inputs[0].clone())
}

fn function(op: &Op) -> &KnownGradient {
    match op {
        Op::KnownGradient(function) => function,
        _ => unreachable!("the row of known gradients"),
    }
}

fn gradient(rule: &Rule<'_>, build: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    let (x, y, upstream) = (rule.operands[1], rule.result, rule.upstream);
    let by_x = match function(rule.op) {
        KnownGradient::Tanh => {
            let square = build.mul(y, y)?;
            let rest = rest_of_one(square, build)?;
            build.mul(upstream, rest)?
        }
        KnownGradient::Sigmoid => {
            let rest = rest_of_one(y, build)?;
            let slope = build.mul(y, rest)?;
            build.mul(upstream, slope)?
        }
        KnownGradient::Erf => {
            let square = build.mul(x, x)?;
            let minus = build.scale(square, -1.0)?;
            let bell = exp(minus, build)?;
            let slope = build.scale(bell, std::f64::consts::FRAC_2_SQRT_PI)?;
            build.mul(upstream, slope)?
        }
        KnownGradient::Softmax(axes) => {
            // The second time for what the first one rounded: where nearly all weight is on one element, all else is small.
            let centred = centre(upstream, y, axes, build)?;
            let centred = centre(centred, y, axes, build)?;
            build.mul(y, centred)?
        }
        KnownGradient::LogSoftmax(axes) => {
            let sum = sum_along(upstream, axes, build)?;
            let weights = exp(y, build)?;
            let all = build.mul(weights, sum)?;
            build.sub(upstream, all)?
        }
    };
    Ok(smallvec![None, Some(by_x)])
}

/// `x - sum(x y)`.
fn centre(x: Var, y: Var, axes: &AxisSet, build: &mut dyn GradientBuilder) -> Result<Var, String> {
    let weighted = build.mul(x, y)?;
    let sum = sum_along(weighted, axes, build)?;
    build.sub(x, sum)
}

/// `1 - x`.
fn rest_of_one(x: Var, build: &mut dyn GradientBuilder) -> Result<Var, String> {
    let one = build.fill(x, 1.0)?;
    build.sub(one, x)
}

/// `exp(x)`.
fn exp(x: Var, build: &mut dyn GradientBuilder) -> Result<Var, String> {
    let x = build.scale(x, std::f64::consts::LOG2_E)?;
    build.apply(Op::Unary(UnaryOp::Exp2), &[x])
}

/// Sums over axes, repeated along them.
fn sum_along(x: Var, axes: &AxisSet, build: &mut dyn GradientBuilder) -> Result<Var, String> {
    let dims = build.ty(x).dims;
    let sum = build.sum(x, axes.clone())?;
    build.spread(sum, axes, &dims)
}
