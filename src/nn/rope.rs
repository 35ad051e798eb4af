//! Rotary position embedding (Su et al. 2021).
//!
//! A pair of a head's coordinates is turned by `position * frequency`, where frequency `i` of `d / 2` is `theta^(-2i/d)`.
//! Which coordinates are a pair is a convention: `i` and `i + d/2`, or the neighbours `2i` and `2i + 1`. One becomes the
//! other when the rows of the projections are put in another order, which files have done or not.
//!
//! The angles' cosines and sines are tables made when the layer is constructed, and a step looks at its own rows of them
//! through a view. Turning needs no concatenation: with the two of every pair exchanged (a view) and the sine's sign
//! folded into its table, it is `x * cos + exchanged(x) * sin`.
//!
//! Deliberately absent: scalings that depend on the length of the text, and those that change the scores (YaRN).

use std::f64::consts::TAU;

use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};
use crate::shape::{Dims, Expr};

/// Which coordinates of a head are turned together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RopePairs {
    /// `i` and `i + d/2`, as Hugging Face checkpoints have them.
    #[default]
    Halves,
    /// `2i` and `2i + 1`, as the paper has them.
    Neighbours,
}

/// How frequencies are slowed for texts longer than those that a model was first trained on.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// Each is divided by this number (Chen et al. 2023).
    Linear(f64),
    /// Those that turn often in the original context stay, those that turn seldom are divided by `factor`, between them it
    /// goes over smoothly (Llama Team 2024).
    Llama3 {
        /// What slow frequencies are divided by.
        factor: f64,
        /// Frequencies that turn fewer times than this in the original context are slow.
        low_freq_factor: f64,
        /// Frequencies that turn more times than this are fast.
        high_freq_factor: f64,
        /// Tokens of the original context.
        original_context: usize,
    },
    /// Each is divided by a number of its own.
    Factors(Vec<f32>),
}

/// What the angles of a [`Rope`] are made from.
#[derive(Clone, PartialEq, Debug)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they are slowed.
    pub scaling: RopeScaling,
    /// Which coordinates are turned together.
    pub pairs: RopePairs,
}

impl RopeConfig {
    /// Frequencies of this base as they are, for halves.
    pub fn new(theta: f64) -> RopeConfig {
        RopeConfig {
            theta,
            scaling: RopeScaling::None,
            pairs: RopePairs::Halves,
        }
    }

    /// What each frequency of heads of this width is divided by, if any is.
    ///
    /// ```
    /// use brain_blitz::nn::{RopeConfig, RopeScaling};
    /// let scaling = RopeScaling::Llama3 {
    ///     factor: 8.0,
    ///     low_freq_factor: 1.0,
    ///     high_freq_factor: 4.0,
    ///     original_context: 64,
    /// };
    /// let rope = RopeConfig { scaling, ..RopeConfig::new(10_000.0) };
    /// // One turns 64 / 2π = 10.2 times, more than four times; the other a tenth of a time.
    /// assert_eq!(rope.factors(4), Some(vec![1.0, 8.0]));
    /// ```
    pub fn factors(&self, width: usize) -> Option<Vec<f32>> {
        let frequencies = self.unscaled(width).into_iter();
        match &self.scaling {
            RopeScaling::None => None,
            RopeScaling::Linear(factor) => Some(frequencies.map(|_| *factor as f32).collect()),
            RopeScaling::Factors(factors) => Some(factors.clone()),
            &RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context,
            } => {
                let slowed = |frequency: f32| {
                    let turns = original_context as f64 * f64::from(frequency) / TAU;
                    // 0 where a frequency is slow, 1 where it is fast.
                    let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 / ((1.0 - fast) / factor + fast)) as f32
                };
                Some(frequencies.map(slowed).collect())
            }
        }
    }

    /// The angle by which each pair of a head of this width is turned from one position to the next.
    ///
    /// # Panics
    /// If there are factors for another width.
    #[track_caller]
    pub fn frequencies(&self, width: usize) -> Vec<f32> {
        let mut frequencies = self.unscaled(width);
        if let Some(factors) = self.factors(width) {
            let (n, pairs) = (factors.len(), frequencies.len());
            assert_eq!(n, pairs, "{n} rotary factors for {pairs} pairs");
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= factor;
            }
        }
        frequencies
    }

    fn unscaled(&self, width: usize) -> Vec<f32> {
        let exponent = |i: usize| (2 * i) as f64 / width as f64;
        let frequency = |i: usize| (1.0 / self.theta.powf(exponent(i))) as f32;
        (0..width / 2).map(frequency).collect()
    }
}

/// Turns queries and keys by their positions.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// `[capacity, d]`: the cosine of a pair's angle at both of its places.
    cos: GraphTensor,
    /// `[capacity, d]`: the sine, negative at the first place of a pair.
    sin: GraphTensor,
    pairs: RopePairs,
}

impl Rope {
    /// Tables for positions below `capacity` and pairs of halves.
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
        Rope::with_config(cx, width, &RopeConfig::new(theta), capacity)
    }

    /// Tables for positions below `capacity`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Rope, RopeConfig, RopePairs};
    /// let mut cx = Graph::new();
    /// let config = RopeConfig { pairs: RopePairs::Neighbours, ..RopeConfig::new(100.0) };
    /// let rope = Rope::with_config(&mut cx, 4, &config, 8);
    /// let x = cx.tensor::<R2<1, 4>>().set([[1.0, 0.0, 1.0, 0.0]]);
    /// let y = rope.forward(x, 1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1f32.cos(), 1f32.sin(), 0.1f32.cos(), 0.1f32.sin()]);
    /// ```
    ///
    /// # Panics
    /// If `width` is odd, or there are factors for another width.
    #[track_caller]
    pub fn with_config(cx: &mut Graph, width: usize, config: &RopeConfig, capacity: usize) -> Rope {
        assert!(
            width.is_multiple_of(2),
            "rotary positions need an even width, not {width}"
        );
        let frequencies = config.frequencies(width);
        let n = capacity * width;
        let (mut cos, mut sin) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for position in 0..capacity {
            // The angle is rounded to f32, as models are trained with.
            let angle = |f: &f32| f64::from(position as f32 * f);
            let turns = frequencies.iter().map(|f| angle(f).sin_cos());
            match config.pairs {
                RopePairs::Halves => {
                    cos.extend(turns.clone().chain(turns.clone()).map(|t| t.1 as f32));
                    sin.extend(turns.clone().map(|t| -t.0 as f32));
                    sin.extend(turns.map(|t| t.0 as f32));
                }
                RopePairs::Neighbours => {
                    cos.extend(turns.clone().flat_map(|t| [t.1 as f32; 2]));
                    sin.extend(turns.flat_map(|t| [-t.0 as f32, t.0 as f32]));
                }
            }
        }
        let table = |cx: &mut Graph, name, data: Vec<f32>| {
            cx.input((capacity, width), DType::F32)
                .set(data)
                .set_name(name)
        };
        Rope {
            cos: table(cx, "rope_cos", cos),
            sin: table(cx, "rope_sin", sin),
            pairs: config.pairs,
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
        let (two, half) = (Expr::from(2), width.floor_div(2));
        let (split, axis) = match self.pairs {
            RopePairs::Halves => ([two, half], -2),
            RopePairs::Neighbours => ([half, two], -1),
        };
        let mut paired: Dims = dims[..rank - 1].iter().copied().collect();
        paired.extend(split);
        let exchanged = x.reshape(paired).slice_step(axis, 1, -1, -1).reshape(dims);
        let at = |table: GraphTensor| table.slice_axis(0, start, start + rows);
        (x * at(self.cos) + exchanged * at(self.sin)).retag()
    }
}
