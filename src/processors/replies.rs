//! Replies to the callers that wait for the result of an event. Only events whose record has the request header get a reply.

use crate::{
    events::{
        answered::{AnsweredRecord as _, Encoded},
        prediction::{Prediction, ScoreTrigger},
        reply::{self, Predicted, Reply, ReplyResult},
    },
    processors::{
        actions::KnownActions,
        gather::{Gathered, RequestedEvent},
        outcome_join::{OutcomeStore, PendingEntries, PendingRef},
    },
};
use foretell_streams::{
    codec::CodecError,
    time::EventTime,
    topology::{Context, ProcessError, Processor, Record},
};

/// Forwards a reply for each prediction that a caller waits for. After the rules, so that it has the actions.
pub struct ReplyToPrediction(
    /// The actions about respondents.
    pub KnownActions,
);

impl Processor for ReplyToPrediction {
    type In = Encoded<Prediction>;
    type Out = Reply;

    fn process(
        &mut self,
        record: &Record<Encoded<Prediction>>,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<(), ProcessError> {
        let prediction = record.value.get();
        // The event that a caller waits for may end a session, whose prediction is not the caller's.
        if prediction.trigger == ScoreTrigger::SessionEnd {
            return Ok(());
        }
        let Some(request_id) = ctx.input().and_then(reply::request_of) else { return Ok(()) };
        let predicted = predicted(Prediction::of(prediction), &self.0, ctx)?;
        let reply = Reply {
            request_id,
            respondent_id: predicted.prediction.respondent_id.clone(),
            event_id: predicted.prediction.event_id.clone(),
            result: ReplyResult::Predicted(predicted),
        };
        ctx.forward(&Record { key: record.key.clone(), value: reply, time: record.time })
    }
}

/// Forwards a reply for each event that is not scored now and that a caller waits for.
pub struct ReplyToEvent {
    /// The store with the prediction of a repeated event.
    pub outcomes: OutcomeStore,
    /// The actions about respondents.
    pub actions: KnownActions,
}

impl Processor for ReplyToEvent {
    type In = Gathered;
    type Out = Reply;

    fn process(
        &mut self,
        record: &Record<Gathered>,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<(), ProcessError> {
        let (event, result) = match &record.value {
            Gathered::Due(_) | Gathered::Arrived { .. } => return Ok(()),
            Gathered::Incomplete { event, missing } => {
                (event, ReplyResult::Incomplete { missing: missing.clone() })
            }
            Gathered::Duplicate { event, prediction_id } => {
                let first = self.prediction(event, prediction_id, ctx)?;
                let first = first.map(|first| predicted(first, &self.actions, ctx)).transpose()?;
                (event, ReplyResult::Duplicate(first))
            }
        };
        let RequestedEvent { request_id, respondent_id, event_id } = event.clone();
        let reply = Reply { request_id, respondent_id, event_id, result };
        ctx.forward(&Record { key: record.key.clone(), value: reply, time: record.time })
    }
}

impl ReplyToEvent {
    /// The stored prediction with this id; none if it is not stored any more.
    fn prediction(
        &self,
        event: &RequestedEvent,
        prediction_id: &str,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<Option<Prediction>, ProcessError> {
        let OutcomeStore { pending, codec, .. } = &self.outcomes;
        let (mut entries, always) = (PendingEntries::default(), EventTime::MIN..=EventTime::MAX);
        entries.fetch(pending, codec, &event.respondent_id, always, ctx)?;
        for (_, entry) in entries.iter() {
            let PendingRef::Prediction { record, .. } = entry else { continue };
            if record.is_empty() {
                continue;
            }
            let found = codec.predictions.read(record, |prediction| {
                (prediction.prediction_id == prediction_id).then(|| Prediction::of(prediction))
            });
            match found {
                Ok(None) | Err(CodecError::Unreadable { .. } | CodecError::OtherFormat { .. }) => {}
                Ok(found) => return Ok(found),
                Err(CodecError::Unavailable { message }) => {
                    return Err(ProcessError::Retry(message));
                }
            }
        }
        Ok(None)
    }
}

/// A prediction with the actions that it has caused.
fn predicted(
    prediction: Prediction,
    actions: &KnownActions,
    ctx: &mut Context<'_, Reply>,
) -> Result<Predicted, ProcessError> {
    let mut actions = actions.about(&prediction.respondent_id, ctx)?;
    actions.retain(|action| action.prediction_id == prediction.prediction_id);
    Ok(Predicted { prediction, actions })
}
