//! The contract tests of the broker port (`tests/contract`) on the LocalBroker. `tests/broker/broker_port.rs` runs the same
//! functions on Kafka; a function that one of the two does not call fails the build as dead code.

#[path = "../../tests/contract/mod.rs"]
mod contract;

use std::{sync::Arc, time::Duration};

use self::contract::{Cluster, groups, records, transactions};
use crate::{
    local::{LocalBroker, LocalSettings},
    time::{ManualClock, WallTime},
};

const SESSION: Duration = Duration::from_secs(6);

/// The time that passes after each poll.
const TICK: Duration = Duration::from_millis(20);

fn check(contract: fn(&Cluster<'_>)) {
    check_with_broker(|cluster, _| contract(cluster));
}

fn check_with_broker(contract: impl Fn(&Cluster<'_>, &LocalBroker)) {
    let settings = LocalSettings {
        session_timeout: SESSION,
        transaction_timeout: SESSION / 2,
        ..LocalSettings::default()
    };
    let clock = Arc::new(ManualClock::at(WallTime(1_700_000_000_000)));
    let broker = LocalBroker::with_settings(Arc::<ManualClock>::clone(&clock), settings);
    let cluster = Cluster {
        broker: &broker,
        name: "test".to_owned(),
        poll_interval_max: SESSION,
        // A wait would take real time, and no other thread writes anything meanwhile.
        poll_timeout: Duration::ZERO,
        advance_clock: &|| clock.advance(TICK),
    };
    contract(&cluster, &broker);
}

#[test]
fn records_are_read_as_they_were_written() {
    check(records::records_are_read_as_they_were_written);
}

#[test]
fn a_key_selects_the_partition_of_the_default_partitioner() {
    check(records::a_key_selects_the_partition_of_the_default_partitioner);
}

#[test]
fn a_reader_starts_at_the_given_position() {
    check(records::a_reader_starts_at_the_given_position);
}

#[test]
fn an_offset_out_of_range_and_a_missing_topic_are_errors_of_a_reader() {
    check(records::an_offset_out_of_range_and_a_missing_topic_are_errors_of_a_reader);
}

#[test]
fn creating_topics_is_idempotent() {
    check(records::creating_topics_is_idempotent);
}

#[test]
fn a_record_that_can_never_be_written_is_refused() {
    check(records::a_record_that_can_never_be_written_is_refused);
}

#[test]
fn outputs_are_visible_after_the_commit_only() {
    check(transactions::outputs_are_visible_after_the_commit_only);
}

#[test]
fn a_position_passes_markers_and_aborted_records() {
    check(transactions::a_position_passes_markers_and_aborted_records);
}

#[test]
fn an_end_offset_depends_on_the_isolation_level() {
    check(transactions::an_end_offset_depends_on_the_isolation_level);
}

#[test]
fn an_abort_hides_and_rewinds() {
    check(transactions::an_abort_hides_and_rewinds);
}

#[test]
fn at_least_once_rewinds_too() {
    check(transactions::at_least_once_rewinds_too);
}

#[test]
fn lead_and_co_partitioned_input_resume_at_their_committed_offsets() {
    check(transactions::lead_and_co_partitioned_input_resume_at_their_committed_offsets);
}

#[test]
fn a_committed_offset_out_of_range_is_reported_once() {
    check(transactions::a_committed_offset_out_of_range_is_reported_once);
}

#[test]
fn a_member_of_the_same_name_fences_its_predecessor() {
    check(transactions::a_member_of_the_same_name_fences_its_predecessor);
}

#[test]
fn the_open_transaction_of_a_dropped_member_is_aborted() {
    check(transactions::the_open_transaction_of_a_dropped_member_is_aborted);
}

#[test]
fn members_share_and_take_over_exactly_once() {
    check(groups::members_share_and_take_over_exactly_once);
}

#[test]
fn members_share_at_least_once() {
    check(groups::members_share_at_least_once);
}

#[test]
fn a_member_that_does_not_poll_loses_its_tasks() {
    check(groups::a_member_that_does_not_poll_loses_its_tasks);
}

#[test]
fn a_paused_task_stays_paused_and_loses_nothing() {
    check(groups::a_paused_task_stays_paused_and_loses_nothing);
}

#[test]
fn a_member_can_leave_with_a_rebalance_or_a_transaction_pending() {
    check(groups::a_member_can_leave_with_a_rebalance_or_a_transaction_pending);
}

#[test]
fn a_log_whose_records_were_all_deleted_is_read_to_its_end() {
    check_with_broker(|cluster, broker| {
        let trim = |source: &_, start| broker.delete_records(source, start);
        transactions::a_log_whose_records_were_all_deleted_is_read_to_its_end(cluster, &trim);
    });
}

#[test]
fn a_paused_input_returns_no_later_record_and_stays_paused_after_an_abort() {
    check(groups::a_paused_input_returns_no_later_record_and_stays_paused_after_an_abort);
}

#[test]
fn a_follower_reads_the_partitions_that_are_open() {
    check(records::a_follower_reads_the_partitions_that_are_open);
}
