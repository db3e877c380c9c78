//! A model on its way to every instance, or where an alias points: `schemas/model/v1.avsc`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::WallTime;

/// A model (keyed by its version), or an alias of one (keyed by the alias).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The model's version.
    pub version: String,
    /// If set, this record says that the alias points to `version`; it carries no model.
    pub alias: Option<String>,
    /// The whole model.
    #[serde(with = "serde_bytes")]
    pub bundle: Option<Vec<u8>>,
    /// The number of the training that made it; the first is 0.
    pub training: u32,
    /// When it was made, or when the alias moved.
    pub created_at: WallTime,
    /// The version that was champion when this one was trained.
    pub parent: Option<String>,
    /// Why it was trained, or why the alias moved.
    pub trigger: Option<String>,
    /// How many labelled examples it was trained on.
    pub example_count: Option<i64>,
    /// The first offset of labelled-examples that it may have seen.
    pub first_offset: Option<i64>,
    /// The first offset of labelled-examples that it has not seen.
    pub end_offset: Option<i64>,
    /// The seed of everything random in its training.
    pub seed: Option<i64>,
    /// Its evaluation, by name of the metric. Sorted, so that equal models have equal bytes.
    pub metrics: BTreeMap<String, f64>,
}

impl AvroRecord for Model {
    const SCHEMA: &'static str = include_str!("../../schemas/model/v1.avsc");
}
