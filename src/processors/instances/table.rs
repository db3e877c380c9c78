//! The newest report of every instance.

use std::{collections::BTreeMap, time::Duration};

use crate::processors::instances::{Application, InstanceReport};
use foretell_streams::time::WallTime;

/// The time between two reports of an instance.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// Reports that an instance has not written when it is taken to be gone.
const MISSED_MAX: u32 = 3;
/// The time for which an instance that is gone is shown: that of the topic's records.
const SHOWN_FOR: Duration = Duration::from_secs(60 * 60);
/// Maximum number of instances, the newest: far more than an application has. Instances with random names that end without a
/// stop would otherwise fill the memory for an hour.
const INSTANCES_MAX: usize = 500;

/// The instances of an application, this one included.
#[derive(Clone, Debug, Default)]
pub struct InstanceTable {
    known: BTreeMap<String, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    report: InstanceReport,
    /// The time at which its last report was read, on the monotonic clock of this process. None for a report that was there
    /// before: its own time says how old it is.
    received_at: Option<Duration>,
}

/// The present time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    pub(super) now: WallTime,
    pub(super) elapsed: Duration,
}

impl InstanceTable {
    /// Replaces the report of an instance. `received_at` is none for a report that was read before the end of the topic was
    /// reached for the first time.
    pub fn insert(&mut self, report: InstanceReport, received_at: Option<Duration>) {
        let instance = report.instance.clone();
        let is_new = !self.known.contains_key(&instance);
        if is_new && self.known.len() >= INSTANCES_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.report.at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(instance, Known { report, received_at });
    }

    /// Removes an instance that has stopped.
    pub fn remove(&mut self, instance: &str) {
        self.known.remove(instance);
    }

    /// The application, as of the times of both clocks. `own` is the newest report of this instance, which needs no topic.
    pub fn application(
        &mut self,
        application: &str,
        own: InstanceReport,
        now: WallTime,
        elapsed: Duration,
    ) -> Application {
        let (instance, present) = (own.instance.clone(), Present { now, elapsed });
        self.insert(own, Some(elapsed));
        self.known.retain(|_, known| known.age(present) <= SHOWN_FOR);
        let gone_after = REPORT_INTERVAL * MISSED_MAX;
        let reports =
            self.known.values().map(|known| (&known.report, known.age(present) > gone_after));
        Application::of(application, &instance, now, reports)
    }
}

impl Known {
    /// The time since its last report. Clocks of machines differ, so it is that of this process, where it can be.
    fn age(&self, present: Present) -> Duration {
        match self.received_at {
            Some(received_at) => present.elapsed.saturating_sub(received_at),
            None => present.now.since(self.report.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::processors::instances::{Buckets, Counters, Recent};

    fn report(instance: &str, at: i64, events: u64) -> InstanceReport {
        let scored = Buckets { bounds: vec![0.001, 0.1], counts: vec![events, 0, 0] };
        InstanceReport {
            instance: instance.to_owned(),
            at: WallTime(at),
            counters: Counters { events, ..Counters::default() },
            recent: Recent { seconds: 2.0, events, scored, ..Recent::default() },
            lag: Some(events),
            status: json!({"ready": true, "quality": null, "uplift": []}),
            ..InstanceReport::default()
        }
    }

    fn gone(application: &Application) -> Vec<(&str, bool)> {
        application.instances.iter().map(|one| (one.instance.as_str(), one.gone)).collect()
    }

    #[test]
    fn counts_are_summed_and_an_instance_that_does_not_report_is_gone() {
        let mut table = InstanceTable::default();
        let seconds = Duration::from_secs;
        let now = |second: i64| WallTime(1_000_000 + second * 1_000);
        // The clock of `b` is an hour behind.
        table.insert(report("b", -2_600_000, 10), Some(seconds(1)));
        let mut learner = report("c", 1_000_000, 5);
        learner.status["quality"] = json!({"labels": 3});
        table.insert(learner, None);
        let all = table.application("app", report("a", 1_001_000, 20), now(1), seconds(1));
        assert_eq!(gone(&all), [("a", false), ("b", false), ("c", false)]);
        assert_eq!((all.live.totals.events, all.live.lag), (35, Some(35)));
        assert!((all.live.rates.events - 17.5).abs() < 1e-9);
        assert!(all.live.ready && all.live.scored.p50_ms.is_some_and(|p50| p50 < 1.0));
        assert_eq!(all.quality, json!({"labels": 3}));
        assert!(all.instances.iter().all(|one| one.status.get("quality").is_none()));

        // `c` has written nothing for more than three intervals, by its own time; `b` reports.
        table.insert(report("b", -2_590_000, 12), Some(seconds(10)));
        let all = table.application("app", report("a", 1_010_000, 21), now(10), seconds(10));
        assert_eq!(gone(&all), [("a", false), ("b", false), ("c", true)]);
        assert_eq!((all.live.totals.events, all.live.lag), (38, Some(33)));
        assert_eq!(all.quality, json!(null), "it may be wrong by now");

        // An instance that stops takes itself out; one that is gone is shown for an hour.
        table.remove("b");
        let all = table.application("app", report("a", 1_020_000, 22), now(20), seconds(20));
        assert_eq!(gone(&all), [("a", false), ("c", true)]);
        let all = table.application("app", report("a", 5_000_000, 22), now(4_000), seconds(4_000));
        assert_eq!(gone(&all), [("a", false)]);
    }

    #[test]
    fn lag_is_unknown_while_one_instance_does_not_know() {
        let mut table = InstanceTable::default();
        table.insert(InstanceReport { lag: None, ..report("b", 0, 1) }, Some(Duration::ZERO));
        let all = table.application("app", report("a", 0, 1), WallTime(0), Duration::ZERO);
        assert_eq!(all.live.lag, None);
    }

    #[test]
    fn the_number_of_instances_is_bounded() {
        let mut table = InstanceTable::default();
        for number in 0..2_000 {
            table.insert(report(&format!("pod-{number}"), number, 1), None);
        }
        let all = table.application("app", report("a", 2_000, 1), WallTime(2_000), Duration::ZERO);
        assert_eq!(all.instances.len(), INSTANCES_MAX);
        assert!(all.instances.iter().any(|one| one.instance == "pod-1999"));
        assert!(!all.instances.iter().any(|one| one.instance == "pod-0"));
    }
}
