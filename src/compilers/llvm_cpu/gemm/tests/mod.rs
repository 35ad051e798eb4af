//! Matrix products of all kinds against the definition.

use std::sync::Arc;

use super::CompiledGemm;
use super::ir::Contraction;
use super::linear::linear;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::jit::Jit;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Dims, Expr, IntoDims, View};
use check::{Case, check_everywhere, check_run, data, linked, product, targets};

mod ahead;
mod blocks;
mod broad;
mod check;
mod direct;
mod dot;
mod micro;
mod packing;
mod slim;

fn dense(dims: impl IntoDims) -> (DType, View) {
    (DType::F32, View::contiguous(dims))
}

fn transposed(dims: impl IntoDims) -> (DType, View) {
    (DType::F32, View::contiguous(dims).permute(&[1, 0]).unwrap())
}

#[test]
fn odd_sizes_in_all_four_layouts() {
    let sizes = [1, 7, 17, 63, 129];
    let layouts = [
        (dense(['m', 'k']), dense(['n', 'k'])),
        (dense(['m', 'k']), transposed(['k', 'n'])),
        (transposed(['k', 'm']), dense(['n', 'k'])),
        (transposed(['k', 'm']), transposed(['k', 'n'])),
    ];
    for (lhs, rhs) in layouts {
        let contraction = product(((), 'm', 'n', 'k'), lhs, rhs);
        let gemms: Vec<_> = targets()
            .iter()
            .map(|target| linked(&contraction, target))
            .collect();
        for (index, m, n, k) in (0..125).map(|i| (i, sizes[i / 25], sizes[i / 5 % 5], sizes[i % 5]))
        {
            let symbols = [('m', m), ('n', n), ('k', k)].into_iter().collect();
            let case = Case::new("odd sizes", contraction.clone(), symbols);
            let data = data(&case);
            check_run(&case, &data, &gemms[0], (1, index % 2 == 0));
            check_run(
                &case,
                &data,
                &gemms[1 + index % (gemms.len() - 1)],
                (1, index % 2 == 1),
            );
        }
    }
}

#[test]
fn sizes_beyond_one_block() {
    let plain = |name, m: usize, n: usize, k: usize| {
        Case::fixed(
            name,
            product(((), m, n, k), dense((m, k)), transposed((k, n))),
        )
    };
    check_everywhere(&[
        plain("several blocks of k", 20, 40, 600),
        plain("several blocks of m", 301, 33, 5),
        plain("several blocks of n", 150, 4200, 3),
        plain("few rows", 2, 700, 300),
    ]);
}

#[test]
fn nothing_to_sum_gives_zeros_and_nothing_to_compute_is_fine() {
    let plain = |m: usize, n: usize, k: usize| {
        Case::fixed(
            "empty",
            product(((), m, n, k), dense((m, k)), dense((n, k))),
        )
    };
    check_everywhere(&[
        plain(5, 7, 0),
        plain(0, 7, 5),
        plain(5, 0, 7),
        plain(0, 0, 0),
    ]);
    let zeros = data(&plain(5, 7, 0)).expected;
    assert!(zeros.len() == 35 && zeros.iter().all(|&bits| bits == 0));
}

#[test]
fn batches_broadcast_and_merged_dims() {
    let (heads, groups, tokens, width) = (4usize, 2usize, 5usize, 9usize);
    // Grouped queries: [token, group, head, width] against keys [token, group, width].
    let queries = View::contiguous((tokens, groups, heads, width))
        .permute(&[1, 2, 0, 3])
        .unwrap();
    let keys = View::contiguous((tokens, groups, width))
        .permute(&[1, 0, 2])
        .unwrap();
    let keys = keys.insert(1, heads).unwrap();
    let attention = product(
        ((groups, heads), tokens, tokens, width),
        (DType::F32, queries),
        (DType::F32, keys),
    );
    let none = product(((), (), (), 19), dense(19), dense(19));
    let outer = product(((), 13, 21, ()), dense(13), dense(21));
    let flat = product(
        (3, (2, 5), (4, 3), (2, 7)),
        dense((3, 2, 5, 2, 7)),
        dense((3, 4, 3, 2, 7)),
    );
    let mixed = View::contiguous((7, 3, 5, 2, 2))
        .permute(&[1, 4, 2, 3, 0])
        .unwrap();
    let mixed = product(
        (3, (2, 5), (4, 3), (2, 7)),
        (DType::F32, mixed),
        (
            DType::F32,
            View::contiguous((3, 4, 7, 2, 3))
                .permute(&[0, 1, 4, 3, 2])
                .unwrap(),
        ),
    );
    check_everywhere(&[
        Case::fixed("grouped attention", attention),
        Case::fixed("dot product", none),
        Case::fixed("outer product", outer),
        Case::fixed("merged dims", flat),
        Case::fixed("dims that do not merge", mixed),
    ]);
}

#[test]
fn half_precision_operands() {
    let mut cases = Vec::new();
    for (name, dtype) in [("bf16", DType::BF16), ("f16", DType::F16)] {
        let view = |dims: (usize, usize)| (dtype, View::contiguous(dims));
        let turned =
            |dims: (usize, usize)| (dtype, View::contiguous(dims).permute(&[1, 0]).unwrap());
        cases.push(Case::fixed(
            name,
            product(((), 14, 35, 23), view((14, 23)), view((35, 23))),
        ));
        cases.push(Case::fixed(
            name,
            product(((), 14, 35, 23), turned((23, 14)), turned((23, 35))),
        ));
        cases.push(Case::fixed(
            name,
            product(((), 3, 35, 23), dense((3, 23)), view((35, 23))),
        ));
        let padded = View::contiguous((33, 20)).pad(0, 1, 1).unwrap();
        let padded = (dtype, padded.pad(1, 2, 1).unwrap());
        cases.push(Case::fixed(
            name,
            product(((), 3, 35, 23), dense((3, 23)), padded),
        ));
    }
    check_everywhere(&cases);
}

#[test]
fn slices_flips_and_padding() {
    let slice = View::contiguous((20, 30)).slice(0, 3, 19, 2).unwrap();
    let slice = slice.slice(1, 5, 28, 1).unwrap();
    let flip = View::contiguous((9, 23)).flip(1).unwrap().flip(0).unwrap();
    let padded = View::contiguous((6, 20)).pad(0, 1, 2).unwrap();
    let padded = padded.pad(1, 3, 0).unwrap();
    let all_padding = View::contiguous((0, 23)).pad(0, 4, 4).unwrap();
    let rhs = || dense((10, 23));
    let with = |m: usize, view: View| product(((), m, 10, 23), (DType::F32, view), rhs());
    check_everywhere(&[
        Case::fixed("slice", with(8, slice)),
        Case::fixed("flip", with(9, flip)),
        Case::fixed("padding", with(9, padded)),
        Case::fixed("nothing but padding", with(8, all_padding)),
    ]);
}

#[test]
fn views_that_need_divisions() {
    let turned = View::contiguous((6, 35)).permute(&[1, 0]).unwrap();
    let reshaped = turned.reshape((10, 21)).unwrap();
    let padded = turned
        .pad(0, 1, 2)
        .unwrap()
        .pad(1, 2, 0)
        .unwrap()
        .reshape((16, 19))
        .unwrap();
    let symbolic = View::contiguous((6, 's'))
        .permute(&[1, 0])
        .unwrap()
        .pad(0, 1, 0)
        .unwrap();
    let symbolic = symbolic.reshape(((Expr::from('s') + 1) * 2, 3)).unwrap();
    for view in [&reshaped, &padded, &symbolic] {
        assert_eq!(linear(view), None, "{view}");
    }
    let with = |dtype, m: Expr, k: usize, view: &View| {
        product(((), m, 14, k), (dtype, view.clone()), dense((14, k)))
    };
    let values = [('s', 7i64)].into_iter().collect();
    let twice = (Expr::from('s') + 1) * 2;
    check_everywhere(&[
        Case::fixed("reshaped", with(DType::F32, 10.into(), 21, &reshaped)),
        Case::fixed("reshaped bf16", with(DType::BF16, 10.into(), 21, &reshaped)),
        Case::fixed(
            "reshaped after padding",
            with(DType::F32, 16.into(), 19, &padded),
        ),
        Case::new("symbolic", with(DType::F16, twice, 3, &symbolic), values),
    ]);
}

/// Images [batch, channels, height, width] as windows [batch, y, x, channels, 3, 3].
fn windows(step: i64, symbols: bool) -> View {
    let height: Expr = if symbols { 'h'.into() } else { Expr::from(6) };
    let image = View::contiguous((2, 3, height, 5));
    let image = image.pad(2, 1, 1).unwrap().pad(3, 1, 1).unwrap();
    let view = image
        .unfold(2, 3, step, 1)
        .unwrap()
        .unfold(3, 3, step, 1)
        .unwrap();
    view.permute(&[0, 2, 3, 1, 4, 5]).unwrap()
}

#[test]
fn convolution_through_windows() {
    for (step, symbols) in [(1, false), (2, false), (1, true)] {
        let view = windows(step, symbols);
        let dims = view.dims().to_vec();
        let m = Dims::from_slice(&dims[..3]);
        let weights = View::contiguous((7, 3, 3, 3));
        let contraction = product(
            ((), m, 7, (3, 3, 3)),
            (DType::F32, view),
            (DType::F32, weights),
        );
        let values = [('h', 6i64)].into_iter().collect();
        check_everywhere(&[Case::new("convolution", contraction, values)]);
    }
}

#[test]
fn windows_in_few_runs() {
    let image = View::contiguous((2, 3, 9, 28));
    let padded = image.pad(2, 2, 2).unwrap().pad(3, 2, 2).unwrap();
    let windows = |view: &View| {
        let view = view.unfold(2, 5, 1, 1).unwrap();
        view.unfold(3, 5, 1, 1).unwrap() // [n, y, x, c, 5, 5] after the permutation
    };
    let order = [0, 2, 3, 1, 4, 5];
    let mut cases = Vec::new();
    for view in [windows(&image), windows(&padded)] {
        let view = view.permute(&order).unwrap();
        let dims = view.dims().to_vec();
        let (places, inside) = (Dims::from_slice(&dims[..3]), Dims::from_slice(&dims[3..]));
        let factor = |dims: &Dims| (DType::F32, View::contiguous(dims.clone()));
        let mut weight = Dims::from_slice(&[7.into()]);
        weight.extend(inside.iter().copied());
        let forward = product(
            ((), places.clone(), 7, inside.clone()),
            (DType::F32, view.clone()),
            factor(&weight),
        );
        let mut outputs = Dims::from_slice(&[6.into()]);
        outputs.extend(places.iter().copied());
        let backward = product(
            ((), inside, 6, places),
            (DType::F32, view.permute(&[3, 4, 5, 0, 1, 2]).unwrap()),
            factor(&outputs),
        );
        cases.push(Case::fixed("forward", forward));
        cases.push(Case::fixed("gradient of the weight", backward));
    }
    check_everywhere(&cases);
}

#[test]
fn outputs_with_any_strides() {
    let with = |name, strides: &[i64]| {
        let mut contraction = product(
            (3, (2, 9), 18, 300),
            dense((3, 2, 9, 300)),
            dense((3, 18, 300)),
        );
        contraction.out_strides = strides.into_dims();
        Case::fixed(name, contraction)
    };
    let transposed = with("transposed", &[2 * 9 * 18, 9, 1, 18]);
    let swapped = Case::fixed("swapped", transposed.contraction.swapped());
    check_everywhere(&[
        with("gaps between rows", &[1000, 9 * 20, 20, 1]),
        with("gaps between columns", &[2 * 9 * 36, 9 * 36, 36, 2]),
        with("rows that do not merge", &[9 * 18, 3 * 9 * 18, 18, 1]),
        with("batch innermost", &[1, 9 * 18 * 3, 18 * 3, 3]),
        transposed,
        swapped,
    ]);
}

#[test]
fn what_cannot_be_lowered_is_an_error_that_says_why() {
    let good = product(((), 2, 3, 4), dense((2, 4)), dense((3, 4)));
    let message = |change: &dyn Fn(&mut Contraction)| {
        let mut bad = good.clone();
        change(&mut bad);
        let made = CompiledGemm::new(&bad, &Target::native(), &ObjectCache::disabled());
        made.unwrap_err().to_string()
    };
    assert!(message(&|c| c.dtype = DType::I32).contains("i32"));
    assert!(message(&|c| c.lhs.dtype = DType::F64).contains("lhs is of f64"));
    assert!(message(&|c| c.rhs.view = View::contiguous((4, 3))).contains("rhs is [4, 3]"));
    assert!(message(&|c| c.out_strides = Dims::new()).contains("stride"));
}

#[test]
fn equal_products_share_their_code_and_different_ones_live_together() {
    let jit = Arc::new(Jit::new().unwrap());
    let (target, cache) = (Target::native(), ObjectCache::disabled());
    let first = product(((), 2, 3, 4), dense((2, 4)), dense((3, 4)));
    let second = product(((), 2, 3, 4), dense((2, 4)), transposed((4, 3)));
    for contraction in [&first, &first, &second] {
        let compiled = CompiledGemm::new(contraction, &target, &cache).unwrap();
        let gemm = (compiled.link(&jit).unwrap(), compiled.params().to_vec());
        let case = Case::fixed("shared", contraction.clone());
        check_run(&case, &data(&case), &gemm, (1, false));
    }
}

#[test]
fn the_same_product_is_found_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = ObjectCache::in_dir(dir.path());
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let with = |view: View| product(((), 3, 5, 's'), (DType::F32, view), dense((5, 's')));
    let first = with(View::contiguous((3, 's')));
    CompiledGemm::new(&first, &Target::native(), &cache).unwrap();
    let before = files();
    CompiledGemm::new(&first, &Target::native(), &cache).unwrap();
    assert_eq!(files(), before);
    let second = with(View::contiguous(('s', 3)).permute(&[1, 0]).unwrap());
    CompiledGemm::new(&second, &Target::native(), &cache).unwrap();
    assert_eq!(files(), before + 1);
}

#[test]
fn products_of_other_sizes_share_the_packing_of_operands_that_lie_alike() {
    let dir = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let compile = |m: i64, n: i64, k: i64| {
        let cache = ObjectCache::in_dir(dir.path());
        let contraction = product(((), m, n, k), dense((m, k)), transposed((k, n)));
        CompiledGemm::new(&contraction, &Target::native(), &cache).unwrap();
    };
    compile(300, 50, 70);
    let before = files();
    compile(40, 640, 192);
    compile(99, 95, 12);
    assert_eq!(files(), before);
}

#[test]
fn the_assembly_has_everything_a_product_runs() {
    let contraction = product(((), 3, 5, 7), dense((3, 7)), dense((5, 7)));
    let target = Target::for_cpu("sapphirerapids").unwrap();
    let text = CompiledGemm::assembly(&contraction, &target).unwrap();
    assert!(text.contains("gemm_pack_lhs_") && text.contains("gemm_pack_rhs_"));
    assert!(text.contains("gemm_f32xf32_f32_12x32_sapphirerapids:"));
}
