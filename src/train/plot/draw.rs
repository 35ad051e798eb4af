//! The picture itself: axes, curves, legend.

use std::fmt::Display;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    BLACK, Cartesian2d, ChartBuilder, ChartContext, Circle, Color, IntoDrawingArea, LineSeries,
    PathElement, RGBColor, Ranged, SVGBackend, SeriesLabelPosition, WHITE,
};

use super::log_axis::LogAxis;
use super::{Curve, Plot, segments, thinned};
use crate::error::{Error, Result};

/// The picture in pixels.
const SIZE: (u32, u32) = (960, 560);
/// Points are thinned to four for each of these.
const COLUMNS: usize = 900;
/// Colours that people with any colour vision tell apart (Okabe and Ito 2008), without yellow, which white swallows.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// How much of a curve's colour is left behind its smoothed form.
const PALE: f64 = 0.25;

pub(super) type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

/// What writing into a string cannot give; told all the same.
pub(super) fn failed(error: impl Display) -> Error {
    Error::msg(format!("the plot could not be drawn: {error}"))
}

pub(super) fn svg(plot: &Plot) -> Result<String> {
    let Some([xs, ys]) = plot.ranges() else {
        let why = match plot.log_y {
            true => "is finite and positive, as a logarithmic scale needs",
            false => "is finite",
        };
        return Err(Error::msg(format!(
            "there is nothing to draw: no value {why}"
        )));
    };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(16)
            .margin_right(32)
            .x_label_area_size(44)
            .y_label_area_size(72);
        if !plot.title.is_empty() {
            builder.caption(&plot.title, ("sans-serif", 22));
        }
        let (x, y) = (xs.0..xs.1, ys.0..ys.1);
        if plot.log_y {
            let chart = builder.build_cartesian_2d(x, LogAxis::new(y.start, y.end));
            fill(chart.map_err(failed)?, plot)?;
        } else {
            let chart = builder.build_cartesian_2d(x, y);
            fill(chart.map_err(failed)?, plot)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(text)
}

/// Axes, their names, and lines across.
pub(super) fn mesh<'b: 'a, 'a, Y>(
    chart: &mut Chart<'a, 'b, Y>,
    x_label: &str,
    y_label: &str,
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .bold_line_style(BLACK.mix(0.15))
        .light_line_style(BLACK.mix(0.05))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()
        .map_err(failed)
}

fn fill<'b: 'a, 'a, Y>(mut chart: Chart<'a, 'b, Y>, plot: &Plot) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    mesh(&mut chart, &plot.x_label, &plot.y_label)?;
    let coloured = || plot.curves.iter().zip(COLOURS.iter().cycle());
    if plot.smooth > 0.0 {
        // All curves as they are lie behind all smoothed ones.
        for (curve, colour) in coloured() {
            line(&mut chart, plot, curve, *colour, PALE)?;
        }
    }
    for (curve, colour) in coloured() {
        line(&mut chart, plot, &curve.smoothed(plot.smooth), *colour, 1.0)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .map_err(failed)
}

/// Draws a curve; the legend names it when it has its full colour.
fn line<Y>(
    chart: &mut Chart<'_, '_, Y>,
    plot: &Plot,
    curve: &Curve,
    colour: RGBColor,
    strength: f64,
) -> Result<()>
where
    Y: Ranged<ValueType = f64>,
{
    let style = colour.mix(strength).stroke_width(2);
    for (at, segment) in segments(plot, &curve.points).into_iter().enumerate() {
        let segment = thinned(segment, COLUMNS);
        if let &[point] = segment.as_slice() {
            // A line needs two.
            let dot = Circle::new(point, 2, colour.mix(strength).filled());
            chart.draw_series([dot]).map_err(failed)?;
        }
        let series = LineSeries::new(segment, style);
        let drawn = chart.draw_series(series).map_err(failed)?;
        if at == 0 && strength == 1.0 {
            drawn
                .label(&curve.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
    }
    Ok(())
}

/// A number as short as it can be read at an axis.
fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}").replace(".00e", "e");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_axes_are_short() {
        let shown = [0.0, 0.5, 10.0, 1500.0, 0.0012, 2e-5, 3.25e7, -4.0].map(number);
        let expected = ["0", "0.5", "10", "1500", "0.0012", "2e-5", "3.25e7", "-4"];
        assert_eq!(shown, expected);
    }
}
