//! Text that comes in and goes out: prompts from files, tokens as text on standard output as they come.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use brain_blitz::Error;
use brain_blitz::formats::Tokenizer;
use brain_blitz::formats::tokenizer::DecodeStream;
use brain_blitz::generation::stop::StopStrings;

use super::failure::{Failure, Outcome};
use super::output;

/// The longest text that is read.
const LONGEST: u64 = 1 << 30;

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// If it cannot be read, is not UTF-8 or longer than a gibibyte.
pub fn read(path: &Path) -> Outcome<String> {
    match is_stdin(path) {
        true => read_from(name_of(path), Ok(io::stdin().lock())),
        false => read_file(path),
    }
}

/// The text of a file, whatever its name.
///
/// # Errors
/// As [`read`].
pub fn read_file(path: &Path) -> Outcome<String> {
    read_from(path.display().to_string(), File::open(path))
}

fn read_from(name: String, from: io::Result<impl Read>) -> Outcome<String> {
    let mut bytes = Vec::new();
    let read = from.and_then(|from| from.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(|source| Error::Io {
        path: name.clone().into(),
        source,
    })?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::new(format!("{name}: is longer than a gibibyte")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(format!("{name}: is not UTF-8 at byte {at}"))
    })
}

/// As [`read`], without the line break that ends the last line.
///
/// # Errors
/// As [`read`].
pub fn read_prompt(path: &Path) -> Outcome<String> {
    let mut text = read(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name_of(path: &Path) -> String {
    match is_stdin(path) {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

/// Turns ids into text as they come; never a part of a character, never a part of a string that ends the text.
pub struct Writer<'t> {
    /// `None` without a tokenizer: the ids themselves are written.
    stream: Option<DecodeStream<'t>>,
    stop: StopStrings,
    /// Whether standard output gets the text at once.
    live: bool,
    /// All text so far.
    text: String,
}

impl<'t> Writer<'t> {
    /// A writer of a text that these strings end.
    pub fn new(tokenizer: Option<&'t Tokenizer>, stop: StopStrings, live: bool) -> Writer<'t> {
        Writer {
            stream: tokenizer.map(Tokenizer::decode_stream),
            stop,
            live,
            text: String::new(),
        }
    }

    /// All text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Writes a token of the prompt, which no string ends.
    ///
    /// # Errors
    /// If standard output fails.
    pub fn prompt(&mut self, id: u32) -> Outcome {
        let piece = self.piece(id);
        self.write(&piece)
    }

    /// Writes a token; tells whether the text has ended with it.
    ///
    /// # Errors
    /// If standard output fails.
    pub fn push(&mut self, id: u32) -> Outcome<bool> {
        let piece = self.piece(id);
        let (sure, ended) = self.stop.push(&piece);
        self.write(&sure)?;
        Ok(ended)
    }

    fn piece(&mut self, id: u32) -> String {
        match &mut self.stream {
            None => {
                let comma = if self.text.is_empty() { "" } else { "," };
                format!("{comma}{id}")
            }
            // An embedding may have more rows than the tokenizer has tokens.
            Some(stream) => match stream.push(id) {
                Ok(piece) => piece.unwrap_or_default(),
                Err(_) => char::REPLACEMENT_CHARACTER.to_string(),
            },
        }
    }

    /// Writes what is left, unless a string ended the text: the rest of an unfinished character, and what might have become
    /// such a string. Then the end of the line.
    ///
    /// # Errors
    /// If standard output fails.
    pub fn finish(&mut self, ended: bool) -> Outcome {
        if !ended {
            let rest = match &mut self.stream {
                None => String::new(),
                Some(stream) => stream.finish()?,
            };
            let (mut sure, ended) = self.stop.push(&rest);
            if !ended {
                sure.push_str(&self.stop.finish());
            }
            self.write(&sure)?;
        }
        match self.live {
            true => output::write("\n"),
            false => Ok(()),
        }
    }

    fn write(&mut self, piece: &str) -> Outcome {
        self.text.push_str(piece);
        match self.live && !piece.is_empty() {
            true => output::write(piece),
            false => Ok(()),
        }
    }
}
