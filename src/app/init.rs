//! `foretell init`: creates the topics, registers the schemas, writes the initial data to the training log, and tunes and
//! trains the first model. Steps that are done are skipped, so an interrupted `init` can be run again.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::Context as _;

use crate::{
    app::{
        cluster::Cluster,
        first_training,
        initial::Prepared,
        schemas::{self, SetLevels},
        shutdown::Shutdown,
    },
    config::Config,
    events::{
        command::{Command, CommandKind},
        model::Model,
        trial::Trial as TrialRecord,
    },
    processors::{
        learning::outputs::records_of,
        model_table::CHAMPION,
        trial_log::{self, TrialLog},
    },
};
use foretell_avro::codec::CodecSetupError;
use foretell_ml::{
    Evaluation, ModelBundle, ModelVersion, Scorer,
    training::{Trial, Tuned, evaluate},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{OutputRecord, Topic},
    runtime::broker::Publisher,
    time::{Clock, EventTime, WallTime},
};

/// Receives the progress of `init`.
pub trait InitObserver {
    /// A step is complete; `line` describes its result.
    fn step(&mut self, line: &str);
    /// A trial is complete. `of` is the number of trials.
    fn trial(&mut self, trial: &Trial, of: u32);
}

/// The result of the training of the first model.
#[derive(Clone, Debug)]
pub struct FirstModel {
    /// The model version.
    pub version: String,
    /// The evaluation on `[data.play]`, which is not in the training set; none if it is not configured.
    pub evaluation: Option<Evaluation>,
    /// The number of trials, pruned ones included.
    pub trials: usize,
}

/// Runs every step that is not done. With `force`, a first model is trained although one serves.
///
/// # Errors
/// The message says what to do.
pub fn init(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    force: bool,
    observer: &mut dyn InitObserver,
) -> anyhow::Result<Option<FirstModel>> {
    let has_model = !force && has_champion(config, cluster)?;
    // The data are checked before anything is written, because records in the log cannot be removed.
    let prepared = match Prepared::from(config) {
        Ok(prepared) => Some(prepared),
        // A second run does not need the data.
        Err(error) if has_model => {
            observer.step(&format!("warning: the initial data were not compared: {error:#}"));
            None
        }
        Err(error) => return Err(error),
    };
    for warning in prepared.iter().flat_map(|prepared| &prepared.warnings) {
        observer.step(&format!("warning: {warning}"));
    }
    create_topics(config, cluster, observer)?;
    register_schemas(config, cluster, observer)?;
    // A registry that has lost the schemas knows them again: a model may serve whose record could not be read before.
    let has_model = !force && has_champion(config, cluster)?;
    if let Some(prepared) = &prepared {
        observer.step(&prepared.write(config, cluster, clock, force)?);
    }
    let Some(Prepared { examples, unseen, .. }) = prepared.filter(|_| !has_model) else {
        observer.step("a model serves already (train a new first one with --force)");
        return Ok(None);
    };
    let first = first_training::FirstTraining {
        config,
        examples: &examples,
        clock: clock.as_ref(),
        stop: shutdown.signal(),
    };
    let tuned = tune_first(&first, cluster, observer)?;
    // Nobody waits for the model of an `init` that is stopped.
    let bundle = first.train(tuned.params, Duration::ZERO)?;
    if let Some(warning) = first_training::warning_of(&bundle) {
        observer.step(&format!("warning: {warning}"));
    }
    let evaluation = match unseen {
        Some(unseen) => Some(evaluate(&Scorer::new(&bundle)?, &unseen)),
        None => None,
    };
    if !force && has_champion(config, cluster)? {
        observer.step(
            "another `init` has published a model in the meantime: this one is not published",
        );
        return Ok(None);
    }
    publish_first(config, cluster, clock, &bundle)?;
    if force {
        promote_in_learner(config, cluster, clock, &bundle.version())?;
    }
    let version = bundle.version().as_str().to_owned();
    Ok(Some(FirstModel { version, evaluation, trials: tuned.trials.len() }))
}

fn create_topics(
    config: &Config,
    cluster: &Cluster,
    observer: &mut dyn InitObserver,
) -> anyhow::Result<()> {
    let specs = config.topics.specs(config.partitions);
    let created = cluster.broker.create_topics(&specs)?;
    observer.step(&format!("{} topics, {} of them new", specs.len(), created.len()));
    Ok(())
}

fn register_schemas(
    config: &Config,
    cluster: &Cluster,
    observer: &mut dyn InitObserver,
) -> anyhow::Result<()> {
    let (mut versions, mut new) = (0, 0);
    let levels = SetLevels::WithNewVersions;
    schemas::register_with(config, cluster.registry.as_ref(), levels, &mut |registered| {
        versions += registered.ids.len();
        new += registered.new;
    })?;
    observer.step(&format!("{versions} schemas registered, {new} of them new"));
    Ok(())
}

/// Whether a model serves. A new cluster has neither the topic nor the schema.
///
/// # Errors
/// Also if a model serves whose record cannot be read, since the registry does not have its schema any more.
fn has_champion(config: &Config, cluster: &Cluster) -> anyhow::Result<bool> {
    let topic = &config.topics.models;
    if cluster.broker.partitions(topic)?.is_none() {
        return Ok(false);
    }
    let codec = match cluster.codec::<Model>(config, topic) {
        Ok(codec) => codec,
        Err(error) => match error.downcast_ref() {
            Some(CodecSetupError::NotRegistered { .. }) => return Ok(false),
            Some(_) | None => return Err(error),
        },
    };
    let mut newest = None;
    cluster.read_to_end(topic, |record| {
        if record.key.as_deref() == Some(CHAMPION.as_bytes()) {
            newest = record.value.as_ref().map(|bytes| codec.decode(bytes).map(drop));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match newest {
        None => Ok(false),
        Some(Ok(())) => Ok(true),
        Some(Err(error @ CodecError::Unavailable { .. })) => Err(error.into()),
        Some(Err(error @ (CodecError::Unreadable { .. } | CodecError::OtherFormat { .. }))) => {
            Err(error).context(format!(
                "cannot read which model serves, in topic {topic}: restore the schema registry with the ids that records name, \
                 or train another first model with `foretell init --force`"
            ))
        }
    }
}

/// Runs the study. Each trial is written to the `trials` topic when it ends, and the trials of earlier studies warm-start it.
fn tune_first(
    first: &first_training::FirstTraining<'_>,
    cluster: &Cluster,
    observer: &mut dyn InitObserver,
) -> anyhow::Result<Tuned> {
    let (config, clock) = (first.config, first.clock);
    let topic = &config.topics.trials;
    let codec = cluster.codec::<TrialRecord>(config, topic)?;
    let study = format!("{}-first", config.application());
    let earlier = earlier_trials(config, cluster)?;
    let mut publisher = cluster.broker.publish()?;
    let mut failed = None;
    let tuned = first.tune(&earlier, &mut |trial| {
        observer.trial(trial, config.tuning.study.trials);
        let written =
            write_trial(publisher.as_mut(), topic, codec.as_ref(), &study, trial, clock.now());
        if let Err(error) = written {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    publisher.flush()?;
    match failed {
        Some(error) => Err(error),
        None if first.stop.is_stopped() => {
            anyhow::bail!("stopped before the first model was trained")
        }
        None => Ok(tuned),
    }
}

/// Sends the learner the command to take the new first model as its champion. Without it, a running learner would compare the
/// next model with the champion before.
fn promote_in_learner(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    version: &ModelVersion,
) -> anyhow::Result<()> {
    let topic = &config.topics.commands;
    let codec = cluster.codec::<Command>(config, topic)?;
    let mut publisher = cluster.broker.publish()?;
    let now = clock.now();
    let command = Command {
        command_id: format!("init-{version}-{}", now.0),
        kind: CommandKind::Promote,
        model_version: Some(version.as_str().to_owned()),
        reason: Some("a new first model".to_owned()),
        requested_by: Some("foretell init --force".to_owned()),
        requested_at: now,
    };
    let (key, time) = (&command.command_id, EventTime(now.0));
    write(publisher.as_mut(), topic, codec.as_ref(), key, &command, time)?;
    publisher.flush()?;
    Ok(())
}

/// The trials of the studies in the `trials` topic.
pub(super) fn earlier_trials(config: &Config, cluster: &Cluster) -> anyhow::Result<Vec<Trial>> {
    let mut log = TrialLog::default();
    cluster.read_values(config, &config.topics.trials, |record: TrialRecord| {
        log.take(&record);
        ControlFlow::Continue(())
    })?;
    Ok(log.by_study())
}

/// Writes a trial to the `trials` topic.
pub(super) fn write_trial(
    publisher: &mut dyn Publisher,
    topic: &Topic,
    codec: &dyn Codec<TrialRecord>,
    study: &str,
    trial: &Trial,
    now: WallTime,
) -> anyhow::Result<()> {
    let record = trial_log::record_of(study, trial, now);
    let key = format!("{study}/{}", trial.number);
    write(publisher, topic, codec, &key, &record, EventTime(now.0))
}

fn write<T>(
    publisher: &mut dyn Publisher,
    topic: &Topic,
    codec: &dyn Codec<T>,
    key: &str,
    value: &T,
    timestamp: EventTime,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes)?;
    publisher.send(OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp,
        key: Some(key.as_bytes().to_vec()),
        value: Some(bytes),
        headers: Vec::new(),
    })?;
    Ok(())
}

fn publish_first(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    bundle: &ModelBundle,
) -> anyhow::Result<()> {
    let topic = &config.topics.models;
    let codec = cluster.codec::<Model>(config, topic)?;
    let mut publisher = cluster.broker.publish()?;
    let now = clock.now();
    for model in records_of(bundle, "init", now)? {
        let key = model.alias.clone().unwrap_or_else(|| model.version.clone());
        write(publisher.as_mut(), topic, codec.as_ref(), &key, &model, EventTime(now.0))?;
        // The bundle must be written before the alias that points to it.
        publisher.flush()?;
    }
    Ok(())
}
