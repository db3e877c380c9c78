//! Counts labelled examples, and requests a training after every N. The state is in a store, so that a training is run again
//! after a crash or a move of the task, and is neither lost nor done twice.
//!
//! ```text
//!          N new examples                      the trainer has finished
//!   Idle ──────────────────▶ Requested(k) ──────────────────────────▶ Idle, training k on `models`
//!                              │      ▲
//!                              └──────┘ a crash: restored, requested again
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
    },
    processors::{
        metrics::ApplicationMetrics,
        model_table::{CHAMPION, Serving},
        trainer::{Trainer, TrainingFailure, TrainingRequest},
    },
};
use foretell_ml::{ModelBundle, ModelVersion};
use foretell_streams::{
    state::KeyValueHandle,
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The stored state of the learning loop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningState {
    /// The number of labelled examples from the stream, without corrections.
    pub examples: u64,
    /// The number of finished trainings, with the failed ones.
    pub trainings: u64,
    /// The requested training.
    pub requested: Option<TrainingRequest>,
    /// The end offset of the training log when the next training became due while one ran.
    pub due: Option<i64>,
    /// The model of the last successful training, or else the first model.
    pub champion: Option<ModelVersion>,
}

/// The processor from labelled examples to models.
pub struct RetrainTrigger {
    /// The number of examples between two trainings.
    pub retrain_after: u64,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The time at which this task saw the request.
    pub requested_at: Option<WallTime>,
    /// The model that serves, which is the first model before any training.
    pub serving: Serving,
    /// The training thread.
    pub trainer: Trainer,
    /// Holds one [`LearningState`].
    pub state: KeyValueHandle<LearningState>,
}

const KEY: &str = "learning";
/// The trigger in the records of these models.
const TRIGGER: &str = "labelled examples";
/// The interval at which the trainer is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

type TriggerContext<'t> = Context<'t, Model>;

impl Processor for RetrainTrigger {
    type In = LabelledExample;
    type Out = Model;

    fn start(&mut self, ctx: &mut TriggerContext<'_>) {
        ctx.schedule(PunctuationKind::WallClock, POLL_INTERVAL);
    }

    fn process(
        &mut self,
        record: &Record<LabelledExample>,
        ctx: &mut TriggerContext<'_>,
    ) -> Result<(), ProcessError> {
        let example = &record.value;
        if example.origin == ExampleOrigin::Initial || example.correction {
            return Ok(());
        }
        let Some(through) = ctx.input().map(|input| input.offset.next()) else {
            return Err(ProcessError::reject("malformed", "an example outside a record"));
        };
        let mut store = ctx.key_value(&self.state);
        let mut state = store.get(KEY)?.unwrap_or_default();
        state.examples += 1;
        if state.examples.is_multiple_of(self.retrain_after) {
            state.due = Some(through.0);
        }
        if state.champion.is_none() {
            state.champion = self.serving.scorer().map(|scorer| scorer.version().clone());
        }
        state.request_if_due();
        store.put(KEY, &state)?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut TriggerContext<'_>,
    ) -> Result<(), ProcessError> {
        let now = ctx.now();
        let mut store = ctx.key_value(&self.state);
        let mut state = store.get(KEY)?.unwrap_or_default();
        let Some(request) = state.requested.clone() else {
            self.requested_at = None;
            self.metrics.training_pending(0.0);
            return Ok(());
        };
        let since = *self.requested_at.get_or_insert(now);
        let pending = EventTime(now.0).since(EventTime(since.0));
        self.metrics.training_pending(pending.as_secs_f64());
        let Some(result) = self.trainer.poll(&request) else { return Ok(()) };
        if let Err(TrainingFailure::Retry(reason)) = &result {
            tracing::warn!(training = request.training, reason, "the training will be retried");
            return Ok(());
        }
        self.requested_at = None;
        state.requested = None;
        state.trainings += 1;
        if let Ok(bundle) = &result {
            state.champion = Some(bundle.version());
        }
        state.request_if_due();
        store.put(KEY, &state)?;
        match result {
            Ok(bundle) => publish(&bundle, ctx),
            Err(failure) => {
                tracing::error!(training = request.training, %failure, "a training failed");
                Ok(())
            }
        }
    }
}

impl Drop for RetrainTrigger {
    /// Resets the gauge, because the task has moved to another instance.
    fn drop(&mut self) {
        self.metrics.training_pending(0.0);
    }
}

impl LearningState {
    /// The format version of this type and all types in it. A changed field needs a new version.
    pub const FORMAT: u8 = 1;

    /// Requests a training if one is due and none runs. Of several that became due, the last covers all examples.
    fn request_if_due(&mut self) {
        if self.requested.is_none()
            && let Some(through) = self.due.take()
        {
            let training = self.trainings + 1;
            let parent = self.champion.clone();
            self.requested = Some(TrainingRequest { training, through, parent });
        }
    }
}

/// Forwards the bundle, then the alias that points to it, in one transaction.
fn publish(bundle: &ModelBundle, ctx: &mut TriggerContext<'_>) -> Result<(), ProcessError> {
    let now = ctx.now();
    let [bundle, alias] = records_of(bundle, TRIGGER, now)
        .map_err(|error| ProcessError::reject("malformed", error.to_string()))?;
    for model in [bundle, alias] {
        let key = model.alias.clone().unwrap_or_else(|| model.version.clone());
        ctx.forward(&Record { key: Some(key.into_bytes()), value: model, time: EventTime(now.0) })?;
    }
    Ok(())
}

/// The records of the `models` topic for a new champion.
///
/// # Errors
/// If the bundle cannot be serialized.
pub fn records_of(
    bundle: &ModelBundle,
    trigger: &str,
    now: WallTime,
) -> Result<[Model; 2], foretell_ml::BundleError> {
    let version = bundle.version().as_str().to_owned();
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
    let model = Model {
        version,
        alias: None,
        bundle: Some(bundle.to_bytes()?),
        training: u32::try_from(origin.training).unwrap_or(u32::MAX),
        created_at: now,
        parent: origin.parent.as_ref().map(|parent| parent.as_str().to_owned()),
        trigger: Some(trigger.to_owned()),
        example_count: i64::try_from(examples).ok(),
        first_offset: None,
        end_offset: Some(origin.examples_through),
        seed: Some(bundle.lineage.seed.0.cast_signed()),
        metrics: metrics.collect(),
    };
    let alias = Model { alias: Some(CHAMPION.to_owned()), bundle: None, ..model.clone() };
    Ok([model, alias])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::small_model::small_bundle;
    use foretell_ml::{Origin, Seed};

    #[test]
    fn the_records_of_a_model_have_its_origin_and_evaluation() {
        let mut bundle = small_bundle();
        bundle.lineage.origin = Origin {
            training: 7,
            initial_examples: 40,
            stream_examples: 20,
            examples_through: 65,
            parent: Some(ModelVersion::new("before")),
            ..Origin::default()
        };
        bundle.lineage.seed = Seed(u64::MAX);
        let evaluation = &mut bundle.evaluation;
        (evaluation.auc, evaluation.log_loss) = (Some(0.9), Some(0.25));
        (evaluation.accuracy, evaluation.f1) = (Some(0.8), None);
        let [model, alias] = records_of(&bundle, "why", WallTime(12)).unwrap();
        let number = |name: &str, value: f64| (name.to_owned(), value);
        let metrics = [number("auc", 0.9), number("log_loss", 0.25), number("accuracy", 0.8)];
        let expected = Model {
            version: bundle.version().as_str().to_owned(),
            alias: None,
            bundle: Some(bundle.to_bytes().unwrap()),
            training: 7,
            created_at: WallTime(12),
            parent: Some("before".to_owned()),
            trigger: Some("why".to_owned()),
            example_count: Some(60),
            first_offset: None,
            end_offset: Some(65),
            seed: Some(-1),
            metrics: metrics.into_iter().collect(),
        };
        assert_eq!(model, expected);
        let pointer = Model { alias: Some(CHAMPION.to_owned()), bundle: None, ..expected };
        assert_eq!(alias, pointer);
    }
}
