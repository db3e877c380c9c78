//! Groups, transactions, fencing, retention and compaction of the cluster.

mod histories;

use super::*;
use crate::{
    runtime::broker::{Cleanup, ProcessingGuarantee, ReadFrom, ReadTo},
    time::{EventTime, WallTime},
};

const SESSION: Duration = Duration::from_secs(10);
const TRANSACTION: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// A cluster with the topics `in`, `side` (its co-partitioned input) and `out`, of two partitions each, and the time.
struct Fixture {
    cluster: Cluster,
    elapsed: Duration,
}

impl Fixture {
    fn new() -> Self {
        let mut cluster = Cluster::new(LocalSettings {
            session_timeout: SESSION,
            transaction_timeout: TRANSACTION,
            log_bytes_max: 1_000_000,
            ..LocalSettings::default()
        });
        let spec = |name: &str, partitions| TopicSpec {
            name: Topic::new(name),
            partitions,
            cleanup: Cleanup::Delete { retention: Some(Duration::from_secs(86_400)) },
            message_bytes_max: None,
        };
        let specs = [spec("in", 2), spec("side", 2), spec("out", 2), spec("odd", 3)];
        assert_eq!(cluster.create_topics(&specs).unwrap().len(), 4);
        assert!(cluster.create_topics(&specs).unwrap().is_empty());
        Self { cluster, elapsed: Duration::ZERO }
    }

    fn now(&self) -> Now {
        Now { elapsed: self.elapsed, wall: WallTime(0) }
    }

    fn join(&mut self, member: &str) -> Session {
        self.cluster.join(&membership(member), self.now()).unwrap()
    }

    /// Joins and accepts all tasks that are assigned.
    fn worker(&mut self, member: &str) -> Session {
        let mut session = self.join(member);
        self.answer_all(&mut session);
        session
    }

    fn poll(&mut self, session: &mut Session) -> Result<Option<Rebalance>, BrokerError> {
        self.cluster.poll(session, self.now(), &mut Vec::new())
    }

    /// Assigns `tasks` and resumes their inputs.
    fn assign(&mut self, session: &mut Session, tasks: &[Partition]) -> Result<(), BrokerError> {
        let now = self.now();
        self.cluster.assign(session, tasks, now)?;
        let membership = session.membership.clone();
        let inputs = tasks.iter().flat_map(|task| membership.inputs_of(*task));
        self.cluster.resume(session, &inputs.collect::<Vec<_>>(), now)
    }

    /// Polls once and answers the announced rebalance, which it returns.
    fn answer(&mut self, session: &mut Session) -> Option<Rebalance> {
        let rebalance = self.poll(session).unwrap()?;
        let now = self.now();
        match &rebalance {
            Rebalance::Assigned(tasks) => self.assign(session, tasks).unwrap(),
            Rebalance::Revoked { tasks, .. } => {
                self.cluster.unassign(session, tasks, now).unwrap();
            }
        }
        Some(rebalance)
    }

    fn answer_all(&mut self, session: &mut Session) {
        while self.answer(session).is_some() {}
        // The last poll may have read records.
        self.abort(session).unwrap();
    }

    /// The values of one batch.
    fn batch(&mut self, session: &mut Session) -> Vec<String> {
        let mut records = Vec::new();
        let now = self.now();
        assert_eq!(self.cluster.poll(session, now, &mut records).unwrap(), None);
        records.iter().map(value_of).collect()
    }

    fn publish(&mut self, topic: &str, partition: i32, value: &str) {
        self.cluster.publish(record(topic, partition, value), self.now()).unwrap();
    }

    fn send(&mut self, session: &Session, value: &str) -> Result<(), BrokerError> {
        self.cluster.send(session, record("out", 0, value), self.now())
    }

    fn commit(
        &mut self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), BrokerError> {
        self.cluster.commit(session, offsets, self.now())
    }

    fn abort(&mut self, session: &mut Session) -> Result<(), BrokerError> {
        self.cluster.abort(session, self.now())
    }

    /// The records that a reader of a partition gets, as `value@offset`.
    fn visible(&mut self, topic: &str, partition: i32) -> String {
        let mut records = Vec::new();
        let mut cursor =
            self.cluster.open(&at(topic, partition), ReadFrom::Beginning, self.now()).unwrap();
        let now = self.now();
        while self.cluster.read(&mut cursor, now, &mut records).unwrap().0 == ReadTo::More {}
        let show = |record: &InputRecord| format!("{}@{}", value_of(record), record.offset);
        records.iter().map(show).collect::<Vec<_>>().join(" ")
    }
}

fn membership(member: &str) -> Membership {
    Membership {
        group: "copy".to_owned(),
        member: member.to_owned(),
        lead: Topic::new("in"),
        co_partitioned: vec![Topic::new("side")],
        guarantee: ProcessingGuarantee::ExactlyOnce,
        commit_interval: Membership::COMMIT_INTERVAL,
    }
}

fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: Topic::new(topic), partition: Partition(partition) }
}

fn record(topic: &str, partition: i32, value: &str) -> OutputRecord {
    OutputRecord {
        topic: Topic::new(topic),
        partition: Some(Partition(partition)),
        timestamp: EventTime(0),
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

fn value_of(record: &InputRecord) -> String {
    String::from_utf8(record.value.clone().unwrap()).unwrap()
}

fn is_abort<T>(result: Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::Abort(_)))
}

fn is_fenced<T>(result: Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::Fenced(_)))
}

fn is_fatal<T>(result: Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::Fatal(_)))
}

#[test]
fn committed_records_become_visible_and_aborted_ones_never_do() {
    let mut fixture = Fixture::new();
    let mut worker = fixture.worker("a");
    fixture.send(&worker, "x").unwrap();
    fixture.publish("out", 0, "y");
    assert_eq!(fixture.visible("out", 0), "");
    fixture.commit(&worker, &[]).unwrap();
    assert_eq!(fixture.visible("out", 0), "x@0 y@1");
    fixture.send(&worker, "z").unwrap();
    fixture.abort(&mut worker).unwrap();
    fixture.publish("out", 0, "w");
    assert_eq!(
        fixture.visible("out", 0),
        "x@0 y@1 w@5",
        "markers at 2 and 4, an aborted record at 3"
    );
    fixture.commit(&worker, &[]).unwrap();
    fixture.abort(&mut worker).unwrap();
}

#[test]
fn reading_resumes_at_the_committed_offsets() {
    let mut fixture = Fixture::new();
    for value in ["0", "1", "2"] {
        fixture.publish("in", 1, value);
        fixture.publish("side", 1, value);
    }
    let mut worker = fixture.worker("a");
    assert_eq!(fixture.batch(&mut worker), ["0", "1", "2", "0", "1", "2"]);
    let offsets = [(at("in", 1), Offset(2)), (at("side", 1), Offset(1))];
    fixture.commit(&worker, &offsets).unwrap();
    assert_eq!(fixture.batch(&mut worker), [""; 0]);
    fixture.abort(&mut worker).unwrap();
    assert_eq!(fixture.batch(&mut worker), ["2", "1", "2"]);
    fixture.cluster.leave(&worker, fixture.now()).unwrap();
    let mut next = fixture.worker("b");
    assert_eq!(fixture.batch(&mut next), ["2", "1", "2"]);
    assert_eq!(fixture.cluster.committed("copy", &at("in", 1)), Some(Offset(2)));
}

#[test]
fn a_member_that_joins_under_a_name_fences_every_call_of_the_earlier_one() {
    let mut fixture = Fixture::new();
    let mut first = fixture.worker("a");
    fixture.send(&first, "x").unwrap();
    let other_group = Membership { group: "other".to_owned(), ..membership("a") };
    fixture.cluster.join(&other_group, fixture.now()).unwrap();
    fixture.send(&first, "x").unwrap();
    fixture.join("a");
    let now = fixture.now();
    assert!(is_fenced(fixture.poll(&mut first)));
    assert!(is_fenced(fixture.send(&first, "y")));
    assert!(is_fenced(fixture.commit(&first, &[(at("in", 0), Offset(1))])));
    assert!(is_fenced(fixture.commit(&first, &[])));
    assert!(is_fenced(fixture.abort(&mut first)));
    assert!(is_fenced(fixture.cluster.assign(&mut first, &[], now)));
    assert!(is_fenced(fixture.cluster.unassign(&mut first, &[Partition(0)], now)));
    assert!(is_fenced(fixture.cluster.leave(&first, now)));
    fixture.publish("out", 0, "z");
    assert_eq!(fixture.visible("out", 0), "z@3");
}

#[test]
fn the_tasks_of_a_fenced_member_go_to_its_successor() {
    let mut fixture = Fixture::new();
    let _first = fixture.worker("a");
    let mut second = fixture.join("a");
    let both = vec![Partition(0), Partition(1)];
    assert_eq!(fixture.answer(&mut second), Some(Rebalance::Assigned(both)));
}

#[test]
fn a_member_that_does_not_poll_loses_its_tasks_and_its_transaction() {
    let mut fixture = Fixture::new();
    fixture.publish("in", 0, "0");
    let mut late = fixture.worker("a");
    let mut successor = fixture.join("b");
    fixture.elapsed += SESSION - SECOND;
    assert_eq!(fixture.answer(&mut successor), Some(Rebalance::Assigned(vec![])));
    fixture.send(&late, "x").unwrap();
    fixture.elapsed += SECOND;
    let both = vec![Partition(0), Partition(1)];
    assert_eq!(fixture.answer(&mut successor), Some(Rebalance::Assigned(both.clone())));
    assert!(
        is_abort(fixture.commit(&late, &[])),
        "also without offsets: another member owns the tasks now"
    );
    assert!(is_abort(fixture.commit(&late, &[(at("in", 0), Offset(1))])));
    assert!(is_abort(fixture.send(&late, "y")), "the transaction must be aborted first");
    let lost = Rebalance::Revoked { tasks: both, lost: true };
    assert_eq!(fixture.poll(&mut late).unwrap(), Some(lost.clone()));
    fixture.abort(&mut late).unwrap();
    assert_eq!(fixture.answer(&mut late), Some(lost));
    assert_eq!(fixture.visible("out", 0), "");
    assert_eq!(fixture.answer(&mut late), Some(Rebalance::Assigned(vec![])), "it has joined again");
    fixture.answer_all(&mut successor);
    fixture.answer_all(&mut late);
    assert_eq!((late.tasks(), successor.tasks()), (vec![Partition(1)], vec![Partition(0)]));
    assert_eq!(fixture.batch(&mut successor), ["0"]);
}

#[test]
fn an_answer_after_expulsion_is_accepted_and_its_tasks_are_then_reported_lost() {
    let mut fixture = Fixture::new();
    let mut worker = fixture.join("a");
    let Some(Rebalance::Assigned(tasks)) = fixture.poll(&mut worker).unwrap() else {
        panic!("the only member gets all tasks");
    };
    fixture.elapsed += SESSION;
    assert!(is_fatal(fixture.cluster.assign(&mut worker, &[Partition(7)], fixture.now())));
    fixture.cluster.assign(&mut worker, &tasks, fixture.now()).unwrap();
    assert!(is_abort(fixture.commit(&worker, &[(at("in", 0), Offset(0))])));
    let lost = Rebalance::Revoked { tasks, lost: true };
    assert_eq!(fixture.answer(&mut worker), Some(lost));
    fixture.answer_all(&mut worker);
    assert_eq!(worker.tasks().len(), 2);
}

#[test]
fn a_transaction_that_times_out_is_aborted_and_holds_back_no_record() {
    let mut fixture = Fixture::new();
    let mut worker = fixture.worker("a");
    fixture.send(&worker, "x").unwrap();
    fixture.publish("out", 0, "y");
    fixture.elapsed += TRANSACTION - SECOND;
    assert_eq!(fixture.visible("out", 0), "");
    fixture.elapsed += SECOND;
    assert_eq!(fixture.visible("out", 0), "y@1");
    assert!(is_abort(fixture.send(&worker, "z")));
    assert!(is_abort(fixture.commit(&worker, &[])));
    fixture.abort(&mut worker).unwrap();
    fixture.send(&worker, "w").unwrap();
    fixture.commit(&worker, &[]).unwrap();
    assert_eq!(fixture.visible("out", 0), "y@1 w@3");
}

#[test]
fn a_member_commits_only_partitions_that_it_owns() {
    let mut fixture = Fixture::new();
    let mut worker = fixture.worker("a");
    let _successor = fixture.join("b");
    let Some(Rebalance::Revoked { tasks, lost: false }) = fixture.poll(&mut worker).unwrap() else {
        panic!("one of two tasks goes to the successor");
    };
    let offsets = [(at("in", tasks[0].0), Offset(0))];
    fixture.send(&worker, "x").unwrap();
    fixture.commit(&worker, &offsets).unwrap();
    fixture.cluster.unassign(&mut worker, &tasks, fixture.now()).unwrap();
    fixture.send(&worker, "y").unwrap();
    assert!(is_abort(fixture.commit(&worker, &offsets)));
    assert!(is_abort(fixture.commit(&worker, &[])), "also without offsets");
    fixture.abort(&mut worker).unwrap();
    assert!(is_fatal(fixture.commit(&worker, &[(at("out", 0), Offset(0))])));
    assert_eq!(fixture.visible("out", 0), "x@0");
}

#[test]
fn at_least_once_an_abort_rewinds_the_inputs_and_keeps_the_outputs() {
    let mut fixture = Fixture::new();
    fixture.publish("in", 0, "0");
    let guarantee = ProcessingGuarantee::AtLeastOnce;
    let membership = Membership { guarantee, ..membership("a") };
    let mut worker = fixture.cluster.join(&membership, fixture.now()).unwrap();
    fixture.answer_all(&mut worker);
    assert_eq!(fixture.batch(&mut worker), ["0"]);
    fixture.send(&worker, "x").unwrap();
    fixture.abort(&mut worker).unwrap();
    assert_eq!(fixture.batch(&mut worker), ["0"]);
    fixture.send(&worker, "x").unwrap();
    fixture.commit(&worker, &[(at("in", 0), Offset(1))]).unwrap();
    fixture.abort(&mut worker).unwrap();
    assert_eq!(fixture.batch(&mut worker), [""; 0]);
    assert_eq!(fixture.visible("out", 0), "x@0 x@1");
    fixture.cluster.join(&membership, fixture.now()).unwrap();
    assert!(is_fenced(fixture.commit(&worker, &[(at("in", 0), Offset(1))])));
    fixture.send(&worker, "zombie").unwrap();
    assert_eq!(
        fixture.visible("out", 0),
        "x@0 x@1 zombie@2",
        "a producer without transactions is not fenced"
    );
}

#[test]
fn the_topics_of_a_group_must_exist_be_co_partitioned_and_agree() {
    let mut fixture = Fixture::new();
    let _member = fixture.join("a");
    let with = |lead: &str, co_partitioned_input: &str| Membership {
        lead: Topic::new(lead),
        co_partitioned: vec![Topic::new(co_partitioned_input)],
        ..membership("b")
    };
    for (membership, group) in [
        (with("in", "odd"), "new"),
        (with("in", "nowhere"), "new"),
        (with("nowhere", "side"), "new"),
        (with("in", "out"), "copy"),
    ] {
        let membership = Membership { group: group.to_owned(), ..membership };
        let refused = fixture.cluster.join(&membership, fixture.now());
        let refused = matches!(refused, Err(BrokerError::Fatal(_) | BrokerError::Gone(_)));
        assert!(refused, "{membership:?}");
    }
    fixture.elapsed += SESSION;
    assert!(
        fixture.cluster.join(&with("in", "out"), fixture.now()).is_ok(),
        "the group has no members"
    );
}

#[test]
fn a_position_that_was_trimmed_is_out_of_range() {
    let mut fixture = Fixture::new();
    let worker = fixture.worker("a");
    fixture.commit(&worker, &[(at("in", 0), Offset(0))]).unwrap();
    let from = ReadFrom::Offset(Offset(3));
    let mut reader = fixture.cluster.open(&at("in", 0), from, fixture.now()).unwrap();
    for _ in 0..100 {
        fixture.publish("in", 0, &"x".repeat(50_000));
    }
    let out_of_range = |result: Result<(), BrokerError>| matches!(result, Err(BrokerError::OutOfRange(source)) if source == at("in", 0));
    let now = fixture.now();
    for _ in 0..2 {
        let read = fixture.cluster.read(&mut reader, now, &mut Vec::new());
        assert!(out_of_range(read.map(|_| ())), "a reader must be opened again");
    }
    fixture.cluster.leave(&worker, now).unwrap();
    let mut next = fixture.join("b");
    fixture.answer(&mut next);
    assert!(out_of_range(fixture.poll(&mut next).map(|_| ())));
    assert!(fixture.batch(&mut next).len() > 1, "a member continues from the beginning");
    let beyond = ReadFrom::Offset(Offset(101));
    let mut beyond = fixture.cluster.open(&at("in", 0), beyond, now).unwrap();
    let read = fixture.cluster.read(&mut beyond, now, &mut Vec::new());
    assert!(out_of_range(read.map(|_| ())), "a position after the end");
}

#[test]
fn reaching_the_end_is_new_once() {
    let mut fixture = Fixture::new();
    let source = at("in", 0);
    let mut reader = fixture.cluster.open(&source, ReadFrom::Beginning, fixture.now()).unwrap();
    let now = fixture.now();
    let mut read =
        |fixture: &mut Fixture| fixture.cluster.read(&mut reader, now, &mut Vec::new()).unwrap();
    assert_eq!(read(&mut fixture), (ReadTo::End, true));
    assert_eq!(read(&mut fixture), (ReadTo::End, false));
    for _ in 0..1001 {
        fixture.publish("in", 0, "x");
    }
    assert_eq!(read(&mut fixture), (ReadTo::More, true));
    assert_eq!(read(&mut fixture), (ReadTo::End, true));
    assert_eq!(read(&mut fixture), (ReadTo::End, false));
    assert!(is_fatal(fixture.cluster.open(&at("in", 2), ReadFrom::End, now)));
}

#[test]
fn waiting_is_bounded_by_deadlines_and_the_session() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.cluster.idle_max(fixture.now()), TRANSACTION / 3);
    let worker = fixture.worker("a");
    fixture.elapsed += SESSION - SECOND - TRANSACTION / 3;
    fixture.send(&worker, "x").unwrap();
    fixture.elapsed += TRANSACTION / 3;
    assert_eq!(fixture.cluster.idle_max(fixture.now()), SECOND);
}
