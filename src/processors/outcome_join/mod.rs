//! Joins predictions with their outcomes, whichever comes first, inside a window of event time.
//!
//! ```text
//!   prediction ─▶ StorePrediction ─▶ Waiting ──outcome──▶ Learned (example) ──window passes──▶ removed
//!                                │ ╲ ╲─outcome, `emit = "on_close"`──▶ Held ──window passes──▶ example, removed
//!                                │ ╲─another prediction of the respondent is learned from─▶ PassedOver
//!                                └──window passes──▶ unlabelled (dropped, or one of a group is given a label: `unlabelled`)
//!   outcome ───▶ Join ──no prediction yet──▶ waits ──prediction──▶ Learned
//!                                              └──window passes──▶ dead letter unmatched_outcome
//! ```

mod examples;
mod former_formats;
mod labelled;
mod pending;
mod pending_codec;
mod settings;
mod store;
mod unlabelled;
mod waiting;

pub use pending::{Pending, PendingRef, PredictionState, StateRef, decode_outcome};
pub use pending_codec::{PendingCodec, PendingEntries};
pub use settings::{ConflictPolicy, Emit, JoinSettings, LearnFrom, UnlabelledPolicy};
pub use store::OutcomeStore;

use std::{borrow::Cow, sync::Arc};

use crate::{
    events::{
        answered::Encoded, label, labelled_example::LabelledExample, outcome::Outcome,
        prediction::Prediction,
    },
    processors::{
        outcome_join::store::{Buffers, JoinContext, StoredOutcome, late},
        placement::Placement,
        waiting::{TaskCounts, Waiting},
    },
};
use foretell_streams::{
    record::Partition,
    topology::{Original, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// Stores predictions, and forwards labelled examples for those whose outcome is stored.
pub struct StorePrediction {
    store: OutcomeStore,
    buffers: Buffers,
    /// What waits in the store, since the task has started.
    waiting: Option<(Partition, Arc<TaskCounts>)>,
}

/// Joins outcomes with stored predictions, forwards the labelled examples, and stores outcomes without a prediction.
pub struct Join {
    store: OutcomeStore,
    placement: Placement,
    buffers: Buffers,
}

/// Maximum number of entries to expire at once, which bounds the memory for a long backlog.
const EXPIRED_AT_ONCE_MAX: usize = 1_000;

impl StorePrediction {
    /// A processor on `store`.
    #[must_use]
    pub fn new(store: OutcomeStore) -> Self {
        Self { store, buffers: Buffers::default(), waiting: None }
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
        let interval = self.store.settings.join_window().removal_interval();
        ctx.schedule(PunctuationKind::StreamTime, interval);
        self.waiting = Some((ctx.partition(), self.store.begin_waiting(ctx)));
    }

    fn process(
        &mut self,
        record: &Record<Encoded<Prediction>>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let Self { store, buffers, .. } = self;
        let prediction = record.value.get();
        store.close(prediction.respondent_id, buffers, ctx)?;
        let Buffers { entries, entry } = buffers;
        let mut state = PredictionState::Waiting;
        store.fetch(entries, prediction.respondent_id, prediction.event_time, ctx)?;
        let kept = entries.iter().filter(|(_, entry)| entry.is_prediction()).count();
        for (position, pending) in entries.iter() {
            match pending {
                // The outcome was learned from with another prediction, unless an outcome for this one was found before.
                PendingRef::Prediction { state: kept, .. }
                    if kept.label().is_some()
                        && state == PredictionState::Waiting
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
        let is_full = kept >= store.settings.predictions_max;
        if is_full && !store.make_room(prediction, state.borrow(), entries, ctx)? {
            return Ok(());
        }
        entry.clear();
        state.borrow().write(entry);
        if store.may_need_record(state.borrow()) {
            store.codec.predictions.write(prediction, entry);
        }
        let (respondent, time) = (prediction.respondent_id, prediction.event_time);
        let position = ctx.window(&store.pending).add_bytes(respondent, time, entry)?;
        if state.borrow().is_waiting() {
            store.enters(Waiting::Prediction, ctx);
        }
        store.close_late(respondent, position, buffers, ctx)
    }

    /// Expires entries whose window and grace have passed.
    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(now) = punctuation else { return Ok(()) };
        let Self { store, buffers, .. } = self;
        let before = store.settings.join_window().open(now);
        loop {
            store.close_expired(before, EXPIRED_AT_ONCE_MAX, buffers, ctx)?;
            let entries = &mut buffers.entries;
            entries.expire(&store.pending, &store.codec, before, EXPIRED_AT_ONCE_MAX, ctx)?;
            for (_, entry) in entries.iter() {
                store.expire(entry, ctx)?;
            }
            if entries.len() < EXPIRED_AT_ONCE_MAX {
                break;
            }
        }
        // After the examples that have them.
        match &store.acted {
            Some(acted) => Ok(acted.expire(now, ctx)?),
            None => Ok(()),
        }
    }
}

impl Drop for StorePrediction {
    /// The task has moved, or the instance stops.
    fn drop(&mut self) {
        if let Some((partition, counts)) = &self.waiting {
            self.store.metrics.waiting().end(*partition, counts);
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
        store.close(&outcome.respondent_id, buffers, ctx)?;
        if store.join(outcome, buffers, ctx)? {
            return match settings.learn_from {
                LearnFrom::First | LearnFrom::Last => Ok(()),
                LearnFrom::Every => store.keep(outcome, None, &mut buffers.entries, ctx).map(drop),
            };
        }
        if ctx.stream_time() > settings.join_window().closes(outcome.outcome_time) {
            return Err(late(outcome, ctx.stream_time()));
        }
        let Some(original) = ctx.input().map(Original::from) else {
            return Err(ProcessError::reject("malformed", "an outcome outside a record"));
        };
        let is_new = store.keep(outcome, Some(original), &mut buffers.entries, ctx)?;
        if is_new {
            store.enters(Waiting::Outcome, ctx);
        }
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
