//! Progress on standard error.

use std::{net::SocketAddr, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    app::{
        demo::DemoObserver,
        init::InitObserver,
        replay::{ReplayObserver, VariantReport},
        tune::TuneObserver,
    },
    cli::browser,
    processors::learning::trainer::TrainingProgress,
};
use foretell_ml::training::Trial;

/// One progress bar at a time, with lines above it. If standard error is not a terminal, only the lines are shown.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Loss and value of the best trial of the study.
    best: Option<(f64, f64)>,
    /// Whether the dashboard is opened in a browser as soon as it is served.
    pub(super) opens_browser: bool,
    /// The variant that is replayed, and its place.
    variant: String,
}

const STYLE: &str = "{spinner} {prefix:<8} [{bar:30}] {pos}/{len} {msg}";

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, best: None, opens_browser: false, variant: String::new() }
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

    /// Shows a trial of the study called `name`.
    fn show(&mut self, name: &'static str, trial: &Trial, of: u32) {
        if trial.number == 0 {
            self.best = None;
        }
        let loss = trial.loss().unwrap_or(f64::INFINITY);
        if self.best.is_none_or(|(least, _)| loss < least) && !trial.pruned {
            self.best = trial.value.map(|value| (loss, value));
        }
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let best = number(self.best.map(|(_, value)| value));
        let bar = self.bar(name, u64::from(of));
        bar.set_position(u64::from(trial.number) + 1);
        let (objective, value) = (trial.objective.name(), number(trial.value));
        bar.set_message(format!("{objective} {value}, best {best}"));
        tracing::info!(
            sampler = trial.sampler.name(),
            trial = trial.number,
            log_loss = trial.log_loss,
            iterations = trial.iterations,
            pruned = trial.pruned,
            failure = trial.failure,
            "finished a trial"
        );
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
        self.show("tuning", trial, of);
    }
}

impl TuneObserver for Progress {
    fn warning(&mut self, line: &str) {
        self.line(&format!("- warning: {line}"));
    }

    fn trial(&mut self, trial: &Trial, of: u32) {
        self.show(trial.sampler.name(), trial, of);
    }
}

impl ReplayObserver for Progress {
    fn begins(&mut self, variant: &str, number: usize, of: usize) {
        self.variant = format!("{variant} ({number} of {of})");
    }

    fn replayed(&mut self, done: u64, of: u64) {
        let variant = self.variant.clone();
        let bar = self.bar("replaying", of);
        bar.set_length(of);
        bar.set_position(done);
        bar.set_message(variant);
    }

    fn training(&mut self, progress: &TrainingProgress) {
        let TrainingProgress { training, phase, iteration, of } = progress;
        let message =
            format!("{}, training {training}: {} {iteration}/{of}", self.variant, phase.name());
        self.bar("replaying", 0).set_message(message);
    }

    fn ended(&mut self, variant: &VariantReport) {
        let VariantReport { name, seconds, counts, .. } = variant;
        self.line(&format!("- {name}: {} trainings, {seconds:.0} s", counts.trainings));
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

    fn serving(&mut self, address: SocketAddr) {
        self.line(&format!("- dashboard: http://{address}"));
        if self.opens_browser
            && let Err(error) = browser::open(&format!("http://{address}"))
        {
            self.line(&format!("- cannot open a browser ({error}): open the address yourself"));
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
