//! The crate's error type.
//!
//! Every `try_` form and every loader returns [`Result`]. The plain forms panic with the same message, at the line
//! that called them.

use std::path::PathBuf;

/// A result whose error is this crate's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, each with what is needed to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A foreign file that does not hold what it should.
    #[error("{}: {field}{}: {what}", file.display(), offset.map(|o| format!(" at byte {o}")).unwrap_or_default())]
    Format {
        /// The file.
        file: PathBuf,
        /// The field or tensor at fault.
        field: String,
        /// Where in the file, when known.
        offset: Option<u64>,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Operands that do not fit an operation.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: String,
        /// Which shapes, and what they should have been.
        what: String,
    },
    /// A symbolic dimension without a value.
    #[error(
        "symbol `{symbol}` has no value (needed by {user}); call `set_dim('{symbol}', n)` before `execute`"
    )]
    UnsetSymbol {
        /// The symbol.
        symbol: char,
        /// The tensor or operation whose size depends on it.
        user: String,
    },
    /// A node failed while a graph was compiled or executed.
    #[error("{node}: {what}")]
    Node {
        /// The operation, its shape and where it was recorded.
        node: String,
        /// What is wrong.
        what: String,
    },
    /// A pass broke the graph, or could not do its work.
    #[error("pass `{pass}`: {what}")]
    Pass {
        /// The pass.
        pass: String,
        /// What is wrong.
        what: String,
    },
    /// The graph's text form could not be read.
    #[error("line {line}: {what}")]
    Parse {
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Anything else; the message says what to do.
    #[error("{0}")]
    Message(String),
}

impl Error {
    /// An [`Error::Message`].
    pub fn msg(text: impl Into<String>) -> Error {
        Error::Message(text.into())
    }

    /// Panics with this error's message at the caller's line: what the plain forms do.
    #[track_caller]
    pub fn raise(self) -> ! {
        panic!("{self}")
    }
}
