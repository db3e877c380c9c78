//! Calls into a library that panics where its files are not what it wrote: for the one who calls, such a panic is an
//! answer like others. What is read is a cache, so that nothing of it is worth the end of the process.

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

/// What `work` returns, or the message of its panic. `work` has to be the call alone: a panic of ours is a fault.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    quieten();
    let before = IS_GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    result.map_err(|panic| message(panic.as_ref()))
}

/// Messages of panics that are caught here go where the caller says, not to the standard error as well.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| match IS_GUARDED.get() {
            true => tracing::debug!(%info, "caught"),
            false => hook(info),
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}

/// What a panic may have left unfit to be dropped in the ordinary way: its locks may be poisoned.
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
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        if let Err(panic) = guarded(|| drop(value)) {
            tracing::warn!(panic, "what was damaged could not be closed in order");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guarded(|| 1), Ok(1));
        assert_eq!(guarded(|| -> u8 { panic!("a byte") }), Err("a byte".to_owned()));
        let number = 7;
        assert_eq!(guarded(|| -> u8 { panic!("byte {number}") }), Err("byte 7".to_owned()));
        let nested = guarded(|| guarded(|| -> u8 { panic!("inner") }));
        assert_eq!(nested, Ok(Err("inner".to_owned())));
        assert!(!IS_GUARDED.get(), "what comes after is not guarded");
    }

    #[test]
    fn a_panic_of_a_drop_ends_there() {
        struct Poisoned;
        impl Drop for Poisoned {
            fn drop(&mut self) {
                panic!("a lock is poisoned");
            }
        }
        drop(Guarded::new(Poisoned));
    }
}
