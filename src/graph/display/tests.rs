//! Listings, folding, layouts and escaping.

use super::facts::Ordered;
use super::fold::{Fold, folds};
use super::layout::{HEIGHT, layout};
use super::{layered_svg, to_dot, to_html};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::op::{BinaryOp, Op, UnaryOp};

/// A name that breaks out of everything that does not escape it.
const HOSTILE: &str = "</script><script>alert(\"1\")</script>'\\\n\u{1b}[31m]]>-->&amp;/*DATA*/";

fn mul(a: GraphTensor, b: GraphTensor) -> GraphTensor {
    GraphTensor::record(Op::Binary(BinaryOp::Mul), &[a, b])
}

/// Layers `x = x + sin(x * w) * shared`, all weights recorded first.
fn layers(n: usize) -> Graph {
    let mut cx = Graph::new();
    let weights: Vec<GraphTensor> = (0..n)
        .map(|i| cx.input((4, 4), DType::F32).set_name(&format!("w{i}")))
        .collect();
    let shared = cx.input((4, 4), DType::F32).set_name("shared");
    let mut x = GraphTensor::record(
        Op::Unary(UnaryOp::Exp2),
        &[cx.input((4, 4), DType::F32).set_name("x")],
    );
    for w in weights {
        let inner = GraphTensor::record(Op::Unary(UnaryOp::Sin), &[mul(x, w)]);
        let sum = [x, mul(inner, shared)];
        x = GraphTensor::record(Op::Binary(BinaryOp::Add), &sum);
    }
    GraphTensor::record(Op::Unary(UnaryOp::Sqrt), &[x]).retrieve();
    cx
}

#[test]
fn repeated_layers_are_folded() {
    let cx = layers(26);
    let listing = cx.display_string(false);
    // The first layer also brings the shared input, so it is not like the others.
    assert!(
        listing.contains("× 25  (5 nodes each, to %132)"),
        "{listing}"
    );
    assert_eq!(listing.matches("sin(").count(), 2, "{listing}");
    assert!(
        listing.ends_with("134 nodes, 28 inputs of 1.8 KiB, no kernels\n"),
        "{listing}"
    );
}

#[test]
fn what_does_not_repeat_is_not_folded() {
    let mut cx = Graph::new();
    let mut x = cx.input(3, DType::F32);
    // A word in which no part is followed by itself.
    for letter in "abcacbabcbacabcacbaca".chars() {
        let function = match letter {
            'a' => UnaryOp::Sin,
            'b' => UnaryOp::Sqrt,
            _ => UnaryOp::Recip,
        };
        x = GraphTensor::record(Op::Unary(function), &[x]);
    }
    cx.inspect(|dag| assert_eq!(folds(&Ordered::new(dag)), []));
}

#[test]
fn layers_that_read_different_nodes_are_not_folded() {
    let mut cx = Graph::new();
    let [a, b] = [(); 2].map(|()| cx.input(3, DType::F32));
    let mut x = mul(a, b);
    // Operands at distances that grow by one each time are neither one node nor at one distance.
    let mut all = vec![x];
    for i in 0..40 {
        x = mul(x, all[i / 2]);
        all.push(x);
    }
    cx.inspect(|dag| assert_eq!(folds(&Ordered::new(dag)), []));
}

#[test]
fn a_fold_covers_whole_copies_only() {
    let mut cx = Graph::new();
    let mut x = cx.input(3, DType::F32);
    for i in 0..13 {
        let function = [UnaryOp::Sin, UnaryOp::Sqrt][i % 2];
        x = GraphTensor::record(Op::Unary(function), &[x]);
    }
    let expected = Fold {
        start: 1,
        period: 2,
        copies: 6,
    };
    cx.inspect(|dag| assert_eq!(folds(&Ordered::new(dag)), [expected]));
}

#[test]
fn a_listing_tells_everything_about_a_node() {
    let text = include_str!("../../../tests/data/text/every_construct.txt");
    let listing = Graph::from_text(text).unwrap().display_string(false);
    for expected in [
        "input<0>",
        "f32[2, s]",
        "8*s B",
        "\"x\"",
        "kernel<\"exp2_then_add\">(%15, %2)",
        "\"fused\"  4 steps, no native code",
        "display/tests.rs:",
        "out %18 {[2, s] * (1, 2) + 0}",
        "assign %0 = %15",
        "1 kernel of 4 steps",
    ] {
        assert!(listing.contains(expected), "{expected} in\n{listing}");
    }
    assert!(!listing.contains('\x1b'));
}

#[test]
fn colours_change_nothing_else() {
    let cx = layers(3);
    let mut plain = String::new();
    let colored = cx.display_string(true);
    assert!(colored.contains("\x1b[1;36msin\x1b[0m"), "{colored}");
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').expect("a sequence ends with m").1;
    }
    plain.push_str(rest);
    assert_eq!(plain, cx.display_string(false));
}

#[test]
fn hostile_names_stay_text() {
    let mut cx = Graph::new();
    let x = cx.input(3, DType::F32).set_name(HOSTILE);
    GraphTensor::record(Op::Unary(UnaryOp::Sin), &[x]).retrieve();
    let html = cx.to_html();
    assert_eq!(html.matches("</script>").count(), 2, "only the page's own");
    assert_eq!(html.matches("<script").count(), 2);
    assert!(html.contains("\\u003cscript\\u003ealert"));
    let svg = cx.inspect(layered_svg);
    assert!(!svg.contains("<script"));
    assert!(svg.contains("&lt;script&gt;"));
    assert!(!svg.contains('\x1b'));
    let dot = cx.to_dot();
    assert!(dot.contains(r#"alert(\\\"1\\\")"#), "{dot}");
    assert!(!cx.display_string(false).contains('\x1b'));
    // Every quote of a label is escaped: outside of strings, nothing but the language is left.
    for line in dot.lines() {
        let unescaped = line.replace(r"\\", "").replace("\\\"", "");
        assert_eq!(unescaped.matches('"').count() % 2, 0, "{line}");
    }
}

#[test]
fn the_page_holds_every_stage_once() {
    let mut cx = layers(2);
    cx.compile((), ());
    assert_eq!(cx.stages().len(), 2);
    let html = cx.to_html();
    assert!(html.contains("\"name\":\"recorded = final\""));
    for placeholder in ["/*STYLE*/", "/*DATA*/", "/*SCRIPT*/", "http://", "https://"] {
        let allowed = usize::from(placeholder == "http://");
        assert_eq!(html.matches(placeholder).count(), allowed, "{placeholder}");
    }
}

#[test]
fn nodes_lie_below_their_operands_and_apart() {
    let cx = layers(7);
    cx.inspect(|dag| {
        let graph = Ordered::new(dag);
        let widths: Vec<f64> = (0..dag.len())
            .map(|i| 60.0 + (i % 5) as f64 * 20.0)
            .collect();
        let places = layout(&graph, &widths);
        for at in 0..dag.len() {
            let (left, right) = (
                places.x[at] - widths[at] / 2.0,
                places.x[at] + widths[at] / 2.0,
            );
            assert!(
                left >= 0.0 && right <= places.size.0 && places.y[at] + HEIGHT <= places.size.1
            );
            for (source, _) in graph.operands(at) {
                assert!(places.y[graph.position[&source]] + HEIGHT < places.y[at]);
            }
            for other in (0..at).filter(|&other| places.y[other] == places.y[at]) {
                let apart = (places.x[at] - places.x[other]).abs();
                assert!(
                    apart >= (widths[at] + widths[other]) / 2.0,
                    "{at} and {other}"
                );
            }
        }
    });
}

#[test]
fn the_same_graph_gives_the_same_texts() {
    let (a, b) = (layers(4), layers(4));
    assert_eq!(a.inspect(layered_svg), b.inspect(layered_svg));
    assert_eq!(a.inspect(to_dot), b.inspect(to_dot));
    assert_eq!(to_html(&a.stages()), to_html(&b.stages()));
    assert_eq!(a.display_string(true), b.display_string(true));
}

#[test]
#[cfg_attr(miri, ignore = "asks for Graphviz, another program")]
fn every_form_can_be_saved_and_replaces_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let cx = layers(2);
    for (name, start) in [
        ("a.svg", "<"),
        ("a.dot", "digraph"),
        ("a.html", "<!DOCTYPE html>"),
        ("a.txt", "  "),
    ] {
        let path = folder.path().join(name);
        for _ in 0..2 {
            cx.save_display(&path).unwrap();
        }
        let content = std::fs::read_to_string(&path).unwrap();
        assert!(content.starts_with(start), "{name}: {content:.40}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    let error = cx.save_display(folder.path().join("a.png")).unwrap_err();
    assert!(error.to_string().contains(".html, .svg, .dot or .txt"));
    let error = cx.save_display(folder.path().join("no/a.txt")).unwrap_err();
    assert!(matches!(error, crate::Error::Io { .. }), "{error}");
}

#[test]
fn an_empty_graph_can_be_looked_at() {
    let cx = Graph::new();
    assert_eq!(cx.display_string(false), "0 nodes, no inputs, no kernels\n");
    assert!(cx.inspect(layered_svg).ends_with("</svg>\n"));
    assert!(cx.to_html().contains("\"nodes\":[]"));
    assert_eq!(cx.to_dot().matches("->").count(), 0);
}
