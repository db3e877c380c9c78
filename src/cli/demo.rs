//! `foretell demo`

use std::{process::ExitCode, time::Duration};

use clap::Args;

use crate::{
    app::{
        self,
        demo::{self, Check, DecisionReport, DemoSettings, Report},
        shutdown::{self, Shutdown},
    },
    cli::{Global, Sets, action_table, class_table, numbers, print, progress::Progress},
};

/// Run everything in one process, with an embedded broker, and check the result.
///
/// It trains a first model, sends the table of [data.play] (or of [data.initial], if there is none) as live
/// questionnaires with delayed outcomes and some bad input, and retrains and replaces the model meanwhile. Then it reads
/// all topics and checks them. It fails if a prediction is missing, doubled, or was not made by the model that it names.
/// It prints how it adapts event times and learning.retrain_after to the table, which rows are not scored, and what it
/// could not check. If the first line of a table does not name the columns, set `columns`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell demo --config deploy/adult/foretell.toml
  foretell demo --json | python3 -m json.tool
  foretell demo --open                  show the dashboard meanwhile, and keep it running
  foretell demo --keep-running          keep it running, and in another terminal:
    curl -s localhost:8000/api/v1/status
    curl -s 'localhost:8000/api/v1/events?wait=true' --json '{\"respondent_id\": \"me\", …}'")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Demo {
    /// Print one JSON object on standard output, and nothing else.
    #[arg(long)]
    json: bool,
    /// Keep serving HTTP after the report, until Ctrl-C.
    #[arg(long, visible_alias = "keep")]
    keep_running: bool,
    /// Open the dashboard in your browser, and keep serving until Ctrl-C.
    #[arg(long)]
    open: bool,
    /// Respondents per second; 0 is as fast as possible.
    #[arg(long, default_value_t = 600.0, value_parser = numbers::rate_or_zero, allow_negative_numbers = true)]
    rate: f64,
    /// Send only the first rows of the table, one respondent each.
    #[arg(long, value_parser = numbers::at_least_one, allow_negative_numbers = true)]
    limit: Option<usize>,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time for tuning the first model, in seconds. It replaces tuning.time. Each retraining is tuned for a third of it.
    #[arg(long, default_value_t = 12, value_parser = numbers::seconds, allow_negative_numbers = true)]
    tuning_seconds: u64,
    /// Invert the labels of one batch of outcomes, to show that a model which learned from them is refused or rolled back. It
    /// takes a table of at least five times learning.retrain_after rows.
    #[arg(long)]
    poison: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Demo {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let mut config = global.start("error")?;
        config.tuning.time = Duration::from_secs(self.tuning_seconds);
        let plan = &mut config.learning.tuning;
        plan.time = plan.time.min(config.tuning.time / 3);
        let clock = app::clock();
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let settings = DemoSettings {
            rate: self.rate,
            limit: self.limit,
            seed: self.seed,
            poison: self.poison,
        };
        let mut progress = Progress::new();
        progress.opens_browser = self.open;
        progress.line(&announcement(&config.http.bind));
        let result = demo::run(&config, &clock, &shutdown, &settings, &mut progress);
        progress.finish();
        let (report, instance) = result?;
        print(&if self.json { serde_json::to_string(&report)? } else { table(&report) });
        if self.keep_running || self.open {
            progress.line(&format!("serving on http://{} until Ctrl-C", instance.address));
            let reason = shutdown.wait_until_asked();
            tracing::info!(?reason, "stopping");
        }
        instance.stop()?;
        Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The first line: where the dashboard will be. With port 0 the system chooses it when the instance starts.
fn announcement(bind: &str) -> String {
    if bind.ends_with(":0") {
        "- the dashboard's address follows when the first model is trained".to_owned()
    } else {
        format!("- dashboard: http://{bind}, when the first model is trained")
    }
}

fn table(report: &Report) -> String {
    let millis =
        |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
    let mut lines = vec![String::new()];
    let mut row = |name: &str, value: String| lines.push(format!("{name:<28} {value}"));
    row("events sent", report.events_sent.to_string());
    row("scored", report.scored.to_string());
    let not_scored: usize = report.rows_not_scored.values().sum();
    row("rows of the table not scored", format!("{not_scored} of {}", report.rows));
    row("outcomes joined", report.joined.to_string());
    if report.corrected > 0 {
        row("corrections (upgrades)", report.corrected.to_string());
    }
    row("unlabelled", report.unlabelled.to_string());
    row("labelled examples", report.examples.to_string());
    row("unseen categories scored", report.unseen_categories.to_string());
    row("numbers out of range scored", report.out_of_range.to_string());
    for (class, times) in &report.dead_letters {
        row(&format!("dead letters: {class}"), times.to_string());
    }
    row("retrainings", report.retrainings.to_string());
    row(
        "latency p50 / p99, idle",
        format!("{} / {}", millis(report.latency_p50_ms_idle), millis(report.latency_p99_ms_idle)),
    );
    row(
        "latency p50 / p99, training",
        format!(
            "{} / {}",
            millis(report.latency_p50_ms_training),
            millis(report.latency_p99_ms_training)
        ),
    );
    row("seconds", format!("{:.1}", report.seconds));
    lines.push(String::new());
    lines.extend(models(report));
    if let Some(quality) = &report.quality {
        lines.push(String::new());
        lines.extend(class_table::lines(quality));
    }
    if report.inverted > 0 {
        let inverted = report.inverted;
        lines.push(format!("{inverted} of these labels are inverted, and count as they came"));
    }
    if !report.actions.is_empty() {
        lines.push(String::new());
        lines.extend(action_table::lines(&report.actions));
    }
    if !report.decisions.is_empty() {
        lines.push(String::new());
        lines.push(
            "decision        outcome      candidate     metric    champion  candidate  improvement (interval)"
                .to_owned(),
        );
        lines.extend(report.decisions.iter().map(decision));
    }
    lines.push(String::new());
    lines.extend(report.checks.iter().map(check));
    lines.join("\n")
}

/// A line for each model, below a title.
fn models(report: &Report) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let mut lines = vec![
        "model         training  predictions  live AUC  live log loss (scored before it was learned from)"
            .to_owned(),
    ];
    for model in &report.models {
        lines.push(format!(
            "{:<13} {:>8}  {:>11}  {:>8}  {:>8}",
            model.version,
            model.training,
            model.predictions,
            number(model.auc),
            number(model.log_loss),
        ));
    }
    lines
}

fn check(check: &Check) -> String {
    match (check.ok, &check.not_checked) {
        (Some(true), _) => format!("ok   {}", check.name),
        (Some(false), _) => format!("FAIL {}", check.name),
        (None, why) => {
            let why = why.as_deref().unwrap_or("unknown");
            format!("-    {}: not checked: {why}", check.name)
        }
    }
}

fn decision(report: &DecisionReport) -> String {
    let DecisionReport { decision, outcome, candidate, reason, comparison, .. } = report;
    let candidate = candidate.as_deref().unwrap_or("-");
    let numbers = comparison.as_ref().map_or_else(
        || reason.clone(),
        |found| {
            format!(
                "{:<9} {:>8.4}  {:>9.4}  {:+.4} ({:+.4} to {:+.4})",
                found.metric,
                found.champion,
                found.candidate,
                found.difference,
                found.low,
                found.high
            )
        },
    );
    format!("{decision:<15} {outcome:<12} {candidate:<13} {numbers}")
}
