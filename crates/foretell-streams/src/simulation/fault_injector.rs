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

use crate::{
    planted::Planted,
    record::Partition,
    simulation::processes,
    time::{Clock as _, ManualClock},
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A process dies between two turns.
    Killed,
    /// A process stalls between two turns, perhaps past its session.
    Stalled,
    /// A process stalls in the middle of a call, while the others go on.
    StalledInside,
    /// A process stalls after a call took effect, before it gets the result.
    StalledAfter,
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
    /// Records came, and an error in the same answer.
    RecordsWithAnError,
    /// A reader tells the end that it told before, and has not looked since.
    EndToldAgain,
    /// An error is told once more, of the next call.
    ErrorToldAgain,
    /// Some of the inputs that a call was about were seen to, and an error was told.
    DoneInPart,
    /// A producer gives up what it had taken and the broker had not.
    Undelivered,
    /// A zombie has written to a changelog, and its transaction stays open.
    LeftOpen,
    /// What is on the disk is not what was written.
    Damaged,
    /// What was written and not synced is gone from the disk.
    PowerCut,
    /// The disk is another.
    DiskLost,
    /// All topics were deleted and recreated, while the instances were away.
    MadeAnew,
}

impl Fault {
    pub(super) const ALL: [Self; 21] = [
        Self::Killed,
        Self::Stalled,
        Self::StalledInside,
        Self::StalledAfter,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Unavailable,
        Self::Outage,
        Self::Aborted,
        Self::Fenced,
        Self::AnswerLost,
        Self::RecordsWithAnError,
        Self::EndToldAgain,
        Self::ErrorToldAgain,
        Self::DoneInPart,
        Self::Undelivered,
        Self::LeftOpen,
        Self::Damaged,
        Self::PowerCut,
        Self::DiskLost,
        Self::MadeAnew,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Killed => "process killed between two turns",
            Self::Stalled => "process stalled between two turns",
            Self::StalledInside => "process stalled in the midst of one",
            Self::StalledAfter => "process stalled at the end of a call",
            Self::CrashBefore => "process crashed before a call",
            Self::CrashAfter => "process crashed after a call",
            Self::Unavailable => "call not answered",
            Self::Outage => "broker away for all",
            Self::Aborted => "transaction or commit refused",
            Self::Fenced => "member fenced",
            Self::AnswerLost => "call done, answer lost",
            Self::RecordsWithAnError => "records and an error in one answer",
            Self::EndToldAgain => "end of a partition told again",
            Self::ErrorToldAgain => "error told again, late",
            Self::DoneInPart => "call done in part, then an error",
            Self::Undelivered => "records accepted, never written",
            Self::LeftOpen => "transaction left open by a zombie",
            Self::Damaged => "store damaged",
            Self::PowerCut => "power cut",
            Self::DiskLost => "disk lost",
            Self::MadeAnew => "all topics made anew",
        }
    }
}

/// A mistake that the simulation must find: each has been made by somebody in earnest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// First the outputs are committed, then, on their own, the offsets.
    OffsetsOutsideTheTransaction,
    /// After an abort, reading goes on where it was.
    NoSeekAfterAnAbort,
    /// A commit is accepted from a member that no longer owns the partitions.
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
    /// Stream time follows a record of a fast clock.
    StreamTimeAheadOfTheClock,
    /// An input that was paused at its end goes on one record too far, as in librdkafka unless it is sought.
    SkipsAfterAPause,
    /// After a rebalance, what is held comes from one record too early.
    RepeatsAfterARebalance,
    /// One of the layer's own.
    InTheLayer(Planted),
}

impl Bug {
    /// What has to happen for it to show, if that is rare.
    pub(super) fn favoured(self) -> Option<Fault> {
        let favoured = [
            (Self::ChangelogsBeforeTheOutputs, Fault::CrashBefore),
            (Self::InTheLayer(Planted::OffsetsTrustedInAnyLog), Fault::MadeAnew),
            (Self::InTheLayer(Planted::EndAskedAfterTheCommit), Fault::StalledAfter),
            (Self::InTheLayer(Planted::RebuildsNotForgotten), Fault::Damaged),
            (Self::InTheLayer(Planted::ReaderNotReopened), Fault::LeftOpen),
        ];
        favoured.into_iter().find_map(|(bug, fault)| (bug == self).then_some(fault))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OffsetsOutsideTheTransaction => "offsets outside the transaction",
            Self::NoSeekAfterAnAbort => "no seek after an abort",
            Self::StaleGroupMetadata => "stale group metadata accepted",
            Self::LostAnswerTakenForAnAbort => "lost answer taken for an abort",
            Self::CheckpointAhead => "checkpoint ahead of its store",
            Self::OffsetsBeforeTheOutputs => "offsets before the outputs",
            Self::FailedDeliveryForgotten => "failed delivery forgotten",
            Self::ChangelogsBeforeTheOutputs => "changelogs before the outputs",
            Self::StreamTimeAheadOfTheClock => "stream time ahead of the clock",
            Self::SkipsAfterAPause => "record skipped after a pause",
            Self::RepeatsAfterARebalance => "record again after a rebalance",
            Self::InTheLayer(planted) => match planted {
                Planted::MergeByRecordTime => "inputs merged by record time",
                Planted::StateBeforeTheCommit => "state kept before the commit",
                Planted::OffsetsTrustedInAnyLog => "offsets trusted in any log",
                Planted::RecordsDroppedWithAnError => "records dropped with an error",
                Planted::ReaderNotReopened => "reader not reopened",
                Planted::EndAskedAfterTheCommit => "end asked for after the commit",
                Planted::FencesNotForgotten => "fences not forgotten",
                Planted::RebuildsNotForgotten => "rebuilds not forgotten",
                Planted::CopyKeptAfterTakeover => "copy kept after a takeover",
            },
        }
    }
}

/// See the module.
pub(super) struct FaultInjector {
    dice: Mutex<StdRng>,
    /// A call in so many fails; 0 for none.
    one_in: u64,
    /// Comes more often than the others, and also where nothing else fails.
    favoured: Option<Fault>,
    /// Nobody crashes, so that much comes together in one life.
    spares_lives: bool,
    /// So many calls more fail often: a second fault while the first is still felt.
    storm: AtomicU64,
    /// Nobody answers before.
    out_until: Mutex<Duration>,
    pub(super) clock: Arc<ManualClock>,
    /// An instance is stalled in the middle of a call: one at a time.
    is_midst: AtomicBool,
    /// What went wrong meanwhile.
    wrong: Mutex<Option<String>>,
    stop_faults: AtomicBool,
    bug: Option<Bug>,
    log: Mutex<String>,
    fault_counts: Mutex<FaultCounts>,
    /// Whether somebody has not yet got over an earlier fault.
    recovering: AtomicBool,
    /// Whose changelogs were written to by somebody who no longer owned the task.
    zombie_tasks: Mutex<BTreeSet<Partition>>,
}

/// What has gone wrong so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FaultCounts {
    pub(super) faults: BTreeMap<Fault, usize>,
    /// Those that came before everybody had got over the ones before.
    pub(super) overlapping: usize,
}

const STORM_ONE_IN: u64 = 5;
const FAVOURED_ONE_IN: u64 = 200;
/// Calls that fail often after something has happened: the recovery's.
const STORM_CALLS_MAX: u64 = 40;

impl FaultInjector {
    pub(super) fn new(
        seed: u64,
        bug: Option<Bug>,
        favoured: Option<Fault>,
        spares_lives: bool,
        clock: Arc<ManualClock>,
    ) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let one_in = match spares_lives {
            true => [40, 80, 120, 120],
            false => [0, 40, 120, 400],
        }[dice.random_range(0..4_usize)];
        Self {
            dice: Mutex::new(dice),
            one_in,
            favoured,
            spares_lives,
            storm: AtomicU64::new(0),
            out_until: Mutex::default(),
            clock,
            is_midst: AtomicBool::new(false),
            wrong: Mutex::default(),
            stop_faults: AtomicBool::new(false),
            bug,
            log: Mutex::default(),
            fault_counts: Mutex::default(),
            recovering: AtomicBool::new(false),
            zombie_tasks: Mutex::default(),
        }
    }

    pub(super) fn favours(&self, fault: Fault) -> bool {
        self.favoured == Some(fault)
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
    pub(super) fn stop_faults(&self) {
        self.stop_faults.store(true, Ordering::SeqCst);
        *self.out_until.lock().unwrap() = Duration::ZERO;
    }

    pub(super) fn are_faults_stopped(&self) -> bool {
        self.stop_faults.load(Ordering::SeqCst)
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

    /// An instance stalls in the middle of a call.
    pub(super) fn stall_inside(&self) {
        if !self.is_midst.swap(true, Ordering::SeqCst) {
            processes::go_on_without_the_caller(self);
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

    pub(super) fn fault_counts(&self) -> FaultCounts {
        self.fault_counts.lock().unwrap().clone()
    }

    /// Counts a fault.
    pub(super) fn struck(&self, fault: Fault) {
        let mut fault_counts = self.fault_counts.lock().unwrap();
        *fault_counts.faults.entry(fault).or_default() += 1;
        // An end that is told again is no trouble to anybody by itself.
        let is_trouble = fault != Fault::EndToldAgain;
        fault_counts.overlapping +=
            usize::from(is_trouble && self.recovering.load(Ordering::SeqCst));
    }

    /// Whether something happens that happens to everybody, also where nothing fails: one time in `sides`.
    pub(super) fn happens(&self, fault: Fault, sides: u64) -> bool {
        let happens = !self.are_faults_stopped() && self.one_in(sides);
        if happens {
            self.struck(fault);
        }
        happens
    }

    /// A fault for a call, one in so many; `weight` times as often, if much depends on it.
    pub(super) fn fault(&self, possible: &[Fault], weight: u64) -> Option<Fault> {
        if self.are_faults_stopped() {
            return None;
        }
        if let Some(favoured) = self.favoured
            && possible.contains(&favoured)
            && self.may_be(favoured)
            && self.one_in(FAVOURED_ONE_IN / weight)
        {
            self.struck(favoured);
            return Some(favoured);
        }
        if self.one_in == 0 {
            return None;
        }
        let storm = self.storm.load(Ordering::SeqCst);
        self.storm.store(storm.saturating_sub(1), Ordering::SeqCst);
        let sides = if storm > 0 { STORM_ONE_IN } else { (self.one_in / weight).max(STORM_ONE_IN) };
        if !self.one_in(sides) {
            return None;
        }
        let possible: Vec<_> = possible.iter().filter(|fault| self.may_be(**fault)).collect();
        if possible.is_empty() {
            return None;
        }
        let fault = *possible[usize::try_from(self.roll(possible.len() as u64)).unwrap()];
        self.struck(fault);
        Some(fault)
    }

    pub(super) fn add_zombie_writes(&self, task: Partition) {
        self.zombie_tasks.lock().unwrap().insert(task);
    }

    fn may_be(&self, fault: Fault) -> bool {
        let kills = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
        let stalls = matches!(fault, Fault::StalledInside | Fault::StalledAfter);
        // One stalls at a time.
        !(kills && self.spares_lives || stalls && self.is_midst.load(Ordering::SeqCst))
    }

    /// The changelogs are others.
    pub(super) fn forget_zombie_writes(&self) {
        self.zombie_tasks.lock().unwrap().clear();
    }

    pub(super) fn zombie_tasks(&self) -> BTreeSet<Partition> {
        self.zombie_tasks.lock().unwrap().clone()
    }
}
