//! The initial data: checks the whole table before anything is written. `training_log` writes its rows.

mod training_log;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Context;

use crate::{
    app::{
        returning,
        table::{self, Row, Table},
    },
    config::{Config, TableSettings},
    processors::{convert, gather::GatherSettings},
};
use foretell_ml::{Example, TrainingSet, training::check_folds};
use foretell_streams::time::EventTime;

#[cfg(test)]
pub(super) use training_log::example;

/// The checked initial data.
pub(super) struct Prepared {
    table: Table,
    /// The training set of the first model.
    pub(super) examples: TrainingSet,
    /// The examples of `[data.play]`, which the first model is evaluated on.
    pub(super) unseen: Option<Vec<Example>>,
    /// Problems that do not prevent training.
    pub(super) warnings: Vec<String>,
}

/// An event time after this is probably in another unit.
const YEAR_2200: EventTime = EventTime(7_258_118_400_000);

/// Warnings about the respondents and the event times of a table, which `send` and `demo` play as events.
fn warnings_of(config: &Config, table: &TableSettings, rows: &[Row]) -> Vec<String> {
    let path = table.path.display();
    let times = || rows.iter().filter_map(|row| row.event_time);
    let mut warnings = Vec::new();
    let is_odd = |time: &EventTime| *time < EventTime::YEAR_2000 || *time > YEAR_2200;
    if let Some(first) = times().find(is_odd) {
        let hint = match first.mistaken_unit(YEAR_2200) {
            Some(unit) => {
                format!(" ms: it looks like {unit}, and has to be in the unit of the event schema")
            }
            None => String::new(),
        };
        warnings.push(format!(
            "{path}: column {:?}: {} of {} event times are not between the years 2000 and 2200, such as {}{hint}",
            config.events.event_time,
            times().filter(is_odd).count(),
            times().count(),
            first.0,
        ));
    }
    // Rows with the same event id are one event; each one without an id is an event of its own.
    let mut named = BTreeSet::new();
    let visits = rows.iter().filter(|row| !row.respondent_id.is_empty()).filter_map(|row| {
        let (respondent, id) = (row.respondent_id.as_str(), row.event_id.as_str());
        let is_event = id.is_empty() || named.insert((respondent, id));
        row.event_time.filter(|_| is_event).map(|at| (respondent, at))
    });
    warnings.extend(
        returning::warning(visits, &config.join).map(|warning| format!("{path}: {warning}")),
    );
    warnings
}

fn settings_of(config: &Config) -> anyhow::Result<&TableSettings> {
    config.data.initial.as_ref().context(
        "there is no initial data: name a table of past answers and outcomes in [data.initial]",
    )
}

impl Prepared {
    /// Reads the tables of the configuration.
    ///
    /// # Errors
    /// If no model can be trained from them. The message names the file, and the line where one is at fault.
    pub(super) fn from(config: &Config) -> anyhow::Result<Self> {
        let written = settings_of(config)?;
        Self::of_files(config, std::slice::from_ref(&written.path))
    }

    /// As [`Self::from`], of several files with the columns of `[data.initial]`.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub(super) fn of_files(config: &Config, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let written = settings_of(config)?;
        let labels = &config.classes;
        let mut tables = paths.iter().map(|path| {
            let settings = TableSettings { path: path.clone(), ..written.clone() };
            table::of_configuration(config, "data.initial", &settings, labels)
        });
        let mut table = tables.next().context("there is no initial data: name a file")??;
        for another in tables {
            table.rows.extend(another?.rows);
        }
        let columns = config.pipeline.columns();
        let mut examples = TrainingSet::new(columns);
        for row in &table.rows {
            let Example { values, label } = example_of(config, row)?;
            examples.push(&values, label);
        }
        let path = written.path.display();
        anyhow::ensure!(!table.rows.is_empty(), "{path}: there are no rows");
        let is_there = |label: &&String| table.rows.iter().any(|row| row.label == **label);
        let (there, lacking): (Vec<_>, Vec<_>) = labels.iter().partition(is_there);
        anyhow::ensure!(
            there.len() >= 2,
            "{path}: {} rows, all of them {there:?}: a model needs at least two labels that have examples",
            table.rows.len(),
        );
        let study = &config.tuning.study;
        let folds = usize::try_from(study.folds)?;
        check_folds(&examples.sample(), labels.len(), folds, study.order).with_context(|| {
            let counts = labels.iter().map(|label| {
                let rows = table.rows.iter().filter(|row| row.label == *label).count();
                format!("{rows} of {label:?}")
            });
            let counts: Vec<String> = counts.collect();
            format!("{path}: {} rows, {}", table.rows.len(), counts.join(", "))
        })?;
        let mut warnings = Vec::new();
        for label in lacking {
            warnings.push(format!(
                "{path}: label {label:?} has no example, so it will not be predicted"
            ));
        }
        if !table.unanswered.is_empty() {
            let names = table.unanswered.join(", ");
            warnings.push(format!(
                "{path}: no column has the event schema's {names}: the first model learns nothing of it"
            ));
        }
        warnings.extend(warnings_of(config, written, &table.rows));
        let unseen = match &config.data.play {
            Some(play) => {
                let played = table::of_configuration(config, "data.play", play, labels)?;
                if play.path != written.path {
                    warnings.extend(warnings_of(config, play, &played.rows));
                }
                Some(
                    played
                        .rows
                        .iter()
                        .map(|row| example_of(config, row))
                        .collect::<Result<_, _>>()?,
                )
            }
            None => None,
        };
        Ok(Self { table, examples, unseen, warnings })
    }
}

fn example_of(config: &Config, row: &Row) -> anyhow::Result<Example> {
    let (columns, classes) = (config.pipeline.columns(), &config.classes);
    let GatherSettings { questions, layout, .. } = &config.gather;
    let label = convert::label_of(&row.label, classes);
    let label = label.with_context(|| format!("label {:?} is unknown", row.label))?;
    Ok(Example {
        values: convert::values_in_order(columns, questions, layout, &row.answers),
        label,
    })
}

#[cfg(test)]
mod tests;
