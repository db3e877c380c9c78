//! Records in formats of a later release, as after a downgrade: a model that is refused, and a changelog that ends the start
//! with an error.

use foretell::{app::cluster::Cluster, events::model::Model};
use foretell_streams::{
    record::{OutputRecord, Topic},
    runtime::broker::Publisher,
    time::{Clock, EventTime, SystemClock},
};
use serde_json::json;
use std::ops::ControlFlow;

use crate::{
    application::Application,
    operator::Operator,
    process::{SOON, at, until},
    stores::ready,
};

/// Writes a record whose value is encoded already.
pub(crate) fn publish(cluster: &Cluster, topic: &Topic, key: &str, value: Vec<u8>) {
    let mut publisher: Box<dyn Publisher> = cluster.broker.publish().unwrap();
    let record = OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: EventTime(SystemClock::new().now().0),
        key: Some(key.as_bytes().to_vec()),
        value: Some(value),
        headers: Vec::new(),
    };
    publisher.send(record).unwrap();
    publisher.flush().unwrap();
}

/// Publishes the champion again as `version`, with its bundle in the unknown format 9.
fn publish_in_later_format(application: &Application, version: &str) {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let topic = &config.topics.models;
    let mut models = Vec::new();
    let read = cluster.read_values(&config, topic, |model: Model| {
        models.push(model);
        ControlFlow::Continue(())
    });
    read.unwrap();
    let codec = cluster.codec::<Model>(&config, topic).unwrap();
    for mut model in models {
        version.clone_into(&mut model.version);
        if let Some(bundle) = &mut model.bundle {
            bundle[0] = 9;
        }
        let mut bytes = Vec::new();
        codec.encode(&model, &mut bytes).unwrap();
        let key = model.alias.as_deref().unwrap_or(version);
        publish(&cluster, topic, key, bytes);
    }
}

/// Asserts that `foretell run` ends with an error message that has all of `expected`.
fn assert_refused(application: &Application, expected: &[&str]) {
    let mut process = application.start(&["run"]);
    assert_eq!(process.end(SOON).code(), Some(1), "{}", process.errors());
    let errors = process.errors();
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && !errors.contains("panicked"), "{errors}");
    for text in expected {
        assert!(last.contains(text), "{text} in {errors}");
    }
}

#[test]
fn a_model_of_a_later_release_is_refused_and_the_one_before_goes_on_serving() {
    let application = Application::new("later-model", &[]);
    application.init();
    let (mut process, http) = ready(&application);
    let serves = at(&http.status(), "/model/version").clone();
    publish_in_later_format(&application, "ffffffffffff");
    until("the model is refused", SOON, || {
        let log = process.errors();
        let line = log.lines().find(|line| line.contains("a model cannot be used"))?;
        assert!(line.contains("format 9") && line.contains("the previous one continues"), "{line}");
        Some(())
    });
    let event = json!({"respondent_id": "me", "completed": true, "age": 39}).to_string();
    let (code, prediction) = http.post("/api/v1/events?wait=true", &event, None).unwrap();
    assert_eq!((code, at(&prediction, "/model_version")), (200, &serves));
    process.signal("TERM");
    assert!(process.end(SOON).success(), "{}", process.errors());

    // A start has no model before it to serve.
    assert_refused(
        &application,
        &["no model serves", "ffffffffffff", "format 9", "`foretell init --force`"],
    );
    let printed = application.start(&["init", "--force"]).succeed(SOON);
    assert!(printed.contains("first model"), "{printed}");
    drop(ready(&application));
}

#[test]
fn a_changelog_of_a_later_release_ends_the_start_and_is_named() {
    let application = Application::new("later-log", &[]);
    application.init();
    let (mut process, _) = ready(&application);
    process.signal("TERM");
    assert!(process.end(SOON).success(), "{}", process.errors());
    let config = application.config();
    let changelog = Topic::new(&format!("{}-learning-learning-changelog", config.application()));
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    publish(&cluster, &changelog, "learning", vec![3, 0, 0, 0, 0, 0]);
    let expected = [changelog.as_str(), "format 3", "start the release that wrote them"];
    assert_refused(&application, &expected);
    // The other fix that the message names: delete the changelog.
    Operator::new().delete(&changelog);
    drop(ready(&application));
}
