//! The examples of the log, in columns: how a record is added, and how all are written to bytes and read from them.
//!
//! ```text
//!   sets of initial examples u64, each: length of the manifest u64, the manifest as JSON,
//!                                       offset at which it was complete i64 (or -1), rows u64,
//!                                       each: row of the table u64, row of the set u32 (or 2^32 - 1), event time i64
//!   the set of the initial examples, the history of the stream (see `training_set` of foretell-ml)
//! ```

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use crate::{
    events::labelled_example::LabelledExample,
    processors::{
        initial_data::{InitialData, Manifest},
        learning::job::JobFailure,
    },
};
use foretell_ml::{
    Column, DataPolicy, Example, Sample, Seed, TrainingSet,
    training_set::{History, InitialRow},
};
use foretell_streams::record::{InputRecord, Offset};

/// The examples of the log. The policy bounds those from the stream; the others are the newest table of `foretell init`, and
/// one that is being written.
pub(super) struct Examples {
    /// The rows of the initial examples; none for one whose label is not configured.
    initial: InitialData<Option<InitialRow>>,
    initial_set: TrainingSet,
    pub(super) stream: History,
}

/// Bytes of a manifest: a digest and two numbers.
const MANIFEST_BYTES_MAX: u64 = 4_096;
/// Stands for the row of an example that is in no set.
const NO_ROW: u32 = u32::MAX;
/// Stands for the offset of a set that is not complete.
const NOT_COMPLETE: i64 = -1;

impl Examples {
    pub(super) fn new(columns: &[Column], policy: DataPolicy, seed: Seed) -> Self {
        Self {
            initial: InitialData::default(),
            initial_set: TrainingSet::new(columns),
            stream: History::new(columns, policy, seed),
        }
    }

    pub(super) fn add_initial(
        &mut self,
        record: &InputRecord,
        labelled: &LabelledExample,
        example: Option<Example>,
    ) {
        if self.initial.has(record, labelled) {
            return;
        }
        let row = example.map(|Example { values, label }| InitialRow {
            row: self.initial_set.push(&values, label),
            event_time: labelled.event_time.0,
        });
        self.initial.take(record, labelled, row);
        if let Some(left) = self.initial.remove_superseded() {
            let mut left: Vec<&mut InitialRow> = left.into_iter().flatten().collect();
            left.sort_by_key(|row| row.row);
            self.initial_set.retain(&left.iter().map(|row| row.row).collect::<Vec<_>>());
            for (row, moved) in (0..).zip(left) {
                moved.row = row;
            }
        }
    }

    /// The examples to train on, and the number of initial ones among them, of which there must be `at_least` so many if
    /// the policy uses them.
    pub(super) fn sample(&self, at_least: u64) -> Result<(Sample<'_>, usize), JobFailure> {
        let mut rows = Vec::new();
        if self.stream.uses_initial() {
            let complete = self.initial.complete(at_least);
            let complete = complete.map_err(|error| JobFailure::Incomplete(error.to_string()))?;
            rows.extend(complete.into_iter().flatten().copied());
        }
        Ok(self.stream.sample(&self.initial_set, &rows))
    }

    /// Number of examples in memory.
    pub(super) fn len(&self) -> usize {
        self.initial_set.len() + self.stream.len()
    }

    /// Allocated bytes of the columns.
    pub(super) fn bytes(&self) -> usize {
        self.initial_set.bytes() + self.stream.bytes()
    }

    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        write_number(to, self.initial.sets().count() as u64)?;
        for (manifest, completed, rows) in self.initial.sets() {
            let manifest = serde_json::to_vec(manifest)?;
            write_number(to, manifest.len() as u64)?;
            to.write_all(&manifest)?;
            to.write_all(&completed.map_or(NOT_COMPLETE, |offset| offset.0).to_le_bytes())?;
            write_number(to, rows.len() as u64)?;
            for (number, row) in rows {
                let InitialRow { row, event_time } =
                    row.unwrap_or(InitialRow { row: NO_ROW, event_time: 0 });
                write_number(to, *number)?;
                to.write_all(&row.to_le_bytes())?;
                to.write_all(&event_time.to_le_bytes())?;
            }
        }
        self.initial_set.write(to)?;
        self.stream.write(to)
    }

    /// Reads examples that were written with the same columns, policy and seed.
    pub(super) fn read(
        columns: &[Column],
        policy: DataPolicy,
        seed: Seed,
        from: &mut dyn Read,
    ) -> io::Result<Self> {
        let mut initial = InitialData::default();
        for _ in 0..read_number(from)? {
            let manifest = read_manifest(from)?;
            let completed = Some(i64::from_le_bytes(read_bytes(from)?));
            let completed = completed.filter(|offset| *offset != NOT_COMPLETE).map(Offset);
            let mut rows = BTreeMap::new();
            for _ in 0..read_number(from)? {
                let number = read_number(from)?;
                let row = u32::from_le_bytes(read_bytes(from)?);
                let event_time = i64::from_le_bytes(read_bytes(from)?);
                rows.insert(number, (row != NO_ROW).then_some(InitialRow { row, event_time }));
            }
            initial.put_set(manifest, completed, rows);
        }
        let initial_set = TrainingSet::read(columns, from)?;
        let rows = initial.sets().flat_map(|(_, _, rows)| rows.values().flatten());
        if !rows.map(|row| row.row as usize).all(|row| row < initial_set.len()) {
            return Err(invalid("an initial example that is in no set"));
        }
        let stream = History::read(columns, policy, seed, from)?;
        Ok(Self { initial, initial_set, stream })
    }
}

fn read_manifest(from: &mut dyn Read) -> io::Result<Manifest> {
    let length = read_number(from)?;
    if length > MANIFEST_BYTES_MAX {
        return Err(invalid("a manifest is too long"));
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub(super) fn write_number(to: &mut dyn Write, number: u64) -> io::Result<()> {
    to.write_all(&number.to_le_bytes())
}

pub(super) fn read_number(from: &mut dyn Read) -> io::Result<u64> {
    Ok(u64::from_le_bytes(read_bytes(from)?))
}

pub(super) fn read_bytes<const N: usize>(from: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
