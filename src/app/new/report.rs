//! What `foretell new` has found, assumed and written.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::app::new::{
    form::Kind,
    plan::{ColumnPlan, Role},
    split::SplitRule,
    table::Dropped,
};

/// What was found, assumed and written.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the file, without its folder.
    pub file: String,
    /// Name of its character encoding, and why it was chosen.
    pub encoding: String,
    pub encoding_reason: String,
    /// `,`, `;`, `tab` or `|`.
    pub delimiter: String,
    pub has_header: bool,
    /// Rows before the table that are skipped.
    pub rows_skipped: usize,
    /// Number of rows, and how many of them the two tables have.
    pub rows: u64,
    pub rows_initial: usize,
    pub rows_played: usize,
    /// How they were split.
    pub split: SplitRule,
    /// Number of rows that are not used, by reason.
    pub rows_without_label: u64,
    pub rows_without_respondent: u64,
    pub rows_without_event_time: u64,
    pub columns: Vec<ColumnReport>,
    pub labels: Vec<LabelReport>,
    /// Texts that mean "no answer", as they occur.
    pub missing_marks: Vec<String>,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
    /// The files that were written.
    pub written: Vec<PathBuf>,
}

/// A column, and what it is used as.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnReport {
    /// The name in the file.
    pub name: String,
    /// The name of the field; empty if it is not used.
    pub field: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub role: &'static str,
    /// Share of the rows without a value, from 0 to 1.
    pub missing: f64,
    /// A value, as Foretell gets it.
    pub example: String,
    pub why: String,
}

/// A class.
#[derive(Clone, Debug, Serialize)]
pub struct LabelReport {
    pub label: String,
    pub rows: u64,
}

impl Report {
    pub(super) fn dropped(&self) -> Dropped {
        Dropped {
            no_label: self.rows_without_label,
            no_respondent: self.rows_without_respondent,
            no_event_time: self.rows_without_event_time,
        }
    }

    /// Why these rows are played, as a part of a sentence.
    #[must_use]
    pub fn split_reason(&self) -> &'static str {
        match self.split {
            SplitRule::EventTime => "the last ones by event time",
            SplitRule::FileOrder => "the last ones of the file, because it has no event time",
            SplitRule::Spread => {
                "spread over the whole file, because its last rows have other labels than its first"
            }
        }
    }

    /// What was assumed about the file, one line each, besides the columns.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let header = match (self.has_header, self.rows_skipped) {
            (true, 0) => "the first row names the columns".to_owned(),
            (true, skipped) => {
                format!("{} before the row that names the columns", rows_skipped(skipped))
            }
            (false, 0) => "no row names the columns".to_owned(),
            (false, skipped) => {
                format!("{} before the table, no row names the columns", rows_skipped(skipped))
            }
        };
        let mut lines = vec![format!(
            "file: {} rows; encoding {} ({}); delimiter {}; {header}",
            self.rows, self.encoding, self.encoding_reason, self.delimiter
        )];
        let labels = self.labels.iter();
        let labels: Vec<String> =
            labels.map(|class| format!("{:?} ({} rows)", class.label, class.rows)).collect();
        let positive = match &self.labels[..] {
            [_, positive] => format!("; {:?} is the positive one (--positive)", positive.label),
            _ => String::new(),
        };
        lines.push(format!("labels: {}{positive}", labels.join(", ")));
        if !self.missing_marks.is_empty() {
            let marks: Vec<String> =
                self.missing_marks.iter().map(|mark| format!("{mark:?}")).collect();
            lines.push(format!("missing: blank cells and {} (--missing)", marks.join(", ")));
        }
        lines.push(format!(
            "split: {} rows to train the first model, {} to play, {}",
            self.rows_initial,
            self.rows_played,
            self.split_reason()
        ));
        let Dropped { no_label, no_respondent, no_event_time } = self.dropped();
        for (rows, what) in [
            (no_label, "without a label"),
            (no_respondent, "without a respondent id"),
            (no_event_time, "without an event time"),
        ] {
            if rows > 0 {
                lines.push(format!("{rows} rows {what} are left out"));
            }
        }
        lines.extend(self.notes.iter().cloned());
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines
    }
}

fn rows_skipped(number: usize) -> String {
    if number == 1 { "1 row skipped".to_owned() } else { format!("{number} rows skipped") }
}

impl ColumnPlan {
    pub(super) fn report(&self) -> ColumnReport {
        let is_used = self.role != Role::Unused;
        let kind = match (self.role, self.missing >= 1.0) {
            (_, true) => "-",
            (Role::RespondentId, _) if self.is_whole_id => "whole number",
            (Role::RespondentId | Role::EventId, _) => "text",
            (Role::Label, _) => "category",
            (Role::EventTime | Role::Answer | Role::Unused, _) => self.form.kind.name(),
        };
        ColumnReport {
            name: self.name.clone(),
            field: if is_used { self.field.clone() } else { String::new() },
            kind,
            role: match self.role {
                Role::Answer => "answer",
                Role::Label => "label",
                Role::RespondentId => "respondent id",
                Role::EventId => "event id",
                Role::EventTime => "event time",
                Role::Unused => "not used",
            },
            missing: self.missing,
            example: self.example.clone(),
            why: self.why.clone(),
        }
    }

    /// The example in JSON.
    pub(super) fn example_json(&self) -> Value {
        let text = || json!(self.example);
        match self.form.kind {
            Kind::Whole(_) => {
                self.example.parse::<i64>().map_or_else(|_| text(), |number| json!(number))
            }
            Kind::Decimal(_) => {
                self.example.parse::<f64>().map_or_else(|_| text(), |number| json!(number))
            }
            Kind::Boolean { .. } => json!(self.example == "true"),
            Kind::Category | Kind::Date(_) | Kind::Time(_) | Kind::Epoch { .. } => text(),
        }
    }
}
