//! The outcome store, and the rules of the join.

use std::sync::Arc;

use crate::{
    events::{
        action::{ExampleActionRef, ExampleActions, ExampleActionsRef},
        answered::{AnsweredCodec, Encoded},
        labelled_example::{
            ExampleOrigin, ExamplePredictionRef, LabelledExample, LabelledExampleRef,
        },
        outcome::Outcome,
        prediction::{Prediction, PredictionRef},
    },
    processors::{
        actions::ActedStore,
        metrics::ApplicationMetrics,
        outcome_join::{
            pending::{
                Pending, PendingCodec, PendingEntries, PendingRef, PredictionState, StateRef,
                decode_outcome,
            },
            settings::{ConflictPolicy, JoinSettings, LearnFrom, UnlabelledPolicy},
        },
        waiting::Waiting,
    },
};
use foretell_streams::{
    codec::{Codec as _, CodecError},
    state::{Position, StateError, StoreId, WindowHandle},
    time::EventTime,
    topology::{Context, Original, ProcessError, Record, TopologyBuilder},
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
    /// Its first example.
    Joined,
    /// An example in place of that with another label.
    Corrected { replaced: &'s str },
}

/// The label of an example.
struct Labelled<'a> {
    label: &'a str,
    /// None if the label is from the policy for unlabelled predictions.
    outcome_time: Option<EventTime>,
    /// The label that a correction replaces.
    replaced: Option<&'a str>,
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
        position: Position,
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
                let read = |prediction: PredictionRef<'_>| {
                    let example = self.example(prediction, labelled, ctx)?;
                    Ok::<_, StateError>((prediction.respondent_id.to_owned(), example))
                };
                match self.codec.predictions.read(record, read) {
                    Ok(read) => {
                        let (respondent, example) = read?;
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
                self.leaves(Waiting::Outcome, ctx);
                let respondent = &outcome.respondent_id;
                let message = format!("no prediction for respondent {respondent:?} in its window");
                ctx.dead_letter(original, "unmatched_outcome", message);
                Ok(())
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
            | (StateRef::Waiting | StateRef::PassedOver | StateRef::Chosen, _) => true,
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
            let example = self.example(prediction, labelled, ctx)?;
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

    /// Forwards the example of a stored prediction and its outcome; false if the outcome changes nothing.
    fn learn(
        &self,
        state: StateRef<'_>,
        record: &[u8],
        outcome: &Outcome,
        ctx: &mut JoinContext<'_>,
    ) -> Result<bool, ProcessError> {
        let has_record = !record.is_empty();
        let settlement = self.settle(state, has_record, outcome, ctx);
        let Some(labelled) = settlement.labelled(outcome) else { return Ok(false) };
        let example = self
            .codec
            .predictions
            .read(record, |prediction| self.example(prediction, labelled, ctx))??;
        forward(&outcome.respondent_id, example, outcome.outcome_time, ctx)?;
        Ok(true)
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
        let (result, settlement) = match state {
            StateRef::Waiting | StateRef::PassedOver | StateRef::Chosen => {
                ("joined", Settlement::Joined)
            }
            StateRef::Learned(label) if label == outcome.label => {
                ("duplicate", Settlement::Ignored)
            }
            StateRef::Learned(replaced)
                if has_record && self.settings.replaces(&outcome.label, replaced) =>
            {
                ("corrected", Settlement::Corrected { replaced })
            }
            StateRef::Learned(_) => ("conflicting", Settlement::Ignored),
        };
        self.count(result, ctx);
        settlement
    }

    /// The example of a prediction, with the actions that came due for its respondent up to the outcome, or within the window
    /// if there is none. If every prediction is learned from, an example has the actions that its prediction caused.
    fn example(
        &self,
        prediction: PredictionRef<'_>,
        labelled: Labelled<'_>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<Encoded<LabelledExample>, StateError> {
        let PredictionRef { prediction_id, respondent_id, event_time, .. } = prediction;
        let until = labelled.outcome_time.unwrap_or(event_time + self.settings.window);
        let mut due = match &self.acted {
            Some(acted) if until >= event_time => {
                acted.between(respondent_id, (event_time, until), ctx)?
            }
            Some(_) | None => Vec::new(),
        };
        if self.settings.learn_from == LearnFrom::Every {
            due.retain(|(_, acted)| acted.prediction_id == prediction_id);
        }
        let actions = ExampleActions::of(due.iter().map(|(time, acted)| ExampleActionRef {
            action_id: &acted.action_id,
            rule: &acted.rule,
            rule_version: &acted.rule_version,
            acted: acted.acted,
            propensity: acted.propensity,
            acted_at: *time,
        }));
        Ok(example(prediction, labelled, actions.borrow()))
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

fn example(
    prediction: PredictionRef<'_>,
    Labelled { label, outcome_time, replaced }: Labelled<'_>,
    actions: ExampleActionsRef<'_>,
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
        challenger: prediction.challenger,
        correction: replaced.is_some(),
        replaced,
        actions,
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
