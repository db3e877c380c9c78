//! One trial of a hyper-parameter study: `schemas/trial/v1.avsc`.

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::WallTime;

/// One trial of a hyper-parameter study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The study it belongs to.
    pub study: String,
    /// Its number in the study, from 0.
    pub number: u32,
    /// What was tried, in the order of the search space.
    pub parameters: Vec<TrialParameter>,
    /// The mean log loss over the folds that were run; lower is better.
    pub log_loss: f64,
    /// The mean area under the ROC curve; none with more than two classes.
    pub auc: Option<f64>,
    /// How many trees were best, by early stopping.
    pub iterations: u32,
    /// It was given up before its last fold.
    pub pruned: bool,
    /// When it ended.
    pub created_at: WallTime,
}

impl AvroRecord for Trial {
    const SCHEMA: &'static str = include_str!("../../schemas/trial/v1.avsc");
}

/// One hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialParameter {
    /// LightGBM's name for it.
    pub name: String,
    /// What it was set to.
    pub value: f64,
}
