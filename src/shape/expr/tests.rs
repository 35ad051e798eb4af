//! Algebra against evaluation, simplifications that shapes rely on, text.

use super::{Expr, RUN};
use crate::shape::{Symbols, UnsetSymbol, same_size};
use proptest::prelude::*;
use rustc_hash::FxHashMap;

fn s(symbol: char) -> Expr {
    Expr::from(symbol)
}

/// An expression as it is written, with its own evaluation.
#[derive(Clone, Debug)]
enum Tree {
    Const(i64),
    Symbol(char),
    Binary(&'static str, Box<Tree>, Box<Tree>),
}

impl Tree {
    fn build(&self) -> Expr {
        match self {
            Tree::Const(value) => Expr::from(*value),
            Tree::Symbol(symbol) => Expr::from(*symbol),
            Tree::Binary(op, a, b) => {
                let (a, b) = (a.build(), b.build());
                match *op {
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "/" => a.floor_div(b),
                    "%" => a.rem(b),
                    "ceil" => a.ceil_div(b),
                    "min" => a.min(b),
                    _ => a.max(b),
                }
            }
        }
    }

    fn value(&self, symbols: &Symbols) -> i128 {
        match self {
            Tree::Const(value) => *value as i128,
            Tree::Symbol(symbol) => symbols.get(*symbol).expect("all have values") as i128,
            Tree::Binary(op, a, b) => {
                let (a, b) = (a.value(symbols), b.value(symbols));
                let floor = |a: i128, b: i128| match b {
                    0 => 0,
                    _ => (a as f64 / b as f64).floor() as i128,
                };
                match *op {
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "/" => floor(a, b),
                    "%" => a - b * floor(a, b),
                    "ceil" => -floor(-a, b),
                    "min" => a.min(b),
                    _ => a.max(b),
                }
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (-6i64..14).prop_map(Tree::Const),
        prop::sample::select(vec!['p', 's', 'n', RUN]).prop_map(Tree::Symbol),
    ];
    let ops = vec!["+", "-", "*", "/", "%", "ceil", "min", "max"];
    leaf.prop_recursive(4, 12, 2, move |inner| {
        (prop::sample::select(ops.clone()), inner.clone(), inner)
            .prop_map(|(op, a, b)| Tree::Binary(op, Box::new(a), Box::new(b)))
    })
}

/// Small values, for which the oracle's floating-point division is exact.
fn small(value: i128) -> bool {
    value.abs() < 1 << 40
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 4000 }))]

    #[test]
    fn algebra_agrees_with_evaluation(
        tree in trees(),
        values in prop::collection::vec(0i64..12, 4),
    ) {
        let symbols: Symbols = ['p', 's', 'n', RUN].into_iter().zip(values).collect();
        let (expr, value) = (tree.build(), tree.value(&symbols));
        prop_assume!(small(value));
        prop_assert_eq!(expr.eval(&symbols), Ok(value as i64), "{}", expr);
        let (low, high) = expr.bounds();
        prop_assert!(low.is_none_or(|low| low as i128 <= value), "{} >= {:?}", expr, low);
        prop_assert!(high.is_none_or(|high| value <= high as i128), "{} <= {:?}", expr, high);
        let text = expr.to_string();
        prop_assert_eq!(text.parse::<Expr>(), Ok(expr), "{}", text);
        for symbol in expr.symbols() {
            let known = Expr::from(symbols.get(symbol).expect("it has a value"));
            let less = expr.substitute(symbol, known);
            prop_assert!(!less.symbols().contains(&symbol));
            prop_assert_eq!(less.eval(&symbols), Ok(value as i64));
        }
    }

    #[test]
    fn addition_and_multiplication_do_not_depend_on_order(
        a in trees(), b in trees(), c in trees(),
    ) {
        let (a, b, c) = (a.build(), b.build(), c.build());
        prop_assert_eq!(a + b, b + a);
        prop_assert_eq!(a * b, b * a);
        prop_assert_eq!((a + b) + c, a + (b + c));
        prop_assert_eq!((a * b) * c, a * (b * c));
        prop_assert_eq!(a * (b + c), a * b + a * c);
        prop_assert_eq!(a - a, Expr::from(0));
        prop_assert_eq!((a + b) - b, a);
        prop_assert_eq!(a.min(b), b.min(a));
        prop_assert_eq!(a.max(b), b.max(a));
        let (quotient, rest) = a.div_poly(b);
        prop_assert_eq!(quotient * b + rest, a);
    }

    #[test]
    fn parsing_is_total(text in "([0-9]{1,20}|[ps#é]|[-+*/%(), ]|min\\(|max\\(){0,24}") {
        if let Ok(expr) = text.parse::<Expr>() {
            prop_assert_eq!(expr.to_string().parse(), Ok(expr));
        }
    }
}

#[test]
fn sizes_simplify_as_shapes_need_it() {
    let (p, n) = (s('p'), s('n'));
    let used = p + 's';
    assert_eq!(used, s('s') + p);
    assert_eq!(used * 2, p * 2 + s('s') * 2);
    assert_eq!((n * 4).floor_div(4), n);
    assert_eq!((n * 4).rem(4), Expr::from(0));
    assert_eq!((p + n * 4).floor_div(4), p.floor_div(4) + n);
    assert_eq!((n * 4 + 3).floor_div(4), n);
    assert_eq!((n * 6).floor_div(4), (n * 3).floor_div(2));
    assert_eq!((n * 5).rem(4), n.rem(4));
    assert_eq!((n * 6 + 1).rem(4), (n.rem(2)) * 2 + 1);
    assert_eq!(n.floor_div(3).floor_div(4), n.floor_div(12));
    assert_eq!(n.rem(8).rem(4), n.rem(4));
    assert_eq!(n.rem(4).rem(8), n.rem(4));
    assert_eq!(n.rem(8).floor_div(8), Expr::from(0));
    assert_eq!((n + 1).floor_div(n + 1), Expr::from(1));
    assert_eq!(n.floor_div(n + 1), Expr::from(0));
    assert_eq!(n.rem(n + 1), n);
    assert_eq!(n.min(n + 1), n);
    assert_eq!(n.max(-3), n);
    assert_eq!(n.floor_div(-2), (-n).floor_div(2));
    assert!(same_size(n.floor_div(4) * 4 + n.rem(4), n));
    assert!(!same_size(n.floor_div(4) * 4, n));
}

#[test]
fn bounds_see_through_rounding_and_choices() {
    let n = s('n');
    assert_eq!((n.ceil_div(8) * 8 - n).bounds(), (Some(0), Some(7)));
    assert_eq!((n - n.rem(4)).bounds(), (Some(0), None));
    assert_eq!((n - n.min('p')).bounds(), (Some(0), None));
    assert_eq!((n.max('p') - 'p').bounds(), (Some(0), None));
    assert_eq!((n - 'p').bounds(), (None, None));
    assert_eq!((n * 'p' + 2).bounds(), (Some(2), None));
    assert_eq!((n * i64::MAX).bounds(), (Some(0), None));
}

#[test]
fn text_is_as_documented() {
    let (p, n) = (s('p'), s('n'));
    for (expr, text) in [
        (p + s('s') * 2, "p + 2*s"),
        (n.ceil_div(4), "(n + 3)/4"),
        ((n + 3).floor_div(4), "(n + 3)/4"),
        (n.rem(4), "n % 4"),
        (n.floor_div(4) * 3 - 1, "3*(n/4) - 1"),
        (-n.floor_div(4), "-n/4"),
        (p.min(n), "min(n, p)"),
        (p * p - n * p, "-n*p + p*p"),
        (s(RUN) + 1, "# + 1"),
        (n.floor_div(p + 1), "n/(p + 1)"),
        (Expr::from(-7), "-7"),
    ] {
        assert_eq!(expr.to_string(), text);
        assert_eq!(text.parse(), Ok(expr), "{text}");
    }
    assert_eq!("-s/4".parse(), Ok(-s('s').floor_div(4)));
    assert_eq!("2*(p + s) - 2*p".parse(), Ok(s('s') * 2));
    let nested = "(".repeat(10_000);
    let wide = "(a + b + c + d + e + f + g + h)*".repeat(40);
    for bad in [
        "",
        "s s",
        "ss",
        "2s",
        "min(s)",
        "(s",
        "99999999999999999999",
        "*",
        &nested,
        &wide,
    ] {
        assert!(bad.parse::<Expr>().is_err(), "{bad}");
    }
    assert_eq!("p + ?".parse::<Expr>().expect_err("no symbol").at, 4);
}

#[test]
fn arithmetic_of_constants_saturates() {
    let big = Expr::from(i64::MAX);
    assert_eq!(big + 1, big);
    assert_eq!(-big - 5, -big);
    assert_eq!(big * -2, -big);
    assert_eq!(Expr::from(i64::MIN).floor_div(-1), big);
    assert_eq!(Expr::from(usize::MAX), big);
    let symbols: Symbols = [('s', i64::MIN)].into_iter().collect();
    assert_eq!((s('s') * s('s')).eval(&symbols), Ok(i64::MAX));
    assert_eq!(
        s('s').floor_div(3).eval(&symbols).map(|value| value < 0),
        Ok(true)
    );
}

#[test]
fn division_by_zero_has_a_value() {
    let symbols: Symbols = [('s', 0), ('n', 7)].into_iter().collect();
    let n = s('n');
    for (expr, value) in [
        (n.floor_div('s'), 0),
        (n.ceil_div('s'), 0),
        (n.rem('s'), 7),
        (n.floor_div(0), 0),
        (n.ceil_div(0), 0),
        (n.rem(0), 7),
        (Expr::from(-3).rem('s'), -3),
    ] {
        assert_eq!(expr.eval(&symbols), Ok(value), "{expr}");
    }
}

#[test]
fn an_unset_symbol_is_named() {
    let unset = (s('p') * 2 + 1).eval(&Symbols::new());
    assert_eq!(unset, Err(UnsetSymbol { symbol: 'p' }));
    assert_eq!(
        unset.expect_err("unset").to_string(),
        "the symbol 'p' has no value"
    );
}

#[test]
#[should_panic(expected = "'+' cannot be a symbol")]
fn operators_are_no_symbols() {
    let _ = Expr::from('+');
}

#[test]
fn order_and_hash_follow_the_structure() {
    assert_eq!(std::mem::size_of::<Expr>(), 16);
    let mut exprs = [s('s') * 2, Expr::from(3), s('s'), Expr::from(-1), s('p')];
    exprs.sort();
    assert_eq!(exprs[..2], [Expr::from(-1), Expr::from(3)]);
    let mut counts: FxHashMap<Expr, usize> = FxHashMap::default();
    for n in 0..4 {
        *counts.entry((s('s') + n) * 2).or_default() += 1;
        *counts.entry(s('s') * 2 + 2 * n).or_default() += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|&count| count == 2));
}

#[test]
fn threads_agree_on_what_is_equal() {
    let build = || {
        (0..50)
            .map(|n| (s('t') + n) * (s('u') - n))
            .collect::<Vec<Expr>>()
    };
    let handles: Vec<_> = (0..4).map(|_| std::thread::spawn(build)).collect();
    for handle in handles {
        assert_eq!(handle.join().expect("no panic"), build());
    }
}

#[test]
fn a_hundred_thousand_operations_are_nothing() {
    let n_rounds = if cfg!(miri) { 50 } else { 25_000 };
    let mut sum = Expr::from(0);
    for n in 0..n_rounds {
        let used = s('p') + 's' + (n % 7);
        sum += (used * 64).floor_div(4).rem(9) - used;
    }
    assert!(sum.symbols().as_slice() == ['p', 's']);
}
