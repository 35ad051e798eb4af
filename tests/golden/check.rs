//! Runs the bundled cases of a family and compares.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use crate::case::{Case, read_cases};
use crate::outcome::{Family, PIPELINES, Trouble, run_case};

/// All cases of `ops` and `edge`.
pub fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch");
        let read = |name| read_cases(&dir, name);
        ["ops", "edge"].into_iter().flat_map(read).collect()
    })
}

/// Runs all cases of a family on all pipelines.
///
/// # Panics
/// If one differs, or their number is not the family's.
pub fn run(name: &str, family: &Family) {
    let filter = std::env::var("GOLDEN").ok();
    let mut missing = BTreeSet::new();
    let (mut n_cases, mut failures) = (0, Vec::new());
    let mut unused: BTreeSet<&str> = family.excluded.iter().map(|(id, _)| *id).collect();
    for case in cases().iter().filter(|case| case.family == name) {
        let Some(build) = family.build(&case.op) else {
            missing.insert(case.op.as_str());
            continue;
        };
        if let Some((pattern, reason)) = exclusion(family, &case.id) {
            unused.remove(pattern);
            println!("left out {}: {reason}", case.id);
            continue;
        }
        if filter.as_ref().is_some_and(|part| !case.id.contains(part)) {
            continue;
        }
        n_cases += 1;
        for (pipeline, finish) in PIPELINES {
            let why = match run_case(case, build, *finish, family.rtol) {
                Ok(()) => continue,
                Err(Trouble::Wrong(why)) => why,
                Err(Trouble::Unsupported(why)) => format!("unsupported: {why}"),
            };
            failures.push(format!("{} on {pipeline}: {why}", case.id));
        }
    }
    println!("{name}: {n_cases} cases; ops without a mapping: {missing:?}");
    let list = failures.join("\n");
    assert!(
        failures.is_empty(),
        "{} of {n_cases} cases differ:\n{list}",
        failures.len()
    );
    assert!(
        unused.is_empty(),
        "exclusions that match no case: {unused:?}"
    );
    if filter.is_none() {
        assert_eq!(
            n_cases, family.n_cases,
            "number of cases of {name} that are run"
        );
    }
}

fn exclusion(family: &Family, id: &str) -> Option<(&'static str, &'static str)> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == pattern,
    };
    family
        .excluded
        .iter()
        .copied()
        .find(|(pattern, _)| matches(pattern))
}
