//! The checks on single files. Each takes text and returns one line per finding, `file:line: what`.

use crate::scan::{Source, files, identifier, words};
use std::collections::BTreeSet;
use std::path::Path;

pub const MAX_FILE_LINES: usize = 500;
pub const MAX_FUNCTION_LINES: usize = 60;

/// Files that may be longer than [`MAX_FILE_LINES`], with the reason.
pub const LONG_FILES: &[(&str, &str)] = &[];

/// Functions, as `file:name`, that may be longer than [`MAX_FUNCTION_LINES`], with the reason.
pub const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Files, or folders ending in `/`, that may hold `unsafe`, with the reason.
pub const UNSAFE_FILES: &[(&str, &str)] = &[
    (
        "benches/peers/rust/",
        "calls other crates' products through pointers",
    ),
    (
        "src/blocks/plain.rs",
        "calls code for instructions that it looked for",
    ),
    (
        "src/compilers/llvm_cpu/",
        "builds, links and calls machine code",
    ),
    ("src/exec/calls.rs", "hands buffers to machine code"),
    ("src/exec/packed.rs", "hands buffers to machine code"),
    ("src/exec/packed_file.rs", "maps files"),
    ("src/exec/pool.rs", "lends a borrowed job to worker threads"),
    ("src/exec/run.rs", "writes rows of states in place"),
    ("src/formats/bytes.rs", "maps files"),
    ("src/op/kernel.rs", "declares the call into machine code"),
    (
        "src/storage.rs",
        "owns memory that machine code has pointers into",
    ),
    (
        "tests/alloc.rs",
        "counts what the system's allocator is asked for",
    ),
    (
        "tests/contracts.rs",
        "implements the call into machine code",
    ),
];

/// The only file that reads the environment.
pub const KNOBS: &str = "src/knobs.rs";

/// A list of places that a rule leaves alone. Every entry must be needed.
pub struct AllowList<'a> {
    rows: &'a [(&'a str, &'a str)],
    used: BTreeSet<&'a str>,
}

impl<'a> AllowList<'a> {
    pub fn new(rows: &'a [(&'a str, &'a str)]) -> Self {
        AllowList {
            rows,
            used: BTreeSet::new(),
        }
    }

    /// Whether `place` is listed, by itself or by a folder that it lies in.
    pub fn allows(&mut self, place: &str) -> bool {
        let covers = |row: &str| row == place || (row.ends_with('/') && place.starts_with(row));
        let Some(&(row, _)) = self.rows.iter().find(|row| covers(row.0)) else {
            return false;
        };
        self.used.insert(row);
        true
    }

    /// The entries that nothing needed, and those without a reason.
    pub fn complaints(&self) -> Vec<String> {
        let idle = self.rows.iter().filter(|row| !self.used.contains(row.0));
        let idle = idle.map(|row| format!("{}: the allow-list entry is no longer needed", row.0));
        let bare = self.rows.iter().filter(|row| row.1.trim().is_empty());
        idle.chain(bare.map(|row| format!("{}: the allow-list entry has no reason", row.0)))
            .collect()
    }
}

pub fn file_length(source: &Source, allowed: &mut AllowList) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= MAX_FILE_LINES || allowed.allows(&source.path) {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines, at most {MAX_FILE_LINES}",
        source.path
    )]
}

pub fn function_length(source: &Source, allowed: &mut AllowList) -> Vec<String> {
    let mut found = Vec::new();
    for function in source.functions() {
        let lines = function.last - function.first + 1;
        if lines > MAX_FUNCTION_LINES
            && !allowed.allows(&format!("{}:{}", source.path, function.name))
        {
            let place = format!("{}:{}", source.path, function.first + 1);
            found.push(format!(
                "{place}: `{}` has {lines} lines, at most {MAX_FUNCTION_LINES}",
                function.name
            ));
        }
    }
    found
}

/// The environment is read and written in [`KNOBS`] only; `env!` is decided at compile time.
pub fn environment(source: &Source) -> Vec<String> {
    if source.path == KNOBS {
        return Vec::new();
    }
    let touches = |line: &str| {
        words(line, "env").into_iter().any(|at| {
            let Some(rest) = line[at..].strip_prefix("env::") else {
                return false;
            };
            let names = rest
                .trim_start_matches('{')
                .split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let group = rest.starts_with('{');
            let mut names = if group {
                names.collect::<Vec<_>>()
            } else {
                vec![identifier(rest)]
            }
            .into_iter();
            names.any(|name| {
                ["var", "var_os", "vars", "vars_os", "set_var", "remove_var"].contains(&name)
            })
        })
    };
    let found = source.product_lines().filter(|(_, line)| touches(line));
    found
        .map(|(line, _)| {
            format!(
                "{}:{}: reads the environment, not through knobs",
                source.path,
                line + 1
            )
        })
        .collect()
}

/// `unsafe` lives in the allowed files, and each use of it says why it is sound.
pub fn unsafe_code(source: &Source, allowed: &mut AllowList) -> Vec<String> {
    let code: Vec<&str> = source.code.lines().collect();
    let text: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (line, content) in code.iter().enumerate() {
        for at in words(content, "unsafe") {
            let place = format!("{}:{}", source.path, line + 1);
            if !allowed.allows(&source.path) {
                found.push(format!(
                    "{place}: `unsafe` in a file that is not listed for it"
                ));
            }
            if needs_note(&code, line, at) && !has_note(&code, &text, line) {
                found.push(format!("{place}: `unsafe` without a SAFETY note before it"));
            }
        }
    }
    found
}

/// Attributes and function-pointer types (`unsafe extern "C" fn(..)`) promise nothing.
fn needs_note(code: &[&str], line: usize, at: usize) -> bool {
    let mut rest = code[line][at + "unsafe".len()..].trim_start();
    if rest.is_empty() {
        rest = code.get(line + 1).map_or("", |next| next.trim_start());
    }
    let rest = rest.strip_prefix("extern").unwrap_or(rest).trim_start();
    match rest.strip_prefix("fn") {
        Some(after) => !identifier(after.trim_start()).is_empty(),
        None => !rest.starts_with('('),
    }
}

/// Whether the comment above the statement (or item) that `line` belongs to, or a comment on the
/// line itself, has the word SAFETY (or the heading `# Safety`).
fn has_note(code: &[&str], text: &[&str], line: usize) -> bool {
    let says = |at: usize| text[at].contains("SAFETY") || text[at].contains("# Safety");
    let mut at = line;
    let continues = |above: &str| !above.is_empty() && !above.ends_with([';', '{', '}', ',']);
    while at > 0 && continues(code[at - 1].trim()) && !code[at - 1].trim().starts_with("#[") {
        at -= 1;
    }
    let is_comment = |at: usize| text[at].trim_start().starts_with("//");
    let is_attribute = |at: usize| text[at].trim_start().starts_with("#[");
    let above = (0..at)
        .rev()
        .take_while(|&up| is_comment(up) || is_attribute(up));
    says(line) || above.into_iter().any(says)
}

/// What must not be in product code: `unwrap()` and unfinished or left-over work.
pub fn debris(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (line, content) in source.product_lines() {
        for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            if content.contains(word) {
                found.push(format!(
                    "{}:{}: `{word}` in product code",
                    source.path,
                    line + 1
                ));
            }
        }
    }
    found
}

/// An ignored test says why.
pub fn ignored_tests(source: &Source) -> Vec<String> {
    let bare = source
        .code
        .lines()
        .enumerate()
        .filter(|(_, line)| line.trim() == "#[ignore]");
    bare.map(|(line, _)| format!("{}:{}: `#[ignore]` without a reason", source.path, line + 1))
        .collect()
}

pub fn module_header(source: &Source) -> Vec<String> {
    if source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!(
        "{}:1: no `//!` header that says what the module is",
        source.path
    )]
}

/// Text that belongs to one machine or to the history of the work, in any file of the repository.
pub fn forbidden_words(path: &str, text: &str) -> Vec<String> {
    // Written in halves, so that this file does not contain them.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/tm", "p/"),
        concat!("/ho", "me/"),
        concat!("issue ", "#"),
    ];
    let mut found = Vec::new();
    for (line, content) in text.lines().enumerate() {
        for word in words.iter().filter(|word| content.contains(**word)) {
            found.push(format!("{path}:{}: contains `{word}`", line + 1));
        }
    }
    found
}

/// The `BB_` names in `text`.
pub fn switches(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let found = text.match_indices("BB_").map(|(at, _)| &text[at..]);
    let names = found.map(|rest| rest.split(ends).next().unwrap_or(""));
    names.filter(|name| name.len() > "BB_".len()).collect()
}

/// Every switch that `knobs` reads is in `readme`, and every switch of `readme` is read by something.
pub fn switch_documentation(knobs: &str, readme: &str, other_readers: &[String]) -> Vec<String> {
    let (read, documented) = (switches(knobs), switches(readme));
    let missing = read
        .difference(&documented)
        .map(|name| format!("README.md does not document `{name}`"));
    let known = |name: &str| {
        read.contains(name)
            || other_readers
                .iter()
                .any(|text| switches(text).contains(name))
    };
    let dead = documented.iter().filter(|name| !known(name));
    missing
        .chain(dead.map(|name| format!("README.md documents `{name}`, which nothing reads")))
        .collect()
}

/// The text of the given files that exist, in one string each.
pub fn texts(repository: &Path, roots: &[&str]) -> Vec<(String, String)> {
    let readable = |path: String| {
        let text = std::fs::read_to_string(repository.join(&path)).ok()?;
        Some((path, text))
    };
    files(repository, roots)
        .into_iter()
        .filter_map(readable)
        .collect()
}
