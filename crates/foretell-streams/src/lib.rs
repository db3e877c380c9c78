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

pub mod codec;
mod debug;
pub mod local;
pub mod metrics;
#[cfg(test)]
pub(crate) mod planted;
pub mod record;
pub mod runtime;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod task;
pub mod time;
pub mod topology;

// fjall allocates as many entries as a damaged file claims, up to 40 GiB, before it reads them. This allocator reserves
// addresses for that and the read fails; glibc's refuses on a small machine, which ends the process.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
