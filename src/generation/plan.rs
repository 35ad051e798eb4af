//! Types of a model's weights under a budget of bits, by what each costs in predictions of a text.
//!
//! The model runs once as it is; then for each group of weights and each type its predictions with only these rounded are
//! compared (see [`mod@crate::compilers::quantize::plan`]). Weights are `F32` in memory meanwhile, and the text's logits
//! are kept, so this is for models that fit and some hundred tokens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::evaluate::{Divergence, Windows};
use super::session::{Options, Progress, Rows, Session};
use crate::blocks::BlockType;
use crate::compilers::quantize::plan::{Candidate, Measured, Plan, Weight, measure, round_into};
use crate::error::{Error, Result};
use crate::formats::{Calibration, ModelConfig, StoredType, TensorView, Weights};

/// Which weights get the same type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Grouping {
    /// Each on its own.
    #[default]
    Tensor,
    /// All that differ in the layer's number only.
    Kind,
}

/// What a plan is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Bits of a weight on average at most, all parameters of the model counted; vectors stay `F32`.
    pub bits: f64,
    /// Types to choose from.
    pub types: Vec<BlockType>,
    /// Which weights get the same.
    pub grouping: Grouping,
    /// What chooses the scales of blocks.
    pub calibration: Arc<Calibration>,
}

impl Request {
    /// A plan of so many bits, of the types with two to sixteen that have an encoder.
    pub fn new(bits: f64) -> Request {
        use BlockType as T;
        let types = [
            T::F16,
            T::Q8_0,
            T::Q6_K,
            T::Q5_1,
            T::Q5_0,
            T::Q4_K,
            T::Q4_1,
            T::Q4_0,
            T::Q2_0,
        ];
        Request {
            bits,
            types: types.to_vec(),
            grouping: Grouping::default(),
            calibration: Arc::default(),
        }
    }
}

/// A plan, and what was measured of it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The types.
    pub plan: Plan,
    /// The mean divergence of the model's predictions with all weights rounded so, in nats.
    pub kl: f64,
    /// The same for each plan of one type that fits the budget.
    pub uniform: Vec<(BlockType, f64)>,
}

/// Finds types for a model's weights so that its predictions of the text's windows diverge least from what they were. `options` say
/// where it runs; `quant` and `logits` are not looked at. `measuring` is told how many measurements of how many are done.
///
/// A plan of one type that fits the budget and turns out better is taken instead.
///
/// # Errors
/// If the model cannot be loaded, a window is longer than its context, or the bits are too few for any types.
pub fn plan(
    config: impl Into<ModelConfig>,
    weights: &dyn Weights,
    windows: &Windows<'_>,
    request: &Request,
    options: &Options,
    loading: &mut dyn FnMut(Progress<'_>),
    measuring: &mut dyn FnMut(usize, usize),
) -> Result<Found> {
    let options = Options {
        logits: Rows::All,
        quant: None,
        ..options.clone()
    };
    let session = Session::new(config, &Wide(weights), &options, loading)?;
    let (groups, fixed) = groups(&session, request.grouping);
    let total = groups.len() * request.types.len();
    let mut probe = Probe::new(session, windows)?;
    let mut done = 0;
    let mut measured = measure(&groups, &request.types, &request.calibration, &mut || {
        measuring(done.min(total), total);
        done += 1;
        probe.divergence()
    })?;
    measuring(total, total);
    let n_planned = measured.len();
    measured.push(fixed);
    let plan = Plan::within(request.bits, &measured)?;
    let weights: BTreeMap<String, Vec<f32>> = numbers(&groups)?;
    let mut check = |plan: &Plan| -> Result<f64> {
        for (name, weight) in groups.iter().flatten() {
            let ty = plan.get(name).expect("it was planned");
            let calibration = &*request.calibration;
            round_into(*weight, &weights[name], ty, (name, calibration))?;
        }
        probe.divergence()
    };
    let mut found = Found {
        kl: check(&plan)?,
        plan,
        uniform: Vec::new(),
    };
    for plan in Plan::uniform(&measured) {
        let mut types = plan.entries()[..n_planned]
            .iter()
            .map(|entry| entry.chosen.ty);
        let same = types.next().filter(|ty| types.all(|other| other == *ty));
        if let Some(ty) = same.filter(|_| plan.bits_per_weight() <= request.bits) {
            let kl = check(&plan)?;
            found.uniform.push((ty, kl));
            if kl < found.kl {
                (found.kl, found.plan) = (kl, plan);
            }
        }
    }
    Ok(found)
}

/// The matrices in groups, and everything else, which stays `F32`.
fn groups(session: &Session, grouping: Grouping) -> (Vec<Vec<Weight>>, Measured) {
    let mut groups: Vec<(String, Vec<Weight>)> = Vec::new();
    let mut fixed = Measured {
        names: Vec::new(),
        n: 0,
        candidates: Vec::new(),
    };
    for (name, parameter) in session.parameters().iter() {
        let dims = parameter.dims();
        let is_matrix = dims.iter().filter(|dim| !dim.is_one()).count() > 1;
        if !is_matrix {
            fixed.n += parameter.ty().numel().as_usize().unwrap_or(0);
            fixed.names.push(name.to_owned());
            continue;
        }
        let key = match grouping {
            Grouping::Tensor => name.to_owned(),
            Grouping::Kind => name.chars().filter(|c| !c.is_ascii_digit()).collect(),
        };
        let weight = (name.to_owned(), parameter);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(weight),
            None => groups.push((key, vec![weight])),
        }
    }
    fixed.candidates.push(Candidate {
        ty: BlockType::F32,
        bytes: 4 * fixed.n,
        cost: 0.0,
    });
    (groups.into_iter().map(|(_, group)| group).collect(), fixed)
}

/// The numbers of all weights.
fn numbers(groups: &[Vec<Weight>]) -> Result<BTreeMap<String, Vec<f32>>> {
    let weights = groups.iter().flatten();
    let numbers = weights.map(|(name, weight)| Ok((name.clone(), weight.try_array()?.into_f32())));
    numbers.collect()
}

/// A model with what it predicted of a text.
struct Probe {
    session: Session,
    /// Each window's tokens, and the logits after them.
    expected: Vec<(Vec<u32>, Vec<f32>)>,
}

impl Probe {
    fn new(mut session: Session, windows: &Windows<'_>) -> Result<Probe> {
        let mut expected = Vec::new();
        for window in windows.clone() {
            session.reset();
            let logits = session.feed(&window.inputs)?.to_vec();
            if logits.iter().any(|x| x.is_nan()) {
                return Err(Error::msg(
                    "the model's logits are not numbers; are its weights?",
                ));
            }
            expected.push((window.inputs, logits));
        }
        Ok(Probe { session, expected })
    }

    /// The mean divergence of what the model predicts now from what it predicted.
    fn divergence(&mut self) -> Result<f64> {
        let vocab = self.session.vocab_size();
        let mut divergence = Divergence::default();
        for (inputs, expected) in &self.expected {
            self.session.reset();
            let logits = self.session.feed(inputs)?;
            for (before, now) in expected.chunks_exact(vocab).zip(logits.chunks_exact(vocab)) {
                divergence.add(before, now, 0);
            }
        }
        Ok(divergence.kl_mean())
    }
}

/// Weights as `F32` numbers.
struct Wide<'a>(&'a dyn Weights);

impl Weights for Wide<'_> {
    fn source(&self) -> &Path {
        self.0.source()
    }

    fn names(&self) -> Vec<&str> {
        self.0.names()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        self.0.stored_type(name).map(|_| StoredType::F32)
    }

    fn get(&self, name: &str) -> Result<TensorView> {
        self.0.get(name)
    }
}
