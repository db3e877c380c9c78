//! Sends the script of a demo, and waits until everything is processed.

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
        demo::{DemoObserver, Plan, RunState},
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

/// A goal counts as unreached if nothing changes for this long.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Number of actions between two flushes.
const BATCH: usize = 50;
/// The runner sends this last part of the script only after a model from the stream serves, if there will be one.
const AFTER_TRAINING_PERCENT: usize = 25;

/// A number of things to wait for.
struct Goal<'a> {
    name: &'static str,
    reached: &'a dyn Fn() -> usize,
    count: usize,
}

pub(super) struct Runner<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) shutdown: &'a Shutdown,
    pub(super) instance: &'a Instance,
    pub(super) stop: &'a StopSignal,
}

impl Runner<'_> {
    pub(super) fn run(
        &self,
        plan: &mut Plan,
        rate: f64,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<RunState> {
        let config = self.config;
        let labelled = self.count_examples()?;
        let dead = self.count_records(&config.topics.dead_letters, |_| true)?;
        let trainer = self.instance.overview.trainer.clone();
        let is_training = move || trainer.progress().is_some();
        let (log, _) =
            io::follow_predictions(config, self.cluster, self.clock, self.stop, is_training)?;
        let mut state = RunState {
            expected: BTreeSet::new(),
            advancers: BTreeSet::new(),
            events_sent: 0,
            late_outcomes: 0,
            waited_for_training: Err("the script is too short for it".to_owned()),
            log: log.clone(),
            unreached: Vec::new(),
        };
        let mut sender = ReplaySender::open(config, self.cluster, self.clock)?;
        self.send_script(plan, &mut state, &mut sender, rate, observer)?;

        let joins = plan.known_joins().ok();
        let reached = || log.lock().answered;
        let goal =
            Goal { name: "every event predicted", reached: &reached, count: state.expected.len() };
        self.wait_for(&goal, &mut state, observer)?;
        self.wait_until_processed("all processed", &sender, &mut state, observer)?;
        if let Some(joins) = joins {
            let reached = || count(&labelled);
            let goal =
                Goal { name: "every outcome joined", reached: &reached, count: joins.joined };
            self.wait_for(&goal, &mut state, observer)?;
        }
        // Stream time closes windows, so it may advance only after all joins.
        self.close_windows(plan, &mut state, &mut sender, observer)?;
        self.wait_until_processed("all processed", &sender, &mut state, observer)?;
        if let Some(joins) = joins {
            let reached = || self.counter("foretell_unlabelled_total");
            let goal =
                Goal { name: "every window closed", reached: &reached, count: joins.unlabelled };
            self.wait_for(&goal, &mut state, observer)?;
        }
        let letters = plan.dead_letters(state.late_outcomes).values().sum();
        let reached = || count(&dead);
        let goal = Goal { name: "bad input dead-lettered", reached: &reached, count: letters };
        self.wait_for(&goal, &mut state, observer)?;
        let examples = plan.examples(config).unwrap_or_else(|_| count(&labelled));
        let (reached, learned) = (|| self.learned(), self.last_training_set(examples)?);
        let goal = Goal { name: "the last model swapped in", reached: &reached, count: learned };
        self.wait_for(&goal, &mut state, observer)?;
        Ok(state)
    }

    /// Counts new records of a topic.
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

    /// Counts new examples as a training does: a correction is not another example.
    fn count_examples(&self) -> anyhow::Result<Arc<AtomicUsize>> {
        let topic = &self.config.topics.labelled_examples;
        let codec = self.cluster.codec::<LabelledExample>(topic)?;
        self.count_records(topic, move |record| {
            let example = record.value.as_ref().map(|bytes| codec.decode(bytes));
            matches!(example, Some(Ok(example)) if !example.correction)
        })
    }

    fn send_script(
        &self,
        plan: &Plan,
        state: &mut RunState,
        sender: &mut ReplaySender,
        rate: f64,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<()> {
        let started = self.clock.elapsed();
        let actions = &plan.script.actions;
        let no_waits = BTreeSet::new();
        let waits = plan.waits.as_ref().unwrap_or(&no_waits);
        let rest = actions.len() * AFTER_TRAINING_PERCENT / 100;
        let mut paused = Duration::ZERO;
        for (number, scheduled) in actions.iter().enumerate() {
            if number + rest == actions.len() {
                sender.flush()?;
                let before = self.clock.elapsed();
                state.waited_for_training =
                    self.wait_for_training(plan, number, state, observer)?;
                paused = self.clock.elapsed().saturating_sub(before);
            }
            if waits.contains(&number) {
                sender.flush()?;
                let name = "events of returning respondents processed in order";
                self.wait_until_processed(name, sender, state, observer)?;
            }
            match &scheduled.action {
                Action::Event { prediction_id, is_scored, .. } => {
                    state.events_sent += 1;
                    if *is_scored {
                        self.expect(state, prediction_id);
                        state.expected.insert(prediction_id.clone());
                    }
                }
                Action::Outcome(_) => {}
                Action::Bad { .. } => state.events_sent += 1,
            }
            sender.send(&scheduled.action)?;
            if number % BATCH == 0 {
                sender.flush()?;
                observer.sent(number, actions.len(), state.log.lock().answered);
                anyhow::ensure!(
                    state.log.wait_for_open(plan.settings.pace.open_max, IDLE_MAX),
                    "no event has been predicted for {IDLE_MAX:?}: see the log"
                );
                let due = if rate > 0.0 { state.events_sent as f64 / rate } else { 0.0 };
                let passed = self.clock.elapsed().saturating_sub(started + paused);
                let wait = Duration::from_secs_f64((due - passed.as_secs_f64()).max(0.0));
                anyhow::ensure!(self.shutdown.wait(wait).is_none(), "stopped before the end");
            }
        }
        sender.flush()?;
        observer.sent(actions.len(), actions.len(), state.log.lock().answered);
        Ok(())
    }

    fn expect(&self, state: &RunState, prediction_id: &str) {
        let is_training = self.instance.overview.trainer.progress().is_some();
        state.log.expect(prediction_id, self.clock.elapsed(), is_training);
    }

    /// Waits until a model that was trained from the stream serves, so that it predicts the rest of the script. Returns
    /// the reason if it did not wait: the first `sent` actions give too few examples for a training.
    fn wait_for_training(
        &self,
        plan: &Plan,
        sent: usize,
        state: &mut RunState,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<Result<(), String>> {
        let joined = plan.script.joins(sent, &plan.settings.join).joined;
        let every = self.config.raw.learning.retrain_after;
        if joined < usize::try_from(every)? {
            return Ok(Err(format!(
                "{joined} outcomes join before the last quarter of the script, fewer than learning.retrain_after = {every}"
            )));
        }
        let scored = |scheduled: &ScheduledAction| {
            matches!(&scheduled.action, Action::Event { is_scored: true, .. })
        };
        if !plan.script.actions[sent..].iter().any(scored) {
            return Ok(Err("no event is scored in the last quarter of the script".to_owned()));
        }
        let model = || self.instance.overview.snapshot().model;
        let reached = || usize::from(model().is_some_and(|model| model.training > 0));
        let goal = Goal { name: "a model trained from the stream", reached: &reached, count: 1 };
        self.wait_for(&goal, state, observer)?;
        Ok(Ok(()))
    }

    /// Number of events and outcomes that were processed and committed.
    fn processed(&self) -> usize {
        let topics = &self.config.topics;
        let of = |topic: &Topic| {
            let name = "foretell_records_processed_total";
            rounded(telemetry::total_of(&self.instance.registry, name, topic.as_str()))
        };
        of(&topics.questionnaire_events) + of(&topics.outcomes)
    }

    /// Advances stream time past every window by events that are scored, and sends outcomes that are late. Inputs are
    /// merged by event time, so an outcome sent with these events could be processed before them. It is sent after their
    /// predictions are received, which are committed together with the stream time, so it is certainly late.
    fn close_windows(
        &self,
        plan: &mut Plan,
        state: &mut RunState,
        sender: &mut ReplaySender,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<()> {
        let at = plan.script.end() + closing(self.config);
        let partitions = self.config.raw.topics.partitions;
        for event in replay::time_advancers(at, partitions, &plan.sample, &mut plan.factory) {
            state.events_sent += 1;
            let prediction_id = plan.factory.prediction_id(&event);
            self.expect(state, &prediction_id);
            state.advancers.insert(prediction_id.clone());
            sender.send(&Action::Event { event, prediction_id, is_scored: true })?;
        }
        sender.flush()?;
        let log = state.log.clone();
        let (reached, count) =
            (|| log.lock().answered, state.expected.len() + state.advancers.len());
        let goal = Goal { name: "stream time past every window", reached: &reached, count };
        self.wait_for(&goal, state, observer)?;
        for respondent_id in plan.factory.new_respondents_everywhere("late", partitions) {
            sender.send(&Action::Outcome(Outcome {
                respondent_id,
                outcome_time: plan.script.start(),
                label: self.config.raw.outcomes.labels[0].clone(),
                outcome_id: None,
            }))?;
            state.late_outcomes += 1;
        }
        sender.flush()
    }

    fn wait_until_processed(
        &self,
        name: &'static str,
        sender: &ReplaySender,
        state: &mut RunState,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<()> {
        let reached = || self.processed();
        self.wait_for(&Goal { name, reached: &reached, count: sender.sent() }, state, observer)
    }

    /// Waits for a goal. It is unreached if neither its count nor the progress of a training changes for [`IDLE_MAX`].
    fn wait_for(
        &self,
        goal: &Goal<'_>,
        state: &mut RunState,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<()> {
        let Goal { name, reached, count } = *goal;
        let training = || {
            let progress = self.instance.overview.trainer.progress();
            progress.map(|progress| (progress.training, progress.iteration))
        };
        let progress = || (reached(), training());
        let (mut last, mut since) = (progress(), self.clock.elapsed());
        while last.0 < count {
            observer.waiting(name, last.0, count);
            let stopped = self.shutdown.wait(Duration::from_millis(20));
            anyhow::ensure!(stopped.is_none(), "stopped before the end, while waiting for: {name}");
            let now = progress();
            if now != last {
                (last, since) = (now, self.clock.elapsed());
            } else if self.clock.elapsed().saturating_sub(since) > IDLE_MAX {
                tracing::error!(goal = name, count, reached = now.0, "goal not reached in time");
                state.unreached.push(name);
                return Ok(());
            }
        }
        Ok(())
    }

    /// A counter of the instance, summed over its labels.
    pub(super) fn counter(&self, name: &str) -> usize {
        rounded(telemetry::total(&self.instance.registry, name))
    }

    /// Number of examples from the stream in the training set of the serving model.
    fn learned(&self) -> usize {
        let model = self.instance.overview.snapshot().model;
        model.map_or(0, |model| usize::try_from(model.examples[1]).unwrap_or(usize::MAX))
    }

    /// Number of examples from the stream in the last training set, after `joined` examples.
    fn last_training_set(&self, joined: usize) -> anyhow::Result<usize> {
        let learning = &self.config.raw.learning;
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
