//! The variables of a condition: their types, from the event schema and the labels, and their values in a prediction.

use crate::events::{
    prediction::{PredictionRef, ScoreTrigger},
    questionnaire::{AnswerRef, QuestionnaireSchema, RowLayout, RowType},
};
use foretell_rules::{Scope, Slot, Type, Value, Values};

/// The variables that conditions may name.
#[derive(Clone, Debug)]
pub struct Variables {
    scope: Scope,
    /// By the index of the slot.
    sources: Vec<Source>,
    labels: Vec<String>,
    layout: RowLayout,
}

/// What a variable is read from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Label,
    ModelVersion,
    RespondentId,
    Trigger,
    /// The probability of a label, by its index among the configured ones.
    Probability(usize),
    /// An answer, by the index of its question.
    Answer(usize),
}

impl Variables {
    /// The variables for an event schema and the configured labels.
    #[must_use]
    pub fn new(schema: &QuestionnaireSchema, labels: &[String]) -> Self {
        let mut scope = Scope::new();
        let label = scope.plain("label", Type::Text);
        scope.one_of(label, labels.iter().cloned());
        scope.plain("model_version", Type::Text);
        scope.plain("respondent_id", Type::Text);
        let trigger = scope.plain("trigger", Type::Text);
        scope.one_of(trigger, ScoreTrigger::ALL.map(|trigger| trigger.name().to_owned()));
        let mut sources =
            vec![Source::Label, Source::ModelVersion, Source::RespondentId, Source::Trigger];
        for (index, label) in labels.iter().enumerate() {
            scope.entry("probability", label, Type::Double);
            sources.push(Source::Probability(index));
        }
        let types = schema.layout().types();
        for (index, (question, row_type)) in schema.questions().iter().zip(types).enumerate() {
            let kind = match row_type {
                RowType::Whole | RowType::Id => Type::Int,
                RowType::Number => Type::Double,
                RowType::Text => Type::Text,
                RowType::Flag => Type::Bool,
            };
            scope.field("answers", &question.name, kind, true);
            sources.push(Source::Answer(index));
        }
        scope.describe("answers", "a question of the event schema");
        scope.describe("probability", "one of the labels");
        Self { scope, sources, labels: labels.to_vec(), layout: schema.layout().clone() }
    }

    /// The declarations, to compile conditions with.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The values of the variables in a prediction.
    pub(super) fn of<'a>(&'a self, prediction: PredictionRef<'a>) -> PredictionValues<'a> {
        let mut probabilities = vec![None; self.labels.len()];
        for (place, class) in prediction.probabilities.iter().enumerate() {
            // A model has the labels in the configured order, unless the configuration has changed.
            let is_it = |label: &String| label == class.label;
            let index = match self.labels.get(place) {
                Some(label) if is_it(label) => Some(place),
                Some(_) | None => self.labels.iter().position(is_it),
            };
            if let Some(index) = index {
                probabilities[index] = Some(class.probability);
            }
        }
        let answers = self.layout.answers(prediction.answers).collect();
        PredictionValues { variables: self, prediction, probabilities, answers }
    }
}

/// The values of the variables in one prediction.
pub(super) struct PredictionValues<'a> {
    variables: &'a Variables,
    prediction: PredictionRef<'a>,
    /// In the order of the configured labels; none for a label that the model does not have.
    probabilities: Vec<Option<f64>>,
    answers: Vec<AnswerRef<'a>>,
}

impl Values for PredictionValues<'_> {
    fn value(&self, slot: Slot) -> Value<'_> {
        match self.variables.sources[slot.index()] {
            Source::Label => Value::Text(self.prediction.label),
            Source::ModelVersion => Value::Text(self.prediction.model_version),
            Source::RespondentId => Value::Text(self.prediction.respondent_id),
            Source::Trigger => Value::Text(self.prediction.trigger.name()),
            Source::Probability(index) => {
                self.probabilities[index].map_or(Value::Null, Value::Double)
            }
            Source::Answer(index) => match self.answers[index] {
                AnswerRef::Missing => Value::Null,
                AnswerRef::Number(number) => Value::Double(number),
                AnswerRef::Whole(whole) | AnswerRef::Id(whole) => Value::Int(whole),
                AnswerRef::Text(text) => Value::Text(text),
                AnswerRef::Flag(flag) => Value::Bool(flag),
            },
        }
    }
}
