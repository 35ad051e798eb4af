//! What a matrix's columns are multiplied by, on sample data: which errors of its numbers matter.
//!
//! A product `y[m, r] = Σ_k x[m, k] w[r, k]` with rounded numbers `q` in the place of `w` is wrong by
//!
//! ```text
//! mean over m of (y' - y)²  =  Σ_ij (q - w)[r, i] G[i, j] (q - w)[r, j],   G = mean over m of x[m, i] x[m, j]
//! ```
//! The diagonal of `G`, the *mean squares* of the columns, tells which columns matter (llama.cpp's "importance matrix");
//! all of it, which only narrow matrices can afford, also how an error in one column makes up for that in another (Frantar
//! et al. 2022, GPTQ).

use crate::error::{Error, Result};

/// Mean squares, and perhaps mean products, of the columns that a matrix's columns are multiplied by.
#[derive(Clone, PartialEq, Debug)]
pub struct ColumnStats {
    rows: u64,
    mean_squares: Vec<f32>,
    products: Option<Vec<f32>>,
}

impl ColumnStats {
    /// Of `rows` rows of data: the mean square of each column, and, row by row, the mean products of all pairs.
    ///
    /// # Errors
    /// If a mean square is negative or not finite, or there are not as many products as pairs.
    pub fn new(
        rows: u64,
        mean_squares: Vec<f32>,
        products: Option<Vec<f32>>,
    ) -> Result<ColumnStats> {
        let wrong = |x: &f32| !x.is_finite() || *x < 0.0;
        if let Some(at) = mean_squares.iter().position(wrong) {
            let what = format!("the mean square of column {at} is {}", mean_squares[at]);
            return Err(Error::msg(what));
        }
        if let Some(products) = &products {
            let (n, pairs) = (products.len(), mean_squares.len().pow(2));
            if n != pairs {
                return Err(Error::msg(format!(
                    "{n} products are not those of {pairs} pairs"
                )));
            }
            if products.iter().any(|x| !x.is_finite()) {
                return Err(Error::msg("a mean product is not finite"));
            }
        }
        Ok(ColumnStats {
            rows,
            mean_squares,
            products,
        })
    }

    /// How many rows of data there were.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.mean_squares.len()
    }

    /// The mean square of each column.
    pub fn mean_squares(&self) -> &[f32] {
        &self.mean_squares
    }

    /// The mean products of all pairs of columns, if they were taken.
    pub fn products(&self) -> Option<&[f32]> {
        self.products.as_deref()
    }

    /// The same without the products.
    pub fn without_products(self) -> ColumnStats {
        ColumnStats {
            products: None,
            ..self
        }
    }

    /// The sum over rows of a matrix of `Σ_k mean_square[k] (q - w)²`: what the products are wrong by if errors of columns do
    /// not depend on each other.
    ///
    /// # Panics
    /// If the slices are not whole rows, of the same number.
    #[track_caller]
    pub fn weighted_error(&self, w: &[f32], q: &[f32]) -> f64 {
        assert_eq!(w.len(), q.len(), "both are the same matrix");
        let n = self.columns().max(1);
        assert!(w.len().is_multiple_of(n), "whole rows of {n}");
        let rows = w.chunks_exact(n).zip(q.chunks_exact(n));
        rows.map(|(w, q)| self.error_of_row(w, q)).sum()
    }

    fn error_of_row(&self, w: &[f32], q: &[f32]) -> f64 {
        let pairs = w.iter().zip(q).zip(&self.mean_squares);
        let error = |((w, q), h): ((&f32, &f32), &f32)| {
            let off = f64::from(*q) - f64::from(*w);
            f64::from(*h) * off * off
        };
        pairs.map(error).sum()
    }

    /// The sum over rows of a matrix of `(q - w) G (q - w)`: what the products are wrong by. `None` without products.
    ///
    /// # Panics
    /// If the slices are not whole rows, of the same number.
    #[track_caller]
    pub fn output_error(&self, w: &[f32], q: &[f32]) -> Option<f64> {
        let products = self.products.as_ref()?;
        assert_eq!(w.len(), q.len(), "both are the same matrix");
        let n = self.columns().max(1);
        assert!(w.len().is_multiple_of(n), "whole rows of {n}");
        let mut sum = 0.0;
        for (w, q) in w.chunks_exact(n).zip(q.chunks_exact(n)) {
            let off: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(q - w)).collect();
            for (at, row) in off.iter().zip(products.chunks_exact(n)) {
                let dot = |(g, off): (&f32, &f64)| f64::from(*g) * off;
                sum += at * row.iter().zip(&off).map(dot).sum::<f64>();
            }
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_products() {
        let x = [[1.0f32, 2.0], [3.0, -1.0], [0.5, 0.0]];
        let mean = |i: usize, j: usize| x.iter().map(|x| x[i] * x[j]).sum::<f32>() / 3.0;
        let products = vec![mean(0, 0), mean(0, 1), mean(1, 0), mean(1, 1)];
        let stats = ColumnStats::new(3, vec![mean(0, 0), mean(1, 1)], Some(products)).unwrap();
        let (w, q) = ([1.0, 2.0, 3.0, 4.0], [1.5, 1.5, 3.0, 5.0]);
        let by_hand: f64 = [[0.5f64, -0.5], [0.0, 1.0]]
            .iter()
            .flat_map(|off| x.map(|x| off[0] * f64::from(x[0]) + off[1] * f64::from(x[1])))
            .map(|off| off * off / 3.0)
            .sum();
        assert!((stats.output_error(&w, &q).unwrap() - by_hand).abs() < 1e-6);
        let weighted = 0.25 * f64::from(mean(0, 0)) + 1.25 * f64::from(mean(1, 1));
        assert!((stats.weighted_error(&w, &q) - weighted).abs() < 1e-6);
        assert!(stats.without_products().output_error(&w, &q).is_none());
    }

    #[test]
    fn what_is_no_mean_square_is_refused() {
        assert!(ColumnStats::new(1, vec![-1.0], None).is_err());
        assert!(ColumnStats::new(1, vec![f32::NAN], None).is_err());
        assert!(ColumnStats::new(1, vec![1.0; 2], Some(vec![1.0; 3])).is_err());
        assert!(ColumnStats::new(1, vec![1.0], Some(vec![f32::INFINITY])).is_err());
    }
}
