//! Makes events that the schema of the user accepts: ids, answers, and invalid events that it can encode. Each is tried
//! with the codec, so that the result is the same as in the stream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use sha2::{Digest as _, Sha256};

use crate::{
    app::{play::PlaySources, table::Row},
    config::Config,
    events::questionnaire::{
        Answer, AnswerRow, EventIdentity, EventSource, Question, QuestionnaireEvent,
        QuestionnaireSchema,
    },
    processors::gather::ScoreWhen,
};
use foretell_ml::{Column, ColumnKind};
use foretell_streams::{codec::CodecError, record::partition_of, time::EventTime};

/// Makes events with new ids. Whole events have the answers of all sources; they are sent in parts.
pub struct EventFactory {
    sources: PlaySources,
    /// Event time by which the parts of a whole event come before the last.
    pub ahead: Duration,
    schema: Arc<QuestionnaireSchema>,
    columns: Vec<Column>,
    /// The questions, in the order of the schema.
    questions: Arc<[Question]>,
    /// Condition under which the application scores a questionnaire.
    pub when: ScoreWhen,
    /// Whether observations that are not complete are scored when their sessions end.
    pub scores_session_ends: bool,
    respondent: IdType,
    /// Prefix of text ids. It makes the respondents of two plays distinct.
    prefix: String,
    /// Makes numeric ids of two plays distinct.
    start: EventTime,
    next: u32,
}

/// Type of the field with the respondent id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdType {
    Text,
    Long,
    Int,
    Uuid,
}

const ID_TYPES: [IdType; 4] = [IdType::Text, IdType::Long, IdType::Int, IdType::Uuid];
/// Number of rows in which one is searched that the schema accepts.
const SAMPLE_ROWS_MAX: usize = 1_000;
/// Categories that no model has seen, for the types that a category can have.
const UNSEEN: [&str; 3] =
    ["never seen before", "-987654321", "00000000-0000-4000-8000-00000000dead"];
/// Numbers out of the range of the training data. The first one that the type can hold is used.
const OUT_OF_RANGE: [f64; 9] = [1e17, 1e12, 2e9, 1e6, 32_000.0, 9_999.0, 999.0, 99.0, 9.0];

impl EventFactory {
    /// Finds the type of ids by trying it with `rows`. Text ids begin with `prefix`, numeric ids depend on `start`.
    ///
    /// # Errors
    /// If the schema accepts no row; the message says why it rejects the first.
    pub fn new(
        config: &Config,
        sources: &PlaySources,
        rows: &[Row],
        prefix: &str,
        start: EventTime,
    ) -> anyhow::Result<Self> {
        let mut factory = Self {
            sources: sources.clone(),
            ahead: Duration::ZERO,
            schema: Arc::clone(&config.event_schema),
            columns: config.pipeline.columns().to_vec(),
            questions: Arc::clone(&config.gather.questions),
            when: config.gather.when,
            scores_session_ends: config.gather.scores_session_ends(),
            respondent: IdType::Text,
            prefix: prefix.to_owned(),
            start,
            next: 0,
        };
        for row in rows.iter().take(SAMPLE_ROWS_MAX) {
            for id_type in ID_TYPES {
                factory.respondent = id_type;
                if factory.accepts(&factory.sample(&row.answers)) {
                    return Ok(factory);
                }
            }
        }
        let first = rows.first().context("the table has no rows")?;
        let reasons = ID_TYPES.iter().filter_map(|id_type| {
            factory.respondent = *id_type;
            let parts = factory.parts(&factory.sample(&first.answers));
            parts.iter().find_map(|part| factory.sources.encode(part, &mut Vec::new()).err())
        });
        let reasons: Vec<String> = reasons.map(|error| error.to_string()).collect();
        anyhow::bail!("the event schema accepts no row of the table: {}", reasons.join("; "))
    }

    fn sample(&self, answers: &AnswerRow) -> QuestionnaireEvent {
        self.event_of(&self.respondent_id("sample", 0), self.start, answers.clone())
    }

    /// Whether the schema accepts an event with these answers.
    #[must_use]
    pub fn accepts_answers(&self, answers: &AnswerRow) -> bool {
        self.accepts(&self.sample(answers))
    }

    /// Whether there are companions, so that whole events have several parts.
    #[must_use]
    pub fn has_companions(&self) -> bool {
        self.sources.has_companions()
    }

    /// The events that are sent for a whole one, in order; without companions the event itself.
    #[must_use]
    pub fn parts(&self, whole: &QuestionnaireEvent) -> Vec<QuestionnaireEvent> {
        self.sources.parts(whole, self.ahead)
    }

    /// A completed questionnaire in one event.
    #[must_use]
    pub fn event_of(
        &self,
        respondent_id: &str,
        at: EventTime,
        answers: AnswerRow,
    ) -> QuestionnaireEvent {
        let event_id = format!("{respondent_id}-last");
        QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: self.event_id(&event_id),
            respondent_id: respondent_id.to_owned(),
            event_time: at,
            completed: self.sources.has_completed_flag(),
            answers,
        }
    }

    /// The event id for `name`; empty if the schema has no event ids.
    #[must_use]
    pub fn event_id(&self, name: &str) -> String {
        match self.schema.metadata().event_id {
            Some(_) => self.schema.event_id_of_name(name),
            None => String::new(),
        }
    }

    /// The id of a new respondent.
    pub fn new_respondent(&mut self, kind: &str) -> String {
        self.next += 1;
        self.respondent_id(kind, self.next)
    }

    /// A new respondent in each partition.
    pub fn new_respondents_everywhere(&mut self, kind: &str, partitions: u32) -> Vec<String> {
        let mut by_partition = BTreeMap::new();
        while by_partition.len() < usize::try_from(partitions).unwrap_or(usize::MAX) {
            let id = self.new_respondent(kind);
            by_partition.entry(partition_of(id.as_bytes(), partitions)).or_insert(id);
        }
        by_partition.into_values().collect()
    }

    fn respondent_id(&self, kind: &str, number: u32) -> String {
        let millis = self.start.0.max(0);
        let text = || format!("{}-{kind}-{number}", self.prefix);
        match self.respondent {
            IdType::Text => text(),
            // A million ids for each millisecond: they fit 64 bits until the year 2262.
            IdType::Long => {
                millis.saturating_mul(1_000_000).saturating_add(number.into()).to_string()
            }
            // Ids of two large plays may overlap: there are only 31 bits.
            IdType::Int => {
                ((millis / 1_000 * 1_009 + i64::from(number)) % i64::from(i32::MAX)).to_string()
            }
            IdType::Uuid => {
                let hash = Sha256::digest(text().as_bytes());
                let hex = hex::encode(&hash[..16]);
                let (a, b, c, d, e) =
                    (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
                format!("{a}-{b}-{c}-{d}-{e}")
            }
        }
    }

    /// Whether the schemas can encode the parts of a whole event, and the reader gets the same events.
    #[must_use]
    pub fn accepts(&self, whole: &QuestionnaireEvent) -> bool {
        self.parts(whole).iter().all(|part| {
            let mut bytes = Vec::new();
            self.sources.encode(part, &mut bytes).is_ok()
                && self.sources.decode(part, &bytes).is_ok_and(|decoded| decoded == *part)
        })
    }

    /// The bytes of the lead's part of a whole event, if its schema can encode it but the reader rejects it, with the error class.
    /// `None` if there is no such event.
    #[must_use]
    pub fn encode_invalid(&self, whole: &QuestionnaireEvent) -> Option<(Vec<u8>, &'static str)> {
        let (part, mut bytes) = (self.sources.part_of_lead(whole), Vec::new());
        self.sources.encode(&part, &mut bytes).ok()?;
        match self.sources.decode(&part, &bytes) {
            Err(CodecError::Unreadable { class, .. }) => Some((bytes, class)),
            Ok(_) | Err(CodecError::OtherFormat { .. } | CodecError::Unavailable { .. }) => None,
        }
    }

    /// Id of the prediction for an event.
    #[must_use]
    pub fn prediction_id(&self, event: &QuestionnaireEvent) -> String {
        EventIdentity::of(event, &self.questions, self.schema.layout(), &[]).id()
    }

    /// Id of the prediction at the end of a session whose last event is `event`.
    #[must_use]
    pub fn session_end_id(&self, event: &QuestionnaireEvent) -> String {
        let identity = EventIdentity::of(event, &self.questions, self.schema.layout(), &[]);
        identity.of_session_end().id()
    }

    /// Whether each question has an answer.
    #[must_use]
    pub fn answered(&self, answers: &AnswerRow) -> Vec<bool> {
        self.schema.layout().answers(answers).map(|answer| !answer.is_missing()).collect()
    }

    /// The row with only the answers to the questions whose index `is_kept`.
    #[must_use]
    pub fn keep(&self, answers: &AnswerRow, is_kept: impl Fn(usize) -> bool) -> AnswerRow {
        self.schema.layout().keep(answers, is_kept)
    }

    /// Whether a row that is sent as one event is scored.
    #[must_use]
    pub fn is_scored_alone(&self, event: &QuestionnaireEvent) -> bool {
        let answered = self.answered(&event.answers).iter().filter(|is_given| **is_given).count();
        match self.when {
            ScoreWhen::Complete => self.is_complete(event),
            ScoreWhen::Answers(enough) => self.is_complete(event) || answered >= enough,
            ScoreWhen::EveryEvent => true,
            ScoreWhen::SessionEnd => !self.is_complete(&self.left(event.clone())),
        }
    }

    fn is_complete(&self, event: &QuestionnaireEvent) -> bool {
        event.completed || self.schema.layout().is_complete(&event.answers)
    }

    /// The event of a respondent who leaves before the questionnaire is complete: without the last answer, if all are given and the
    /// schema allows one to be missing.
    #[must_use]
    pub fn left(&self, event: QuestionnaireEvent) -> QuestionnaireEvent {
        let event = QuestionnaireEvent { completed: false, ..event };
        if !self.is_complete(&event) {
            return event;
        }
        let without = |question: usize| {
            let answers = self.keep(&event.answers, |index| index != question);
            QuestionnaireEvent { answers, ..event.clone() }
        };
        let shorter = (0..self.questions.len()).rev().map(without).find(|one| self.accepts(one));
        shorter.unwrap_or(event)
    }

    /// `event` with unseen categories wherever the schema allows them; `None` if it allows none.
    #[must_use]
    pub fn with_unseen_categories(&self, event: &QuestionnaireEvent) -> Option<QuestionnaireEvent> {
        let candidates = UNSEEN.iter().map(|text| Answer::Text((*text).to_owned()));
        let candidates: Vec<Answer> = candidates.chain([Answer::Number(-987_654_321.0)]).collect();
        self.replace_answers(event, ColumnKind::Categorical, &candidates)
    }

    /// `event` with numbers out of range wherever the schema allows them; `None` if it allows none.
    #[must_use]
    pub fn with_large_numbers(&self, event: &QuestionnaireEvent) -> Option<QuestionnaireEvent> {
        let numbers = OUT_OF_RANGE.iter().map(|number| Answer::Number(*number));
        let texts = OUT_OF_RANGE.iter().map(|number| Answer::Text(number.to_string()));
        let candidates: Vec<Answer> = numbers.chain(texts).collect();
        self.replace_answers(event, ColumnKind::Numeric, &candidates)
    }

    /// `event` with each answer of a `kind` replaced by the first candidate that the schema accepts.
    fn replace_answers(
        &self,
        event: &QuestionnaireEvent,
        kind: ColumnKind,
        candidates: &[Answer],
    ) -> Option<QuestionnaireEvent> {
        let mut changed = event.clone();
        let mut is_changed = false;
        for (index, question) in self.questions.iter().enumerate() {
            let column = self.columns.iter().find(|column| column.name == question.name);
            if column.is_none_or(|column| column.kind != kind) {
                continue;
            }
            for candidate in candidates {
                let layout = self.schema.layout();
                let Some(answers) = layout.replace(&changed.answers, index, candidate) else {
                    continue;
                };
                let before = std::mem::replace(&mut changed.answers, answers);
                if self.accepts(&changed) {
                    is_changed = true;
                    break;
                }
                changed.answers = before;
            }
        }
        is_changed.then_some(changed)
    }
}
