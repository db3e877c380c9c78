//! The records of the learner: models, aliases, decisions and trials.

use crate::{
    events::{decision::Decision, model::Model, trial::Trial},
    processors::{
        learning::{
            rules::Draft,
            state::{AliasMove, Finished, ModelRef},
        },
        model_table::CHAMPION,
        trial_log,
    },
};
use foretell_ml::{BundleError, ModelBundle, ModelVersion};
use foretell_streams::{
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Record},
};

/// A record of the learner, for one of its topics.
#[derive(Clone, Debug, PartialEq)]
pub enum Learned {
    /// For `models`.
    Model(Box<Model>),
    /// For `decisions`.
    Decision(Box<Decision>),
    /// For `trials`.
    Trial(Box<Trial>),
}

/// Forwards the records of one topic.
pub struct Select<T> {
    /// The record, if it is of the topic.
    pub select: fn(&Learned) -> Option<&T>,
}

impl<T: Clone + 'static> Processor for Select<T> {
    type In = Learned;
    type Out = T;

    fn process(
        &mut self,
        record: &Record<Learned>,
        ctx: &mut Context<'_, T>,
    ) -> Result<(), ProcessError> {
        let Some(value) = (self.select)(&record.value) else { return Ok(()) };
        ctx.forward(&Record { key: record.key.clone(), value: value.clone(), time: record.time })
    }
}

impl Learned {
    /// The model or the alias.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        if let Self::Model(model) = self { Some(model) } else { None }
    }

    /// The decision.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        if let Self::Decision(decision) = self { Some(decision) } else { None }
    }

    /// The trial.
    #[must_use]
    pub fn trial(&self) -> Option<&Trial> {
        if let Self::Trial(trial) = self { Some(trial) } else { None }
    }

    /// The key of the record.
    fn key(&self) -> String {
        match self {
            Self::Model(model) => model.alias.clone().unwrap_or_else(|| model.version.clone()),
            Self::Decision(decision) => decision.decision_id.clone(),
            Self::Trial(trial) => format!("{}/{}", trial.study, trial.number),
        }
    }
}

/// Forwards the records of a finished job in one transaction: trials, the new model, the aliases, and the decision.
///
/// # Errors
/// If a bundle cannot be serialised, or a record cannot be forwarded.
pub(super) fn publish(
    finished: Finished,
    ctx: &mut Context<'_, Learned>,
) -> Result<(), ProcessError> {
    let now = ctx.now();
    let Finished { decision, trained, aliases } = finished;
    let trigger = decision.as_ref().map(|draft| draft.cause.trigger.clone()).unwrap_or_default();
    let mut records = Vec::new();
    let mut named = None;
    if let Some(trained) = trained {
        let study = format!("training-{}", trained.bundle.lineage.origin.training);
        let trials = trained.trials.iter();
        records.extend(
            trials.map(|trial| Learned::Trial(Box::new(trial_log::record_of(&study, trial, now)))),
        );
        let model = model_record(&trained.bundle, &trigger, now)
            .map_err(|error| ProcessError::reject("malformed", error.to_string()))?;
        named = Some(Model { bundle: None, ..model.clone() });
        records.push(Learned::Model(Box::new(model)));
    }
    for alias in aliases {
        records.push(Learned::Model(Box::new(alias_record(alias, named.as_ref(), &trigger, now))));
    }
    records.extend(decision.map(|draft| Learned::Decision(Box::new(decision_record(draft, now)))));
    for value in records {
        let key = Some(value.key().into_bytes());
        ctx.forward(&Record { key, value, time: EventTime(now.0) })?;
    }
    Ok(())
}

/// Forwards decisions about commands that were refused without a job.
///
/// # Errors
/// If a record cannot be forwarded.
pub(super) fn publish_refused(
    refused: impl IntoIterator<Item = Draft>,
    ctx: &mut Context<'_, Learned>,
) -> Result<(), ProcessError> {
    refused.into_iter().try_for_each(|draft| {
        publish(Finished { decision: Some(draft), ..Finished::default() }, ctx)
    })
}

fn decision_record(draft: Draft, decided_at: WallTime) -> Decision {
    let text = |text: String| (!text.is_empty()).then_some(text);
    let version = |version: ModelVersion| version.as_str().to_owned();
    let (first_offset, end_offset) = draft.offsets.unzip();
    let requested = Some(draft.cause.reason).filter(|text| !text.is_empty());
    let reason = match requested.filter(|text| !draft.reason.contains(text.as_str())) {
        Some(requested) => format!("{} (requested: {requested})", draft.reason),
        None => draft.reason,
    };
    Decision {
        decision_id: draft.decision_id,
        outcome: draft.outcome,
        reason,
        trigger: text(draft.cause.trigger),
        requested_by: text(draft.cause.requested_by),
        training: draft.training.and_then(|training| i64::try_from(training).ok()),
        candidate: draft.candidate.map(version),
        champion: draft.champion.map(version),
        comparison: draft.comparison,
        first_offset,
        end_offset,
        decided_at,
    }
}

/// The record that moves an alias. If `named` is the record of its model, the alias has the same details.
fn alias_record(
    (alias, to): AliasMove,
    named: Option<&Model>,
    trigger: &str,
    created_at: WallTime,
) -> Model {
    let alias = Some(alias.to_owned());
    let version = to.as_ref().map(|to| to.version.as_str().to_owned()).unwrap_or_default();
    if let Some(named) = named.filter(|named| named.version == version) {
        return Model { alias, ..named.clone() };
    }
    let training = to.map_or(0, |ModelRef { training, .. }| training);
    Model {
        version,
        alias,
        bundle: None,
        training: u32::try_from(training).unwrap_or(u32::MAX),
        created_at,
        parent: None,
        trigger: Some(trigger.to_owned()),
        example_count: None,
        first_offset: None,
        end_offset: None,
        seed: None,
        metrics: std::collections::BTreeMap::new(),
    }
}

/// The record of a bundle on `models`.
fn model_record(
    bundle: &ModelBundle,
    trigger: &str,
    created_at: WallTime,
) -> Result<Model, BundleError> {
    let origin = &bundle.lineage.origin;
    let examples = origin.initial_examples.saturating_add(origin.stream_examples);
    let evaluation = &bundle.evaluation;
    let metrics = [
        ("auc", evaluation.auc),
        ("log_loss", evaluation.log_loss),
        ("accuracy", evaluation.accuracy),
        ("f1", evaluation.f1),
    ];
    let metrics = metrics.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Model {
        version: bundle.version().as_str().to_owned(),
        alias: None,
        bundle: Some(bundle.to_bytes()?),
        training: u32::try_from(origin.training).unwrap_or(u32::MAX),
        created_at,
        parent: origin.parent.as_ref().map(|parent| parent.as_str().to_owned()),
        trigger: Some(trigger.to_owned()),
        example_count: i64::try_from(examples).ok(),
        first_offset: None,
        end_offset: Some(origin.examples_through),
        seed: Some(bundle.lineage.seed.0.cast_signed()),
        metrics: metrics.collect(),
    })
}

/// The records of `models` for a new champion: its bundle, and the alias that points to it.
///
/// # Errors
/// If the bundle cannot be serialised.
pub fn records_of(
    bundle: &ModelBundle,
    trigger: &str,
    now: WallTime,
) -> Result<[Model; 2], BundleError> {
    let model = model_record(bundle, trigger, now)?;
    let alias = Model { alias: Some(CHAMPION.to_owned()), bundle: None, ..model.clone() };
    Ok([model, alias])
}
