//! Retries look-ups of unknown schema ids: the replica of a registry that is asked may not have a newly registered schema
//! yet. A record with an unknown id waits for a bounded time, and is dead-lettered after that.
//!
//! Bytes that are not Avro contain arbitrary ids, and each of them would block its partition for that time. So after a
//! wait that failed, its id is not waited for again, and for a pause no other id is; each failure doubles the pause.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    evolution::Level,
    registry::{Compatibility, RegistryError, SchemaRegistry},
};
use foretell_streams::time::Clock;

/// Interval between two requests for an id that is waited for.
const REQUEST_INTERVAL: Duration = Duration::from_millis(200);

/// Initial and maximum pause after a failed wait, during which no id is waited for.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// Maximum number of ids kept that are not waited for again.
const GIVEN_UP_MAX: usize = 256;

/// A registry that reports an unknown id as unavailable for a while, so that its record is retried.
pub struct RetryingRegistry {
    registry: Arc<dyn SchemaRegistry>,
    clock: Arc<dyn Clock>,
    unknown_id_wait: Duration,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    /// Times of the first and of the last request for each id that is waited for.
    since: BTreeMap<u32, (Duration, Duration)>,
    given_up: VecDeque<u32>,
    /// No id is waited for before this time.
    paused_until: Duration,
    /// Length of the last pause; zero after a wait that succeeded.
    pause: Duration,
}

impl RetryingRegistry {
    /// Wraps `registry`; an id that it does not have is waited for during `unknown_id_wait`.
    #[must_use]
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        unknown_id_wait: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { registry, clock, unknown_id_wait, waits: Mutex::default() }
    }

    /// Whether to wait (on) for an id that the registry reported as unknown.
    fn should_wait(&self, id: u32) -> bool {
        let now = self.clock.elapsed();
        // A panic while the lock is held leaves at most one id waited for or not.
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if now < waits.paused_until || waits.given_up.contains(&id) {
            waits.since.remove(&id);
            return false;
        }
        let (since, last) = waits.since.entry(id).or_insert((now, now));
        *last = now;
        if now.saturating_sub(*since) < self.unknown_id_wait {
            return true;
        }
        waits.since.remove(&id);
        if waits.given_up.len() == GIVEN_UP_MAX {
            waits.given_up.pop_front();
        }
        waits.given_up.push_back(id);
        waits.pause = (waits.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        waits.paused_until = now + waits.pause;
        false
    }

    fn was_just_requested(&self, id: u32) -> bool {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let last = waits.since.get(&id).map(|(_, last)| *last);
        last.is_some_and(|last| self.clock.elapsed().saturating_sub(last) < REQUEST_INTERVAL)
    }

    fn record_found(&self, id: u32) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.given_up.retain(|given_up| *given_up != id);
        if waits.since.remove(&id).is_some() {
            waits.pause = Duration::ZERO;
        }
    }
}

fn not_yet(id: u32) -> RegistryError {
    RegistryError::Unavailable(format!("it does not have schema {id} yet"))
}

impl SchemaRegistry for RetryingRegistry {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        if self.was_just_requested(id) {
            return Err(not_yet(id));
        }
        let answer = self.registry.schema(id);
        if answer.is_ok() {
            self.record_found(id);
        }
        match answer {
            Err(RegistryError::NotFound(reason) | RegistryError::Refused(reason)) => {
                if self.should_wait(id) {
                    return Err(not_yet(id));
                }
                tracing::debug!(id, reason, "the schema registry does not have this schema id");
                Err(RegistryError::NotFound(reason))
            }
            answer => answer,
        }
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        self.registry.register(subject, schema)
    }

    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        self.registry.id_of(subject, schema)
    }

    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
        self.registry.latest(subject)
    }

    fn versions(&self, subject: &str) -> Result<Vec<(u32, String)>, RegistryError> {
        self.registry.versions(subject)
    }

    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        self.registry.compatible(subject, schema)
    }

    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError> {
        self.registry.set_level(subject, level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::FlakyRegistry;
    use foretell_streams::time::{ManualClock, WallTime};

    const UNKNOWN_ID_WAIT: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(100);

    struct Fixture {
        registry: Arc<FlakyRegistry>,
        clock: Arc<ManualClock>,
        retrying: RetryingRegistry,
    }

    impl Fixture {
        fn new() -> Self {
            let registry = Arc::new(FlakyRegistry::default());
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            let inner: Arc<dyn SchemaRegistry> = Arc::<FlakyRegistry>::clone(&registry);
            let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            let retrying = RetryingRegistry::new(inner, UNKNOWN_ID_WAIT, time);
            Self { registry, clock, retrying }
        }

        /// The time for which a record with this id waits, and whether its schema is found in the end.
        fn read(&self, id: u32) -> (Duration, bool) {
            let start = self.clock.elapsed();
            loop {
                match self.retrying.schema(id) {
                    Err(RegistryError::Unavailable(_)) => self.clock.advance(STEP),
                    answer => return (self.clock.elapsed() - start, answer.is_ok()),
                }
            }
        }
    }

    #[test]
    fn an_id_that_is_registered_late_is_found() {
        let fixture = Fixture::new();
        assert!(matches!(fixture.retrying.schema(1), Err(RegistryError::Unavailable(_))));
        fixture.registry.register("s", "\"int\"").unwrap();
        let (waited, found) = fixture.read(1);
        assert!(found && waited <= REQUEST_INTERVAL, "{waited:?}");
    }

    #[test]
    fn an_unknown_id_is_given_up_after_the_wait() {
        let fixture = Fixture::new();
        assert_eq!(fixture.read(7), (UNKNOWN_ID_WAIT, false));
        assert!(fixture.registry.requests() <= 51, "one request per interval");
        assert_eq!(fixture.read(7), (Duration::ZERO, false), "it is not waited for again");
        assert_eq!(fixture.read(8), (Duration::ZERO, false), "no id is, during the pause");
        fixture.clock.advance(PAUSE_MIN);
        assert_eq!(fixture.read(7), (Duration::ZERO, false), "nor is this one after it");
        assert_eq!(fixture.read(9), (UNKNOWN_ID_WAIT, false));
    }

    #[test]
    fn an_id_that_is_found_resets_the_pause() {
        let fixture = Fixture::new();
        assert_eq!(fixture.read(7), (UNKNOWN_ID_WAIT, false));
        fixture.clock.advance(PAUSE_MIN);
        assert_eq!(fixture.read(8), (UNKNOWN_ID_WAIT, false));
        fixture.clock.advance(PAUSE_MIN);
        assert_eq!(fixture.read(9), (Duration::ZERO, false), "the second pause is twice as long");
        fixture.clock.advance(PAUSE_MIN);
        assert!(matches!(fixture.retrying.schema(1), Err(RegistryError::Unavailable(_))));
        fixture.registry.register("s", "\"int\"").unwrap();
        assert!(fixture.read(1).1);
        assert_eq!(fixture.read(10), (UNKNOWN_ID_WAIT, false));
        fixture.clock.advance(PAUSE_MIN);
        assert_eq!(
            fixture.read(11),
            (UNKNOWN_ID_WAIT, false),
            "the pause is the initial one again"
        );
    }

    #[test]
    fn arbitrary_ids_block_a_partition_for_a_bounded_time() {
        let fixture = Fixture::new();
        let mut waited = Duration::ZERO;
        let day = Duration::from_secs(24 * 60 * 60);
        let mut id = 1_000_000;
        while fixture.clock.elapsed() < day {
            waited += fixture.read(id).0;
            id += 1;
            fixture.clock.advance(Duration::from_secs(1));
        }
        assert!(waited < Duration::from_secs(5 * 60), "{waited:?} of a day");
        fixture.registry.register("s", "\"int\"").unwrap();
        assert_eq!(fixture.read(1), (Duration::ZERO, true), "a known id is found at once");
    }
}
