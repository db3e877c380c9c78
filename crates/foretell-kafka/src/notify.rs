//! A notification for one waiting thread, which is kept until its next wait.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

#[derive(Debug, Default)]
pub(crate) struct Notify {
    is_notified: Mutex<bool>,
    condition: Condvar,
}

impl Notify {
    pub(crate) fn notify_one(&self) {
        *self.is_notified.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.condition.notify_one();
    }

    /// Waits until it has been notified since the last call, or `at_most` is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        let is_notified = self.is_notified.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.condition.wait_timeout_while(is_notified, at_most, |is_notified| !*is_notified);
        let (mut is_notified, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *is_notified = false;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Far longer than any machine takes to wake a thread: if a notification is lost, the test does not end.
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
