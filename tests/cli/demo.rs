//! `foretell demo --json`: one object, by which a program can tell whether the loop works.

use std::time::Duration;

use serde_json::Value as Json;

use crate::process::{Process, at, example, quick_settings};

const KEYS: &[&str] = &[
    "events_sent",
    "scored",
    "joined",
    "unlabelled",
    "dead_letters",
    "retrainings",
    "models",
    "predictions_missing",
    "predictions_doubled",
    "predictions_wrong_version",
    "auc_first",
    "auc_last",
    "log_loss_first",
    "log_loss_last",
    "latency_p99_ms_idle",
    "latency_p99_ms_training",
    "seconds",
];

#[test]
fn the_summary_is_one_object_with_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), 2000);
    settings.push("learning.retrain_after=100".to_owned());
    settings.push("tuning.iterations_max=60".to_owned());
    let config = example();
    let mut arguments = vec!["demo", "--json", "--limit", "300", "--rate", "0", "-c", &config];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = Process::start(&arguments).succeed(Duration::from_secs(120));
    let summary: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    let missing: Vec<&&str> = KEYS.iter().filter(|key| summary.get(**key).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} in {output}");
    let number = |key: &str| at(&summary, &format!("/{key}")).as_u64().unwrap();
    for none in ["predictions_missing", "predictions_doubled", "predictions_wrong_version"] {
        assert_eq!(number(none), 0, "{none}: {output}");
    }
    assert!(number("scored") >= 300 && number("joined") > 250, "{output}");
    assert!(number("events_sent") > number("scored"), "some come in two: {output}");
    assert!(number("retrainings") >= 1, "{output}");
    let models = at(&summary, "/models").as_array().unwrap();
    assert_eq!(models.len() as u64, number("retrainings") + 1, "{output}");
    assert!(!at(&summary, "/dead_letters").as_object().unwrap().is_empty(), "{output}");
}
