//! `foretell demo` in every mode of scoring, joining and processing: its checks hold in each.

use serde_json::Value as Json;

use crate::demo::{checks, number, run_and_check, visits};

/// All predictions come after the last event, so no model trained meanwhile makes any.
const NO_LATER_PREDICTION: &[&str] = &["a model trained from the stream predicted later"];

const SESSION_END: &str = "scoring.when=session_end";
const GAP: &str = "sessions.gap=30m";

/// Settings, and the checks that are not made.
const MODES: &[(&[&str], &[&str])] = &[
    (&[SESSION_END, GAP], NO_LATER_PREDICTION),
    (
        &[SESSION_END, GAP, "topics.partitions=16", "outcomes.unlabelled={ label = \"no\" }"],
        NO_LATER_PREDICTION,
    ),
    (
        &[SESSION_END, "topics.partitions=1", "outcomes.conflict=last", "sessions.grace=10m"],
        NO_LATER_PREDICTION,
    ),
    (
        &[SESSION_END, GAP, "sessions.events_max=1", "outcomes.learn_from=every"],
        NO_LATER_PREDICTION,
    ),
    (&["scoring.when={ answers = 3 }", "scoring.at_session_end=true", "topics.partitions=16"], &[]),
    (&["scoring.when={ answers = 5 }", GAP, "streams.processing_guarantee=at_least_once"], &[]),
    (&["scoring.at_session_end=true", GAP, "sessions.max=31m", "outcomes.conflict=max"], &[]),
    (&["outcomes.emit=on_close", "outcomes.conflict=last", "topics.partitions=16"], &[]),
    (
        &["scoring.when=every_event", "sessions.gap=1s", "sessions.max=1s", "topics.partitions=1"],
        &[],
    ),
];

#[test]
fn the_checks_of_a_demo_hold_in_every_mode() {
    for (settings, not_checked) in MODES {
        let (summary, errors) = run_and_check(&visits(), settings);
        let skipped = checks(&summary, &|check| check["ok"].is_null());
        for name in &skipped {
            assert!(not_checked.iter().any(|one| name.contains(one)), "{settings:?}: {skipped:?}");
        }
        let is_leaving = settings.contains(&SESSION_END);
        assert_eq!(errors.contains("respondents leave before the end"), is_leaving, "{errors}");
        assert!(number(&summary, "joined") > 200, "{settings:?}: {summary}");
        assert!(summary["rows_not_scored"].as_object().is_some_and(serde_json::Map::is_empty));
        let unmatched = summary["dead_letters"]["unmatched_outcome"].as_u64();
        assert_eq!(unmatched, Some(10), "only those of the bad input: {settings:?}: {summary}");
        let is_trained = |model: &Json| model["training"].as_u64() > Some(0);
        assert!(summary["models"].as_array().unwrap().iter().any(is_trained), "{summary}");
    }
}
