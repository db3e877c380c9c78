//! Between what travels and what `ml` reasons about: the one place where the two meet.

use serde_json::Value as Json;

use crate::events::{
    labelled_example::LabelledExample,
    prediction::{Feature, FeatureValue},
    questionnaire::{self, Answer, Question, QuestionKind},
    trial::{Trial as TrialRecord, TrialParameter},
};
use foretell_ml::{Column, ColumnKind, Example, Label, Params, Value, training::Trial};
use foretell_streams::time::WallTime;

/// An answer as a model reads it; a number that is none is a missing answer.
#[must_use]
pub fn value_of(answer: Option<&Answer>) -> Value {
    match answer {
        Some(Answer::Number(number)) if number.is_finite() => Value::Number(*number),
        Some(Answer::Text(text)) => Value::Text(text.clone()),
        Some(Answer::Whole(number)) => Value::Number(*number as f64),
        Some(Answer::Number(_)) | None => Value::Missing,
    }
}

/// An observation as it is published: every question in order, the unanswered ones too.
#[must_use]
pub fn features_of(questions: &[Question], answers: &[Option<Answer>]) -> Vec<Feature> {
    let named = questions.iter().zip(answers);
    let feature = |(question, answer): (&Question, &Option<Answer>)| Feature {
        name: question.name.clone(),
        value: match value_of(answer.as_ref()) {
            Value::Missing => FeatureValue::Missing,
            Value::Number(number) => FeatureValue::Number(number),
            Value::Text(text) => FeatureValue::Text(text),
        },
    };
    named.map(feature).collect()
}

/// The question that a column is about: by its name, or by one of them having been renamed since.
#[must_use]
pub fn place_of(column: &Column, questions: &[Question]) -> Option<usize> {
    // The model is newer than the schema, during an upgrade.
    let renamed = || questions.iter().position(|question| column.is_called(&question.name));
    questionnaire::place_of(&column.name, questions).or_else(renamed)
}

/// Published features as a model reads them: one value a column, found by name, or by one it had before.
#[must_use]
pub fn values_of(features: &[Feature], columns: &[Column]) -> Vec<Value> {
    let value = |(index, column): (usize, &Column)| {
        // Features are published in one order, so the same place is the first guess.
        let guess = features.get(index).filter(|feature| feature.name == column.name);
        let feature = guess
            .or_else(|| features.iter().find(|feature| feature.name == column.name))
            .or_else(|| features.iter().find(|feature| column.is_called(&feature.name)));
        match feature.map(|feature| &feature.value) {
            Some(FeatureValue::Number(number)) => Value::Number(*number),
            Some(FeatureValue::Text(text)) => Value::Text(text.clone()),
            Some(FeatureValue::Missing) | None => Value::Missing,
        }
    };
    columns.iter().enumerate().map(value).collect()
}

/// A labelled example as a model learns from it; none if its label is not one of `classes`.
#[must_use]
pub fn example_of(
    labelled: &LabelledExample,
    columns: &[Column],
    classes: &[String],
) -> Option<Example> {
    let label = label_of(&labelled.label, classes)?;
    Some(Example { values: values_of(&labelled.features, columns), label })
}

/// The place of a label among the classes.
#[must_use]
pub fn label_of(label: &str, classes: &[String]) -> Option<Label> {
    let index = classes.iter().position(|class| class == label)?;
    Some(Label(u32::try_from(index).ok()?))
}

/// A trial as it is published.
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

/// A published trial, to learn from; none if its parameters are not (or no longer) ours.
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

/// By their own names, so that a parameter that is added needs no line here.
fn parameters_of(params: &Params) -> Vec<(String, f64)> {
    let Ok(Json::Object(fields)) = serde_json::to_value(params) else { return Vec::new() };
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
}

/// Whole numbers as such: a count of leaves is not read from `31.0`.
fn json_of(value: f64) -> Json {
    #[expect(clippy::cast_possible_truncation, reason = "guarded: it is whole, and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Json::from(value as i64);
    }
    Json::from(value)
}

/// A question as a column of a model.
#[must_use]
pub fn column_of(question: &Question) -> Column {
    let kind = match question.kind {
        QuestionKind::Number => ColumnKind::Numeric,
        QuestionKind::Text => ColumnKind::Categorical,
    };
    Column { name: question.name.clone(), kind, aliases: question.aliases.clone() }
}
