//! A bound on waiting: librdkafka's calls are repeated until they work or the time is up.

use std::{sync::Arc, thread, time::Duration};

use foretell_streams::time::Clock;

/// How long to wait between two looks at something that librdkafka does in the background.
const PAUSE: Duration = Duration::from_micros(200);

/// A moment by which something must have worked.
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

/// Gives librdkafka's threads a moment. Its own waits do not serve: they count in milliseconds and
/// spin through the last one.
pub(crate) fn pause() {
    pause_for(PAUSE);
}

/// Waits about `span`. Nobody unparks this thread; if somebody did, we would look a little earlier.
pub(crate) fn pause_for(span: Duration) {
    thread::park_timeout(span);
}
