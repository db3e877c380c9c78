//! Actions: every key of a rule, timers, cancellation, the control share, and what examples say about them.

use std::{collections::BTreeMap, time::Duration};

use foretell::{
    events::{
        action::{Action, ActionState},
        labelled_example::LabelledExample,
        reply::{Predicted, ReplyResult},
        respondent::RespondentAction,
    },
    processors::{
        actions::{After, AtMost, CancelOn, RuleSettings, is_control},
        outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
    },
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    time::EventTime,
};
use serde_json::json;

use crate::{
    fixture::{EPOCH_MS, NOW, second_model},
    identity::asks,
    respondents,
    scored::{GAP, GRACE, Operation, Scored, Settings, WINDOW, header, outcome, time_is, visit},
};

/// A rule with the defaults of the configuration.
pub(crate) fn rule(name: &str, when: &str) -> RuleSettings {
    RuleSettings {
        name: name.to_owned(),
        when: when.to_owned(),
        after: After::EventTime(Duration::ZERO),
        cancel_on: Vec::new(),
        at_most: AtMost::default(),
        control: 0.0,
        reasons: 3,
    }
}

fn call() -> RuleSettings {
    rule("call", "answers.visits >= 3")
}

fn later(seconds: u64) -> After {
    After::EventTime(Duration::from_secs(seconds))
}

fn wall(seconds: u64) -> After {
    After::Wall(Duration::from_secs(seconds))
}

fn often() -> AtMost {
    AtMost { times: 100, per: Duration::from_secs(1) }
}

fn settings(rules: &[RuleSettings]) -> Settings {
    Settings { rules: rules.to_vec(), ..Settings::default() }
}

fn started(rules: &[RuleSettings]) -> Scored {
    let mut scored = Scored::new(&settings(rules));
    // The first interval of the time of day begins.
    scored.driver.advance(Duration::ZERO).unwrap();
    scored
}

/// A line for each action since the last call: due times in seconds of event time, or after `now`.
fn lines(scored: &mut Scored) -> Vec<String> {
    let line = |action: Action| {
        let due = match (action.due.0 - NOW.0) / 1_000 {
            at if at >= 0 => format!("now+{at}"),
            _ => ((action.due.0 - EPOCH_MS) / 1_000).to_string(),
        };
        let event = (action.event_time.0 - EPOCH_MS) / 1_000;
        let Action { state, rule, respondent_id, .. } = action;
        format!("{} {rule} {respondent_id}@{event} due {due}", state.name())
    };
    scored.actions().into_iter().map(line).collect()
}

/// Applies operations to an instance with these rules, and expects these actions.
fn check(rules: &[RuleSettings], happens: &[Operation], expected: &[&str]) -> Scored {
    let mut scored = started(rules);
    happens.iter().for_each(|operation| scored.apply(operation));
    assert_eq!(lines(&mut scored), expected, "{happens:?}");
    scored
}

/// An event without all answers, which is not scored.
fn page(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"minutes": 1.0}))
}

#[test]
fn an_action_at_once_has_what_it_takes_to_act() {
    let mut scored = started(&[RuleSettings { control: 0.0, ..call() }]);
    scored.apply(&visit("ann", 7));
    let prediction = scored.predictions().pop().unwrap();
    let [action] = scored.actions().try_into().unwrap();
    assert_eq!(action.state, ActionState::Requested);
    assert_eq!((action.rule.as_str(), action.reason.as_str()), ("call", "answers.visits >= 3"));
    assert_eq!(action.prediction_id, prediction.prediction_id);
    assert_eq!((action.due, action.event_time), (prediction.event_time, prediction.event_time));
    assert_eq!((action.label, action.probabilities), (prediction.label, prediction.probabilities));
    assert_eq!(
        (action.model_version, action.answers),
        (prediction.model_version, prediction.answers)
    );
    assert_eq!((action.decided_at, action.propensity.to_bits()), (NOW, 1.0_f64.to_bits()));
    let sizes: Vec<f64> = action.reasons.iter().map(|reason| reason.contribution.abs()).collect();
    assert!(sizes.len() == 3 && sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    assert!(action.reasons.iter().any(|reason| reason.feature == "visits"));
    assert_eq!((action.action_id.len(), action.rule_version.len()), (32, 12));
    // Without reasons they are not computed.
    let mut scored = started(&[RuleSettings { reasons: 0, ..call() }]);
    scored.apply(&visit("ann", 7));
    assert_eq!(scored.actions()[0].reasons.iter().len(), 0);
}

#[test]
fn conditions_name_answers_labels_probabilities_and_the_trigger() {
    let of = |when: &str| {
        let mut scored = started(&[rule("call", when)]);
        scored.apply(&visit("ann", 0));
        !scored.actions().is_empty()
    };
    let mut scored = started(&[]);
    scored.apply(&visit("ann", 0));
    let prediction = scored.predictions().pop().unwrap();
    let label = prediction.label;
    let classes: Vec<(String, f64)> = prediction
        .probabilities
        .iter()
        .map(|class| (class.label.to_owned(), class.probability))
        .collect();
    assert!(of(&format!("label == '{label}'")) && !of(&format!("label != '{label}'")));
    for (class, probability) in classes {
        let near = |by: f64| format!("probability['{class}'] > {:.9}", probability + by);
        assert!(of(&near(-1e-6)) && !of(&near(1e-6)), "{class}");
    }
    assert!(of("answers.visits == 3 && answers.plan == 'gold' && answers.minutes == 1.5"));
    assert!(of("respondent_id == 'ann' && model_version != ''"));
    assert!(of("trigger == 'complete'") && !of("trigger == 'event'"));
}

#[test]
fn a_condition_on_a_missing_answer_is_undefined_and_counted() {
    let missing = Operation::Event("ann", 0, json!({"visits": 3, "done": true}));
    let rules = [rule("long", "answers.minutes >= 1.0"), rule("none", "answers.minutes == null")];
    let mut scored = check(&rules, &[missing], &["requested none ann@0 due 0"]);
    scored.apply(&visit("bob", 1));
    assert_eq!(lines(&mut scored), ["requested long bob@1 due 1"]);
    let undefined = |rule| scored.counter("foretell_conditions_undefined_total", Some(rule));
    assert_eq!((undefined("long"), undefined("none")), (1, 0));
    let actions = |state| scored.counter("foretell_actions_total", Some(state));
    assert_eq!((actions("requested"), actions("cancelled")), (2, 0));
}

#[test]
fn an_action_waits_for_event_time() {
    let soon = RuleSettings { after: later(10), ..call() };
    let mut scored = check(&[soon], &[visit("ann", 0), time_is(9)], &[]);
    scored.apply(&time_is(10));
    assert_eq!(lines(&mut scored), ["requested call ann@0 due 10"]);
    // Without records, as a worker lets stream time advance.
    scored.apply(&visit("bob", 11));
    scored.driver.advance_stream_time(Duration::from_millis(9_999)).unwrap();
    assert_eq!(lines(&mut scored), [""; 0]);
    scored.driver.advance_stream_time(Duration::from_millis(1)).unwrap();
    assert_eq!(lines(&mut scored), ["requested call bob@11 due 21"]);
    // A late event whose action was due already.
    scored.apply(&visit("cem", 5));
    assert_eq!(lines(&mut scored), ["requested call cem@5 due 15"]);
}

#[test]
fn an_action_waits_for_the_time_of_day() {
    let soon = RuleSettings { after: wall(10), ..call() };
    let mut scored = check(&[soon], &[visit("ann", 0), time_is(1_000)], &[]);
    scored.driver.advance(Duration::from_millis(9_999)).unwrap();
    assert_eq!(lines(&mut scored), [""; 0]);
    // The punctuation before was 1 ms ago, and one comes every 100 ms.
    scored.driver.advance(Duration::from_millis(100)).unwrap();
    assert_eq!(lines(&mut scored), ["requested call ann@0 due now+10"]);
    scored.apply(&visit("bob", 1_001));
    scored.apply(&Operation::Commit);
    scored.apply(&Operation::Restart);
    scored.driver.advance(Duration::from_secs(20)).unwrap();
    scored.driver.advance(Duration::from_secs(1)).unwrap();
    assert_eq!(lines(&mut scored), ["requested call bob@1001 due now+20"]);
}

#[test]
fn timers_fire_in_the_order_of_their_due_times() {
    let at = |name: &str, after| RuleSettings { after, at_most: often(), ..rule(name, "true") };
    let rules = [at("c", later(30)), at("a", later(10)), at("b", later(20))];
    let happens = [visit("ann", 0), visit("bob", 1), time_is(10_000)];
    let expected = [
        "requested a ann@0 due 10",
        "requested a bob@1 due 11",
        "requested b ann@0 due 20",
        "requested b bob@1 due 21",
        "requested c ann@0 due 30",
        "requested c bob@1 due 31",
    ];
    check(&rules, &happens, &expected);
    // More than fire at once.
    let many = RuleSettings { after: later(10), reasons: 0, ..rule("many", "true") };
    let mut scored = started(&[many]);
    for number in 0..2_500 {
        let who: &'static str = format!("r{number}").leak();
        scored.apply(&visit(who, 5_000 - number % 9));
    }
    assert_eq!(lines(&mut scored), [""; 0]);
    scored.apply(&time_is(6_000));
    let times: Vec<i64> = scored.actions().iter().map(|action| action.due.0).collect();
    assert!(times.len() == 2_500 && times.is_sorted(), "{}", times.len());
}

#[test]
fn a_clock_that_is_set_back_neither_stops_timers_nor_repeats_actions() {
    let soon = RuleSettings { after: wall(10), at_most: often(), ..call() };
    let mut scored = check(&[soon], &[visit("ann", 0), visit("bob", 1)], &[]);
    let clock = scored.driver.clock();
    scored.driver.advance(Duration::from_secs(3_600)).unwrap();
    let both = ["requested call ann@0 due now+10", "requested call bob@1 due now+10"];
    assert_eq!(lines(&mut scored), both);
    clock.set_back(Duration::from_secs(3_600));
    scored.driver.advance(Duration::ZERO).unwrap();
    scored.apply(&visit("cem", 2));
    scored.driver.advance(Duration::from_secs(9)).unwrap();
    assert_eq!(lines(&mut scored), [""; 0]);
    scored.driver.advance(Duration::from_secs(1)).unwrap();
    assert_eq!(lines(&mut scored), ["requested call cem@2 due now+10"]);
}

#[test]
fn an_event_ahead_of_the_clock_does_not_delay_its_action() {
    let soon = RuleSettings { after: later(10), ..call() };
    let now = (NOW.0 - EPOCH_MS) / 1_000;
    // Stream time is at most 10 s ahead of the clock: with the second event, the first action is due.
    let happens = [visit("ann", now), visit("bob", now + 3_000)];
    let mut scored = check(&[soon], &happens, &["requested call ann@100000 due now+10"]);
    scored.driver.advance(Duration::from_secs(10)).unwrap();
    scored.apply(&time_is(now + 20));
    assert_eq!(lines(&mut scored), ["requested call bob@103000 due now+20"]);
    // So late that it is not known what was done.
    let before_1970 = visit("cem", -EPOCH_MS / 1_000 - 1);
    scored.apply(&before_1970);
    assert_eq!(lines(&mut scored), [""; 0]);
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
fn a_caller_gets_the_actions_that_its_event_caused() {
    let mail = RuleSettings { after: later(10), ..rule("mail", "true") };
    let never = rule("never", "false");
    let mut scored = started(&[call(), mail, never]);
    scored.apply(&visit("ann", 0));
    let event = json!({"visits": 3, "plan": "gold", "minutes": 1.5, "done": true});
    scored.event_with_headers("bob", 1, &event, asks("r"));
    let reply = scored.replies().swap_remove(0);
    let ReplyResult::Predicted(Predicted { actions, .. }) = reply.result else {
        panic!("{reply:?}")
    };
    let shown = |actions: &[RespondentAction]| {
        let actions = actions.iter();
        let actions = actions.map(|action| (action.rule.clone(), action.state(), action.due));
        actions.collect::<Vec<_>>()
    };
    let time = |seconds: i64| EventTime(EPOCH_MS + seconds * 1_000);
    let (called, mailed) = ("call".to_owned(), "mail".to_owned());
    let pending = (mailed.clone(), "pending", time(11));
    assert_eq!(shown(&actions), [(called.clone(), "requested", time(1)), pending]);
    // A question has the same, and what became of them.
    scored.apply(&time_is(20));
    let known = respondents::answer(&mut scored, "bob").actions;
    let done = (mailed, "requested", time(11));
    assert_eq!(shown(&known), [(called, "requested", time(1)), done]);
    assert_eq!(known[0].action_id, actions[0].action_id);
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

#[test]
fn a_respondent_has_at_most_so_many_actions() {
    let twice = AtMost { times: 2, per: Duration::from_secs(60) };
    let happens: Vec<Operation> = [0, 10, 20, 60, 61, 70].map(|at| visit("ann", at)).into();
    let expected = [0, 10, 60, 70].map(|at| format!("requested call ann@{at} due {at}"));
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&[RuleSettings { at_most: twice, ..call() }], &happens, &expected);
    // Of each rule and respondent.
    let rules = [call(), rule("mail", "true")];
    let happens = [visit("ann", 0), visit("bob", 0), visit("ann", 1)];
    let expected = ["requested call ann@0 due 0", "requested mail ann@0 due 0"];
    let expected =
        [&expected[..], &["requested call bob@0 due 0", "requested mail bob@0 due 0"]].concat();
    check(&rules, &happens, &expected);
    // A cancelled action does not count.
    let cancel_on = vec![CancelOn::Outcome];
    let soon = RuleSettings { after: later(10), cancel_on, ..call() };
    let happens = [visit("ann", 0), outcome("ann", 1, "no"), visit("ann", 2), time_is(20)];
    check(&[soon], &happens, &["cancelled call ann@0 due 10", "requested call ann@2 due 12"]);
}

#[test]
fn late_events_have_no_more_actions_than_others() {
    let once = AtMost { times: 1, per: Duration::from_secs(60) };
    let rule = RuleSettings { at_most: once, ..call() };
    let happens = [100, 50, 41, 40, 159, 160].map(|at| visit("ann", at));
    let expected = [100, 40, 160].map(|at| format!("requested call ann@{at} due {at}"));
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let mut scored = check(std::slice::from_ref(&rule), &happens, &expected);
    // Of an event that is more than its period and the grace late, it is not known what was done.
    let late = 160 - 60 - GRACE;
    scored.apply(&visit("bob", late - 1));
    assert_eq!(lines(&mut scored), [""; 0]);
    scored.apply(&visit("bob", late));
    assert_eq!(lines(&mut scored).len(), 1);
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

#[test]
fn the_control_share_is_recorded_waits_and_is_cancelled_as_the_others_are() {
    let cancel_on = vec![CancelOn::Outcome];
    let half = RuleSettings { after: later(10), control: 0.3, cancel_on, reasons: 0, ..call() };
    let mut scored = started(&[half]);
    let mut held: Vec<String> = Vec::new();
    for number in 0..1_000 {
        let who: &'static str = format!("r{number}").leak();
        scored.apply(&visit(who, 0));
        if is_control("call", who, 0.3) {
            held.push(who.to_owned());
        }
        if number % 10 == 0 {
            scored.apply(&outcome(who, 5, "no"));
        }
    }
    let cancelled = scored.actions();
    assert!(cancelled.iter().all(|action| action.state == ActionState::Cancelled));
    assert_eq!(cancelled.len(), 100);
    scored.apply(&time_is(10));
    let actions = scored.actions();
    assert_eq!(actions.len(), 900);
    for action in &actions {
        let is_held = held.contains(&action.respondent_id);
        let expected = if is_held { ActionState::HeldOut } else { ActionState::Requested };
        assert_eq!(action.state, expected);
        assert!((action.propensity - 0.7).abs() < 1e-12);
    }
    // 300 are expected, with a standard deviation of 14.5.
    assert!((240..360).contains(&held.len()), "{}", held.len());
    assert_eq!(scored.counter("foretell_actions_total", Some("cancelled")), 100);
    // Another rule has another share of the respondents, and a larger one has those of a smaller one.
    let is_other = |who: &String| !is_control("mail", who, 0.3);
    assert!(held.iter().any(is_other) && held.iter().all(|who| is_control("call", who, 0.4)));
}

#[test]
fn a_restart_and_an_abort_keep_timers() {
    let soon = RuleSettings { after: later(10), ..call() };
    let happens = [
        visit("ann", 0),
        Operation::Commit,
        Operation::Restart,
        visit("bob", 1),
        Operation::Abort,
        visit("bob", 1),
        time_is(10),
        Operation::Abort,
        visit("bob", 1),
        time_is(11),
        Operation::Commit,
        Operation::Restart,
        time_is(100),
    ];
    let expected = ["requested call ann@0 due 10", "requested call bob@1 due 11"];
    check(&[soon], &happens, &expected);
}

/// The rules of another configuration take over.
fn with_rules(scored: &mut Scored, rules: &[RuleSettings]) {
    scored.evolve(&settings(rules), crate::fixture::SCHEMA);
    scored.driver.advance(Duration::ZERO).unwrap();
}

#[test]
fn an_action_of_a_changed_rule_is_done_and_that_of_a_removed_rule_is_cancelled() {
    let soon = RuleSettings { after: later(10), ..call() };
    let mut scored = check(std::slice::from_ref(&soon), &[visit("ann", 0)], &[]);
    let version = |scored: &mut Scored| {
        scored.apply(&visit("bob", 0));
        scored.apply(&time_is(10));
        scored.actions().into_iter().map(|action| action.rule_version).collect::<Vec<_>>()
    };
    // Its condition would not hold any more.
    with_rules(
        &mut scored,
        &[RuleSettings { when: "answers.visits >= 2".to_owned(), ..soon.clone() }],
    );
    let versions = version(&mut scored);
    assert!(versions.len() == 2 && versions[0] != versions[1], "{versions:?}");
    scored.apply(&visit("cem", 20));
    with_rules(&mut scored, &[rule("mail", "false")]);
    scored.apply(&time_is(40));
    let actions = scored.actions();
    assert_eq!(
        (actions[0].state, actions[0].reason.as_str()),
        (ActionState::Cancelled, "the rule is gone")
    );
    assert_eq!(actions.len(), 1);
}

#[test]
fn a_version_follows_from_the_settings() {
    let version = |rule: RuleSettings| {
        let mut scored = started(&[rule]);
        scored.apply(&visit("ann", 0));
        scored.apply(&time_is(1));
        scored.driver.advance(Duration::from_secs(1)).unwrap();
        let action = scored.actions().swap_remove(0);
        (action.rule_version, action.action_id)
    };
    let first = version(call());
    assert_eq!(first, version(call()));
    let others = [
        RuleSettings { when: "true".to_owned(), ..call() },
        RuleSettings { after: later(1), ..call() },
        RuleSettings { after: wall(0), ..call() },
        RuleSettings { cancel_on: vec![CancelOn::Event], ..call() },
        RuleSettings { at_most: often(), ..call() },
        RuleSettings { control: 1e-9, ..call() },
        RuleSettings { reasons: 2, ..call() },
    ];
    for other in others {
        let shown = format!("{other:?}");
        let (version, id) = version(other);
        assert!(version != first.0 && id != first.1, "{shown}");
    }
}

/// The rule, whether it was done, and the second, for each action of an example.
fn acted(example: &LabelledExample) -> Vec<String> {
    let line = |one: foretell::events::action::ExampleActionRef<'_>| {
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
        let changelog = foretell_streams::record::Topic::new("shop-scoring-acted-changelog");
        scored.driver.changelog(&changelog).iter().any(|record| record.value.is_none())
    };
    // A late event may need it.
    scored.apply(&time_is(2 * 60 + GRACE));
    assert!(!removed(&mut scored));
    scored.apply(&time_is(2 * 60 + GRACE + 6));
    assert!(removed(&mut scored));
}

/// The model that made a prediction explains it, also if another serves when the action is due.
#[test]
fn reasons_are_those_of_the_model_that_predicted() {
    let soon = RuleSettings { after: later(10), ..call() };
    let mut scored =
        check(&[soon, rule("now", "true")], &[visit("ann", 0)], &["requested now ann@0 due 0"]);
    scored.serve(second_model());
    scored.apply(&visit("bob", 1));
    scored.apply(&time_is(11));
    let actions = scored.actions();
    let reasons = |who: &str| {
        let action = actions.iter().find(|action| action.respondent_id == who).unwrap();
        action.reasons.iter().map(|one| one.contribution.to_bits()).collect::<Vec<_>>()
    };
    assert!(reasons("ann").len() == 3 && reasons("ann") != reasons("bob"));
}

#[test]
fn a_rule_does_not_change_what_else_is_written() {
    let happens = [visit("ann", 0), outcome("ann", 5, "yes"), outcome("bob", 6, "perhaps")];
    let outputs = |rules: &[RuleSettings]| {
        let mut scored = started(rules);
        happens.iter().for_each(|operation| scored.apply(operation));
        scored.driver.commit();
        let mut records = scored.driver.read_all();
        records.retain(|record| record.topic != scored.fixture.topics.actions);
        let line =
            |record: &OutputRecord| (record.topic.clone(), header(record, "foretell.error.class"));
        records.iter().map(line).collect::<Vec<_>>()
    };
    let rule = RuleSettings { cancel_on: vec![CancelOn::Outcome, CancelOn::Event], ..call() };
    assert_eq!(outputs(&[]), outputs(&[rule]));
}
