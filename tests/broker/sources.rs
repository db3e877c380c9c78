//! Events on two topics of a real Kafka, from two producers with a schema of their own: `init`, `doctor`, `run` with a restart in
//! between, and what a start refuses.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use foretell::{
    app::cluster::Cluster,
    config::Config,
    events::{
        prediction::Prediction,
        questionnaire::{Answer, AnswerRef, EventSource, QuestionnaireEvent},
    },
};
use foretell_streams::{
    codec::Codec,
    record::{OutputRecord, Topic},
    time::{Clock as _, EventTime, SystemClock},
};
use serde_json::Value as Json;

use crate::{
    application::Application,
    end_to_end::QUICK,
    process::{Http, SOON, until},
    two_sources::{self, REGISTRATIONS},
};

/// The settings of the worked example with its answers on two topics.
fn two_sources(folder: &Path) -> Vec<String> {
    two_sources::write_to(folder);
    let file = |name: &str| folder.join(name).display().to_string();
    let companion = format!(
        "{{ topic = {REGISTRATIONS:?}, schema = {:?}, event_id = \"registration\", event_time = \"registered_at\", \
         ignored = [\"tags\"] }}",
        file("registration.avsc")
    );
    vec![
        format!("events.schema={}", file("questionnaire.avsc")),
        format!("events.companions=[{companion}]"),
    ]
}

/// A service that writes its events to one topic with its schema. It is a producer of its own.
struct Service {
    source: EventSource,
    topic: Topic,
    codec: Arc<dyn Codec<QuestionnaireEvent>>,
    cluster: Cluster,
    config: Config,
}

impl Service {
    fn new(config: &Config, source: EventSource) -> Self {
        let cluster = Cluster::connect(config, &foretell::app::clock()).unwrap();
        let sources = config.event_schemas.iter().zip(config.topics.of_events());
        let mut sources = sources.zip(cluster.sample_codecs(config).unwrap());
        let found = sources.find(|((schema, _), _)| *schema.source() == source);
        let ((_, topic), codec) = found.unwrap();
        Self { source, topic: topic.clone(), codec, cluster, config: config.clone() }
    }

    /// Writes an event of each respondent with these answers. Event ids are 1, 2, 3, … as in the other service.
    fn write(&self, respondents: &[String], answers: &[(&str, Answer)], completed: bool) {
        let mut publisher = self.cluster.broker.publish().unwrap();
        let now = EventTime(SystemClock::new().now().0);
        for (number, respondent) in respondents.iter().enumerate() {
            let named = answers.iter().map(|(name, answer)| (*name, Some(answer.clone())));
            let event = QuestionnaireEvent {
                source: self.source.clone(),
                event_id: (number + 1).to_string(),
                respondent_id: respondent.clone(),
                event_time: now,
                completed,
                answers: self.config.event_schema.row_by_name(named),
            };
            let mut bytes = Vec::new();
            self.codec.encode(&event, &mut bytes).unwrap();
            let key = Some(respondent.as_bytes());
            publisher.send(OutputRecord::new(&self.topic, key, Some(&bytes), now)).unwrap();
        }
        publisher.flush().unwrap();
    }
}

/// The predictions so far: the answers of each by name.
fn predictions(config: &Config) -> BTreeMap<String, Vec<BTreeMap<String, Answer>>> {
    let cluster = Cluster::connect(config, &foretell::app::clock()).unwrap();
    let mut found: BTreeMap<String, Vec<BTreeMap<String, Answer>>> = BTreeMap::new();
    let (questions, layout) = (config.event_schema.questions(), config.event_schema.layout());
    let read = cluster.read_values(config, &config.topics.predictions, |prediction: Prediction| {
        let answers = layout.answers(&prediction.answers).map(AnswerRef::to_answer);
        let named = questions.iter().map(|question| question.name.clone()).zip(answers);
        let given = named.filter_map(|(name, answer)| Some((name, answer?))).collect();
        found.entry(prediction.respondent_id).or_default().push(given);
        ControlFlow::Continue(())
    });
    read.unwrap();
    found
}

fn processed(http: &Http, topic: &Topic) -> f64 {
    let (_, text) = http.get("/metrics").unwrap();
    let name = format!("foretell_records_processed_total{{topic=\"{topic}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn events_of_two_topics_become_one_prediction_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let application = Application::new("sources", QUICK).with(&two_sources(folder.path()));
    application.init();
    let config = application.config();

    // Both topics and both schemas are checked.
    let report = application.start(&["doctor", "--json"]);
    let report: Json = serde_json::from_str(&report.succeed(SOON)).unwrap();
    let registrations = &config.topics.companions[0];
    let checks = report["checks"].as_array().unwrap();
    let status = |name: String| {
        let check = checks.iter().find(|check| check["name"] == name.as_str());
        check.unwrap_or_else(|| panic!("no check {name} in {report}"))["status"].clone()
    };
    for name in [
        format!("topic {registrations}"),
        format!("schema {registrations}-value"),
        format!("records of {registrations}"),
    ] {
        assert_eq!(status(name), "ok", "{report}");
    }

    let respondents: Vec<String> = (0..40).map(|number| format!("person-{number}")).collect();
    let lead = Service::new(&config, EventSource::Lead);
    let companion = Service::new(&config, EventSource::companion(REGISTRATIONS));
    let mut first = application.instance("one");
    let http = first.http();
    http.ready();
    companion.write(&respondents, &[("age", Answer::Number(39.0)), ("race", text("White"))], false);
    until("the registrations are processed", SOON, || {
        (processed(&http, registrations) >= 40.0).then_some(())
    });
    assert!(predictions(&config).is_empty(), "nothing is complete yet");

    // Killed with open sessions, and started again under the same name.
    first.signal("KILL");
    assert!(!first.end(SOON).success());
    let mut again = application.instance("one");
    again.http().ready();
    lead.write(&respondents, &[("occupation", text("Sales"))], true);
    let found = until("every respondent predicted", SOON, || {
        let found = predictions(&config);
        (found.len() == respondents.len()).then_some(found)
    });
    let expected = BTreeMap::from([
        ("age".to_owned(), Answer::Number(39.0)),
        ("race".to_owned(), text("White")),
        ("occupation".to_owned(), text("Sales")),
    ]);
    for (respondent, predictions) in &found {
        assert_eq!(predictions, std::slice::from_ref(&expected), "{respondent}");
    }
    again.signal("TERM");
    assert_eq!(again.end(SOON).code(), Some(0), "{}", again.errors());
}

fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

#[test]
fn a_companion_topic_that_is_missing_or_has_other_partitions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let companion = two_sources(folder.path());
    let alone = Application::new("refused", QUICK);
    alone.init();
    let application = alone.with(&companion);
    let config = application.config();
    let registrations = &config.topics.companions[0];
    let refuse = |words: &[&str]| {
        let mut process = application.instance("one");
        assert_eq!(process.end(SOON).code(), Some(1), "{}", process.errors());
        let errors = process.errors();
        for words in words {
            assert!(errors.contains(words), "{words:?} is not in {errors}");
        }
    };
    // The application ran without the companion before.
    refuse(&[&format!("topic {registrations} does not exist"), "`foretell init`"]);
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let spec = config.topics.specs(config.partitions + 3);
    let spec = spec.into_iter().find(|spec| spec.name == *registrations).unwrap();
    cluster.broker.create_topics(&[spec]).unwrap();
    let has = format!("topic {registrations} has {} partitions", config.partitions + 3);
    refuse(&[&has, "[topics] partitions"]);
    let mut doctor = application.start(&["doctor"]);
    assert_eq!(doctor.end(SOON).code(), Some(1), "{}", doctor.output());
    assert!(doctor.output().contains(&format!("topic {registrations}")), "{}", doctor.output());
}
