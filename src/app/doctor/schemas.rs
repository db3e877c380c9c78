//! The registry, and whether it holds our schemas.

use crate::app::{check_result::CheckResult, cluster::registry_fix};
use foretell_avro::registry::{Compatibility, RegistryError, SchemaRegistry};

/// A subject, held against the schema that we write and read it with.
#[derive(Clone, Debug)]
pub(super) struct SubjectSeen {
    /// The newest schema's id.
    latest: Option<u32>,
    /// Our schema's id, if it is there.
    ours: Option<u32>,
    /// Whether ours may follow the newest.
    verdict: Compatibility,
}

/// Asks about one subject.
pub(super) fn look(
    registry: &dyn SchemaRegistry,
    subject: &str,
    schema: &str,
) -> Result<SubjectSeen, RegistryError> {
    let latest = registry.latest(subject)?.map(|(id, _)| id);
    let (ours, verdict) = match latest {
        Some(_) => (registry.id_of(subject, schema)?, registry.compatible(subject, schema)?),
        None => (None, Compatibility::Compatible),
    };
    Ok(SubjectSeen { latest, ours, verdict })
}

/// Whether the registry answers, and takes new schemas.
pub(super) fn registry(url: &str, mode: &Result<Option<String>, RegistryError>) -> CheckResult {
    let name = "registry";
    match mode {
        Ok(Some(mode)) if mode == "READWRITE" => {
            CheckResult::ok(name, format!("{url} answers, and takes new schemas"))
        }
        Ok(Some(mode)) => CheckResult::warning(
            name,
            format!("{url} is {mode}: `foretell init` can't register schemas"),
            "set its mode to READWRITE, or register them where that is done",
        ),
        Ok(None) => CheckResult::warning(
            name,
            format!("{url} answers, and does not tell whether it takes new schemas"),
            "if `foretell init` is refused, set its mode to READWRITE",
        ),
        Err(error) => unavailable(name, error),
    }
}

fn unavailable(name: &str, error: &RegistryError) -> CheckResult {
    CheckResult::failed(name, error.to_string(), registry_fix(error))
}

/// Whether a subject holds our schema, and can be read with it.
pub(super) fn schema(subject: &str, seen: &Result<SubjectSeen, RegistryError>) -> CheckResult {
    let name = format!("schema {subject}");
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return unavailable(&name, error),
    };
    let init = "run `foretell init`";
    match (seen.latest, seen.ours, &seen.verdict) {
        (None, _, _) => CheckResult::failed(name, "there is no such subject", init),
        (Some(latest), _, Compatibility::Incompatible { reasons }) => CheckResult::failed(
            name,
            format!(
                "ours can't read what is written with the newest (id {latest}): {}",
                reasons.join("; ")
            ),
            "change [events] schema so that it can, or choose another [topics] prefix",
        ),
        (Some(latest), None, Compatibility::Compatible) => {
            let detail = format!("ours may follow the newest (id {latest}), and is not registered");
            CheckResult::failed(name, detail, init)
        }
        (Some(latest), Some(ours), Compatibility::Compatible) if latest == ours => {
            CheckResult::ok(name, format!("ours is the newest (id {ours})"))
        }
        (Some(latest), Some(ours), Compatibility::Compatible) => CheckResult::ok(
            name,
            format!("ours (id {ours}) reads what is written with the newest (id {latest})"),
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
    const LOST: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    fn check(registered: &[&str], ours: &str, status: Status, words: &str) {
        let local = LocalRegistry::new();
        for text in registered {
            local.register("s", text).unwrap();
        }
        let found = schema("s", &look(&local, "s", ours));
        assert!(found.status == status && found.to_string().contains(words), "{found}");
    }

    #[test]
    fn subjects_are_compared_with_the_readers() {
        check(&[], ONE, Failed, "foretell init");
        check(&[ONE], ONE, Fine, "ours is the newest (id 1)");
        check(&[ONE, TWO], ONE, Fine, "reads what is written with the newest (id 2)");
        check(&[ONE], TWO, Failed, "is not registered");
        check(&[ONE], LOST, Failed, "can't read");
    }

    #[test]
    fn the_registry_says_how_it_is() {
        let check = |mode: Result<Option<&str>, RegistryError>, status: Status, words: &str| {
            let found = registry("http://r", &mode.map(|mode| mode.map(str::to_owned)));
            assert!(found.status == status && found.to_string().contains(words), "{found}");
        };
        check(Ok(Some("READWRITE")), Fine, "http://r answers");
        check(Ok(Some("READONLY")), Warning, "is READONLY");
        check(Ok(None), Warning, "does not tell");
        check(Err(RegistryError::Unavailable("refused".into())), Failed, "is it running?");
        check(Err(RegistryError::Denied("401".into())), Failed, "password");
        check(Err(RegistryError::Refused("404".into())), Failed, "url");
    }
}
