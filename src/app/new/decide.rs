//! Decides what each column is for: an answer, the label, who, when, or nothing.

use std::collections::BTreeSet;

use crate::app::new::{
    column::ColumnSummary,
    form::{self, FileForm, Form, Kind},
    ids::{self, is_named_as_id},
    labels::{Classes, Labels},
    names::{self, Names},
    plan::{ColumnPlan, NamedColumns, Role},
    units,
};

/// What is done with each column, and what the user should know.
pub(super) struct Decisions {
    pub(super) columns: Vec<ColumnPlan>,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What means "no answer" in the answers, and is a value of none.
    pub(super) missing_marks: Vec<String>,
}

/// Fields of the event schema that no column may be called.
pub(super) const EVENT_ID: &str = "event_id";
pub(super) const RESPONDENT_ID: &str = "respondent_id";
pub(super) const EVENT_TIME: &str = "event_time";
pub(super) const COMPLETED: &str = "completed";

/// Rows from which unique texts are taken for ids, and other guesses from a number of rows.
const ROWS_FOR_GUESSES: u64 = 20;
/// More categories than this are reported.
const CATEGORIES_MANY: usize = 255;

/// Decides about the columns of a file.
///
/// # Errors
/// If a column cannot be what the user names it for, or no column is left to learn from.
pub(super) fn decide(
    summaries: &[ColumnSummary],
    file: &FileForm,
    named: &NamedColumns,
    (labels, classes): (&Labels, &Classes),
) -> anyhow::Result<Decisions> {
    let (mut notes, mut warnings) = classes.remarks();
    let mut columns: Vec<ColumnPlan> = Vec::new();
    for (index, summary) in summaries.iter().enumerate() {
        let is_empty = summary.filled() == 0;
        let is_plain = is_empty || index == named.label;
        let form = if is_plain { Form::plain_category() } else { Form::of(summary, file) };
        let (role, reason) = if index == named.label {
            (Role::Label, String::new())
        } else if named.ignored.contains(&index) {
            (Role::Unused, "--ignore".to_owned())
        } else if named.used.contains(&index) && !is_empty {
            (Role::Answer, "--use".to_owned())
        } else {
            role_of(summary, &form, index == 0)
        };
        let reason =
            if summary.is_unnamed { join(&reason, "no name in the header") } else { reason };
        let why = [reason.as_str(), form.why.as_str()];
        let why = why.iter().filter(|why| !why.is_empty()).copied().collect::<Vec<_>>().join("; ");
        columns.push(ColumnPlan {
            name: summary.name.clone(),
            field: String::new(),
            role,
            is_whole_id: matches!(form.kind, Kind::Whole(_)) && form.odd.is_empty(),
            missing: 0.0,
            example: example(summary, &form),
            form,
            why,
        });
    }
    choose_event_time(&mut columns, summaries, named.event_time, &mut notes)?;
    ids::choose_event_id(&mut columns, summaries, named);
    ids::choose_respondent(&mut columns, summaries, named, &mut notes)?;
    for (column, summary) in columns.iter_mut().zip(summaries) {
        column.missing = column.missing_share(summary);
    }
    let label = &mut columns[named.label];
    label.missing = labels.missing_share();
    label.example = labels.first(classes).map_or_else(String::new, |class| class.name.clone());
    for (index, column) in columns.iter_mut().enumerate() {
        if matches!(column.role, Role::Answer | Role::EventTime) {
            warnings.extend(column.form.warning.clone());
        }
        if column.role == Role::Answer {
            remark(column, &summaries[index], (labels, classes), &mut warnings);
        }
    }
    anyhow::ensure!(
        columns.iter().any(|column| column.role == Role::Answer),
        "no column is left to learn from: {}. Use one with --use NAME",
        columns
            .iter()
            .filter(|column| column.role != Role::Label)
            .map(|column| format!("{:?} ({})", column.name, column.why))
            .collect::<Vec<_>>()
            .join(", ")
    );
    name_fields(&mut columns);
    let mut decisions = Decisions { columns, notes, warnings, missing_marks: Vec::new() };
    decisions.find_marks(summaries);
    Ok(decisions)
}

impl Decisions {
    /// Finds the marks of missing values. A number that is a value of another answer is none, because `events.missing` is for all.
    fn find_marks(&mut self, summaries: &[ColumnSummary]) {
        let answers: Vec<(&ColumnPlan, &ColumnSummary)> = self
            .columns
            .iter()
            .zip(summaries)
            .filter(|(column, _)| column.role == Role::Answer)
            .collect();
        let marks = answers.iter().flat_map(|(_, summary)| summary.marks.keys());
        let mut marks: BTreeSet<String> = marks.map(ToString::to_string).collect();
        for (column, _) in &answers {
            for number in &column.form.sentinels {
                let is_value = |(other, summary): &&(&ColumnPlan, &ColumnSummary)| {
                    summary.sentinels.contains_key(number) && !other.form.sentinels.contains(number)
                };
                if let Some((other, _)) = answers.iter().find(is_value) {
                    self.warnings.push(format!(
                        "column {:?}: {number} is missing, but it is a value of {:?}, so events.missing cannot have it: producers have to send \
                         null in place of it",
                        column.name, other.name
                    ));
                } else {
                    marks.insert(number.to_string());
                }
            }
        }
        self.missing_marks = marks.into_iter().collect();
    }
}

/// Whether a column is an answer, and if not, why.
fn role_of(summary: &ColumnSummary, form: &Form, is_first: bool) -> (Role, String) {
    let unused = |why: &str| (Role::Unused, why.to_owned());
    let filled = summary.filled();
    if filled == 0 {
        return unused("empty");
    }
    if summary.values.len() == 1 && summary.missing == 0 {
        return unused("always the same");
    }
    // R and pandas give no name to the column with the names of rows, which is the first.
    let names_rows = is_row_name(&summary.name) || (summary.is_unnamed && is_first);
    if summary.is_run && summary.is_unique() && filled >= ROWS_FOR_GUESSES {
        let range = summary.whole_range;
        let are_years = range.is_some_and(|(low, high)| low >= 1_800 && high <= 2_200);
        if !are_years && (names_rows || !is_named_as_id(&summary.name)) {
            return unused("numbers the rows");
        }
    }
    if names_rows {
        return unused("names the rows");
    }
    if is_named_as_id(&summary.name) {
        let what =
            if summary.is_unique() { "an id by its name and values" } else { "an id by its name" };
        return unused(what);
    }
    if form.kind != Kind::Category {
        return (Role::Answer, String::new());
    }
    let words = summary.words / filled.max(1);
    let is_nearly_unique = filled >= ROWS_FOR_GUESSES && summary.repeats * 2 < filled;
    let is_measure = units::has_sign(&summary.example);
    if is_nearly_unique && summary.is_unique() && words <= 1 && !is_measure {
        return unused("an id: no text comes twice");
    }
    if (is_nearly_unique && words >= 2) || words >= 8 {
        return unused("free text");
    }
    if is_nearly_unique {
        return unused("most texts come once only");
    }
    (Role::Answer, String::new())
}

/// Whether the name is one that R or pandas gives to a column with the names of rows.
fn is_row_name(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    matches!(name.as_str(), "rownames" | "row_names" | "index") || name.starts_with("unnamed:")
}

/// A value of the column as it is written for Foretell: the first one, or if that is odd, another.
fn example(summary: &ColumnSummary, form: &Form) -> String {
    let others = summary.values.keys().map(|value| &**value);
    std::iter::once(summary.example.as_str())
        .chain(others)
        .find_map(|text| form.convert(text))
        .unwrap_or_else(|| summary.example.clone())
}

/// The event time: the column that the user names, or the only date or time that every row has and that is no birthday.
fn choose_event_time(
    columns: &mut [ColumnPlan],
    summaries: &[ColumnSummary],
    named: Option<usize>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Some(index) = named {
        let column = &mut columns[index];
        anyhow::ensure!(
            column.form.is_moment(),
            "column {:?} cannot be the event time: it has no dates or times, but texts such as {:?}{}",
            column.name,
            summaries[index].example,
            column.form.warning.as_ref().map_or_else(String::new, |warning| format!(". {warning}"))
        );
        column.role = Role::EventTime;
        column.why = join(&column.why, "--event-time");
        return Ok(());
    }
    let is_birth = |name: &str| {
        let words = form::words_of(name);
        words.iter().any(|word| word.starts_with("birth") || word == "dob" || word == "born")
    };
    let candidates: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(index, column)| {
            let summary = &summaries[*index];
            let is_past_1970 = summary.first_moment.is_none_or(|(low, _)| low.millis >= 0);
            column.role == Role::Answer
                && column.form.is_moment()
                && column.form.odd.is_empty()
                && summary.missing == 0
                && is_past_1970
                && !is_birth(&column.name)
        })
        .map(|(index, _)| index)
        .collect();
    match candidates[..] {
        [] => {}
        [only] => {
            let column = &mut columns[only];
            column.role = Role::EventTime;
            column.why = join(&column.why, "the only time that every row has");
        }
        [..] => {
            let names: Vec<&str> =
                candidates.iter().map(|index| columns[*index].name.as_str()).collect();
            notes.push(format!(
                "several columns have times ({}), so none is the event time: name it with --event-time",
                names.join(", ")
            ));
        }
    }
    Ok(())
}

/// Adds warnings about an answer: it tells the label, or has many categories.
fn remark(
    column: &mut ColumnPlan,
    summary: &ColumnSummary,
    (labels, classes): (&Labels, &Classes),
    warnings: &mut Vec<String>,
) {
    if let Some(how) = leak(summary, labels.distinct()) {
        column.why = join(&column.why, "tells the label");
        warnings.push(format!(
            "column {:?} tells the label by itself ({how}): if it is known only after the outcome, leave it out with --ignore",
            summary.name
        ));
    }
    let is_category = column.form.kind == Kind::Category;
    if is_category && (summary.has_more_values || summary.values.len() > CATEGORIES_MANY) {
        let more = if summary.has_more_values { "more than " } else { "" };
        warnings.push(format!(
            "column {:?} has {more}{} categories: rare ones say little about {} classes; consider --ignore",
            summary.name,
            summary.values.len(),
            classes.classes.len()
        ));
    }
    if !column.form.odd.is_empty() {
        let odd: Vec<String> = column.form.odd.iter().map(|text| format!("{text:?}")).collect();
        warnings.push(format!(
            "column {:?}: {} among the {}s count as missing",
            summary.name,
            odd.join(", "),
            column.form.kind.name()
        ));
    }
}

/// How a column tells the label by itself; none if it does not.
fn leak(summary: &ColumnSummary, classes: usize) -> Option<&'static str> {
    /// Rows of another class than their value's, per thousand.
    const OTHERS_MAX: u64 = 1;
    if summary.rows < ROWS_FOR_GUESSES {
        return None;
    }
    let of = |values: u64| values * 10 <= summary.filled();
    let others: u64 = summary.values.values().map(|count| count.others).sum();
    let distinct_classes = summary.values.values().filter_map(|count| count.class);
    let distinct_classes: std::collections::BTreeSet<usize> = distinct_classes.collect();
    let is_pure = !summary.has_more_values && others * 1_000 <= summary.filled() * OTHERS_MAX;
    if is_pure
        && of(summary.distinct())
        && distinct_classes.len() == classes
        && summary.missing == 0
    {
        return Some("each of its values has one label");
    }
    // Only the rows of some classes have a value, and those of the others have none.
    let missing_of = summary.missing_of_class.len();
    if is_pure
        && summary.missing > 0
        && missing_of + distinct_classes.len() == classes
        && distinct_classes.iter().all(|class| !summary.missing_of_class.contains_key(class))
    {
        return Some("blank cells have one label, others another");
    }
    let mut ranges: Vec<(f64, f64)> = summary.ranges.values().copied().collect();
    if ranges.len() == classes
        && classes >= 2
        && summary.no_numbers.is_empty()
        && summary.missing == 0
    {
        ranges.sort_by(|one, other| one.0.total_cmp(&other.0));
        if ranges.windows(2).all(|pair| pair[0].1 < pair[1].0) {
            return Some("the numbers of each label have a range of their own");
        }
    }
    None
}

/// Gives the columns their names as fields.
fn name_fields(columns: &mut [ColumnPlan]) {
    let has = |role: Role| columns.iter().any(|column| column.role == role);
    let mut reserved = vec![EVENT_ID, COMPLETED];
    if !has(Role::RespondentId) {
        reserved.push(RESPONDENT_ID);
    }
    if !has(Role::EventTime) {
        reserved.push(EVENT_TIME);
    }
    let mut fields = Names::new(&reserved);
    for (index, column) in columns.iter_mut().enumerate() {
        if column.role == Role::EventId {
            EVENT_ID.clone_into(&mut column.field);
            continue;
        }
        if column.role == Role::Unused {
            // Its name is shown only.
            column.field = names::valid(&column.name).unwrap_or_default();
            continue;
        }
        column.field = fields.of(&column.name, index + 1);
    }
}

fn join(one: &str, other: &str) -> String {
    match (one, other) {
        ("", other) => other.to_owned(),
        (one, "") => one.to_owned(),
        (one, other) => format!("{one}; {other}"),
    }
}
