//! The environment switches that look into the compilation, on a real model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use brain_blitz::graph::parse::parse;
use tempfile::tempdir;

use super::support::*;

const GENERATE: &str = "generate --quiet --model MODEL --tokens 2,17,99 --max-tokens 2 --json";

/// Runs the program with these switches; gives its standard error.
fn notes(switches: &[(&str, &str)]) -> String {
    let plain = succeed(program(&tiny(), GENERATE));
    let output = with(switches).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{switches:?}: {stderr}");
    assert_eq!(
        text(&output.stdout),
        plain,
        "{switches:?} changed the result"
    );
    stderr
}

fn with(switches: &[(&str, &str)]) -> Command {
    let mut command = program(&tiny(), GENERATE);
    // Generated code is there to be shown only where it is generated.
    command.env("BB_CACHE", "off");
    command.envs(switches.iter().copied());
    command
}

/// The passes that ran, numbered from 1 without gaps.
fn passes(stderr: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let number: usize = words.next()?.parse().ok()?;
        let name = words.next()?.to_owned();
        (line.contains(" hits ") && line.contains(" nodes ")).then_some((number, name))
    };
    let lines: Vec<(usize, String)> = stderr.lines().filter_map(line).collect();
    for (at, (number, name)) in lines.iter().enumerate() {
        assert_eq!(*number, at + 1, "{name}");
    }
    lines.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn every_debug_level_shows_more() {
    let shown: Vec<String> = (1..=6)
        .map(|level| notes(&[("BB_DEBUG", &level.to_string())]))
        .collect();
    let all = passes(&shown[0]);
    assert_eq!(all.first().unwrap(), "dead-code");
    assert_eq!(all.last().unwrap(), "codegen");
    assert_eq!(shown[0].lines().count(), all.len());
    // Three tokens and the first one that was generated: two executions, each with its kernels' times.
    assert_eq!(shown[1].matches("GFLOP/s").count(), 2, "{}", shown[1]);
    for stderr in &shown {
        assert_eq!(passes(stderr), all);
    }
    let marks = [
        "nodes became",
        " = kernel",
        "# after cse",
        "define ",
        ".text",
    ];
    for (at, mark) in marks.iter().enumerate() {
        let level = at + 2;
        assert!(!shown[level - 2].contains(mark), "{mark:?} below {level}");
        assert!(shown[level - 1].contains(mark), "no {mark:?} at {level}");
    }
}

#[test]
fn a_dump_has_a_graph_that_parses_for_every_pass_and_the_code() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("made/by/it");
    let stderr = notes(&[
        ("BB_DEBUG", "6"),
        ("BB_DUMP_DIR", dir.to_str().expect("test paths are UTF-8")),
    ]);
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap().to_str().unwrap().to_owned();
        kinds
            .entry(part(path.extension()))
            .or_default()
            .push(part(path.file_stem()));
    }
    kinds.values_mut().for_each(|names| names.sort());
    let expected: Vec<String> = (1..)
        .zip(passes(&stderr))
        .map(|(number, name)| format!("{number:03}-{name}"))
        .collect();
    assert_eq!(kinds["txt"], expected);
    assert_eq!(kinds["ll"], expected[expected.len() - 1..]);
    assert_eq!(kinds["s"], expected[expected.len() - 1..]);

    let read = |name: &str| fs::read_to_string(Path::new(&dir).join(name)).unwrap();
    for name in ["001-dead-code.txt", "002-cse.txt"] {
        assert!(parse(&read(name)).unwrap().len() > 100);
    }
}

#[test]
fn stopping_at_a_name_or_a_number_runs_no_pass_after_it() {
    for (stop, last) in [
        ("cse", "cse"),
        ("fusion", "fusion"),
        ("3", "constant-folding"),
    ] {
        let ran = passes(&notes(&[("BB_DEBUG", "1"), ("BB_STOP_AT", stop)]));
        assert_eq!(ran.last().unwrap(), last);
        assert_eq!(ran.iter().filter(|name| *name == last).count(), 1);
    }
}

#[test]
fn a_stop_that_is_never_reached_is_said() {
    let stderr = notes(&[("BB_STOP_AT", "no-such-pass")]);
    assert!(stderr.contains("BB_STOP_AT=no-such-pass"), "{stderr}");
    assert!(stderr.contains("codegen"), "{stderr}");
}

#[test]
fn a_check_compares_a_model_whose_tokens_are_not_set_yet() {
    assert_eq!(notes(&[("BB_CHECK", "1")]), "");
}
