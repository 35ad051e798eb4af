//! `PackSigns`, `UnpackSigns` and `SignMatrix`: numbers that are only signs, a bit each.
//!
//! ```text
//! x: f32[M, K]               ->  pack_signs               ->  u8[M, K / 8]
//! b: u8[M, K / 8]            ->  unpack_signs<K>          ->  f32[M, K] of 1 and -1
//! w: u8[N / 64, bytes]       ->  sign_matrix<N, K, 1, ..> ->  f32[N, K] or f32[N], see `SignPart`
//! ```
//!
//! What is multiplied after `UnpackSigns` and `SignMatrix` are ones, so that every order of additions gives the same bits: a
//! kernel that counts bits computes exactly what the graph says. Made of the twelve primitives, bits would be eight shifted
//! sums that no pass could recognise again.
//!
//! A bit is set for +1: for all that is not below 0, which are both zeros and NaN too.

use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{Op, Sample, TensorType};
use crate::array::{Array, Data};
use crate::blocks::{SignFit, SignMatrix};
use crate::dtype::DType;
use crate::shape::Expr;

pub(super) static PACK_SIGNS: OpRow = OpRow::new(
    "pack_signs",
    Arity::Exact(1),
    infer_pack,
    eval_pack,
    pack_samples,
);
pub(super) static UNPACK_SIGNS: OpRow = OpRow::new(
    "unpack_signs",
    Arity::Exact(1),
    infer_unpack,
    eval_unpack,
    unpack_samples,
);
pub(super) static SIGN_MATRIX: OpRow = OpRow::new(
    "sign_matrix",
    Arity::Exact(1),
    infer_matrix,
    eval_matrix,
    matrix_samples,
);

/// What is read of a matrix of signs `[rows, columns]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum SignPart {
    /// The numbers, `f32[rows, columns]`.
    Numbers,
    /// The signs of a base, `f32[rows, columns]` of 1 and -1.
    Signs(usize),
    /// The scales of a base, `f32[rows]`.
    Scales(usize),
}

impl SignPart {
    /// The part's base; `None` for all of them.
    pub fn base(self) -> Option<usize> {
        match self {
            SignPart::Numbers => None,
            SignPart::Signs(base) | SignPart::Scales(base) => Some(base),
        }
    }
}

impl std::fmt::Display for SignPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SignPart::Numbers => f.write_str("numbers"),
            SignPart::Signs(base) => write!(f, "signs {base}"),
            SignPart::Scales(base) => write!(f, "scales {base}"),
        }
    }
}

impl std::str::FromStr for SignPart {
    type Err = String;

    fn from_str(text: &str) -> Result<SignPart, String> {
        let wrong = || format!("expected `numbers`, `signs N` or `scales N`, found `{text}`");
        if text == "numbers" {
            return Ok(SignPart::Numbers);
        }
        let (name, base) = text.split_once(' ').ok_or_else(wrong)?;
        let base = base.parse().map_err(|_| wrong())?;
        match name {
            "signs" => Ok(SignPart::Signs(base)),
            "scales" => Ok(SignPart::Scales(base)),
            _ => Err(wrong()),
        }
    }
}

fn infer_pack(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let k = row_length(&inputs[0])?;
    Ok(with_last(&inputs[0], k.div_ceil(8), DType::U8))
}

/// The length of rows of `f32`, which is known.
pub(super) fn row_length(ty: &TensorType) -> Result<usize, String> {
    let k = ty.dims.last().and_then(|dim| dim.as_usize());
    k.filter(|_| ty.dtype == DType::F32)
        .ok_or_else(|| format!("needs f32 with rows of known length, not {ty}"))
}

/// A type with rows of another length, of which there are some, and another format.
pub(super) fn with_last(ty: &TensorType, last: usize, dtype: DType) -> TensorType {
    let mut dims = ty.dims.clone();
    *dims.last_mut().expect("the caller saw it") = Expr::from(last);
    TensorType { dims, dtype }
}

/// Whether the sign of a number is stored as a set bit. NaN has no order: it is not below.
pub(crate) fn is_not_below_0(x: f32) -> bool {
    !matches!(x.partial_cmp(&0.0), Some(std::cmp::Ordering::Less))
}

/// Sets bit i of the bytes where element i is not below 0.
pub fn pack_signs(x: &[f32], out: &mut [u8]) {
    for (eight, byte) in x.chunks(8).zip(out) {
        let bit = |(i, x): (usize, &f32)| u8::from(is_not_below_0(*x)) << i;
        *byte = eight.iter().enumerate().map(bit).sum();
    }
}

/// 1 for a set bit, -1 for another.
pub fn unpack_signs(bits: &[u8], out: &mut [f32]) {
    for (k, x) in out.iter_mut().enumerate() {
        *x = if bits[k / 8] >> (k % 8) & 1 == 1 {
            1.0
        } else {
            -1.0
        };
    }
}

fn eval_pack(_: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let k = inputs[0].dims().last().copied().unwrap_or(0);
    let mut out = vec![0; context.dims.iter().product()];
    let x = inputs[0].to_f32();
    let rows = x.chunks(k.max(1)).zip(out.chunks_mut(k.div_ceil(8).max(1)));
    rows.for_each(|(x, out)| pack_signs(x, out));
    Ok(Array::new(context.dims.clone(), Data::U8(out)))
}

fn infer_unpack(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::UnpackSigns(k) = *op else {
        unreachable!("the row of unpack_signs")
    };
    let row = inputs[0].dims.last().and_then(|dim| dim.as_usize());
    match inputs[0].dtype == DType::U8 && row == Some(k.div_ceil(8)) {
        true => Ok(with_last(&inputs[0], k, DType::F32)),
        false => {
            let what = &inputs[0];
            Err(format!(
                "{k} signs need rows of {} bytes (u8), not {what}",
                k.div_ceil(8)
            ))
        }
    }
}

fn eval_unpack(_: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let k = context.dims.last().copied().unwrap_or(0);
    let mut out = vec![0.0; context.dims.iter().product()];
    let rows = inputs[0].bytes().chunks(k.div_ceil(8).max(1));
    let rows = rows.zip(out.chunks_mut(k.max(1)));
    rows.for_each(|(bits, out)| unpack_signs(bits, out));
    Ok(Array::new(context.dims.clone(), Data::F32(out)))
}

fn infer_matrix(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::SignMatrix(matrix, part) = *op else {
        unreachable!("the row of sign_matrix")
    };
    let stored = TensorType::new((matrix.panels(), matrix.panel_bytes()), DType::U8);
    if inputs[0] != stored {
        return Err(format!("signs of a matrix are {stored}, not {}", inputs[0]));
    }
    if part.base().is_some_and(|base| base >= matrix.bases()) {
        return Err(format!(
            "there is no {part} in a matrix of {} bases",
            matrix.bases()
        ));
    }
    Ok(match part {
        SignPart::Scales(_) => TensorType::new(matrix.rows(), DType::F32),
        _ => TensorType::new((matrix.rows(), matrix.columns()), DType::F32),
    })
}

fn eval_matrix(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::SignMatrix(matrix, part) = *op else {
        unreachable!("the row of sign_matrix")
    };
    let mut out = vec![0.0; context.dims.iter().product()];
    let bytes = inputs[0].bytes();
    match part {
        SignPart::Numbers => matrix.numbers(bytes, &mut out),
        SignPart::Signs(base) => matrix.signs(bytes, base, &mut out),
        SignPart::Scales(base) => matrix.scales(bytes, base, &mut out),
    }
    Ok(Array::new(context.dims.clone(), Data::F32(out)))
}

/// Rows of numbers of both signs, with zeros, infinities and a NaN among them.
fn rows() -> Vec<Array> {
    let sizes = [(2, 8), (3, 37), (1, 1), (4, 64), (2, 0), (1, 131)];
    let array = |(m, k): (usize, usize)| {
        let mut x: Vec<f32> = (0..m * k)
            .map(|i| ((i * 37 + 11) % 23) as f32 - 11.0)
            .collect();
        let odd = [
            0.0,
            -0.0,
            f32::NAN,
            f32::NEG_INFINITY,
            f32::INFINITY,
            -1e-40,
        ];
        x.iter_mut().skip(3).zip(odd).for_each(|(x, odd)| *x = odd);
        Array::new(vec![m, k], Data::F32(x))
    };
    sizes.into_iter().map(array).collect()
}

fn pack_samples() -> Vec<Sample> {
    let sample = |input| Sample {
        op: Op::PackSigns,
        inputs: vec![input],
    };
    rows().into_iter().map(sample).collect()
}

fn unpack_samples() -> Vec<Sample> {
    let sample = |(m, k): (usize, usize)| {
        let bytes = (0..m * k.div_ceil(8))
            .map(|i| (i * 97 % 256) as u8)
            .collect();
        Sample {
            op: Op::UnpackSigns(k),
            inputs: vec![Array::new(vec![m, k.div_ceil(8)], Data::U8(bytes))],
        }
    };
    [(2, 8), (3, 37), (1, 1), (2, 0), (1, 131)]
        .map(sample)
        .to_vec()
}

fn matrix_samples() -> Vec<Sample> {
    let mut out = Vec::new();
    for (rows, columns, bases) in [(1, 1, 1), (3, 37, 2), (65, 24, 1), (130, 9, 3)] {
        let matrix = SignMatrix::new(rows, columns, bases).expect("small");
        let x: Vec<f32> = (0..rows * columns)
            .map(|i| ((i * 37 + 5) % 83) as f32 / 20.0 - 2.0)
            .collect();
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &x, &mut bytes)
            .expect("they are finite");
        let last = bases - 1;
        for part in [
            SignPart::Numbers,
            SignPart::Signs(last),
            SignPart::Scales(last),
        ] {
            let dims = vec![matrix.panels(), matrix.panel_bytes()];
            out.push(Sample {
                op: Op::SignMatrix(matrix, part),
                inputs: vec![Array::new(dims, Data::U8(bytes.clone()))],
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_not_below_zero_is_positive() {
        let x = [
            1.0,
            -1.0,
            0.0,
            -0.0,
            f32::NAN,
            -1e-45,
            f32::NEG_INFINITY,
            3.0,
            -2.0,
        ];
        let mut bits = [0; 2];
        pack_signs(&x, &mut bits);
        assert_eq!(bits, [0b1001_1101, 0]);
        let mut signs = [0.0; 9];
        unpack_signs(&bits, &mut signs);
        assert_eq!(signs, [1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0]);
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let refused = |op: &Op, dims: (usize, usize), dtype| {
            op.infer(&[TensorType::new(dims, dtype)]).is_err()
        };
        assert!(refused(&Op::PackSigns, (2, 8), DType::F64));
        assert!(refused(&Op::UnpackSigns(9), (2, 1), DType::U8));
        assert!(refused(&Op::UnpackSigns(9), (2, 2), DType::F32));
        let matrix = SignMatrix::new(65, 9, 2).unwrap();
        let dims = (2, matrix.panel_bytes());
        assert!(!refused(
            &Op::SignMatrix(matrix, SignPart::Signs(1)),
            dims,
            DType::U8
        ));
        assert!(refused(
            &Op::SignMatrix(matrix, SignPart::Signs(2)),
            dims,
            DType::U8
        ));
        assert!(refused(
            &Op::SignMatrix(matrix, SignPart::Numbers),
            (1, dims.1),
            DType::U8
        ));
    }
}
