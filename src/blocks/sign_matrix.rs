//! A matrix as sums of signs with a scale for each row: `w[r, k] = Σ_b scale[b, r] * sign[b, r, k]`.
//!
//! ```text
//! f32[rows, columns]   ->   u8[rows / 64, bases * 64 * (4 + columns / 8)]   ->   f32[rows, columns]
//! ```
//! One *base* is a bit for each number and a scale for each row (Rastegari et al. 2016, section 3.1); several are a
//! residual expansion. Zeros and ones are weights of three values too: two bases of half the scale, `(s0 + s1) / 2`.
//!
//! 64 rows are a *panel*, in the order in which kernels read them: base after base 64 scales (`f32`), then for every
//! eight columns the 64 bytes of the rows. A set bit is +1; the first column of eight is in the lowest bit. Bits of columns and
//! scales of rows that are not there are 0.
//!
//! Invariants: encoding is deterministic, and the same on every machine. Deliberately absent: scales for groups of a row,
//! which are `Q1_0` of [`super::BlockType`].

use super::ColumnStats;
use super::error_weights::ErrorWeights;
use super::sign_encode::RowEncoder;
use super::sign_fit::MOST_BASES;
use crate::error::{Error, Result};

/// Rows of a panel.
pub const PANEL_ROWS: usize = 64;

/// Sizes of a matrix of signs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SignMatrix {
    rows: usize,
    columns: usize,
    bases: usize,
}

/// How numbers become signs and scales.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SignFit {
    /// Three values, with two bases: what is nearer to 0 than 3/4 of the row's mean magnitude is 0 (Li et al. 2016).
    /// Otherwise signs and scales are fitted in turn, to the least squared error.
    pub ternary: bool,
    /// Whether scales are rounded to `f16`.
    pub half_scales: bool,
}

impl SignMatrix {
    /// The layout of a matrix. There are one to four bases.
    ///
    /// # Errors
    /// If there are more or none, or a size is 2^31 or more.
    pub fn new(rows: usize, columns: usize, bases: usize) -> Result<SignMatrix> {
        if bases == 0 || bases > MOST_BASES {
            return Err(Error::msg(format!("signs have 1 to 4 bases, not {bases}")));
        }
        if rows.max(columns) >= 1 << 31 {
            return Err(Error::msg("a matrix of signs has sizes below 2^31"));
        }
        Ok(SignMatrix {
            rows,
            columns,
            bases,
        })
    }

    /// Rows of the matrix.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn columns(self) -> usize {
        self.columns
    }

    /// Terms of the sum.
    pub fn bases(self) -> usize {
        self.bases
    }

    /// Groups of 64 rows, the last one perhaps not full.
    pub fn panels(self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Bytes of the bits of a row of one base.
    pub fn row_bytes(self) -> usize {
        self.columns.div_ceil(8)
    }

    /// Bytes of the scales and bits of one base of a panel.
    pub fn base_bytes(self) -> usize {
        PANEL_ROWS * (4 + self.row_bytes())
    }

    /// Bytes of a panel.
    pub fn panel_bytes(self) -> usize {
        self.bases * self.base_bytes()
    }

    /// Bytes of the matrix.
    pub fn bytes(self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Stores the numbers of some panels: `x` has their rows, `out` their bytes. The last panel may have fewer than 64
    /// rows.
    ///
    /// # Errors
    /// A number that is not finite, or so large that a scale overflows.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    #[track_caller]
    pub fn encode(self, fit: SignFit, x: &[f32], out: &mut [u8]) -> Result<()> {
        self.encode_by(fit, None, x, out)
    }

    /// As [`SignMatrix::encode`], with signs and scales of the least error in products with data like that of `stats`, which has a
    /// column for each of the matrix: with mean products, errors of columns make up for each other (GPTQ: Frantar et al.
    /// 2022).
    ///
    /// ```
    /// use brain_blitz::blocks::{ColumnStats, SignFit, SignMatrix};
    /// let (matrix, w) = (SignMatrix::new(1, 2, 1)?, [1.0f32, 3.0]);
    /// let scale = |stats: Option<&ColumnStats>| {
    ///     let (mut bytes, mut y) = (vec![0; matrix.bytes()], [0.0; 2]);
    ///     match stats {
    ///         Some(stats) => matrix.encode_calibrated(SignFit::default(), stats, &w, &mut bytes)?,
    ///         None => matrix.encode(SignFit::default(), &w, &mut bytes)?,
    ///     }
    ///     matrix.numbers(&bytes, &mut y);
    ///     brain_blitz::Result::Ok(y[0])
    /// };
    /// assert_eq!(scale(None)?, 2.0);
    /// // The second column is multiplied by larger numbers, so it matters more.
    /// assert_eq!(scale(Some(&ColumnStats::new(10, vec![1.0, 3.0], None)?))?, 2.5);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SignMatrix::encode`], and if `stats` has another number of columns.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    #[track_caller]
    pub fn encode_calibrated(
        self,
        fit: SignFit,
        stats: &ColumnStats,
        x: &[f32],
        out: &mut [u8],
    ) -> Result<()> {
        self.encode_by(fit, Some(&ErrorWeights::of(stats)), x, out)
    }

    #[track_caller]
    fn encode_by(
        self,
        fit: SignFit,
        weights: Option<&ErrorWeights>,
        x: &[f32],
        out: &mut [u8],
    ) -> Result<()> {
        let rows = x.len().checked_div(self.columns).unwrap_or(0);
        let n_panels = match self.columns {
            0 => out.len() / self.panel_bytes(),
            _ => rows.div_ceil(PANEL_ROWS),
        };
        assert!(
            (out.len(), x.len()) == (n_panels * self.panel_bytes(), rows * self.columns),
            "{} bytes are not the panels of {} numbers in rows of {}",
            out.len(),
            x.len(),
            self.columns
        );
        let mut encoder = RowEncoder::new(self, fit, weights)?;
        out.fill(0);
        if self.columns == 0 {
            return Ok(());
        }
        for (r, x) in x.chunks(self.columns).enumerate() {
            let panel = &mut out[r / PANEL_ROWS * self.panel_bytes()..][..self.panel_bytes()];
            encoder.encode((r * self.columns, x), panel, r % PANEL_ROWS)?;
        }
        Ok(())
    }

    /// The signs of one base as numbers, all rows; `bytes` is the whole matrix.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    pub fn signs(self, bytes: &[u8], base: usize, out: &mut [f32]) {
        self.each_eight(bytes, out, [base], |[bits], _| spread(bits, 1.0));
    }

    /// The scales of one base.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    pub fn scales(self, bytes: &[u8], base: usize, out: &mut [f32]) {
        assert_eq!((bytes.len(), out.len()), (self.bytes(), self.rows));
        for (row, scale) in out.iter_mut().enumerate() {
            let panel = &bytes[row / PANEL_ROWS * self.panel_bytes()..];
            *scale = self.scale(panel, base, row % PANEL_ROWS);
        }
    }

    /// The numbers: the bases' terms, added in order.
    ///
    /// # Panics
    /// If the slices' lengths do not belong together.
    pub fn numbers(self, bytes: &[u8], out: &mut [f32]) {
        match self.bases {
            1 => self.sums::<1>(bytes, out),
            2 => self.sums::<2>(bytes, out),
            3 => self.sums::<3>(bytes, out),
            _ => self.sums::<MOST_BASES>(bytes, out),
        }
    }

    /// [`SignMatrix::numbers`] with so many bases.
    fn sums<const BASES: usize>(self, bytes: &[u8], out: &mut [f32]) {
        let bases: [usize; BASES] = std::array::from_fn(|base| base);
        self.each_eight(bytes, out, bases, |bits, scales| {
            let mut sums = spread(bits[0], scales[0]);
            for base in 1..BASES {
                let term = spread(bits[base], scales[base]);
                sums.iter_mut().zip(term).for_each(|(sum, x)| *sum += x);
            }
            sums
        });
    }

    fn scale(self, panel: &[u8], base: usize, row: usize) -> f32 {
        let at = base * self.base_bytes() + 4 * row;
        f32::from_le_bytes(panel[at..at + 4].try_into().expect("four bytes"))
    }

    /// Writes the numbers that `decode` makes of some bases' bytes of eight columns, and of the row's scales.
    fn each_eight<const BASES: usize>(
        self,
        bytes: &[u8],
        out: &mut [f32],
        bases: [usize; BASES],
        decode: impl Fn([u8; BASES], [f32; BASES]) -> [f32; 8],
    ) {
        assert_eq!(
            (bytes.len(), out.len()),
            (self.bytes(), self.rows * self.columns)
        );
        for (r, row) in out.chunks_mut(self.columns.max(1)).enumerate() {
            let panel = &bytes[r / PANEL_ROWS * self.panel_bytes()..][..self.panel_bytes()];
            let r = r % PANEL_ROWS;
            let scales = bases.map(|base| self.scale(panel, base, r));
            let all = bases.map(|base| &panel[base * self.base_bytes() + 4 * PANEL_ROWS..]);
            let of = |k: usize| decode(all.map(|bits| bits[PANEL_ROWS * k + r]), scales);
            let (eights, rest) = row.as_chunks_mut::<8>();
            let n = eights.len();
            eights
                .iter_mut()
                .enumerate()
                .for_each(|(k, eight)| *eight = of(k));
            if !rest.is_empty() {
                rest.copy_from_slice(&of(n)[..rest.len()]);
            }
        }
    }
}

/// Eight signs times a scale; a set bit is positive.
fn spread(byte: u8, scale: f32) -> [f32; 8] {
    std::array::from_fn(|i| if byte & 1 << i != 0 { scale } else { -scale })
}

impl std::fmt::Display for SignMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}", self.rows, self.columns, self.bases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sign in the layout that the module's header describes, bit by bit.
    fn sign(matrix: SignMatrix, bytes: &[u8], [base, row, column]: [usize; 3]) -> f32 {
        let panel = row / PANEL_ROWS * matrix.bases * PANEL_ROWS * (4 + matrix.columns.div_ceil(8));
        let part = base * PANEL_ROWS * (4 + matrix.columns.div_ceil(8)) + 4 * PANEL_ROWS;
        let byte = bytes[panel + part + column / 8 * PANEL_ROWS + row % PANEL_ROWS];
        if byte >> (column % 8) & 1 == 1 {
            1.0
        } else {
            -1.0
        }
    }

    #[test]
    fn signs_and_numbers_are_those_of_the_layout() {
        let mut next = crate::blocks::test_numbers(7);
        for (rows, columns, bases) in [(3, 1, 1), (65, 7, 1), (70, 24, 2), (2, 70, 3), (1, 9, 4)] {
            let matrix = SignMatrix::new(rows, columns, bases).unwrap();
            let x: Vec<f32> = (0..rows * columns).map(|_| next()).collect();
            let mut bytes = vec![0; matrix.bytes()];
            matrix.encode(SignFit::default(), &x, &mut bytes).unwrap();
            let scales: Vec<Vec<f32>> = (0..bases)
                .map(|base| {
                    let mut scales = vec![0.0; rows];
                    matrix.scales(&bytes, base, &mut scales);
                    scales
                })
                .collect();
            let mut numbers = vec![0.0; x.len()];
            matrix.numbers(&bytes, &mut numbers);
            let mut first = vec![0.0; x.len()];
            matrix.signs(&bytes, 0, &mut first);
            for (i, (x, number)) in x.iter().zip(numbers).enumerate() {
                let (row, column) = (i / columns, i % columns);
                let at = |base| sign(matrix, &bytes, [base, row, column]);
                let term = |base: usize| at(base) * scales[base][row];
                assert_eq!(
                    number,
                    (1..bases).fold(term(0), |sum, base| sum + term(base))
                );
                assert_eq!(first[i], at(0));
                if bases == 1 {
                    assert_eq!(at(0) > 0.0, *x >= 0.0);
                }
            }
            if bases == 1 {
                let row = &x[(rows - 1) * columns..];
                let mean = row.iter().map(|x| f64::from(x.abs())).sum::<f64>() / columns as f64;
                assert!((f64::from(scales[0][rows - 1]) - mean).abs() < 1e-7 * mean);
            }
        }
    }
}
