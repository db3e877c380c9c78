//! Deliveries on the embedded broker, to a real HTTP receiver.

#[path = "../../../../tests/receiver/mod.rs"]
pub(super) mod receiver;
mod settings;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    app::{
        self,
        cluster::Cluster,
        deliver::{
            Delivery, dry_run,
            tests::receiver::{Answer, Receiver},
        },
        schemas::{self, SetLevels},
        shutdown::Shutdown,
    },
    config::Config,
    events::{
        action::{Action, ActionReasonRef, ActionReasons, ActionState},
        answered::ClassProbability,
        questionnaire::Answer as Given,
    },
};
use foretell_streams::{
    codec::Codec,
    record::OutputRecord,
    time::{Clock, EventTime, WallTime},
};

/// Bound of a wait, far longer than any wait takes.
const SOON: Duration = Duration::from_secs(120);

const TOML: &str = r#"
    application.id = "shop"
    topics.partitions = 2
    [events]
    schema = "event.avsc"
    respondent_id = "who"
    event_time = "at"
    [outcomes]
    labels = ["no", "yes"]
    [[actions]]
    name = "call"
    when = "true"
    [[actions]]
    name = "mail"
    when = "true"
    [delivery]
    bind = "127.0.0.1:0"
"#;

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"who","type":"string"},{"name":"at","type":"long"},
    {"name":"age","type":["null","int"],"default":null},
    {"name":"email","type":["null","string"],"default":null}]}"#;

/// An application without instances, whose actions a test writes.
struct Application {
    folder: TempDir,
    config: Config,
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    codec: Arc<dyn Codec<Action>>,
}

impl Application {
    /// `delivery` is appended to the configuration, whose last section is `[delivery]`.
    fn new(delivery: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder, delivery).unwrap();
        let clock = app::clock();
        let cluster = Cluster::embedded(&clock);
        cluster.broker.create_topics(&config.topics.specs(config.partitions)).unwrap();
        let levels = SetLevels::WithNewVersions;
        schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {}).unwrap();
        let codec = cluster.codec(&config, &config.topics.actions).unwrap();
        Self { folder, config, cluster, clock, codec }
    }

    fn action(&self, action_id: &str, respondent_id: &str) -> Action {
        let classes = [("no", 0.25), ("yes", 0.75)];
        let classes = classes.map(|(label, probability)| ClassProbability { label, probability });
        let reasons = [ActionReasonRef { feature: "age", contribution: 0.5 }];
        let answers = [Some(Given::Number(30.0)), Some(Given::Text("ann@example.com".to_owned()))];
        let now = self.clock.now();
        Action {
            action_id: action_id.to_owned(),
            state: ActionState::Requested,
            respondent_id: respondent_id.to_owned(),
            prediction_id: "p1".to_owned(),
            rule: "call".to_owned(),
            rule_version: "0123456789ab".to_owned(),
            reason: "probability >= 0.7".to_owned(),
            due: EventTime(now.0),
            event_time: EventTime(now.0),
            decided_at: now,
            model_version: "m1".to_owned(),
            label: "yes".to_owned(),
            probabilities: classes.into_iter().collect(),
            propensity: 0.9,
            reasons: ActionReasons::of(reasons.into_iter()),
            answers: self.config.event_schema.layout().row_of(&answers),
        }
    }

    fn request(&self, action_id: &str, respondent_id: &str) {
        self.write(&self.action(action_id, respondent_id));
    }

    fn write(&self, action: &Action) {
        let mut bytes = Vec::new();
        self.codec.encode(action, &mut bytes).unwrap();
        self.write_bytes(&action.respondent_id, &bytes);
    }

    fn write_bytes(&self, respondent_id: &str, bytes: &[u8]) {
        let (key, now) = (respondent_id.as_bytes(), EventTime(self.clock.now().0));
        let topic = &self.config.topics.actions;
        let mut publisher = self.cluster.broker.publish().unwrap();
        publisher.send(OutputRecord::new(topic, Some(key), Some(bytes), now)).unwrap();
        publisher.flush().unwrap();
    }

    fn start(&self) -> Delivery {
        Delivery::start(&self.config, &self.cluster, &self.clock, Shutdown::default()).unwrap()
    }

    /// The number of dead letters of each class.
    fn dead_letters(&self) -> BTreeMap<String, usize> {
        let mut classes = BTreeMap::new();
        let visited = self.cluster.read_to_end(&self.config.topics.dead_letters, |record| {
            let header = |name| record.headers.iter().find(|header| header.name == name).unwrap();
            let class = &header("foretell.error.class").value;
            *classes.entry(String::from_utf8(class.clone()).unwrap()).or_default() += 1;
            assert!(record.value.is_some(), "{record:?}");
            Ok(ControlFlow::Continue(()))
        });
        visited.unwrap();
        classes
    }

    fn until(&self, condition: &str, mut holds: impl FnMut() -> bool) {
        let end = self.clock.elapsed() + SOON;
        while !holds() {
            assert!(self.clock.elapsed() < end, "not within {SOON:?}: {condition}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn config(folder: &TempDir, delivery: &str) -> anyhow::Result<Config> {
    let path = folder.path().join("foretell.toml");
    fs::write(folder.path().join("event.avsc"), SCHEMA)?;
    fs::write(&path, format!("{TOML}{delivery}"))?;
    Ok(Config::load(&path, &[])?)
}

fn webhook(name: &str, receiver: &Receiver, settings: &str) -> String {
    format!("[[delivery.webhooks]]\nname = '{name}'\nurl = '{}'\n{settings}\n", receiver.url())
}

fn get(delivery: &Delivery, path: &str) -> String {
    let mut stream = TcpStream::connect(delivery.address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The value of a counter of deliveries.
fn count(delivery: &Delivery, channel: &str, result: &str) -> u64 {
    let name = format!("foretell_deliveries_total{{channel=\"{channel}\",result=\"{result}\"}} ");
    let text = get(delivery, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn every_answer_and_every_record_has_its_result() {
    let receiver = Receiver::start();
    let settings = "timeout = '200ms'\nretry_for = '0s'\nexpires = '1h'";
    let application = Application::new(&webhook("crm", &receiver, settings));
    for (key, answer) in [
        ("refused", Answer::Status(400)),
        ("gone", Answer::Status(404)),
        ("broken", Answer::Status(500)),
        ("hangs", Answer::Hang),
    ] {
        receiver.answer(key, answer);
        application.request(key, key);
    }
    application.request("good", "good");
    for state in [ActionState::Cancelled, ActionState::HeldOut] {
        application.write(&Action { state, ..application.action("not-due", "ann") });
    }
    let old = EventTime(application.clock.now().0 - 3_600_001);
    application.write(&Action { due: old, ..application.action("old", "bob") });
    application.write(&Action { ..application.action("two\nlines", "eve") });
    application.write_bytes("eve", b"no avro");
    application.request("last", "good");
    let delivery = application.start();
    application.until("everything is decided", || {
        let dead: usize = application.dead_letters().values().sum();
        dead == 7 && receiver.accepted().len() == 2
    });
    assert_eq!(receiver.accepted(), ["good", "last"]);
    let expected = [
        ("expired_action", 1),
        ("failed_delivery", 2),
        ("framing", 1),
        ("malformed", 1),
        ("refused_delivery", 2),
    ];
    let expected = expected.map(|(class, number)| (class.to_owned(), number));
    assert_eq!(application.dead_letters(), expected.into());
    for (result, expected) in [
        ("delivered", 2),
        ("refused_delivery", 2),
        ("failed_delivery", 2),
        ("expired_action", 1),
        ("retried", 0),
    ] {
        assert_eq!(count(&delivery, "crm", result), expected, "{result}");
    }
    assert!(get(&delivery, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(&delivery, "/livez").starts_with("HTTP/1.1 200 "));
    delivery.stop().unwrap();
    // Everything was committed.
    let number = receiver.received().len();
    let delivery = application.start();
    application.request("after", "good");
    application.until("the next action is delivered", || receiver.accepted().len() == 3);
    delivery.stop().unwrap();
    assert_eq!(receiver.received().len(), number + 1);
}

#[test]
fn the_body_is_the_action_as_json() {
    let receiver = Receiver::start();
    let application = Application::new(&webhook("crm", &receiver, ""));
    let action = application.action("a1", "ann");
    application.write(&action);
    let delivery = application.start();
    application.until("it is delivered", || !receiver.received().is_empty());
    delivery.stop().unwrap();
    let body: serde_json::Value = serde_json::from_str(&receiver.received()[0].body).unwrap();
    let expected = serde_json::json!({
        "action_id": "a1",
        "rule": "call",
        "rule_version": "0123456789ab",
        "reason": "probability >= 0.7",
        "respondent_id": "ann",
        "prediction_id": "p1",
        "model_version": "m1",
        "label": "yes",
        "probabilities": { "no": 0.25, "yes": 0.75 },
        "propensity": 0.9,
        "reasons": [{ "feature": "age", "contribution": 0.5 }],
        "answers": { "age": 30, "email": "ann@example.com" },
        "event_time": action.event_time.0,
        "due": action.due.0,
        "decided_at": action.decided_at.0,
    });
    assert_eq!(body, expected);
}

#[test]
fn a_receiver_that_goes_away_and_comes_back_gets_every_action_in_order() {
    let mut receiver = Receiver::start();
    let application = Application::new(&webhook("crm", &receiver, "retry_for = '10m'"));
    let delivery = application.start();
    let mut expected = Vec::new();
    for round in 0..3 {
        receiver.go_away();
        for number in 0..12 {
            let (id, respondent) = (format!("a{round}-{number}"), format!("r{}", number % 3));
            application.request(&id, &respondent);
            expected.push((respondent, id));
        }
        application.until("an attempt failed", || count(&delivery, "crm", "retried") > round * 3);
        receiver.come_back();
        application
            .until("everything is delivered", || receiver.accepted().len() == expected.len());
    }
    delivery.stop().unwrap();
    let accepted = receiver.accepted();
    let mut sorted = accepted.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), expected.len(), "none twice: {accepted:?}");
    for respondent in ["r0", "r1", "r2"] {
        let of_it = expected.iter().filter(|(of, _)| of == respondent).map(|(_, id)| id);
        let expected: Vec<_> = of_it.collect();
        let found: Vec<_> = accepted.iter().filter(|id| expected.contains(id)).collect();
        assert_eq!(found, expected, "{respondent}");
    }
    assert!(application.dead_letters().is_empty());
}

#[test]
fn a_channel_that_hangs_stops_another_only_at_the_bound() {
    let (hanging, good) = (Receiver::start(), Receiver::start());
    hanging.answer_all(Answer::Hang);
    let channels = [webhook("hangs", &hanging, "timeout = '10m'"), webhook("good", &good, "")];
    let bound = "in_flight_max = 5\n";
    let application = Application::new(&format!("{bound}{}", channels.concat()));
    for number in 0..20 {
        application.request(&format!("a{number}"), "ann");
    }
    let delivery = application.start();
    application.until("the bound is reached", || good.accepted().len() == 5);
    // A record of another partition has room of its own.
    let other = (0..).map(|number| format!("r{number}")).find(|respondent| {
        let of = |key: &str| foretell_streams::record::partition_of(key.as_bytes(), 2);
        of(respondent) != of("ann")
    });
    application.request("other", &other.unwrap());
    application.until("it is delivered", || good.accepted().contains(&"other".to_owned()));
    assert_eq!(good.accepted(), ["a0", "a1", "a2", "a3", "a4", "other"]);
    drop(hanging);
    delivery.shutdown.stop(app::shutdown::StopReason::Asked);
    delivery.stop().unwrap();
}

#[test]
fn a_restart_delivers_what_was_not_delivered() {
    let receiver = Receiver::start();
    let application = Application::new(&webhook("crm", &receiver, ""));
    for round in 0..5 {
        let delivery = application.start();
        for number in 0..20 {
            application.request(&format!("a{round}-{number}"), &format!("r{number}"));
        }
        application.until("some are delivered", || receiver.accepted().len() > round * 20);
        delivery.stop().unwrap();
    }
    let delivery = application.start();
    application.until("everything is delivered", || receiver.accepted().len() >= 100);
    delivery.stop().unwrap();
    // A stop also makes the attempts before a delivered record, such as earlier ones of the same respondent.
    let mut accepted = receiver.accepted();
    accepted.sort();
    let expected = (0..5).flat_map(|round| (0..20).map(move |number| format!("a{round}-{number}")));
    let mut expected: Vec<String> = expected.collect();
    expected.sort();
    assert_eq!(accepted, expected, "each once");
}

#[test]
fn a_dry_run_shows_what_would_be_sent() {
    let receiver = Receiver::start();
    let channels = [
        webhook("crm", &receiver, "secret = 'hunter2'"),
        webhook("other", &receiver, "actions = ['mail']"),
        "[[delivery.emails]]\nname = 'letter'\nsmtp = 'smtp://nowhere'\nfrom = 'Shop <shop@example.com>'\n\
         to = 'email'\nsubject = 'To {{ respondent_id }}'\nbody = 'You are {{ answers.age }}.'\n"
            .to_owned(),
    ];
    let application = Application::new(&channels.concat());
    for number in 0..5 {
        application.request(&format!("a{number}"), "ann");
    }
    let mut shown = String::new();
    let Application { config, cluster, clock, .. } = &application;
    dry_run(config, cluster, clock, 2, &mut |text| shown += text).unwrap();
    for expected in [
        "# channel crm, rule call, ",
        "idempotency-key: a3",
        "idempotency-key: a4",
        "foretell-signature: t=",
        "\"respondent_id\":\"ann\"",
        "# channel letter",
        "Subject: To ann\r\n",
        "You are 30.",
        "To: ann@example.com\r\n",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    for hidden in ["hunter2", "token", "idempotency-key: a2", "channel other"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    // One that is too old.
    let old = EventTime(clock.now().0 - 3_600_001);
    application.write(&Action { due: old, ..application.action("old", "ann") });
    let mut shown = String::new();
    dry_run(config, cluster, clock, 1, &mut |text| shown += text).unwrap();
    assert!(shown.contains("not sent, expired_action: it was due 36"), "{shown}");
    assert!(!shown.contains("idempotency-key"), "{shown}");
    assert!(receiver.received().is_empty());
}

#[test]
fn an_earlier_due_time_than_1970_is_an_expired_action() {
    let receiver = Receiver::start();
    let application = Application::new(&webhook("crm", &receiver, ""));
    for (number, due) in [i64::MIN, -1, 0].into_iter().enumerate() {
        let id = format!("a{number}");
        application.write(&Action { due: EventTime(due), ..application.action(&id, "ann") });
    }
    // A due time in the future is delivered: it was written when it was due, by another clock.
    let due = EventTime(i64::MAX);
    let decided_at = WallTime(i64::MAX);
    application.write(&Action { due, decided_at, ..application.action("future", "ann") });
    let delivery = application.start();
    application.until("the last is delivered", || receiver.accepted() == ["future"]);
    application.until("the others are dead letters", || {
        application.dead_letters() == [("expired_action".to_owned(), 3)].into()
    });
    delivery.stop().unwrap();
    assert!(application.folder.path().exists());
}
