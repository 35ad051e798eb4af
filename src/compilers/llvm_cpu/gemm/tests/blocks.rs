//! Products with right operands in blocks: packed, by dot products and by weighted sums, against the definition.

use super::check::{
    Case, check_everywhere, data, data_by, product, run_few, run_sums, striped, targets,
};
use super::dense;
use crate::dtype::DType;
use crate::shape::{Expr, View};

/// `[n, k]` of rows in blocks, whose last one may have other numbers behind the row's.
fn rows(n: i64, k: i64) -> (DType, View) {
    let whole = View::contiguous([n, k + (32 - k % 32) % 32]);
    (DType::U8, whole.slice(1, 0, k, 1).unwrap())
}

/// `[n, k]` of columns in blocks.
fn columns(n: i64, k: i64) -> (DType, View) {
    let (dtype, view) = rows(k, n);
    (dtype, view.permute(&[1, 0]).unwrap())
}

const SIZES: [(i64, i64, i64); 7] = [
    (1, 32, 64),
    (2, 40, 48),
    (3, 64, 7),
    (5, 256, 100),
    (7, 70, 33),
    (16, 288, 129),
    (33, 17, 300),
];

#[test]
fn packed_blocks_of_rows_and_columns() {
    for (m, n, k) in SIZES {
        let cases = [rows(n, k), columns(n, k)]
            .map(|rhs| Case::fixed("blocks", product(((), m, n, k), dense((m, k)), rhs)));
        check_everywhere(&cases);
    }
}

#[test]
fn dot_products_read_blocks() {
    for (m, n, k) in SIZES.into_iter().filter(|size| size.0 < 32) {
        let case = Case::fixed("dots", product(((), m, n, k), dense((m, k)), rows(n, k)));
        let expected = data_by(&case, striped).expected;
        for target in targets() {
            for threads in [1, 3] {
                let got = run_few(&case, &target, threads).expect("few rows");
                assert_eq!(got, expected, "{m} x {n} x {k} on {target}, {threads}");
            }
        }
    }
}

#[test]
fn weighted_sums_read_blocks() {
    for (m, n, k) in SIZES.into_iter().filter(|size| size.0 < 32) {
        let case = Case::fixed("sums", product(((), m, n, k), dense((m, k)), columns(n, k)));
        let expected = data(&case).expected;
        for target in targets() {
            for threads in [1, 3] {
                let got = run_sums(&case, &target, threads).expect("few rows");
                assert_eq!(got, expected, "{m} x {n} x {k} on {target}, {threads}");
            }
        }
    }
}

/// Heads of a cache of which so many rows are filled.
#[test]
fn blocks_of_a_part_of_a_buffer() {
    let (t, heads, width) = (Expr::from('t'), 3, 64);
    let cache = View::contiguous([heads, 150, width]);
    let filled = cache.slice(1, 0, t, 1).unwrap();
    let values = filled.permute(&[0, 2, 1]).unwrap();
    let queries = (DType::F32, View::contiguous((heads, 5, width)));
    let weights = (DType::F32, View::contiguous((heads, 5, t)));
    let sizes = ((heads, 5, t, width), (heads, 5, width, t));
    let scores = product(sizes.0, queries, (DType::U8, filled));
    let sums = product(sizes.1, weights, (DType::U8, values));
    for rows in [1, 31, 150] {
        let symbols = || [('t', rows)].into_iter().collect();
        let scores = Case::new("scores", scores.clone(), symbols());
        let sums = Case::new("sums", sums.clone(), symbols());
        let wanted = [data_by(&scores, striped).expected, data(&sums).expected];
        for target in targets() {
            let few = run_few(&scores, &target, 2).expect("few rows");
            let summed = run_sums(&sums, &target, 2).expect("few rows");
            assert!([few, summed] == wanted, "{rows} rows on {target}");
        }
        check_everywhere(&[scores, sums]);
    }
}

#[test]
fn only_right_operands_whose_runs_begin_with_blocks_are_read() {
    let check = |lhs, rhs| product(((), 4, 64, 32), lhs, rhs).check().is_ok();
    assert!(check(dense((4, 32)), rows(64, 32)));
    assert!(check(dense((4, 32)), columns(64, 32)));
    assert!(!check(rows(4, 32), dense((64, 32))));
    let shifted = View::contiguous([64, 64]).slice(1, 16, 48, 1).unwrap();
    assert!(!check(dense((4, 32)), (DType::U8, shifted)));
    let odd = View::contiguous([64, 40]).slice(1, 0, 32, 1).unwrap();
    assert!(!check(dense((4, 32)), (DType::U8, odd)));
}
