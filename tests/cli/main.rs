//! The program as a whole, run as a user runs it: what it prints, what it writes, and how it fails.

mod chat;
mod damaged;
// Without compiled code, whole texts take minutes.
#[cfg(feature = "llvm-backend")]
mod eval;
mod generate;
mod gguf;
mod plot;
mod signals;
mod success;
mod support;
#[cfg(feature = "llvm-backend")]
mod switches;
