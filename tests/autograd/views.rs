//! Gradients through movements: linear functions, so that differences are exact but for rounding.

use super::check::{array, check, gradients, spread};
use brain_blitz::prelude::*;
use proptest::prelude::*;

#[test]
fn overlapping_windows() {
    for (size, step, dilation) in [
        (3, 1, 1),
        (3, 2, 1),
        (2, 3, 1),
        (2, 1, 3),
        (3, 2, 2),
        (7, 1, 1),
    ] {
        let name = format!("unfold {size} {step} {dilation}");
        check(&name, &[array(&[2, 9], spread(18, 1))], &|_, x| {
            x[0].unfold_dilated(1, size, step, dilation)
        });
    }
    check("2d", &[array(&[2, 5, 6], spread(60, 1))], &|_, x| {
        x[0].unfold(1, 3, 1).unfold(2, 2, 2)
    });
    check("padded", &[array(&[2, 5], spread(10, 1))], &|_, x| {
        x[0].pad(1, 2, 1).unfold(1, 3, 2)
    });
}

#[test]
fn windows_of_many_elements_are_scattered() {
    let inputs = [array(&[400], spread(400, 1))];
    let found = gradients(&inputs, &|_, x| {
        x[0].unfold(0, 200, 1).sum(1) * 0.0 + x[0].unfold(0, 200, 1).sum(1)
    });
    let weights: Vec<f64> = (0..201)
        .map(|i| 0.5 + ((i * 5) % 11) as f64 / 10.0)
        .collect();
    for (i, found) in found[0].to_f64().iter().enumerate() {
        let windows = i.saturating_sub(199)..=i.min(200);
        let expected: f64 = windows.map(|w| weights[w]).sum();
        assert!(
            (found - expected).abs() < 1e-9,
            "{i}: {found} instead of {expected}"
        );
    }
}

/// One movement; what does not fit leaves the tensor as it is.
#[derive(Clone, Debug)]
enum Move {
    Permute(usize),
    Slice(usize, usize, usize, i64),
    Pad(usize, usize, usize),
    Flip(usize),
    Expand(usize, usize),
    Merge(usize),
    Split(usize, usize),
    Repeat(usize, usize),
    Unfold(usize, usize, i64, i64),
    Diagonal(i64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        (0..6usize).prop_map(Move::Permute),
        (0..4usize, 0..3usize, 1..6usize, 1..3i64).prop_map(|(a, b, c, d)| Move::Slice(a, b, c, d)),
        (0..4usize, 0..3usize, 0..3usize).prop_map(|(a, b, c)| Move::Pad(a, b, c)),
        (0..4usize).prop_map(Move::Flip),
        (0..4usize, 1..4usize).prop_map(|(a, b)| Move::Expand(a, b)),
        (0..4usize).prop_map(Move::Merge),
        (0..4usize, 2..4usize).prop_map(|(a, b)| Move::Split(a, b)),
        (0..4usize, 1..3usize).prop_map(|(a, b)| Move::Repeat(a, b)),
        (0..4usize, 1..4usize, 1..4i64, 1..3i64).prop_map(|(a, b, c, d)| Move::Unfold(a, b, c, d)),
        (-2..3i64).prop_map(Move::Diagonal),
    ]
}

fn moved(x: GraphTensor, by: &Move) -> GraphTensor {
    let dims: Vec<usize> = x
        .dims()
        .iter()
        .map(|d| d.as_usize().expect("static"))
        .collect();
    let rank = dims.len();
    let axis = |a: usize| a % rank.max(1);
    if rank == 0 {
        return x;
    }
    match *by {
        Move::Permute(by) => {
            let order: Vec<usize> = (0..rank).map(|i| (i + by) % rank).collect();
            x.permute(order)
        }
        Move::Slice(a, start, len, step) => {
            let a = axis(a);
            let start = start.min(dims[a]);
            x.slice_step(a, start, (start + len).min(dims[a]), step)
        }
        Move::Pad(a, before, after) => x.pad(axis(a), before, after),
        Move::Flip(a) => x.flip(axis(a)),
        Move::Expand(a, size) if rank < 5 => x.insert_axis(axis(a), size),
        Move::Merge(a) if rank > 1 => {
            let a = a % (rank - 1);
            let mut merged = dims.clone();
            merged[a] *= merged.remove(a + 1);
            x.reshape(merged)
        }
        Move::Split(a, by) if rank < 5 && dims[axis(a)].is_multiple_of(by) => {
            let a = axis(a);
            let mut split = dims.clone();
            split[a] /= by;
            split.insert(a + 1, by);
            x.reshape(split)
        }
        Move::Repeat(a, times) => {
            let mut all = vec![1; rank];
            all[axis(a)] = times;
            x.repeat(all)
        }
        Move::Unfold(a, size, step, dilation)
            if rank < 5 && dims[axis(a)] > (size - 1) * dilation as usize =>
        {
            x.unfold_dilated(axis(a), size, step, dilation)
        }
        Move::Diagonal(offset) if rank > 1 => x.diagonal(offset, 0, 1),
        _ => x,
    }
}

fn size(x: GraphTensor) -> usize {
    x.dims()
        .iter()
        .map(|d| d.as_usize().expect("static"))
        .product()
}

/// The gradient of a weighted sum of what a chain of movements shows, by brute force: what each element adds.
fn brute_force(dims: &[usize], chain: &[Move]) -> Option<Vec<f64>> {
    let n: usize = dims.iter().product();
    let mut cx = Graph::new();
    // Element i holds i + 1, so that padding shows 0.
    let numbers = (0..n).map(|i| (i + 1) as f64).collect();
    let x = cx
        .input(dims.to_vec(), DType::F64)
        .set(array(dims, numbers));
    let mut seen = x;
    for by in chain {
        seen = moved(seen, by);
        if size(seen) > 3000 {
            return None;
        }
    }
    let seen = seen.contiguous().retrieve();
    cx.execute();
    let mut sums = vec![0.0; n];
    for (i, at) in seen.array().to_f64().into_iter().enumerate() {
        if at > 0.0 {
            sums[at as usize - 1] += 0.5 + ((i * 5) % 11) as f64 / 10.0;
        }
    }
    Some(sums)
}

proptest! {
    #[test]
    fn any_chain_of_movements(
        dims in prop::collection::vec(1..6usize, 1..4),
        chain in prop::collection::vec(moves(), 1..7),
    ) {
        let n: usize = dims.iter().product();
        let expected = brute_force(&dims, &chain);
        prop_assume!(expected.is_some());
        let expected = expected.expect("assumed");
        let inputs = [array(&dims, spread(n, 1))];
        let found = gradients(&inputs, &|_, x| chain.iter().fold(x[0], moved).contiguous());
        for (found, expected) in found[0].to_f64().iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }
}
