//! What is known about models without reading their bundles.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{events::model::Model, processors::model_archive::Catalogue};
use foretell_streams::time::WallTime;

/// All models of an application.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LibrarySummary {
    /// The models, newest first.
    pub models: Vec<ModelSummary>,
    /// The target of each alias.
    pub aliases: BTreeMap<String, AliasSummary>,
}

/// The target of an alias.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AliasSummary {
    /// The model's version.
    pub version: String,
    /// The time of the last move.
    pub moved_at: WallTime,
    /// The reason for it.
    pub reason: Option<String>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSummary {
    /// The version.
    pub version: String,
    /// The aliases that point to it.
    pub aliases: Vec<String>,
    /// The number of its training; 0 for the first model.
    pub training: u32,
    /// The time of the training.
    pub created_at: WallTime,
    /// The number of examples that it was trained on.
    pub examples: Option<i64>,
    /// The reason for the training.
    pub trigger: Option<String>,
    /// The champion when the training became due.
    pub parent: Option<String>,
    /// The evaluation by metric.
    pub metrics: BTreeMap<String, f64>,
    /// The size of its bundle.
    pub bundle_bytes: usize,
}

impl LibrarySummary {
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        let models = catalogue.models.iter().rev();
        let aliases = catalogue.aliases.iter().map(|(alias, model)| {
            let summary = AliasSummary {
                version: model.version.clone(),
                moved_at: model.created_at,
                reason: model.trigger.clone(),
            };
            (alias.clone(), summary)
        });
        Self {
            models: models.map(|model| ModelSummary::of(model, catalogue)).collect(),
            aliases: aliases.collect(),
        }
    }
}

impl ModelSummary {
    pub(super) fn of(model: &Model, catalogue: &Catalogue) -> Self {
        Self {
            version: model.version.clone(),
            aliases: catalogue.aliases_of(&model.version).map(ToOwned::to_owned).collect(),
            training: model.training,
            created_at: model.created_at,
            examples: model.example_count,
            trigger: model.trigger.clone(),
            parent: model.parent.clone(),
            metrics: model.metrics.clone(),
            bundle_bytes: catalogue.bundles.get(&model.version).map_or(0, |stored| stored.bytes),
        }
    }
}
