//! What the columns of a table are: answers, the label, and what a play uses.

use crate::{
    config::TableSettings,
    events::questionnaire::{self, QuestionnaireSchema},
};

/// The content of a column.
pub(super) enum ColumnRole {
    Question(usize),
    Label,
    RespondentId,
    EventId,
    EventTime,
    /// All outcomes of the row.
    Outcomes,
    /// All outcomes of the row if an action was requested.
    OutcomesIfActed,
    /// The true probability of the label with this index.
    Truth(usize),
    Unused,
}

/// What each column is.
///
/// # Errors
/// The problem, and what to change, if the columns do not match the event schema or the configuration.
pub(super) fn roles_of(
    names: &[String],
    table: &TableSettings,
    schema: &QuestionnaireSchema,
) -> Result<Vec<ColumnRole>, String> {
    check_named_columns(names, table)?;
    let questions = schema.questions();
    let metadata = schema.metadata();
    let role = |name: &String| {
        if *name == table.label {
            Ok(ColumnRole::Label)
        } else if *name == table.outcomes && !name.is_empty() {
            Ok(ColumnRole::Outcomes)
        } else if *name == table.outcomes_if_acted && !name.is_empty() {
            Ok(ColumnRole::OutcomesIfActed)
        } else if let Some(label) = table.truth.iter().position(|column| column == name) {
            Ok(ColumnRole::Truth(label))
        } else if name.is_empty() || table.skip.contains(name) {
            Ok(ColumnRole::Unused)
        } else if *name == metadata.respondent_id {
            Ok(ColumnRole::RespondentId)
        } else if *name == metadata.event_time {
            Ok(ColumnRole::EventTime)
        } else if metadata.event_id.as_ref() == Some(name) {
            Ok(ColumnRole::EventId)
        } else if metadata.completed.as_ref() == Some(name) {
            Ok(ColumnRole::Unused)
        } else if let Some(index) = questionnaire::position_of(name, questions) {
            Ok(ColumnRole::Question(index))
        } else {
            let known = questions.iter().map(|question| question.name.as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            Err(format!(
                "column {name:?} is not an answer of the event schema ({known}); \
                 if it is not used, name it in `skip`, or leave its name empty in `columns`"
            ))
        }
    };
    let roles: Vec<ColumnRole> = names.iter().map(role).collect::<Result<_, _>>()?;
    for (later, role) in roles.iter().enumerate() {
        let earlier = roles[..later].iter().position(|other| role.conflicts_with(other));
        if let Some(earlier) = earlier {
            let (first, second) = (earlier + 1, later + 1);
            return Err(format!(
                "columns {first} and {second}, {:?} and {:?}, are the same field: name one in `skip`, or leave its name empty in `columns`",
                names[earlier], names[later]
            ));
        }
    }
    Ok(roles)
}

/// Checks that the columns exist which the configuration names.
fn check_named_columns(names: &[String], table: &TableSettings) -> Result<(), String> {
    let known = names.join(", ");
    if !names.contains(&table.label) {
        let header = if table.columns.is_empty() {
            format!(
                " (the first line names {known}; if it is a row, name the columns in `columns`)"
            )
        } else {
            String::new()
        };
        return Err(format!("there is no column {:?}, which `label` names{header}", table.label));
    }
    if let Some(name) = table.skip.iter().find(|name| !names.contains(name)) {
        return Err(format!("there is no column {name:?}, which `skip` names ({known})"));
    }
    if table.skip.contains(&table.label) {
        return Err(format!("column {:?} is the label, and `skip` names it", table.label));
    }
    let outcomes = [("outcomes", &table.outcomes), ("outcomes_if_acted", &table.outcomes_if_acted)];
    let outcomes = outcomes.into_iter().filter(|(_, name)| !name.is_empty());
    let truth = table.truth.iter().map(|name| ("truth", name));
    let mut used = vec![&table.label];
    for (key, name) in outcomes.chain(truth) {
        if !names.contains(name) {
            return Err(format!("there is no column {name:?}, which `{key}` names ({known})"));
        }
        if table.skip.contains(name) || used.contains(&name) {
            return Err(format!(
                "column {name:?} is named by `{key}` and by another key, too: name it once"
            ));
        }
        used.push(name);
    }
    Ok(())
}

impl ColumnRole {
    /// Whether both columns are the same field.
    fn conflicts_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Question(one), Self::Question(other)) => one == other,
            (Self::Truth(one), Self::Truth(other)) => one == other,
            (Self::Label, Self::Label)
            | (Self::Outcomes, Self::Outcomes)
            | (Self::OutcomesIfActed, Self::OutcomesIfActed)
            | (Self::RespondentId, Self::RespondentId)
            | (Self::EventId, Self::EventId)
            | (Self::EventTime, Self::EventTime) => true,
            (
                Self::Question(_)
                | Self::Label
                | Self::RespondentId
                | Self::EventId
                | Self::EventTime
                | Self::Outcomes
                | Self::OutcomesIfActed
                | Self::Truth(_)
                | Self::Unused,
                _,
            ) => false,
        }
    }
}
