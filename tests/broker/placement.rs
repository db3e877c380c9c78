//! Records that a producer wrote to another partition than Kafka's default partitioner would choose.

use foretell::{app::cluster::Cluster, events::outcome::Outcome};
use foretell_streams::{
    record::{OutputRecord, Partition, partition_of},
    time::{Clock, EventTime, SystemClock},
};

use crate::{
    application::Application,
    process::{SOON, until},
    stores::{ready, send},
};

const MISPLACED: usize = 10;

#[test]
fn misplaced_records_are_counted_logged_once_and_reported_by_doctor() {
    let application = Application::new("misplaced", &[]);
    application.init();
    let doctor = || application.start(&["doctor"]).succeed(SOON);
    let (mut process, http) = ready(&application);
    send(&application, 20, "1");
    let config = application.config();
    let topic = &config.topics.outcomes;
    let printed = doctor();
    assert!(printed.contains(&format!("ok       records of {topic}: the newest")), "{printed}");
    assert!(http.metric("foretell_records_misplaced_total") < 1.0);

    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let codec = cluster.codec::<Outcome>(&config, topic).unwrap();
    let mut publisher = cluster.broker.publish().unwrap();
    let now = EventTime(SystemClock::new().now().0);
    for number in 0..MISPLACED {
        let respondent_id = format!("misplaced-{number}");
        let key = respondent_id.clone().into_bytes();
        let expected_partition = partition_of(&key, 4).0;
        let label = config.classes[0].clone();
        let outcome = Outcome { respondent_id, outcome_time: now, label, outcome_id: None };
        let mut value = Vec::new();
        codec.encode(&outcome, &mut value).unwrap();
        let record = OutputRecord {
            topic: topic.clone(),
            partition: Some(Partition((expected_partition + 1) % 4)),
            timestamp: now,
            key: Some(key),
            value: Some(value),
            headers: Vec::new(),
        };
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
    until("the misplaced records are counted", SOON, || {
        (http.metric("foretell_records_misplaced_total") >= MISPLACED as f64).then_some(())
    });
    let errors = process.errors();
    let warnings = errors.lines().filter(|line| line.contains("murmur2_random"));
    assert_eq!(warnings.count(), 1, "logged once: {errors}");
    let printed = doctor();
    let line = printed.lines().find(|line| line.contains(&format!("records of {topic}"))).unwrap();
    assert!(line.starts_with("warning") && line.contains("murmur2_random"), "{printed}");
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}
