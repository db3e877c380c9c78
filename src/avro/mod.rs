//! Avro in Confluent's wire format: how records look on the wire, which schema they were written
//! with, and how they are read with ours. Knows nothing of what the records mean.
//!
//! ```text
//!  bytes ─▶ framing ─▶ id ─▶ readers ─▶ ours?    ─▶ layout: is it whole? ─▶ codec │ dynamic ─▶ value
//!                              │        another? ─▶ resolution: rewrite as ours ─▶ the same
//!                              └─ once an id ─▶ registry: client (HTTP) │ local (in this process)
//! ```
//!
//! Bytes from the wire are untrusted: `layout` and `resolution` check every length against what is
//! left before anything is allocated, so that whatever comes after them reads whole records only.

pub mod framing;

pub mod registry;

pub mod client;

mod references;

pub mod local;

pub mod codec;

pub mod dynamic;

mod readers;

mod resolution;

mod layout;

mod defaults;

mod wire;
