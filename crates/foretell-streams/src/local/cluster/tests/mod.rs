//! The cluster as workers and zombies use it: groups, transactions, fencing, retention and compaction.

mod histories;

use super::*;
use crate::{
    runtime::broker::{Cleanup, ProcessingGuarantee},
    time::EventTime,
};

const SESSION: Duration = Duration::from_secs(10);
const TRANSACTION: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// What the simulation asks besides.
impl Cluster {
    /// Where an abort would go back to.
    pub(crate) fn known_offsets(&self, session: &Session) -> BTreeMap<TopicPartition, Offset> {
        let subscription = self.subscription(session);
        let start = |source: &TopicPartition| {
            let known = session.known.get(source).copied();
            known.unwrap_or_else(|| subscription.start_of(source, &self.topics))
        };
        session.inputs().map(|source| (source.clone(), start(source))).collect()
    }

    /// Whether a task is the member's just now.
    pub(crate) fn owns(&self, session: &Session, task: Partition) -> bool {
        let member = &session.membership.member;
        let group = &self.subscription(session).group;
        matches!(self.standing(session), Ok(Standing::Member)) && group.owns(member, task)
    }
}

/// A cluster with `in`, `side` (its co-partitioned input) and `out`, of two partitions each, and the time.
struct Bench {
    cluster: Cluster,
    elapsed: Duration,
}

impl Bench {
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

    /// Joins, and takes what there is.
    fn worker(&mut self, member: &str) -> Session {
        let mut session = self.join(member);
        self.answer_all(&mut session);
        session
    }

    fn poll(&mut self, session: &mut Session) -> Result<Option<Rebalance>, BrokerError> {
        self.cluster.poll(session, self.now(), &mut Vec::new())
    }

    /// Takes `tasks`, and has their inputs flow.
    fn assign(&mut self, session: &mut Session, tasks: &[Partition]) -> Result<(), BrokerError> {
        let now = self.now();
        self.cluster.assign(session, tasks, now)?;
        let membership = session.membership.clone();
        let inputs = tasks.iter().flat_map(|task| membership.inputs_of(*task));
        self.cluster.resume(session, &inputs.collect::<Vec<_>>(), now)
    }

    /// Polls once and answers; returns what was lost and what was got.
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
        // The last poll may have read something.
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

    /// What a reader of a partition sees, as `value@offset`.
    fn seen(&mut self, topic: &str, partition: i32) -> String {
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
fn what_is_sent_is_seen_once_committed_and_never_once_aborted() {
    let mut bench = Bench::new();
    let mut worker = bench.worker("a");
    bench.send(&worker, "x").unwrap();
    bench.publish("out", 0, "y");
    assert_eq!(bench.seen("out", 0), "");
    bench.commit(&worker, &[]).unwrap();
    assert_eq!(bench.seen("out", 0), "x@0 y@1");
    bench.send(&worker, "z").unwrap();
    bench.abort(&mut worker).unwrap();
    bench.publish("out", 0, "w");
    assert_eq!(bench.seen("out", 0), "x@0 y@1 w@5", "markers at 2 and 4, the aborted at 3");
    bench.commit(&worker, &[]).unwrap();
    bench.abort(&mut worker).unwrap();
}

#[test]
fn reading_goes_on_from_the_commit_for_the_same_worker_and_the_next() {
    let mut bench = Bench::new();
    for value in ["0", "1", "2"] {
        bench.publish("in", 1, value);
        bench.publish("side", 1, value);
    }
    let mut worker = bench.worker("a");
    assert_eq!(bench.batch(&mut worker), ["0", "1", "2", "0", "1", "2"]);
    let offsets = [(at("in", 1), Offset(2)), (at("side", 1), Offset(1))];
    bench.commit(&worker, &offsets).unwrap();
    assert_eq!(bench.batch(&mut worker), [""; 0]);
    bench.abort(&mut worker).unwrap();
    assert_eq!(bench.batch(&mut worker), ["2", "1", "2"]);
    bench.cluster.leave(&worker, bench.now()).unwrap();
    let mut next = bench.worker("b");
    assert_eq!(bench.batch(&mut next), ["2", "1", "2"]);
    assert_eq!(bench.cluster.committed("copy", &at("in", 1)), Some(Offset(2)));
}

#[test]
fn the_next_under_a_name_fences_the_last_whatever_it_does() {
    let mut bench = Bench::new();
    let mut first = bench.worker("a");
    bench.send(&first, "x").unwrap();
    let other_group = Membership { group: "other".to_owned(), ..membership("a") };
    bench.cluster.join(&other_group, bench.now()).unwrap();
    bench.send(&first, "x").unwrap();
    bench.join("a");
    let now = bench.now();
    assert!(is_fenced(bench.poll(&mut first)));
    assert!(is_fenced(bench.send(&first, "y")));
    assert!(is_fenced(bench.commit(&first, &[(at("in", 0), Offset(1))])));
    assert!(is_fenced(bench.commit(&first, &[])));
    assert!(is_fenced(bench.abort(&mut first)));
    assert!(is_fenced(bench.cluster.assign(&mut first, &[], now)));
    assert!(is_fenced(bench.cluster.unassign(&mut first, &[Partition(0)], now)));
    assert!(is_fenced(bench.cluster.leave(&first, now)));
    bench.publish("out", 0, "z");
    assert_eq!(bench.seen("out", 0), "z@3");
}

#[test]
fn the_fenced_ones_tasks_go_to_its_successor() {
    let mut bench = Bench::new();
    let _first = bench.worker("a");
    let mut second = bench.join("a");
    let both = vec![Partition(0), Partition(1)];
    assert_eq!(bench.answer(&mut second), Some(Rebalance::Assigned(both)));
}

#[test]
fn who_does_not_poll_loses_its_tasks_and_what_it_was_doing() {
    let mut bench = Bench::new();
    bench.publish("in", 0, "0");
    let mut late = bench.worker("a");
    let mut successor = bench.join("b");
    bench.elapsed += SESSION - SECOND;
    assert_eq!(bench.answer(&mut successor), Some(Rebalance::Assigned(vec![])));
    bench.send(&late, "x").unwrap();
    bench.elapsed += SECOND;
    let both = vec![Partition(0), Partition(1)];
    assert_eq!(bench.answer(&mut successor), Some(Rebalance::Assigned(both.clone())));
    assert!(
        is_abort(bench.commit(&late, &[])),
        "also without offsets: its outputs are another's now"
    );
    assert!(is_abort(bench.commit(&late, &[(at("in", 0), Offset(1))])));
    assert!(is_abort(bench.send(&late, "y")), "not before the abort");
    let lost = Rebalance::Revoked { tasks: both, lost: true };
    assert_eq!(bench.poll(&mut late).unwrap(), Some(lost.clone()));
    bench.abort(&mut late).unwrap();
    assert_eq!(bench.answer(&mut late), Some(lost));
    assert_eq!(bench.seen("out", 0), "");
    assert_eq!(bench.answer(&mut late), Some(Rebalance::Assigned(vec![])), "it is back");
    bench.answer_all(&mut successor);
    bench.answer_all(&mut late);
    assert_eq!((late.tasks(), successor.tasks()), (vec![Partition(1)], vec![Partition(0)]));
    assert_eq!(bench.batch(&mut successor), ["0"]);
}

#[test]
fn an_answer_that_comes_too_late_is_taken_and_then_told_as_lost() {
    let mut bench = Bench::new();
    let mut worker = bench.join("a");
    let Some(Rebalance::Assigned(tasks)) = bench.poll(&mut worker).unwrap() else {
        panic!("it is alone");
    };
    bench.elapsed += SESSION;
    assert!(is_fatal(bench.cluster.assign(&mut worker, &[Partition(7)], bench.now())));
    bench.cluster.assign(&mut worker, &tasks, bench.now()).unwrap();
    assert!(is_abort(bench.commit(&worker, &[(at("in", 0), Offset(0))])));
    let lost = Rebalance::Revoked { tasks, lost: true };
    assert_eq!(bench.answer(&mut worker), Some(lost));
    bench.answer_all(&mut worker);
    assert_eq!(worker.tasks().len(), 2);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_blocks_nobody() {
    let mut bench = Bench::new();
    let mut worker = bench.worker("a");
    bench.send(&worker, "x").unwrap();
    bench.publish("out", 0, "y");
    bench.elapsed += TRANSACTION - SECOND;
    assert_eq!(bench.seen("out", 0), "");
    bench.elapsed += SECOND;
    assert_eq!(bench.seen("out", 0), "y@1");
    assert!(is_abort(bench.send(&worker, "z")));
    assert!(is_abort(bench.commit(&worker, &[])));
    bench.abort(&mut worker).unwrap();
    bench.send(&worker, "w").unwrap();
    bench.commit(&worker, &[]).unwrap();
    assert_eq!(bench.seen("out", 0), "y@1 w@3");
}

#[test]
fn a_commit_is_for_what_one_owns() {
    let mut bench = Bench::new();
    let mut worker = bench.worker("a");
    let _heir = bench.join("b");
    let Some(Rebalance::Revoked { tasks, lost: false }) = bench.poll(&mut worker).unwrap() else {
        panic!("one of two tasks goes to the successor");
    };
    let offsets = [(at("in", tasks[0].0), Offset(0))];
    bench.send(&worker, "x").unwrap();
    bench.commit(&worker, &offsets).unwrap();
    bench.cluster.unassign(&mut worker, &tasks, bench.now()).unwrap();
    bench.send(&worker, "y").unwrap();
    assert!(is_abort(bench.commit(&worker, &offsets)));
    assert!(is_abort(bench.commit(&worker, &[])), "nor without the offsets");
    bench.abort(&mut worker).unwrap();
    assert!(is_fatal(bench.commit(&worker, &[(at("out", 0), Offset(0))])));
    assert_eq!(bench.seen("out", 0), "x@0");
}

#[test]
fn at_least_once_writes_at_once_and_rewinds_only_what_it_reads() {
    let mut bench = Bench::new();
    bench.publish("in", 0, "0");
    let guarantee = ProcessingGuarantee::AtLeastOnce;
    let membership = Membership { guarantee, ..membership("a") };
    let mut worker = bench.cluster.join(&membership, bench.now()).unwrap();
    bench.answer_all(&mut worker);
    assert_eq!(bench.batch(&mut worker), ["0"]);
    bench.send(&worker, "x").unwrap();
    bench.abort(&mut worker).unwrap();
    assert_eq!(bench.batch(&mut worker), ["0"]);
    bench.send(&worker, "x").unwrap();
    bench.commit(&worker, &[(at("in", 0), Offset(1))]).unwrap();
    bench.abort(&mut worker).unwrap();
    assert_eq!(bench.batch(&mut worker), [""; 0]);
    assert_eq!(bench.seen("out", 0), "x@0 x@1");
    bench.cluster.join(&membership, bench.now()).unwrap();
    assert!(is_fenced(bench.commit(&worker, &[(at("in", 0), Offset(1))])));
    bench.send(&worker, "zombie").unwrap();
    assert_eq!(bench.seen("out", 0), "x@0 x@1 zombie@2", "nothing fences a plain producer");
}

#[test]
fn a_group_reads_topics_that_fit() {
    let mut bench = Bench::new();
    let _member = bench.join("a");
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
        let refused = bench.cluster.join(&membership, bench.now());
        let refused = matches!(refused, Err(BrokerError::Fatal(_) | BrokerError::Gone(_)));
        assert!(refused, "{membership:?}");
    }
    bench.elapsed += SESSION;
    assert!(bench.cluster.join(&with("in", "out"), bench.now()).is_ok(), "nobody is left");
}

#[test]
fn a_position_that_was_cut_off_is_reported() {
    let mut bench = Bench::new();
    let worker = bench.worker("a");
    bench.commit(&worker, &[(at("in", 0), Offset(0))]).unwrap();
    let from = ReadFrom::Offset(Offset(3));
    let mut reader = bench.cluster.open(&at("in", 0), from, bench.now()).unwrap();
    for _ in 0..100 {
        bench.publish("in", 0, &"x".repeat(50_000));
    }
    let out_of_range = |result: Result<(), BrokerError>| matches!(result, Err(BrokerError::OutOfRange(source)) if source == at("in", 0));
    let now = bench.now();
    for _ in 0..2 {
        let read = bench.cluster.read(&mut reader, now, &mut Vec::new());
        assert!(out_of_range(read.map(|_| ())), "a reader is to be made anew");
    }
    bench.cluster.leave(&worker, now).unwrap();
    let mut next = bench.join("b");
    bench.answer(&mut next);
    assert!(out_of_range(bench.poll(&mut next).map(|_| ())));
    assert!(bench.batch(&mut next).len() > 1, "a member goes on from the beginning");
    let beyond = ReadFrom::Offset(Offset(101));
    let mut beyond = bench.cluster.open(&at("in", 0), beyond, now).unwrap();
    let read = bench.cluster.read(&mut beyond, now, &mut Vec::new());
    assert!(out_of_range(read.map(|_| ())), "a checkpoint of another broker's log");
}

#[test]
fn the_end_is_news_once() {
    let mut bench = Bench::new();
    let source = at("in", 0);
    let mut reader = bench.cluster.open(&source, ReadFrom::Beginning, bench.now()).unwrap();
    let now = bench.now();
    let mut read =
        |bench: &mut Bench| bench.cluster.read(&mut reader, now, &mut Vec::new()).unwrap();
    assert_eq!(read(&mut bench), (ReadTo::End, true));
    assert_eq!(read(&mut bench), (ReadTo::End, false));
    for _ in 0..1001 {
        bench.publish("in", 0, "x");
    }
    assert_eq!(read(&mut bench), (ReadTo::More, true));
    assert_eq!(read(&mut bench), (ReadTo::End, true));
    assert_eq!(read(&mut bench), (ReadTo::End, false));
    assert!(is_fatal(bench.cluster.open(&at("in", 2), ReadFrom::End, now)));
}

#[test]
fn nobody_waits_past_a_deadline_or_its_own_session() {
    let mut bench = Bench::new();
    assert_eq!(bench.cluster.idle_max(bench.now()), TRANSACTION / 3);
    let worker = bench.worker("a");
    bench.elapsed += SESSION - SECOND - TRANSACTION / 3;
    bench.send(&worker, "x").unwrap();
    bench.elapsed += TRANSACTION / 3;
    assert_eq!(bench.cluster.idle_max(bench.now()), SECOND);
}
