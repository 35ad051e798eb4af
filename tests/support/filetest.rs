//! Before/after files of passes.
//!
//! `tests/data/passes/<folder>/*.txt` hold a graph, a line `---`, and the graph that the compiler makes of it. Both
//! are in the text form of graphs, with comments from `;` to the end of the line. A file whose two graphs are equal
//! shows where the pass must not act. `BB_BLESS=1 cargo test` writes what the compiler makes today into the files.

use std::path::{Path, PathBuf};

use brain_blitz::compilers::{Compiler, Group, Pass, PassList};
use brain_blitz::graph::Graph;

/// A compiler of one pass.
#[allow(
    dead_code,
    reason = "not every file that includes this one tests a single pass"
)]
pub struct Single<F>(pub F);

impl<F: Fn() -> Box<dyn Pass>> Compiler for Single<F> {
    type Output = brain_blitz::compilers::Report;

    fn passes(&self, list: &mut PassList) {
        list.group(Group::Once, vec![(self.0)()]);
    }
}

/// Runs all files of a folder through the compiler that `make` gives.
///
/// # Panics
/// If there is no file, or one differs: with what was expected and what came out.
pub fn check<C: Compiler>(folder: &str, make: impl Fn() -> C) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/passes");
    let bless = std::env::var("BB_BLESS").is_ok_and(|value| value == "1");
    let files = files_of(&root.join(folder));
    let failures: Vec<String> = files
        .iter()
        .filter_map(|path| check_file(path, make(), bless).err())
        .map(|what| format!("{what}\n(BB_BLESS=1 rewrites the files)"))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

fn check_file(path: &Path, compiler: impl Compiler, bless: bool) -> Result<(), String> {
    let fail = |what: String| format!("{}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let (before, expected) = match text.split_once("\n---\n") {
        Some((before, expected)) => (before, expected),
        None if bless => (text.trim_end(), ""),
        None => return Err(fail("needs a line `---` between the two graphs".into())),
    };
    let mut graph = Graph::from_text(before).map_err(|e| fail(format!("before, {e}")))?;
    graph
        .try_compile(compiler, ())
        .map_err(|e| fail(e.to_string()))?;
    let found = graph.to_text();
    if bless {
        return std::fs::write(path, format!("{before}\n---\n{found}"))
            .map_err(|e| fail(e.to_string()));
    }
    let expected = Graph::from_text(expected).map_err(|e| fail(format!("after, {e}")))?;
    let expected = expected.to_text();
    if expected == found {
        return Ok(());
    }
    Err(fail(format!(
        "expected\n{expected}\nbut the result is\n{found}"
    )))
}
