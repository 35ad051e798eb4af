//! `Quantize`: what it stores how, what it leaves alone, and that native code computes what the graph says.

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::Quantize;
use brain_blitz::op::{ActivationScheme, Op};
use brain_blitz::prelude::*;

#[path = "support/inputs.rs"]
mod inputs;
use inputs::{input, numbers};

/// Two layers with a table in front whose rows are looked up, and which is multiplied by in the end, as language
/// models have it.
struct Net {
    cx: Graph,
    weights: Vec<GraphTensor>,
    y: GraphTensor,
}

fn net(dtype: DType) -> Net {
    let mut cx = Graph::new();
    let weight = |cx: &mut Graph, dims: (usize, usize), name: &str| {
        let w = cx.input(dims, dtype).set_name(name);
        w.set(numbers(dims.0 * dims.1, dims.0))
    };
    let table = weight(&mut cx, (50, 64), "table.weight");
    let up = weight(&mut cx, (96, 64), "up.weight");
    let down = weight(&mut cx, (64, 96), "down.weight");
    let ids = cx.input('s', DType::I32).set(vec![3, 49, 0]);
    let norm = input(&mut cx, &[64], 5);
    let wide = |w: GraphTensor| w.cast(DType::F32);
    let x = wide(table.index_select(0, ids));
    let x = x * norm;
    let hidden = x.matmul(wide(up).transpose(0, 1)).tanh();
    let x = x + hidden.matmul(wide(down).transpose(0, 1));
    let y = x.matmul(wide(table).transpose(0, 1)).retrieve();
    cx.set_dim('s', 3);
    Net {
        cx,
        weights: vec![table, up, down],
        y,
    }
}

fn ops(cx: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    cx.inspect(|dag| dag.ids().filter(|&id| is(&dag.node(id).op)).count())
}

/// The graph with decoded weights and rounded activations, written by hand.
fn by_hand(net: &mut Net, ty: BlockType) -> Vec<f32> {
    let decoded = |w: &GraphTensor| -> Vec<f32> {
        let x = w.array().cast(DType::F32).to_f32();
        let mut bytes = vec![0; ty.bytes_of(x.len()).unwrap()];
        ty.quantize(&x, &mut bytes).unwrap();
        let mut y = vec![0.0; x.len()];
        ty.dequantize(&bytes, &mut y).unwrap();
        y
    };
    net.cx.execute();
    let [table, up, down] = [0, 1, 2].map(|i| decoded(&net.weights[i]));
    let mut cx = Graph::new();
    let weight =
        |cx: &mut Graph, dims: (usize, usize), data: &[f32]| cx.input(dims, DType::F32).set(data);
    let table = weight(&mut cx, (50, 64), &table);
    let up = weight(&mut cx, (96, 64), &up);
    let down = weight(&mut cx, (64, 96), &down);
    let ids = cx.input(3, DType::I32).set(vec![3, 49, 0]);
    let norm = input(&mut cx, &[64], 5);
    let rounded = |x: GraphTensor| x.fake_quantize(ActivationScheme::for_weights(ty));
    let x = table.index_select(0, ids) * norm;
    let hidden = rounded(x).matmul(up.transpose(0, 1)).tanh();
    let x = x + rounded(hidden).matmul(down.transpose(0, 1));
    let y = rounded(x).matmul(table.transpose(0, 1)).retrieve();
    cx.execute();
    y.data()
}

#[test]
fn the_annotated_graph_computes_with_blocks_and_rounded_activations() {
    for dtype in [DType::F32, DType::BF16] {
        for ty in [BlockType::Q8_0, BlockType::Q4_0] {
            let expected = by_hand(&mut net(dtype), ty);
            let mut net = net(dtype);
            let report = net.cx.compile((Generic, Quantize::blocks(ty), Generic), ());
            assert_eq!(report.stored.len(), 3, "{report}");
            assert_eq!(report.hits("round-activations"), 3, "{report}");
            net.cx.execute();
            assert_eq!(net.y.data(), expected, "{dtype} {ty}");
            let bytes: usize = report.stored.iter().map(|stored| stored.bytes).sum();
            assert_eq!(bytes, ty.bytes_of(50 * 64 + 2 * 96 * 64).unwrap());
        }
    }
}

#[test]
fn rows_of_the_table_are_looked_up_in_bytes() {
    let mut net = net(DType::BF16);
    net.cx.compile((Generic, Quantize::q8_0(), Generic), ());
    let gathers_bytes = net.cx.inspect(|dag| {
        let mut ids = dag.ids();
        ids.any(|id| {
            matches!(dag.node(id).op, Op::Gather { .. }) && dag.node(id).ty.dtype == DType::U8
        })
    });
    assert!(gathers_bytes, "{}", net.cx.to_text());
    // One table, decoded for the product and for the rows; two layers; no cast back to 16 bits.
    assert_eq!(ops(&net.cx, |op| matches!(op, Op::Dequantize(_))), 4);
    assert_eq!(ops(&net.cx, |op| matches!(op, Op::Cast(DType::BF16))), 0);
}

#[test]
fn handles_go_on_standing_for_the_numbers() {
    let expected = by_hand(&mut net(DType::F32), BlockType::Q8_0);
    let mut net = net(DType::F32);
    let data: Vec<Vec<f32>> = net.weights.iter().map(|w| w.array().to_f32()).collect();
    for weight in &net.weights {
        weight.set_zeros();
    }
    net.cx.compile((Generic, Quantize::q8_0()), ());
    // Numbers, and blocks as they are.
    net.weights[0].set(data[0].clone());
    for (weight, data) in net.weights.iter().zip(&data).skip(1) {
        let mut bytes = vec![0; BlockType::Q8_0.bytes_of(data.len()).unwrap()];
        BlockType::Q8_0.quantize(data, &mut bytes).unwrap();
        weight.try_set_shared(std::sync::Arc::new(bytes)).unwrap();
    }
    net.cx.execute();
    assert_eq!(net.y.data(), expected);
    let short = std::sync::Arc::new(vec![0u8; 34]);
    assert!(net.weights[1].try_set_shared(short).is_err());
}

#[test]
fn a_weight_that_is_read_stays() {
    let mut net = net(DType::F32);
    net.weights[1].retrieve();
    let report = net.cx.compile((Generic, Quantize::q8_0()), ());
    assert_eq!(report.stored.len(), 2, "{report}");
}

#[test]
fn other_uses_of_inputs_stay() {
    let mut cx = Graph::new();
    let x = input(&mut cx, &[4, 64], 1);
    let columns = input(&mut cx, &[64, 32], 2);
    let odd = input(&mut cx, &[8, 40], 3);
    let added = input(&mut cx, &[4, 64], 4);
    let a = x.matmul(columns).retrieve();
    let b = x
        .slice_axis(1, 0, 40)
        .matmul(odd.transpose(0, 1))
        .retrieve();
    let c = (x + added).retrieve();
    cx.execute();
    let expected = [a, b, c].map(|t| t.data());
    let report = cx.compile((Generic, Quantize::q8_0()), ());
    assert!(report.stored.is_empty(), "{report}");
    let notes = report.notes().join("\n");
    assert!(notes.contains("no whole blocks of 32"), "{notes}");
    cx.execute();
    assert_eq!([a, b, c].map(|t| t.data()), expected);
}

#[test]
fn a_plan_names_types() {
    let mut net = net(DType::F32);
    let plan = |name: &str| match name {
        "table.weight" => Some(BlockType::Q8_0),
        "up.weight" => Some(BlockType::Q4_0),
        _ => None,
    };
    let report = net
        .cx
        .compile((Generic, Quantize::mixed(plan).weights_only()), ());
    let types: Vec<_> = report
        .stored
        .iter()
        .map(|s| (s.name.as_str(), s.ty))
        .collect();
    assert_eq!(
        types,
        [
            ("table.weight", BlockType::Q8_0),
            ("up.weight", BlockType::Q4_0)
        ]
    );
    assert_eq!(ops(&net.cx, |op| matches!(op, Op::FakeQuantize(_))), 0);
    let errors: Vec<f64> = report.stored.iter().map(|s| s.rmse).collect();
    assert!(errors[0] > 0.0 && errors[1] > 8.0 * errors[0], "{report}");
}

#[test]
fn numbers_that_blocks_cannot_hold_are_an_error() {
    let mut cx = Graph::new();
    let x = input(&mut cx, &[1, 32], 1);
    let mut data = numbers(64, 2);
    data[40] = f32::NAN;
    let w = cx.input((2, 32), DType::F32).set_name("w.weight").set(data);
    x.matmul(w.transpose(0, 1)).retrieve();
    let error = cx
        .try_compile((Generic, Quantize::q8_0()), ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("w.weight") && error.contains("element 40"),
        "{error}"
    );
}

/// Also where threads and pieces share the work.
#[test]
fn a_number_in_a_large_weight_is_named_by_its_place_in_it() {
    let graph = || {
        let mut cx = Graph::new();
        let x = input(&mut cx, &[1, 32], 1);
        let mut data = numbers(6000 * 32, 2);
        data[150_001] = f32::NAN;
        let w = cx.input((6000, 32), DType::F32).set_name("w.weight");
        x.matmul(w.set(data).transpose(0, 1)).retrieve();
        cx
    };
    let blocks = graph().try_compile((Generic, Quantize::q8_0()), ());
    let signs = graph().try_compile((Generic, Binarize::w1a8().with_ends()), ());
    for error in [blocks, signs] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("element 150001 "), "{error}");
    }
}

#[cfg(feature = "llvm-backend")]
mod native {
    use super::*;

    #[test]
    fn products_run_on_blocks_and_agree_with_the_annotated_graph() {
        for dtype in [DType::F32, DType::BF16] {
            for ty in [BlockType::Q8_0, BlockType::Q4_0] {
                let expected = by_hand(&mut net(dtype), ty);
                for target in ["native", "x86-64-v3", "scalar"] {
                    let mut net = net(dtype);
                    let compilers = (Generic, Quantize::blocks(ty), LlvmCpu::for_cpu(target));
                    let report = net.cx.compile(compilers, ());
                    assert_eq!(report.hits("block-products"), 3, "{report}");
                    net.cx.execute();
                    for (a, b) in net.y.data().iter().zip(&expected) {
                        assert!(
                            (a - b).abs() < 1e-3 * (1.0 + b.abs()),
                            "{target} {ty}: {a} {b}"
                        );
                    }
                    let stats = net.cx.stats();
                    let decoded = 4 * 64 * 50;
                    assert!(stats.arena_bytes < decoded, "{} bytes", stats.arena_bytes);
                    assert_eq!(stats.steps, stats.native_steps, "{report}");
                }
            }
        }
    }
}
