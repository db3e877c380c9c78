//! The initial data in the training log: their table, and whether all of them are present.
//!
//! Each initial example has a header with a manifest. By it, a reader of the log counts each example once, however often it was
//! written; knows the table; and detects missing examples. A new table starts a new *generation*; the newest complete
//! generation counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::labelled_example::{ExampleOrigin, LabelledExample};
use foretell_streams::record::{Header, InputRecord, Offset};

/// The header of an initial example: a [`Manifest`] as JSON.
const HEADER: &str = "foretell.initial";
/// Hexadecimal digits of a table's digest in an example's id: 64 bits are enough to distinguish the tables of one application.
const DIGEST_SHOWN: usize = 16;

/// The table of the initial examples.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Manifest {
    /// From 1; a later generation replaces the earlier ones. 0: written by a release without manifests.
    pub generation: u64,
    /// The digest of the table.
    pub table: String,
    /// The number of examples.
    pub examples: u64,
}

impl Manifest {
    /// The id of the example of a row, derived from the table and the row.
    #[must_use]
    pub fn example_id(&self, row: u64) -> String {
        format!("initial-{}-{row}", &self.table[..DIGEST_SHOWN.min(self.table.len())])
    }

    /// The record header of an example.
    ///
    /// # Panics
    /// Never: a manifest can always be written as JSON.
    #[must_use]
    pub fn header(&self) -> Header {
        let value = serde_json::to_vec(self).expect("it is text and numbers");
        Header { name: HEADER.to_owned(), value }
    }

    /// The manifest of an initial example's record; generation 0 without a header.
    fn of(record: &InputRecord) -> Self {
        let header = record.headers.iter().find(|header| header.name == HEADER);
        let read = header.and_then(|header| serde_json::from_slice(&header.value).ok());
        read.unwrap_or(Self { generation: 0, table: String::new(), examples: 0 })
    }
}

/// The training log lacks initial examples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the training log has {found} of the {expected} initial examples: records were deleted from it. The champion continues \
     to serve; `foretell init` writes the missing ones again"
)]
pub struct Incomplete {
    /// The number that the log should have.
    pub expected: u64,
    /// The number in the log.
    pub found: u64,
}

/// The initial examples of the log; each is kept as a `T`.
#[derive(Clone, Debug)]
pub struct InitialData<T> {
    sets: BTreeMap<Manifest, Set<T>>,
}

#[derive(Clone, Debug)]
struct Set<T> {
    /// By row.
    examples: BTreeMap<u64, T>,
    /// The offset at which the set became complete.
    completed: Option<Offset>,
}

impl<T> Default for InitialData<T> {
    fn default() -> Self {
        Self { sets: BTreeMap::new() }
    }
}

impl<T> InitialData<T> {
    /// Adds an example if it is an initial one and not present. Returns whether it is an initial one.
    pub fn take(&mut self, record: &InputRecord, example: &LabelledExample, kept: T) -> bool {
        if example.origin != ExampleOrigin::Initial {
            return false;
        }
        let Some(row) = row_of(example) else { return true };
        let manifest = Manifest::of(record);
        let expected = manifest.examples;
        let empty = || Set { examples: BTreeMap::new(), completed: None };
        let set = self.sets.entry(manifest).or_insert_with(empty);
        set.examples.entry(row).or_insert(kept);
        if set.completed.is_none() && count(&set.examples) == expected {
            set.completed = Some(record.offset);
        }
        true
    }

    /// Whether an example is present, so that [`Self::take`] would not keep it again.
    #[must_use]
    pub fn has(&self, record: &InputRecord, example: &LabelledExample) -> bool {
        let set = self.sets.get(&Manifest::of(record));
        row_of(example).zip(set).is_some_and(|(row, set)| set.examples.contains_key(&row))
    }

    /// Removes the generations before the newest complete one, which no training uses again. Returns what is left if there
    /// was one.
    pub fn remove_superseded(&mut self) -> Option<Vec<&mut T>> {
        let complete = self.sets.iter().filter(|(_, set)| set.completed.is_some());
        let newest = complete.map(|(manifest, _)| manifest.generation).max()?;
        let before = self.sets.len();
        self.sets.retain(|manifest, _| manifest.generation >= newest);
        if self.sets.len() == before {
            return None;
        }
        Some(self.sets.values_mut().flat_map(|set| set.examples.values_mut()).collect())
    }

    /// The sets: the manifest, the offset at which it became complete, and the examples by row.
    pub fn sets(&self) -> impl Iterator<Item = (&Manifest, Option<Offset>, &BTreeMap<u64, T>)> {
        self.sets.iter().map(|(manifest, set)| (manifest, set.completed, &set.examples))
    }

    /// Puts a set that [`Self::sets`] has returned.
    pub fn put_set(
        &mut self,
        manifest: Manifest,
        completed: Option<Offset>,
        examples: BTreeMap<u64, T>,
    ) {
        self.sets.insert(manifest, Set { examples, completed });
    }

    /// The newest generation, complete or not, with the rows that are present.
    #[must_use]
    pub fn newest(&self) -> Option<(&Manifest, &BTreeMap<u64, T>)> {
        let (manifest, set) = self.sets.last_key_value()?;
        Some((manifest, &set.examples))
    }

    /// The examples of the newest complete generation, by row. The log must have at least as many as the champion was trained
    /// on (`at_least`).
    ///
    /// # Errors
    /// [`Incomplete`] if examples are missing.
    pub fn complete(&self, at_least: u64) -> Result<Vec<&T>, Incomplete> {
        let complete = self.sets.iter().filter(|(_, set)| set.completed.is_some());
        // If two tables were written concurrently as one generation, the one that was complete last counts.
        let newest = complete.max_by_key(|(manifest, set)| (manifest.generation, set.completed));
        if let Some((_, set)) = newest {
            return Ok(set.examples.values().collect());
        }
        let Some((manifest, rows)) = self.newest() else {
            return match at_least {
                0 => Ok(Vec::new()),
                expected => Err(Incomplete { expected, found: 0 }),
            };
        };
        let found = count(rows);
        let is_unnumbered = manifest.generation == 0;
        let expected = if is_unnumbered {
            // Rows are numbered from 0, so the highest number gives the minimum.
            rows.last_key_value().map_or(0, |(row, _)| row + 1).max(at_least)
        } else {
            manifest.examples
        };
        if found < expected {
            return Err(Incomplete { expected, found });
        }
        Ok(rows.values().collect())
    }
}

/// The number of the row, at the end of an example's id.
fn row_of(example: &LabelledExample) -> Option<u64> {
    example.example_id.rsplit('-').next()?.parse().ok()
}

fn count<T>(rows: &BTreeMap<u64, T>) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{action::ExampleActions, questionnaire::AnswerRow};
    use foretell_streams::{
        record::{Partition, Topic, TopicPartition},
        time::EventTime,
    };

    fn manifest(generation: u64, table: &str, examples: u64) -> Manifest {
        Manifest { generation, table: table.repeat(64), examples }
    }

    /// Adds these rows in the order of the log.
    fn read(written: &[(&Manifest, u64)]) -> InitialData<(u64, u64)> {
        let mut data = InitialData::default();
        for (offset, (manifest, row)) in (0..).zip(written) {
            let example_id = match manifest.generation {
                0 => format!("initial-{row}"),
                _ => manifest.example_id(*row),
            };
            let example = LabelledExample {
                example_id: example_id.clone(),
                respondent_id: example_id,
                origin: ExampleOrigin::Initial,
                event_time: EventTime(0),
                outcome_time: None,
                label: "no".to_owned(),
                prediction: None,
                challenger: None,
                correction: false,
                replaced: None,
                actions: ExampleActions::default(),
                answers: AnswerRow::default(),
            };
            let topic = Topic::new("labelled-examples");
            let headers =
                if manifest.generation == 0 { Vec::new() } else { vec![manifest.header()] };
            let record = InputRecord {
                source: TopicPartition { topic, partition: Partition(0) },
                offset: Offset(offset),
                timestamp: EventTime(0),
                key: None,
                value: None,
                headers,
            };
            let is_there = data.has(&record, &example);
            let before = data.newest().map_or(0, |(_, rows)| rows.len());
            assert!(data.take(&record, &example, (manifest.generation, *row)));
            assert!(data.has(&record, &example));
            let after = data.newest().map_or(0, |(_, rows)| rows.len());
            assert!(!is_there || before == after);
        }
        data
    }

    fn check(
        written: &[(&Manifest, u64)],
        at_least: u64,
        expected: Result<&[(u64, u64)], (u64, u64)>,
    ) {
        let data = read(written);
        let complete =
            data.complete(at_least).map(|rows| rows.into_iter().copied().collect::<Vec<_>>());
        let expected = expected.map(<[_]>::to_vec);
        assert_eq!(complete, expected.map_err(|(expected, found)| Incomplete { expected, found }));
    }

    #[test]
    fn rows_written_twice_count_once() {
        let a = manifest(1, "a", 2);
        check(&[(&a, 0), (&a, 0), (&a, 1), (&a, 0), (&a, 1)], 0, Ok(&[(1, 0), (1, 1)]));
        check(&[(&a, 1), (&a, 0)], 2, Ok(&[(1, 0), (1, 1)]));
    }

    #[test]
    fn missing_rows_are_detected() {
        let a = manifest(1, "a", 3);
        check(&[(&a, 1), (&a, 2)], 0, Err((3, 2)));
        check(&[], 1_600, Err((1_600, 0)));
        check(&[], 0, Ok(&[]));
        let old = manifest(0, "", 0);
        check(&[(&old, 1), (&old, 2)], 0, Err((3, 2)));
        check(&[(&old, 0), (&old, 1)], 2, Ok(&[(0, 0), (0, 1)]));
        check(&[(&old, 0), (&old, 1), (&old, 0)], 3, Err((3, 2)));
    }

    #[test]
    fn the_newest_complete_generation_counts() {
        let (a, b, again) = (manifest(1, "a", 1), manifest(2, "b", 2), manifest(3, "a", 1));
        check(&[(&a, 0), (&b, 0)], 0, Ok(&[(1, 0)]));
        check(&[(&a, 0), (&b, 0), (&b, 1)], 0, Ok(&[(2, 0), (2, 1)]));
        check(&[(&a, 0), (&b, 0), (&b, 1), (&again, 0)], 0, Ok(&[(3, 0)]));
        let old = manifest(0, "", 0);
        check(&[(&old, 0), (&old, 1), (&a, 0)], 2, Ok(&[(1, 0)]));
        // Those before it are removed, and the choice stays the same.
        let mut data = read(&[(&a, 0), (&b, 0), (&b, 1), (&again, 0)]);
        assert_eq!(data.remove_superseded().map(|left| left.len()), Some(1));
        assert_eq!(data.complete(0), Ok(vec![&(3, 0)]));
        assert_eq!(data.remove_superseded(), None);
        assert_eq!(read(&[(&a, 0), (&b, 0)]).remove_superseded(), None);
        // Two tables of one generation.
        let other = manifest(1, "c", 1);
        check(&[(&a, 0), (&other, 0)], 0, Ok(&[(1, 0)]));
        check(&[(&other, 0), (&a, 0)], 0, Ok(&[(1, 0)]));
    }
}
