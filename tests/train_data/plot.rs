//! Pictures of curves: what is drawn, where, and what is not.

use brain_blitz::train::metrics::Record;
use brain_blitz::train::plot::{Curve, Plot, XAxis};

fn curve(label: &str, ys: &[f64]) -> Curve {
    Curve {
        label: label.to_owned(),
        points: ys.iter().enumerate().map(|(x, &y)| (x as f64, y)).collect(),
    }
}

fn plot(curves: Vec<Curve>) -> Plot {
    Plot {
        title: "runs <1> & 2".to_owned(),
        x_label: "step".to_owned(),
        y_label: "loss".to_owned(),
        log_y: false,
        smooth: 0.0,
        curves,
    }
}

/// The points of all curves of the picture: lines of more than two points (axes and grids have two, ticks too).
fn lines(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let points = |line: &str| -> Vec<(f64, f64)> {
        let list = line
            .split("points=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let point = |pair: &str| {
            let (x, y) = pair.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        list.split_whitespace().map(point).collect()
    };
    let lines = svg.split("<polyline").skip(1).map(points);
    lines.filter(|line| line.len() > 2).collect()
}

#[test]
fn every_curve_is_a_line_and_every_label_a_text() {
    let mut plot = plot(vec![
        curve("first", &[4.0, 3.0, 2.0]),
        curve("second", &[1.0, 5.0, 2.0, 2.0]),
    ]);
    let svg = plot.to_svg().unwrap();
    let drawn = lines(&svg);
    assert_eq!(drawn.iter().map(Vec::len).collect::<Vec<_>>(), [3, 4]);
    for text in ["first", "second", "step", "loss", "runs &lt;1&gt; &amp; 2"] {
        assert!(svg.contains(text), "no {text:?}");
    }
    // Higher values are further up, which is a smaller y.
    let first = &drawn[0];
    assert!(
        first.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
        "{first:?}"
    );
    // Smoothed, each is drawn twice, and named once.
    plot.smooth = 0.5;
    let svg = plot.to_svg().unwrap();
    assert_eq!(lines(&svg).len(), 4);
    let texts = svg.split("<text").filter(|text| text.contains("first"));
    assert_eq!(texts.count(), 1);
}

#[test]
fn equal_factors_are_equal_distances_on_a_logarithmic_scale() {
    let mut plot = plot(vec![curve("a", &[1000.0, 100.0, 10.0, 1.0])]);
    let steps = |plot: &Plot| -> Vec<f64> {
        let line = lines(&plot.to_svg().unwrap()).remove(0);
        line.windows(2).map(|pair| pair[1].1 - pair[0].1).collect()
    };
    let linear = steps(&plot);
    assert!(linear[0] > 5.0 * linear[1], "{linear:?}");
    plot.log_y = true;
    let log = steps(&plot);
    // Pixels are whole numbers.
    assert!(
        log.iter()
            .all(|step| (step - log[0]).abs() <= 1.0 && *step > 50.0),
        "{log:?}"
    );
}

#[test]
fn a_logarithmic_scale_within_a_decade_has_labels() {
    let mut plot = plot(vec![curve("a", &[1.82, 1.7, 1.61, 1.48])]);
    plot.log_y = true;
    let svg = plot.to_svg().unwrap();
    for label in ["1.5", "1.6", "1.7", "1.8"] {
        let shown = svg.lines().any(|line| line.trim() == label);
        assert!(shown, "no {label}");
    }
}

#[test]
fn what_has_no_place_interrupts_the_curve() {
    let ys = [3.0, 2.0, 4.0, f64::NAN, 2.0, 1.0, 3.0, f64::INFINITY, 5.0];
    let svg = plot(vec![curve("a", &ys)]).to_svg().unwrap();
    assert_eq!(lines(&svg).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(svg.matches("<circle").count(), 1, "a lone point is a dot");
    let mut nothing = plot(vec![curve("a", &[-1.0, 0.0])]);
    assert!(nothing.to_svg().is_ok());
    nothing.log_y = true;
    let error = nothing.to_svg().unwrap_err().to_string();
    assert!(
        error.contains("nothing to draw") && error.contains("positive"),
        "{error}"
    );
    assert!(plot(vec![]).to_svg().is_err());
}

#[test]
fn constant_curves_and_single_points_are_drawn() {
    for ys in [&[2.0, 2.0, 2.0][..], &[0.0], &[-3.0]] {
        let svg = plot(vec![curve("a", ys)]).to_svg().unwrap();
        assert!(!lines(&svg).is_empty() || svg.contains("<circle"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{ys:?}");
    }
}

#[test]
fn long_runs_give_small_files_that_keep_the_extremes() {
    let mut ys = vec![1.0; 1_000_000];
    ys[654_321] = 9.0;
    let svg = plot(vec![curve("a", &ys)]).to_svg().unwrap();
    assert!(svg.len() < 100_000, "{} bytes", svg.len());
    let drawn = &lines(&svg)[0];
    let top = drawn
        .iter()
        .map(|point| point.1)
        .fold(f64::INFINITY, f64::min);
    let bottom = drawn.iter().map(|point| point.1).fold(0.0, f64::max);
    assert!(bottom - top > 300.0, "{top} {bottom}");
}

#[test]
fn smoothing_is_a_mean_that_forgets() {
    let smooth = |ys: &[f64], weight| -> Vec<f64> {
        let points = curve("", ys).smoothed(weight).points;
        points.into_iter().map(|point| point.1).collect()
    };
    assert_eq!(smooth(&[3.0, 1.0, 2.0], 0.0), [3.0, 1.0, 2.0]);
    assert!(
        smooth(&[5.0; 50], 0.9)
            .iter()
            .all(|y| (y - 5.0).abs() < 1e-12)
    );
    let found = smooth(&[1.0, f64::NAN, f64::INFINITY, 4.0], 0.5);
    assert!(found[1].is_nan() && found[2].is_infinite());
    assert_eq!((found[0], found[3]), (1.0, 3.0));
}

#[test]
fn curves_are_made_of_the_records_that_have_the_metric() {
    let record = |step, values: &[(&str, f64)]| Record {
        step,
        epoch: step as f64 / 10.0,
        time: step as f64 * 2.0,
        values: values
            .iter()
            .map(|&(name, value)| (name.to_owned(), value))
            .collect(),
    };
    let records = [
        record(1, &[("loss", 3.0)]),
        record(2, &[("loss", 2.0), ("val", 5.0)]),
        record(3, &[("lr", 0.1)]),
    ];
    let points = |value, x| Curve::of(&records, value, x, "c").unwrap().points;
    assert_eq!(points("loss", XAxis::Step), [(1.0, 3.0), (2.0, 2.0)]);
    assert_eq!(points("loss", XAxis::Epoch), [(0.1, 3.0), (0.2, 2.0)]);
    assert_eq!(points("val", XAxis::Time), [(4.0, 5.0)]);
    let error = Curve::of(&records, "los", XAxis::Step, "c")
        .unwrap_err()
        .to_string();
    assert_eq!(error, "no record has \"los\"; there is loss, lr, val");
    let error = Curve::of(&[], "loss", XAxis::Step, "c")
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("there is no metric at all"), "{error}");
}

#[test]
fn values_that_leave_no_room_are_not_drawn() {
    for log_y in [false, true] {
        let mut plot = plot(vec![curve("a", &[1.0, 1e308, -1e308, 5e-324, 2.0])]);
        plot.log_y = log_y;
        plot.to_svg().unwrap();
        plot.curves = vec![curve("a", &[1e308, f64::NAN])];
        assert!(plot.to_svg().is_err());
    }
}
