//! Open sessions as they are stored, in each format.

use serde::{Deserialize, Serialize};

use crate::{
    events::questionnaire::{Answer, EventIdentity, EventSource},
    processors::gather::session::Span,
};
use foretell_streams::{
    codec::{Codec, CodecError, Stored},
    state::Windowed,
    time::{EventTime, WallTime},
};

/// The stored form of an open session. The time of its entry is that of its last event. Answers are stored by name, so they
/// survive a change of the schema. During an upgrade, tasks move between instances with different schemas: an instance keeps
/// answers that its own schema does not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredSession {
    /// The latest answer to each question.
    pub answers: Vec<GatheredAnswer>,
    /// Whether the observation was scored.
    pub scored: bool,
    /// Milliseconds of event time from the first event to the last.
    pub length_ms: u64,
    /// The number of events.
    pub events: u32,
    /// The last event; none if sessions are not scored at their ends.
    pub last: Option<LastEvent>,
}

/// The latest answer to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatheredAnswer {
    /// The name of the question.
    pub question: String,
    /// The answer; none if it was withdrawn.
    pub answer: Option<Answer>,
    /// The event time of the answer.
    pub time: EventTime,
}

/// The event with the latest time of a session, for the prediction at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// The identity of the event.
    pub identity: EventIdentity,
    /// The id of the event; empty if it is that of its identity.
    pub event_id: String,
    /// The timestamp of its record.
    pub received_at: WallTime,
    /// The offset of its record.
    pub offset: i64,
    /// The topic of its record. Format 3 has only those of the lead.
    #[serde(skip)]
    pub source: EventSource,
}

impl StoredSession {
    /// The format version of this type and all types in it. A changed field needs a new version. It is written for sessions whose
    /// last event comes from a companion; for all others [`Self::FORMAT_OF_LEAD`], so that an application without companions can
    /// go back to a release that does not know them.
    pub const FORMAT: u8 = 4;
    /// The format without the source of the last event.
    pub const FORMAT_OF_LEAD: u8 = 3;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> impl Codec<Self> + 'static {
        SessionCodec
    }

    /// The events of a stored session.
    #[must_use]
    pub fn span(entry: &Windowed<Self>) -> Span {
        let length = std::time::Duration::from_millis(entry.value.length_ms);
        Span { first: entry.time - length, last: entry.time, events: entry.value.events }
    }
}

/// Writes the present format and that of the lead, and reads the two before it.
struct SessionCodec;

/// Format 4: the companion that the last event comes from, and the session as in format 3.
type OfCompanion = (String, StoredSession);

impl Codec<StoredSession> for SessionCodec {
    fn encode(&self, session: &StoredSession, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let companion = session.last.as_ref().and_then(|last| last.source.companion_name());
        match companion {
            None => Stored::version(StoredSession::FORMAT_OF_LEAD).encode(session, bytes),
            Some(name) => {
                Stored::<OfCompanion>::version(StoredSession::FORMAT).write(&(name, session), bytes)
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<StoredSession, CodecError> {
        match bytes.first() {
            Some(&PartialV1::FORMAT) => {
                Stored::<PartialV1>::version(PartialV1::FORMAT).decode(bytes).map(Into::into)
            }
            Some(&PartialV2::FORMAT) => {
                Stored::<PartialV2>::version(PartialV2::FORMAT).decode(bytes).map(Into::into)
            }
            Some(&StoredSession::FORMAT_OF_LEAD) => {
                Stored::version(StoredSession::FORMAT_OF_LEAD).decode(bytes)
            }
            Some(_) | None => {
                let stored = Stored::<OfCompanion>::version(StoredSession::FORMAT);
                let (name, mut session) = stored.decode(bytes)?;
                if let Some(last) = &mut session.last {
                    last.source = EventSource::companion(&name);
                }
                Ok(session)
            }
        }
    }
}

/// Format 2, without the first event, the number of events and the last event.
#[derive(Serialize, Deserialize)]
struct PartialV2 {
    answers: Vec<GatheredAnswer>,
    scored: bool,
}

impl PartialV2 {
    const FORMAT: u8 = 2;
}

impl From<PartialV2> for StoredSession {
    /// Counts it as one event, at the time of the entry.
    fn from(old: PartialV2) -> Self {
        let PartialV2 { answers, scored } = old;
        Self { answers, scored, length_ms: 0, events: 1, last: None }
    }
}

/// Format 1, without the times of answers.
#[derive(Serialize, Deserialize)]
struct PartialV1 {
    answers: Vec<(String, Answer)>,
    scored: bool,
}

impl PartialV1 {
    const FORMAT: u8 = 1;
}

impl From<PartialV1> for StoredSession {
    /// Gives the answers the earliest time, so that any new answer replaces them.
    fn from(old: PartialV1) -> Self {
        let answer = |(question, answer)| GatheredAnswer {
            question,
            answer: Some(answer),
            time: EventTime::MIN,
        };
        let answers = old.answers.into_iter().map(answer).collect();
        PartialV2 { answers, scored: old.scored }.into()
    }
}
