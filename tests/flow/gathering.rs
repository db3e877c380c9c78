//! The gathering of events: when an observation is scored, and with which answers.

use foretell::processors::gather::ScoreWhen;
use serde_json::json;

use crate::scored::{GAP, Operation, Settings, check, time_is, visit};

fn gathers(when: ScoreWhen, happens: &[Operation], expected: &[&str]) {
    check(&Settings { when, ..Settings::default() }, happens, expected);
}

fn visits(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"visits": 7}))
}

fn plan(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"plan": "team"}))
}

fn minutes(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"minutes": 2.5}))
}

fn submitted(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"done": true}))
}

#[test]
fn complete_scores_at_the_last_answer_or_at_submission() {
    let check = |happens: &[Operation], expected: &[&str]| {
        gathers(ScoreWhen::Complete, happens, expected);
    };
    check(&[visit("ann", 0)], &["scored ann@0 3 gold 1.5"]);
    check(&[visits("ann", 0), plan("ann", 1)], &[]);
    check(&[visits("ann", 0), plan("ann", 1), minutes("ann", 2)], &["scored ann@2 7 team 2.5"]);
    check(&[plan("ann", 0), submitted("ann", 1)], &["scored ann@1 - team -"]);
    check(&[submitted("ann", 1)], &["scored ann@1 - - -"]);
    // Respondents are independent of each other.
    check(&[visits("ann", 0), plan("bob", 1), submitted("ann", 2)], &["scored ann@2 7 - -"]);
    // After submission, the next event begins a new observation.
    check(
        &[visits("ann", 0), submitted("ann", 1), plan("ann", 2), submitted("ann", 3)],
        &["scored ann@1 7 - -", "scored ann@3 - team -"],
    );
}

#[test]
fn a_later_answer_replaces_an_earlier_one() {
    let again = Operation::Event("ann", 2, json!({"visits": 8, "done": true}));
    let happens = [visits("ann", 0), plan("ann", 1), again];
    gathers(ScoreWhen::Complete, &happens, &["scored ann@2 8 team -"]);
}

#[test]
fn n_answers_are_scored_once() {
    let check = |happens: &[Operation], expected: &[&str]| {
        gathers(ScoreWhen::Answers(2), happens, expected);
    };
    check(&[visits("ann", 0)], &[]);
    check(&[visits("ann", 0), plan("ann", 1)], &["scored ann@1 7 team -"]);
    check(&[visits("ann", 0), visits("ann", 1)], &[]);
    // Further answers do not score the same observation again.
    let all = [visits("ann", 0), plan("ann", 1), minutes("ann", 2), visits("ann", 3)];
    check(&all, &["scored ann@1 7 team -"]);
    let more = [visits("ann", 0), plan("ann", 1), visits("ann", 2), visits("ann", 3)];
    check(&more, &["scored ann@1 7 team -"]);
    let ended = [visits("ann", 0), plan("ann", 1), submitted("ann", 2)];
    check(&ended, &["scored ann@1 7 team -"]);
    // Submission before there are enough answers.
    check(&[visits("ann", 0), submitted("ann", 1)], &["scored ann@1 7 - -"]);
    check(&[visit("ann", 0)], &["scored ann@0 3 gold 1.5"]);
}

#[test]
fn every_event_is_scored_with_all_answers_so_far() {
    let happens = [visits("ann", 0), plan("ann", 1), visit("bob", 2), submitted("ann", 3)];
    let expected = [
        "scored ann@0 7 - -",
        "scored ann@1 7 team -",
        "scored bob@2 3 gold 1.5",
        "scored ann@3 7 team -",
    ];
    gathers(ScoreWhen::EveryEvent, &happens, &expected);
}

#[test]
fn an_observation_is_dropped_after_its_retention() {
    let scored = check(
        &Settings::default(),
        &[visits("ann", 0), time_is(GAP), plan("ann", GAP), submitted("ann", GAP)],
        &["scored ann@1000 7 team -"],
    );
    // Only the observation of the other respondent is stored.
    assert_eq!(scored.driver.task().store_entries()["observations"], 1);
    let late = GAP + 1;
    check(
        &Settings::default(),
        &[visits("ann", 0), plan("ann", late), submitted("ann", late)],
        &["scored ann@1001 - team -"],
    );
    // It is removed from the store without a further event of the respondent.
    let scored = check(
        &Settings::default(),
        &[visits("ann", 0), time_is(1), time_is(2 * GAP), time_is(2 * GAP + 60)],
        &[],
    );
    assert_eq!(scored.driver.task().store_entries()["observations"], 1);
}
