//! The seed's will: the dice, the faults that they give, the mistakes that are planted, and the log of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::streams::{
    record::Partition,
    runtime::broker::BrokerError,
    simulation::crowd,
    time::{Clock as _, ManualClock},
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A process dies between two turns.
    Killed,
    /// A process stands still between two turns, perhaps past its session.
    Stalled,
    /// A process stands still in the midst of a call, while the others go on.
    StalledInside,
    /// The process dies; the call had no effect.
    CrashBefore,
    /// The process dies; the call had its effect.
    CrashAfter,
    /// Nobody answers just now.
    Unavailable,
    /// Nobody answers anybody for a while.
    Outage,
    /// The transaction can't be committed any more.
    Aborted,
    /// Somebody has taken over.
    Fenced,
    /// It took effect, and nobody will ever say so.
    AnswerLost,
    /// A producer gives up what it had taken and the broker had not.
    Undelivered,
    /// What is on the disk is not what was written.
    Damaged,
    /// What was written and not synced is gone from the disk.
    PowerCut,
    /// The disk is another.
    DiskLost,
}

impl Fault {
    pub(super) const ALL: [Self; 14] = [
        Self::Killed,
        Self::Stalled,
        Self::StalledInside,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Unavailable,
        Self::Outage,
        Self::Aborted,
        Self::Fenced,
        Self::AnswerLost,
        Self::Undelivered,
        Self::Damaged,
        Self::PowerCut,
        Self::DiskLost,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Killed => "process killed between two turns",
            Self::Stalled => "process stalled between two turns",
            Self::StalledInside => "process stalled in the midst of one",
            Self::CrashBefore => "process crashed before a call",
            Self::CrashAfter => "process crashed after a call",
            Self::Unavailable => "call not answered",
            Self::Outage => "broker away for all",
            Self::Aborted => "transaction or commit refused",
            Self::Fenced => "member fenced",
            Self::AnswerLost => "call done, answer lost",
            Self::Undelivered => "records accepted, never written",
            Self::Damaged => "store damaged",
            Self::PowerCut => "power cut",
            Self::DiskLost => "disk lost",
        }
    }
}

/// A mistake that the simulation must find: each has been made by somebody in earnest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// First the outputs are committed, then, on their own, the offsets.
    OffsetsOutsideTheTransaction,
    /// The stores keep what was written before the commit has succeeded.
    StateBeforeTheCommit,
    /// After an abort, reading goes on where it was.
    NoSeekAfterAnAbort,
    /// A commit is taken from whoever no longer owns the partitions.
    StaleGroupMetadata,
    /// A commit whose answer is lost is taken for one that failed.
    LostAnswerTakenForAnAbort,
    /// A store says that it goes further than it does.
    CheckpointAhead,
    /// Offsets are committed while the outputs are still under way.
    OffsetsBeforeTheOutputs,
    /// A record that was given up keeps nobody from committing.
    FailedDeliveryForgotten,
    /// Changelogs are written while the outputs are still under way.
    ChangelogsBeforeTheOutputs,
    /// Inputs are merged by when their records were written.
    MergeByRecordTime,
    /// Stream time follows a record of a fast clock.
    StreamTimeAheadOfTheClock,
}

impl Bug {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OffsetsOutsideTheTransaction => "offsets outside the transaction",
            Self::StateBeforeTheCommit => "state kept before the commit",
            Self::NoSeekAfterAnAbort => "no seek after an abort",
            Self::StaleGroupMetadata => "stale group metadata accepted",
            Self::LostAnswerTakenForAnAbort => "lost answer taken for an abort",
            Self::CheckpointAhead => "checkpoint ahead of its store",
            Self::OffsetsBeforeTheOutputs => "offsets before the outputs",
            Self::FailedDeliveryForgotten => "failed delivery forgotten",
            Self::ChangelogsBeforeTheOutputs => "changelogs before the outputs",
            Self::MergeByRecordTime => "inputs merged by record time",
            Self::StreamTimeAheadOfTheClock => "stream time ahead of the clock",
        }
    }
}

/// See the module.
pub(super) struct Weather {
    dice: Mutex<StdRng>,
    /// A call in so many fails; 0 for none.
    one_in: u64,
    /// So many calls more fail often: a second fault while the first is still felt.
    storm: AtomicU64,
    /// Nobody answers before.
    out_until: Mutex<Duration>,
    pub(super) clock: Arc<ManualClock>,
    /// Somebody stands still in the midst of a call: one at a time.
    is_midst: AtomicBool,
    /// What went wrong meanwhile.
    wrong: Mutex<Option<String>>,
    calm: AtomicBool,
    bug: Option<Bug>,
    log: Mutex<String>,
    toll: Mutex<Toll>,
    /// Whether somebody has not yet got over an earlier fault.
    recovering: AtomicBool,
    /// Whose changelogs were written to by somebody who no longer owned the task.
    haunted: Mutex<BTreeSet<Partition>>,
}

/// What has gone wrong so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Toll {
    pub(super) faults: BTreeMap<Fault, usize>,
    /// Those that came before everybody had got over the ones before.
    pub(super) overlapping: usize,
}

const STORM_ONE_IN: u64 = 5;
/// Calls that fail often after something has happened: the recovery's.
const STORM_CALLS_MAX: u64 = 40;

impl Weather {
    pub(super) fn new(seed: u64, bug: Option<Bug>, clock: Arc<ManualClock>) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let one_in = [0, 40, 120, 400][dice.random_range(0..4_usize)];
        Self {
            dice: Mutex::new(dice),
            one_in,
            storm: AtomicU64::new(0),
            out_until: Mutex::default(),
            clock,
            is_midst: AtomicBool::new(false),
            wrong: Mutex::default(),
            calm: AtomicBool::new(false),
            bug,
            log: Mutex::default(),
            toll: Mutex::default(),
            recovering: AtomicBool::new(false),
            haunted: Mutex::default(),
        }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// One of `0..end`.
    pub(super) fn roll(&self, end: u64) -> u64 {
        self.dice.lock().unwrap().random_range(0..end)
    }

    pub(super) fn one_in(&self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    /// From here on, nothing fails.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
        *self.out_until.lock().unwrap() = Duration::ZERO;
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Something happened. Sometimes the next calls, those of the recovery, fail often.
    pub(super) fn disturb(&self) {
        if self.one_in(6) {
            self.storm.store(self.roll(STORM_CALLS_MAX), Ordering::SeqCst);
        }
    }

    /// Whether the broker is away, for everybody.
    pub(super) fn is_out(&self) -> bool {
        self.clock.elapsed() < *self.out_until.lock().unwrap()
    }

    pub(super) fn set_out(&self, span: Duration) {
        *self.out_until.lock().unwrap() = self.clock.elapsed() + span;
    }

    /// Somebody stands still in the midst of a call.
    pub(super) fn stall_inside(&self) {
        if !self.is_midst.swap(true, Ordering::SeqCst) {
            crowd::go_on_without_the_caller(self);
            self.is_midst.store(false, Ordering::SeqCst);
        }
    }

    pub(super) fn went_wrong(&self, wrong: String) {
        self.wrong.lock().unwrap().get_or_insert(wrong);
    }

    pub(super) fn wrong(&self) -> Option<String> {
        self.wrong.lock().unwrap().clone()
    }

    pub(super) fn set_recovering(&self, is_recovering: bool) {
        self.recovering.store(is_recovering, Ordering::SeqCst);
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        writeln!(self.log.lock().unwrap(), "{what}").unwrap();
    }

    pub(super) fn log(&self) -> MutexGuard<'_, String> {
        self.log.lock().unwrap()
    }

    pub(super) fn toll(&self) -> Toll {
        self.toll.lock().unwrap().clone()
    }

    /// Counts a fault.
    pub(super) fn struck(&self, fault: Fault) {
        let mut toll = self.toll.lock().unwrap();
        *toll.faults.entry(fault).or_default() += 1;
        toll.overlapping += usize::from(self.recovering.load(Ordering::SeqCst));
    }

    /// What befalls a call, one in so many; `weight` times as often, if much depends on it.
    pub(super) fn fault(&self, possible: &[Fault], weight: u64) -> Option<Fault> {
        if self.is_calm() || self.one_in == 0 {
            return None;
        }
        let storm = self.storm.load(Ordering::SeqCst);
        self.storm.store(storm.saturating_sub(1), Ordering::SeqCst);
        let sides = if storm > 0 { STORM_ONE_IN } else { (self.one_in / weight).max(STORM_ONE_IN) };
        if !self.one_in(sides) {
            return None;
        }
        let index = usize::try_from(self.roll(possible.len() as u64)).unwrap();
        self.struck(possible[index]);
        Some(possible[index])
    }

    pub(super) fn haunt(&self, task: Partition) {
        self.haunted.lock().unwrap().insert(task);
    }

    pub(super) fn haunted(&self) -> BTreeSet<Partition> {
        self.haunted.lock().unwrap().clone()
    }
}

/// A process that can die, after which nothing of it reaches the broker.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) name: String,
    dead: Arc<AtomicBool>,
}

impl Process {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), dead: Arc::default() }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn die(&self) -> BrokerError {
        self.dead.store(true, Ordering::SeqCst);
        BrokerError::Fatal("this process is dead".to_owned())
    }
}
