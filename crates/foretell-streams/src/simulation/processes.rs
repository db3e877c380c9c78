//! The running processes. One may stall in the middle of a call while the others run. When it resumes, it may write
//! for tasks that other processes own by then.

use std::{cell::RefCell, time::Duration};

use crate::{
    record::Partition,
    runtime::{
        RecoveryHistory, Standby, StatusBoard, StopSignal, Worker, WorkerError, broker::BrokerError,
    },
    simulation::{
        disk::Disk,
        fault_injector::{Bug, FaultInjector},
        process::Process,
    },
    time::Clock as _,
};

pub(super) struct Instance {
    pub(super) process: Process,
    pub(super) worker: Worker,
    pub(super) board: StatusBoard,
    /// Present in every second seed.
    pub(super) standby: Option<Standby>,
    pub(super) disk: Disk,
    pub(super) stalled_until: Duration,
}

/// Maximum duration of a stalled call, in milliseconds: longer than every session.
const STALLED_CALL_MAX_MS: u64 = 20_000;
/// Maximum number of turns of the other processes during a stalled call.
const TURNS_DURING_STALL_MAX: u64 = 150;

thread_local! {
    /// Each seed runs on one thread, so a call of one process finds the others here.
    static PROCESSES: RefCell<Vec<Instance>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn clear() {
    drop(PROCESSES.take());
}

pub(super) fn len() -> usize {
    PROCESSES.with_borrow(Vec::len)
}

pub(super) fn has(condition: impl Fn(&Instance) -> bool) -> bool {
    PROCESSES.with_borrow(|processes| processes.iter().any(condition))
}

pub(super) fn add(instance: Instance) {
    PROCESSES.with_borrow_mut(|processes| processes.push(instance));
}

pub(super) fn remove(at: usize) -> Instance {
    PROCESSES.with_borrow_mut(|processes| processes.remove(at))
}

/// Describes a task that an instance with standbys neither runs nor has a standby of.
pub(super) fn missing_standby(partitions: u32) -> Option<String> {
    PROCESSES.with_borrow(|processes| {
        let tasks = || (0..i32::try_from(partitions).unwrap()).map(Partition);
        processes.iter().find_map(|one| {
            one.standby.as_ref()?;
            let status = one.board.read();
            let active = status.values().flat_map(|status| &status.tasks);
            let active: Vec<_> = active.map(|task| Partition(task.partition)).collect();
            let missing =
                tasks().find(|task| !active.contains(task) && !one.disk.has_standby(*task))?;
            Some(format!("{} has no standby of task {missing}", one.process.name))
        })
    })
}

pub(super) fn stall(at: usize, until: Duration) {
    PROCESSES.with_borrow_mut(|processes| processes[at].stalled_until = until);
}

pub(super) fn is_stalled(at: usize, now: Duration) -> bool {
    PROCESSES.with_borrow(|processes| processes[at].stalled_until > now)
}

pub(super) fn turn(at: usize, faults: &FaultInjector) -> Result<(), String> {
    let mut instance = remove(at);
    let before = instance.worker.recovery_history();
    let mut result = instance.worker.turn(Duration::ZERO);
    plant_lasting_history(faults, &mut instance.worker, before);
    if let Some(standby) = &mut instance.standby {
        result = result.and_then(|()| standby.turn().map(|_| ()));
    }
    if result.is_ok() && !instance.process.has_crashed() {
        PROCESSES.with_borrow_mut(|processes| processes.insert(at.min(processes.len()), instance));
        return Ok(());
    }
    let process = instance.process.clone();
    drop(instance);
    check_end(&process, result, faults)
}

/// Plants the bugs in which a commit does not reset the counts of a worker's recoveries.
fn plant_lasting_history(faults: &FaultInjector, worker: &mut Worker, before: RecoveryHistory) {
    let mut history = worker.recovery_history();
    if faults.has(Bug::FencesNotForgotten) && history.fenced < before.fenced {
        history.fenced += before.fenced;
    }
    // A worker that was fenced in this turn has closed its tasks, which resets their counts.
    if faults.has(Bug::RebuildsNotForgotten) && history.fenced <= before.fenced {
        history.rebuilt.extend(before.rebuilt);
    }
    worker.set_recovery_history(history);
}

/// Stops an instance in order, as after SIGTERM.
pub(super) fn stop(at: usize, faults: &FaultInjector) -> Result<(), String> {
    let Instance { process, worker, .. } = remove(at);
    let signal = StopSignal::default();
    signal.stop();
    match worker.run(&signal) {
        // The broker was not available for leaving the group.
        Err(WorkerError::Broker(BrokerError::Retry(_))) => check_end(&process, Ok(()), faults),
        result => check_end(&process, result, faults),
    }
}

/// Checks that a process which has ended had a reason to.
fn check_end(
    process: &Process,
    result: Result<(), WorkerError>,
    faults: &FaultInjector,
) -> Result<(), String> {
    faults.log_event(format_args!("{} ends: {result:?}", process.name));
    faults.disturb();
    match result {
        Ok(()) => Ok(()),
        Err(error) if process.may_end_with(&error) => Ok(()),
        Err(error) => Err(format!("{} ended without a reason: {error}", process.name)),
    }
}

/// Stalls the caller in the middle of a call: time passes, and the other instances run. Does nothing if another caller is
/// stalled already.
pub(super) fn stall_caller(faults: &FaultInjector) {
    if !faults.begin_stalled_call() {
        return;
    }
    run_others(faults);
    faults.end_stalled_call();
}

fn run_others(faults: &FaultInjector) {
    let (span, turns) = (faults.roll(STALLED_CALL_MAX_MS), 1 + faults.roll(TURNS_DURING_STALL_MAX));
    for _ in 0..turns {
        faults.clock.advance(Duration::from_millis(span / turns));
        let count = len() as u64;
        if count == 0 {
            continue;
        }
        let at = usize::try_from(faults.roll(count)).unwrap();
        if !is_stalled(at, faults.clock.elapsed())
            && let Err(violation) = turn(at, faults)
        {
            faults.record_violation(violation);
        }
    }
}
