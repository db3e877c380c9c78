//! The table of a file as Foretell gets it: reads the rows, learns about the columns, converts the cells, and writes two tables.

use std::io::Write;

use anyhow::Context;

use crate::app::new::{
    column::ColumnSummary,
    dialect::Dialect,
    labels::{Classes, Labels},
    plan::{ColumnPlan, Role},
    progress::Steps,
    rows::Rows,
    source::Source,
    split::{Row, Split},
    values::MissingMarks,
};

/// A file whose dialect is known.
pub(super) struct FileTable<'a> {
    pub(super) source: &'a Source,
    pub(super) dialect: &'a Dialect,
    pub(super) path: String,
    pub(super) marks: &'a MissingMarks,
}

/// Rows that are not used, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) no_label: u64,
    pub(super) no_respondent: u64,
    pub(super) no_event_time: u64,
}

/// How rows become those of Foretell.
pub(super) struct Conversion<'a> {
    pub(super) columns: &'a [ColumnPlan],
    pub(super) classes: &'a Classes,
}

impl FileTable<'_> {
    fn rows(&self) -> anyhow::Result<Rows> {
        Rows::open(self.source, self.dialect, self.path.clone())
    }

    /// Reads all rows, and returns what is known of the columns and of the label, if there is one.
    ///
    /// # Errors
    /// If a row cannot be read, or there are none.
    pub(super) fn summarise(
        &self,
        label: Option<usize>,
        steps: &mut Steps<'_>,
    ) -> anyhow::Result<(Vec<ColumnSummary>, Labels)> {
        let names = &self.dialect.names;
        let mut summaries: Vec<ColumnSummary> =
            names.iter().map(|name| ColumnSummary::new(name.clone(), names.len())).collect();
        for index in &self.dialect.unnamed {
            summaries[*index].is_unnamed = true;
        }
        let mut labels = Labels::default();
        let mut rows = self.rows()?;
        let mut is_empty = true;
        while let Some(row) = rows.next("columns", steps)? {
            is_empty = false;
            let label = label.and_then(|label| row.get(label));
            let class = label.and_then(|label| labels.add(label.trim(), self.marks));
            for (cell, summary) in row.iter().zip(&mut summaries) {
                let cell = cell.trim();
                if self.marks.contains(cell) {
                    summary.add_missing(cell, class);
                } else {
                    summary.add(cell, class);
                }
            }
        }
        let lines = if self.dialect.has_header { "after the line with the names" } else { "in it" };
        anyhow::ensure!(!is_empty, "{}: there are no rows {lines}", self.path);
        Ok((summaries, labels))
    }

    /// Reads all rows, and returns the class and the event time of those that are used.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub(super) fn measure(
        &self,
        conversion: &Conversion<'_>,
        steps: &mut Steps<'_>,
    ) -> anyhow::Result<(Vec<Row>, Dropped)> {
        let mut used = Vec::new();
        let mut dropped = Dropped::default();
        let mut rows = self.rows()?;
        while let Some(row) = rows.next("rows", steps)? {
            used.extend(conversion.used(row, self.marks, &mut dropped));
        }
        Ok((used, dropped))
    }

    /// Writes the rows that are used: the first table is for training, the second one is played.
    ///
    /// # Errors
    /// If a row cannot be read or written, or the file has changed.
    pub(super) fn write(
        &self,
        conversion: &Conversion<'_>,
        split: &Split,
        [initial, play]: [&mut dyn Write; 2],
        steps: &mut Steps<'_>,
    ) -> anyhow::Result<()> {
        let [mut initial, mut play] =
            [csv::Writer::from_writer(initial), csv::Writer::from_writer(play)];
        let header = conversion.header();
        initial.write_record(&header)?;
        play.write_record(&header)?;
        let mut is_played = split.is_played.iter();
        let mut dropped = Dropped::default();
        let mut rows = self.rows()?;
        let has_changed = || format!("{} has changed while it was read", self.path);
        while let Some(row) = rows.next("writing", steps)? {
            if conversion.used(row, self.marks, &mut dropped).is_none() {
                continue;
            }
            let is_played = is_played.next().with_context(has_changed)?;
            let cells = conversion.cells(row, self.marks);
            if *is_played { play.write_record(&cells)? } else { initial.write_record(&cells)? }
        }
        anyhow::ensure!(is_played.next().is_none(), "{}", has_changed());
        initial.flush()?;
        play.flush()?;
        Ok(())
    }
}

impl Conversion<'_> {
    /// The class and the event time of a row; none if it is not used, which is counted.
    fn used(
        &self,
        row: &csv::StringRecord,
        marks: &MissingMarks,
        dropped: &mut Dropped,
    ) -> Option<Row> {
        let (mut class, mut millis) = (None, 0);
        for (cell, column) in row.iter().zip(self.columns) {
            let cell = cell.trim();
            match column.role {
                Role::Label if marks.is_no_label(cell) => {
                    dropped.no_label += 1;
                    return None;
                }
                Role::Label => class = self.classes.index_of(cell),
                Role::RespondentId if column.id(cell, marks).is_none() => {
                    dropped.no_respondent += 1;
                    return None;
                }
                Role::EventTime => {
                    let time = Some(cell).filter(|cell| !marks.contains(cell));
                    let Some(time) = time.and_then(|cell| column.form.millis(cell)) else {
                        dropped.no_event_time += 1;
                        return None;
                    };
                    millis = time;
                }
                Role::RespondentId | Role::EventId | Role::Answer | Role::Unused => {}
            }
        }
        Some(Row { class: u16::try_from(class?).ok()?, millis })
    }

    fn header(&self) -> Vec<&str> {
        let used = self.columns.iter().filter(|column| column.role != Role::Unused);
        used.map(|column| column.field.as_str()).collect()
    }

    /// The cells of a row as Foretell gets them.
    fn cells(&self, row: &csv::StringRecord, marks: &MissingMarks) -> Vec<String> {
        let mut cells = Vec::with_capacity(self.columns.len());
        for (cell, column) in row.iter().zip(self.columns) {
            let cell = cell.trim();
            let value = match column.role {
                Role::Unused => continue,
                Role::Label => {
                    let class = self.classes.index_of(cell);
                    class.map(|class| self.classes.classes[class].name.clone())
                }
                Role::RespondentId => column.id(cell, marks),
                Role::Answer | Role::EventId | Role::EventTime if marks.contains(cell) => None,
                Role::EventId => Some(cell.to_owned()),
                Role::Answer | Role::EventTime => column.form.convert(cell),
            };
            cells.push(value.unwrap_or_default());
        }
        cells
    }
}

impl ColumnPlan {
    /// The respondent id in a trimmed cell.
    fn id(&self, cell: &str, marks: &MissingMarks) -> Option<String> {
        if marks.contains(cell) {
            None
        } else if self.is_whole_id {
            self.form.convert(cell)
        } else {
            Some(cell.to_owned())
        }
    }
}
