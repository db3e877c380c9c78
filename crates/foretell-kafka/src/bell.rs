//! Wakes the one thread that waits, or keeps it from waiting, if something has come since it last waited.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Returns once it has been rung since the last call, or when the time is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, at_most, |rung| !*rung);
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
    fn a_ring_is_not_lost_whoever_comes_first() {
        let bell = Bell::default();
        bell.ring();
        bell.wait(LONG);
        thread::scope(|scope| {
            scope.spawn(|| bell.wait(LONG));
            bell.ring();
        });
        bell.wait(Duration::ZERO);
    }
}
