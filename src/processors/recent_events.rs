//! Which events came lately, so that one that comes again is known for a repeat.
//!
//! ```text
//!   generations ─▶ [ 3: 256 buckets, since 10:00 ]  [ 4: 2048 buckets, since 11:40 ]  ◀─ new ones go into the newest
//!                      │ no event is looked for here after its end + retention: a bucket goes with every new event
//!                      └─ bucket 17 ─▶ fingerprints, one after the other
//! ```
//! A generation ends when one of its buckets is full, and a larger one begins; or when half of the retention has passed.
//! So an event costs 30 bytes of memory (12, and its share of an entry that holds 17 on average), one look into
//! each generation, and a bucket in the changelog a commit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::events::questionnaire::Fingerprint;
use foretell_streams::{
    state::{KeyValueHandle, KeyValueStore, StateError},
    time::EventTime,
    topology::Context,
};

/// Events of one task that came lately.
#[derive(Clone)]
pub struct RecentEvents {
    /// How long, in stream time, a repeat is known for one; zero: never.
    pub retention: Duration,
    /// Where they are kept.
    pub store: KeyValueHandle<RecentEntry>,
}

/// A value of the store: under `generations` the list of these, under `<generation>/<bucket>` what is in a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RecentEntry {
    /// The oldest first.
    Generations(Vec<Generation>),
    /// Fingerprints, end to end.
    Bucket(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl RecentEntry {
    /// The version of what is stored.
    pub const FORMAT: u8 = 1;
}

/// Buckets that were filled at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    number: u32,
    /// It has two to the power of this many buckets.
    bits: u8,
    begun: EventTime,
    ended: Option<EventTime>,
    /// Buckets of it that are removed already.
    removed: u32,
}

const GENERATIONS: &str = "generations";
/// 256 buckets: enough for four thousand events.
const BITS_MIN: u8 = 8;
/// 262,144 buckets: enough for 4.4 million events.
const BITS_MAX: u8 = 18;
/// When a generation was too small, the next has eight times as many buckets.
const BITS_MORE: u8 = 3;
/// Fingerprints in a bucket that is full: twice what buckets have on average by then.
const BUCKET_MAX: usize = 34;
/// Generations at most: 8 of 4.4 million events (600 MB a task) are the bound on what is remembered. Beyond it the
/// oldest is forgotten before its time.
const GENERATIONS_MAX: usize = 8;
/// Buckets of an ended generation that are removed with each new event. The next has room for at least as many events.
const REMOVED_AT_ONCE: u32 = 2;
/// Buckets that one punctuation removes.
const REMOVED_BY_EXPIRY: u32 = 4_096;

const BYTES: usize = size_of::<Fingerprint>();

impl RecentEvents {
    /// Remembers an event; false if it came before.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn insert<Out: 'static>(
        &self,
        fingerprint: &Fingerprint,
        ctx: &mut Context<'_, Out>,
    ) -> Result<bool, StateError> {
        if self.retention.is_zero() {
            return Ok(true);
        }
        let now = ctx.stream_time();
        let mut store = ctx.key_value(&self.store);
        let stored = generations(&store)?;
        let mut generations = stored.clone();
        self.forget(&mut generations, now, &mut store)?;
        for generation in generations.iter().filter(|one| !self.has_passed(one, now)) {
            let bucket = bucket(&store, &generation.key(fingerprint))?;
            if bucket.chunks_exact(BYTES).any(|known| known == fingerprint) {
                return Ok(false);
            }
        }
        self.begin(&mut generations, now);
        let newest = generations.last_mut().expect("one has begun");
        let key = newest.key(fingerprint);
        let mut bucket = bucket(&store, &key)?;
        bucket.extend_from_slice(fingerprint);
        if bucket.len() >= BUCKET_MAX * BYTES {
            newest.ended = Some(now);
        }
        store.put(&key, &RecentEntry::Bucket(bucket))?;
        if generations != stored {
            store.put(GENERATIONS, &RecentEntry::Generations(generations))?;
        }
        Ok(true)
    }

    /// No event of a generation came after this.
    fn end_of(&self, generation: &Generation) -> EventTime {
        generation.ended.unwrap_or(generation.begun + self.retention / 2)
    }

    /// Whether all events of a generation came longer ago than repeats are known for.
    fn has_passed(&self, generation: &Generation, now: EventTime) -> bool {
        now > self.end_of(generation) + self.retention
    }

    /// Makes sure that the newest generation can take an event.
    fn begin(&self, generations: &mut Vec<Generation>, now: EventTime) {
        let Some(newest) = generations.last_mut() else {
            generations.push(Generation::first(now));
            return;
        };
        let is_full = newest.ended.is_some();
        if !is_full && now.since(newest.begun) < self.retention / 2 {
            return;
        }
        newest.ended = Some(self.end_of(newest));
        let bits = if is_full { newest.bits + BITS_MORE } else { newest.bits };
        let number = newest.number.wrapping_add(1);
        let bits = bits.min(BITS_MAX);
        generations.push(Generation { number, bits, ..Generation::first(now) });
    }

    /// Removes more of what has passed than new events do, which may be few.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn expire<Out: 'static>(&self, ctx: &mut Context<'_, Out>) -> Result<(), StateError> {
        let now = ctx.stream_time();
        let mut store = ctx.key_value(&self.store);
        let stored = generations(&store)?;
        let mut generations = stored.clone();
        for _ in 0..REMOVED_BY_EXPIRY / REMOVED_AT_ONCE {
            self.forget(&mut generations, now, &mut store)?;
        }
        if generations != stored {
            store.put(GENERATIONS, &RecentEntry::Generations(generations))?;
        }
        Ok(())
    }

    /// Removes some buckets of the oldest generation, if it has passed.
    fn forget(
        &self,
        generations: &mut Vec<Generation>,
        now: EventTime,
        store: &mut KeyValueStore<'_, RecentEntry>,
    ) -> Result<(), StateError> {
        let is_over_bound = generations.len() > GENERATIONS_MAX;
        let Some(oldest) = generations.first_mut() else { return Ok(()) };
        if !self.has_passed(oldest, now) && !is_over_bound && oldest.removed == 0 {
            return Ok(());
        }
        for _ in 0..REMOVED_AT_ONCE {
            let key = oldest.bucket_key(oldest.removed);
            if store.get(&key)?.is_some() {
                store.delete(&key);
            }
            oldest.removed += 1;
        }
        if oldest.removed >= 1 << oldest.bits {
            generations.remove(0);
        }
        Ok(())
    }
}

impl Generation {
    fn first(now: EventTime) -> Self {
        Self { number: 0, bits: BITS_MIN, begun: now, ended: None, removed: 0 }
    }

    fn key(&self, fingerprint: &Fingerprint) -> String {
        let (head, _) = fingerprint.split_first_chunk::<4>().expect("a fingerprint has 12 bytes");
        self.bucket_key(u32::from_be_bytes(*head) >> (u32::BITS - u32::from(self.bits)))
    }

    fn bucket_key(&self, bucket: u32) -> String {
        format!("{:x}/{bucket:x}", self.number)
    }
}

fn generations(store: &KeyValueStore<'_, RecentEntry>) -> Result<Vec<Generation>, StateError> {
    match store.get(GENERATIONS)? {
        Some(RecentEntry::Generations(generations)) => Ok(generations),
        Some(RecentEntry::Bucket(_)) | None => Ok(Vec::new()),
    }
}

fn bucket(store: &KeyValueStore<'_, RecentEntry>, key: &str) -> Result<Vec<u8>, StateError> {
    match store.get(key)? {
        Some(RecentEntry::Bucket(bucket)) => Ok(bucket),
        Some(RecentEntry::Generations(_)) | None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use foretell_streams::{
        codec::{Stored, Utf8},
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

    /// Spread over all buckets, as a hash is.
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
            let store =
                topology.key_value_store("recent", Arc::new(Stored::version(RecentEntry::FORMAT)));
            let recent = RecentEvents { retention: RETENTION, store };
            let stores = [recent.store.id()];
            let distinct =
                topology.process("distinct", &[events], &stores, move || Distinct(recent.clone()));
            topology.sink("out", &[distinct], output.clone(), Arc::new(Utf8));
            let metrics = StreamsMetrics::unregistered();
            let driver = TopologyDriver::new(topology.build(), WallTime(1 << 40), &metrics);
            Self { driver, input, output }
        }

        /// Whether an event is new at a second.
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Few names, so that they repeat; restarts and aborts in between.
        #[test]
        fn a_repeat_within_the_retention_is_known_and_later_it_is_not(
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
    fn many_events_fill_larger_generations_and_leave_nothing_behind() {
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
        // After the retention, all of it goes, although few events come.
        for step in 0..200 {
            fixture.is_new(EVENTS + step, 200 + i64::try_from(step).unwrap() * 10);
        }
        assert!(fixture.entries() < 100, "{} entries are left", fixture.entries());
    }
}
