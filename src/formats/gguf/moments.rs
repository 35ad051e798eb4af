//! What tensors are multiplied by, asked for a few tensors at a time.

use std::sync::Arc;

use super::super::calibration::Calibration;
use super::convert::{Converted, Item, Options};
use crate::blocks::{BlockErrors, ColumnStats};
use crate::error::Result;

/// Gives mean products of what these parameters are multiplied by, and mean squares of all.
pub type Moments<'a> = dyn FnMut(&[String]) -> Result<Calibration> + 'a;

/// Bytes that products of one question may take: in `f32` as a model's results, and in `f64` as sums.
const BUDGET: usize = 2 << 30;
/// Matrices of more columns are not asked for: the inverse alone would take minutes each.
const WIDEST: usize = 4096;

/// What is known about tensors that are converted in order.
pub(super) struct Known<'a, 'm> {
    items: &'a [Item],
    options: &'a Options,
    /// Whether products of each item are of use.
    wanted: Vec<bool>,
    moments: Option<&'a mut Moments<'m>>,
    /// What was answered last, and the item from which on nothing was asked yet.
    answer: (Calibration, usize),
}

impl<'a, 'm> Known<'a, 'm> {
    pub(super) fn new(
        items: &'a [Item],
        planned: &[Converted],
        options: &'a Options,
        moments: Option<&'a mut Moments<'m>>,
    ) -> Known<'a, 'm> {
        let wanted = items.iter().zip(planned).map(|(item, planned)| {
            let columns = item.tensor.shape.last().copied().unwrap_or(0);
            item.tensor.shape.len() == 2
                && columns <= WIDEST
                && BlockErrors::feed_back_in(planned.to)
        });
        Known {
            items,
            options,
            wanted: wanted.collect(),
            moments,
            answer: (Calibration::default(), 0),
        }
    }

    /// What is known about item `at`. Items are asked for in order.
    ///
    /// # Errors
    /// Those of the one who is asked.
    pub(super) fn stats(&mut self, at: usize) -> Result<Option<Arc<ColumnStats>>> {
        let is_matrix = self.items[at].tensor.shape.len() == 2;
        if is_matrix && self.moments.is_some() && at >= self.answer.1 {
            let (names, end) = self.next(at);
            // The old answer's memory is needed for the new one.
            self.answer = (Calibration::default(), end);
            if let Some(moments) = &mut self.moments {
                self.answer.0 = moments(&names)?;
            }
        }
        let item = &self.items[at];
        let stats = item.stats(&self.answer.0);
        let stats = stats.or_else(|| item.stats(&self.options.calibration));
        Ok(stats.cloned())
    }

    /// The parameters from item `at` on whose products fit the memory, and the item behind them.
    fn next(&self, at: usize) -> (Vec<String>, usize) {
        let (mut names, mut bytes) = (Vec::new(), 0);
        for (i, item) in self.items.iter().enumerate().skip(at) {
            if !self.wanted[i] {
                continue;
            }
            let columns = item.tensor.shape[1];
            bytes += columns * columns * (size_of::<f32>() + size_of::<f64>());
            if bytes > BUDGET && !names.is_empty() {
                return (names, i);
            }
            names.push(item.parameter.clone());
        }
        (names, self.items.len())
    }
}
