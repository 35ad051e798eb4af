//! Reading values: what an execution computed, through the view that a handle has of it.

use super::dag::NodeIndex;
use super::handle::GraphTensor;
use super::registry::{Inner, with_graph};
use super::typed::Shape;
use crate::array::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::{ConcreteView, Symbols};

impl<S: Shape> GraphTensor<S> {
    /// What `f` makes of the bytes that the value is in, their format, and how it looks at them.
    fn read<T>(self, f: impl FnOnce(&[u8], DType, &ConcreteView) -> T) -> Result<T> {
        with_graph(self.graph, |inner| {
            let source = inner.dag.source(self.value)?.clone();
            let resolve = |symbols: &Symbols| {
                let view = source.view.resolve(symbols);
                view.map_err(|e| Error::msg(e.to_string()))
            };
            let dtype = inner.dag.node(source.node).ty.dtype;
            if matches!(inner.dag.node(source.node).op, Op::Input { .. }) {
                let bytes = input_bytes(inner, source.node)?;
                let view = resolve(&inner.state.symbols)?;
                return Ok(f(bytes, dtype, &view));
            }
            let program = inner
                .program
                .as_ref()
                .filter(|program| program.version() == inner.dag.version());
            let program =
                program.ok_or_else(|| Error::msg("not computed yet: call `execute` first"))?;
            let symbols = program
                .symbols()
                .ok_or_else(|| Error::msg("the last execution failed: call `execute` again"))?;
            let bytes = program.read(&inner.dag, &inner.state, source.node)?;
            Ok(f(bytes, dtype, &resolve(symbols)?))
        })
    }

    /// The value after the last execution.
    ///
    /// # Errors
    /// If there was none since the graph changed, or the value was not kept.
    pub fn try_array(self) -> Result<Array> {
        self.read(Array::look_at)
    }

    /// The elements after the last execution as `f32`, row-major, in place of what `out` holds: its memory is used again,
    /// for those who read a value after every execution.
    ///
    /// # Errors
    /// If there was none since the graph changed, or the value was not kept. `out` is then as it was.
    pub fn try_data_into(self, out: &mut Vec<f32>) -> Result<()> {
        self.read(|bytes, dtype, view| {
            let whole = view.contiguous_from().filter(|_| dtype == DType::F32);
            let size = DType::F32.size();
            let part =
                whole.and_then(|first| bytes.get(first * size..)?.get(..view.numel() * size));
            match part.and_then(|part| bytemuck::try_cast_slice(part).ok()) {
                Some(numbers) => {
                    out.clear();
                    out.extend_from_slice(numbers);
                }
                None => *out = Array::look_at(bytes, dtype, view).into_f32(),
            }
        })
    }

    /// The value after the last execution.
    ///
    /// # Panics
    /// If there was no execution since the graph changed, or the value was not kept.
    #[track_caller]
    pub fn array(self) -> Array {
        match self.try_array() {
            Ok(done) => done,
            Err(e) => e.raise(),
        }
    }

    /// The elements after the last execution as `f32`, row-major.
    ///
    /// # Panics
    /// If there was no execution since the graph changed, or the value was not kept.
    #[track_caller]
    pub fn data(self) -> Vec<f32> {
        self.array().into_f32()
    }
}

/// All elements of an input.
fn input_bytes(inner: &Inner, node: NodeIndex) -> Result<&[u8]> {
    let data = inner.state.input(&inner.dag, node)?;
    let ty = &inner.dag.node(node).ty;
    let bytes = data.storage.bytes();
    let n = bytes.len() / ty.dtype.size();
    let wanted = ty
        .numel()
        .eval(&inner.state.symbols)
        .map_err(|e| Error::msg(e.to_string()))?;
    if i64::try_from(n) != Ok(wanted) {
        return Err(Error::Node {
            node: inner.dag.describe(node),
            what: format!("was given {n} numbers, but its size is {wanted}"),
        });
    }
    Ok(bytes)
}
