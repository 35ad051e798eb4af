//! `plot`: metrics of runs become a picture.

use std::fs;
use std::path::Path;

use tempfile::{TempDir, tempdir};

use super::support::*;

/// A folder with the metrics of two runs.
fn runs() -> TempDir {
    let folder = tempdir().unwrap();
    for (name, start) in [("a", 4.0), ("b", 8.0)] {
        let line = |step: u32| {
            let loss = start / f64::from(step);
            format!(
                "{{\"step\":{step},\"epoch\":{step},\"time\":{step},\"loss\":{loss},\"acc\":0.5}}\n"
            )
        };
        let text: String = (1..=20).map(line).collect();
        fs::write(folder.path().join(format!("{name}.jsonl")), text).unwrap();
    }
    folder
}

fn plot(folder: &Path, args: &str) -> String {
    let mut command = program(folder, &format!("plot {args}"));
    command.current_dir(folder);
    assert_eq!(succeed(command), "");
    fs::read_to_string(folder.join("out.svg")).unwrap()
}

#[test]
fn several_runs_become_one_picture() {
    let folder = runs();
    let one = plot(folder.path(), "a.jsonl -o out.svg");
    let long_lines = |svg: &str| {
        svg.split("<polyline")
            .filter(|line| line.matches(',').count() >= 20)
            .count()
    };
    assert_eq!(long_lines(&one), 1);
    let two = plot(
        folder.path(),
        "a.jsonl b.jsonl -o out.svg --log --x epoch --title Losses",
    );
    assert_eq!(long_lines(&two), 2);
    for text in ["a.jsonl", "b.jsonl", "epoch", "Losses", "loss"] {
        assert!(two.contains(text), "no {text:?}");
    }
    let both = plot(
        folder.path(),
        "a.jsonl -o out.svg --value loss --value acc --smooth 0.9 --x time",
    );
    assert_eq!(long_lines(&both), 4);
    assert!(both.contains("seconds") && both.contains("acc"));
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let folder = runs();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (a, svg) = (file("a.jsonl"), file("out.svg"));
    let fails = |args: &str, fragments: &[&str]| {
        fail_with(folder.path(), &format!("plot {args}"), fragments)
    };
    fails(
        &format!("{a} -o {svg} --value lozz"),
        &[&a, "no record has \"lozz\"; there is acc, loss"],
    );
    fails(
        &format!("{a} -o {}", file("out.png")),
        &["out.png: a plot is written as .svg"],
    );
    fails(
        &format!("{a} -o {}", file("none/out.svg")),
        &["none", "the folder that the file is to lie in must exist"],
    );
    fails(&format!("{} -o {svg}", file("c.jsonl")), &["c.jsonl"]);
    fs::write(folder.path().join("c.jsonl"), "{}\n").unwrap();
    fails(
        &format!("{} -o {svg}", file("c.jsonl")),
        &["c.jsonl: line 1 at byte 0: missing field"],
    );
    assert!(!folder.path().join("out.svg").exists());
    for usage in [
        format!("{a} -o {svg} --smooth 1"),
        format!("-o {svg}"),
        a.clone(),
    ] {
        fail(2, folder.path(), &format!("plot {usage}"));
    }
}
