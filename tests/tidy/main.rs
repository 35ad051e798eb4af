//! Checks on the source text that the compiler does not make: layering, sizes, `unsafe`, the
//! environment, documentation of switches.
//!
//! `scan.rs` reads source, `layers.rs` and `checks.rs` hold the rules and their allow-lists,
//! `samples.rs` shows that each rule fails on a bad sample. A finding is one line,
//! `file:line: what`; a test prints all of its findings.

mod checks;
mod layers;
#[cfg(test)]
mod samples;
mod scan;

use checks::AllowList;
use std::path::Path;

/// Where Rust lies.
const RUST: &[&str] = &["src", "tests", "examples", "benches", "build.rs"];

/// What a reader of the repository sees.
const PUBLISHED: &[&str] = &[
    "src",
    "tests",
    "examples",
    "benches",
    "docs",
    "scripts",
    ".ci",
    ".github",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn none(findings: Vec<String>) {
    assert!(
        findings.is_empty(),
        "{} findings\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn modules_use_only_layers_before_their_own() {
    let mut used = Vec::new();
    let mut findings = Vec::new();
    for source in scan::sources(repository(), &["src"]) {
        findings.extend(layers::violations(&source, layers::EXCEPTIONS, &mut used));
    }
    findings.extend(layers::unused(layers::EXCEPTIONS, &used));
    none(findings);
}

#[test]
fn files_and_functions_are_short() {
    let (mut files, mut functions) = (
        AllowList::new(checks::LONG_FILES),
        AllowList::new(checks::LONG_FUNCTIONS),
    );
    let mut findings = Vec::new();
    for source in scan::sources(repository(), RUST) {
        findings.extend(checks::file_length(&source, &mut files));
        findings.extend(checks::function_length(&source, &mut functions));
    }
    findings.extend(files.complaints());
    findings.extend(functions.complaints());
    none(findings);
}

#[test]
fn unsafe_is_listed_and_explained() {
    let mut allowed = AllowList::new(checks::UNSAFE_FILES);
    let mut findings = Vec::new();
    for source in scan::sources(repository(), RUST) {
        findings.extend(checks::unsafe_code(&source, &mut allowed));
    }
    findings.extend(allowed.complaints());
    none(findings);
}

#[test]
fn only_knobs_reads_the_environment() {
    let sources = scan::sources(repository(), &["src", "examples", "benches"]);
    none(sources.iter().flat_map(checks::environment).collect());
}

#[test]
fn product_code_has_headers_and_no_left_overs() {
    let sources = scan::sources(repository(), &["src"]);
    assert!(!sources.is_empty(), "no source was found below src/");
    none(
        sources
            .iter()
            .flat_map(|source| [checks::module_header(source), checks::debris(source)].concat())
            .collect(),
    );
}

#[test]
fn ignored_tests_say_why() {
    none(
        scan::sources(repository(), RUST)
            .iter()
            .flat_map(checks::ignored_tests)
            .collect(),
    );
}

#[test]
fn nothing_belongs_to_one_machine() {
    let texts = checks::texts(repository(), PUBLISHED);
    none(
        texts
            .iter()
            .flat_map(|(path, text)| checks::forbidden_words(path, text))
            .collect(),
    );
}

#[test]
fn every_switch_is_documented_and_read() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap_or_default();
    let others = checks::texts(
        repository(),
        &["tests", "benches", "examples", "scripts", ".ci", "Makefile"],
    );
    // The samples of this program name switches that do not exist.
    let others: Vec<String> = others
        .into_iter()
        .filter(|(path, _)| !path.starts_with("tests/tidy/"))
        .map(|(_, text)| text)
        .collect();
    none(checks::switch_documentation(
        &read(checks::KNOBS),
        &read("README.md"),
        &others,
    ));
}
