//! Conversion: which tensor gets which type, what is kept, and what cannot be done.

use std::fs;
use std::path::{Path, PathBuf};

use brain_blitz::blocks::{BlockType, ColumnStats};
use brain_blitz::formats::gguf::{
    Converted, Gguf, Moments, Options, Value, Writer, convert, convert_with,
};
use brain_blitz::formats::{Calibration, Tokenizer, Weights, open_model};
use tempfile::tempdir;

use crate::{data, gemma2};

fn run(input: &Path, output: &Path, options: Options) -> Result<Vec<Converted>, String> {
    let (mut last, mut all) = (0, 0);
    let report = convert(input, output, &options, &mut |done, total| {
        assert!(last <= done && done <= total, "{last} {done} {total}");
        (last, all) = (done, total);
    });
    let report = report.map_err(|e| e.to_string())?;
    assert_eq!(last, all, "progress ends with everything done");
    Ok(report)
}

fn types(path: &Path) -> Vec<(String, BlockType)> {
    let file = Gguf::open(path).unwrap();
    file.tensors()
        .iter()
        .map(|t| (t.name.clone(), t.ty))
        .collect()
}

/// A file with one matrix of these rows and a vector.
fn matrix(folder: &Path, rows: usize, columns: usize, x: &dyn Fn(usize) -> f32) -> PathBuf {
    let path = folder.join("in.gguf");
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "other")
        .set("general.file_type", 0u32);
    writer.tensor("m.weight", BlockType::F32, &[rows, columns]);
    writer.tensor("v.weight", BlockType::F16, &[columns]);
    writer.tensor("ids", BlockType::I32, &[2, 2]);
    let numbers: Vec<f32> = (0..rows * columns).map(x).collect();
    writer
        .write(&path, &mut |info, sink| match info.name.as_str() {
            "m.weight" => sink.write(bytemuck::cast_slice(&numbers)),
            "v.weight" => sink.write(&[0, 0x3c].repeat(columns)),
            _ => sink.write(bytemuck::cast_slice(&[1i32, 2, 3, 4])),
        })
        .unwrap();
    path
}

#[test]
fn matrices_get_the_type_and_vectors_stay() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let report = run(&gemma2("tiny"), &path, Options::new(BlockType::Q8_0)).unwrap();
    let stored = types(&path);
    assert_eq!(stored[0], ("token_embd.weight".into(), BlockType::Q8_0));
    assert_eq!(
        stored.last().unwrap(),
        &("output_norm.weight".into(), BlockType::F32)
    );
    let order: Vec<&str> = stored[1..13].iter().map(|t| t.0.as_str()).collect();
    assert_eq!(order[0], "blk.0.attn_norm.weight");
    assert_eq!(order[11], "blk.1.attn_norm.weight");
    for (name, ty) in &stored {
        // Rows of 176 are no whole number of blocks.
        let expected = match name {
            name if name.contains("norm") => BlockType::F32,
            name if name.contains("ffn_down") => BlockType::F16,
            _ => BlockType::Q8_0,
        };
        assert_eq!(*ty, expected, "{name}");
    }
    let odd: Vec<&Converted> = report.iter().filter(|t| t.instead_of.is_some()).collect();
    assert_eq!(odd.len(), 4);
    assert!(
        odd.iter()
            .all(|t| t.instead_of == Some(BlockType::Q8_0) && t.to == BlockType::F16)
    );
    let file = Gguf::open(&path).unwrap();
    let sizes: usize = report.iter().map(|t| t.bytes.1).sum();
    assert_eq!(
        sizes,
        file.tensors().iter().map(|t| t.size()).sum::<usize>()
    );
    assert_eq!(file.value("general.file_type"), Some(&Value::U32(7)));
    assert_eq!(
        file.value("general.quantization_version"),
        Some(&Value::U32(2))
    );
}

#[test]
fn norms_are_stored_plus_one_and_read_back() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    run(&gemma2("tiny"), &path, Options::new(BlockType::F32)).unwrap();
    let (_, ours) = open_model(&path, brain_blitz::dtype::DType::F32).unwrap();
    let (_, theirs) = open_model(&gemma2("tiny"), brain_blitz::dtype::DType::F32).unwrap();
    let floats = |weights: &dyn Weights, name: &str| -> Vec<f32> {
        bytemuck::pod_collect_to_vec(&weights.get(name).unwrap().bytes)
    };
    let name = "model.layers.1.input_layernorm.weight";
    let stored = Gguf::open(&path)
        .unwrap()
        .get("blk.1.attn_norm.weight")
        .unwrap();
    let norms = floats(&*theirs, name);
    let plus_one: Vec<f32> = norms.iter().map(|w| w + 1.0).collect();
    assert_eq!(stored.dequantize().unwrap(), plus_one);
    // The layer's scale is what it was, bit by bit, although the weight is rounded.
    let again: Vec<f32> = floats(&*ours, name).iter().map(|w| w + 1.0).collect();
    let near = again
        .iter()
        .zip(&plus_one)
        .all(|(a, b)| (a - b).abs() <= f32::EPSILON / 4.0);
    assert!(near, "{again:?}");
    for name in Weights::names(&*theirs) {
        if !name.contains("norm") {
            assert_eq!(floats(&*ours, name), floats(&*theirs, name), "{name}");
        }
    }
}

#[test]
fn an_embedding_that_is_the_output_layer_keeps_more_bits_unless_told_otherwise() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let embedding = |options: Options| {
        run(&gemma2("tiny"), &path, options).unwrap();
        types(&path)[0].1
    };
    assert_eq!(embedding(Options::new(BlockType::Q2_0)), BlockType::Q8_0);
    // Rows that are no whole 256 numbers.
    assert_eq!(embedding(Options::new(BlockType::Q4_0)), BlockType::Q8_0);
    let told = Options {
        embedding: Some(BlockType::F16),
        ..Options::new(BlockType::Q4_0)
    };
    assert_eq!(embedding(told), BlockType::F16);
}

#[test]
fn rows_that_do_not_fit_get_smaller_blocks() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let cases = [
        (BlockType::Q4_K, 256, BlockType::Q4_K),
        (BlockType::Q4_K, 96, BlockType::Q5_0),
        (BlockType::Q6_K, 96, BlockType::Q8_0),
        (BlockType::Q1_0, 96, BlockType::Q4_0),
        (BlockType::TQ2_0, 96, BlockType::Q4_0),
        (BlockType::Q4_K, 40, BlockType::F16),
        (BlockType::BF16, 7, BlockType::BF16),
    ];
    for (quant, columns, expected) in cases {
        let input = matrix(folder.path(), 3, columns, &|i| (i as f32).sin());
        let report = run(&input, &out, Options::new(quant)).unwrap();
        assert_eq!(report[0].to, expected, "{quant} {columns}");
        assert_eq!(report[0].instead_of, (quant != expected).then_some(quant));
        let file = Gguf::open(&out).unwrap();
        assert_eq!(file.get("m.weight").unwrap().ty, expected);
        // A direct encoding of all rows gives the same bytes.
        let numbers: Vec<f32> = (0..3 * columns).map(|i| (i as f32).sin()).collect();
        let mut blocks = vec![0; expected.bytes_of(numbers.len()).unwrap()];
        expected.quantize(&numbers, &mut blocks).unwrap();
        assert_eq!(file.get("m.weight").unwrap().bytes.as_slice(), blocks);
        assert_eq!(file.get("v.weight").unwrap().ty, BlockType::F32);
        assert_eq!(
            file.get("v.weight").unwrap().dequantize().unwrap(),
            vec![1.0; columns]
        );
        assert_eq!(file.get("ids").unwrap().ty, BlockType::I32);
        assert_eq!(file.value("general.architecture"), Some(&"other".into()));
    }
}

#[test]
fn pieces_join_without_a_seam() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let number = |i: usize| ((i * i) as f32 * 0.37).sin();
    // Several pieces, the last one short.
    let input = matrix(folder.path(), 600, 256, &number);
    run(&input, &out, Options::new(BlockType::Q8_0)).unwrap();
    let numbers: Vec<f32> = (0..600 * 256).map(number).collect();
    let mut blocks = vec![0; BlockType::Q8_0.bytes_of(numbers.len()).unwrap()];
    BlockType::Q8_0.quantize(&numbers, &mut blocks).unwrap();
    let stored = Gguf::open(&out).unwrap().get("m.weight").unwrap();
    assert!(stored.bytes.as_slice() == blocks);
}

#[test]
fn a_tokenizer_goes_along() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare");
    run(&shipped, &path, Options::new(BlockType::Q8_0)).unwrap();
    let (ours, theirs) = (
        Tokenizer::open(&path).unwrap(),
        Tokenizer::open(&shipped).unwrap(),
    );
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    for text in ["HAMLET:\nTo be, or not to be", "  spaces  ", "naïve 日本"] {
        let ids = ours.encode(text, true).unwrap();
        assert_eq!(ids, theirs.encode(text, true).unwrap());
        assert_eq!(ours.decode(&ids).unwrap(), theirs.decode(&ids).unwrap());
    }
    // And from file to file.
    let again = folder.path().join("y.gguf");
    run(&path, &again, Options::new(BlockType::Q4_0)).unwrap();
    assert!(Tokenizer::find(&again).unwrap().is_some());
    assert!(Tokenizer::find(data("sample.gguf")).unwrap().is_none());
}

/// A copy of the tiny checkpoint with this tokenizer.
fn with_tokenizer(folder: &Path, text: &serde_json::Value) {
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(gemma2("tiny").join(name), folder.join(name)).unwrap();
    }
    fs::write(folder.join("tokenizer.json"), text.to_string()).unwrap();
}

fn small_tokenizer() -> serde_json::Value {
    serde_json::json!({
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "<bos>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 7, "content": "bb", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false},
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "unk_token": "?", "byte_fallback": true, "fuse_unk": true,
            "vocab": {"<bos>": 0, "?": 1, "<0x41>": 2, "a": 3, "b": 4, "ab": 5, "aab": 6, "bb": 7, "aa": 8},
            "merges": [["b", "b"], ["a", "a"], ["aa", "b"], ["a", "ab"], ["a", "b"]],
        },
    })
}

#[test]
fn a_tokenizer_is_written_as_lists_where_they_say_the_same() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("x.gguf");
    let text = small_tokenizer();
    with_tokenizer(folder.path(), &text);
    run(folder.path(), &out, Options::new(BlockType::F16)).unwrap();
    let file = Gguf::open(&out).unwrap();
    let value = |key: &str| file.value(&format!("tokenizer.ggml.{key}"));
    let list = |key: &str| value(key).and_then(Value::as_array).unwrap();
    let types = list("token_type").as_i32s().unwrap();
    assert_eq!(types[..9], [3, 2, 6, 1, 1, 1, 1, 4, 1]);
    // The embedding has more rows than the tokenizer has tokens: what fills the list up is of no use.
    assert_eq!((types.len(), &types[9..11]), (512, &[5, 5][..]));
    assert_eq!(value("unknown_token_id"), Some(&Value::U32(1)));
    assert_eq!(value("model"), Some(&"llama".into()));
    // Best first: aa, aab, ab; then a and b, which nothing makes.
    let scores = list("scores").as_f32s().unwrap();
    let expected = [0.0, 0.0, 0.0, -7.0, -8.0, -3.0, -2.0, 0.0, -1.0, -9.0];
    assert_eq!((scores.len(), &scores[..10]), (512, &expected[..]));
    let tokens = list("tokens").as_strings().unwrap();
    assert_eq!(tokens.len(), 512);
    assert_eq!(
        tokens[..10].join(" "),
        "<bos> ? <0x41> a b ab aab bb aa [PAD9]"
    );

    // Another order of merges, none that a piece must have, words that are cut: nothing says these.
    let order = serde_json::json!([["b", "b"], ["a", "a"], ["a", "ab"], ["aa", "b"], ["a", "b"]]);
    let fewer = serde_json::json!([["b", "b"], ["a", "a"], ["aa", "b"], ["a", "b"]]);
    let cut = serde_json::json!({"type": "Whitespace"});
    for (pointer, other) in [
        ("/model/merges", order),
        ("/model/merges", fewer),
        ("/pre_tokenizer", cut),
    ] {
        let mut text = text.clone();
        *text.pointer_mut(pointer).unwrap() = other;
        with_tokenizer(folder.path(), &text);
        run(folder.path(), &out, Options::new(BlockType::F16)).unwrap();
        let file = Gguf::open(&out).unwrap();
        assert!(file.value("tokenizer.huggingface.json").is_some());
        assert_eq!(file.value("tokenizer.ggml.tokens"), None, "{pointer}");
    }
}

#[test]
fn a_file_may_replace_itself() {
    let folder = tempdir().unwrap();
    let input = matrix(folder.path(), 2, 32, &|i| i as f32);
    let before = fs::metadata(&input).unwrap().len();
    run(&input, &input, Options::new(BlockType::Q8_0)).unwrap();
    assert_eq!(types(&input)[0].1, BlockType::Q8_0);
    assert!(fs::metadata(&input).unwrap().len() <= before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_converted_is_an_error_and_nothing_is_written() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let input = matrix(folder.path(), 2, 32, &|i| {
        if i == 40 { f32::NAN } else { 0.0 }
    });
    let failure = |input: &Path, ty: BlockType| run(input, &out, Options::new(ty)).unwrap_err();
    let message = failure(&input, BlockType::Q8_0);
    let end = "tensor \"m.weight\": element 40 is NaN, which Q8_0 cannot hold";
    assert!(message.ends_with(end), "{message}");
    assert_eq!(
        failure(&input, BlockType::Q3_K),
        "there is no encoder for Q3_K"
    );
    assert!(failure(folder.path(), BlockType::F16).contains("config.json"));
    assert!(!out.exists());
}

#[test]
fn more_than_three_tokens_that_end_a_text_are_all_kept() {
    let folder = tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("x.gguf"));
    fs::create_dir(&input).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(gemma2("tiny").join(name), input.join(name)).unwrap();
    }
    let text = fs::read_to_string(input.join("config.json")).unwrap();
    for ids in [vec![1], vec![1, 7, 9], vec![9, 1, 7, 3, 5]] {
        let with = text.replace("\"eos_token_id\": 1", &format!("\"eos_token_id\": {ids:?}"));
        assert!(with != text || ids == [1]);
        fs::write(input.join("config.json"), with).unwrap();
        run(&input, &out, Options::new(BlockType::F32)).unwrap();
        let (config, _) = open_model(&out, brain_blitz::dtype::DType::F32).unwrap();
        assert_eq!(config.eos_token_ids(), ids);
        let list = Gguf::open(&out)
            .unwrap()
            .value("tokenizer.ggml.eos_token_ids")
            .is_some();
        assert_eq!(list, ids.len() > 3);
    }
}

#[test]
fn calibrated_columns_get_the_bits_where_they_matter() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let columns = 64;
    // Large enough for several pieces, and no whole number of them.
    let rows = 1500;
    let x = |i: usize| ((i * 37 % 101) as f32 - 50.0) / (1 + i % 7) as f32;
    let input = matrix(folder.path(), rows, columns, &x);
    let square = |k: usize| if k.is_multiple_of(9) { 50.0 } else { 0.1 };
    let stats = || ColumnStats::new(1, (0..columns).map(square).collect(), None).unwrap();
    let exact: Vec<f32> = (0..rows * columns).map(x).collect();
    let convert = |name: &str| {
        let mut calibration = Calibration::default();
        calibration.insert(name, stats());
        let options = Options {
            calibration: calibration.into(),
            ..Options::new(BlockType::Q4_0)
        };
        let report = run(&input, &out, options).unwrap();
        let file = Gguf::open(&out).unwrap();
        let found = file.get("m.weight").unwrap().dequantize().unwrap();
        (
            stats().weighted_error(&exact, &found),
            report[0].calibrated,
            report[0].to,
        )
    };
    let (plain, known) = (convert("another"), convert("m.weight"));
    assert_eq!((plain.1, known.1), (false, true));
    assert_eq!((plain.2, known.2), (BlockType::Q4_0, BlockType::Q4_0));
    assert!(known.0 < 0.8 * plain.0, "{known:?} {plain:?}");
    // The whole matrix at once has the same bytes.
    let mut blocks = vec![0; BlockType::Q4_0.bytes_of(exact.len()).unwrap()];
    let squares = stats();
    BlockType::Q4_0
        .quantize_weighted(&exact, squares.mean_squares(), 0, &mut blocks)
        .unwrap();
    let file = Gguf::open(&out).unwrap();
    assert!(file.get("m.weight").unwrap().bytes[..] == blocks[..]);
    // Of another model.
    let mut calibration = Calibration::default();
    calibration.insert(
        "m.weight",
        ColumnStats::new(1, vec![1.0; 32], None).unwrap(),
    );
    let options = Options {
        calibration: calibration.into(),
        ..Options::new(BlockType::Q4_0)
    };
    let why = run(&input, &out, options).unwrap_err();
    assert!(
        why.contains("m.weight") && why.contains("32 columns"),
        "{why}"
    );
}

/// What matrices are multiplied by is asked for once, and errors of columns make up for each other with it.
#[test]
fn products_are_asked_for_while_the_file_is_written() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let (rows, columns) = (1100, 64);
    let x = |i: usize| ((i * 37 % 101) as f32 - 50.0) / (1 + i % 7) as f32;
    let input = matrix(folder.path(), rows, columns, &x);
    let exact: Vec<f32> = (0..rows * columns).map(x).collect();
    // Neighbours are much alike.
    let product = |at: usize| 0.9f32.powi((at / columns).abs_diff(at % columns) as i32);
    let products: Vec<f32> = (0..columns * columns).map(product).collect();
    let stats = ColumnStats::new(9, vec![1.0; columns], Some(products)).unwrap();
    let mut asked = Vec::new();
    let mut convert = |ty: BlockType, stats: &ColumnStats, threads: usize| {
        let options = Options {
            threads: Some(threads),
            ..Options::new(ty)
        };
        let mut moments = |names: &[String]| {
            asked.push(names.to_vec());
            let mut calibration = Calibration::default();
            calibration.insert("m.weight", stats.clone());
            Ok(calibration)
        };
        let moments: &mut Moments<'_> = &mut moments;
        let report = convert_with(&input, &out, &options, Some(moments), &mut |_, _| ());
        assert!(report.unwrap()[0].calibrated);
        let file = Gguf::open(&out).unwrap();
        let found = file.get("m.weight").unwrap();
        (found.bytes.to_vec(), found.dequantize().unwrap())
    };
    let (bytes, fed_back) = convert(BlockType::Q4_0, &stats, 1);
    assert_eq!(convert(BlockType::Q4_0, &stats, 3).0, bytes);
    let (_, alone) = convert(BlockType::Q4_0, &stats.clone().without_products(), 1);
    let [fed_back, alone] = [fed_back, alone].map(|q| stats.output_error(&exact, &q).unwrap());
    assert!(fed_back < 0.5 * alone, "{fed_back} {alone}");
    let wanted = ["m.weight".to_owned()];
    assert_eq!(asked[..3], [&wanted[..]; 3]);
}

#[test]
fn a_number_that_does_not_fit_is_named_by_its_place_in_the_tensor() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let bad = 70_001;
    let x = |i: usize| if i == bad { f32::NAN } else { 1.0 };
    let input = matrix(folder.path(), 1500, 64, &x);
    let why = run(&input, &out, Options::new(BlockType::Q8_0)).unwrap_err();
    assert!(
        why.contains("m.weight") && why.contains("element 70001 "),
        "{why}"
    );
}
