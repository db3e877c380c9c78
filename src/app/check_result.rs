//! The result of a check: a status, a detail, and what to do.

use std::fmt;

use serde::Serialize;

use foretell_address as address;
use foretell_kafka::Unanswered;

/// The status of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As expected.
    Ok,
    /// It works but may fail later, or it could not be checked.
    Warning,
    /// It does not work.
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        })
    }
}

/// The result of one check, displayed as one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// The subject of the check.
    pub name: String,
    /// The conclusion.
    pub status: Status,
    /// What was observed.
    pub detail: String,
    /// What to do; none if nothing is.
    pub fix: Option<String>,
}

impl CheckResult {
    pub(in crate::app) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = address::hide_in(&detail.into()).into_owned();
        Self { name: name.into(), status: Status::Ok, detail, fix: None }
    }

    pub(in crate::app) fn warning(
        name: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        // Messages of libraries may quote a secret.
        let detail = address::hide_in(&detail.into()).into_owned();
        Self { name: name.into(), status: Status::Warning, detail, fix: Some(fix.into()) }
    }

    pub(in crate::app) fn failed(
        name: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { status: Status::Failed, ..Self::warning(name, detail, fix) }
    }

    /// A request that `foretell run` depends on was not answered.
    pub(in crate::app) fn unanswered(name: impl Into<String>, why: &Unanswered) -> Self {
        Self::failed(name, why.to_string(), fix_for(why))
    }

    /// A request that only `doctor` makes was not answered, so `what` was not checked.
    pub(in crate::app) fn unknown(name: impl Into<String>, what: &str, why: &Unanswered) -> Self {
        Self::warning(name, format!("{what} not checked: {why}"), fix_for(why))
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, status, detail, fix } = self;
        write!(f, "{status:<8} {name}: {detail}")?;
        match fix {
            Some(fix) => write!(f, ": {fix}"),
            None => Ok(()),
        }
    }
}

fn fix_for(why: &Unanswered) -> String {
    match why {
        Unanswered::Refused { operation, resource } => {
            format!("allow {operation} on {resource} to this user (an ACL)")
        }
        Unanswered::Failed(_) => "look at the broker's log, and try again".to_owned(),
    }
}

/// The results of all checks.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether no check failed.
    pub ok: bool,
    pub checks: Vec<CheckResult>,
}

impl Report {
    /// A report of these results.
    #[must_use]
    pub fn of(checks: Vec<CheckResult>) -> Self {
        let ok = checks.iter().all(|check| check.status != Status::Failed);
        Self { ok, checks }
    }

    /// The number of checks with this status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} checks: {} ok, {} warnings, {} failed",
            self.checks.len(),
            self.count(Status::Ok),
            self.count(Status::Warning),
            self.count(Status::Failed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_displayed_as_one_line() {
        let refused = Unanswered::Refused { operation: "READ", resource: "Topic models".into() };
        let check = |result: CheckResult, expected: &str| assert_eq!(result.to_string(), expected);
        check(CheckResult::ok("broker", "3 brokers"), "ok       broker: 3 brokers");
        check(
            CheckResult::unanswered("topic models", &refused),
            "FAILED   topic models: not allowed to READ on Topic models: \
             allow READ on Topic models to this user (an ACL)",
        );
        let unknown = CheckResult::unknown("timeouts", "the broker's limits were", &refused);
        assert_eq!(unknown.status, Status::Warning);
        assert!(unknown.detail.contains("not checked"));
    }
}
