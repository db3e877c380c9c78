//! How a running instance stops. Drawn once, here:
//!
//! ```text
//!   Ctrl-C, SIGTERM ─┐
//!   a worker failed ─┴▶ stop ─▶ workers: finish the turn, commit, leave the group
//!                         │  ─▶ trainer: give up (its request is in the log)
//!                         │  ─▶ models: stop reading
//!                         └──▶ HTTP: answer what is under way, close          ─▶ join all, exit
//! ```
//! A `kill -9` needs none of it: what was not committed comes again.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use foretell_streams::runtime::StopSignal;

/// Why an instance is to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Asked,
    /// A part of it can't go on.
    Failed(String),
}

/// Says once, to all who wait, that the instance is to stop.
#[derive(Clone, Default)]
pub struct Shutdown {
    reason: Arc<(Mutex<Option<StopReason>>, Condvar)>,
    signal: StopSignal,
}

impl Shutdown {
    /// Stop. The first reason counts.
    pub fn stop(&self, reason: StopReason) {
        let (held, changed) = &*self.reason;
        held.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.signal.stop();
        changed.notify_all();
    }

    /// For loops that look between two turns.
    #[must_use]
    pub fn signal(&self) -> StopSignal {
        self.signal.clone()
    }

    /// Waits until it is said.
    #[must_use]
    pub fn wait_until_asked(&self) -> StopReason {
        loop {
            if let Some(reason) = self.wait(Duration::from_secs(3600)) {
                return reason;
            }
        }
    }

    /// Waits until it is said, at most `wait`.
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

/// Catches Ctrl-C and SIGTERM for as long as it is held.
pub struct Signals {
    _runtime: Runtime,
}

/// Says `stop` at the first Ctrl-C or SIGTERM. A second one ends the process at once, as it always did:
/// nothing is lost by that either.
///
/// # Errors
/// If signals can't be caught.
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
