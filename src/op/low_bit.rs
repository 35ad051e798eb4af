//! `Quantize`, `Dequantize` and `FakeQuantize`: what low-bit weights, caches and activations stand for.
//!
//! ```text
//! x: f32[M, K]              ->  quantize<Q8_0>       ->  u8[M, blocks * bytes]
//! w: u8[N, blocks * bytes]  ->  dequantize<Q8_0>     ->  f32[N, K]
//! x: f32[M, K]              ->  fake_quantize<a8_g32> ->  f32[M, K], each a whole number times its group's scale
//! x: f32[M, K]              ->  fake_quantize<a4_tok> ->  f32[M, K], each one of 16 levels times its row's scale
//! ```
//!
//! They make a loss explicit in the graph: what they give is exactly what kernels compute with. Made of the
//! twelve primitives, each would be a dozen ops per format that no pass could recognise again.

use smallvec::smallvec;

use super::gradient::{GradientBuilder, Gradients, Rule};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{AxisSet, Op, Planes, Sample, TensorType, samples};
use crate::array::{Array, Data};
use crate::blocks::BlockType;
use crate::dtype::DType;
use crate::shape::Expr;

/// No gradient flows through bytes.
pub(super) static QUANTIZE: OpRow = OpRow::new(
    "quantize",
    Arity::Exact(1),
    infer_quantize,
    eval_quantize,
    quantize_samples,
);
pub(super) static DEQUANTIZE: OpRow = OpRow::new(
    "dequantize",
    Arity::Exact(1),
    infer_dequantize,
    eval_dequantize,
    dequantize_samples,
);
/// Gradients flow through the rounding as if it were not there (Bengio et al. 2013), but not to what lies beyond the
/// outermost interval of levels of few bits (Choi et al. 2018).
pub(super) static FAKE_QUANTIZE: OpRow = OpRow::new(
    "fake_quantize",
    Arity::Exact(1),
    infer_fake_quantize,
    eval_fake_quantize,
    fake_quantize_samples,
)
.gradient(gradient_of_fake_quantize);

/// How activations are rounded: to 8 bits, `round(x / d) * d` with `d = max |x| / 127` over a group, ties to even; or to levels
/// of [`Planes`].
///
/// A group whose scale is below the smallest normal number is 0; one with an infinity or a NaN is NaN.
///
/// Activations of language models have outliers, single numbers far larger than their neighbours, and a scale that holds one of
/// these rounds all others of the group coarsely. [`ActivationScheme::A8G32Outlier`] gives the four neighbours with the
/// largest number more bits instead: see [`outlier_scale`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum ActivationScheme {
    /// Groups of 32 along the last axis, and a shorter one at its end.
    A8G32,
    /// As these, but in each group the aligned four with the largest number has 15 bits.
    A8G32Outlier,
    /// Groups of 128, as long as blocks of signs are ([`BlockType::Q1_0`]).
    A8G128,
    /// Groups of 256, as long as blocks of trits are.
    A8G256,
    /// The whole last axis (a token) is one group.
    A8Tok,
    /// 16 levels, the whole last axis with one scale.
    A4Tok,
    /// 4 levels, the whole last axis with one scale.
    A2Tok,
}

impl ActivationScheme {
    /// All schemes.
    pub const ALL: [ActivationScheme; 7] = [
        ActivationScheme::A8G32,
        ActivationScheme::A8G32Outlier,
        ActivationScheme::A8G128,
        ActivationScheme::A8G256,
        ActivationScheme::A8Tok,
        ActivationScheme::A4Tok,
        ActivationScheme::A2Tok,
    ];

    /// Those of nothing but 8 bits.
    pub const BYTES: [ActivationScheme; 4] = [
        ActivationScheme::A8G32,
        ActivationScheme::A8G128,
        ActivationScheme::A8G256,
        ActivationScheme::A8Tok,
    ];

    /// `a8_g32`, `a8_tok`, `a4_tok`, ...
    pub fn name(self) -> &'static str {
        match self {
            ActivationScheme::A8G32 => "a8_g32",
            ActivationScheme::A8G32Outlier => "a8_g32_outlier",
            ActivationScheme::A8G128 => "a8_g128",
            ActivationScheme::A8G256 => "a8_g256",
            ActivationScheme::A8Tok => "a8_tok",
            ActivationScheme::A4Tok => "a4_tok",
            ActivationScheme::A2Tok => "a2_tok",
        }
    }

    /// The planes of bits that hold its levels; those of 8 bits have none.
    pub fn planes(self) -> Option<Planes> {
        match self {
            ActivationScheme::A4Tok => Some(Planes::Four),
            ActivationScheme::A2Tok => Some(Planes::Two),
            _ => None,
        }
    }

    /// What products with weights of a type round activations to: groups of 32, with more bits for outliers where weights of
    /// 8 bits lose less than rounding these would; where long blocks of few levels have nothing but
    /// one scale, groups as long as these, so that the products of a block are added up as whole numbers.
    pub fn for_weights(ty: BlockType) -> ActivationScheme {
        match ty {
            BlockType::Q1_0 => ActivationScheme::A8G128,
            BlockType::TQ1_0 | BlockType::TQ2_0 => ActivationScheme::A8G256,
            BlockType::Q8_0 => ActivationScheme::A8G32Outlier,
            _ => ActivationScheme::A8G32,
        }
    }

    /// Rounds a row.
    pub fn round(self, row: &mut [f32]) {
        if let Some(planes) = self.planes() {
            return planes.round(row);
        }
        let group = self.group(row.len());
        for group in row.chunks_mut(group) {
            let (scale, inverse) = match self {
                ActivationScheme::A8G32Outlier => outlier_scale(group),
                _ => activation_scale(group),
            };
            for x in group {
                let whole = match inverse == 0.0 {
                    true => 0.0,
                    false => (*x * inverse).round_ties_even(),
                };
                *x = whole * scale;
            }
        }
    }

    /// How many numbers of a row of `k` share a scale.
    pub fn group(self, k: usize) -> usize {
        match self {
            ActivationScheme::A8G32 | ActivationScheme::A8G32Outlier => 32,
            ActivationScheme::A8G128 => 128,
            ActivationScheme::A8G256 => 256,
            _ => k.max(1),
        }
    }
}

/// What a group of activations is divided by, and the factor that does it: the definition for every pipeline.
pub fn activation_scale(group: &[f32]) -> (f32, f32) {
    let largest = group.iter().fold(0f32, |max, x| max.max(x.abs()));
    inverse_of(largest * (1.0 / 127.0), group)
}

/// [`activation_scale`] of [`ActivationScheme::A8G32Outlier`]: the first aligned four of the group with a number of the largest
/// magnitude `m` may have numbers up to [`OUTLIER_TOP`] times the scale, `d = max(max |x| / 127 over the others, m / OUTLIER_TOP)`.
pub fn outlier_scale(group: &[f32]) -> (f32, f32) {
    let (mut largest, mut others) = (0f32, 0f32);
    for four in group.chunks(4) {
        let here = four.iter().fold(0f32, |max, x| max.max(x.abs()));
        others = others.max(here.min(largest));
        largest = largest.max(here);
    }
    let scale = (others * (1.0 / 127.0)).max(largest * (1.0 / OUTLIER_TOP));
    inverse_of(scale, group)
}

/// What numbers of an outlying four are at most, in scales: `128 h + l` of two digits, with `|h| <= 127` and `-64 <= l < 64`.
pub const OUTLIER_TOP: f32 = 16_319.0;

/// A scale of a group with the factor that divides by it.
fn inverse_of(scale: f32, group: &[f32]) -> (f32, f32) {
    if !group.iter().all(|x| x.is_finite()) {
        return (f32::NAN, 0.0);
    }
    if scale < f32::MIN_POSITIVE {
        return (0.0, 0.0);
    }
    (scale, 1.0 / scale)
}

fn infer_quantize(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::Quantize(ty) = op else {
        unreachable!("the row of quantize")
    };
    if !ty.can_quantize() {
        return Err(format!("there is no encoder for {ty}"));
    }
    let len = ty.block_len();
    let row = inputs[0].dims.last().and_then(|dim| dim.as_usize());
    let row = row.filter(|row| row.is_multiple_of(len) && inputs[0].dtype == DType::F32);
    let Some(row) = row else {
        let what = &inputs[0];
        return Err(format!(
            "{ty} needs rows of whole blocks of {len} numbers (f32), not {what}"
        ));
    };
    let mut dims = inputs[0].dims.clone();
    *dims.last_mut().expect("it has a last one") = Expr::from(row / len * ty.block_bytes());
    Ok(TensorType {
        dims,
        dtype: DType::U8,
    })
}

fn eval_quantize(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Quantize(ty) = op else {
        unreachable!("the row of quantize")
    };
    let mut out = vec![0; context.dims.iter().product()];
    ty.quantize(&inputs[0].to_f32(), &mut out)
        .map_err(|e| e.to_string())?;
    Ok(Array::new(context.dims.clone(), Data::U8(out)))
}

fn infer_dequantize(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::Dequantize(ty) = op else {
        unreachable!("the row of dequantize")
    };
    if !ty.can_dequantize() {
        return Err(format!("there is no decoder for {ty}"));
    }
    let bytes = ty.block_bytes();
    let row = inputs[0].dims.last().and_then(|dim| dim.as_usize());
    let row = row.filter(|row| row.is_multiple_of(bytes) && inputs[0].dtype == DType::U8);
    let Some(row) = row else {
        let what = &inputs[0];
        return Err(format!(
            "{ty} needs rows of whole blocks of {bytes} bytes (u8), not {what}"
        ));
    };
    let mut dims = inputs[0].dims.clone();
    *dims.last_mut().expect("it has a last one") = Expr::from(row / bytes * ty.block_len());
    Ok(TensorType {
        dims,
        dtype: DType::F32,
    })
}

fn eval_dequantize(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Dequantize(ty) = op else {
        unreachable!("the row of dequantize")
    };
    let mut out = vec![0.0; context.dims.iter().product()];
    ty.dequantize(inputs[0].bytes(), &mut out)
        .map_err(|e| e.to_string())?;
    Ok(Array::new(context.dims.clone(), Data::F32(out)))
}

fn infer_fake_quantize(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    match inputs[0].dtype {
        DType::F32 if !inputs[0].dims.is_empty() => Ok(inputs[0].clone()),
        _ => Err(format!(
            "needs f32 with an axis to group, not {}",
            inputs[0]
        )),
    }
}

fn eval_fake_quantize(op: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Op::FakeQuantize(scheme) = op else {
        unreachable!("the row of fake_quantize")
    };
    let dims = inputs[0].dims();
    let k = dims.last().copied().unwrap_or(0);
    let mut out = inputs[0].to_f32();
    out.chunks_mut(k.max(1)).for_each(|row| scheme.round(row));
    Ok(Array::new(dims.to_vec(), Data::F32(out)))
}

fn gradient_of_fake_quantize(
    rule: &Rule<'_>,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let Op::FakeQuantize(scheme) = rule.op else {
        unreachable!("the row of fake_quantize")
    };
    let Some(planes) = scheme.planes() else {
        return Ok(smallvec![Some(rule.upstream)]);
    };
    let x = rule.operands[0];
    let dims = build.ty(x).dims;
    let last = dims.len() - 1;
    let k = dims[last].as_usize();
    let k = k.ok_or("gradients of few bits need rows of known length")?;
    let zero = build.fill(x, 0.0)?;
    let below = build.less(x, zero)?;
    let negative = build.scale(x, -1.0)?;
    let size = build.select(below, negative, x)?;
    let axes: AxisSet = smallvec![last];
    let sum = build.sum(size, axes.clone())?;
    // Half an interval beyond the outermost level.
    let limit = planes.levels() as f64 * planes.part_of_mean();
    let limit = build.scale(sum, limit / k.max(1) as f64)?;
    let limit = build.spread(limit, &axes, &dims)?;
    let beyond = build.less(limit, size)?;
    Ok(smallvec![Some(build.zero_where(beyond, rule.upstream)?)])
}

fn quantize_samples() -> Vec<Sample> {
    let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 7.0 - 6.0;
    let types = BlockType::all().filter(|ty| ty.can_quantize() && ty.block_len() > 1);
    let sample = |ty: BlockType| {
        let dims = vec![3, 2 * ty.block_len()];
        let numbers = (0..dims.iter().product()).map(number).collect();
        Sample {
            op: Op::Quantize(ty),
            inputs: vec![Array::new(dims, Data::F32(numbers))],
        }
    };
    types.map(sample).collect()
}

fn dequantize_samples() -> Vec<Sample> {
    let types = BlockType::all().filter(|ty| ty.can_dequantize());
    let sample = |ty: BlockType| {
        // Scales of 1.5 where the type has `f16` scales; the other bytes are any.
        let mut bytes: Vec<u8> = (0..6 * ty.block_bytes())
            .map(|i| (i * 37 % 251) as u8)
            .collect();
        for block in bytes.chunks_mut(ty.block_bytes()) {
            for &at in ty.scale_offsets() {
                block[at..at + 2].copy_from_slice(&half::f16::from_f32(1.5).to_le_bytes());
            }
        }
        let dims = vec![3, 2 * ty.block_bytes()];
        Sample {
            op: Op::Dequantize(ty),
            inputs: vec![Array::new(dims, Data::U8(bytes))],
        }
    };
    types.map(sample).collect()
}

fn fake_quantize_samples() -> Vec<Sample> {
    let mut out = Vec::new();
    for scheme in ActivationScheme::ALL {
        for input in samples::activations() {
            out.push(Sample {
                op: Op::FakeQuantize(scheme),
                inputs: vec![input],
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(x: &[f32]) -> Vec<f32> {
        let op = Op::FakeQuantize(ActivationScheme::A8G32);
        let inputs = vec![Array::new(vec![x.len()], Data::F32(x.to_vec()))];
        Sample { op, inputs }.eval().expect("it fits").to_f32()
    }

    #[test]
    fn the_largest_is_kept_and_ties_go_to_even() {
        // A scale of 2: 3 and 5 lie between two multiples.
        let y = rounded(&[254.0, 3.0, 5.0, -3.0, 0.9, -1.1]);
        assert_eq!(y, [254.0, 4.0, 4.0, -4.0, 0.0, -2.0]);
    }

    #[test]
    fn groups_have_scales_of_their_own() {
        let mut x = vec![127.0; 32];
        x.extend([0.5; 8]);
        assert_eq!(rounded(&x), x);
    }

    #[test]
    fn neighbours_of_an_outlier_keep_their_bits() {
        let mut x: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        (x[9], x[40], x[63]) = (100.0, -3000.0, 0.01);
        let lost = |scheme: ActivationScheme, group: usize| -> f32 {
            let mut y = x.clone();
            scheme.round(&mut y);
            let pairs = x.iter().zip(&y).skip(32 * group).take(32);
            pairs.fold(0f32, |most, (x, y)| most.max((x - y).abs()))
        };
        use ActivationScheme::{A8G32, A8G32Outlier};
        // Half a step of 1 / 127, and of 3000 / 16319 where that holds the outlier.
        assert!(lost(A8G32Outlier, 0) < 0.0041 && lost(A8G32, 0) > 0.3);
        assert!(lost(A8G32Outlier, 1) < 0.093 && lost(A8G32, 1) > 0.9);
    }

    #[test]
    fn no_group_is_divided_by_nothing() {
        assert_eq!(rounded(&[0.0, -0.0]), [0.0, 0.0]);
        assert_eq!(rounded(&[1e-40, 0.0]), [0.0, 0.0]);
        assert!(rounded(&[1.0, f32::INFINITY]).iter().all(|x| x.is_nan()));
        assert!(rounded(&[1.0, f32::NAN]).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn blocks_have_the_bytes_of_their_encoder() {
        let x: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
        let mut wanted = [0; 68];
        BlockType::Q8_0.quantize(&x, &mut wanted).unwrap();
        let op = Op::Quantize(BlockType::Q8_0);
        let sample = |x: Vec<f32>| Sample {
            op: op.clone(),
            inputs: vec![Array::new(vec![1, x.len()], Data::F32(x))],
        };
        assert_eq!(sample(x).eval().unwrap().bytes(), wanted);
        let nan = sample(vec![f32::NAN; 32]).eval().unwrap_err();
        assert!(nan.contains("which Q8_0 cannot hold"), "{nan}");
        assert!(op.infer(&[TensorType::new((2, 33), DType::F32)]).is_err());
        assert!(op.infer(&[TensorType::new((2, 32), DType::F16)]).is_err());
    }

    #[test]
    fn rows_that_are_no_whole_blocks_are_refused() {
        let op = Op::Dequantize(BlockType::Q8_0);
        let refused =
            |dims: (usize, usize), dtype| op.infer(&[TensorType::new(dims, dtype)]).is_err();
        assert!(refused((2, 33), DType::U8) && refused((2, 34), DType::Bool));
        let ty = op.infer(&[TensorType::new((2, 68), DType::U8)]);
        assert_eq!(ty, Ok(TensorType::new((2, 64), DType::F32)));
    }
}
