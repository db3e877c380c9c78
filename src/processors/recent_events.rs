//! The fingerprints of recent events, to recognise repeated events.
//!
//! ```text
//!   generations ─▶ [ 3: 256 buckets, since 10:00 ]  [ 4: 2048 buckets, since 11:40 ]  ◀─ new events go into the newest
//!                      │ not searched after its end + retention: every new event removes some of its buckets
//!                      └─ bucket 17 ─▶ concatenated fingerprints
//! ```
//! A generation ends when one of its buckets is full, and a larger one begins; or when half of the retention has passed.
//! So an event costs 30 bytes of memory (12, and its share of an entry with 17 on average), one lookup in each generation, and
//! one bucket in the changelog per commit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::events::questionnaire::Fingerprint;
use foretell_streams::{
    codec::Stored,
    state::{KeyValueHandle, KeyValueStore, StateError, StoreId},
    time::EventTime,
    topology::Context,
};

/// The recent events of one task.
#[derive(Clone)]
pub struct RecentEvents {
    retention: Duration,
    store: KeyValueHandle<RecentEntry>,
    /// Memory that every event uses again: the key of a bucket, and its contents.
    key: String,
    bucket: Vec<u8>,
}

/// A value of the store: the key `generations` has the list of them, the key `<generation>/<bucket>` a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RecentEntry {
    /// All generations, oldest first.
    Generations(Vec<Generation>),
    /// Concatenated fingerprints.
    Bucket(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl RecentEntry {
    /// The format version.
    pub const FORMAT: u8 = 1;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> Stored<Self> {
        Stored::version(Self::FORMAT)
    }
}

/// A [`RecentEntry`] whose bucket is borrowed.
#[derive(Serialize, Deserialize)]
enum RecentEntryRef<'a> {
    Generations(Vec<Generation>),
    Bucket(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
}

/// Buckets that are filled in the same period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    number: u32,
    /// The number of buckets is two to the power of this.
    bits: u8,
    begun: EventTime,
    ended: Option<EventTime>,
    /// The number of buckets that are removed.
    removed: u32,
}

const GENERATIONS: &str = "generations";
/// 256 buckets: enough for four thousand events.
const BITS_MIN: u8 = 8;
/// 262,144 buckets: enough for 4.4 million events.
const BITS_MAX: u8 = 18;
/// If a generation was full before its end, the next has eight times as many buckets.
const BITS_MORE: u8 = 3;
/// The number of fingerprints in a full bucket: twice the average of all buckets at that time.
const BUCKET_MAX: usize = 34;
/// Maximum number of generations: 8 of 4.4 million events (600 MB per task). Beyond it the oldest is removed early.
const GENERATIONS_MAX: usize = 8;
/// The number of buckets of an ended generation that each new event removes. Since a generation is at least as large as the one
/// before it, all are removed in time.
const REMOVED_AT_ONCE: u32 = 2;
/// The number of buckets that one punctuation removes.
const REMOVED_BY_EXPIRY: u32 = 4_096;

const BYTES: usize = size_of::<Fingerprint>();

impl RecentEvents {
    /// The recent events in `store`. Repeats are recognised within `retention` of stream time; zero: never.
    #[must_use]
    pub fn new(retention: Duration, store: KeyValueHandle<RecentEntry>) -> Self {
        Self { retention, store, key: String::new(), bucket: Vec::new() }
    }

    /// Stream time in which a repeat is recognised; zero: never.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.retention
    }

    /// The identity of the store.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.store.id()
    }

    /// Adds an event; false if it is a repeat.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn insert<Out: 'static>(
        &mut self,
        fingerprint: &Fingerprint,
        ctx: &mut Context<'_, Out>,
    ) -> Result<bool, StateError> {
        if self.retention.is_zero() {
            return Ok(true);
        }
        let now = ctx.stream_time();
        let handle = self.store.clone();
        let mut store = ctx.key_value(&handle);
        let mut generations = generations(&store)?;
        let mut is_changed = self.remove_some(&mut generations, now, &mut store)?;
        for generation in &generations {
            if !self.has_passed(generation, now)
                && self.fetch_bucket(generation, fingerprint, &store)?
                && self.bucket.chunks_exact(BYTES).any(|known| known == fingerprint)
            {
                return Ok(false);
            }
        }
        if self.begin(&mut generations, now) {
            is_changed = true;
            let newest = generations.last().expect("one has begun");
            self.fetch_bucket(newest, fingerprint, &store)?;
        }
        // If none has begun, the bucket of the newest was the last to be fetched.
        let newest = generations.last_mut().expect("begin() leaves at least one");
        self.bucket.extend_from_slice(fingerprint);
        if self.bucket.len() >= BUCKET_MAX * BYTES {
            newest.ended = Some(now);
            is_changed = true;
        }
        let entry = RecentEntryRef::Bucket(&self.bucket);
        store.write(&self.key, |bytes| RecentEntry::codec().write(&entry, bytes))?;
        if is_changed {
            store.put(GENERATIONS, &RecentEntry::Generations(generations))?;
        }
        Ok(true)
    }

    /// Copies the bucket of a fingerprint, and its key; false if there is none.
    fn fetch_bucket(
        &mut self,
        generation: &Generation,
        fingerprint: &Fingerprint,
        store: &KeyValueStore<'_, RecentEntry>,
    ) -> Result<bool, StateError> {
        let Self { key, bucket, .. } = self;
        generation.write_key(fingerprint, key);
        bucket.clear();
        let found = store.read(key, |bytes| {
            if let RecentEntryRef::Bucket(found) = RecentEntry::codec().read(bytes)? {
                bucket.extend_from_slice(found);
            }
            Ok(())
        })?;
        Ok(found.is_some())
    }

    /// The time of the last event that a generation may have.
    fn end_of(&self, generation: &Generation) -> EventTime {
        generation.ended.unwrap_or(generation.begun + self.retention / 2)
    }

    /// Whether every event of a generation is older than the retention.
    fn has_passed(&self, generation: &Generation, now: EventTime) -> bool {
        now > self.end_of(generation) + self.retention
    }

    /// Starts a new generation if the newest cannot take an event; returns whether it did.
    fn begin(&self, generations: &mut Vec<Generation>, now: EventTime) -> bool {
        let Some(newest) = generations.last_mut() else {
            generations.push(Generation::first(now));
            return true;
        };
        let is_full = newest.ended.is_some();
        if !is_full && now.since(newest.begun) < self.retention / 2 {
            return false;
        }
        newest.ended = Some(self.end_of(newest));
        let bits = if is_full { newest.bits + BITS_MORE } else { newest.bits };
        let number = newest.number.wrapping_add(1);
        let bits = bits.min(BITS_MAX);
        generations.push(Generation { number, bits, ..Generation::first(now) });
        true
    }

    /// Removes buckets that have passed, because there may be too few new events to do so.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn expire<Out: 'static>(&self, ctx: &mut Context<'_, Out>) -> Result<(), StateError> {
        let now = ctx.stream_time();
        let mut store = ctx.key_value(&self.store);
        let mut generations = generations(&store)?;
        let mut is_changed = false;
        for _ in 0..REMOVED_BY_EXPIRY / REMOVED_AT_ONCE {
            is_changed |= self.remove_some(&mut generations, now, &mut store)?;
        }
        if is_changed {
            store.put(GENERATIONS, &RecentEntry::Generations(generations))?;
        }
        Ok(())
    }

    /// Removes some buckets of the oldest generation, if it has passed; returns whether it did.
    fn remove_some(
        &self,
        generations: &mut Vec<Generation>,
        now: EventTime,
        store: &mut KeyValueStore<'_, RecentEntry>,
    ) -> Result<bool, StateError> {
        let is_over_bound = generations.len() > GENERATIONS_MAX;
        let Some(oldest) = generations.first_mut() else { return Ok(false) };
        if !self.has_passed(oldest, now) && !is_over_bound && oldest.removed == 0 {
            return Ok(false);
        }
        let mut key = String::new();
        for _ in 0..REMOVED_AT_ONCE {
            oldest.write_bucket_key(oldest.removed, &mut key);
            if store.get(&key)?.is_some() {
                store.delete(&key);
            }
            oldest.removed += 1;
        }
        if oldest.removed >= 1 << oldest.bits {
            generations.remove(0);
        }
        Ok(true)
    }
}

impl Generation {
    fn first(now: EventTime) -> Self {
        Self { number: 0, bits: BITS_MIN, begun: now, ended: None, removed: 0 }
    }

    /// Writes the key of a fingerprint's bucket, in place of the contents of `key`.
    fn write_key(&self, fingerprint: &Fingerprint, key: &mut String) {
        let (head, _) = fingerprint.split_first_chunk::<4>().expect("a fingerprint has 12 bytes");
        let bucket = u32::from_be_bytes(*head) >> (u32::BITS - u32::from(self.bits));
        self.write_bucket_key(bucket, key);
    }

    fn write_bucket_key(&self, bucket: u32, key: &mut String) {
        key.clear();
        write_hex(self.number, key);
        key.push('/');
        write_hex(bucket, key);
    }
}

fn generations(store: &KeyValueStore<'_, RecentEntry>) -> Result<Vec<Generation>, StateError> {
    match store.get(GENERATIONS)? {
        Some(RecentEntry::Generations(generations)) => Ok(generations),
        Some(RecentEntry::Bucket(_)) | None => Ok(Vec::new()),
    }
}

/// Appends the hexadecimal digits of a number. `write!` takes several times as long, for each event.
fn write_hex(number: u32, text: &mut String) {
    let digits = (u32::BITS - number.leading_zeros()).div_ceil(4).max(1);
    let digit = |place| char::from_digit(number >> (4 * place) & 0xf, 16);
    text.extend((0..digits).rev().filter_map(digit));
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use foretell_streams::{
        codec::Utf8,
        local::TopologyDriver,
        metrics::StreamsMetrics,
        record::Topic,
        time::WallTime,
        topology::{
            ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
        },
    };

    const RETENTION: Duration = Duration::from_secs(100);

    /// Forwards what it sees for the first time.
    struct Distinct(RecentEvents);

    impl Processor for Distinct {
        type In = String;
        type Out = String;

        fn start(&mut self, ctx: &mut Context<'_, String>) {
            ctx.schedule(PunctuationKind::StreamTime, RETENTION / 20);
        }

        fn process(
            &mut self,
            record: &Record<String>,
            ctx: &mut Context<'_, String>,
        ) -> Result<(), ProcessError> {
            if self.0.insert(&fingerprint(&record.value), ctx)? {
                ctx.forward(record)?;
            }
            Ok(())
        }

        fn punctuate(
            &mut self,
            _: Punctuation,
            ctx: &mut Context<'_, String>,
        ) -> Result<(), ProcessError> {
            Ok(self.0.expire(ctx)?)
        }
    }

    /// A fingerprint that is spread over the buckets like a hash.
    fn fingerprint(name: &str) -> Fingerprint {
        let number: u64 = name.parse().unwrap();
        let mut bytes = [0; 12];
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes[..8].copy_from_slice(&spread.to_be_bytes());
        bytes[8..].copy_from_slice(&number.to_be_bytes()[4..]);
        bytes
    }

    struct Fixture {
        driver: TopologyDriver,
        input: Topic,
        output: Topic,
    }

    impl Fixture {
        fn new() -> Self {
            let (input, output) = (Topic::new("in"), Topic::new("out"));
            let mut topology = TopologyBuilder::new("test", Topic::new("dead-letters"));
            let events = topology.source("in", input.clone(), Arc::new(Utf8));
            let store = topology.key_value_store("recent", Arc::new(RecentEntry::codec()));
            let recent = RecentEvents::new(RETENTION, store);
            let stores = [recent.store_id()];
            let distinct =
                topology.process("distinct", &[events], &stores, move || Distinct(recent.clone()));
            topology.sink("out", &[distinct], output.clone(), Arc::new(Utf8));
            let metrics = StreamsMetrics::unregistered();
            let driver = TopologyDriver::new(topology.build(), WallTime(1 << 40), &metrics);
            Self { driver, input, output }
        }

        /// Pipes in an event at a second, and returns whether it is new.
        fn is_new(&mut self, number: u64, at: i64) -> bool {
            let (name, time) = (number.to_string(), EventTime(at * 1_000));
            self.driver.pipe(&self.input, None, Some(name.as_bytes()), time).unwrap();
            self.driver.commit();
            !self.driver.read(&self.output).is_empty()
        }

        fn entries(&self) -> usize {
            self.driver.task().store_entries()["recent"]
        }
    }

    #[test]
    fn keys_are_hexadecimal() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 0xabc, 0x10_0000, u32::MAX] {
            let mut key = "x".to_owned();
            Generation { number, ..Generation::first(EventTime(0)) }
                .write_bucket_key(number, &mut key);
            assert_eq!(key, format!("{number:x}/{number:x}"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Few event ids, so that they repeat, with restarts in between.
        #[test]
        fn a_repeat_is_recognised_within_the_retention_and_not_later(
            steps in proptest::collection::vec((0..40_u64, 0..30_i64, 0..20_u8), 1..200),
        ) {
            let mut fixture = Fixture::new();
            let mut last_new = BTreeMap::<u64, i64>::new();
            let mut now = 0;
            for (number, passed, chance) in steps {
                now += passed;
                let is_new = fixture.is_new(number, now);
                let since = last_new.get(&number).map(|last| now - last);
                let retention = i64::try_from(RETENTION.as_secs()).unwrap();
                match since {
                    None => prop_assert!(is_new),
                    Some(since) if since <= retention => prop_assert!(!is_new),
                    // A generation takes events for half of the retention.
                    Some(since) if 2 * since > 3 * retention => prop_assert!(is_new),
                    Some(_) => {}
                }
                if is_new {
                    last_new.insert(number, now);
                }
                if chance == 0 {
                    fixture.driver.restart();
                }
            }
        }
    }

    #[test]
    fn many_events_fill_larger_generations_which_are_removed_in_time() {
        const EVENTS: u64 = 30_000;
        let mut fixture = Fixture::new();
        for number in 0..EVENTS {
            assert!(fixture.is_new(number, 0), "{number}");
        }
        let entries = fixture.entries();
        assert!(entries < 6_000, "{entries} entries for {EVENTS} events");
        for number in (0..EVENTS).step_by(97) {
            assert!(!fixture.is_new(number, 50), "{number}");
        }
        // After the retention all buckets are removed, although there are few events.
        for step in 0..200 {
            fixture.is_new(EVENTS + step, 200 + i64::try_from(step).unwrap() * 10);
        }
        assert!(fixture.entries() < 100, "{} entries are left", fixture.entries());
    }
}
