//! Lines that are for the program and not for the model.

use std::path::PathBuf;

/// What a user can ask the program for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// What there is to ask for.
    Help,
    /// Forget what was said.
    Reset,
    /// Show what the model is told beside the messages, or tell it something else; empty text tells it nothing.
    System(Option<String>),
    /// Take the last message and its answer back.
    Undo,
    /// Answer the last message again.
    Retry,
    /// Write the conversation to a file.
    Save(PathBuf),
    /// Read a conversation from a file.
    Load(PathBuf),
    /// How much was read and written how fast.
    Stats,
    /// End.
    Quit,
}

/// What `/help` prints.
pub const HELP: &str = "\
/help           this list
/reset          forget what was said; the system text stays
/system [TEXT]  tell the model TEXT before everything else; - removes it; alone, show it
/undo           take the last message and its answer back
/retry          answer the last message again, with other random numbers
/save FILE      write the conversation to FILE, as JSON
/load FILE      go on with the conversation in FILE
/stats          how many tokens were read and written, how fast, and what room is left
/quit           end; so does Ctrl-D
A line that ends in \\ goes on in the next one. A message that begins with / is written with //.
Ctrl-C ends an answer and keeps what is there of it.
";

/// What a line is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Nothing.
    Empty,
    /// Something for the model.
    Message(String),
    /// Something for the program.
    Command(Command),
    /// Meant for the program, but not understood, and why.
    Unknown(String),
}

impl Line {
    /// What this line is.
    pub fn parse(line: &str) -> Line {
        let line = line.trim();
        if line.is_empty() {
            return Line::Empty;
        }
        let Some(rest) = line.strip_prefix('/') else {
            return Line::Message(line.to_owned());
        };
        if rest.starts_with('/') {
            return Line::Message(rest.to_owned());
        }
        let (name, argument) = match rest.split_once(char::is_whitespace) {
            Some((name, argument)) => (name, argument.trim()),
            None => (rest, ""),
        };
        match command(name, argument) {
            Ok(command) => Line::Command(command),
            Err(why) => Line::Unknown(why),
        }
    }
}

fn command(name: &str, argument: &str) -> Result<Command, String> {
    let file = || match argument {
        "" => Err(format!("/{name} needs the name of a file")),
        path => Ok(PathBuf::from(path)),
    };
    let command = match name {
        "save" => return file().map(Command::Save),
        "load" => return file().map(Command::Load),
        "system" => {
            let text = (!argument.is_empty()).then(|| match argument {
                "-" => String::new(),
                text => text.to_owned(),
            });
            return Ok(Command::System(text));
        }
        "help" | "?" => Command::Help,
        "reset" | "clear" => Command::Reset,
        "undo" => Command::Undo,
        "retry" => Command::Retry,
        "stats" => Command::Stats,
        "quit" | "exit" | "q" => Command::Quit,
        _ => return Err(format!("there is no /{name}; /help lists what there is")),
    };
    match argument {
        "" => Ok(command),
        _ => Err(format!("/{name} takes nothing after it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let message = |text: &str| Line::Message(text.to_owned());
        let system = |text: Option<&str>| Line::Command(Command::System(text.map(str::to_owned)));
        for (line, expected) in [
            ("  ", Line::Empty),
            (" Hi there ", message("Hi there")),
            ("//etc", message("/etc")),
            ("/help", Line::Command(Command::Help)),
            (" /exit ", Line::Command(Command::Quit)),
            ("/system", system(None)),
            ("/system -", system(Some(""))),
            ("/system  Be brief. ", system(Some("Be brief."))),
            (
                "/save a b.json",
                Line::Command(Command::Save("a b.json".into())),
            ),
        ] {
            assert_eq!(Line::parse(line), expected, "{line:?}");
        }
        for (line, part) in [
            ("/", "/help"),
            ("/nothing", "no /nothing"),
            ("/load", "name of a file"),
            ("/undo 3", "takes nothing"),
        ] {
            let Line::Unknown(why) = Line::parse(line) else {
                panic!("{line:?} is understood");
            };
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn the_help_names_every_command() {
        for name in [
            "/help", "/reset", "/system", "/undo", "/retry", "/save", "/load", "/stats", "/quit",
        ] {
            assert!(HELP.lines().any(|line| line.starts_with(name)), "{name}");
        }
        for line in HELP.lines().filter(|line| line.starts_with('/')) {
            let name = line.split_whitespace().next().unwrap();
            let known = [name.to_owned(), format!("{name} x")];
            let known = known
                .iter()
                .any(|l| matches!(Line::parse(l), Line::Command(_)));
            assert!(known, "{line}");
        }
    }
}
