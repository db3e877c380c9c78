//! Gathers the events of a respondent into an observation, and decides when it is scored.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        prediction::ScoreTrigger,
        questionnaire::{
            self, Answer, AnswerRef, AnswerRow, EventIdentity, Question, QuestionnaireEvent,
            RowLayout, WITHDRAWN_HEADER,
        },
        reply,
    },
    processors::{metrics::ApplicationMetrics, placement::Placement, recent_events::RecentEvents},
};
use foretell_streams::{
    codec::{Stored, StoredSince},
    record::InputRecord,
    state::{WindowHandle, Windowed},
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// When an observation is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreWhen {
    /// Once, when the observation is complete: the respondent has submitted, or every answer is given.
    #[default]
    Complete,
    /// Once, when N answers are given or the observation is complete, whichever is first.
    Answers(usize),
    /// With every event, from all answers so far.
    EveryEvent,
}

/// The answers of one respondent so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The respondent.
    pub respondent_id: String,
    /// The event that completed it.
    pub event_id: String,
    /// The identity of that event, from which the id of its prediction is derived, so that a repeated event has the same.
    pub identity: EventIdentity,
    /// The latest event time of its events.
    pub event_time: EventTime,
    /// The record timestamp of the event that completed it.
    pub received_at: WallTime,
    /// Why it is scored now.
    pub trigger: ScoreTrigger,
    /// The answers, in the layout of the schema.
    pub answers: AnswerRow,
}

/// The result of gathering an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Gathered {
    /// The observation is scored now.
    Due(Observation),
    /// The observation waits for more answers. Forwarded only if a caller waits for the event.
    Incomplete {
        /// The event.
        event: RequestedEvent,
        /// The questions without an answer so far.
        missing: Vec<String>,
    },
    /// The event is a repeat. Forwarded only if a caller waits for it.
    Duplicate {
        /// The event.
        event: RequestedEvent,
        /// The id of the prediction of the first one, if there is a prediction.
        prediction_id: String,
    },
}

/// An event that a caller waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedEvent {
    /// The request.
    pub request_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The event.
    pub event_id: String,
}

/// The stored form of an observation that waits for more answers. Answers are stored by name, so they survive a change of the
/// schema. During an upgrade, tasks move between instances with different schemas: an instance keeps answers that its own
/// schema does not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// The latest answer to each question.
    pub answers: Vec<GatheredAnswer>,
    /// Whether the observation was scored.
    pub scored: bool,
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

impl Partial {
    /// The format version of this type and all types in it. A changed field needs a new version.
    pub const FORMAT: u8 = 2;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> StoredSince<Self, PartialV1> {
        StoredSince::new(Stored::version(Self::FORMAT), Stored::version(PartialV1::FORMAT))
    }
}

/// Format 1, without the times of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartialV1 {
    answers: Vec<(String, Answer)>,
    scored: bool,
}

impl PartialV1 {
    const FORMAT: u8 = 1;
}

impl From<PartialV1> for Partial {
    /// Gives the answers the earliest time, so that any new answer replaces them.
    fn from(old: PartialV1) -> Self {
        let answer = |(question, answer)| GatheredAnswer {
            question,
            answer: Some(answer),
            time: EventTime::MIN,
        };
        Self { answers: old.answers.into_iter().map(answer).collect(), scored: old.scored }
    }
}

/// The settings of [`Gather`].
#[derive(Clone, Debug)]
pub struct GatherSettings {
    /// The condition for scoring.
    pub when: ScoreWhen,
    /// Event time without an event after which an observation is dropped.
    pub retention: Duration,
    /// The questions, in the order of the schema.
    pub questions: Arc<[Question]>,
    /// The layout of their answers.
    pub layout: RowLayout,
}

/// The processor from events to observations.
pub struct Gather {
    /// The settings.
    pub settings: GatherSettings,
    /// The identities of recent events.
    pub recent: RecentEvents,
    /// The observations that wait for more answers.
    pub observations: WindowHandle<Partial>,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The check of the events' partitions.
    pub placement: Placement,
}

/// Maximum number of entries to expire at once, which bounds the memory for a long backlog.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;

/// The metadata of an event.
struct Arrival {
    identity: EventIdentity,
    event_id: String,
    received_at: WallTime,
    /// The questions whose answers it withdraws.
    withdrawn: Vec<String>,
    /// The request that waits for the result.
    request_id: Option<String>,
}

impl Arrival {
    fn of(event: &QuestionnaireEvent, input: &InputRecord, settings: &GatherSettings) -> Self {
        let withdrawn = withdrawn(input);
        let identity = EventIdentity::of(event, &settings.questions, &settings.layout, &withdrawn);
        let event_id =
            if event.event_id.is_empty() { identity.id() } else { event.event_id.clone() };
        let received_at = WallTime(input.timestamp.0);
        Self { identity, event_id, received_at, withdrawn, request_id: reply::request_of(input) }
    }

    /// The event for a reply; none if no caller waits.
    fn requested(&self, event: &QuestionnaireEvent) -> Option<RequestedEvent> {
        Some(RequestedEvent {
            request_id: self.request_id.clone()?,
            respondent_id: event.respondent_id.clone(),
            event_id: self.event_id.clone(),
        })
    }

    fn observation(
        self,
        event: &QuestionnaireEvent,
        event_time: EventTime,
        trigger: ScoreTrigger,
        answers: AnswerRow,
    ) -> Observation {
        Observation {
            respondent_id: event.respondent_id.clone(),
            identity: self.identity,
            event_id: self.event_id,
            event_time,
            received_at: self.received_at,
            trigger,
            answers,
        }
    }
}

/// The questions whose answers a record's event withdraws ([`WITHDRAWN_HEADER`]).
pub(super) fn withdrawn(input: &InputRecord) -> Vec<String> {
    let header = input.headers.iter().rfind(|header| header.name == WITHDRAWN_HEADER);
    let text = header.and_then(|header| std::str::from_utf8(&header.value).ok());
    let names = text.into_iter().flat_map(|names| names.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

impl Processor for Gather {
    type In = QuestionnaireEvent;
    type Out = Gathered;

    fn start(&mut self, ctx: &mut Context<'_, Gathered>) {
        let shortest = match self.recent.retention() {
            Duration::ZERO => self.settings.retention,
            retention => retention.min(self.settings.retention),
        };
        let interval = (shortest / 20).max(Duration::from_secs(1));
        ctx.schedule(PunctuationKind::StreamTime, interval);
    }

    fn process(
        &mut self,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        let event = &record.value;
        let Some(input) = ctx.input() else {
            return Err(ProcessError::reject("malformed", "an event outside a record"));
        };
        let arrival = Arrival::of(event, input, &self.settings);
        self.placement.check(&event.respondent_id, ctx);
        if !self.recent.insert(&arrival.identity.fingerprint(), ctx)? {
            ctx.count(&self.metrics.duplicate_events(), 1);
            let prediction_id = arrival.identity.id();
            let Some(event) = arrival.requested(event) else { return Ok(()) };
            return forward(Gathered::Duplicate { event, prediction_id }, record, ctx);
        }
        let before = self.observation_of(&event.respondent_id, record.time, ctx)?;
        let is_submitted = event.completed || self.settings.layout.is_complete(&event.answers);
        if before.is_none() && is_submitted {
            // The common case, a questionnaire in one event, does not use the store.
            let answers = event.answers.clone();
            let observation =
                arrival.observation(event, record.time, ScoreTrigger::Complete, answers);
            return forward(Gathered::Due(observation), record, ctx);
        }
        self.gather(arrival, before, record, ctx)
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(now) = punctuation else { return Ok(()) };
        self.recent.expire(ctx)?;
        let before = now - self.settings.retention;
        loop {
            let mut store = ctx.window(&self.observations);
            let expired = store.expire(before, EXPIRED_AT_ONCE_MAX)?;
            let unscored = expired.iter().filter(|entry| !entry.value.scored).count();
            ctx.count(&self.metrics.incomplete_observations(), unscored as u64);
            if expired.len() < EXPIRED_AT_ONCE_MAX {
                return Ok(());
            }
        }
    }
}

impl Gather {
    /// Merges an event with the stored observation of its respondent.
    fn gather(
        &self,
        arrival: Arrival,
        before: Option<Windowed<Partial>>,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        let event = &record.value;
        let gathered = self.merge(before.as_ref(), record, &arrival.withdrawn);
        let answers = self.answers_of(&gathered);
        let layout = &self.settings.layout;
        let was_scored = before.as_ref().is_some_and(|before| before.value.scored);
        let is_complete = event.completed || layout.is_complete(&answers);
        let is_due = match self.settings.when {
            ScoreWhen::Complete => is_complete,
            ScoreWhen::Answers(enough) => {
                let given = layout.answers(&answers).filter(|answer| !answer.is_missing());
                let answered = given.count();
                !was_scored && (is_complete || answered >= enough)
            }
            ScoreWhen::EveryEvent => true,
        };
        let time = before.as_ref().map_or(record.time, |before| before.time.max(record.time));
        let mut store = ctx.window(&self.observations);
        if let Some(before) = &before {
            store.remove(before);
        }
        if !is_complete {
            let partial = Partial { answers: gathered, scored: was_scored || is_due };
            store.add(&event.respondent_id, time, &partial)?;
        }
        if is_due {
            let trigger = match self.settings.when {
                ScoreWhen::Complete => ScoreTrigger::Complete,
                ScoreWhen::Answers(_) | ScoreWhen::EveryEvent if is_complete => {
                    ScoreTrigger::Complete
                }
                ScoreWhen::Answers(_) => ScoreTrigger::Answers,
                ScoreWhen::EveryEvent => ScoreTrigger::Event,
            };
            let observation = arrival.observation(event, time, trigger, answers);
            return forward(Gathered::Due(observation), record, ctx);
        }
        let Some(requested) = arrival.requested(event) else { return Ok(()) };
        let open = self.settings.questions.iter().zip(layout.answers(&answers));
        let open = open.filter(|(_, answer)| answer.is_missing());
        let missing = open.map(|(question, _)| question.name.clone()).collect();
        forward(Gathered::Incomplete { event: requested, missing }, record, ctx)
    }

    /// The newest stored observation of a respondent within the retention.
    fn observation_of(
        &self,
        respondent_id: &str,
        now: EventTime,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<Option<Windowed<Partial>>, ProcessError> {
        let retention = self.settings.retention;
        let store = ctx.window(&self.observations);
        Ok(store.fetch(respondent_id, now - retention, now + retention)?.pop())
    }

    /// The latest answer to each question by event time, independent of the order of arrival.
    fn merge(
        &self,
        before: Option<&Windowed<Partial>>,
        record: &Record<QuestionnaireEvent>,
        withdrawn: &[String],
    ) -> Vec<GatheredAnswer> {
        let mut gathered = before.map_or_else(Vec::new, |before| before.value.answers.clone());
        let answers = self.settings.layout.answers(&record.value.answers);
        let given = self.settings.questions.iter().zip(answers);
        let given = given.filter(|(_, answer)| !answer.is_missing());
        let given = given.map(|(question, answer)| (question.name.as_str(), answer));
        let withdrawn = withdrawn.iter().map(|name| (name.as_str(), AnswerRef::Missing));
        for (name, answer) in withdrawn.chain(given) {
            let position = self.position_of(name);
            let is_same = |known: &&mut GatheredAnswer| match position {
                Some(_) => self.position_of(&known.question) == position,
                None => known.question == name,
            };
            let answer = answer.to_answer();
            match gathered.iter_mut().find(is_same) {
                Some(known) if record.time < known.time => {}
                Some(known) => (known.answer, known.time) = (answer, record.time),
                None => {
                    let question = name.to_owned();
                    gathered.push(GatheredAnswer { question, answer, time: record.time });
                }
            }
        }
        gathered
    }

    /// The row of the answers to the schema's questions.
    fn answers_of(&self, gathered: &[GatheredAnswer]) -> AnswerRow {
        let mut answers = vec![None; self.settings.questions.len()];
        for known in gathered {
            if let Some(position) = self.position_of(&known.question) {
                answers[position].clone_from(&known.answer);
            }
        }
        self.settings.layout.row_of(&answers)
    }

    /// The index of the question with this name or alias.
    fn position_of(&self, name: &str) -> Option<usize> {
        questionnaire::position_of(name, &self.settings.questions)
    }
}

fn forward(
    gathered: Gathered,
    record: &Record<QuestionnaireEvent>,
    ctx: &mut Context<'_, Gathered>,
) -> Result<(), ProcessError> {
    ctx.forward(&Record { key: record.key.clone(), value: gathered, time: record.time })
}
