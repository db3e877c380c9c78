//! The metadata of an event that arrives.

use crate::{
    events::{
        prediction::ScoreTrigger,
        questionnaire::{AnswerRow, EventIdentity, QuestionnaireEvent, WITHDRAWN_HEADER},
        reply,
    },
    processors::gather::{
        observation::{Observation, RequestedEvent},
        settings::GatherSettings,
        stored::LastEvent,
    },
};
use foretell_streams::{
    record::InputRecord,
    time::{EventTime, WallTime},
};

/// The metadata of an event.
pub(super) struct Arrival {
    pub(super) identity: EventIdentity,
    /// The questions whose answers it withdraws.
    pub(super) withdrawn: Vec<String>,
    event_id: String,
    received_at: WallTime,
    offset: i64,
    /// The request that waits for the result.
    request_id: Option<String>,
}

impl Arrival {
    /// The metadata of an event of a source that has a field for each question that is `asked`.
    pub(super) fn of(
        event: &QuestionnaireEvent,
        input: &InputRecord,
        asked: &[bool],
        settings: &GatherSettings,
    ) -> Self {
        let mut withdrawn = withdrawn(input);
        // A source cannot withdraw the answers of another. A name that is no question is one of another version of the schema.
        withdrawn.retain(|name| {
            let index = settings.position_of(name);
            index.and_then(|index| asked.get(index)).is_none_or(|is_asked| *is_asked)
        });
        let identity = EventIdentity::of(event, &settings.questions, &settings.layout, &withdrawn);
        let event_id =
            if event.event_id.is_empty() { identity.id() } else { event.event_id.clone() };
        Self {
            identity,
            withdrawn,
            event_id,
            received_at: WallTime(input.timestamp.0),
            offset: input.offset.0,
            request_id: reply::request_of(input),
        }
    }

    /// The event for a reply; none if no caller waits.
    pub(super) fn requested(&self, event: &QuestionnaireEvent) -> Option<RequestedEvent> {
        Some(RequestedEvent {
            request_id: self.request_id.clone()?,
            respondent_id: event.respondent_id.clone(),
            event_id: self.event_id.clone(),
        })
    }

    /// The observation that the event makes due.
    pub(super) fn observation(
        &self,
        event: &QuestionnaireEvent,
        event_time: EventTime,
        trigger: ScoreTrigger,
        answers: AnswerRow,
    ) -> Observation {
        Observation {
            respondent_id: event.respondent_id.clone(),
            identity: self.identity,
            event_id: self.event_id.clone(),
            event_time,
            received_at: self.received_at,
            trigger,
            answers,
        }
    }

    /// The event as the last one of its session.
    pub(super) fn last_event(&self, event: &QuestionnaireEvent) -> LastEvent {
        LastEvent {
            identity: self.identity,
            event_id: event.event_id.clone(),
            received_at: self.received_at,
            offset: self.offset,
            source: event.source.clone(),
        }
    }
}

/// The questions whose answers a record's event withdraws ([`WITHDRAWN_HEADER`]).
fn withdrawn(input: &InputRecord) -> Vec<String> {
    let header = input.headers.iter().rfind(|header| header.name == WITHDRAWN_HEADER);
    let text = header.and_then(|header| std::str::from_utf8(&header.value).ok());
    let names = text.into_iter().flat_map(|names| names.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}
