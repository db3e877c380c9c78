//! Progress on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::app::{demo::DemoObserver, init::InitObserver};
use foretell_ml::training::Trial;

/// One progress bar at a time, with lines above it. If standard error is not a terminal, only the lines are shown.
pub(super) struct Progress {
    bar: ProgressBar,
    best: f64,
}

const STYLE: &str = "{spinner} {prefix:<8} [{bar:30}] {pos}/{len} {msg}";

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, best: f64::INFINITY }
    }

    /// The bar called `name`. If it is another one than before, it takes that one's place and has `of` steps.
    pub(super) fn bar(&mut self, name: &'static str, of: u64) -> &ProgressBar {
        if self.bar.prefix() != name {
            self.bar.finish_and_clear();
            let style = ProgressStyle::with_template(STYLE);
            self.bar = ProgressBar::new(of)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_prefix(name);
            self.bar.enable_steady_tick(Duration::from_millis(120));
        }
        &self.bar
    }

    #[expect(clippy::print_stderr, reason = "progress is shown on standard error")]
    pub(super) fn line(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl InitObserver for Progress {
    fn step(&mut self, line: &str) {
        self.line(&format!("- {line}"));
    }

    fn trial(&mut self, trial: &Trial, of: u32) {
        self.best = self.best.min(trial.log_loss);
        let best = self.best;
        let bar = self.bar("tuning", u64::from(of));
        bar.set_position(u64::from(trial.number) + 1);
        bar.set_message(format!("log loss {:.4}, best {best:.4}", trial.log_loss));
        tracing::info!(
            trial = trial.number,
            log_loss = trial.log_loss,
            iterations = trial.iterations,
            pruned = trial.pruned,
            "finished a trial"
        );
    }
}

impl DemoObserver for Progress {
    fn sent(&mut self, actions: usize, of: usize, predictions: usize) {
        let of = u64::try_from(of).unwrap_or(u64::MAX);
        let bar = self.bar("sending", of);
        bar.set_position(u64::try_from(actions).unwrap_or(u64::MAX));
        bar.set_message(format!("{predictions} predictions came back"));
        if bar.position() == of {
            self.finish();
        }
    }

    fn waiting(&mut self, goal: &str, reached: usize, of: usize) {
        let bar = self.bar("waiting", u64::try_from(of).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(reached).unwrap_or(u64::MAX));
        bar.set_message(goal.to_owned());
    }
}

/// Prints the error of a command that failed.
#[expect(clippy::print_stderr, reason = "errors are shown on standard error")]
pub(super) fn fail(error: &anyhow::Error) {
    eprintln!("error: {}", one_line(error));
}

/// The error and its causes, without the causes that a message before them contains.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_shown_once() {
        let check = |messages: &[&str], expected: &str| {
            let mut causes = messages.iter().rev();
            let innermost = anyhow::anyhow!((*causes.next().unwrap()).to_owned());
            let error =
                causes.fold(innermost, |error, message| error.context((*message).to_owned()));
            assert_eq!(one_line(&error), expected);
        };
        check(&["no file"], "no file");
        check(&["cannot read", "no file"], "cannot read: no file");
        check(&["cannot read: no file", "no file"], "cannot read: no file");
        check(&["cannot start", "cannot read: no", "no"], "cannot start: cannot read: no");
    }
}
