//! The door for operations that the closed set does not have.
//!
//! Implement [`CustomOp`] and record it with `Graph::custom`: it takes part in shape inference, common-subexpression
//! elimination (through [`CustomOp::key`]) and the reference executor like any other op. Native back ends run it by
//! calling [`CustomOp::eval`] and say so in their report.
//!
//! ```
//! use brain_blitz::prelude::*;
//! use brain_blitz::op::{CustomOp, TensorType};
//! use brain_blitz::array::{Array, Data};
//! use std::sync::Arc;
//!
//! /// Sum of the elements' squares, as one op.
//! #[derive(Debug)]
//! struct SumOfSquares;
//!
//! impl CustomOp for SumOfSquares {
//!     fn name(&self) -> &str { "sum_of_squares" }
//!     fn key(&self) -> String { String::new() } // no attributes: all instances are equal
//!     fn infer(&self, inputs: &[TensorType]) -> Result<TensorType, String> {
//!         let [x] = inputs else { return Err("needs one operand".into()) };
//!         if x.dtype != DType::F32 { return Err(format!("needs f32, not {}", x.dtype)) }
//!         Ok(TensorType::new((), DType::F32))
//!     }
//!     fn eval(&self, inputs: &[Array]) -> Result<Array, String> {
//!         let sum = inputs[0].to_f32().iter().map(|x| x * x).sum();
//!         Ok(Array::new(vec![], Data::F32(vec![sum])))
//!     }
//! }
//!
//! let mut cx = Graph::new();
//! let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
//! let y = cx.custom(Arc::new(SumOfSquares), &[x.dynamic()]).retrieve();
//! cx.compile(Generic::default(), ());
//! cx.execute();
//! assert_eq!(y.data(), [14.0]);
//! ```

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::TensorType;
use super::gradient::{GradientBuilder, Gradients, Rule};
use crate::array::Array;

/// A user's own operation: a pure function from arrays to one array.
pub trait CustomOp: std::fmt::Debug + Send + Sync + 'static {
    /// A name for listings and errors.
    fn name(&self) -> &str;

    /// The attributes as text. Two ops of the same type with the same key are the same function.
    fn key(&self) -> String;

    /// Type of the result.
    ///
    /// # Errors
    /// A sentence saying which operand does not fit.
    fn infer(&self, inputs: &[TensorType]) -> Result<TensorType, String>;

    /// The value. Operands are contiguous and have the inferred types' shapes.
    ///
    /// # Errors
    /// A sentence saying what went wrong.
    fn eval(&self, inputs: &[Array]) -> Result<Array, String>;

    /// Gradients by the operands, built out of ops (another custom op, say).
    ///
    /// # Errors
    /// A sentence saying what went wrong; without an implementation, that there is none.
    fn gradient(
        &self,
        _rule: &Rule<'_>,
        _build: &mut dyn GradientBuilder,
    ) -> Result<Gradients, String> {
        Err("has no gradient: implement `CustomOp::gradient`, or `detach` its operands".into())
    }
}

/// A shared [`CustomOp`] with structural equality.
#[derive(Clone, Debug)]
pub struct CustomHandle(pub Arc<dyn CustomOp>);

impl CustomHandle {
    fn identity(&self) -> (std::any::TypeId, &str, String) {
        let op: &dyn CustomOp = &*self.0;
        (std::any::Any::type_id(op), op.name(), op.key())
    }
}

impl PartialEq for CustomHandle {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for CustomHandle {}

impl Hash for CustomHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
