//! Merges the answers of events and sessions: for each question, the answer with the latest event time counts, whatever the
//! order of arrival and the topic that it comes from.

use crate::{
    events::questionnaire::{Answer, AnswerRef, AnswerRow, QuestionnaireEvent},
    processors::gather::{
        session::SESSION_TOO_LARGE, settings::GatherSettings, stored::GatheredAnswer,
    },
};
use foretell_streams::{time::EventTime, topology::ProcessError};

/// Maximum size of the answers of a stored session. A change of a store that exceeds `max.message.bytes` of its changelog (1 MB
/// by default) would stop the task, so this is half of it.
pub(super) const ANSWERS_BYTES_MAX: usize = 512 * 1024;

/// The latest answer to each question.
pub(super) struct Answers<'s> {
    settings: &'s GatherSettings,
    gathered: Vec<GatheredAnswer>,
}

impl<'s> Answers<'s> {
    pub(super) fn new(settings: &'s GatherSettings) -> Self {
        Self { settings, gathered: Vec::new() }
    }

    /// Adds the answers of a session. Of two answers with the same time, its own count.
    pub(super) fn add_session(&mut self, answers: Vec<GatheredAnswer>) {
        if self.gathered.is_empty() {
            self.gathered = answers;
            return;
        }
        for GatheredAnswer { question, answer, time } in answers {
            self.add(&question, answer, time);
        }
    }

    /// Adds the answers of an event, and those that it withdraws. Of two answers with the same time, its own count.
    pub(super) fn add_event(
        &mut self,
        event: &QuestionnaireEvent,
        time: EventTime,
        withdrawn: &[String],
    ) {
        let settings = self.settings;
        let given = settings.questions.iter().zip(settings.layout.answers(&event.answers));
        let given = given.filter(|(_, answer)| !answer.is_missing());
        let given = given.map(|(question, answer)| (question.name.as_str(), answer));
        let withdrawn = withdrawn.iter().map(|name| (name.as_str(), AnswerRef::Missing));
        for (name, answer) in withdrawn.chain(given) {
            self.add(name, answer.to_answer(), time);
        }
    }

    fn add(&mut self, name: &str, answer: Option<Answer>, time: EventTime) {
        let Self { settings, gathered } = self;
        let position = settings.position_of(name);
        let is_same = |known: &&mut GatheredAnswer| match position {
            Some(_) => settings.position_of(&known.question) == position,
            None => known.question == name,
        };
        match gathered.iter_mut().find(is_same) {
            Some(known) if time < known.time => {}
            Some(known) => (known.answer, known.time) = (answer, time),
            None => gathered.push(GatheredAnswer { question: name.to_owned(), answer, time }),
        }
    }

    /// The answers for the store.
    ///
    /// # Errors
    /// A rejection if they are larger than [`ANSWERS_BYTES_MAX`].
    pub(super) fn for_store(self) -> Result<Vec<GatheredAnswer>, ProcessError> {
        let size = |one: &GatheredAnswer| {
            let text = match &one.answer {
                Some(Answer::Text(text)) => text.len(),
                Some(Answer::Number(_) | Answer::Whole(_)) | None => 0,
            };
            // Times, lengths and numbers take at most 32 bytes.
            one.question.len() + text + 32
        };
        let bytes: usize = self.gathered.iter().map(size).sum();
        if bytes <= ANSWERS_BYTES_MAX {
            return Ok(self.gathered);
        }
        let message = format!(
            "with this event, the answers of the respondent's session would take {bytes} bytes, and the maximum is {ANSWERS_BYTES_MAX}"
        );
        Err(ProcessError::reject(SESSION_TOO_LARGE, message))
    }
}

/// The row of the answers to the schema's questions.
pub(super) fn row_of(gathered: &[GatheredAnswer], settings: &GatherSettings) -> AnswerRow {
    let mut answers = vec![None; settings.questions.len()];
    for known in gathered {
        if let Some(position) = settings.position_of(&known.question) {
            answers[position].clone_from(&known.answer);
        }
    }
    settings.layout.row_of(&answers)
}

impl Answers<'_> {
    /// The row of the answers to the schema's questions.
    pub(super) fn row(&self) -> AnswerRow {
        row_of(&self.gathered, self.settings)
    }
}
