//! The sections about tuning of the configuration as written: see `raw.rs`.

use std::time::Duration;

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::processors::learning::work::TuningPlan;
use foretell_ml::training::{FoldOrder, Metric, SamplerKind, Space, TuningSettings};

/// How `foretell init` tunes the first model.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTuning {
    /// Maximum number of trials of the study; at least 1.
    pub trials: u32,
    /// Time limit of the study; at least 1 ms. The running trial is cancelled then.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// What proposes the parameters of the trials. `foretell tune` compares samplers on your data.
    pub sampler: SamplerKind,
    /// The metric by which trials are compared, its mean over the folds. Early stopping goes by the log loss, whatever the
    /// objective.
    pub objective: Metric,
    /// Number of folds of the cross-validation; at least 2.
    pub folds: u32,
    /// Which examples a fold is trained on, and which it is validated on.
    pub order: FoldOrder,
    /// Threads that train folds in parallel; at least 1.
    pub threads: u32,
    /// Maximum number of boosting iterations of one model: 1 to 10000.
    pub iterations_max: u32,
    /// Number of iterations without a better validation loss after which training stops early; at least 1.
    pub early_stopping_rounds: u32,
    pub space: Space,
}

impl Default for RawTuning {
    fn default() -> Self {
        Self {
            trials: 30,
            time: Duration::from_secs(120),
            sampler: SamplerKind::Gp,
            objective: Metric::LogLoss,
            folds: 5,
            order: FoldOrder::Shuffled,
            threads: 2,
            iterations_max: 800,
            early_stopping_rounds: 25,
            space: Space::default(),
        }
    }
}

impl RawTuning {
    /// The settings of the study.
    pub(super) fn study(&self) -> TuningSettings {
        TuningSettings {
            folds: self.folds,
            order: self.order,
            trials: self.trials,
            threads: self.threads,
            iterations_max: self.iterations_max,
            early_stopping_rounds: self.early_stopping_rounds,
            objective: self.objective,
            sampler: self.sampler,
            space: self.space.clone(),
            ..TuningSettings::default()
        }
    }
}

/// How retrainings tune. Their first trial has the champion's parameters, and the trials of all studies before warm-start the
/// search, so it takes fewer trials than the first one.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetuning {
    /// Maximum number of trials of a study. 0: retrainings use the champion's parameters.
    pub trials: u32,
    /// Time limit of a study; at least 1 ms. The running trial is cancelled then.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// Number of trainings of which one tunes; at least 1. The others use the champion's parameters.
    pub every: u32,
    /// Threads that train folds in parallel; at least 1. With more than one, scoring may have to wait for the CPU.
    pub threads: u32,
    /// As `tuning.sampler`. Unset: that of `[tuning]`.
    pub sampler: Option<SamplerKind>,
    /// As `tuning.objective`. Unset: that of `[tuning]`.
    pub objective: Option<Metric>,
    /// As `tuning.folds`. Unset: that of `[tuning]`.
    pub folds: Option<u32>,
    /// As `tuning.order`. Unset: that of `[tuning]`.
    pub order: Option<FoldOrder>,
    /// As `tuning.space`, in place of it. Unset: that of `[tuning]`.
    pub space: Option<Space>,
}

impl Default for RawRetuning {
    fn default() -> Self {
        Self {
            trials: 10,
            time: Duration::from_secs(60),
            every: 1,
            threads: 1,
            sampler: None,
            objective: None,
            folds: None,
            order: None,
            space: None,
        }
    }
}

impl RawRetuning {
    /// The plan, with the settings of the first study for those that are not set.
    pub(super) fn plan(&self, first: &RawTuning) -> TuningPlan {
        let first = first.study();
        let study = TuningSettings {
            trials: self.trials,
            threads: self.threads,
            sampler: self.sampler.unwrap_or(first.sampler),
            objective: self.objective.unwrap_or(first.objective),
            folds: self.folds.unwrap_or(first.folds),
            order: self.order.unwrap_or(first.order),
            space: self.space.clone().unwrap_or_else(|| first.space.clone()),
            ..first
        };
        TuningPlan { study, time: self.time, every: self.every }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_ml::training::Domain;

    #[test]
    fn a_retraining_tunes_as_the_first_study_unless_it_is_told_otherwise() {
        let first = "sampler = \"tpe\"\nobjective = \"auc\"\norder = \"time\"\nfolds = 3\niterations_max = 99\n\
                     [space]\nnum_leaves = 7";
        let first: RawTuning = toml::from_str(first).unwrap();
        let plan = |written: &str| toml::from_str::<RawRetuning>(written).unwrap().plan(&first);
        let inherited = plan("");
        let expected = TuningSettings { trials: 10, threads: 1, ..first.study() };
        let (time, every) = (Duration::from_secs(60), 1);
        assert_eq!(inherited, TuningPlan { study: expected.clone(), time, every });
        assert_eq!(expected.sampler, SamplerKind::Tpe);
        let own = plan(
            "trials = 3\nevery = 5\nsampler = \"random\"\nobjective = \"f1\"\nfolds = 2\norder = \"shuffled\"\n\
             [space]\nmax_depth = { int = [3, 9] }",
        );
        let space = Space::default().with("max_depth", Domain::int(3, 9)).unwrap();
        let expected = TuningSettings {
            trials: 3,
            sampler: SamplerKind::Random,
            objective: Metric::F1,
            folds: 2,
            order: FoldOrder::Shuffled,
            space,
            ..expected
        };
        assert_eq!(own, TuningPlan { study: expected, time, every: 5 });
    }
}
