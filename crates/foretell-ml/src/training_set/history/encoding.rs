//! The bytes of a history: its set, then what it knows of each example, and what it has removed.
//!
//! ```text
//!   set, event times i64 × rows, offsets i64 × rows, ids u128 × rows
//!   0, or 1 and the event time of the first example i64; newest event time i64
//!   end of the priorities u64, rows of the next removal u64
//! ```
//! The index by id is made again. Policy and seed are not written: a history must be read with those that it was written with.

use std::io::{self, Read, Write};

use hashbrown::HashTable;

use crate::{
    Column, Seed,
    training_set::{
        DataPolicy, TrainingSet,
        column::{Chunked, index},
        encoding::{invalid, read_array, write_elements},
        history::History,
    },
};

impl History {
    /// Writes the history. With the same columns, policy and seed, [`Self::read`] makes an equal one.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        self.set.write(to)?;
        self.event_times.write(to, i64::to_le_bytes)?;
        self.offsets.write(to, i64::to_le_bytes)?;
        self.ids.write(to, u128::to_le_bytes)?;
        to.write_all(&[u8::from(self.first_time.is_some())])?;
        write_elements(to, self.first_time.as_slice(), i64::to_le_bytes)?;
        write_elements(to, &[self.newest_time], i64::to_le_bytes)?;
        let compact_at = u64::try_from(self.compact_at).unwrap_or(u64::MAX);
        write_elements(to, &[self.priority_end, compact_at], u64::to_le_bytes)
    }

    /// Reads a history that [`Self::write`] has written with these columns, this policy and this seed.
    ///
    /// # Errors
    /// Those of `from`; [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] if the bytes are not such a history.
    pub fn read(
        columns: &[Column],
        policy: DataPolicy,
        seed: Seed,
        from: &mut dyn Read,
    ) -> io::Result<Self> {
        let set = TrainingSet::read(columns, from)?;
        let event_times = Chunked::read(from, set.len(), i64::from_le_bytes)?;
        let offsets = Chunked::read(from, set.len(), i64::from_le_bytes)?;
        if !offsets.iter().is_sorted() {
            return Err(invalid("offsets that do not ascend"));
        }
        let ids = Chunked::read(from, set.len(), u128::from_le_bytes)?;
        let first_time = match read_array(from, u8::from_le_bytes)? {
            [0] => None,
            [1] => Some(read_array(from, i64::from_le_bytes)?).map(|[first]| first),
            [_] => return Err(invalid("neither a first event time nor none")),
        };
        let [newest_time] = read_array(from, i64::from_le_bytes)?;
        let [priority_end, compact_at] = read_array(from, u64::from_le_bytes)?;
        let mut history = Self {
            policy,
            seed,
            set,
            event_times,
            offsets,
            ids,
            rows: HashTable::new(),
            first_time,
            newest_time,
            priority_end,
            compact_at: usize::try_from(compact_at).unwrap_or(usize::MAX),
        };
        history.index();
        Ok(history)
    }

    /// Makes the index by id. Of several rows with an id the last counts: the others are not needed any more.
    fn index(&mut self) {
        let Self { rows, ids, set, .. } = self;
        let hash = |row: &u32| ids.get(index(*row)) as u64;
        rows.reserve(set.len(), hash);
        for row in (0..).take(set.len()) {
            let id = ids.get(index(row));
            match rows.find_mut(id as u64, |other| ids.get(index(*other)) == id) {
                Some(other) => *other = row,
                None => drop(rows.insert_unique(id as u64, row, hash)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ColumnKind, Label, ValueRef,
        training_set::{Arrival, InitialPolicy, InitialRow, Retention},
    };

    fn columns() -> [Column; 2] {
        [Column::new("x", ColumnKind::Numeric), Column::new("kind", ColumnKind::Categorical)]
    }

    fn written(history: &History) -> Vec<u8> {
        let mut bytes = Vec::new();
        history.write(&mut bytes).unwrap();
        bytes
    }

    fn read(history: &History, bytes: &[u8]) -> io::Result<History> {
        let mut rest = bytes;
        let read = History::read(&columns(), history.policy, history.seed, &mut rest)?;
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
        Ok(read)
    }

    #[derive(Clone, Copy, Debug)]
    struct Added {
        id: u32,
        jitter: i64,
        is_correction: bool,
    }

    fn add(history: &mut History, place: u32, added: Added) {
        let Added { id, jitter, is_correction } = added;
        let (id, kind) = (format!("p-{id}"), format!("kind {}", place % 11));
        let x = f64::from(place) * if place.is_multiple_of(50) { 0.1 } else { 1.0 };
        let offset = i64::from(place);
        let event_time = offset / 2 + jitter;
        let arrival = Arrival { id: &id, event_time, offset, is_correction };
        history.add(arrival, [ValueRef::Number(x), ValueRef::Text(&kind)], Label(place % 2));
    }

    fn policies() -> impl Strategy<Value = DataPolicy> {
        let retention = prop_oneof![
            Just(Retention::All),
            (1..40_usize).prop_map(Retention::Last),
            (1..200_i64).prop_map(Retention::Within),
            (1..40_usize).prop_map(Retention::Reservoir),
        ];
        let initial = prop_oneof![Just(InitialPolicy::Keep), Just(InitialPolicy::Age)];
        let half_life = prop_oneof![Just(None), Just(Some(20))];
        (retention, initial, half_life).prop_map(|(retention, initial, half_life)| DataPolicy {
            retention,
            half_life,
            initial,
        })
    }

    proptest! {
        /// Removals fall anywhere: there are at least 1,024 examples between two of them, and up to 3,000 examples.
        #[test]
        fn a_history_that_was_read_goes_on_like_one_that_was_not(
            added in prop::collection::vec((0..2_000_u32, 0..30_i64, any::<bool>()), 1..3_000),
            restart in any::<prop::sample::Index>(),
            policy in policies(),
        ) {
            let added: Vec<Added> = added
                .into_iter()
                .map(|(id, jitter, is_correction)| Added { id, jitter, is_correction })
                .collect();
            let restart = restart.index(added.len());
            let mut whole = History::new(&columns(), policy, Seed(1));
            let mut restarted = History::new(&columns(), policy, Seed(1));
            for (place, one) in (0..).zip(&added) {
                add(&mut whole, place, *one);
                if place as usize == restart {
                    restarted = read(&restarted, &written(&restarted)).unwrap();
                }
                add(&mut restarted, place, *one);
            }
            prop_assert_eq!(written(&restarted), written(&whole));
            // The bytes do not have the index by id.
            for history in [&mut whole, &mut restarted] {
                for id in 0..2_000 {
                    add(history, 5_000, Added { id, jitter: 0, is_correction: true });
                }
            }
            prop_assert_eq!(written(&restarted), written(&whole));
            let mut initial = TrainingSet::new(&columns());
            let rows: Vec<InitialRow> = (0..5)
                .map(|event_time| {
                    let row = initial.push([ValueRef::Number(0.5)], Label(0));
                    InitialRow { row, event_time }
                })
                .collect();
            let sample = |history: &History| {
                let (sample, initial) = history.sample(&initial, &rows);
                let labels: Vec<_> = sample.labels().collect();
                (labels, sample.weights(), history.offsets(&sample), initial)
            };
            prop_assert_eq!(sample(&restarted), sample(&whole));
        }
    }

    #[test]
    fn bytes_that_are_no_history_are_an_error() {
        let mut history = History::new(&columns(), DataPolicy::default(), Seed(1));
        for place in 0..40 {
            add(&mut history, place, Added { id: place, jitter: 0, is_correction: false });
        }
        let bytes = written(&history);
        for end in 0..bytes.len() {
            let kind = read(&history, &bytes[..end]).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::UnexpectedEof, "the first {end} bytes");
        }
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 0x81;
            let read =
                History::read(&columns(), history.policy, history.seed, &mut changed.as_slice());
            // Whatever is changed, nothing panics, and what can be read can be used.
            if let Ok(mut read) = read {
                for id in 0..80 {
                    add(&mut read, 100, Added { id, jitter: 0, is_correction: false });
                }
                assert!(!read.sample(&TrainingSet::new(&columns()), &[]).0.is_empty());
            }
        }
    }
}
