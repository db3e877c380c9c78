//! `foretell send`

use std::{process::ExitCode, time::Duration};

use clap::Args;

use crate::{
    app::{
        self,
        cluster::Cluster,
        play::{self, io::ReceivedPrediction},
        send::{self, SendSettings},
        shutdown::{self, Shutdown},
    },
    cli::{Global, Sets, numbers, print, progress::Progress},
};

/// Send the table of [data.play] as live events and delayed outcomes, and show the predictions.
///
/// Start `foretell run` first. The command ends with 0 if every event that is complete was predicted, else with 1.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell send --limit 20
  foretell send --rate 200 --outcome-delay 2m --quiet")]
pub(super) struct Send {
    /// Respondents per second.
    #[arg(long, default_value_t = 5.0, value_parser = numbers::rate, allow_negative_numbers = true)]
    rate: f64,
    /// Send only the first rows of the table, one respondent each.
    #[arg(long, value_parser = numbers::at_least_one, allow_negative_numbers = true)]
    limit: Option<usize>,
    /// Maximum delay of an outcome after its event, such as `30s` or `2m`. Delays are random up to it.
    #[arg(long, default_value = "30s", value_parser = duration)]
    outcome_delay: Duration,
    /// Random seed. The same seed and table give the same events and outcomes. Another one sends the same rows as other respondents,
    /// if the table names none: a model that has learned from them is then judged on rows that it knows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send only the events of this topic, with its prefix or without it: the part of each row that its schema has fields for.
    /// Outcomes are sent with those of `questionnaire-events`. Without it, the events of all topics are sent.
    #[arg(long, value_name = "TOPIC")]
    source: Option<String>,
    /// Print only the summary.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime_serde::re::humantime::parse_duration(text);
    parsed.map_err(|_| "it must be a duration, such as 500ms, 30s or 2m".to_owned())
}

impl Send {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("warn,librdkafka=off")?;
        let clock = app::clock();
        let cluster = Cluster::connect(&config, &clock)?;
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let settings = SendSettings {
            rate: self.rate,
            limit: self.limit,
            outcome_delay_max: self.outcome_delay,
            seed: self.seed,
            source: self.source.clone(),
        };
        let rows = u64::try_from(self.limit.unwrap_or(0)).unwrap_or(0);
        let mut progress = Progress::new();
        let mut show = |received: &ReceivedPrediction, events: usize| {
            if !self.quiet {
                print(&line(received));
            } else if rows > 0 {
                progress.bar("sending", rows).set_position(u64::try_from(events).unwrap_or(0));
            }
        };
        let sent = send::send(&config, &cluster, &clock, &shutdown, &settings, &mut show);
        progress.finish();
        let sent = sent?;
        print(&summary(&sent));
        let is_complete = sent.predicted == sent.expected;
        Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn line(received: &ReceivedPrediction) -> String {
    let prediction = &received.prediction;
    let predicted = prediction.probabilities.iter().find(|class| class.label == prediction.label);
    format!(
        "{:<28} {:>12}  p = {:.3}  model {}  {:>6.1} ms",
        prediction.respondent_id,
        prediction.label,
        predicted.map_or(f64::NAN, |class| class.probability),
        prediction.model_version,
        received.latency.unwrap_or_default().as_secs_f64() * 1e3,
    )
}

fn summary(sent: &send::Sent) -> String {
    let mut latencies = sent.latencies.clone();
    latencies.sort();
    let percentile = |percent: usize| {
        let latency = play::percentile(&latencies, percent);
        latency.map_or("-".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
    };
    format!(
        "{} events and {} outcomes sent, {} of {} predictions came back (p50 {}, p99 {})",
        sent.events,
        sent.outcomes,
        sent.predicted,
        sent.expected,
        percentile(50),
        percentile(99),
    )
}
