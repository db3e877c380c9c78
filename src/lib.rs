#![doc = include_str!("../ARCHITECTURE.md")]

pub mod events;

pub mod processors;

pub mod http;

pub mod config;

pub mod tracking;

pub mod app;

pub mod cli;

#[cfg(test)]
mod reference;

/// As in the binary, so that unit tests run what runs.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
