//! Where a user's lines come from: a terminal, with editing and a history, or anything else, line by line.

use std::io::{self, BufRead, IsTerminal};

use brain_blitz::Error;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::interrupt;

/// What stands before a line that the user writes.
const PROMPT: &str = "> ";
/// What stands before a line that continues another.
const CONTINUED: &str = "| ";

/// A source of lines.
pub enum Input {
    /// A person at a terminal.
    Terminal(Box<DefaultEditor>),
    /// A file, a pipe or the like.
    Stream,
}

impl Input {
    /// Standard input.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn open() -> Outcome<Input> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Input::Stream);
        }
        let editor = DefaultEditor::new().map_err(|error| failed(&error))?;
        Ok(Input::Terminal(Box::new(editor)))
    }

    /// Whether a person writes the lines.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// The next line with those that continue it, or nothing at the end. Ctrl-C throws away what was written of it.
    ///
    /// # Errors
    /// If standard input cannot be read.
    pub fn next(&mut self) -> Outcome<Option<String>> {
        let mut whole = String::new();
        loop {
            let prompt = if whole.is_empty() { PROMPT } else { CONTINUED };
            let line = match self.line(prompt)? {
                Part::Line(line) => line,
                Part::ThrownAway => {
                    whole.clear();
                    continue;
                }
                Part::End if whole.is_empty() => return Ok(None),
                Part::End => return Ok(Some(whole)),
            };
            match line.strip_suffix('\\') {
                Some(line) => {
                    whole.push_str(line);
                    whole.push('\n');
                }
                None => {
                    whole.push_str(&line);
                    self.remember(&whole)?;
                    return Ok(Some(whole));
                }
            }
        }
    }

    fn line(&mut self, prompt: &str) -> Outcome<Part> {
        match self {
            Input::Stream => line_of_stream(),
            Input::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => Ok(Part::Line(line)),
                Err(ReadlineError::Eof) => Ok(Part::End),
                Err(ReadlineError::Interrupted) => Ok(Part::ThrownAway),
                Err(error) => Err(failed(&error)),
            },
        }
    }

    fn remember(&mut self, line: &str) -> Outcome {
        if let Input::Terminal(editor) = self {
            let added = editor.add_history_entry(line);
            added.map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

enum Part {
    Line(String),
    ThrownAway,
    End,
}

fn line_of_stream() -> Outcome<Part> {
    let mut line = String::new();
    interrupt::idle(true);
    let read = io::stdin().lock().read_line(&mut line);
    interrupt::idle(false);
    let n = read.map_err(|source| Error::Io {
        path: "standard input".into(),
        source,
    })?;
    if n == 0 {
        return Ok(Part::End);
    }
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(Part::Line(line))
}

fn failed(error: &ReadlineError) -> Failure {
    Failure::new(format!("standard input: {error}"))
}
