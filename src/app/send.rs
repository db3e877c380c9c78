//! `foretell send`: sends a table as live events and delayed outcomes at a rate, and follows the predictions.

use std::{sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        play::io::{self, PlaySender, PredictionLog, ReceivedPrediction},
        play::{Action, EventFactory, Pace, PlaySettings, PlaySources, Script},
        schemas::EventSchemaFile,
        shutdown::Shutdown,
        table,
    },
    config::Config,
};
use foretell_ml::Seed;
use foretell_streams::time::{Clock, EventTime};

/// Settings of `foretell send`.
#[derive(Clone, Debug)]
pub struct SendSettings {
    /// Respondents per second.
    pub rate: f64,
    /// Maximum number of respondents.
    pub limit: Option<usize>,
    pub outcome_delay_max: Duration,
    /// Random seed.
    pub seed: u64,
    /// Topic of the only events that are sent; none: those of all sources.
    pub source: Option<String>,
}

/// Numbers of what was sent and received.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Events; a questionnaire has one or two.
    pub events: usize,
    pub outcomes: usize,
    /// Events that are to be scored.
    pub expected: usize,
    /// Events that were scored.
    pub predicted: usize,
    /// Time from event to prediction.
    pub latencies: Vec<Duration>,
}

/// Maximum time without a prediction after the last event, in addition to the session timeout, in which a crashed
/// instance keeps its partitions. A group may need a minute to rebalance.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Sends until the end of the table, the limit, or a stop. `show` gets each prediction, and the number of events sent.
///
/// # Errors
/// If the cluster or the table is not usable; the message says what to do.
pub fn send(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    settings: &SendSettings,
    show: &mut dyn FnMut(&ReceivedPrediction, usize),
) -> anyhow::Result<Sent> {
    cluster.check_topics(&config.topics, config.partitions)?;
    let table = config.data.play.as_ref();
    let table = table.context("there is nothing to send: name a table in [data.play]")?;
    let labels = &config.classes;
    let mut rows = table::of_configuration(config, "data.play", table, labels)?.rows;
    rows.truncate(settings.limit.unwrap_or(usize::MAX));
    let mut sender = PlaySender::open(config, cluster, clock)?;
    let (log, threads) =
        io::follow_predictions(config, cluster, clock, &shutdown.signal(), || false)?;
    let start = EventTime(clock.now().0);
    let sources = PlaySources::open(config, cluster)?;
    let prefix = format!("send-{}", start.0);
    let mut factory = EventFactory::new(config, &sources, &rows, &prefix, start)?;
    let play = live(config, settings, start);
    let mut script = Script::of(&rows, &mut factory, &play);
    if let Some(named) = &settings.source {
        let file = EventSchemaFile::of(config, Some(named)).context("--source")?;
        script.keep_source(file.schema.source(), &factory, &play);
    }
    for (rows, problem) in [
        (script.rejected_rows, "rows are not sent: the event schema rejects them"),
        (script.repeated_rows, "rows are not sent: they repeat an earlier event"),
        (script.incomplete_rows(), "rows will not be scored: they are never complete"),
    ] {
        if rows > 0 {
            tracing::warn!(rows, "{problem}");
        }
    }
    let mut sent = Sent::default();
    let mut shown = 0;
    for scheduled in &script.actions {
        while let Some(ahead) = remaining(scheduled.at, clock.as_ref()) {
            sender.flush()?;
            // Returns early on Ctrl-C.
            if shutdown.wait(ahead).is_some() {
                break;
            }
        }
        if shutdown.signal().is_stopped() {
            break;
        }
        match &scheduled.action {
            Action::Event { prediction_id, is_scored, .. } => {
                sent.events += 1;
                if *is_scored {
                    sent.expected += 1;
                    log.expect(prediction_id, clock.elapsed(), false);
                }
            }
            Action::Outcome(_) | Action::OutcomeIf { .. } => sent.outcomes += 1,
            Action::Bad { .. } => {}
        }
        sender.send(&scheduled.action)?;
        shown = show_new(&log, shown, sent.events, show);
    }
    sender.flush()?;
    let idle_max = IDLE_MAX + config.broker.session_timeout;
    if !shutdown.signal().is_stopped() && !log.wait_for_open(0, idle_max) {
        tracing::warn!("{}", missing_predictions(rows.iter().any(|row| !row.event_id.is_empty())));
    }
    show_new(&log, shown, sent.events, show);
    shutdown.signal().stop();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread that reads predictions panicked"))?;
    }
    let log = log.lock();
    sent.predicted = log.answered;
    sent.latencies = log.received.iter().filter_map(|received| received.latency).collect();
    Ok(sent)
}

/// Events happen now, whatever event times the table has.
fn live(config: &Config, settings: &SendSettings, start: EventTime) -> PlaySettings {
    let gap = Duration::from_secs_f64(1.0 / settings.rate);
    PlaySettings {
        seed: Seed(settings.seed),
        pace: Pace {
            start,
            gap,
            piece_gap: gap,
            outcome_delay_max: settings.outcome_delay_max,
            moved_back: Duration::ZERO,
            open_max: usize::MAX,
        },
        with_times: false,
        sessions: config.gather.sessions,
        join: config.join.clone(),
        with_actions: false,
        leave: None,
    }
}

fn missing_predictions(has_ids: bool) -> &'static str {
    if has_ids {
        "some predictions are missing: is `foretell run` running? events whose ids were sent before, within [events] \
         duplicates_within, are repeats and are not predicted again"
    } else {
        "some predictions are missing: is `foretell run` running?"
    }
}

/// Time until the clock reaches `at`; `None` if it has.
fn remaining(at: EventTime, clock: &dyn Clock) -> Option<Duration> {
    let ahead = at.since(EventTime(clock.now().0));
    (!ahead.is_zero()).then_some(ahead)
}

/// Shows the awaited predictions after the first `shown`. Returns the number of predictions received so far.
fn show_new(
    log: &PredictionLog,
    shown: usize,
    events: usize,
    show: &mut dyn FnMut(&ReceivedPrediction, usize),
) -> usize {
    let new: Vec<ReceivedPrediction> = log.lock().received[shown..].to_vec();
    let awaited = new.iter().filter(|received| received.latency.is_some());
    awaited.for_each(|received| show(received, events));
    shown + new.len()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::app::schemas::{self, SetLevels};

    const TOML: &str = r#"
        application.id = "shop"
        [events]
        schema = "event.avsc"
        respondent_id = "who"
        event_time = "at"
        event_id = "id"
        [outcomes]
        labels = ["no", "yes"]
        [data.play]
        path = "play.csv"
        label = "out"
    "#;

    /// Respondent, event id and event time of each event that is sent for `table`.
    fn sent(table: &str) -> Vec<(String, String, i64)> {
        let actions = script(table, &[]).actions.into_iter();
        let events = actions.filter_map(|scheduled| match scheduled.action {
            Action::Event { event, .. } => {
                Some((event.respondent_id, event.event_id, event.event_time.0 - START.0))
            }
            Action::Outcome(_) | Action::OutcomeIf { .. } | Action::Bad { .. } => None,
        });
        events.collect()
    }

    const START: EventTime = EventTime(1_790_000_000_000);

    fn script(table: &str, sets: &[String]) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let avsc = r#"{"type":"record","name":"R","fields":[
            {"name":"id","type":"string"},{"name":"who","type":"long"},{"name":"at","type":"long"},
            {"name":"age","type":["null","int"],"default":null}]}"#;
        for (name, text) in [("event.avsc", avsc), ("foretell.toml", TOML), ("play.csv", table)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = Config::load(&folder.path().join("foretell.toml"), sets).unwrap();
        let cluster = Cluster::embedded(&crate::app::clock());
        let levels = SetLevels::WithNewVersions;
        schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {}).unwrap();
        let table = config.data.play.as_ref().unwrap();
        let rows = table::of_configuration(&config, "data.play", table, &[]).unwrap().rows;
        let sources = PlaySources::open(&config, &cluster).unwrap();
        let mut factory = EventFactory::new(&config, &sources, &rows, "send", START).unwrap();
        let settings = SendSettings {
            rate: 1.0,
            limit: None,
            outcome_delay_max: Duration::from_secs(1),
            seed: 1,
            source: None,
        };
        Script::of(&rows, &mut factory, &live(&config, &settings, START))
    }

    #[test]
    fn outcomes_of_the_table_come_in_proportion_to_the_longest_delay() {
        let table = "age,then,out\n3,no after 30m; yes after 1h,yes\n4,,no\n5,no after 15m,no\n";
        let script = script(table, &["data.play.outcomes=then".to_owned()]);
        let outcomes = script.actions.iter().filter_map(|scheduled| match &scheduled.action {
            Action::Outcome(outcome) => Some((outcome.label.as_str(), scheduled.at.0 - START.0)),
            Action::Event { .. } | Action::OutcomeIf { .. } | Action::Bad { .. } => None,
        });
        let mut outcomes: Vec<(&str, i64)> = outcomes.collect();
        outcomes.sort_unstable_by_key(|(_, at)| *at);
        // Events come every second, and the longest delay is a second.
        assert_eq!(outcomes, [("no", 1_500), ("yes", 2_000), ("no", 3_250)]);
    }

    #[test]
    fn ids_of_the_table_are_sent_and_its_times_are_not() {
        let event = |who: &str, id: &str, at| (who.to_owned(), id.to_owned(), at);
        let events = sent("who,id,at,age,out\n7,a,1600000000000,3,no\n8,b,1600000000001,4,yes\n");
        assert_eq!(events, [event("7", "a", 1_000), event("8", "b", 2_000)]);
        // A respondent has two rows: their events get distinct ids.
        let events = sent("who,age,out\n7,3,no\n7,4,yes\n");
        assert!(events.iter().all(|(who, ..)| who == "7") && events.len() == 2, "{events:?}");
        assert_ne!(events[0].1, events[1].1);
        // Without ids in the table, respondents are generated.
        let events = sent("age,out\n3,no\n4,yes\n");
        assert_ne!(events[0].0, events[1].0);
    }
}
