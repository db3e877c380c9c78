//! What the user's schema takes: which ids, which answers, and which events that it lets be written and then refuses.
//! The codec is asked, so that this can't differ from what is sent.

use std::sync::Arc;

use anyhow::Context;
use sha2::{Digest as _, Sha256};

use crate::{
    app::table::Row,
    config::Config,
    events::questionnaire::{Answer, EventIdentity, Question, QuestionnaireEvent},
    processors::gather::ScoreWhen,
};
use foretell_ml::{Column, ColumnKind};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{Partition, partition_of},
    time::EventTime,
};

/// How events of one schema are made. Each id that it makes is a new one.
pub struct EventForm {
    codec: Arc<dyn Codec<QuestionnaireEvent>>,
    columns: Vec<Column>,
    /// The questions, in the order of the schema.
    pub questions: Arc<[Question]>,
    /// When the other side scores.
    pub when: ScoreWhen,
    has_completed: bool,
    has_event_id: bool,
    respondent: IdForm,
    event: IdForm,
    /// Begins every text id, so that two plays have different respondents.
    prefix: String,
    start: EventTime,
    next: u32,
}

/// Which ids a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdForm {
    Text,
    Long,
    Int,
    Uuid,
}

const ID_FORMS: [IdForm; 4] = [IdForm::Text, IdForm::Long, IdForm::Int, IdForm::Uuid];
/// Rows looked at for one that the schema takes.
const ROWS_LOOKED_AT_MAX: usize = 1_000;
/// What a category may be that no model has seen, whatever its type.
const UNSEEN: [&str; 3] =
    ["never seen before", "-987654321", "00000000-0000-4000-8000-00000000dead"];
/// Numbers beyond what models have seen; the largest that the type takes is sent.
const BEYOND: [f64; 9] = [1e17, 1e12, 2e9, 1e6, 32_000.0, 9_999.0, 999.0, 99.0, 9.0];

impl EventForm {
    /// Finds out by `rows`. Ids begin with `prefix`, or, where they are numbers, depend on `start`.
    ///
    /// # Errors
    /// If the schema takes none of the rows; it says why not the first.
    pub fn new(
        config: &Config,
        codec: Arc<dyn Codec<QuestionnaireEvent>>,
        rows: &[Row],
        (prefix, start): (&str, EventTime),
    ) -> anyhow::Result<Self> {
        let events = &config.events;
        let mut form = Self {
            codec,
            columns: config.pipeline.columns().to_vec(),
            questions: Arc::clone(&config.gather.questions),
            when: config.gather.when,
            has_completed: events.completed.is_some(),
            has_event_id: events.event_id.is_some(),
            respondent: IdForm::Text,
            event: IdForm::Text,
            prefix: prefix.to_owned(),
            start,
            next: 0,
        };
        for row in rows.iter().take(ROWS_LOOKED_AT_MAX) {
            for (respondent, event) in
                ID_FORMS.iter().flat_map(|one| ID_FORMS.iter().map(move |other| (*one, *other)))
            {
                (form.respondent, form.event) = (respondent, event);
                if form.takes(&form.sample(&row.answers)) {
                    return Ok(form);
                }
            }
        }
        let first = rows.first().context("the table that is to be played has no rows")?;
        // The ids that a text field would not take are no longer in question.
        let reasons = ID_FORMS.iter().filter_map(|respondent| {
            (form.respondent, form.event) = (*respondent, *respondent);
            form.codec.encode(&form.sample(&first.answers), &mut Vec::new()).err()
        });
        let reasons: Vec<String> = reasons.map(|error| error.to_string()).collect();
        anyhow::bail!("the event schema takes no row of the table: {}", reasons.join("; "))
    }

    fn sample(&self, answers: &[Option<Answer>]) -> QuestionnaireEvent {
        self.event_of(&self.id(self.respondent, "sample", 0), self.start, answers.to_vec())
    }

    /// Whether the schema takes these answers.
    #[must_use]
    pub fn fits(&self, answers: &[Option<Answer>]) -> bool {
        self.takes(&self.sample(answers))
    }

    /// An event that says all that its respondent has to say.
    #[must_use]
    pub fn event_of(
        &self,
        respondent_id: &str,
        at: EventTime,
        answers: Vec<Option<Answer>>,
    ) -> QuestionnaireEvent {
        let event_id = format!("{respondent_id}-last");
        QuestionnaireEvent {
            event_id: self.event_id(&event_id),
            respondent_id: respondent_id.to_owned(),
            event_time: at,
            completed: self.has_completed,
            answers,
        }
    }

    /// The event id that stands for `name`; empty if the schema has none.
    #[must_use]
    pub fn event_id(&self, name: &str) -> String {
        if !self.has_event_id {
            return String::new();
        }
        match self.event {
            IdForm::Text => name.to_owned(),
            IdForm::Long | IdForm::Int | IdForm::Uuid => {
                let hash = Sha256::digest(name.as_bytes());
                self.id(self.event, name, u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
            }
        }
    }

    /// A respondent that there was not before.
    pub fn new_respondent(&mut self, kind: &str) -> String {
        self.next += 1;
        self.id(self.respondent, kind, self.next)
    }

    /// A new respondent in each partition.
    pub fn new_respondents_everywhere(&mut self, kind: &str, partitions: u32) -> Vec<String> {
        let all = (0..partitions).filter_map(|number| Some(Partition(i32::try_from(number).ok()?)));
        let mut missing: Vec<Partition> = all.collect();
        let mut found = Vec::new();
        while !missing.is_empty() {
            let id = self.new_respondent(kind);
            let partition = partition_of(id.as_bytes(), partitions);
            if let Some(index) = missing.iter().position(|open| *open == partition) {
                missing.remove(index);
                found.push(id);
            }
        }
        found
    }

    fn id(&self, form: IdForm, kind: &str, number: u32) -> String {
        let millis = self.start.0.max(0);
        let text = || format!("{}-{kind}-{number}", self.prefix);
        match form {
            IdForm::Text => text(),
            // A million for each millisecond: until the year 2262 that fits 64 bits.
            IdForm::Long => {
                millis.saturating_mul(1_000_000).saturating_add(number.into()).to_string()
            }
            // Plays at other times overlap if they are large: 31 bits are not more.
            IdForm::Int => {
                ((millis / 1_000 * 1_009 + i64::from(number)) % i64::from(i32::MAX)).to_string()
            }
            IdForm::Uuid => {
                let hash = Sha256::digest(text().as_bytes());
                let hex = hex::encode(&hash[..16]);
                let (a, b, c, d, e) =
                    (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
                format!("{a}-{b}-{c}-{d}-{e}")
            }
        }
    }

    /// Whether the event arrives as it is sent.
    #[must_use]
    pub fn takes(&self, event: &QuestionnaireEvent) -> bool {
        let mut bytes = Vec::new();
        self.codec.encode(event, &mut bytes).is_ok()
            && self.codec.decode(&bytes).is_ok_and(|decoded| decoded == *event)
    }

    /// The bytes of an event that can be written and not be used, and the class under which it is dead-lettered; none
    /// if it can't be written, or is used.
    #[must_use]
    pub fn refused(&self, event: &QuestionnaireEvent) -> Option<(Vec<u8>, &'static str)> {
        let mut bytes = Vec::new();
        self.codec.encode(event, &mut bytes).ok()?;
        match self.codec.decode(&bytes) {
            Err(CodecError::Unreadable { class, .. }) => Some((bytes, class)),
            Ok(_) | Err(CodecError::OtherFormat { .. } | CodecError::Unavailable { .. }) => None,
        }
    }

    /// How the prediction for an event is called.
    #[must_use]
    pub fn prediction_id(&self, event: &QuestionnaireEvent) -> String {
        EventIdentity::of(event, &self.questions, &[]).id()
    }

    /// Whether an event is scored that is the first of its respondent.
    #[must_use]
    pub fn is_scored_alone(&self, event: &QuestionnaireEvent) -> bool {
        let answered = event.answers.iter().flatten().count();
        let is_complete = event.completed || answered == event.answers.len();
        is_complete
            || match self.when {
                ScoreWhen::Complete => false,
                ScoreWhen::Answers(enough) => answered >= enough,
                ScoreWhen::EveryEvent => true,
            }
    }

    /// `event` with categories that no model has seen, wherever the schema allows them; none if it does nowhere.
    #[must_use]
    pub fn with_unseen_categories(&self, event: &QuestionnaireEvent) -> Option<QuestionnaireEvent> {
        let candidates = UNSEEN.iter().map(|text| Answer::Text((*text).to_owned()));
        let candidates: Vec<Answer> = candidates.chain([Answer::Number(-987_654_321.0)]).collect();
        self.with(event, ColumnKind::Categorical, &candidates)
    }

    /// `event` with numbers beyond what models have seen, wherever the schema allows them; none if it does nowhere.
    #[must_use]
    pub fn with_large_numbers(&self, event: &QuestionnaireEvent) -> Option<QuestionnaireEvent> {
        let numbers = BEYOND.iter().map(|number| Answer::Number(*number));
        let texts = BEYOND.iter().map(|number| Answer::Text(number.to_string()));
        let candidates: Vec<Answer> = numbers.chain(texts).collect();
        self.with(event, ColumnKind::Numeric, &candidates)
    }

    /// Each answer of a `kind` replaced by the first of the candidates that arrives as it is sent.
    fn with(
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
                let before = changed.answers[index].replace(candidate.clone());
                if self.takes(&changed) {
                    is_changed = true;
                    break;
                }
                changed.answers[index] = before;
            }
        }
        is_changed.then_some(changed)
    }
}
