//! Curves of metrics over steps, epochs or time, drawn as SVG; and models beside each other, by their bits
//! ([`comparison()`]).
//!
//! ```text
//! records  ->  Curve (points of one metric)  ->  smoothed, thinned, split where it cannot be drawn  ->  SVG
//! ```
//!
//! A curve is drawn from all of its points, however many there are: where many share a column of the picture, the
//! first, the last, the lowest and the highest stay. Points that have no place (NaN, or not positive on a logarithmic
//! scale) interrupt the curve. The picture needs no font of this machine: text stays text.

use crate::error::{Error, Result};
use crate::train::metrics::Record;

mod comparison;
mod draw;
mod log_axis;

pub use comparison::comparison;

/// What goes to the right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XAxis {
    /// Steps.
    #[default]
    Step,
    /// Epochs.
    Epoch,
    /// Seconds.
    Time,
}

impl XAxis {
    /// Its name, as at the axis.
    pub fn label(self) -> &'static str {
        match self {
            XAxis::Step => "step",
            XAxis::Epoch => "epoch",
            XAxis::Time => "seconds",
        }
    }

    fn of(self, record: &Record) -> f64 {
        match self {
            XAxis::Step => record.step as f64,
            XAxis::Epoch => record.epoch,
            XAxis::Time => record.time,
        }
    }
}

/// The points of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub label: String,
    /// Points in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// The metric `value` of those records that have it.
    ///
    /// # Errors
    /// If none has; the message has the metrics that there are.
    pub fn of(records: &[Record], value: &str, x: XAxis, label: &str) -> Result<Curve> {
        let point = |record: &Record| Some((x.of(record), *record.values.get(value)?));
        let points: Vec<(f64, f64)> = records.iter().filter_map(point).collect();
        if points.is_empty() {
            let names = records.iter().flat_map(|record| record.values.keys());
            let mut names: Vec<&str> = names.map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            let there = match names.is_empty() {
                true => "no metric at all".to_owned(),
                false => names.join(", "),
            };
            return Err(Error::msg(format!(
                "no record has {value:?}; there is {there}"
            )));
        }
        Ok(Curve {
            label: label.to_owned(),
            points,
        })
    }

    /// The exponential moving average: each point is `weight` parts of what was before and `1 - weight` parts of
    /// itself, corrected for the start as in Adam (Kingma and Ba 2015, section 3). What is not finite stays as it is and
    /// counts for nothing.
    ///
    /// ```
    /// use brain_blitz::train::plot::Curve;
    /// let points = vec![(0.0, 1.0), (1.0, 4.0)];
    /// let curve = Curve { label: String::new(), points }.smoothed(0.5);
    /// assert_eq!(curve.points, [(0.0, 1.0), (1.0, 3.0)]); // (0.5 * 1 + 1 * 4) / 1.5
    /// ```
    ///
    /// # Panics
    /// If `weight` is not in 0 to below 1.
    #[track_caller]
    pub fn smoothed(&self, weight: f64) -> Curve {
        assert!(
            (0.0..1.0).contains(&weight),
            "a smoothing weight of {weight} is not in 0 to below 1"
        );
        let (mut sum, mut parts) = (0.0, 0.0);
        let mut smooth = |&(x, y): &(f64, f64)| {
            if !y.is_finite() {
                return (x, y);
            }
            sum = weight * sum + (1.0 - weight) * y;
            parts = weight * parts + (1.0 - weight);
            (x, sum / parts)
        };
        Curve {
            label: self.label.clone(),
            points: self.points.iter().map(&mut smooth).collect(),
        }
    }
}

/// A picture of curves.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What stands above; nothing when empty.
    pub title: String,
    /// What stands below.
    pub x_label: String,
    /// What stands to the left.
    pub y_label: String,
    /// Whether the vertical scale is logarithmic.
    pub log_y: bool,
    /// The weight of [`Curve::smoothed`]; the curves as they are stay visible behind. 0 draws only them.
    pub smooth: f64,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Plot {
    /// The picture.
    ///
    /// # Errors
    /// If no point of any curve can be drawn.
    ///
    /// # Panics
    /// If `smooth` is not in 0 to below 1.
    pub fn to_svg(&self) -> Result<String> {
        draw::svg(self)
    }

    /// Whether a point has a place.
    fn is_drawable(&self, &(x, y): &(f64, f64)) -> bool {
        // Axes want room around the largest number, and a logarithmic one around the smallest. NaN is not less.
        let has_room = |v: f64| v.abs() < 1e200;
        has_room(x) && has_room(y) && (!self.log_y || y > 1e-200)
    }

    /// The ranges of the axes, with room around what is drawn; `None` when nothing is.
    fn ranges(&self) -> Option<[(f64, f64); 2]> {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let mut bounds: Option<[(f64, f64); 2]> = None;
        for &(x, y) in points.filter(|point| self.is_drawable(point)) {
            let [xs, ys] = bounds.unwrap_or([(x, x), (y, y)]);
            bounds = Some([(xs.0.min(x), xs.1.max(x)), (ys.0.min(y), ys.1.max(y))]);
        }
        let [xs, ys] = bounds?;
        let (low, high) = if self.log_y {
            let (low, high) = widened((ys.0.log10(), ys.1.log10()), 0.05, 0.5);
            (10f64.powf(low), 10f64.powf(high))
        } else {
            widened(ys, 0.05, 1.0)
        };
        Some([widened(xs, 0.0, 1.0), (low, high)])
    }
}

/// A range made wider by a part of itself at both ends; an empty one by `least`.
fn widened((low, high): (f64, f64), part: f64, least: f64) -> (f64, f64) {
    match high > low {
        true => (low - part * (high - low), high + part * (high - low)),
        false => (low - least, high + least),
    }
}

/// The parts of a curve without points that have no place.
fn segments(plot: &Plot, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    let parts = points.split(|point| !plot.is_drawable(point));
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(<[_]>::to_vec).collect()
}

/// At most four points for each of `columns` equal parts of the points: the first, the lowest, the highest, the last,
/// in their order.
fn thinned(points: Vec<(f64, f64)>, columns: usize) -> Vec<(f64, f64)> {
    if points.len() <= 4 * columns {
        return points;
    }
    let mut kept = Vec::with_capacity(4 * columns);
    for column in points.chunks(points.len().div_ceil(columns)) {
        let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
        let lowest = (0..column.len()).min_by(by_height);
        let highest = (0..column.len()).max_by(by_height);
        let mut at = [
            0,
            lowest.expect("a chunk has a point"),
            highest.expect("a chunk has a point"),
            column.len() - 1,
        ];
        at.sort_unstable();
        for (i, &index) in at.iter().enumerate() {
            if i == 0 || at[i - 1] != index {
                kept.push(column[index]);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        points[5_003].1 = 9.0;
        points[5_004].1 = -9.0;
        let kept = thinned(points.clone(), 100);
        assert!(kept.len() <= 400 && kept.len() >= 200, "{}", kept.len());
        assert!(kept.contains(&(5_003.0, 9.0)) && kept.contains(&(5_004.0, -9.0)));
        assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[9_999]));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thinned(points[..400].to_vec(), 100), points[..400]);
    }

    #[test]
    fn ranges_leave_out_what_has_no_place() {
        let points = vec![(0.0, f64::NAN), (1.0, 10.0), (2.0, -4.0), (3.0, 1000.0)];
        let curves = vec![Curve {
            label: String::new(),
            points,
        }];
        let mut plot = Plot {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            log_y: false,
            smooth: 0.0,
            curves,
        };
        let [xs, ys] = plot.ranges().unwrap();
        assert_eq!(xs, (1.0, 3.0));
        assert!(
            (ys.0 - -54.2).abs() < 1e-9 && (ys.1 - 1050.2).abs() < 1e-9,
            "{ys:?}"
        );
        assert_eq!(segments(&plot, &plot.curves[0].points).len(), 1);
        plot.log_y = true;
        let (low, high) = plot.ranges().unwrap()[1];
        assert!((low.log10() - 0.9).abs() < 1e-9 && (high.log10() - 3.1).abs() < 1e-9);
        assert_eq!(segments(&plot, &plot.curves[0].points).len(), 2);
        plot.curves[0].points = vec![(0.0, -1.0), (1.0, 0.0)];
        assert!(plot.ranges().is_none());
    }
}
