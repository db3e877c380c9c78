//! What cancels a pending action, what does not, and what is said of a cancelled one.

use std::{collections::BTreeMap, time::Duration};

use foretell::processors::actions::{AtMost, CancelOn, RuleSettings};
use foretell_streams::record::Topic;
use serde_json::json;

use crate::{
    actions::{call, check, later, lines, rule, settings, started},
    fixture::EPOCH_MS,
    respondents,
    scored::{GAP, GRACE, Operation, Scored, Settings, WINDOW, outcome, time_is, visit},
};

/// An event without all answers, which is not scored.
fn page(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"minutes": 1.0}))
}

#[test]
fn each_cause_cancels_what_names_it() {
    let cancelled = |cancel_on: &[CancelOn], then: &[Operation]| {
        let soon = RuleSettings { after: later(10), cancel_on: cancel_on.to_vec(), ..call() };
        let mut scored = started(&[soon]);
        [&[visit("ann", 0)], then, &[time_is(50)]]
            .concat()
            .iter()
            .for_each(|one| scored.apply(one));
        lines(&mut scored)
    };
    let (done, undone) = ("requested call ann@0 due 10", "cancelled call ann@0 due 10");
    let all = [CancelOn::Outcome, CancelOn::Event, CancelOn::BetterPrediction];
    // Neither scored nor repeated.
    assert_eq!(cancelled(&[CancelOn::Event], &[page("ann", 5)]), [undone]);
    assert_eq!(
        cancelled(&[CancelOn::Outcome, CancelOn::BetterPrediction], &[page("ann", 5)]),
        [done]
    );
    assert_eq!(
        cancelled(&all, &[visit("ann", 0), page("bob", 5), outcome("bob", 6, "no")]),
        [done]
    );
    assert_eq!(cancelled(&[CancelOn::Outcome], &[outcome("ann", 5, "no")]), [undone]);
    assert_eq!(cancelled(&[CancelOn::Event], &[outcome("ann", 5, "no")]), [done]);
    // One that is not joined with the prediction that caused the action: later and earlier than its window.
    let outcomes = |at: i64| {
        let soon = RuleSettings { after: later(110), cancel_on: vec![CancelOn::Outcome], ..call() };
        let mut scored = started(&[soon]);
        let happens = [visit("ann", 0), outcome("ann", at, "no"), time_is(110)];
        happens.iter().for_each(|one| scored.apply(one));
        lines(&mut scored)
    };
    let (slow, unslow) = ("requested call ann@0 due 110", "cancelled call ann@0 due 110");
    assert_eq!(outcomes(WINDOW), [unslow]);
    assert_eq!(outcomes(-WINDOW), [unslow]);
    assert_eq!(outcomes(WINDOW + 1), [slow]);
    assert_eq!(outcomes(-WINDOW - 1), [slow]);
    // An outcome that becomes a dead letter cancels nothing.
    assert_eq!(cancelled(&all, &[outcome("ann", 5, "perhaps")]), [done]);
    // The next prediction cancels, and the rule is evaluated again.
    let again = "requested call ann@5 due 15";
    assert_eq!(cancelled(&[CancelOn::BetterPrediction], &[visit("ann", 5)]), [undone, again]);
    assert_eq!(cancelled(&[CancelOn::Event], &[visit("ann", 5)]), [undone, again]);
    let worse = Operation::Event("ann", 5, json!({"visits": 1, "done": true}));
    assert_eq!(cancelled(&[CancelOn::BetterPrediction], std::slice::from_ref(&worse)), [undone]);
    // Without it, the pending action is done, and the rule is not requested again.
    assert_eq!(cancelled(&[], &[visit("ann", 5)]), [done]);
    assert_eq!(cancelled(&[CancelOn::Outcome], &[worse]), [done]);
    // A prediction for an earlier event is not a later one.
    assert_eq!(cancelled(&[CancelOn::BetterPrediction], &[visit("ann", -5)]), [done]);
}

/// The session ends by itself, or with the event of the respondent who returns.
#[test]
fn a_respondent_who_returns_cancels_the_action_about_the_session_that_they_left() {
    let left = rule("call", "trigger == 'session_end'");
    let left = RuleSettings { after: later(20), cancel_on: vec![CancelOn::Event], ..left };
    let settings = Settings { at_session_end: true, ..settings(&[left]) };
    let check = |returns: i64, between: &[Operation], expected: &str| {
        let mut scored = Scored::new(&settings);
        scored.apply(&page("ann", 0));
        between.iter().for_each(|one| scored.apply(one));
        scored.apply(&page("ann", returns));
        scored.apply(&time_is(returns + 5));
        assert_eq!(lines(&mut scored), [expected], "{between:?}");
    };
    let ended = time_is(GAP + 5);
    for between in [&[][..], &[ended]] {
        let due = format!("call ann@{GAP} due {}", GAP + 20);
        check(GAP + 10, between, &format!("cancelled {due}"));
        check(GAP + 25, between, &format!("requested {due}"));
    }
}

#[test]
fn a_cancelled_action_has_its_idempotency_key_and_says_why() {
    let cancel_on = vec![CancelOn::Outcome, CancelOn::Event, CancelOn::BetterPrediction];
    let soon = RuleSettings { after: later(10), cancel_on, ..call() };
    let reason = |then: Operation| {
        let mut scored = started(std::slice::from_ref(&soon));
        scored.apply(&visit("ann", 0));
        scored.apply(&then);
        scored.actions().swap_remove(0).reason
    };
    assert_eq!(reason(outcome("ann", 1, "no")), "an outcome came");
    assert_eq!(reason(page("ann", 1)), "another event came");
    let id = |then: &[Operation]| {
        let mut scored = started(std::slice::from_ref(&soon));
        [&[visit("ann", 0)], then].concat().iter().for_each(|one| scored.apply(one));
        scored.actions().swap_remove(0).action_id
    };
    assert_eq!(id(&[page("ann", 1)]), id(&[time_is(10)]));
}

#[test]
fn a_respondent_shows_the_cancelled_actions_and_why_for_as_long_as_those_that_were_due() {
    let cancel_on = vec![CancelOn::Outcome, CancelOn::Event];
    let soon = RuleSettings { after: later(10), cancel_on, ..call() };
    let shown = |scored: &mut Scored| -> Vec<String> {
        let known = respondents::answer(scored, "ann").actions;
        let lines = known.iter().map(|action| {
            let due = (action.due.0 - EPOCH_MS) / 1_000;
            let why = action.cancelled.as_deref().unwrap_or("-");
            format!("{} {} due {due}: {why}", action.state(), action.rule)
        });
        lines.collect()
    };
    let mut scored = started(std::slice::from_ref(&soon));
    for one in [visit("ann", 0), page("ann", 1), visit("ann", 2)] {
        scored.apply(&one);
    }
    let cancelled = "cancelled call due 10: another event came";
    assert_eq!(shown(&mut scored), [cancelled, "pending call due 12: -"]);
    scored.apply(&Operation::Restart);
    assert_eq!(shown(&mut scored), [cancelled, "pending call due 12: -"], "after a restart");
    scored.apply(&time_is(12));
    assert_eq!(shown(&mut scored), [cancelled, "requested call due 12: -"]);
    let mut held_out = started(&[RuleSettings { control: 1.0 - 1e-9, ..soon.clone() }]);
    [visit("ann", 0), outcome("ann", 1, "no")].iter().for_each(|one| held_out.apply(one));
    let answer = respondents::answer(&mut held_out, "ann").actions;
    assert!(answer[0].is_control, "one that would have been held out");
    assert_eq!(answer[0].cancelled.as_deref(), Some("an outcome came"));

    // The newest twenty of a respondent, for the window or twice the period, and grace.
    let often = AtMost { times: 100, per: Duration::from_secs(60) };
    let mut scored = started(&[RuleSettings { at_most: often, ..soon }]);
    for at in 0..47 {
        scored.apply(&visit("ann", at));
    }
    let lines = shown(&mut scored);
    let cancelled = lines.iter().filter(|line| line.starts_with("cancelled "));
    let cancelled: Vec<&String> = cancelled.collect();
    assert_eq!(cancelled.len(), 20, "{lines:?}");
    assert!(cancelled[0].contains("due 36: ") && cancelled[19].contains("due 55: "), "{lines:?}");
    scored.apply(&time_is(46 + 2 * 60 + GRACE + 1));
    scored.driver.advance(Duration::from_secs(1)).unwrap();
    assert!(shown(&mut scored).iter().all(|line| !line.starts_with("cancelled ")));
    scored.apply(&Operation::Commit);
    let changelog = Topic::new("shop-scoring-cancelled-actions-changelog");
    let changelog = scored.driver.changelog(&changelog);
    let kept: BTreeMap<_, _> =
        changelog.iter().map(|record| (&record.key, &record.value)).collect();
    assert!(kept.values().all(|value| value.is_none()), "the store is empty");
}

#[test]
fn what_was_due_before_a_record_is_done_before_it_cancels() {
    let cancel_on = vec![CancelOn::Outcome, CancelOn::Event, CancelOn::BetterPrediction];
    let soon = RuleSettings { after: later(10), cancel_on, ..call() };
    let done = "requested call ann@0 due 10";
    let expect =
        |then: Operation| check(std::slice::from_ref(&soon), &[visit("ann", 0), then], &[done]);
    expect(page("ann", 10));
    expect(outcome("ann", 30, "yes"));
    // By the maximum of one in a week, it is not requested again.
    expect(visit("ann", 30));
}
