//! Reads Rust source as text: what is code, what is test code, where functions begin and end.
//!
//! This is a scanner, not a parser. It knows comments, string and character literals, braces and
//! words, which is all that the checks need; macros that build items are looked at as plain text.

use std::fs;
use std::path::Path;

/// One Rust file.
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The file with comments and literals blanked out, line by line as long as `text`.
    pub code: String,
    /// For each line, whether it belongs to a `#[cfg(test)]` item.
    pub is_test: Vec<bool>,
}

/// A function with a body; lines count from zero.
pub struct Function {
    pub name: String,
    pub first: usize,
    pub last: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let mut is_test = test_lines(&code);
        let name = path.rsplit('/').next().unwrap_or(path);
        if path.starts_with("tests/") || name == "tests.rs" || path.contains("/tests/") {
            is_test.fill(true);
        }
        Source {
            path: path.into(),
            text: text.into(),
            code,
            is_test,
        }
    }

    /// Line number (from zero) and code of every line outside `#[cfg(test)]`.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .filter(|(line, _)| !self.is_test[*line])
    }

    /// The functions with a body, nested ones too, in order of appearance.
    pub fn functions(&self) -> Vec<Function> {
        let code = self.code.as_bytes();
        let starts = words(&self.code, "fn");
        starts
            .into_iter()
            .filter_map(|at| function_at(&self.code, code, at))
            .collect()
    }
}

/// Every `.rs` file below the folders `roots`, in alphabetical order of paths.
pub fn sources(repository: &Path, roots: &[&str]) -> Vec<Source> {
    let paths = files(repository, roots);
    let rust = paths.into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| {
        let text = fs::read_to_string(repository.join(&path)).expect("a listed file can be read");
        Source::new(&path, &text)
    })
    .collect()
}

/// Every file that is, or lies below, one of `roots`; a root that is missing holds no file.
pub fn files(repository: &Path, roots: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<String> = roots.iter().map(|root| root.to_string()).collect();
    while let Some(path) = left.pop() {
        let full = repository.join(&path);
        if full.is_file() {
            found.push(path);
        } else if let Ok(entries) = fs::read_dir(full) {
            let names = entries.map(|entry| entry.expect("a folder can be listed").file_name());
            left.extend(names.map(|name| format!("{path}/{}", name.to_string_lossy())));
        }
    }
    found.sort();
    found
}

/// Positions of `word` in `text` where it is not part of a longer identifier.
pub fn words(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let inside = |at: usize| bytes.get(at).is_some_and(|&b| is_ident(b));
    let joined = |at: usize| (at > 0 && inside(at - 1)) || inside(at + word.len());
    let found = text.match_indices(word).map(|(at, _)| at);
    found.filter(|&at| !joined(at)).collect()
}

/// The identifier that `text` begins with; empty when there is none.
pub fn identifier(text: &str) -> &str {
    let end = text
        .bytes()
        .position(|b| !is_ident(b))
        .unwrap_or(text.len());
    &text[..end]
}

/// The line (from zero) that byte `at` lies on.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
}

fn is_ident(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// `text` with every comment and the content of every literal replaced by spaces, byte for byte.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if starts_raw_string(bytes, at) => raw_string_end(bytes, at),
            b'\'' => char_end(bytes, at).unwrap_or(at + 1),
            _ => {
                at += 1;
                continue;
            }
        };
        let lone_quote = bytes[at] == b'\'' && end == at + 1;
        if !lone_quote {
            out[at..end]
                .iter_mut()
                .filter(|b| **b != b'\n')
                .for_each(|b| *b = b' ');
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters are blanked")
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|&b| b == b'\n')
        .map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// Whether the `r` at `at` opens `r"`, `r#"`, `br"` or `cr#"`, and is no part of another word.
fn starts_raw_string(bytes: &[u8], at: usize) -> bool {
    let before = match at {
        0 => 0,
        1 => 0,
        _ => at - 2,
    };
    let prefix = &bytes[before..at];
    let starts_word = match prefix {
        [.., b'b' | b'c'] => prefix.len() < 2 || !is_ident(prefix[0]),
        [.., last] => !is_ident(*last),
        [] => true,
    };
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    starts_word && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    let close = [b"\"".to_vec(), vec![b'#'; hashes]].concat();
    let content = at + hashes + 2;
    let found = bytes[content..]
        .windows(close.len())
        .position(|window| window == close);
    found.map_or(bytes.len(), |n| content + n + close.len())
}

/// The end of the character literal at `at`, or `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|&b| b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    // One character of up to four bytes, then the closing quote.
    let first = *bytes.get(at + 1)?;
    let len = match first {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (bytes.get(at + 1 + len) == Some(&b'\'')).then_some(at + len + 2)
}

/// For each line of blanked `code`, whether it belongs to an item under `#[cfg(test)]`.
fn test_lines(code: &str) -> Vec<bool> {
    let mut marks = vec![false; code.lines().count()];
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let end = match code[at..].find(['{', ';']) {
            Some(n) if code.as_bytes()[at + n] == b'{' => brace_end(code.as_bytes(), at + n),
            Some(n) => at + n,
            None => code.len() - 1,
        };
        marks[line_of(code, at)..=line_of(code, end)].fill(true);
    }
    marks
}

/// The position of the `}` that closes the `{` at `at`; the last byte when there is none.
fn brace_end(code: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    for (i, &byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return i;
        }
    }
    code.len() - 1
}

/// The function whose `fn` is at `at`, when it has a name and a body.
fn function_at(text: &str, code: &[u8], at: usize) -> Option<Function> {
    let rest = &text[at + 2..];
    let name = identifier(rest.trim_start());
    if name.is_empty() {
        return None;
    }
    let mut depth = 0i32;
    let mut i = at + 2;
    loop {
        match *code.get(i)? {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            // `Shape<{ N }>` in a signature is no body.
            b'{' if text[..i].trim_end().ends_with('<') => i = brace_end(code, i),
            b'{' if depth == 0 => break,
            _ => {}
        }
        i += 1;
    }
    let last = line_of(text, brace_end(code, i));
    Some(Function {
        name: name.to_string(),
        first: line_of(text, at),
        last,
    })
}

#[test]
fn literals_and_comments_are_blanked() {
    let text =
        "let a = \"x{\\\"}\"; // unsafe {\nlet b = r#\"un\"safe\"#; /* a /* b */ { */ let c = '{';";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(
        !code.contains(['{', '}', '"']) && !code.contains("safe"),
        "{code}"
    );
    assert!(code.contains("let b") && code.contains("let c"));
    assert_eq!(blank("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
    assert_eq!(
        blank("['\\'','\"','é',b'\\x7f'] {"),
        "[    ,   ,    ,b      ] {"
    );
    assert_eq!(blank("br\"{\" for\"{\""), "b     for   ");
}

#[test]
fn test_items_and_functions_are_found() {
    let text = "fn a(x: [u8; 2]) -> S<{ 1 }> {\n  b()\n}\ntrait T { fn c(); }\n#[cfg(test)]\nmod tests {\n  fn d() {}\n}\nfn e() {}\n";
    let source = Source::new("src/x.rs", text);
    let found: Vec<_> = source
        .functions()
        .iter()
        .map(|f| (f.name.clone(), f.first, f.last))
        .collect();
    assert_eq!(
        found,
        [("a".into(), 0, 2), ("d".into(), 6, 6), ("e".into(), 8, 8)]
    );
    let product: Vec<usize> = source.product_lines().map(|(line, _)| line).collect();
    assert_eq!(product, [0, 1, 2, 3, 8]);
    assert!(Source::new("src/graph/tests.rs", "fn a() {}\n").is_test[0]);
}
