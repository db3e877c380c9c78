//! Joins predictions with their outcomes, whichever comes first, inside a window of event time.
//!
//! ```text
//!   prediction ─▶ StorePrediction ─▶ Waiting ──outcome──▶ Learned ──window passes──▶ removed
//!                                │ ╲─another prediction of the respondent is learned from─▶ PassedOver
//!                                └──window passes──▶ unlabelled (dropped, or given a label)
//!   outcome ───▶ Join ──no prediction yet──▶ waits ──prediction──▶ Learned
//!                                              └──window passes──▶ dead letter unmatched_outcome
//! ```

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        label,
        labelled_example::{ExampleOrigin, ExamplePrediction, LabelledExample},
        outcome::Outcome,
        prediction::Prediction,
    },
    processors::{metrics::ApplicationMetrics, placement::Placement},
};
use foretell_streams::{
    codec::{Stored, StoredSince},
    state::{WindowHandle, Windowed},
    time::EventTime,
    topology::{Context, Original, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The settings of the outcome join.
#[derive(Clone, Debug)]
pub struct JoinSettings {
    /// Maximum difference in event time between a prediction and its outcome.
    pub window: Duration,
    /// Stream time after the window in which both are still kept.
    pub grace: Duration,
    /// Treatment of a second, different outcome.
    pub conflict: ConflictPolicy,
    /// The predictions of a respondent that are learned from.
    pub learn_from: LearnFrom,
    /// Maximum number of predictions of one respondent that wait for outcomes inside one window.
    pub predictions_max: usize,
    /// Treatment of a prediction without an outcome.
    pub unlabelled: UnlabelledPolicy,
    /// The configured labels.
    pub classes: Vec<String>,
}

impl JoinSettings {
    /// The stream time after which an entry of `time` can no longer be joined.
    fn closes(&self, time: EventTime) -> EventTime {
        time + self.window + self.grace
    }
}

/// Treatment of a second, different outcome for one prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPolicy {
    /// The first outcome counts, and others are ignored.
    #[default]
    First,
    /// The last outcome counts: a correction replaces the example.
    Last,
}

/// The predictions of a respondent inside the window that are learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnFrom {
    /// The earliest prediction.
    #[default]
    First,
    /// The latest prediction.
    Last,
    /// Each prediction.
    Every,
}

/// Treatment of a prediction whose window closes without an outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnlabelledPolicy {
    /// It is counted and dropped.
    #[default]
    Drop,
    /// It becomes an example with this label, such as "did not buy".
    Label(String),
}

/// An entry of the outcome store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pending {
    /// A prediction and its state.
    Prediction(Prediction, PredictionState),
    /// An outcome, with its record while it waits for its first prediction. With [`LearnFrom::Every`] it stays for further
    /// predictions.
    Outcome(Outcome, Option<Original>),
}

impl Pending {
    /// The format version of this type and all types in it. A changed field, also of [`Prediction`], needs a new version.
    pub const FORMAT: u8 = 2;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> StoredSince<Self, PendingV1> {
        StoredSince::new(Stored::version(Self::FORMAT), Stored::version(PendingV1::FORMAT))
    }
}

/// Format 1, which kept records without headers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PendingV1 {
    /// As [`Pending::Prediction`].
    Prediction(Prediction, PredictionState),
    /// As [`Pending::Outcome`].
    Outcome(Outcome, Option<OriginalV1>),
}

/// A record without its headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalV1 {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: EventTime,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl PendingV1 {
    const FORMAT: u8 = 1;
}

impl From<PendingV1> for Pending {
    fn from(old: PendingV1) -> Self {
        match old {
            PendingV1::Prediction(prediction, state) => Self::Prediction(prediction, state),
            PendingV1::Outcome(outcome, original) => {
                Self::Outcome(outcome, original.map(Original::from))
            }
        }
    }
}

impl From<OriginalV1> for Original {
    fn from(old: OriginalV1) -> Self {
        let OriginalV1 { topic, partition, offset, timestamp, key, value } = old;
        Self { topic, partition, offset, timestamp, key, value, headers: Vec::new() }
    }
}

/// The state of a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PredictionState {
    /// No outcome yet.
    Waiting,
    /// It was learned from, with this label.
    Learned(String),
    /// Another prediction of the same respondent was learned from.
    PassedOver,
}

/// The store and the settings that both processors share.
#[derive(Clone)]
pub struct OutcomeStore {
    /// The settings.
    pub settings: JoinSettings,
    /// The store.
    pub pending: WindowHandle<Pending>,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
}

type JoinContext<'t> = Context<'t, LabelledExample>;

/// Stores predictions, and forwards labelled examples for those whose outcome is stored.
pub struct StorePrediction(pub OutcomeStore);

/// Joins outcomes with stored predictions, forwards the labelled examples, and stores outcomes without a prediction.
pub struct Join(pub OutcomeStore, pub Placement);

/// Maximum number of entries to expire at once, which bounds the memory for a long backlog.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;

impl Processor for StorePrediction {
    type In = Prediction;
    type Out = LabelledExample;

    fn start(&mut self, ctx: &mut JoinContext<'_>) {
        let interval = (self.0.settings.window / 20).max(Duration::from_secs(1));
        ctx.schedule(PunctuationKind::StreamTime, interval);
    }

    fn process(
        &mut self,
        record: &Record<Prediction>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let store = &self.0;
        let prediction = &record.value;
        let mut state = PredictionState::Waiting;
        let found = store.around(&prediction.respondent_id, prediction.event_time, ctx)?;
        let kept = found.iter().filter(|entry| matches!(entry.value, Pending::Prediction(..)));
        let is_full = kept.count() >= store.settings.predictions_max;
        let mut oldest = None;
        for mut entry in found {
            let (outcome, original) = match &mut entry.value {
                Pending::Prediction(_, other) => {
                    // The outcome was learned from with another prediction, unless an outcome for this one was found before.
                    let is_learned = matches!(other, PredictionState::Learned(_));
                    if is_learned
                        && state == PredictionState::Waiting
                        && store.settings.learn_from != LearnFrom::Every
                    {
                        state = PredictionState::PassedOver;
                    }
                    oldest.get_or_insert(entry);
                    continue;
                }
                Pending::Outcome(outcome, original) => (outcome, original),
            };
            if ctx.stream_time() > store.settings.closes(outcome.outcome_time) {
                continue;
            }
            if let Some(example) = store.settle(prediction, &mut state, outcome, ctx) {
                forward(example, outcome.outcome_time, ctx)?;
            }
            let mut pending = ctx.window(&store.pending);
            match store.settings.learn_from {
                LearnFrom::Every if original.take().is_some() => pending.replace(&entry)?,
                LearnFrom::Every => {}
                LearnFrom::First | LearnFrom::Last => pending.remove(&entry),
            }
        }
        if is_full {
            ctx.count(&store.metrics.predictions_not_kept(), 1);
            match (store.settings.learn_from, oldest) {
                // The earliest prediction is learned from, so this one is not needed.
                (LearnFrom::First, _) | (_, None) => return Ok(()),
                (LearnFrom::Last | LearnFrom::Every, Some(oldest)) => {
                    ctx.window(&store.pending).remove(&oldest);
                }
            }
        }
        let (respondent, time) = (prediction.respondent_id.as_str(), prediction.event_time);
        let pending = Pending::Prediction(prediction.clone(), state);
        Ok(ctx.window(&store.pending).add(respondent, time, &pending)?)
    }

    /// Expires entries whose window and grace have passed.
    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(now) = punctuation else { return Ok(()) };
        let before = now - (self.0.settings.window + self.0.settings.grace);
        loop {
            let expired = ctx.window(&self.0.pending).expire(before, EXPIRED_AT_ONCE_MAX)?;
            let is_all = expired.len() < EXPIRED_AT_ONCE_MAX;
            for entry in expired {
                self.0.expire(entry, ctx)?;
            }
            if is_all {
                return Ok(());
            }
        }
    }
}

impl Processor for Join {
    type In = Outcome;
    type Out = LabelledExample;

    fn process(
        &mut self,
        record: &Record<Outcome>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let outcome = &record.value;
        self.1.check(&outcome.respondent_id, ctx);
        let settings = &self.0.settings;
        let Some(class) = label::class_of(&outcome.label, &settings.classes) else {
            let known = settings.classes.join(", ");
            let message = format!("label {:?} is not one of: {known}", outcome.label);
            return Err(ProcessError::reject(label::UNKNOWN_LABEL, message));
        };
        let outcome = &with_label(outcome, class);
        if self.0.join(outcome, ctx)? {
            return match settings.learn_from {
                LearnFrom::First | LearnFrom::Last => Ok(()),
                LearnFrom::Every => self.0.keep(outcome, None, ctx).map(drop),
            };
        }
        if ctx.stream_time() > settings.closes(outcome.outcome_time) {
            return Err(late(outcome, ctx.stream_time()));
        }
        let Some(original) = ctx.input().map(Original::from) else {
            return Err(ProcessError::reject("malformed", "an outcome outside a record"));
        };
        let is_new = self.0.keep(outcome, Some(original), ctx)?;
        self.0.count(if is_new { "waiting" } else { "duplicate" }, ctx);
        Ok(())
    }
}

/// The outcome with the configured spelling of its label.
fn with_label<'o>(outcome: &'o Outcome, class: &String) -> Cow<'o, Outcome> {
    if outcome.label == *class {
        return Cow::Borrowed(outcome);
    }
    Cow::Owned(Outcome { label: class.clone(), ..outcome.clone() })
}

impl OutcomeStore {
    /// Completes an entry that can no longer be joined.
    fn expire(
        &self,
        entry: Windowed<Pending>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        match entry.value {
            Pending::Prediction(prediction, PredictionState::Waiting) => {
                ctx.count(&self.metrics.unlabelled(), 1);
                if let UnlabelledPolicy::Label(label) = &self.settings.unlabelled {
                    let at = entry.time + self.settings.window;
                    forward(example(&prediction, label, None, false), at, ctx)?;
                }
            }
            Pending::Prediction(_, PredictionState::Learned(_) | PredictionState::PassedOver)
            | Pending::Outcome(_, None) => {}
            Pending::Outcome(outcome, Some(original)) => {
                self.count("unmatched", ctx);
                let respondent = &outcome.respondent_id;
                let message = format!("no prediction for respondent {respondent:?} in its window");
                ctx.dead_letter(original, "unmatched_outcome", message);
            }
        }
        Ok(())
    }

    /// The entries of one respondent within the window around `time`, oldest first.
    fn around(
        &self,
        respondent: &str,
        time: EventTime,
        ctx: &mut JoinContext<'_>,
    ) -> Result<Vec<Windowed<Pending>>, ProcessError> {
        let window = self.settings.window;
        Ok(ctx.window(&self.pending).fetch(respondent, time - window, time + window)?)
    }

    /// Joins an outcome with its predictions; false if there are none.
    fn join(&self, outcome: &Outcome, ctx: &mut JoinContext<'_>) -> Result<bool, ProcessError> {
        let mut found = self.around(&outcome.respondent_id, outcome.outcome_time, ctx)?;
        found.retain(|entry| matches!(entry.value, Pending::Prediction(..)));
        if found.is_empty() {
            return Ok(false);
        }
        // Decided by stream time, not by when the last punctuation expired entries.
        let now = ctx.stream_time();
        found.retain(|entry| now <= self.settings.closes(entry.time));
        if found.is_empty() {
            return Err(late(outcome, now));
        }
        let is_learned = |entry: &Windowed<Pending>| {
            matches!(entry.value, Pending::Prediction(_, PredictionState::Learned(_)))
        };
        let chosen = match (self.settings.learn_from, found.iter().position(is_learned)) {
            (LearnFrom::Every, _) => 0..found.len(),
            // One prediction is learned from, so further outcomes are for that prediction.
            (LearnFrom::First | LearnFrom::Last, Some(learned)) => learned..learned + 1,
            (LearnFrom::First, None) => 0..1,
            (LearnFrom::Last, None) => found.len() - 1..found.len(),
        };
        for (index, mut entry) in found.into_iter().enumerate() {
            let Pending::Prediction(prediction, state) = &mut entry.value else { continue };
            if chosen.contains(&index) {
                if let Some(example) = self.settle(prediction, state, outcome, ctx) {
                    forward(example, outcome.outcome_time, ctx)?;
                    ctx.window(&self.pending).replace(&entry)?;
                }
            } else if *state == PredictionState::Waiting {
                *state = PredictionState::PassedOver;
                ctx.window(&self.pending).replace(&entry)?;
            }
        }
        Ok(true)
    }

    /// Stores an outcome for later predictions; false if it is stored already.
    fn keep(
        &self,
        outcome: &Outcome,
        original: Option<Original>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<bool, ProcessError> {
        let (respondent, time) = (outcome.respondent_id.as_str(), outcome.outcome_time);
        let is_known = |entry: &Windowed<Pending>| matches!(&entry.value, Pending::Outcome(known, _) if known.label == outcome.label);
        if self.around(respondent, time, ctx)?.iter().any(is_known) {
            return Ok(false);
        }
        let pending = Pending::Outcome(outcome.clone(), original);
        ctx.window(&self.pending).add(respondent, time, &pending)?;
        Ok(true)
    }

    /// The labelled example of a prediction and its outcome, or none if the outcome changes nothing. Updates the state.
    fn settle(
        &self,
        prediction: &Prediction,
        state: &mut PredictionState,
        outcome: &Outcome,
        ctx: &mut JoinContext<'_>,
    ) -> Option<LabelledExample> {
        let is_correction = match state {
            PredictionState::Waiting | PredictionState::PassedOver => {
                self.count("joined", ctx);
                false
            }
            PredictionState::Learned(label) if *label == outcome.label => {
                self.count("duplicate", ctx);
                return None;
            }
            PredictionState::Learned(_) => match self.settings.conflict {
                ConflictPolicy::First => {
                    self.count("conflicting", ctx);
                    return None;
                }
                ConflictPolicy::Last => {
                    self.count("corrected", ctx);
                    true
                }
            },
        };
        *state = PredictionState::Learned(outcome.label.clone());
        Some(example(prediction, &outcome.label, Some(outcome.outcome_time), is_correction))
    }

    fn count(&self, result: &str, ctx: &mut JoinContext<'_>) {
        ctx.count(&self.metrics.outcomes(result), 1);
    }
}

fn late(outcome: &Outcome, now: EventTime) -> ProcessError {
    let behind = now.since(outcome.outcome_time).as_secs();
    let message = format!("{behind} s behind, window and grace have passed");
    ProcessError::reject("late_outcome", message)
}

fn example(
    prediction: &Prediction,
    label: &str,
    outcome_time: Option<EventTime>,
    correction: bool,
) -> LabelledExample {
    LabelledExample {
        example_id: prediction.prediction_id.clone(),
        respondent_id: prediction.respondent_id.clone(),
        origin: ExampleOrigin::Stream,
        event_time: prediction.event_time,
        outcome_time,
        label: label.to_owned(),
        features: prediction.features.clone(),
        prediction: Some(ExamplePrediction {
            prediction_id: prediction.prediction_id.clone(),
            model_version: prediction.model_version.clone(),
            predicted_at: prediction.predicted_at,
            probabilities: prediction.probabilities.clone(),
        }),
        correction,
    }
}

fn forward(
    example: LabelledExample,
    time: EventTime,
    ctx: &mut JoinContext<'_>,
) -> Result<(), ProcessError> {
    let key = Some(example.respondent_id.clone().into_bytes());
    ctx.forward(&Record { key, value: example, time })
}
