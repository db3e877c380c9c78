//! The flag that asks the threads of the runtime to stop.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A shared flag that asks workers, standbys and monitors to stop. Clones share the flag.
///
/// ```
/// use std::{thread, time::Duration};
/// use foretell_streams::runtime::StopSignal;
///
/// let stop = StopSignal::default();
/// let waiting = thread::spawn({
///     let stop = stop.clone();
///     move || {
///         while !stop.is_stopped() {
///             stop.wait(Duration::from_secs(60)); // Returns when the flag is set.
///         }
///     }
/// });
/// stop.stop();
/// waiting.join().expect("the thread does not panic");
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<Stop>);

#[derive(Debug, Default)]
struct Stop {
    is_set: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl StopSignal {
    /// Sets the flag. A worker finishes its turn, commits, and leaves its group.
    pub fn stop(&self) {
        self.0.is_set.store(true, Ordering::SeqCst);
        // Under the lock: otherwise a thread that has just read the flag as unset would miss the notification.
        let _guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.changed.notify_all();
    }

    /// Returns whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Waits for [`Self::stop`], at most `at_most` on the machine's monotonic clock.
    pub fn wait(&self, at_most: Duration) {
        let guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(guard, at_most, |()| !self.is_stopped());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
