//! Ctrl-C while a text is generated: the first one asks for the end, the second one ends the program.
//!
//! Until [`watch`] is called, Ctrl-C does what it always does; while the program is [`idle`], one is enough to end it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::{Failure, Outcome};

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_CODE: i32 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static IDLE: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C is a request that [`requested`] tells of.
///
/// # Errors
/// If the system does not allow it.
pub fn watch() -> Outcome {
    let handler = || {
        if REQUESTED.swap(true, Ordering::Relaxed) || IDLE.load(Ordering::Relaxed) {
            std::process::exit(EXIT_CODE);
        }
    };
    ctrlc::set_handler(handler)
        .map_err(|error| Failure::new(format!("cannot watch for Ctrl-C: {error}")))
}

/// Whether Ctrl-C was pressed since the last [`forget`].
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Another text begins: what was requested before it is done.
pub fn forget() {
    REQUESTED.store(false, Ordering::Relaxed);
}

/// Says whether the program only waits for input, so that there is nothing to end but itself.
pub fn idle(waits: bool) {
    IDLE.store(waits, Ordering::Relaxed);
}
