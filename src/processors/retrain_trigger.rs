//! Counts labelled examples to N and has a model trained on them: the state machine of the learning
//! loop, kept in a store, so that a crash or a move re-runs a training instead of losing or doubling it.
//!
//! ```text
//!          N new examples                      the trainer is done
//!   Idle ──────────────────▶ Requested(k) ──────────────────────────▶ Idle, training k on `models`
//!                              │      ▲
//!                              └──────┘ a crash: restored, asked for again
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

/// Where the learning loop stands, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningState {
    /// Labelled examples from the stream, corrections left out.
    pub examples: u64,
    /// Trainings finished, failed ones included.
    pub trainings: u64,
    /// The training that is asked for.
    pub requested: Option<TrainingRequest>,
    /// Where the training log stood when the next training fell due while one was going on.
    pub due: Option<i64>,
    /// The model of the last training that made one; before it, the first model.
    pub champion: Option<ModelVersion>,
}

/// Labelled examples in, models out.
pub struct RetrainTrigger {
    /// N.
    pub retrain_after: u64,
    /// Where it counts.
    pub metrics: ApplicationMetrics,
    /// Since when this task knows of the training that is due.
    pub requested_at: Option<WallTime>,
    /// Knows the first model: the one that serves when nothing was trained yet.
    pub serving: Serving,
    /// Does the work, on a thread of its own.
    pub trainer: Trainer,
    /// Holds one [`LearningState`].
    pub state: KeyValueHandle<LearningState>,
}

const KEY: &str = "learning";
/// Why the models of this processor were trained.
const TRIGGER: &str = "labelled examples";
/// How often the trainer is asked whether it is done.
const ASK_EVERY: Duration = Duration::from_millis(50);

type TriggerContext<'t> = Context<'t, Model>;

impl Processor for RetrainTrigger {
    type In = LabelledExample;
    type Out = Model;

    fn start(&mut self, ctx: &mut TriggerContext<'_>) {
        ctx.schedule(PunctuationKind::WallClock, ASK_EVERY);
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
        let Some(result) = self.trainer.ask(&request) else { return Ok(()) };
        if let Err(TrainingFailure::Retry(reason)) = &result {
            tracing::warn!(training = request.training, reason, "training again");
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
            Ok(bundle) => announce(&bundle, ctx),
            Err(failure) => {
                tracing::error!(training = request.training, %failure, "a training failed");
                Ok(())
            }
        }
    }
}

impl Drop for RetrainTrigger {
    /// The task has gone elsewhere, and waits there.
    fn drop(&mut self) {
        self.metrics.training_pending(0.0);
    }
}

impl LearningState {
    /// The version of what is stored. It is of this type and all that it holds: another field takes another version.
    pub const FORMAT: u8 = 1;

    /// One training at a time; of several that fell due meanwhile, the last one sees all examples.
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

/// The bundle first, then the alias that points to it, in one transaction.
fn announce(bundle: &ModelBundle, ctx: &mut TriggerContext<'_>) -> Result<(), ProcessError> {
    let now = ctx.now();
    let [bundle, alias] = records_of(bundle, TRIGGER, now)
        .map_err(|error| ProcessError::reject("malformed", error.to_string()))?;
    for model in [bundle, alias] {
        let key = model.alias.clone().unwrap_or_else(|| model.version.clone());
        ctx.forward(&Record { key: Some(key.into_bytes()), value: model, time: EventTime(now.0) })?;
    }
    Ok(())
}

/// What goes on the `models` topic for a new champion.
///
/// # Errors
/// If the bundle can't be written.
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
    fn what_is_announced_says_what_it_was_made_from_and_how_good_it_is() {
        let mut bundle = small_bundle();
        bundle.lineage.origin = Origin {
            training: 7,
            initial_examples: 40,
            stream_examples: 20,
            examples_through: 65,
            parent: Some(ModelVersion::new("before")),
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
