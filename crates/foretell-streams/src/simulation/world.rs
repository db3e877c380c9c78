//! Instances, a clock that is turned by hand, and the faults of one seed. What must come of it is checked in `settle`.

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
        faults::FaultyBroker,
        model::Model,
        process::Process,
        processes::{self, Instance},
        workload::{self, Attempts, POISON, WINDOW},
    },
    state::StoreSupplier,
    time::{Clock, EventTime, ManualClock, WallTime},
    topology::Topology,
};

const STEPS: usize = 4_000;
/// In every so many seeds.
const LONG_LIVES_EVERY: u64 = 4;
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than a session, as the settings demand.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);
const INPUTS: [&str; 2] = ["in", "side"];
const NAMES: [&str; 3] = ["a", "b", "c"];
/// More than there are names: some have a successor while they are stalled.
const INSTANCES_MAX: usize = 4;
/// Past every session and transaction.
const OUTAGE_MAX_MS: u64 = 15_000;
const START: WallTime = WallTime(1_000_000_000);
/// Far more than stream time may follow.
pub(super) const FAST_CLOCK_MAX_MS: u64 = 60_000;
/// Records put in at once, now and then.
const BURST: u32 = 30;
/// Of each topic and partition.
const BACKFILL_RECORDS: u32 = 40;
/// Far more than a window.
const BACKFILL_EVERY: Duration = Duration::from_secs(3_600);

/// What is simulated under a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) guarantee: ProcessingGuarantee,
    pub(super) bug: Option<Bug>,
    pub(super) favoured: Option<Fault>,
    pub(super) transaction_timeout: Duration,
}

pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) guarantee: ProcessingGuarantee,
    pub(super) broker: LocalBroker,
    pub(super) faults: Arc<FaultInjector>,
    pub(super) topology: Arc<Topology>,
    pub(super) partitions: u32,
    /// By the name of the instance.
    pub(super) disks: BTreeMap<&'static str, Disk>,
    pub(super) has_standbys: bool,
    /// Its last windows are to be settled without another record.
    pub(super) falls_silent: bool,
    /// Nobody crashes, is killed, or stops.
    lives_are_long: bool,
    zombies: u32,
    left_open_one_in: u64,
    /// The step at which all topics are recreated.
    starts_over_at: Option<usize>,
    /// Some tell their changelogs before the commit.
    pub(super) changes_pending_max: usize,
    pub(super) model: Model,
    pub(super) attempts: Attempts,
    pub(super) ends: BTreeMap<TopicPartition, Offset>,
    pub(super) values: u64,
}

/// What a seed came to: all that happened, and all that was committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    log: String,
    pub(super) fault_counts: FaultCounts,
    pub(super) records: u64,
    /// Tasks of which a zombie has written to a changelog.
    pub(super) zombie_tasks: usize,
}

pub(super) fn simulate(seed: u64, setting: Setting) -> Result<Outcome, String> {
    processes::clear();
    let mut world = World::new(seed, setting);
    let result = world.live().and_then(|()| world.settle());
    processes::clear();
    let log = world.faults.log().clone();
    match result {
        Ok(contents) => Ok(Outcome {
            log: log + &contents,
            fault_counts: world.faults.fault_counts(),
            records: world.values,
            zombie_tasks: world.faults.zombie_tasks().len(),
        }),
        Err(wrong) => {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            Err(format!("seed {seed}: {wrong}\n{last}"))
        }
    }
}

impl World {
    fn new(seed: u64, setting: Setting) -> Self {
        let Setting { guarantee, bug, favoured, transaction_timeout } = setting;
        let clock = Arc::new(ManualClock::at(START));
        let lives_are_long = seed.is_multiple_of(LONG_LIVES_EVERY);
        let faults =
            Arc::new(FaultInjector::new(seed, bug, favoured, lives_are_long, Arc::clone(&clock)));
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
        if bug == Some(Bug::StaleGroupMetadata) {
            broker.with(|cluster, _| cluster.plant_trust_in_everybody());
        }
        let attempts = Attempts::default();
        let topology = Arc::new(workload::topology(&attempts, bug));
        let partitions = u32::try_from(1 + faults.roll(4)).unwrap();
        let left_open_one_in = if faults.favours(Fault::LeftOpen) { 2 } else { 4 };
        let starts_over = matches!(seed % 4, 1 | 2) || favoured == Some(Fault::MadeAnew);
        let starts_over_at = starts_over.then(|| usize::try_from(50 + faults.roll(1_000)).unwrap());
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
            lives_are_long,
            zombies: 0,
            left_open_one_in,
            starts_over_at,
            changes_pending_max: if seed.is_multiple_of(3) { 2 } else { 20 },
            model: Model::default(),
            attempts,
            ends: BTreeMap::new(),
            values: 0,
        }
    }

    /// The bad year.
    fn live(&mut self) -> Result<(), String> {
        if self.faults.one_in(2) {
            self.put_backfill();
        }
        for step in 0..STEPS {
            if self.starts_over_at == Some(step) {
                self.start_over();
            }
            let span = if self.faults.one_in(40) { 2_000 } else { 30 };
            self.clock.advance(Duration::from_millis(self.faults.roll(span)));
            self.look_around();
            match self.faults.roll(100) {
                // More than is processed at once, so that there is work while an instance is stalled.
                0 => (0..BURST).for_each(|_| self.put_something()),
                1..30 => self.put_something(),
                30..33 => self.start(),
                33..36 => self.on_some(Self::stall)?,
                36 if !self.lives_are_long => self.on_some(Self::kill)?,
                37 if !self.lives_are_long => self.on_one(Self::stop)?,
                38 if self.faults.one_in(4) => self.cut_off(),
                39 if self.faults.one_in(self.left_open_one_in) => self.leave_open(),
                _ => self.on_one(Self::turn)?,
            }
            if let Some(wrong) = self.faults.wrong() {
                return Err(wrong);
            }
        }
        Ok(())
    }

    /// All topics are deleted and recreated while the instances are away. What their disks have is of the old ones.
    fn start_over(&mut self) {
        self.faults.note(format_args!("all topics are made anew"));
        self.faults.struck(Fault::MadeAnew);
        processes::clear();
        let topics = INPUTS.into_iter().chain(["out", "dead"]).map(Topic::new);
        for topic in topics.chain(self.topology.changelogs()) {
            self.broker.with(|cluster, _| cluster.recreate_topic(&topic));
        }
        self.model = Model::default();
        self.attempts.lock().unwrap().clear();
        self.ends.clear();
        self.faults.forget_zombie_writes();
        self.faults.disturb();
        if self.faults.one_in(2) {
            self.put_backfill();
        }
    }

    /// Sees whether everybody has got over what happened.
    fn look_around(&self) {
        let is_recovering =
            |one: &Instance| !one.board.read().values().all(WorkerStatus::is_running);
        self.faults.set_recovering(self.faults.is_out() || processes::has(is_recovering));
    }

    /// Nobody reaches the broker, whatever they are in the middle of.
    fn cut_off(&self) {
        let span = Duration::from_millis(self.faults.roll(OUTAGE_MAX_MS));
        self.faults.note(format_args!("the broker is away for {span:?}"));
        self.faults.struck(Fault::Outage);
        self.faults.set_out(span);
        self.faults.disturb();
    }

    /// A zombie that nobody else would meet writes to a changelog, and is no more; its transaction has still to time out.
    fn leave_open(&mut self) {
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
        sent.expect("nothing is refused to it");
        self.faults.note(format_args!("a zombie writes to {} {partition}", record.topic));
        self.faults.struck(Fault::LeftOpen);
    }

    fn stall(&mut self, at: usize) -> Result<(), String> {
        let span = Duration::from_millis(self.faults.roll(20_000));
        self.faults.note(format_args!("number {at} stalls {span:?}"));
        self.faults.struck(Fault::Stalled);
        processes::stall(at, self.clock.elapsed() + span);
        self.faults.disturb();
        Ok(())
    }

    fn kill(&mut self, at: usize) -> Result<(), String> {
        let killed = processes::remove(at);
        self.faults.note(format_args!("{} is killed", killed.process.name));
        self.faults.struck(Fault::Killed);
        self.faults.disturb();
        Ok(())
    }

    pub(super) fn turn(&mut self, at: usize) -> Result<(), String> {
        processes::turn(at, &self.faults)
    }

    fn stop(&mut self, at: usize) -> Result<(), String> {
        processes::stop(at, &self.faults)
    }

    /// One of them, or now and then several at the same time.
    fn on_some(&mut self, act: fn(&mut Self, usize) -> Result<(), String>) -> Result<(), String> {
        let times = if self.faults.one_in(4) { 1 + self.faults.roll(3) } else { 1 };
        for _ in 0..times {
            self.on_one(act)?;
        }
        Ok(())
    }

    fn on_one(&mut self, act: fn(&mut Self, usize) -> Result<(), String>) -> Result<(), String> {
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

    fn put_something(&mut self) {
        let topic = INPUTS[usize::try_from(self.faults.roll(2)).unwrap()];
        let partition = i32::try_from(self.faults.roll(u64::from(self.partitions))).unwrap();
        let key = format!("{partition}-{}", self.faults.roll(3));
        let age = i64::try_from(self.faults.roll(15_000)).unwrap();
        let kind = if self.faults.one_in(20) { POISON } else { "value" };
        self.values += 1;
        let value = format!("{kind}{}", self.values);
        // What came twice could not be told from what is put in twice.
        let may_copy = kind != POISON && self.guarantee == ProcessingGuarantee::ExactlyOnce;
        let copies = if may_copy && self.faults.one_in(20) { 2 } else { 1 };
        // Some producers' clocks are fast.
        let ahead = match self.faults.one_in(50) {
            true => i64::try_from(self.faults.roll(FAST_CLOCK_MAX_MS)).unwrap(),
            false => 0,
        };
        let time = EventTime(self.clock.now().0 - age + ahead);
        for _ in 0..copies {
            self.put(topic, partition, &key, &value, time);
        }
    }

    /// What happened long ago, written before anybody starts: each topic in the order of event time, one before the
    /// other or in turns. Of both, none is late.
    fn put_backfill(&mut self) {
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
        self.faults.note(format_args!("a backfill, in order {order}"));
        for partition in 0..i32::try_from(self.partitions).unwrap() {
            for (topic, time) in &records {
                let key = format!("{partition}-{}", self.faults.roll(3));
                self.put_in_time(topic, partition, &key, *time);
            }
        }
    }

    /// A record that must not be late.
    pub(super) fn put_in_time(&mut self, topic: &str, partition: i32, key: &str, time: EventTime) {
        self.values += 1;
        let value = format!("value{}", self.values);
        let value = self.put(topic, partition, key, &value, time);
        self.model.in_time.insert(value);
    }

    /// The event time is in the value; the record's own timestamp is when it was written, as a backfill's is.
    pub(super) fn put(
        &mut self,
        topic: &str,
        partition: i32,
        key: &str,
        value: &str,
        time: EventTime,
    ) -> String {
        let value = format!("{value}@{}", time.0);
        self.model.put(topic, key, &value);
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

    /// A process starts, under a name that may be another's, too: a stalled one's.
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
        // A disk has one process at a time: the successor of one that only stalls runs elsewhere.
        let is_free = !processes::has(|one| one.process.name == name);
        let disk =
            if is_free { self.disks.entry(name).or_default().clone() } else { Disk::default() };
        disk.happen_to(&self.faults);
        let stores =
            SimulatedStores { disk, faults: Arc::clone(&self.faults), process: process.clone() };
        let broker = FaultyBroker {
            inner: self.broker.clone(),
            faults: Arc::clone(&self.faults),
            process: process.clone(),
            guarantee: self.guarantee,
        };
        let (broker, stores): (Arc<dyn Broker>, Arc<dyn StoreSupplier>) =
            (Arc::new(broker), Arc::new(stores));
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
            },
            stores,
            settings: WorkerSettings {
                commit_interval: Duration::from_millis(100),
                commit_records_max: 20,
                changes_pending_max: self.changes_pending_max,
                ..WorkerSettings::default()
            },
            clock: Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>,
            metrics: StreamsMetrics::unregistered(),
            board: board.clone(),
        });
        self.faults.note(format_args!("{name} starts: {}", joined.is_ok()));
        if let Ok(worker) = joined {
            let stalled_until = Duration::ZERO;
            processes::add(Instance { process, worker, board, standby, stalled_until });
        }
    }
}
