//! The registry client against a real registry, whose URL is in `FORETELL_TEST_REGISTRY`. Apicurio serves its
//! Confluent-compatible API under a path, so URLs with a path are covered too.
#![expect(clippy::disallowed_methods, reason = "each run takes unique names from the clock")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use foretell::events::outcome::Outcome;
use foretell_avro::{
    access::{Credentials, RegistryClientConfig, RegistryTls},
    client::RegistryClient,
    codec::{AvroCodec, AvroRecord, CodecSetupError},
    registry::{Compatibility, RegistryError, SchemaRegistry},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    time::EventTime,
};

use crate::application::registry;

const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
const TWO: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},
    {"name":"b","type":["null","string"],"default":null}]}"#;
const LOST: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

pub(crate) fn client(url: &str) -> RegistryClient {
    let config = RegistryClientConfig {
        url: url.to_owned(),
        credentials: Credentials::None,
        tls: RegistryTls::default(),
        timeout: Duration::from_secs(10),
    };
    RegistryClient::new(&config).expect("the URL is valid")
}

/// A subject that no earlier run has used.
fn fresh(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("{name}-{}-value", now.as_nanos())
}

#[test]
fn schemas_are_registered_and_found() {
    let (client, subject) = (client(&registry()), fresh("found"));
    assert_eq!(client.latest(&subject), Ok(None));
    assert_eq!(client.id_of(&subject, ONE), Ok(None), "no such subject");
    let one = client.register(&subject, ONE).expect("the first of its subject");
    assert_eq!(client.register(&subject, ONE), Ok(one), "registering again gives the same id");
    assert_eq!(client.id_of(&subject, ONE), Ok(Some(one)));
    assert_eq!(client.id_of(&subject, TWO), Ok(None), "no such version");
    let two = client.register(&subject, TWO).expect("it is compatible");
    assert_ne!(one, two);
    let latest = client.latest(&subject).expect("it answers").expect("the subject has versions");
    assert_eq!(latest.0, two);
    let versions = client.versions(&subject).expect("it answers");
    assert_eq!(versions.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [one, two]);
    assert_eq!(client.versions(&fresh("none")), Ok(Vec::new()), "no such subject");
    for (id, schema) in [(one, ONE), (two, TWO), (two, latest.1.as_str())] {
        let found = client.schema(id).expect("it was registered");
        assert_eq!(json(&found), json(schema));
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("a schema is JSON")
}

#[test]
fn an_incompatible_or_invalid_schema_is_refused() {
    let (client, subject) = (client(&registry()), fresh("compatible"));
    assert_eq!(
        client.compatible(&subject, ONE),
        Ok(Compatibility::Compatible),
        "the subject has no versions"
    );
    client.register(&subject, ONE).expect("the first of its subject");
    assert_eq!(client.compatible(&subject, TWO), Ok(Compatibility::Compatible));
    match client.compatible(&subject, LOST) {
        Ok(Compatibility::Incompatible { reasons }) => assert!(!reasons.is_empty()),
        other => panic!("{other:?}"),
    }
    let refused = client.register(&subject, LOST);
    assert!(matches!(refused, Err(RegistryError::Incompatible(_))), "{refused:?}");
    let invalid = client.register(&fresh("invalid"), "{");
    assert!(matches!(invalid, Err(RegistryError::Refused(_))), "{invalid:?}");
}

#[test]
fn an_unknown_id_a_wrong_path_and_an_unreachable_registry_are_different_errors() {
    let missing = client(&registry()).schema(2_000_000_000);
    assert!(matches!(missing, Err(RegistryError::NotFound(_))), "{missing:?}");
    for id in [1 << 31, u32::MAX] {
        let refused = client(&registry()).schema(id);
        assert!(matches!(refused, Err(RegistryError::NotFound(_))), "{refused:?}");
    }
    // A start looks up a subject, so a wrong path is found then.
    let wrong_path = client(&format!("{}/elsewhere", registry())).latest("s");
    assert!(matches!(wrong_path, Err(RegistryError::Refused(_))), "{wrong_path:?}");
    let unreachable = client("http://127.0.0.1:1/registry");
    for unavailable in [unreachable.schema(1).err(), unreachable.compatible("s", ONE).err()] {
        assert!(matches!(unavailable, Some(RegistryError::Unavailable(_))), "{unavailable:?}");
    }
}

#[test]
fn a_codec_writes_and_reads_records_with_a_registered_schema() {
    let (client, subject) = (Arc::new(client(&registry())), fresh("outcomes"));
    let shared: Arc<dyn SchemaRegistry> = Arc::<RegistryClient>::clone(&client);
    let early = AvroCodec::<Outcome>::new(Arc::clone(&shared), &subject);
    assert_eq!(early.err(), Some(CodecSetupError::NotRegistered { subject: subject.clone() }));
    client.register(&subject, Outcome::SCHEMA).expect("the first of its subject");
    let codec = AvroCodec::<Outcome>::new(shared, &subject).expect("it is registered");
    let outcome = Outcome {
        respondent_id: "r".to_owned(),
        outcome_time: EventTime(1),
        label: "yes".to_owned(),
        outcome_id: None,
    };
    let mut bytes = Vec::new();
    codec.encode(&outcome, &mut bytes).expect("it fits the schema");
    assert_eq!(codec.decode(&bytes), Ok(outcome));
    let unknown = codec.decode(&[0, 0x70, 0, 0, 0, 0]);
    let class = match unknown {
        Err(CodecError::Unreadable { class, .. }) => class,
        other => panic!("{other:?}"),
    };
    assert_eq!(class, "unknown_schema");
}

#[test]
fn a_schema_with_references_is_returned_with_its_types_inlined() {
    let (client, inner, outer) = (client(&registry()), fresh("inner"), fresh("outer"));
    let color = r#"{"type":"enum","name":"Color","namespace":"n","symbols":["RED"]}"#;
    client.register(&inner, color).expect("the first of its subject");
    let schema = r#"{"type":"record","name":"Car","namespace":"n","fields":[
        {"name":"outside","type":"Color"},{"name":"inside","type":["null","n.Color"]}]}"#;
    let body = serde_json::json!({
        "schema": schema,
        "references": [{"name": "n.Color", "subject": inner, "version": 1}],
    });
    // `RegistryClient` registers no references, so this is a plain request.
    let answer = reqwest::blocking::Client::new()
        .post(format!("{}/subjects/{outer}/versions", registry()))
        .header("Content-Type", "application/vnd.schemaregistry.v1+json")
        .body(body.to_string())
        .send()
        .and_then(reqwest::blocking::Response::text)
        .expect("it answers");
    let id = json(&answer)["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    let id = id.unwrap_or_else(|| panic!("{answer}"));
    let complete = json(&client.schema(id).expect("it was registered"));
    assert_eq!(complete["fields"][0]["type"]["symbols"][0], "RED");
    assert_eq!(complete["fields"][1]["type"][1], "n.Color");
    let latest = client.latest(&outer).expect("it answers").expect("the subject has versions");
    assert_eq!(json(&latest.1), complete);
}
