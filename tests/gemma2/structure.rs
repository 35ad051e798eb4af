//! What the compiled model is made of.

use brain_blitz::op::{KernelStep, Op, ReduceOp};

use crate::support::{folder, golden, session};

#[test]
fn every_product_is_a_contraction_and_nothing_falls_back() {
    for name in ["tiny", "odd", "bf16"] {
        for cpu in ["scalar", "x86-64-v3", "native"] {
            let session = session(&folder(name), cpu, 1);
            let layers = session.config().num_hidden_layers();
            let notes = session.info().report.notes();
            let fallbacks = notes
                .iter()
                .filter(|note| note.contains("reference executor"));
            assert_eq!(fallbacks.count(), 0, "{name} on {cpu}: {notes:#?}");
            // Seven projections in each layer, two of them (gate and up) in one kernel with what joins them, and the output
            // layer; a layer's attention is one kernel with two products.
            let (products, kernels, attention, rest) = session.graph().inspect(|dag| {
                let (mut products, mut kernels, mut attention, mut rest) = (0, 0, 0, Vec::new());
                for id in dag.ids() {
                    match &dag.node(id).op {
                        Op::Kernel(kernel) if kernel.code().is_some() => {
                            if kernel.name().contains("contraction") {
                                kernels += 1;
                                products += sums(kernel.steps());
                            }
                            attention += usize::from(kernel.name() == "attention");
                        }
                        Op::Input { .. } | Op::Scatter { .. } => {}
                        _ => rest.push(dag.describe(id)),
                    }
                }
                (products, kernels, attention, rest)
            });
            assert_eq!(products, 7 * layers + 1, "{name} on {cpu}");
            assert_eq!(kernels, 6 * layers + 1, "{name} on {cpu}");
            assert_eq!(attention, layers, "{name} on {cpu}");
            assert_eq!(rest, Vec::<String>::new(), "{name} on {cpu}: not compiled");
        }
    }
}

fn sums(steps: &[KernelStep]) -> usize {
    let is_sum = |step: &&KernelStep| matches!(step.op, Op::Reduce(ReduceOp::Sum, _));
    steps.iter().filter(is_sum).count()
}

#[test]
fn caches_grow_by_their_new_rows_only() {
    for name in ["tiny", "odd", "bf16"] {
        let mut session = session(&folder(name), "native", 1);
        let config = session.config();
        let row = config.num_key_value_heads() * config.head_dim() * size_of::<f32>();
        let per_token = 2 * config.num_hidden_layers() * row;
        let prompt = golden(name).prompt;
        for tokens in [&prompt[..], &prompt[..1], &prompt[..5]] {
            session.feed(tokens).unwrap();
            let written = session.stats().state_bytes_written;
            assert_eq!(written, per_token * tokens.len(), "{name}");
        }
    }
}

#[test]
fn norms_and_attention_weights_are_one_kernel_each() {
    for name in ["tiny", "odd", "bf16"] {
        for cpu in ["scalar", "x86-64-v3", "native"] {
            let session = session(&folder(name), cpu, 1);
            let layers = session.config().num_hidden_layers();
            let (mut weights, mut norms, mut others) = (0, 0, Vec::new());
            session.graph().inspect(|dag| {
                for id in dag.ids() {
                    let Op::Kernel(kernel) = &dag.node(id).op else {
                        continue;
                    };
                    let kinds: Vec<ReduceOp> = kernel
                        .steps()
                        .iter()
                        .filter_map(|step| match step.op {
                            Op::Reduce(kind, _) => Some(kind),
                            _ => None,
                        })
                        .collect();
                    let last = kernel.steps().last().map(|step| step.op.clone());
                    let per_point = !matches!(last, Some(Op::Reduce(..)));
                    match kinds[..] {
                        [] => {}
                        _ if kernel.name().contains("contraction") => {}
                        // Between the two products.
                        [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Sum, ReduceOp::Sum] => {
                            weights += 1
                        }
                        // The last layer's norm and the model's are one kernel.
                        [ReduceOp::Sum] | [ReduceOp::Sum, ReduceOp::Sum] if per_point => {
                            norms += kinds.len();
                        }
                        _ => others.push(dag.describe(id)),
                    }
                }
            });
            // Scores are capped, masked and normalised; a layer has a norm before and after attention and feed forward.
            assert_eq!(weights, layers, "{name} on {cpu}");
            assert_eq!(norms, 4 * layers + 1, "{name} on {cpu}");
            assert_eq!(others, Vec::<String>::new(), "{name} on {cpu}");
        }
    }
}
