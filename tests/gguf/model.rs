//! A Gemma 2 in a GGUF file: its configuration, its parameters, what it predicts.

use std::path::Path;

use brain_blitz::blocks::BlockType;
use brain_blitz::dtype::DType;
use brain_blitz::formats::gguf::{Gguf, ModelWeights, Sink, TensorInfo, Value, Writer};
use brain_blitz::formats::{
    Checkpoint, Gemma2Config, StoredType, TensorView, Weights, npy, open_model,
};
use brain_blitz::generation::session::{Options, Rows, Session};
use brain_blitz::op::Op;
use tempfile::tempdir;

use crate::{data, gemma2};

/// A copy of `gemma2.gguf` without its tensors, except the embedding's shape in a key, after a change.
fn metadata(change: impl FnOnce(&mut Writer)) -> Result<Gemma2Config, String> {
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut writer = Writer::new();
    for (key, value) in Gguf::open(data("gemma2.gguf")).unwrap().metadata() {
        writer.set(key, value.clone());
    }
    writer.set("gemma2.vocab_size", 97u32);
    change(&mut writer);
    writer.write(&path, &mut |_, _| Ok(())).unwrap();
    let config = Gemma2Config::open(&path);
    config.map_err(|e| e.to_string().replace(&path.display().to_string(), "m.gguf"))
}

#[test]
fn the_configuration_is_that_of_the_checkpoint() {
    let ours = Gemma2Config::open(data("gemma2.gguf")).unwrap();
    let mut theirs = Gemma2Config::open(gemma2("bf16")).unwrap();
    // The checkpoint's file says that nothing ends a text.
    theirs.eos_token_ids = vec![1];
    assert_eq!(ours, theirs);
    assert_eq!(ours.query_pre_attn_scalar, 12.0, "and not the head's size");
    let without = metadata(|writer| {
        writer.set("gemma2.rope.freq_base", 5e5f32);
        writer.set("tokenizer.ggml.eot_token_id", 7u32);
    });
    let without = without.unwrap();
    assert_eq!(without.rope_theta, 5e5);
    assert_eq!(without.eos_token_ids, [1, 7]);
}

#[test]
fn a_configuration_round_trips() {
    let folder = tempdir().unwrap();
    for name in ["tiny", "odd"] {
        let path = folder.path().join(name).with_extension("gguf");
        let mut config = Gemma2Config::open(gemma2(name)).unwrap();
        let mut writer = Writer::new();
        config.to_gguf(&mut writer).unwrap();
        writer.write(&path, &mut |_, _| Ok(())).unwrap();
        config.dtype = None;
        assert_eq!(Gemma2Config::open(&path).unwrap(), config, "{name}");
    }
    let mut config = Gemma2Config::open(gemma2("tiny")).unwrap();
    config.layer_types.reverse();
    let message = config.to_gguf(&mut Writer::new()).unwrap_err().to_string();
    assert!(message.contains("layers do not slide in turn"), "{message}");
}

#[track_caller]
fn assert_wrong(key: &str, value: Value, what: &str) {
    let message = metadata(|writer| {
        writer.set(key, value);
    });
    let expected = format!("m.gguf: metadata {key:?}: {what}");
    assert_eq!(message.unwrap_err(), expected);
}

#[test]
fn wrong_metadata_is_an_error_that_names_the_key() {
    let cases: [(&str, Value, &str); 8] = [
        (
            "general.architecture",
            "llama".into(),
            "is \"llama\", not \"gemma2\"",
        ),
        ("general.architecture", 3u8.into(), "is not a string"),
        (
            "gemma2.block_count",
            0u32.into(),
            "is not an integer from 1 to 1024",
        ),
        (
            "gemma2.embedding_length",
            (-4i32).into(),
            "is not an integer from 1 to 16777216",
        ),
        (
            "gemma2.attention.head_count_kv",
            3u32.into(),
            "3 does not divide num_attention_heads, 4",
        ),
        (
            "gemma2.attention.value_length",
            8u32.into(),
            "8 is not attention.key_length, 16",
        ),
        (
            "gemma2.attention.layer_norm_rms_epsilon",
            f32::NAN.into(),
            "is not a finite number above zero",
        ),
        (
            "gemma2.attention.scale",
            "1".into(),
            "is not a finite number above zero",
        ),
    ];
    for (key, value, what) in cases {
        assert_wrong(key, value, what);
    }
}

#[test]
fn what_the_model_does_not_do_is_an_error_that_names_the_key() {
    let cases: [(&str, Value, &str); 4] = [
        (
            "gemma2.rope.scaling.type",
            "yarn".into(),
            "scaled rotary positions are not supported",
        ),
        (
            "gemma2.rope.dimension_count",
            4u32.into(),
            "4 is not attention.key_length, 16",
        ),
        (
            "gemma2.expert_count",
            8u32.into(),
            "is not a key that this model knows",
        ),
        (
            "tokenizer.ggml.eos_token_id",
            97u32.into(),
            "is not a token id below 97",
        ),
    ];
    for (key, value, what) in cases {
        assert_wrong(key, value, what);
    }
}

fn floats(weights: &dyn Weights, name: &str) -> Vec<f32> {
    let tensor = weights.get(name).unwrap();
    assert_eq!(weights.stored_type(name), Some(tensor.dtype), "{name}");
    let bytes = tensor.convert_to(DType::F32).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

#[test]
fn parameters_have_the_names_and_the_numbers_of_the_checkpoint() {
    let file = Gguf::open(data("gemma2.gguf")).unwrap();
    let ours = ModelWeights::new(file.clone(), DType::F32).unwrap();
    let theirs = Checkpoint::open(gemma2("bf16")).unwrap();
    assert_eq!(Weights::names(&ours), Weights::names(&theirs));
    for name in theirs.names() {
        let (a, b) = (floats(&ours, name), floats(&theirs, name));
        assert_eq!(a.len(), b.len(), "{name}");
        let stored = Weights::get(&ours, name).unwrap();
        if name.contains("norm") {
            assert_eq!(stored.dtype, StoredType::F32);
            let far = |(a, b): (&f32, &f32)| (a - b).abs() > f32::EPSILON * (1.0 + b.abs());
            assert!(!a.iter().zip(&b).any(far), "{name}");
        } else {
            assert_eq!(stored.dtype, StoredType::BF16);
            assert_eq!(a, b, "{name}");
        }
    }
    let embedding = ours.get("model.embed_tokens.weight").unwrap();
    let in_file = file.get("token_embd.weight").unwrap();
    assert_eq!(
        embedding.bytes.as_ptr(),
        in_file.bytes.as_ptr(),
        "nothing is copied"
    );
    let message = ours
        .get("model.layers.2.mlp.up_proj.weight")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("gemma2.gguf: tensor \"blk.2.ffn_up.weight\": is not among"),
        "{message}"
    );
}

fn options() -> Options {
    Options {
        cpu: "reference".into(),
        threads: Some(1),
        context: None,
        logits: Rows::All,
        ..Options::default()
    }
}

/// The logits of a checkpoint's prompt, computed from `path`.
fn logits(path: &Path, checkpoint: &str) -> Vec<f32> {
    let mut session = Session::load(path, &options(), &mut |_| ()).unwrap();
    session.feed(&prompt(checkpoint)).unwrap().to_vec()
}

/// The weights of a file without their blocks: all of them as numbers.
struct Decoded(Box<dyn Weights>);

impl Weights for Decoded {
    fn source(&self) -> &Path {
        self.0.source()
    }

    fn names(&self) -> Vec<&str> {
        self.0.names()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        self.0.stored_type(name)
    }

    fn get(&self, name: &str) -> brain_blitz::Result<TensorView> {
        self.0.get(name)
    }
}

/// [`logits`] with decoded weights, and activations as they are.
fn logits_of_numbers(path: &Path, checkpoint: &str) -> Vec<f32> {
    let (config, weights) = open_model(path, DType::F32).unwrap();
    let mut session = Session::new(config, &Decoded(weights), &options(), &mut |_| ()).unwrap();
    session.feed(&prompt(checkpoint)).unwrap().to_vec()
}

fn prompt(checkpoint: &str) -> Vec<u32> {
    let ids = npy::read(gemma2(checkpoint).join("ref_input_ids.npy")).unwrap();
    let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&ids.bytes);
    ids.into_iter().map(|id| id as u32).collect()
}

fn reference(checkpoint: &str) -> Vec<f32> {
    let logits = npy::read(gemma2(checkpoint).join("ref_logits_f32.npy")).unwrap();
    bytemuck::pod_collect_to_vec(&logits.bytes)
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        // Written so that NaN fails.
        assert!((a - b).abs() <= tolerance, "{a} for {b}");
    }
}

#[test]
fn logits_of_a_file_made_by_the_python_package_equal_the_reference() {
    assert_near(
        &logits(&data("gemma2.gguf"), "bf16"),
        &reference("bf16"),
        1e-3,
    );
}

#[test]
fn logits_of_converted_files_equal_the_reference() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let convert = |name: &str, ty: BlockType| {
        let options = brain_blitz::formats::gguf::Options {
            embedding: Some(ty),
            ..brain_blitz::formats::gguf::Options::new(ty)
        };
        brain_blitz::formats::gguf::convert(&gemma2(name), &path, &options, &mut |_, _| ())
            .unwrap();
        logits_of_numbers(&path, name)
    };
    for name in ["tiny", "odd", "sharded"] {
        assert_near(&convert(name, BlockType::F32), &reference(name), 1e-3);
    }
    // The model's random weights make it sensitive. The expected errors are those of transformers with the weights
    // that the Python package `gguf` encodes and decodes.
    let exact = reference("tiny");
    let error = |found: Vec<f32>| {
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let sum: f64 = found.iter().zip(&exact).map(square).sum();
        let all: f64 = exact.iter().map(|x| f64::from(*x).powi(2)).sum();
        (sum / all).sqrt()
    };
    let eight = error(convert("tiny", BlockType::Q8_0));
    let four = error(convert("tiny", BlockType::Q4_0));
    assert!((eight - 0.06995).abs() < 2e-4, "{eight}");
    assert!((four - 0.7248).abs() < 2e-3, "{four}");
}

/// As many blocks, but in rows of another length: nothing but the shape tells.
#[test]
fn blocks_of_another_shape_are_an_error_that_names_the_tensor() {
    let folder = tempdir().unwrap();
    let (path, turned) = (folder.path().join("x.gguf"), folder.path().join("y.gguf"));
    let options = brain_blitz::formats::gguf::Options::new(BlockType::Q8_0);
    brain_blitz::formats::gguf::convert(&gemma2("tiny"), &path, &options, &mut |_, _| ()).unwrap();
    let file = Gguf::open(&path).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata() {
        writer.set(key, value.clone());
    }
    for info in file.tensors() {
        let mut shape = info.shape.clone();
        if info.name == "blk.1.attn_q.weight" {
            shape.reverse();
        }
        writer.tensor(&info.name, info.ty, &shape);
    }
    let write = |info: &TensorInfo, sink: &mut Sink<'_>| sink.write(&file.get(&info.name)?.bytes);
    writer
        .write(&turned, &mut |info, sink| write(info, sink))
        .unwrap();
    let error = Session::load(&turned, &self::options(), &mut |_| ()).err();
    let error = error.expect("the shape is wrong").to_string();
    let what = "\"model.layers.1.self_attn.q_proj.weight\" has shape [64, 128], but the configuration asks for f32[128, 64]";
    assert!(error.contains(what), "{error}");
}

#[test]
fn blocks_of_a_file_are_computed_with_as_they_are() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let options = brain_blitz::formats::gguf::Options::new(BlockType::Q8_0);
    brain_blitz::formats::gguf::convert(&gemma2("tiny"), &path, &options, &mut |_, _| ()).unwrap();
    let session = Session::load(&path, &self::options(), &mut |_| ()).unwrap();
    let count = |dtype| {
        session.graph().inspect(|dag| {
            let inputs = dag.ids().filter(|&id| {
                let node = dag.node(id);
                matches!(node.op, Op::Input { .. })
                    && node.ty.dtype == dtype
                    && node.ty.dims.len() == 2
            });
            inputs.count()
        })
    };
    let blocks = brain_blitz::formats::gguf::Gguf::open(&path).unwrap();
    let blocks = blocks
        .tensors()
        .iter()
        .filter(|info| info.ty == BlockType::Q8_0)
        .count();
    assert!(blocks > 7);
    assert_eq!(
        count(DType::U8),
        blocks,
        "every weight in blocks is an input of bytes"
    );
    // The checkpoint, stored in the same blocks while it is loaded.
    let quant = Some(BlockType::Q8_0);
    let options = Options {
        quant: quant.map(Into::into),
        ..self::options()
    };
    let made = Session::load(&gemma2("tiny"), &options, &mut |_| ()).unwrap();
    assert_eq!(made.info().report.stored.len(), blocks);
    // What rows of 32 numbers fit into is in blocks of 34 bytes, the rest as it was.
    let checkpoint = Checkpoint::open(gemma2("tiny")).unwrap();
    let bytes = checkpoint.names().map(|name| {
        let shape = checkpoint.get(name).unwrap().shape;
        let n: usize = shape.iter().product();
        match shape[..] {
            [_, row] if row % 32 == 0 => n / 32 * 34,
            _ => 4 * n,
        }
    });
    assert_eq!(made.info().weight_bytes, bytes.sum::<usize>() as u64);
    // Activations are rounded to 8 bits too, which changes a little, but not much.
    let (rounded, numbers) = (logits(&path, "tiny"), logits_of_numbers(&path, "tiny"));
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let sum: f64 = rounded.iter().zip(&numbers).map(square).sum();
    let all: f64 = numbers.iter().map(|x| f64::from(*x).powi(2)).sum();
    let error = (sum / all).sqrt();
    assert!(error > 1e-3 && error < 0.12, "{error}");
}

#[test]
fn blocks_become_the_format_that_is_asked_for() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let options = brain_blitz::formats::gguf::Options::new(BlockType::Q8_0);
    brain_blitz::formats::gguf::convert(&gemma2("tiny"), &path, &options, &mut |_, _| ()).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    let file = Gguf::open(&path).unwrap();
    let exact = file
        .get("blk.0.attn_q.weight")
        .unwrap()
        .dequantize()
        .unwrap();
    for (dtype, stored) in [
        (DType::F32, StoredType::F32),
        (DType::F16, StoredType::F16),
        (DType::BF16, StoredType::BF16),
    ] {
        let weights = ModelWeights::new(file.clone(), dtype).unwrap();
        assert_eq!(weights.stored_type(name), Some(stored));
        let rounded: Vec<f32> = match dtype {
            DType::F16 => exact
                .iter()
                .map(|x| half::f16::from_f32(*x).to_f32())
                .collect(),
            DType::BF16 => exact
                .iter()
                .map(|x| half::bf16::from_f32(*x).to_f32())
                .collect(),
            _ => exact.clone(),
        };
        assert_eq!(floats(&weights, name), rounded, "{dtype}");
    }
    assert!(ModelWeights::new(file, DType::I32).is_err());
}
