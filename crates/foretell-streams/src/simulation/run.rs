//! One simulation: instances, a manual clock, and the faults of one seed. `settle` checks the result.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    local::{LocalBroker, LocalSettings},
    metrics::StreamsMetrics,
    record::{Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        Standby, StandbyParts, StatusBoard, Worker, WorkerParts, WorkerSettings, WorkerStatus,
        broker::{Broker, Cleanup, Membership, ProcessingGuarantee, TopicSpec},
    },
    simulation::{
        disk::{Disk, SimulatedStores},
        fault_injector::{Bug, Fault, FaultCounts, FaultInjector},
        faulty_broker::FaultyBroker,
        faulty_calls::FaultyCalls,
        model::Model,
        planted_bugs,
        process::Process,
        processes::{self, Instance},
        workload::{self, Attempts, POISON, WINDOW},
    },
    state::StoreSupplier,
    time::{Clock, EventTime, ManualClock, WallTime},
    topology::Topology,
};

const STEPS: usize = 4_000;
/// One seed in this many has no crashes.
const NO_CRASHES_EVERY: u64 = 4;
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than a session, as `LocalSettings` recommends.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);
const INPUTS: [&str; 2] = ["in", "side"];
const NAMES: [&str; 3] = ["a", "b", "c"];
/// One more than there are names: a stalled instance may have a successor with the same name.
const INSTANCES_MAX: usize = 4;
/// Longer than every session and transaction, in milliseconds.
const OUTAGE_MAX_MS: u64 = 15_000;
/// Longer than the default: a commit follows a batch early, and more should be uncommitted when a fault comes.
const COMMIT_INTERVAL: Duration = Duration::from_millis(120);
const START: WallTime = WallTime(1_000_000_000);
/// Maximum lead of a producer's clock, in milliseconds: far more than the clock tolerance of stream time.
pub(super) const FAST_CLOCK_MAX_MS: u64 = 60_000;
/// Records in a burst: more than are processed at once, so that there is work while an instance is stalled.
const BURST: u32 = 30;
/// Backfilled records of each topic and partition.
const BACKFILL_RECORDS: u32 = 40;
/// Event time between two backfilled records: far more than a window.
const BACKFILL_EVERY: Duration = Duration::from_secs(3_600);

/// The settings of a simulation besides its seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) guarantee: ProcessingGuarantee,
    pub(super) bug: Option<Bug>,
    pub(super) favoured: Option<Fault>,
    pub(super) transaction_timeout: Duration,
}

/// The state of one simulation.
pub(super) struct Simulation {
    pub(super) clock: Arc<ManualClock>,
    pub(super) guarantee: ProcessingGuarantee,
    pub(super) broker: LocalBroker,
    pub(super) faults: Arc<FaultInjector>,
    pub(super) topology: Arc<Topology>,
    pub(super) partitions: u32,
    /// By the name of the instance.
    pub(super) disks: BTreeMap<&'static str, Disk>,
    pub(super) has_standbys: bool,
    /// Whether the last windows must close without another record.
    pub(super) falls_silent: bool,
    /// No instance crashes, is killed, or stops.
    has_no_crashes: bool,
    zombies: u32,
    hanging_transaction_one_in: u64,
    /// The step at which all topics are recreated.
    recreate_topics_at: Option<usize>,
    /// With a small limit, changelogs are flushed before the commit.
    pub(super) changes_pending_max: usize,
    pub(super) model: Model,
    pub(super) attempts: Attempts,
    pub(super) ends: BTreeMap<TopicPartition, Offset>,
    pub(super) values: u64,
}

/// The result of a seed: the log of all events and everything that was committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    log: String,
    pub(super) fault_counts: FaultCounts,
    pub(super) records: u64,
    /// The number of tasks whose changelogs a zombie has written to.
    pub(super) zombie_tasks: usize,
}

pub(super) fn simulate(seed: u64, setting: Setting) -> Result<Outcome, String> {
    processes::clear();
    let mut simulation = Simulation::new(seed, setting);
    let result = simulation.run_fault_phase().and_then(|()| simulation.settle());
    processes::clear();
    let log = simulation.faults.log().clone();
    match result {
        Ok(contents) => Ok(Outcome {
            log: log + &contents,
            fault_counts: simulation.faults.fault_counts(),
            records: simulation.values,
            zombie_tasks: simulation.faults.zombie_tasks().len(),
        }),
        Err(violation) => {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            Err(format!("seed {seed}: {violation}\n{last}"))
        }
    }
}

impl Simulation {
    fn new(seed: u64, setting: Setting) -> Self {
        let Setting { guarantee, bug, favoured, transaction_timeout } = setting;
        let clock = Arc::new(ManualClock::at(START));
        let has_no_crashes = seed.is_multiple_of(NO_CRASHES_EVERY);
        let faults =
            Arc::new(FaultInjector::new(seed, bug, favoured, has_no_crashes, Arc::clone(&clock)));
        let settings = LocalSettings {
            session_timeout: SESSION_TIMEOUT,
            transaction_timeout,
            compaction_bytes_min: 2_000,
            batch_records_max: [3, 20, 1_000][usize::try_from(faults.roll(3)).unwrap()],
            ..LocalSettings::default()
        };
        let broker = LocalBroker::with_settings(
            Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>,
            settings,
        );
        let attempts = Attempts::default();
        let topology = Arc::new(workload::topology(&attempts, bug));
        let partitions = u32::try_from(1 + faults.roll(4)).unwrap();
        let hanging_transaction_one_in =
            if faults.favours(Fault::HangingTransaction) { 2 } else { 4 };
        let recreates_topics =
            matches!(seed % 4, 1 | 2) || favoured == Some(Fault::TopicsRecreated);
        let recreate_topics_at =
            recreates_topics.then(|| usize::try_from(50 + faults.roll(1_000)).unwrap());
        let plain = ["in", "side", "out", "dead"].map(|name| (Topic::new(name), false));
        let changelogs = topology.changelogs().into_iter().map(|name| (name, true));
        let specs = plain.into_iter().chain(changelogs).map(|(name, is_compact)| TopicSpec {
            name,
            partitions,
            cleanup: match is_compact {
                true => Cleanup::Compact,
                false => Cleanup::Delete { retention: None },
            },
            message_bytes_max: None,
        });
        broker.create_topics(&specs.collect::<Vec<_>>()).unwrap();
        Self {
            clock,
            guarantee,
            broker,
            faults,
            topology,
            partitions,
            disks: BTreeMap::new(),
            has_standbys: seed.is_multiple_of(2),
            falls_silent: seed % 4 < 2,
            has_no_crashes,
            zombies: 0,
            hanging_transaction_one_in,
            recreate_topics_at,
            changes_pending_max: if seed.is_multiple_of(3) { 2 } else { 20 },
            model: Model::default(),
            attempts,
            ends: BTreeMap::new(),
            values: 0,
        }
    }

    /// The fault phase: random input, faults and turns of the instances.
    fn run_fault_phase(&mut self) -> Result<(), String> {
        if self.faults.one_in(2) {
            self.publish_backfill();
        }
        for step in 0..STEPS {
            if self.recreate_topics_at == Some(step) {
                self.recreate_topics();
            }
            let span = if self.faults.one_in(40) { 2_000 } else { 30 };
            self.clock.advance(Duration::from_millis(self.faults.roll(span)));
            self.update_recovering();
            match self.faults.roll(100) {
                0 => (0..BURST).for_each(|_| self.publish_random()),
                1..30 => self.publish_random(),
                30..33 => self.start(),
                33..36 => self.act_on_some(Self::stall)?,
                36 if !self.has_no_crashes => self.act_on_some(Self::kill)?,
                37 if !self.has_no_crashes => self.act_on_one(Self::stop)?,
                38 if self.faults.one_in(4) => self.begin_outage(),
                39 if self.faults.one_in(self.hanging_transaction_one_in) => {
                    self.leave_transaction_open();
                }
                _ => self.act_on_one(Self::turn)?,
            }
            if let Some(violation) = self.faults.violation() {
                return Err(violation);
            }
        }
        Ok(())
    }

    /// Deletes and recreates all topics while no instance is running. The stores on the disks belong to the old topics.
    fn recreate_topics(&mut self) {
        self.faults.log_event(format_args!("all topics are recreated"));
        self.faults.count(Fault::TopicsRecreated);
        processes::clear();
        let topics = INPUTS.into_iter().chain(["out", "dead"]).map(Topic::new);
        for topic in topics.chain(self.topology.changelogs()) {
            self.broker.recreate_topic(&topic);
        }
        self.model = Model::default();
        self.attempts.lock().unwrap().clear();
        self.ends.clear();
        self.faults.clear_zombie_writes();
        self.faults.disturb();
        if self.faults.one_in(2) {
            self.publish_backfill();
        }
    }

    /// Updates whether an instance is still recovering from an earlier fault.
    fn update_recovering(&self) {
        let is_recovering =
            |one: &Instance| !one.board.read().values().all(WorkerStatus::is_running);
        self.faults.set_recovering(self.faults.is_outage() || processes::has(is_recovering));
    }

    /// Makes the broker unavailable to all processes for a while.
    fn begin_outage(&self) {
        let span = Duration::from_millis(self.faults.roll(OUTAGE_MAX_MS));
        self.faults.log_event(format_args!("the broker is unavailable for {span:?}"));
        self.faults.count(Fault::Outage);
        self.faults.begin_outage(span);
        self.faults.disturb();
    }

    /// Writes to a changelog as a zombie of another group, whose transaction stays open until it times out.
    fn leave_transaction_open(&mut self) {
        let changelogs = self.topology.changelogs();
        let index = usize::try_from(self.faults.roll(changelogs.len() as u64)).unwrap();
        let partition = i32::try_from(self.faults.roll(u64::from(self.partitions))).unwrap();
        self.zombies += 1;
        let membership = Membership {
            group: "zombies".to_owned(),
            member: self.zombies.to_string(),
            lead: self.topology.lead().clone(),
            co_partitioned: self.topology.co_partitioned(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        };
        let record = OutputRecord {
            topic: changelogs[index].clone(),
            partition: Some(Partition(partition)),
            timestamp: EventTime(0),
            key: Some(b"zombie".to_vec()),
            value: Some(Vec::new()),
            headers: Vec::new(),
        };
        let zombie = self.broker.join(&membership);
        let sent = zombie.and_then(|mut zombie| zombie.send(record.as_ref()));
        sent.expect("a new member may send");
        self.faults.log_event(format_args!("a zombie writes to {} {partition}", record.topic));
        self.faults.count(Fault::HangingTransaction);
    }

    fn stall(&mut self, at: usize) -> Result<(), String> {
        let span = Duration::from_millis(self.faults.roll(20_000));
        self.faults.log_event(format_args!("number {at} stalls {span:?}"));
        self.faults.count(Fault::Stalled);
        processes::stall(at, self.clock.elapsed() + span);
        self.faults.disturb();
        Ok(())
    }

    fn kill(&mut self, at: usize) -> Result<(), String> {
        let killed = processes::remove(at);
        self.faults.log_event(format_args!("{} is killed", killed.process.name));
        self.faults.count(Fault::Killed);
        self.faults.disturb();
        Ok(())
    }

    pub(super) fn turn(&mut self, at: usize) -> Result<(), String> {
        processes::turn(at, &self.faults)
    }

    fn stop(&mut self, at: usize) -> Result<(), String> {
        processes::stop(at, &self.faults)
    }

    /// Acts on one instance, or sometimes on several at the same time.
    fn act_on_some(
        &mut self,
        act: fn(&mut Self, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let times = if self.faults.one_in(4) { 1 + self.faults.roll(3) } else { 1 };
        for _ in 0..times {
            self.act_on_one(act)?;
        }
        Ok(())
    }

    fn act_on_one(
        &mut self,
        act: fn(&mut Self, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        if processes::len() == 0 {
            self.start();
        }
        if processes::len() == 0 {
            return Ok(());
        }
        let at = usize::try_from(self.faults.roll(processes::len() as u64)).unwrap();
        if processes::is_stalled(at, self.clock.elapsed()) {
            return Ok(());
        }
        act(self, at)
    }

    fn publish_random(&mut self) {
        let topic = INPUTS[usize::try_from(self.faults.roll(2)).unwrap()];
        let partition = i32::try_from(self.faults.roll(u64::from(self.partitions))).unwrap();
        let key = format!("{partition}-{}", self.faults.roll(3));
        let age = i64::try_from(self.faults.roll(15_000)).unwrap();
        let kind = if self.faults.one_in(20) { POISON } else { "value" };
        self.values += 1;
        let value = format!("{kind}{}", self.values);
        // At least once, a duplicate input could not be distinguished from a repeated output.
        let may_copy = kind != POISON && self.guarantee == ProcessingGuarantee::ExactlyOnce;
        let copies = if may_copy && self.faults.one_in(20) { 2 } else { 1 };
        // Some producers' clocks are fast.
        let ahead = match self.faults.one_in(50) {
            true => i64::try_from(self.faults.roll(FAST_CLOCK_MAX_MS)).unwrap(),
            false => 0,
        };
        let time = EventTime(self.clock.now().0 - age + ahead);
        for _ in 0..copies {
            self.publish(topic, partition, &key, &value, time);
        }
    }

    /// Publishes records with old event times before any instance starts: each topic in the order of event time, one
    /// topic before the other or alternating. None of them is late.
    fn publish_backfill(&mut self) {
        let order = self.faults.roll(3);
        let first_at = EventTime(START.0) - BACKFILL_EVERY * (BACKFILL_RECORDS + 1);
        let both = [("in", Duration::ZERO), ("side", WINDOW / 2)];
        let of = |(topic, later): (&'static str, Duration)| {
            (0..BACKFILL_RECORDS)
                .map(move |index| (topic, first_at + BACKFILL_EVERY * index + later))
        };
        let records: Vec<_> = match order {
            0 => of(both[0]).chain(of(both[1])).collect(),
            1 => of(both[1]).chain(of(both[0])).collect(),
            _ => of(both[0]).zip(of(both[1])).flat_map(|(one, other)| [one, other]).collect(),
        };
        self.faults.log_event(format_args!("a backfill in order {order}"));
        for partition in 0..i32::try_from(self.partitions).unwrap() {
            for (topic, time) in &records {
                let key = format!("{partition}-{}", self.faults.roll(3));
                self.publish_in_time(topic, partition, &key, *time);
            }
        }
    }

    /// Publishes a record that must not be late.
    pub(super) fn publish_in_time(
        &mut self,
        topic: &str,
        partition: i32,
        key: &str,
        time: EventTime,
    ) {
        self.values += 1;
        let value = format!("value{}", self.values);
        let value = self.publish(topic, partition, key, &value, time);
        self.model.in_time.insert(value);
    }

    /// Publishes a record with the event time in its value. Its timestamp is the time of writing, as for a backfill.
    pub(super) fn publish(
        &mut self,
        topic: &str,
        partition: i32,
        key: &str,
        value: &str,
        time: EventTime,
    ) -> String {
        let value = format!("{value}@{}", time.0);
        self.model.add(topic, key, &value);
        let partition = Partition(partition);
        let record = OutputRecord {
            topic: Topic::new(topic),
            partition: Some(partition),
            timestamp: EventTime(self.clock.now().0),
            key: Some(key.as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
        };
        self.broker.publish().unwrap().send(record).unwrap();
        let source = TopicPartition { topic: Topic::new(topic), partition };
        self.ends.entry(source).or_insert(Offset(0)).0 += 1;
        value
    }

    /// Starts a process under a random name, which a stalled process may have as well.
    pub(super) fn start(&mut self) {
        if processes::len() >= INSTANCES_MAX {
            return;
        }
        let name = NAMES[usize::try_from(self.faults.roll(NAMES.len() as u64)).unwrap()];
        let now = self.clock.elapsed();
        let is_awake = |one: &Instance| one.process.name == name && one.stalled_until <= now;
        if processes::has(is_awake) {
            return;
        }
        let process = Process::new(name);
        // A disk has one process at a time: the successor of a stalled process gets another one.
        let is_free = !processes::has(|one| one.process.name == name);
        let disk =
            if is_free { self.disks.entry(name).or_default().clone() } else { Disk::default() };
        disk.inject_faults(&self.faults);
        let stores = SimulatedStores {
            disk: disk.clone(),
            faults: Arc::clone(&self.faults),
            process: process.clone(),
        };
        let calls = FaultyCalls {
            faults: Arc::clone(&self.faults),
            process: process.clone(),
            guarantee: self.guarantee,
        };
        let broker = FaultyBroker { broker: self.broker.clone(), calls };
        let (mut broker, mut stores): (Arc<dyn Broker>, Arc<dyn StoreSupplier>) =
            (Arc::new(broker), Arc::new(stores));
        if let Some(bug) = self.faults.bug() {
            (broker, stores) = planted_bugs::plant(bug, broker, stores, self.broker.clone());
        }
        let standby = self.has_standbys.then(|| {
            Standby::new(StandbyParts {
                broker: Arc::clone(&broker),
                topology: Arc::clone(&self.topology),
                group: "group".to_owned(),
                stores: Arc::clone(&stores),
                clock: Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>,
                metrics: StreamsMetrics::unregistered(),
            })
        });
        let board = StatusBoard::default();
        let joined = Worker::join(WorkerParts {
            broker,
            topology: Arc::clone(&self.topology),
            membership: Membership {
                group: "group".to_owned(),
                member: name.to_owned(),
                lead: self.topology.lead().clone(),
                co_partitioned: self.topology.co_partitioned(),
                guarantee: self.guarantee,
                commit_interval: COMMIT_INTERVAL,
            },
            stores,
            settings: WorkerSettings {
                commit_records_max: 20,
                changes_pending_max: self.changes_pending_max,
                ..WorkerSettings::default()
            },
            clock: Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>,
            metrics: StreamsMetrics::unregistered(),
            board: board.clone(),
        });
        self.faults.log_event(format_args!("{name} starts: {}", joined.is_ok()));
        if let Ok(worker) = joined {
            let stalled_until = Duration::ZERO;
            processes::add(Instance { process, worker, board, standby, disk, stalled_until });
        }
    }
}
