//! Kernels that cover what loop nests are made of, with operands.

use brain_blitz::array::{Array, Data};
use brain_blitz::compilers::llvm_cpu::approx::Function;
use brain_blitz::op::{
    BinaryOp, ConstantValue, EvalContext, Kernel, KernelInput, KernelStep, Literal, Op, ReduceOp,
    TensorType, UnaryOp, table,
};
use brain_blitz::prelude::*;
use brain_blitz::shape::{Symbols, View};

/// A kernel with operands and sizes.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub kernel: Kernel,
    pub inputs: Vec<Array>,
    pub symbols: Symbols,
    /// Whether the reference gives the same bits; else only other machine code does.
    pub as_reference: bool,
    /// How functions are computed.
    pub math: Math,
}

impl Case {
    /// The reference's result.
    pub fn eval(&self) -> Array {
        let op = Op::Kernel(self.kernel.clone().into());
        let size = |d: &Expr| d.eval(&self.symbols).expect("bound") as usize;
        let context = EvalContext {
            symbols: &self.symbols,
            dims: self.kernel.ty().dims.iter().map(size).collect(),
        };
        (op.row().eval)(&op, &self.inputs, &context).expect("cases evaluate")
    }
}

/// A deterministic spread of numbers, the same for every format that can hold multiples of 1/4.
pub fn spread(dims: &[usize], phase: usize, dtype: DType) -> Array {
    let number = |i: usize| ((i * 37 + phase * 29 + 5) % 83) as f64 / 4.0 - 10.0;
    let numbers = (0..dims.iter().product()).map(number).collect();
    Array::new(dims.to_vec(), Data::F64(numbers)).cast(dtype)
}

fn type_of(array: &Array) -> TensorType {
    let dims: Vec<Expr> = array.dims().iter().map(|&d| Expr::from(d)).collect();
    TensorType::new(dims, array.dtype())
}

/// Builds a kernel step by step; types are inferred.
struct Steps {
    steps: Vec<KernelStep>,
    operands: Vec<TensorType>,
}

impl Steps {
    fn new(operands: Vec<TensorType>) -> Steps {
        Steps {
            steps: Vec::new(),
            operands,
        }
    }

    fn whole(&self, input: KernelInput) -> (KernelInput, View) {
        let dims = match input {
            KernelInput::Operand(i) => self.operands[i].dims.clone(),
            KernelInput::Step(i) => self.steps[i].ty.dims.clone(),
        };
        (input, View::contiguous(dims))
    }

    fn operand(&self, i: usize) -> (KernelInput, View) {
        self.whole(KernelInput::Operand(i))
    }

    fn last(&self) -> (KernelInput, View) {
        self.whole(KernelInput::Step(self.steps.len() - 1))
    }

    fn step(mut self, op: Op, inputs: Vec<(KernelInput, View)>) -> Steps {
        let dtype = |input: &KernelInput| match *input {
            KernelInput::Operand(i) => self.operands[i].dtype,
            KernelInput::Step(i) => self.steps[i].ty.dtype,
        };
        let types: Vec<TensorType> = inputs
            .iter()
            .map(|(input, view)| TensorType::new(view.dims().to_vec(), dtype(input)))
            .collect();
        let ty = op.infer(&types).expect("operands fit");
        self.steps.push(KernelStep { op, inputs, ty });
        self
    }

    fn case(self, name: impl Into<String>, inputs: Vec<Array>, as_reference: bool) -> Case {
        let name = name.into();
        Case {
            kernel: Kernel::new(name.clone(), self.steps, self.operands),
            name,
            inputs,
            symbols: Symbols::new(),
            as_reference,
            math: Math::Exact,
        }
    }
}

/// Ops without a loop form; `F64` logarithms, powers and sines have none either.
const NO_LOOPS: [&str; 13] = [
    "input",
    "random",
    "scatter",
    "quantize",
    "dequantize",
    "fake_quantize",
    "pack_signs",
    "unpack_signs",
    "sign_matrix",
    "pack_planes",
    "unpack_planes",
    "custom",
    "kernel",
];

/// Every op on the op table's samples: all operations, casts of all pairs, selections, reductions, gathers.
pub fn op_table() -> Vec<Case> {
    let mut out = Vec::new();
    for row in table::ROWS
        .iter()
        .filter(|row| !NO_LOOPS.contains(&row.name))
    {
        for sample in (row.samples)() {
            let is_function = matches!(
                sample.op,
                Op::Unary(UnaryOp::Log2 | UnaryOp::Exp2 | UnaryOp::Sin)
            );
            // Sums of `F16` numbers often lie between two others, and there the emulator's conversion rounds away
            // from zero instead of to even.
            let is_sum = matches!(sample.op, Op::Binary(BinaryOp::Add));
            let skipped = match sample.inputs.first().map(Array::dtype) {
                Some(DType::F64) => is_function,
                Some(DType::F16) => is_sum,
                _ => false,
            };
            if skipped {
                continue;
            }
            let steps = Steps::new(sample.inputs.iter().map(type_of).collect());
            let operands = (0..sample.inputs.len()).map(|i| steps.operand(i)).collect();
            let steps = steps.step(sample.op.clone(), operands);
            let name = format!("{} of {:?}", row.name, steps.operands);
            let exact = row.ulps == 0 && !matches!(sample.op, Op::Reduce(..));
            out.push(steps.case(name, sample.inputs, exact));
        }
    }
    out
}

/// `x * y + y` for 1 to 40 elements: one kernel per format, of symbolic size.
pub fn masked_tails() -> Vec<Case> {
    let mut out = Vec::new();
    for dtype in DType::NUMERIC {
        let ty = TensorType::new(vec![Expr::from('s')], dtype);
        for n in 1..=40 {
            let steps = Steps::new(vec![ty.clone(), ty.clone()]);
            let pair = vec![steps.operand(0), steps.operand(1)];
            let steps = steps.step(Op::Binary(BinaryOp::Mul), pair);
            let pair = vec![steps.last(), steps.operand(1)];
            let steps = steps.step(Op::Binary(BinaryOp::Add), pair);
            let inputs = vec![spread(&[n], 1, dtype), spread(&[n], 2, dtype)];
            let mut case = steps.case(format!("{n} of {dtype}"), inputs, true);
            case.symbols.set('s', n as i64);
            out.push(case);
        }
    }
    out
}

/// Views of a `[5, 37]` buffer of every kind: one layer and several, with and without padding.
fn views() -> Vec<(&'static str, View)> {
    let x = View::contiguous([5, 37]);
    let fits = "fits [5, 37]";
    let transposed = x.permute(&[1, 0]).expect(fits);
    let flat = transposed.reshape([185]).expect(fits);
    let padded = x.pad(1, 3, 2).expect(fits);
    let windows = x.unfold(1, 5, 2, 3).expect(fits);
    vec![
        ("transposed", transposed),
        ("transposed and flattened", flat),
        ("padded columns", padded.clone()),
        ("padded rows", x.pad(0, 2, 1).expect(fits)),
        ("padded and flattened", padded.reshape([210]).expect(fits)),
        ("every third", x.slice(1, 1, 37, 3).expect(fits)),
        ("backwards", x.flip(1).expect(fits)),
        ("repeated rows", x.insert(1, 3).expect(fits)),
        ("repeated elements", x.insert(2, 3).expect(fits)),
        ("windows", windows.clone()),
        ("padded windows", windows.pad(0, 1, 1).expect(fits)),
        ("diagonal", x.diagonal(0, 1, 2).expect(fits)),
    ]
}

/// `f(x) * f(x)` through each view.
pub fn seen_through_views() -> Vec<Case> {
    let mut out = Vec::new();
    for (name, view) in views() {
        for dtype in [DType::F32, DType::BF16, DType::Bool] {
            let x = spread(&[5, 37], 3, dtype);
            let steps = Steps::new(vec![type_of(&x)]);
            let look = (KernelInput::Operand(0), view.clone());
            let steps = steps.step(Op::Binary(BinaryOp::Mul), vec![look.clone(), look]);
            out.push(steps.case(format!("{name} of {dtype}"), vec![x], true));
        }
    }
    out
}

/// `e^x` as it is recorded, which kernels compute in one go.
pub fn exponentials() -> Vec<Case> {
    let x = Array::new(
        vec![200],
        Data::F32((0..200).map(|i| (i as f32 - 100.0) * 1.07).collect()),
    );
    let steps = Steps::new(vec![type_of(&x)]);
    let literal = Literal::new(DType::F32, std::f64::consts::LOG2_E);
    let steps = steps.step(Op::Constant(ConstantValue::Literal(literal)), Vec::new());
    let (factor, scalar) = steps.last();
    let factor = (factor, scalar.insert(0, 200).expect("a scalar repeats"));
    let x_operand = steps.operand(0);
    let steps = steps.step(Op::Binary(BinaryOp::Mul), vec![x_operand, factor]);
    let last = steps.last();
    let steps = steps.step(Op::Unary(UnaryOp::Exp2), vec![last]);
    vec![steps.case("exp", vec![x], false)]
}

/// Functions by tables and by polynomials, with a rest of less than a vector.
pub fn approximations() -> Vec<Case> {
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e-40, 3e38];
    let numbers = (-120..120).map(|i| i as f32 * 0.0793);
    let x: Vec<f32> = special.into_iter().chain(numbers).chain([-95.0]).collect();
    let x = Array::new(vec![x.len()], Data::F32(x));
    let mut out = Vec::new();
    for function in Function::ALL {
        let mut cx = Graph::new();
        let of = cx.input(x.dims().to_vec(), DType::F32);
        function.of(of).retrieve();
        cx.compile((Generic, LlvmCpu::native().emit_only()), ());
        let kernel = cx.inspect(|dag| {
            let kernel = |id| match &dag.node(id).op {
                Op::Kernel(kernel) => Some((**kernel).clone()),
                _ => None,
            };
            dag.ids().find_map(kernel).expect("one kernel")
        });
        for math in [Math::Lut, Math::Approx] {
            out.push(Case {
                name: format!("{function:?} {math}"),
                kernel: kernel.clone(),
                inputs: vec![x.clone()],
                symbols: Symbols::new(),
                as_reference: false,
                math,
            });
        }
    }
    out
}

/// Rows, columns and middle axes reduced, with arithmetic before and after.
pub fn reductions() -> Vec<Case> {
    let mut out = Vec::new();
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[3, 100], &[1]),
        (&[100, 3], &[0]),
        (&[40, 33], &[0]),
        (&[2, 65, 19], &[1]),
        (&[2, 5, 19], &[0, 2]),
        (&[7, 33], &[0, 1]),
    ];
    for kind in [ReduceOp::Sum, ReduceOp::Max] {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::I32] {
            for (dims, axes) in shapes {
                let inputs = vec![spread(dims, 4, dtype), spread(dims, 5, dtype)];
                let steps = Steps::new(inputs.iter().map(type_of).collect());
                let pair = vec![steps.operand(0), steps.operand(1)];
                let steps = steps.step(Op::Binary(BinaryOp::Mul), pair);
                let last = steps.last();
                let op = Op::Reduce(kind, axes.iter().copied().collect());
                let steps = steps.step(op, vec![last]);
                let pair = vec![steps.last(), steps.last()];
                let steps = steps.step(Op::Binary(BinaryOp::Add), pair);
                let name = format!("{kind:?} over {axes:?} of {dims:?} {dtype}");
                out.push(steps.case(name, inputs, kind == ReduceOp::Max));
            }
        }
    }
    out
}

/// Rows and elements looked up, more than a vector of them.
pub fn gathers() -> Vec<Case> {
    let mut out = Vec::new();
    let index = |dims: &[usize], end: usize| {
        let n: usize = dims.iter().product();
        let numbers = (0..n).map(|i| (i * 31 % end) as i32).collect();
        Array::new(dims.to_vec(), Data::I32(numbers))
    };
    for dtype in DType::ALL {
        let pairs = [
            (spread(&[50, 19], 6, dtype), index(&[40, 19], 50), 0),
            (spread(&[3, 70], 7, dtype), index(&[3, 37], 70), 1),
        ];
        for (data, index, axis) in pairs {
            let inputs = vec![data, index];
            let steps = Steps::new(inputs.iter().map(type_of).collect());
            let pair = vec![steps.operand(0), steps.operand(1)];
            let steps = steps.step(Op::Gather { axis }, pair);
            out.push(steps.case(format!("gather on {axis} of {dtype}"), inputs, true));
        }
    }
    out
}

/// Softmax along rows: two reductions and a value per point in one kernel, with exponentials stored in the output.
pub fn rows() -> Vec<Case> {
    let mut out = Vec::new();
    for n in [1, 7, 16, 33, 64, 100] {
        let x = spread(&[3, n], 8, DType::F32);
        let along = |view: &View| view.insert(1, n).expect("a value for each row");
        let steps = Steps::new(vec![type_of(&x)]);
        let whole = steps.operand(0);
        let over = |kind| Op::Reduce(kind, [1].into_iter().collect());
        let steps = steps.step(over(ReduceOp::Max), vec![whole.clone()]);
        let (largest, view) = steps.last();
        let literal = |value| ConstantValue::Literal(Literal::new(DType::F32, value));
        let steps = steps.step(Op::Constant(literal(-1.0)), Vec::new());
        let (minus, scalar) = steps.last();
        let minus = (minus, scalar.insert(0, 3).expect("a scalar repeats"));
        let steps = steps.step(
            Op::Binary(BinaryOp::Mul),
            vec![(largest, view.clone()), minus],
        );
        let (shift, _) = steps.last();
        let steps = steps.step(
            Op::Binary(BinaryOp::Add),
            vec![whole, (shift, along(&view))],
        );
        let pair = vec![steps.last()];
        let steps = steps.step(Op::Unary(UnaryOp::Exp2), pair);
        let exponentials = steps.last();
        let steps = steps.step(over(ReduceOp::Sum), vec![exponentials.clone()]);
        let sum = vec![steps.last()];
        let steps = steps.step(Op::Unary(UnaryOp::Recip), sum);
        let (scale, view) = steps.last();
        let pair = vec![exponentials, (scale, along(&view))];
        let steps = steps.step(Op::Binary(BinaryOp::Mul), pair);
        out.push(steps.case(format!("softmax of {n}"), vec![x], false));
    }
    out
}
