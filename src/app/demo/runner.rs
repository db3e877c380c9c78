//! Sends the script of a demo, and waits until everything is processed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    app::{
        cluster::Cluster,
        demo::{
            DemoObserver, POISONED_BATCH, Plan, RunState,
            acting::{self, RequestedActions},
            instance_reader::InstanceReader,
            uplift::ActionContents,
        },
        play::io::{self, PlaySender},
        play::{self, Action, ScheduledAction, closing},
        shutdown::Shutdown,
    },
    config::Config,
    events::{
        decision::{Decision, DecisionOutcome},
        labelled_example::LabelledExample,
        outcome::Outcome,
    },
};
use foretell_streams::{
    record::{InputRecord, Offset, Topic},
    runtime::StopSignal,
    time::{Clock, EventTime},
};

/// A goal counts as unreached if nothing changes for this long.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Number of actions between two flushes.
const BATCH: usize = 50;
/// The runner sends this last part of the script only after a model from the stream serves, if there will be one.
const AFTER_TRAINING_PERCENT: usize = 25;

/// Sends the script to the instance, and observes both.
pub(super) struct Runner<'a> {
    cluster: &'a Cluster,
    clock: &'a Arc<dyn Clock>,
    shutdown: &'a Shutdown,
    instance: InstanceReader<'a>,
    observer: &'a mut dyn DemoObserver,
    sender: PlaySender,
    stop: StopSignal,
    state: RunState,
    learning: LearningProgress,
    acting: RequestedActions,
    /// Event time up to which everything was processed, and its actions were read.
    known_until: EventTime,
}

/// What the learner has decided and published.
#[derive(Clone, Default)]
struct LearningProgress {
    /// Number of trainings with a decision.
    decided: Arc<AtomicUsize>,
    /// Offset after the last record of the training log up to which a training was decided.
    decided_through: Arc<AtomicUsize>,
    /// The version of the champion as of the last decision; empty before the first promotion.
    champion: Arc<Mutex<String>>,
}

/// What the training log has.
#[derive(Clone, Default)]
struct LogProgress {
    /// Number of examples from the stream.
    examples: Arc<AtomicUsize>,
    /// Offset after the last example that made a training due.
    due: Arc<AtomicUsize>,
    /// The examples of which actions were due.
    actions: Arc<Mutex<ActionContents>>,
}

impl<'a> Runner<'a> {
    /// Opens the sender, and begins to follow the predictions.
    pub(super) fn open(
        cluster: &'a Cluster,
        clock: &'a Arc<dyn Clock>,
        shutdown: &'a Shutdown,
        instance: InstanceReader<'a>,
        observer: &'a mut dyn DemoObserver,
    ) -> anyhow::Result<Self> {
        let (config, stop) = (instance.config, StopSignal::default());
        let trainer = instance.instance.overview.trainer.clone();
        let is_training = move || trainer.progress().is_some();
        let (log, _) = io::follow_predictions(config, cluster, clock, &stop, is_training)?;
        let state = RunState {
            expected: BTreeSet::new(),
            session_ends: BTreeSet::new(),
            advancers: BTreeSet::new(),
            events_sent: 0,
            late_outcomes: 0,
            taken_as_not_acted: BTreeSet::new(),
            acted_too_late: 0,
            waited_for_training: Err("the script is too short for it".to_owned()),
            log,
            unreached: Vec::new(),
        };
        let sender = PlaySender::open(config, cluster, clock)?;
        let learning = LearningProgress::follow(config, cluster, &stop)?;
        let acting = RequestedActions::follow(config, cluster, &stop)?;
        Ok(Self {
            cluster,
            clock,
            shutdown,
            instance,
            observer,
            sender,
            stop,
            state,
            learning,
            acting,
            known_until: EventTime::MIN,
        })
    }

    /// Sends everything, and waits until it is processed.
    pub(super) fn run(mut self, plan: &mut Plan, rate: f64) -> anyhow::Result<RunState> {
        let result = self.send_and_wait(plan, rate);
        self.stop.stop();
        result.map(|()| self.state)
    }

    fn send_and_wait(&mut self, plan: &mut Plan, rate: f64) -> anyhow::Result<()> {
        let (config, instance) = (self.instance.config, self.instance);
        let LogProgress { examples, due, actions } = self.follow_examples()?;
        let dead_letters = self.count_records(&config.topics.dead_letters, |_| true)?;
        let sent = self.send_script(plan, rate)?;
        plan.decide(&sent);
        let joins = plan.known_joins().ok();
        let log = self.state.log.clone();
        let expected = self.state.expected.len();
        self.wait_for("every event predicted", expected, &|| log.lock().answered)?;
        self.wait_until_processed("all processed")?;
        self.wait_for_session_ends(plan)?;
        if let Some(joins) = joins {
            let joined = || instance.outcomes("joined");
            self.wait_for("every outcome joined", joins.joined, &joined)?;
        }
        // Stream time closes windows, so it may advance only after all joins.
        self.close_windows(plan)?;
        self.wait_until_processed("all processed")?;
        if let Some(joins) = joins {
            let unlabelled = || instance.counter("foretell_unlabelled_total");
            self.wait_for("every window closed", joins.unlabelled, &unlabelled)?;
            let all = joins.examples(&plan.settings.join);
            self.wait_for("every example written", all, &|| count(&examples))?;
        }
        let expected = plan.dead_letters(self.state.late_outcomes).values().sum();
        self.wait_for("bad input dead-lettered", expected, &|| count(&dead_letters))?;
        let decided = Arc::clone(&self.learning.decided_through);
        self.wait_for("the last training decided", count(&due), &|| count(&decided))?;
        let acting = self.acting.clone();
        let late = self.state.taken_as_not_acted.iter();
        let late = late.filter(|id| acting.includes_any(std::slice::from_ref(*id))).count();
        self.state.acted_too_late = late;
        let respondents = lock(&actions).counts();
        self.wait_for("uplift counted", respondents, &|| instance.uplift_respondents())
    }

    /// Waits for the predictions of the sessions that the script has ended, which are expected as those of its events.
    fn wait_for_session_ends(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let script = &plan.script;
        let ended = script.session_ends.ids_made_by(script.end());
        let ended: BTreeSet<String> = ended.map(str::to_owned).collect();
        let log = self.state.log.clone();
        let received = || {
            let received = &log.lock().received;
            let ids = received.iter().map(|one| &one.prediction.prediction_id);
            ids.filter(|id| ended.contains(*id)).count()
        };
        if !ended.is_empty() {
            self.wait_for("every ended session scored", ended.len(), &received)?;
        }
        self.state.session_ends = ended;
        Ok(())
    }

    /// Counts new records of a topic.
    fn count_records(
        &self,
        topic: &Topic,
        counts: impl Fn(&InputRecord) -> bool + Clone + Send + 'static,
    ) -> anyhow::Result<Arc<AtomicUsize>> {
        let records = Arc::new(AtomicUsize::new(0));
        let into = Arc::clone(&records);
        io::follow(self.cluster.broker.as_ref(), topic, &self.stop, move |record| {
            into.fetch_add(usize::from(counts(record)), Ordering::SeqCst);
        })?;
        Ok(records)
    }

    /// Follows the training log as the learner does: a correction is not another example.
    fn follow_examples(&self) -> anyhow::Result<LogProgress> {
        let config = &self.instance.config;
        let topic = &config.topics.labelled_examples;
        let codec = self.cluster.codec::<LabelledExample>(config, topic)?;
        let every = usize::try_from(config.learning.rules.retrain_after)?;
        let progress = LogProgress::default();
        let LogProgress { examples, due, actions } = progress.clone();
        io::follow(self.cluster.broker.as_ref(), topic, &self.stop, move |record| {
            let example = record.value.as_ref().and_then(|bytes| codec.decode(bytes).ok());
            let Some(example) = example else { return };
            lock(&actions).add_example(&example);
            if !example.correction {
                let number = count(&examples) + 1;
                if number.is_multiple_of(every) {
                    due.store(position(record.offset.next()), Ordering::SeqCst);
                }
                examples.store(number, Ordering::SeqCst);
            }
        })?;
        Ok(progress)
    }

    /// Returns the indexes of the outcomes that depend on actions and were sent.
    fn send_script(&mut self, plan: &Plan, rate: f64) -> anyhow::Result<BTreeSet<usize>> {
        let started = self.clock.elapsed();
        let actions = &plan.script.actions;
        let no_waits = BTreeSet::new();
        let waits = plan.waits.as_ref().unwrap_or(&no_waits);
        let rest = actions.len() * AFTER_TRAINING_PERCENT / 100;
        let mut milestones = self.milestones(plan)?.into_iter().peekable();
        let (mut paused, mut dependent) = (Duration::ZERO, BTreeSet::new());
        for (number, scheduled) in actions.iter().enumerate() {
            let before = self.clock.elapsed();
            while let Some((_, trainings)) = milestones.next_if(|(at, _)| *at == number) {
                self.sender.flush()?;
                self.wait_for_decisions(trainings)?;
            }
            if number + rest == actions.len() {
                self.sender.flush()?;
                self.state.waited_for_training = self.wait_for_training(plan, number)?;
            }
            paused += self.clock.elapsed().saturating_sub(before);
            let sent_until = actions[..number].last().map_or(EventTime::MIN, |last| last.at);
            if waits.contains(&number) || plan.waits_for_parts.contains(&number) {
                self.wait_for_order(sent_until)?;
            }
            if let Action::OutcomeIf { prediction_ids, predicted, is_acted, .. } = &scheduled.action
            {
                if self.is_acted(prediction_ids, *predicted, sent_until)? == *is_acted {
                    dependent.insert(number);
                    self.send(&scheduled.action)?;
                }
            } else {
                self.send(&scheduled.action)?;
            }
            if number % BATCH == 0 {
                self.sender.flush()?;
                self.observer.sent(number, actions.len(), self.state.log.lock().answered);
                anyhow::ensure!(
                    self.state.log.wait_for_open(plan.settings.pace.open_max, IDLE_MAX),
                    "no event has been predicted for {IDLE_MAX:?}: see the log"
                );
                let due = if rate > 0.0 { self.state.events_sent as f64 / rate } else { 0.0 };
                let passed = self.clock.elapsed().saturating_sub(started + paused);
                let wait = Duration::from_secs_f64((due - passed.as_secs_f64()).max(0.0));
                anyhow::ensure!(self.shutdown.wait(wait).is_none(), "stopped before the end");
            }
        }
        self.sender.flush()?;
        self.observer.sent(actions.len(), actions.len(), self.state.log.lock().answered);
        Ok(dependent)
    }

    fn send(&mut self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::Event { prediction_id, is_scored, .. } => {
                self.state.events_sent += 1;
                if *is_scored {
                    self.expect(prediction_id);
                    self.state.expected.insert(prediction_id.clone());
                }
            }
            Action::Outcome(_) | Action::OutcomeIf { .. } => {}
            Action::Bad { .. } => self.state.events_sent += 1,
        }
        self.sender.send(action)
    }

    /// Waits until everything is processed that was sent, up to this event time.
    fn wait_for_order(&mut self, sent_until: EventTime) -> anyhow::Result<()> {
        self.sender.flush()?;
        self.wait_until_processed("events of returning respondents processed in order")?;
        let (acting, instance) = (self.acting.clone(), self.instance);
        let actions = instance.counter("foretell_actions_total");
        self.wait_for("actions read", actions, &|| acting.records())?;
        self.known_until = sent_until;
        Ok(())
    }

    /// Whether an action was requested for one of the predictions of a row. It waits until that is known.
    fn is_acted(
        &mut self,
        predictions: &[String],
        predicted: EventTime,
        sent_until: EventTime,
    ) -> anyhow::Result<bool> {
        let decided_at = predicted + acting::decided_after(self.instance.config);
        if self.known_until < decided_at {
            self.wait_for_order(sent_until)?;
        }
        let is_acted = self.acting.includes_any(predictions);
        if !is_acted {
            self.state.taken_as_not_acted.extend(predictions.iter().cloned());
        }
        Ok(is_acted)
    }

    fn expect(&self, prediction_id: &str) {
        let is_training = self.instance.training().is_some();
        self.state.log.expect(prediction_id, self.clock.elapsed(), is_training);
    }

    /// Waits until a model that was trained from the stream serves, so that it predicts the rest of the script. Returns
    /// the reason if it did not wait: the first `sent` actions give too few examples for a training.
    fn wait_for_training(
        &mut self,
        plan: &Plan,
        sent: usize,
    ) -> anyhow::Result<Result<(), String>> {
        let joined = plan.script.examples(sent, &plan.settings.join);
        let every = self.instance.config.learning.rules.retrain_after;
        if joined < usize::try_from(every)? {
            return Ok(Err(format!(
                "{joined} examples are made before the last quarter of the script, fewer than learning.retrain_after = {every}"
            )));
        }
        let is_scored = |scheduled: &ScheduledAction| {
            matches!(&scheduled.action, Action::Event { is_scored: true, .. })
        };
        if !plan.script.actions[sent..].iter().any(is_scored) {
            return Ok(Err("no event is scored in the last quarter of the script".to_owned()));
        }
        self.wait_for_decisions(1)?;
        if lock(&self.learning.champion).is_empty() {
            return Ok(Err(
                "the judge promoted none before the last quarter of the script".to_owned()
            ));
        }
        Ok(Ok(()))
    }

    fn wait_for_decisions(&mut self, trainings: usize) -> anyhow::Result<()> {
        let LearningProgress { decided, champion, .. } = self.learning.clone();
        self.wait_for("trainings decided", trainings, &|| count(&decided))?;
        let instance = self.instance;
        self.wait_for("the champion serves", 1, &|| instance.serves(&lock(&champion)).into())
    }

    /// The actions before which a number of trainings must be decided. So each batch of examples is learned from on its own,
    /// and traffic goes on meanwhile: a training is decided before the batch after the next begins. The model of the
    /// inverted labels is decided before any other label comes, which shows at once that it is worse.
    fn milestones(&self, plan: &Plan) -> anyhow::Result<Vec<(usize, usize)>> {
        if plan.known_joins().is_err() {
            return Ok(Vec::new());
        }
        let every = usize::try_from(self.instance.config.learning.rules.retrain_after)?;
        let (script, join) = (&plan.script, &plan.settings.join);
        let indexes: Vec<usize> = (0..script.actions.len()).collect();
        let index_of = |examples: usize| {
            let place = indexes.partition_point(|at| script.examples(*at, join) < examples);
            (place < indexes.len()).then_some(place)
        };
        let mut milestones = Vec::new();
        for training in 1..=plan.joins.examples(join) / every {
            let batches = if plan.is_poisoned && training == POISONED_BATCH + 1 {
                training
            } else {
                training + 1
            };
            milestones.extend(index_of(batches * every).map(|at| (at, training)));
        }
        Ok(milestones)
    }

    /// Advances stream time past every window by events that are scored, and sends outcomes that are late. Inputs are
    /// merged by event time, so an outcome sent with these events could be processed before them. It is sent after their
    /// predictions are received, which are committed together with the stream time, so it is certainly late.
    fn close_windows(&mut self, plan: &mut Plan) -> anyhow::Result<()> {
        let config = self.instance.config;
        let at = plan.script.end() + closing(&config.join);
        let partitions = config.partitions;
        let Plan { sample, factory, settings, .. } = plan;
        let advancers = play::time_advancers(at, partitions, sample, factory, settings);
        let (last, parts): (Vec<_>, Vec<_>) =
            advancers.into_iter().partition(|scheduled| scheduled.at == at);
        for parts in [parts, last] {
            for ScheduledAction { action, .. } in &parts {
                let Action::Event { prediction_id, is_scored, .. } = action else { continue };
                self.state.events_sent += 1;
                if *is_scored {
                    self.expect(prediction_id);
                    self.state.advancers.insert(prediction_id.clone());
                }
                self.sender.send(action)?;
            }
            self.sender.flush()?;
            self.wait_until_processed("events that advance stream time processed")?;
        }
        let log = self.state.log.clone();
        let expected = self.state.expected.len() + self.state.advancers.len();
        self.wait_for("stream time past every window", expected, &|| log.lock().answered)?;
        for respondent_id in plan.factory.new_respondents_everywhere("late", partitions) {
            self.sender.send(&Action::Outcome(Outcome {
                respondent_id,
                outcome_time: plan.script.start(),
                label: config.classes[0].clone(),
                outcome_id: None,
            }))?;
            self.state.late_outcomes += 1;
        }
        self.sender.flush()
    }

    fn wait_until_processed(&mut self, goal: &'static str) -> anyhow::Result<()> {
        let (instance, sent) = (self.instance, self.sender.sent());
        self.wait_for(goal, sent, &|| instance.processed())
    }

    /// Waits until `reached` returns `count`. The goal is unreached if neither the number nor the progress of a training
    /// changes for [`IDLE_MAX`].
    fn wait_for(
        &mut self,
        goal: &'static str,
        count: usize,
        reached: &dyn Fn() -> usize,
    ) -> anyhow::Result<()> {
        let instance = self.instance;
        let progress = || (reached(), instance.training());
        let (mut last, mut since) = (progress(), self.clock.elapsed());
        while last.0 < count {
            self.observer.waiting(goal, last.0, count);
            let stopped = self.shutdown.wait(Duration::from_millis(20));
            anyhow::ensure!(stopped.is_none(), "stopped before the end, while waiting for: {goal}");
            let now = progress();
            if now != last {
                (last, since) = (now, self.clock.elapsed());
            } else if self.clock.elapsed().saturating_sub(since) > IDLE_MAX {
                tracing::error!(goal, count, reached = now.0, "goal not reached in time");
                self.state.unreached.push(goal);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl LearningProgress {
    /// Follows the decisions until `stop`.
    fn follow(config: &Config, cluster: &Cluster, stop: &StopSignal) -> anyhow::Result<Self> {
        let progress = Self::default();
        let codec = cluster.codec::<Decision>(config, &config.topics.decisions)?;
        let Self { decided, decided_through, champion } = progress.clone();
        let visit = move |record: &InputRecord| {
            let decision = record.value.as_ref().and_then(|bytes| codec.decode(bytes).ok());
            let Some(decision) = decision else { return };
            if matches!(decision.outcome, DecisionOutcome::Promoted | DecisionOutcome::RolledBack) {
                lock(&champion).clone_from(&decision.candidate.unwrap_or_default());
            }
            if decision.decision_id.starts_with("training-") {
                let through = decision.end_offset.map_or(0, |offset| position(Offset(offset)));
                decided_through.fetch_max(through, Ordering::SeqCst);
                decided.fetch_add(1, Ordering::SeqCst);
            }
        };
        io::follow(cluster.broker.as_ref(), &config.topics.decisions, stop, visit)?;
        Ok(progress)
    }
}

fn position(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap_or(0)
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(records: &AtomicUsize) -> usize {
    records.load(Ordering::SeqCst)
}
