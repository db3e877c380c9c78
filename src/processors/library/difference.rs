//! What is different between two models: only that.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::processors::library::ModelDetails;

/// The differences of a model to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelDifference {
    /// LightGBM's parameters.
    pub parameters: Vec<Change>,
    /// Metrics of the evaluations, intervals included.
    pub evaluation: Vec<Change>,
    /// Threshold and classes.
    pub decision: Vec<Change>,
    /// Columns of the pipeline: their kinds, null where there is none.
    pub columns: Vec<Change>,
    /// Features with another rank by gain.
    pub importance: Vec<RankChange>,
    /// The inputs of the trainings.
    pub lineage: Vec<Change>,
}

/// A value that differs; null where there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The name of the value.
    pub name: String,
    /// The value of the first model.
    pub from: Json,
    /// The value of the second model.
    pub to: Json,
}

/// A feature with another rank; 1 has the largest gain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RankChange {
    /// The name of the feature.
    pub feature: String,
    /// The rank in the first model; none if it lacks the feature.
    pub from: Option<usize>,
    /// The rank in the second model; none if it lacks the feature.
    pub to: Option<usize>,
}

impl ModelDifference {
    /// The differences of `to` to `from`.
    #[must_use]
    pub fn between(from: &ModelDetails, to: &ModelDetails) -> Self {
        let parameters = |details: &ModelDetails| {
            let all = details.parameters.iter();
            all.map(|parameter| (parameter.name.clone(), parameter.value.clone())).collect()
        };
        let decision = |details: &ModelDetails| {
            Map::from_iter([
                ("threshold".to_owned(), json!(details.threshold)),
                ("classes".to_owned(), json!(details.classes)),
            ])
        };
        let columns = |details: &ModelDetails| {
            let all = details.columns.iter();
            all.map(|column| (column.name.clone(), json!(column.kind))).collect()
        };
        Self {
            parameters: changes(&parameters(from), &parameters(to)),
            evaluation: changes(&from.evaluation, &to.evaluation),
            decision: changes(&decision(from), &decision(to)),
            columns: changes(&columns(from), &columns(to)),
            importance: ranks(from, to),
            lineage: changes(&from.lineage, &to.lineage),
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The values that differ, in the order of their names. Objects are compared by their fields.
fn changes(from: &Map<String, Json>, to: &Map<String, Json>) -> Vec<Change> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let value = |of: &Map<String, Json>| of.get(name).cloned().unwrap_or(Json::Null);
        match (value(from), value(to)) {
            (from, to) if from == to => {}
            (Json::Object(from), Json::Object(to)) => {
                let inner = self::changes(&from, &to).into_iter();
                changes.extend(
                    inner.map(|one| Change { name: format!("{name}.{}", one.name), ..one }),
                );
            }
            (from, to) => changes.push(Change { name: name.clone(), from, to }),
        }
    }
    changes
}

fn ranks(from: &ModelDetails, to: &ModelDetails) -> Vec<RankChange> {
    let rank = |details: &ModelDetails, feature: &str| {
        let found = details.importance.iter().position(|one| one.feature == feature);
        found.map(|index| index + 1)
    };
    let features = to.importance.iter().chain(&from.importance).map(|one| one.feature.as_str());
    let mut named = BTreeSet::new();
    let changed = features.filter(|feature| named.insert(*feature)).filter_map(|feature| {
        let (from, to) = (rank(from, feature), rank(to, feature));
        (from != to).then(|| RankChange { feature: feature.to_owned(), from, to })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{library::details::tests::details_of, small_model::small_bundle};
    use foretell_ml::Seed;

    #[test]
    fn only_what_differs_is_listed() {
        let bundle = small_bundle();
        let from = details_of(&bundle);
        assert!(ModelDifference::between(&from, &from).is_empty());
        let mut changed = bundle;
        changed.lineage.params.num_leaves = 9;
        changed.lineage.seed = Seed(4);
        changed.threshold = 0.4;
        changed.evaluation.auc = None;
        let mut to = details_of(&changed);
        to.importance.swap(0, 1);
        to.columns.remove(2);
        to.lineage.insert("policy".to_owned(), json!({"retention": {"last": 5}}));
        let difference = ModelDifference::between(&from, &to);
        let names = |changes: &[Change]| {
            changes.iter().map(|change| change.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&difference.parameters), ["num_leaves"]);
        assert_eq!(names(&difference.evaluation), ["auc"]);
        assert_eq!(names(&difference.decision), ["threshold"]);
        assert_eq!(names(&difference.columns), ["noise"]);
        assert_eq!(names(&difference.lineage), ["policy", "seed"]);
        let leaves = &difference.parameters[0];
        assert_eq!((&leaves.from, &leaves.to), (&json!(7), &json!(9)));
        let ranks: Vec<_> =
            difference.importance.iter().map(|change| (change.from, change.to)).collect();
        assert_eq!(ranks, [(Some(2), Some(1)), (Some(1), Some(2))]);
    }

    #[test]
    fn objects_are_compared_by_their_fields() {
        let object = |json: Json| json.as_object().cloned().unwrap_or_default();
        let from = object(json!({"intervals": {"auc": [0.8, 0.9], "f1": [0.5, 0.6]}}));
        let to = object(json!({"intervals": {"auc": [0.7, 0.9], "f1": [0.5, 0.6]}}));
        let found = changes(&from, &to);
        let expected = Change {
            name: "intervals.auc".to_owned(),
            from: json!([0.8, 0.9]),
            to: json!([0.7, 0.9]),
        };
        assert_eq!(found, [expected]);
    }
}
