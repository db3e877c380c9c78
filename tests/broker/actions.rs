//! Actions on a real Kafka: timers by event time and by the clock, of which an outcome cancels one, while the instance is
//! killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    ops::ControlFlow,
};

use foretell::{
    app::cluster::Cluster,
    config::Config,
    events::action::{Action, ActionState},
};
use foretell_streams::time::EventTime;
use serde_json::json;

use crate::{
    application::Application,
    end_to_end::QUICK,
    process::{Http, SOON, until},
};

/// Each respondent causes one action of each rule. The last waits so long that only an outcome ends it.
const RULES: &str = r#"actions=[
    { name = "clock", when = "true", after = { wall = "5s" } },
    { name = "event", when = "true", after = "5s" },
    { name = "slow", when = "true", after = { wall = "1h" }, cancel_on = ["outcome"] },
]"#;
/// Respondents before the instance is killed, and after that.
const RESPONDENTS: usize = 8;

/// A record of an action, and when the broker wrote it.
struct Written {
    action: Action,
    at: EventTime,
}

fn written(config: &Config, cluster: &Cluster) -> Vec<Written> {
    let mut all = Vec::new();
    let read = cluster.read_records(config, &config.topics.actions, |record, action: Action| {
        all.push(Written { action, at: record.timestamp });
        ControlFlow::Continue(())
    });
    read.unwrap();
    all
}

/// Sends an event of each respondent, and waits for its answer. Returns the keys of the actions that were pending by then.
fn send(http: &Http, respondents: &[String]) -> BTreeSet<String> {
    let mut pending = BTreeSet::new();
    for respondent in respondents {
        let event = json!({
            "respondent_id": respondent, "event_id": format!("e-{respondent}"), "age": 30, "completed": true,
        });
        let wait = "/api/v1/events?wait=true&timeout_ms=60000";
        let (code, answer) = http.post(wait, &event.to_string(), None).unwrap();
        assert_eq!(code, 200, "{answer}");
        let actions = answer["actions"].as_array().unwrap();
        assert_eq!(actions.len(), 3, "{answer}");
        let waiting = actions.iter().filter(|action| action["state"] == "pending");
        pending.extend(waiting.map(|action| action["action_id"].as_str().unwrap().to_owned()));
    }
    pending
}

fn names(part: &str) -> Vec<String> {
    (0..RESPONDENTS).map(|number| format!("{part}{number}")).collect()
}

/// The records of each action.
fn states(all: &[Written]) -> BTreeMap<&str, Vec<ActionState>> {
    let mut states: BTreeMap<&str, Vec<ActionState>> = BTreeMap::new();
    for Written { action, .. } in all {
        states.entry(&action.action_id).or_default().push(action.state);
    }
    states
}

#[test]
fn actions_are_written_once_when_they_are_due_also_if_the_instance_is_killed_before() {
    let quiet = "streams.quiet_after=1s";
    let application = Application::new("actions", &[QUICK, &[RULES, quiet]].concat());
    application.init();
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let (early, late) = (names("early"), names("late"));
    let mut instance = application.instance("one");
    let http = instance.http();
    http.ready();
    let mut decided = send(&http, &early);
    assert!(!decided.is_empty(), "an action was pending when its event was answered");
    // kill -9, after the requests are committed and before they are due.
    drop(instance);

    let mut instance = application.instance("one");
    let http = instance.http();
    http.ready();
    decided.extend(send(&http, &late));
    let outcome = json!({"respondent_id": early[0], "label": ">50K"}).to_string();
    assert_eq!(http.post("/api/v1/outcomes", &outcome, None).unwrap().0, 202);
    let is_complete = |all: &[Written]| {
        let number = |state| all.iter().filter(|one| one.action.state == state).count();
        number(ActionState::Requested) >= 4 * RESPONDENTS && number(ActionState::Cancelled) >= 1
    };
    let all = until("every action is written", SOON, || {
        Some(written(&config, &cluster)).filter(|all| is_complete(all))
    });
    // Another kill, and time for actions to be written again that had been.
    drop(instance);
    let mut instance = application.instance("one");
    instance.http().ready();
    send(&instance.http(), &names("last"));
    let again = written(&config, &cluster);
    for (action, states) in states(&again) {
        assert_eq!(states.len(), 1, "{action}: {states:?}");
    }
    assert!(again.len() >= all.len());
    check(&all, (&early, &late), &decided);
    lateness(&all, &late);
    instance.signal("TERM");
    assert_eq!(instance.end(SOON).code(), Some(0), "{}", instance.errors());
}

/// Checks who has which actions.
fn check(all: &[Written], (early, late): (&[String], &[String]), decided: &BTreeSet<String>) {
    let mut of_rule: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Written { action, .. } in all {
        let respondents = of_rule.entry(&action.rule).or_default();
        assert!(respondents.insert(&action.respondent_id), "{action:?}");
        let cancelled = action.rule == "slow";
        let expected = if cancelled { ActionState::Cancelled } else { ActionState::Requested };
        assert_eq!(action.state, expected, "{action:?}");
    }
    let everyone: BTreeSet<&str> = early.iter().chain(late).map(String::as_str).collect();
    assert_eq!((&of_rule["clock"], &of_rule["event"]), (&everyone, &everyone));
    assert_eq!(of_rule["slow"], BTreeSet::from([early[0].as_str()]));
    // Those that were answered are those that were written.
    let written: BTreeSet<&str> = all.iter().map(|one| one.action.action_id.as_str()).collect();
    let lost = decided.iter().filter(|id| !written.contains(id.as_str())).count();
    assert_eq!(lost, 2 * RESPONDENTS - 1, "those that wait for an hour are pending");
}

/// Prints how late actions were, by the time of the broker: the due time, the punctuation within 100 ms, and the commit. Those by
/// event time wait for stream time, which follows the clock from the last event on when a partition is quiet.
fn lateness(all: &[Written], of: &[String]) {
    for rule in ["clock", "event"] {
        let own = all.iter().filter(|one| one.action.rule == rule);
        let own = own.filter(|one| of.contains(&one.action.respondent_id));
        let mut late: Vec<i64> = own.map(|one| one.at.0 - one.action.due.0).collect();
        late.sort_unstable();
        // `eprintln!` would be captured; a closed standard error is no reason to fail.
        let printed = writeln!(std::io::stderr(), "{rule}: ms after the due time: {late:?}");
        drop(printed);
        assert!(late.first().is_some_and(|first| *first >= 0), "{rule}: {late:?}");
    }
}
