//! The progress bar on standard error: shown only to a person, and gone when the work is done.

use std::io::IsTerminal;
use std::time::Duration;

use brain_blitz::generation::session::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// One line that shows what is being done.
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar; hidden when `quiet`, and when standard error is not a terminal.
    pub fn new(quiet: bool) -> Bar {
        let hidden = quiet || !std::io::stderr().is_terminal();
        let target = match hidden {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        Bar {
            bar: ProgressBar::with_draw_target(Some(0), target),
        }
    }

    /// Shows how far loading and compiling are.
    pub fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Loading {
                done_bytes,
                total_bytes,
            } => {
                self.count("Loading", "{bytes}/{total_bytes}", done_bytes, total_bytes);
            }
            Progress::Compiling { pass } => self.spin(format!("Compiling: {pass}")),
            Progress::Tuning { done, total } => {
                self.count("Tuning", "{pos}/{len} products", done as u64, total as u64);
            }
            Progress::Ready => self.clear(),
        }
    }

    /// Shows that weights are packed.
    pub fn packing(&mut self) {
        self.spin("Packing weights".to_owned());
    }

    /// Shows how many tokens of the prompt were read.
    pub fn reading(&mut self, done: usize, total: usize) {
        self.count("Reading", "{pos}/{len} tokens", done as u64, total as u64);
    }

    /// Shows how many rounds of a measurement are done.
    pub fn measuring(&mut self, done: usize, total: usize) {
        self.count("Measuring", "{pos}/{len}", done as u64, total as u64);
    }

    /// Shows how much of something is done.
    pub fn counting(&mut self, what: &str, done: usize, total: usize) {
        self.count(what, "{pos}/{len}", done as u64, total as u64);
    }

    /// Shows how many bytes of a file are converted.
    pub fn converting(&mut self, done_bytes: u64, total_bytes: u64) {
        self.count(
            "Converting",
            "{bytes}/{total_bytes}",
            done_bytes,
            total_bytes,
        );
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }

    fn count(&mut self, what: &str, numbers: &str, done: u64, total: u64) {
        if self.bar.message() != what {
            let template = format!("{{msg:10}} [{{bar:30}}] {numbers}");
            self.bar.reset();
            self.bar.set_style(style(&template));
            self.bar.set_message(what.to_owned());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    fn spin(&mut self, what: String) {
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.set_message(what);
        self.bar.enable_steady_tick(TICK);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are written in this file")
}
