//! The fault injector of a seed: the random generator, the faults that it chooses, the planted bug, and the log of all
//! events.

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
    record::Partition,
    time::{Clock as _, ManualClock},
};

/// A kind of injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A process crashes between two turns.
    Killed,
    /// A process stalls between two turns, perhaps past its session.
    Stalled,
    /// A process stalls in the middle of a call, while the others run.
    StalledInside,
    /// A process stalls after a call took effect, before it gets the result.
    StalledAfter,
    /// The process crashes before the call takes effect.
    CrashBefore,
    /// The process crashes after the call took effect.
    CrashAfter,
    /// A call gets no response.
    Unavailable,
    /// The broker is unavailable to all processes for a while.
    Outage,
    /// The transaction can no longer be committed.
    Aborted,
    /// Another member has taken over.
    Fenced,
    /// The call took effect, and its response is lost.
    ResponseLost,
    /// A call returns both records and an error.
    RecordsWithError,
    /// A reader repeats that it is at the end, without looking for new records.
    EndRepeated,
    /// The next call reports an earlier error again.
    ErrorRepeated,
    /// A call takes effect for some of its inputs, and returns an error.
    PartialSuccess,
    /// A producer drops records that it had accepted and not yet written.
    DeliveryFailed,
    /// A zombie has written to a changelog, and its transaction stays open.
    HangingTransaction,
    /// A store is corrupted on disk.
    StoreCorrupted,
    /// Writes that were not synced are lost.
    PowerCut,
    /// The disk is empty.
    DiskLost,
    /// All topics were deleted and recreated while no instance was running.
    TopicsRecreated,
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
        Self::ResponseLost,
        Self::RecordsWithError,
        Self::EndRepeated,
        Self::ErrorRepeated,
        Self::PartialSuccess,
        Self::DeliveryFailed,
        Self::HangingTransaction,
        Self::StoreCorrupted,
        Self::PowerCut,
        Self::DiskLost,
        Self::TopicsRecreated,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Killed => "process killed between two turns",
            Self::Stalled => "process stalled between two turns",
            Self::StalledInside => "process stalled during a call",
            Self::StalledAfter => "process stalled after a call",
            Self::CrashBefore => "process crashed before a call",
            Self::CrashAfter => "process crashed after a call",
            Self::Unavailable => "call without response",
            Self::Outage => "broker unavailable to all",
            Self::Aborted => "transaction or commit refused",
            Self::Fenced => "member fenced",
            Self::ResponseLost => "call done, response lost",
            Self::RecordsWithError => "records and an error in one response",
            Self::EndRepeated => "end of a partition repeated",
            Self::ErrorRepeated => "error reported again, late",
            Self::PartialSuccess => "call done in part, then an error",
            Self::DeliveryFailed => "records accepted, never written",
            Self::HangingTransaction => "hanging transaction of a zombie",
            Self::StoreCorrupted => "store corrupted",
            Self::PowerCut => "power cut",
            Self::DiskLost => "disk lost",
            Self::TopicsRecreated => "all topics recreated",
        }
    }
}

/// A planted bug that the simulation must find. Each has occurred in a real implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// The outputs are committed first, and the offsets separately after them.
    OffsetsOutsideTheTransaction,
    /// After an abort, reading continues at the old position.
    NoSeekAfterAnAbort,
    /// A commit is accepted from a member that no longer owns the partitions.
    StaleGroupMetadata,
    /// A commit whose response is lost is treated as a failed commit.
    LostResponseTakenForAnAbort,
    /// The checkpoint of a store is ahead of its contents.
    CheckpointAhead,
    /// Offsets are committed while the outputs are still in flight.
    OffsetsBeforeTheOutputs,
    /// A failed delivery does not prevent the commit.
    FailedDeliveryIgnored,
    /// Changelogs are written while the outputs are still in flight.
    ChangelogsBeforeTheOutputs,
    /// Stream time follows a record of a fast clock.
    StreamTimeAheadOfTheClock,
    /// An input that was paused at its end continues one record too late, as in librdkafka without a seek.
    SkipsAfterAPause,
    /// After a rebalance, the inputs that the member keeps continue one record too early.
    RepeatsAfterARebalance,
    /// Inputs are merged by the timestamps of their records.
    MergeByRecordTime,
    /// The stores keep the changes of a commit before it has succeeded.
    StateBeforeTheCommit,
    /// A restore trusts the offset of a checkpoint, whichever log it belongs to.
    OffsetsTrustedInAnyLog,
    /// A restore drops the records that a reader returns with an error.
    RecordsDroppedWithAnError,
    /// A restore ends at an end that was reported before the last transaction was decided.
    ReaderNotReopened,
    /// The end of a changelog is read after the commit.
    EndAskedAfterTheCommit,
    /// A commit does not reset the number of times that the worker was fenced.
    FencesNotForgotten,
    /// A commit does not reset which stores the worker has rebuilt.
    RebuildsNotForgotten,
    /// A standby task that a worker has taken over is kept.
    CopyKeptAfterTakeover,
}

impl Bug {
    /// The rare fault that reveals the bug, if there is one. The injector chooses it more often.
    pub(super) fn favoured(self) -> Option<Fault> {
        let favoured = [
            (Self::ChangelogsBeforeTheOutputs, Fault::CrashBefore),
            (Self::OffsetsTrustedInAnyLog, Fault::TopicsRecreated),
            (Self::EndAskedAfterTheCommit, Fault::StalledAfter),
            (Self::RebuildsNotForgotten, Fault::StoreCorrupted),
            (Self::ReaderNotReopened, Fault::HangingTransaction),
        ];
        favoured.into_iter().find_map(|(bug, fault)| (bug == self).then_some(fault))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OffsetsOutsideTheTransaction => "offsets outside the transaction",
            Self::NoSeekAfterAnAbort => "no seek after an abort",
            Self::StaleGroupMetadata => "stale group metadata accepted",
            Self::LostResponseTakenForAnAbort => "lost response taken for an abort",
            Self::CheckpointAhead => "checkpoint ahead of its store",
            Self::OffsetsBeforeTheOutputs => "offsets before the outputs",
            Self::FailedDeliveryIgnored => "failed delivery ignored",
            Self::ChangelogsBeforeTheOutputs => "changelogs before the outputs",
            Self::StreamTimeAheadOfTheClock => "stream time ahead of the clock",
            Self::SkipsAfterAPause => "record skipped after a pause",
            Self::RepeatsAfterARebalance => "record again after a rebalance",
            Self::MergeByRecordTime => "inputs merged by record time",
            Self::StateBeforeTheCommit => "state kept before the commit",
            Self::OffsetsTrustedInAnyLog => "offsets trusted in any log",
            Self::RecordsDroppedWithAnError => "records dropped with an error",
            Self::ReaderNotReopened => "reader not reopened",
            Self::EndAskedAfterTheCommit => "end asked for after the commit",
            Self::FencesNotForgotten => "fences not forgotten",
            Self::RebuildsNotForgotten => "rebuilds not forgotten",
            Self::CopyKeptAfterTakeover => "copy kept after a takeover",
        }
    }
}

/// Chooses the faults of one seed, counts them, and logs the events.
pub(super) struct FaultInjector {
    random: Mutex<StdRng>,
    /// On average, one call in this many fails; 0 for none.
    one_in: u64,
    /// A fault that is chosen more often, also in seeds without other faults.
    favoured: Option<Fault>,
    /// No process crashes in this seed, so that many faults meet in one process.
    has_no_crashes: bool,
    /// The number of further calls with a high fault rate, so that faults hit the recovery from an earlier one.
    burst_calls: AtomicU64,
    /// The end of the present outage.
    outage_until: Mutex<Duration>,
    pub(super) clock: Arc<ManualClock>,
    /// Whether an instance is stalled in the middle of a call. At most one is at a time.
    is_call_stalled: AtomicBool,
    /// The first violation that was found during a stalled call.
    violation: Mutex<Option<String>>,
    stop_faults: AtomicBool,
    bug: Option<Bug>,
    log: Mutex<String>,
    fault_counts: Mutex<FaultCounts>,
    /// Whether an instance is still recovering from an earlier fault.
    recovering: AtomicBool,
    /// Tasks whose changelogs a member has written to after it lost the task.
    zombie_tasks: Mutex<BTreeSet<Partition>>,
}

/// The numbers of injected faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FaultCounts {
    pub(super) faults: BTreeMap<Fault, usize>,
    /// Faults that were injected while an instance was still recovering from an earlier one.
    pub(super) overlapping: usize,
}

const BURST_ONE_IN: u64 = 5;
const FAVOURED_ONE_IN: u64 = 200;
/// Maximum number of calls with a high fault rate after a disturbance: those of the recovery.
const BURST_CALLS_MAX: u64 = 40;

impl FaultInjector {
    pub(super) fn new(
        seed: u64,
        bug: Option<Bug>,
        favoured: Option<Fault>,
        has_no_crashes: bool,
        clock: Arc<ManualClock>,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let one_in = match has_no_crashes {
            true => [40, 80, 120, 120],
            false => [0, 40, 120, 400],
        }[random.random_range(0..4_usize)];
        Self {
            random: Mutex::new(random),
            one_in,
            favoured,
            has_no_crashes,
            burst_calls: AtomicU64::new(0),
            outage_until: Mutex::default(),
            clock,
            is_call_stalled: AtomicBool::new(false),
            violation: Mutex::default(),
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

    pub(super) fn bug(&self) -> Option<Bug> {
        self.bug
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// A random number in `0..end`.
    pub(super) fn roll(&self, end: u64) -> u64 {
        self.random.lock().unwrap().random_range(0..end)
    }

    /// True once in `n` times on average.
    pub(super) fn one_in(&self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// Starts the quiescent phase, which has no faults.
    pub(super) fn stop_faults(&self) {
        self.stop_faults.store(true, Ordering::SeqCst);
        *self.outage_until.lock().unwrap() = Duration::ZERO;
    }

    pub(super) fn are_faults_stopped(&self) -> bool {
        self.stop_faults.load(Ordering::SeqCst)
    }

    /// Sometimes raises the fault rate of the next calls, those of the recovery from a fault.
    pub(super) fn disturb(&self) {
        if self.one_in(6) {
            self.burst_calls.store(self.roll(BURST_CALLS_MAX), Ordering::SeqCst);
        }
    }

    /// Whether the broker is unavailable to all processes.
    pub(super) fn is_outage(&self) -> bool {
        self.clock.elapsed() < *self.outage_until.lock().unwrap()
    }

    pub(super) fn begin_outage(&self, span: Duration) {
        *self.outage_until.lock().unwrap() = self.clock.elapsed() + span;
    }

    /// Marks the caller as stalled in the middle of a call. Returns false if another one is already.
    pub(super) fn begin_stalled_call(&self) -> bool {
        !self.is_call_stalled.swap(true, Ordering::SeqCst)
    }

    pub(super) fn end_stalled_call(&self) {
        self.is_call_stalled.store(false, Ordering::SeqCst);
    }

    pub(super) fn record_violation(&self, violation: String) {
        self.violation.lock().unwrap().get_or_insert(violation);
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.violation.lock().unwrap().clone()
    }

    pub(super) fn set_recovering(&self, is_recovering: bool) {
        self.recovering.store(is_recovering, Ordering::SeqCst);
    }

    /// Appends an event to the log.
    pub(super) fn log_event(&self, event: std::fmt::Arguments<'_>) {
        writeln!(self.log.lock().unwrap(), "{event}").unwrap();
    }

    pub(super) fn log(&self) -> MutexGuard<'_, String> {
        self.log.lock().unwrap()
    }

    pub(super) fn fault_counts(&self) -> FaultCounts {
        self.fault_counts.lock().unwrap().clone()
    }

    /// Counts an injected fault.
    pub(super) fn count(&self, fault: Fault) {
        let mut fault_counts = self.fault_counts.lock().unwrap();
        *fault_counts.faults.entry(fault).or_default() += 1;
        // A repeated end is within the contract of the port, not a failure.
        let is_failure = fault != Fault::EndRepeated;
        fault_counts.overlapping +=
            usize::from(is_failure && self.recovering.load(Ordering::SeqCst));
    }

    /// Injects, once in `n` times, behaviour that the port allows at any time, also in seeds without faults.
    pub(super) fn injects(&self, fault: Fault, n: u64) -> bool {
        let is_injected = !self.are_faults_stopped() && self.one_in(n);
        if is_injected {
            self.count(fault);
        }
        is_injected
    }

    /// Chooses a fault for a call, or none. Important calls have a `weight` by which the rate is multiplied.
    pub(super) fn fault(&self, possible: &[Fault], weight: u64) -> Option<Fault> {
        if self.are_faults_stopped() {
            return None;
        }
        if let Some(favoured) = self.favoured
            && possible.contains(&favoured)
            && self.is_possible(favoured)
            && self.one_in(FAVOURED_ONE_IN / weight)
        {
            self.count(favoured);
            return Some(favoured);
        }
        if self.one_in == 0 {
            return None;
        }
        let burst = self.burst_calls.load(Ordering::SeqCst);
        self.burst_calls.store(burst.saturating_sub(1), Ordering::SeqCst);
        let n = if burst > 0 { BURST_ONE_IN } else { (self.one_in / weight).max(BURST_ONE_IN) };
        if !self.one_in(n) {
            return None;
        }
        let possible: Vec<_> = possible.iter().filter(|fault| self.is_possible(**fault)).collect();
        if possible.is_empty() {
            return None;
        }
        let fault = *possible[usize::try_from(self.roll(possible.len() as u64)).unwrap()];
        self.count(fault);
        Some(fault)
    }

    pub(super) fn add_zombie_writes(&self, task: Partition) {
        self.zombie_tasks.lock().unwrap().insert(task);
    }

    fn is_possible(&self, fault: Fault) -> bool {
        let kills = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
        let stalls = matches!(fault, Fault::StalledInside | Fault::StalledAfter);
        // At most one call is stalled at a time.
        !(kills && self.has_no_crashes || stalls && self.is_call_stalled.load(Ordering::SeqCst))
    }

    /// Clears the zombie writes, after all changelogs were recreated.
    pub(super) fn clear_zombie_writes(&self) {
        self.zombie_tasks.lock().unwrap().clear();
    }

    pub(super) fn zombie_tasks(&self) -> BTreeSet<Partition> {
        self.zombie_tasks.lock().unwrap().clone()
    }
}
