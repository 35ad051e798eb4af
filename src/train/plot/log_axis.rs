//! A logarithmic axis with lines and labels on every range, also one within a decade.
//!
//! Labels stand at powers of ten. Where fewer than two of those are in the range they stand at 1, 2 and 5 times powers
//! of ten, and where that does not help either, at equal distances of the value. plotters has a logarithmic axis too;
//! it has no label within a decade, and no lines below the first power of ten.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

/// The axis; both ends are positive and the second is larger.
pub(super) struct LogAxis {
    low: f64,
    high: f64,
}

impl LogAxis {
    pub(super) fn new(low: f64, high: f64) -> LogAxis {
        LogAxis { low, high }
    }

    /// The numbers `m * 10^n` in the range, for each of the `multiples`, and every `stride`-th power of ten.
    fn multiples(&self, multiples: &[u32], stride: usize) -> Vec<f64> {
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let powers = (first..=last).step_by(stride).map(|n| 10f64.powi(n));
        let all = powers.flat_map(|power| multiples.iter().map(move |&m| f64::from(m) * power));
        all.filter(|value| (self.low..=self.high).contains(value))
            .collect()
    }
}

impl Ranged for LogAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value / self.low).ln() / (self.high / self.low).ln();
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let most = hint.max_num_points().max(1);
        let lines = hint.weight().allow_light_points();
        let powers = self.multiples(&[1], 1);
        let some = self.multiples(&[1, 2, 5], 1);
        let every = self.multiples(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 1);
        match (lines, powers.len() >= 2, some.len() >= 2) {
            (true, _, true) if every.len() <= most => every,
            (_, true, _) => self.multiples(&[1], powers.len().div_ceil(most)),
            (_, false, true) => some,
            (_, false, false) => RangedCoordf64::from(self.low..self.high).key_points(hint),
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::coord::ranged1d::{BoldPoints, LightPoints};

    fn labels(low: f64, high: f64) -> Vec<f64> {
        LogAxis::new(low, high).key_points(BoldPoints(10))
    }

    #[test]
    fn every_range_has_labels_inside_it() {
        assert_eq!(labels(0.02, 30.0), [0.1, 1.0, 10.0]);
        assert_eq!(labels(1.5, 8.0), [2.0, 5.0]);
        assert_eq!(labels(0.9, 8.0), [1.0, 2.0, 5.0]);
        for (low, high) in [(1.48, 1.82), (3.0, 3.001), (1e-9, 1.2e-9), (5e7, 5.1e7)] {
            let found = labels(low, high);
            assert!((2..=11).contains(&found.len()), "{low} {high}: {found:?}");
            assert!(found.iter().all(|x| (low..=high).contains(x)), "{found:?}");
        }
        let many = labels(1e-40, 1e40);
        assert!((5..=10).contains(&many.len()), "{many:?}");
    }

    #[test]
    fn light_lines_are_the_multiples_when_there_is_room() {
        let axis = LogAxis::new(0.5, 20.0);
        let found = axis.key_points(LightPoints::new(10, 100));
        assert_eq!(found.len(), 5 + 9 + 2);
        assert_eq!(axis.key_points(LightPoints::new(10, 10)), [1.0, 10.0]);
    }

    #[test]
    fn equal_factors_are_equal_distances() {
        let axis = LogAxis::new(0.01, 100.0);
        let at = [0.01, 0.1, 1.0, 10.0, 100.0].map(|x| axis.map(&x, (400, 0)));
        assert_eq!(at, [400, 300, 200, 100, 0]);
    }
}
