//! Event time, wall-clock time, and clocks. Tests use a [`ManualClock`].

use std::{
    fmt,
    ops::{Add, Sub},
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// The time of an event, in milliseconds since the Unix epoch. Windows and stream time are based on it.
///
/// ```
/// use std::time::Duration;
/// use foretell_streams::time::EventTime;
///
/// let noon = EventTime(1_704_110_400_000);
/// let later = noon + Duration::from_secs(90);
/// assert_eq!(later.since(noon), Duration::from_secs(90));
/// assert_eq!(noon.since(later), Duration::ZERO);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventTime(pub i64);

/// The time of a machine's clock, in milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// The span from `earlier` to this time, or zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl EventTime {
    /// The earliest time: the stream time of a task that has seen no record.
    pub const MIN: Self = Self(i64::MIN);

    /// The latest time.
    pub const MAX: Self = Self(i64::MAX);

    /// The start of the year 2000 (UTC). An earlier event time is likely in another unit.
    pub const YEAR_2000: Self = Self(946_684_800_000);

    /// The unit in which this time lies between the year 2000 and `latest`: `seconds`, `microseconds` or `nanoseconds`.
    /// `None` if it does in milliseconds, or in no unit. A record's time in another unit is a frequent mistake.
    ///
    /// ```
    /// use foretell_streams::time::EventTime;
    ///
    /// let now = EventTime(1_790_000_000_000);
    /// assert_eq!(EventTime(1_704_067_200).mistaken_unit(now), Some("seconds"));
    /// assert_eq!(EventTime(1_704_067_200_000).mistaken_unit(now), None);
    /// ```
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

    /// The span from `earlier` to this time, or zero if `earlier` is later.
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

/// A source of time. All code in this crate takes its clock as an argument, so that a test sets the time.
///
/// ```
/// use std::time::Duration;
/// use foretell_streams::time::{Clock, ManualClock, WallTime};
///
/// let clock = ManualClock::at(WallTime(1_000));
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(clock.now(), WallTime(3_000));
/// assert_eq!(clock.elapsed(), Duration::from_secs(2));
/// ```
pub trait Clock: Send + Sync {
    /// The wall-clock time. It may jump in both directions.
    fn now(&self) -> WallTime;

    /// The time since this clock was started. It is monotonic: use it for intervals and timeouts.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::elapsed`] starts at zero.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        clippy::new_without_default,
        reason = "the only place that reads real time; `default` would hide that"
    )]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads real time")]
    fn now(&self) -> WallTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(millis(since_epoch))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock for tests: its time changes only through [`ManualClock::advance`] and [`ManualClock::set_back`].
#[derive(Debug)]
pub struct ManualClock {
    /// The time of day, less the time since the start, in milliseconds.
    offset: AtomicI64,
    /// The time since the start, in milliseconds.
    elapsed: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: WallTime) -> Self {
        Self { offset: AtomicI64::new(now.0), elapsed: AtomicI64::new(0) }
    }

    /// Advances the clock by `span`.
    pub fn advance(&self, span: Duration) {
        self.elapsed.fetch_add(millis(span), Ordering::SeqCst);
    }

    /// Sets the time of day back by `span`, as an operator or NTP may do. [`Clock::elapsed`] stays.
    pub fn set_back(&self, span: Duration) {
        self.offset.fetch_sub(millis(span), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> WallTime {
        let [offset, elapsed] =
            [&self.offset, &self.elapsed].map(|time| time.load(Ordering::SeqCst));
        WallTime(offset.saturating_add(elapsed))
    }

    fn elapsed(&self) -> Duration {
        EventTime(self.elapsed.load(Ordering::SeqCst)).since(EventTime(0))
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
