//! Transactions: commits and aborts are atomic, positions follow them, and a member of the same name fences the one before.

use foretell_streams::{
    record::{InputRecord, Offset, Topic, TopicPartition},
    runtime::broker::{BrokerError, Isolation, Membership, ProcessingGuarantee, Rebalance},
};

use super::{Cluster, Worker, after, at, numbers, output, texts, until};

pub(crate) fn outputs_are_visible_after_the_commit_only(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    cluster.publish(&input, 0, 0..5);
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    let records = worker.take(5);
    worker.copy(&records, &out).unwrap();
    assert_eq!(cluster.read(&out, 0), [], "an open transaction is invisible");
    worker.member.commit(&after(&records)).unwrap();
    assert_eq!(texts(&cluster.read(&out, 0)), numbers(0..5));
    // A commit without records and offsets succeeds.
    worker.member.commit(&[]).unwrap();
    // Offsets are committed without records too.
    cluster.publish(&input, 0, 5..6);
    let records = worker.take(1);
    worker.member.commit(&after(&records)).unwrap();
    worker.member.leave().unwrap();
    cluster.publish(&input, 0, 6..7);
    let mut next = Worker::join(cluster, cluster.membership("b", &input, &[]));
    assert_eq!(texts(&next.take(1)), numbers(6..7));
    next.member.leave().unwrap();
}

pub(crate) fn an_end_offset_depends_on_the_isolation_level(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    let ends = || {
        [Isolation::ReadCommitted, Isolation::ReadUncommitted]
            .map(|isolation| cluster.broker.end(&at(&out, 0), isolation).unwrap())
    };
    assert_eq!(ends(), [Offset(0); 2], "an empty partition");
    cluster.publish(&input, 0, 0..3);
    cluster.publish(&out, 0, 0..2);
    assert_eq!(ends(), [Offset(2); 2]);
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    let records = worker.take(3);
    worker.copy(&records, &out).unwrap();
    // `send` does not wait for the broker.
    until("the sent records", || ends()[1] == Offset(5));
    assert_eq!(ends()[0], Offset(2), "the last stable offset is before an open transaction");
    worker.member.commit(&after(&records)).unwrap();
    // The commit marker takes an offset, and may be written shortly after the answer.
    until("the transaction is decided", || ends()[0] > Offset(5));
    assert_eq!(ends()[0], ends()[1]);
    worker.member.leave().unwrap();
    assert!(cluster.broker.end(&at(&out, 7), Isolation::ReadCommitted).is_err(), "no partition 7");
}

/// Behind the last visible record there may be transaction markers and aborted records. The position of a member that has
/// read all visible records is the end, also after an abort, after a pause, and for a new owner.
pub(crate) fn a_position_passes_markers_and_aborted_records(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    cluster.publish(&input, 0, 0..3);
    let mut writer = Worker::join(cluster, cluster.membership("writer", &input, &[]));
    let records = writer.take(3);
    writer.copy(&records, &out).unwrap();
    writer.member.commit(&after(&records)).unwrap();
    writer.copy(&records, &out).unwrap();
    writer.member.abort().unwrap();
    writer.member.leave().unwrap();

    let source = at(&out, 0);
    let end = || cluster.broker.end(&source, Isolation::ReadCommitted).unwrap();
    let of_readers = |member: &str| {
        let membership = cluster.membership(member, &out, &[]);
        Membership { group: format!("{}-readers", membership.group), ..membership }
    };
    let mut reader = Worker::join(cluster, of_readers("one"));
    let until_the_end = |reader: &mut Worker| {
        until("the position to be the end", || {
            assert_eq!(reader.poll_once(), [], "all records have been read");
            reader.member.position(&source) == end()
        });
    };
    let records = reader.take(3);
    until_the_end(&mut reader);
    reader.member.commit(&after(&records)).unwrap();
    reader.member.abort().unwrap();
    until_the_end(&mut reader);
    reader.member.pause(std::slice::from_ref(&source)).unwrap();
    reader.member.resume(std::slice::from_ref(&source)).unwrap();
    until_the_end(&mut reader);
    reader.member.leave().unwrap();

    // The next member starts at the markers.
    let mut next = Worker::join(cluster, of_readers("two"));
    until_the_end(&mut next);
    cluster.publish(&out, 0, 3..5);
    assert_eq!(texts(&next.take(2)), numbers(3..5), "later records are not skipped");
    next.member.leave().unwrap();
}

/// In a log whose records were all deleted, the start is the end, and that is the position of a member that has read nothing.
/// `trim` deletes the records before an offset.
pub(crate) fn a_log_whose_records_were_all_deleted_is_read_to_its_end(
    cluster: &Cluster<'_>,
    trim: &dyn Fn(&TopicPartition, Offset),
) {
    let input = cluster.topic("in", 1);
    cluster.publish(&input, 0, 0..3);
    let source = at(&input, 0);
    trim(&source, Offset(3));
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    worker.until_assigned(1);
    assert_eq!(worker.member.position(&source), Offset(3));
    worker.member.abort().unwrap();
    assert_eq!(worker.member.position(&source), Offset(3));
    cluster.publish(&input, 0, 3..5);
    assert_eq!(texts(&worker.take(2)), numbers(3..5));
    worker.member.leave().unwrap();
}

pub(crate) fn an_abort_hides_and_rewinds(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    check_rewinds(cluster, &cluster.membership("a", &input, &[]), &input, &out);
    assert_eq!(texts(&cluster.read(&out, 0)), numbers(0..10), "aborted records are invisible");
}

pub(crate) fn at_least_once_rewinds_too(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    let membership = Membership {
        guarantee: ProcessingGuarantee::AtLeastOnce,
        ..cluster.membership("a", &input, &[])
    };
    check_rewinds(cluster, &membership, &input, &out);
    let mut written = cluster.values(&out, 1).remove(0);
    written.sort_by_key(|number| number.parse::<usize>().unwrap());
    written.dedup();
    assert_eq!(written, numbers(0..10), "everything was written, some of it twice");
}

/// Aborts before the first commit and after one, then continues as another member.
fn check_rewinds(cluster: &Cluster<'_>, membership: &Membership, input: &Topic, out: &Topic) {
    cluster.publish(input, 0, 0..10);
    let mut worker = Worker::join(cluster, membership.clone());
    let records = worker.take(10);
    worker.copy(&records, out).unwrap();
    worker.member.abort().unwrap();
    let again = worker.take(10);
    assert_eq!(again, records, "an abort goes back to the beginning");

    worker.copy(&again[..4], out).unwrap();
    worker.member.commit(&after(&again[..4])).unwrap();
    worker.copy(&again[4..], out).unwrap();
    worker.member.abort().unwrap();
    let rest = worker.take(6);
    assert_eq!(rest, records[4..], "an abort goes back to the last commit");
    // An abort without an open transaction rewinds too.
    worker.member.abort().unwrap();
    let rest = worker.take(6);
    assert_eq!(rest, records[4..]);
    worker.copy(&rest[..3], out).unwrap();
    worker.member.commit(&after(&rest[..3])).unwrap();
    worker.member.leave().unwrap();

    let next = Membership { member: "b".to_owned(), ..membership.clone() };
    let mut next = Worker::join(cluster, next);
    let rest = next.take(3);
    assert_eq!(rest, records[7..], "the next member starts after the last commit");
    next.copy(&rest, out).unwrap();
    next.member.commit(&after(&rest)).unwrap();
    next.member.leave().unwrap();
}

pub(crate) fn lead_and_co_partitioned_input_resume_at_their_committed_offsets(
    cluster: &Cluster<'_>,
) {
    let (lead, co_partitioned_input) = (cluster.topic("lead", 2), cluster.topic("side", 2));
    let out = cluster.topic("out", 2);
    let of = |records: &[InputRecord], topic: &Topic, partition: i32| {
        let source = at(topic, partition);
        let of_source = records.iter().filter(|record| record.source == source).cloned();
        texts(&of_source.collect::<Vec<_>>())
    };
    let membership = |member: &str| cluster.membership(member, &lead, &[&co_partitioned_input]);
    for partition in 0..2 {
        cluster.publish(&lead, partition, 0..3);
        cluster.publish(&co_partitioned_input, partition, 100..105);
    }
    let mut worker = Worker::join(cluster, membership("a"));
    let records = worker.take(16);
    for partition in 0..2 {
        assert_eq!(of(&records, &lead, partition), numbers(0..3));
        assert_eq!(of(&records, &co_partitioned_input, partition), numbers(100..105));
    }
    worker.copy(&records, &out).unwrap();
    // In partition 1, only a part of the co-partitioned input is committed.
    let offsets = [
        (at(&lead, 0), Offset(3)),
        (at(&co_partitioned_input, 0), Offset(5)),
        (at(&lead, 1), Offset(3)),
        (at(&co_partitioned_input, 1), Offset(2)),
    ];
    worker.member.commit(&offsets).unwrap();
    worker.member.leave().unwrap();

    cluster.publish(&co_partitioned_input, 0, 105..106);
    let mut next = Worker::join(cluster, membership("b"));
    let records = next.take(4);
    assert_eq!(of(&records, &co_partitioned_input, 0), numbers(105..106));
    assert_eq!(of(&records, &co_partitioned_input, 1), numbers(102..105));
    next.member.leave().unwrap();

    // A co-partitioned input with another number of partitions than the lead topic is refused.
    let other = cluster.topic("other", 3);
    assert!(cluster.broker.join(&cluster.membership("c", &lead, &[&other])).is_err());
}

/// The member returns `OutOfRange` for the input once, and continues from its beginning.
pub(crate) fn a_committed_offset_out_of_range_is_reported_once(cluster: &Cluster<'_>) {
    let (lead, co_partitioned_input) = (cluster.topic("lead", 1), cluster.topic("side", 1));
    cluster.publish(&lead, 0, 0..3);
    cluster.publish(&co_partitioned_input, 0, 0..3);
    let membership = |member: &str| cluster.membership(member, &lead, &[&co_partitioned_input]);
    let mut worker = Worker::join(cluster, membership("a"));
    worker.take(6);
    let gone = at(&co_partitioned_input, 0);
    worker.member.commit(&[(at(&lead, 0), Offset(3)), (gone.clone(), Offset(1000))]).unwrap();
    worker.member.leave().unwrap();

    let mut next = Worker::join(cluster, membership("b"));
    let mut records = Vec::new();
    until("the error", || {
        let answer = next.member.poll(cluster.poll_timeout, &mut records);
        (cluster.advance_clock)();
        match answer {
            Ok(None) => false,
            Ok(Some(Rebalance::Assigned(tasks))) => {
                next.member.assign(&tasks).unwrap();
                next.member.resume(&next.inputs_of(&tasks)).unwrap();
                next.tasks.extend(tasks);
                false
            }
            Ok(Some(other)) => panic!("{other:?}"),
            Err(BrokerError::OutOfRange(reported)) => {
                assert_eq!(reported, gone);
                true
            }
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(records, []);
    let again = next.take(3);
    assert!(again.iter().all(|record| record.source == gone));
    assert_eq!(texts(&again), numbers(0..3));
    // The error is returned once, and an abort rewinds to the beginning too.
    next.member.abort().unwrap();
    assert_eq!(next.take(3), again);
    next.member.leave().unwrap();
}

pub(crate) fn a_member_of_the_same_name_fences_its_predecessor(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    cluster.publish(&input, 0, 0..3);
    let mut zombie = Worker::join(cluster, cluster.membership("a", &input, &[]));
    let records = zombie.take(3);
    zombie.copy(&records, &out).unwrap();

    let next = cluster.broker.join(&cluster.membership("a", &input, &[])).unwrap();
    let answer = zombie.member.commit(&after(&records));
    let is_fenced = match answer {
        Err(BrokerError::Fenced(_)) => true,
        // The commit may ask for an abort first, which then reports the fencing.
        Err(BrokerError::Abort(_)) => {
            matches!(zombie.member.abort(), Err(BrokerError::Fenced(_)))
        }
        _ => false,
    };
    assert!(is_fenced, "a zombie must get `Fenced`");
    drop(zombie);
    assert_eq!(cluster.read(&out, 0), []);

    let mut next = Worker {
        cluster,
        member: next,
        membership: cluster.membership("a", &input, &[]),
        tasks: std::collections::BTreeSet::new(),
    };
    let records = next.take(3);
    next.copy(&records, &out).unwrap();
    next.member.commit(&after(&records)).unwrap();
    next.member.leave().unwrap();
    assert_eq!(texts(&cluster.read(&out, 0)), numbers(0..3));
}

pub(crate) fn the_open_transaction_of_a_dropped_member_is_aborted(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 1), cluster.topic("out", 1));
    cluster.publish(&input, 0, 0..3);
    let mut dropped = Worker::join(cluster, cluster.membership("a", &input, &[]));
    let records = dropped.take(3);
    dropped.copy(&records, &out).unwrap();
    drop(dropped);
    let mut next = Worker::join(cluster, cluster.membership("b", &input, &[]));
    let again = next.take(3);
    assert_eq!(again, records);
    next.member.send(output(&out, 0, "next").as_ref()).unwrap();
    next.member.commit(&after(&again)).unwrap();
    next.member.leave().unwrap();
    assert_eq!(texts(&cluster.read(&out, 0)), ["next"]);
}
