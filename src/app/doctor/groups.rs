//! How far the consumer groups are.

use crate::app::check_result::CheckResult;
use foretell_kafka::{CommittedInfo, GroupInfo, Unanswered};

/// How far a group is behind, and whether anybody is at work.
pub(super) fn group(group: &str, seen: &Result<GroupInfo, Unanswered>) -> CheckResult {
    let name = format!("group {group}");
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return CheckResult::unanswered(name, why),
    };
    let members = match seen.members {
        0 => "no members".to_owned(),
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    if seen.positions.iter().all(|place| place.committed.is_none()) {
        return CheckResult::ok(name, format!("nothing committed yet, {members}"));
    }
    let is_cut = |place: &&CommittedInfo| place.committed.is_some_and(|next| next < place.first);
    if let Some(cut) = seen.positions.iter().find(is_cut) {
        return CheckResult::warning(
            name,
            format!(
                "records of {} were deleted before they were processed: it is at {}, the oldest kept is {}",
                cut.source,
                cut.committed.unwrap_or_default(),
                cut.first
            ),
            "it will go on from the oldest; keep more (retention.ms), or run more instances",
        );
    }
    let behind: i64 = seen.positions.iter().map(behind).sum();
    let detail = format!("{behind} behind in {} partitions, {members}", seen.positions.len());
    // A partition's last offset may be the end of a transaction, which nobody reads.
    let is_idle = usize::try_from(behind).is_ok_and(|behind| behind <= seen.positions.len());
    if seen.members == 0 && !is_idle {
        return CheckResult::warning(name, detail, "start `foretell run`");
    }
    CheckResult::ok(name, detail)
}

/// In offsets; the ends of transactions count too.
fn behind(place: &CommittedInfo) -> i64 {
    (place.end - place.committed.unwrap_or(place.first)).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};
    use foretell_streams::record::{Partition, Topic, TopicPartition};

    fn check(members: usize, positions: &[(Option<i64>, i64, i64)], want: (Status, &str)) {
        let source = TopicPartition { topic: Topic::new("outcomes"), partition: Partition(0) };
        let place = |(committed, first, end): &(Option<i64>, i64, i64)| CommittedInfo {
            source: source.clone(),
            committed: *committed,
            first: *first,
            end: *end,
        };
        let positions = positions.iter().map(place).collect();
        let found = group("g", &Ok(GroupInfo { members, positions }));
        assert!(found.status == want.0 && found.to_string().contains(want.1), "{found}");
    }

    #[test]
    fn lag_is_told() {
        check(0, &[(None, 0, 10)], (Fine, "nothing committed yet, no members"));
        check(2, &[(Some(5), 0, 10), (None, 0, 3)], (Fine, "8 behind in 2 partitions, 2 members"));
        check(0, &[(Some(10), 0, 10)], (Fine, "0 behind in 1 partitions, no members"));
        check(0, &[(Some(9), 0, 10)], (Fine, "1 behind"));
        check(0, &[(Some(5), 0, 10)], (Warning, "start `foretell run`"));
        check(1, &[(Some(5), 7, 10)], (Warning, "the oldest kept is 7"));
        let refused = Unanswered::Refused { operation: "DESCRIBE", resource: "Group g".into() };
        assert_eq!(group("g", &Err(refused)).status, Failed);
    }
}
