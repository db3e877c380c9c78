//! Wakes the one thread that waits, or keeps it from waiting, if something has come since it last waited.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

#[derive(Debug, Default)]
pub(crate) struct Notify {
    rung: Mutex<bool>,
    collector: Condvar,
}

impl Notify {
    pub(crate) fn notify_one(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.collector.notify_one();
    }

    /// Returns once it has been rung since the last call, or when the time is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.collector.wait_timeout_while(rung, at_most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Far longer than any machine takes to wake a thread: a ring that is lost is a test that does not end.
    const LONG: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_notification_is_kept_for_the_next_wait() {
        let notify = Notify::default();
        notify.notify_one();
        notify.wait(LONG);
        thread::scope(|scope| {
            scope.spawn(|| notify.wait(LONG));
            notify.notify_one();
        });
        notify.wait(Duration::ZERO);
    }
}
