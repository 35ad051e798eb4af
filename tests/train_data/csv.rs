//! Tables of numbers: names, columns, and rows that are not what they should be.

use std::path::Path;

use brain_blitz::error::Result;
use brain_blitz::formats::csv::{Options, Table};
use proptest::prelude::*;

const BARE: Options = Options {
    header: false,
    delimiter: b';',
};

fn parse(text: &str, options: Options) -> Result<Table> {
    Table::from_bytes(Path::new("t.csv"), text.as_bytes(), options)
}

fn failure(text: &str) -> String {
    parse(text, Options::default()).unwrap_err().to_string()
}

#[test]
fn names_come_from_the_first_row_or_are_numbers() {
    let table = parse("a,\"b,c\", d \n1,2.5,-3e2\n 4 ,inf,0\n", Options::default()).unwrap();
    assert_eq!(table.names(), ["a", "b,c", "d"]);
    assert_eq!(table.n_rows(), 2);
    assert_eq!(table.column("b,c").unwrap(), [2.5, f64::INFINITY]);
    let table = parse("1;2\n3;4\n", BARE).unwrap();
    assert_eq!(table.names(), ["0", "1"]);
    assert_eq!(table.column("1").unwrap(), [2.0, 4.0]);
}

#[test]
fn features_and_targets_are_split_in_the_order_asked_for() {
    let table = parse("x,y,z,w\n1,2,3,4\n5,6,7,8\n", Options::default()).unwrap();
    let (features, targets) = table.split(&["w", "y"]).unwrap();
    assert_eq!(
        (features.dims(), targets.dims()),
        (&[2, 2][..], &[2, 2][..])
    );
    assert_eq!(features.to_f32(), [1.0, 3.0, 5.0, 7.0]);
    assert_eq!(targets.to_f32(), [4.0, 2.0, 8.0, 6.0]);
    let (all, none) = table.split(&[]).unwrap();
    assert_eq!((all.dims(), none.dims()), (&[2, 4][..], &[2, 0][..]));
}

#[test]
fn wrong_cells_and_rows_are_errors_with_their_place() {
    for (text, expected) in [
        (
            "a,b\n1,2\n3,x\n",
            r#"t.csv: row 2 of column "b" at byte 8: "x" is not a number"#,
        ),
        (
            "a,b\n1,\n",
            r#"t.csv: row 1 of column "b" at byte 4: is empty"#,
        ),
        (
            "a,b\n1,2\n3\n",
            "t.csv: line 3 at byte 8: has 1 cells, the first row has 2",
        ),
        ("a,b,a\n1,2,3\n", r#"t.csv: column "a": occurs twice"#),
    ] {
        assert_eq!(failure(text), expected);
    }
    let table = parse("width,height\n", Options::default()).unwrap();
    let missing = table.column("heigth").unwrap_err().to_string();
    assert!(missing.contains("did you mean \"height\""), "{missing}");
    assert!(table.column("width").unwrap().is_empty());
}

#[test]
fn an_empty_file_is_an_empty_table() {
    for options in [BARE, Options::default()] {
        let table = parse("", options).unwrap();
        assert_eq!(table.n_rows(), 0);
        assert!(table.column("a").is_err());
        assert_eq!(table.split(&[]).unwrap().0.dims(), [0, 0]);
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "[0-9,;\n\r\"x.-]{0,60}", header in any::<bool>()) {
        if let Ok(table) = parse(&text, Options { header, delimiter: b',' }) {
            let (all, _) = table.split(&[]).unwrap();
            prop_assert_eq!(all.dims(), [table.n_rows(), table.names().len()]);
        }
    }
}
