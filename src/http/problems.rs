//! The table of problems: the kinds of error responses by status. `docs/http-api.md` and the OpenAPI document derive from it.

/// A kind of error response.
pub struct Problem {
    pub status: u16,
    /// The last part of its `type`.
    pub name: &'static str,
    /// Its `title`, the same for every occurrence.
    pub title: &'static str,
    /// When it occurs; for the docs.
    pub meaning: &'static str,
    /// Whether every route may answer with it, so that routes do not list it.
    pub is_everywhere: bool,
}

impl Problem {
    /// Its `type`: an identifier to compare, not an address to fetch.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("urn:foretell:problem:{}", self.name)
    }
}

const fn everywhere(
    status: u16,
    name: &'static str,
    title: &'static str,
    meaning: &'static str,
) -> Problem {
    Problem { status, name, title, meaning, is_everywhere: true }
}

const fn listed(
    status: u16,
    name: &'static str,
    title: &'static str,
    meaning: &'static str,
) -> Problem {
    Problem { status, name, title, meaning, is_everywhere: false }
}

/// Every problem, by status.
pub const PROBLEMS: &[Problem] = &[
    everywhere(
        400,
        "invalid-request",
        "Invalid request",
        "a parameter does not exist, is there twice, or has a wrong value; the body or a header is not valid",
    ),
    everywhere(
        401,
        "token-required",
        "Token required",
        "the token is missing or wrong; with `WWW-Authenticate`. It is checked before the body is read",
    ),
    everywhere(
        403,
        "not-allowed",
        "Not allowed",
        "`Host` or `Origin` is not allowed for a request without a token; or the token may only read",
    ),
    everywhere(404, "not-found", "Not found", "the path does not exist, or what it names does not"),
    everywhere(
        405,
        "method-not-allowed",
        "Method not allowed",
        "the path does not have this method; with `Allow`",
    ),
    listed(406, "not-acceptable", "Not acceptable", "the route has none of the types in `Accept`"),
    everywhere(
        408,
        "request-timeout",
        "Request not complete in time",
        "the request's head or body did not arrive within `http.read_timeout`",
    ),
    listed(413, "too-large", "Too large", "the body, or a record made of it, is too large"),
    everywhere(
        415,
        "unsupported-media-type",
        "Unsupported media type",
        "the body's `Content-Type` is not one that the route takes",
    ),
    listed(
        422,
        "unusable-record",
        "Unusable record",
        "the record would go to the dead letters; `class` is the class that it would have there",
    ),
    everywhere(500, "internal", "Internal error", "a bug in Foretell; the log has the details"),
    listed(
        502,
        "broker-unavailable",
        "Broker unavailable",
        "it is not known whether the record was written: send it again with the same id",
    ),
    everywhere(
        503,
        "unavailable",
        "Unavailable now",
        "`http.connections_max` connections are open, or a limit of the route is reached; with `Retry-After`",
    ),
    listed(504, "no-result-in-time", "No result in time", "the result was not known in time"),
];

/// The problem with this status.
pub(super) fn problem_of(status: u16) -> Option<&'static Problem> {
    PROBLEMS.iter().find(|problem| problem.status == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_one_problem_with_a_name_of_its_own() {
        for (number, problem) in PROBLEMS.iter().enumerate() {
            for other in &PROBLEMS[number + 1..] {
                assert!(
                    problem.status < other.status && problem.name != other.name,
                    "{}",
                    other.name
                );
            }
        }
    }
}
