//! Counts what a thread allocates. (`stats_alloc` counts for the system's allocator only, on stable Rust.)

#![expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait; each call is handed on as it came"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
};

use mimalloc::MiMalloc;

/// The binary's allocator, with counters. They are of the thread, because two atomic additions would cost as much as a small
/// allocation.
pub(crate) struct CountingAllocator;

/// Allocations since the start of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocated {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { allocations: 0, bytes: 0 }) };
}

/// Allocations of this thread so far.
pub(crate) fn allocated() -> Allocated {
    ALLOCATED.get()
}

fn count(bytes: usize) {
    let Allocated { allocations, bytes: before } = ALLOCATED.get();
    ALLOCATED.set(Allocated { allocations: allocations + 1, bytes: before + bytes as u64 });
}

// SAFETY: all that is promised is what `MiMalloc` promises. Counting does not allocate: the cell needs no initialisation.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}
