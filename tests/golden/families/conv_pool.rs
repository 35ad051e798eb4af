//! Convolutions, pools, resampling and padding.

use brain_blitz::hl_ops::{
    Conv, Divisor, Edge, Interpolation, Outside, Padding, PerAxis, Pool, Sampling,
};
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, Out, unsupported};

fn per_axis(arg: &Arg) -> PerAxis {
    let size = |size| usize::try_from(size).unwrap_or_else(|_| unsupported("a negative size"));
    let sizes: Vec<usize> = arg.ints().into_iter().map(size).collect();
    sizes.into()
}

fn sizes(c: &Call<'_>, i: usize, name: &str, default: usize) -> PerAxis {
    c.get(i, name).map_or(default.into(), per_axis)
}

fn bias(c: &Call<'_>) -> Option<GraphTensor> {
    c.tensor(1, "bias")
}

fn weight(c: &Call<'_>) -> GraphTensor {
    let weight = c.tensor(0, "weight");
    weight.unwrap_or_else(|| unsupported("no weight"))
}

fn padding(c: &Call<'_>, i: usize) -> Padding {
    match c.get(i, "padding") {
        None => Padding::Valid,
        Some(Arg::Str(kind)) if kind == "same" => Padding::Same,
        Some(Arg::Str(kind)) if kind == "valid" => Padding::Valid,
        Some(by) => Padding::By(per_axis(by)),
    }
}

fn conv(c: &mut Call<'_>) -> Out {
    let rule = Conv {
        stride: sizes(c, 2, "stride", 1),
        padding: padding(c, 3),
        dilation: sizes(c, 4, "dilation", 1),
        groups: c.int(5, "groups", 1) as usize,
    };
    c.x().conv(weight(c), bias(c), &rule).into()
}

fn conv_transpose(c: &mut Call<'_>) -> Out {
    let rule = Conv {
        stride: sizes(c, 2, "stride", 1),
        padding: padding(c, 3),
        dilation: sizes(c, 6, "dilation", 1),
        groups: c.int(5, "groups", 1) as usize,
    };
    let extra = sizes(c, 4, "output_padding", 0);
    c.x()
        .conv_transpose(weight(c), bias(c), &rule, extra)
        .into()
}

/// A size for each of `d` axes.
fn window(c: &Call<'_>, d: usize) -> PerAxis {
    let arg = c.get(0, "kernel_size");
    let sizes = arg.unwrap_or_else(|| unsupported("no size of windows"));
    match sizes.ints().as_slice() {
        [one] => vec![*one as usize; d].into(),
        _ => per_axis(sizes),
    }
}

/// The stride, which may be null or an empty list.
fn stride(c: &Call<'_>) -> Option<PerAxis> {
    let arg = c.get(1, "stride")?;
    match arg {
        Arg::List(list) if list.is_empty() => None,
        some => Some(per_axis(some)),
    }
}

fn max_pool(c: &Call<'_>, d: usize) -> Out {
    let rule = Pool {
        stride: stride(c),
        padding: sizes(c, 2, "padding", 0),
        dilation: sizes(c, 3, "dilation", 1),
        ceil_mode: c.bool(4, "ceil_mode", false),
        ..Pool::new(window(c, d))
    };
    match c.bool(5, "return_indices", false) {
        true => {
            let (values, index) = c.x().max_pool_with_index(&rule);
            vec![values, index].into()
        }
        false => c.x().max_pool(&rule).into(),
    }
}

fn avg_pool(c: &Call<'_>, d: usize) -> Out {
    let rule = Pool {
        stride: stride(c),
        padding: sizes(c, 2, "padding", 0),
        ceil_mode: c.bool(3, "ceil_mode", false),
        ..Pool::new(window(c, d))
    };
    let divisor = match c.get(5, "divisor_override") {
        Some(number) => Divisor::Given(number.float()),
        None if c.bool(4, "count_include_pad", true) => Divisor::Padded,
        None => Divisor::Inside,
    };
    c.x().avg_pool(&rule, divisor).into()
}

/// Sizes of the last `d` axes; null keeps one.
fn output_size(c: &Call<'_>, d: usize) -> Vec<usize> {
    let dims = c.x().dims();
    let own = |i: usize| dims[dims.len() - d + i].as_usize().expect("static sizes");
    let given = |(i, arg): (usize, &Arg)| match arg {
        Arg::None => own(i),
        size => size.int() as usize,
    };
    match c.get(0, "output_size") {
        Some(Arg::List(list)) if list.len() == 1 => vec![given((0, &list[0])); d],
        Some(Arg::List(list)) => list.iter().enumerate().map(given).collect(),
        Some(one) => vec![one.int() as usize; d],
        None => unsupported("no output size"),
    }
}

fn adaptive_max_pool(c: &Call<'_>, d: usize) -> Out {
    let sizes = output_size(c, d);
    match c.bool(1, "return_indices", false) {
        true => {
            let (values, index) = c.x().adaptive_max_pool_with_index(&sizes);
            vec![values, index].into()
        }
        false => c.x().adaptive_max_pool(&sizes).into(),
    }
}

/// Pairs of (before, after) from the last axis on.
fn pad(c: &Call<'_>, edge: Edge) -> Out {
    let mut x = c.x();
    let pairs = c.args[0].ints();
    c.get(1, "mode");
    for (i, pair) in pairs.chunks_exact(2).enumerate() {
        let axis = x.rank() - 1 - i;
        x = x.pad_edge(axis, pair[0], pair[1], edge);
    }
    x.into()
}

fn columns(c: &mut Call<'_>) -> Out {
    let (dilation, padding) = (sizes(c, 1, "dilation", 1), sizes(c, 2, "padding", 0));
    let (size, step) = (window(c, 2), sizes(c, 3, "stride", 1));
    match c.x().rank() {
        3 => {
            let columns = c.x().unsqueeze(0);
            let columns = columns.window_columns(size, step, padding, dilation);
            columns.squeeze(0).into()
        }
        _ => c.x().window_columns(size, step, padding, dilation).into(),
    }
}

fn interpolate(c: &mut Call<'_>) -> Out {
    let align_corners = c.bool(3, "align_corners", false);
    let how = match c.get(2, "mode").map_or("nearest", Arg::str) {
        "nearest" => Interpolation::Nearest,
        "nearest-exact" => Interpolation::NearestExact,
        "linear" | "bilinear" | "trilinear" => Interpolation::Linear { align_corners },
        "bicubic" => Interpolation::Cubic { align_corners },
        other => unsupported(format!("the mode {other}")),
    };
    let x = c.x();
    let d = x.rank() - 2;
    if let Some(size) = c.ints(0, "size") {
        let sizes: Vec<usize> = size.iter().map(|&size| size as usize).collect();
        let sizes = if sizes.len() == 1 {
            vec![sizes[0]; d]
        } else {
            sizes
        };
        c.get(4, "recompute_scale_factor");
        return x.resize(&sizes, None, how).into();
    }
    let factors = match c.get(1, "scale_factor") {
        Some(Arg::List(list)) => list.iter().map(Arg::float).collect(),
        Some(one) => vec![one.float(); d],
        None => unsupported("neither size nor scale"),
    };
    let size = |(i, factor): (usize, &f64)| {
        let n = x.dims()[2 + i].as_usize().expect("static sizes");
        (n as f64 * factor).floor() as usize
    };
    let sizes: Vec<usize> = factors.iter().enumerate().map(size).collect();
    let keeps = !c.bool(4, "recompute_scale_factor", false);
    x.resize(&sizes, keeps.then_some(&factors[..]), how).into()
}

fn grid_sample(c: &mut Call<'_>) -> Out {
    let how = match c.get(1, "mode").map_or("bilinear", Arg::str) {
        "bilinear" => Sampling::Linear,
        "nearest" => Sampling::Nearest,
        "bicubic" => Sampling::Cubic,
        other => unsupported(format!("the mode {other}")),
    };
    let outside = match c.get(2, "padding_mode").map_or("zeros", Arg::str) {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        other => unsupported(format!("the padding {other}")),
    };
    let align_corners = c.bool(3, "align_corners", false);
    c.x()
        .grid_sample(c.t(0), how, outside, align_corners)
        .into()
}

pub const FAMILY: Family = Family {
    ops: &[
        ("nn.functional.conv1d", conv),
        ("nn.functional.conv2d", conv),
        ("nn.functional.conv3d", conv),
        ("nn.functional.conv_transpose1d", conv_transpose),
        ("nn.functional.conv_transpose2d", conv_transpose),
        ("nn.functional.conv_transpose3d", conv_transpose),
        ("nn.functional.max_pool1d", |c| max_pool(c, 1)),
        ("nn.functional.max_pool2d", |c| max_pool(c, 2)),
        ("nn.functional.max_pool3d", |c| max_pool(c, 3)),
        ("nn.functional.avg_pool1d", |c| avg_pool(c, 1)),
        ("nn.functional.avg_pool2d", |c| avg_pool(c, 2)),
        ("nn.functional.avg_pool3d", |c| avg_pool(c, 3)),
        ("nn.functional.adaptive_avg_pool1d", |c| {
            c.x().adaptive_avg_pool(&output_size(c, 1)).into()
        }),
        ("nn.functional.adaptive_avg_pool2d", |c| {
            c.x().adaptive_avg_pool(&output_size(c, 2)).into()
        }),
        ("nn.functional.adaptive_avg_pool3d", |c| {
            c.x().adaptive_avg_pool(&output_size(c, 3)).into()
        }),
        ("nn.functional.adaptive_max_pool1d", |c| {
            adaptive_max_pool(c, 1)
        }),
        ("nn.functional.adaptive_max_pool2d", |c| {
            adaptive_max_pool(c, 2)
        }),
        ("nn.functional.adaptive_max_pool3d", |c| {
            adaptive_max_pool(c, 3)
        }),
        ("nn.functional.unfold", columns),
        ("nn.functional.interpolate.nearest", interpolate),
        ("nn.functional.interpolate.nearest-exact", interpolate),
        ("nn.functional.interpolate.linear", interpolate),
        ("nn.functional.interpolate.bilinear", interpolate),
        ("nn.functional.interpolate.trilinear", interpolate),
        ("nn.functional.interpolate.bicubic", interpolate),
        ("nn.functional.pad.constant", |c| {
            pad(c, Edge::Constant(c.float(2, "value", 0.0)))
        }),
        ("nn.functional.pad.reflect", |c| pad(c, Edge::Reflect)),
        ("nn.functional.pad.replicate", |c| pad(c, Edge::Replicate)),
        ("nn.functional.pad.circular", |c| pad(c, Edge::Circular)),
        ("nn.functional.pixel_shuffle", |c| {
            let r = c.int(0, "upscale_factor", 1);
            c.x().pixel_shuffle(r as usize).into()
        }),
        ("nn.functional.pixel_unshuffle", |c| {
            let r = c.int(0, "downscale_factor", 1);
            c.x().pixel_unshuffle(r as usize).into()
        }),
        ("nn.functional.grid_sample", grid_sample),
    ],
    excluded: &[],
    n_cases: 181,
    rtol: 1e-4,
};
