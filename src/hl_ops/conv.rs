//! Convolutions over any number of axes, as sums of products of views.
//!
//! The input's windows `[n, g, 1, o.., c, k..]` and the weight `[1, g, out, 1.., c, k..]` are expanded to each other,
//! multiplied once and summed over `c, k..`: one `Mul`, one `SumReduce`, in which compilers find a matrix product with
//! `out` rows and `n * o..` columns, for each group. The windows are a view; zeros around the input and between its
//! elements are too.
//!
//! A transposed convolution is the convolution of the input, spread out by the stride, with the reversed weight. It
//! multiplies the zeros between the elements too.

use super::matmul::contract;
use super::movement::expand_view;
use super::operand::fail;
use super::window::{PerAxis, pad_or_cut, windows};
use crate::graph::GraphTensor;
use crate::op::TensorType;
use crate::shape::{Dims, Expr, same_size};

/// How many zeros are put around the input.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Padding {
    /// None: only windows that lie inside.
    Valid,
    /// As many as a stride of 1 needs to keep the size; an odd one at the end.
    Same,
    /// So many at both ends of each axis.
    By(PerAxis),
}

/// How a convolution's windows lie.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Conv {
    /// The distance of windows.
    pub stride: PerAxis,
    /// What is around the input.
    pub padding: Padding,
    /// The distance of a window's elements.
    pub dilation: PerAxis,
    /// In how many parts the channels are, each with weights of its own.
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Conv {
        Conv {
            stride: 1.into(),
            padding: Padding::Valid,
            dilation: 1.into(),
            groups: 1,
        }
    }
}

impl Conv {
    /// Zeros before and after each axis.
    #[track_caller]
    pub(crate) fn around(&self, kernel: &[i64], dilation: &[i64]) -> Vec<(i64, i64)> {
        let reach = kernel.iter().zip(dilation).map(|(&k, &d)| (k - 1) * d);
        match &self.padding {
            Padding::Valid => vec![(0, 0); kernel.len()],
            Padding::Same => reach.map(|all| (all / 2, all - all / 2)).collect(),
            Padding::By(by) => {
                let by = by.numbers(kernel.len());
                by.into_iter().map(|by| (by, by)).collect()
            }
        }
    }
}

/// Input and weight in a format to compute in, the input with a batch axis; and whether it had none.
#[track_caller]
fn prepared(op: &str, x: GraphTensor, weight: GraphTensor) -> (GraphTensor, GraphTensor, bool) {
    let (ty, w) = (x.ty(), weight.ty());
    let is_single = ty.dims.len() + 1 == w.dims.len();
    if w.dims.len() < 3 || !(is_single || ty.dims.len() == w.dims.len()) {
        fail(op, format!("{ty} with weight {w}: ranks do not fit"));
    }
    let x = x.wide(op);
    let weight = weight.cast(x.dtype());
    match is_single {
        true => (x.unsqueeze(0), weight, true),
        false => (x, weight, false),
    }
}

/// The sizes of the weight's windows.
#[track_caller]
fn kernel_sizes(op: &str, weight: &TensorType) -> Vec<i64> {
    let size = |dim: &Expr| match dim.as_const() {
        Some(size) => size,
        None => fail(op, format!("the size of weight {weight} is symbolic")),
    };
    weight.dims[2..].iter().map(size).collect()
}

/// The sum over `c, k..` of the windows `[n, g*c, o.., k..]` times the weight `[g, out, c, k..]`: `[n, g*out, o..]`.
#[track_caller]
fn multiply(op: &str, seen: GraphTensor, weight: GraphTensor) -> GraphTensor {
    let w = weight.dims();
    let (groups, d) = (w[0], w.len() - 3);
    let seen = seen.look(op, |view| view.split(1, groups, w[2])); // [n, g, c, o.., k..]
    let axes = seen.rank();
    let order = [0, 1].into_iter().chain(3..3 + d).chain([2]);
    let seen = seen.permute(order.chain(3 + d..axes).collect::<Vec<usize>>());
    let dims = seen.dims(); // [n, g, o.., c, k..]
    let mut whole: Dims = dims.clone();
    whole.insert(2, w[1]); // [n, g, out, o.., c, k..]
    let seen = seen.look(op, |view| expand_view(&view.insert(2, 1i64)?, &whole));
    let weight = weight.look(op, |view| {
        let mut view = view.clone();
        for _ in 0..d {
            view = view.insert(2, 1i64)?;
        }
        expand_view(&view, &whole)
    });
    let out = contract(weight, seen, d + 1); // [n, g, out, o..]
    out.look(op, |view| view.merge(1, 2))
}

/// With a bias for each channel, without the batch axis where there was none, in the format of `x`.
#[track_caller]
fn finished(
    out: GraphTensor,
    bias: Option<GraphTensor>,
    is_single: bool,
    x: GraphTensor,
) -> GraphTensor {
    let mut out = out;
    if let Some(bias) = bias {
        let mut dims: Dims = out.dims().iter().map(|_| Expr::from(1)).collect();
        dims[1] = out.dims()[1];
        out += bias.cast(out.dtype()).reshape(dims);
    }
    let out = if is_single { out.squeeze(0) } else { out };
    out.narrowed(x)
}

impl GraphTensor {
    /// The convolution (cross-correlation, as is usual) of `[n, c, s..]` or `[c, s..]` with a weight
    /// `[out, c / groups, k..]`, plus a bias `[out]`. The weight's rank says over how many axes windows slide.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{Conv, Padding};
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<1, 4>>().set([[1.0, 2.0, 3.0, 4.0]]).dynamic();
    /// let weight = cx.tensor::<R3<1, 1, 2>>().set([[[10.0, 1.0]]]).dynamic();
    /// let y = x.conv(weight, None, &Conv::default()).retrieve();
    /// let rule = Conv { padding: Padding::By(1.into()), stride: 2.into(), ..Conv::default() };
    /// let z = x.conv(weight, None, &rule).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [12.0, 23.0, 34.0]);
    /// assert_eq!(z.data(), [1.0, 23.0, 40.0]);
    /// ```
    ///
    /// # Panics
    /// If ranks or channels do not fit, the groups do not share the channels evenly, or no window fits.
    #[track_caller]
    pub fn conv(self, weight: GraphTensor, bias: Option<GraphTensor>, rule: &Conv) -> GraphTensor {
        let op = "conv";
        let (x, weight, is_single) = prepared(op, self, weight);
        let (ty, w) = (x.ty(), weight.ty());
        let groups = rule.groups as i64;
        let parts_fit = groups > 0 && w.dims[0].rem(groups).is_zero();
        if !parts_fit || !same_size(ty.dims[1], w.dims[1] * groups) {
            fail(op, format!("{ty} with weight {w} in {groups} groups"));
        }
        let kernel = kernel_sizes(op, &w);
        let d = kernel.len();
        let [stride, dilation] = [&rule.stride, &rule.dilation].map(|x| x.numbers(d));
        let mut padded = x;
        for (i, around) in rule.around(&kernel, &dilation).into_iter().enumerate() {
            padded = pad_or_cut(padded, 2 + i, around, 0.0);
        }
        let seen = windows(padded, 2, &w.dims[2..], &stride, &dilation);
        let weight = weight.look(op, |view| {
            view.split(0, groups, w.dims[0].floor_div(groups))
        });
        finished(multiply(op, seen, weight), bias, is_single, self)
    }

    /// The transposed convolution of `[n, c, s..]` or `[c, s..]` with a weight `[c, out / groups, k..]`, plus a bias
    /// `[out]`: the gradient of [`GraphTensor::conv`] for its input. An axis becomes
    /// `(s - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1` long.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Conv;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<1, 2>>().set([[1.0, 2.0]]).dynamic();
    /// let weight = cx.tensor::<R3<1, 1, 2>>().set([[[10.0, 1.0]]]).dynamic();
    /// let rule = Conv { stride: 2.into(), ..Conv::default() };
    /// let y = x.conv_transpose(weight, None, &rule, 0.into()).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [10.0, 1.0, 20.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If ranks or channels do not fit, the groups do not share the channels evenly, or the padding is
    /// [`Padding::Same`].
    #[track_caller]
    pub fn conv_transpose(
        self,
        weight: GraphTensor,
        bias: Option<GraphTensor>,
        rule: &Conv,
        output_padding: PerAxis,
    ) -> GraphTensor {
        let op = "conv_transpose";
        let (x, weight, is_single) = prepared(op, self, weight);
        let (ty, w) = (x.ty(), weight.ty());
        let groups = rule.groups as i64;
        let parts_fit = groups > 0 && w.dims[0].rem(groups).is_zero();
        if !parts_fit || !same_size(ty.dims[1], w.dims[0]) || rule.padding == Padding::Same {
            fail(op, format!("{ty} with weight {w} in {groups} groups"));
        }
        let kernel = kernel_sizes(op, &w);
        let d = kernel.len();
        let [stride, dilation] = [&rule.stride, &rule.dilation].map(|x| x.numbers(d));
        let extra = output_padding.numbers(d);
        let mut spread = x;
        for (i, (cut, _)) in rule.around(&kernel, &dilation).into_iter().enumerate() {
            let reach = dilation[i] * (kernel[i] - 1);
            let after = reach - cut + extra[i] - (stride[i] - 1);
            spread = with_gaps(op, spread, 2 + i, stride[i]);
            spread = pad_or_cut(spread, 2 + i, (reach - cut, after), 0.0);
        }
        let seen = windows(spread, 2, &w.dims[2..], &vec![1; d], &dilation);
        let reversed = weight.flip((2..2 + d).collect::<Vec<usize>>());
        let weight = reversed.look(op, |view| {
            let view = view.split(0, groups, w.dims[0].floor_div(groups))?; // [g, c, out, k..]
            let order: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + d).collect();
            view.permute(&order)
        });
        finished(multiply(op, seen, weight), bias, is_single, self)
    }
}

/// Every element of an axis with `stride - 1` zeros after it.
#[track_caller]
fn with_gaps(op: &str, x: GraphTensor, axis: usize, stride: i64) -> GraphTensor {
    if stride < 1 {
        fail(op, format!("a stride of {stride}"));
    }
    if stride == 1 {
        return x;
    }
    x.look(op, |view| {
        let view = view.insert(axis + 1, 1i64)?;
        view.pad(axis + 1, 0i64, stride - 1)?.merge(axis, 2)
    })
}
