//! Several members: every task has one owner, and what moves goes on where it was.

use std::ops::Range;

use foretell_streams::{
    record::{Offset, Partition, Topic},
    runtime::broker::{BrokerError, Membership, ProcessingGuarantee},
};

use crate::contract::{Cluster, WAIT, Worker, after, numbers, output, texts, until};

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

/// One member works, a second joins, the first leaves, a third joins: all the time with input.
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
    until("half the tasks each", || {
        first.work(&out);
        second.work(&out);
        first.tasks.len() == 2 && second.tasks.len() == 2
    });
    assert!(first.tasks.is_disjoint(&second.tasks));
    publish(300..400);
    first.work(&out);
    first.member.leave().unwrap();
    until("the other's tasks", || {
        second.work(&out);
        second.tasks.len() == 4
    });
    publish(400..500);
    let mut third = join("third");
    until("half the tasks each, again", || {
        second.work(&out);
        third.work(&out);
        second.tasks.len() == 2 && third.tasks.len() == 2
    });
    drop(second);
    publish(500..600);
    until("all the output", || {
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

pub(crate) fn a_silent_member_loses_its_tasks(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 2), cluster.topic("out", 2));
    let mut silent = Worker::join(cluster, cluster.membership("silent", &input, &[]));
    silent.hold(2);
    for partition in 0..2 {
        cluster.publish(&input, partition, 0..5);
    }
    let records = silent.take(10);
    silent.copy(&records, &out).unwrap();
    // From here on it says nothing, and the other polls.
    let mut other = Worker::join(cluster, cluster.membership("other", &input, &[]));
    until("the silent one's tasks", || {
        other.work(&out);
        other.tasks.len() == 2 && texts(&cluster.read(&input, 0)).len() == 5
    });
    until("their records", || {
        other.work(&out);
        // An open transaction of the silent one's holds the readers back until it is aborted.
        (0..2).all(|partition| cluster.read(&out, partition).len() == 5)
    });
    let answer = silent.member.commit(&after(&records));
    assert!(
        matches!(answer, Err(BrokerError::Abort(_) | BrokerError::Fenced(_))),
        "after {:?} of silence: {answer:?}",
        cluster.silence_max
    );
    drop(silent);
    for values in cluster.values(&out, 2) {
        assert_eq!(values, numbers(0..5));
    }
    other.member.leave().unwrap();
}

pub(crate) fn a_paused_task_stays_paused_and_loses_nothing(cluster: &Cluster<'_>) {
    let input = cluster.topic("in", 2);
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    worker.hold(2);
    let both = worker.inputs_of(&[Partition(0), Partition(1)]);
    worker.member.pause(&both).unwrap();
    for partition in 0..2 {
        cluster.publish(&input, partition, 0..5);
    }
    // Somebody comes and goes: one task moves away and back, the other must not wake up meanwhile.
    let mut other = Worker::join(cluster, cluster.membership("b", &input, &[]));
    until("a task each", || {
        assert_eq!(worker.step(), [], "both are paused");
        other.step();
        worker.tasks.len() == 1 && other.tasks.len() == 1
    });
    let kept: Vec<_> = worker.tasks.iter().copied().collect();
    other.member.leave().unwrap();
    until("both tasks", || {
        assert_eq!(worker.step(), [], "the one kept is paused");
        worker.tasks.len() == 2
    });
    // What came back is a new assignment, and nothing of it was committed.
    let moved = worker.take(5);
    assert!(moved.iter().all(|record| !kept.contains(&record.source.partition)));
    assert_eq!(texts(&moved), numbers(0..5));
    for _ in 0..20 {
        assert_eq!(worker.step(), []);
    }
    // In the middle of a partition, too: what is paused goes on where it was.
    worker.member.pause(&both).unwrap();
    for partition in 0..2 {
        cluster.publish(&input, partition, 5..10);
    }
    for _ in 0..20 {
        assert_eq!(worker.step(), []);
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

/// An announced rebalance that nobody answers any more, an open transaction, nothing at all.
pub(crate) fn leaving_is_quick_whatever_is_unanswered(cluster: &Cluster<'_>) {
    let (input, out) = (cluster.topic("in", 2), cluster.topic("out", 1));
    let join = |member: &str| Worker::join(cluster, cluster.membership(member, &input, &[]));
    join("never-polled").member.leave().unwrap();

    let mut unassigned = join("announced");
    until("an announcement", || {
        let announced = unassigned.member.poll(WAIT, &mut Vec::new()).unwrap().is_some();
        (cluster.pass)(WAIT);
        announced
    });
    unassigned.member.leave().unwrap();

    let mut owner = join("owner");
    owner.hold(2);
    owner.member.send(output(&out, 0, "open").as_ref()).unwrap();
    let mut rival = join("rival");
    until("a revocation", || {
        rival.step();
        let announced = owner.member.poll(WAIT, &mut Vec::new()).unwrap().is_some();
        (cluster.pass)(WAIT);
        announced
    });
    owner.member.leave().unwrap();
    until("everything", || {
        rival.step();
        rival.tasks.len() == 2
    });
    drop(rival);
    assert_eq!(cluster.read(&out, 0), []);
}
