//! Calls into a library that panics when its files are corrupted. Such a panic becomes an error of the call. The files are
//! a cache, so their corruption must not end the process.

use std::{
    any::Any,
    cell::Cell,
    ops::{Deref, DerefMut},
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    /// Whether this thread is inside a guarded call.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and returns its result, or the message of its panic. `work` must be the library call alone: a panic in this
/// crate is a bug, and must not be caught.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    install_panic_hook();
    let before = IS_GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    result.map_err(|panic| message(panic.as_ref()))
}

/// Installs a panic hook that does not print panics of guarded calls to stderr. Their callers report them.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| match IS_GUARDED.get() {
            true => tracing::debug!(%info, "caught a panic"),
            false => hook(info),
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panic without a message".to_owned())
}

/// A value whose `drop` may panic after an earlier panic, for example because its locks are poisoned.
pub(super) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Clone> Clone for Guarded<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the value is present until it is dropped")
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the value is present until it is dropped")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        if let Err(panic) = guarded(|| drop(value)) {
            tracing::warn!(panic, "the corrupted stores could not be closed in order");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded(|| 1), Ok(1));
        assert_eq!(guarded(|| -> u8 { panic!("a byte") }), Err("a byte".to_owned()));
        let number = 7;
        assert_eq!(guarded(|| -> u8 { panic!("byte {number}") }), Err("byte 7".to_owned()));
        let nested = guarded(|| guarded(|| -> u8 { panic!("inner") }));
        assert_eq!(nested, Ok(Err("inner".to_owned())));
        assert!(!IS_GUARDED.get(), "later calls are not guarded");
    }

    #[test]
    fn a_panic_in_drop_does_not_propagate() {
        struct Poisoned;
        impl Drop for Poisoned {
            fn drop(&mut self) {
                panic!("a lock is poisoned");
            }
        }
        drop(Guarded::new(Poisoned));
    }
}
