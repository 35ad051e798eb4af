//! How a run goes: numbers a step in a file, on the terminal, and a guard that stops it when it goes wrong.
//!
//! | module | what lives there |
//! |---|---|
//! | [`log`] | metrics as lines of JSON |
//! | [`progress`] | rate, and the bar on the terminal |
//! | [`guard`] | losses that are not finite or leap |

pub mod guard;
pub mod log;
pub mod progress;

pub use guard::LossGuard;
pub use log::{MetricsLog, Record};
pub use progress::{RateMeter, TrainingBar};
