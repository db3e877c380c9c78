//! The output of an instance is the same with and without failures.

use foretell_streams::record::Topic;
use serde_json::json;

use crate::scored::{Operation, Scored, Settings, check, outcome, time_is, visit};

const ANN: &str = "scored ann@0 3 gold 1.5";
const ANN_YES: &str = "learned ann@0 yes after 5 s 3 gold 1.5";

#[test]
fn a_join_continues_after_a_restart() {
    use Operation::{Commit, Restart};
    let check = |happens: &[Operation], expected: &[&str]| {
        check(&Settings::default(), happens, expected);
    };
    check(&[visit("ann", 0), Commit, Restart, outcome("ann", 5, "yes")], &[ANN, ANN_YES]);
    check(&[outcome("ann", 5, "yes"), Commit, Restart, visit("ann", 0)], &[ANN, ANN_YES]);
    // It knows the predictions that it has learned from.
    let twice = [
        visit("ann", 0),
        outcome("ann", 5, "yes"),
        Commit,
        Restart,
        outcome("ann", 5, "yes"),
        Commit,
        Restart,
        outcome("ann", 6, "no"),
    ];
    check(&twice, &[ANN, ANN_YES]);
}

#[test]
fn gathering_and_windows_continue_after_a_restart() {
    let part = |field: &str, value: i64| Operation::Event("ann", 1, json!({field: value}));
    let happens = [
        part("visits", 4),
        Operation::Commit,
        Operation::Restart,
        part("minutes", 2),
        Operation::Event("ann", 2, json!({"done": true})),
    ];
    check(&Settings::default(), &happens, &["scored ann@2 4 - 2"]);
    // Stream time is restored: late records are still late.
    let happens = [time_is(500), Operation::Commit, Operation::Restart, outcome("ann", 5, "yes")];
    check(&Settings::default(), &happens, &["dead-lettered shop.outcomes@0: late_outcome"]);
    // Entries that were not joined still expire.
    let happens = [
        time_is(0),
        outcome("ann", 5, "yes"),
        Operation::Commit,
        Operation::Restart,
        time_is(100),
        time_is(140),
    ];
    check(&Settings::default(), &happens, &["dead-lettered shop.outcomes@0: unmatched_outcome"]);
}

#[test]
fn a_failed_commit_leaves_no_state() {
    let happens = [
        visit("ann", 0),
        Operation::Commit,
        outcome("ann", 5, "no"),
        visit("bob", 1),
        Operation::Raw(Topic::new("shop.outcomes"), "x", None),
        Operation::Abort,
    ];
    let scored = check(&Settings::default(), &happens, &[ANN]);
    assert_eq!(scored.counter("foretell_outcomes_total", None), 0);
    assert_eq!(scored.counter("foretell_dead_letters_total", None), 0);
    assert_eq!(scored.counter("foretell_predictions_total", None), 1);
}

/// Records that are processed again after an abort or a crash have the same effect.
#[test]
fn reprocessed_records_have_the_same_effect() {
    let before = [visit("ann", 0), outcome("cid", 1, "yes"), Operation::Commit];
    let after = [
        outcome("ann", 5, "yes"),
        visit("bob", 40),
        time_is(130),
        outcome("bob", 41, "no"),
        outcome("dan", 2, "no"),
        time_is(200),
    ];
    let undisturbed = [&before[..], &after].concat();
    let mut expected = outputs(&undisturbed);
    assert!(expected.contains(&"dead-lettered shop.outcomes@3: late_outcome".to_owned()));
    assert!(expected.contains(&"dead-lettered shop.outcomes@0: unmatched_outcome".to_owned()));
    for trouble in [Operation::Abort, Operation::Restart] {
        for cut in 1..=after.len() {
            let happens =
                [&before[..], &after[..cut], std::slice::from_ref(&trouble), &after].concat();
            assert_eq!(outputs(&happens), expected, "{trouble:?} after {cut} records");
        }
    }
    expected.sort();
    expected.dedup();
    assert_eq!(expected.len(), outputs(&undisturbed).len(), "each line once");
}

fn outputs(happens: &[Operation]) -> Vec<String> {
    let mut scored = Scored::new(&Settings::default());
    for what in happens {
        scored.apply(what);
    }
    scored.outputs()
}
