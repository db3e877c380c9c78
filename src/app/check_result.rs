//! What a look found: whether it is as it should be, and what to do if it is not.

use std::fmt;

use serde::Serialize;

use foretell_address as address;
use foretell_kafka::Unanswered;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and may not go on working; or it could not be looked at.
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

/// One check, one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What to do, if something is to be done.
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
        // What a library quotes may hold a secret.
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

    /// Something without which `foretell run` does not work has no answer.
    pub(in crate::app) fn unanswered(name: impl Into<String>, why: &Unanswered) -> Self {
        Self::failed(name, why.to_string(), way_out(why))
    }

    /// Something that only `doctor` asks for has no answer: it may be as it should be.
    pub(in crate::app) fn unknown(name: impl Into<String>, what: &str, why: &Unanswered) -> Self {
        Self::warning(name, format!("{what} not checked: {why}"), way_out(why))
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

fn way_out(why: &Unanswered) -> String {
    match why {
        Unanswered::Refused { operation, resource } => {
            format!("allow {operation} on {resource} to this user (an ACL)")
        }
        Unanswered::Failed(_) => "look at the broker's log, and try again".to_owned(),
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether nothing failed.
    pub ok: bool,
    /// One check each.
    pub checks: Vec<CheckResult>,
}

impl Report {
    /// Of these findings.
    #[must_use]
    pub fn of(checks: Vec<CheckResult>) -> Self {
        let ok = checks.iter().all(|finding| finding.status != Status::Failed);
        Self { ok, checks }
    }

    /// How many findings have this status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|finding| finding.status == status).count()
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
    fn a_finding_is_one_line() {
        let refused = Unanswered::Refused { operation: "READ", resource: "Topic models".into() };
        let check =
            |finding: CheckResult, expected: &str| assert_eq!(finding.to_string(), expected);
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
