//! Text form of views.

use crate::shape::{Symbols, View};
use proptest::prelude::*;

#[test]
fn what_is_displayed_is_parsed_back() {
    for text in [
        "[]",
        "[4, 3]",
        "[p + s, 3] * (3, 1) + 3*n",
        "[2, s] * (s, 1) + 3 {0..2, 1..min(n, s)} <- [24] if -s + 24 >= 0",
        "[24] <- [6, 4] * (1, 6) + 0",
        "[] <- [1] * (0) + 0 {0..0}",
        "[min(p, s)] * ((s + 3)/4) + -1 if p - s >= 0, min(p, s) - 4 >= 0",
    ] {
        let view: View = text.parse().expect(text);
        assert_eq!(view.to_string(), text);
    }
}

#[test]
fn a_bad_text_is_an_error_with_a_place() {
    for (text, at) in [
        ("", 0),
        ("[2", 0),
        ("[2, ]", 4),
        ("[2] + 3", 4),
        ("[2] * (1, 2) + 3", 0),
        ("[2] * (1) + 3 {0..2", 14),
        ("[2] * (1) + 3 {0-2}", 15),
        ("[2] * (1) + 3 {0..2, 0..1}", 0),
        ("[2] <- ", 6),
        ("[-2]", 1),
        ("[2] if s", 7),
        ("[2] if -1 >= 0", 12),
        ("[2] if s >= 1", 11),
        ("[s] * (+) + 0", 7),
    ] {
        let error = text.parse::<View>().expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn a_view_that_leaves_its_buffer_does_not_fit() {
    for (text, len) in [
        ("[4] * (1) + -1", Some(5)),
        ("[4] * (1) + -1 {1..4}", None),
        ("[2] * (4611686018427387904) + 4611686018427387904", Some(9)),
        ("[7] <- [2, 3]", Some(6)),
        ("[6] <- [2, 3] * (1, 2) + 0", None),
        ("[0] * (1) + 100", None),
    ] {
        let view: View = text.parse().expect(text);
        let concrete = view.resolve(&Symbols::new()).expect("no symbols");
        assert_eq!(concrete.fits(len.unwrap_or(6)), len.is_none(), "{text}");
    }
}

proptest! {
    #[test]
    fn parsing_is_total(text in "(\\[|\\]|\\(|\\)|\\{|\\}|<-| if |>=|\\.\\.|[0-9ps+*/%, é-]|min\\(){0,30}") {
        if let Ok(view) = text.parse::<View>() {
            prop_assert_eq!(view.to_string().parse(), Ok(view));
        }
    }
}
