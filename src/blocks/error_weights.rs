//! [`ColumnStats`], made ready for fits.
//!
//! `G` gets a hundredth of its mean diagonal added to the diagonal, so that columns which sample data does not tell apart
//! are not torn apart either.

use super::ColumnStats;

/// What is added to the diagonal, as a part of its mean.
const DAMPING: f64 = 0.01;
/// What errors of a matrix's rows are multiplied by, made ready for fits.
pub(crate) struct ErrorWeights {
    /// Of each column alone.
    pub(super) columns: Vec<f64>,
    /// Of columns together, if that is known.
    pub(super) gram: Option<Gram>,
}

/// The mean products, and what follows from them.
pub(super) struct Gram {
    /// Damped, row by row.
    pub(super) products: Vec<f64>,
    /// The columns in the order in which they are rounded.
    pub(super) order: Vec<usize>,
    /// The upper factor of the inverse, rows and columns in that order.
    pub(super) factor: Vec<f64>,
}

impl ErrorWeights {
    /// Those that follow from sample data. Products that cannot be inverted, even damped, are left out.
    pub(crate) fn of(stats: &ColumnStats) -> ErrorWeights {
        let squares = stats.mean_squares();
        let mean = mean(squares);
        // Columns that are always 0 in the sample still get their own signs.
        let least = if mean > 0.0 { mean * 1e-6 } else { 1.0 };
        let columns = squares.iter().map(|&h| f64::from(h).max(least)).collect();
        let by_square = |products: &[f64]| {
            let n = squares.len();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| {
                let [a_square, b_square] = [a, b].map(|at| products[at * n + at]);
                b_square.total_cmp(&a_square).then(a.cmp(&b))
            });
            order
        };
        let gram = Gram::new(stats, by_square);
        ErrorWeights { columns, gram }
    }

    /// How many columns there are.
    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }
}

fn mean(squares: &[f32]) -> f64 {
    squares.iter().map(|&h| f64::from(h)).sum::<f64>() / squares.len().max(1) as f64
}

impl Gram {
    /// Made ready for blocks of `len` columns: those of larger squares come first, and the columns of a block stay together.
    /// `None` if products are not known, or cannot be inverted.
    pub(super) fn of_blocks(stats: &ColumnStats, len: usize) -> Option<Gram> {
        let squares = stats.mean_squares();
        Gram::new(stats, |_| {
            let sum = |block: usize| -> f64 {
                let squares = &squares[block * len..][..len];
                squares.iter().map(|&h| f64::from(h)).sum()
            };
            let mut blocks: Vec<usize> = (0..squares.len() / len).collect();
            blocks.sort_by(|&a, &b| sum(b).total_cmp(&sum(a)).then(a.cmp(&b)));
            let columns = |block: usize| {
                let mut columns: Vec<usize> = (block * len..(block + 1) * len).collect();
                columns.sort_by(|&a, &b| squares[b].total_cmp(&squares[a]).then(a.cmp(&b)));
                columns
            };
            blocks.into_iter().flat_map(columns).collect()
        })
    }

    /// `order` is given the damped products.
    fn new(stats: &ColumnStats, order: impl FnOnce(&[f64]) -> Vec<usize>) -> Option<Gram> {
        let n = stats.columns();
        let products = stats.products()?;
        let mut products: Vec<f64> = products.iter().map(|&g| f64::from(g)).collect();
        let damping = DAMPING * mean(stats.mean_squares());
        for i in 0..n {
            products[i * n + i] += damping;
            for j in 0..i {
                // Sums in another order are not exactly symmetric.
                let both = (products[i * n + j] + products[j * n + i]) / 2.0;
                (products[i * n + j], products[j * n + i]) = (both, both);
            }
        }
        let order = order(&products);
        let mut permuted = vec![0.0; n * n];
        for (i, &a) in order.iter().enumerate() {
            for (j, &b) in order.iter().enumerate() {
                permuted[i * n + j] = products[a * n + b];
            }
        }
        let factor = factor_of_inverse(permuted, n)?;
        Some(Gram {
            products,
            order,
            factor,
        })
    }
}

/// The upper triangle `U` with `Uᵀ U` the inverse of a symmetric matrix; `None` if that is not positive definite.
///
/// With `A = V Vᵀ` for an upper `V`, `A⁻¹ = (V⁻¹)ᵀ V⁻¹`, so `U` is the inverse of `V`.
fn factor_of_inverse(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    for j in (0..n).rev() {
        let tail = |a: &[f64], i: usize| -> f64 {
            let row = |i: usize| &a[i * n + j + 1..(i + 1) * n];
            dot(row(i), row(j))
        };
        let square = a[j * n + j] - tail(&a, j);
        if square.is_nan() || square <= 0.0 {
            return None;
        }
        let root = square.sqrt();
        for i in 0..j {
            a[i * n + j] = (a[i * n + j] - tail(&a, i)) / root;
        }
        a[j * n + j] = root;
    }
    // The inverse of the upper triangle, row by row from the last.
    let mut u = vec![0.0; n * n];
    for i in (0..n).rev() {
        u[i * n + i] = 1.0 / a[i * n + i];
        for k in i + 1..n {
            let by = a[i * n + k] / a[i * n + i];
            let (above, below) = u.split_at_mut(k * n);
            let (row, other) = (&mut above[i * n + k..(i + 1) * n], &below[k..n]);
            for (x, other) in row.iter_mut().zip(other) {
                *x -= by * other;
            }
        }
    }
    Some(u)
}

impl Gram {
    /// The products times a row.
    pub(super) fn times(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.products.chunks_exact(x.len().max(1));
        rows.map(|row| dot(row, x)).collect()
    }
}

/// A sum of products in four lanes.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut lanes = [0.0; 4];
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let n = 7;
        let b: Vec<f64> = (0..n * n)
            .map(|i| f64::from((i * i * 7 % 23) as u8) / 11.0 - 1.0)
            .collect();
        let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
            let cell = |at: usize| (0..n).map(|k| a[at / n * n + k] * b[at % n * n + k]).sum();
            (0..n * n).map(cell).collect()
        };
        let mut a = product(&b, &b);
        (0..n).for_each(|i| a[i * n + i] += 0.5);
        let u = factor_of_inverse(a.clone(), n).unwrap();
        assert!((0..n).all(|i| u[i * n..i * n + i].iter().all(|x| *x == 0.0)));
        // (Uᵀ U) A is the identity.
        let inverse: Vec<f64> = (0..n * n)
            .map(|at| (0..n).map(|k| u[k * n + at / n] * u[k * n + at % n]).sum())
            .collect();
        for (at, x) in product(&inverse, &a).iter().enumerate() {
            let expected = if at / n == at % n { 1.0 } else { 0.0 };
            assert!((x - expected).abs() < 1e-9, "{at}: {x}");
        }
        assert!(factor_of_inverse(vec![-1.0], 1).is_none());
    }
}
