//! `LossGuard`: stops a run whose loss is not a number any more, or leaps far above what it was.
//!
//! The measure is the median of the last losses, which a few large ones do not move. While there are few, and when the
//! median is not positive (then "times as large" says nothing), only NaN and infinity count.

use std::collections::VecDeque;

use crate::error::{Error, Result};

/// Looks at every loss.
///
/// ```
/// use brain_blitz::train::metrics::LossGuard;
/// let mut guard = LossGuard::new(10.0, 4);
/// for (step, loss) in [2.0, 1.9, 1.8, 1.7].into_iter().enumerate() {
///     guard.check(step as u64, loss)?;
/// }
/// assert!(guard.check(4, 17.0).is_ok());
/// let error = guard.check(5, 200.0).unwrap_err().to_string();
/// assert!(error.starts_with("step 5: the loss 200 is more than 10 times"));
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LossGuard {
    factor: f64,
    window: usize,
    last: VecDeque<f64>,
}

impl LossGuard {
    /// Refuses a loss above `factor` times the median of the last `window` losses.
    ///
    /// # Panics
    /// If `factor` is not above 1, or `window` is 0.
    #[track_caller]
    pub fn new(factor: f64, window: usize) -> LossGuard {
        assert!(factor > 1.0, "a factor of {factor} refuses usual losses");
        assert!(window > 0, "a median needs a loss");
        LossGuard {
            factor,
            window,
            last: VecDeque::with_capacity(window),
        }
    }

    /// Takes the loss of a step.
    ///
    /// # Errors
    /// If it is NaN or infinite, or too large; it then does not count for the losses after it.
    pub fn check(&mut self, step: u64, loss: f64) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::msg(format!(
                "step {step}: the loss is {loss}; go back to a checkpoint and lower the learning rate or clip gradients"
            )));
        }
        if self.last.len() == self.window {
            let median = median(&self.last);
            if median > 0.0 && loss > self.factor * median {
                return Err(Error::msg(format!(
                    "step {step}: the loss {loss} is more than {} times {median}, the median of the last {}",
                    self.factor, self.window
                )));
            }
            self.last.pop_front();
        }
        self.last.push_back(loss);
        Ok(())
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(losses: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = losses.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}
