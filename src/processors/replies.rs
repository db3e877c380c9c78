//! Replies to the callers that wait for the result of an event. Only events whose record has the request header get a reply.

use crate::{
    events::{
        prediction::Prediction,
        reply::{self, Reply, ReplyResult},
    },
    processors::{
        gather::{Gathered, RequestedEvent},
        outcome_join::{OutcomeStore, Pending},
    },
};
use foretell_streams::topology::{Context, ProcessError, Processor, Record};

/// Forwards a reply for each prediction that a caller waits for.
pub struct ReplyToPrediction;

impl Processor for ReplyToPrediction {
    type In = Prediction;
    type Out = Reply;

    fn process(
        &mut self,
        record: &Record<Prediction>,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<(), ProcessError> {
        let Some(request_id) = ctx.input().and_then(reply::request_of) else { return Ok(()) };
        let prediction = &record.value;
        let reply = Reply {
            request_id,
            respondent_id: prediction.respondent_id.clone(),
            event_id: prediction.event_id.clone(),
            result: ReplyResult::Predicted(prediction.clone()),
        };
        ctx.forward(&Record { key: record.key.clone(), value: reply, time: record.time })
    }
}

/// Forwards a reply for each event that is not scored now and that a caller waits for.
pub struct ReplyToEvent(
    /// The store with the prediction of a repeated event.
    pub OutcomeStore,
);

impl Processor for ReplyToEvent {
    type In = Gathered;
    type Out = Reply;

    fn process(
        &mut self,
        record: &Record<Gathered>,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<(), ProcessError> {
        let (event, result) = match &record.value {
            Gathered::Due(_) => return Ok(()),
            Gathered::Incomplete { event, missing } => {
                (event, ReplyResult::Incomplete { missing: missing.clone() })
            }
            Gathered::Duplicate { event, prediction_id } => {
                let first = self.prediction(event, prediction_id, ctx)?;
                (event, ReplyResult::Duplicate(first))
            }
        };
        let RequestedEvent { request_id, respondent_id, event_id } = event.clone();
        let reply = Reply { request_id, respondent_id, event_id, result };
        ctx.forward(&Record { key: record.key.clone(), value: reply, time: record.time })
    }
}

impl ReplyToEvent {
    /// The stored prediction with this id.
    fn prediction(
        &self,
        event: &RequestedEvent,
        prediction_id: &str,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<Option<Prediction>, ProcessError> {
        let known = ctx.window(&self.0.pending).fetch_all(&event.respondent_id)?;
        let found = known.into_iter().find_map(|entry| match entry.value {
            Pending::Prediction(prediction, _) if prediction.prediction_id == prediction_id => {
                Some(prediction)
            }
            Pending::Prediction(..) | Pending::Outcome(..) => None,
        });
        Ok(found)
    }
}
