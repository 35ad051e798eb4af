//! Learning rates that change from step to step.
//!
//! ```text
//! step (I32, 0 at first)  →  Schedule::record  →  rate (F64)
//! ```
//! A schedule is a function of the number of steps that were done. [`Schedule::record`] makes graph of it, so the rate
//! is computed within the compiled step from a counter that the step itself moves on: nothing is set from outside,
//! nothing is compiled again, and training that goes on from a saved counter has the rates that it would have had.
//! [`Schedule::at`] is the same function of a plain number, for tables and plots.
//!
//! The graph computes in `F64`, so that rates near the end of a cosine keep their digits; only sines and powers of the
//! last result are rounded to `F32`.
//!
//! Names and formulas are those of `torch.optim.lr_scheduler`, in closed form. What it deliberately does not do: it
//! keeps no state of its own, so it cannot react to losses, and it never restarts: after its last step a schedule
//! keeps its last rate.

use std::f64::consts::PI;

use crate::dtype::DType;
use crate::graph::GraphTensor;

/// The learning rate as a function of the number of steps that were done.
///
/// ```
/// use brain_blitz::train::schedule::Schedule;
/// let schedule = Schedule::cosine(0.1, 0.0, 100).after_warm_up(10, 0.1);
/// assert_eq!(schedule.at(10), 0.1); // the warm-up is over
/// assert!(schedule.at(0) < 0.011 && schedule.at(60) < 0.051);
/// assert_eq!(schedule.at(110), 0.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// The same rate always.
    Constant(f64),
    /// `rate * factor ^ floor(step / every)`: `StepLR`.
    Step {
        /// The first rate.
        rate: f64,
        /// Number of steps between two changes.
        every: u32,
        /// What a change multiplies the rate by.
        factor: f64,
    },
    /// `rate * factor ^ step`: `ExponentialLR`.
    Exponential {
        /// The first rate.
        rate: f64,
        /// What each step multiplies the rate by.
        factor: f64,
    },
    /// Half a period of a cosine from `rate` to `min`: `CosineAnnealingLR` (Loshchilov and Hutter, 2017).
    Cosine {
        /// The first rate.
        rate: f64,
        /// The last rate.
        min: f64,
        /// Number of steps from one to the other.
        steps: u32,
    },
    /// Up and down once: `OneCycleLR`.
    OneCycle(OneCycle),
    /// A straight line from `from * rate` to the first rate of what follows: `LinearLR` before another.
    WarmUp {
        /// Part of the rate at the first step.
        from: f64,
        /// Number of steps.
        steps: u32,
        /// What follows; it begins when the warm-up is over.
        then: Box<Schedule>,
    },
}

/// `OneCycleLR` with two phases (Smith and Topin, 2018): up from `max / initial_divisor` to `max`, then down to
/// `max / initial_divisor / final_divisor`.
#[derive(Clone, Debug, PartialEq)]
pub struct OneCycle {
    /// The highest rate.
    pub max: f64,
    /// Number of steps of the cycle.
    pub steps: u32,
    /// Part of the steps in which the rate goes up.
    pub rise: f64,
    /// The highest rate over the first.
    pub initial_divisor: f64,
    /// The first rate over the last.
    pub final_divisor: f64,
    /// Straight lines instead of cosines.
    pub linear: bool,
}

impl OneCycle {
    /// PyTorch's defaults: 30 % of the steps up from a 25th, cosines, down to a 10,000th of the first rate.
    pub fn new(max: f64, steps: u32) -> OneCycle {
        OneCycle {
            max,
            steps,
            rise: 0.3,
            initial_divisor: 25.0,
            final_divisor: 1e4,
            linear: false,
        }
    }

    /// First, last rate, and the steps at which the highest and the last one are reached.
    fn marks(&self) -> (f64, f64, f64, f64) {
        let first = self.max / self.initial_divisor;
        let top = (self.rise * f64::from(self.steps) - 1.0).max(0.0);
        let end = f64::from(self.steps) - 1.0;
        (first, first / self.final_divisor, top, end)
    }

    fn at(&self, step: f64) -> f64 {
        let (first, last, top, end) = self.marks();
        let between = |from: f64, to: f64, part: f64| match self.linear {
            true => from + (to - from) * part,
            false => to + (from - to) * falling(part),
        };
        if step < top {
            return between(first, self.max, step / top);
        }
        between(self.max, last, part_of(step - top, end - top))
    }

    fn record(&self, step: GraphTensor) -> GraphTensor {
        let (first, last, top, end) = self.marks();
        let between = |from: f64, to: f64, part: GraphTensor| match self.linear {
            true => part * (to - from) + from,
            false => recorded_falling(part) * (from - to) + to,
        };
        let down = between(self.max, last, recorded_part(step - top, end - top));
        if top == 0.0 {
            return down;
        }
        let up = between(first, self.max, step * top.recip());
        step.lt(top).where_(up, down)
    }
}

/// How far `step` is on its way to `steps`, from 0 to 1.
fn part_of(step: f64, steps: f64) -> f64 {
    (step / steps.max(f64::EPSILON)).clamp(0.0, 1.0)
}

fn recorded_part(step: GraphTensor, steps: f64) -> GraphTensor {
    (step * steps.max(f64::EPSILON).recip()).clamp(0.0, 1.0)
}

/// Half a period of a cosine, from 1 to 0: `(1 + cos(π part)) / 2 = sin²(π / 2 (1 - part))`, exact at both ends.
fn falling(part: f64) -> f64 {
    (PI / 2.0 * (1.0 - part)).sin().powi(2)
}

fn recorded_falling(part: GraphTensor) -> GraphTensor {
    let angle = (1.0 - part) * (PI / 2.0);
    let sine = angle.cast(DType::F32).sin();
    sine.cast(DType::F64).square()
}

impl Schedule {
    /// [`Schedule::Step`].
    pub fn step(rate: f64, every: u32, factor: f64) -> Schedule {
        Schedule::Step {
            rate,
            every,
            factor,
        }
    }

    /// [`Schedule::Exponential`].
    pub fn exponential(rate: f64, factor: f64) -> Schedule {
        Schedule::Exponential { rate, factor }
    }

    /// [`Schedule::Cosine`].
    pub fn cosine(rate: f64, min: f64, steps: u32) -> Schedule {
        Schedule::Cosine { rate, min, steps }
    }

    /// [`Schedule::OneCycle`] with its defaults.
    pub fn one_cycle(max: f64, steps: u32) -> Schedule {
        Schedule::OneCycle(OneCycle::new(max, steps))
    }

    /// This schedule, `steps` steps later; before, the rate rises from the part `from` of its first rate.
    pub fn after_warm_up(self, steps: u32, from: f64) -> Schedule {
        Schedule::WarmUp {
            from,
            steps,
            then: Box::new(self),
        }
    }

    /// The rate of the step before which `step` steps were done.
    ///
    /// ```
    /// use brain_blitz::train::schedule::Schedule;
    /// let schedule = Schedule::step(1.0, 10, 0.5);
    /// assert_eq!([0, 9, 10, 25].map(|step| schedule.at(step)), [1.0, 1.0, 0.5, 0.25]);
    /// ```
    pub fn at(&self, step: u64) -> f64 {
        let t = step as f64;
        match *self {
            Schedule::Constant(rate) => rate,
            Schedule::Step {
                rate,
                every,
                factor,
            } => rate * factor.powf((step / u64::from(every.max(1))) as f64),
            Schedule::Exponential { rate, factor } => rate * factor.powf(t),
            Schedule::Cosine { rate, min, steps } => {
                min + (rate - min) * falling(part_of(t, f64::from(steps)))
            }
            Schedule::OneCycle(ref cycle) => cycle.at(t),
            Schedule::WarmUp {
                from,
                steps,
                ref then,
            } => match step.checked_sub(u64::from(steps)) {
                Some(step) => then.at(step),
                None => then.at(0) * (from + (1.0 - from) * t / f64::from(steps)),
            },
        }
    }

    /// The rate as graph: an `F64` of no dimensions, from the number of steps that were done, an `I32` of none.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// use brain_blitz::train::schedule::Schedule;
    /// let mut cx = Graph::new();
    /// let step = cx.input((), DType::I32).set(30);
    /// let rate = Schedule::cosine(1.0, 0.0, 60).record(step).retrieve();
    /// cx.execute();
    /// assert!((rate.array().to_f64()[0] - 0.5).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// At the caller's line, if `step` is no `I32`, or a factor is negative.
    #[track_caller]
    pub fn record(&self, step: GraphTensor) -> GraphTensor {
        let t = step.cast(DType::F64);
        match *self {
            Schedule::Constant(rate) => t.full_like(rate),
            Schedule::Step {
                rate,
                every,
                factor,
            } => {
                let n = step.trunc_divide(every.max(1) as usize).cast(DType::F64);
                powers(factor, n) * rate
            }
            Schedule::Exponential { rate, factor } => powers(factor, t) * rate,
            Schedule::Cosine { rate, min, steps } => {
                recorded_falling(recorded_part(t, f64::from(steps))) * (rate - min) + min
            }
            Schedule::OneCycle(ref cycle) => cycle.record(t),
            Schedule::WarmUp {
                from,
                steps,
                ref then,
            } => {
                let n = steps as usize;
                let slope = (1.0 - from) / f64::from(steps.max(1));
                let rising = (t * slope + from) * then.at(0);
                let later = then.record(step.maximum(n) - n);
                step.lt(n).where_(rising, later)
            }
        }
    }
}

/// `base ^ n` for whole `n >= 0`, to about the digits of `F32`: `e^x = e^h * (1 + l)` with `x = h + l`, `h` in `F32`.
///
/// # Panics
/// If `base` is negative.
fn powers(base: f64, n: GraphTensor) -> GraphTensor {
    assert!(base >= 0.0, "the factor {base} of a rate is negative");
    if base == 0.0 {
        return n.eq(0.0).cast(DType::F64);
    }
    let x = n * base.ln();
    let high = x.cast(DType::F32);
    let low = x - high.cast(DType::F64);
    high.exp().cast(DType::F64) * (low + 1.0)
}

/// Where an optimizer's learning rate comes from.
#[derive(Clone, Debug)]
pub enum Rate {
    /// It is computed from the number of steps.
    Schedule(Schedule),
    /// It is what this floating-point tensor of no dimensions holds: an input that somebody sets, say.
    Tensor(GraphTensor),
}

impl From<f64> for Rate {
    fn from(rate: f64) -> Rate {
        Rate::Schedule(Schedule::Constant(rate))
    }
}

impl From<Schedule> for Rate {
    fn from(schedule: Schedule) -> Rate {
        Rate::Schedule(schedule)
    }
}

impl From<GraphTensor> for Rate {
    fn from(tensor: GraphTensor) -> Rate {
        Rate::Tensor(tensor)
    }
}

impl Rate {
    /// The rate as graph; see [`Schedule::record`].
    #[track_caller]
    pub(crate) fn record(&self, step: GraphTensor) -> GraphTensor {
        match self {
            Rate::Schedule(schedule) => schedule.record(step),
            Rate::Tensor(tensor) => tensor.cast(DType::F64),
        }
    }
}
