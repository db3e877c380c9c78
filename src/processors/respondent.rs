//! Answers questions about a respondent, from the stores of the task that has them.

use std::sync::Arc;

use crate::{
    events::{
        answered::AnsweredRecord as _,
        prediction::Prediction,
        reply::{self, Reply, ReplyResult},
        respondent::{KeptPrediction, OpenObservation, Respondent, RespondentQuery},
    },
    processors::{
        actions::KnownActions,
        gather::{StoredSession, session::SessionRules},
        outcome_join::{OutcomeStore, PendingEntries, PendingRef, StateRef},
    },
};
use foretell_streams::{
    codec::CodecError,
    record::Topic,
    state::WindowHandle,
    time::EventTime,
    topology::{Context, Edge, ProcessError, Processor, Record, TopologyBuilder},
};

/// Forwards the answer to each question.
struct AnswerQuery {
    observations: OpenSessions,
    outcomes: OutcomeStore,
    actions: KnownActions,
    /// Memory that every question uses again.
    entries: PendingEntries,
}

/// The store of sessions, and when they end.
#[derive(Clone)]
pub struct OpenSessions {
    /// The store.
    pub store: WindowHandle<StoredSession>,
    /// The rules.
    pub rules: SessionRules,
}

/// Adds the source of questions and the processor that answers them.
pub fn add_to(
    topology: &mut TopologyBuilder,
    queries: Topic,
    observations: OpenSessions,
    outcomes: OutcomeStore,
    actions: KnownActions,
) -> Edge<Reply> {
    // A question is no event: its time does not advance stream time, and it is answered before records that wait.
    let codec = Arc::new(RespondentQuery::codec());
    let asked = topology.source_timed("queries", queries, codec, |_, _, _| Ok(EventTime::MIN));
    let mut stores = vec![observations.store.id(), outcomes.pending.id()];
    stores.extend(actions.stores());
    topology.process("answer-query", &[asked], &stores, move || AnswerQuery {
        observations: observations.clone(),
        outcomes: outcomes.clone(),
        actions: actions.clone(),
        entries: PendingEntries::default(),
    })
}

impl Processor for AnswerQuery {
    type In = RespondentQuery;
    type Out = Reply;

    fn process(
        &mut self,
        record: &Record<RespondentQuery>,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<(), ProcessError> {
        let Some(request_id) = ctx.input().and_then(reply::request_of) else { return Ok(()) };
        let respondent_id = record.value.respondent_id.clone();
        let mut respondent = Respondent {
            stream_time: ctx.stream_time(),
            open: self.open_observation(&respondent_id, ctx)?,
            actions: self.actions.about(&respondent_id, ctx)?,
            ..Respondent::default()
        };
        self.add_predictions_and_outcomes(&respondent_id, &mut respondent, ctx)?;
        let result = ReplyResult::Respondent(respondent);
        let reply = Reply { request_id, respondent_id, event_id: String::new(), result };
        ctx.forward(&Record { key: record.key.clone(), value: reply, time: record.time })
    }
}

impl AnswerQuery {
    fn open_observation(
        &self,
        respondent_id: &str,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<Option<OpenObservation>, ProcessError> {
        // A session that stream time has ended may still be stored.
        let open = self.observations.rules.ended_before(ctx.stream_time());
        let store = ctx.window(&self.observations.store);
        let newest = store.fetch(respondent_id, open, EventTime::MAX)?.pop();
        Ok(newest.map(|stored| OpenObservation {
            event_time: stored.time,
            is_scored: stored.value.scored,
            answers: stored
                .value
                .answers
                .into_iter()
                .map(|given| (given.question, given.answer))
                .collect(),
        }))
    }

    fn add_predictions_and_outcomes(
        &mut self,
        respondent_id: &str,
        respondent: &mut Respondent,
        ctx: &mut Context<'_, Reply>,
    ) -> Result<(), ProcessError> {
        let OutcomeStore { pending, codec, .. } = &self.outcomes;
        let always = EventTime::MIN..=EventTime::MAX;
        self.entries.fetch(pending, codec, respondent_id, always, ctx)?;
        for (position, entry) in self.entries.iter().rev() {
            match entry {
                PendingRef::Prediction { state, record }
                    if respondent.predictions.len() < Respondent::PREDICTIONS_MAX =>
                {
                    respondent.predictions.push(KeptPrediction {
                        event_time: position.time,
                        outcome: state.label().map(str::to_owned),
                        is_passed_over: state == StateRef::PassedOver,
                        prediction: self.prediction_in(record)?,
                    });
                }
                PendingRef::Outcome(bytes)
                    if respondent.outcomes.len() < Respondent::OUTCOMES_MAX =>
                {
                    respondent.outcomes.push(self.outcomes.outcome(bytes)?.0);
                }
                PendingRef::Prediction { .. } | PendingRef::Outcome(_) => {}
            }
        }
        Ok(())
    }

    /// The prediction in a stored record; none if it is not stored any more, or cannot be read.
    fn prediction_in(&self, record: &[u8]) -> Result<Option<Prediction>, ProcessError> {
        if record.is_empty() {
            return Ok(None);
        }
        match self.outcomes.codec.predictions.read(record, Prediction::of) {
            Ok(prediction) => Ok(Some(prediction)),
            Err(CodecError::Unavailable { message }) => Err(ProcessError::Retry(message)),
            Err(CodecError::Unreadable { .. } | CodecError::OtherFormat { .. }) => Ok(None),
        }
    }
}
