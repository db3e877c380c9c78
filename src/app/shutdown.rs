//! The stop of a running instance:
//!
//! ```text
//!   Ctrl-C, SIGTERM ─┐
//!   a worker failed ─┴▶ stop ─▶ workers: finish the poll loop, commit, leave the group
//!                         │  ─▶ trainer: cancel (its request stays in the store)
//!                         │  ─▶ models: stop reading
//!                         └──▶ HTTP: complete open requests, close            ─▶ join all, exit
//! ```
//! A `kill -9` loses nothing either: records that were not committed are processed again.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use foretell_streams::runtime::StopSignal;

/// The reason for a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Ctrl-C, SIGTERM, or a call.
    Asked,
    /// A thread failed, with this message.
    Failed(String),
}

/// Stops an instance once, and wakes every thread that waits for it.
#[derive(Clone, Default)]
pub struct Shutdown {
    reason: Arc<(Mutex<Option<StopReason>>, Condvar)>,
    signal: StopSignal,
}

impl Shutdown {
    /// Stops the instance. The first reason counts.
    pub fn stop(&self, reason: StopReason) {
        let (held, changed) = &*self.reason;
        held.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.signal.stop();
        changed.notify_all();
    }

    /// Runs the work of a thread. An error or a panic stops the process: a supervisor restarts a process that has ended, and
    /// does not notice one that does half of its work.
    pub(super) fn stop_on_failure(&self, work: impl FnOnce() -> Result<(), String>) {
        let reason = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => "a thread panicked; its message is in the log".to_owned(),
        };
        self.stop(StopReason::Failed(reason));
    }

    /// The signal that loops check between two iterations.
    #[must_use]
    pub fn signal(&self) -> StopSignal {
        self.signal.clone()
    }

    /// Waits for the stop.
    #[must_use]
    pub fn wait_until_asked(&self) -> StopReason {
        loop {
            if let Some(reason) = self.wait(Duration::from_secs(3600)) {
                return reason;
            }
        }
    }

    /// Waits for the stop, for at most `wait`.
    #[must_use]
    pub fn wait(&self, wait: Duration) -> Option<StopReason> {
        let (held, changed) = &*self.reason;
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, _) = changed
            .wait_timeout_while(held, wait, |reason| reason.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}

/// Handles Ctrl-C and SIGTERM until it is dropped.
pub struct Signals {
    _runtime: Runtime,
}

/// Stops at the first Ctrl-C or SIGTERM. A second one ends the process at once, which loses nothing either.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn stop_when_asked(shutdown: &Shutdown) -> std::io::Result<Signals> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("signals")
        .enable_io()
        .build()?;
    let shutdown = shutdown.clone();
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    runtime.spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        shutdown.stop(StopReason::Asked);
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(130);
    });
    Ok(Signals { _runtime: runtime })
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
