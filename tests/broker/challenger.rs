//! A challenger as a user sees it: announced on `models`, scored beside the champion, cleared.

use std::{collections::BTreeMap, ops::ControlFlow};

use foretell::{
    app::cluster::Cluster,
    events::{
        challenger::ChallengerScore,
        codecs::TopicValue,
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        prediction::Prediction,
    },
    processors::{learning::outputs::records_of, model_table::CHALLENGER},
};
use foretell_ml::ModelBundle;
use foretell_streams::{record::Topic, time::WallTime};
use serde_json::{Value as Json, json};

use crate::{
    application::Application,
    formats::publish,
    process::{Http, SOON, at, until},
    stores::ready,
};

/// The records of a challenger with the champion's trees and another threshold, and of its alias.
fn challenger(application: &Application, cluster: &Cluster) -> [Model; 2] {
    let models: Vec<Model> = records(application, cluster, &application.config().topics.models);
    let champion = models.into_iter().find_map(|model| model.bundle).unwrap();
    let champion = ModelBundle::from_bytes(&champion).unwrap();
    let other = ModelBundle { threshold: 0.25, ..champion };
    let [bundle, alias] = records_of(&other, "test", WallTime(0)).unwrap();
    [bundle, Model { alias: Some(CHALLENGER.to_owned()), ..alias }]
}

fn announce(application: &Application, cluster: &Cluster, model: &Model) {
    let config = application.config();
    let codec = cluster.codec::<Model>(&config, &config.topics.models).unwrap();
    let mut bytes = Vec::new();
    codec.encode(model, &mut bytes).unwrap();
    let key = model.alias.as_deref().unwrap_or(&model.version);
    publish(cluster, &config.topics.models, key, bytes);
}

/// Scores an event, and returns the reply.
fn score(http: &Http, respondent: &str) -> Json {
    let event = json!({"respondent_id": respondent, "completed": true, "age": 39}).to_string();
    let (code, reply) = http.post("/api/v1/events?wait=true", &event, None).unwrap();
    assert_eq!(code, 200, "{reply}");
    reply
}

/// The records of a topic.
fn records<T: TopicValue>(application: &Application, cluster: &Cluster, topic: &Topic) -> Vec<T> {
    let mut records = Vec::new();
    let read = cluster.read_values(&application.config(), topic, |record| {
        records.push(record);
        ControlFlow::Continue(())
    });
    read.unwrap();
    records
}

fn version(challenger: Option<ChallengerScore>) -> Option<String> {
    challenger.map(|score| score.model_version)
}

#[test]
fn a_challenger_is_scored_beside_the_champion_until_it_is_cleared() {
    let application = Application::new("challenger", &[]);
    application.init();
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let [bundle, alias] = challenger(&application, &cluster);
    let (mut process, http) = ready(&application);
    assert_eq!(at(&http.status(), "/challenger"), &Json::Null);
    for record in [&bundle, &alias] {
        announce(&application, &cluster, record);
    }
    let is_challenger = |expected: &Json| {
        until("the instance has this challenger", SOON, || {
            let (_, body) = http.get("/readyz")?;
            let ready: Json = serde_json::from_str(&body).unwrap();
            (at(&ready, "/challenger") == expected).then_some(())
        });
    };
    is_challenger(&json!(alias.version));
    assert_eq!(at(&http.status(), "/challenger/version"), &json!(alias.version));
    let reply = score(&http, "ann");
    assert_eq!(reply.get("challenger"), None, "an application acts on the champion: {reply}");
    announce(&application, &cluster, &Model { version: String::new(), ..alias.clone() });
    is_challenger(&Json::Null);
    assert_eq!(at(&http.status(), "/challenger"), &Json::Null);
    score(&http, "bob");
    for respondent in ["ann", "bob"] {
        let outcome = json!({"respondent_id": respondent, "label": ">50K"}).to_string();
        assert_eq!(http.post("/api/v1/outcomes", &outcome, None).unwrap().0, 202);
    }
    let expected =
        BTreeMap::from([("ann".to_owned(), Some(alias.version)), ("bob".to_owned(), None)]);
    let predictions: Vec<Prediction> = records(&application, &cluster, &config.topics.predictions);
    let scored = predictions.into_iter().map(|it| (it.respondent_id, version(it.challenger)));
    assert_eq!(scored.collect::<BTreeMap<_, _>>(), expected);
    until("the examples have the challenger", SOON, || {
        let mut examples: Vec<LabelledExample> =
            records(&application, &cluster, &config.topics.labelled_examples);
        examples.retain(|example| example.origin == ExampleOrigin::Stream);
        let scored = examples.into_iter().map(|it| (it.respondent_id, version(it.challenger)));
        (scored.collect::<BTreeMap<_, _>>() == expected).then_some(())
    });
    process.signal("TERM");
    assert!(process.end(SOON).success(), "{}", process.errors());
}
