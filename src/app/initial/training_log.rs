//! Appends to the training log the rows of the initial data that it lacks. Each row counts once, even if `init` runs repeatedly or
//! on several machines at a time.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use crate::{
    app::{cluster::Cluster, initial::Prepared, table::Row},
    config::Config,
    events::{
        action::ExampleActions,
        labelled_example::{ExampleOrigin, LabelledExample},
    },
    processors::{
        convert,
        initial_data::{InitialData, Manifest},
    },
};
use foretell_ml::{Column, Value};
use foretell_streams::{
    record::OutputRecord,
    time::{Clock, EventTime},
};

/// The initial examples in the training log; each is true if it equals the table's row with its number.
type LoggedRows = InitialData<bool>;

impl Prepared {
    /// Appends the rows that the training log lacks, and returns a message with their number. The rows of another table
    /// are replaced only if `replace` is set.
    ///
    /// # Errors
    /// If the log has the initial examples of another table. The message says what to do.
    pub(in crate::app) fn write(
        &self,
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
        replace: bool,
    ) -> anyhow::Result<String> {
        let logged = self.logged(config, cluster)?;
        let rows = self.table.rows.len();
        let none = BTreeMap::new();
        let (generation, present) = match logged.newest() {
            None => (1, &none),
            Some((newest, present)) if newest.generation == 0 => {
                let is_this_table = present.values().all(|is_same| *is_same);
                if is_this_table && present.len() == rows {
                    return Ok(format!(
                        "{rows} initial examples in the training log, 0 of them new"
                    ));
                }
                anyhow::ensure!(is_this_table || replace, "{}", other_table(config));
                (1, &none)
            }
            Some((newest, present)) if newest.table == self.table.digest => {
                (newest.generation, present)
            }
            Some((newest, _)) => {
                anyhow::ensure!(replace, "{}", other_table(config));
                (newest.generation + 1, &none)
            }
        };
        let manifest = Manifest {
            generation,
            table: self.table.digest.clone(),
            examples: u64::try_from(rows)?,
        };
        let topic = &config.topics.labelled_examples;
        let codec = cluster.codec::<LabelledExample>(config, topic)?;
        let mut publisher = cluster.broker.publish()?;
        let now = EventTime(clock.now().0);
        let mut written = 0;
        for (number, row) in (0_u64..).zip(&self.table.rows) {
            if present.contains_key(&number) {
                continue;
            }
            let example = example(manifest.example_id(number), row, now);
            let mut bytes = Vec::new();
            codec.encode(&example, &mut bytes)?;
            publisher.send(OutputRecord {
                topic: topic.clone(),
                partition: None,
                timestamp: now,
                key: Some(example.example_id.into_bytes()),
                value: Some(bytes),
                headers: vec![manifest.header()],
            })?;
            written += 1;
        }
        publisher.flush()?;
        let replaced = if generation > 1 && written > 0 { ", instead of those before" } else { "" };
        Ok(format!("{rows} initial examples in the training log, {written} of them new{replaced}"))
    }

    fn logged(&self, config: &Config, cluster: &Cluster) -> anyhow::Result<LoggedRows> {
        let questions = &config.gather.questions;
        let columns: Vec<Column> = questions.iter().map(convert::column_of).collect();
        let mut logged = LoggedRows::default();
        cluster.read_records(
            config,
            &config.topics.labelled_examples,
            |record, example: LabelledExample| {
                if example.origin == ExampleOrigin::Initial {
                    let row = example.example_id.rsplit('-').next().map(str::parse::<usize>);
                    let row = row.and_then(|number| self.table.rows.get(number.ok()?));
                    let is_same = row.is_some_and(|row| {
                        let layout = &config.gather.layout;
                        let values =
                            convert::values_in_order(&columns, questions, layout, &row.answers);
                        let written =
                            convert::values_in_order(&columns, questions, layout, &example.answers);
                        let mut pairs = values.into_iter().zip(written);
                        row.label == example.label
                            && pairs.all(|(value, written)| is_same_value(&value, &written))
                    });
                    logged.take(record, &example, is_same);
                }
                ControlFlow::Continue(())
            },
        )?;
        Ok(logged)
    }
}

fn other_table(config: &Config) -> String {
    format!(
        "the initial examples in {} are of another table than [data.initial] names: trainings would continue to learn from \
         them. Name that table, or replace them and make another first model with `foretell init --force`",
        config.topics.labelled_examples
    )
}

pub(in crate::app) fn example(example_id: String, row: &Row, now: EventTime) -> LabelledExample {
    LabelledExample {
        respondent_id: example_id.clone(),
        example_id,
        origin: ExampleOrigin::Initial,
        event_time: now,
        outcome_time: None,
        label: row.label.clone(),
        prediction: None,
        challenger: None,
        correction: false,
        replaced: None,
        actions: ExampleActions::default(),
        answers: row.answers.clone(),
    }
}

/// Whether a `written` value, maybe by an earlier release, is this `value` of the table. Earlier releases did not round the
/// numbers of `float` fields to 32 bits, and wrote a `long` that is a category as a number.
fn is_same_value(value: &Value, written: &Value) -> bool {
    let same = |one: f64, other: f64| (one as f32).to_bits() == (other as f32).to_bits();
    match (value, written) {
        (Value::Missing, Value::Missing) => true,
        (Value::Number(value), Value::Number(written)) => same(*value, *written),
        (Value::Text(value), Value::Text(written)) => value == written,
        (Value::Text(text), Value::Number(number)) | (Value::Number(number), Value::Text(text)) => {
            text.parse().is_ok_and(|parsed| same(parsed, *number))
        }
        (Value::Missing, _) | (_, Value::Missing) => false,
    }
}
