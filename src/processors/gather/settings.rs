//! The settings of the gathering of observations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    events::questionnaire::{self, AnswerRow, Question, RowLayout},
    processors::gather::session::SessionRules,
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
    /// Once, when the session ends and the observation is not complete. Complete observations are not scored.
    SessionEnd,
}

/// The settings of [`Gather`](crate::processors::gather::Gather).
#[derive(Clone, Debug)]
pub struct GatherSettings {
    /// The condition for scoring.
    pub when: ScoreWhen,
    /// Whether an observation that is not complete and was not scored is scored when its session ends, whatever `when` is.
    pub at_session_end: bool,
    /// The rules of sessions.
    pub sessions: SessionRules,
    /// The questions, in the order of the schema.
    pub questions: Arc<[Question]>,
    /// The layout of their answers.
    pub layout: RowLayout,
}

impl GatherSettings {
    /// Whether observations that are not complete are scored when their sessions end.
    #[must_use]
    pub fn scores_session_ends(&self) -> bool {
        self.at_session_end || self.when == ScoreWhen::SessionEnd
    }

    /// Whether an observation is scored with its newest event.
    pub(super) fn is_due(&self, answers: &AnswerRow, is_complete: bool, was_scored: bool) -> bool {
        match self.when {
            ScoreWhen::Complete => is_complete,
            ScoreWhen::Answers(enough) => {
                let given = self.layout.answers(answers).filter(|answer| !answer.is_missing());
                !was_scored && (is_complete || given.count() >= enough)
            }
            ScoreWhen::EveryEvent => true,
            ScoreWhen::SessionEnd => false,
        }
    }

    /// The names of the questions without an answer.
    pub(super) fn missing(&self, answers: &AnswerRow) -> Vec<String> {
        let open = self.questions.iter().zip(self.layout.answers(answers));
        let open = open.filter(|(_, answer)| answer.is_missing());
        open.map(|(question, _)| question.name.clone()).collect()
    }

    /// The index of the question with this name or alias.
    pub(super) fn position_of(&self, name: &str) -> Option<usize> {
        questionnaire::position_of(name, &self.questions)
    }
}
