//! Ctrl-C while a text is generated: the first one asks for the end, the second one ends the program.
//!
//! Until [`watch`] is called, Ctrl-C does what it always does.

use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::{Failure, Outcome};

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_CODE: i32 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C is a request that [`requested`] tells of.
///
/// # Errors
/// If the system does not allow it.
pub fn watch() -> Outcome {
    let handler = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_CODE);
        }
    };
    ctrlc::set_handler(handler)
        .map_err(|error| Failure::new(format!("cannot watch for Ctrl-C: {error}")))
}

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
