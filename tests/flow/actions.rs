//! Actions: every key of a rule, timers, the control share, and rules that change. `cancelled_actions` is about what cancels them,
//! `acted_examples` about what examples say of them.

use std::time::Duration;

use foretell::{
    events::{
        action::{Action, ActionState},
        reply::{Predicted, ReplyResult},
        respondent::RespondentAction,
    },
    processors::actions::{After, AtMost, CancelOn, RuleSettings, is_control},
};
use foretell_streams::{record::OutputRecord, time::EventTime};
use serde_json::json;

use crate::{
    fixture::{EPOCH_MS, NOW, second_model},
    identity::asks,
    respondents,
    scored::{GRACE, Operation, Scored, Settings, header, outcome, time_is, visit},
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

pub(crate) fn call() -> RuleSettings {
    rule("call", "answers.visits >= 3")
}

pub(crate) fn later(seconds: u64) -> After {
    After::EventTime(Duration::from_secs(seconds))
}

pub(crate) fn wall(seconds: u64) -> After {
    After::Wall(Duration::from_secs(seconds))
}

fn often() -> AtMost {
    AtMost { times: 100, per: Duration::from_secs(1) }
}

pub(crate) fn settings(rules: &[RuleSettings]) -> Settings {
    Settings { rules: rules.to_vec(), ..Settings::default() }
}

pub(crate) fn started(rules: &[RuleSettings]) -> Scored {
    let mut scored = Scored::new(&settings(rules));
    // The first interval of the time of day begins.
    scored.driver.advance(Duration::ZERO).unwrap();
    scored
}

/// A line for each action since the last call: due times in seconds of event time, or after `now`.
pub(crate) fn lines(scored: &mut Scored) -> Vec<String> {
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
pub(crate) fn check(rules: &[RuleSettings], happens: &[Operation], expected: &[&str]) -> Scored {
    let mut scored = started(rules);
    happens.iter().for_each(|operation| scored.apply(operation));
    assert_eq!(lines(&mut scored), expected, "{happens:?}");
    scored
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
