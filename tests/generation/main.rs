//! Generation against other programs: what sampling leaves to choose from, how well a model predicts a text, and what a
//! session does not feed again.

mod evaluate;
// Without compiled code, whole texts take minutes.
#[cfg(feature = "llvm-backend")]
mod models;
mod reuse;
mod sampling;
mod support;
