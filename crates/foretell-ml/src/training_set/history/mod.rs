//! The examples from the stream: a training set with event times and ids, bounded by a policy.
//!
//! What is kept is a pure function of the examples that were added, their order, the policy and the seed; when samples were
//! taken has no influence. An example that no sample can have any more is removed later, with others at once, so that its
//! removal takes constant time on average.

mod encoding;

use hashbrown::HashTable;
use sha2::{Digest as _, Sha256};

use crate::{
    Column, Label, Seed, ValueRef,
    training_set::{
        DataPolicy, InitialPolicy, Part, Retention, Sample, TrainingSet,
        column::{Chunked, index},
        policy::priority,
    },
};

/// Examples beyond those of the policy that are kept before they are removed: a quarter, and at least this many.
const SURPLUS_MIN: usize = 1_024;

/// An example from the stream, without its values and label.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its id. An example with the id of another replaces it.
    pub id: &'a str,
    /// Its event time, in milliseconds.
    pub event_time: i64,
    /// Its offset in the training log. A correction does not change that of its example.
    pub offset: i64,
    /// Whether it replaces an example. Under `last = M` it is ignored if that example is not kept any more.
    pub is_correction: bool,
}

/// An initial example in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialRow {
    /// Its row.
    pub row: u32,
    /// Its event time, in milliseconds. It counts as no newer than the first example from the stream.
    pub event_time: i64,
}

/// The examples from the stream that a policy keeps.
///
/// Memory: 36 bytes of event time, offset, id and label for each example, 6 to 12 of the index by id, and its values (see
/// [`TrainingSet::raw_bytes`]). With `last` and `reservoir` there are up to a quarter and 1,024 examples more than a sample
/// has.
#[derive(Debug)]
pub struct History {
    policy: DataPolicy,
    seed: Seed,
    set: TrainingSet,
    event_times: Chunked<i64>,
    /// Ascending.
    offsets: Chunked<i64>,
    ids: Chunked<u128>,
    /// Rows by id.
    rows: HashTable<u32>,
    /// Event time of the first example.
    first_time: Option<i64>,
    /// Newest event time.
    newest_time: i64,
    /// With a reservoir: examples with this priority or a higher one cannot be in it.
    priority_end: u64,
    /// Number of examples at which those that are not needed are removed.
    compact_at: usize,
}

impl History {
    /// A history without examples. Only a reservoir depends on the seed.
    #[must_use]
    pub fn new(columns: &[Column], policy: DataPolicy, seed: Seed) -> Self {
        let mut history = Self {
            policy,
            seed,
            set: TrainingSet::new(columns),
            event_times: Chunked::default(),
            offsets: Chunked::default(),
            ids: Chunked::default(),
            rows: HashTable::new(),
            first_time: None,
            newest_time: i64::MIN,
            priority_end: u64::MAX,
            compact_at: 0,
        };
        history.compact_at = history.next_compaction(0);
        history
    }

    /// Adds an example, or replaces the one with its id in its place.
    pub fn add<'v, V: Into<ValueRef<'v>>>(
        &mut self,
        arrival: Arrival<'_>,
        values: impl IntoIterator<Item = V>,
        label: Label,
    ) {
        let Arrival { id, event_time, offset, is_correction } = arrival;
        let id = hash_of(id);
        self.first_time.get_or_insert(event_time);
        self.newest_time = self.newest_time.max(event_time);
        let row = self.rows.find(id as u64, |row| self.ids.get(index(*row)) == id).copied();
        if let Some(row) = row.filter(|row| self.is_needed(*row)) {
            self.set.replace(row, values, label);
            self.event_times.set(index(row), event_time);
            return;
        }
        let is_kept = match self.policy.retention {
            Retention::All => true,
            // Its example was replaced by newer ones, and a correction is not a new example.
            Retention::Last(_) => !is_correction,
            Retention::Within(time) => self.is_within(event_time, time),
            Retention::Reservoir(_) => priority(self.seed.0, id) < self.priority_end,
        };
        if !is_kept {
            return;
        }
        if let Some(old) = row {
            // Not needed any more: from now on the id is that of the new row.
            let entry = self.rows.find_entry(id as u64, |row| *row == old);
            drop(entry.map(hashbrown::hash_table::OccupiedEntry::remove));
        }
        let row = self.set.push(values, label);
        self.event_times.push(event_time);
        self.offsets.push(offset);
        self.ids.push(id);
        let Self { rows, ids, .. } = self;
        rows.insert_unique(id as u64, row, |row| ids.get(index(*row)) as u64);
        if self.set.len() >= self.compact_at {
            self.compact();
        }
    }

    /// Whether a sample may have initial examples. If not, it does not matter if some are missing.
    #[must_use]
    pub fn uses_initial(&self) -> bool {
        match (self.policy.initial, self.policy.retention) {
            (InitialPolicy::Keep, _)
            | (InitialPolicy::Age, Retention::All | Retention::Reservoir(_)) => true,
            (InitialPolicy::Age, Retention::Last(number)) => self.set.len() < number,
            (InitialPolicy::Age, Retention::Within(time)) => {
                self.first_time.is_none_or(|first| self.is_within(first, time))
            }
        }
    }

    /// The sample for a training: initial examples, then those from the stream, in order. `rows` are the initial examples
    /// in the order of their table, in the set `initial`. Also returns the number of initial examples in the sample.
    #[must_use]
    pub fn sample<'s>(
        &'s self,
        initial: &'s TrainingSet,
        rows: &[InitialRow],
    ) -> (Sample<'s>, usize) {
        let (from_initial, from_stream) = self.select(rows);
        let initial_weights = match self.policy.initial {
            InitialPolicy::Keep if self.policy.half_life.is_some() => vec![1.0; from_initial.len()],
            InitialPolicy::Keep => Vec::new(),
            InitialPolicy::Age => {
                let times = from_initial.iter().map(|row| self.initial_time(row));
                self.weights(times)
            }
        };
        let times = from_stream.iter().map(|row| self.event_times.get(index(*row)));
        let stream_weights = self.weights(times);
        let count = from_initial.len();
        let from_initial = from_initial.into_iter().map(|row| row.row).collect();
        let part = |set, rows, weights| Part { set, rows, weights };
        let initial = part(initial, from_initial, initial_weights);
        let stream = part(&self.set, from_stream, stream_weights);
        (Sample { parts: vec![initial, stream] }, count)
    }

    /// The examples from the stream that have an offset of at least `offset` and are kept by the policy, in order, with equal
    /// weights.
    #[must_use]
    pub fn sample_since(&self, offset: i64) -> Sample<'_> {
        let mut rows = self.needed_rows();
        rows.retain(|row| self.offsets.get(index(*row)) >= offset);
        Sample { parts: vec![Part { set: &self.set, rows, weights: Vec::new() }] }
    }

    /// Offsets of the examples from the stream in a sample of this history, ascending. They are its last examples.
    ///
    /// # Panics
    /// If the sample is not of this history.
    #[must_use]
    pub fn offsets(&self, sample: &Sample<'_>) -> Vec<i64> {
        let stream = sample.parts.last().expect("a sample of a history has parts");
        stream.rows.iter().map(|row| self.offsets.get(index(*row))).collect()
    }

    /// The initial examples and the rows of the history in a sample.
    fn select(&self, initial: &[InitialRow]) -> (Vec<InitialRow>, Vec<u32>) {
        let stream = self.needed_rows();
        if self.policy.initial == InitialPolicy::Keep {
            return (initial.to_vec(), stream);
        }
        match self.policy.retention {
            Retention::All => (initial.to_vec(), stream),
            Retention::Last(number) => {
                let room = number - stream.len().min(number);
                (initial[initial.len().saturating_sub(room)..].to_vec(), stream)
            }
            Retention::Within(time) => {
                let is_within = |row: &&InitialRow| self.is_within(self.initial_time(row), time);
                let all_within = self.first_time.is_none();
                let kept = initial.iter().filter(|row| all_within || is_within(row));
                (kept.copied().collect(), stream)
            }
            Retention::Reservoir(number) => self.reservoir(initial, &stream, number),
        }
    }

    /// Draws from both.
    fn reservoir(
        &self,
        initial: &[InitialRow],
        stream: &[u32],
        number: usize,
    ) -> (Vec<InitialRow>, Vec<u32>) {
        // The ids of the stream are hashes, which are not this small.
        let of_initial = (0..).take(initial.len()).map(|place: u128| self.priority_of(place));
        let of_stream = stream.iter().map(|row| self.priority_of(self.ids.get(index(*row))));
        let drawn = lowest(of_initial.chain(of_stream), number);
        let split = drawn.partition_point(|place| *place < initial.len());
        let (from_initial, from_stream) = drawn.split_at(split);
        (
            from_initial.iter().map(|place| initial[*place]).collect(),
            from_stream.iter().map(|place| stream[*place - initial.len()]).collect(),
        )
    }

    fn priority_of(&self, id: u128) -> u64 {
        priority(self.seed.0, id)
    }

    /// Event time of an initial example, which is older than the stream even if the stream is replayed from the past.
    fn initial_time(&self, row: &InitialRow) -> i64 {
        self.first_time.map_or(row.event_time, |first| row.event_time.min(first))
    }

    fn weights(&self, times: impl Iterator<Item = i64>) -> Vec<f32> {
        if self.policy.half_life.is_none() {
            return Vec::new();
        }
        let newest = if self.first_time.is_some() { self.newest_time } else { i64::MIN };
        times.map(|time| self.policy.weight(newest.saturating_sub(time))).collect()
    }

    fn is_within(&self, event_time: i64, time: i64) -> bool {
        event_time > self.newest_time.saturating_sub(time)
    }

    /// Whether the example of a row may be in a sample.
    fn is_needed(&self, row: u32) -> bool {
        match self.policy.retention {
            // A row that is not in the reservoir any more does no harm: it never returns.
            Retention::All | Retention::Reservoir(_) => true,
            Retention::Last(number) => index(row) + number >= self.set.len(),
            Retention::Within(time) => self.is_within(self.event_times.get(index(row)), time),
        }
    }

    /// The rows of a sample, without regard to initial data.
    fn needed_rows(&self) -> Vec<u32> {
        let rows = 0..u32::try_from(self.set.len()).expect("rows have 31 bits");
        match self.policy.retention {
            Retention::Reservoir(number) => {
                let priorities = rows.map(|row| self.priority_of(self.ids.get(index(row))));
                let drawn = lowest(priorities, number).into_iter();
                drawn.map(|row| u32::try_from(row).expect("rows have 31 bits")).collect()
            }
            Retention::All | Retention::Last(_) | Retention::Within(_) => {
                rows.filter(|row| self.is_needed(*row)).collect()
            }
        }
    }

    fn next_compaction(&self, kept: usize) -> usize {
        let needed = match self.policy.retention {
            Retention::All => return usize::MAX,
            Retention::Last(number) | Retention::Reservoir(number) => number,
            Retention::Within(_) => kept,
        };
        needed.saturating_add((needed / 4).max(SURPLUS_MIN))
    }

    /// Removes the examples that no sample can have.
    fn compact(&mut self) {
        let needed = self.needed_rows();
        self.set.retain(&needed);
        self.event_times.retain(&needed);
        self.offsets.retain(&needed);
        self.ids.retain(&needed);
        let ids = &self.ids;
        self.rows.clear();
        for row in (0..).take(needed.len()) {
            let hash = |row: &u32| ids.get(index(*row)) as u64;
            self.rows.insert_unique(hash(&row), row, hash);
        }
        if let Retention::Reservoir(number) = self.policy.retention
            && needed.len() == number
        {
            let priorities = (0..number).map(|row| self.priority_of(self.ids.get(row)));
            self.priority_end = priorities.max().unwrap_or(u64::MAX);
        }
        self.compact_at = self.next_compaction(needed.len());
    }

    /// Number of examples in memory, among them a bounded number that no sample has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether no example is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Allocated bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let index = self.rows.allocation_size();
        let places = self.event_times.bytes() + self.offsets.bytes();
        self.set.bytes() + places + self.ids.bytes() + index
    }

    /// Bytes of the values, labels and event times alone; 8 for an event time, the others as [`TrainingSet::raw_bytes`].
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.set.raw_bytes() + self.set.len() * size_of::<i64>()
    }
}

/// The first 16 bytes of the SHA-256 of an id, so that ids of any length take 16 bytes, and the reservoir draws the same
/// examples on every machine. Two of 10^12 ids are equal with a probability of 10^-15.
fn hash_of(id: &str) -> u128 {
    let digest = Sha256::digest(id.as_bytes());
    u128::from_le_bytes(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
}

/// The places of the `number` lowest priorities, ascending; of two equal ones the first is lower.
fn lowest(priorities: impl Iterator<Item = u64>, number: usize) -> Vec<usize> {
    let mut ranked: Vec<(u64, usize)> =
        priorities.enumerate().map(|(place, priority)| (priority, place)).collect();
    if ranked.len() > number {
        ranked.select_nth_unstable(number);
        ranked.truncate(number);
    }
    let mut places: Vec<usize> = ranked.into_iter().map(|(_, place)| place).collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ColumnKind, Value};

    fn columns() -> [Column; 2] {
        [Column::new("x", ColumnKind::Numeric), Column::new("kind", ColumnKind::Categorical)]
    }

    fn history(retention: Retention, initial: InitialPolicy) -> History {
        let policy = DataPolicy { retention, initial, half_life: None };
        History::new(&columns(), policy, Seed(1))
    }

    /// Adds an example whose first value is `x`.
    fn add(history: &mut History, id: u32, event_time: i64, x: f64, is_correction: bool) {
        let id = format!("p-{id}");
        let values = [Value::Number(x), Value::Text(format!("kind {}", x % 3.0))];
        history.add(Arrival { id: &id, event_time, offset: 0, is_correction }, &values, Label(0));
    }

    /// The first values of a sample, and their weights.
    fn sampled(
        history: &History,
        initial: &TrainingSet,
        rows: &[InitialRow],
    ) -> (Vec<f64>, Vec<f32>) {
        let (sample, count) = history.sample(initial, rows);
        assert_eq!(count, sample.parts()[0].rows().len());
        let x = |part: &Part<'_>| {
            let first = |row: &u32| match part.set.values(*row).next() {
                Some(ValueRef::Number(x)) => x,
                other => panic!("{other:?}"),
            };
            part.rows().iter().map(first).collect::<Vec<_>>()
        };
        (sample.parts().iter().flat_map(x).collect(), sample.weights())
    }

    fn from_stream(history: &History) -> Vec<f64> {
        sampled(history, &TrainingSet::new(&columns()), &[]).0
    }

    fn initial(count: u32, event_time: i64) -> (TrainingSet, Vec<InitialRow>) {
        let mut set = TrainingSet::new(&columns());
        let row = |n: u32| {
            let values = [Value::Number(-1.0 - f64::from(n)), Value::Missing];
            InitialRow { row: set.push(&values, Label(0)), event_time }
        };
        let rows = (0..count).map(row).collect();
        (set, rows)
    }

    #[derive(Clone, Copy, Debug)]
    struct Added {
        id: u32,
        event_time: i64,
        is_correction: bool,
    }

    /// The places of the values that a policy keeps, computed from its definition.
    fn expected(added: &[Added], retention: Retention) -> Vec<f64> {
        // In order of arrival: id, event time, the last value.
        let mut kept: Vec<(u32, i64, f64)> = Vec::new();
        let mut newest = i64::MIN;
        for (place, Added { id, event_time, is_correction }) in added.iter().copied().enumerate() {
            newest = newest.max(event_time);
            if let Retention::Within(time) = retention {
                kept.retain(|(_, at, _)| *at > newest - time);
            }
            let of_id = kept.iter_mut().find(|(other, _, _)| *other == id);
            match (of_id, retention) {
                (Some(found), _) => *found = (id, event_time, place as f64),
                (None, Retention::Last(_)) if is_correction => {}
                (None, _) => kept.push((id, event_time, place as f64)),
            }
            match retention {
                Retention::All | Retention::Reservoir(_) => {}
                Retention::Last(number) => drop(kept.drain(..kept.len().saturating_sub(number))),
                Retention::Within(time) => kept.retain(|(_, at, _)| *at > newest - time),
            }
        }
        if let Retention::Reservoir(number) = retention {
            let priority = |id: u32| priority(1, hash_of(&format!("p-{id}")));
            let mut priorities: Vec<u64> = kept.iter().map(|(id, ..)| priority(*id)).collect();
            priorities.sort_unstable();
            let highest = priorities.get(number - 1).copied().unwrap_or(u64::MAX);
            kept.retain(|(id, ..)| priority(*id) <= highest);
        }
        kept.into_iter().map(|(.., x)| x).collect()
    }

    fn retentions() -> impl Strategy<Value = Retention> {
        prop_oneof![
            Just(Retention::All),
            (1..40_usize).prop_map(Retention::Last),
            (1..40_i64).prop_map(Retention::Within),
            (1..40_usize).prop_map(Retention::Reservoir),
        ]
    }

    proptest! {
        /// Ids repeat with and without the mark of a correction, times are out of order, and compactions fall anywhere.
        #[test]
        fn a_policy_keeps_what_its_definition_says(
            added in prop::collection::vec((0..120_u32, 0..30_i64, any::<bool>()), 0..400),
            retention in retentions(),
            surplus in 1..50_usize,
        ) {
            let added = (0..).zip(added).map(|(place, (id, jitter, is_correction)): (i64, _)| {
                Added { id, event_time: place / 2 + jitter, is_correction }
            });
            let added: Vec<Added> = added.collect();
            let mut history = history(retention, InitialPolicy::Keep);
            for (place, one) in added.iter().enumerate() {
                add(&mut history, one.id, one.event_time, place as f64, one.is_correction);
                if retention != Retention::All && place % surplus == 0 {
                    history.compact();
                }
                if place % 97 == 0 {
                    prop_assert_eq!(from_stream(&history), expected(&added[..=place], retention));
                }
            }
            prop_assert_eq!(from_stream(&history), expected(&added, retention));
        }
    }

    #[test]
    fn memory_is_bounded_by_the_policy() {
        let check = |retention: Retention, kept: usize| {
            let mut history = history(retention, InitialPolicy::Keep);
            let (mut most, mut raw) = (0, 0);
            for n in 0..200_000_u32 {
                add(&mut history, n, i64::from(n), f64::from(n), false);
                most = most.max(history.len());
                raw = raw.max(history.raw_bytes());
            }
            assert!(from_stream(&history).len() <= kept, "{retention:?}");
            assert!(most <= kept + kept / 4 + SURPLUS_MIN, "{retention:?}: {most}");
            // Two columns: 4 + 4 bytes of values, 4 of the label, 8 of the event time. The tail of a chunk is unused.
            assert!(raw <= most * 20 + 64, "{retention:?}: {raw}");
            let tails = (4 + 4 + 4 + 8 + 16) * 16_384;
            let bound = raw * 5 / 2 + tails;
            assert!(history.bytes() <= bound, "{retention:?}: {} of {bound}", history.bytes());
        };
        check(Retention::All, 200_000);
        check(Retention::Last(50_000), 50_000);
        check(Retention::Within(50_000), 50_000);
        check(Retention::Reservoir(50_000), 50_000);
        check(Retention::Last(1), 1);
    }

    #[test]
    fn memory_is_at_most_two_and_a_half_times_the_raw_columns() {
        let names: Vec<String> = (0..14).map(|n| format!("c{n}")).collect();
        let check = |numbers: usize| {
            let kind = |n| if n < numbers { ColumnKind::Numeric } else { ColumnKind::Categorical };
            let columns = names.iter().enumerate().map(|(n, name)| Column::new(name, kind(n)));
            let columns: Vec<Column> = columns.collect();
            let mut history = History::new(&columns, DataPolicy::default(), Seed(1));
            for n in 0..300_000_u32 {
                let values: Vec<Value> =
                    (0..14_u32).map(|column| Value::Number(f64::from(n % (column + 2)))).collect();
                let id = n.to_string();
                let arrival = Arrival { id: &id, event_time: 0, offset: 0, is_correction: false };
                history.add(arrival, &values, Label(0));
            }
            let ratio = history.bytes() as f64 / history.raw_bytes() as f64;
            assert!(ratio <= 2.5, "{numbers} numbers: {ratio}");
        };
        check(14);
        check(6);
        check(0);
    }

    #[test]
    fn a_reservoir_is_a_uniform_sample() {
        let mut drawn = vec![0_u32; 1_000];
        for seed in 0..200 {
            let policy =
                DataPolicy { retention: Retention::Reservoir(100), ..DataPolicy::default() };
            let mut history = History::new(&columns(), policy, Seed(seed));
            for n in 0..1_000 {
                add(&mut history, n, 0, f64::from(n), false);
            }
            for n in 0..1_000_u32 {
                let is_drawn = from_stream(&history).binary_search_by(|x| x.total_cmp(&n.into()));
                drawn[n as usize] += u32::from(is_drawn.is_ok());
            }
        }
        // 200 draws with a probability of a tenth: 20 ± 4.2, so six standard deviations.
        assert_eq!(drawn.iter().sum::<u32>(), 200 * 100);
        assert!(drawn.iter().all(|times| (1..=46).contains(times)), "{drawn:?}");
    }

    #[test]
    fn initial_data_are_kept_or_age_with_the_stream() {
        let (set, rows) = initial(4, 1_000);
        let check =
            |retention, policy, stream: std::ops::Range<u32>, expected: &[f64], used: bool| {
                let mut history = history(retention, policy);
                for n in stream {
                    add(&mut history, n, i64::from(n), n.into(), false);
                }
                assert_eq!(sampled(&history, &set, &rows).0, expected, "{retention:?} {policy:?}");
                assert_eq!(history.uses_initial(), used, "{retention:?} {policy:?}");
            };
        let (keep, age) = (InitialPolicy::Keep, InitialPolicy::Age);
        let all = [-1.0, -2.0, -3.0, -4.0];
        check(Retention::Last(3), keep, 0..5, &[-1.0, -2.0, -3.0, -4.0, 2.0, 3.0, 4.0], true);
        check(Retention::Last(3), age, 0..0, &all[1..], true);
        check(Retention::Last(3), age, 0..2, &[-4.0, 0.0, 1.0], true);
        check(Retention::Last(3), age, 0..3, &[0.0, 1.0, 2.0], false);
        check(Retention::All, age, 0..1, &[-1.0, -2.0, -3.0, -4.0, 0.0], true);
        // Initial data are as old as the first example of the stream, though they were written later.
        check(Retention::Within(10), age, 0..0, &all, true);
        check(Retention::Within(3), age, 0..3, &[-1.0, -2.0, -3.0, -4.0, 0.0, 1.0, 2.0], true);
        check(Retention::Within(3), age, 0..4, &[1.0, 2.0, 3.0], false);
        check(Retention::Within(3), keep, 0..4, &[-1.0, -2.0, -3.0, -4.0, 1.0, 2.0, 3.0], true);
    }

    #[test]
    fn an_aging_reservoir_draws_from_both() {
        let (set, rows) = initial(1_000, 0);
        let mut history = history(Retention::Reservoir(500), InitialPolicy::Age);
        for n in 0..1_000 {
            add(&mut history, n, 0, n.into(), false);
        }
        let drawn = sampled(&history, &set, &rows).0;
        assert_eq!(drawn.len(), 500);
        let from_initial = drawn.iter().filter(|x| **x < 0.0).count();
        assert!((180..=320).contains(&from_initial), "{from_initial}");
        assert!(drawn.is_sorted_by(|a, b| (*a < 0.0, b) <= (*b < 0.0, b) || *a < 0.0 || a < b));
    }

    #[test]
    fn weights_follow_event_time() {
        let (set, rows) = initial(1, 1_000);
        let check = |policy: InitialPolicy, expected: &[f32]| {
            let policy =
                DataPolicy { half_life: Some(10), initial: policy, ..DataPolicy::default() };
            let mut history = History::new(&columns(), policy, Seed(1));
            for (id, time) in [(0, 20), (1, 40), (2, 30)] {
                add(&mut history, id, time, 1.0, false);
            }
            assert_eq!(sampled(&history, &set, &rows).1, expected);
        };
        check(InitialPolicy::Keep, &[1.0, 0.25, 1.0, 0.5]);
        check(InitialPolicy::Age, &[0.25, 0.25, 1.0, 0.5]);
        assert!(sampled(&history(Retention::All, InitialPolicy::Age), &set, &rows).1.is_empty());
    }
}
