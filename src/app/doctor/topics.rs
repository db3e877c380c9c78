//! Our topics, each held against what it should be.

use std::time::Duration;

use crate::app::{check_result::CheckResult, doctor::brokers::number};
use foretell_kafka::{Settings, TopicInfo, Unanswered};
use foretell_streams::runtime::broker::{Cleanup, Timestamps, TopicSpec};

/// A restore that takes longer than this may miss a deletion: Kafka's default.
const DELETIONS_KEPT_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// From so many brokers on, one copy is a choice, and hardly a good one.
const BROKERS_FOR_COPIES: usize = 3;

/// What we need a topic for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `run` and `init` read it.
    Read,
    /// They only write it; `send` and `?wait=true` read predictions.
    Written,
    /// It holds a store.
    Changelog,
}

/// A topic as it should be.
pub(super) struct Expected {
    pub(super) spec: TopicSpec,
    pub(super) role: Role,
}

/// That there is none of our topics, so that nothing of what is made with them need be looked at.
pub(super) fn not_initialised(application: &str, topics: usize) -> CheckResult {
    CheckResult::failed(
        "topics",
        format!(
            "{application} is not initialised: none of its {topics} topics exists (groups, schemas and the model \
             were not looked at)"
        ),
        "run `foretell init`, or see that this user may DESCRIBE them (an ACL)",
    )
}

/// Everything that is wrong with a topic, or that nothing is.
pub(super) fn topic(
    expected: &Expected,
    seen: &Result<Option<TopicInfo>, Unanswered>,
    brokers: usize,
) -> Vec<CheckResult> {
    let name = format!("topic {}", expected.spec.name);
    let seen = match seen {
        Ok(Some(seen)) => seen,
        Ok(None) => {
            let fix = "run `foretell init`, or see that this user may DESCRIBE it (an ACL)";
            return vec![CheckResult::failed(name, "it does not exist", fix)];
        }
        Err(why) => return vec![CheckResult::unanswered(name, why)],
    };
    let mut found = Vec::new();
    partitions(&name, expected, seen, &mut found);
    if let Err(why) = &seen.readable {
        found.push(match expected.role {
            Role::Read | Role::Changelog => CheckResult::unanswered(&name, why),
            Role::Written => {
                CheckResult::unknown(&name, "reading (as `send` and `?wait=true` do) was", why)
            }
        });
    }
    match &seen.settings {
        Ok(settings) => {
            cleanup(&name, expected, settings, &mut found);
            timestamps(&name, expected, settings, &mut found);
            sizes(&name, expected, settings, &mut found);
            copies(&name, seen, number(settings, "min.insync.replicas"), brokers, &mut found);
        }
        Err(why) => {
            found.push(CheckResult::unknown(&name, "its settings were", why));
            copies(&name, seen, None, brokers, &mut found);
        }
    }
    if found.is_empty() {
        let policy = match expected.spec.cleanup {
            Cleanup::Delete { .. } => "delete",
            Cleanup::Compact => "compact",
            Cleanup::CompactDelete { .. } => "compact,delete",
        };
        let (count, copies) = (seen.partitions.len(), least(seen, |partition| partition.replicas));
        found.push(CheckResult::ok(
            name,
            format!("partitions: {count}, {policy}, copies: {copies}"),
        ));
    }
    found
}

fn partitions(name: &str, expected: &Expected, seen: &TopicInfo, found: &mut Vec<CheckResult>) {
    let (wanted, there) = (expected.spec.partitions, seen.partitions.len());
    if u32::try_from(there).ok() != Some(wanted) {
        let fix = match expected.role {
            Role::Changelog => "delete it while nothing runs (its store is lost), or go back to the partitions that it was made with".to_owned(),
            Role::Read | Role::Written if wanted == 1 => "make it anew with 1 partition".to_owned(),
            Role::Read | Role::Written => format!(
                "make it anew with {wanted}, or set [topics] partitions to what all of them have: \
                 a task takes the partitions of one number, of events, outcomes and changelogs"
            ),
        };
        found.push(CheckResult::failed(
            name,
            format!("it has {there} partitions, not {wanted}"),
            fix,
        ));
    }
    let leaderless = seen.partitions.iter().filter(|partition| !partition.has_leader).count();
    if leaderless > 0 {
        let detail = format!("{leaderless} of its {there} partitions have no leader");
        found.push(CheckResult::failed(name, detail, "bring the brokers that hold them back"));
    }
}

fn cleanup(name: &str, expected: &Expected, settings: &Settings, found: &mut Vec<CheckResult>) {
    let Some(policy) = settings.get("cleanup.policy") else {
        found.push(CheckResult::warning(
            name,
            "cleanup.policy not checked: the broker does not tell it",
            "see to it by hand",
        ));
        return;
    };
    let (compacts, deletes) = (policy.contains("compact"), policy.contains("delete"));
    let aged = number(settings, "retention.ms").is_some_and(|millis| millis >= 0)
        || number(settings, "retention.bytes").is_some_and(|bytes| bytes >= 0);
    match expected.spec.cleanup {
        Cleanup::Delete { .. } if compacts => found.push(CheckResult::failed(
            name,
            format!("cleanup.policy is {policy}: of several records of one key only the last would stay"),
            "set its cleanup.policy=delete",
        )),
        Cleanup::Delete { retention: None } if aged => found.push(CheckResult::warning(
            name,
            "it forgets: retention.ms or retention.bytes is set, and models are trained from all of it",
            "set its retention.ms=-1 and retention.bytes=-1, or be sure that this is meant",
        )),
        Cleanup::Compact | Cleanup::CompactDelete { .. } if !compacts => found.push(CheckResult::failed(
            name,
            format!("cleanup.policy is {policy}: what it holds would be deleted by age"),
            "set its cleanup.policy=compact",
        )),
        Cleanup::Compact if deletes && aged => found.push(CheckResult::failed(
            name,
            format!("cleanup.policy is {policy}, with a retention: what it holds would be deleted by age"),
            "set its cleanup.policy=compact",
        )),
        Cleanup::Delete { .. } | Cleanup::Compact | Cleanup::CompactDelete { .. } => {}
    }
    let kept =
        number(settings, "delete.retention.ms").and_then(|millis| u64::try_from(millis).ok());
    if let Some(kept) = kept.map(Duration::from_millis)
        && expected.role == Role::Changelog
        && kept < DELETIONS_KEPT_MIN
    {
        found.push(CheckResult::warning(
            name,
            format!("delete.retention.ms is {kept:?}: a restore that takes longer may bring back what was deleted"),
            "set its delete.retention.ms=86400000 (a day) or more",
        ));
    }
}

/// Whether retention goes by when records came, and restores by what we have written.
fn timestamps(name: &str, expected: &Expected, settings: &Settings, found: &mut Vec<CheckResult>) {
    let wanted = expected.spec.cleanup.timestamps();
    let (Some(wanted), Some(there)) = (wanted, settings.get("message.timestamp.type")) else {
        return;
    };
    let fix = format!("set its message.timestamp.type={}", wanted.name());
    let forgets = number(settings, "retention.ms").is_some_and(|millis| millis >= 0);
    match wanted {
        Timestamps::LogAppendTime if there == Timestamps::CreateTime.name() && forgets => {
            let detail = "message.timestamp.type is CreateTime: what tells of long ago, such as a backfill, may be \
                          deleted by its retention before it is read";
            found.push(CheckResult::warning(name, detail, fix));
        }
        Timestamps::CreateTime
            if there == Timestamps::LogAppendTime.name() && expected.role == Role::Changelog =>
        {
            let detail = "message.timestamp.type is LogAppendTime: a restore takes stream time from there, and would \
                          close windows too early";
            found.push(CheckResult::failed(name, detail, fix));
        }
        Timestamps::LogAppendTime | Timestamps::CreateTime => {}
    }
}

fn sizes(name: &str, expected: &Expected, settings: &Settings, found: &mut Vec<CheckResult>) {
    let Some(wanted) = expected.spec.message_bytes_max else { return };
    let fix = format!("set its max.message.bytes={wanted}");
    match number(settings, "max.message.bytes") {
        None => {
            let detail = "max.message.bytes not checked: the broker does not tell it";
            found.push(CheckResult::warning(name, detail, fix));
        }
        Some(there) if there < i64::from(wanted) => {
            let detail = format!("max.message.bytes is {there}: what is larger can't be written");
            found.push(match expected.role {
                Role::Read | Role::Changelog => CheckResult::failed(name, detail, fix),
                Role::Written => CheckResult::warning(name, detail, fix),
            });
        }
        Some(_) => {}
    }
}

/// Writes ask for all copies in sync (acks=all), so that `min.insync.replicas` decides what is written.
fn copies(
    name: &str,
    seen: &TopicInfo,
    least_in_sync: Option<i64>,
    brokers: usize,
    found: &mut Vec<CheckResult>,
) {
    let replicas = least(seen, |partition| partition.replicas);
    let in_sync = least(seen, |partition| partition.in_sync);
    // Redpanda has no such setting: it always asks for more than half.
    let wanted = least_in_sync.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    if wanted > replicas {
        let detail = format!(
            "min.insync.replicas is {wanted}, and there are {replicas} copies: nothing can be written"
        );
        found.push(CheckResult::failed(
            name,
            detail,
            "make more copies, or set its min.insync.replicas lower",
        ));
    } else if wanted > in_sync {
        let detail = format!(
            "{in_sync} copies are in sync, and min.insync.replicas is {wanted}: nothing can be written"
        );
        found.push(CheckResult::failed(name, detail, "bring the other brokers back"));
    } else if in_sync < replicas {
        let detail = format!("of a partition's {replicas} copies only {in_sync} are in sync");
        found.push(CheckResult::warning(name, detail, "bring the other brokers back"));
    }
    if brokers < BROKERS_FOR_COPIES {
        return;
    }
    if replicas == 1 {
        let detail =
            format!("one copy, on a cluster of {brokers} brokers: with its broker it is gone");
        found.push(CheckResult::warning(
            name,
            detail,
            "make 3 copies of it (its replication factor)",
        ));
    } else if wanted == replicas {
        let detail = format!(
            "min.insync.replicas is {wanted}, as many as copies: with one broker away nothing is written"
        );
        found.push(CheckResult::warning(name, detail, "set its min.insync.replicas one lower"));
    } else if least_in_sync == Some(1) {
        let detail = "min.insync.replicas is 1: what is acknowledged may be on one broker only";
        found.push(CheckResult::warning(name, detail, "set its min.insync.replicas=2"));
    }
}

fn least(seen: &TopicInfo, count: impl Fn(&foretell_kafka::PartitionInfo) -> usize) -> usize {
    seen.partitions.iter().map(count).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};
    use foretell_kafka::PartitionInfo;
    use foretell_streams::record::Topic;

    fn expected(partitions: u32, cleanup: Cleanup, role: Role) -> Expected {
        let bytes = matches!(cleanup, Cleanup::Compact).then_some(16 << 20);
        let name = Topic::new("t");
        Expected { spec: TopicSpec { name, partitions, cleanup, message_bytes_max: bytes }, role }
    }

    fn seen(partitions: usize, copies: (usize, usize), settings: &str) -> TopicInfo {
        let partition = PartitionInfo { replicas: copies.0, in_sync: copies.1, has_leader: true };
        let pairs = settings.split(' ').filter_map(|pair| pair.split_once('='));
        TopicInfo {
            partitions: vec![partition; partitions],
            settings: Ok(pairs.map(|(name, value)| (name.into(), value.into())).collect()),
            readable: Ok(()),
        }
    }

    fn check(expected: &Expected, seen: TopicInfo, brokers: usize, want: &[(Status, &str)]) {
        let found = topic(expected, &Ok(Some(seen)), brokers);
        assert_eq!(found.len(), want.len(), "{found:?}");
        for (finding, (status, words)) in found.iter().zip(want) {
            assert_eq!(finding.status, *status, "{finding}");
            assert!(finding.to_string().contains(words), "{words} in {finding}");
        }
    }

    const PASSING: Cleanup = Cleanup::Delete { retention: Some(Duration::from_secs(60)) };
    const LOG: Cleanup = Cleanup::Delete { retention: None };
    const DELETE: &str = "cleanup.policy=delete retention.ms=1000 min.insync.replicas=1";
    const MODELS: &str = "cleanup.policy=compact retention.ms=-1 max.message.bytes=16777216";

    #[test]
    fn partitions_are_counted() {
        let events = expected(4, PASSING, Role::Read);
        check(&events, seen(4, (1, 1), DELETE), 1, &[(Fine, "partitions: 4, delete, copies: 1")]);
        check(&events, seen(3, (1, 1), DELETE), 1, &[(Failed, "3 partitions, not 4")]);
        let log = expected(1, LOG, Role::Read);
        check(
            &log,
            seen(2, (1, 1), "cleanup.policy=delete retention.ms=-1"),
            1,
            &[(Failed, "anew with 1")],
        );
        let mut lost = seen(4, (1, 1), DELETE);
        lost.partitions[2].has_leader = false;
        check(&events, lost, 1, &[(Failed, "1 of its 4 partitions have no leader")]);
    }

    #[test]
    fn what_is_kept_is_checked() {
        let events = expected(1, PASSING, Role::Read);
        check(&events, seen(1, (1, 1), "cleanup.policy=compact"), 1, &[(Failed, "policy=delete")]);
        check(&events, seen(1, (1, 1), ""), 1, &[(Warning, "not checked")]);
        let log = expected(1, LOG, Role::Read);
        check(&log, seen(1, (1, 1), DELETE), 1, &[(Warning, "it forgets")]);
        let size = "cleanup.policy=delete retention.ms=-1 retention.bytes=9";
        check(&log, seen(1, (1, 1), size), 1, &[(Warning, "it forgets")]);
        let models = expected(1, Cleanup::Compact, Role::Read);
        check(&models, seen(1, (1, 1), MODELS), 1, &[(Fine, "compact")]);
        let both = "cleanup.policy=compact,delete retention.ms=1 max.message.bytes=16777216";
        check(&models, seen(1, (1, 1), both), 1, &[(Failed, "deleted by age")]);
        let delete = "cleanup.policy=delete max.message.bytes=1048588";
        let want = [(Failed, "deleted by age"), (Failed, "max.message.bytes=16777216")];
        check(&models, seen(1, (1, 1), delete), 1, &want);
        let changelog = expected(1, Cleanup::Compact, Role::Changelog);
        let quick = format!("{MODELS} delete.retention.ms=1000");
        check(&changelog, seen(1, (1, 1), &quick), 1, &[(Warning, "bring back what was deleted")]);
        check(&models, seen(1, (1, 1), &quick), 1, &[(Fine, "")]);
    }

    #[test]
    fn timestamps_are_those_that_retention_and_restores_need() {
        let events = expected(1, PASSING, Role::Read);
        let by = |kind: &str| format!("{DELETE} message.timestamp.type={kind}");
        let warned = [(Warning, "set its message.timestamp.type=LogAppendTime")];
        check(&events, seen(1, (1, 1), &by("CreateTime")), 1, &warned);
        check(&events, seen(1, (1, 1), &by("LogAppendTime")), 1, &[(Fine, "")]);
        let for_ever = "cleanup.policy=delete retention.ms=-1 message.timestamp.type=CreateTime";
        check(&events, seen(1, (1, 1), for_ever), 1, &[(Fine, "")]);
        check(&expected(1, LOG, Role::Read), seen(1, (1, 1), for_ever), 1, &[(Fine, "")]);
        let changelog = expected(1, Cleanup::Compact, Role::Changelog);
        let by = |kind: &str| format!("{MODELS} message.timestamp.type={kind}");
        let failed = [(Failed, "set its message.timestamp.type=CreateTime")];
        check(&changelog, seen(1, (1, 1), &by("LogAppendTime")), 1, &failed);
        check(&changelog, seen(1, (1, 1), &by("CreateTime")), 1, &[(Fine, "")]);
        let models = expected(1, Cleanup::Compact, Role::Read);
        check(&models, seen(1, (1, 1), &by("LogAppendTime")), 1, &[(Fine, "")]);
    }

    #[test]
    fn copies_fit_the_cluster() {
        let events = expected(1, PASSING, Role::Read);
        let with = |least: u32| format!("cleanup.policy=delete min.insync.replicas={least}");
        check(&events, seen(1, (3, 3), &with(2)), 3, &[(Fine, "copies: 3")]);
        check(&events, seen(1, (3, 3), &with(1)), 3, &[(Warning, "one broker only")]);
        check(&events, seen(1, (3, 3), &with(3)), 3, &[(Warning, "with one broker away")]);
        check(&events, seen(1, (3, 2), &with(2)), 3, &[(Warning, "only 2 are in sync")]);
        check(&events, seen(1, (3, 1), &with(2)), 3, &[(Failed, "nothing can be written")]);
        check(&events, seen(1, (1, 1), &with(1)), 3, &[(Warning, "one copy")]);
        check(&events, seen(1, (1, 1), &with(1)), 1, &[(Fine, "")]);
        check(&events, seen(1, (1, 1), &with(2)), 1, &[(Failed, "there are 1 copies")]);
        check(&events, seen(1, (3, 3), "cleanup.policy=delete"), 3, &[(Fine, "")]);
    }

    #[test]
    fn what_may_not_be_seen_is_said() {
        let refused = |operation| Unanswered::Refused { operation, resource: "Topic t".into() };
        let events = expected(1, PASSING, Role::Read);
        let mut blind = seen(1, (1, 1), DELETE);
        blind.settings = Err(refused("DESCRIBE_CONFIGS"));
        check(&events, blind, 1, &[(Warning, "DESCRIBE_CONFIGS on Topic t")]);
        let mut unread = seen(1, (1, 1), DELETE);
        unread.readable = Err(refused("READ"));
        check(&events, unread.clone(), 1, &[(Failed, "allow READ on Topic t")]);
        check(&expected(1, PASSING, Role::Written), unread, 1, &[(Warning, "READ")]);
        assert_eq!(topic(&events, &Ok(None), 1)[0].status, Failed);
        assert_eq!(topic(&events, &Err(refused("DESCRIBE")), 1)[0].status, Failed);
    }
}
