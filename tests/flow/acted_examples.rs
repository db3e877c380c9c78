//! What examples say of the actions about their respondents, and how long that is kept.

use std::time::Duration;

use foretell::{
    events::{action::ExampleActionRef, labelled_example::LabelledExample},
    processors::{
        actions::{AtMost, RuleSettings},
        outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
    },
};
use foretell_streams::{record::Topic, time::EventTime};
use serde_json::json;

use crate::{
    actions::{call, check, later, lines, rule, settings, started, wall},
    fixture::{EPOCH_MS, NOW},
    respondents,
    scored::{GRACE, Operation, Scored, Settings, WINDOW, outcome, time_is, visit},
};

/// The rule, whether it was done, and the second, for each action of an example.
fn acted(example: &LabelledExample) -> Vec<String> {
    let line = |one: ExampleActionRef<'_>| {
        let at = (one.acted_at.0 - EPOCH_MS) / 1_000;
        format!("{} {} @{at}", one.rule, if one.acted { "done" } else { "held out" })
    };
    example.actions.iter().map(line).collect()
}

#[test]
fn an_example_has_the_actions_between_its_prediction_and_its_outcome() {
    let rules = [RuleSettings { after: later(10), ..rule("soon", "true") }, call()];
    let examples = |settings: Settings, happens: &[Operation]| {
        let mut scored = Scored::new(&settings);
        happens.iter().for_each(|operation| scored.apply(operation));
        scored.examples().iter().map(acted).collect::<Vec<_>>()
    };
    let of = |happens: &[Operation]| examples(settings(&rules), happens);
    let (now, soon) = ("call done @0", "soon done @10");
    assert_eq!(of(&[visit("ann", 0), outcome("ann", 9, "yes")]), [[now]]);
    assert_eq!(of(&[visit("ann", 0), outcome("ann", 10, "yes")]), [[now, soon]]);
    // An outcome that waits for its prediction, and one that is earlier.
    assert_eq!(of(&[outcome("ann", 5, "yes"), visit("ann", 0)]), [[now]]);
    assert_eq!(of(&[visit("ann", 0), outcome("ann", -5, "yes")]), [[""; 0]]);
    // A correction has those up to its own outcome.
    let last = Settings { conflict: ConflictPolicy::Last, ..settings(&rules) };
    let happens = [visit("ann", 0), outcome("ann", 5, "yes"), outcome("ann", 20, "no")];
    assert_eq!(examples(last, &happens), [vec![now], vec![now, soon]]);
    // By policy, those within the window.
    let unlabelled = UnlabelledPolicy::Label("no".to_owned());
    let closed = WINDOW + GRACE + 50;
    let happens = [visit("ann", 0), time_is(closed), time_is(closed + 10)];
    assert_eq!(examples(Settings { unlabelled, ..settings(&rules) }, &happens), [[now, soon]]);
    // If every prediction is learned from, each has its own.
    let at_most = AtMost { times: 5, per: Duration::from_secs(60) };
    let rules = [RuleSettings { at_most, ..call() }];
    let every = Settings { learn_from: LearnFrom::Every, ..settings(&rules) };
    let happens = [visit("ann", 0), visit("ann", 3), outcome("ann", 9, "yes")];
    assert_eq!(examples(every, &happens), [["call done @0"], ["call done @3"]]);
    assert_eq!(examples(settings(&rules), &happens), [["call done @0", "call done @3"]]);
    // Held out.
    let all = RuleSettings { control: 0.999_999, ..call() };
    let happens = [visit("ann", 0), outcome("ann", 9, "yes")];
    assert_eq!(examples(settings(&[all]), &happens), [["call held out @0"]]);
}

#[test]
fn a_correction_says_which_label_it_replaces() {
    let last = Settings { conflict: ConflictPolicy::Last, ..Settings::default() };
    let mut scored = Scored::new(&last);
    for operation in [visit("ann", 0), outcome("ann", 5, "yes"), outcome("ann", 9, "no")] {
        scored.apply(&operation);
    }
    scored.apply(&outcome("ann", 11, "yes"));
    let replaced = |one: LabelledExample| (one.label, one.replaced);
    let found: Vec<_> = scored.examples().into_iter().map(replaced).collect();
    let text = |text: &str| text.to_owned();
    let expected =
        [(text("yes"), None), (text("no"), Some(text("yes"))), (text("yes"), Some(text("no")))];
    assert_eq!(found, expected);
}

#[test]
fn the_actions_of_a_respondent_are_bounded() {
    let often = AtMost { times: 100, per: Duration::from_secs(1) };
    let mut scored = started(&[RuleSettings { at_most: often, reasons: 0, ..call() }]);
    for at in 0..150 {
        scored.apply(&Operation::Event(
            "ann",
            0,
            json!({"id": format!("{at}"), "visits": 3, "done": true}),
        ));
    }
    assert_eq!(scored.actions().len(), 100);
    for at in 2..90 {
        scored.apply(&visit("ann", at));
    }
    scored.apply(&outcome("ann", 90, "yes"));
    let example = scored.examples().pop().unwrap();
    assert_eq!(example.actions.iter().len(), 100);
    assert_eq!(acted(&example).last().unwrap(), "call done @89");
}

#[test]
fn what_was_done_is_removed_when_nothing_needs_it_any_more() {
    let per = Duration::from_secs(60);
    let mut scored = check(
        &[RuleSettings { at_most: AtMost { times: 1, per }, ..call() }],
        &[visit("ann", 0)],
        &["requested call ann@0 due 0"],
    );
    let removed = |scored: &mut Scored| {
        scored.apply(&Operation::Commit);
        let changelog = Topic::new("shop-scoring-acted-changelog");
        scored.driver.changelog(&changelog).iter().any(|record| record.value.is_none())
    };
    // A late event may need it.
    scored.apply(&time_is(2 * 60 + GRACE));
    assert!(!removed(&mut scored));
    scored.apply(&time_is(2 * 60 + GRACE + 6));
    assert!(removed(&mut scored));
}

#[test]
fn an_outcome_between_stream_time_and_the_clock_is_before_an_action_by_the_clock() {
    let now = (NOW.0 - EPOCH_MS) / 1_000;
    let acted_at = |outcome_at: i64| {
        let mut scored = started(&[RuleSettings { after: wall(10), ..call() }]);
        scored.apply(&visit("ann", now - 50));
        scored.driver.advance(Duration::from_secs(10)).unwrap();
        assert_eq!(lines(&mut scored).len(), 1);
        scored.driver.advance(Duration::from_secs(30)).unwrap();
        scored.apply(&outcome("ann", outcome_at, "yes"));
        let known = respondents::answer(&mut scored, "ann").actions;
        assert_eq!(known[0].due, EventTime(NOW.0 + 10_000));
        acted(&scored.examples()[0])
    };
    assert_eq!(acted_at(now + 9), [""; 0]);
    assert_eq!(acted_at(now + 10), [format!("call done @{}", now + 10)]);
}
