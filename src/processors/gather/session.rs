//! The rules of sessions: which events of a respondent belong together, and when a session ends.
//!
//! ```text
//!   event ──▶ open ──an event at most `gap` before or after──▶ open, with the event
//!               ├── an event completes it ─────────────────────────────▶ ended: completed
//!               ├── stream time passes its last event by gap + grace ───▶ ended: gap
//!               ├── an event would make it longer than `max` ───────────▶ ended: max, and the event begins another
//!               └── it has `events_max` events ─────────────────────────▶ ended: events_max
//! ```
//!
//! As with the `SessionWindows` of Kafka Streams, an event that is near two sessions merges them, and whether a session has
//! ended depends on stream time alone, not on when a punctuation finds out.

use std::time::Duration;

use foretell_streams::time::EventTime;

/// The class of dead letters of events that would make a session too large to store.
pub const SESSION_TOO_LARGE: &str = "session_too_large";

/// The settings of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// Maximum event time between an event and the session that it belongs to.
    pub gap: Duration,
    /// Stream time after `gap` in which late events still belong to a session.
    pub grace: Duration,
    /// Maximum event time between the first and the last event of a session; none: no limit.
    pub max: Option<Duration>,
    /// Number of events that end a session; none: no limit.
    pub events_max: Option<u32>,
}

/// The reason that a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its observation is complete.
    Completed,
    /// Stream time has passed its last event by `gap` and `grace`.
    Gap,
    /// An event would have made it longer than `max`.
    Max,
    /// It has `events_max` events.
    EventsMax,
    /// It had ended by stream time before its only event arrived.
    Late,
}

impl SessionEnd {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Completed, Self::Gap, Self::Max, Self::EventsMax, Self::Late];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Gap => "gap",
            Self::Max => "max",
            Self::EventsMax => "events_max",
            Self::Late => "late",
        }
    }
}

/// The event times and the number of the events of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The earliest event time.
    pub first: EventTime,
    /// The latest event time.
    pub last: EventTime,
    /// The number of events.
    pub events: u32,
}

/// Whether an event, or the session that it has joined, can be one session with another one that it is near to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// Both are one session.
    Together(Span),
    /// The other session has ended.
    Ends(SessionEnd),
    /// Both stay open, as two sessions.
    Apart,
}

impl Span {
    /// The session of one event.
    #[must_use]
    pub fn of_event(time: EventTime) -> Self {
        Self { first: time, last: time, events: 1 }
    }

    fn union(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            events: self.events.saturating_add(other.events),
        }
    }
}

impl SessionRules {
    /// The time that the last event of a session is earlier than if the session has ended at this stream time.
    #[must_use]
    pub fn ended_before(&self, stream_time: EventTime) -> EventTime {
        stream_time - self.gap - self.grace
    }

    /// Whether an event of `time` is near a session.
    #[must_use]
    pub fn is_near(&self, session: Span, time: EventTime) -> bool {
        session.first - self.gap <= time && time <= session.last + self.gap
    }

    /// Whether `joined`, an event with the sessions that it has joined already, joins `session`, which is near the event.
    ///
    /// Only an event that is no earlier than the session's beginning ends it: a late event of the time before a long session
    /// is no reason to end that.
    #[must_use]
    pub fn joining(&self, joined: Span, session: Span) -> Joining {
        let both = joined.union(session);
        let end = if self.max.is_some_and(|max| both.last.since(both.first) > max) {
            SessionEnd::Max
        } else if self.events_max.is_some_and(|most| both.events > most) {
            SessionEnd::EventsMax
        } else {
            return Joining::Together(both);
        };
        if joined.events == 1 && joined.first >= session.first {
            Joining::Ends(end)
        } else {
            Joining::Apart
        }
    }

    /// Whether a session can have no more events.
    #[must_use]
    pub fn is_full(&self, session: Span) -> bool {
        self.events_max.is_some_and(|most| session.events >= most)
    }

    /// The event time at which a session ended.
    #[must_use]
    pub fn end_of(&self, session: Span, end: SessionEnd) -> EventTime {
        match end {
            SessionEnd::Gap | SessionEnd::Late => session.last + self.gap,
            SessionEnd::Completed | SessionEnd::Max | SessionEnd::EventsMax => session.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const RULES: SessionRules = SessionRules {
        gap: seconds(30),
        grace: seconds(10),
        max: Some(seconds(100)),
        events_max: Some(4),
    };

    fn at(second: i64) -> EventTime {
        EventTime(second * 1_000)
    }

    fn span(first: i64, last: i64, events: u32) -> Span {
        Span { first: at(first), last: at(last), events }
    }

    #[test]
    fn an_event_is_near_a_session_up_to_the_gap_before_and_after_it() {
        let session = span(100, 150, 2);
        for (second, expected) in [(69, false), (70, true), (120, true), (180, true), (181, false)]
        {
            assert_eq!(RULES.is_near(session, at(second)), expected, "{second}");
        }
    }

    #[test]
    fn a_session_has_ended_when_stream_time_has_passed_gap_and_grace() {
        let has_ended = |last: i64, now: i64| at(last) < RULES.ended_before(at(now));
        assert!(!has_ended(100, 140));
        assert!(has_ended(100, 141));
        // Times at the ends of their range do not overflow.
        assert_eq!(RULES.ended_before(EventTime::MIN), EventTime::MIN);
        let forever = SessionRules { gap: Duration::MAX, grace: Duration::MAX, ..RULES };
        assert!(EventTime::MIN >= forever.ended_before(at(0)));
    }

    #[test]
    fn an_event_joins_a_session_within_its_bounds() {
        let check = |joined: Span, session: Span, expected: Joining| {
            assert_eq!(RULES.joining(joined, session), expected, "{joined:?} {session:?}");
        };
        let event = |second| Span::of_event(at(second));
        check(event(170), span(100, 150, 2), Joining::Together(span(100, 170, 3)));
        check(event(120), span(100, 150, 2), Joining::Together(span(100, 150, 3)));
        check(event(80), span(100, 150, 2), Joining::Together(span(80, 150, 3)));
        check(event(200), span(100, 180, 2), Joining::Together(span(100, 200, 3)));
        check(event(201), span(100, 180, 2), Joining::Ends(SessionEnd::Max));
        // A late event does not end a session that begins after it.
        check(event(80), span(100, 190, 2), Joining::Apart);
        check(event(110), span(100, 150, 4), Joining::Ends(SessionEnd::EventsMax));
        check(event(90), span(100, 150, 4), Joining::Apart);
        // Two sessions that an event bridges.
        check(span(100, 150, 2), span(60, 80, 2), Joining::Together(span(60, 150, 4)));
        check(span(100, 150, 3), span(60, 80, 2), Joining::Apart);
        check(span(100, 170, 2), span(60, 80, 2), Joining::Apart);
    }

    #[test]
    fn a_session_ends_after_the_gap_or_with_its_last_event() {
        let session = span(100, 150, 4);
        assert!(RULES.is_full(session) && !RULES.is_full(span(100, 150, 3)));
        assert!(!SessionRules { events_max: None, ..RULES }.is_full(span(0, 0, u32::MAX)));
        for end in SessionEnd::ALL {
            let expected = match end {
                SessionEnd::Gap | SessionEnd::Late => at(180),
                SessionEnd::Completed | SessionEnd::Max | SessionEnd::EventsMax => at(150),
            };
            assert_eq!(RULES.end_of(session, end), expected, "{}", end.name());
        }
        let place = |end: &SessionEnd| *end as usize;
        assert_eq!(SessionEnd::ALL.iter().map(place).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
