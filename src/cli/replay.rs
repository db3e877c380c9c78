//! `foretell replay`

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use humantime_serde::re::humantime;

use crate::{
    app::{
        self,
        replay::{self, CURRENT, HistoryRequest, Report, Request, TableRequest},
        shutdown::{self, Shutdown},
    },
    cli::{Global, Sets, aligned, numbers, print, progress::Progress},
    config::{Config, Variant},
};

/// Run the application over its history again, with other settings, and compare the results.
///
/// It answers questions such as "what if a model were retrained after 500 examples, learned from the last 7 days only, or
/// were never replaced?". The same topologies score, join, learn and judge in this process, as fast as they can: each label is
/// judged with the probability that the variant predicted before it was known. The history is the topics with the events and
/// the outcomes, or a table. Nothing is written: no topic, no schema, no consumer group.
///
/// The file of variants has a section for each, with keys of the configuration; at most 16:
///
///   [variants.often]
///   learning.retrain_after = 500
///
///   [variants.frozen]
///   learning.retrain_after = 0
///
/// The plain configuration is replayed as well, as `current`, and the others are compared with it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell replay --variants variants.toml
  foretell replay --variants variants.toml --from 30d --html replay.html
  foretell replay --from 2026-11-01T00:00:00Z --until 2026-11-08T00:00:00Z --variants variants.toml
  foretell replay --variants variants.toml --table
                                 the table of [data.play], without a broker
  foretell replay --variants variants.toml --table last-year.csv --span 365d --json")]
pub(super) struct Replay {
    /// The file with the variants. Without it, only the plain configuration is replayed.
    #[arg(long, value_name = "FILE")]
    variants: Option<PathBuf>,
    /// Begin at this event time: `beginning`, a time such as `2026-11-01T12:00:00Z`, or a span before now such as `7d`. Labels
    /// are counted from there on, and there is no earlier model to roll back to.
    #[arg(long, value_name = "TIME", default_value = "beginning", conflicts_with = "table")]
    from: String,
    /// End before this event time, written like `--from`. Unset: at the end that the topics have when the command starts.
    #[arg(long, value_name = "TIME", conflicts_with = "table")]
    until: Option<String>,
    /// Begin with this model: a version, its beginning, or an alias. Unset: the one that served at `--from`.
    #[arg(long, value_name = "VERSION", conflicts_with = "table")]
    model: Option<String>,
    /// Replay a table in place of the topics, without a broker. Unset FILE: that of [data.play]. FILE has the format that
    /// [data.play] describes, and may have event times and respondents of its own.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    table: Option<Option<PathBuf>>,
    /// Replay only the first rows of the table.
    #[arg(long, value_parser = numbers::at_least_one, allow_negative_numbers = true, requires = "table")]
    limit: Option<usize>,
    /// Spread rows without event times over this span of event time, such as `28d`. Unset: as `foretell demo` does.
    #[arg(long, value_name = "SPAN", value_parser = span, requires = "table")]
    span: Option<Duration>,
    /// Random seed of the delays and the lost outcomes of a table.
    #[arg(long, default_value_t = 1, requires = "table")]
    seed: u64,
    /// Print one JSON object on standard output, and nothing else.
    #[arg(long)]
    json: bool,
    /// Write a page of HTML with the course of log loss and AUC of each variant to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sets: Sets,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).ok().filter(|span| !span.is_zero());
    span.ok_or_else(|| "it must be a span, such as 28d or 12h".to_owned())
}

impl Replay {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("error")?;
        let clock = app::clock();
        let variants = self.variants(global, config)?;
        let request = self.request()?;
        if let Some(path) = &self.html {
            anyhow::ensure!(!path.is_dir(), "--html: {} is a folder", path.display());
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                anyhow::bail!("--html: there is no folder {}", folder.display());
            }
        }
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let mut progress = Progress::new();
        let replayed = replay::run(&variants, &clock, &shutdown, &request, &mut progress);
        progress.finish();
        let report = replayed?;
        if let Some(path) = self.html.as_ref().filter(|_| !report.is_stopped) {
            fs::write(path, report.page()?)
                .with_context(|| format!("--html: {}", path.display()))?;
            progress.line(&format!("- the course of each variant: {}", path.display()));
        }
        print(&if self.json { serde_json::to_string(&report)? } else { summary(&report) });
        if report.is_stopped {
            anyhow::bail!("stopped before the end: the result has the variants that were complete");
        }
        let has_failed = report.variants.iter().any(|variant| variant.error.is_some());
        Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The plain configuration, unless a variant has its name, and the variants.
    fn variants(&self, global: &Global, config: Config) -> anyhow::Result<Vec<Variant>> {
        let mut variants = match &self.variants {
            Some(file) => Config::load_variants(&global.config, &global.sets, file)?,
            None => Vec::new(),
        };
        match variants.iter().position(|variant| variant.name == CURRENT) {
            Some(position) => variants[..=position].rotate_right(1),
            None => variants.insert(0, Variant { name: CURRENT.to_owned(), config }),
        }
        Ok(variants)
    }

    fn request(&self) -> anyhow::Result<Request> {
        if let Some(path) = &self.table {
            let (path, limit, seed, span) = (path.clone(), self.limit, self.seed, self.span);
            return Ok(Request::Table(TableRequest { path, limit, seed, span }));
        }
        let (until, model) = (self.until.as_deref(), self.model.clone());
        Ok(Request::Topics(HistoryRequest::new(&self.from, until, model, &app::clock())?))
    }
}

fn summary(report: &Report) -> String {
    let mut lines = vec![
        aligned(&report.table()),
        String::new(),
        "progressive metrics (each label was predicted before it was known):".to_owned(),
        aligned(&report.totals_table()),
        String::new(),
        "progressive metrics of the last quarter of the labels:".to_owned(),
        aligned(&report.last_quarter_table()),
    ];
    for variant in &report.variants {
        let name = &variant.name;
        if let Some(error) = &variant.error {
            lines.push(format!("\n{name} ended before the history: {error}"));
        }
        let failures = variant.counts.failures.iter();
        lines.extend(failures.map(|failure| format!("\n{name}: failed: {failure}")));
        let letters = variant.counts.dead_letters.iter();
        lines.extend(
            letters.map(|(class, number)| format!("\n{name}: dead letters: {number} {class}")),
        );
    }
    lines.join("\n")
}
