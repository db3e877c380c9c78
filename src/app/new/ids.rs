//! Finds the columns that say who and which event among those that are ids.

use crate::app::new::{
    column::ColumnSummary,
    form::{self, Kind},
    plan::{ColumnPlan, NamedColumns, Role},
};

/// Words of people and what stands for them, in names of ids.
const WHO: &[&str] = &[
    "respondent",
    "user",
    "customer",
    "client",
    "person",
    "people",
    "member",
    "visitor",
    "guest",
    "account",
    "subscriber",
    "contact",
    "lead",
    "patient",
    "passenger",
    "participant",
    "subject",
    "applicant",
    "borrower",
    "employee",
    "student",
    "household",
];

pub(super) fn is_named_as_id(name: &str) -> bool {
    let words = form::words_of(name);
    matches!(words.last().map(String::as_str), Some("id" | "uuid" | "guid"))
        || is_named_as_event_id(name)
}

/// Whether the name is that of ids of events, such as `event_id` and `EventUUID`: not of who has caused them.
fn is_named_as_event_id(name: &str) -> bool {
    let words = form::words_of(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words[..], ["event", "id" | "uuid" | "guid"] | ["eventid" | "eventuuid" | "eventguid"])
}

/// The event id: the column that is named so, if no two rows have the same.
pub(super) fn choose_event_id(
    columns: &mut [ColumnPlan],
    summaries: &[ColumnSummary],
    named: &NamedColumns,
) {
    let found = (0..columns.len()).find(|index| {
        is_unique_id(&columns[*index], &summaries[*index])
            && is_named_as_event_id(&summaries[*index].name)
            && named.respondent_id != Some(*index)
    });
    if let Some(index) = found {
        columns[index].role = Role::EventId;
        "called so, and each row has its own".clone_into(&mut columns[index].why);
    }
}

/// The respondent id: the column that the user names, or of the ids that each row has one of its own, the first one that is named
/// as that of a person, else as an id, else any.
pub(super) fn choose_respondent(
    columns: &mut [ColumnPlan],
    summaries: &[ColumnSummary],
    named: &NamedColumns,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Some(index) = named.respondent_id {
        let column = &mut columns[index];
        let is_free = matches!(column.role, Role::Answer | Role::Unused);
        anyhow::ensure!(
            is_free && summaries[index].filled() > 0,
            "column {:?} cannot be the respondent id: it is empty, the label or the event time",
            column.name
        );
        column.role = Role::RespondentId;
        "--respondent-id".clone_into(&mut column.why);
        return Ok(());
    }
    let is_who = |index: usize| {
        let words = form::words_of(&summaries[index].name);
        words.iter().any(|word| WHO.contains(&word.as_str()))
    };
    let is_id = |index: &usize| {
        is_unique_id(&columns[*index], &summaries[*index])
            && !is_named_as_event_id(&summaries[*index].name)
    };
    let rank = |index: &usize| (!is_named_as_id(&summaries[*index].name), !is_who(*index), *index);
    let found = (0..columns.len()).filter(is_id).min_by_key(rank);
    if let Some(index) = found {
        columns[index].role = Role::RespondentId;
        "each row has its own".clone_into(&mut columns[index].why);
    } else {
        notes.push(
            "no column says who, so each row is of a respondent of its own (--respondent-id)"
                .to_owned(),
        );
    }
    let repeated = (0..columns.len()).find(|index| {
        is_id_by_form(&columns[*index])
            && !summaries[*index].is_unique()
            && (found.is_none() || is_who(*index))
    });
    if let Some(index) = repeated {
        notes.push(format!(
            "values of {:?} come more than once: if they say who it is, name it with --respondent-id; if they are categories, with --use",
            summaries[index].name
        ));
    }
    Ok(())
}

/// Whether it looks like an id, and nothing else is known of it.
fn is_id_by_form(column: &ColumnPlan) -> bool {
    column.role == Role::Unused && column.why.starts_with("an id")
}

/// Whether each row has an id of its own in this column.
fn is_unique_id(column: &ColumnPlan, summary: &ColumnSummary) -> bool {
    is_id_by_form(column)
        && summary.is_unique()
        && summary.missing == 0
        && matches!(column.form.kind, Kind::Whole(_) | Kind::Category)
        && column.form.unit.is_none()
}
