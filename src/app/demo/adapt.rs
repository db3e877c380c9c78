//! Adapts the configuration and the event times to the table, and describes the changes: a demo shows within a minute
//! what happens in an application within months.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        demo::DemoSettings,
        play::{EventFactory, Pace, PlaySettings, Script, outcome_warnings},
        returning,
        table::{self, Row},
    },
    config::Config,
    processors::gather::ScoreWhen,
};
use foretell_ml::Seed;
use foretell_streams::time::EventTime;

/// The rows to play, with remarks for the user.
pub(super) struct Source {
    pub(super) rows: Vec<Row>,
    pub(super) lines: Vec<String>,
}

/// Minimum number of trainings in a demo.
const TRAININGS_MIN: usize = 3;

/// Reads `[data.play]`, or else the initial data.
pub(super) fn source(config: &Config, settings: &DemoSettings) -> anyhow::Result<Source> {
    let data = &config.data;
    let mut lines = Vec::new();
    if data.play.is_none() {
        lines.push(
            "there is no [data.play]: the rows of [data.initial] are played, with which the first model was trained, so \
             its quality is not the quality on new data"
                .to_owned(),
        );
    }
    let table = data.play.as_ref().or(data.initial.as_ref());
    let table = table.context("there is nothing to send: set a table in [data.play]")?;
    let key = if data.play.is_some() { "data.play" } else { "data.initial" };
    let mut rows = table::of_configuration(config, key, table, &config.classes)?.rows;
    rows.truncate(settings.limit.unwrap_or(usize::MAX));
    anyhow::ensure!(!rows.is_empty(), "{}: the table has no rows", table.path.display());
    Ok(Source { rows, lines })
}

/// Settings of a play in the past: all windows close before the current time.
pub(super) fn play_settings(
    config: &Config,
    rows: &[Row],
    now: EventTime,
    seed: u64,
) -> PlaySettings {
    PlaySettings {
        seed: Seed(seed),
        pace: Pace::new(config, rows, now),
        with_times: true,
        sessions: config.gather.sessions,
        join: config.join.clone(),
        with_actions: true,
        leave: match config.gather.when {
            ScoreWhen::SessionEnd => Some(config.gather.sessions.gap),
            ScoreWhen::Complete | ScoreWhen::Answers(_) | ScoreWhen::EveryEvent => None,
        },
    }
}

/// Describes the event times, ids and rows of a play.
pub(super) fn describe(rows: &[Row], play: &PlaySettings, script: &Script) -> Vec<String> {
    let pace = &play.pace;
    // From ten seconds on, milliseconds are left out.
    let shown = |span: Duration| {
        let span = if span < Duration::from_secs(10) {
            Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        } else {
            Duration::from_secs(span.as_secs())
        };
        humantime_serde::re::humantime::format_duration(span)
    };
    let has = |has_value: &dyn Fn(&Row) -> bool| rows.iter().any(has_value);
    let mut lines = Vec::new();
    let times = match (has(&|row| row.event_time.is_some()), pace.moved_back) {
        (true, Duration::ZERO) => "event times are the table's".to_owned(),
        (true, back) => format!(
            "event times are the table's, moved back by {} so that all windows close before now",
            shown(back)
        ),
        (false, _) => format!("a respondent every {} of event time", shown(pace.gap)),
    };
    if let Some(gap) = play.leave {
        lines.push(format!(
            "respondents leave before the end, so they are scored {} after their last events; outcomes come after that",
            shown(gap)
        ));
    }
    let span = script.end().since(script.start());
    lines.push(format!(
        "{times}; {} in total, outcomes up to {} later",
        shown(span),
        shown(pace.outcome_delay_max)
    ));
    let ids = [
        (has(&|row| !row.respondent_id.is_empty()), "respondents"),
        (has(&|row| !row.event_id.is_empty()), "event ids"),
    ];
    let ids: Vec<&str> = ids.iter().filter(|(has_ids, _)| *has_ids).map(|(_, id)| *id).collect();
    if !ids.is_empty() {
        lines.push(format!("{} are the table's", ids.join(" and ")));
    }
    let unnamed = rows.iter().filter(|row| row.event_id.is_empty()).count();
    if unnamed > 0 && unnamed < rows.len() {
        lines.push(format!("{unnamed} rows have no event id, and get generated ids"));
    }
    // If the table has event times, `init` has checked them.
    if !has(&|row| row.event_time.is_some()) {
        let visits = script.scored_events().map(|(_, respondent, at)| (respondent, at));
        let warning = returning::warning(visits, &play.join);
        let context = "warning: with generated event times, since the table has none";
        lines.extend(warning.map(|warning| format!("{context}: {warning}")));
    }
    let warnings = outcome_warnings(rows, &play.join);
    lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
    for (why, rows) in not_scored(script) {
        lines.push(format!("warning: {rows} rows are not scored: {why}"));
    }
    lines
}

/// Number of rows that are not scored, by reason.
pub(super) fn not_scored(script: &Script) -> BTreeMap<&'static str, usize> {
    let mut rows = BTreeMap::from([
        ("the event schema rejects them (a mandatory answer that is blank?)", script.rejected_rows),
        ("they repeat an earlier event", script.repeated_rows),
        (
            "they are never complete: [scoring] when needs more answers than they have, and [events] completed is not set",
            script.incomplete_rows(),
        ),
    ]);
    rows.retain(|_, rows| *rows > 0);
    rows
}

/// The configuration of the demo. `lines` gets a remark for each change.
pub(super) fn configuration(
    config: &Config,
    expected: usize,
    lines: &mut Vec<String>,
) -> anyhow::Result<Config> {
    let mut fitted = config.clone();
    // Only records advance stream time, so that no window closes while the demo waits for a training.
    fitted.streams.quiet_after = Duration::from_secs(365 * 24 * 60 * 60);
    if fitted.events.time_behind_max.take().is_some() {
        lines.push(
            "events.time_behind_max is not applied, because the event times are in the past"
                .to_owned(),
        );
    }
    let learning = &mut fitted.learning;
    let every = usize::try_from(learning.rules.retrain_after)?;
    if every == 0 || every > expected / TRAININGS_MIN {
        let fewer = (expected / (TRAININGS_MIN + 1)).max(1);
        learning.rules.retrain_after = u64::try_from(fewer)?;
        let why = match every {
            0 => "to show trainings".to_owned(),
            _ => format!("because there will be only {expected} examples"),
        };
        lines.push(format!("learning.retrain_after is {fewer} here instead of {every}, {why}"));
    }
    Ok(fitted)
}

/// The first row that is scored in one event.
pub(super) fn sample<'r>(
    rows: &'r [Row],
    factory: &EventFactory,
    start: EventTime,
) -> anyhow::Result<&'r Row> {
    let is_scored = |row: &&Row| {
        let event = factory.event_of("", start, row.answers.clone());
        factory.is_scored_alone(&event) && factory.accepts_answers(&row.answers)
    };
    rows.iter().find(is_scored).context(
        "no row of the table would be scored: [scoring] when needs more answers than a row has (name a boolean field in \
         [events] completed, or set [scoring] when = { answers = N } or \"every_event\"), or is \"session_end\" while the \
         event schema allows no answer to be missing",
    )
}
