//! The header of an npy file: a Python dict with three known keys, in any order and spacing.
//!
//! Only the literals that such a header needs are read: strings without escapes, `True` and `False`, tuples of
//! non-negative integers. Nothing is evaluated.

use super::super::quote;

/// What a header says, with the places (bytes of the header) of what is checked later.
pub(super) struct Header {
    pub(super) descr: (String, usize),
    pub(super) fortran_order: bool,
    pub(super) shape: (Vec<usize>, usize),
}

/// What is wrong with which field, at which byte of the header.
pub(super) struct HeaderError {
    pub(super) field: &'static str,
    pub(super) at: usize,
    pub(super) what: String,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    field: &'static str,
}

/// Parses the text of a header.
pub(super) fn parse(text: &[u8]) -> Result<Header, HeaderError> {
    let mut parser = Parser {
        text,
        at: 0,
        field: "header",
    };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    parser.expect(b'{')?;
    while !parser.take(b'}') {
        parser.field = "header";
        let key_at = parser.at;
        let key = parser.string()?;
        parser.expect(b':')?;
        let twice = match key {
            "descr" => {
                parser.field = "descr";
                let at = parser.skip_space();
                descr.replace((parser.string()?.to_owned(), at)).is_some()
            }
            "fortran_order" => {
                parser.field = "fortran_order";
                fortran_order.replace(parser.boolean()?).is_some()
            }
            "shape" => {
                parser.field = "shape";
                let at = parser.skip_space();
                shape.replace((parser.tuple()?, at)).is_some()
            }
            _ => return Err(parser.error_at(key_at, format!("has an unknown key {}", quote(key)))),
        };
        if twice {
            return Err(parser.error_at(key_at, "occurs twice"));
        }
        if !parser.take(b',') {
            parser.expect(b'}')?;
            break;
        }
    }
    parser.field = "header";
    if parser.skip_space() < text.len() {
        return Err(parser.error("has something after the dict"));
    }
    let missing = |field| HeaderError {
        field,
        at: 0,
        what: "is missing".to_owned(),
    };
    Ok(Header {
        descr: descr.ok_or_else(|| missing("descr"))?,
        fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
    })
}

impl<'a> Parser<'a> {
    fn error(&self, what: impl Into<String>) -> HeaderError {
        self.error_at(self.at, what)
    }

    fn error_at(&self, at: usize, what: impl Into<String>) -> HeaderError {
        HeaderError {
            field: self.field,
            at,
            what: what.into(),
        }
    }

    /// Goes to the next byte that is not space, and says where that is.
    fn skip_space(&mut self) -> usize {
        let rest = &self.text[self.at..];
        self.at += rest
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        self.at
    }

    fn take(&mut self, byte: u8) -> bool {
        let at = self.skip_space();
        let found = self.text.get(at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), HeaderError> {
        match self.take(byte) {
            true => Ok(()),
            false => Err(self.error(format!("expected {:?}", char::from(byte)))),
        }
    }

    fn string(&mut self) -> Result<&'a str, HeaderError> {
        let start = self.skip_space();
        let quoted = match self.text.get(start) {
            Some(&quote @ (b'\'' | b'"')) => {
                let rest = &self.text[start + 1..];
                rest.iter()
                    .position(|&byte| byte == quote)
                    .map(|end| &rest[..end])
            }
            _ => return Err(self.error("expected a string")),
        };
        let Some(bytes) = quoted else {
            return Err(self.error("the string does not end"));
        };
        if bytes.contains(&b'\\') {
            return Err(self.error("the string has an escape"));
        }
        self.at = start + bytes.len() + 2;
        std::str::from_utf8(bytes).map_err(|_| self.error_at(start, "is not valid UTF-8"))
    }

    fn boolean(&mut self) -> Result<bool, HeaderError> {
        let start = self.skip_space();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[start..].starts_with(word.as_bytes()) {
                self.at = start + word.len();
                return Ok(value);
            }
        }
        Err(self.error("expected True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, HeaderError> {
        self.expect(b'(')?;
        let mut dims = Vec::new();
        while !self.take(b')') {
            dims.push(self.size()?);
            if !self.take(b',') {
                if dims.len() == 1 {
                    return Err(self.error("expected ',' after the only dimension"));
                }
                self.expect(b')')?;
                break;
            }
        }
        Ok(dims)
    }

    fn size(&mut self) -> Result<usize, HeaderError> {
        let start = self.skip_space();
        let digits = self.text[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let text =
            std::str::from_utf8(&self.text[start..start + digits]).expect("digits are ASCII");
        let size = text.parse().map_err(|_| self.error("expected a size"))?;
        self.at = start + digits;
        Ok(size)
    }
}
