//! Avro codecs in Confluent's wire format: decodes a record with its writer schema, and resolves it to the reader schema.
//!
//! ```text
//!  bytes ─▶ framing ─▶ id ─▶ readers ─▶ the reader schema? ─▶ codec (structs) │ dynamic (rows of cells) │ datum ─▶ value
//!                              │        another schema?    ─▶ the same, by the plan that resolution compiled for this id
//!                              └─ once per id ─▶ registry: retrying ─▶ caching ─▶ client (HTTP) │ local (in process)
//! ```
//!
//! Bytes from the wire are untrusted: `wire`, which all decoding uses, checks every length against the remaining bytes
//! before anything is allocated.

pub mod framing;

pub mod registry;

pub mod access;

pub mod client;

mod responses;

mod references;

pub mod caching;

pub mod evolution;

pub mod retrying;

pub mod local;

mod setup_error;

pub mod codec;

pub mod datum;

pub mod json;

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

pub mod wire;

#[cfg(test)]
mod fuzz;
