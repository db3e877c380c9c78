//! The processes that live. One may stand still in the midst of a call, while the others go on: when it wakes, what it was
//! about to write is for tasks that are theirs by then.

use std::{cell::RefCell, time::Duration};

use crate::{
    record::Partition,
    runtime::{Standby, StatusBoard, StopSignal, Worker, WorkerError, broker::BrokerError},
    simulation::{process::Process, weather::Weather},
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
    static CROWD: RefCell<Vec<Instance>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn clear() {
    drop(CROWD.take());
}

pub(super) fn len() -> usize {
    CROWD.with_borrow(Vec::len)
}

pub(super) fn has(condition: impl Fn(&Instance) -> bool) -> bool {
    CROWD.with_borrow(|crowd| crowd.iter().any(condition))
}

pub(super) fn add(instance: Instance) {
    CROWD.with_borrow_mut(|crowd| crowd.push(instance));
}

pub(super) fn remove(at: usize) -> Instance {
    CROWD.with_borrow_mut(|crowd| crowd.remove(at))
}

/// A task of which some instance has neither its own nor a copy, though it keeps copies.
pub(super) fn lacks_a_copy(partitions: u32) -> Option<String> {
    CROWD.with_borrow(|crowd| {
        let tasks = || (0..i32::try_from(partitions).unwrap()).map(Partition);
        crowd.iter().find_map(|one| {
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
    CROWD.with_borrow_mut(|crowd| crowd[at].stalled_until = until);
}

pub(super) fn is_stalled(at: usize, now: Duration) -> bool {
    CROWD.with_borrow(|crowd| crowd[at].stalled_until > now)
}

pub(super) fn turn(at: usize, weather: &Weather) -> Result<(), String> {
    let mut instance = remove(at);
    let mut result = instance.worker.turn(Duration::ZERO);
    if let Some(standby) = &mut instance.standby {
        result = result.and_then(|()| standby.turn().map(|_| ()));
    }
    if result.is_ok() && !instance.process.is_dead() {
        CROWD.with_borrow_mut(|crowd| crowd.insert(at.min(crowd.len()), instance));
        return Ok(());
    }
    let process = instance.process.clone();
    drop(instance);
    ended(&process, result, weather)
}

/// SIGTERM.
pub(super) fn stop(at: usize, weather: &Weather) -> Result<(), String> {
    let Instance { process, worker, .. } = remove(at);
    let signal = StopSignal::default();
    signal.stop();
    match worker.run(&signal) {
        // It could not say goodbye.
        Err(WorkerError::Broker(BrokerError::Retry(_))) => ended(&process, Ok(()), weather),
        result => ended(&process, result, weather),
    }
}

fn ended(
    process: &Process,
    result: Result<(), WorkerError>,
    weather: &Weather,
) -> Result<(), String> {
    weather.note(format_args!("{} ends: {result:?}", process.name));
    weather.disturb();
    match result {
        Ok(()) => Ok(()),
        Err(error) if process.may_end_with(&error) => Ok(()),
        Err(error) => Err(format!("{} gave up: {error}", process.name)),
    }
}

/// Somebody stands still in the midst of a call: time passes, and the others go on.
pub(super) fn go_on_without_the_caller(weather: &Weather) {
    let (span, turns) = (weather.roll(CALL_MAX_MS), 1 + weather.roll(TURNS_MEANWHILE_MAX));
    for _ in 0..turns {
        weather.clock.advance(Duration::from_millis(span / turns));
        let count = len() as u64;
        if count == 0 {
            continue;
        }
        let at = usize::try_from(weather.roll(count)).unwrap();
        if !is_stalled(at, weather.clock.elapsed())
            && let Err(wrong) = turn(at, weather)
        {
            weather.went_wrong(wrong);
        }
    }
}
