//! Everything that is known about one model: its bundle as numbers, and the decisions about it.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::{
    events::decision::Decision,
    processors::library::{
        FeatureImportance, ModelSummary,
        importance::{self},
    },
};
use foretell_ml::{Column, ModelBundle, Params};

/// One model with the content of its bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelDetails {
    /// What its record says.
    #[serde(flatten)]
    pub summary: ModelSummary,
    /// The classes, in the order of the labels.
    pub classes: Vec<String>,
    /// With two classes, the probability from which the second is the label.
    pub threshold: f64,
    /// The evaluation, with intervals where the bundle has them.
    pub evaluation: Map<String, Json>,
    /// LightGBM's parameters.
    pub parameters: Vec<Parameter>,
    /// The inputs of the training, besides the parameters.
    pub lineage: Map<String, Json>,
    /// The columns of the pipeline.
    pub columns: Vec<Column>,
    /// The features by gain.
    pub importance: Vec<FeatureImportance>,
    /// The decisions about it, newest first.
    pub decisions: Vec<Decision>,
}

/// A parameter of LightGBM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parameter {
    /// LightGBM's name.
    pub name: String,
    /// The value.
    pub value: Json,
    /// The default value.
    pub default: Json,
}

impl Parameter {
    /// Whether the value is the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.value == self.default
    }
}

/// The key of the parameters in a lineage.
const PARAMS: &str = "params";

impl ModelDetails {
    pub(super) fn of(
        summary: ModelSummary,
        bundle: &ModelBundle,
        decisions: Vec<Decision>,
    ) -> Self {
        let mut lineage = fields_of(&bundle.lineage);
        let params = match lineage.remove(PARAMS) {
            Some(Json::Object(params)) => params,
            Some(_) | None => Map::new(),
        };
        let defaults = fields_of(&Params::default());
        // Parameters that are rarely set are in an object of their own.
        let params = params.into_iter().flat_map(|(name, value)| {
            if let Json::Object(extra) = value {
                extra.into_iter().collect::<Vec<_>>()
            } else {
                vec![(name, value)]
            }
        });
        let parameters = params.map(|(name, value)| {
            let default = defaults.get(&name).cloned().unwrap_or(Json::Null);
            Parameter { name, value, default }
        });
        Self {
            summary,
            classes: bundle.classes.clone(),
            threshold: bundle.threshold,
            evaluation: fields_of(&bundle.evaluation),
            parameters: parameters.collect(),
            lineage,
            columns: bundle.pipeline.columns().to_vec(),
            importance: importance::importance(bundle),
            decisions,
        }
    }
}

/// The fields of a structure of the bundle, by the names that they have in it.
fn fields_of(value: &impl Serialize) -> Map<String, Json> {
    match serde_json::to_value(value) {
        Ok(Json::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::processors::small_model::small_bundle;
    use foretell_streams::time::WallTime;

    pub(in crate::processors::library) fn details_of(bundle: &ModelBundle) -> ModelDetails {
        let summary = ModelSummary {
            version: bundle.version().as_str().to_owned(),
            aliases: Vec::new(),
            training: 1,
            created_at: WallTime(0),
            examples: None,
            trigger: None,
            parent: None,
            metrics: std::collections::BTreeMap::new(),
            bundle_bytes: 7,
        };
        ModelDetails::of(summary, bundle, Vec::new())
    }

    #[test]
    fn details_have_parameters_lineage_evaluation_and_importance() {
        let mut bundle = small_bundle();
        let extra = serde_json::from_value(serde_json::json!(1.5)).unwrap();
        bundle.lineage.params.extra.insert("path_smooth".to_owned(), extra);
        let details = details_of(&bundle);
        let parameter = |name: &str| {
            details.parameters.iter().find(|parameter| parameter.name == name).unwrap()
        };
        assert_eq!(parameter("num_leaves").value, 7);
        assert!(!parameter("num_leaves").is_default() && parameter("max_bin").is_default());
        assert_eq!(parameter("path_smooth").value, 1.5);
        assert!(!parameter("path_smooth").is_default());
        assert_eq!(details.lineage["seed"], 3);
        assert!(!details.lineage.contains_key(PARAMS));
        assert!(details.evaluation["auc"].as_f64().unwrap() > 0.8);
        let features: Vec<&str> =
            details.importance.iter().map(|one| one.feature.as_str()).collect();
        assert!(features[2] == "noise" && features.len() == 3, "{features:?}");
        assert!(details.importance[0].gain > details.importance[2].gain);
        let json = serde_json::to_value(&details).unwrap();
        assert_eq!(json["version"], bundle.version().as_str());
        assert_eq!(json["columns"][0]["name"], "x");
    }
}
