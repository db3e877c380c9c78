//! The loop of `foretell deliver`: reads actions as a member of a group, hands them to the channels, and commits.
//!
//! ```text
//!   poll ─▶ backlog of each partition ─▶ Deliveries ──Next──▶ threads of the channels ──▶ receivers
//!              (bytes; paused while there   ▲   │                      │
//!               is no room in Deliveries)   └───│──── result ──────────┘
//!                                               └─▶ dead letters, then the offset before the first open delivery
//! ```
//!
//! A crash at any time loses nothing: what was not committed is read again by the next owner, and sent with the same idempotency
//! key. That are at most `in_flight_max` records of each partition.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::app::deliver::{
    channel::{Attempted, Threads},
    deliveries::{Deliveries, Finished, Next, Now},
    metrics::DeliveryMetrics,
    outcome::Rejection,
    reader::{ActionReader, Read},
    readiness::Readiness,
};
use foretell_streams::{
    record::{InputRecord, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        GroupConsumer, Recovery, StopSignal,
        broker::{Broker, BrokerError, Membership, Rebalance},
    },
    task::dead_letter,
    time::{Clock, EventTime},
};

/// The longest wait for records: a result of a channel is taken after it. Shorter while attempts are made.
const IDLE_WAIT: Duration = Duration::from_millis(50);
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// Time between two commits, if there is something to commit. A crash repeats what was delivered since.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two looks at all open deliveries, for the metrics.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// Time after a broker, or the registry, did not answer.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The time that attempts may take at a stop, less than a supervisor waits (30 s in Kubernetes). An attempt that takes longer is
/// repeated after the next start.
const STOPPING_MAX: Duration = Duration::from_secs(20);

/// What a consumer is made of.
pub(super) struct ConsumerParts {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) membership: Membership,
    pub(super) reader: ActionReader,
    pub(super) deliveries: Deliveries,
    pub(super) threads: Threads,
    /// The names of the channels.
    pub(super) channels: Vec<String>,
    pub(super) dead_letters: Topic,
    pub(super) in_flight_max: usize,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: DeliveryMetrics,
    pub(super) readiness: Readiness,
}

/// The consumer of the topic of actions.
pub(super) struct Consumer {
    parts: ConsumerParts,
    group: GroupConsumer,
    /// Records that were polled and are not among the deliveries, of the assigned partitions.
    backlog: BTreeMap<Partition, VecDeque<InputRecord>>,
    paused: BTreeSet<Partition>,
    /// Dead letters that were not sent: at most one for each delivery and record in flight.
    dead_letters: VecDeque<OutputRecord>,
    next_commit: Duration,
    next_observation: Duration,
    /// Records are decoded again from this time on.
    next_decode: Duration,
}

impl Consumer {
    /// A consumer that has not joined the group yet.
    pub(super) fn new(parts: ConsumerParts) -> Self {
        let zero = Duration::ZERO;
        let group = GroupConsumer::new(Arc::clone(&parts.broker), parts.membership.clone());
        Self {
            parts,
            group,
            backlog: BTreeMap::new(),
            paused: BTreeSet::new(),
            dead_letters: VecDeque::new(),
            next_commit: zero,
            next_observation: zero,
            next_decode: zero,
        }
    }

    /// Delivers until `stop`, then only what keeps delivered records from being committed; commits and leaves the group.
    ///
    /// # Errors
    /// If an operator must act. What was not committed is delivered again after the next start.
    pub(super) fn run(mut self, stop: &StopSignal) -> Result<(), BrokerError> {
        while !stop.is_stopped() {
            if let Err(error) = self.turn(false) {
                self.recover(error)?;
            }
            if !self.group.is_settled() {
                stop.wait(TRY_AGAIN_AFTER);
            }
        }
        let deadline = self.parts.clock.elapsed() + STOPPING_MAX;
        while self.group.member().is_some() || self.parts.deliveries.sending() > 0 {
            if let Err(error) = self.turn(true) {
                tracing::warn!(%error, "while stopping");
                break;
            }
            if self.parts.deliveries.sending() == 0 || self.parts.clock.elapsed() >= deadline {
                break;
            }
        }
        self.next_commit = Duration::ZERO;
        let committed = self.commit();
        let left = self.group.leave();
        if let Err(error) = committed.and(left) {
            tracing::warn!(%error, "cannot commit and leave the group: the last deliveries are repeated");
        }
        if self.parts.deliveries.sending() == 0 {
            self.parts.threads.join();
        } else {
            tracing::warn!("attempts are still open: they are repeated after the next start");
        }
        Ok(())
    }

    fn turn(&mut self, is_stopping: bool) -> Result<(), BrokerError> {
        let wait = if self.parts.deliveries.sending() > 0 { BUSY_WAIT } else { IDLE_WAIT };
        let mut records = Vec::new();
        let polled = self.group.poll(wait, &mut records);
        for record in records {
            // Records are of assigned partitions only.
            if let Some(backlog) = self.backlog.get_mut(&record.source.partition) {
                backlog.push_back(record);
            }
        }
        if let Some(rebalance) = polled? {
            self.rebalance(rebalance)?;
        }
        self.take_results()?;
        if !is_stopping {
            self.admit();
        }
        self.start(is_stopping);
        self.commit()?;
        self.pause_and_resume()?;
        self.observe();
        Ok(())
    }

    fn rebalance(&mut self, rebalance: Rebalance) -> Result<(), BrokerError> {
        match rebalance {
            Rebalance::Assigned(partitions) => {
                self.group.joined()?.assign(&partitions)?;
                self.group.answered();
                for partition in &partitions {
                    self.backlog.insert(*partition, VecDeque::new());
                }
                // An assignment leaves them paused.
                self.paused.extend(&partitions);
                self.parts.readiness.set_joined();
                tracing::info!(?partitions, "assigned");
            }
            Rebalance::Revoked { tasks, lost } => {
                if lost {
                    tracing::warn!(partitions = ?tasks, "the session timed out: the new owner delivers again what was not committed");
                } else if let Err(error) = self.commit_now() {
                    tracing::warn!(%error, "cannot commit before a rebalance: the new owner delivers again");
                }
                for partition in &tasks {
                    self.forget(*partition);
                }
                self.group.joined()?.unassign(&tasks)?;
                self.group.answered();
                tracing::info!(partitions = ?tasks, "revoked");
            }
        }
        Ok(())
    }

    fn forget(&mut self, partition: Partition) {
        self.parts.deliveries.forget(partition);
        self.backlog.remove(&partition);
        self.paused.remove(&partition);
        self.group.to_commit.retain(|input, _| input.partition != partition);
    }

    fn inputs(&self, partitions: &[Partition]) -> Vec<TopicPartition> {
        let membership = &self.parts.membership;
        partitions.iter().flat_map(|partition| membership.inputs_of(*partition)).collect()
    }

    /// Decodes records while there is room for their deliveries. A record that is no action to deliver has none.
    fn admit(&mut self) {
        let now = Now::of(self.parts.clock.as_ref());
        if now.elapsed < self.next_decode {
            return;
        }
        let mut unreadable = Vec::new();
        'partitions: for (partition, backlog) in &mut self.backlog {
            while self.parts.deliveries.records_of(*partition) < self.parts.in_flight_max {
                let Some(record) = backlog.front() else { break };
                let action = match self.parts.reader.read(record) {
                    Read::Due(action) => Some(action),
                    Read::NotDue => None,
                    Read::Unreadable { class, schema_id, message } => {
                        self.parts.metrics.unreadable(class);
                        tracing::warn!(source = %record.source, offset = %record.offset, class, message, "dead letter");
                        unreadable.push((record.clone(), class, schema_id, message));
                        None
                    }
                    Read::Unavailable(message) => {
                        tracing::warn!(message, "cannot decode an action just now: trying again");
                        self.next_decode = now.elapsed + TRY_AGAIN_AFTER;
                        // Each try may take the time limit of the registry, and the group must be polled.
                        break 'partitions;
                    }
                };
                self.parts.deliveries.accept(*partition, record.offset, action, now);
                backlog.pop_front();
            }
        }
        for (record, class, schema_id, message) in unreadable {
            self.dead_letter(&record, (class, schema_id), message);
        }
    }

    /// Begins the attempts that are due, and rejects what is no longer delivered.
    fn start(&mut self, is_stopping: bool) {
        let now = Now::of(self.parts.clock.as_ref());
        let deliveries = &mut self.parts.deliveries;
        let mut next = || match is_stopping {
            true => deliveries.next_before_stop(now),
            false => deliveries.next(now),
        };
        let next: Vec<Next> = std::iter::from_fn(&mut next).collect();
        for next in next {
            match next {
                Next::Attempt { id, channel, action } => {
                    self.parts.threads.attempt(id, channel, action);
                }
                Next::Reject { channel, action, rejection } => {
                    self.reject(channel, &action.record, rejection);
                }
            }
        }
    }

    fn take_results(&mut self) -> Result<(), BrokerError> {
        let results: Vec<Attempted> = self.parts.threads.results().collect();
        for Attempted { id, channel, outcome, seconds } in results {
            let name = &self.parts.channels[channel];
            self.parts.metrics.attempted(name, seconds);
            let Some(outcome) = outcome else {
                let problem = format!("channel {name} panicked; the log has the details");
                return Err(BrokerError::Fatal(problem));
            };
            let reason = outcome.reason().unwrap_or_default().to_owned();
            let now = Now::of(self.parts.clock.as_ref());
            match self.parts.deliveries.finished(id, channel, outcome, now) {
                Finished::Delivered => self.parts.metrics.delivered(name),
                Finished::Waits(wait) => {
                    self.parts.metrics.retried(name);
                    tracing::warn!(channel = name, reason, ?wait, "delivery failed: trying again");
                }
                Finished::Rejected(action, rejection) => {
                    self.reject(channel, &action.record, rejection);
                }
                Finished::Unknown => {}
            }
        }
        Ok(())
    }

    /// Counts and dead-letters an action that is not delivered on a channel.
    fn reject(&mut self, channel: usize, record: &InputRecord, rejection: Rejection) {
        let channel = &self.parts.channels[channel];
        let Rejection { class, reason } = rejection;
        self.parts.metrics.rejected(channel, class);
        tracing::warn!(channel, class, reason, source = %record.source, offset = %record.offset, "dead letter");
        let message = format!("channel {channel}: {reason}");
        self.dead_letter(record, (class, None), message);
    }

    fn dead_letter(
        &mut self,
        record: &InputRecord,
        reason: (&'static str, Option<u32>),
        message: String,
    ) {
        let written_at = EventTime(self.parts.clock.now().0);
        let topic = &self.parts.dead_letters;
        let letter = dead_letter::of_input(topic, record, reason, message, written_at);
        self.dead_letters.push_back(letter);
    }

    /// Sends the dead letters. The commit after it waits until they are written.
    fn send_dead_letters(&mut self) -> Result<(), BrokerError> {
        if self.dead_letters.is_empty() {
            return Ok(());
        }
        let member = self.group.joined()?;
        while let Some(letter) = self.dead_letters.front() {
            match member.send(letter.as_ref()) {
                Err(BrokerError::Unsendable { reason, .. }) => {
                    tracing::warn!(
                        reason,
                        "dead letter is too large: sending it without value and original headers"
                    );
                    let letter = dead_letter::without_value(letter.clone());
                    member.send(letter.as_ref())?;
                }
                sent => sent?,
            }
            self.dead_letters.pop_front();
        }
        Ok(())
    }

    /// Commits what is closed, if it is time.
    fn commit(&mut self) -> Result<(), BrokerError> {
        let now = self.parts.clock.elapsed();
        if now < self.next_commit {
            return Ok(());
        }
        self.next_commit = now + COMMIT_INTERVAL;
        self.commit_now()
    }

    fn commit_now(&mut self) -> Result<(), BrokerError> {
        let lead = &self.parts.membership.lead;
        let committable = self.parts.deliveries.take_committable().into_iter();
        let committable = committable
            .map(|(partition, offset)| (TopicPartition { topic: lead.clone(), partition }, offset));
        self.group.to_commit.extend(committable);
        if self.group.to_commit.is_empty() && self.dead_letters.is_empty() {
            return Ok(());
        }
        self.send_dead_letters()?;
        self.group.commit()
    }

    /// Pauses the partitions whose records have no room, and resumes the others.
    fn pause_and_resume(&mut self) -> Result<(), BrokerError> {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, backlog) in &self.backlog {
            match (backlog.is_empty(), self.paused.contains(partition)) {
                (false, false) => pause.push(*partition),
                (true, true) => resume.push(*partition),
                (true, false) | (false, true) => {}
            }
        }
        if !pause.is_empty() {
            let inputs = self.inputs(&pause);
            self.group.joined()?.pause(&inputs)?;
            self.paused.extend(&pause);
        }
        if !resume.is_empty() {
            let inputs = self.inputs(&resume);
            self.group.joined()?.resume(&inputs)?;
            self.paused.retain(|partition| !resume.contains(partition));
        }
        Ok(())
    }

    fn observe(&mut self) {
        let now = Now::of(self.parts.clock.as_ref());
        if now.elapsed < self.next_observation {
            return;
        }
        self.next_observation = now.elapsed + OBSERVE_INTERVAL;
        let backlog = self.parts.deliveries.backlog();
        for (name, (open, oldest)) in self.parts.channels.iter().zip(backlog) {
            let age = oldest.map_or(Duration::ZERO, |oldest| now.wall.since(oldest));
            self.parts.metrics.open(name, open, age);
        }
    }

    /// Recovers from the failure of a turn, by the name of the error.
    fn recover(&mut self, error: BrokerError) -> Result<(), BrokerError> {
        match self.group.recover(error)? {
            Recovery::Retry(reason) => tracing::warn!(reason, "trying again"),
            Recovery::Rewound(reason) => {
                tracing::warn!(reason, "reading again from the last commit");
                self.forget_deliveries();
            }
            Recovery::Rejoins(error) => {
                tracing::warn!(%error, "joining the group again");
                self.forget_deliveries();
                self.backlog.clear();
                self.paused.clear();
            }
            Recovery::Skipped(input) => {
                tracing::error!(%input, "actions were deleted before they were delivered");
            }
        }
        Ok(())
    }

    /// Forgets what was read since the last commit, and keeps the assignment.
    fn forget_deliveries(&mut self) {
        self.parts.deliveries.forget_all();
        self.backlog.values_mut().for_each(VecDeque::clear);
        self.dead_letters.clear();
    }
}
