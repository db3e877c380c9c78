//! A table as the history: played as `foretell demo` plays it, with event times that do not depend on the clock.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        play::{self, Action, EventFactory, Pace, PlaySettings, PlaySources, Script},
        replay::feed::{Feed, FeedPosition},
        table::{self, Row},
    },
    config::Config,
    processors::outcome_join::JoinSettings,
};
use foretell_ml::Seed;
use foretell_streams::{record::OutputRecord, time::EventTime};

/// Event time of the first record of a table without event times: the beginning of 2020.
const START: EventTime = EventTime(1_577_836_800_000);
/// Later than all windows of any table, whose event times are therefore not moved.
const FAR: EventTime = EventTime(i64::MAX / 4);

/// Which rows are played, and how.
#[derive(Clone, Debug, Default)]
pub struct TableRequest {
    /// The file; otherwise that of `[data.play]`, or else of `[data.initial]`. It has the format of that table.
    pub path: Option<std::path::PathBuf>,
    /// Maximum number of rows.
    pub limit: Option<usize>,
    /// Random seed of the delays, of lost outcomes and of split questionnaires.
    pub seed: u64,
    /// Event time over which rows without event times are spread.
    pub span: Option<Duration>,
}

/// The records of a table, in order of event time. They are in memory, as the table is.
pub(super) struct PlayedTable {
    records: Arc<Vec<OutputRecord>>,
    pub(super) lines: Vec<String>,
}

impl PlayedTable {
    /// Reads the table and encodes its events and outcomes. The registry of the cluster has the schemas.
    ///
    /// # Errors
    /// If the table cannot be read or played; the message says what to do.
    pub(super) fn read(
        config: &Config,
        cluster: &Cluster,
        request: &TableRequest,
    ) -> anyhow::Result<Self> {
        let rows = rows_of(config, request)?;
        let settings = PlaySettings {
            seed: Seed(request.seed),
            pace: pace_of(config, &rows, request.span),
            with_times: true,
            sessions: config.gather.sessions,
            join: config.join.clone(),
            with_actions: false,
            leave: None,
        };
        let sources = PlaySources::open(config, cluster)?;
        let start = settings.pace.start;
        let mut factory = EventFactory::new(config, &sources, &rows, "replay", start)?;
        let script = Script::of(&rows, &mut factory, &settings);
        let outcomes = cluster.codecs(config)?.outcome;
        let mut records = Vec::with_capacity(script.actions.len());
        for scheduled in &script.actions {
            let mut bytes = Vec::new();
            let (topic, key) = match &scheduled.action {
                Action::Event { event, .. } => {
                    (sources.encode(event, &mut bytes)?, &event.respondent_id)
                }
                Action::Outcome(outcome) | Action::OutcomeIf { outcome, .. } => {
                    outcomes.encode(outcome, &mut bytes)?;
                    (&config.topics.outcomes, &outcome.respondent_id)
                }
                Action::Bad { key, value, .. } => {
                    bytes.extend_from_slice(value);
                    (sources.lead(), key)
                }
            };
            let key = Some(key.as_bytes());
            records.push(OutputRecord::new(topic, key, Some(&bytes), scheduled.at));
        }
        anyhow::ensure!(!records.is_empty(), "the table has no row that can be played");
        let lines = lines_of(&rows, &script, &config.join);
        Ok(Self { records: Arc::new(records), lines })
    }

    /// The range of event times.
    pub(super) fn start(&self) -> EventTime {
        self.records.first().map_or(START, |first| first.timestamp)
    }

    pub(super) fn feed(&self) -> Box<dyn Feed> {
        Box::new(TableFeed { records: Arc::clone(&self.records), next: 0 })
    }
}

/// Passes the records of a table.
struct TableFeed {
    records: Arc<Vec<OutputRecord>>,
    next: usize,
}

impl Feed for TableFeed {
    fn next(&mut self) -> anyhow::Result<Option<OutputRecord>> {
        let record = self.records.get(self.next).cloned();
        self.next += usize::from(record.is_some());
        Ok(record)
    }

    fn position(&self) -> FeedPosition {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        FeedPosition { done: number(self.next), of: number(self.records.len()) }
    }
}

fn rows_of(config: &Config, request: &TableRequest) -> anyhow::Result<Vec<Row>> {
    let data = &config.data;
    let (key, settings) = match (&data.play, &data.initial) {
        (Some(play), _) => ("data.play", play),
        (None, Some(initial)) => ("data.initial", initial),
        (None, None) => anyhow::bail!(
            "no table is configured: describe its columns in [data.play], which --table uses"
        ),
    };
    let mut settings = settings.clone();
    let mut rows = match &request.path {
        Some(path) => {
            settings.path.clone_from(path);
            let read = table::load(&settings, &config.event_schema, &config.classes);
            let described = || format!("--table, with the columns of [{key}]");
            read.with_context(described)?.rows
        }
        None => table::of_configuration(config, key, &settings, &config.classes)?.rows,
    };
    rows.truncate(request.limit.unwrap_or(usize::MAX));
    anyhow::ensure!(!rows.is_empty(), "{}: the table has no rows", shown(&settings.path));
    Ok(rows)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The pace of the rows. It is the same at any time.
fn pace_of(config: &Config, rows: &[Row], span: Option<Duration>) -> Pace {
    let mut pace = Pace::new(config, rows, FAR);
    if rows.iter().any(|row| row.event_time.is_some()) {
        return pace;
    }
    pace.start = START;
    if let Some(span) = span {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX).max(1);
        pace.gap = (span / count).max(Duration::from_millis(1));
        pace.outcome_delay_max = (config.join.window / 12).min((span / 10).max(pace.gap));
    }
    pace
}

/// What a user should know about the rows.
fn lines_of(rows: &[Row], script: &Script, join: &JoinSettings) -> Vec<String> {
    let mut lines = Vec::new();
    let span = Duration::from_secs(script.end().since(script.start()).as_secs());
    let span = humantime_serde::re::humantime::format_duration(span);
    let has_times = rows.iter().any(|row| row.event_time.is_some());
    let times = if has_times { "of the table" } else { "generated" };
    lines.push(format!("{} rows, event times {times}, over {span}", rows.len()));
    let warnings = play::outcome_warnings(rows, join);
    lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
    for (number, why) in [
        (script.rejected_rows, "the event schema rejects them"),
        (script.repeated_rows, "they repeat an earlier event"),
    ] {
        if number > 0 {
            lines.push(format!("warning: {number} rows are not played: {why}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_times_do_not_depend_on_the_clock() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let config =
            Config::load(Path::new(example), &[]).unwrap_or_else(|error| panic!("{error}"));
        let rows = vec![Row::default(); 1_000];
        let pace = pace_of(&config, &rows, None);
        assert_eq!((pace.start, pace.gap), (START, Duration::from_millis(125)));
        let spread = pace_of(&config, &rows, Some(Duration::from_secs(1_000_000)));
        assert_eq!((spread.start, spread.gap), (START, Duration::from_secs(1_000)));
        assert_eq!(spread.outcome_delay_max, Duration::from_secs(600), "a twelfth of the window");
        assert_eq!(spread.piece_gap, pace.gap, "pieces of a questionnaire meet at any span");
        let at = |number: i64| Row { event_time: Some(EventTime(number)), ..Row::default() };
        let timed = pace_of(&config, &[at(5_000_000), at(9_000_000)], Some(Duration::from_secs(1)));
        assert_eq!(
            (timed.start + timed.gap, timed.moved_back),
            (EventTime(5_000_000), Duration::ZERO)
        );
    }
}
