//! What was measured of several models as a picture: what bits cost in quality, and what they bring in speed.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    ChartBuilder, Circle, Color, DrawingArea, IntoDrawingArea, RGBColor, Ranged, SVGBackend, Text,
    WHITE,
};

use super::draw::{failed, mesh};
use super::log_axis::LogAxis;
use crate::error::{Error, Result};
use crate::generation::evaluate::Figures;

/// The picture in pixels.
const SIZE: (u32, u32) = (1200, 560);
const QUALITY: RGBColor = RGBColor(0, 114, 178);
const SPEED: RGBColor = RGBColor(213, 94, 0);
/// What is nearer to the reference is drawn here: a logarithmic scale has no 0.
const LEAST_KL: f64 = 1e-6;

type Area<'a, 'b> = DrawingArea<SVGBackend<'b>, Shift>;

/// A model in a panel.
struct Point<'a> {
    at: (f64, f64),
    name: &'a str,
}

/// The divergence from the first model by the size of weights, and tokens a second by the bits of a weight, as SVG.
///
/// # Errors
/// If no model was compared with the first.
pub fn comparison(models: &[Figures]) -> Result<String> {
    let quality = points(models, |model| {
        let kl = model.against.as_ref()?.kl_mean;
        Some((model.weight_bytes as f64 / 1e6, kl.max(LEAST_KL)))
    });
    let speed = points(models, |model| {
        let rate = model.write_tok_s.or(model.read_tok_s)?;
        Some((model.bits_per_weight, rate))
    });
    if quality.is_empty() {
        return Err(Error::msg(
            "there is nothing to draw: no model was compared with another",
        ));
    }
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let (left, right) = area.split_horizontally(SIZE.0 as i32 / 2);
        let ys = range(quality.iter().map(|point| point.at.1));
        let axis = LogAxis::new(ys.0 / 1.5, ys.1 * 1.5);
        let labels = ["weights in MB", "mean KL divergence in nats"];
        panel(&left, &quality, axis, labels, QUALITY)?;
        if !speed.is_empty() {
            let (_, most) = range(speed.iter().map(|point| point.at.1));
            let axis = RangedCoordf64::from(0.0..most * 1.1);
            let labels = ["bits of a weight", "tokens a second"];
            panel(&right, &speed, axis, labels, SPEED)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(text)
}

fn points(models: &[Figures], at: impl Fn(&Figures) -> Option<(f64, f64)>) -> Vec<Point<'_>> {
    let point = |model| {
        let at = at(model)?;
        let name = Figures::name(model, &models[0]);
        (at.0.is_finite() && at.1.is_finite()).then_some(Point { at, name })
    };
    models.iter().filter_map(point).collect()
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    })
}

/// One panel, with a dot and a name for each model.
fn panel<Y>(
    area: &Area<'_, '_>,
    points: &[Point<'_>],
    y: Y,
    [x_label, y_label]: [&str; 2],
    colour: RGBColor,
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let (_, most) = range(points.iter().map(|point| point.at.0));
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        // Names stand to the right of dots.
        .build_cartesian_2d(0.0..most * 1.25, y)
        .map_err(failed)?;
    mesh(&mut chart, x_label, y_label)?;
    let dots = points
        .iter()
        .map(|point| Circle::new(point.at, 4, colour.filled()));
    chart.draw_series(dots).map_err(failed)?;
    let shift = most * 0.015;
    let names = points.iter().map(|point| {
        let at = (point.at.0 + shift, point.at.1);
        Text::new(point.name.to_owned(), at, ("sans-serif", 12))
    });
    chart.draw_series(names).map_err(failed)?;
    Ok(())
}
