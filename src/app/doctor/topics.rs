//! Checks of the topics: each is compared with what the application needs of it.

use std::time::Duration;

use crate::app::{check_result::CheckResult, doctor::Problems};
use foretell_kafka::{PartitionInfo, Settings, TopicInfo, Unanswered};
use foretell_streams::runtime::broker::{Cleanup, Timestamps, TopicSpec};

/// Kafka's default of `delete.retention.ms`. A restore that takes longer may miss a tombstone.
const TOMBSTONES_KEPT_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The smallest cluster on which more than one replica is expected.
const BROKERS_FOR_REPLICATION: usize = 3;

/// Use of a topic by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `run` or `init` reads it.
    Read,
    /// `run` and `init` only write it; `send` and `?wait=true` read predictions.
    Written,
    /// Changelog of a store.
    Changelog,
}

/// A topic as the application needs it.
pub(super) struct Expected {
    pub(super) spec: TopicSpec,
    pub(super) role: Role,
}

/// The result if no topic exists: `foretell init` has not run.
pub(super) fn not_initialised(application: &str, topics: usize) -> CheckResult {
    CheckResult::failed(
        "topics",
        format!(
            "{application} is not initialised: none of its {topics} topics exists (groups, schemas and the model \
             were not checked)"
        ),
        "run `foretell init`; if they exist, allow this user to DESCRIBE them (an ACL)",
    )
}

/// Every problem of a topic, or one line that it is fine. `info` is `None` if the topic does not exist.
pub(super) fn topic(
    expected: &Expected,
    info: &Result<Option<TopicInfo>, Unanswered>,
    brokers: usize,
) -> Vec<CheckResult> {
    let name = format!("topic {}", expected.spec.name);
    let info = match info {
        Ok(Some(info)) => info,
        Ok(None) => {
            let fix = "run `foretell init`; if it exists, allow this user to DESCRIBE it (an ACL)";
            return vec![CheckResult::failed(name, "it does not exist", fix)];
        }
        Err(why) => return vec![CheckResult::unanswered(name, why)],
    };
    let mut check = TopicCheck { expected, info, brokers, problems: Problems::of(&name) };
    check.partitions();
    check.readable();
    match &info.settings {
        Ok(settings) => {
            check.cleanup_policy(settings);
            check.tombstones(settings);
            check.timestamps(settings);
            check.message_size(settings);
            check.replication(number(settings, "min.insync.replicas"));
        }
        Err(why) => {
            check.problems.add(CheckResult::unknown(&name, "its settings were", why));
            check.replication(None);
        }
    }
    let policy = match expected.spec.cleanup {
        Cleanup::Delete { .. } => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactDelete { .. } => "compact,delete",
    };
    let (partitions, replicas) = (info.partitions.len(), least(info, |one| one.replicas));
    check.problems.or_ok(format!("partitions: {partitions}, {policy}, replicas: {replicas}"))
}

/// One topic, and the problems that were found with it so far.
struct TopicCheck<'a> {
    expected: &'a Expected,
    info: &'a TopicInfo,
    brokers: usize,
    problems: Problems,
}

impl TopicCheck<'_> {
    fn partitions(&mut self) {
        let (wanted, actual) = (self.expected.spec.partitions, self.info.partitions.len());
        if u32::try_from(actual).ok() != Some(wanted) {
            let fix = match self.expected.role {
                Role::Changelog => {
                    "stop every instance and delete it (the store loses its content), or set [topics] partitions to \
                     the number that it was created with"
                        .to_owned()
                }
                Role::Read | Role::Written if wanted == 1 => {
                    "recreate it with 1 partition".to_owned()
                }
                Role::Read | Role::Written => format!(
                    "recreate it with {wanted}, or set [topics] partitions to the number that all topics have: a task \
                     processes the same partition of events, outcomes and changelogs"
                ),
            };
            self.problems.failed(format!("it has {actual} partitions, not {wanted}"), fix);
        }
        let leaderless = self.info.partitions.iter().filter(|one| !one.has_leader).count();
        if leaderless > 0 {
            let detail = format!("{leaderless} of its {actual} partitions have no leader");
            self.problems.failed(detail, "start the brokers that hold their replicas");
        }
    }

    fn readable(&mut self) {
        let Err(why) = &self.info.readable else { return };
        let name = format!("topic {}", self.expected.spec.name);
        self.problems.add(match self.expected.role {
            Role::Read | Role::Changelog => CheckResult::unanswered(name, why),
            Role::Written => {
                CheckResult::unknown(name, "reading (as `send` and `?wait=true` do) was", why)
            }
        });
    }

    fn cleanup_policy(&mut self, settings: &Settings) {
        let Some(policy) = settings.get("cleanup.policy") else {
            let detail = "cleanup.policy was not checked: the broker does not report it";
            return self.problems.warning(detail, "check it by hand");
        };
        let (compacts, deletes) = (policy.contains("compact"), policy.contains("delete"));
        let has_retention = ["retention.ms", "retention.bytes"]
            .iter()
            .any(|name| number(settings, name).is_some_and(|value| value >= 0));
        match self.expected.spec.cleanup {
            Cleanup::Delete { .. } if compacts => self.problems.failed(
                format!("cleanup.policy is {policy}: of each key only the last record would be kept"),
                "set its cleanup.policy=delete",
            ),
            Cleanup::Delete { retention: None } if has_retention => self.problems.warning(
                "its records expire: retention.ms or retention.bytes is set, but models are trained from all of them",
                "set its retention.ms=-1 and retention.bytes=-1, unless you want this",
            ),
            Cleanup::Compact | Cleanup::CompactDelete { .. } if !compacts => self.problems.failed(
                format!("cleanup.policy is {policy}: its content would be deleted by age"),
                "set its cleanup.policy=compact",
            ),
            Cleanup::Compact if deletes && has_retention => self.problems.failed(
                format!("cleanup.policy is {policy} with a retention: its content would be deleted by age"),
                "set its cleanup.policy=compact",
            ),
            Cleanup::Delete { .. } | Cleanup::Compact | Cleanup::CompactDelete { .. } => {}
        }
    }

    fn tombstones(&mut self, settings: &Settings) {
        let kept = number(settings, "delete.retention.ms").and_then(|ms| u64::try_from(ms).ok());
        let Some(kept) = kept.map(Duration::from_millis) else { return };
        if self.expected.role == Role::Changelog && kept < TOMBSTONES_KEPT_MIN {
            self.problems.warning(
                format!(
                    "delete.retention.ms is {kept:?}: a slower restore may bring deleted keys back"
                ),
                "set its delete.retention.ms=86400000 (a day) or more",
            );
        }
    }

    /// Retention of inputs has to go by the time of arrival, stream time of a restore by the time in the record.
    fn timestamps(&mut self, settings: &Settings) {
        let wanted = self.expected.spec.cleanup.timestamps();
        let (Some(wanted), Some(actual)) = (wanted, settings.get("message.timestamp.type")) else {
            return;
        };
        let fix = format!("set its message.timestamp.type={}", wanted.name());
        let expires = number(settings, "retention.ms").is_some_and(|ms| ms >= 0);
        match wanted {
            Timestamps::LogAppendTime if actual == Timestamps::CreateTime.name() && expires => {
                let detail = "message.timestamp.type is CreateTime: records about the past, such as a backfill, may be \
                              deleted by retention before they are read";
                self.problems.warning(detail, fix);
            }
            Timestamps::CreateTime
                if actual == Timestamps::LogAppendTime.name()
                    && self.expected.role == Role::Changelog =>
            {
                let detail = "message.timestamp.type is LogAppendTime: a restore takes stream time from the timestamps, \
                              and would close windows too early";
                self.problems.failed(detail, fix);
            }
            Timestamps::LogAppendTime | Timestamps::CreateTime => {}
        }
    }

    fn message_size(&mut self, settings: &Settings) {
        let Some(wanted) = self.expected.spec.message_bytes_max else { return };
        let fix = format!("set its max.message.bytes={wanted}");
        match number(settings, "max.message.bytes") {
            None => {
                let detail = "max.message.bytes was not checked: the broker does not report it";
                self.problems.warning(detail, fix);
            }
            Some(actual) if actual < i64::from(wanted) => {
                let detail =
                    format!("max.message.bytes is {actual}: larger records cannot be written");
                match self.expected.role {
                    Role::Read | Role::Changelog => self.problems.failed(detail, fix),
                    Role::Written => self.problems.warning(detail, fix),
                }
            }
            Some(_) => {}
        }
    }

    /// Writes use acks=all, so that `min.insync.replicas` decides whether they succeed. It is `None` on Redpanda, which
    /// has no such setting and always asks for a majority.
    fn replication(&mut self, min_insync: Option<i64>) {
        let replicas = least(self.info, |partition| partition.replicas);
        let in_sync = least(self.info, |partition| partition.in_sync);
        let wanted = min_insync.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
        if wanted > replicas {
            self.problems.failed(
                format!(
                    "min.insync.replicas is {wanted}, but there are {replicas} replicas: nothing can be written"
                ),
                "add replicas, or set its min.insync.replicas lower",
            );
        } else if wanted > in_sync {
            self.problems.failed(
                format!(
                    "{in_sync} replicas are in sync, but min.insync.replicas is {wanted}: nothing can be written"
                ),
                "start the other brokers",
            );
        } else if in_sync < replicas {
            let detail =
                format!("only {in_sync} of {replicas} replicas of a partition are in sync");
            self.problems.warning(detail, "start the other brokers");
        }
        if self.brokers < BROKERS_FOR_REPLICATION {
            return;
        }
        if replicas == 1 {
            let detail = format!(
                "it has one replica on a cluster of {} brokers: if its broker is lost, so are its records",
                self.brokers
            );
            self.problems.warning(detail, "set its replication factor to 3");
        } else if wanted == replicas {
            let detail = format!(
                "min.insync.replicas is {wanted}, the number of replicas: while one broker is down, nothing can be written"
            );
            self.problems.warning(detail, "set its min.insync.replicas one lower");
        } else if min_insync == Some(1) {
            let detail =
                "min.insync.replicas is 1: an acknowledged record may be on one broker only";
            self.problems.warning(detail, "set its min.insync.replicas=2");
        }
    }
}

/// The smallest `count` of all partitions.
fn least(info: &TopicInfo, count: impl Fn(&PartitionInfo) -> usize) -> usize {
    info.partitions.iter().map(count).min().unwrap_or(0)
}

/// A setting as a number, if the broker reports it.
pub(super) fn number(settings: &Settings, name: &str) -> Option<i64> {
    settings.get(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};
    use foretell_streams::record::Topic;

    fn expected(partitions: u32, cleanup: Cleanup, role: Role) -> Expected {
        let bytes = matches!(cleanup, Cleanup::Compact).then_some(16 << 20);
        let name = Topic::new("t");
        Expected { spec: TopicSpec { name, partitions, cleanup, message_bytes_max: bytes }, role }
    }

    fn info(partitions: usize, replicas: usize, in_sync: usize, settings: &str) -> TopicInfo {
        let partition = PartitionInfo { replicas, in_sync, has_leader: true };
        let pairs = settings.split(' ').filter_map(|pair| pair.split_once('='));
        TopicInfo {
            partitions: vec![partition; partitions],
            settings: Ok(pairs.map(|(name, value)| (name.into(), value.into())).collect()),
            readable: Ok(()),
        }
    }

    fn check(expected: &Expected, info: TopicInfo, brokers: usize, want: &[(Status, &str)]) {
        let results = topic(expected, &Ok(Some(info)), brokers);
        assert_eq!(results.len(), want.len(), "{results:?}");
        for (result, (status, words)) in results.iter().zip(want) {
            assert_eq!(result.status, *status, "{result}");
            assert!(result.to_string().contains(words), "{words} in {result}");
        }
    }

    const WITH_RETENTION: Cleanup = Cleanup::Delete { retention: Some(Duration::from_secs(60)) };
    const LOG: Cleanup = Cleanup::Delete { retention: None };
    const DELETE: &str = "cleanup.policy=delete retention.ms=1000 min.insync.replicas=1";
    const MODELS: &str = "cleanup.policy=compact retention.ms=-1 max.message.bytes=16777216";

    #[test]
    fn partitions_are_counted() {
        let events = expected(4, WITH_RETENTION, Role::Read);
        check(&events, info(4, 1, 1, DELETE), 1, &[(Fine, "partitions: 4, delete, replicas: 1")]);
        check(&events, info(3, 1, 1, DELETE), 1, &[(Failed, "3 partitions, not 4")]);
        let log = expected(1, LOG, Role::Read);
        check(
            &log,
            info(2, 1, 1, "cleanup.policy=delete retention.ms=-1"),
            1,
            &[(Failed, "recreate it with 1")],
        );
        let mut lost = info(4, 1, 1, DELETE);
        lost.partitions[2].has_leader = false;
        check(&events, lost, 1, &[(Failed, "1 of its 4 partitions have no leader")]);
    }

    #[test]
    fn cleanup_policies_and_retention_are_checked() {
        let events = expected(1, WITH_RETENTION, Role::Read);
        check(&events, info(1, 1, 1, "cleanup.policy=compact"), 1, &[(Failed, "policy=delete")]);
        check(&events, info(1, 1, 1, ""), 1, &[(Warning, "not checked")]);
        let log = expected(1, LOG, Role::Read);
        check(&log, info(1, 1, 1, DELETE), 1, &[(Warning, "its records expire")]);
        let size = "cleanup.policy=delete retention.ms=-1 retention.bytes=9";
        check(&log, info(1, 1, 1, size), 1, &[(Warning, "its records expire")]);
        let models = expected(1, Cleanup::Compact, Role::Read);
        check(&models, info(1, 1, 1, MODELS), 1, &[(Fine, "compact")]);
        let both = "cleanup.policy=compact,delete retention.ms=1 max.message.bytes=16777216";
        check(&models, info(1, 1, 1, both), 1, &[(Failed, "deleted by age")]);
        let delete = "cleanup.policy=delete max.message.bytes=1048588";
        let want = [(Failed, "deleted by age"), (Failed, "max.message.bytes=16777216")];
        check(&models, info(1, 1, 1, delete), 1, &want);
        let changelog = expected(1, Cleanup::Compact, Role::Changelog);
        let quick = format!("{MODELS} delete.retention.ms=1000");
        check(&changelog, info(1, 1, 1, &quick), 1, &[(Warning, "bring deleted keys back")]);
        check(&models, info(1, 1, 1, &quick), 1, &[(Fine, "")]);
    }

    #[test]
    fn the_type_of_timestamps_is_checked() {
        let events = expected(1, WITH_RETENTION, Role::Read);
        let by = |kind: &str| format!("{DELETE} message.timestamp.type={kind}");
        let warned = [(Warning, "set its message.timestamp.type=LogAppendTime")];
        check(&events, info(1, 1, 1, &by("CreateTime")), 1, &warned);
        check(&events, info(1, 1, 1, &by("LogAppendTime")), 1, &[(Fine, "")]);
        let kept_forever =
            "cleanup.policy=delete retention.ms=-1 message.timestamp.type=CreateTime";
        check(&events, info(1, 1, 1, kept_forever), 1, &[(Fine, "")]);
        check(&expected(1, LOG, Role::Read), info(1, 1, 1, kept_forever), 1, &[(Fine, "")]);
        let changelog = expected(1, Cleanup::Compact, Role::Changelog);
        let by = |kind: &str| format!("{MODELS} message.timestamp.type={kind}");
        let failed = [(Failed, "set its message.timestamp.type=CreateTime")];
        check(&changelog, info(1, 1, 1, &by("LogAppendTime")), 1, &failed);
        check(&changelog, info(1, 1, 1, &by("CreateTime")), 1, &[(Fine, "")]);
        let models = expected(1, Cleanup::Compact, Role::Read);
        check(&models, info(1, 1, 1, &by("LogAppendTime")), 1, &[(Fine, "")]);
    }

    #[test]
    fn replication_is_checked() {
        let events = expected(1, WITH_RETENTION, Role::Read);
        let with = |least: u32| format!("cleanup.policy=delete min.insync.replicas={least}");
        check(&events, info(1, 3, 3, &with(2)), 3, &[(Fine, "replicas: 3")]);
        check(&events, info(1, 3, 3, &with(1)), 3, &[(Warning, "one broker only")]);
        check(&events, info(1, 3, 3, &with(3)), 3, &[(Warning, "while one broker is down")]);
        check(&events, info(1, 3, 2, &with(2)), 3, &[(Warning, "only 2 of 3 replicas")]);
        check(&events, info(1, 3, 1, &with(2)), 3, &[(Failed, "nothing can be written")]);
        check(&events, info(1, 1, 1, &with(1)), 3, &[(Warning, "one replica")]);
        check(&events, info(1, 1, 1, &with(1)), 1, &[(Fine, "")]);
        check(&events, info(1, 1, 1, &with(2)), 1, &[(Failed, "there are 1 replicas")]);
        check(&events, info(1, 3, 3, "cleanup.policy=delete"), 3, &[(Fine, "")]);
    }

    #[test]
    fn missing_rights_are_named() {
        let refused = |operation| Unanswered::Refused { operation, resource: "Topic t".into() };
        let events = expected(1, WITH_RETENTION, Role::Read);
        let mut undescribed = info(1, 1, 1, DELETE);
        undescribed.settings = Err(refused("DESCRIBE_CONFIGS"));
        check(&events, undescribed, 1, &[(Warning, "DESCRIBE_CONFIGS on Topic t")]);
        let mut unread = info(1, 1, 1, DELETE);
        unread.readable = Err(refused("READ"));
        check(&events, unread.clone(), 1, &[(Failed, "allow READ on Topic t")]);
        check(&expected(1, WITH_RETENTION, Role::Written), unread, 1, &[(Warning, "READ")]);
        assert_eq!(topic(&events, &Ok(None), 1)[0].status, Failed);
        assert_eq!(topic(&events, &Err(refused("DESCRIBE")), 1)[0].status, Failed);
    }
}
