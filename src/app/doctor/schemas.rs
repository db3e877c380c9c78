//! Checks of the schema registry, and of the schemas in it.

use crate::app::{check_result::CheckResult, cluster::registry_fix};
use foretell_avro::registry::{Compatibility, RegistryError, SchemaRegistry};

/// A subject in the registry, compared with the local schema: the one of this configuration.
#[derive(Clone, Debug)]
pub(super) struct SubjectState {
    /// Id of the newest version; `None` if there is no such subject.
    latest: Option<u32>,
    /// Id of the local schema, if it is registered.
    local: Option<u32>,
    /// Whether the local schema may follow the newest version.
    verdict: Compatibility,
}

/// Reads the state of one subject from the registry.
pub(super) fn read_subject(
    registry: &dyn SchemaRegistry,
    subject: &str,
    schema: &str,
) -> Result<SubjectState, RegistryError> {
    let latest = registry.latest(subject)?.map(|(id, _)| id);
    let (local, verdict) = match latest {
        Some(_) => (registry.id_of(subject, schema)?, registry.compatible(subject, schema)?),
        None => (None, Compatibility::Compatible),
    };
    Ok(SubjectState { latest, local, verdict })
}

/// Whether the registry answers and accepts new schemas.
pub(super) fn registry(url: &str, mode: &Result<Option<String>, RegistryError>) -> CheckResult {
    let name = "registry";
    match mode {
        Ok(Some(mode)) if mode == "READWRITE" => {
            CheckResult::ok(name, format!("{url} answers and takes new schemas"))
        }
        Ok(Some(mode)) => CheckResult::warning(
            name,
            format!("{url} is in mode {mode}: `foretell init` cannot register schemas"),
            "set its mode to READWRITE, or register the schemas where you may",
        ),
        Ok(None) => CheckResult::warning(
            name,
            format!("{url} answers, but does not report whether it takes new schemas"),
            "if it refuses `foretell init`, set its mode to READWRITE",
        ),
        Err(error) => unavailable(name, error),
    }
}

fn unavailable(name: &str, error: &RegistryError) -> CheckResult {
    CheckResult::failed(name, error.to_string(), registry_fix(error))
}

/// Whether a subject has the local schema, and whether that reads what is written with the newest version.
pub(super) fn schema(subject: &str, state: &Result<SubjectState, RegistryError>) -> CheckResult {
    let name = format!("schema {subject}");
    let state = match state {
        Ok(state) => state,
        Err(error) => return unavailable(&name, error),
    };
    let init = "run `foretell init`";
    match (state.latest, state.local, &state.verdict) {
        (None, _, _) => CheckResult::failed(name, "the registry has no such subject", init),
        (Some(latest), _, Compatibility::Incompatible { reasons }) => CheckResult::failed(
            name,
            format!(
                "the local schema cannot read records of the newest version (id {latest}): {}",
                reasons.join("; ")
            ),
            "change [events] schema so that it can, or choose another [topics] prefix",
        ),
        (Some(latest), None, Compatibility::Compatible) => CheckResult::failed(
            name,
            format!("the local schema is not registered; it may follow the newest (id {latest})"),
            init,
        ),
        (Some(latest), Some(local), Compatibility::Compatible) if latest == local => {
            CheckResult::ok(name, format!("the local schema is the newest (id {local})"))
        }
        (Some(latest), Some(local), Compatibility::Compatible) => CheckResult::ok(
            name,
            format!("the local schema (id {local}) reads records of the newest (id {latest})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine, Warning};
    use foretell_avro::local::LocalRegistry;

    const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    const TWO: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},
        {"name":"b","type":["null","string"],"default":null}]}"#;
    const INCOMPATIBLE: &str =
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    fn check(registered: &[&str], local: &str, status: Status, words: &str) {
        let registry = LocalRegistry::new();
        for text in registered {
            registry.register("s", text).unwrap();
        }
        let result = schema("s", &read_subject(&registry, "s", local));
        assert!(result.status == status && result.to_string().contains(words), "{result}");
    }

    #[test]
    fn registered_schemas_are_compared_with_the_local_one() {
        check(&[], ONE, Failed, "foretell init");
        check(&[ONE], ONE, Fine, "the local schema is the newest (id 1)");
        check(&[ONE, TWO], ONE, Fine, "reads records of the newest (id 2)");
        check(&[ONE], TWO, Failed, "is not registered");
        check(&[ONE], INCOMPATIBLE, Failed, "cannot read");
    }

    #[test]
    fn the_mode_of_the_registry_is_checked() {
        let check = |mode: Result<Option<&str>, RegistryError>, status: Status, words: &str| {
            let result = registry("http://r", &mode.map(|mode| mode.map(str::to_owned)));
            assert!(result.status == status && result.to_string().contains(words), "{result}");
        };
        check(Ok(Some("READWRITE")), Fine, "http://r answers");
        check(Ok(Some("READONLY")), Warning, "READONLY");
        check(Ok(None), Warning, "does not report");
        check(Err(RegistryError::Unavailable("refused".into())), Failed, "is it running?");
        check(Err(RegistryError::Denied("401".into())), Failed, "password");
        check(Err(RegistryError::Refused("404".into())), Failed, "url");
    }
}
