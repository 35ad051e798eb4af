//! Why a command ended early.

use brain_blitz::Error;

/// The result of a command or a part of one.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// Something is wrong.
    Error {
        /// What.
        error: Error,
        /// What to do about it, where the message does not say so.
        hint: Option<String>,
    },
    /// Whoever read standard output went away: no error.
    OutputClosed,
}

impl Failure {
    /// An error with this message.
    pub fn new(what: impl Into<String>) -> Failure {
        Error::msg(what).into()
    }

    /// The same failure, with what to do about it.
    pub fn hint(self, text: impl Into<String>) -> Failure {
        match self {
            Failure::Error { error, .. } => Failure::Error {
                error,
                hint: Some(text.into()),
            },
            Failure::OutputClosed => self,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error { error, hint: None }
    }
}
