//! How fast a run is and how far: a meter for the rate, and a bar on standard error with loss, rate and time left.
//!
//! The bar is for a person: it is not shown when standard error is not a terminal, or when asked to be quiet.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a time the rate is taken over.
const WINDOW: Duration = Duration::from_secs(10);

/// Items a second, over the last ten seconds.
#[derive(Clone, Debug)]
pub struct RateMeter {
    /// When how many items were done in all; the first lies at the start of the window.
    marks: VecDeque<(Instant, u64)>,
}

impl RateMeter {
    /// A meter that starts now.
    pub fn new() -> RateMeter {
        RateMeter::starting(Instant::now())
    }

    /// A meter that starts at this time.
    pub fn starting(now: Instant) -> RateMeter {
        RateMeter {
            marks: VecDeque::from([(now, 0)]),
        }
    }

    /// Counts `items` that were done until now, and gives the rate.
    pub fn tick(&mut self, items: u64) -> f64 {
        self.tick_at(Instant::now(), items)
    }

    /// As [`RateMeter::tick`], at this time.
    pub fn tick_at(&mut self, now: Instant, items: u64) -> f64 {
        let done = self.marks.back().map_or(0, |mark| mark.1) + items;
        self.marks.push_back((now, done));
        while self.marks.len() > 2 && now.saturating_duration_since(self.marks[1].0) >= WINDOW {
            self.marks.pop_front();
        }
        let (start, before) = self.marks[0];
        let seconds = now.saturating_duration_since(start).as_secs_f64();
        match seconds > 0.0 {
            true => (done - before) as f64 / seconds,
            false => 0.0,
        }
    }
}

impl Default for RateMeter {
    fn default() -> RateMeter {
        RateMeter::new()
    }
}

/// The bar of a run.
#[derive(Debug)]
pub struct TrainingBar {
    bar: ProgressBar,
    unit: String,
}

impl TrainingBar {
    /// A bar for a run of `steps` steps whose rate is in `unit` a second (`"samples"`, `"tokens"`).
    pub fn new(steps: u64, unit: &str, quiet: bool) -> TrainingBar {
        let target = match quiet || !std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let template = "[{bar:30}] {pos}/{len} {msg}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is a valid one");
        TrainingBar {
            bar: ProgressBar::with_draw_target(Some(steps), target).with_style(style),
            unit: unit.to_owned(),
        }
    }

    /// Shows that `step` steps are done, the loss of the last, and the rate.
    pub fn update(&self, step: u64, loss: f64, rate: f64) {
        let unit = &self.unit;
        self.bar
            .set_message(format!("loss {loss:.4}, {rate:.0} {unit}/s"));
        self.bar.set_position(step);
    }

    /// Starts the clock of the time left at `step`, which an earlier process reached.
    pub fn resume(&self, step: u64) {
        self.bar.set_position(step);
        self.bar.reset_eta();
    }

    /// Prints a line above the bar, to standard error; without a bar, nothing.
    pub fn println(&self, line: &str) {
        self.bar.println(line);
    }

    /// Runs `f`, which prints, without the bar on the screen.
    pub fn hide_while<R>(&self, f: impl FnOnce() -> R) -> R {
        self.bar.suspend(f)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut meter = RateMeter::starting(start);
        assert_eq!(meter.tick_at(at(0), 5), 0.0, "no time has passed");
        assert_eq!(meter.tick_at(at(2), 5), 5.0);
        for second in 3..=40 {
            meter.tick_at(at(second), 7);
        }
        assert_eq!(meter.tick_at(at(41), 7), 7.0, "the slow start is forgotten");
        assert!(meter.marks.len() <= 12, "{}", meter.marks.len());
        assert_eq!(
            meter.tick_at(at(141), 200),
            2.0,
            "a step longer than the window"
        );
    }

    #[test]
    fn the_bar_shows_step_loss_and_rate() {
        let bar = TrainingBar::new(200, "samples", true);
        bar.resume(40);
        assert_eq!(bar.bar.position(), 40);
        bar.update(50, 1.23456, 3210.4);
        assert_eq!((bar.bar.position(), bar.bar.length()), (50, Some(200)));
        assert_eq!(bar.bar.message(), "loss 1.2346, 3210 samples/s");
        bar.finish();
        assert!(bar.bar.is_finished());
    }

    #[test]
    fn a_quiet_bar_is_hidden() {
        assert!(TrainingBar::new(10, "samples", true).bar.is_hidden());
    }
}
