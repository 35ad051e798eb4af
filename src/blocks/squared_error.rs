//! Sums of squares of numbers and of what encoding changed.

use std::ops::AddAssign;

/// What a stretch of numbers loses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SquaredError {
    /// Sum of squares of the numbers.
    pub numbers: f64,
    /// Sum of squares of the differences from them.
    pub differences: f64,
}

impl SquaredError {
    /// Of numbers, and of what encoding made of them.
    pub(crate) fn of(before: &[f32], after: &[f32]) -> SquaredError {
        let ((before, x_rest), (after, y_rest)) = (before.as_chunks::<8>(), after.as_chunks::<8>());
        // Eight sums each, which are vector code.
        let (mut numbers, mut differences) = ([0f64; 8], [0f64; 8]);
        for (before, after) in before.iter().zip(after) {
            for i in 0..8 {
                let (x, y) = (f64::from(before[i]), f64::from(after[i]));
                numbers[i] += x * x;
                differences[i] += (x - y) * (x - y);
            }
        }
        for (i, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
            let (x, y) = (f64::from(*x), f64::from(*y));
            numbers[i] += x * x;
            differences[i] += (x - y) * (x - y);
        }
        SquaredError {
            numbers: numbers.iter().sum(),
            differences: differences.iter().sum(),
        }
    }
}

impl AddAssign for SquaredError {
    fn add_assign(&mut self, other: SquaredError) {
        self.numbers += other.numbers;
        self.differences += other.differences;
    }
}
