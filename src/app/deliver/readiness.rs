//! Whether the process has joined its group, for `/readyz`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that is set at the first assignment. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub(super) fn set_joined(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_joined(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
