//! The sample application: plays a table as live events and delayed outcomes at a rate, and shows the
//! predictions that come back.

use std::{sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        replay::io::{self, ReplaySender, Seen},
        replay::{Action, EventForm, Pace, ReplaySettings, Script},
        shutdown::Shutdown,
        table,
    },
    config::Config,
};
use foretell_ml::Seed;
use foretell_streams::time::{Clock, EventTime};

/// What to send.
#[derive(Clone, Debug)]
pub struct SendSettings {
    /// Respondents a second.
    pub rate: f64,
    /// Respondents in all, if not the whole table.
    pub limit: Option<usize>,
    /// The longest that an outcome takes.
    pub outcome_delay_max: Duration,
    /// Where chance comes from.
    pub seed: u64,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Events, in one piece or in two.
    pub events: usize,
    /// Outcomes.
    pub outcomes: usize,
    /// Predictions that should have come.
    pub expected: usize,
    /// Predictions that came, each counted once.
    pub predicted: usize,
    /// How long each took.
    pub latencies: Vec<Duration>,
}

/// How long the last predictions may take after the last event, besides the session of an instance that
/// dies: so long nobody else has its partitions. A group that is in trouble may take a minute to come to rest.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sends until the table or the limit is at its end, or somebody stops it; `show` sees each prediction
/// that comes back, and how many events are out.
///
/// # Errors
/// In one line that says what to do.
pub fn send(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    settings: &SendSettings,
    show: &mut dyn FnMut(&Seen, usize),
) -> anyhow::Result<Sent> {
    cluster.check_topics(&config.topics, config.partitions)?;
    let table = config.data.play.as_ref();
    let table = table.context("there is nothing to send: name a table in [data.play]")?;
    let labels = &config.classes;
    let mut rows = table::of_configuration(config, "data.play", table, labels)?.rows;
    rows.truncate(settings.limit.unwrap_or(usize::MAX));
    let mut sender = ReplaySender::open(config, cluster, clock)?;
    let (watch, threads) =
        io::watch_predictions(config, cluster, clock, &shutdown.signal(), || false)?;
    let start = EventTime(clock.now().0);
    let codec = cluster.sample_codec(config)?;
    let mut form = EventForm::new(config, codec, &rows, (&format!("send-{}", start.0), start))?;
    let play = live(config, settings, start);
    let script = Script::of(&rows, &mut form, &play);
    if script.unfit > 0 {
        tracing::warn!(rows = script.unfit, "not sent, for the event schema does not take them");
    }
    if script.repeated > 0 {
        tracing::warn!(rows = script.repeated, "not sent, for they repeat an event before them");
    }
    let incomplete = script.incomplete_rows();
    if incomplete > 0 {
        tracing::warn!(rows = incomplete, "will not be scored, for they are never complete");
    }
    let mut sent = Sent::default();
    let mut shown = 0;
    for scheduled in &script.actions {
        while let Some(ahead) = remaining(scheduled.at, clock.as_ref()) {
            sender.flush()?;
            // Waiting for the clock is waiting for Ctrl-C.
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
                    watch.expect(prediction_id, clock.elapsed(), false);
                }
            }
            Action::Outcome(_) => sent.outcomes += 1,
            Action::Bad { .. } => {}
        }
        sender.play(&scheduled.action)?;
        shown = show_new(&watch, shown, sent.events, show);
    }
    sender.flush()?;
    let patience = PATIENCE + config.broker.session_timeout;
    if !shutdown.signal().is_stopped() && !watch.wait_for_open(0, patience) {
        tracing::warn!("{}", unanswered(rows.iter().any(|row| !row.event_id.is_empty())));
    }
    show_new(&watch, shown, sent.events, show);
    shutdown.signal().stop();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a watching thread panicked"))?;
    }
    let log = watch.lock();
    sent.predicted = log.answered;
    sent.latencies = log.seen.iter().filter_map(|seen| seen.latency).collect();
    Ok(sent)
}

/// Everything happens now, whatever times the table has.
fn live(config: &Config, settings: &SendSettings, start: EventTime) -> ReplaySettings {
    ReplaySettings {
        seed: Seed(settings.seed),
        pace: Pace {
            start,
            gap: Duration::from_secs_f64(1.0 / settings.rate),
            outcome_delay_max: settings.outcome_delay_max,
            moved_back: Duration::ZERO,
            open_max: usize::MAX,
        },
        with_times: false,
        retention: config.gather.retention,
        join: config.join.clone(),
    }
}

fn unanswered(has_ids: bool) -> &'static str {
    if has_ids {
        "some predictions did not come: is `foretell run` running? events with the table's ids that were sent within \
         [events] duplicates_within are repeats, and are not predicted again"
    } else {
        "some predictions did not come: is `foretell run` running?"
    }
}

fn remaining(at: EventTime, clock: &dyn Clock) -> Option<Duration> {
    let ahead = at.since(EventTime(clock.now().0));
    (!ahead.is_zero()).then_some(ahead)
}

fn show_new(
    watch: &io::Watch,
    shown: usize,
    events: usize,
    show: &mut dyn FnMut(&Seen, usize),
) -> usize {
    let new: Vec<Seen> = watch.lock().seen[shown..].to_vec();
    let ours = new.iter().filter(|seen| seen.latency.is_some());
    ours.for_each(|seen| show(seen, events));
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

    /// Respondent, event id and event time of each event that is sent of `table`.
    fn sent(table: &str) -> Vec<(String, String, i64)> {
        let folder = tempfile::tempdir().unwrap();
        let avsc = r#"{"type":"record","name":"R","fields":[
            {"name":"id","type":"string"},{"name":"who","type":"long"},{"name":"at","type":"long"},
            {"name":"age","type":["null","int"],"default":null}]}"#;
        for (name, text) in [("event.avsc", avsc), ("foretell.toml", TOML), ("play.csv", table)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = Config::load(&folder.path().join("foretell.toml"), &[]).unwrap();
        let cluster = Cluster::embedded(&crate::app::clock());
        let levels = SetLevels::WithNewVersions;
        schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {}).unwrap();
        let table = config.data.play.as_ref().unwrap();
        let rows = table::of_configuration(&config, "data.play", table, &[]).unwrap().rows;
        let start = EventTime(1_790_000_000_000);
        let codec = cluster.sample_codec(&config).unwrap();
        let mut form = EventForm::new(&config, codec, &rows, ("send", start)).unwrap();
        let settings = SendSettings {
            rate: 1.0,
            limit: None,
            outcome_delay_max: Duration::from_secs(1),
            seed: 1,
        };
        let script = Script::of(&rows, &mut form, &live(&config, &settings, start));
        let events = script.actions.into_iter().filter_map(|scheduled| match scheduled.action {
            Action::Event { event, .. } => {
                Some((event.respondent_id, event.event_id, event.event_time.0 - start.0))
            }
            Action::Outcome(_) | Action::Bad { .. } => None,
        });
        events.collect()
    }

    #[test]
    fn ids_of_the_table_are_sent_and_its_times_are_not() {
        let told = |who: &str, id: &str, at| (who.to_owned(), id.to_owned(), at);
        let events = sent("who,id,at,age,out\n7,a,1600000000000,3,no\n8,b,1600000000001,4,yes\n");
        assert_eq!(events, [told("7", "a", 1_000), told("8", "b", 2_000)]);
        // Of a respondent who comes back, events without an id of the table's are told apart.
        let events = sent("who,age,out\n7,3,no\n7,4,yes\n");
        assert!(events.iter().all(|(who, ..)| who == "7") && events.len() == 2, "{events:?}");
        assert_ne!(events[0].1, events[1].1);
        // And without any, they are made up.
        let events = sent("age,out\n3,no\n4,yes\n");
        assert_ne!(events[0].0, events[1].0);
    }
}
