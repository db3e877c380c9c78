//! The outcome store, and the rules of the join.

use std::sync::Arc;

use crate::{
    events::{
        answered::{AnsweredCodec, Encoded},
        labelled_example::LabelledExample,
        outcome::Outcome,
        prediction::{Prediction, PredictionRef},
    },
    processors::{
        actions::ActedStore,
        metrics::ApplicationMetrics,
        outcome_join::{
            labelled::Labelled,
            pending::{Pending, PendingRef, PredictionState, StateRef, decode_outcome},
            pending_codec::{PendingCodec, PendingEntries},
            settings::{ConflictPolicy, Emit, JoinSettings, LearnFrom, UnlabelledPolicy},
        },
        waiting::Waiting,
    },
};
use foretell_streams::{
    codec::Codec as _,
    state::{Position, StateError, StoreId, WindowHandle},
    time::EventTime,
    topology::{Context, Original, ProcessError, TopologyBuilder},
};

pub(super) type JoinContext<'t> = Context<'t, Encoded<LabelledExample>>;

/// Memory that every record uses again.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) entries: PendingEntries,
    pub(super) entry: Vec<u8>,
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
    /// What was done for the respondents; none without rules of actions.
    pub acted: Option<ActedStore>,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
}

/// What an outcome makes of a prediction.
enum Settlement<'s> {
    /// Nothing.
    Ignored,
    /// An example.
    Joined,
    /// Another label in its example.
    Corrected { replaced: &'s str },
}

/// An outcome that is stored.
pub(super) struct StoredOutcome {
    pub(super) outcome: Outcome,
    /// Its record, while it waits for its first prediction.
    pub(super) original: Option<Original>,
    pub(super) position: Position,
}

impl OutcomeStore {
    /// Adds the store to a topology.
    #[must_use]
    pub fn add_to(
        topology: &mut TopologyBuilder,
        settings: JoinSettings,
        predictions: &Arc<AnsweredCodec<Prediction>>,
        metrics: &ApplicationMetrics,
    ) -> Self {
        let codec = PendingCodec { predictions: Arc::clone(predictions) };
        let pending = topology.window_store("outcomes", Arc::new(codec.clone()));
        Self { settings, pending, codec, acted: None, metrics: metrics.clone() }
    }

    /// The stores of the join.
    pub fn ids(&self) -> impl Iterator<Item = StoreId> {
        let acted = self.acted.as_ref().map(|acted| acted.handle().id());
        [self.pending.id()].into_iter().chain(acted)
    }

    /// Completes an entry that can no longer be joined.
    pub(super) fn expire(
        &self,
        entry: PendingRef<'_>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        match entry {
            PendingRef::Prediction { state: StateRef::Waiting | StateRef::Chosen, record } => {
                ctx.count(&self.metrics.unlabelled(), 1);
                self.leaves(Waiting::Prediction, ctx);
                let UnlabelledPolicy::Label(label) = &self.settings.unlabelled else {
                    return Ok(());
                };
                let labelled = Labelled { label, outcome_time: None, replaced: None };
                self.emit_stored(record, labelled, ctx)
            }
            PendingRef::Prediction { state, record } => match Labelled::held(state) {
                Some(labelled) => self.emit_stored(record, labelled, ctx),
                None => Ok(()),
            },
            PendingRef::Outcome(bytes) => {
                let (outcome, Some(original)) = self.outcome(bytes)? else { return Ok(()) };
                self.count("unmatched", ctx);
                self.leaves(Waiting::Outcome, ctx);
                let respondent = &outcome.respondent_id;
                let message = format!("no prediction for respondent {respondent:?} in its window");
                ctx.dead_letter(original, "unmatched_outcome", message);
                Ok(())
            }
        }
    }

    /// Makes room for a prediction of a respondent who has as many as can be kept; false if the prediction is not kept itself. An
    /// example that is held for the one that is not kept is made now.
    pub(super) fn make_room(
        &self,
        prediction: PredictionRef<'_>,
        state: StateRef<'_>,
        entries: &PendingEntries,
        ctx: &mut JoinContext<'_>,
    ) -> Result<bool, ProcessError> {
        ctx.count(&self.metrics.predictions_not_kept(), 1);
        let oldest = entries.iter().find(|(_, entry)| entry.is_prediction());
        match (self.settings.learn_from, oldest) {
            // The earliest prediction is learned from, so this one is not needed.
            (LearnFrom::First, _) | (_, None) => {
                if let Some(labelled) = Labelled::held(state) {
                    self.emit_closed(prediction, labelled, ctx)?;
                }
                Ok(false)
            }
            (LearnFrom::Last | LearnFrom::Every, Some((oldest, removed))) => {
                if removed.is_waiting() {
                    self.leaves(Waiting::Prediction, ctx);
                }
                if let PendingRef::Prediction { state, record } = removed
                    && let Some(labelled) = Labelled::held(state)
                {
                    self.emit_stored(record, labelled, ctx)?;
                }
                ctx.window(&self.pending).remove_at(prediction.respondent_id, oldest);
                Ok(true)
            }
        }
    }

    /// Decodes a stored outcome.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be read.
    pub fn outcome(&self, bytes: &[u8]) -> Result<(Outcome, Option<Original>), StateError> {
        decode_outcome(bytes).map_err(|error| self.pending.unreadable(error))
    }

    /// Copies the entries of one respondent within the window around `time` into `entries`. Those that have closed are not
    /// among them, whether a punctuation has expired them or not.
    pub(super) fn fetch(
        &self,
        entries: &mut PendingEntries,
        respondent: &str,
        time: EventTime,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let times = self.settings.join_window().near(time, ctx.stream_time());
        Ok(entries.fetch(&self.pending, &self.codec, respondent, times, ctx)?)
    }

    /// Whether the features of a prediction in this state may be needed for an example.
    pub(super) fn may_need_record(&self, state: StateRef<'_>) -> bool {
        match (state, self.settings.conflict) {
            (StateRef::Learned(_), ConflictPolicy::First) => false,
            (StateRef::Learned(_), ConflictPolicy::Last | ConflictPolicy::Max)
            | (
                StateRef::Waiting | StateRef::PassedOver | StateRef::Chosen | StateRef::Held { .. },
                _,
            ) => true,
        }
    }

    /// Joins a new prediction with an outcome that is stored. Updates the state of the prediction.
    pub(super) fn join_stored(
        &self,
        prediction: PredictionRef<'_>,
        state: &mut PredictionState,
        stored: StoredOutcome,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let StoredOutcome { outcome, original, position } = stored;
        if original.is_some() {
            self.leaves(Waiting::Outcome, ctx);
        }
        let settlement = self.settle(state.borrow(), true, &outcome, ctx);
        if let Some(labelled) = settlement.labelled(&outcome) {
            let after = self.joined(state.borrow(), &outcome);
            if matches!(after, StateRef::Learned(_)) {
                self.emit(prediction, labelled, outcome.outcome_time, ctx)?;
            }
            *state = after.into();
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
    pub(super) fn join(
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
        let mut states = entries.iter().map(|(_, entry)| state_of(entry));
        let learned = states.position(|state| state.label().is_some());
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
                let Some(after) = self.learn(state, record, outcome, ctx)? else { continue };
                after
            } else if state.is_waiting() {
                StateRef::PassedOver
            } else {
                continue;
            };
            if state.is_waiting() {
                self.leaves(Waiting::Prediction, ctx);
            }
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

    /// Joins a stored prediction with its outcome. Returns the new state; none if the outcome changes nothing.
    fn learn<'o>(
        &self,
        state: StateRef<'_>,
        record: &[u8],
        outcome: &'o Outcome,
        ctx: &mut JoinContext<'_>,
    ) -> Result<Option<StateRef<'o>>, ProcessError> {
        let has_record = !record.is_empty();
        let settlement = self.settle(state, has_record, outcome, ctx);
        let Some(labelled) = settlement.labelled(outcome) else { return Ok(None) };
        let after = self.joined(state, outcome);
        if matches!(after, StateRef::Learned(_)) {
            let predictions = &self.codec.predictions;
            predictions.read(record, |prediction| {
                self.emit(prediction, labelled, outcome.outcome_time, ctx)
            })??;
        }
        Ok(Some(after))
    }

    /// The state of a prediction that was joined with an outcome, or whose label an outcome has replaced.
    fn joined<'o>(&self, before: StateRef<'_>, outcome: &'o Outcome) -> StateRef<'o> {
        let Outcome { label, outcome_time, .. } = outcome;
        let held = StateRef::Held { label, outcome_time: *outcome_time };
        // What was held or learned from under another setting stays so.
        match (before, self.settings.emit) {
            (StateRef::Held { .. }, _) => held,
            (StateRef::Learned(_), _) => StateRef::Learned(label),
            (StateRef::Waiting | StateRef::PassedOver | StateRef::Chosen, emit) => match emit {
                Emit::OnUpdate => StateRef::Learned(label),
                Emit::OnClose => held,
            },
        }
    }

    /// Stores an outcome for later predictions; false if it is stored already.
    pub(super) fn keep(
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

    /// What an outcome makes of a prediction. One that was stored under [`ConflictPolicy::First`] may have no record any more
    /// to make a correction from.
    fn settle<'s>(
        &self,
        state: StateRef<'s>,
        has_record: bool,
        outcome: &Outcome,
        ctx: &mut JoinContext<'_>,
    ) -> Settlement<'s> {
        let (result, settlement) = match state.label() {
            None => ("joined", Settlement::Joined),
            Some(label) if label == outcome.label => ("duplicate", Settlement::Ignored),
            Some(replaced) if has_record && self.settings.replaces(&outcome.label, replaced) => {
                ("corrected", Settlement::Corrected { replaced })
            }
            Some(_) => ("conflicting", Settlement::Ignored),
        };
        self.count(result, ctx);
        settlement
    }

    pub(super) fn count(&self, result: &str, ctx: &mut JoinContext<'_>) {
        ctx.count(&self.metrics.outcomes(result), 1);
    }
}

fn state_of(entry: PendingRef<'_>) -> StateRef<'_> {
    match entry {
        PendingRef::Prediction { state, .. } => state,
        PendingRef::Outcome(_) => StateRef::Waiting,
    }
}

pub(super) fn late(outcome: &Outcome, now: EventTime) -> ProcessError {
    let behind = now.since(outcome.outcome_time).as_secs();
    let message = format!("{behind} s behind, window and grace have passed");
    ProcessError::reject("late_outcome", message)
}

impl Settlement<'_> {
    /// The label of the example; none if there is no example.
    fn labelled<'a>(&'a self, outcome: &'a Outcome) -> Option<Labelled<'a>> {
        let replaced = match self {
            Self::Ignored => return None,
            Self::Joined => None,
            Self::Corrected { replaced } => Some(*replaced),
        };
        Some(Labelled { label: &outcome.label, outcome_time: Some(outcome.outcome_time), replaced })
    }
}
