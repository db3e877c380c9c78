//! The progress of reading a file several times, and its interruption.

/// Calls between two messages.
const CALLS_PER_MESSAGE: u32 = 4096;

/// Passes the progress of each pass over the file to the caller, now and then.
pub(super) struct Steps<'a> {
    /// Gets the name of the pass, the bytes read, and the bytes of the file. An error stops the command.
    observer: &'a mut dyn FnMut(&'static str, u64, u64) -> anyhow::Result<()>,
    calls: u32,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        observer: &'a mut dyn FnMut(&'static str, u64, u64) -> anyhow::Result<()>,
    ) -> Self {
        Self { observer, calls: 0 }
    }

    /// Call it for each row or chunk.
    ///
    /// # Errors
    /// The caller's, to stop.
    pub(super) fn show(&mut self, pass: &'static str, done: u64, of: u64) -> anyhow::Result<()> {
        let calls = self.calls;
        self.calls = self.calls.wrapping_add(1);
        if calls.is_multiple_of(CALLS_PER_MESSAGE) {
            (self.observer)(pass, done, of)?;
        }
        Ok(())
    }
}
