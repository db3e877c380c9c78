//! Checks of the cluster as a whole: its brokers, its limits of timeouts, and transactions.

use std::time::Duration;

use crate::app::{
    check_result::CheckResult,
    doctor::{Problems, topics::number},
};
use foretell_kafka::{ClusterInfo, Settings, Unanswered};

/// A group whose offsets are kept for less than this may lose those of a quiet input between two commits of all offsets.
const OFFSETS_KEPT_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of brokers, and the versions that are known.
pub(super) fn brokers(servers: &str, cluster: &Result<ClusterInfo, Unanswered>) -> CheckResult {
    let name = "broker";
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(why) => return CheckResult::unanswered(name, why),
    };
    let (count, id) = (cluster.brokers.len(), cluster.id.as_deref().unwrap_or("without an id"));
    let librdkafka = &cluster.librdkafka;
    let detail = format!(
        "brokers: {count}, cluster {id}, reached at {servers} (librdkafka {librdkafka}, which does not report the \
         brokers' version)"
    );
    CheckResult::ok(name, detail)
}

/// Whether the configured timeouts are within the broker's limits.
pub(super) fn timeouts(
    settings: &Result<Settings, Unanswered>,
    session: Duration,
    transaction: Duration,
) -> Vec<CheckResult> {
    let mut problems = Problems::of("timeouts");
    if transaction >= session {
        problems.warning(
            format!(
                "a transaction may stay open for {transaction:?}, but a crashed member loses its partitions after \
                 {session:?}: their new owner waits for the difference"
            ),
            "set [broker] transaction_timeout below session_timeout",
        );
    }
    match settings {
        Ok(settings) => check_limits(settings, session, transaction, &mut problems),
        Err(why) => {
            problems.add(CheckResult::unknown("timeouts", "the broker's limits were", why));
        }
    }
    problems.or_ok(format!(
        "sessions of {session:?} and transactions of {transaction:?} fit the broker's limits"
    ))
}

fn check_limits(
    settings: &Settings,
    session: Duration,
    transaction: Duration,
    problems: &mut Problems,
) {
    let limits = [
        ("group.min.session.timeout.ms", "[broker] session_timeout", session, false),
        ("group.max.session.timeout.ms", "[broker] session_timeout", session, true),
        ("transaction.max.timeout.ms", "[broker] transaction_timeout", transaction, true),
    ];
    let mut not_reported = Vec::new();
    for (setting, key, configured, is_maximum) in limits {
        let limit = settings.get(setting).and_then(|value| value.parse().ok());
        let Some(limit) = limit.map(Duration::from_millis) else {
            not_reported.push(setting);
            continue;
        };
        let is_within = if is_maximum { configured <= limit } else { configured >= limit };
        if !is_within {
            let bound = if is_maximum { "at most" } else { "at least" };
            problems.failed(
                format!(
                    "{key} is {configured:?}, but the broker allows {bound} {limit:?} ({setting})"
                ),
                format!("set {key} to {bound} {limit:?}"),
            );
        }
    }
    match number(settings, "offsets.retention.minutes") {
        None => not_reported.push("offsets.retention.minutes"),
        Some(minutes)
            if minutes >= 0 && minutes.unsigned_abs() * 60 < OFFSETS_KEPT_MIN.as_secs() =>
        {
            problems.warning(
                format!("the broker deletes a group's offsets after {minutes} minutes (offsets.retention.minutes)"),
                "set it to 1440 (a day) or more, or records may be processed again",
            );
        }
        Some(_) => {}
    }
    if !not_reported.is_empty() {
        problems.warning(
            format!("not checked, because the broker does not report it: {}", not_reported.join(", ")),
            "make sure that the broker's limits allow [broker] session_timeout and transaction_timeout",
        );
    }
}

/// Whether the producer `id` may start transactions.
pub(super) fn transactions(id: &str, answer: &Result<(), Unanswered>) -> CheckResult {
    let name = "transactions";
    match answer {
        Ok(()) => CheckResult::ok(name, format!("a producer named {id} may begin one")),
        Err(why @ Unanswered::Refused { .. }) => CheckResult::unanswered(name, why),
        Err(Unanswered::Failed(why)) => CheckResult::failed(
            name,
            why.clone(),
            "make sure that the broker supports transactions and their coordinator is up, or set \
             [streams] processing_guarantee = \"at_least_once\"",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};

    const SECOND: Duration = Duration::from_secs(1);

    fn check(settings: &[(&str, &str)], session: u32, transaction: u32, expected: &[Status]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = Ok(settings.iter().map(own).collect());
        let results = timeouts(&settings, SECOND * session, SECOND * transaction);
        let statuses: Vec<Status> = results.iter().map(|result| result.status).collect();
        assert_eq!(statuses, expected, "{results:?}");
    }

    const KAFKA: &[(&str, &str)] = &[
        ("group.min.session.timeout.ms", "6000"),
        ("group.max.session.timeout.ms", "1800000"),
        ("transaction.max.timeout.ms", "900000"),
        ("offsets.retention.minutes", "10080"),
    ];

    #[test]
    fn timeouts_are_compared_with_the_brokers_limits() {
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
    fn missing_rights_are_named() {
        let why = Unanswered::Refused { operation: "WRITE", resource: "TransactionalId a".into() };
        let result = transactions("a", &Err(why.clone()));
        assert!(
            result.status == Failed && result.to_string().contains("WRITE on TransactionalId a")
        );
        assert_eq!(timeouts(&Err(why), SECOND * 15, SECOND * 10)[0].status, Warning);
        let result = transactions("a", &Err(Unanswered::Failed("no answer".to_owned())));
        assert!(
            result.status == Failed && result.to_string().contains("at_least_once"),
            "{result}"
        );
        assert_eq!(transactions("a", &Ok(())).status, Fine);
    }
}
