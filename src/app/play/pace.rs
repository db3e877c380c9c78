//! Event times of a play: scaled to the windows of the application, and all of them in the past.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    app::{
        play::{PlaySettings, session_ends},
        table::Row,
    },
    config::Config,
    processors::outcome_join::{Emit, JoinSettings},
};
use foretell_streams::time::EventTime;

/// Event times of a play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Event time of the first event.
    pub start: EventTime,
    /// Event time between two respondents, if the table has no event times.
    pub gap: Duration,
    /// Event time between the two pieces of a questionnaire, and between an outcome and its repetition: well within the windows.
    pub piece_gap: Duration,
    /// Maximum delay of an outcome; that of the table, if it says when the outcomes come.
    pub outcome_delay_max: Duration,
    /// Duration by which the event times of the table are moved into the past.
    pub moved_back: Duration,
    /// Maximum number of predictions that are awaited at once. Their event times lie well within the windows.
    pub open_max: usize,
}

/// Number of respondents within the shorter of the outcome window and the gap of sessions: four
/// per second, if that is two hours.
const RESPONDENTS_A_WINDOW: u32 = 28_800;
/// Number of windows that pass during a play, if examples are made when their windows close: most of them are made before the
/// end.
const WINDOWS_A_PLAY: u32 = 10;
/// Time between the end of the last window and the clock.
const MARGIN: Duration = Duration::from_secs(1);
/// Far more than one commit interval processes.
const OPEN_MAX: u128 = 5_000;
/// One batch of the sender.
const OPEN_MIN: u128 = 50;

impl Pace {
    /// The pace of `rows` if the play starts at `now`.
    #[must_use]
    pub fn new(config: &Config, rows: &[Row], now: EventTime) -> Self {
        let join = &config.join;
        let horizon = join.window.min(config.gather.sessions.gap);
        let millisecond = Duration::from_millis(1);
        let piece_gap = (horizon / RESPONDENTS_A_WINDOW).max(millisecond);
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX).max(1);
        let gap = match join.emit {
            Emit::OnUpdate => piece_gap,
            Emit::OnClose => piece_gap.max(closing(join) * WINDOWS_A_PLAY / count),
        };
        let times = rows.iter().filter_map(|row| row.event_time);
        let times = times.clone().min().zip(times.max());
        let span = times.map_or(gap * count, |(first, last)| last.since(first));
        let outcome_delay_max =
            delay_max_of(rows).unwrap_or_else(|| (join.window / 12).min((span / 10).max(gap)));
        // Respondents who leave are scored when their sessions end, and their outcomes come after that.
        let gather = &config.gather;
        let ending = session_ends::ending(gather.scores_session_ends(), &gather.sessions);
        let end_max = now - closing(join) - ending * 2 - MARGIN;
        let latest = |last: EventTime| last + outcome_delay_max + gap;
        let (start, moved_back) = match times {
            Some((first, last)) => {
                let moved_back = latest(last).since(end_max);
                (first - gap - moved_back, moved_back)
            }
            None => (end_max - span - outcome_delay_max - gap, Duration::ZERO),
        };
        let average = (span / count).max(millisecond);
        let open_max = horizon.as_millis() / 4 / average.as_millis().max(1);
        Self {
            start,
            gap,
            piece_gap,
            outcome_delay_max,
            moved_back,
            open_max: usize::try_from(open_max.clamp(OPEN_MIN, OPEN_MAX)).unwrap_or(usize::MAX),
        }
    }
}

/// The maximum delay of the outcomes that the table has; none if it does not say when they come.
pub(super) fn delay_max_of(rows: &[Row]) -> Option<Duration> {
    let both = rows.iter().flat_map(|row| [&row.outcomes, &row.outcomes_if_acted]);
    both.flatten().map(|outcomes| outcomes.last().map_or(Duration::ZERO, |last| last.after)).max()
}

/// Number of times that a play with companions waits until the parts of companions are processed, if events are evenly spread.
const WAITS_FOR_PARTS: u32 = 50;
/// Minimum of it in live traffic, which does not wait: several commit intervals.
const AHEAD_LIVE: Duration = Duration::from_secs(1);

/// Event time by which the parts of companions come before the last part of an event: so long that a play rarely waits for them,
/// well within a session, and shorter than half of the time between two events of a respondent.
pub(super) fn ahead(rows: &[Row], settings: &PlaySettings) -> Duration {
    let PlaySettings { pace, with_times, sessions, .. } = settings;
    let mut at = pace.start + pace.gap;
    let mut times: BTreeMap<&str, Vec<EventTime>> = BTreeMap::new();
    let (mut first, mut last) = (at, at);
    for row in rows {
        let time = row.event_time.filter(|_| *with_times).map_or(at, |time| time - pace.moved_back);
        (first, last) = (first.min(time), last.max(time));
        if !row.respondent_id.is_empty() {
            times.entry(&row.respondent_id).or_default().push(time);
        }
        at = at + pace.gap;
    }
    let mut shortest = Duration::MAX;
    for times in times.values_mut() {
        times.sort_unstable();
        for pair in times.windows(2) {
            shortest = shortest.min(pair[1].since(pair[0]));
        }
    }
    let millisecond = Duration::from_millis(1);
    let least = if *with_times { pace.gap } else { pace.gap.max(AHEAD_LIVE) };
    let wanted = (last.since(first) / WAITS_FOR_PARTS).max(least);
    let longest = [sessions.gap, settings.join.window].into_iter().min().unwrap_or_default() / 4;
    wanted.min(longest).min(shortest / 2).max(millisecond)
}

/// Event time from the last action to an event that closes all windows. A punctuation closes them, which runs every
/// twentieth of a window, and at most once per second.
#[must_use]
pub fn closing(join: &JoinSettings) -> Duration {
    join.window + join.grace + join.join_window().removal_interval() + Duration::from_secs(2)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app::table::TimedOutcome;

    const NOW: EventTime = EventTime(1_790_000_000_000);

    fn config(window: &str, gap: &str) -> Config {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let sets = [format!("outcomes.window={window}"), format!("sessions.gap={gap}")];
        Config::load(Path::new(example), &sets).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Asserts that all event times of `count` rows are in the past and fit the windows.
    fn check(window: &str, gap: &str, count: usize, times: Option<fn(usize) -> i64>) -> Pace {
        let config = config(window, gap);
        let row = |number| Row {
            event_time: times.map(|time| EventTime(time(number))),
            ..Row::default()
        };
        let rows: Vec<Row> = (0..count).map(row).collect();
        let pace = Pace::new(&config, &rows, NOW);
        let gaps = u32::try_from(count).unwrap_or(u32::MAX);
        let last = rows.iter().filter_map(|row| row.event_time).max();
        let last = last.map_or(pace.start + pace.gap * gaps, |last| last - pace.moved_back);
        let closed = last + pace.outcome_delay_max + pace.gap + closing(&config.join);
        assert!(closed <= NOW, "{window}, {count}: {pace:?}");
        assert!(pace.gap <= config.gather.sessions.gap / 4, "{pace:?}");
        assert!(pace.outcome_delay_max + pace.gap < config.join.window, "{pace:?}");
        assert!(pace.open_max >= 50);
        pace
    }

    #[test]
    fn event_times_are_scaled_to_the_window_and_not_ahead_of_the_clock() {
        for window in ["5s", "2h", "30days", "365days"] {
            for count in [1, 300, 20_000] {
                check(window, "1h", count, None);
                check(window, "1s", count, None);
                check(window, "400days", count, None);
            }
        }
        assert_eq!(check("2h", "1day", 300, None).gap, Duration::from_millis(250));
        let month = check("30days", "30days", 20_000, None);
        assert_eq!(month.gap, Duration::from_secs(90));
        assert!(
            month.outcome_delay_max < month.gap * 20_000 / 9,
            "outcomes arrive during the play"
        );
    }

    #[test]
    fn most_windows_close_during_a_play_if_examples_are_made_then() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let check = |sets: &[&str], emit, windows: u32| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            let config = Config::load(Path::new(example), &sets).unwrap();
            assert_eq!(config.join.emit, emit, "{sets:?}");
            for count in [1, 300, 20_000] {
                let pace = Pace::new(&config, &vec![Row::default(); count], NOW);
                let span = pace.gap * u32::try_from(count).unwrap();
                let least = config.join.window * windows;
                assert!(span >= least, "{sets:?}, {count}: {pace:?}");
                assert!(pace.start + span + pace.outcome_delay_max + closing(&config.join) <= NOW);
                assert!(pace.piece_gap <= config.gather.sessions.gap / 4, "{pace:?}");
            }
        };
        let label = "outcomes.unlabelled={ label = \"<=50K\" }";
        check(&[], Emit::OnUpdate, 0);
        check(&[label], Emit::OnClose, 10);
        check(&["outcomes.emit=on_close"], Emit::OnClose, 10);
        check(&[label, "outcomes.emit=on_update"], Emit::OnUpdate, 0);
    }

    #[test]
    fn outcomes_of_the_table_set_the_longest_delay() {
        let config = config("2h", "1day");
        let with = |minutes: &[u64]| Row {
            outcomes: Some(
                minutes
                    .iter()
                    .map(|minutes| TimedOutcome {
                        label: "yes".to_owned(),
                        after: Duration::from_secs(minutes * 60),
                    })
                    .collect(),
            ),
            ..Row::default()
        };
        let pace = Pace::new(&config, &[with(&[]), with(&[12, 65]), with(&[30])], NOW);
        assert_eq!(pace.outcome_delay_max, Duration::from_secs(65 * 60));
        assert!(pace.start + pace.gap * 3 + pace.outcome_delay_max + closing(&config.join) <= NOW);
        assert_eq!(Pace::new(&config, &[with(&[])], NOW).outcome_delay_max, Duration::ZERO);
    }

    #[test]
    fn times_of_the_table_are_moved_back_only_if_windows_would_not_close() {
        let hourly = |number| 1_600_000_000_000 + 3_600_000 * i64::try_from(number).unwrap_or(0);
        assert_eq!(check("2h", "1day", 300, Some(hourly)).moved_back, Duration::ZERO);
        let recent = |number| NOW.0 - 1_000 * i64::try_from(number).unwrap_or(0);
        assert!(check("2h", "1day", 300, Some(recent)).moved_back > Duration::from_secs(2 * 3_600));
        let ahead = |number| NOW.0 + 86_400_000 * i64::try_from(number).unwrap_or(0);
        assert!(
            check("30days", "1day", 300, Some(ahead)).moved_back
                > Duration::from_secs(86_400 * 329)
        );
    }
}
