//! What is done with a column.

use crate::app::new::{column::ColumnSummary, form::Form};

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Answer,
    Label,
    RespondentId,
    EventId,
    EventTime,
    Unused,
}

/// What is done with a column.
#[derive(Clone, Debug)]
pub(super) struct ColumnPlan {
    /// The name in the file.
    pub(super) name: String,
    /// The name of the field.
    pub(super) field: String,
    pub(super) role: Role,
    pub(super) form: Form,
    /// Whether it is whole numbers, if it identifies the respondent.
    pub(super) is_whole_id: bool,
    /// Share of the rows without a value, from 0 to 1.
    pub(super) missing: f64,
    /// A value as Foretell gets it.
    pub(super) example: String,
    /// Why it has this role and form; empty if both are plain.
    pub(super) why: String,
}

/// The columns that the user names.
#[derive(Clone, Debug, Default)]
pub(super) struct NamedColumns {
    pub(super) label: usize,
    pub(super) respondent_id: Option<usize>,
    pub(super) event_time: Option<usize>,
    pub(super) ignored: Vec<usize>,
    /// Answers, also if they look like ids or texts.
    pub(super) used: Vec<usize>,
}

impl ColumnPlan {
    /// Share of the rows without a value, from 0 to 1: blank, or with a text or a number that counts as missing.
    pub(super) fn missing_share(&self, summary: &ColumnSummary) -> f64 {
        let is_text =
            self.role == Role::EventId || (self.role == Role::RespondentId && !self.is_whole_id);
        let texts = if self.form.is_moment() { &summary.no_moments } else { &summary.no_numbers };
        let odd = self.form.odd.iter().filter_map(|text| texts.get(text));
        let sentinels =
            self.form.sentinels.iter().filter_map(|number| summary.sentinels.get(number));
        let converted: u64 = odd.chain(sentinels).sum();
        let missing = summary.missing + if is_text { 0 } else { converted };
        missing as f64 / (summary.rows as f64).max(1.0)
    }
}
