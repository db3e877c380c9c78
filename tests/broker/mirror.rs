//! Disaster recovery: an application goes on with a copy of all its topics, whose records have other offsets. With the offsets of
//! its groups it goes on where it was; without them it reads its inputs again, and recognises what it has processed.

use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use crate::{
    application::{Application, brokers},
    end_to_end::QUICK,
    process::{Http, SOON, at, tool},
    stores::{ready, send, until_joined},
};

const BEFORE: usize = 600;
const AFTER: usize = 200;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/clients/mirror.py");

/// Copies the topics of `application`, and the offsets of `groups`. Returns the application of the copy.
fn mirrored(application: &Application, name: &str, groups: &[&str]) -> Application {
    let topics = application.config().topics;
    let prefix = topics.outcomes.to_string();
    let prefix = prefix.strip_suffix("outcomes").unwrap();
    let copy = format!("{name}-{prefix}");
    let mut command = Command::new(tool("python3", ".ci/setup broker"));
    command.args([SCRIPT, &brokers(), prefix, &copy]).args(groups).stdin(Stdio::null());
    let copied = command.output().unwrap();
    let errors = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{errors}\nwithout confluent_kafka: .ci/setup broker");
    application.with(&[format!("topics.prefix={copy}")])
}

/// Sends the event of a respondent, and returns its prediction.
fn prediction(http: &Http) -> Json {
    let event = json!({ "respondent_id": "me", "event_id": "mine", "completed": true, "age": 39 });
    let answer = http.post("/api/v1/events?wait=true", &event.to_string(), None);
    let (code, prediction) = answer.unwrap();
    assert_eq!(code, 200, "{prediction}");
    at(&prediction, "/prediction_id").clone()
}

#[test]
fn an_application_goes_on_with_a_copy_of_its_topics() {
    let application = Application::new("mirror", QUICK);
    application.init();
    let (mut process, http) = ready(&application);
    send(&application, BEFORE, "1");
    until_joined(&application, BEFORE);
    let waiting = prediction(&http);
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    let models = application.start(&["models", "list"]).succeed(SOON);

    for (name, groups) in [("with", &["adult-scoring", "adult-learning"][..]), ("without", &[])] {
        let copy = mirrored(&application, name, groups);
        // The registry has the schemas by their ids, and needs the subjects of the new names.
        let mut init = copy.start(&["init"]);
        assert!(init.end(SOON).success(), "{}", init.errors());
        assert_eq!(copy.start(&["models", "list"]).succeed(SOON), models, "{name}");
        let (mut process, http) = ready(&copy);
        assert_eq!(prediction(&http), waiting, "{name}: a repeat");
        let outcome = json!({ "respondent_id": "me", "label": ">50K" }).to_string();
        let (code, _) = http.post("/api/v1/outcomes", &outcome, None).unwrap();
        assert_eq!(code, 202);
        send(&copy, AFTER, "2");
        // Every event, also those from before, was scored once, and every outcome joined once.
        until_joined(&copy, BEFORE + 1 + AFTER);
        process.signal("TERM");
        assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    }
}
