//! One variant: both topologies with the trainer, in this process. Records go in one by one. A job of the learner is decided,
//! and its model serves, before the next record, so the result depends on the records, the settings and the seed alone.
//!
//! ```text
//!   record ─▶ scoring task ─▶ labelled examples ─▶ log (embedded broker) ◀─read─ trainer
//!                  ▲     └──▶ window summaries ─┐       │                          ▲ │
//!                  │                            ▼       ▼                     jobs │ ▼ results
//!               Serving ◀── model table ◀── models ◀── learning task ◀───── polled until nothing runs
//! ```

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        learning::learning_work,
        replay::{
            clock::HistoryClock,
            counts::Counts,
            log::{StoredModels, TrainingTopic},
            scores::Scores,
            shared_work::SharedWork,
            task::InMemoryTask,
        },
        shutdown::Shutdown,
        telemetry,
        topologies::TopologyParts,
    },
    config::Config,
    events::{
        codecs::Codecs,
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
    },
    processors::{
        contract::ContractBoard,
        learning::{
            learner::STATE_KEY,
            state::LearningState,
            trainer::{Trainer, TrainingProgress},
        },
        metrics::ApplicationMetrics,
        model_table::{CHAMPION, ModelTable, Serving},
        quality::QualityBoard,
        uplift::UpliftBoard,
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    codec::Codec,
    local::LocalBroker,
    metrics::StreamsMetrics,
    record::{Offset, OutputRecord, Topic},
    runtime::broker::Publisher,
    time::Clock,
};

/// The time by which the clock of the history advances for each poll of a job: the learner polls after a time, not after each
/// record.
const POLL: Duration = Duration::from_millis(50);
/// Polls after one record, each when no job runs. A job takes two, more only if it is retried.
const POLLS_MAX: u32 = 100;
/// The time between two looks at a job that runs.
const WAIT: Duration = Duration::from_millis(2);

/// What a variant runs on.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) broker: &'a LocalBroker,
    /// The codecs of the topics, those of the events as the source has them.
    pub(super) codecs: Codecs,
    pub(super) clock: &'a Arc<HistoryClock>,
    pub(super) shutdown: &'a Shutdown,
    /// Receives the progress of trainings.
    pub(super) on_training: &'a dyn Fn(&TrainingProgress),
}

/// A variant that runs.
pub(super) struct ReplayInstance<'a> {
    parts: Parts<'a>,
    scoring: InMemoryTask,
    learning: InMemoryTask,
    learner_changelog: Topic,
    /// Whether the learner has a job that is not decided.
    has_job: bool,
    trainer: Trainer,
    trainer_thread: JoinHandle<()>,
    log: TrainingTopic,
    models: ModelTable,
    stored: StoredModels,
    publisher: Box<dyn Publisher>,
    serving: Serving,
    pub(super) scores: Scores,
    pub(super) counts: Counts,
}

impl<'a> ReplayInstance<'a> {
    /// Starts both tasks. The topics of the cluster have the first model.
    ///
    /// # Errors
    /// If no model serves, or one with other classes.
    pub(super) fn start(parts: Parts<'a>) -> anyhow::Result<Self> {
        let Parts { config, cluster, clock, codecs, .. } = &parts;
        let registry = telemetry::metrics_registry()?;
        let metrics = ApplicationMetrics::register(&registry)?;
        let streams_metrics = StreamsMetrics::register(&registry)?;
        let real: Arc<dyn Clock> = Arc::<HistoryClock>::clone(clock);
        let work = learning_work(config, cluster, codecs.clone(), &real, metrics.clone());
        let work = SharedWork::new(work);
        let time_max = config.learning.time_max;
        let (trainer, trainer_thread) =
            Trainer::spawn(work.clone(), real, metrics.clone(), time_max)?;
        let serving = Serving::default();
        let topologies = TopologyParts { config, codecs, serving: &serving, metrics: &metrics };
        let contract = ContractBoard::new(config.contract.policy, metrics.clone());
        let scoring = topologies.scoring(contract);
        let learning =
            topologies.learning(&trainer, QualityBoard::default(), UpliftBoard::default());
        let changelog = |topic: &Topic| topic.as_str().ends_with("-learning-changelog");
        let learner_changelog = learning.changelogs().into_iter().find(changelog);
        let start = |topology| InMemoryTask::start(topology, &streams_metrics, clock.now());
        let mut instance = Self {
            scoring: start(scoring)?,
            learning: start(learning)?,
            learner_changelog: learner_changelog.context("the learner has no store")?,
            has_job: false,
            trainer,
            trainer_thread,
            log: TrainingTopic::new(config, parts.broker, work)?,
            models: ModelTable::new(serving.clone(), metrics),
            stored: StoredModels::default(),
            publisher: cluster.broker.publish()?,
            serving,
            scores: Scores::new(config.classes.len()),
            counts: Counts::default(),
            parts,
        };
        instance.serve_first_model()?;
        instance.learn_initial()?;
        Ok(instance)
    }

    /// Applies the models that the topic has.
    fn serve_first_model(&mut self) -> anyhow::Result<()> {
        let (config, cluster) = (self.parts.config, self.parts.cluster);
        let mut models = Vec::new();
        cluster.read_values(config, &config.topics.models, |model: Model| {
            models.push(model);
            std::ops::ControlFlow::Continue(())
        })?;
        for model in &models {
            self.apply(model)?;
        }
        let scorer = self.serving.scorer().context("there is no first model")?;
        let (found, labels) = (scorer.classes(), config.classes.as_slice());
        anyhow::ensure!(
            found == labels,
            "the first model has the classes {found:?}, but [outcomes] labels is {labels:?}"
        );
        Ok(())
    }

    /// Passes the log so far to the learner, which counts none of its examples.
    fn learn_initial(&mut self) -> anyhow::Result<()> {
        let now = self.parts.clock.now();
        self.learning.tick(now)?;
        self.scoring.tick(now)?;
        let broker = self.parts.broker;
        self.log.each(broker, |record| self.learning.process_at(record, now))?;
        self.learning.commit(now, |_| Ok(()))?;
        self.log.trim(broker)
    }

    /// Adds a record that the training log had before the history begins, at its offset if that is given. The learner does not
    /// count examples from the stream.
    ///
    /// # Errors
    /// If the record cannot be stored.
    pub(super) fn add_earlier(
        &mut self,
        record: OutputRecord,
        at: Option<Offset>,
        origin: ExampleOrigin,
    ) -> anyhow::Result<()> {
        let (broker, now) = (self.parts.broker, self.parts.clock.now());
        if let Some(offset) = at {
            self.log.fill_to(broker, offset)?;
        }
        let record = self.log.append(record)?;
        if origin == ExampleOrigin::Initial {
            self.learning.process_at(record, now)?;
            self.learning.commit(now, |_| Ok(()))?;
        }
        self.log.trim(broker)
    }

    /// Skips the offsets of the training log that the first model was trained on.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub(super) fn skip_to(&mut self, offset: Offset) -> anyhow::Result<()> {
        self.log.fill_to(self.parts.broker, offset)
    }

    /// Processes a record of the history, and what follows from it.
    ///
    /// # Errors
    /// If a store fails, the record would have to wait, or the replay is stopped.
    pub(super) fn process(&mut self, record: OutputRecord) -> anyhow::Result<()> {
        let clock = Arc::clone(self.parts.clock);
        let is_later = clock.advance_to(record.timestamp);
        self.scoring.process(record, clock.now())?;
        if is_later {
            self.scoring.tick(clock.now())?;
        }
        for output in self.scoring.commit(clock.now(), |_| Ok(()))? {
            self.route(output)?;
        }
        if is_later {
            self.tick_learner()?;
        }
        self.run_jobs()
    }

    /// Handles a record that a task has written.
    fn route(&mut self, output: OutputRecord) -> anyhow::Result<()> {
        let topics = &self.parts.config.topics;
        let now = self.parts.clock.now();
        if output.topic == topics.labelled_examples {
            let bytes = output.value.as_deref().unwrap_or_default();
            let example: LabelledExample = self.parts.codecs.labelled_example.decode(bytes)?;
            self.scores.add(&example);
            let record = self.log.append(output)?;
            self.learning.process_at(record, now)?;
            self.commit_learner()?;
            self.run_jobs()?;
            self.log.trim(self.parts.broker)?;
        } else if output.topic == topics.window_summaries || output.topic == topics.commands {
            self.learning.process(output, now)?;
            self.commit_learner()?;
        } else if output.topic == topics.models {
            self.take_model(output)?;
        } else if output.topic == topics.trials {
            self.publisher.send(output)?;
        } else if output.topic == topics.decisions {
            let bytes = output.value.as_deref().unwrap_or_default();
            self.counts.decided(&self.parts.codecs.decision.decode(bytes)?);
            for tombstone in self.stored.unreferenced(&topics.models) {
                self.publisher.send(tombstone)?;
            }
        } else if output.topic == topics.predictions {
            self.counts.predictions += 1;
        } else if output.topic == topics.dead_letters {
            self.counts.dead_letter(&output.headers);
        }
        Ok(())
    }

    /// Commits the learning task. The change of its store says whether it has a job.
    fn commit_learner(&mut self) -> anyhow::Result<()> {
        let (now, state) = (self.parts.clock.now(), LearningState::codec());
        let (changelog, has_job) = (&self.learner_changelog, &mut self.has_job);
        let outputs = self.learning.commit(now, |record| {
            if record.topic == changelog
                && record.key == Some(STATE_KEY.as_bytes())
                && let Some(bytes) = record.value
            {
                *has_job = state.decode(bytes)?.running.is_some();
            }
            Ok(())
        })?;
        outputs.into_iter().try_for_each(|output| self.route(output))
    }

    fn tick_learner(&mut self) -> anyhow::Result<()> {
        self.learning.tick(self.parts.clock.now())?;
        self.commit_learner()
    }

    /// Runs the jobs of the learner until none is due.
    fn run_jobs(&mut self) -> anyhow::Result<()> {
        let mut polls = 0;
        while self.has_job {
            self.parts.clock.advance(POLL);
            self.tick_learner()?;
            while self.trainer.is_running() {
                if let Some(progress) = self.trainer.progress() {
                    (self.parts.on_training)(&progress);
                }
                anyhow::ensure!(self.parts.shutdown.wait(WAIT).is_none(), "stopped");
            }
            polls += 1;
            anyhow::ensure!(polls < POLLS_MAX, "a job of the learner cannot be run: see the log");
        }
        Ok(())
    }

    /// Applies a model, and stores it for the trainer.
    fn take_model(&mut self, output: OutputRecord) -> anyhow::Result<()> {
        let bytes = output.value.as_deref().unwrap_or_default();
        let model: Model = self.parts.codecs.model.decode(bytes)?;
        self.publisher.send(output)?;
        self.apply(&model)?;
        if model.alias.as_deref() == Some(CHAMPION) {
            self.scores.note_promotion(model.version.clone());
        }
        Ok(())
    }

    fn apply(&mut self, model: &Model) -> anyhow::Result<()> {
        self.stored.note(model);
        if let Some(bytes) = &model.bundle {
            self.scores.note_model(&ModelBundle::from_bytes(bytes)?);
        }
        if let Err(error) = self.models.apply(model) {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(version = model.version, error, "a model cannot be used");
        }
        Ok(())
    }

    /// Ends the trainer's thread.
    pub(super) fn stop(self) -> (Scores, Counts) {
        let Self { scoring, learning, trainer, trainer_thread, scores, counts, .. } = self;
        trainer.stop();
        drop((scoring, learning, trainer));
        if trainer_thread.join().is_err() {
            tracing::error!("the trainer panicked; its message is above");
        }
        (scores, counts)
    }
}
