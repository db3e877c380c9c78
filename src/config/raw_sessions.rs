//! The section about sessions of the configuration as written: see `raw.rs`.

use std::time::Duration;

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::processors::gather::session::SessionRules;

/// Which events of a respondent belong together. Each session has an observation of its own: see [Sessions](sessions.md).
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSessions {
    /// Event time without an event after which a session ends; at least 1 ms. The respondent's next event begins another one,
    /// without the answers of the first.
    #[serde(with = "humantime_serde")]
    pub gap: Duration,
    /// Stream time after `gap` for which a session waits for events that arrive late. An event that arrives later is a session of
    /// its own.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// Maximum event time between the first and the last event of a session; at least `gap`. An event beyond it ends the session
    /// and begins another one. Unset: no limit.
    #[serde(with = "humantime_serde")]
    pub max: Option<Duration>,
    /// Number of events with which a session ends; at least 1. Unset: no limit. In any case, the answers of a session take at most
    /// 512 KiB: an event that would make them larger goes to the dead letters as `session_too_large`.
    pub events_max: Option<u32>,
}

impl Default for RawSessions {
    fn default() -> Self {
        let gap = Duration::from_secs(24 * 60 * 60);
        Self { gap, grace: Duration::ZERO, max: None, events_max: None }
    }
}

impl RawSessions {
    /// The rules, with the gap of the former key if that is set.
    pub(super) fn rules(&self, former_gap: Option<Duration>) -> SessionRules {
        let Self { gap, grace, max, events_max } = *self;
        SessionRules { gap: former_gap.unwrap_or(gap), grace, max, events_max }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    /// The example with another section in place of that of sessions.
    fn config(section: &str, sets: &[&str]) -> Config {
        let root = env!("CARGO_MANIFEST_DIR");
        let example = fs::read_to_string(format!("{root}/deploy/adult/foretell.toml")).unwrap();
        let (before, sessions) = example.split_once("[sessions]\n").unwrap();
        let (_, after) = sessions.split_once("\n[").unwrap();
        let text = format!("{before}{section}\n[{after}").replace("../../", &format!("{root}/"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foretell.toml");
        fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::load(&path, &sets).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn sessions_have_a_gap_of_a_day_and_no_limits_by_default() {
        let rules = config("", &[]).gather.sessions;
        let day = Duration::from_secs(86_400);
        let expected =
            SessionRules { gap: day, grace: Duration::ZERO, max: None, events_max: None };
        assert_eq!(rules, expected);
        assert!(!config("", &[]).gather.scores_session_ends());
        assert!(config("", &["scoring.at_session_end=true"]).gather.scores_session_ends());
        assert!(config("", &["scoring.when=session_end"]).gather.scores_session_ends());
    }

    #[test]
    fn every_key_of_sessions_is_read() {
        let section = "[sessions]\ngap = \"30m\"\ngrace = \"5m\"\nmax = \"4h\"\nevents_max = 200\n";
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let expected = SessionRules {
            gap: minutes(30),
            grace: minutes(5),
            max: Some(minutes(240)),
            events_max: Some(200),
        };
        let config = config(section, &[]);
        assert_eq!(config.gather.sessions, expected);
        assert_eq!(config.warnings(), [""; 0]);
    }

    #[test]
    fn the_former_key_of_the_gap_is_read_with_a_warning() {
        let config = config("", &["scoring.retention=20m"]);
        assert_eq!(config.gather.sessions.gap, Duration::from_secs(1_200));
        let [warning] = &config.warnings()[..] else { panic!("{:?}", config.warnings()) };
        assert!(warning.contains("[scoring] retention is the former name of [sessions] gap"));
    }
}
