//! The thread that sends: one entry at a time, again and again until the server has it, refuses it, or the attempt is cancelled.
//!
//! ```text
//!   sent                       done
//!   refused                    once more without the remembered ids; refused again: logged, counted, skipped
//!   the server is unavailable  again after a back-off, without end
//!   cancelled                  given back: the next owner of the partition sends it
//! ```

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::tracking::{
    client::TrackingError,
    metrics::TrackingMetrics,
    tracker::{Entry, Tracker},
};
use foretell_streams::{runtime::StopSignal, time::Clock};

/// The bound of the first wait.
const BASE: Duration = Duration::from_secs(1);
/// The bound of every wait that the server did not ask for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The bound of a wait that the server asked for (`Retry-After`).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The server has it, or refused it.
    Done,
    Cancelled,
}

/// An entry to send. `cancel` stops it.
#[derive(Debug)]
struct Work {
    entry: Entry,
    cancel: StopSignal,
}

/// The thread that sends.
pub(super) struct SenderThread {
    work: mpsc::Sender<Work>,
    results: mpsc::Receiver<Sent>,
    thread: JoinHandle<()>,
}

impl SenderThread {
    /// Starts the thread. `seed` is for the random part of the waits.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(super) fn start(
        tracker: Tracker,
        metrics: TrackingMetrics,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> std::io::Result<Self> {
        let (work, to_do) = mpsc::channel::<Work>();
        let (done, results) = mpsc::channel();
        let random = StdRng::seed_from_u64(seed);
        let mut sender = Sender { tracker, metrics, clock, random };
        let run = move || {
            for Work { entry, cancel } in to_do {
                if done.send(sender.send(&entry, &cancel)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mlflow".to_owned()).spawn(run)?;
        Ok(Self { work, results, thread })
    }

    /// Hands over an entry. The caller waits for its result before the next one.
    pub(super) fn send(&self, entry: Entry) -> StopSignal {
        let cancel = StopSignal::default();
        let handed_over = self.work.send(Work { entry, cancel: cancel.clone() });
        assert!(handed_over.is_ok(), "the thread ends after its work");
        cancel
    }

    /// Waits for the result of an entry, for at most `wait`.
    pub(super) fn result(&self, wait: Duration) -> Option<Sent> {
        self.results.recv_timeout(wait).ok()
    }

    /// Waits for the end of the thread, which has no work.
    pub(super) fn join(self) {
        drop(self.work);
        assert!(self.thread.join().is_ok(), "a panic of the tracker is caught");
    }
}

struct Sender {
    tracker: Tracker,
    metrics: TrackingMetrics,
    clock: Arc<dyn Clock>,
    random: StdRng,
}

impl Sender {
    fn send(&mut self, entry: &Entry, cancel: &StopSignal) -> Sent {
        let (kind, records) = (entry.kind(), entry.records());
        let (mut attempt, mut was_refused, mut logged) = (0_u32, false, None);
        self.tracker.stop_by(cancel.clone());
        loop {
            match self.apply(entry) {
                Ok(()) => {
                    self.metrics.answered();
                    self.metrics.sent(kind, records);
                    if logged.is_some() {
                        tracing::info!("the MLflow server answers again");
                    }
                    return Sent::Done;
                }
                Err(TrackingError::Cancelled) => return Sent::Cancelled,
                Err(TrackingError::Refused { .. }) if !was_refused => {
                    // What is remembered may have been deleted since.
                    was_refused = true;
                    self.tracker.forget();
                }
                Err(TrackingError::Refused { code, message }) => {
                    self.metrics.answered();
                    self.metrics.failed(kind, records);
                    tracing::error!(kind, code, message, "skipping a record that MLflow refused");
                    return Sent::Done;
                }
                Err(TrackingError::Unavailable { reason, retry_after }) => {
                    attempt = attempt.saturating_add(1);
                    self.metrics.unavailable(&reason, self.clock.now());
                    self.metrics.retried();
                    // Logged once for all retries with the same reason.
                    if logged.as_ref() != Some(&reason) {
                        tracing::warn!(
                            kind,
                            reason,
                            "cannot send to MLflow now; retrying. Is [mlflow] tracking_uri the address of an MLflow server?"
                        );
                    }
                    logged = Some(reason);
                    cancel.wait(wait(attempt, retry_after, &mut self.random));
                }
            }
        }
    }

    /// Applies an entry. A panic, which would be a mistake of ours, is a refusal: it must end neither the thread nor the process.
    fn apply(&mut self, entry: &Entry) -> Result<(), TrackingError> {
        let applied = catch_unwind(AssertUnwindSafe(|| self.tracker.apply(entry)));
        applied.unwrap_or_else(|_| {
            let problem = "tracking panicked; the message is in the log";
            Err(TrackingError::refused("PANIC", problem))
        })
    }
}

/// The wait after the attempt with this number, from 1: any time up to a bound, which doubles with each attempt.
fn wait(attempt: u32, asked_for: Option<Duration>, random: &mut StdRng) -> Duration {
    if let Some(asked_for) = asked_for {
        return asked_for.min(RETRY_AFTER_MAX);
    }
    let doublings = attempt.saturating_sub(1).min(31);
    let bound = BASE.saturating_mul(1 << doublings).min(WAIT_MAX);
    bound.mul_f64(random.random::<f64>())
}
