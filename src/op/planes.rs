//! `PackPlanes` and `UnpackPlanes`: activations of a few bits, as planes of bits.
//!
//! ```text
//! x: f32[M, K]                 ->  pack_planes<4>               ->  u8[M, 4 + 4 * (K / 8)]
//! p: u8[M, 4 + 4 * (K / 8)]    ->  unpack_planes<K, 4, levels>  ->  f32[M, K] of -15, -13, .. 15
//!                                  unpack_planes<K, 4, scales>  ->  f32[M]
//! ```
//! A number of b bits is one of 2^b *levels*, the odd numbers from `1 - 2^b` to `2^b - 1`, times the row's scale d: of
//! `[2 i d, 2 (i + 1) d)` the middle, and of what lies beyond the last level. So a number is a sum of b signs, each twice as
//! heavy as the one before: `x ≈ d Σ_p 2^p s_p`, and a product with signs is b products of signs (a *bit-serial* product: Cowan et
//! al. 2020). There is no level 0, as there is none between two signs; the signs of the heaviest plane are those of `PackSigns`.
//!
//! The outermost level of b bits is b times the row's mean magnitude, so d is 2/3 of that for two bits and 4/15 for four: near the
//! best uniform steps for numbers between normal and Laplacian ones (Max 1960). Scaled by its largest number, a row of two
//! bits would nearly always have the two inner levels only. One bit of this kind is a sign times the mean magnitude itself.
//!
//! A row's bytes are its scale (`f32`, lowest byte first), then plane after plane, the lightest first, each as `PackSigns` packs
//! it. Levels are whole numbers: every order of additions gives the same sums of products with signs.
//!
//! Invariants: magnitudes are added in [`LANES`] lanes and a fixed tree on every machine, so the bytes are the same
//! everywhere. A row whose scale is below the smallest normal number has scale 0; one with an infinity or a NaN, or whose sum
//! is too large, has NaN.

use super::signs::{row_length, with_last};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{Op, Sample, TensorType, samples};
use crate::array::{Array, Data};
use crate::dtype::DType;

pub(super) static PACK_PLANES: OpRow = OpRow::new(
    "pack_planes",
    Arity::Exact(1),
    infer_pack,
    eval_pack,
    pack_samples,
);
pub(super) static UNPACK_PLANES: OpRow = OpRow::new(
    "unpack_planes",
    Arity::Exact(1),
    infer_unpack,
    eval_unpack,
    unpack_samples,
);

/// Lanes in which magnitudes are added: element i in lane `i % 16`.
pub const LANES: usize = 16;

/// Bytes of a row's scale.
pub const SCALE_BYTES: usize = 4;

/// How many bits a number has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Planes {
    /// Levels -3, -1, 1 and 3.
    Two,
    /// Odd levels from -15 to 15.
    Four,
}

impl Planes {
    /// All of them.
    pub const ALL: [Planes; 2] = [Planes::Two, Planes::Four];

    /// Planes of a row.
    pub fn n(self) -> usize {
        match self {
            Planes::Two => 2,
            Planes::Four => 4,
        }
    }

    /// The number of levels: 4 or 16.
    pub fn levels(self) -> usize {
        1 << self.n()
    }

    /// The scale, as a part of the mean magnitude.
    pub fn part_of_mean(self) -> f64 {
        self.n() as f64 / (self.levels() - 1) as f64
    }

    /// Bytes of a row of `k` numbers.
    pub fn row_bytes(self, k: usize) -> usize {
        SCALE_BYTES + self.n() * k.div_ceil(8)
    }

    /// The scale of a row of `k` numbers with this sum of magnitudes, and the factor that turns a number into how many double
    /// scales it is: the definition for every pipeline.
    pub fn scale(self, k: usize, sum: f32) -> (f32, f32) {
        if !sum.is_finite() {
            return (f32::NAN, 0.0);
        }
        let scale = sum * (self.part_of_mean() / k.max(1) as f64) as f32;
        if scale < f32::MIN_POSITIVE {
            return (0.0, 0.0);
        }
        (scale, 0.5 / scale)
    }

    /// Which of the levels a number is, counted from the lowest one; `factor` is that of its row.
    pub fn code(self, x: f32, factor: f32) -> usize {
        let (half, x) = ((self.levels() / 2) as f32, x * factor);
        let x = if x.is_nan() { 0.0 } else { x };
        (x.floor().clamp(-half, half - 1.0) + half) as usize
    }

    /// The level of a code.
    pub fn level(self, code: usize) -> f32 {
        (2 * code) as f32 - (self.levels() - 1) as f32
    }

    /// Rounds a row to levels times its scale.
    pub fn round(self, row: &mut [f32]) {
        let (scale, factor) = self.scale(row.len(), sum_of_magnitudes(row));
        for x in row {
            *x = match scale == 0.0 {
                true => 0.0,
                false => self.level(self.code(*x, factor)) * scale,
            };
        }
    }

    /// Writes the bytes of a row.
    ///
    /// # Panics
    /// If there is not as much room as [`Planes::row_bytes`] says.
    pub fn pack(self, x: &[f32], row: &mut [u8]) {
        assert_eq!(row.len(), self.row_bytes(x.len()));
        let (scale, factor) = self.scale(x.len(), sum_of_magnitudes(x));
        let (first, bits) = row.split_at_mut(SCALE_BYTES);
        first.copy_from_slice(&scale.to_le_bytes());
        self.pack_codes((x, factor), bits, x.len().div_ceil(8));
    }

    /// Writes the bits of some numbers into planes that are `step` bytes apart.
    ///
    /// # Panics
    /// If a plane is outside of `bits`.
    pub fn pack_codes(self, (x, factor): (&[f32], f32), bits: &mut [u8], step: usize) {
        for (at, eight) in x.chunks(8).enumerate() {
            let mut codes = [0; 8];
            for (code, x) in codes.iter_mut().zip(eight) {
                *code = self.code(*x, factor);
            }
            for plane in 0..self.n() {
                let bit = |(i, code): (usize, &usize)| ((code >> plane & 1) as u8) << i;
                bits[plane * step + at] = codes.iter().enumerate().map(bit).sum();
            }
        }
    }

    /// The levels of a row of `k` numbers.
    ///
    /// # Panics
    /// If there are fewer bytes.
    pub fn unpack(self, row: &[u8], out: &mut [f32]) {
        let (bytes, bits) = (out.len().div_ceil(8), &row[SCALE_BYTES..]);
        for (k, x) in out.iter_mut().enumerate() {
            let bit = |plane: usize| usize::from(bits[plane * bytes + k / 8] >> (k % 8) & 1);
            *x = self.level((0..self.n()).map(|plane| bit(plane) << plane).sum());
        }
    }
}

/// The scale of a row, which its bytes begin with.
///
/// # Panics
/// If there are fewer than four.
pub fn scale_of_row(row: &[u8]) -> f32 {
    f32::from_le_bytes([row[0], row[1], row[2], row[3]])
}

/// The sum of all magnitudes, in [`LANES`] lanes.
pub fn sum_of_magnitudes(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    add_magnitudes(x, &mut lanes);
    sum_of_lanes(lanes)
}

/// Adds magnitudes to lanes, the first to the first.
pub fn add_magnitudes(x: &[f32], lanes: &mut [f32; LANES]) {
    for some in x.chunks(LANES) {
        let both = lanes.iter_mut().zip(some);
        both.for_each(|(lane, x)| *lane += x.abs());
    }
}

/// The sum of all lanes, as a tree.
pub fn sum_of_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        (0..half).for_each(|i| lanes[i] += lanes[i + half]);
        half /= 2;
    }
    lanes[0]
}

/// What is read of rows of planes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum PlanePart {
    /// Odd whole numbers, a row for each row.
    Levels,
    /// What they are multiplied by, a number for each row.
    Scales,
}

impl PlanePart {
    /// `levels` or `scales`.
    pub fn name(self) -> &'static str {
        match self {
            PlanePart::Levels => "levels",
            PlanePart::Scales => "scales",
        }
    }
}

fn infer_pack(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::PackPlanes(planes) = *op else {
        unreachable!("the row of pack_planes")
    };
    let k = row_length(&inputs[0])?;
    Ok(with_last(&inputs[0], planes.row_bytes(k), DType::U8))
}

fn eval_pack(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::PackPlanes(planes) = *op else {
        unreachable!("the row of pack_planes")
    };
    let k = inputs[0].dims().last().copied().unwrap_or(0);
    let mut out = vec![0; context.dims.iter().product()];
    let x = inputs[0].to_f32();
    for (row, out) in out.chunks_mut(planes.row_bytes(k)).enumerate() {
        planes.pack(&x[row * k..][..k], out);
    }
    Ok(Array::new(context.dims.clone(), Data::U8(out)))
}

fn infer_unpack(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::UnpackPlanes(k, planes, part) = *op else {
        unreachable!("the row of unpack_planes")
    };
    let bytes = planes.row_bytes(k);
    let row = inputs[0].dims.last().and_then(|dim| dim.as_usize());
    if inputs[0].dtype != DType::U8 || row != Some(bytes) {
        let (n, what) = (planes.n(), &inputs[0]);
        return Err(format!(
            "{k} numbers of {n} bits need rows of {bytes} bytes (u8), not {what}"
        ));
    }
    let mut ty = with_last(&inputs[0], k, DType::F32);
    if part == PlanePart::Scales {
        ty.dims.pop();
    }
    Ok(ty)
}

fn eval_unpack(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::UnpackPlanes(k, planes, part) = *op else {
        unreachable!("the row of unpack_planes")
    };
    let rows = inputs[0].bytes().chunks(planes.row_bytes(k));
    let mut out = vec![0.0; context.dims.iter().product()];
    for (at, row) in rows.enumerate() {
        match part {
            PlanePart::Levels => planes.unpack(row, &mut out[at * k..][..k]),
            PlanePart::Scales => out[at] = scale_of_row(row),
        }
    }
    Ok(Array::new(context.dims.clone(), Data::F32(out)))
}

fn pack_samples() -> Vec<Sample> {
    let mut inputs = samples::activations();
    let odd = [f32::NAN, f32::INFINITY, 1e-40, -1e-40, 3e38, -3e38];
    let rows = odd.iter().flat_map(|odd| [1.0, *odd, -2.0, 0.5]).collect();
    inputs.push(Array::new(vec![6, 4], Data::F32(rows)));
    let sample = |planes: Planes| {
        inputs.clone().into_iter().map(move |input| Sample {
            op: Op::PackPlanes(planes),
            inputs: vec![input],
        })
    };
    Planes::ALL.into_iter().flat_map(sample).collect()
}

fn unpack_samples() -> Vec<Sample> {
    let mut out = Vec::new();
    for planes in Planes::ALL {
        for (m, k) in [(2, 8), (3, 37), (1, 1), (2, 0), (0, 9), (1, 131)] {
            let bytes = planes.row_bytes(k);
            let mut rows: Vec<u8> = (0..m * bytes).map(|i| (i * 97 % 251) as u8).collect();
            for (row, scale) in rows.chunks_mut(bytes).zip([0.5f32, 3.0, 1e-3]) {
                row[..SCALE_BYTES].copy_from_slice(&scale.to_le_bytes());
            }
            for part in [PlanePart::Levels, PlanePart::Scales] {
                out.push(Sample {
                    op: Op::UnpackPlanes(k, planes, part),
                    inputs: vec![Array::new(vec![m, bytes], Data::U8(rows.clone()))],
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::pack_signs;

    fn rounded(planes: Planes, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        planes.round(&mut x);
        x
    }

    #[test]
    fn numbers_become_the_middle_of_their_interval() {
        // The mean magnitude is 3, so scales are 2 and 0.8.
        let x = [0.0, -0.0, -0.1, 3.9, 4.0, -4.0, -4.1, 7.9];
        assert_eq!(x.iter().map(|x: &f32| x.abs()).sum::<f32>(), 24.0);
        let two = rounded(Planes::Two, &x);
        assert_eq!(two, [2.0, 2.0, -2.0, 2.0, 6.0, -2.0, -6.0, 6.0]);
        // Intervals of 1.6.
        let scale = Planes::Four.scale(8, 24.0).0;
        assert!((scale - 0.8).abs() < 1e-6);
        let levels = [1.0, 1.0, -1.0, 5.0, 5.0, -5.0, -5.0, 9.0];
        assert_eq!(rounded(Planes::Four, &x), levels.map(|x| scale * x));
        let far = rounded(
            Planes::Four,
            &[100.0, -100.0, 0.1, -0.1, 0.1, 0.1, 0.1, 0.1],
        );
        let scale = far[2];
        assert_eq!(far[..2], [15.0 * scale, -15.0 * scale]);
    }

    #[test]
    fn planes_hold_the_levels_and_the_heaviest_the_signs() {
        for planes in Planes::ALL {
            let mut all: Vec<f32> = (0..85).map(|i| (i * 37 % 83) as f32 - 41.0).collect();
            all[3] = -0.0;
            (all[8], all[20], all[84]) = (700.0, -700.0, 400.0);
            let mut row = vec![0xff; planes.row_bytes(85)];
            planes.pack(&all, &mut row);
            let scale = scale_of_row(&row);
            assert!(scale > 0.0);
            let mut levels = vec![0.0; 85];
            planes.unpack(&row, &mut levels);
            let values: Vec<f32> = levels.iter().map(|level| level * scale).collect();
            assert_eq!(values, rounded(planes, &all));
            let most = (planes.levels() - 1) as f32;
            assert!(
                levels
                    .iter()
                    .all(|level| level.abs() <= most && level % 2.0 != 0.0)
            );
            assert!(levels.contains(&most) && levels.contains(&-most));
            let mut signs = vec![0; 11];
            pack_signs(&all, &mut signs);
            assert_eq!(row[row.len() - 11..], signs);
        }
    }

    /// Numbers that are normally distributed (Box and Muller 1958).
    fn normal(n: usize) -> Vec<f64> {
        let uniform = |i: usize| {
            let word = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let word = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((word >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let number = |i: usize| {
            let (a, b) = (uniform(2 * i), uniform(2 * i + 1));
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        };
        (0..n).map(number).collect()
    }

    /// The best uniform steps leave 0.119 and 0.0115 of a normal number's variance (Max 1960); ours are a little longer.
    #[test]
    fn errors_are_near_those_of_the_best_steps() {
        let x = normal(1 << 16);
        let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        let energy: f64 = x.iter().map(|x| x * x).sum();
        for (planes, best) in [(Planes::Two, 0.1188), (Planes::Four, 0.01154)] {
            let mut error = 0.0;
            for (x, row) in x.chunks(4096).zip(narrow.chunks(4096)) {
                let both = x.iter().zip(rounded(planes, row));
                error += both.map(|(x, y)| (x - f64::from(y)).powi(2)).sum::<f64>();
            }
            let part = error / energy;
            assert!(part > best && part < 1.4 * best, "{planes:?}: {part}");
        }
    }

    #[test]
    fn no_row_is_divided_by_nothing() {
        for planes in Planes::ALL {
            assert_eq!(rounded(planes, &[0.0, -0.0]), [0.0, 0.0]);
            assert_eq!(rounded(planes, &[1e-40, -1e-40]), [0.0, 0.0]);
            assert_eq!(rounded(planes, &[]), [0.0; 0]);
            for odd in [f32::NAN, f32::INFINITY, f32::MAX] {
                let row = rounded(planes, &[odd, f32::MAX, -1.0]);
                assert!(row.iter().all(|x| x.is_nan()), "{row:?}");
                let mut bytes = vec![0; planes.row_bytes(3)];
                planes.pack(&[odd, f32::MAX, -1.0], &mut bytes);
                assert!(scale_of_row(&bytes).is_nan());
            }
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let refused = |op: &Op, dims: (usize, usize), dtype| {
            op.infer(&[TensorType::new(dims, dtype)]).is_err()
        };
        let pack = Op::PackPlanes(Planes::Two);
        assert!(!refused(&pack, (2, 9), DType::F32) && refused(&pack, (2, 9), DType::F64));
        let levels = Op::UnpackPlanes(9, Planes::Two, PlanePart::Levels);
        assert!(!refused(&levels, (2, 8), DType::U8));
        assert!(refused(&levels, (2, 8), DType::Bool) && refused(&levels, (2, 6), DType::U8));
    }
}
