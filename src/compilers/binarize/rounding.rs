//! Layers that a plan picks → the same with rounded weights and activations, through which gradients flow.
//!
//! ```text
//! %2 = mul(%1 {..}, %0 {..})            %5 = fake_quantize<a8_tok>(%1) : f32[s, 64]
//! %3 = sum_reduce<2>(%2) : f32[s, 9] →  %6 = mul(%5 {..}, %4 {..}); %7 = sum_reduce<2>(%6) : f32[s, 9]
//! ```
//! where `%4` are the weights `%0`, rounded as `nn::LowBit` does. The graph then computes what [`Binarize`] makes of the
//! plain one, up to the rounding of sums (scales are multiplied before adding), and any model can be trained so without
//! being written for it. Afterwards its weights go into the plain graph, which is compiled with the same [`Binarize`].
//!
//! Gradients reach activations that become signs where they are small: at most 1, or, where signs are scaled by the
//! mean magnitude of their row, at most twice that; and activations of 4 and 2 bits within the levels. No gradient flows
//! through the mean.
//!
//! What it deliberately does not do: several bases.

use super::layers::{Product, find};
use super::site::{Operand, Site};
use super::{Binarize, Choice, SignActivations};
use crate::compilers::{Compiler, Pass, PassList, Report};
use crate::error::{Error, Result};
use crate::graph::{Dag, Graph, GraphTensor, NodeIndex, NodeRef, Patch, ValueId};
use crate::nn::{LowBit, Parameters};
use crate::op::{ActivationScheme, BinaryOp, Op, ReduceOp};
use crate::shape::Dims;

/// What weights of layers are rounded to while a network is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrainedWeights {
    /// 8 bits with a scale for each row: a first stage on the way to fewer.
    Bytes,
    /// Signs or three values, with these estimators. What it says of inputs is not looked at.
    Signs(LowBit),
}

impl TrainedWeights {
    /// The numbers that a weight stands for.
    #[track_caller]
    fn rounded(self, w: GraphTensor) -> GraphTensor {
        match self {
            TrainedWeights::Bytes => w.fake_quantize(ActivationScheme::A8Tok),
            TrainedWeights::Signs(low_bit) => {
                let (units, scales) = low_bit.weight(w);
                units * scales.unsqueeze(-1)
            }
        }
    }
}

impl Binarize {
    /// Writes into a recorded graph the rounding of the layers that this compiler would store, so that `params`, the
    /// latent weights, can be trained: to be called before `Autograd`. A hit of the report's only pass is a product.
    ///
    /// ```
    /// use brain_blitz::compilers::binarize::TrainedWeights;
    /// use brain_blitz::nn::{Linear, LowBit, Module};
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let layer = Linear::new(&mut cx, 2, 2, false);
    /// layer.weight.set([[0.3, -0.1], [0.5, 0.5]]); // signs times 0.2 and 0.5
    /// let y = layer.forward(cx.input((1, 2), DType::F32).set([[127.0, 27.0]])).retrieve();
    /// let weights = TrainedWeights::Signs(LowBit::w1a8());
    /// let report = Binarize::w1a8().with_ends().round_for_training(&mut cx, &layer.parameters(), weights)?;
    /// assert_eq!(report.hits("round-layers"), 1, "{report}");
    /// let dw = cx.compile(Autograd::new(layer.weight, y), ())[0].retrieve();
    /// cx.execute();
    /// assert!((y.data()[0] - 20.0).abs() < 1e-4 && dw.data()[0] != 0.0);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the plan asks for several bases, or a picked weight is not `F32`.
    #[track_caller]
    pub fn round_for_training(
        &self,
        cx: &mut Graph,
        params: &Parameters,
        weights: TrainedWeights,
    ) -> Result<Report> {
        let mut notes = Vec::new();
        let picked = cx.inspect(|dag| self.picked(dag, params, &mut notes))?;
        let rounded = |(node, tensor, activations): (NodeIndex, GraphTensor, SignActivations)| {
            let value = weights.rounded(tensor).value;
            (node, value, activations)
        };
        let layers = picked.into_iter().map(rounded).collect();
        cx.try_compile(RoundLayers { layers, notes }, ())
    }

    /// The weights among `params` that the plan picks, and what their activations become.
    fn picked(
        &self,
        dag: &Dag,
        params: &Parameters,
        notes: &mut Vec<String>,
    ) -> Result<Vec<(NodeIndex, GraphTensor, SignActivations)>> {
        let mut out = Vec::new();
        for found in find(dag)? {
            let name = &found.layer.name;
            let choice = match found.obstacle {
                Some(why) => Choice::Stay(why.into()),
                None => self.choose(&found.layer),
            };
            let scheme = match choice {
                Choice::Stay(why) => {
                    notes.push(format!("{name} stays: {why}"));
                    continue;
                }
                Choice::Binarize(scheme, _) => scheme,
            };
            let mut tensors = params.iter().map(|(_, tensor)| tensor);
            let is_it = |tensor: &GraphTensor| {
                let source = dag.source(tensor.value);
                source.is_ok_and(|source| source.node == found.weight)
            };
            let Some(tensor) = tensors.find(is_it) else {
                notes.push(format!("{name} stays: it is no parameter"));
                continue;
            };
            if scheme.bases > 1 && !scheme.fit.ternary {
                return Err(Error::msg(format!(
                    "{name}: several bases are not trained; choose one base, or three values"
                )));
            }
            notes.push(format!("{name} is rounded"));
            out.push((found.weight, tensor, scheme.activations));
        }
        Ok(out)
    }
}

/// Products with some inputs → products with what these are rounded to.
struct RoundLayers {
    layers: Vec<(NodeIndex, ValueId, SignActivations)>,
    notes: Vec<String>,
}

impl Compiler for RoundLayers {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(RoundLayers {
            layers: self.layers.clone(),
            notes: self.notes.clone(),
        });
    }
}

impl Pass for RoundLayers {
    fn name(&self) -> &str {
        "round-layers"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for &(weight, value, activations) in &self.layers {
            let rounded = dag.source(value)?.node;
            let size = |at: usize| dag.node(weight).ty.dims[at].as_usize();
            let sizes = size(0).zip(size(1)).expect("layers have known sizes");
            for (mul, slot, view) in dag.readers(weight) {
                let products = Product::all_of(dag, mul, (slot, view), sizes);
                for product in products.into_iter().flatten() {
                    write(&mut patch, dag, product, rounded, activations)?;
                }
            }
        }
        Ok(patch)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

/// The product again, of what is rounded.
fn write(
    patch: &mut Patch,
    dag: &Dag,
    product: Product,
    weight: NodeIndex,
    activations: SignActivations,
) -> Result<()> {
    let Product { sum, mul, k, .. } = product;
    let site = Site { dag, at: sum };
    let mut operands: Vec<Operand> = dag
        .operands(mul)
        .into_iter()
        .map(|(node, view)| (NodeRef::Old(node), view.clone()))
        .collect();
    operands[product.weight].0 = NodeRef::Old(weight);
    let (x, view) = &operands[1 - product.weight];
    let walked = (0..view.rank()).filter(|&axis| axis != k && view.walks(axis));
    let walked: Vec<usize> = walked.chain([k]).collect();
    let (rows, back) = view.written_out(&walked).expect("axes of the view");
    let rows = (*x, rows);
    let factor = match activations {
        SignActivations::Kept => None,
        SignActivations::Bytes | SignActivations::FourBits | SignActivations::TwoBits => {
            let scheme = activations.scheme().expect("these are rounded");
            Some(site.add(patch, Op::FakeQuantize(scheme), vec![rows])?)
        }
        SignActivations::Signs => {
            let dims: Dims = rows.1.dims().iter().copied().collect();
            let one = site.constant(patch, 1.0, &dims)?;
            Some(sign(patch, &site, rows, [one.clone(), one])?)
        }
        SignActivations::ScaledSigns => {
            let (columns, last) = (rows.1.dims()[walked.len() - 1], walked.len() - 1);
            let n = columns.as_usize().expect("layers have known sizes");
            let size = site.mean_magnitude(patch, rows.clone(), n)?;
            let size = site.add(patch, Op::Detach, vec![site.whole(patch, size)])?;
            let twice = site.whole(patch, size);
            let two = site.constant(patch, 2.0, twice.1.dims())?;
            let twice = site.add(patch, Op::Binary(BinaryOp::Mul), vec![twice, two])?;
            let over = |patch: &Patch, node: NodeRef| {
                let (node, view) = site.whole(patch, node);
                let view = view.insert(last, columns).expect("an axis of the rows");
                (node, view)
            };
            let sizes = [over(patch, size), over(patch, twice)];
            Some(sign(patch, &site, rows, sizes)?)
        }
    };
    if let Some(factor) = factor {
        operands[1 - product.weight] = (factor, back);
    }
    let products = site.add(patch, Op::Binary(BinaryOp::Mul), operands)?;
    let products = site.whole(patch, products);
    let axes = [k].into_iter().collect();
    let out = site.add(patch, Op::Reduce(ReduceOp::Sum, axes), vec![products])?;
    patch.replace_with(dag, sum, out);
    Ok(())
}

/// Signs of this size, through which gradients flow where |x| is at most the limit.
fn sign(
    patch: &mut Patch,
    site: &Site<'_>,
    x: Operand,
    [size, limit]: [Operand; 2],
) -> Result<NodeRef> {
    let dims: Dims = x.1.dims().iter().copied().collect();
    let zero = site.constant(patch, 0.0, &dims)?;
    let minus = site.constant(patch, -1.0, &dims)?;
    let turned = |patch: &mut Patch, what: &Operand| {
        let operands = vec![what.clone(), minus.clone()];
        let node = site.add(patch, Op::Binary(BinaryOp::Mul), operands)?;
        Ok::<Operand, Error>(site.whole(patch, node))
    };
    let less = Op::Binary(BinaryOp::LessThan);
    let below = site.add(patch, less.clone(), vec![x.clone(), zero])?;
    let choice = vec![site.whole(patch, below), turned(patch, &size)?, size];
    let value = site.add(patch, Op::Select, choice)?;
    let detached = site.add(patch, Op::Detach, vec![x.clone()])?;
    let detached = site.whole(patch, detached);
    let above = site.add(patch, less.clone(), vec![limit.clone(), x.clone()])?;
    let lowest = turned(patch, &limit)?;
    let under = site.add(patch, less, vec![x.clone(), lowest])?;
    let choice = vec![site.whole(patch, above), detached.clone(), x];
    let passed = site.add(patch, Op::Select, choice)?;
    let passed = site.whole(patch, passed);
    let choice = vec![site.whole(patch, under), detached, passed];
    let passed = site.add(patch, Op::Select, choice)?;
    let operands = vec![site.whole(patch, value), site.whole(patch, passed)];
    site.add(patch, Op::StraightThrough, operands)
}
