//! Several members of a group: every task has one owner, and a task that moves continues at its committed offsets.

use std::ops::Range;

use foretell_streams::{
    record::{InputRecord, Offset, Partition, Topic},
    runtime::broker::{BrokerError, Membership, ProcessingGuarantee},
};

use super::{Cluster, Worker, after, numbers, output, texts, until};

const PARTITIONS: u32 = 4;

pub(crate) fn members_share_and_take_over_exactly_once(cluster: &Cluster<'_>) {
    let out = share(cluster, ProcessingGuarantee::ExactlyOnce);
    for values in cluster.values(&out, 4) {
        assert_eq!(values, numbers(0..600), "every record once, in order");
    }
}

pub(crate) fn members_share_at_least_once(cluster: &Cluster<'_>) {
    let out = share(cluster, ProcessingGuarantee::AtLeastOnce);
    for mut values in cluster.values(&out, 4) {
        values.sort_by_key(|number| number.parse::<usize>().unwrap());
        values.dedup();
        assert_eq!(values, numbers(0..600), "every record");
    }
}

/// One member works, a second joins, the first leaves, a third joins and the second is dropped, under constant input.
fn share(cluster: &Cluster<'_>, guarantee: ProcessingGuarantee) -> Topic {
    let (input, out) = (cluster.topic("in", PARTITIONS), cluster.topic("out", PARTITIONS));
    let join = |member: &str| {
        let membership = cluster.membership(member, &input, &[]);
        Worker::join(cluster, Membership { guarantee, ..membership })
    };
    let publish = |range: Range<usize>| {
        for partition in 0..4 {
            cluster.publish(&input, partition, range.clone());
        }
    };
    let mut first = join("first");
    publish(0..200);
    until("all tasks", || {
        first.work(&out);
        first.tasks.len() == 4
    });
    let mut second = join("second");
    publish(200..300);
    until("two members to have half of the tasks each", || {
        first.work(&out);
        second.work(&out);
        first.tasks.len() == 2 && second.tasks.len() == 2
    });
    assert!(first.tasks.is_disjoint(&second.tasks));
    publish(300..400);
    first.work(&out);
    first.member.leave().unwrap();
    until("the tasks of the member that left", || {
        second.work(&out);
        second.tasks.len() == 4
    });
    publish(400..500);
    let mut third = join("third");
    until("the second and third to have half of the tasks each", || {
        second.work(&out);
        third.work(&out);
        second.tasks.len() == 2 && third.tasks.len() == 2
    });
    drop(second);
    publish(500..600);
    until("all output", || {
        third.work(&out);
        third.tasks.len() == 4 && (0..4).all(|partition| is_done(cluster, &out, partition))
    });
    third.member.leave().unwrap();
    out
}

fn is_done(cluster: &Cluster<'_>, out: &Topic, partition: i32) -> bool {
    let values = texts(&cluster.read(out, partition));
    values.last().is_some_and(|last| last == "599")
}

pub(crate) fn a_member_that_does_not_poll_loses_its_tasks(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 2), cluster.topic("out", 2));
    let mut stalled = Worker::join(cluster, cluster.membership("stalled", &input, &[]));
    stalled.until_assigned(2);
    for partition in 0..2 {
        cluster.publish(&input, partition, 0..5);
    }
    let records = stalled.take(10);
    stalled.copy(&records, &out).unwrap();
    // From here on only the other member polls.
    let mut other = Worker::join(cluster, cluster.membership("other", &input, &[]));
    until("the tasks of the stalled member", || {
        other.work(&out);
        other.tasks.len() == 2 && texts(&cluster.read(&input, 0)).len() == 5
    });
    until("their records", || {
        other.work(&out);
        // Readers do not pass the open transaction of the stalled member until it is aborted.
        (0..2).all(|partition| cluster.read(&out, partition).len() == 5)
    });
    let answer = stalled.member.commit(&after(&records));
    assert!(
        matches!(answer, Err(BrokerError::Abort(_) | BrokerError::Fenced(_))),
        "after {:?} without a poll: {answer:?}",
        cluster.poll_interval_max
    );
    drop(stalled);
    for values in cluster.values(&out, 2) {
        assert_eq!(values, numbers(0..5));
    }
    other.member.leave().unwrap();
}

pub(crate) fn a_paused_task_stays_paused_and_loses_nothing(cluster: &Cluster<'_>) {
    let input = cluster.topic("in", 2);
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    worker.until_assigned(2);
    let both = worker.inputs_of(&[Partition(0), Partition(1)]);
    worker.member.pause(&both).unwrap();
    for partition in 0..2 {
        cluster.publish(&input, partition, 0..5);
    }
    // A member joins and leaves: one task moves away and back, and the other must stay paused meanwhile.
    let mut other = Worker::join(cluster, cluster.membership("b", &input, &[]));
    until("one task each", || {
        assert_eq!(worker.poll_once(), [], "both are paused");
        other.poll_once();
        worker.tasks.len() == 1 && other.tasks.len() == 1
    });
    let kept: Vec<_> = worker.tasks.iter().copied().collect();
    other.member.leave().unwrap();
    until("both tasks", || {
        assert_eq!(worker.poll_once(), [], "the task that was kept is paused");
        worker.tasks.len() == 2
    });
    // The task that moved back is a new assignment, so it is not paused, and nothing of it was committed.
    let moved = worker.take(5);
    assert!(moved.iter().all(|record| !kept.contains(&record.source.partition)));
    assert_eq!(texts(&moved), numbers(0..5));
    for _ in 0..20 {
        assert_eq!(worker.poll_once(), []);
    }
    // A task that is paused in the middle of a partition resumes at its position.
    worker.member.pause(&both).unwrap();
    for partition in 0..2 {
        cluster.publish(&input, partition, 5..10);
    }
    for _ in 0..20 {
        assert_eq!(worker.poll_once(), []);
    }
    worker.member.resume(&both).unwrap();
    let rest = worker.take(15);
    let (mut of_kept, mut of_moved) = (Vec::new(), Vec::new());
    for record in rest {
        let is_kept = kept.contains(&record.source.partition);
        if is_kept { of_kept.push(record) } else { of_moved.push(record) }
    }
    assert_eq!((texts(&of_kept), texts(&of_moved)), (numbers(0..10), numbers(5..10)));
    assert!(both.iter().all(|input| worker.member.position(input) == Offset(10)));
    worker.member.leave().unwrap();
}

/// Records that were fetched before a pause may still come. Later ones do not, and after an abort none do.
pub(crate) fn a_paused_input_returns_no_later_record_and_stays_paused_after_an_abort(
    cluster: &Cluster<'_>,
) {
    let input = cluster.topic("in", 1);
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    worker.until_assigned(1);
    let source = worker.inputs_of(&[Partition(0)]);
    let idle_polls = |worker: &mut Worker| {
        (0..20).flat_map(|_| worker.poll_once()).collect::<Vec<InputRecord>>()
    };
    cluster.publish(&input, 0, 0..10);
    worker.member.pause(&source).unwrap();
    cluster.publish(&input, 0, 10..20);
    let mut records = idle_polls(&mut worker);
    assert!(records.len() <= 10, "{:?}", texts(&records));
    assert!(worker.member.position(&source[0]) <= Offset(10));
    worker.member.resume(&source).unwrap();
    records.extend(worker.take(20 - records.len()));
    assert_eq!(texts(&records), numbers(0..20), "in order, none twice, none skipped");

    worker.member.commit(&[(source[0].clone(), Offset(5))]).unwrap();
    cluster.publish(&input, 0, 20..30);
    worker.member.pause(&source).unwrap();
    worker.member.abort().unwrap();
    assert_eq!(idle_polls(&mut worker), [], "fetched before the abort");
    worker.member.resume(&source).unwrap();
    assert_eq!(texts(&worker.take(25)), numbers(5..30));
    worker.member.leave().unwrap();
}

/// Leaves before the first poll, with an unanswered assignment, and with an unanswered revocation and an open transaction.
pub(crate) fn a_member_can_leave_with_a_rebalance_or_a_transaction_pending(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 2), cluster.topic("out", 1));
    let join = |member: &str| Worker::join(cluster, cluster.membership(member, &input, &[]));
    join("never-polled").member.leave().unwrap();

    let mut unassigned = join("unassigned");
    until("an assignment", || {
        let rebalance = unassigned.member.poll(cluster.poll_timeout, &mut Vec::new()).unwrap();
        (cluster.advance_clock)();
        rebalance.is_some()
    });
    unassigned.member.leave().unwrap();

    let mut owner = join("owner");
    owner.until_assigned(2);
    owner.member.send(output(&out, 0, "open").as_ref()).unwrap();
    let mut successor = join("successor");
    until("a revocation", || {
        successor.poll_once();
        let rebalance = owner.member.poll(cluster.poll_timeout, &mut Vec::new()).unwrap();
        (cluster.advance_clock)();
        rebalance.is_some()
    });
    owner.member.leave().unwrap();
    until("all tasks of the successor", || {
        successor.poll_once();
        successor.tasks.len() == 2
    });
    drop(successor);
    assert_eq!(cluster.read(&out, 0), []);
}
