//! One trial of a hyper-parameter study: `schemas/trial/v2.avsc`.

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
    /// The mean log loss over the folds that were run; lower is better. Infinite if the trial failed.
    pub log_loss: f64,
    /// The mean area under the ROC curve; none with more than two classes.
    pub auc: Option<f64>,
    /// The best number of trees, by early stopping.
    pub iterations: u32,
    /// Whether the trial was ended before its last fold, because it was not going to win or because it failed.
    pub pruned: bool,
    /// The end of the trial.
    pub created_at: WallTime,
    /// The metric that the study optimises.
    pub objective: String,
    /// The mean of that metric over the folds that were run; none if it is undefined, and in records of version 1.
    pub value: Option<f64>,
    /// What proposed the parameters.
    pub sampler: String,
    /// Why LightGBM refused the parameters.
    pub failure: Option<String>,
}

impl AvroRecord for Trial {
    const SCHEMA: &'static str = include_str!("../../schemas/trial/v2.avsc");
}

/// One hyper-parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialParameter {
    /// The name in LightGBM.
    pub name: String,
    /// The value; 0 if it is not a number.
    pub value: f64,
    /// The value if it is not a number: a text, or `true` or `false`.
    pub text: Option<String>,
}
