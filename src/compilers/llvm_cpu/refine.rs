//! Maps over a dim that a view takes apart → the same maps over the parts.
//!
//! ```text
//! over [s, 192]:  load x {[s, 192] <- [s, 4, 2, 24] * (..)}     →     over [s, 4, 2, 24]:  load x {[s, 4, 2, 24] * (..)}
//! ```
//! Heads that are joined, halves of heads that change places, and their gradients. Where the layers stay, each lane's
//! address is computed with divisions, and its element is read alone; taken apart, the innermost part is read in vectors.
//!
//! Not touched: reductions, whose order is part of their meaning; parts too short for a vector; views with padding
//! between the layers that does not come apart; dims of symbolic size and those around them, which only stay what they are.

use super::ir::{Nest, Scalar};
use crate::shape::view::Layer;
use crate::shape::{Dims, Expr, View};

/// The fewest neighbours that are worth a row of their own.
const SHORT: i64 = 8;

/// The nest over parts of its dims, if that makes fewer layers; the nest itself elsewhere.
pub fn refined(nest: Nest) -> Nest {
    match parts(&nest).and_then(|dims| over(&nest, &dims)) {
        Some(finer) => finer,
        None => nest,
    }
}

/// What a row-major coordinate of each dim counts, without the whole and single elements; nothing of symbolic sizes.
fn counts(dims: &[Expr]) -> Option<Vec<i64>> {
    let mut count = 1;
    let mut counts = Vec::new();
    for size in sizes(dims)?.into_iter().rev().filter(|&size| size != 1) {
        if count > 1 {
            counts.push(count);
        }
        count *= size;
    }
    Some(counts)
}

fn sizes(dims: &[Expr]) -> Option<Vec<i64>> {
    dims.iter().map(|dim| dim.as_const()).collect()
}

/// The dims below a layer that only says how they are merged.
fn merged(view: &View) -> Option<&Layer> {
    let [.., below, top] = view.layers() else {
        return None;
    };
    top.is_contiguous().then_some(below)
}

/// The finest dims that views take the map's dims apart into.
fn parts(nest: &Nest) -> Option<Dims> {
    let moves = |node: &Scalar| matches!(node, Scalar::Gather { .. } | Scalar::Coord(_));
    if !nest.reduce.is_empty() || !nest.stages.is_empty() || nest.body.iter().any(moves) {
        return None;
    }
    let symbolic = nest.space.iter().rposition(|dim| dim.as_const().is_none());
    let (outer, inner) = nest.space.split_at(symbolic.map_or(0, |last| last + 1));
    let all: i64 = sizes(inner)?.into_iter().product();
    let own = counts(inner)?;
    let mut each = own.clone();
    let layers = nest.loads.iter().filter_map(|load| merged(&load.view));
    for dims in layers.filter_map(|layer| layer.dims.strip_prefix(outer)) {
        let counts = counts(dims).filter(|counts| counts.iter().all(|&n| n >= SHORT));
        each.extend(counts.into_iter().flatten().filter(|&n| n < all));
    }
    each.sort_unstable_by(|a, b| b.cmp(a));
    each.dedup();
    if each.len() == own.len() || all == 0 {
        return None;
    }
    let bounds: Vec<i64> = [all].into_iter().chain(each).chain([1]).collect();
    let divides = |pair: &[i64]| pair[0] % pair[1] == 0;
    let parts = bounds.windows(2).map(|pair| Expr::from(pair[0] / pair[1]));
    let dims = outer.iter().copied().chain(parts);
    bounds.windows(2).all(divides).then(|| dims.collect())
}

/// The map over other dims of as many points, if some view has fewer layers there and none has more.
fn over(nest: &Nest, dims: &Dims) -> Option<Nest> {
    let mut finer = nest.clone();
    finer.space = dims.clone();
    let mut n_fewer = 0;
    for load in &mut finer.loads {
        let view = load.view.reshape(dims.clone()).ok()?;
        let [before, after] = [&load.view, &view].map(|view| view.layers().len());
        if after > before {
            return None;
        }
        n_fewer += usize::from(after < before);
        load.view = view;
    }
    (n_fewer > 0).then_some(finer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compilers::llvm_cpu::ir::Access;
    use crate::dtype::DType;
    use crate::shape::IntoDims;

    fn map(views: Vec<View>) -> Nest {
        let space: Dims = views[0].dims().iter().copied().collect();
        let access = |(input, view)| Access {
            input,
            dtype: DType::F32,
            view,
        };
        Nest {
            space,
            reduce: Dims::new(),
            n_inputs: views.len(),
            loads: views.into_iter().enumerate().map(access).collect(),
            body: vec![Scalar::Load(0)],
            stages: vec![],
            per_point: false,
            result: 0,
            dtype: DType::F32,
        }
    }

    /// `[2, heads, 5, d]`, joined to `[2, 5, heads * d]`.
    fn joined(heads: i64, d: i64) -> View {
        let view = View::contiguous((2, heads, 5, d));
        let view = view.permute(&[0, 2, 1, 3]).unwrap();
        view.reshape((2, 5, heads * d)).unwrap()
    }

    #[test]
    fn joined_heads_are_walked_one_by_one() {
        let plain = View::contiguous((2, 5, 192));
        let nest = refined(map(vec![plain, joined(4, 48)]));
        assert_eq!(nest.space, (2, 5, 4, 48).into_dims());
        assert!(nest.loads.iter().all(|load| load.view.single().is_some()));
        assert!(nest.loads[0].view.is_contiguous());
        // A dim of one element takes nothing apart.
        let with_one = |view: View| view.reshape((2, 5, 1, 192)).unwrap();
        let nest = refined(map(vec![with_one(joined(4, 48))]));
        assert_eq!(nest.space, (2, 5, 4, 48).into_dims());
        // Two views that take different parts apart.
        let nest = refined(map(vec![joined(4, 48), joined(8, 24)]));
        assert_eq!(nest.space, (2, 5, 4, 2, 24).into_dims());
        assert!(nest.loads.iter().all(|load| load.view.single().is_some()));
    }

    #[test]
    fn symbolic_dims_stay_what_they_are() {
        // Halves of heads that change places, of as many tokens as there are.
        let rotated = |tokens: Expr| {
            let halves = View::contiguous((4, tokens, 2, 24));
            let halves = halves.slice(2, 1, -1, -1).unwrap();
            halves.reshape((4, tokens, 48)).unwrap()
        };
        let s = Expr::from('s');
        let plain = View::contiguous((4, s, 48));
        let nest = refined(map(vec![plain, rotated(s)]));
        assert_eq!(nest.space, (4, s, 2, 24).into_dims());
        assert!(nest.loads.iter().all(|load| load.view.single().is_some()));
        // Another number of heads before the same tokens.
        let other = View::contiguous((2, s, 4, 24));
        let other = other.slice(2, 3, -1, -1).unwrap();
        let other = map(vec![other.reshape((4, s, 48)).unwrap()]);
        assert_eq!(refined(other.clone()), other);
    }

    #[test]
    fn short_parts_and_what_does_not_divide_stay_together() {
        for views in [
            vec![joined(48, 4)],
            vec![joined(4, 48), joined(6, 32)],
            vec![View::contiguous((2, 5, 192))],
        ] {
            let nest = map(views);
            assert_eq!(refined(nest.clone()), nest);
        }
    }
}
