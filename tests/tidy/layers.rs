//! The layering of `src/`: which module may name which.
//!
//! A module may use the groups before its own in [`LAYERS`] and the modules of its own group, never
//! a later one. `lib.rs`, `main.rs` and `prelude.rs` stand above all and may name everything. Code
//! under `#[cfg(test)]` is free: a low layer may be tested through a high one.

use crate::scan::{Source, identifier, line_of, words};

/// The modules below the crate's root, lowest first; modules of one row may use each other.
pub const LAYERS: &[&[&str]] = &[
    &["error", "dtype", "knobs"],
    &["atomic", "blocks", "shape", "storage"],
    &["array"],
    &["op"],
    &["graph"],
    &["exec"],
    &["hl_ops"],
    &["nn"],
    &["formats"],
    &["compilers"],
    &["generation"],
    &["train"],
    &["cli"],
];

/// Names that `lib.rs` re-exports and that code may take from the crate's root, with their module.
/// Anything else is named by its module, so that this check sees the layer.
pub const ROOT_NAMES: &[(&str, &str)] = &[("Error", "error"), ("Result", "error")];

/// Uses that break the order, with the reason; one that no longer occurs must go.
pub const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// What `source` does against the layering; uses of `exceptions` are added to `used`.
pub fn violations<'a>(
    source: &Source,
    exceptions: &'a [(&'a str, &'a str, &'a str)],
    used: &mut Vec<(&'a str, &'a str)>,
) -> Vec<String> {
    let path = module_path(&source.path);
    let Some(&from) = path.first().filter(|&&first| first != "prelude") else {
        return Vec::new();
    };
    let Some(own) = rank(from) else {
        return vec![format!("{}: module `{from}` is not in LAYERS", source.path)];
    };
    let mut found = Vec::new();
    for (at, name) in root_uses(&source.code, path.len()) {
        let line = line_of(&source.code, at);
        if source.is_test[line] || name.is_empty() {
            continue;
        }
        let module = ROOT_NAMES
            .iter()
            .find(|row| row.0 == name)
            .map_or(name, |row| row.1);
        let place = format!("{}:{}", source.path, line + 1);
        if let Some(exception) = exceptions
            .iter()
            .find(|row| row.0 == from && row.1 == module)
        {
            used.push((exception.0, exception.1));
            continue;
        }
        match rank(module) {
            None => found.push(format!("{place}: `crate::{name}` is no module of LAYERS")),
            Some(other) if other > own => {
                found.push(format!("{place}: `{from}` uses `{module}`, a later layer"))
            }
            Some(_) => {}
        }
    }
    found
}

/// The exceptions that no source used.
pub fn unused<'a>(
    exceptions: &'a [(&'a str, &'a str, &'a str)],
    used: &[(&str, &str)],
) -> Vec<String> {
    let idle = exceptions
        .iter()
        .filter(|row| !used.contains(&(row.0, row.1)));
    idle.map(|row| format!("EXCEPTIONS: `{}` no longer uses `{}`", row.0, row.1))
        .collect()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// `src/graph/patch.rs` is `["graph", "patch"]`; the crate's roots have an empty path.
fn module_path(file: &str) -> Vec<&str> {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Vec<&str> = inner.split('/').collect();
    if path.last() == Some(&"mod") || (path.len() == 1 && ["lib", "main"].contains(&path[0])) {
        path.pop();
    }
    path
}

/// Position and first name of every path that starts at the crate's root, in a module that lies
/// `depth` levels below it: `crate::a`, `crate::{a, b}`, and `super` repeated `depth` times.
/// A macro (`crate::name!`) belongs to no layer and is left out.
fn root_uses(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let roots = ["crate::".to_string(), "super::".repeat(depth)];
    let mut found = Vec::new();
    for root in &roots {
        for at in words(code, &root[..root.len() - 2]) {
            let inner_super = code[..at].ends_with("super::");
            let Some(rest) = code[at..]
                .strip_prefix(root.as_str())
                .filter(|_| !inner_super)
            else {
                continue;
            };
            let names = match rest.strip_prefix('{') {
                Some(group) => group_names(group),
                None => vec![identifier(rest)],
            };
            let is_macro = |name: &str| {
                rest.strip_prefix(name)
                    .is_some_and(|after| after.starts_with('!'))
            };
            found.extend(
                names
                    .into_iter()
                    .filter(|name| !is_macro(name))
                    .map(|name| (at, name)),
            );
        }
    }
    found
}

/// The first identifiers of a use group's members: `a::b, c::{d, e}, self}` gives `a c`.
fn group_names(group: &str) -> Vec<&str> {
    let mut depth = 1;
    let mut start = 0;
    let mut names = Vec::new();
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && byte == b',') {
            names.push(identifier(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[cfg(test)]
fn sample(path: &str, text: &str) -> Vec<String> {
    violations(&Source::new(path, text), &[], &mut Vec::new())
}

#[test]
fn uses_of_a_later_layer_are_found() {
    for text in [
        "use crate::compilers::LlvmCpu;",
        "use crate::{op::Op, compilers::{Generic, LlvmCpu}};",
        "fn f() { crate::compilers::f() }",
        "use super::super::compilers::LlvmCpu;",
        "pub(crate) use crate::train;",
    ] {
        assert_eq!(sample("src/nn/linear.rs", text).len(), 1, "{text}");
    }
    assert_eq!(
        sample("src/shape/mod.rs", "use super::graph::Graph;").len(),
        1
    );
    assert_eq!(sample("src/formats/gguf.rs", "use crate::Graph;").len(), 1);
    assert_eq!(sample("src/stray.rs", "").len(), 1);
}

#[test]
fn allowed_uses_are_not_found() {
    for text in [
        "use crate::{Error, graph::Graph, hl_ops::*};",
        "use super::norm::RmsNorm; // crate::compilers",
        "#[cfg(test)]\nmod tests {\n    use crate::compilers::Generic;\n}",
        "crate::bail!(\"no\");",
    ] {
        assert_eq!(
            sample("src/nn/linear.rs", text),
            Vec::<String>::new(),
            "{text}"
        );
    }
    assert!(sample("src/lib.rs", "pub use crate::compilers::Generic;").is_empty());
    assert!(sample("src/prelude.rs", "pub use crate::nn::*;").is_empty());
}

#[test]
fn exceptions_work_and_must_be_needed() {
    let rows = [("nn", "train", "sample"), ("op", "nn", "sample")];
    let mut used = Vec::new();
    let source = Source::new("src/nn/a.rs", "use crate::train::Adam;");
    assert!(violations(&source, &rows, &mut used).is_empty());
    assert_eq!(unused(&rows, &used).len(), 1);
}
