//! Which weights get which blocks, so that a model of so many bits says the most of what it said before.
//!
//! What a weight costs in a type is measured: its numbers are replaced by what the blocks would hold, everything else
//! stays, and the caller says how far the results then are from what they were (the Kullback-Leibler divergence of a model's
//! predictions, say). Small errors of different weights add up almost independently, so the best plan under a budget of bytes is
//! the one of the least sum: a multiple-choice knapsack. It is solved as Lagrange's multiplier solves it: each weight
//! starts with the fewest bytes, and the change that saves the most for its bytes comes first, along the lower convex hull of each
//! weight's candidates; then what is left of the budget is spent on what still fits. A plan of one type for all that fits
//! the budget and has a lower sum is taken instead.
//!
//! What it deliberately does not do: measure pairs of weights, whose errors may make up for each other or add up.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Quantize;
use crate::blocks::BlockType;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::formats::Calibration;
use crate::graph::GraphTensor;

/// What weights cost in a type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidate {
    /// The type.
    pub ty: BlockType,
    /// What the weights then take.
    pub bytes: usize,
    /// How far results then are from what they were.
    pub cost: f64,
}

/// Weights that get the same type, and what they cost in some.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// The weights' names.
    pub names: Vec<String>,
    /// How many numbers they have.
    pub n: usize,
    /// The types, in any order.
    pub candidates: Vec<Candidate>,
}

/// Weights with the type that they get.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// The weights' names.
    pub names: Vec<String>,
    /// How many numbers they have.
    pub n: usize,
    /// The type, with what it costs.
    pub chosen: Candidate,
}

/// Types of weights under a budget; see the [module](self).
///
/// ```
/// use brain_blitz::blocks::BlockType::{Q4_0, Q8_0};
/// use brain_blitz::compilers::quantize::{Candidate, Measured, Plan};
/// let weight = |name: &str, cost: f64| Measured {
///     names: vec![name.into()],
///     n: 3200,
///     candidates: vec![
///         Candidate { ty: Q8_0, bytes: 3400, cost: cost / 250.0 },
///         Candidate { ty: Q4_0, bytes: 1800, cost },
///     ],
/// };
/// let plan = Plan::within(6.5, &[weight("up", 0.01), weight("down", 0.03)])?;
/// assert_eq!((plan.get("up"), plan.get("down")), (Some(Q4_0), Some(Q8_0)));
/// assert_eq!(plan.bits_per_weight(), 6.5);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    entries: Vec<Planned>,
}

impl Plan {
    /// The plan of the least sum of costs with at most so many bits for a weight on average, all those of `measured`
    /// counted. What has one candidate only gets that.
    ///
    /// # Errors
    /// If even the fewest bytes are more than that, something has no candidate, or a cost is not a number.
    pub fn within(bits_per_weight: f64, measured: &[Measured]) -> Result<Plan> {
        if let Some(without) = measured.iter().find(|m| m.candidates.is_empty()) {
            return Err(Error::msg(format!(
                "there is no type for {}",
                without.names.join(", ")
            )));
        }
        let mut costs = measured.iter().flat_map(|m| &m.candidates);
        if costs.any(|candidate| candidate.cost.is_nan()) {
            return Err(Error::msg("a measured cost is not a number"));
        }
        let n: usize = measured.iter().map(|m| m.n).sum();
        let budget = bits_per_weight * n as f64 / 8.0;
        let least = choose(measured, smallest);
        if least.bytes() as f64 > budget {
            return Err(Error::msg(format!(
                "{bits_per_weight} bits a weight are too few: with the smallest types there are {:.3}",
                least.bits_per_weight()
            )));
        }
        let mut best = least.spend(measured, budget);
        for plan in Plan::uniform(measured) {
            if plan.bytes() as f64 <= budget && plan.cost() < best.cost() {
                best = plan.spend(measured, budget);
            }
        }
        Ok(best)
    }

    /// For each type the plan in which all get it, or what is next above among their candidates; what has one candidate only gets
    /// that. A type that something has neither of makes no plan.
    pub fn uniform(measured: &[Measured]) -> Vec<Plan> {
        let all = measured.iter().flat_map(|m| &m.candidates);
        let types: std::collections::BTreeSet<BlockType> = all.map(|c| c.ty).collect();
        let choice = |m: &Measured, ty: BlockType| match m.candidates[..] {
            [only] => Some(only),
            _ => {
                let own = m.candidates.iter().find(|c| c.ty == ty);
                let enough = |c: &&Candidate| c.ty.bits_per_weight() >= ty.bits_per_weight();
                let above = m.candidates.iter().filter(enough).min_by_key(|c| c.bytes);
                own.or(above).copied()
            }
        };
        let of_type = |ty: BlockType| {
            let has = measured.iter().all(|m| choice(m, ty).is_some());
            has.then(|| choose(measured, |m| choice(m, ty).expect("it was just looked at")))
        };
        types.into_iter().filter_map(of_type).collect()
    }

    /// Changes candidates as long as that makes the sum of costs smaller, and the bytes are within the budget.
    fn spend(mut self, measured: &[Measured], budget: f64) -> Plan {
        let mut bytes = self.bytes();
        loop {
            let mut best: Option<(f64, usize, Candidate)> = None;
            for (at, (entry, measured)) in self.entries.iter().zip(measured).enumerate() {
                let now = entry.chosen;
                for &to in &measured.candidates {
                    let saved = now.cost - to.cost;
                    let fits = (bytes - now.bytes + to.bytes) as f64 <= budget;
                    if saved <= 0.0 || !fits {
                        continue;
                    }
                    let more = to.bytes.saturating_sub(now.bytes).max(1);
                    let rate = saved / more as f64;
                    if best.is_none_or(|(most, ..)| rate > most) {
                        best = Some((rate, at, to));
                    }
                }
            }
            let Some((_, at, to)) = best else {
                return self;
            };
            bytes = bytes - self.entries[at].chosen.bytes + to.bytes;
            self.entries[at].chosen = to;
        }
    }

    /// The type of the weight of this name.
    pub fn get(&self, name: &str) -> Option<BlockType> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.names.iter().any(|other| other == name))?;
        Some(entry.chosen.ty)
    }

    /// All weights with their types, in the order in which they were measured.
    pub fn entries(&self) -> &[Planned] {
        &self.entries
    }

    /// The types by name.
    pub fn types(&self) -> BTreeMap<String, BlockType> {
        let entries = self.entries.iter();
        let named = entries.flat_map(|entry| {
            let names = entry.names.iter();
            names.map(|name| (name.clone(), entry.chosen.ty))
        });
        named.collect()
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.chosen.bytes).sum()
    }

    /// Bits of a weight on average.
    pub fn bits_per_weight(&self) -> f64 {
        let n: usize = self.entries.iter().map(|entry| entry.n).sum();
        self.bytes() as f64 * 8.0 / n.max(1) as f64
    }

    /// The sum of what the weights cost.
    pub fn cost(&self) -> f64 {
        self.entries.iter().map(|entry| entry.chosen.cost).sum()
    }
}

/// The candidate of the fewest bytes; of several, the one that costs least.
fn smallest(measured: &Measured) -> Candidate {
    let order =
        |a: &&Candidate, b: &&Candidate| a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost));
    *measured
        .candidates
        .iter()
        .min_by(order)
        .expect("there is a candidate")
}

fn choose(measured: &[Measured], choice: impl Fn(&Measured) -> Candidate) -> Plan {
    let planned = measured.iter().map(|m| Planned {
        names: m.names.clone(),
        n: m.n,
        chosen: choice(m),
    });
    Plan {
        entries: planned.collect(),
    }
}

impl std::fmt::Display for Plan {
    /// A line for each entry: type, bits, cost, names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        for Planned { names, chosen, n } in &self.entries {
            let bits = chosen.bytes as f64 * 8.0 / (*n).max(1) as f64;
            let (ty, cost) = (chosen.ty.name(), chosen.cost);
            let names = match &names[..] {
                [first, _, _, ..] => format!("{first} and {} others", names.len() - 1),
                few => few.join(", "),
            };
            writeln!(out, "{ty:>6} {bits:7.3} bits  cost {cost:9.3e}  {names}")?;
        }
        let (bits, cost) = (self.bits_per_weight(), self.cost());
        write!(f, "{out}{:>6} {bits:7.3} bits  cost {cost:9.3e}", "all")
    }
}

impl Quantize {
    /// Each weight in the type that the plan has for its name; others stay as they are.
    pub fn planned(plan: &Plan) -> Quantize {
        let types = plan.types();
        Quantize::mixed(move |name| types.get(name).copied().filter(|ty| ty.block_len() > 1))
    }
}

/// A weight whose types are measured: its name, and the `F32` input of an executable graph.
pub type Weight = (String, GraphTensor);

/// Measures what groups of weights cost in each of the types whose blocks fit their rows. `cost` executes the graph and says
/// how far its results are from what they were; it is called for each group and type, with the group's weights rounded, and the
/// weights are as before afterwards. Blocks are chosen with what `calibration` knows.
///
/// # Errors
/// Those of `cost`; if a weight has no data or a type cannot hold it.
pub fn measure(
    groups: &[Vec<Weight>],
    types: &[BlockType],
    calibration: &Calibration,
    cost: &mut dyn FnMut() -> Result<f64>,
) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for group in groups {
        let before = group
            .iter()
            .map(|(_, weight)| weight.try_array().map(|x| x.into_f32()));
        let before: Vec<Vec<f32>> = before.collect::<Result<_>>()?;
        let fits = |ty: &BlockType| {
            let rows = group.iter().map(|(_, weight)| row_of(*weight));
            ty.can_quantize()
                && rows
                    .into_iter()
                    .all(|row| row.is_multiple_of(ty.block_len()))
        };
        let mut candidate = |ty: BlockType| {
            let mut bytes = 0;
            for ((name, weight), before) in group.iter().zip(&before) {
                bytes += round_into(*weight, before, ty, (name, calibration))?;
            }
            let cost = cost()?;
            Ok(Candidate { ty, bytes, cost })
        };
        let candidates: Result<_> = types
            .iter()
            .copied()
            .filter(fits)
            .map(&mut candidate)
            .collect();
        for ((_, weight), before) in group.iter().zip(before.iter()) {
            weight.try_set(before.as_slice())?;
        }
        measured.push(Measured {
            names: group.iter().map(|(name, _)| name.clone()).collect(),
            n: before.iter().map(Vec::len).sum(),
            candidates: candidates?,
        });
    }
    Ok(measured)
}

/// The length of a weight's rows.
fn row_of(weight: GraphTensor) -> usize {
    let dims = weight.dims();
    dims.last().and_then(|dim| dim.as_usize()).unwrap_or(1)
}

/// Gives a weight the numbers that blocks of a type hold of `x`; returns the bytes of the blocks.
///
/// # Errors
/// If the blocks cannot hold them, or the weight is no `F32` input.
pub fn round_into(
    weight: GraphTensor,
    x: &[f32],
    ty: BlockType,
    (name, calibration): (&str, &Calibration),
) -> Result<usize> {
    if weight.dtype() != DType::F32 {
        return Err(Error::msg(format!("{name} is {}, not F32", weight.dtype())));
    }
    let bytes = ty.bytes_of(x.len());
    let bytes = bytes.ok_or_else(|| Error::msg(format!("{name} is no whole blocks of {ty}")))?;
    let (mut blocks, mut y) = (vec![0; bytes], vec![0.0; x.len()]);
    let columns = calibration.get(name).map(|stats| stats.mean_squares());
    ty.quantize_by(columns, 0, x, &mut blocks)?;
    ty.dequantize(&blocks, &mut y)?;
    weight.try_set(y)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use BlockType::{F16, Q4_0, Q8_0};

    fn measured(name: &str, n: usize, costs: [f64; 3]) -> Measured {
        let candidates = [F16, Q8_0, Q4_0]
            .into_iter()
            .zip(costs)
            .map(|(ty, cost)| Candidate {
                ty,
                bytes: ty.bytes_of(n).unwrap(),
                cost,
            });
        Measured {
            names: vec![name.into()],
            n,
            candidates: candidates.collect(),
        }
    }

    #[test]
    fn the_plan_is_little_worse_than_the_best_of_all_where_all_can_be_tried() {
        let mut state = 3u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        for bits in [4.6, 5.5, 7.0, 9.0, 12.0, 16.0] {
            let weights: Vec<Measured> = (0..7)
                .map(|i| {
                    let cost = 10f64.powf(-4.0 * next());
                    measured(&i.to_string(), 256, [0.0, cost / 100.0, cost])
                })
                .collect();
            let plan = Plan::within(bits, &weights).unwrap();
            assert!(plan.bits_per_weight() <= bits, "{plan}");
            let mut best = f64::MAX;
            for code in 0..3usize.pow(7) {
                let pick = |i: usize| weights[i].candidates[code / 3usize.pow(i as u32) % 3];
                let bytes: usize = (0..7).map(|i| pick(i).bytes).sum();
                if bytes as f64 * 8.0 <= bits * 7.0 * 256.0 {
                    best = best.min((0..7).map(|i| pick(i).cost).sum());
                }
            }
            // A budget that no change fits exactly leaves less than one change's worth.
            assert!(plan.cost() <= 1.5 * best + 1e-12, "{bits}: {best}\n{plan}");
        }
    }

    #[test]
    fn it_is_never_worse_than_one_type_for_all() {
        let weights = [
            measured("a", 320, [0.0, 0.5, 0.6]),
            measured("b", 3200, [0.0, 0.1, 0.2]),
        ];
        for plan in Plan::uniform(&weights) {
            let found = Plan::within(plan.bits_per_weight(), &weights).unwrap();
            assert!(found.cost() <= plan.cost(), "{found}\n{plan}");
        }
    }

    #[test]
    fn a_budget_that_is_too_small_is_an_error_that_says_what_is_possible() {
        let weights = [measured("a", 320, [0.0, 0.5, 0.6])];
        let why = Plan::within(4.0, &weights).unwrap_err().to_string();
        assert!(why.contains("4.5"), "{why}");
        assert_eq!(Plan::within(4.5, &weights).unwrap().get("a"), Some(Q4_0));
        assert_eq!(Plan::within(99.0, &weights).unwrap().get("a"), Some(F16));
        assert!(
            Plan::within(
                99.0,
                &[Measured {
                    names: vec![],
                    n: 0,
                    candidates: vec![]
                }]
            )
            .is_err()
        );
    }
}
