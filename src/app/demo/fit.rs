//! Fits the configuration and the clock to the data, and says so: a play has to show, in a minute, what an application
//! shows in months.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        demo::DemoSettings,
        replay::{EventForm, Pace, ReplaySettings, Script},
        returning,
        table::{self, Row},
    },
    config::Config,
};
use foretell_ml::Seed;
use foretell_streams::time::EventTime;

/// The table that is played, and what is said of it.
pub(super) struct Source {
    pub(super) rows: Vec<Row>,
    pub(super) lines: Vec<String>,
}

/// A training is due at least so often in a play.
const TRAININGS_MIN: usize = 3;

/// Reads `[data.play]`, or else the initial data.
pub(super) fn source(config: &Config, settings: &DemoSettings) -> anyhow::Result<Source> {
    let data = &config.data;
    let mut lines = Vec::new();
    if data.play.is_none() {
        lines.push(
            "there is no [data.play]: the rows of [data.initial] are played, from which the first model learned, so its \
             quality is not that on new data"
                .to_owned(),
        );
    }
    let table = data.play.as_ref().or(data.initial.as_ref());
    let table = table.context("there is nothing to play: name a table in [data.play]")?;
    let key = if data.play.is_some() { "data.play" } else { "data.initial" };
    let mut rows = table::of_configuration(config, key, table, &config.classes)?.rows;
    rows.truncate(settings.limit.unwrap_or(usize::MAX));
    anyhow::ensure!(!rows.is_empty(), "{}: there are no rows to play", table.path.display());
    Ok(Source { rows, lines })
}

/// How it is played: all of it in the past, windows included, so that nothing is ahead of the clock.
pub(super) fn play(config: &Config, rows: &[Row], now: EventTime, seed: u64) -> ReplaySettings {
    ReplaySettings {
        seed: Seed(seed),
        pace: Pace::new(config, rows, now),
        with_times: true,
        retention: config.gather.retention,
        join: config.join.clone(),
    }
}

/// What `play` is in words.
pub(super) fn describe(rows: &[Row], play: &ReplaySettings, script: &Script) -> Vec<String> {
    let pace = &play.pace;
    // Of what is longer, milliseconds say nothing.
    let shown = |span: Duration| {
        let span = if span < Duration::from_secs(10) {
            Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        } else {
            Duration::from_secs(span.as_secs())
        };
        humantime_serde::re::humantime::format_duration(span)
    };
    let has = |is_there: &dyn Fn(&Row) -> bool| rows.iter().any(is_there);
    let mut lines = Vec::new();
    let times = match (has(&|row| row.event_time.is_some()), pace.moved_back) {
        (true, Duration::ZERO) => "event times are the table's".to_owned(),
        (true, back) => format!(
            "event times are the table's, moved back by {}, so that all windows close before now",
            shown(back)
        ),
        (false, _) => format!("a respondent every {} of event time", shown(pace.gap)),
    };
    let span = script.end().since(script.start());
    lines.push(format!(
        "{times}; {} in all, outcomes up to {} later",
        shown(span),
        shown(pace.outcome_delay_max)
    ));
    let ids = [
        (has(&|row| !row.respondent_id.is_empty()), "respondents"),
        (has(&|row| !row.event_id.is_empty()), "event ids"),
    ];
    let ids: Vec<&str> = ids.iter().filter(|(is_there, _)| *is_there).map(|(_, id)| *id).collect();
    if !ids.is_empty() {
        lines.push(format!("{} are the table's", ids.join(" and ")));
    }
    let unnamed = rows.iter().filter(|row| row.event_id.is_empty()).count();
    if unnamed > 0 && unnamed < rows.len() {
        lines
            .push(format!("{unnamed} rows have no event id, and are played with ids made up here"));
    }
    // Where the table says the times, `init` has looked at them.
    if !has(&|row| row.event_time.is_some()) {
        let warning = returning::warning(script.visits(), &play.join);
        let told = |warning: String| {
            format!("warning: as it is played, for the table says no times: {warning}")
        };
        lines.extend(warning.map(told));
    }
    for (why, rows) in not_scored(script) {
        lines.push(format!("warning: {rows} rows are not scored: {why}"));
    }
    lines
}

/// Rows of which no prediction is made, by why.
pub(super) fn not_scored(script: &Script) -> BTreeMap<&'static str, usize> {
    let mut rows = BTreeMap::from([
        ("the event schema does not take them (a mandatory answer that is blank?)", script.unfit),
        ("they repeat an event before them", script.repeated),
        (
            "they are never complete: [scoring] when asks for more answers than they have, and [events] completed names no field",
            script.incomplete_rows(),
        ),
    ]);
    rows.retain(|_, rows| *rows > 0);
    rows
}

/// The configuration that is run; adds what is other in it.
pub(super) fn configuration(
    config: &Config,
    expected: usize,
    lines: &mut Vec<String>,
) -> anyhow::Result<Config> {
    let mut fitted = config.clone();
    // Stream time comes from the play's records alone: a training that is waited for closes no windows.
    fitted.streams.quiet_after = Duration::from_secs(365 * 24 * 60 * 60);
    if fitted.events.time_behind_max.take().is_some() {
        lines.push("events.time_behind_max is not applied, for the play is in the past".to_owned());
    }
    let learning = &mut fitted.learning;
    let every = usize::try_from(learning.retrain_after)?;
    if every > expected / TRAININGS_MIN {
        let fewer = (expected / (TRAININGS_MIN + 1)).max(1);
        learning.retrain_after = u64::try_from(fewer)?;
        lines.push(format!(
            "learning.retrain_after is {fewer} here in place of {every}, for only {expected} outcomes will join"
        ));
    }
    Ok(fitted)
}

/// A row that is scored as it is.
pub(super) fn sample<'r>(
    rows: &'r [Row],
    form: &EventForm,
    start: EventTime,
) -> anyhow::Result<&'r Row> {
    let is_scored = |row: &&Row| {
        let event = form.event_of("", start, row.answers.clone());
        form.is_scored_alone(&event) && form.fits(&row.answers)
    };
    rows.iter().find(is_scored).context(
        "no row of the table would be scored: [scoring] when asks for more answers than a row has; name a boolean field \
         in [events] completed, or set [scoring] when = { answers = N } or \"every_event\"",
    )
}
