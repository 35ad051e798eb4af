//! Sample operands for every op: the values that the suite runs through every pipeline.
//!
//! They hold the special values (NaN, infinities, zeros of both signs, subnormals, extreme integers), every format,
//! and shapes with empty, single and odd dimensions.

use super::{
    BinaryOp, ConstantValue, EvalContext, KnownGradient, Literal, Op, ReduceOp, ScatterMode,
    TensorType, UnaryOp,
};
use crate::array::{Array, Data};
use crate::dtype::DType;
use crate::shape::{Dims, Expr, Symbols};

/// An op with concrete operands.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The op.
    pub op: Op,
    /// Its operands.
    pub inputs: Vec<Array>,
}

/// Type of an array.
pub fn type_of(array: &Array) -> TensorType {
    TensorType {
        dims: array.dims().iter().map(|&d| Expr::from(d)).collect(),
        dtype: array.dtype(),
    }
}

impl Sample {
    /// Type of the result.
    ///
    /// # Errors
    /// If the operands do not fit.
    pub fn infer(&self) -> Result<TensorType, String> {
        self.op
            .infer(&self.inputs.iter().map(type_of).collect::<Vec<_>>())
    }

    /// The reference value.
    ///
    /// # Errors
    /// If the operands do not fit.
    pub fn eval(&self) -> Result<Array, String> {
        let dims = self
            .infer()?
            .dims
            .iter()
            .map(|d| d.as_usize().ok_or("a symbolic sample"))
            .collect::<Result<_, _>>()?;
        (self.op.row().eval)(
            &self.op,
            &self.inputs,
            &EvalContext {
                symbols: &Symbols::new(),
                dims,
            },
        )
    }
}

const SPECIAL: [f64; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    3.0,
    7.25,
    -1000.5,
    1e-3,
    1e-40,
    -1e-40,
    1e30,
    -1e30,
    126.5,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

/// A deterministic spread of numbers in (-4, 4).
fn spread(n: usize, phase: usize) -> Vec<f64> {
    (0..n)
        .map(|i| ((i * 37 + phase * 11 + 5) % 101) as f64 / 12.5 - 4.0)
        .collect()
}

fn array(dims: &[usize], values: Vec<f64>, dtype: DType) -> Array {
    Array::new(dims.to_vec(), Data::F64(values)).cast(dtype)
}

/// Arrays of special and ordinary values, of an odd length.
fn unary_inputs(dtypes: &[DType]) -> Vec<Array> {
    let mut out = Vec::new();
    for &dtype in dtypes {
        let values: Vec<f64> = SPECIAL.into_iter().chain(spread(19, 1)).collect();
        out.push(array(&[values.len()], values, dtype));
        out.push(array(&[3, 1, 7], spread(21, 2), dtype));
        out.push(array(&[0, 4], Vec::new(), dtype));
        out.push(array(&[], vec![0.75], dtype));
    }
    out
}

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

pub(super) fn unary(function: UnaryOp) -> Vec<Sample> {
    unary_inputs(&FLOATS)
        .into_iter()
        .map(|x| Sample {
            op: Op::Unary(function),
            inputs: vec![x],
        })
        .collect()
}

pub(super) fn same(op: &Op) -> Vec<Sample> {
    unary_inputs(&DType::ALL)
        .into_iter()
        .map(|x| Sample {
            op: op.clone(),
            inputs: vec![x],
        })
        .collect()
}

pub(super) fn straight_through() -> Vec<Sample> {
    unary_inputs(&DType::ALL)
        .into_iter()
        .map(|x| Sample {
            op: Op::StraightThrough,
            inputs: vec![x.cast(DType::Bool).cast(x.dtype()), x],
        })
        .collect()
}

pub(super) fn known_gradient() -> Vec<Sample> {
    unary_inputs(&FLOATS)
        .into_iter()
        .map(|x| {
            let axes = match x.dims().len() {
                0 => KnownGradient::Tanh,
                rank => KnownGradient::Softmax(smallvec::smallvec![rank - 1]),
            };
            Sample {
                op: Op::KnownGradient(axes),
                inputs: vec![x.cast(DType::Bool).cast(x.dtype()), x],
            }
        })
        .collect()
}

pub(super) fn cast() -> Vec<Sample> {
    let mut out = Vec::new();
    for x in unary_inputs(&DType::ALL) {
        out.extend(DType::ALL.map(|dtype| Sample {
            op: Op::Cast(dtype),
            inputs: vec![x.clone()],
        }));
    }
    out
}

pub(super) fn binary(function: BinaryOp) -> Vec<Sample> {
    let mut out = Vec::new();
    for dtype in DType::NUMERIC {
        if function == BinaryOp::Mod && dtype == DType::Bool {
            continue;
        }
        let n = SPECIAL.len();
        let left: Vec<f64> = (0..n * n).map(|i| SPECIAL[i / n]).collect();
        let right: Vec<f64> = (0..n * n).map(|i| SPECIAL[i % n]).collect();
        let pairs = [
            (array(&[n, n], left, dtype), array(&[n, n], right, dtype)),
            (
                array(&[2, 3, 5], spread(30, 1), dtype),
                array(&[2, 3, 5], spread(30, 4), dtype),
            ),
            (
                array(&[0], Vec::new(), dtype),
                array(&[0], Vec::new(), dtype),
            ),
        ];
        out.extend(pairs.map(|(a, b)| Sample {
            op: Op::Binary(function),
            inputs: vec![a, b],
        }));
    }
    out
}

pub(super) fn select() -> Vec<Sample> {
    let mut out = Vec::new();
    for dtype in DType::ALL {
        let n = SPECIAL.len();
        let condition = array(
            &[n],
            (0..n).map(|i| (i % 3 % 2) as f64).collect(),
            DType::Bool,
        );
        let (a, b) = (
            array(&[n], SPECIAL.to_vec(), dtype),
            array(&[n], spread(n, 3), dtype),
        );
        out.push(Sample {
            op: Op::Select,
            inputs: vec![condition, a, b],
        });
    }
    out
}

pub(super) fn reduce(kind: ReduceOp) -> Vec<Sample> {
    let shapes: [(&[usize], &[usize]); 9] = [
        (&[5], &[0]),
        (&[37], &[0]),
        (&[3, 40], &[1]),
        (&[40, 3], &[0]),
        (&[2, 3, 4, 5], &[1, 3]),
        (&[2, 3, 4, 5], &[0, 1, 2, 3]),
        (&[4, 0], &[1]),
        (&[0, 4], &[1]),
        (&[3, 4], &[]),
    ];
    let mut out = Vec::new();
    for dtype in DType::NUMERIC {
        for (dims, axes) in shapes {
            let op = Op::Reduce(kind, axes.iter().copied().collect());
            out.push(Sample {
                op,
                inputs: vec![array(dims, spread(dims.iter().product(), 6), dtype)],
            });
        }
        let rows = vec![
            f64::NAN,
            1.0,
            f64::NEG_INFINITY,
            f64::NEG_INFINITY,
            f64::INFINITY,
            2.0,
            -1.0,
            f64::NAN,
        ];
        let op = Op::Reduce(kind, [1].into_iter().collect());
        out.push(Sample {
            op,
            inputs: vec![array(&[4, 2], rows, dtype)],
        });
    }
    out
}

fn index(dims: &[usize], values: &[i32]) -> Array {
    Array::new(dims.to_vec(), Data::I32(values.to_vec()))
}

pub(super) fn gather() -> Vec<Sample> {
    let mut out = Vec::new();
    for dtype in DType::ALL {
        let data = array(&[4, 3], spread(12, 2), dtype);
        let rows = index(&[2, 3], &[3, 0, 1, 2, 2, 0]);
        out.push(Sample {
            op: Op::Gather { axis: 0 },
            inputs: vec![data.clone(), rows],
        });
        let columns = index(&[4, 2], &[0, 2, 1, 1, 2, 0, 0, 0]);
        out.push(Sample {
            op: Op::Gather { axis: 1 },
            inputs: vec![data, columns],
        });
    }
    out
}

pub(super) fn scatter() -> Vec<Sample> {
    let mut out = Vec::new();
    for dtype in DType::ALL {
        for mode in [ScatterMode::Set, ScatterMode::Add, ScatterMode::Max] {
            if mode != ScatterMode::Set && !DType::NUMERIC.contains(&dtype) {
                continue;
            }
            let base = array(&[4, 3], spread(12, 2), dtype);
            let rows = index(&[2, 3], &[3, 0, 1, 3, 2, 0]);
            let updates = array(&[2, 3], spread(6, 9), dtype);
            out.push(Sample {
                op: Op::Scatter { axis: 0, mode },
                inputs: vec![base, rows, updates],
            });
        }
    }
    out
}

/// Rows of 8, 32, 37 and no numbers, a row of zeros, one of large and small ones.
pub(super) fn activations() -> Vec<Array> {
    let rows = [(2, 8), (3, 32), (2, 37), (3, 0), (1, 64)];
    let array = |(m, k): (usize, usize)| {
        let x = spread(m * k, k).into_iter().enumerate();
        let x = x.map(|(i, x)| if i % 7 == 3 { x * 1e4 } else { x });
        array(&[m, k], x.collect(), DType::F32)
    };
    let mut out: Vec<Array> = rows.into_iter().map(array).collect();
    out.push(Array::zeros(vec![2, 40], DType::F32));
    out
}

pub(super) fn constant() -> Vec<Sample> {
    let literals = DType::ALL.map(|dtype| ConstantValue::Literal(Literal::new(dtype, 1.5)));
    let sizes = [ConstantValue::Size(Expr::from(17usize))];
    let values = literals.into_iter().chain(sizes);
    values
        .map(|value| Sample {
            op: Op::Constant(value),
            inputs: Vec::new(),
        })
        .collect()
}

pub(super) fn iota() -> Vec<Sample> {
    [0usize, 1, 37]
        .map(|n| Sample {
            op: Op::Iota { len: Expr::from(n) },
            inputs: Vec::new(),
        })
        .into()
}

pub(super) fn random() -> Vec<Sample> {
    let dims: Dims = [Expr::from(3usize), Expr::from(7usize)]
        .into_iter()
        .collect();
    [0usize, 5]
        .map(|step| Sample {
            op: Op::Random {
                dims: dims.clone(),
                seed: 42,
                step: Expr::from(step),
            },
            inputs: Vec::new(),
        })
        .into()
}

pub(super) fn kernel() -> Vec<Sample> {
    use super::{Kernel, KernelInput, KernelStep};
    use crate::shape::View;
    let x = array(&[2, 3], spread(6, 2), DType::F32);
    let ty = type_of(&x);
    let transposed = View::contiguous(ty.dims.clone())
        .permute(&[1, 0])
        .expect("two axes");
    let out = TensorType {
        dims: transposed.dims().iter().copied().collect(),
        dtype: DType::F32,
    };
    let step = KernelStep {
        op: Op::Unary(UnaryOp::Exp2),
        inputs: vec![(KernelInput::Operand(0), transposed)],
        ty: out,
    };
    let kernel = Kernel::new("exp2_of_transposed".into(), vec![step], vec![ty.clone()]);
    vec![Sample {
        op: Op::Kernel(std::sync::Arc::new(kernel)),
        inputs: vec![x],
    }]
}
