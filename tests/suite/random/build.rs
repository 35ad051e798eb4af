//! A graph under construction: the values made so far and what is known about them.
//!
//! Every value carries a bound of its magnitude, and in smooth mode one of its rounding error; the steps use them to
//! stay inside what the formats hold exactly, and to keep errors from growing. Each step draws from a stream of its
//! own, so a step can be left out without changing what the others draw.

use brain_blitz::array::{Array, Data};
use brain_blitz::prelude::*;
use brain_blitz::shape::Symbols;

use super::Mode;
use super::dice::Dice;
use super::{exact, movement, smooth};

/// The most elements of a value, for any binding of the symbols; the second number is for the few large cases, whose
/// work is enough for two threads.
const MAX_ELEMENTS: [i64; 2] = [6000, 40_000];
/// The most axes of a value.
pub const MAX_RANK: usize = 5;
/// Inputs start with numbers up to this.
pub const INPUT_MAGNITUDE: i64 = 30;

/// A value of the graph.
#[derive(Clone, Copy)]
pub struct Value {
    pub t: GraphTensor,
    /// No element is larger.
    pub magnitude: f64,
    /// Smooth mode: the rounding error of any element in units of 2^-24.
    pub error: f64,
}

/// An input, for filling it with data.
pub struct Input {
    pub t: GraphTensor,
    /// Its elements are below this and not negative; `None` for numbers of both signs.
    pub index_below: Option<i64>,
}

/// A graph under construction.
pub struct Build<'g> {
    pub cx: &'g mut Graph,
    pub mode: Mode,
    pub dice: Dice,
    pub pool: Vec<Value>,
    pub inputs: Vec<Input>,
    /// The symbols' values in the executions.
    pub bindings: Vec<Symbols>,
    /// The most elements of a value, for any binding.
    pub max_elements: i64,
}

/// What a finished graph is read by.
pub struct Built {
    pub outputs: Vec<Value>,
    /// How many values the case has, with its inputs.
    pub n_values: usize,
    pub inputs: Vec<Input>,
    pub bindings: Vec<Symbols>,
    pub seed: u64,
    pub mode: Mode,
}

/// The largest whole number up to which a format holds all.
pub fn exact_limit(dtype: DType) -> f64 {
    match dtype {
        DType::U8 => 255.0,
        DType::Bool => 1.0,
        DType::BF16 => 256.0,
        DType::F16 => 2048.0,
        DType::F32 | DType::F64 | DType::I32 => 16_777_216.0,
    }
}

/// Number of the stream that `part` of a case draws from.
fn stream(part: u64, number: u64) -> u64 {
    (part << 32) | number
}

impl<'g> Build<'g> {
    /// Builds the graph of a seed without the steps in `dropped`.
    pub fn run(
        cx: &'g mut Graph,
        mode: Mode,
        seed: u64,
        n_steps: usize,
        dropped: &[usize],
    ) -> Built {
        let mut dice = Dice::new(seed, stream(0, 0));
        let bindings = bindings(mode, &mut dice);
        let max_elements = MAX_ELEMENTS[usize::from(dice.one_in(12))];
        let mut build = Build {
            cx,
            mode,
            dice,
            pool: Vec::new(),
            inputs: Vec::new(),
            bindings,
            max_elements,
        };
        build.inputs_of_case();
        for step in 0..n_steps {
            build.dice = Dice::new(seed, stream(1, step as u64));
            if !dropped.contains(&step) {
                build.step();
            }
        }
        build.dice = Dice::new(seed, stream(2, 0));
        let outputs = build.outputs();
        if mode == Mode::State {
            build.assign();
        }
        Built {
            outputs,
            n_values: build.pool.len(),
            inputs: build.inputs,
            bindings: build.bindings,
            seed,
            mode,
        }
    }

    fn inputs_of_case(&mut self) {
        let sizes = self.size_choices();
        let n_inputs = self.dice.between(2, 4);
        for number in 0..n_inputs {
            // The first two always fit.
            let most = if number < 2 { 2 } else { 3 };
            let rank = self.dice.between(i64::from(number == 0), most);
            let mut dims: Vec<Expr> = Vec::new();
            for _ in 0..rank {
                let one = self.dice.one_in(8);
                let size = self.dice.pick(&sizes);
                dims.push(if one { Expr::from(1) } else { size });
            }
            let dtype = match self.mode {
                Mode::Smooth => DType::F32,
                _ => self.dice.pick(&[
                    DType::F32,
                    DType::F32,
                    DType::F32,
                    DType::I32,
                    DType::BF16,
                    DType::F16,
                    DType::F64,
                    DType::Bool,
                ]),
            };
            self.input(&dims, dtype, None);
        }
    }

    /// The sizes that the inputs of a case are made of: few, so that shapes often fit each other.
    fn size_choices(&mut self) -> Vec<Expr> {
        let constants = [1, 2, 3, 4, 5, 6, 8, 13, 16, 17, 19, 33];
        let mut sizes: Vec<Expr> = (0..3)
            .map(|_| Expr::from(self.dice.pick(&constants)))
            .collect();
        if self.dice.one_in(25) {
            sizes.push(Expr::from(0));
        }
        if self.max_elements == MAX_ELEMENTS[1] {
            sizes.extend([67, 130, 130].map(Expr::from));
        }
        if self.mode == Mode::Symbolic {
            let (s, p) = (Expr::from('s'), Expr::from('p'));
            sizes.extend([s, s, p + s, s * 2]);
        }
        sizes
    }

    /// Adds an input; index inputs do not join the pool.
    pub fn input(
        &mut self,
        dims: &[Expr],
        dtype: DType,
        index_below: Option<i64>,
    ) -> Option<GraphTensor> {
        if !self.fits(dims) {
            return None;
        }
        let t = self.cx.input(dims, dtype);
        self.inputs.push(Input { t, index_below });
        if index_below.is_none() {
            let magnitude = match (self.mode, dtype) {
                (Mode::Smooth, _) | (_, DType::Bool) => 1.0,
                _ => INPUT_MAGNITUDE as f64,
            };
            let error = 0.0;
            self.pool.push(Value {
                t,
                magnitude,
                error,
            });
        }
        Some(t)
    }

    /// One random step; sometimes none fits.
    fn step(&mut self) {
        for _ in 0..4 {
            let made = match (self.dice.below(5), self.mode) {
                (0 | 1, _) => movement::step(self),
                (_, Mode::Smooth) => smooth::step(self),
                _ => exact::step(self),
            };
            let Some(value) = made else { continue };
            if self.fits(&value.t.dims()) {
                self.pool.push(value);
                return;
            }
        }
    }

    /// A value, later ones more often.
    pub fn any(&mut self) -> Option<Value> {
        let n = self.pool.len();
        let at = self.dice.below(n.max(1)).max(self.dice.below(n.max(1)));
        self.pool.get(at).copied()
    }

    /// A size in every execution.
    pub fn sizes(&self, size: Expr) -> Vec<i64> {
        let value = |symbols| size.eval(symbols).expect("every symbol is bound");
        self.bindings.iter().map(value).collect()
    }

    pub fn smallest(&self, size: Expr) -> i64 {
        *self.sizes(size).iter().min().expect("at least one binding")
    }

    pub fn largest(&self, size: Expr) -> i64 {
        *self.sizes(size).iter().max().expect("at least one binding")
    }

    /// Whether a value of these dims may be made.
    pub fn fits(&self, dims: &[Expr]) -> bool {
        dims.len() <= MAX_RANK
            && dims.iter().all(|&dim| self.smallest(dim) >= 0)
            && self.largest(brain_blitz::shape::numel(dims)) <= self.max_elements
    }

    /// A value whose dims broadcast with those of `a`: often another one, else `a` itself.
    pub fn partner(&mut self, a: Value) -> Value {
        let dims = a.t.dims();
        let fitting: Vec<Value> = self
            .pool
            .iter()
            .filter(|b| {
                broadcast(&dims, &b.t.dims()).is_some_and(|both| self.fits(&both))
                    && a.t.dims().len() + b.t.dims().len() > 0
            })
            .copied()
            .collect();
        if fitting.is_empty() {
            return a;
        }
        self.dice.pick(&fitting)
    }

    /// The last values and one other.
    fn outputs(&mut self) -> Vec<Value> {
        let n = self.pool.len();
        let mut chosen = vec![n - 1, n.saturating_sub(2), self.dice.below(n)];
        chosen.sort_unstable();
        chosen.dedup();
        let outputs: Vec<Value> = chosen.into_iter().map(|at| self.pool[at]).collect();
        for output in &outputs {
            output.t.retrieve();
        }
        outputs
    }

    /// Makes inputs change from one execution to the next.
    fn assign(&mut self) {
        let states: Vec<GraphTensor> = self
            .inputs
            .iter()
            .filter(|input| input.index_below.is_none())
            .map(|input| input.t)
            .collect();
        for state in states.into_iter().take(2) {
            let fitting: Vec<Value> = self
                .pool
                .iter()
                .filter(|value| value.t.ty() == state.ty())
                .copied()
                .collect();
            let rows = (state.rank() > 0 && self.dice.one_in(2)).then(|| exact::rows(self, state));
            let new = match rows.flatten() {
                Some(written) => written,
                None => self.dice.pick(&fitting).t,
            };
            let bounded = match state.dtype() {
                DType::Bool => new,
                _ => new % INPUT_MAGNITUDE as f64,
            };
            // Without the remainder the update is rows written in place; those hold input-sized numbers already.
            let in_place = rows.flatten().is_some();
            state.assign(if in_place { new } else { bounded });
        }
    }
}

/// The dims of an elementwise result.
pub fn broadcast(a: &[Expr], b: &[Expr]) -> Option<Vec<Expr>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[Expr], at: usize| {
        (at + dims.len())
            .checked_sub(rank)
            .map_or(Expr::from(1), |axis| dims[axis])
    };
    (0..rank)
        .map(|at| match (size(a, at), size(b, at)) {
            (x, y) if x == y || y.is_one() => Some(x),
            (x, y) if x.is_one() => Some(y),
            _ => None,
        })
        .collect()
}

fn bindings(mode: Mode, dice: &mut Dice) -> Vec<Symbols> {
    let bind = |s: i64, p: i64| {
        let mut symbols = Symbols::new();
        symbols.set('s', s);
        symbols.set('p', p);
        symbols
    };
    match mode {
        Mode::Symbolic => (0..3)
            .map(|_| bind(dice.pick(&[1, 2, 3, 5, 8, 16, 17]), dice.between(0, 7)))
            .collect(),
        Mode::State => vec![Symbols::new(); 3],
        Mode::Exact | Mode::Smooth => vec![Symbols::new()],
    }
}

impl Built {
    /// Gives the inputs their data for execution `run`; states are set before the first only.
    pub fn set_inputs(&self, cx: &mut Graph, run: usize) {
        let symbols = &self.bindings[run];
        for (symbol, size) in symbols.iter() {
            cx.set_dim(symbol, size as usize);
        }
        for (number, input) in self.inputs.iter().enumerate() {
            if self.mode == Mode::State && run > 0 && number < 2 {
                continue;
            }
            let mut dice = Dice::new(self.seed, stream(3 + run as u64, number as u64));
            input.t.set(self.data(input, symbols, &mut dice));
        }
    }

    fn data(&self, input: &Input, symbols: &Symbols, dice: &mut Dice) -> Array {
        let dims: Vec<usize> = input
            .t
            .dims()
            .iter()
            .map(|dim| dim.eval(symbols).expect("every symbol is bound") as usize)
            .collect();
        let n = dims.iter().product();
        let mut number = || match (input.index_below, self.mode) {
            (Some(end), _) => dice.between(0, end - 1) as f64,
            (None, Mode::Smooth) => dice.unit(),
            (None, _) if input.t.dtype() == DType::Bool => dice.between(0, 1) as f64,
            (None, _) => dice.between(-INPUT_MAGNITUDE, INPUT_MAGNITUDE) as f64,
        };
        let numbers: Vec<f64> = (0..n).map(|_| number()).collect();
        Array::new(dims, Data::F64(numbers)).cast(input.t.dtype())
    }
}
