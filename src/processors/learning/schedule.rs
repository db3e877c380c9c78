//! The schedule of trainings: a cron expression in UTC.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use croner::Cron;

use crate::processors::learning::{job::Cause, state::LearningState};
use foretell_streams::time::WallTime;

/// A cron expression with five fields (minute, hour, day of the month, month, day of the week), or one of its nicknames, such
/// as `@daily`. Times are in UTC.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// The text is not a cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let cron = Cron::from_str(text).map_err(|error| ScheduleError(error.to_string()))?;
        let schedule = Self { text: text.to_owned(), cron };
        match schedule.after(WallTime(0)) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError("it names no time that ever comes".to_owned())),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Schedule {
    /// The first time after `now`; none if there is none.
    fn after(&self, now: WallTime) -> Option<i64> {
        let now = DateTime::<Utc>::from_timestamp_millis(now.0)?;
        let next = self.cron.find_next_occurrence(&now, false).ok()?;
        Some(next.timestamp_millis())
    }

    /// Makes a training due if its time has come, also if that was while no instance ran. Returns whether the state has
    /// changed. Several missed times make one training due.
    pub(super) fn advance(&self, state: &mut LearningState, now: WallTime) -> bool {
        let next = match &state.schedule {
            Some((text, next)) if *text == self.text => Some(*next),
            Some(_) | None => None,
        };
        match next {
            Some(next) if next > now.0 => return false,
            Some(_) => {
                let trigger = format!("schedule {}", self.text);
                let through = state.through;
                state.make_training_due(through, &Cause { trigger, ..Cause::default() });
            }
            None => {}
        }
        state.schedule = self.after(now).map(|next| (self.text.clone(), next));
        next.is_some() || state.schedule.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_training_is_due_at_each_scheduled_time_and_once_for_missed_ones() {
        let schedule: Schedule = "0 3 * * *".parse().unwrap();
        let mut state = LearningState { through: 7, ..LearningState::default() };
        assert!(schedule.advance(&mut state, WallTime(HOUR)), "it plans the first");
        assert_eq!(state.due.training, None);
        assert!(!schedule.advance(&mut state, WallTime(3 * HOUR - 1)));
        assert!(schedule.advance(&mut state, WallTime(3 * HOUR)));
        let (through, cause) = state.due.training.take().unwrap();
        assert_eq!((through, cause.trigger.as_str()), (7, "schedule 0 3 * * *"));
        assert!(!schedule.advance(&mut state, WallTime(4 * HOUR)));
        // Nothing ran for three days.
        assert!(schedule.advance(&mut state, WallTime(80 * HOUR)));
        assert!(state.due.training.take().is_some());
        assert!(!schedule.advance(&mut state, WallTime(98 * HOUR)));
        assert!(schedule.advance(&mut state, WallTime(99 * HOUR)));
    }

    #[test]
    fn another_schedule_starts_from_now() {
        let [daily, hourly] = ["@daily", "0 * * * *"].map(|text| text.parse::<Schedule>().unwrap());
        let mut state = LearningState::default();
        daily.advance(&mut state, WallTime(0));
        assert!(hourly.advance(&mut state, WallTime(30 * HOUR)));
        assert_eq!(state.due.training, None, "the old schedule's time does not count");
        assert_eq!(state.schedule, Some(("0 * * * *".to_owned(), 31 * HOUR)));
    }

    #[test]
    fn an_expression_that_never_comes_is_refused() {
        for text in ["", "every day", "61 * * * *", "0 0 31 2 *"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
