//! One trial of a hyper-parameter study: `schemas/trial/v1.avsc`.

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::WallTime;

/// One trial of a hyper-parameter study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The name of the study.
    pub study: String,
    /// The number in the study, from 0.
    pub number: u32,
    /// The hyper-parameters, in the order of the search space.
    pub parameters: Vec<TrialParameter>,
    /// The mean log loss over the folds that were run; lower is better.
    pub log_loss: f64,
    /// The mean area under the ROC curve; none with more than two classes.
    pub auc: Option<f64>,
    /// The best number of trees, by early stopping.
    pub iterations: u32,
    /// Whether the trial was stopped before its last fold.
    pub pruned: bool,
    /// The end of the trial.
    pub created_at: WallTime,
}

impl AvroRecord for Trial {
    const SCHEMA: &'static str = include_str!("../../schemas/trial/v1.avsc");
}

/// One hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialParameter {
    /// The name in LightGBM.
    pub name: String,
    /// The value.
    pub value: f64,
}
