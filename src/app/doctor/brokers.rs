//! The cluster as a whole: its brokers, the limits of its times, and transactions.

use std::time::Duration;

use crate::app::check_result::CheckResult;
use foretell_kafka::{ClusterInfo, Settings, Unanswered};

/// For shorter than this, a co-partitioned input's offsets may be forgotten between two commits of all offsets.
const OFFSETS_KEPT_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// How many brokers there are, and what else they tell.
pub(super) fn brokers(servers: &str, seen: &Result<ClusterInfo, Unanswered>) -> CheckResult {
    let name = "broker";
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return CheckResult::unanswered(name, why),
    };
    let (count, cluster) = (seen.brokers.len(), seen.id.as_deref().unwrap_or("without a name"));
    let librdkafka = &seen.librdkafka;
    CheckResult::ok(
        name,
        format!(
            "brokers: {count}, cluster {cluster}, by {servers}; librdkafka {librdkafka} does not tell their version"
        ),
    )
}

/// Whether the broker takes the times that we ask for.
pub(super) fn timeouts(
    settings: &Result<Settings, Unanswered>,
    session: Duration,
    transaction: Duration,
) -> Vec<CheckResult> {
    let name = "timeouts";
    let mut found = Vec::new();
    if transaction >= session {
        found.push(CheckResult::warning(
            name,
            format!(
                "a transaction may stay open for {transaction:?}, a dead member's session for {session:?}: \
                 the new owner waits for the rest"
            ),
            "set [broker] transaction_timeout below session_timeout",
        ));
    }
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            found.push(CheckResult::unknown(name, "the broker's limits were", why));
            return found;
        }
    };
    let limits = [
        ("group.min.session.timeout.ms", "[broker] session_timeout", session, false),
        ("group.max.session.timeout.ms", "[broker] session_timeout", session, true),
        ("transaction.max.timeout.ms", "[broker] transaction_timeout", transaction, true),
    ];
    let mut pending_changes = Vec::new();
    for (limit, key, ours, is_most) in limits {
        let Some(theirs) = millis(settings, limit) else {
            pending_changes.push(limit);
            continue;
        };
        let fits = if is_most { ours <= theirs } else { ours >= theirs };
        if !fits {
            let word = if is_most { "at most" } else { "at least" };
            found.push(CheckResult::failed(
                name,
                format!("{key} is {ours:?}, and the broker takes {word} {theirs:?} ({limit})"),
                format!("set {key} to {word} {theirs:?}"),
            ));
        }
    }
    match number(settings, "offsets.retention.minutes") {
        None => pending_changes.push("offsets.retention.minutes"),
        Some(minutes)
            if minutes >= 0 && minutes.unsigned_abs() * 60 < OFFSETS_KEPT_MIN.as_secs() =>
        {
            found.push(CheckResult::warning(
                name,
                format!("a group's offsets are forgotten after {minutes} minutes (offsets.retention.minutes)"),
                "set it to a day or more, or what was processed may be processed again",
            ));
        }
        Some(_) => {}
    }
    if !pending_changes.is_empty() {
        found.push(CheckResult::warning(
            name,
            format!("not checked, for the broker does not tell it: {}", pending_changes.join(", ")),
            "see that the broker's settings allow [broker] session_timeout and transaction_timeout",
        ));
    }
    if found.is_empty() {
        let detail = format!(
            "sessions of {session:?} and transactions of {transaction:?} fit the broker's limits"
        );
        found.push(CheckResult::ok(name, detail));
    }
    found
}

/// Whether we may begin a transaction as `id`.
pub(super) fn transactions(id: &str, answer: &Result<(), Unanswered>) -> CheckResult {
    let name = "transactions";
    match answer {
        Ok(()) => CheckResult::ok(name, format!("a producer named {id} may begin one")),
        Err(why @ Unanswered::Refused { .. }) => CheckResult::unanswered(name, why),
        Err(Unanswered::Failed(why)) => CheckResult::failed(
            name,
            why.clone(),
            "see that the broker has transactions and their coordinator is up, or set \
             [streams] processing_guarantee = \"at_least_once\"",
        ),
    }
}

pub(super) fn number(settings: &Settings, name: &str) -> Option<i64> {
    settings.get(name)?.parse().ok()
}

fn millis(settings: &Settings, name: &str) -> Option<Duration> {
    settings.get(name)?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};

    const SECOND: Duration = Duration::from_secs(1);

    fn check(settings: &[(&str, &str)], session: u32, transaction: u32, expected: &[Status]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = Ok(settings.iter().map(own).collect());
        let found = timeouts(&settings, SECOND * session, SECOND * transaction);
        let statuses: Vec<Status> = found.iter().map(|finding| finding.status).collect();
        assert_eq!(statuses, expected, "{found:?}");
    }

    const KAFKA: &[(&str, &str)] = &[
        ("group.min.session.timeout.ms", "6000"),
        ("group.max.session.timeout.ms", "1800000"),
        ("transaction.max.timeout.ms", "900000"),
        ("offsets.retention.minutes", "10080"),
    ];

    #[test]
    fn times_are_held_against_the_brokers_limits() {
        check(KAFKA, 15, 10, &[Fine]);
        check(KAFKA, 5, 4, &[Failed]);
        check(KAFKA, 2000, 1000, &[Failed, Failed]);
        check(KAFKA, 10, 10, &[Warning]);
        check(&KAFKA[..3], 15, 10, &[Warning]);
        check(&[], 15, 10, &[Warning]);
        let short: Vec<_> =
            KAFKA[..3].iter().copied().chain([("offsets.retention.minutes", "60")]).collect();
        check(&short, 15, 10, &[Warning]);
    }

    #[test]
    fn what_is_refused_is_named() {
        let why = Unanswered::Refused { operation: "WRITE", resource: "TransactionalId a".into() };
        let found = transactions("a", &Err(why.clone()));
        assert!(found.status == Failed && found.to_string().contains("WRITE on TransactionalId a"));
        assert_eq!(timeouts(&Err(why), SECOND * 15, SECOND * 10)[0].status, Warning);
        let found = transactions("a", &Err(Unanswered::Failed("no answer".to_owned())));
        assert!(found.status == Failed && found.to_string().contains("at_least_once"), "{found}");
        assert_eq!(transactions("a", &Ok(())).status, Fine);
    }
}
