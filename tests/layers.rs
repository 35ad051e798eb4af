//! Layers against PyTorch's (`tests/data/torch/make_layers.py`), by name, on the reference and compiled: results, and
//! gradients by inputs and parameters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use brain_blitz::array::Array;
use brain_blitz::hl_ops::{Conv, Divisor, Padding, Pool};
use brain_blitz::nn::{
    Activation, AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, BatchNorm, Cfc, CfcConfig, Conv1d,
    Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, GroupNorm, Gru,
    InstanceNorm, Layer, LayerNorm, Lstm, MaxPool, Module, Parameters, RecurrentConfig, Rnn,
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
fn load(case: &str, module: &(impl Module + ?Sized)) -> Parameters {
    let start = format!("{case}/param/");
    let mut stored: BTreeMap<&str, &Array> = tensors()
        .iter()
        .filter_map(|(name, array)| Some((name.strip_prefix(&start)?, array)))
        .collect();
    let parameters = module.parameters();
    for (name, tensor) in parameters.iter() {
        let array = stored.remove(name);
        let array = array.unwrap_or_else(|| panic!("{case}: torch has no {name}"));
        tensor.set(array.clone());
    }
    assert!(stored.is_empty(), "{case}: {:?} left over", stored.keys());
    parameters
}

fn close(what: &str, got: &Array, want: &Array) {
    within(what, got, want, 1e-5);
}

fn within(what: &str, got: &Array, want: &Array, relative: f64) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    for (i, (got, want)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let error = (got - want).abs();
        assert!(
            error <= 1e-5 + relative * want.abs(),
            "{what}: element {i} is {got}, not {want}"
        );
    }
}

/// What a layer makes of inputs, and its parameters.
type Built = (Vec<GraphTensor>, Parameters);

/// `linspace(0.5, 1.5)` in the shape of a result.
fn cotangent(cx: &mut Graph, of: &Array) -> GraphTensor {
    let n: usize = of.dims().iter().product();
    let step = 1.0 / (n.max(2) - 1) as f64;
    let numbers: Vec<f64> = (0..n).map(|i| 0.5 + i as f64 * step).collect();
    cx.input(of.dims(), DType::F32).set(numbers)
}

/// Compares what `build` records for a case's inputs with torch's results and gradients.
fn check(case: &str, build: impl Fn(&mut Graph, &[GraphTensor]) -> Built) {
    for compiled in [false, true] {
        let mut cx = Graph::new();
        let inputs = inputs(&mut cx, case);
        let (outputs, parameters) = build(&mut cx, &inputs);
        for output in &outputs {
            output.retrieve();
        }
        let wanted = numbered(case, "out");
        assert_eq!(outputs.len(), wanted.len(), "{case}");
        let cotangents: Vec<GraphTensor> = wanted.iter().map(|w| cotangent(&mut cx, w)).collect();
        let gradient = Autograd::new((&inputs, &parameters), &outputs).weighted(cotangents);
        let gradients = cx.compile(gradient, ());
        gradients
            .iter()
            .for_each(|gradient| _ = gradient.retrieve());
        if compiled {
            cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
        cx.execute();
        for (i, (output, wanted)) in outputs.iter().zip(wanted).enumerate() {
            let what = format!("{case}, result {i}, compiled: {compiled}");
            close(&what, &output.array(), wanted);
        }
        let of_inputs = (0..inputs.len()).map(|i| format!("grad_in/{i}"));
        let of_parameters = parameters
            .iter()
            .map(|(name, _)| format!("grad_param/{name}"));
        let names: Vec<String> = of_inputs.chain(of_parameters).collect();
        assert_eq!(names.len(), gradients.len());
        for (name, gradient) in names.iter().zip(gradients.iter()) {
            let what = format!("{case}, {name}, compiled: {compiled}");
            let wanted = tensors().get(&format!("{case}/{name}"));
            let wanted = wanted.unwrap_or_else(|| panic!("{what}: torch has none"));
            within(&what, &gradient.array(), wanted, 1e-4);
        }
    }
}

/// Compares a layer of one input and one result.
fn check_layer<L: Layer>(case: &str, make: impl Fn(&mut Graph) -> L) {
    check(case, |cx, inputs| {
        let layer = make(cx);
        let parameters = load(case, &layer);
        (vec![layer.forward(inputs[0])], parameters)
    });
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
        let parameters = load("rnn", &layer);
        let (out, h) = layer.run(inputs[0], Some(inputs[1]));
        (vec![out, h], parameters)
    });
    check("lstm", |cx, inputs| {
        let config = RecurrentConfig {
            bidirectional: true,
            batch_first: true,
            ..stacked(2)
        };
        let layer = Lstm::new(cx, config);
        let parameters = load("lstm", &layer);
        let (out, (h, c)) = layer.run(inputs[0], Some((inputs[1], inputs[2])));
        (vec![out, h, c], parameters)
    });
    check("gru", |cx, inputs| {
        let config = RecurrentConfig {
            bias: false,
            ..stacked(2)
        };
        let layer = Gru::new(cx, config);
        let parameters = load("gru", &layer);
        let (out, h) = layer.run(inputs[0], None);
        (vec![out, h], parameters)
    });
    check("gru_two_ways", |cx, inputs| {
        let config = RecurrentConfig {
            bidirectional: true,
            ..stacked(1)
        };
        let layer = Gru::new(cx, config);
        let parameters = load("gru_two_ways", &layer);
        let (out, h) = layer.run(inputs[0], None);
        (vec![out, h], parameters)
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
        let parameters = load("cfc", &layer);
        let (out, h) = layer.run(inputs[0], Some(inputs[1]), Some(inputs[2]));
        (vec![out, h], parameters)
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
            let parameters = load(&case, &layer);
            (vec![layer.forward(inputs[0])], parameters)
        });
        let case = format!("decoder_{name}");
        check(&case, |cx, inputs| {
            let layer = TransformerDecoderLayer::new(cx, config);
            let parameters = load(&case, &layer);
            (vec![layer.forward(inputs[0], inputs[1])], parameters)
        });
    }
    check("encoder_stack", |cx, inputs| {
        let config = TransformerConfig {
            eps: 1e-3,
            ..TransformerConfig::new(8, 4, 12)
        };
        let mut encoder = TransformerEncoder::new(cx, config, 2);
        encoder.norm = Some(LayerNorm::new(cx, 8, 1e-5));
        let parameters = load("encoder_stack", &encoder);
        (vec![encoder.forward(inputs[0])], parameters)
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

fn rule(stride: &[usize], padding: &[usize], dilation: &[usize], groups: usize) -> Conv {
    Conv {
        stride: stride.into(),
        padding: Padding::By(padding.into()),
        dilation: dilation.into(),
        groups,
    }
}

#[test]
fn convolutions_over_one_two_and_three_axes() {
    check_layer("conv1d", |cx| {
        Conv1d::new(cx, 4, 6, 3, rule(&[2], &[1], &[2], 2))
    });
    check_layer("conv2d", |cx| {
        Conv2d::new(cx, 4, 6, [3, 2], rule(&[2, 1], &[1, 2], &[1, 2], 2))
    });
    check_layer("conv2d_same", |cx| {
        let same = Conv {
            padding: Padding::Same,
            ..Conv::default()
        };
        let mut layer = Conv2d::new(cx, 3, 2, [3, 4], same);
        layer.bias = None;
        layer
    });
    check_layer("conv2d_depthwise", |cx| {
        Conv2d::new(cx, 4, 8, 3, rule(&[1], &[1], &[1], 4))
    });
    check_layer("conv3d", |cx| {
        let rule = rule(&[1, 2, 2], &[1, 0, 1], &[2, 1, 1], 2);
        Conv3d::new(cx, 2, 4, [2, 3, 1], rule)
    });
}

#[test]
fn transposed_convolutions_over_one_two_and_three_axes() {
    check_layer("transpose1d", |cx| {
        let mut layer = ConvTranspose1d::new(cx, 4, 6, 3, rule(&[2], &[1], &[2], 2));
        layer.output_padding = 1.into();
        layer
    });
    check_layer("transpose2d", |cx| {
        let rule = rule(&[2, 3], &[1, 0], &[1, 2], 2);
        let mut layer = ConvTranspose2d::new(cx, 4, 6, [3, 2], rule);
        layer.output_padding = [1, 2].into();
        layer
    });
    check_layer("transpose2d_plain", |cx| {
        let mut layer = ConvTranspose2d::new(cx, 3, 2, 2, Conv::default());
        layer.bias = None;
        layer
    });
    check_layer("transpose3d", |cx| {
        let rule = rule(&[1, 2, 2], &[1, 0, 0], &[1], 2);
        let mut layer = ConvTranspose3d::new(cx, 2, 4, [2, 3, 1], rule);
        layer.output_padding = [0, 1, 0].into();
        layer
    });
}

#[test]
fn pools_of_windows_and_of_so_many_windows() {
    let max = |case: &str, rule: Pool| check_layer(case, |_| MaxPool { rule: rule.clone() });
    max(
        "max_pool1d",
        Pool {
            stride: Some([2].into()),
            padding: [1].into(),
            dilation: [2].into(),
            ..Pool::new([3])
        },
    );
    max(
        "max_pool2d",
        Pool {
            stride: Some([2, 1].into()),
            padding: [1, 0].into(),
            ceil_mode: true,
            ..Pool::new([3, 2])
        },
    );
    max("max_pool3d", Pool::new([2, 2, 2]));
    let mean = |case: &str, rule: Pool, divisor: Divisor| {
        check_layer(case, |_| AvgPool {
            rule: rule.clone(),
            divisor,
        });
    };
    let one = Pool {
        stride: Some([2].into()),
        padding: [1].into(),
        ..Pool::new([3])
    };
    mean("avg_pool1d", one, Divisor::Padded);
    let two = Pool {
        stride: Some([2, 1].into()),
        padding: [1, 1].into(),
        ..Pool::new([3, 2])
    };
    mean("avg_pool2d", two, Divisor::Inside);
    let three = Pool {
        ceil_mode: true,
        ..Pool::new([2, 2, 2])
    };
    mean("avg_pool3d", three, Divisor::Padded);
    let sizes = || vec![3, 2];
    check_layer("adaptive_max", |_| AdaptiveMaxPool { sizes: sizes() });
    check_layer("adaptive_avg", |_| AdaptiveAvgPool { sizes: sizes() });
    check_layer("adaptive_avg1d", |_| AdaptiveAvgPool { sizes: vec![4] });
}

#[test]
fn norms_of_groups_samples_rows_and_batches() {
    check_layer("group_norm", |cx| GroupNorm {
        eps: 1e-3,
        ..GroupNorm::new(cx, 2, 6)
    });
    check_layer("instance_norm", |cx| InstanceNorm {
        eps: 1e-3,
        ..InstanceNorm::new(cx, Some(3))
    });
    check_layer("instance_norm_plain", |cx| InstanceNorm::new(cx, None));
    check_layer("layer_norm", |cx| LayerNorm::new(cx, 6, 1e-3));
    check_layer("batch_norm_train", |cx| BatchNorm {
        eps: 1e-2,
        training: true,
        ..BatchNorm::new(cx, 3)
    });
    check_layer("batch_norm_eval", |cx| {
        let norm = BatchNorm::new(cx, 4);
        for (name, state) in norm.state().iter() {
            state.set(tensors()[&format!("batch_norm_eval/state/{name}")].clone());
        }
        norm
    });
}
