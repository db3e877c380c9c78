//! Gathers the events of a respondent into an observation, one for each session, and decides when it is scored.
//!
//! ```text
//!   event ─▶ a repeat? ─▶ the open sessions near it ─▶ one session with all their answers
//!                                                        ├── due (complete, N answers, every event) ──────▶ Due
//!                                                        └── not due ─▶ stored, until the session ends ───▶ Due, or dropped
//! ```
//!
//! What belongs to a session and when it ends is in `session.rs`. Events of several sources are gathered by the same rules into one
//! session: an answer has an event time of its own.

mod answers;
mod arrival;
mod observation;
pub mod session;
mod settings;
mod stored;

use std::{sync::Arc, time::Duration};

pub use observation::{Gathered, Observation, RequestedEvent};
pub use settings::{GatherSettings, ScoreWhen};
pub use stored::{GatheredAnswer, LastEvent, StoredSession};

use crate::{
    events::{
        prediction::ScoreTrigger,
        questionnaire::{EventIdentity, EventSource, QuestionnaireEvent},
    },
    processors::{
        gather::{
            answers::Answers,
            arrival::Arrival,
            session::{Joining, SessionEnd, Span},
        },
        metrics::ApplicationMetrics,
        placement::Placement,
        recent_events::RecentEvents,
    },
};
use foretell_streams::{
    metrics::Counter,
    state::{WindowHandle, Windowed},
    time::{EventTime, WallTime},
    topology::{Context, Original, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The processor from events to observations.
pub struct Gather {
    settings: GatherSettings,
    recent: RecentEvents,
    /// The open sessions.
    sessions: WindowHandle<StoredSession>,
    /// The counters of ended sessions, in the order of [`SessionEnd::ALL`].
    ended: [Counter; SessionEnd::ALL.len()],
    metrics: ApplicationMetrics,
    /// The topics of the events, the lead first.
    sources: Arc<[GatherSource]>,
    /// Whether each event is announced by [`Gathered::Arrived`].
    announces: bool,
}

/// A topic with events.
#[derive(Clone)]
pub struct GatherSource {
    /// The source of its events.
    pub source: EventSource,
    /// Whether its schema has a field for each question.
    pub asked: Vec<bool>,
    /// The check of its records' partitions.
    pub placement: Placement,
}

/// Maximum number of sessions to take out of the store at once, which bounds the memory for a long backlog.
const ENDED_AT_ONCE_MAX: usize = 1_000;
/// Maximum number of ended sessions that one punctuation scores, about a tenth of a second of work, so that the transaction ends
/// in time. The next punctuation, a second of stream time later, goes on.
const SCORED_AT_ONCE_MAX: usize = 10_000;
/// The interval at which sessions are scored that have ended.
const SCORING_INTERVAL: Duration = Duration::from_secs(1);

/// A session with an event, before it is stored or ends.
struct OpenSession<'s> {
    span: Span,
    answers: Answers<'s>,
    was_scored: bool,
    last: Option<LastEvent>,
}

/// A session that ends.
struct Ended {
    respondent_id: String,
    span: Span,
    session: StoredSession,
}

impl From<Windowed<StoredSession>> for Ended {
    fn from(entry: Windowed<StoredSession>) -> Self {
        let span = StoredSession::span(&entry);
        Self { respondent_id: entry.key, span, session: entry.value }
    }
}

impl Processor for Gather {
    type In = QuestionnaireEvent;
    type Out = Gathered;

    fn start(&mut self, ctx: &mut Context<'_, Gathered>) {
        let gap = self.settings.sessions.gap;
        let shortest = match self.recent.retention() {
            Duration::ZERO => gap,
            retention => retention.min(gap),
        };
        let interval = if self.settings.scores_session_ends() {
            SCORING_INTERVAL
        } else {
            (shortest / 20).max(SCORING_INTERVAL)
        };
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
        let Some(source) = self.source(&event.source) else {
            return Err(ProcessError::reject("malformed", "an event of an unknown source"));
        };
        let arrival = Arrival::of(event, input, &source.asked, &self.settings);
        source.placement.check(&event.respondent_id, ctx);
        if !self.recent.insert(&arrival.identity.fingerprint(), ctx)? {
            ctx.count(&self.metrics.duplicate_events(), 1);
            let prediction_id = arrival.identity.id();
            let Some(event) = arrival.requested(event) else { return Ok(()) };
            return forward(Gathered::Duplicate { event, prediction_id }, record, ctx);
        }
        let near = self.sessions_near(&event.respondent_id, record.time, ctx)?;
        let is_submitted = event.completed || self.settings.layout.is_complete(&event.answers);
        if near.is_empty() && is_submitted && self.settings.when != ScoreWhen::SessionEnd {
            // The common case, a questionnaire in one event, does not use the store.
            self.announce(record, ctx)?;
            self.count(SessionEnd::Completed, ctx);
            let (trigger, answers) = (ScoreTrigger::Complete, event.answers.clone());
            let observation = arrival.observation(event, record.time, trigger, answers);
            return forward(Gathered::Due(observation), record, ctx);
        }
        self.gather(&arrival, near, record, ctx)
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(now) = punctuation else { return Ok(()) };
        self.recent.expire(ctx)?;
        let before = self.settings.sessions.ended_before(now);
        let mut count = 0;
        loop {
            let ended = ctx.window(&self.sessions).expire(before, ENDED_AT_ONCE_MAX)?;
            let is_last = ended.len() < ENDED_AT_ONCE_MAX;
            count += ended.len();
            for entry in ended {
                self.end(&entry.into(), SessionEnd::Gap, ctx)?;
            }
            if is_last || self.settings.scores_session_ends() && count >= SCORED_AT_ONCE_MAX {
                return Ok(());
            }
        }
    }
}

impl Gather {
    /// A processor of the events of `sources` that keeps open sessions in `sessions`.
    ///
    /// If `announces`, it forwards [`Gathered::Arrived`] for each event.
    #[must_use]
    pub fn new(
        settings: GatherSettings,
        recent: RecentEvents,
        sessions: WindowHandle<StoredSession>,
        metrics: &ApplicationMetrics,
        sources: Arc<[GatherSource]>,
        announces: bool,
    ) -> Self {
        let (ended, metrics) = (metrics.sessions(), metrics.clone());
        Self { settings, recent, sessions, ended, metrics, sources, announces }
    }

    fn source(&self, source: &EventSource) -> Option<&GatherSource> {
        self.sources.iter().find(|known| known.source == *source)
    }

    /// The topic of a session's last event. Its companion may not be configured any more.
    fn topic_of(&self, last: &LastEvent) -> String {
        match (self.source(&last.source), last.source.companion_name()) {
            (Some(source), _) => source.placement.topic().as_str().to_owned(),
            (None, name) => name.unwrap_or_default().to_owned(),
        }
    }

    fn announce(
        &self,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        if !self.announces {
            return Ok(());
        }
        let respondent_id = record.value.respondent_id.clone();
        forward(Gathered::Arrived { respondent_id }, record, ctx)
    }

    /// Merges an event with the open sessions near it.
    fn gather(
        &self,
        arrival: &Arrival,
        near: Vec<Windowed<StoredSession>>,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        let event = &record.value;
        let OpenSession { span, answers, was_scored, last } =
            self.join(arrival, near, record, ctx)?;
        self.announce(record, ctx)?;
        let row = answers.row();
        let is_complete = event.completed || self.settings.layout.is_complete(&row);
        let is_due = self.settings.is_due(&row, is_complete, was_scored);
        if is_complete {
            self.count(SessionEnd::Completed, ctx);
        } else {
            let session = StoredSession {
                answers: answers.for_store()?,
                scored: was_scored || is_due,
                length_ms: length_ms(span),
                events: span.events,
                last,
            };
            let respondent_id = event.respondent_id.clone();
            self.store_or_end(Ended { respondent_id, span, session }, ctx)?;
        }
        if is_due {
            let trigger = match (is_complete, self.settings.when) {
                (true, _) => ScoreTrigger::Complete,
                (false, ScoreWhen::Answers(_)) => ScoreTrigger::Answers,
                (false, ScoreWhen::Complete | ScoreWhen::EveryEvent | ScoreWhen::SessionEnd) => {
                    ScoreTrigger::Event
                }
            };
            let observation = arrival.observation(event, span.last, trigger, row);
            return forward(Gathered::Due(observation), record, ctx);
        }
        let Some(requested) = arrival.requested(event) else { return Ok(()) };
        let missing = self.settings.missing(&row);
        forward(Gathered::Incomplete { event: requested, missing }, record, ctx)
    }

    /// Makes one session of an event and the sessions near it, which are taken out of the store, and ends those that have ended.
    fn join(
        &self,
        arrival: &Arrival,
        near: Vec<Windowed<StoredSession>>,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<OpenSession<'_>, ProcessError> {
        let rules = &self.settings.sessions;
        let ended_before = rules.ended_before(ctx.stream_time());
        let mut span = Span::of_event(record.time);
        let mut joined = Vec::new();
        // The latest first: if not all can be one session, an event belongs to the latest.
        for entry in near.into_iter().rev() {
            let session = StoredSession::span(&entry);
            let end = if session.last < ended_before {
                SessionEnd::Gap
            } else {
                match rules.joining(span, session) {
                    Joining::Together(both) => {
                        ctx.window(&self.sessions).remove(&entry);
                        span = both;
                        joined.push(entry);
                        continue;
                    }
                    Joining::Apart => continue,
                    Joining::Ends(end) => end,
                }
            };
            ctx.window(&self.sessions).remove(&entry);
            self.end(&entry.into(), end, ctx)?;
        }
        let mut answers = Answers::new(&self.settings);
        let was_scored = joined.iter().any(|entry| entry.value.scored);
        let mut last = None;
        for entry in joined.into_iter().rev() {
            answers.add_session(entry.value.answers);
            last = entry.value.last;
        }
        answers.add_event(&record.value, record.time, &arrival.withdrawn);
        if record.time >= span.last && self.settings.scores_session_ends() {
            last = Some(arrival.last_event(&record.value));
        }
        Ok(OpenSession { span, answers, was_scored, last })
    }

    /// Stores a session that is not complete, unless it ends at once.
    fn store_or_end(
        &self,
        open: Ended,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        let rules = &self.settings.sessions;
        if open.span.last < rules.ended_before(ctx.stream_time()) {
            return self.end(&open, SessionEnd::Late, ctx);
        }
        if rules.is_full(open.span) {
            return self.end(&open, SessionEnd::EventsMax, ctx);
        }
        let Ended { respondent_id, span, session } = open;
        Ok(ctx.window(&self.sessions).add(&respondent_id, span.last, &session)?)
    }

    /// Counts a session that ended without completion, and scores it if it was not scored before and the settings say so.
    fn end(
        &self,
        ended: &Ended,
        end: SessionEnd,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<(), ProcessError> {
        self.count(end, ctx);
        if ended.session.scored {
            return Ok(());
        }
        if !self.settings.scores_session_ends() {
            ctx.count(&self.metrics.incomplete_observations(), 1);
            return Ok(());
        }
        let (last, observation) = self.observation_at_end(ended, end);
        let key = Some(ended.respondent_id.clone().into_bytes());
        let (time, value) = (observation.event_time, Gathered::Due(observation));
        match ctx.forward(&Record { key: key.clone(), value, time }) {
            // `score` rejects an observation before it forwards anything. The event is not the one that is processed now, and
            // in a punctuation, the rejection would stop all that come after it.
            Err(ProcessError::Reject { class, message, .. }) => {
                let original = Original {
                    topic: self.topic_of(&last),
                    partition: ctx.partition().0,
                    offset: last.offset,
                    timestamp: EventTime(last.received_at.0),
                    key,
                    value: None,
                    headers: Vec::new(),
                };
                let message = format!("the end of a session cannot be scored: {message}");
                ctx.dead_letter(original, class, message);
                Ok(())
            }
            result => result,
        }
    }

    /// The observation of a session that ended, and its last event.
    fn observation_at_end(&self, ended: &Ended, end: SessionEnd) -> (LastEvent, Observation) {
        let Ended { respondent_id, span, session } = ended;
        let GatherSettings { sessions: rules, questions, layout, .. } = &self.settings;
        let answers = answers::row_of(&session.answers, &self.settings);
        let last = session.last.clone().unwrap_or_else(|| {
            // A session of an earlier release, or of a time when sessions were not scored at their ends.
            let event = QuestionnaireEvent {
                source: EventSource::Lead,
                event_id: String::new(),
                respondent_id: respondent_id.clone(),
                event_time: span.last,
                completed: false,
                answers: answers.clone(),
            };
            LastEvent {
                identity: EventIdentity::of(&event, questions, layout, &[]),
                event_id: String::new(),
                received_at: WallTime(span.last.0),
                offset: -1,
                source: EventSource::Lead,
            }
        });
        let event_id =
            if last.event_id.is_empty() { last.identity.id() } else { last.event_id.clone() };
        let observation = Observation {
            respondent_id: respondent_id.clone(),
            event_id,
            identity: last.identity.of_session_end(),
            event_time: rules.end_of(*span, end),
            received_at: last.received_at,
            trigger: ScoreTrigger::SessionEnd,
            answers,
        };
        (last, observation)
    }

    /// The sessions of a respondent that an event of this time is near to, or that have ended and no punctuation has found yet, by
    /// the times of their last events.
    fn sessions_near(
        &self,
        respondent_id: &str,
        time: EventTime,
        ctx: &mut Context<'_, Gathered>,
    ) -> Result<Vec<Windowed<StoredSession>>, ProcessError> {
        let rules = &self.settings.sessions;
        let ended_before = rules.ended_before(ctx.stream_time());
        let store = ctx.window(&self.sessions);
        let mut found = store.fetch_all(respondent_id)?;
        found.retain(|entry| {
            let session = StoredSession::span(entry);
            session.last < ended_before || rules.is_near(session, time)
        });
        Ok(found)
    }

    fn count(&self, end: SessionEnd, ctx: &mut Context<'_, Gathered>) {
        ctx.count(&self.ended[end as usize], 1);
    }
}

fn length_ms(span: Span) -> u64 {
    u64::try_from(span.last.since(span.first).as_millis()).unwrap_or(u64::MAX)
}

fn forward(
    gathered: Gathered,
    record: &Record<QuestionnaireEvent>,
    ctx: &mut Context<'_, Gathered>,
) -> Result<(), ProcessError> {
    ctx.forward(&Record { key: record.key.clone(), value: gathered, time: record.time })
}
