//! What this instance knows about the MLflow server, for `/api/v1/status`. `crate::tracking` publishes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use foretell_streams::time::WallTime;

/// The state of tracking on an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrackingStatus {
    /// Whether this instance sends: one of the application does.
    pub sends: bool,
    /// Since when the server has answered no request; none if it answered the last one, or this instance has sent none.
    pub unavailable_since: Option<WallTime>,
    /// Why the last request failed, at most 500 characters; none if it did not.
    pub reason: Option<String>,
    /// Records that are not sent yet, as of the last 10 s; none before they were counted.
    pub lag_records: Option<i64>,
}

/// Where tracking publishes its state. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct TrackingBoard(Arc<Mutex<TrackingStatus>>);

impl TrackingBoard {
    /// The present state.
    #[must_use]
    pub fn read(&self) -> TrackingStatus {
        self.status().clone()
    }

    /// The server has answered.
    pub fn answered(&self) {
        let mut status = self.status();
        (status.unavailable_since, status.reason) = (None, None);
    }

    /// The server has not answered a request, at a time.
    pub fn unavailable(&self, reason: &str, at: WallTime) {
        let mut status = self.status();
        // A request that was cancelled may fail after this instance has stopped to send.
        if !status.sends {
            return;
        }
        status.unavailable_since.get_or_insert(at);
        if status.reason.as_deref() != Some(reason) {
            status.reason = Some(reason.to_owned());
        }
    }

    /// This instance sends from now on.
    pub fn begins(&self) {
        self.status().sends = true;
    }

    /// This instance sends no more: what it knew about the server is another instance's now.
    pub fn ends(&self) {
        *self.status() = TrackingStatus::default();
    }

    /// The number of records that are not sent yet.
    pub fn lag(&self, records: i64) {
        self.status().lag_records = Some(records);
    }

    fn status(&self) -> MutexGuard<'_, TrackingStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
