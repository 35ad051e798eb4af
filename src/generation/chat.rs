//! Conversations as the text that a chat model continues.
//!
//! ```text
//! [user: "Hi"]   ->   <bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n
//! ```
//!
//! The form comes with the model, as a Jinja template that is written for Python's transformers. It is rendered with what
//! those templates use: the names `messages`, `add_generation_prompt`, `bos_token` and `eos_token`, the function
//! `raise_exception`, and the methods of Python's strings and dictionaries that occur in them.
//!
//! A template is a program of whoever made the file: it runs a bounded number of steps and reaches nothing but its
//! arguments. What memory its texts take is not bounded.
//!
//! Deliberately absent: calls of tools, pictures, the current date.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Environment, ErrorKind, State, context};
use serde::{Deserialize, Serialize};
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::error::{Error, Result};
use crate::formats::{ModelFiles, Tokenizer};

/// The most steps that a template runs.
const FUEL: u64 = 1_000_000;
/// The most spaces that JSON is indented by.
const MOST_INDENT: usize = 16;
/// The name that a template has in messages.
const NAME: &str = "chat template";

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// By whom: `user`, `assistant`, and `system` where the template knows it.
    pub role: String,
    /// What.
    pub content: String,
}

impl Message {
    /// What `role` said.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        let (role, content) = (role.into(), content.into());
        Message { role, content }
    }
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template with this text; `bos` and `eos` are the texts of the tokens that begin and end what the model reads.
    ///
    /// ```
    /// use brain_blitz::generation::chat::{ChatTemplate, Message};
    /// let text = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}";
    /// let template = ChatTemplate::new(text, "<bos>", "<eos>")?;
    /// let said = [Message::new("user", " Hi ")];
    /// assert_eq!(template.render(&said, true)?, "<bos>user: Hi\n");
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is not a template.
    pub fn new(text: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(failed)?);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", |what: String| -> Result<String, _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(failed)?;
        Ok(ChatTemplate {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The template of a model, if it has one. `tokenizer` is the model's, `eos` the token that ends its texts.
    ///
    /// # Errors
    /// If a file cannot be read, or holds something else.
    pub fn of_model(
        files: &ModelFiles,
        tokenizer: &Tokenizer,
        eos: Option<u32>,
    ) -> Result<Option<ChatTemplate>> {
        let Some(text) = files.chat_template()? else {
            return Ok(None);
        };
        let name = |id: Option<u32>| {
            id.and_then(|id| tokenizer.id_to_token(id))
                .unwrap_or_default()
        };
        let template = ChatTemplate::new(&text, &name(tokenizer.bos()), &name(eos));
        let named = |error: Error| Error::msg(format!("{}: {error}", files.path().display()));
        template.map(Some).map_err(named)
    }

    /// The conversation as the model reads it; with `add_generation_prompt`, up to where it is to answer. The text names its
    /// begin-of-text token itself, if it starts with one.
    ///
    /// # Errors
    /// If the template refuses the conversation, or fails.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let said = |m: &Message| context! { role => &m.role, content => &m.content };
        let arguments = context! {
            messages => messages.iter().map(said).collect::<Vec<Value>>(),
            add_generation_prompt => add_generation_prompt,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        template.render(arguments).map_err(failed)
    }
}

/// The ids of a rendered conversation: with exactly one begin-of-text token at the front where the tokenizer adds one, since
/// some templates write it themselves.
///
/// # Errors
/// If the tokenizer cannot encode the text.
pub fn encode_rendered(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let ids = tokenizer.encode(text, false)?;
    match tokenizer.bos() {
        Some(bos) if tokenizer.adds_bos() && ids.first() != Some(&bos) => {
            Ok([vec![bos], ids].concat())
        }
        _ => Ok(ids),
    }
}

/// The template's error as ours, in one line.
fn failed(error: minijinja::Error) -> Error {
    let line = error
        .line()
        .map(|line| format!(", line {line}"))
        .unwrap_or_default();
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::msg(format!("{NAME}{line}: {what}"))
}

/// JSON as Python writes it: nothing is escaped for HTML, and there are spaces between entries.
fn to_json(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
        Some(n) => {
            let spaces = " ".repeat(n.min(MOST_INDENT));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
    };
    let failed = |what: String| minijinja::Error::new(ErrorKind::BadSerialization, what);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(out).map_err(|error| failed(error.to_string()))
}

/// JSON in one line with spaces after commas and colons.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// The methods of Python's strings and dictionaries that templates call.
fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, arguments),
        ValueKind::Map => match method {
            "items" => state.apply_filter("items", std::slice::from_ref(value)),
            "keys" => Ok(Value::from(value.try_iter()?.collect::<Vec<_>>())),
            "get" => {
                let (key, default): (Value, Option<Value>) = from_args(arguments)?;
                let found = value
                    .get_item(&key)
                    .ok()
                    .filter(|found| !found.is_undefined());
                Ok(found.or(default).unwrap_or_else(|| Value::from(())))
            }
            _ => Err(ErrorKind::UnknownMethod.into()),
        },
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Value, minijinja::Error> {
    let strip = |start: bool, end: bool| -> Result<Value, minijinja::Error> {
        let (set,): (Option<&str>,) = from_args(arguments)?;
        let strips = |c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
        let text = if start {
            text.trim_start_matches(strips)
        } else {
            text
        };
        let text = if end {
            text.trim_end_matches(strips)
        } else {
            text
        };
        Ok(Value::from(text))
    };
    let one = || from_args::<(&str,)>(arguments).map(|(argument,)| argument);
    match method {
        "strip" => strip(true, true),
        "lstrip" => strip(true, false),
        "rstrip" => strip(false, true),
        "startswith" => Ok(Value::from(text.starts_with(one()?))),
        "endswith" => Ok(Value::from(text.ends_with(one()?))),
        "upper" => Ok(Value::from(text.to_uppercase())),
        "lower" => Ok(Value::from(text.to_lowercase())),
        "capitalize" => {
            let mut letters = text.chars();
            let first: String = letters
                .next()
                .into_iter()
                .flat_map(char::to_uppercase)
                .collect();
            Ok(Value::from(first + &letters.as_str().to_lowercase()))
        }
        "replace" => {
            let (from, to): (&str, &str) = from_args(arguments)?;
            Ok(Value::from(text.replace(from, to)))
        }
        "split" => {
            let (separator,): (Option<&str>,) = from_args(arguments)?;
            let parts: Vec<Value> = match separator {
                None => text.split_whitespace().map(Value::from).collect(),
                Some("") => {
                    return Err(minijinja::Error::new(
                        ErrorKind::InvalidOperation,
                        "empty separator",
                    ));
                }
                Some(separator) => text.split(separator).map(Value::from).collect(),
            };
            Ok(Value::from(parts))
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}
