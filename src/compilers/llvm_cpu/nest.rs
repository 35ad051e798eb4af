//! A kernel's steps → a loop nest.
//!
//! Every step is evaluated at the points where its reader needs it: the views on the way are composed, so movement
//! costs nothing but address arithmetic. A step that is read through padding gets a `Select` with zero.
//!
//! Not built: kernels with an op that the loop IR does not have (`Scatter Custom`, a nested kernel), with two
//! reductions, or with a gather or a reduction read at other points than its own. They run on the reference executor.

use rustc_hash::FxHashMap;

use super::ir::{Access, Id, Nest, Reduction, Scalar};
use crate::dtype::DType;
use crate::op::{ConstantValue, Kernel, KernelInput, Literal, Op, TensorType};
use crate::shape::{Dims, View};

/// Builds the nest.
///
/// # Errors
/// A sentence that says what cannot be expressed.
pub fn nest_of(kernel: &Kernel) -> Result<Nest, String> {
    let last = kernel.steps.len() - 1;
    let mut builder = Builder {
        kernel,
        loads: Vec::new(),
        body: Vec::new(),
        reduced: None,
        seen: FxHashMap::default(),
    };
    let mut reduce = Dims::new();
    let mut reduction = None;
    let reductions: Vec<usize> = (0..=last)
        .filter(|&i| matches!(kernel.steps[i].op, Op::Reduce(_, ref axes) if !axes.is_empty()))
        .collect();
    if reductions.len() > 1 {
        return Err("two reductions in one kernel".into());
    }
    if let Some(&at) = reductions.first() {
        let (dims, value) = builder.prologue(at)?;
        let Op::Reduce(kind, _) = kernel.steps[at].op else {
            unreachable!("filtered above")
        };
        if kernel.steps[at].ty.dims != kernel.ty().dims {
            return Err("a reduction that is read at other points than its own".into());
        }
        reduce = dims;
        reduction = Some(Reduction { kind, value });
        builder.seen.clear();
        builder.reduced = Some(at);
    }
    let whole = View::contiguous(kernel.ty().dims.clone());
    let result = builder.value(KernelInput::Step(last), whole)?;
    Ok(Nest {
        space: kernel.ty().dims.clone(),
        reduce,
        loads: builder.loads,
        body: builder.body,
        reduction,
        result,
        dtype: kernel.ty().dtype,
        n_inputs: kernel.operands.len(),
    })
}

struct Builder<'k> {
    kernel: &'k Kernel,
    loads: Vec<Access>,
    body: Vec<Scalar>,
    /// The step whose value the loops compute, once they have.
    reduced: Option<usize>,
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

    /// The operand of the reduction `at`, over the result's dimensions and then the reduced ones.
    fn prologue(&mut self, at: usize) -> Result<(Dims, Id), String> {
        let step = &self.kernel.steps[at];
        let Op::Reduce(_, axes) = &step.op else {
            unreachable!("only reductions have a prologue")
        };
        let (input, view) = &step.inputs[0];
        let kept = (0..view.rank()).filter(|axis| !axes.contains(axis));
        let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
        let reduce = axes.iter().map(|&axis| view.dims()[axis]).collect();
        let view = view.permute(&order).map_err(|e| e.to_string())?;
        Ok((reduce, self.value(*input, view)?))
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
            Op::Detach | Op::Contiguous => return operand(self, 0),
            Op::Reduce(_, axes) if axes.is_empty() => return operand(self, 0),
            Op::Reduce(..) if self.reduced == Some(at) && self.same_points(at, view) => {
                Scalar::Reduced
            }
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
