//! The contract tests of the broker port (`crates/foretell-streams/tests/contract`) on the cluster that
//! `FORETELL_TEST_BROKERS` names.

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

/// Shortest session timeout that a broker with default settings accepts (`group.min.session.timeout.ms`).
const SESSION: Duration = Duration::from_secs(6);

#[expect(clippy::disallowed_methods, reason = "a test's only setting")]
fn servers() -> String {
    std::env::var("FORETELL_TEST_BROKERS")
        .expect("set FORETELL_TEST_BROKERS to the host:port of a Kafka-compatible broker")
}

fn config(servers: &str) -> KafkaConfig {
    let poll_interval =
        ("consumer.max.poll.interval.ms".to_owned(), SESSION.as_millis().to_string());
    KafkaConfig {
        bootstrap_servers: servers.to_owned(),
        session_timeout: SESSION,
        properties: [poll_interval].into(),
        ..KafkaConfig::default()
    }
}

fn check(name: &str, contract: fn(&Cluster<'_>)) {
    let broker = KafkaBroker::connect(&config(&servers())).expect("the broker answers");
    // Makes topics and groups unique among the runs on one broker.
    let run = RandomState::new().hash_one(name);
    contract(&Cluster {
        broker: &broker,
        name: format!("test-{name}-{run:016x}"),
        poll_interval_max: SESSION,
        poll_timeout: Duration::from_millis(20),
        advance_clock: &|| (), // A real broker has a real clock.
    });
}

#[test]
fn records_are_read_as_they_were_written() {
    check("round-trip", records::records_are_read_as_they_were_written);
}

#[test]
fn a_key_selects_the_partition_of_the_default_partitioner() {
    check("keys", records::a_key_selects_the_partition_of_the_default_partitioner);
}

#[test]
fn a_reader_starts_at_the_given_position() {
    check("starts", records::a_reader_starts_at_the_given_position);
}

#[test]
fn an_offset_out_of_range_and_a_missing_topic_are_errors_of_a_reader() {
    check(
        "out-of-range",
        records::an_offset_out_of_range_and_a_missing_topic_are_errors_of_a_reader,
    );
}

#[test]
fn creating_topics_is_idempotent() {
    check("topics", records::creating_topics_is_idempotent);
}

#[test]
fn a_record_that_can_never_be_written_is_refused() {
    check("unsendable", records::a_record_that_can_never_be_written_is_refused);
}

#[test]
fn outputs_are_visible_after_the_commit_only() {
    check("visible", transactions::outputs_are_visible_after_the_commit_only);
}

#[test]
fn a_position_passes_markers_and_aborted_records() {
    check("position", transactions::a_position_passes_markers_and_aborted_records);
}

#[test]
fn a_log_whose_records_were_all_deleted_is_read_to_its_end() {
    check("all-deleted", |cluster| {
        let trim = |source: &TopicPartition, start| Operator::new().trim(source, start);
        transactions::a_log_whose_records_were_all_deleted_is_read_to_its_end(cluster, &trim);
    });
}

#[test]
fn an_end_offset_depends_on_the_isolation_level() {
    check("ends", transactions::an_end_offset_depends_on_the_isolation_level);
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
fn lead_and_co_partitioned_input_resume_at_their_committed_offsets() {
    check(
        "co-partitioned",
        transactions::lead_and_co_partitioned_input_resume_at_their_committed_offsets,
    );
}

#[test]
fn a_committed_offset_out_of_range_is_reported_once() {
    check("committed-gone", transactions::a_committed_offset_out_of_range_is_reported_once);
}

#[test]
fn a_member_of_the_same_name_fences_its_predecessor() {
    check("fence", transactions::a_member_of_the_same_name_fences_its_predecessor);
}

#[test]
fn the_open_transaction_of_a_dropped_member_is_aborted() {
    check("dropped", transactions::the_open_transaction_of_a_dropped_member_is_aborted);
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
fn a_member_that_does_not_poll_loses_its_tasks() {
    check("no-poll", groups::a_member_that_does_not_poll_loses_its_tasks);
}

#[test]
fn a_paused_task_stays_paused_and_loses_nothing() {
    check("paused", groups::a_paused_task_stays_paused_and_loses_nothing);
}

#[test]
fn a_member_can_leave_with_a_rebalance_or_a_transaction_pending() {
    check("leaving", groups::a_member_can_leave_with_a_rebalance_or_a_transaction_pending);
}

#[test]
fn a_paused_input_returns_no_later_record_and_stays_paused_after_an_abort() {
    check(
        "pause-abort",
        groups::a_paused_input_returns_no_later_record_and_stays_paused_after_an_abort,
    );
}

#[test]
fn a_follower_reads_the_partitions_that_are_open() {
    check("follow", records::a_follower_reads_the_partitions_that_are_open);
}

#[test]
fn an_unreachable_broker_is_a_fatal_error_that_names_it() {
    let refused = KafkaBroker::connect(&config("127.0.0.1:1"));
    let Err(BrokerError::Fatal(text)) = refused.map(|_| ()) else {
        panic!("no broker listens on port 1")
    };
    assert!(text.contains("127.0.0.1:1") && text.contains("bootstrap_servers"), "{text}");
}

#[test]
fn a_broker_can_be_shared_between_threads() {
    fn shared<B: Broker>() {}
    shared::<KafkaBroker>();
}
