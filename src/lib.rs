#![doc = include_str!("../ARCHITECTURE.md")]

pub mod events;

pub mod processors;

pub mod http;

pub mod config;

pub mod app;

pub mod cli;

#[cfg(test)]
mod reference;

/// The binary's, and that of benchmarks and tests: what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
