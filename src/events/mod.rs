//! The record types, one file for each schema in `schemas/`, and `topics.rs`, the table of all topics. Wire types only;
//! `processors/convert.rs` converts them to the types of a model.

pub mod topics;

mod topic_names;

pub mod codecs;

pub mod questionnaire;

pub mod items;

pub mod similar_name;

pub mod answered;

pub mod label;

pub mod outcome;

pub mod challenger;

pub mod prediction;

pub mod action;

#[cfg(test)]
pub(crate) mod small_schema;

pub mod respondent;

pub mod reply;

pub mod labelled_example;

pub mod model;

pub mod trial;

pub mod command;

pub mod decision;

pub mod quality;
