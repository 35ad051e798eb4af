//! Reads the text form of a graph, as [`super::text`] prints it.
//!
//! Reading is total: any text gives a graph that passes [`verify`] or an [`Error::Parse`] with the line and what was
//! expected there. It does not panic, and time and memory are bounded by the text's length: sizes that a text may
//! ask for are limited by the constants in [`limits`].
//!
//! ```
//! use brain_blitz::graph::Graph;
//! let text = "\
//! %0 = input<0> : f32[2, 3] \"x\"            ; `;` starts a comment
//! %1 = mul(%0, %0 {[2, 3] * (0, 1) + 0}) : f32[2, 3]
//! out %1
//! ";
//! let graph = Graph::from_text(text).unwrap();
//! assert_eq!(graph.inputs().len(), 1);
//! assert_eq!(graph.outputs()[0].ty().to_string(), "f32[2, 3]");
//! ```
//!
//! What the text does not hold: data of inputs, values of symbols, native code of kernels, lines that recorded ops
//! (all nodes get the caller's line), handles. A custom op is code and cannot be read.

mod check;
mod cursor;
mod ops;
#[cfg(test)]
mod tests;

use std::panic::Location;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::cursor::{Cursor, Lines};
use super::dag::{Dag, NodeIndex, Source};
use super::handle::GraphTensor;
use super::registry::Graph;
use super::verify::verify;
use crate::error::{Error, Result};
use crate::op::{Kernel, KernelInput, KernelStep, Op, TensorType};
use crate::shape::{Expr, View};

/// How much a text may ask for.
pub mod limits {
    /// Bytes of the whole text.
    pub const TEXT: usize = 256 << 20;
    /// Nodes, and steps of a kernel.
    pub const NODES: usize = 4 << 20;
    /// Operands of one node.
    pub const OPERANDS: usize = 4096;
    /// Signs in a row, and rows of a matrix of signs.
    pub const SIGNS: usize = 1 << 31;
    /// Dimensions of one tensor or layer of a view.
    pub const RANK: usize = 32;
    /// Bytes of one view, shape or attribute list.
    pub const PIECE: usize = 16 << 10;
    /// Multiplications, and also divisions, in one view, shape or attribute list.
    pub const PRODUCTS: usize = 128;
    /// Terms of the number of elements, multiplied out.
    pub const TERMS: usize = 4096;
    /// Number of an input.
    pub const INPUT: u32 = 1 << 24;
    /// Elements and offsets are less than this.
    pub const ELEMENTS: i128 = 1 << 53;
}

/// Reads a graph; all its nodes get the caller's line as the line that recorded them.
///
/// # Errors
/// [`Error::Parse`]: the first line that does not fit, and what was expected.
#[track_caller]
pub fn parse(text: &str) -> Result<Dag> {
    Reader::new(Location::caller()).read(text)
}

/// A node or step number with the view through which it is read.
struct Operand {
    sigil: char,
    number: usize,
    view: Option<View>,
}

/// `name<attributes>(operands) : type`.
struct Call<'a> {
    name: &'a str,
    attributes: Option<ops::Attributes<'a>>,
    operands: Vec<Operand>,
    ty: TensorType,
}

/// The graph read so far.
struct Reader {
    dag: Dag,
    /// Numbers of the inputs.
    inputs: FxHashSet<u32>,
    location: &'static Location<'static>,
}

impl Reader {
    fn new(location: &'static Location<'static>) -> Reader {
        Reader {
            dag: Dag {
                is_foreign: true,
                ..Dag::default()
            },
            inputs: FxHashSet::default(),
            location,
        }
    }

    fn read(mut self, text: &str) -> Result<Dag> {
        if text.len() > limits::TEXT {
            return Err(Error::Parse {
                line: 1,
                what: format!("a text of more than {} bytes", limits::TEXT),
            });
        }
        let mut lines = Lines::new(text);
        while let Some(mut line) = lines.next() {
            if line.eat("%") {
                self.node(&mut line, &mut lines)?;
            } else if line.eat("out ") {
                let source = self.source(&mut line)?;
                let value = self.dag.push_value(source, self.location);
                self.dag.add_output(value);
            } else if line.eat("assign ") {
                self.assign(&mut line)?;
            } else {
                return Err(line.expected("a node (`%0 = ...`), `out` or `assign`"));
            }
            line.end()?;
        }
        verify(&self.dag).map_err(|e| Error::Parse {
            line: lines.number(),
            what: e.to_string(),
        })?;
        Ok(self.dag)
    }

    /// `N = call "name"`, after the `%`, and the steps if it is a kernel.
    fn node<'a>(&mut self, line: &mut Cursor<'a>, lines: &mut Lines<'a>) -> Result<()> {
        let number: usize = line.number("the node's number")?;
        if number != self.dag.len() {
            let what = format!("`%{}`: nodes are numbered in order", self.dag.len());
            return Err(line.fail(format!("expected {what}")));
        }
        if number >= limits::NODES {
            return Err(line.fail(format!("more than {} nodes", limits::NODES)));
        }
        line.expect("=")?;
        let call = read_call(line)?;
        let operands = self.operands(line, &call.operands)?;
        let name = line.peek_is('"').then(|| line.string()).transpose()?;
        let types = types_of(&self.dag, &operands);
        let op = if call.name == "kernel" {
            read_kernel(line, lines, &call, &types)?
        } else {
            ops::build(&call).map_err(|what| line.fail(what))?
        };
        if let Op::Input { id, .. } = op {
            self.claim_input(line, id)?;
        }
        check_type(line, &op, &types, &call.ty)?;
        let node = self.dag.push(op, &operands, self.location);
        let node = node.map_err(|e| line.fail(e.to_string()))?;
        if let Some(name) = name {
            self.dag.set_name(node, &name);
        }
        if call.name == "input" {
            let view = View::contiguous(call.ty.dims);
            self.dag.push_value(Source { node, view }, self.location);
        }
        Ok(())
    }

    fn claim_input(&mut self, line: &Cursor<'_>, id: u32) -> Result<()> {
        if !self.inputs.insert(id) {
            return Err(line.fail(format!("a second input of number {id}")));
        }
        self.dag.n_inputs = self.dag.n_inputs.max(id + 1);
        Ok(())
    }

    /// `assign %0 = %1`, after the word.
    fn assign(&mut self, line: &mut Cursor<'_>) -> Result<()> {
        let state = self.source(line)?;
        line.expect("=")?;
        let new = self.source(line)?;
        if !matches!(self.dag.node(state.node).op, Op::Input { .. }) {
            return Err(line.fail("only an input can be assigned to".into()));
        }
        let state = self.dag.push_value(state, self.location);
        let new = self.dag.push_value(new, self.location);
        let (old_ty, new_ty) = (&self.dag.value(state).ty, &self.dag.value(new).ty);
        if old_ty != new_ty {
            return Err(line.fail(format!("{old_ty} is assigned a {new_ty}")));
        }
        self.dag.add_assign(state, new);
        Ok(())
    }

    /// A node with its view.
    fn source(&self, line: &mut Cursor<'_>) -> Result<Source> {
        let operand = read_operand(line)?;
        let mut operands = self.operands(line, std::slice::from_ref(&operand))?;
        let (node, view) = operands.pop().expect("one was asked for");
        Ok(Source { node, view })
    }

    fn operands(&self, line: &Cursor<'_>, operands: &[Operand]) -> Result<Vec<(NodeIndex, View)>> {
        let find = |operand: &Operand| {
            if operand.sigil != '%' || operand.number >= self.dag.len() {
                let Operand { sigil, number, .. } = operand;
                return Err(line.fail(format!("`{sigil}{number}` is not defined yet")));
            }
            let node = NodeIndex::new(operand.number);
            let view = view_of(line, operand, &self.dag.node(node).ty)?;
            Ok((node, view))
        };
        operands.iter().map(find).collect()
    }
}

/// The view of an operand, checked against what it reads.
fn view_of(line: &Cursor<'_>, operand: &Operand, ty: &TensorType) -> Result<View> {
    let Some(view) = &operand.view else {
        return Ok(View::contiguous(ty.dims.clone()));
    };
    let Operand { sigil, number, .. } = operand;
    let fits = check::fits(view, ty.numel());
    fits.map_err(|what| line.fail(format!("the view of `{sigil}{number}` {what}")))?;
    Ok(view.clone())
}

fn types_of(dag: &Dag, operands: &[(NodeIndex, View)]) -> Vec<TensorType> {
    let looked = |(node, view): &(NodeIndex, View)| TensorType {
        dims: view.dims().iter().copied().collect(),
        dtype: dag.node(*node).ty.dtype,
    };
    operands.iter().map(looked).collect()
}

/// Whether the type that the text states is what the op gives.
fn check_type(line: &Cursor<'_>, op: &Op, operands: &[TensorType], ty: &TensorType) -> Result<()> {
    match op.infer(operands) {
        Ok(found) if found == *ty => Ok(()),
        Ok(found) => Err(line.fail(format!(
            "expected the type {found}, which `{}` gives, found {ty}",
            op.name()
        ))),
        Err(what) => Err(line.fail(format!("{}: {what}", op.name()))),
    }
}

/// `name<attributes>(operands) : type`.
fn read_call<'a>(line: &mut Cursor<'a>) -> Result<Call<'a>> {
    let name = line.word("the name of an op")?;
    let attributes = line
        .peek_is('<')
        .then(|| ops::Attributes::read(line))
        .transpose()?;
    let mut operands = Vec::new();
    if line.eat("(") {
        loop {
            operands.push(read_operand(line)?);
            if operands.len() > limits::OPERANDS {
                return Err(line.fail(format!("more than {} operands", limits::OPERANDS)));
            }
            if !line.eat(",") {
                line.expect(")")?;
                break;
            }
        }
    }
    line.expect(":")?;
    let ty = read_type(line)?;
    Ok(Call {
        name,
        attributes,
        operands,
        ty,
    })
}

/// `%0` or `%0 {view}`; inside kernels also `$0` (an operand) and `@0` (a step).
fn read_operand(line: &mut Cursor<'_>) -> Result<Operand> {
    let sigils = ['%', '$', '@'];
    let Some(sigil) = sigils.into_iter().find(|&sigil| line.eat_char(sigil)) else {
        return Err(line.expected("an operand (`%0`)"));
    };
    let number = line.number("a number")?;
    let view = if line.peek_is('{') {
        let text = line.braces()?;
        check::piece(text).map_err(|what| line.fail(what))?;
        let view: View = text
            .parse()
            .map_err(|e: crate::shape::ParseError| line.fail(format!("in `{{{text}}}`: {e}")))?;
        check::layers(&view).map_err(|what| line.fail(what))?;
        Some(view)
    } else {
        None
    };
    Ok(Operand {
        sigil,
        number,
        view,
    })
}

/// `f32[2, s]`.
fn read_type(line: &mut Cursor<'_>) -> Result<TensorType> {
    let word = line.word("a number format (`f32`)")?;
    let dtype = word.parse().map_err(|e: Error| line.fail(e.to_string()))?;
    let text = line.brackets()?;
    check::piece(text).map_err(|what| line.fail(what))?;
    let dims: Result<_, String> = check::commas(text).into_iter().map(read_size).collect();
    let ty = TensorType {
        dims: dims.map_err(|what| line.fail(what))?,
        dtype,
    };
    check::dims(&ty.dims).map_err(|what| line.fail(what))?;
    Ok(ty)
}

/// A size or another expression.
fn read_size(text: &str) -> Result<Expr, String> {
    let text = text.trim();
    text.parse()
        .map_err(|e: crate::shape::ParseError| format!("in `{text}`: {e}"))
}

/// The steps of a kernel, from the `{` at the end of its first line to the line `}`.
fn read_kernel<'a>(
    line: &mut Cursor<'a>,
    lines: &mut Lines<'a>,
    call: &Call<'_>,
    operands: &[TensorType],
) -> Result<Op> {
    let Some(ops::Attributes::Text(name)) = &call.attributes else {
        return Err(line.fail("expected the kernel's name: `kernel<\"name\">`".into()));
    };
    line.expect("{")?;
    line.end()?;
    let mut kernel = Kernel::new(name.clone(), Vec::new(), operands.to_vec());
    loop {
        let Some(mut step) = lines.next() else {
            return Err(line.fail("expected the kernel's steps and `}`".into()));
        };
        if step.eat("}") {
            step.end()?;
            break;
        }
        read_step(&mut step, &mut kernel, operands)?;
        step.end()?;
    }
    if kernel.steps.is_empty() {
        return Err(line.fail("a kernel needs a step".into()));
    }
    Ok(Op::Kernel(Arc::new(kernel)))
}

/// `@0 = call`.
fn read_step(line: &mut Cursor<'_>, kernel: &mut Kernel, operands: &[TensorType]) -> Result<()> {
    let n_steps = kernel.steps.len();
    line.expect("@")?;
    if line.number::<usize>("the step's number")? != n_steps || n_steps >= limits::NODES {
        return Err(line.fail(format!(
            "expected `@{n_steps}`: steps are numbered in order"
        )));
    }
    line.expect("=")?;
    let call = read_call(line)?;
    let op = ops::build(&call).map_err(|what| line.fail(what))?;
    if matches!(op, Op::Input { .. }) {
        return Err(line.fail("a kernel's step cannot be an input".into()));
    }
    let (mut inputs, mut types) = (Vec::new(), Vec::new());
    for operand in &call.operands {
        let Operand { sigil, number, .. } = *operand;
        let (source, ty) = match sigil {
            '$' if number < operands.len() => (KernelInput::Operand(number), &operands[number]),
            '@' if number < n_steps => (KernelInput::Step(number), &kernel.steps[number].ty),
            _ => return Err(line.fail(format!("`{sigil}{number}` is not defined yet"))),
        };
        let view = view_of(line, operand, ty)?;
        types.push(TensorType {
            dims: view.dims().iter().copied().collect(),
            dtype: ty.dtype,
        });
        inputs.push((source, view));
    }
    check_type(line, &op, &types, &call.ty)?;
    kernel.steps.push(KernelStep {
        op,
        inputs,
        ty: call.ty,
    });
    Ok(())
}

impl Graph {
    /// A graph from its text form (see [`text`](super::text)); inputs have no data yet.
    ///
    /// # Errors
    /// [`Error::Parse`]: the first line that does not fit, and what was expected.
    #[track_caller]
    pub fn from_text(text: &str) -> Result<Graph> {
        let dag = Reader::new(Location::caller()).read(text)?;
        let graph = Graph::new();
        graph.lock().dag = dag;
        Ok(graph)
    }

    /// The graph's text form as it is now.
    pub fn to_text(&self) -> String {
        super::text::print(&self.lock().dag)
    }

    /// Handles to the values that survive compilation, in the order in which they were recorded.
    pub fn outputs(&self) -> Vec<GraphTensor> {
        let inner = self.lock();
        let outputs = inner.dag.outputs().iter();
        outputs
            .map(|&value| GraphTensor::from_parts(self.id(), value))
            .collect()
    }

    /// Handles to the inputs that are still in the graph, in the order in which they were recorded.
    pub fn inputs(&self) -> Vec<GraphTensor> {
        let mut inner = self.lock();
        let dag = &mut inner.dag;
        let mut found = FxHashMap::default();
        for (value, entry) in dag.values() {
            let Some(source) = &entry.source else {
                continue;
            };
            let node = dag.node(source.node);
            if matches!(node.op, Op::Input { .. })
                && entry.ty == node.ty
                && dag.is_whole(source.node, &source.view)
            {
                found.entry(source.node).or_insert(value);
            }
        }
        let mut inputs = Vec::new();
        for node in dag.ids().collect::<Vec<_>>() {
            let Op::Input { id, ty } = dag.node(node).op.clone() else {
                continue;
            };
            let value = found.get(&node).copied().unwrap_or_else(|| {
                let view = View::contiguous(ty.dims);
                dag.push_value(Source { node, view }, dag.node(node).location)
            });
            inputs.push((id, GraphTensor::from_parts(self.id(), value)));
        }
        inputs.sort_by_key(|input| input.0);
        inputs.into_iter().map(|input| input.1).collect()
    }
}
