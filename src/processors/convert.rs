//! Converts between the records of the topics and the types of `foretell-ml`.

use crate::events::{
    labelled_example::LabelledExample,
    questionnaire::{
        self, AnswerRef, AnswersRef, Question, QuestionKind, QuestionnaireSchema, RowLayout,
    },
};
use foretell_ml::{Column, ColumnKind, Example, Label, Value, ValueRef};

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

/// The column of a question.
#[must_use]
pub fn column_of(question: &Question) -> Column {
    let kind = match question.kind {
        QuestionKind::Number => ColumnKind::Numeric,
        QuestionKind::Text => ColumnKind::Categorical,
    };
    Column { name: question.name.clone(), kind, aliases: question.aliases.clone() }
}
