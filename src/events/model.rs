//! A model bundle, or the target of an alias: `schemas/model/v1.avsc`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::WallTime;

/// A model (keyed by its version), or an alias of one (keyed by the alias).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The model's version.
    pub version: String,
    /// If set, the record moves this alias to `version`, and has no bundle.
    pub alias: Option<String>,
    /// The serialized model bundle.
    #[serde(with = "serde_bytes")]
    pub bundle: Option<Vec<u8>>,
    /// The number of its training; 0 for the first model.
    pub training: u32,
    /// The time of the training, or of the move of the alias.
    pub created_at: WallTime,
    /// The champion when the training became due.
    pub parent: Option<String>,
    /// The reason for the training, or for the move of the alias.
    pub trigger: Option<String>,
    /// The number of examples that it was trained on.
    pub example_count: Option<i64>,
    /// The first offset of `labelled-examples` that it may be trained on.
    pub first_offset: Option<i64>,
    /// The first offset of `labelled-examples` that it is not trained on.
    pub end_offset: Option<i64>,
    /// The random seed of the training.
    pub seed: Option<i64>,
    /// The evaluation by metric, sorted so that equal models have equal bytes.
    pub metrics: BTreeMap<String, f64>,
}

impl AvroRecord for Model {
    const SCHEMA: &'static str = include_str!("../../schemas/model/v1.avsc");
}
