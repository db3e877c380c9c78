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
        answered::Encoded,
        label,
        labelled_example::{
            ExampleOrigin, ExamplePredictionRef, LabelledExample, LabelledExampleRef,
        },
        outcome::Outcome,
        prediction::{Prediction, PredictionRef},
    },
    processors::{
        metrics::ApplicationMetrics,
        pending::{
            Pending, PendingCodec, PendingEntries, PendingRef, PredictionState, StateRef,
            decode_outcome,
        },
        placement::Placement,
    },
};
use foretell_streams::{
    codec::{Codec as _, CodecError},
    state::{Position, StateError, WindowHandle},
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

/// The store and the settings that both processors share.
#[derive(Clone)]
pub struct OutcomeStore {
    /// The settings.
    pub settings: JoinSettings,
    /// The store.
    pub pending: WindowHandle<Pending>,
    /// The codec of its entries.
    pub codec: PendingCodec,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
}

type JoinContext<'t> = Context<'t, Encoded<LabelledExample>>;

/// Stores predictions, and forwards labelled examples for those whose outcome is stored.
pub struct StorePrediction {
    store: OutcomeStore,
    buffers: Buffers,
}

/// Joins outcomes with stored predictions, forwards the labelled examples, and stores outcomes without a prediction.
pub struct Join {
    store: OutcomeStore,
    placement: Placement,
    buffers: Buffers,
}

/// Memory that every record uses again.
#[derive(Default)]
struct Buffers {
    entries: PendingEntries,
    entry: Vec<u8>,
}

/// Maximum number of entries to expire at once, which bounds the memory for a long backlog.
const EXPIRED_AT_ONCE_MAX: usize = 1_000;

impl StorePrediction {
    /// A processor on `store`.
    #[must_use]
    pub fn new(store: OutcomeStore) -> Self {
        Self { store, buffers: Buffers::default() }
    }
}

impl Join {
    /// A processor on `store`, which checks the partitions of outcomes.
    #[must_use]
    pub fn new(store: OutcomeStore, placement: Placement) -> Self {
        Self { store, placement, buffers: Buffers::default() }
    }
}

impl Processor for StorePrediction {
    type In = Encoded<Prediction>;
    type Out = Encoded<LabelledExample>;

    fn start(&mut self, ctx: &mut JoinContext<'_>) {
        let interval = (self.store.settings.window / 20).max(Duration::from_secs(1));
        ctx.schedule(PunctuationKind::StreamTime, interval);
    }

    fn process(
        &mut self,
        record: &Record<Encoded<Prediction>>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let Self { store, buffers: Buffers { entries, entry } } = self;
        let prediction = record.value.get();
        let mut state = PredictionState::Waiting;
        store.fetch(entries, prediction.respondent_id, prediction.event_time, ctx)?;
        let kept = entries.iter().filter(|(_, entry)| entry.is_prediction()).count();
        for (position, pending) in entries.iter() {
            match pending {
                // The outcome was learned from with another prediction, unless an outcome for this one was found before.
                PendingRef::Prediction { state: StateRef::Learned(_), .. }
                    if state == PredictionState::Waiting
                        && store.settings.learn_from != LearnFrom::Every =>
                {
                    state = PredictionState::PassedOver;
                }
                PendingRef::Prediction { .. } => {}
                PendingRef::Outcome(bytes) => {
                    let (outcome, original) = store.outcome(bytes)?;
                    let stored = StoredOutcome { outcome, original, position };
                    store.join_stored(prediction, &mut state, stored, ctx)?;
                }
            }
        }
        if kept >= store.settings.predictions_max {
            ctx.count(&store.metrics.predictions_not_kept(), 1);
            let oldest = entries.iter().find(|(_, entry)| entry.is_prediction());
            match (store.settings.learn_from, oldest) {
                // The earliest prediction is learned from, so this one is not needed.
                (LearnFrom::First, _) | (_, None) => return Ok(()),
                (LearnFrom::Last | LearnFrom::Every, Some((oldest, _))) => {
                    ctx.window(&store.pending).remove_at(prediction.respondent_id, oldest);
                }
            }
        }
        entry.clear();
        state.borrow().write(entry);
        if store.may_need_record(state.borrow()) {
            store.codec.predictions.write(prediction, entry);
        }
        let (respondent, time) = (prediction.respondent_id, prediction.event_time);
        ctx.window(&store.pending).add_bytes(respondent, time, entry)?;
        Ok(())
    }

    /// Expires entries whose window and grace have passed.
    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(now) = punctuation else { return Ok(()) };
        let Self { store, buffers: Buffers { entries, .. } } = self;
        let before = now - (store.settings.window + store.settings.grace);
        loop {
            entries.expire(&store.pending, &store.codec, before, EXPIRED_AT_ONCE_MAX, ctx)?;
            for (position, entry) in entries.iter() {
                store.expire(position, entry, ctx)?;
            }
            if entries.len() < EXPIRED_AT_ONCE_MAX {
                return Ok(());
            }
        }
    }
}

impl Processor for Join {
    type In = Outcome;
    type Out = Encoded<LabelledExample>;

    fn process(
        &mut self,
        record: &Record<Outcome>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let Self { store, placement, buffers } = self;
        let outcome = &record.value;
        placement.check(&outcome.respondent_id, ctx);
        let settings = &store.settings;
        let Some(class) = label::class_of(&outcome.label, &settings.classes) else {
            let known = settings.classes.join(", ");
            let message = format!("label {:?} is not one of: {known}", outcome.label);
            return Err(ProcessError::reject(label::UNKNOWN_LABEL, message));
        };
        let outcome = &with_label(outcome, class);
        if store.join(outcome, buffers, ctx)? {
            return match settings.learn_from {
                LearnFrom::First | LearnFrom::Last => Ok(()),
                LearnFrom::Every => store.keep(outcome, None, &mut buffers.entries, ctx).map(drop),
            };
        }
        if ctx.stream_time() > settings.closes(outcome.outcome_time) {
            return Err(late(outcome, ctx.stream_time()));
        }
        let Some(original) = ctx.input().map(Original::from) else {
            return Err(ProcessError::reject("malformed", "an outcome outside a record"));
        };
        let is_new = store.keep(outcome, Some(original), &mut buffers.entries, ctx)?;
        store.count(if is_new { "waiting" } else { "duplicate" }, ctx);
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

/// An outcome that is stored.
struct StoredOutcome {
    outcome: Outcome,
    /// Its record, while it waits for its first prediction.
    original: Option<Original>,
    position: Position,
}

impl OutcomeStore {
    /// Completes an entry that can no longer be joined.
    fn expire(
        &self,
        position: Position,
        entry: PendingRef<'_>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        match entry {
            PendingRef::Prediction { state: StateRef::Waiting, record } => {
                ctx.count(&self.metrics.unlabelled(), 1);
                let UnlabelledPolicy::Label(label) = &self.settings.unlabelled else {
                    return Ok(());
                };
                let read = |prediction: PredictionRef<'_>| {
                    let example = example(prediction, label, None, false);
                    (prediction.respondent_id.to_owned(), example)
                };
                match self.codec.predictions.read(record, read) {
                    Ok((respondent, example)) => {
                        forward(&respondent, example, position.time + self.settings.window, ctx)
                    }
                    Err(CodecError::Unavailable { message }) => Err(ProcessError::Retry(message)),
                    // It was written with a schema that the registry does not have any more. No retry would help.
                    Err(error) => {
                        tracing::error!(%error, "dropping a prediction without an outcome that cannot be read");
                        Ok(())
                    }
                }
            }
            PendingRef::Prediction {
                state: StateRef::Learned(_) | StateRef::PassedOver, ..
            } => Ok(()),
            PendingRef::Outcome(bytes) => {
                let (outcome, Some(original)) = self.outcome(bytes)? else { return Ok(()) };
                self.count("unmatched", ctx);
                let respondent = &outcome.respondent_id;
                let message = format!("no prediction for respondent {respondent:?} in its window");
                ctx.dead_letter(original, "unmatched_outcome", message);
                Ok(())
            }
        }
    }

    fn outcome(&self, bytes: &[u8]) -> Result<(Outcome, Option<Original>), StateError> {
        decode_outcome(bytes).map_err(|error| self.pending.unreadable(error))
    }

    /// Copies the entries of one respondent within the window around `time` into `entries`.
    fn fetch(
        &self,
        entries: &mut PendingEntries,
        respondent: &str,
        time: EventTime,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let times = time - self.settings.window..=time + self.settings.window;
        Ok(entries.fetch(&self.pending, &self.codec, respondent, times, ctx)?)
    }

    /// Whether the features of a prediction in this state may be needed for an example.
    fn may_need_record(&self, state: StateRef<'_>) -> bool {
        match (state, self.settings.conflict) {
            (StateRef::Learned(_), ConflictPolicy::First) => false,
            (StateRef::Learned(_), ConflictPolicy::Last)
            | (StateRef::Waiting | StateRef::PassedOver, _) => true,
        }
    }

    /// Joins a new prediction with an outcome that is stored. Updates the state of the prediction.
    fn join_stored(
        &self,
        prediction: PredictionRef<'_>,
        state: &mut PredictionState,
        stored: StoredOutcome,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let StoredOutcome { outcome, original, position } = stored;
        if ctx.stream_time() > self.settings.closes(outcome.outcome_time) {
            return Ok(());
        }
        if let Some(correction) = self.settle(state.borrow(), true, &outcome, ctx) {
            let example =
                example(prediction, &outcome.label, Some(outcome.outcome_time), correction);
            *state = PredictionState::Learned(outcome.label.clone());
            forward(prediction.respondent_id, example, outcome.outcome_time, ctx)?;
        }
        let mut pending = ctx.window(&self.pending);
        match self.settings.learn_from {
            LearnFrom::Every if original.is_some() => {
                let mut entry = Vec::new();
                let kept = Pending::Outcome(outcome, None);
                self.codec.encode(&kept, &mut entry)?;
                pending.replace_bytes(prediction.respondent_id, position, &entry)?;
            }
            LearnFrom::Every => {}
            LearnFrom::First | LearnFrom::Last => {
                pending.remove_at(prediction.respondent_id, position);
            }
        }
        Ok(())
    }

    /// Joins an outcome with its predictions; false if there are none.
    fn join(
        &self,
        outcome: &Outcome,
        buffers: &mut Buffers,
        ctx: &mut JoinContext<'_>,
    ) -> Result<bool, ProcessError> {
        let Buffers { entries, entry } = buffers;
        self.fetch(entries, &outcome.respondent_id, outcome.outcome_time, ctx)?;
        entries.retain(|_, entry| entry.is_prediction());
        if entries.is_empty() {
            return Ok(false);
        }
        // Decided by stream time, not by when the last punctuation expired entries.
        let now = ctx.stream_time();
        entries.retain(|position, _| now <= self.settings.closes(position.time));
        if entries.is_empty() {
            return Err(late(outcome, now));
        }
        let mut states = entries.iter().map(|(_, entry)| state_of(entry));
        let learned = states.position(|state| matches!(state, StateRef::Learned(_)));
        let chosen = match (self.settings.learn_from, learned) {
            (LearnFrom::Every, _) => 0..entries.len(),
            // One prediction is learned from, so further outcomes are for that prediction.
            (LearnFrom::First | LearnFrom::Last, Some(learned)) => learned..learned + 1,
            (LearnFrom::First, None) => 0..1,
            (LearnFrom::Last, None) => entries.len() - 1..entries.len(),
        };
        for (index, (position, pending)) in entries.iter().enumerate() {
            let PendingRef::Prediction { state, record } = pending else { continue };
            let after = if chosen.contains(&index) {
                if !self.learn(state, record, outcome, ctx)? {
                    continue;
                }
                StateRef::Learned(&outcome.label)
            } else if state == StateRef::Waiting {
                StateRef::PassedOver
            } else {
                continue;
            };
            entry.clear();
            after.write(entry);
            if self.may_need_record(after) {
                entry.extend_from_slice(record);
            }
            let mut store = ctx.window(&self.pending);
            store.replace_bytes(&outcome.respondent_id, position, entry)?;
        }
        Ok(true)
    }

    /// Forwards the example of a stored prediction and its outcome; false if the outcome changes nothing.
    fn learn(
        &self,
        state: StateRef<'_>,
        record: &[u8],
        outcome: &Outcome,
        ctx: &mut JoinContext<'_>,
    ) -> Result<bool, ProcessError> {
        let has_record = !record.is_empty();
        let Some(correction) = self.settle(state, has_record, outcome, ctx) else {
            return Ok(false);
        };
        let example = self.codec.predictions.read(record, |prediction| {
            example(prediction, &outcome.label, Some(outcome.outcome_time), correction)
        })?;
        forward(&outcome.respondent_id, example, outcome.outcome_time, ctx)?;
        Ok(true)
    }

    /// Stores an outcome for later predictions; false if it is stored already.
    fn keep(
        &self,
        outcome: &Outcome,
        original: Option<Original>,
        entries: &mut PendingEntries,
        ctx: &mut JoinContext<'_>,
    ) -> Result<bool, ProcessError> {
        let (respondent, time) = (outcome.respondent_id.as_str(), outcome.outcome_time);
        self.fetch(entries, respondent, time, ctx)?;
        for (_, entry) in entries.iter() {
            if let PendingRef::Outcome(bytes) = entry
                && self.outcome(bytes)?.0.label == outcome.label
            {
                return Ok(false);
            }
        }
        let pending = Pending::Outcome(outcome.clone(), original);
        ctx.window(&self.pending).add(respondent, time, &pending)?;
        Ok(true)
    }

    /// Whether the example of a prediction and its outcome is a correction, or none if the outcome changes nothing. A
    /// prediction that was stored under [`ConflictPolicy::First`] may have no record any more to make a correction from.
    fn settle(
        &self,
        state: StateRef<'_>,
        has_record: bool,
        outcome: &Outcome,
        ctx: &mut JoinContext<'_>,
    ) -> Option<bool> {
        let (result, correction) = match state {
            StateRef::Waiting | StateRef::PassedOver => ("joined", Some(false)),
            StateRef::Learned(label) if label == outcome.label => ("duplicate", None),
            StateRef::Learned(_) => match self.settings.conflict {
                ConflictPolicy::Last if has_record => ("corrected", Some(true)),
                ConflictPolicy::Last | ConflictPolicy::First => ("conflicting", None),
            },
        };
        self.count(result, ctx);
        correction
    }

    fn count(&self, result: &str, ctx: &mut JoinContext<'_>) {
        ctx.count(&self.metrics.outcomes(result), 1);
    }
}

fn state_of(entry: PendingRef<'_>) -> StateRef<'_> {
    match entry {
        PendingRef::Prediction { state, .. } => state,
        PendingRef::Outcome(_) => StateRef::Waiting,
    }
}

fn late(outcome: &Outcome, now: EventTime) -> ProcessError {
    let behind = now.since(outcome.outcome_time).as_secs();
    let message = format!("{behind} s behind, window and grace have passed");
    ProcessError::reject("late_outcome", message)
}

fn example(
    prediction: PredictionRef<'_>,
    label: &str,
    outcome_time: Option<EventTime>,
    correction: bool,
) -> Encoded<LabelledExample> {
    Encoded::new(LabelledExampleRef {
        example_id: prediction.prediction_id,
        respondent_id: prediction.respondent_id,
        origin: ExampleOrigin::Stream,
        event_time: prediction.event_time,
        outcome_time,
        label,
        prediction: Some(ExamplePredictionRef {
            prediction_id: prediction.prediction_id,
            model_version: prediction.model_version,
            predicted_at: prediction.predicted_at,
            probabilities: prediction.probabilities,
        }),
        correction,
        answers: prediction.answers,
    })
}

/// Forwards the example of a respondent.
fn forward(
    respondent: &str,
    example: Encoded<LabelledExample>,
    time: EventTime,
    ctx: &mut JoinContext<'_>,
) -> Result<(), ProcessError> {
    let key = Some(respondent.as_bytes().to_vec());
    ctx.forward(&Record { key, value: example, time })
}
