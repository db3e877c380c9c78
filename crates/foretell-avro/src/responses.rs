//! Meaning of a registry's HTTP responses: error codes become recoveries, and bodies become results.

use serde::Deserialize;

use crate::registry::{Compatibility, RegistryError};

/// Response to a request for the mode.
#[derive(Deserialize)]
struct ModeResponse {
    mode: String,
}

/// Response to a compatibility check.
#[derive(Deserialize)]
struct CompatibilityResponse {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

/// The mode in a response's body; `None` if it has none.
pub(crate) fn mode_in(body: &str) -> Option<String> {
    serde_json::from_str(body).ok().map(|ModeResponse { mode }| mode)
}

/// The result of a compatibility check in a response's body.
pub(crate) fn compatibility_in(body: &str) -> Result<Compatibility, RegistryError> {
    let response: CompatibilityResponse = serde_json::from_str(body).map_err(|error| {
        RegistryError::Refused(format!("no result of a compatibility check ({error}): {body}"))
    })?;
    if response.is_compatible {
        return Ok(Compatibility::Compatible);
    }
    let mut reasons = response.messages;
    if reasons.is_empty() {
        reasons.push("the registry gives no reason".to_owned());
    }
    Ok(Compatibility::Incompatible { reasons })
}

/// The error of a request for a schema by id. Registries refuse an unknown id in different ways (Confluent: 404 with an
/// error code; Redpanda: 400; Apicurio: 404 without an error code for ids from 2^31 on), and an unknown id must not block
/// its partition forever. So every error that cannot pass by itself means that the id is unknown.
pub(crate) fn for_id(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::NotFound(message)
        | RegistryError::Incompatible(message)
        | RegistryError::Refused(message) => RegistryError::NotFound(message),
        RegistryError::Unavailable(_) | RegistryError::Denied(_) => error,
    }
}

/// The error for an HTTP status and an error code; 0 if there is no code. Confluent's codes are the HTTP status and two
/// more digits. A 404 without a code comes from a server that is no registry or lacks the endpoint; for requests by id see
/// [`for_id`].
pub(crate) fn by_code(code: u32, status: Option<u16>, message: String) -> RegistryError {
    let status = status.unwrap_or(0);
    match (status, code) {
        (408 | 429 | 500..=599, _) => RegistryError::Unavailable(message),
        (401 | 403, _) => RegistryError::Denied(message),
        (_, 40_401..=40_403) => RegistryError::NotFound(message),
        (409, _) | (_, 409 | 40_901) => RegistryError::Incompatible(message),
        (_, _) => RegistryError::Refused(message),
    }
}

/// The HTTP status in a message of the converter, which has it nowhere else: `… failed with status 404 Not Found`.
pub(crate) fn status_in(message: &str) -> Option<u16> {
    let (_, after) = message.rsplit_once("status ")?;
    after.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: u32, status: Option<u16>) -> &'static str {
        match by_code(code, status, String::new()) {
            RegistryError::NotFound(_) => "not found",
            RegistryError::Incompatible(_) => "incompatible",
            RegistryError::Unavailable(_) => "unavailable",
            RegistryError::Denied(_) => "denied",
            RegistryError::Refused(_) => "refused",
        }
    }

    #[test]
    fn codes_and_statuses_become_recoveries() {
        for (code, status, expected) in [
            (40_401, Some(404), "not found"),
            (40_403, Some(404), "not found"),
            (0, Some(404), "refused"),
            (409, Some(409), "incompatible"),
            (40_101, Some(401), "denied"),
            (0, Some(403), "denied"),
            (42_201, Some(422), "refused"),
            (50_001, Some(500), "unavailable"),
            (0, Some(429), "unavailable"),
            (40_403, Some(500), "unavailable"),
            (40_403, Some(401), "denied"),
            (0, None, "refused"),
        ] {
            assert_eq!(kind(code, status), expected, "{code} {status:?}");
        }
        assert_eq!(status_in("HTTP request failed with status 404 Not Found"), Some(404));
        assert_eq!(status_in("could not parse"), None);
    }

    #[test]
    fn results_of_compatibility_checks_are_read() {
        assert_eq!(compatibility_in(r#"{"is_compatible":true}"#), Ok(Compatibility::Compatible));
        let reasons = vec!["because".to_owned()];
        let incompatible = compatibility_in(r#"{"is_compatible":false,"messages":["because"]}"#);
        assert_eq!(incompatible, Ok(Compatibility::Incompatible { reasons }));
        assert!(compatibility_in("<html>").is_err());
    }
}
