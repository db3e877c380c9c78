//! Whatever becomes of an instance, what comes out is what would have come out without that.

use foretell_streams::record::Topic;
use serde_json::json;

use crate::scored::{Operation, Scored, Settings, check, outcome, time_is, visit};

const ANN: &str = "scored ann@0 3 gold 1.5";
const ANN_YES: &str = "learned ann@0 yes after 5 s 3 gold 1.5";

#[test]
fn a_join_goes_on_after_a_restart() {
    use Operation::{Commit, Restart};
    let check = |happens: &[Operation], expected: &[&str]| {
        check(&Settings::default(), happens, expected);
    };
    check(&[visit("ann", 0), Commit, Restart, outcome("ann", 5, "yes")], &[ANN, ANN_YES]);
    check(&[outcome("ann", 5, "yes"), Commit, Restart, visit("ann", 0)], &[ANN, ANN_YES]);
    // It knows what it had learned from.
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
fn gathering_and_windows_go_on_after_a_restart() {
    let part = |field: &str, value: i64| Operation::Event("ann", 1, json!({field: value}));
    let happens = [
        part("visits", 4),
        Operation::Commit,
        Operation::Restart,
        part("minutes", 2),
        Operation::Event("ann", 2, json!({"done": true})),
    ];
    check(&Settings::default(), &happens, &["scored ann@2 4 - 2"]);
    // Stream time is as it was: what was late stays late.
    let happens = [time_is(500), Operation::Commit, Operation::Restart, outcome("ann", 5, "yes")];
    check(&Settings::default(), &happens, &["dead-lettered shop.outcomes@0: late_outcome"]);
    // And what was not joined by the end is still settled.
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
fn a_commit_that_fails_leaves_nothing() {
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

/// The records that come again after an abort or a crash do what they had done.
#[test]
fn what_comes_again_does_the_same_again() {
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
    let mut expected = told(&undisturbed);
    assert!(expected.contains(&"dead-lettered shop.outcomes@3: late_outcome".to_owned()));
    assert!(expected.contains(&"dead-lettered shop.outcomes@0: unmatched_outcome".to_owned()));
    for trouble in [Operation::Abort, Operation::Restart] {
        for cut in 1..=after.len() {
            let happens =
                [&before[..], &after[..cut], std::slice::from_ref(&trouble), &after].concat();
            assert_eq!(told(&happens), expected, "{trouble:?} after {cut} records");
        }
    }
    expected.sort();
    expected.dedup();
    assert_eq!(expected.len(), told(&undisturbed).len(), "each line once");
}

fn told(happens: &[Operation]) -> Vec<String> {
    let mut scored = Scored::new(&Settings::default());
    for what in happens {
        scored.apply(what);
    }
    scored.outputs()
}
