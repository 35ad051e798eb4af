//! Layers against each other: compiled against the reference, cached against whole, names against files.

use std::path::Path;

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::{Checkpoint, Gemma2Config};
use brain_blitz::nn::models::gemma2::Gemma2;
use brain_blitz::nn::{
    Activation, AttentionConfig, CacheConfig, CacheType, Init, KvCache, Layer, Linear, Mask,
    Module, MultiHeadAttention, Rope, ScoreRule, Sequential, Steps, TransformerBlock,
};
use brain_blitz::prelude::*;

/// Numbers between -1 and 1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    Init::Uniform(-1.0, 1.0).numbers(&[n], seed, 0)
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {i}: {a} and {b}");
    }
}

/// Causal attention with grouped heads and rotary positions.
fn causal(cx: &mut Graph, capacity: usize) -> MultiHeadAttention {
    let mut config = AttentionConfig::new(12, 6);
    config.kv_heads = 2;
    config.head_dim = 4;
    config.rule.mask = Mask::Causal;
    let mut layer = MultiHeadAttention::new(cx, &config);
    layer.rope = Some(Rope::new(cx, 4, 100.0, capacity));
    layer.init(3);
    layer
}

#[test]
fn a_cache_filled_in_steps_gives_what_the_whole_gives() {
    let x_data = numbers(7 * 12, 1);
    let mut cx = Graph::new();
    let layer = causal(&mut cx, 7);
    let x = cx.input(('s', 12), DType::F32).set(x_data.clone());
    let whole = layer.forward(x).retrieve();
    cx.set_dim('s', 7);
    cx.execute();
    let whole = whole.data();

    let mut cx = Graph::new();
    let layer = causal(&mut cx, 7);
    let cache = KvCache::new(&mut cx, 2, 7, 4);
    let x = cx.input(('s', 12), DType::F32);
    let steps = Steps {
        start: 'p'.into(),
        rows: 's'.into(),
    };
    let y = layer.forward_cached(x, &cache, steps).retrieve();
    let mut rows = Vec::new();
    for (start, end) in [(0, 3), (3, 4), (4, 7)] {
        cx.set_dim('p', start);
        cx.set_dim('s', end - start);
        x.set(&x_data[start * 12..end * 12]);
        cx.execute();
        rows.extend(y.data());
    }
    close(&rows, &whole, 1e-6);
}

/// Queries, keys and values of 7 rows after one another: `[2, 7, 4]` each.
fn rows_of_heads() -> [Vec<f32>; 3] {
    [1, 2, 3].map(|seed| numbers(2 * 7 * 4, seed))
}

#[test]
fn every_row_is_rounded_as_the_cache_has_it() {
    let rule = ScoreRule {
        mask: Mask::Causal,
        ..ScoreRule::scaled(4)
    };
    let rounded = |x: GraphTensor, ty: CacheType| match ty {
        CacheType::Q8_0 => {
            let blocks = x.pad(2, 0, 28).quantize(BlockType::Q8_0);
            blocks.dequantize(BlockType::Q8_0).slice_axis(2, 0, 4)
        }
        _ => x.cast(ty.dtype()).cast(DType::F32),
    };
    let whole = |ty: CacheType| {
        let mut cx = Graph::new();
        let [q, k, v] = rows_of_heads().map(|data| cx.input((2, 7, 4), DType::F32).set(data));
        let [k, v] = [k, v].map(|x| rounded(x, ty));
        let y = rule.attend(q, k, v, 0).retrieve();
        cx.execute();
        y.data()
    };
    let in_steps = |ty: CacheType| {
        let mut cx = Graph::new();
        let cache = KvCache::new(&mut cx, 2, CacheConfig { capacity: 7, ty }, 4);
        let new = [0; 3].map(|_| cx.input((2, 's', 4), DType::F32));
        let steps = Steps {
            start: 'p'.into(),
            rows: 's'.into(),
        };
        let (keys, values) = cache.append(new[1], new[2], steps);
        let y = rule.attend(new[0], keys, values, 'p').retrieve();
        let mut all = vec![0.0; 2 * 7 * 4];
        for (start, end) in [(0, 3), (3, 4), (4, 7)] {
            cx.set_dim('p', start);
            cx.set_dim('s', end - start);
            let rows = |head: usize| (head * 7 + start) * 4..(head * 7 + end) * 4;
            for (input, data) in new.iter().zip(rows_of_heads()) {
                input.set([&data[rows(0)], &data[rows(1)]].concat());
            }
            cx.execute();
            for (head, y) in y.data().chunks((end - start) * 4).enumerate() {
                all[rows(head)].copy_from_slice(y);
            }
        }
        all
    };
    let exact = whole(CacheType::F32);
    for ty in CacheType::ALL {
        let rounded = whole(ty);
        close(&in_steps(ty), &rounded, 1e-6);
        let worst = rounded.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert_eq!(worst > 1e-5, ty != CacheType::F32, "{ty}: {worst}");
    }
}

#[test]
fn types_of_caches_have_the_names_of_their_formats() {
    for ty in CacheType::ALL {
        assert_eq!(ty.to_string().parse::<CacheType>().unwrap(), ty);
    }
    let unknown = "q4_0".parse::<CacheType>().unwrap_err().to_string();
    assert_eq!(unknown, "types of caches are f32, f16, bf16, q8_0");
    let bytes = CacheType::ALL.map(|ty| ty.row_bytes(48));
    assert_eq!(bytes, [192, 96, 96, 68]);
}

#[test]
fn a_causal_row_does_not_see_later_ones_and_sees_earlier_ones() {
    let mut cx = Graph::new();
    let layer = causal(&mut cx, 5);
    let x = cx.input((5, 12), DType::F32).set(numbers(60, 1));
    let y = layer.forward(x).retrieve();
    cx.execute();
    let before = y.data();
    let mut changed = numbers(60, 1);
    changed[36] += 1.0; // row 3
    x.set(changed);
    cx.execute();
    let after = y.data();
    assert_eq!(before[..36], after[..36]);
    assert!(before[36..48] != after[36..48] && before[48..] != after[48..]);
}

#[test]
fn compiled_blocks_agree_with_the_reference() {
    let run = |compile: bool| {
        let mut cx = Graph::new();
        let mut config = AttentionConfig::new(16, 4);
        config.rule.mask = Mask::SlidingWindow(3);
        let blocks: Vec<_> = [Activation::Gelu, Activation::Silu]
            .map(|activation| TransformerBlock::new(&mut cx, &config, 24, activation))
            .into();
        blocks.init(5);
        let x = cx
            .input(('b', 's', 16), DType::F32)
            .set(numbers(2 * 9 * 16, 2));
        let y = blocks.forward(x).retrieve();
        if compile {
            #[cfg(feature = "llvm-backend")]
            let report = cx.compile(<(Generic, LlvmCpu)>::default(), ());
            #[cfg(not(feature = "llvm-backend"))]
            let report = cx.compile(Generic, ());
            let notes = report.notes();
            assert!(
                !notes.iter().any(|note| note.contains("reference executor")),
                "{notes:?}"
            );
        }
        cx.set_dim('b', 2);
        cx.set_dim('s', 9);
        cx.execute();
        y.data()
    };
    close(&run(true), &run(false), 2e-5);
}

#[test]
fn parameters_are_found_set_and_initialized_by_name() {
    let mut cx = Graph::new();
    let model = Sequential::new()
        .then(Linear::new(&mut cx, 2, 3, true))
        .then(Activation::Tanh)
        .then(Linear::new(&mut cx, 3, 1, true));
    let parameters = model.parameters();
    let listed: Vec<String> = parameters
        .iter()
        .map(|(name, tensor)| format!("{name} {}", tensor.ty()))
        .collect();
    let expected = [
        "0.weight f32[3, 2]",
        "0.bias f32[3]",
        "2.weight f32[1, 3]",
        "2.bias f32[1]",
    ];
    assert_eq!(listed, expected);
    assert_eq!(parameters.n_elements(), 6 + 3 + 3 + 1);
    model.init(1);
    let first = parameters.get("0.weight").unwrap().data();
    model.init(2);
    assert_ne!(parameters.get("0.weight").unwrap().data(), first);
    model.init(1);
    assert_eq!(parameters.get("0.weight").unwrap().data(), first);
    parameters.try_set("2.bias", [4.0]).unwrap();
    assert_eq!(parameters.get("2.bias").unwrap().data(), [4.0]);
    let refused = parameters.try_set("1.bias", [4.0]).unwrap_err().to_string();
    assert_eq!(refused, r#"there is no parameter "1.bias""#);
    assert!(parameters.try_set("2.bias", [4.0, 5.0]).is_err());
}

#[test]
fn gemma_has_the_parameters_of_its_checkpoints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["tests/data/gemma2/sharded", "models/gemma2-shakespeare"] {
        let config = Gemma2Config::open(root.join(folder)).unwrap();
        let checkpoint = Checkpoint::open(root.join(folder)).unwrap();
        let mut cx = Graph::new();
        let model = Gemma2::new(&mut cx, &config, 8, &|_| DType::BF16);
        let parameters = model.parameters();
        let mut names: Vec<&str> = parameters.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, checkpoint.names().collect::<Vec<_>>(), "{folder}");
        assert_eq!(
            Some(parameters.n_elements()),
            config.parameter_count(),
            "{folder}"
        );
    }
}
