//! Rotary position embedding (Su et al. 2021), the variant that pairs coordinate `i` with `i + d/2`.
//!
//! Each pair is turned by `position * theta^(-2i/d)`. The angles' cosines and sines are tables made when the layer is
//! constructed, and a step looks at its own rows of them through a view. Turning needs no concatenation: with the
//! halves of `x` exchanged (a view) and the sine's sign folded into its table, it is `x * cos + exchanged(x) * sin`.

use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};
use crate::shape::{Dims, Expr};

/// Turns queries and keys by their positions.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// `[capacity, d]`: the cosine of pair `i`'s angle at `i` and `i + d/2`.
    cos: GraphTensor,
    /// `[capacity, d]`: the sine, negative in the first half.
    sin: GraphTensor,
}

impl Rope {
    /// Tables for positions below `capacity`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::Rope;
    /// let mut cx = Graph::new();
    /// let rope = Rope::new(&mut cx, 2, 10_000.0, 8);
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 0.0], [1.0, 0.0]]);
    /// let y = rope.forward(x, 0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 1f32.cos(), 1f32.sin()]);
    /// ```
    ///
    /// # Panics
    /// If `width` is odd.
    #[track_caller]
    pub fn new(cx: &mut Graph, width: usize, theta: f64, capacity: usize) -> Rope {
        assert!(
            width.is_multiple_of(2),
            "rotary positions need an even width, not {width}"
        );
        let half = width / 2;
        let frequency = |i: usize| (1.0 / theta.powf((2 * i) as f64 / width as f64)) as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..capacity {
            // The angle is rounded to f32, as models are trained with.
            let angles = frequencies
                .iter()
                .map(|f| f64::from(position as f32 * f))
                .collect::<Vec<_>>();
            cos.extend(angles.iter().chain(&angles).map(|a| a.cos() as f32));
            sin.extend(angles.iter().map(|a| -a.sin() as f32));
            sin.extend(angles.iter().map(|a| a.sin() as f32));
        }
        let table = |cx: &mut Graph, name, data: Vec<f32>| {
            cx.input((capacity, width), DType::F32)
                .set(data)
                .set_name(name)
        };
        Rope {
            cos: table(cx, "rope_cos", cos),
            sin: table(cx, "rope_sin", sin),
        }
    }

    /// Turns `x [.., s, d]`, whose rows are at positions `start, start + 1, ..`. Positions past the capacity are an
    /// error when executed.
    ///
    /// # Panics
    /// If the last axis of `x` has another width.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>, start: impl Into<Expr>) -> GraphTensor<S> {
        let (dims, start) = (x.dims(), start.into());
        let x = x.dynamic();
        let rank = dims.len();
        let (rows, width) = (dims[rank - 2], dims[rank - 1]);
        let mut halves: Dims = dims[..rank - 1].iter().copied().collect();
        halves.extend([Expr::from(2), width.floor_div(2)]);
        let exchanged = x.reshape(halves).slice_step(-2, 1, -1, -1).reshape(dims);
        let at = |table: GraphTensor| table.slice_axis(0, start, start + rows);
        (x * at(self.cos) + exchanged * at(self.sin)).retag()
    }
}
