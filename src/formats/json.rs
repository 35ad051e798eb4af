//! JSON that is read strictly, and the places of its fields.
//!
//! `serde_json` does the parsing; this adds what a file that is not trusted needs: a key that occurs twice is an error
//! at any depth (the usual map keeps the last one silently), and every error has a byte offset.

use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{format_error, quote};
use crate::error::Result;

/// Parses `text`, which starts at byte `base` of `file`, as one JSON object.
///
/// # Errors
/// If it is not valid UTF-8, not valid JSON, not an object, or an object in it has a key twice.
pub(super) fn parse_object(file: &Path, text: &[u8], base: u64) -> Result<Map<String, Value>> {
    check_utf8(file, text, base)?;
    let mut twice = None;
    let mut parser = serde_json::Deserializer::from_slice(text);
    let parsed = Strict { twice: &mut twice }
        .deserialize(&mut parser)
        .and_then(|value| parser.end().map(|()| value));
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(format_error(file, "json", Some(base), "is not an object")),
        Err(error) => {
            let at = base + offset_of(text, error.line(), error.column());
            Err(match twice {
                Some(key) => format_error(file, quote(&key), Some(at), "occurs twice"),
                None => format_error(file, "json", Some(at), error.to_string()),
            })
        }
    }
}

/// Checks that `text`, all of `file`, is valid JSON, without building anything. Keys may occur twice.
///
/// # Errors
/// If it is not valid UTF-8 or not valid JSON.
pub(super) fn check(file: &Path, text: &[u8]) -> Result<()> {
    check_utf8(file, text, 0)?;
    match serde_json::from_slice::<de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = offset_of(text, error.line(), error.column());
            Err(format_error(file, "json", Some(at), error.to_string()))
        }
    }
}

fn check_utf8(file: &Path, text: &[u8], base: u64) -> Result<()> {
    std::str::from_utf8(text).map(|_| ()).map_err(|error| {
        let at = base + error.valid_up_to() as u64;
        format_error(file, "json", Some(at), "is not valid UTF-8")
    })
}

/// The byte that `serde_json` means by its line and column, both counted from one.
fn offset_of(text: &[u8], line: usize, column: usize) -> u64 {
    let before: usize = text
        .split_inclusive(|&byte| byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    before
        .saturating_add(column.saturating_sub(1))
        .min(text.len()) as u64
}

/// Builds a [`Value`], and stops at the first key that an object has twice.
struct Strict<'a> {
    twice: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number is not finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict { twice: self.twice })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if values.contains_key(&key) {
                *self.twice = Some(key);
                return Err(de::Error::custom("a key occurs twice"));
            }
            let value = map.next_value_seed(Strict { twice: self.twice })?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

/// Where the key `wanted` of the outermost object in `text` starts, for error messages. `text` is JSON that parsed; in
/// anything else the answer may be wrong, but the search ends.
pub(super) fn key_offset(text: &[u8], wanted: &str) -> Option<u64> {
    let (mut depth, mut key_may_follow, mut at) = (0usize, false, 0);
    while at < text.len() {
        match text[at] {
            b'"' => {
                let end = string_end(text, at)?;
                let is_key = depth == 1 && key_may_follow;
                if is_key
                    && serde_json::from_slice(&text[at..end]).is_ok_and(|key: String| key == wanted)
                {
                    return Some(at as u64);
                }
                (at, key_may_follow) = (end, false);
                continue;
            }
            b'{' | b'[' => {
                key_may_follow = text[at] == b'{';
                depth += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => key_may_follow = true,
            _ => {}
        }
        at += 1;
    }
    None
}

/// One past the closing quote of the string that starts at `start`.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        let error = parse_object(Path::new("f.json"), text.as_bytes(), 100);
        error.unwrap_err().to_string()
    }

    #[test]
    fn keys_are_unique_at_any_depth() {
        assert_eq!(
            failure(r#"{"a": 1, "a": 2}"#),
            r#"f.json: "a" at byte 111: occurs twice"#
        );
        assert!(failure(r#"{"x": [{"b": 1, "b": 1}]}"#).contains(r#""b" at byte"#));
    }

    #[test]
    fn errors_have_offsets() {
        assert!(failure("{\n\"a\" 1}").starts_with("f.json: json at byte 106: expected `:`"));
        assert!(failure("[1]").starts_with("f.json: json at byte 100: is not an object"));
        assert!(failure("{} x").starts_with("f.json: json at byte 103: trailing characters"));
        assert!(failure(r#"{"a": 1e999}"#).contains("number out of range"));
        let deep = format!("{{\"a\": {}", "[".repeat(100_000));
        assert!(failure(&deep).contains("recursion limit exceeded"));
        let bad = parse_object(Path::new("f"), b"{\"\xff\"}", 0)
            .unwrap_err()
            .to_string();
        assert_eq!(bad, "f: json at byte 2: is not valid UTF-8");
    }

    #[test]
    fn keys_are_found_at_the_outermost_level() {
        let text = br#"{"x": {"k": 1}, "y": ["k", "k"], "z": "k", "\u006b": 2}"#;
        assert_eq!(key_offset(text, "k"), Some(43));
        assert_eq!(key_offset(text, "y"), Some(16));
        assert_eq!(key_offset(text, "absent"), None);
        assert_eq!(key_offset(b"{\"open", "open"), None);
    }
}
