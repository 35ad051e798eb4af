//! Pools: the largest or the mean element of every window over the last axes.
//!
//! Windows are views, so a pool is one reduction of the input, and the values outside the input are chosen by coordinate.

use super::coordinates::constant_like;
use super::operand::fail;
use super::window::{PerAxis, pad_or_cut, windows};
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::op::Op;
use crate::shape::{Dims, Expr, numel};

/// How a pool's windows lie over the last axes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pool {
    /// The size of windows; as many numbers as there are axes.
    pub size: PerAxis,
    /// The distance of windows; their size, if it is not given.
    pub stride: Option<PerAxis>,
    /// How far windows reach beyond the input at both ends of each axis.
    pub padding: PerAxis,
    /// The distance of a window's elements.
    pub dilation: PerAxis,
    /// Whether a last window may reach beyond the padding, if it starts before it.
    pub ceil_mode: bool,
}

impl Pool {
    /// Windows side by side.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Pool;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 3.0, 2.0, 0.0]).dynamic();
    /// let y = x.max_pool(&Pool::new([2])).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, 2.0]);
    /// ```
    pub fn new(size: impl Into<PerAxis>) -> Pool {
        Pool {
            size: size.into(),
            stride: None,
            padding: 0.into(),
            dilation: 1.into(),
            ceil_mode: false,
        }
    }
}

/// What the sum over a window is divided by.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Divisor {
    /// The window's elements, with those in the padding, without those beyond it.
    #[default]
    Padded,
    /// The window's elements inside the input.
    Inside,
    /// This number.
    Given(f64),
}

/// The windows along one axis.
#[derive(Clone, Copy)]
struct Line {
    size: i64,
    stride: i64,
    dilation: i64,
    padding: i64,
    /// The axis' size with padding at the end too.
    padded: Expr,
    /// What is put at the end, so that all windows fit.
    after: i64,
    /// How many windows there are.
    count: Expr,
}

/// The windows along each of the last axes of `x`.
#[track_caller]
fn lines(op: &str, x: GraphTensor, rule: &Pool) -> Vec<Line> {
    let (ty, d) = (x.ty(), rule.size.len());
    if ty.dims.len() < d {
        fail(op, format!("windows over {d} axes of {ty}"));
    }
    let stride = rule.stride.as_ref().unwrap_or(&rule.size);
    let numbers = [&rule.size, stride, &rule.padding, &rule.dilation];
    let [size, stride, padding, dilation] = numbers.map(|x| x.numbers(d));
    let line = |i: usize| {
        let (n, p) = (ty.dims[ty.dims.len() - d + i], padding[i]);
        let reach = dilation[i] * (size[i] - 1) + 1;
        if stride[i] < 1 || 2 * p > reach {
            fail(op, format!("windows {rule:?}"));
        }
        let (mut count, mut after) = ((n + (2 * p - reach)).floor_div(stride[i]) + 1, p);
        if rule.ceil_mode {
            let Some(n) = n.as_const() else {
                fail(op, format!("`ceil_mode` with a symbolic size in {ty}"));
            };
            let mut all = (n + 2 * p - reach + stride[i] - 1).div_euclid(stride[i]) + 1;
            if (all - 1) * stride[i] >= n + p {
                all -= 1;
            }
            count = Expr::from(all);
            after = ((all - 1) * stride[i] + reach - n - p).max(0);
        }
        Line {
            size: size[i],
            stride: stride[i],
            dilation: dilation[i],
            padding: p,
            padded: n + 2 * p,
            after,
            count,
        }
    };
    (0..d).map(line).collect()
}

/// The windows of `x`, with `fill` outside it: `[.., windows.., size..]`.
#[track_caller]
fn slide(x: GraphTensor, lines: &[Line], fill: f64) -> GraphTensor {
    let first = x.rank() - lines.len();
    let mut x = x;
    for (i, line) in lines.iter().enumerate() {
        x = pad_or_cut(x, first + i, (line.padding, line.after), fill);
    }
    let size: Dims = lines.iter().map(|line| Expr::from(line.size)).collect();
    let step: Vec<i64> = lines.iter().map(|line| line.stride).collect();
    let dilation: Vec<i64> = lines.iter().map(|line| line.dilation).collect();
    windows(x, first, &size, &step, &dilation)
}

/// The last `d` axes.
pub(super) fn last(d: usize) -> Vec<i64> {
    (-(d as i64)..0).collect()
}

/// What stands for nothing when the largest is looked for.
pub(super) fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::I32 => f64::from(i32::MIN),
        DType::U8 | DType::Bool => 0.0,
        _ => f64::NEG_INFINITY,
    }
}

/// Row-major places in the last `d` axes of `x`, as `I32`.
#[track_caller]
pub(super) fn places(x: GraphTensor, d: usize) -> GraphTensor {
    let dims = x.dims();
    let plane = &dims[dims.len() - d..];
    let len = numel(plane);
    GraphTensor::leaf(x.graph, Op::Iota { len }).reshape(plane)
}

/// The largest element of each of `windows [.., o.., k..]`, and which of `places [o.., k..]` it has.
#[track_caller]
pub(super) fn largest_with_place(
    windows: GraphTensor,
    places: GraphTensor,
    d: usize,
) -> (GraphTensor, GraphTensor) {
    let values = windows.max(last(d));
    let at = windows.argmax(last(d)).unsqueeze(-1);
    let places = places.flatten(-(d as i64), -1);
    let mut dims = values.dims();
    dims.push(places.dims()[places.rank() - 1]);
    let index = places.expand(dims).gather(-1, at).squeeze(-1);
    (values, index)
}

/// How many elements of each window count, `[windows]`: those in the input, or those in the padding too.
#[track_caller]
fn counts(x: GraphTensor, line: &Line, is_padded: bool) -> GraphTensor {
    let (size, around) = match is_padded {
        true => (line.padded, (0, (line.after - line.padding).max(0))),
        false => (line.padded - 2 * line.padding, (line.padding, line.after)),
    };
    let ones = constant_like(x, 1.0).expand([size]);
    let ones = pad_or_cut(ones, 0, around, 0.0);
    let seen = ones.unfold_dilated(0, line.size, line.stride, line.dilation);
    seen.sum(-1).slice_axis(0, 0, line.count)
}

impl GraphTensor {
    /// The largest element of every window over the last axes (NaN if there is one).
    ///
    /// # Panics
    /// If there are not as many axes, the padding is more than half a window, or no window fits.
    #[track_caller]
    pub fn max_pool(self, rule: &Pool) -> GraphTensor {
        let lines = lines("max_pool", self, rule);
        slide(self, &lines, lowest(self.dtype())).max(last(lines.len()))
    }

    /// [`GraphTensor::max_pool`], and where each largest element is in the last axes, as a row-major index `I32`: the first of
    /// equal ones.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Pool;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 3.0], [2.0, 0.0]]).dynamic();
    /// let (_, index) = x.max_pool_with_index(&Pool::new([2, 2]));
    /// let index = index.retrieve();
    /// cx.execute();
    /// assert_eq!(index.array().to_i32(), [1]);
    /// ```
    ///
    /// # Panics
    /// As [`GraphTensor::max_pool`].
    #[track_caller]
    pub fn max_pool_with_index(self, rule: &Pool) -> (GraphTensor, GraphTensor) {
        let lines = lines("max_pool", self, rule);
        let seen = slide(self, &lines, lowest(self.dtype()));
        let places = slide(places(self, lines.len()), &lines, 0.0);
        largest_with_place(seen, places, lines.len())
    }

    /// The mean of every window over the last axes.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{Divisor, Pool};
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 3.0, 2.0, 0.0]).dynamic();
    /// let rule = Pool { padding: 1.into(), ..Pool::new([2]) };
    /// let padded = x.avg_pool(&rule, Divisor::Padded).retrieve();
    /// let inside = x.avg_pool(&rule, Divisor::Inside).retrieve();
    /// cx.execute();
    /// assert_eq!(padded.data(), [0.5, 2.5, 0.0]);
    /// assert_eq!(inside.data(), [1.0, 2.5, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not as many axes, the padding is more than half a window, no window fits, or the format is not a
    /// floating-point one.
    #[track_caller]
    pub fn avg_pool(self, rule: &Pool, divisor: Divisor) -> GraphTensor {
        let x = self.wide("avg_pool");
        let lines = lines("avg_pool", x, rule);
        let d = lines.len();
        let sum = slide(x, &lines, 0.0).sum(last(d));
        let is_padded = divisor == Divisor::Padded;
        let whole: i64 = lines.iter().map(|line| line.size).product();
        let beyond = lines.iter().any(|line| line.padding > 0) && !is_padded;
        let out = match divisor {
            Divisor::Given(number) => sum * (1.0 / number),
            _ if !rule.ceil_mode && !beyond => sum * (1.0 / whole as f64),
            _ => {
                let mut out = sum;
                for (i, line) in lines.iter().enumerate() {
                    let mut dims: Dims = (0..d).map(|_| Expr::from(1)).collect();
                    dims[i] = line.count;
                    out *= counts(x, line, is_padded).reshape(dims).recip();
                }
                out
            }
        };
        out.narrowed(self)
    }
}
