//! Deadlines and pauses for loops that repeat a librdkafka call.

use std::{sync::Arc, thread, time::Duration};

use foretell_streams::time::Clock;

/// Pause between two polls of something that librdkafka does in the background.
const PAUSE: Duration = Duration::from_micros(200);

/// The time by which an operation must have succeeded.
pub(crate) struct Deadline {
    clock: Arc<dyn Clock>,
    end: Duration,
}

impl Deadline {
    pub(crate) fn within(span: Duration, clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), end: clock.elapsed() + span }
    }

    pub(crate) fn passed(&self) -> bool {
        self.remaining().is_zero()
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.end.saturating_sub(self.clock.elapsed())
    }
}

/// Pauses briefly for librdkafka's threads. Its own waits are unsuitable: their unit is a millisecond, and they spin during
/// the last one.
pub(crate) fn pause() {
    pause_for(PAUSE);
}

/// Waits for about `span`. If the thread were unparked, the caller's loop would only poll a little earlier.
pub(crate) fn pause_for(span: Duration) {
    thread::park_timeout(span);
}
