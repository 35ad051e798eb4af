//! Handles to values: what users hold.

use std::marker::PhantomData;
use std::panic::Location;

use super::dag::{Source, ValueId};
use super::registry::{Inner, with_graph};
use super::set::{Given, IntoData};
use super::state::InputData;
use super::stored::Encoding;
use super::typed::Shape;
use crate::array::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Op, TensorType};
use crate::shape::Dims;
use crate::storage::{AlignedBytes, SharedBytes, Storage};

/// The shape parameter of tensors whose shape is known when the graph is recorded, not when it is compiled by rustc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dyn;

/// A handle to a value of a graph: `Copy`, two integers.
///
/// With a static shape (`GraphTensor<R2<3, 4>>`) mismatches are compile errors; without one (`GraphTensor`, also for
/// symbolic dimensions) they panic at the line that recorded the op. Moving, sending or compiling the graph never
/// invalidates a handle.
pub struct GraphTensor<S: Shape = Dyn> {
    pub(crate) graph: u32,
    pub(crate) value: ValueId,
    shape: PhantomData<fn() -> S>,
}

impl<S: Shape> Clone for GraphTensor<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Shape> Copy for GraphTensor<S> {}

impl<S: Shape> GraphTensor<S> {
    pub(crate) fn from_parts(graph: u32, value: ValueId) -> Self {
        GraphTensor {
            graph,
            value,
            shape: PhantomData,
        }
    }

    /// The same value under another shape parameter, unchecked: for signatures that prove it themselves.
    pub(crate) fn retag<T: Shape>(self) -> GraphTensor<T> {
        GraphTensor::from_parts(self.graph, self.value)
    }

    #[track_caller]
    pub(crate) fn with<R>(self, f: impl FnOnce(&mut Inner) -> Result<R>) -> R {
        match with_graph(self.graph, f) {
            Ok(done) => done,
            Err(e) => e.raise(),
        }
    }

    /// Shape and format.
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn ty(self) -> TensorType {
        self.with(|inner| Ok(inner.dag.value(self.value).ty.clone()))
    }

    /// The dimensions, outermost first.
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn dims(self) -> Dims {
        self.ty().dims
    }

    /// Number of dimensions.
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn rank(self) -> usize {
        self.ty().dims.len()
    }

    /// The elements' format.
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn dtype(self) -> DType {
        self.ty().dtype
    }

    /// Forgets the static shape.
    pub fn dynamic(self) -> GraphTensor {
        self.retag()
    }

    /// Claims a static shape.
    ///
    /// # Panics
    /// If the shape is another one.
    #[track_caller]
    pub fn typed<T: Shape>(self) -> GraphTensor<T> {
        let ty = self.ty();
        if let Some(want) = T::dims()
            && want[..] != ty.dims[..]
        {
            let want = TensorType {
                dims: want,
                dtype: ty.dtype,
            };
            Error::Shape {
                op: "typed".into(),
                what: format!("this tensor is {ty}, not {want}"),
            }
            .raise();
        }
        self.retag()
    }

    /// Names the op that made this value, for listings and errors.
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn set_name(self, name: &str) -> Self {
        self.with(|inner| {
            let node = inner.dag.source(self.value)?.node;
            inner.dag.set_name(node, name);
            Ok(())
        });
        self
    }

    /// Keeps the value through compilation, so that it can be read after an execution.
    ///
    /// # Panics
    /// If the value was optimized away already.
    #[track_caller]
    pub fn retrieve(self) -> Self {
        self.with(|inner| {
            inner.dag.source(self.value)?;
            inner.dag.add_output(self.value);
            Ok(())
        });
        self
    }

    /// After each execution this input's data becomes `new`: state that a graph carries from one execution to the
    /// next (a key-value cache, parameters under training). Where `new` only writes some rows of this input, only
    /// those rows are written.
    ///
    /// # Panics
    /// If this is no input, or shape or format differ.
    #[track_caller]
    pub fn assign<T: Shape>(self, new: GraphTensor<T>) -> Self {
        let fail = |what: String| {
            Err(Error::Shape {
                op: "assign".into(),
                what,
            })
        };
        self.with(|inner| {
            if new.graph != self.graph {
                return fail("tensors of two different graphs".into());
            }
            let source = inner.dag.source(self.value)?.clone();
            let is_input = matches!(inner.dag.node(source.node).op, Op::Input { .. });
            let new_source = inner.dag.source(new.value)?;
            let formats = [source.node, new_source.node].map(|id| inner.dag.node(id).ty.dtype);
            let wanted = [self.value, new.value].map(|id| inner.dag.value(id).ty.dtype);
            if formats != wanted {
                return fail("a compiler changed the format of an input".into());
            }
            if !is_input || !is_whole(inner, &source) {
                return fail("only an input can be assigned to".into());
            }
            let (old_ty, new_ty) = (
                &inner.dag.value(self.value).ty,
                &inner.dag.value(new.value).ty,
            );
            if old_ty != new_ty {
                return fail(format!("{old_ty} is assigned a {new_ty}"));
            }
            inner.dag.add_assign(self.value, new.value);
            Ok(())
        });
        self
    }

    /// Gives an input its data: nested arrays, a vector or a slice, converted to the tensor's format. It stays until
    /// it is set again.
    ///
    /// # Panics
    /// If this is no input or the shape does not fit.
    #[track_caller]
    pub fn set(self, data: impl IntoData) -> Self {
        match self.try_set(data) {
            Ok(done) => done,
            Err(e) => e.raise(),
        };
        self
    }

    /// [`GraphTensor::set`] with a `Result`.
    ///
    /// # Errors
    /// If this is no input or the shape does not fit.
    pub fn try_set(self, data: impl IntoData) -> Result<()> {
        if let Some(given) = data.bytes() {
            let n = given.bytes.len() / given.dtype.size();
            let is_done = with_graph(self.graph, |inner| {
                let Slot { id, ty, blocks } = input_of(inner, self.value)?;
                if given.dtype != ty.dtype || blocks.is_some() {
                    return Ok(false);
                }
                check_given(&ty, given.dims.as_deref(), n)?;
                let (since, inputs) = (inner.state.runs, &mut inner.state.inputs);
                Ok(inputs.overwrite(id, given.dims.as_deref(), given.bytes, since))
            })?;
            if is_done {
                return Ok(());
            }
        }
        let Given { dims, data } = data.into_data();
        let n = crate::each_dtype!(&data, v => v.len());
        with_graph(self.graph, |inner| {
            let Slot { id, ty, blocks } = input_of(inner, self.value)?;
            check_given(&ty, dims.as_deref(), n)?;
            let array = Array::new(vec![n], data);
            let array = if array.dtype() == ty.dtype {
                array
            } else {
                array.cast(ty.dtype)
            };
            match blocks {
                Some(Encoding::Blocks(blocks)) => {
                    let data = (array.bytes(), ty.dtype);
                    return inner.state.set_blocks(id, data, blocks);
                }
                Some(Encoding::Signs) => {
                    return Err(Error::msg(
                        "this input is stored as signs: give it numbers before `compile`, or the bytes of signs to `try_set_shared`",
                    ));
                }
                None => {}
            }
            let (since, inputs) = (inner.state.runs, &mut inner.state.inputs);
            if !inputs.overwrite(id, dims.as_deref(), array.bytes(), since) {
                let storage = Storage::Owned(AlignedBytes::try_copy_of(array.bytes())?);
                let data = InputData {
                    dims,
                    storage,
                    since,
                };
                inputs.insert(id, data);
            }
            Ok(())
        })
    }

    /// Gives an input memory that somebody else holds (a mapped file), without copying it: elements of its format, or
    /// the blocks that it is stored in.
    ///
    /// # Errors
    /// If this is no input, or the bytes are not exactly as many as its static shape and format need.
    pub fn try_set_shared(self, bytes: SharedBytes) -> Result<()> {
        with_graph(self.graph, |inner| {
            let Slot { id, ty, blocks } = input_of(inner, self.value)?;
            let ty = blocks.map_or(ty, |_| inner.dag.input_type(id));
            let len = bytes.bytes().len();
            if !len.is_multiple_of(ty.dtype.size()) {
                return Err(Error::Shape {
                    op: "set".into(),
                    what: format!("{len} bytes are no whole number of {}", ty.dtype),
                });
            }
            check_given(&ty, None, len / ty.dtype.size())?;
            inner.state.inputs.insert(
                id,
                InputData {
                    dims: None,
                    storage: Storage::Shared(bytes),
                    since: inner.state.runs,
                },
            );
            Ok(())
        })
    }

    /// Fills an input of static size with zeros.
    ///
    /// # Panics
    /// If this is no input, or its size is symbolic.
    #[track_caller]
    pub fn set_zeros(self) -> Self {
        self.with(|inner| {
            let Slot { id, ty, blocks } = input_of(inner, self.value)?;
            let ty = blocks.map_or(ty, |_| inner.dag.input_type(id));
            let n = ty.numel().as_usize();
            let n = n.ok_or_else(|| Error::Shape {
                op: "set_zeros".into(),
                what: format!("the size of {ty} is symbolic"),
            })?;
            let storage = Storage::Owned(AlignedBytes::try_zeroed(n * ty.dtype.size())?);
            inner.state.inputs.insert(
                id,
                InputData {
                    dims: None,
                    storage,
                    since: inner.state.runs,
                },
            );
            Ok(())
        });
        self
    }

    /// The line that recorded this value.
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn location(self) -> &'static Location<'static> {
        self.with(|inner| Ok(inner.dag.value(self.value).location))
    }
}

/// Whether a source is all of its node's buffer, in order.
fn is_whole(inner: &Inner, source: &Source) -> bool {
    source
        .view
        .is_identity(inner.dag.node(source.node).ty.numel())
}

/// An input as its handle sees it.
struct Slot {
    /// Its number.
    id: u32,
    /// What the handle stands for.
    ty: TensorType,
    /// What its bytes are, if they are no numbers.
    blocks: Option<Encoding>,
}

/// The input that a value is, or of whose blocks it is the numbers.
fn input_of(inner: &Inner, value: ValueId) -> Result<Slot> {
    let source = inner.dag.source(value)?;
    let node = inner.dag.node(source.node);
    let no_input = || Error::Node {
        node: inner.dag.describe(source.node),
        what: "is no input: only inputs can be set".into(),
    };
    match &node.op {
        Op::Input { id, ty } if is_whole(inner, source) && *source.view.dims() == ty.dims[..] => {
            let (id, ty) = (*id, ty.clone());
            Ok(Slot {
                id,
                ty,
                blocks: None,
            })
        }
        Op::Dequantize(_) | Op::SignMatrix(..) | Op::Cast(_) if is_whole(inner, source) => {
            let stored = inner.dag.stored_as(source.node);
            stored
                .map(|(id, blocks)| Slot {
                    id,
                    ty: node.ty.clone(),
                    blocks: Some(blocks),
                })
                .ok_or_else(no_input)
        }
        _ => Err(no_input()),
    }
}

/// Whether data of this shape (or only this many elements) can fill a tensor of this type. Symbolic sizes are checked
/// when executed.
fn check_given(ty: &TensorType, dims: Option<&[usize]>, n: usize) -> Result<()> {
    let fits = match dims {
        Some(dims) => {
            let same = |(have, want): (&usize, &crate::shape::Expr)| {
                want.as_usize().is_none_or(|want| want == *have)
            };
            dims.len() == ty.dims.len() && dims.iter().zip(&ty.dims).all(same)
        }
        None => ty.numel().as_usize().is_none_or(|want| want == n),
    };
    if fits {
        return Ok(());
    }
    let given = dims.map_or_else(
        || format!("{n} numbers"),
        |dims| format!("data of shape {dims:?}"),
    );
    Err(Error::Shape {
        op: "set".into(),
        what: format!("{given} for a {ty}"),
    })
}

impl<S: Shape> std::fmt::Debug for GraphTensor<S> {
    /// The type, and the numbers once they are computed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ok(ty) = with_graph(self.graph, |inner| {
            Ok(inner.dag.value(self.value).ty.clone())
        }) else {
            return f.write_str("GraphTensor(of a dropped graph)");
        };
        match self.try_array() {
            Ok(array) => write!(f, "{ty} {array}"),
            Err(why) => write!(f, "{ty} ({why})"),
        }
    }
}
