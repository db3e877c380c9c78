//! Time as an input: when things happened, and the clock that a test can turn by hand.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// When something happened out there, in milliseconds since the Unix epoch. Stream time is the
/// highest one a task has seen.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventTime(pub i64);

/// When we did something, by our own clock, in milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// How long after `earlier` this was; zero if it was before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl EventTime {
    /// Before everything.
    pub const MIN: Self = Self(i64::MIN);

    /// After everything.
    pub const MAX: Self = Self(i64::MAX);

    /// The first moment of the year 2000 (UTC). An earlier time is rather one in another unit.
    pub const YEAR_2000: Self = Self(946_684_800_000);

    /// The unit that this time was given in by mistake for milliseconds, if so it falls between 2000 and `latest`, and
    /// as it is, it does not.
    #[must_use]
    pub fn mistaken_unit(self, latest: Self) -> Option<&'static str> {
        let is_plausible = |millis: i64| Self::YEAR_2000.0 <= millis && millis <= latest.0;
        if is_plausible(self.0) {
            return None;
        }
        let in_seconds = self.0.saturating_mul(1_000);
        let units = [in_seconds, self.0 / 1_000, self.0 / 1_000_000];
        let names = ["seconds", "microseconds", "nanoseconds"];
        names.into_iter().zip(units).find(|(_, millis)| is_plausible(*millis)).map(|(name, _)| name)
    }

    /// How long after `earlier` this was; zero if it was before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for EventTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Sub<Duration> for EventTime {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The time of day; it may jump.
    fn now(&self) -> WallTime;

    /// How long this clock has been running; it never goes back.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts counting [`Clock::elapsed`] from here.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        clippy::new_without_default,
        reason = "the one place where real time comes in; `default` would hide that it reads it"
    )]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where real time comes in")]
    fn now(&self) -> WallTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(millis(since_epoch))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct ManualClock {
    started: i64,
    now: AtomicI64,
}

impl ManualClock {
    /// Stands at `now`.
    #[must_use]
    pub fn at(now: WallTime) -> Self {
        Self { started: now.0, now: AtomicI64::new(now.0) }
    }

    /// Goes on by `span`.
    pub fn advance(&self, span: Duration) {
        self.now.fetch_add(millis(span), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> WallTime {
        WallTime(self.now.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        EventTime(self.now.load(Ordering::SeqCst)).since(EventTime(self.started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_another_unit_is_recognised() {
        const NOW: i64 = 1_790_000_000_000;
        for (time, unit) in [
            (NOW, None),
            (NOW / 1_000, Some("seconds")),
            (NOW * 1_000, Some("microseconds")),
            (NOW * 1_000_000, Some("nanoseconds")),
            (0, None),
            (-5, None),
            (i64::MIN, None),
            (i64::MAX, None),
            (EventTime::YEAR_2000.0 - 1, None),
            (NOW + 1, None),
        ] {
            assert_eq!(EventTime(time).mistaken_unit(EventTime(NOW)), unit, "{time}");
        }
    }
}
