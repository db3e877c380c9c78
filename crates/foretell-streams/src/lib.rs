#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! ```text
//!    topics ──poll──▶ Worker ──records──▶ Task ─┬─▶ source ─▶ processor ─▶ sink
//!      ▲                │                       │                │ ▲         │
//!      │                │                       │               Stores       │
//!      │                │                       └──── outbox ◀───────────────┘
//!      └── one commit: outputs, changelogs, offsets ──┘
//! ```
//!
//! - A [`topology::Topology`] is the graph of sources, processors and sinks, built once by a
//!   [`topology::TopologyBuilder`].
//! - A [`task::Task`] is one partition's instance of it, with its stores. It does no I/O.
//! - A [`runtime::Worker`] is a thread that drives tasks through a [`runtime::broker::Broker`].

#![warn(missing_docs, missing_debug_implementations)]

// The contract tests of the broker port also run outside this crate, and import it by its name.
#[cfg(test)]
extern crate self as foretell_streams;

pub mod codec;
mod commit_times;
mod debug;
pub mod local;
pub mod metrics;
pub mod record;
pub mod runtime;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod task;
pub mod time;
pub mod topology;

// Before fjall reads entries, it allocates as many as the file claims: up to 40 GiB for a corrupted file. mimalloc only
// reserves address space for that, and the read then fails. glibc's allocator fails on a small machine, which ends the
// process.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
