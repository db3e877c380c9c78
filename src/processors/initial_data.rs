//! The initial data in the training log: which table they are of, and whether all of them are there.
//!
//! Each example bears in a header what it was made from. So a reader of the log counts each example once, however
//! often it was written; sees which table they are of; and notices if some are not there any more. Another table is
//! another *generation*: of those that are whole, the newest counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::events::labelled_example::{ExampleOrigin, LabelledExample};
use foretell_streams::record::{Header, InputRecord, Offset};

/// The header of an initial example: a [`Manifest`] as JSON.
const HEADER: &str = "foretell.initial";
/// Hexadecimal digits of a table's digest that an example's id shows: 64 bits tell tables of one application apart.
const DIGEST_SHOWN: usize = 16;

/// What initial examples were made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Manifest {
    /// From 1 on; a later one replaces those before it. 0: written by a release that had no manifests.
    pub generation: u64,
    /// The digest of the table.
    pub table: String,
    /// How many examples there are.
    pub examples: u64,
}

impl Manifest {
    /// The name of the example of a row: the same row of the same table has the same name.
    #[must_use]
    pub fn example_id(&self, row: u64) -> String {
        format!("initial-{}-{row}", &self.table[..DIGEST_SHOWN.min(self.table.len())])
    }

    /// What an example bears.
    ///
    /// # Panics
    /// Never: it is text and numbers.
    #[must_use]
    pub fn header(&self) -> Header {
        let value = serde_json::to_vec(self).expect("it is text and numbers");
        Header { name: HEADER.to_owned(), value }
    }

    /// What the record of an initial example bears; an earlier release's has nothing.
    fn of(record: &InputRecord) -> Self {
        let header = record.headers.iter().find(|header| header.name == HEADER);
        let read = header.and_then(|header| serde_json::from_slice(&header.value).ok());
        read.unwrap_or(Self { generation: 0, table: String::new(), examples: 0 })
    }
}

/// Why the initial data can't be learned from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the training log has {found} of the {expected} initial examples: records were deleted from it. The champion goes \
     on serving; `foretell init` writes the missing ones again"
)]
pub struct Incomplete {
    /// How many there should be.
    pub expected: u64,
    /// How many there are.
    pub found: u64,
}

/// Initial examples as they are read from the log; each is kept as a `T`.
#[derive(Clone, Debug)]
pub struct InitialData<T> {
    sets: BTreeMap<Manifest, Set<T>>,
}

#[derive(Clone, Debug)]
struct Set<T> {
    /// By their rows.
    examples: BTreeMap<u64, T>,
    /// Where the last one that was lacking was read.
    completed: Option<Offset>,
}

impl<T> Default for InitialData<T> {
    fn default() -> Self {
        Self { sets: BTreeMap::new() }
    }
}

impl<T> InitialData<T> {
    /// Takes in an example, if it is an initial one; one that is there already is left as it is. Answers whether it is
    /// one.
    pub fn take(&mut self, record: &InputRecord, example: &LabelledExample, kept: T) -> bool {
        if example.origin != ExampleOrigin::Initial {
            return false;
        }
        let row = example.example_id.rsplit('-').next().and_then(|row| row.parse().ok());
        let Some(row) = row else { return true };
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

    /// The newest generation, whole or not, with the rows that are there.
    #[must_use]
    pub fn newest(&self) -> Option<(&Manifest, &BTreeMap<u64, T>)> {
        let (manifest, set) = self.sets.last_key_value()?;
        Some((manifest, &set.examples))
    }

    /// The examples to learn from, by their rows. The champion knows how many there were at least.
    ///
    /// # Errors
    /// [`Incomplete`], if some of them are gone.
    pub fn whole(&self, at_least: u64) -> Result<Vec<&T>, Incomplete> {
        let whole = self.sets.iter().filter(|(_, set)| set.completed.is_some());
        // Two of one generation were written at once: the one that was whole last has the last word.
        let newest = whole.max_by_key(|(manifest, set)| (manifest.generation, set.completed));
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
            // Its rows count from 0, so the last one says how many there were.
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

fn count<T>(rows: &BTreeMap<u64, T>) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::{
        record::{Partition, Topic, TopicPartition},
        time::EventTime,
    };

    fn manifest(generation: u64, table: &str, examples: u64) -> Manifest {
        Manifest { generation, table: table.repeat(64), examples }
    }

    /// Rows in the order of the log.
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
                features: Vec::new(),
                prediction: None,
                correction: false,
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
            assert!(data.take(&record, &example, (manifest.generation, *row)));
        }
        data
    }

    fn check(
        written: &[(&Manifest, u64)],
        at_least: u64,
        expected: Result<&[(u64, u64)], (u64, u64)>,
    ) {
        let data = read(written);
        let whole = data.whole(at_least).map(|rows| rows.into_iter().copied().collect::<Vec<_>>());
        let expected = expected.map(<[_]>::to_vec);
        assert_eq!(whole, expected.map_err(|(expected, found)| Incomplete { expected, found }));
    }

    #[test]
    fn writing_twice_is_writing_once() {
        let a = manifest(1, "a", 2);
        check(&[(&a, 0), (&a, 0), (&a, 1), (&a, 0), (&a, 1)], 0, Ok(&[(1, 0), (1, 1)]));
        check(&[(&a, 1), (&a, 0)], 2, Ok(&[(1, 0), (1, 1)]));
    }

    #[test]
    fn a_missing_head_is_noticed() {
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
    fn the_newest_whole_generation_counts() {
        let (a, b, again) = (manifest(1, "a", 1), manifest(2, "b", 2), manifest(3, "a", 1));
        check(&[(&a, 0), (&b, 0)], 0, Ok(&[(1, 0)]));
        check(&[(&a, 0), (&b, 0), (&b, 1)], 0, Ok(&[(2, 0), (2, 1)]));
        check(&[(&a, 0), (&b, 0), (&b, 1), (&again, 0)], 0, Ok(&[(3, 0)]));
        let old = manifest(0, "", 0);
        check(&[(&old, 0), (&old, 1), (&a, 0)], 2, Ok(&[(1, 0)]));
        // Two of one generation at once.
        let other = manifest(1, "c", 1);
        check(&[(&a, 0), (&other, 0)], 0, Ok(&[(1, 0)]));
        check(&[(&other, 0), (&a, 0)], 0, Ok(&[(1, 0)]));
    }
}
