//! The contract of the broker port, on the cluster that `FORETELL_TEST_BROKERS` names.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use foretell_kafka::{KafkaBroker, KafkaConfig};
use foretell_streams::{
    record::TopicPartition,
    runtime::broker::{Broker, BrokerError},
};

use crate::{
    contract::{Cluster, groups, records, transactions},
    operator::Operator,
};

/// The shortest that a broker in its default settings takes (`group.min.session.timeout.ms`).
const SESSION: Duration = Duration::from_secs(6);

#[expect(clippy::disallowed_methods, reason = "a test's only setting")]
fn servers() -> String {
    std::env::var("FORETELL_TEST_BROKERS")
        .expect("set FORETELL_TEST_BROKERS to the host:port of a Kafka-compatible broker")
}

fn config(servers: &str) -> KafkaConfig {
    let silence = ("consumer.max.poll.interval.ms".to_owned(), SESSION.as_millis().to_string());
    KafkaConfig {
        bootstrap_servers: servers.to_owned(),
        session_timeout: SESSION,
        properties: [silence].into(),
        ..KafkaConfig::default()
    }
}

fn check(name: &str, contract: fn(&Cluster<'_>)) {
    let broker = KafkaBroker::connect(&config(&servers())).expect("the broker answers");
    // Names unlike those of any other run on the same broker.
    let run = RandomState::new().hash_one(name);
    contract(&Cluster {
        broker: &broker,
        name: format!("test-{name}-{run:016x}"),
        silence_max: SESSION,
        pass: &|_| (), // A real broker's time passes by itself.
    });
}

#[test]
fn records_come_back_as_they_went() {
    check("round-trip", records::come_back_as_they_went);
}

#[test]
fn a_key_chooses_the_partition_that_we_compute() {
    check("keys", records::a_key_chooses_the_partition_that_we_compute);
}

#[test]
fn a_reader_starts_where_it_is_reported() {
    check("starts", records::a_reader_starts_where_it_is_reported);
}

#[test]
fn a_position_that_is_gone_is_reported() {
    check("out-of-range", records::a_position_that_is_gone_is_reported);
}

#[test]
fn topics_are_made_once() {
    check("topics", records::topics_are_made_once);
}

#[test]
fn what_can_never_be_written_is_refused() {
    check("unsendable", records::what_can_never_be_written_is_refused);
}

#[test]
fn outputs_are_visible_after_the_commit_only() {
    check("visible", transactions::outputs_are_visible_after_the_commit_only);
}

#[test]
fn a_position_passes_what_never_comes() {
    check("position", transactions::a_position_passes_what_never_comes);
}

#[test]
fn a_log_that_has_lost_all_is_read_to_its_end() {
    check("lost-all", |cluster| {
        let trim = |source: &TopicPartition, start| Operator::new().trim(source, start);
        transactions::a_log_that_has_lost_all_is_read_to_its_end(cluster, &trim);
    });
}

#[test]
fn an_end_depends_on_what_counts() {
    check("ends", transactions::an_end_depends_on_what_counts);
}

#[test]
fn an_abort_hides_and_rewinds() {
    check("abort", transactions::an_abort_hides_and_rewinds);
}

#[test]
fn at_least_once_rewinds_too() {
    check("at-least-once", transactions::at_least_once_rewinds_too);
}

#[test]
fn lead_and_co_partitioned_input_go_on_together() {
    check("co-partitioned", transactions::lead_and_co_partitioned_input_go_on_together);
}

#[test]
fn a_committed_position_that_is_gone_is_reported() {
    check("committed-gone", transactions::a_committed_position_that_is_gone_is_reported);
}

#[test]
fn the_same_name_fences_its_predecessor() {
    check("fence", transactions::the_same_name_fences_its_predecessor);
}

#[test]
fn what_a_dropped_member_left_open_never_happened() {
    check("dropped", transactions::what_a_dropped_member_left_open_never_happened);
}

#[test]
fn members_share_and_take_over_exactly_once() {
    check("share", groups::members_share_and_take_over_exactly_once);
}

#[test]
fn members_share_at_least_once() {
    check("share-at-least-once", groups::members_share_at_least_once);
}

#[test]
fn a_silent_member_loses_its_tasks() {
    check("silent", groups::a_silent_member_loses_its_tasks);
}

#[test]
fn a_paused_task_stays_paused_and_loses_nothing() {
    check("paused", groups::a_paused_task_stays_paused_and_loses_nothing);
}

#[test]
fn leaving_is_quick_whatever_is_unanswered() {
    check("leaving", groups::leaving_is_quick_whatever_is_unanswered);
}

#[test]
fn nobody_there_is_said_in_one_line() {
    let refused = KafkaBroker::connect(&config("127.0.0.1:1"));
    let Err(BrokerError::Fatal(text)) = refused.map(|_| ()) else {
        panic!("nobody listens on port 1")
    };
    assert!(text.contains("127.0.0.1:1") && text.contains("bootstrap_servers"), "{text}");
}

#[test]
fn a_broker_can_be_shared_between_threads() {
    fn shared<B: Broker>() {}
    shared::<KafkaBroker>();
}
