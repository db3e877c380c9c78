//! Our records and topics, typed: one file a schema in `schemas/`, and `topics.rs`, the system's
//! table of contents. Wire types only: what they mean to a model is said elsewhere.

pub mod topics;

pub mod codecs;

pub mod questionnaire;

pub mod label;

pub mod outcome;

pub mod prediction;

pub mod reply;

pub mod labelled_example;

pub mod model;

pub mod trial;
