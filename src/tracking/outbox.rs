//! The consumer of what is sent to MLflow. The log is the outbox: a consumer group of its own reads the topics from their
//! beginning, and commits an offset after the server has what is before it.
//!
//! ```text
//!   models, trials, decisions, quality ─▶ backlog, by time ─▶ entry ──▶ sender thread ──▶ MLflow
//!                    ▲                                                      │
//!                    └───────────── commit ◀──────────── done ──────────────┘
//! ```
//!
//! The group subscribes to `models`, which has one partition, so one instance sends at a time. This thread does nothing but
//! poll and commit, so that a slow server does not cost the process its membership.

use std::{sync::Arc, time::Duration};

use crate::{
    events::{codecs::Codecs, decision::Decision, model::Model, quality::Quality, trial::Trial},
    tracking::{
        backlog::Backlog,
        metrics::TrackingMetrics,
        sender::{SenderThread, Sent},
        tracker::Entry,
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Offset, Partition, TopicPartition},
    runtime::{
        GroupConsumer, Recovery, StopSignal,
        broker::{Broker, BrokerError, Isolation, Membership, Rebalance},
    },
    time::Clock,
};

/// The longest wait for records, and for a result.
const WAIT: Duration = Duration::from_millis(50);
/// Time after a broker, or the registry, did not answer.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Time between two requests for the ends of the topics, for the metrics.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two commits of all offsets. A broker deletes those of topics that nobody subscribes to, seven days after their
/// last commit by default.
const COMMIT_ALL_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The time that a cancelled request may take before the partition is given up, less than the time in which a rebalance waits.
/// One that takes longer may be repeated by the next owner, which deletes what is there twice.
const CANCELLING_MAX: Duration = Duration::from_secs(5);
/// Maximum number of windows in one entry.
const WINDOWS_MAX: usize = 50;
/// The only partition of each topic, and the only task of the group.
const TASK: Partition = Partition(0);

/// The codecs of the topics that are sent.
pub struct TrackingCodecs {
    pub(super) trial: Arc<dyn Codec<Trial>>,
    pub(super) model: Arc<dyn Codec<Model>>,
    pub(super) decision: Arc<dyn Codec<Decision>>,
    pub(super) quality: Arc<dyn Codec<Quality>>,
}

impl TrackingCodecs {
    /// Those of all codecs that tracking needs.
    #[must_use]
    pub fn of(codecs: &Codecs) -> Self {
        Self {
            trial: Arc::clone(&codecs.trial),
            model: Arc::clone(&codecs.model),
            decision: Arc::clone(&codecs.decision),
            quality: Arc::clone(&codecs.quality),
        }
    }
}

/// What an outbox is made of.
pub(super) struct OutboxParts {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) membership: Membership,
    /// The topics, in the order in which records of the same time are sent.
    pub(super) backlog: Backlog,
    pub(super) readers: Readers,
    pub(super) sender: SenderThread,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: TrackingMetrics,
}

/// Decodes records of each topic.
pub(super) struct Readers {
    pub(super) trials: TopicPartition,
    pub(super) models: TopicPartition,
    pub(super) decisions: TopicPartition,
    pub(super) codecs: TrackingCodecs,
    /// Whether trials are sent.
    pub(super) with_trials: bool,
    /// Whether live metrics are sent.
    pub(super) with_quality: bool,
}

/// Why a record makes no entry.
enum NoEntry {
    /// It is a tombstone, or of a kind that is not sent.
    Skipped,
    /// It can never be decoded.
    Unreadable { kind: &'static str, problem: String },
    /// The registry does not answer.
    Unavailable(String),
}

/// An entry that is being sent.
struct InFlight {
    cancel: StopSignal,
    /// The offset after its records.
    next: (TopicPartition, Offset),
}

/// The outbox before its thread runs.
pub struct Outbox(OutboxParts);

impl Outbox {
    pub(super) fn new(parts: OutboxParts) -> Self {
        Self(parts)
    }

    /// Sends until `stop`, and leaves the group.
    ///
    /// # Errors
    /// If an operator must act.
    pub fn run(self, stop: &StopSignal) -> Result<(), BrokerError> {
        // The member belongs to this thread.
        Consumer::new(self.0).run(stop)
    }
}

struct Consumer {
    parts: OutboxParts,
    group: GroupConsumer,
    is_assigned: bool,
    in_flight: Option<InFlight>,
    /// The result of a cancelled entry has not come yet.
    is_abandoned: bool,
    next_decode: Duration,
    next_observation: Duration,
    next_commit_of_all: Duration,
}

impl Consumer {
    fn new(parts: OutboxParts) -> Self {
        let next_commit_of_all = parts.clock.elapsed() + COMMIT_ALL_INTERVAL;
        let group = GroupConsumer::new(Arc::clone(&parts.broker), parts.membership.clone());
        Self {
            parts,
            group,
            is_assigned: false,
            in_flight: None,
            is_abandoned: false,
            next_decode: Duration::ZERO,
            next_observation: Duration::ZERO,
            next_commit_of_all,
        }
    }

    fn run(mut self, stop: &StopSignal) -> Result<(), BrokerError> {
        while !stop.is_stopped() {
            if let Err(error) = self.turn() {
                self.recover(error)?;
            }
            if !self.group.is_settled() {
                stop.wait(TRY_AGAIN_AFTER);
            }
        }
        self.cancel();
        let committed = self.commit();
        let left = self.group.leave();
        if let Err(error) = committed.and(left) {
            tracing::warn!(%error, "cannot commit and leave the group: the last records are sent to MLflow again");
        }
        if self.is_abandoned {
            tracing::warn!(
                "a request to MLflow is still open: it is repeated after the next start"
            );
        } else {
            self.parts.sender.join();
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), BrokerError> {
        let mut records = Vec::new();
        let polled = self.group.poll(WAIT, &mut records);
        for record in records {
            self.parts.backlog.push(record);
        }
        if let Some(rebalance) = polled? {
            self.rebalance(rebalance)?;
        }
        self.take_result(Duration::ZERO);
        self.start();
        self.commit()?;
        self.pause_and_resume()?;
        self.observe();
        Ok(())
    }

    fn rebalance(&mut self, rebalance: Rebalance) -> Result<(), BrokerError> {
        match rebalance {
            Rebalance::Assigned(tasks) => {
                self.group.joined()?.assign(&tasks)?;
                self.group.answered();
                if tasks.is_empty() {
                    return Ok(());
                }
                let sources: Vec<TopicPartition> = self.parts.backlog.sources().cloned().collect();
                let broker = &self.parts.broker;
                let ends =
                    sources.iter().map(|source| broker.end(source, Isolation::ReadCommitted));
                // Without the ends, the records at hand are sent in their order.
                let ends = ends.collect::<Result<Vec<_>, _>>().unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot read the ends of the topics for MLflow");
                    Vec::new()
                });
                self.parts.backlog.assign(&ends);
                self.is_assigned = true;
                self.parts.metrics.begins();
                tracing::info!("this instance sends to MLflow");
            }
            Rebalance::Revoked { tasks, lost } => {
                self.cancel();
                if lost {
                    self.group.to_commit.clear();
                } else if let Err(error) = self.commit() {
                    tracing::warn!(%error, "cannot commit before a rebalance: records are sent to MLflow again");
                }
                self.release();
                self.group.joined()?.unassign(&tasks)?;
                self.group.answered();
            }
        }
        Ok(())
    }

    /// Cancels the entry in flight, and waits a while for its result.
    fn cancel(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.cancel.stop();
            self.take_result(CANCELLING_MAX);
        }
        if self.in_flight.take().is_some() {
            self.is_abandoned = true;
        }
    }

    /// Forgets what was read and is not committed.
    fn forget(&mut self) {
        self.parts.backlog.clear();
        self.group.to_commit.clear();
        self.parts.metrics.lag(0);
    }

    /// Forgets the assignment, too.
    fn release(&mut self) {
        self.forget();
        self.is_assigned = false;
        self.parts.metrics.ends();
    }

    fn take_result(&mut self, wait: Duration) {
        if self.in_flight.is_none() && !self.is_abandoned {
            return;
        }
        let Some(sent) = self.parts.sender.result(wait) else { return };
        if std::mem::take(&mut self.is_abandoned) {
            return;
        }
        if let Some(InFlight { next: (source, next), .. }) = self.in_flight.take()
            && sent == Sent::Done
        {
            self.group.to_commit.insert(source, next);
        }
    }

    /// Hands the next entry to the sender, if it has none.
    fn start(&mut self) {
        let now = self.parts.clock.elapsed();
        if self.in_flight.is_some() || self.is_abandoned || now < self.next_decode {
            return;
        }
        let mut windows: Option<(Vec<Quality>, (TopicPartition, Offset))> = None;
        while let Some(record) = self.next_record() {
            let next = (record.source.clone(), record.offset.next());
            if windows.as_ref().is_some_and(|(_, last)| last.0 != record.source) {
                break;
            }
            let entry = match self.parts.readers.read(&record) {
                Ok(entry) => Some(entry),
                Err(NoEntry::Skipped) => None,
                Err(NoEntry::Unreadable { kind, problem }) => {
                    self.parts.metrics.failed(kind, 1);
                    tracing::error!(source = %record.source, offset = %record.offset, problem, "skipping a record for MLflow that cannot be read");
                    None
                }
                Err(NoEntry::Unavailable(reason)) => {
                    tracing::warn!(
                        reason,
                        "cannot decode a record for MLflow just now: trying again"
                    );
                    self.next_decode = now + TRY_AGAIN_AFTER;
                    break;
                }
            };
            match (entry, &mut windows) {
                (None, None) => {
                    self.group.to_commit.insert(next.0, next.1);
                }
                (None, Some((_, last))) => *last = next,
                (Some(Entry::Quality(window)), Some((gathered, last)))
                    if gathered.len() < WINDOWS_MAX =>
                {
                    gathered.extend(window);
                    *last = next;
                }
                (Some(Entry::Quality(window)), None) => windows = Some((window, next)),
                (Some(_), Some(_)) => break,
                (Some(entry), None) => {
                    self.parts.backlog.remove(&record.source);
                    return self.send(entry, next);
                }
            }
            self.parts.backlog.remove(&record.source);
        }
        if let Some((gathered, next)) = windows {
            self.send(Entry::Quality(gathered), next);
        }
    }

    fn next_record(&self) -> Option<InputRecord> {
        let member = self.group.member().filter(|_| self.is_assigned)?;
        self.parts.backlog.next(|source| member.position(source)).cloned()
    }

    fn send(&mut self, entry: Entry, next: (TopicPartition, Offset)) {
        let cancel = self.parts.sender.send(entry);
        self.in_flight = Some(InFlight { cancel, next });
    }

    fn commit(&mut self) -> Result<(), BrokerError> {
        let now = self.parts.clock.elapsed();
        if self.is_assigned && now >= self.next_commit_of_all {
            self.next_commit_of_all = now + COMMIT_ALL_INTERVAL;
            self.add_idle();
        }
        if self.group.to_commit.is_empty() {
            return Ok(());
        }
        self.group.commit()
    }

    /// Adds the offsets of all topics to those that are committed next.
    fn add_idle(&mut self) {
        let Some(member) = self.group.member() else { return };
        let in_flight = self.in_flight.as_ref().map(|in_flight| &in_flight.next.0);
        let firsts = self.parts.backlog.firsts();
        let offsets = firsts.map(|(source, first)| {
            (source.clone(), first.unwrap_or_else(|| member.position(source)))
        });
        let idle = offsets.filter(|(source, offset)| offset.0 > 0 && in_flight != Some(source));
        let idle: Vec<_> = idle.collect();
        for (source, offset) in idle {
            self.group.to_commit.entry(source).or_insert(offset);
        }
    }

    fn pause_and_resume(&mut self) -> Result<(), BrokerError> {
        if !self.is_assigned {
            return Ok(());
        }
        let [pause, resume] = self.parts.backlog.to_pause_and_resume();
        if !pause.is_empty() {
            self.group.joined()?.pause(&pause)?;
            self.parts.backlog.set_paused(&pause, true);
        }
        if !resume.is_empty() {
            self.group.joined()?.resume(&resume)?;
            self.parts.backlog.set_paused(&resume, false);
        }
        Ok(())
    }

    fn observe(&mut self) {
        let now = self.parts.clock.elapsed();
        if !self.is_assigned || now < self.next_observation {
            return;
        }
        self.next_observation = now + OBSERVE_INTERVAL;
        let Some(member) = self.group.member() else { return };
        let mut lag = i64::from(self.in_flight.is_some());
        lag += i64::try_from(self.parts.backlog.len()).unwrap_or(i64::MAX);
        for source in self.parts.backlog.sources() {
            // A broker that does not answer is in the log by other threads.
            let Ok(end) = self.parts.broker.end(source, Isolation::ReadCommitted) else { return };
            lag = lag.saturating_add((end.0 - member.position(source).0).max(0));
        }
        self.parts.metrics.lag(lag);
    }

    /// Recovers from the failure of a turn, by the name of the error.
    fn recover(&mut self, error: BrokerError) -> Result<(), BrokerError> {
        match self.group.recover(error)? {
            Recovery::Retry(reason) => {
                tracing::warn!(reason, "cannot read or commit for MLflow now; retrying");
            }
            Recovery::Rewound(reason) => {
                tracing::warn!(
                    reason,
                    "reading again what is sent to MLflow, from the last commit"
                );
                self.cancel();
                self.forget();
            }
            Recovery::Rejoins(error) => {
                tracing::warn!(%error, "fenced: joining the group for MLflow again");
                self.cancel();
                self.release();
            }
            Recovery::Skipped(input) => {
                tracing::error!(%input, "records were deleted before they were sent to MLflow");
            }
        }
        Ok(())
    }
}

impl Readers {
    fn read(&self, record: &InputRecord) -> Result<Entry, NoEntry> {
        let Some(bytes) = &record.value else { return Err(NoEntry::Skipped) };
        let codecs = &self.codecs;
        if record.source == self.trials {
            if !self.with_trials {
                return Err(NoEntry::Skipped);
            }
            return decoded(&codecs.trial, bytes, "trial").map(Box::new).map(Entry::Trial);
        }
        if record.source == self.models {
            return decoded(&codecs.model, bytes, "model").map(Box::new).map(Entry::Model);
        }
        if record.source == self.decisions {
            return decoded(&codecs.decision, bytes, "decision").map(Box::new).map(Entry::Decision);
        }
        if !self.with_quality {
            return Err(NoEntry::Skipped);
        }
        decoded(&codecs.quality, bytes, "quality").map(|window| Entry::Quality(vec![window]))
    }
}

fn decoded<T>(codec: &Arc<dyn Codec<T>>, bytes: &[u8], kind: &'static str) -> Result<T, NoEntry> {
    match codec.decode(bytes) {
        Ok(value) => Ok(value),
        Err(CodecError::Unavailable { message }) => Err(NoEntry::Unavailable(message)),
        Err(error @ (CodecError::Unreadable { .. } | CodecError::OtherFormat { .. })) => {
            Err(NoEntry::Unreadable { kind, problem: error.to_string() })
        }
    }
}

/// The task of the group, which has all topics.
pub(super) fn only_partition(topic: &foretell_streams::record::Topic) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: TASK }
}
