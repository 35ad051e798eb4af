//! Random chains of movements against the oracle, with constant and with symbolic sizes.
//!
//! A chain is a list of raw numbers; each step reads what it needs from them, given the concrete
//! dims so far, so that every chain is valid. In the symbolic run, the view is built from
//! expressions whose values are the concrete numbers.

use super::oracle::Naive;
use crate::shape::{Dims, Expr, Symbols, View};
use proptest::prelude::*;

const MAX_RANK: usize = 7;
const MAX_ELEMENTS: usize = 4000;

/// The same tensor twice: as a view and as the oracle's.
#[derive(Clone)]
struct Pair {
    view: View,
    naive: Naive,
}

/// A source of choices, and how numbers become expressions.
struct Chooser<'a> {
    raw: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    symbols: Symbols,
    symbolic: bool,
    /// Elements of the buffer that all views are built for.
    n_buffer: usize,
}

impl Chooser<'_> {
    fn below(&mut self, n: usize) -> usize {
        *self.raw.next().expect("a cycle of something does not end") as usize % n
    }

    /// An expression with the value `n`: in the symbolic run often a symbol, or one plus or times
    /// a constant.
    fn expr(&mut self, n: usize) -> Expr {
        let constant = Expr::from(n);
        if !self.symbolic {
            return constant;
        }
        let symbol = |n: i64, symbols: &mut Symbols| {
            let name = char::from(b'a' + n as u8);
            symbols.set(name, n);
            Expr::from(name)
        };
        match self.below(4) {
            0 => constant,
            1 if n < 26 => symbol(n as i64, &mut self.symbols),
            2 if n > 0 && n <= 26 => symbol(n as i64 - 1, &mut self.symbols) + 1,
            3 if n.is_multiple_of(2) && n < 52 => symbol(n as i64 / 2, &mut self.symbols) * 2,
            _ => constant,
        }
    }
}

/// One movement, chosen among those that are possible; the pair stays as it is if none is.
fn step(pair: &Pair, earlier: &[Pair], choose: &mut Chooser) -> Pair {
    let Pair { view, naive } = pair;
    let rank = naive.dims.len();
    let kind = choose.below(14);
    if rank == 0 && kind > 2 {
        return pair.clone();
    }
    let axis = choose.below(rank.max(1));
    let (view, naive) = match kind {
        0 => {
            let (axis, size) = (choose.below(rank + 1), choose.below(4));
            let size_expr = choose.expr(size);
            (view.insert(axis, size_expr), naive.insert(axis, size))
        }
        1 => {
            let (dims, exprs) = other_dims(pair, choose);
            (view.reshape(exprs), naive.reshape(&dims))
        }
        2 => {
            let outer = &earlier[choose.below(earlier.len())];
            return compose(pair, outer, choose);
        }
        3 | 4 => {
            let mut order: Vec<usize> = (0..rank).collect();
            for at in (1..rank).rev() {
                order.swap(at, choose.below(at + 1));
            }
            (view.permute(&order), naive.permute(&order))
        }
        5 if view.dims()[axis].is_one() => {
            let size = choose.below(4);
            let size_expr = choose.expr(size);
            (view.expand(axis, size_expr), naive.expand(axis, size))
        }
        6 if view.dims()[axis].is_one() => (view.squeeze(axis), naive.squeeze(axis)),
        5..=8 => return slice(pair, axis, choose),
        9 => {
            let (before, after) = (choose.below(3), choose.below(3));
            let (b, a) = (choose.expr(before), choose.expr(after));
            (view.pad(axis, b, a), naive.pad(axis, before, after))
        }
        10 => (view.flip(axis), naive.flip(axis)),
        11 => return repeat(pair, axis, choose),
        12 => return unfold(pair, axis, choose),
        _ => return diagonal(pair, axis, choose),
    };
    let view = view.expect("a possible movement");
    Pair { view, naive }
}

fn repeat(pair: &Pair, axis: usize, choose: &mut Chooser) -> Pair {
    let times = choose.below(4);
    let times_expr = choose.expr(times);
    let (view, naive) = match choose.below(2) {
        0 => (
            pair.view.repeat(axis, times_expr),
            pair.naive.repeat(axis, times),
        ),
        _ => (
            pair.view.repeat_each(axis, times_expr),
            pair.naive.repeat_each(axis, times),
        ),
    };
    let view = view.expect("a possible repetition");
    Pair { view, naive }
}

fn unfold(pair: &Pair, axis: usize, choose: &mut Chooser) -> Pair {
    let (size, dilation) = (1 + choose.below(3), 1 + choose.below(2));
    let step = 1 + choose.below(3);
    if (size - 1) * dilation >= pair.naive.dims[axis] {
        return pair.clone();
    }
    let size_expr = choose.expr(size);
    let view = pair
        .view
        .unfold(axis, size_expr, step as i64, dilation as i64);
    Pair {
        view: view.expect("a window that fits"),
        naive: pair.naive.unfold(axis, size, step, dilation),
    }
}

fn diagonal(pair: &Pair, axis: usize, choose: &mut Chooser) -> Pair {
    let second = choose.below(pair.naive.dims.len());
    let offset = choose.below(5) as i64 - 2;
    if second == axis {
        return pair.clone();
    }
    let view = pair.view.diagonal(axis, second, offset);
    Pair {
        view: view.expect("two axes"),
        naive: pair.naive.diagonal(axis, second, offset),
    }
}

fn slice(pair: &Pair, axis: usize, choose: &mut Chooser) -> Pair {
    let n = pair.naive.dims[axis];
    let low = choose.below(n + 1);
    let high = low + choose.below(n - low + 1);
    let step = 1 + choose.below(3) as i64;
    let high_expr = match high == n {
        true => pair.view.dims()[axis],
        false => choose.expr(high),
    };
    let low_expr = choose.expr(low);
    let (view, naive) = match choose.below(2) {
        0 => (
            pair.view.slice(axis, low_expr, high_expr, step),
            pair.naive.slice(axis, low as i64, high as i64, step),
        ),
        _ => (
            pair.view.slice(axis, high_expr - 1, low_expr - 1, -step),
            pair.naive
                .slice(axis, high as i64 - 1, low as i64 - 1, -step),
        ),
    };
    let view = view.expect("a possible slice");
    Pair { view, naive }
}

/// Dims with as many elements: a merge of neighbours, a split, an extra or a lost 1, or new ones.
fn other_dims(pair: &Pair, choose: &mut Chooser) -> (Vec<usize>, Dims) {
    let mut dims = pair.naive.dims.clone();
    let mut exprs = Dims::from(pair.view.dims());
    let rank = dims.len();
    match choose.below(5) {
        0 | 1 if rank >= 2 => {
            let at = choose.below(rank - 1);
            dims[at] *= dims.remove(at + 1);
            let inner = exprs.remove(at + 1);
            exprs[at] *= inner;
        }
        2 | 3 if rank >= 1 => {
            let at = choose.below(rank);
            let n = dims[at];
            let inner = 1 + choose.below(n.max(1));
            if n.is_multiple_of(inner) {
                let inner_expr = choose.expr(inner);
                dims[at] = n / inner;
                dims.insert(at + 1, inner);
                // An expression that has the right value, whether or not that can be proved.
                exprs[at] = match choose.below(2) {
                    0 => exprs[at].floor_div(inner_expr),
                    _ => choose.expr(n / inner),
                };
                exprs.insert(at + 1, inner_expr);
            }
        }
        4 => {
            let n: usize = dims.iter().product();
            let divisors: Vec<usize> = (1..=n.max(1)).filter(|d| n.is_multiple_of(*d)).collect();
            let inner = divisors[choose.below(divisors.len())];
            dims = vec![n / inner, inner];
            exprs = dims.iter().map(|&dim| choose.expr(dim)).collect();
        }
        _ => {
            let at = choose.below(rank + 1);
            dims.insert(at, 1);
            exprs.insert(at, Expr::from(1));
        }
    }
    (dims, exprs)
}

/// `pair` looked at through an earlier view, if it has all the elements that was made for.
fn compose(pair: &Pair, outer: &Pair, choose: &mut Chooser) -> Pair {
    if pair.naive.elements.len() < choose.n_buffer {
        return pair.clone();
    }
    // The outer view addresses one axis of all elements.
    let flat = match choose.below(2) {
        0 => pair.view.reshape(pair.view.numel()).expect("a flat view"),
        _ => pair.view.clone(),
    };
    Pair {
        view: flat.compose(&outer.view),
        naive: pair.naive.compose(&outer.naive),
    }
}

/// Everything a view says against the oracle.
fn check(pair: &Pair, symbols: &Symbols) {
    let Pair { view, naive } = pair;
    let concrete = view.resolve(symbols).expect("the symbols have values");
    assert_eq!(concrete.dims(), naive.dims, "dims of {view}");
    let read: Vec<_> = concrete.iter().collect();
    assert_eq!(read, naive.elements, "elements of {view}");
    let mut visited = Vec::new();
    concrete.for_each_index(|at, index| {
        assert_eq!(at, visited.len());
        visited.push(index);
    });
    assert_eq!(visited, naive.elements, "visit of {view}");
    if let Some(first) = concrete.contiguous_from() {
        let in_order = (first..).take(naive.elements.len()).map(Some);
        assert!(naive.elements.iter().copied().eq(in_order), "{view}");
    }
    let last: Vec<usize> = naive.dims.iter().map(|&dim| dim.wrapping_sub(1)).collect();
    if let Some(&element) = naive.elements.last() {
        assert_eq!(concrete.index(&last), element, "last element of {view}");
    }
    let highest = naive.elements.iter().flatten().copied().max();
    assert!(
        highest <= concrete.max_index(),
        "{view} reads {highest:?}, promised {:?}",
        concrete.max_index()
    );
    if view.layers().len() == 1 {
        assert_eq!(highest, concrete.max_index(), "highest index of {view}");
        assert!(
            highest.is_none_or(|highest| concrete.fits(highest + 1) && !concrete.fits(highest))
        );
    }
    if view.is_contiguous() {
        let in_order = (0..naive.elements.len()).map(Some);
        assert!(naive.elements.iter().copied().eq(in_order), "{view}");
    }
    if !view.is_masked() {
        assert!(naive.elements.iter().all(Option::is_some), "{view}");
    }
}

fn run_chain(sizes: &[usize], raw: &[u8], n_steps: usize, symbolic: bool) {
    let mut choose = Chooser {
        raw: raw.iter().cycle(),
        symbols: Symbols::new(),
        symbolic,
        n_buffer: sizes.iter().product(),
    };
    let dims: Dims = sizes.iter().map(|&size| choose.expr(size)).collect();
    let mut pair = Pair {
        view: View::contiguous(dims),
        naive: Naive::buffer(sizes),
    };
    let mut earlier = vec![pair.clone()];
    for _ in 0..n_steps {
        let next = step(&pair, &earlier, &mut choose);
        if next.naive.dims.len() > MAX_RANK || next.naive.elements.len() > MAX_ELEMENTS {
            continue;
        }
        pair = next;
        check(&pair, &choose.symbols);
        let concrete = pair.view.resolve(&choose.symbols).expect("checked");
        assert!(
            concrete.max_index() < Some(choose.n_buffer.max(1)),
            "inside the buffer"
        );
        assert!(concrete.fits(choose.n_buffer), "{}", pair.view);
        let text = pair.view.to_string();
        assert_eq!(text.parse(), Ok(pair.view.clone()), "round trip of {text}");
        earlier.push(pair.clone());
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![1 => Just(0usize), 3 => Just(1), 12 => 2usize..7];
    proptest::collection::vec(size, 0..5)
        .prop_filter("small", |dims| dims.iter().product::<usize>() <= 400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 1500 }))]

    #[test]
    fn concrete_chains_read_what_the_oracle_reads(
        sizes in sizes(),
        raw in proptest::collection::vec(any::<u8>(), 60),
        n_steps in 1usize..10,
    ) {
        run_chain(&sizes, &raw, n_steps, false);
    }

    #[test]
    fn symbolic_chains_read_what_the_oracle_reads(
        sizes in sizes(),
        raw in proptest::collection::vec(any::<u8>(), 80),
        n_steps in 1usize..8,
    ) {
        run_chain(&sizes, &raw, n_steps, true);
    }
}
