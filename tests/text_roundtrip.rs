//! The text form of graphs: files that round-trip, what errors say, and texts made to hurt the reader.

use brain_blitz::Error;
use brain_blitz::graph::{Graph, parse::parse, text, verify};
use proptest::prelude::*;

const EVERY_CONSTRUCT: &str = include_str!("data/text/every_construct.txt");

#[test]
fn every_construct_round_trips() {
    let cx = Graph::from_text(EVERY_CONSTRUCT).unwrap();
    assert_eq!(cx.to_text(), EVERY_CONSTRUCT);
    assert_eq!((cx.inputs().len(), cx.outputs().len()), (2, 3));
    cx.inspect(|dag| verify(dag).unwrap());
}

#[test]
fn white_space_and_comments_change_nothing() {
    let spaced = EVERY_CONSTRUCT
        .replace(" = ", "  =\t")
        .replace('\n', "  ; a comment\n\n; and one alone\n");
    assert_eq!(
        Graph::from_text(&spaced).unwrap().to_text(),
        EVERY_CONSTRUCT
    );
    assert_eq!(Graph::from_text("").unwrap().to_text(), "");
}

#[test]
fn functions_with_known_gradients_round_trip() {
    for function in ["tanh", "sigmoid", "erf", "softmax 0", "log_softmax 0, 1"] {
        let text = format!(
            "%0 = input<0> : f32[2, 3]\n%1 = exp2(%0) : f32[2, 3]\n\
             %2 = known_gradient<{function}>(%1, %0) : f32[2, 3]\n"
        );
        assert_eq!(Graph::from_text(&text).unwrap().to_text(), text);
    }
}

/// The error of a text: its line, and what it says.
fn error(text: &str) -> (usize, String) {
    match parse(text) {
        Err(Error::Parse { line, what }) => (line, what),
        Err(other) => panic!("{text}\nanother kind of error: {other}"),
        Ok(dag) => panic!("{text}\nwas read as\n{}", text::print(&dag)),
    }
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    let cases = [
        ("x", "expected a node"),
        ("%1 = exp2(%0) : f32[2]", "expected `%2`"),
        ("%2 = exp2(%2) : f32[2]", "`%2` is not defined yet"),
        ("%2 = exp2(@0) : f32[2]", "`@0` is not defined yet"),
        ("%2 = exp(%0) : f32[2]", "ops are: input, constant"),
        ("%2 = exp2(%0) : f32[3]", "expected the type f32[2]"),
        ("%2 = exp2(%0) : f31[2]", "unknown number format"),
        ("%2 = exp2(%0) f32[2]", "expected `:`, found `f32[2]`"),
        ("%2 = exp2(%0, %0) : f32[2]", "takes 1 operands, not 2"),
        ("%2 = exp2<1>(%0) : f32[2]", "has no attributes"),
        ("%2 = exp2(%0) : f32[2] x", "expected the end of the line"),
        ("%2 = exp2(%0) : f32[2] \"x", "at the end of the string"),
        ("%2 = exp2(%0) : f32[2] \"\\u{110000}\"", "unknown escape"),
        ("%2 = exp2(%0 {[3]}) : f32[3]", "reads elements 0 to 2 of 2"),
        ("%2 = exp2(%0 {[2] * (1) + -1}) : f32[2]", "-1 to 0 of 2"),
        ("%2 = exp2(%0 {[2}) : f32[2]", "expected a matching"),
        ("%2 = exp2(%0 {[2]) : f32[2]", "expected a `}` for this `{`"),
        ("%2 = sum_reduce<1>(%0) : f32[2]", "axis 1 of f32[2]"),
        ("%2 = known_gradient<tan>(%0, %0) : f32[2]", "like `tanh`"),
        (
            "%2 = known_gradient<tanh 0>(%0, %0) : f32[2]",
            "like `tanh`",
        ),
        (
            "%2 = known_gradient<softmax 1>(%0, %0) : f32[2]",
            "no axis 1 in f32[2]",
        ),
        ("%2 = cast<q4>(%0) : f32[2]", "unknown number format `q4`"),
        ("%2 = scatter<0, min>(%0) : f32[2]", "`set`, `add` or `max`"),
        ("%2 = input<0> : f32[2]", "a second input of number 0"),
        ("%2 = input<-1> : f32[2]", "expected a number below"),
        ("%2 = input<2> : f32[-2]", "cannot be negative"),
        ("%2 = constant<1.5.2> : f32[]", "expected a number of f32"),
        ("%2 = custom<\"x \">(%0) : f32[2]", "a custom op is code"),
        ("%2 = kernel<\"x\">(%0) : f32[2]", "expected `{`"),
        ("%2 = kernel<\"x\">(%0) : f32[2] {", "steps and `}`"),
        ("%2 = kernel<\"x\">(%0) : f32[2] {\n}", "needs a step"),
        ("out %7", "`%7` is not defined yet"),
        ("assign %1 = %0", "only an input can be assigned to"),
        ("assign %0 = %0 {[1]}", "f32[2] is assigned a f32[1]"),
    ];
    for (line, expected) in cases {
        let text = format!("%0 = input<0> : f32[2]\n\n; a comment\n%1 = exp2(%0) : f32[2]\n{line}");
        let (number, what) = error(&text);
        assert!(what.contains(expected), "{line}\ngave: {what}");
        assert_eq!(number, 5, "{line}");
    }
}

#[test]
fn a_kernel_is_checked_step_by_step() {
    let kernel = |step: &str| {
        format!("%0 = input<0> : f32[2]\n%1 = kernel<\"k\">(%0) : f32[2] {{\n  {step}\n}}\n")
    };
    assert!(parse(&kernel("@0 = exp2($0) : f32[2]")).is_ok());
    for (step, expected) in [
        ("@1 = exp2($0) : f32[2]", "expected `@0`"),
        ("@0 = exp2($1) : f32[2]", "`$1` is not defined yet"),
        ("@0 = exp2(@0) : f32[2]", "`@0` is not defined yet"),
        ("@0 = exp2(%0) : f32[2]", "`%0` is not defined yet"),
        ("@0 = exp2($0) : f32[3]", "expected the type f32[2]"),
        (
            "@0 = exp2($0 {[2] * (1) + 1}) : f32[2]",
            "elements 1 to 2 of 2",
        ),
        ("@0 = input<1> : f32[2]", "cannot be an input"),
    ] {
        let (line, what) = error(&kernel(step));
        assert!(what.contains(expected), "{step}\ngave: {what}");
        assert_eq!(line, 3, "{step}");
    }
}

#[test]
fn texts_that_ask_for_too_much_are_errors() {
    let sum = "(a + b + c + d)";
    let cases = [
        format!("%0 = input<0> : f32[{}]", vec!["2"; 100].join(", ")),
        format!("%0 = input<0> : f32[{}]", vec!["4096"; 30].join(", ")),
        format!("%0 = input<0> : f32[{}]", vec![sum; 30].join(", ")),
        format!("%0 = input<0> : f32[{}]", vec![sum; 300].join("*")),
        format!("%0 = input<0> : f32[{}]", vec!["s/a"; 5000].join("/")),
        format!(
            "%0 = input<0> : f32[{}s{}]",
            "(".repeat(9000),
            ")".repeat(9000)
        ),
        format!("%0 = input<0> : f32[{}]", "9".repeat(30)),
        format!("%{} = input<0> : f32[]", "9".repeat(30)),
        "%0 = input<4294967295> : f32[]".into(),
        "%0 = iota<0 - 1> : i32[0 - 1]".into(),
        format!("%0 = iota<4> : i32[4] {}", "{".repeat(100_000)),
        "%0 = iota<4> : i32[4]\nout %0 {[2] * (9223372036854775807) + 0}".into(),
        "%0 = iota<4> : i32[4]\nout %0 {[2, 2] * (4611686018427387904, -4611686018427387904) + 0}"
            .into(),
        "%0 = iota<4> : i32[4]\nout %0 {[2] * (1) + 9223372036854775807}".into(),
        "%0 = iota<4> : i32[4]\nout %0 {[4] <- [5]}".into(),
    ];
    for text in cases {
        let (_, what) = error(&text);
        assert!(what.len() < 20_000, "an error of {} bytes", what.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn broken_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..12, 0u8..4), 1..5),
    ) {
        let mut text: Vec<char> = EVERY_CONSTRUCT.chars().collect();
        for (from, to, len, how) in edits {
            let (from, to) = (from.index(text.len()), to.index(text.len()));
            let piece: Vec<char> = text[from..(from + len).min(text.len())].to_vec();
            match how {
                0 => drop(text.drain(from..from + piece.len())),
                1 => drop(text.splice(to..to, piece)),
                2 => text[to] = text[from],
                _ => text[to] = char::from(b'0' + len as u8 % 10),
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text) {
            Ok(dag) => {
                let printed = text::print(&dag);
                let again = parse(&printed).expect("what is printed can be read");
                prop_assert_eq!(text::print(&again), printed);
            }
            Err(e) => prop_assert!(matches!(e, Error::Parse { .. }), "{}", e),
        }
    }
}
