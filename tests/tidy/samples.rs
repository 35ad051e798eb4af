//! Shows that each check finds what it is for, and leaves alone what it should.

use crate::checks::*;
use crate::scan::Source;

fn source(text: &str) -> Source {
    Source::new("src/a.rs", text)
}

#[test]
fn long_files_and_functions() {
    let long = "//! x\n".repeat(MAX_FILE_LINES + 1);
    assert_eq!(
        file_length(&source(&long), &mut AllowList::new(&[])).len(),
        1
    );
    assert!(file_length(&source("//! x\n"), &mut AllowList::new(&[])).is_empty());

    let body = |lines: usize| format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2));
    let (fits, long) = (
        source(&body(MAX_FUNCTION_LINES)),
        source(&body(MAX_FUNCTION_LINES + 1)),
    );
    assert!(function_length(&fits, &mut AllowList::new(&[])).is_empty());
    assert_eq!(function_length(&long, &mut AllowList::new(&[])).len(), 1);
    assert!(function_length(&long, &mut AllowList::new(&[("src/a.rs:a", "sample")])).is_empty());
}

#[test]
fn allow_list_entries_must_be_needed_and_have_a_reason() {
    let mut list = AllowList::new(&[
        ("src/a.rs", "sample"),
        ("src/b/", "sample"),
        ("src/c.rs", " "),
    ]);
    assert!(list.allows("src/a.rs") && list.allows("src/b/x.rs"));
    assert!(!list.allows("src/b.rs") && !list.allows("src/a.rs.rs"));
    assert_eq!(list.complaints().len(), 2, "{:?}", list.complaints());
}

#[test]
fn environment_reads() {
    for text in [
        "let x = std::env::var(\"BB_X\");",
        "env::var_os(NAME)",
        "use std::env::{args, var};",
        "unsafe { std::env::set_var(a, b) }",
    ] {
        assert_eq!(environment(&source(text)).len(), 1, "{text}");
        assert!(environment(&Source::new(KNOBS, text)).is_empty());
    }
    for text in [
        "env!(\"CARGO\")",
        "std::env::args()",
        "// env::var(x)",
        "myenv::var()",
        "env::temp_dir()",
    ] {
        assert!(environment(&source(text)).is_empty(), "{text}");
    }
}

#[test]
fn unsafe_places_and_notes() {
    let listed = [("src/a.rs", "sample")];
    let findings = |text: &str| unsafe_code(&source(text), &mut AllowList::new(&listed));
    for text in [
        "fn f() {\n    unsafe { g() }\n}",
        "// SAFETY: for another line.\nlet a = 1;\nlet b = unsafe { g() };",
        "unsafe impl Send for A {}",
        "/// Reads.\npub unsafe fn f() {}",
        "let s = \"SAFETY\";\nlet b =\n    unsafe { g() };",
    ] {
        assert_eq!(findings(text).len(), 1, "{text}");
    }
    for text in [
        "// SAFETY: the caller checked.\nlet b = unsafe { g() };",
        "// SAFETY: the caller\n// checked.\nlet b: u8 =\n    unsafe { g() };",
        "// SAFETY: no state.\n#[cfg(unix)]\nunsafe impl Send for A {}",
        "/// Reads.\n///\n/// # Safety\n/// `p` is valid.\npub unsafe fn f(p: *const u8) {}",
        "type F = unsafe extern \"C\" fn(i64);",
        "#[unsafe(no_mangle)]\nextern \"C\" fn f() {}",
        "#![deny(unsafe_op_in_unsafe_fn)] // unsafe",
    ] {
        assert!(findings(text).is_empty(), "{text}: {:?}", findings(text));
    }
    let elsewhere = "// SAFETY: fine.\nunsafe impl Send for A {}";
    assert_eq!(
        unsafe_code(&source(elsewhere), &mut AllowList::new(&[])).len(),
        1
    );
}

#[test]
fn left_overs() {
    assert_eq!(debris(&source("a.unwrap();\ntodo!()\n")).len(), 2);
    let fine = "a.unwrap_or(1); // .unwrap()\n/// x.unwrap()\n#[cfg(test)]\nmod tests {\n    fn a() { b.unwrap() }\n}\n";
    assert!(debris(&source(fine)).is_empty());
    assert_eq!(ignored_tests(&source("#[ignore]\nfn a() {}")).len(), 1);
    assert!(ignored_tests(&source("#[ignore = \"slow\"]\nfn a() {}")).is_empty());
    assert_eq!(module_header(&source("use a::b;\n")).len(), 1);
    assert!(module_header(&source("//! A.\n")).is_empty());
}

#[test]
fn words_of_one_machine() {
    let bad = format!(
        "see {}\nfine\n{}3",
        concat!("/wo", "rk/x"),
        concat!("issue ", "#")
    );
    assert_eq!(forbidden_words("README.md", &bad).len(), 2);
    assert!(forbidden_words("README.md", "the work/life of a node").is_empty());
}

#[test]
fn switches_and_their_documentation() {
    let knobs = "read(\"BB_DEBUG\"); read(\"BB_THREADS\"); // BB_\n";
    let readers = ["test $BB_LONG".to_string()];
    assert!(switch_documentation(knobs, "`BB_DEBUG` `BB_THREADS=2` BB_LONG", &readers).is_empty());
    assert_eq!(
        switch_documentation(knobs, "`BB_DEBUG`", &readers),
        ["README.md does not document `BB_THREADS`"]
    );
    let dead = switch_documentation(knobs, "BB_DEBUG BB_THREADS BB_GONE", &readers);
    assert_eq!(dead, ["README.md documents `BB_GONE`, which nothing reads"]);
}
