//! Rows of numbers → blocks, where what a column is off by is made up for in the columns after it.
//!
//! With the mean products `G` of what a matrix is multiplied by ([`ColumnStats`]), the error of a row is `(q - w) G (q - w)`. Columns
//! are rounded one after the other, and each one's error is taken from the columns that are not rounded yet as far as
//! these are related (Frantar et al. 2022, GPTQ): with `G⁻¹ = Uᵀ U`, column j's error divided by `U[j, j]`, times row j of `U`.
//! The sum of the squares of these quotients is the row's error, so `1 / U[j, j]²` is what an error of column j alone counts, after
//! everything that later columns can do about it.
//!
//! Blocks are taken whole, those whose columns have the largest mean squares first: when a block's turn comes, its scales are
//! chosen for the numbers as they are then ([`BlockType::quantize_weighted`] with these weights); then its columns get their
//! codes. The formats stay as they are.
//!
//! Rejected: trying scales around these by the error that is left, and giving each column the best code beside all others in
//! the end. Both make the error on the sample smaller, and a model's predictions of another text no better.
//!
//! Types without a grid of lines ([`super::codes`]) are encoded with the mean squares only, as are matrices whose products are
//! not known or cannot be inverted. Rows do not depend on each other; sums are in `f64` and in a fixed order.

use super::codes::{self, Line};
use super::error_weights::Gram;
use super::{BlockType, ColumnStats};
use crate::error::{Error, Result};

/// Rows that are rounded together: they share what is read of `U`.
const ROWS: usize = 16;
/// Columns of `U` that stay in a cache while rows use them.
const TILE: usize = 256;
/// The longest block, in numbers.
const MOST: usize = 256;

/// How errors of a matrix count when it is stored in blocks of a type.
pub(crate) struct BlockErrors<'a> {
    ty: BlockType,
    stats: &'a ColumnStats,
    /// Known products, and what each column counts.
    gram: Option<(Gram, Vec<f32>)>,
}

impl<'a> BlockErrors<'a> {
    /// Those that follow from sample data.
    pub(crate) fn of(ty: BlockType, stats: &'a ColumnStats) -> BlockErrors<'a> {
        let fits = codes::has_lines(ty) && stats.columns().is_multiple_of(ty.block_len());
        let gram = fits.then(|| Gram::of_blocks(stats, ty.block_len()));
        let gram = gram.flatten().map(|gram| {
            let n = stats.columns();
            let mut columns = vec![0.0; n];
            for (j, &column) in gram.order.iter().enumerate() {
                columns[column] = gram.factor[j * n + j].powi(-2) as f32;
            }
            (gram, columns)
        });
        BlockErrors { ty, stats, gram }
    }

    /// Whether errors of columns of a type can be made up for in other columns, if products are known.
    pub(crate) fn feed_back_in(ty: BlockType) -> bool {
        codes::has_lines(ty)
    }

    /// Whether errors are made up for in other columns: then whole rows are encoded.
    pub(crate) fn feeds_back(&self) -> bool {
        self.gram.is_some()
    }

    /// How many columns the matrix has.
    pub(crate) fn columns(&self) -> usize {
        self.stats.columns()
    }

    /// Encodes numbers of the matrix, of which the first is element `first`: whole blocks, and whole rows where
    /// [`BlockErrors::feeds_back`] says so.
    ///
    /// # Errors
    /// As [`BlockType::quantize_weighted`], and if rows that should be whole are not.
    pub(crate) fn quantize(&self, first: usize, source: &[f32], target: &mut [u8]) -> Result<()> {
        let Some((gram, columns)) = &self.gram else {
            let squares = self.stats.mean_squares();
            return self.ty.quantize_weighted(source, squares, first, target);
        };
        let n = columns.len();
        if !source.len().is_multiple_of(n) || !first.is_multiple_of(n) {
            let what = format!("{} numbers from {first} on are no whole rows", source.len());
            return Err(Error::msg(what));
        }
        let bytes = n / self.ty.block_len() * self.ty.block_bytes();
        let pieces = source.chunks(ROWS * n).zip(target.chunks_mut(ROWS * bytes));
        for (at, (source, target)) in pieces.enumerate() {
            let rows = source.len() / n;
            let mut rounding = Rounding {
                ty: self.ty,
                gram,
                columns,
                rest: Vec::with_capacity(source.len()),
                off: vec![0.0; rows * self.ty.block_len()],
                first: first + at * ROWS * n,
            };
            for row in source.chunks_exact(n) {
                let ordered = gram.order.iter().map(|&column| f64::from(row[column]));
                rounding.rest.extend(ordered);
            }
            rounding.run(target)?;
        }
        Ok(())
    }
}

/// Rows on their way.
struct Rounding<'a> {
    ty: BlockType,
    gram: &'a Gram,
    /// What an error of each column counts.
    columns: &'a [f32],
    /// Rows of what is left to be rounded, in the order of rounding.
    rest: Vec<f64>,
    /// Of each row, the quotients of the block that was rounded last.
    off: Vec<f64>,
    /// The first element, for messages.
    first: usize,
}

impl Rounding<'_> {
    fn run(&mut self, target: &mut [u8]) -> Result<()> {
        let (n, len) = (self.columns.len(), self.ty.block_len());
        let (bytes, n_blocks) = (self.ty.block_bytes(), n / len);
        for turn in 0..n_blocks {
            let block = self.gram.order[turn * len] / len;
            for (row, target) in target.chunks_exact_mut(n_blocks * bytes).enumerate() {
                self.block((row, turn), &mut target[block * bytes..][..bytes])?;
            }
            self.spread((turn + 1) * len);
        }
        Ok(())
    }

    /// Rounds the block of a row whose turn it is.
    fn block(&mut self, (row, turn): (usize, usize), target: &mut [u8]) -> Result<()> {
        let (n, len) = (self.columns.len(), self.ty.block_len());
        let begin = turn * len;
        let order = &self.gram.order[begin..begin + len];
        let first = order[0] / len * len;
        let rest = &mut self.rest[row * n + begin..][..len];
        let mut x = [0.0; MOST];
        for (rest, &column) in rest.iter().zip(order) {
            x[column - first] = *rest as f32;
        }
        let columns = &self.columns[first..first + len];
        // Messages name the element; the columns are only those of this block.
        let element = self.first + row * n + first;
        let encoded = self.ty.quantize_weighted(&x[..len], columns, 0, target);
        encoded
            .map_err(|error| Error::msg(format!("in the block of element {element}: {error}")))?;
        let mut lines = [Line::NONE; MOST];
        codes::lines(self.ty, target, &mut lines[..len]);
        for (j, &column) in order.iter().enumerate() {
            let (code, value) = lines[column - first].nearest(rest[j]);
            codes::put(self.ty, target, column - first, code);
            let factor = &self.gram.factor[(begin + j) * n + begin..][..len];
            let off = (rest[j] - f64::from(value)) / factor[j];
            self.off[row * len + j] = off;
            for (x, u) in rest[j + 1..].iter_mut().zip(&factor[j + 1..]) {
                *x -= off * u;
            }
        }
        Ok(())
    }

    /// Makes up for the last block in all columns from `begin` on.
    fn spread(&mut self, begin: usize) {
        let (n, len) = (self.columns.len(), self.ty.block_len());
        for from in (begin..n).step_by(TILE) {
            let to = (from + TILE).min(n);
            let rows = self.rest.chunks_exact_mut(n);
            for (rest, off) in rows.zip(self.off.chunks_exact(len)) {
                let rest = &mut rest[from..to];
                for (j, off) in off.iter().enumerate() {
                    let factor = &self.gram.factor[(begin - len + j) * n..][from..to];
                    for (x, u) in rest.iter_mut().zip(factor) {
                        *x -= off * u;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::test_numbers;

    fn types() -> impl Iterator<Item = BlockType> {
        BlockType::all().filter(|ty| codes::has_lines(*ty))
    }

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut next = test_numbers(seed);
        (0..n).map(|_| next() + next() + next()).collect()
    }

    /// Columns that are related: each row of data is a few patterns mixed.
    fn related(n: usize) -> ColumnStats {
        let (rows, patterns) = (2 * n, n / 4);
        let (mix, pattern) = (numbers(rows * patterns, 5), numbers(patterns * n, 6));
        let mut x = numbers(rows * n, 7);
        for (row, mix) in x.chunks_exact_mut(n).zip(mix.chunks_exact(patterns)) {
            for (mix, pattern) in mix.iter().zip(pattern.chunks_exact(n)) {
                for (x, pattern) in row.iter_mut().zip(pattern) {
                    *x += mix * pattern;
                }
            }
        }
        let mut products = vec![0.0; n * n];
        for row in x.chunks_exact(n) {
            for (products, a) in products.chunks_exact_mut(n).zip(row) {
                for (product, b) in products.iter_mut().zip(row) {
                    *product += a * b / rows as f32;
                }
            }
        }
        let squares = (0..n).map(|i| products[i * n + i]).collect();
        ColumnStats::new(rows as u64, squares, Some(products)).unwrap()
    }

    fn encoded(ty: BlockType, stats: &ColumnStats, w: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let mut bytes = vec![0; ty.bytes_of(w.len()).unwrap()];
        let errors = BlockErrors::of(ty, stats);
        assert_eq!(errors.feeds_back(), stats.products().is_some());
        errors.quantize(0, w, &mut bytes).unwrap();
        let mut q = vec![0.0; w.len()];
        ty.dequantize(&bytes, &mut q).unwrap();
        (bytes, q)
    }

    #[test]
    fn products_are_off_by_much_less_than_with_mean_squares_alone() {
        for ty in types() {
            let n = ty.block_len().max(128);
            let (stats, w) = (related(n), numbers((ROWS + 3) * n, 1));
            let alone = stats.clone().without_products();
            let error = |stats: &ColumnStats| encoded(ty, stats, &w).1;
            let [fed_back, weighted] =
                [&stats, &alone].map(|by| stats.output_error(&w, &error(by)).unwrap());
            assert!(fed_back < 0.6 * weighted, "{ty}: {fed_back}, {weighted}");
        }
    }

    #[test]
    fn columns_that_are_not_related_are_rounded_alone() {
        for ty in types() {
            let n = 2 * ty.block_len();
            let w = numbers(3 * n, 2);
            let mut products = vec![0.0; n * n];
            (0..n).for_each(|i| products[i * n + i] = 1.0);
            let stats = ColumnStats::new(9, vec![1.0; n], Some(products)).unwrap();
            let (fed_back, weighted) = (
                encoded(ty, &stats, &w),
                encoded(ty, &stats.without_products(), &w),
            );
            assert_eq!(fed_back, weighted, "{ty}");
        }
    }

    #[test]
    fn rows_do_not_depend_on_each_other() {
        let ty = BlockType::Q4_0;
        let (stats, w) = (related(64), numbers((2 * ROWS + 1) * 64, 3));
        let (all, _) = encoded(ty, &stats, &w);
        let errors = BlockErrors::of(ty, &stats);
        for (row, (w, bytes)) in w.chunks(64).zip(all.chunks(36)).enumerate() {
            let mut alone = vec![0; 36];
            errors.quantize(row * 64, w, &mut alone).unwrap();
            assert_eq!(alone, bytes, "row {row}");
        }
        assert!(errors.quantize(0, &w[..32], &mut [0; 18]).is_err());
    }

    #[test]
    fn what_cannot_be_held_is_an_error_that_names_its_place() {
        let (ty, stats) = (BlockType::Q4_0, related(64));
        let mut w = numbers(128, 4);
        w[70] = f32::NAN;
        let mut bytes = vec![0; ty.bytes_of(128).unwrap()];
        let why = BlockErrors::of(ty, &stats).quantize(0, &w, &mut bytes);
        let why = why.unwrap_err().to_string();
        assert!(why.contains("block of element"), "{why}");
    }
}
