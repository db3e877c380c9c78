//! Sends a play, and waits until all of it has come to its end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    app::{
        cluster::Cluster,
        demo::{DemoObserver, Play, Played},
        replay::io::{self, ReplaySender},
        replay::{self, Action, ScheduledAction, closing},
        shutdown::Shutdown,
        start::Instance,
        telemetry,
    },
    config::Config,
    events::{labelled_example::LabelledExample, outcome::Outcome},
};
use foretell_streams::{
    record::{InputRecord, Topic},
    runtime::StopSignal,
    time::Clock,
};

/// Nothing more is expected when nothing has changed for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Actions between two flushes.
const BATCH: usize = 50;
/// Before the last so many parts of a hundred are sent, a model from the stream must serve, if it can.
const AFTER_A_TRAINING_PERCENT: usize = 25;

pub(super) struct Director<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) shutdown: &'a Shutdown,
    pub(super) instance: &'a Instance,
    pub(super) stop: &'a StopSignal,
}

impl Director<'_> {
    pub(super) fn play(
        &self,
        play: &mut Play,
        rate: f64,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<Played> {
        let config = self.config;
        let labelled = self.count_examples()?;
        let dead = self.count_records(&config.topics.dead_letters, |_| true)?;
        let trainer = self.instance.overview.trainer.clone();
        let is_training = move || trainer.progress().is_some();
        let (watch, _) =
            io::watch_predictions(config, self.cluster, self.clock, self.stop, is_training)?;
        let mut played = Played {
            expected: BTreeSet::new(),
            advancers: BTreeSet::new(),
            events_sent: 0,
            late_outcomes: 0,
            trained_on_the_way: Err("the play is too short for it".to_owned()),
            watch,
            unsettled: Vec::new(),
        };
        let mut sender = ReplaySender::open(config, self.cluster, self.clock)?;
        self.play_script(play, &mut played, &mut sender, rate, observer)?;

        let mut unsettled = Vec::new();
        let watch = played.watch.clone();
        let answered = || watch.lock().answered;
        let goal = played.expected.len();
        unsettled.extend(self.settle("every event predicted", answered, goal, observer)?);
        let sent = sender.sent();
        unsettled.extend(self.settle("all processed", || self.processed(), sent, observer)?);
        if let Ok(joins) = play.known() {
            let (joined, goal) = (|| count(&labelled), joins.joined);
            unsettled.extend(self.settle("every outcome joined", joined, goal, observer)?);
        }
        // Only now may stream time close the windows.
        unsettled.extend(self.close_windows(play, &mut played, &mut sender, observer)?);
        let sent = sender.sent();
        unsettled.extend(self.settle("all processed", || self.processed(), sent, observer)?);
        if let Ok(joins) = play.known() {
            let closed = || self.counter("foretell_unlabelled_total");
            let goal = joins.unlabelled;
            unsettled.extend(self.settle("every window closed", closed, goal, observer)?);
        }
        let letters = play.dead_letters(played.late_outcomes).values().sum();
        let set_aside = || count(&dead);
        unsettled.extend(self.settle("bad input dead-lettered", set_aside, letters, observer)?);
        let examples = play.examples(config).unwrap_or_else(|_| count(&labelled));
        let learned = self.last_training_learns_from(examples)?;
        let what = "the last model swapped in";
        unsettled.extend(self.settle(what, || self.learned(), learned, observer)?);
        played.unsettled.extend(unsettled);
        Ok(played)
    }

    fn count_records(
        &self,
        topic: &Topic,
        counts: impl Fn(&InputRecord) -> bool + Clone + Send + 'static,
    ) -> anyhow::Result<Arc<AtomicUsize>> {
        let records = Arc::new(AtomicUsize::new(0));
        let into = Arc::clone(&records);
        io::follow(self.cluster.broker.as_ref(), topic, self.stop, move |record| {
            into.fetch_add(usize::from(counts(record)), Ordering::SeqCst);
        })?;
        Ok(records)
    }

    /// Examples that a training counts: a correction replaces one.
    fn count_examples(&self) -> anyhow::Result<Arc<AtomicUsize>> {
        let topic = &self.config.topics.labelled_examples;
        let codec = self.cluster.codec::<LabelledExample>(topic)?;
        self.count_records(topic, move |record| {
            let example = record.value.as_ref().map(|bytes| codec.decode(bytes));
            matches!(example, Some(Ok(example)) if !example.correction)
        })
    }

    fn play_script(
        &self,
        play: &Play,
        played: &mut Played,
        sender: &mut ReplaySender,
        rate: f64,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<()> {
        let started = self.clock.elapsed();
        let actions = &play.script.actions;
        let no_waits = BTreeSet::new();
        let waits = play.waits.as_ref().unwrap_or(&no_waits);
        let rest = actions.len() * AFTER_A_TRAINING_PERCENT / 100;
        let mut paused = Duration::ZERO;
        for (number, scheduled) in actions.iter().enumerate() {
            if number + rest == actions.len() {
                sender.flush()?;
                let before = self.clock.elapsed();
                played.trained_on_the_way = self.wait_for_a_training(play, number, observer)?;
                paused = self.clock.elapsed().saturating_sub(before);
            }
            if waits.contains(&number) {
                sender.flush()?;
                let what = "all of respondents who come back processed in order";
                let unsettled = self.settle(what, || self.processed(), sender.sent(), observer)?;
                played.unsettled.extend(unsettled);
            }
            match &scheduled.action {
                Action::Event { prediction_id, is_scored, .. } => {
                    played.events_sent += 1;
                    if *is_scored {
                        self.expect(played, prediction_id);
                        played.expected.insert(prediction_id.clone());
                    }
                }
                Action::Outcome(_) => {}
                Action::Bad { .. } => played.events_sent += 1,
            }
            sender.play(&scheduled.action)?;
            if number % BATCH == 0 {
                sender.flush()?;
                observer.played(number, actions.len(), played.watch.lock().answered);
                anyhow::ensure!(
                    played.watch.wait_for_open(play.settings.pace.open_max, PATIENCE),
                    "nothing has been predicted for {PATIENCE:?}: see the log"
                );
                let due = if rate > 0.0 { played.events_sent as f64 / rate } else { 0.0 };
                let passed = self.clock.elapsed().saturating_sub(started + paused);
                let wait = Duration::from_secs_f64((due - passed.as_secs_f64()).max(0.0));
                anyhow::ensure!(self.shutdown.wait(wait).is_none(), "stopped before the end");
            }
        }
        sender.flush()?;
        observer.played(actions.len(), actions.len(), played.watch.lock().answered);
        Ok(())
    }

    fn expect(&self, played: &Played, prediction_id: &str) {
        let is_training = self.instance.overview.trainer.progress().is_some();
        played.watch.expect(prediction_id, self.clock.elapsed(), is_training);
    }

    /// Waits until a model serves that was trained from the stream, if what joins of the first `sent` actions is enough
    /// for one: so there are respondents left for it to predict, however fast the rest goes. Else it says why not.
    fn wait_for_a_training(
        &self,
        play: &Play,
        sent: usize,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<Result<(), String>> {
        let joined = play.script.joins(sent, &play.settings.join).joined;
        let every = self.config.learning.retrain_after;
        if joined < usize::try_from(every)? {
            return Ok(Err(format!(
                "{joined} outcomes join before the last quarter of the play, fewer than learning.retrain_after = {every}"
            )));
        }
        let scored = |scheduled: &ScheduledAction| {
            matches!(&scheduled.action, Action::Event { is_scored: true, .. })
        };
        if !play.script.actions[sent..].iter().any(scored) {
            return Ok(Err("nothing is scored in the last quarter of the play".to_owned()));
        }
        let model = || self.instance.overview.snapshot().model;
        let trained = || usize::from(model().is_some_and(|model| model.training > 0));
        // What becomes of it is among the checks.
        self.settle("a model trained from the stream", trained, 1, observer)?;
        Ok(Ok(()))
    }

    /// Events and outcomes that were processed, and committed.
    fn processed(&self) -> usize {
        let topics = &self.config.topics;
        let of = |topic: &Topic| {
            let name = "foretell_records_processed_total";
            rounded(telemetry::total_of(&self.instance.registry, name, topic.as_str()))
        };
        of(&topics.questionnaire_events) + of(&topics.outcomes)
    }

    /// Events that are scored move stream time past every window. Inputs are merged by event time, so an outcome sent
    /// along with them could be processed before them: it is sent when their predictions have come, which are
    /// committed together with the stream time, and is too late for certain.
    fn close_windows(
        &self,
        play: &mut Play,
        played: &mut Played,
        sender: &mut ReplaySender,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<Option<&'static str>> {
        let at = play.script.end() + closing(self.config);
        let partitions = self.config.partitions;
        for event in replay::time_advancers(at, partitions, &play.sample, &mut play.form) {
            played.events_sent += 1;
            let prediction_id = play.form.prediction_id(&event);
            self.expect(played, &prediction_id);
            played.advancers.insert(prediction_id.clone());
            sender.play(&Action::Event { event, prediction_id, is_scored: true })?;
        }
        sender.flush()?;
        let answered = || played.watch.lock().answered;
        let goal = played.expected.len() + played.advancers.len();
        let what = "stream time past every window";
        let unsettled = self.settle(what, answered, goal, observer)?;
        for respondent_id in play.form.new_respondents_everywhere("late", partitions) {
            sender.play(&Action::Outcome(Outcome {
                respondent_id,
                outcome_time: play.script.start(),
                label: self.config.classes[0].clone(),
                outcome_id: None,
            }))?;
            played.late_outcomes += 1;
        }
        sender.flush()?;
        Ok(unsettled)
    }

    /// Waits until `reached` has come to its goal; what it was for, if nothing changes any more, in a training neither.
    fn settle(
        &self,
        what: &'static str,
        reached: impl Fn() -> usize,
        goal: usize,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<Option<&'static str>> {
        let training = || {
            let progress = self.instance.overview.trainer.progress();
            progress.map(|progress| (progress.training, progress.iteration))
        };
        let state = || (reached(), training());
        let (mut last, mut since) = (state(), self.clock.elapsed());
        while last.0 < goal {
            observer.waiting(what, last.0, goal);
            let stopped = self.shutdown.wait(Duration::from_millis(20));
            anyhow::ensure!(stopped.is_none(), "stopped before the end: waiting for {what}");
            let now = state();
            if now != last {
                (last, since) = (now, self.clock.elapsed());
            } else if self.clock.elapsed().saturating_sub(since) > PATIENCE {
                tracing::error!(what, goal, reached = now.0, "gave up waiting");
                return Ok(Some(what));
            }
        }
        Ok(None)
    }

    /// What the instance has counted.
    pub(super) fn counter(&self, name: &str) -> usize {
        rounded(telemetry::total(&self.instance.registry, name))
    }

    /// Examples from the stream that the model that serves has learned from.
    fn learned(&self) -> usize {
        let model = self.instance.overview.snapshot().model;
        model.map_or(0, |model| usize::try_from(model.examples[1]).unwrap_or(usize::MAX))
    }

    fn last_training_learns_from(&self, joined: usize) -> anyhow::Result<usize> {
        let learning = &self.config.learning;
        let every = usize::try_from(learning.retrain_after)?;
        Ok((joined / every * every).min(learning.stream_examples_max.unwrap_or(usize::MAX)))
    }
}

fn count(records: &AtomicUsize) -> usize {
    records.load(Ordering::SeqCst)
}

fn rounded(count: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter's value"
    )]
    let count = count as usize;
    count
}
