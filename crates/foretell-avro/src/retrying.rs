//! A registry whose copies lag: a schema that was registered a moment ago may be unknown where we ask. An id that it
//! does not know is waited for, for a bounded time; then the record is dead-lettered.
//!
//! Bytes that are no Avro name ids as well, and each would hold up its partition for as long. So an id that was waited
//! for in vain is not waited for again, and each wait in vain makes all others wait twice as long for the next.

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

/// Between two questions about an id that is waited for.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long nothing is waited for after the first wait in vain, and at most.
const REST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(60 * 60);

/// Ids that are remembered as never coming.
const HOPELESS_MAX: usize = 256;

/// Another registry, whose unknown ids are waited for.
pub struct RetryingRegistry {
    registry: Arc<dyn SchemaRegistry>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    /// Since when each is waited for, and when it was asked about last.
    since: BTreeMap<u32, (Duration, Duration)>,
    hopeless: VecDeque<u32>,
    /// Nothing is waited for before then.
    rests_until: Duration,
    rest: Duration,
}

impl RetryingRegistry {
    /// Waits for an id that `registry` does not know for `patience`.
    #[must_use]
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        patience: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { registry, clock, patience, waits: Mutex::default() }
    }

    /// Whether to wait on, after the registry has said that it does not know `id`.
    fn waits_for(&self, id: u32) -> bool {
        let now = self.clock.elapsed();
        // A panic elsewhere leaves an id waited for or not: no harm.
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if now < waits.rests_until || waits.hopeless.contains(&id) {
            waits.since.remove(&id);
            return false;
        }
        let (since, asked) = waits.since.entry(id).or_insert((now, now));
        *asked = now;
        if now.saturating_sub(*since) < self.patience {
            return true;
        }
        waits.since.remove(&id);
        if waits.hopeless.len() == HOPELESS_MAX {
            waits.hopeless.pop_front();
        }
        waits.hopeless.push_back(id);
        waits.rest = (waits.rest * 2).clamp(REST, REST_MAX);
        waits.rests_until = now + waits.rest;
        false
    }

    fn was_just_asked(&self, id: u32) -> bool {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = waits.since.get(&id).map(|(_, asked)| *asked);
        asked.is_some_and(|asked| self.clock.elapsed().saturating_sub(asked) < ASK_AGAIN_AFTER)
    }

    fn has_come(&self, id: u32) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.hopeless.retain(|hopeless| *hopeless != id);
        if waits.since.remove(&id).is_some() {
            waits.rest = Duration::ZERO;
        }
    }
}

fn not_yet(id: u32) -> RegistryError {
    RegistryError::Unavailable(format!("it does not know schema {id} yet"))
}

impl SchemaRegistry for RetryingRegistry {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        if self.was_just_asked(id) {
            return Err(not_yet(id));
        }
        let answer = self.registry.schema(id);
        if answer.is_ok() {
            self.has_come(id);
        }
        match answer {
            Err(RegistryError::NotFound(reason) | RegistryError::Refused(reason)) => {
                if self.waits_for(id) {
                    return Err(not_yet(id));
                }
                tracing::debug!(id, reason, "an id that the schema registry does not have");
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
    use crate::local::tests::Unsteady;
    use foretell_streams::time::{ManualClock, WallTime};

    const PATIENCE: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(100);

    struct World {
        registry: Arc<Unsteady>,
        clock: Arc<ManualClock>,
        patient: RetryingRegistry,
    }

    impl World {
        fn new() -> Self {
            let registry = Arc::new(Unsteady::default());
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            let inner: Arc<dyn SchemaRegistry> = Arc::<Unsteady>::clone(&registry);
            let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            let patient = RetryingRegistry::new(inner, PATIENCE, time);
            Self { registry, clock, patient }
        }

        /// How long a record with this id is held up, and whether it is read in the end.
        fn read(&self, id: u32) -> (Duration, bool) {
            let start = self.clock.elapsed();
            loop {
                match self.patient.schema(id) {
                    Err(RegistryError::Unavailable(_)) => self.clock.advance(STEP),
                    answer => return (self.clock.elapsed() - start, answer.is_ok()),
                }
            }
        }
    }

    #[test]
    fn an_id_that_comes_late_is_read() {
        let world = World::new();
        assert!(matches!(world.patient.schema(1), Err(RegistryError::Unavailable(_))));
        world.registry.register("s", "\"int\"").unwrap();
        let (held_up, read) = world.read(1);
        assert!(read && held_up <= ASK_AGAIN_AFTER, "{held_up:?}");
    }

    #[test]
    fn an_id_that_never_comes_is_given_up() {
        let world = World::new();
        assert_eq!(world.read(7), (PATIENCE, false));
        assert!(world.registry.questions() <= 51, "not at every look");
        assert_eq!(world.read(7), (Duration::ZERO, false), "not again");
        assert_eq!(world.read(8), (Duration::ZERO, false), "nor another one for a while");
        world.clock.advance(REST);
        assert_eq!(world.read(7), (Duration::ZERO, false), "that one never again");
        assert_eq!(world.read(9), (PATIENCE, false));
    }

    #[test]
    fn an_id_that_came_after_all_makes_waits_short_again() {
        let world = World::new();
        assert_eq!(world.read(7), (PATIENCE, false));
        world.clock.advance(REST);
        assert_eq!(world.read(8), (PATIENCE, false));
        world.clock.advance(REST);
        assert_eq!(world.read(9), (Duration::ZERO, false), "twice as long after the second");
        world.clock.advance(REST);
        assert!(matches!(world.patient.schema(1), Err(RegistryError::Unavailable(_))));
        world.registry.register("s", "\"int\"").unwrap();
        assert!(world.read(1).1);
        assert_eq!(world.read(10), (PATIENCE, false));
        world.clock.advance(REST);
        assert_eq!(world.read(11), (PATIENCE, false), "as after the first");
    }

    #[test]
    fn garbage_holds_up_less_and_less() {
        let world = World::new();
        let mut held_up = Duration::ZERO;
        let day = Duration::from_secs(24 * 60 * 60);
        let mut id = 1_000_000;
        while world.clock.elapsed() < day {
            held_up += world.read(id).0;
            id += 1;
            world.clock.advance(Duration::from_secs(1));
        }
        assert!(held_up < Duration::from_secs(5 * 60), "{held_up:?} of a day");
        world.registry.register("s", "\"int\"").unwrap();
        assert_eq!(world.read(1), (Duration::ZERO, true), "what is there is read");
    }
}
