//! Checks of the consumer groups: their lag and their members.

use crate::app::check_result::CheckResult;
use foretell_kafka::{CommittedInfo, GroupInfo, Unanswered};

/// The lag of a group, a warning if records were deleted before they were processed, or if there is lag and no member.
/// `command` starts members.
pub(super) fn group(
    group: &str,
    info: &Result<GroupInfo, Unanswered>,
    command: &str,
) -> CheckResult {
    let name = format!("group {group}");
    let info = match info {
        Ok(info) => info,
        Err(why) => return CheckResult::unanswered(name, why),
    };
    let members = match info.members {
        0 => "no members".to_owned(),
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    if info.positions.iter().all(|position| position.committed.is_none()) {
        return CheckResult::ok(name, format!("nothing committed yet, {members}"));
    }
    let is_truncated = |position: &&CommittedInfo| {
        position.committed.is_some_and(|committed| committed < position.first)
    };
    if let Some(truncated) = info.positions.iter().find(is_truncated) {
        return CheckResult::warning(
            name,
            format!(
                "records of {} were deleted before they were processed: its offset is {}, the oldest record has {}",
                truncated.source,
                truncated.committed.unwrap_or_default(),
                truncated.first
            ),
            "it continues with the oldest record; raise retention.ms, or run more instances",
        );
    }
    let lag: i64 = info.positions.iter().map(lag).sum();
    let detail = format!("{lag} behind in {} partitions, {members}", info.positions.len());
    // The last offset of a partition may be the end of a transaction, which no consumer reads.
    let is_idle = usize::try_from(lag).is_ok_and(|lag| lag <= info.positions.len());
    if info.members == 0 && !is_idle {
        return CheckResult::warning(name, detail, format!("start `{command}`"));
    }
    CheckResult::ok(name, detail)
}

/// Lag in offsets, which includes the ends of transactions.
fn lag(position: &CommittedInfo) -> i64 {
    (position.end - position.committed.unwrap_or(position.first)).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};
    use foretell_streams::record::{Partition, Topic, TopicPartition};

    fn check(members: usize, positions: &[(Option<i64>, i64, i64)], want: (Status, &str)) {
        let source = TopicPartition { topic: Topic::new("outcomes"), partition: Partition(0) };
        let position = |(committed, first, end): &(Option<i64>, i64, i64)| CommittedInfo {
            source: source.clone(),
            committed: *committed,
            first: *first,
            end: *end,
        };
        let positions = positions.iter().map(position).collect();
        let result = group("g", &Ok(GroupInfo { members, positions }), "foretell run");
        assert!(result.status == want.0 && result.to_string().contains(want.1), "{result}");
    }

    #[test]
    fn lag_and_members_are_checked() {
        check(0, &[(None, 0, 10)], (Fine, "nothing committed yet, no members"));
        check(2, &[(Some(5), 0, 10), (None, 0, 3)], (Fine, "8 behind in 2 partitions, 2 members"));
        check(0, &[(Some(10), 0, 10)], (Fine, "0 behind in 1 partitions, no members"));
        check(0, &[(Some(9), 0, 10)], (Fine, "1 behind"));
        check(0, &[(Some(5), 0, 10)], (Warning, "start `foretell run`"));
        check(1, &[(Some(5), 7, 10)], (Warning, "the oldest record has 7"));
        let refused = Unanswered::Refused { operation: "DESCRIBE", resource: "Group g".into() };
        assert_eq!(group("g", &Err(refused), "foretell run").status, Failed);
    }
}
