//! Layers against PyTorch's (`tests/data/torch/make_layers.py`), by name, on the reference and compiled.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use brain_blitz::array::Array;
use brain_blitz::nn::{
    Activation, BatchNorm, Cfc, CfcConfig, Gru, LayerNorm, Lstm, Module, RecurrentConfig, Rnn,
    TransformerConfig, TransformerDecoderLayer, TransformerEncoder, TransformerEncoderLayer,
};
use brain_blitz::prelude::*;
use safetensors::SafeTensors;

fn tensors() -> &'static BTreeMap<String, Array> {
    static TENSORS: OnceLock<BTreeMap<String, Array>> = OnceLock::new();
    TENSORS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(root.join("tests/data/torch/layers.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let array = Array::from_bytes(view.shape().to_vec(), DType::F32, view.data());
            (name, array)
        };
        file.tensors().into_iter().map(read).collect()
    })
}

/// The tensors `case/group/0`, `case/group/1` ...
fn numbered(case: &str, group: &str) -> Vec<&'static Array> {
    let get = |i: usize| tensors().get(&format!("{case}/{group}/{i}"));
    (0..).map_while(get).collect()
}

/// The inputs of a case.
fn inputs(cx: &mut Graph, case: &str) -> Vec<GraphTensor> {
    let arrays = numbered(case, "in").into_iter();
    arrays
        .map(|array| cx.input(array.dims(), DType::F32).set(array.clone()))
        .collect()
}

/// Gives a module the case's parameters: exactly those that it has.
fn load(case: &str, module: &impl Module) {
    let start = format!("{case}/param/");
    let mut stored: BTreeMap<&str, &Array> = tensors()
        .iter()
        .filter_map(|(name, array)| Some((name.strip_prefix(&start)?, array)))
        .collect();
    for (name, tensor) in module.parameters().iter() {
        let array = stored.remove(name);
        let array = array.unwrap_or_else(|| panic!("{case}: torch has no {name}"));
        tensor.set(array.clone());
    }
    assert!(stored.is_empty(), "{case}: {:?} left over", stored.keys());
}

fn close(what: &str, got: &Array, want: &Array) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    for (i, (got, want)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let error = (got - want).abs();
        assert!(
            error <= 1e-5 + 1e-5 * want.abs(),
            "{what}: element {i} is {got}, not {want}"
        );
    }
}

/// Compares what `build` records for a case's inputs with torch's results.
fn check(case: &str, build: impl Fn(&mut Graph, &[GraphTensor]) -> Vec<GraphTensor>) {
    for compiled in [false, true] {
        let mut cx = Graph::new();
        let inputs = inputs(&mut cx, case);
        let outputs = build(&mut cx, &inputs);
        for output in &outputs {
            output.retrieve();
        }
        if compiled {
            cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
        cx.execute();
        let wanted = numbered(case, "out");
        assert_eq!(outputs.len(), wanted.len(), "{case}");
        for (i, (output, wanted)) in outputs.iter().zip(wanted).enumerate() {
            let what = format!("{case}, result {i}, compiled: {compiled}");
            close(&what, &output.array(), wanted);
        }
    }
}

fn stacked(layers: usize) -> RecurrentConfig {
    RecurrentConfig {
        layers,
        ..RecurrentConfig::new(3, 4)
    }
}

#[test]
fn recurrent_layers_walk_both_ways() {
    check("rnn", |cx, inputs| {
        let config = RecurrentConfig {
            bidirectional: true,
            ..stacked(2)
        };
        let mut layer = Rnn::new(cx, config);
        layer.activation = Activation::Relu;
        load("rnn", &layer);
        let (out, h) = layer.run(inputs[0], Some(inputs[1]));
        vec![out, h]
    });
    check("lstm", |cx, inputs| {
        let config = RecurrentConfig {
            bidirectional: true,
            batch_first: true,
            ..stacked(2)
        };
        let layer = Lstm::new(cx, config);
        load("lstm", &layer);
        let (out, (h, c)) = layer.run(inputs[0], Some((inputs[1], inputs[2])));
        vec![out, h, c]
    });
    check("gru", |cx, inputs| {
        let config = RecurrentConfig {
            bias: false,
            ..stacked(2)
        };
        let layer = Gru::new(cx, config);
        load("gru", &layer);
        let (out, h) = layer.run(inputs[0], None);
        vec![out, h]
    });
    check("gru_two_ways", |cx, inputs| {
        let config = RecurrentConfig {
            bidirectional: true,
            ..stacked(1)
        };
        let layer = Gru::new(cx, config);
        load("gru_two_ways", &layer);
        let (out, h) = layer.run(inputs[0], None);
        vec![out, h]
    });
}

#[test]
fn closed_form_cells_take_gaps_of_time() {
    check("cfc", |cx, inputs| {
        let config = CfcConfig {
            input: 3,
            hidden: 4,
            backbone: 6,
            backbone_layers: 2,
        };
        let layer = Cfc::new(cx, config);
        load("cfc", &layer);
        let (out, h) = layer.run(inputs[0], Some(inputs[1]), Some(inputs[2]));
        vec![out, h]
    });
}

#[test]
fn transformer_layers_norm_before_or_after() {
    let configs = [
        ("after", false, Activation::Relu),
        ("first", true, Activation::Gelu),
    ];
    for (name, norm_first, activation) in configs {
        let config = TransformerConfig {
            norm_first,
            activation,
            eps: 1e-3,
            ..TransformerConfig::new(8, 2, 12)
        };
        let case = format!("encoder_{name}");
        check(&case, |cx, inputs| {
            let layer = TransformerEncoderLayer::new(cx, config);
            load(&case, &layer);
            vec![layer.forward(inputs[0])]
        });
        let case = format!("decoder_{name}");
        check(&case, |cx, inputs| {
            let layer = TransformerDecoderLayer::new(cx, config);
            load(&case, &layer);
            vec![layer.forward(inputs[0], inputs[1])]
        });
    }
    check("encoder_stack", |cx, inputs| {
        let config = TransformerConfig {
            eps: 1e-3,
            ..TransformerConfig::new(8, 4, 12)
        };
        let mut encoder = TransformerEncoder::new(cx, config, 2);
        encoder.norm = Some(LayerNorm::new(cx, 8, 1e-5));
        load("encoder_stack", &encoder);
        vec![encoder.forward(inputs[0])]
    });
}

#[test]
fn batch_norm_carries_its_statistics() {
    let wanted = numbered("batch_norm", "out");
    for compiled in [false, true] {
        let mut cx = Graph::new();
        let inputs = numbered("batch_norm", "in");
        let mut norm = BatchNorm::new(&mut cx, 3);
        (norm.eps, norm.momentum, norm.training) = (1e-2, 0.3, true);
        load("batch_norm", &norm);
        let x = cx.input(inputs[0].dims(), DType::F32);
        let y = norm.forward(x).retrieve();
        // The same layer in a model that is used.
        norm.training = false;
        let used = norm.forward(x).retrieve();
        if compiled {
            cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
        for step in 0..2 {
            x.set(inputs[step].clone());
            cx.execute();
            let found = [y, norm.running_mean, norm.running_var];
            for (i, found) in found.iter().enumerate() {
                let what = format!("step {step}, result {i}, compiled: {compiled}");
                close(&what, &found.array(), wanted[3 * step + i]);
            }
        }
        x.set(inputs[2].clone());
        cx.execute();
        close("used", &used.array(), wanted[6]);
    }
}
