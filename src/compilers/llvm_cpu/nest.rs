//! A kernel's steps → a loop nest.
//!
//! Every step is evaluated at the points where its reader needs it: the views on the way are composed, so movement
//! costs nothing but address arithmetic. A step that is read through padding gets a `Select` with zero.
//!
//! A reduction becomes a stage, wherever it is read along its own row.
//!
//! Not built: kernels with an op that the loop IR does not have (`Scatter Custom`, a nested kernel), with reductions
//! over different rows, or with a gather or a reduction read at other points than its own. They run on the reference
//! executor.

use rustc_hash::FxHashMap;

use super::ir::{Access, Id, Nest, Reduction, Scalar};
use super::rows::Rows;
use crate::dtype::DType;
use crate::op::{ConstantValue, Kernel, KernelInput, Literal, Op, TensorType};
use crate::shape::{Dims, View};

/// Builds the nest.
///
/// # Errors
/// A sentence that says what cannot be expressed.
pub fn nest_of(kernel: &Kernel) -> Result<Nest, String> {
    let mut builder = Builder {
        kernel,
        rows: rows_of(kernel)?,
        loads: Vec::new(),
        body: Vec::new(),
        stages: Vec::new(),
        stage_of: FxHashMap::default(),
        seen: FxHashMap::default(),
    };
    let dims = &kernel.ty().dims;
    let last = KernelInput::Step(kernel.steps.len() - 1);
    let result = builder.value(last, View::contiguous(dims.clone()))?;
    let (space, reduce, per_point) = match builder.rows {
        Some(rows) => (rows.space, rows.reduce, rows.per_point),
        None => (dims.clone(), Dims::new(), false),
    };
    Ok(Nest {
        space,
        reduce,
        loads: builder.loads,
        body: builder.body,
        stages: builder.stages,
        per_point,
        result,
        dtype: kernel.ty().dtype,
        n_inputs: kernel.operands.len(),
    })
}

/// The rows that a kernel's reductions run over; `None` if it has none.
fn rows_of(kernel: &Kernel) -> Result<Option<Rows>, String> {
    let mut rows = None;
    for step in &kernel.steps {
        let Op::Reduce(_, axes) = &step.op else {
            continue;
        };
        if axes.is_empty() {
            continue;
        }
        let operand = step.inputs[0].1.dims();
        let rows = rows.get_or_insert_with(|| Rows::of_result(&kernel.ty().dims, operand, axes));
        if !rows.as_ref().is_some_and(|rows| rows.fits(operand, axes)) {
            return Err("reductions over other rows than the result's".into());
        }
    }
    Ok(rows.flatten())
}

struct Builder<'k> {
    kernel: &'k Kernel,
    rows: Option<Rows>,
    loads: Vec<Access>,
    body: Vec<Scalar>,
    stages: Vec<Reduction>,
    /// From steps that reduce to their stages.
    stage_of: FxHashMap<usize, usize>,
    seen: FxHashMap<(KernelInput, View), Id>,
}

impl Builder<'_> {
    fn push(&mut self, scalar: Scalar) -> Id {
        self.body.push(scalar);
        self.body.len() - 1
    }

    fn access(&mut self, input: usize, dtype: DType, view: View) -> usize {
        self.loads.push(Access { input, dtype, view });
        self.loads.len() - 1
    }

    /// The stage that computes the reduction `at`, which is read through `view`.
    fn stage(&mut self, at: usize, view: &View) -> Result<usize, String> {
        let step = &self.kernel.steps[at];
        let Op::Reduce(kind, axes) = &step.op else {
            unreachable!("only reductions are stages")
        };
        let (input, inner) = &step.inputs[0];
        let rows = self
            .rows
            .as_ref()
            .expect("a kernel with reductions has rows");
        if !rows.reads_own_row(view) {
            return Err("a reduction that is read at other points than its own".into());
        }
        if let Some(&stage) = self.stage_of.get(&at) {
            return Ok(stage);
        }
        let points = rows.points(inner, axes).ok_or("rows of another shape")?;
        let value = self.value(*input, points)?;
        let kind = *kind;
        self.stages.push(Reduction { kind, value });
        self.stage_of.insert(at, self.stages.len() - 1);
        Ok(self.stages.len() - 1)
    }

    /// The value of `input` at this point, seen through `view`.
    fn value(&mut self, input: KernelInput, view: View) -> Result<Id, String> {
        if let Some(&id) = self.seen.get(&(input, view.clone())) {
            return Ok(id);
        }
        let id = match input {
            KernelInput::Operand(i) => {
                let access = self.access(i, self.kernel.operands[i].dtype, view.clone());
                self.push(Scalar::Load(access))
            }
            KernelInput::Step(step) => {
                let value = self.step(step, &view)?;
                self.padded(value, &self.kernel.steps[step].ty.clone(), &view)
            }
        };
        self.seen.insert((input, view), id);
        Ok(id)
    }

    /// Zero where the view is padding.
    fn padded(&mut self, value: Id, ty: &TensorType, view: &View) -> Id {
        if !view.is_masked() {
            return value;
        }
        let mask = self.access(0, ty.dtype, view.clone());
        let cond = self.push(Scalar::Valid(mask));
        let otherwise = self.push(Scalar::Const(Literal::new(ty.dtype, 0.0)));
        self.push(Scalar::Select {
            cond,
            then: value,
            otherwise,
        })
    }

    /// Whether a view is a step's whole result at its own points.
    fn same_points(&self, step: usize, view: &View) -> bool {
        let ty = &self.kernel.steps[step].ty;
        view.is_identity(ty.numel()) && *view.dims() == ty.dims[..]
    }

    fn step(&mut self, at: usize, view: &View) -> Result<Id, String> {
        let kernel = self.kernel;
        let step = &kernel.steps[at];
        let operand = |this: &mut Self, slot: usize| {
            let (input, inner) = &step.inputs[slot];
            this.value(*input, inner.compose(view))
        };
        let scalar = match &step.op {
            Op::Constant(ConstantValue::Literal(literal)) => Scalar::Const(*literal),
            Op::Constant(ConstantValue::Size(expr)) => Scalar::Size(*expr),
            Op::Iota { .. } => Scalar::Position(self.access(0, DType::I32, view.clone())),
            Op::Random { seed, step, .. } => {
                let element = self.access(0, DType::F32, view.clone());
                Scalar::Random {
                    seed: *seed,
                    step: *step,
                    index: self.push(Scalar::Position(element)),
                }
            }
            Op::Unary(op) => Scalar::Unary(*op, operand(self, 0)?),
            Op::Binary(op) => Scalar::Binary(*op, operand(self, 0)?, operand(self, 1)?),
            Op::Cast(dtype) => Scalar::Cast(*dtype, operand(self, 0)?),
            Op::Select => {
                let (cond, then) = (operand(self, 0)?, operand(self, 1)?);
                Scalar::Select {
                    cond,
                    then,
                    otherwise: operand(self, 2)?,
                }
            }
            Op::Contiguous => return operand(self, 0),
            op if op.only_matters_to_gradients() => return operand(self, 0),
            Op::Reduce(_, axes) if axes.is_empty() => return operand(self, 0),
            Op::Reduce(..) => Scalar::Reduced(self.stage(at, view)?),
            Op::Gather { axis } if self.same_points(at, view) => {
                let index = operand(self, 1)?;
                let (KernelInput::Operand(input), data) = &step.inputs[0] else {
                    return Err("a gather from a value that is not in memory".into());
                };
                let access = self.access(*input, kernel.operands[*input].dtype, data.clone());
                Scalar::Gather {
                    access,
                    axis: *axis,
                    index,
                }
            }
            other => {
                return Err(format!(
                    "`{}` at these points has no loop form",
                    other.name()
                ));
            }
        };
        Ok(self.push(scalar))
    }
}
