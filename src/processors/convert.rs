//! Converts between the records of the topics and the types of `foretell-ml`.

use serde_json::Value as Json;

use crate::events::{
    labelled_example::LabelledExample,
    questionnaire::{
        self, AnswerRef, AnswersRef, Question, QuestionKind, QuestionnaireSchema, RowLayout,
    },
    trial::{Trial as TrialRecord, TrialParameter},
};
use foretell_ml::{Column, ColumnKind, Example, Label, Params, Value, ValueRef, training::Trial};
use foretell_streams::time::WallTime;

/// The value of an answer for a model.
#[must_use]
pub fn value_of(answer: AnswerRef<'_>) -> ValueRef<'_> {
    match answer {
        AnswerRef::Missing => ValueRef::Missing,
        AnswerRef::Number(number) => ValueRef::Number(number),
        AnswerRef::Whole(whole) => ValueRef::Number(whole as f64),
        AnswerRef::Id(id) => ValueRef::Id(id),
        AnswerRef::Text(text) => ValueRef::Text(text),
        AnswerRef::Flag(true) => ValueRef::Text("true"),
        AnswerRef::Flag(false) => ValueRef::Text("false"),
    }
}

/// The index of the question and that of the column, for each column that has a question, in the order of the questions.
#[must_use]
pub fn columns_by_question(columns: &[Column], questions: &[Question]) -> Vec<(usize, usize)> {
    let index = |(number, column)| Some((position_of(column, questions)?, number));
    let mut indices: Vec<(usize, usize)> = columns.iter().enumerate().filter_map(index).collect();
    indices.sort_unstable();
    indices
}

/// The values of an observation for a model, each with the index of its column. `columns` are [`columns_by_question`].
pub fn values_by_column<'r>(
    columns: &'r [(usize, usize)],
    layout: &'r RowLayout,
    answers: impl Into<AnswersRef<'r>>,
) -> impl Iterator<Item = (usize, ValueRef<'r>)> {
    let mut answers = layout.answers(answers);
    columns.iter().map(move |(question, column)| (*column, value_of(answers.at(*question))))
}

/// The values of an observation in the order of the columns.
#[must_use]
pub fn values_in_order<'r>(
    columns: &[Column],
    questions: &[Question],
    layout: &RowLayout,
    answers: impl Into<AnswersRef<'r>>,
) -> Vec<Value> {
    let mut values = vec![Value::Missing; columns.len()];
    let columns = columns_by_question(columns, questions);
    for (column, value) in values_by_column(&columns, layout, answers.into()) {
        values[column] = value.into();
    }
    values
}

/// The index of the question of a column, by the name of either or by an alias.
#[must_use]
pub fn position_of(column: &Column, questions: &[Question]) -> Option<usize> {
    // During an upgrade the model may have newer names than the schema.
    let renamed = || questions.iter().position(|question| column.is_called(&question.name));
    questionnaire::position_of(&column.name, questions).or_else(renamed)
}

/// Converts a labelled example to a training example; none if its label is not one of `classes`.
#[must_use]
pub fn example_of(
    labelled: &LabelledExample,
    columns: &[Column],
    events: &QuestionnaireSchema,
    classes: &[String],
) -> Option<Example> {
    let label = label_of(&labelled.label, classes)?;
    let (questions, layout) = (events.questions(), events.layout());
    Some(Example { values: values_in_order(columns, questions, layout, &labelled.answers), label })
}

/// The index of a label in the classes.
#[must_use]
pub fn label_of(label: &str, classes: &[String]) -> Option<Label> {
    let index = classes.iter().position(|class| class == label)?;
    Some(Label(u32::try_from(index).ok()?))
}

/// Converts a trial to its record.
#[must_use]
pub fn record_of(study: &str, trial: &Trial, now: WallTime) -> TrialRecord {
    let parameters = parameters_of(&trial.params);
    TrialRecord {
        study: study.to_owned(),
        number: trial.number,
        parameters: parameters
            .into_iter()
            .map(|(name, value)| TrialParameter { name, value })
            .collect(),
        log_loss: trial.log_loss,
        auc: trial.auc,
        iterations: trial.iterations,
        pruned: trial.pruned,
        created_at: now,
    }
}

/// Converts the record of a trial, to warm-start a study; none if this release does not have one of its parameters.
#[must_use]
pub fn trial_of(record: &TrialRecord) -> Option<Trial> {
    let named = record.parameters.iter();
    let json = named.map(|parameter| (parameter.name.clone(), json_of(parameter.value)));
    let params = serde_json::from_value(Json::Object(json.collect())).ok()?;
    Some(Trial {
        number: record.number,
        params,
        log_loss: record.log_loss,
        auc: record.auc,
        iterations: record.iterations,
        pruned: record.pruned,
    })
}

/// The parameters by the names of their fields, so that a new parameter needs no change here.
fn parameters_of(params: &Params) -> Vec<(String, f64)> {
    let Ok(Json::Object(fields)) = serde_json::to_value(params) else { return Vec::new() };
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
}

/// JSON of a whole number without a fraction: `31.0` is not valid for a number of leaves.
fn json_of(value: f64) -> Json {
    #[expect(clippy::cast_possible_truncation, reason = "guarded: it is whole, and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Json::from(value as i64);
    }
    Json::from(value)
}

/// The column of a question.
#[must_use]
pub fn column_of(question: &Question) -> Column {
    let kind = match question.kind {
        QuestionKind::Number => ColumnKind::Numeric,
        QuestionKind::Text => ColumnKind::Categorical,
    };
    Column { name: question.name.clone(), kind, aliases: question.aliases.clone() }
}
