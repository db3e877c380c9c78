//! Running processes. One may stall in the middle of a call while the others go on: when it wakes, what it was
//! about to write is for tasks that are theirs by then.

use std::{cell::RefCell, time::Duration};

use crate::{
    record::Partition,
    runtime::{Standby, StatusBoard, StopSignal, Worker, WorkerError, broker::BrokerError},
    simulation::{fault_injector::FaultInjector, process::Process},
    time::Clock as _,
};

pub(super) struct Instance {
    pub(super) process: Process,
    pub(super) worker: Worker,
    pub(super) board: StatusBoard,
    /// Of every second seed.
    pub(super) standby: Option<Standby>,
    pub(super) stalled_until: Duration,
}

/// How long a call may take that should take no time: past every session.
const CALL_MAX_MS: u64 = 20_000;
/// Turns of the others meanwhile.
const TURNS_MEANWHILE_MAX: u64 = 150;

thread_local! {
    /// A worker stays on its thread, and a seed, too: so a call of one finds the others here.
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

/// A task of which some instance has neither its own nor a copy, though it keeps copies.
pub(super) fn lacks_a_copy(partitions: u32) -> Option<String> {
    PROCESSES.with_borrow(|processes| {
        let tasks = || (0..i32::try_from(partitions).unwrap()).map(Partition);
        processes.iter().find_map(|one| {
            let copies = one.standby.as_ref()?.copies();
            let status = one.board.read();
            let own = status.values().flat_map(|status| &status.tasks);
            let own: Vec<_> = own.map(|task| Partition(task.partition)).collect();
            let lacked = tasks().find(|task| !own.contains(task) && !copies.contains(task))?;
            Some(format!("{} has no copy of task {lacked}", one.process.name))
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
    let mut result = instance.worker.turn(Duration::ZERO);
    if let Some(standby) = &mut instance.standby {
        result = result.and_then(|()| standby.turn().map(|_| ()));
    }
    if result.is_ok() && !instance.process.is_dead() {
        PROCESSES.with_borrow_mut(|processes| processes.insert(at.min(processes.len()), instance));
        return Ok(());
    }
    let process = instance.process.clone();
    drop(instance);
    ended(&process, result, faults)
}

/// SIGTERM.
pub(super) fn stop(at: usize, faults: &FaultInjector) -> Result<(), String> {
    let Instance { process, worker, .. } = remove(at);
    let signal = StopSignal::default();
    signal.stop();
    match worker.run(&signal) {
        // It could not say goodbye.
        Err(WorkerError::Broker(BrokerError::Retry(_))) => ended(&process, Ok(()), faults),
        result => ended(&process, result, faults),
    }
}

fn ended(
    process: &Process,
    result: Result<(), WorkerError>,
    faults: &FaultInjector,
) -> Result<(), String> {
    faults.note(format_args!("{} ends: {result:?}", process.name));
    faults.disturb();
    match result {
        Ok(()) => Ok(()),
        Err(error) if process.may_end_with(&error) => Ok(()),
        Err(error) => Err(format!("{} gave up: {error}", process.name)),
    }
}

/// An instance stalls in the middle of a call: time passes, and the others go on.
pub(super) fn go_on_without_the_caller(faults: &FaultInjector) {
    let (span, turns) = (faults.roll(CALL_MAX_MS), 1 + faults.roll(TURNS_MEANWHILE_MAX));
    for _ in 0..turns {
        faults.clock.advance(Duration::from_millis(span / turns));
        let count = len() as u64;
        if count == 0 {
            continue;
        }
        let at = usize::try_from(faults.roll(count)).unwrap();
        if !is_stalled(at, faults.clock.elapsed())
            && let Err(wrong) = turn(at, faults)
        {
            faults.went_wrong(wrong);
        }
    }
}
