//! Scores rows of answers with a model: the evaluator and the conversion of the stream, without the stream.

use std::sync::Arc;

use crate::{
    events::questionnaire::{AnswerRow, QuestionnaireSchema},
    processors::{
        convert,
        reasons::{NoReasons, Reasons},
    },
};
use foretell_ml::{Label, Probabilities, Scorer, Scratch};

/// A model that scores rows.
#[derive(Clone, Debug)]
pub struct RowScorer(Arc<Scorer>);

/// The score of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowScore {
    probabilities: Probabilities,
    label: Label,
}

impl RowScore {
    /// The probability of each class, in the order of the model's classes.
    #[must_use]
    pub fn probabilities(&self) -> &[f64] {
        self.probabilities.as_slice()
    }

    /// The index of the class that is decided on.
    #[must_use]
    pub fn class(&self) -> usize {
        self.label.index()
    }
}

impl RowScorer {
    /// Scores with this model, also after another one serves.
    #[must_use]
    pub fn new(scorer: Arc<Scorer>) -> Self {
        Self(scorer)
    }

    /// The version of the model.
    #[must_use]
    pub fn version(&self) -> &str {
        self.0.version().as_str()
    }

    /// The classes of the model.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        self.0.classes()
    }

    /// Scores each row. A question that the model does not know is not read, and a column without an answer is missing, as in
    /// the stream. The feature contract is not applied.
    #[must_use]
    pub fn score(&self, events: &QuestionnaireSchema, rows: &[AnswerRow]) -> Vec<RowScore> {
        let columns = convert::columns_by_question(self.0.columns(), events.questions());
        let mut scratch = Scratch::default();
        let rows = rows.iter().map(|row| {
            let values = convert::values_by_column(&columns, events.layout(), row);
            let (probabilities, _) = self.0.score_columns(values, &mut scratch);
            let label = self.0.decide(&probabilities);
            RowScore { probabilities, label }
        });
        rows.collect()
    }

    /// The `most` largest reasons for the class of a row that this model has scored.
    ///
    /// # Errors
    /// [`NoReasons::NoLeafCounts`].
    pub fn reasons(
        &self,
        events: &QuestionnaireSchema,
        row: &AnswerRow,
        score: &RowScore,
        most: usize,
    ) -> Result<Reasons, NoReasons> {
        Reasons::of_answers(&self.0, row, score.label, events, most)
    }
}
