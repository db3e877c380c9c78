//! Avro in Confluent's wire format: how records look on the wire, which schema they were written
//! with, and how they are read with ours. Knows nothing of what the records mean.
//!
//! ```text
//!  bytes ─▶ framing ─▶ id ─▶ readers ─▶ ours?    ─▶ codec (our structs) │ dynamic (rows of cells) ─▶ value
//!                              │        another? ─▶ the same, by the plan that resolution has made for this id
//!                              └─ once an id ─▶ registry: patient ─▶ cached ─▶ client (HTTP) │ local (in this process)
//! ```
//!
//! Bytes from the wire are untrusted: `wire`, on which all of these stand, checks every length against
//! what is left before anything is allocated.

pub mod framing;

pub mod registry;

pub mod access;

pub mod client;

mod references;

pub mod caching;

pub mod evolution;

pub mod retrying;

pub mod local;

pub mod codec;

pub mod dynamic;

mod rows;

mod sample;

mod field_type;

mod readers;

mod resolution;

mod rewrite;

mod scalars;

mod layout;

mod defaults;

mod display;

mod wire;

#[cfg(test)]
mod fuzz;
