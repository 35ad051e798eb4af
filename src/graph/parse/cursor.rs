//! Lines of a text, and a cursor that moves through one.

use crate::error::{Error, Result};

/// The lines that hold something, without their comments.
pub(super) struct Lines<'a> {
    rest: std::str::Lines<'a>,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Lines<'a> {
        Lines {
            rest: text.lines(),
            number: 0,
        }
    }

    /// Number of the last line that was returned, at least 1.
    pub(super) fn number(&self) -> usize {
        self.number.max(1)
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Option<Cursor<'a>> {
        loop {
            let line = self.rest.next()?;
            self.number += 1;
            let text = without_comment(line);
            if !text.trim().is_empty() {
                return Some(Cursor {
                    text,
                    line: self.number,
                });
            }
        }
    }
}

/// The line up to a `;` that is not inside quotes.
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// What is left of a line. Every method skips white space first.
pub(super) struct Cursor<'a> {
    text: &'a str,
    line: usize,
}

/// Characters of the text that an error quotes.
const QUOTED: usize = 24;

impl<'a> Cursor<'a> {
    /// An error at this line.
    pub(super) fn fail(&self, what: String) -> Error {
        Error::Parse {
            line: self.line,
            what,
        }
    }

    /// An error that says what should stand here and what does.
    pub(super) fn expected(&self, what: &str) -> Error {
        let rest = self.text.trim();
        let found = if rest.is_empty() {
            "the end of the line".to_string()
        } else {
            format!("`{}`", rest.chars().take(QUOTED).collect::<String>())
        };
        self.fail(format!("expected {what}, found {found}"))
    }

    /// Takes `token` if it comes next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let rest = self.text.trim_start().strip_prefix(token);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }

    /// [`Cursor::eat`] of one character.
    pub(super) fn eat_char(&mut self, token: char) -> bool {
        self.eat(token.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.expected(&format!("`{token}`")))
        }
    }

    pub(super) fn peek_is(&self, c: char) -> bool {
        self.text.trim_start().starts_with(c)
    }

    /// Refuses anything more on the line.
    pub(super) fn end(&self) -> Result<()> {
        if self.text.trim().is_empty() {
            Ok(())
        } else {
            Err(self.expected("the end of the line"))
        }
    }

    /// Takes characters while they are `allowed`; at least one.
    fn take(&mut self, what: &str, allowed: impl Fn(char) -> bool) -> Result<&'a str> {
        let rest = self.text.trim_start();
        let end = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.expected(what));
        }
        self.text = &rest[end..];
        Ok(&rest[..end])
    }

    /// A lower-case word with digits and underscores.
    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        self.take(what, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
        })
    }

    /// A decimal number.
    pub(super) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let digits = self.take(what, |c| c.is_ascii_digit())?;
        let number = digits.parse();
        number.map_err(|_| self.fail(format!("{digits} is too large for {what}")))
    }

    /// What stands before `close`, which is taken too.
    pub(super) fn until(&mut self, close: char) -> Result<&'a str> {
        let Some(end) = self.text.find(close) else {
            return Err(self.expected(&format!("`{close}`")));
        };
        let inner = &self.text[..end];
        self.text = &self.text[end + close.len_utf8()..];
        Ok(inner)
    }

    /// What stands between a pair of signs; pairs may nest.
    fn enclosed(&mut self, open: char, close: char) -> Result<&'a str> {
        let rest = self.text.trim_start();
        if !rest.starts_with(open) {
            return Err(self.expected(&format!("`{open}`")));
        }
        let mut depth = 0usize;
        for (at, c) in rest.char_indices() {
            if c == open {
                depth += 1;
            } else if c == close {
                depth -= 1;
            }
            if depth == 0 {
                self.text = &rest[at + close.len_utf8()..];
                return Ok(&rest[open.len_utf8()..at]);
            }
        }
        Err(self.fail(format!("expected a `{close}` for this `{open}`")))
    }

    /// `[inner]`.
    pub(super) fn brackets(&mut self) -> Result<&'a str> {
        self.enclosed('[', ']')
    }

    /// `{inner}`.
    pub(super) fn braces(&mut self) -> Result<&'a str> {
        self.enclosed('{', '}')
    }

    /// A string in quotes, with the escapes that `{:?}` writes.
    pub(super) fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let (text, mut out) = (self.text, String::new());
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.text = &text[at + 1..];
                    return Ok(out);
                }
                '\\' => {
                    let c = unescape(&mut chars);
                    out.push(c.ok_or_else(|| self.fail("an unknown escape in a string".into()))?);
                }
                c => out.push(c),
            }
        }
        Err(self.fail("expected a `\"` at the end of the string".into()))
    }
}

/// The character of an escape, after its backslash.
fn unescape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    Some(match chars.next()?.1 {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        c @ ('\\' | '"' | '\'') => c,
        'u' => {
            if chars.next()?.1 != '{' {
                return None;
            }
            let mut code = 0u32;
            loop {
                match chars.next()?.1 {
                    '}' => return char::from_u32(code),
                    c => code = code.checked_mul(16)?.checked_add(c.to_digit(16)?)?,
                }
            }
        }
        _ => return None,
    })
}
