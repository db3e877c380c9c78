//! The records of an application: what its topics hold.

use crate::{
    events::{
        decision::{Decision, DecisionOutcome, ModelComparison},
        model::Model,
        quality::{Quality, QualityMetrics, StabilityIndex},
        trial::{Trial, TrialParameter},
    },
    processors::{learning::outputs::records_of, small_model::small_bundle},
    tracking::tracker::Entry,
};
use foretell_streams::time::{EventTime, WallTime};

pub(super) fn trial(study: &str, number: u32, at: i64) -> Trial {
    let parameter = |name: &str, value: f64, text: Option<&str>| TrialParameter {
        name: name.to_owned(),
        value,
        text: text.map(ToOwned::to_owned),
    };
    Trial {
        study: study.to_owned(),
        number,
        parameters: vec![
            parameter("num_leaves", 31.0, None),
            parameter("boosting", 0.0, Some("gbdt")),
        ],
        log_loss: if number == 1 { f64::INFINITY } else { 0.4 },
        auc: Some(0.8),
        iterations: 10,
        pruned: false,
        created_at: WallTime(at),
        objective: "log_loss".to_owned(),
        value: Some(0.4),
        sampler: "tpe".to_owned(),
        failure: (number == 1).then(|| "LightGBM refused it".to_owned()),
    }
}

/// The record of a model of a training.
pub(super) fn model(training: u64, at: i64) -> Model {
    let mut bundle = small_bundle();
    bundle.lineage.origin.training = training;
    let [model, _] = records_of(&bundle, "500 new labels", WallTime(at)).unwrap();
    model
}

pub(super) fn alias(alias: &str, model: Option<&Model>, at: i64) -> Model {
    let version = model.map_or(String::new(), |model| model.version.clone());
    let record = self::model(0, at);
    Model { version, alias: Some(alias.to_owned()), bundle: None, ..record }
}

pub(super) fn decision(
    id: &str,
    outcome: DecisionOutcome,
    candidate: Option<&Model>,
    at: i64,
) -> Decision {
    let comparison = ModelComparison {
        metric: "log_loss".to_owned(),
        examples: 400,
        candidate: 0.3,
        champion: 0.4,
        difference: 0.1,
        low: 0.05,
        high: 0.15,
        confidence: 0.95,
        margin: 0.0,
    };
    Decision {
        decision_id: id.to_owned(),
        outcome,
        reason: "it's better".to_owned(),
        trigger: Some("500 new labels".to_owned()),
        requested_by: None,
        training: id.strip_prefix("training-").map(|number| number.parse().unwrap()),
        candidate: candidate.map(|model| model.version.clone()),
        champion: None,
        comparison: candidate.map(|_| comparison),
        first_offset: Some(0),
        end_offset: Some(at),
        decided_at: WallTime(at),
    }
}

pub(super) fn quality(model: &Model, window: i64, labels: i64) -> Quality {
    let live = QualityMetrics { log_loss: Some(0.5), ..QualityMetrics::default() };
    Quality {
        model_version: model.version.clone(),
        window_start: EventTime(window),
        window_end: EventTime(window + 3_600_000),
        closed: false,
        predictions: 100,
        labels,
        trained: QualityMetrics::default(),
        estimated: QualityMetrics::default(),
        live,
        features: vec![
            StabilityIndex { name: "x".to_owned(), psi: 0.1 },
            StabilityIndex { name: "kind".to_owned(), psi: 0.3 },
        ],
        scores: Vec::new(),
        updated_at: WallTime(window + labels),
    }
}

/// The first model, a training whose model is promoted, and one that fails.
pub(super) fn history() -> Vec<Entry> {
    let (first, second) = (model(0, 20), model(1, 200));
    let trial = |study: &str, number, at| Entry::Trial(Box::new(trial(study, number, at)));
    let model = |model: &Model| Entry::Model(Box::new(model.clone()));
    let decision = |id: &str, outcome, candidate: Option<&Model>, at| {
        Entry::Decision(Box::new(decision(id, outcome, candidate, at)))
    };
    vec![
        trial("shop-first", 0, 10),
        trial("shop-first", 1, 15),
        model(&first),
        model(&alias("champion", Some(&first), 20)),
        trial("training-1", 0, 200),
        model(&second),
        model(&alias("challenger", Some(&second), 200)),
        decision("training-1", DecisionOutcome::Challenger, Some(&second), 200),
        Entry::Quality(vec![quality(&first, 7_200_000, 10), quality(&second, 7_200_000, 20)]),
        model(&alias("champion", Some(&second), 300)),
        model(&alias("challenger", None, 300)),
        decision("judgement-9", DecisionOutcome::Promoted, Some(&second), 300),
        decision("training-2", DecisionOutcome::Failed, None, 400),
        // A command that was refused.
        decision("c1", DecisionOutcome::Refused, None, 500),
        trial("night-tpe", 0, 600),
    ]
}
