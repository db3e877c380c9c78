//! What is scored, and when, equals what two plain models make of all events: a batch of sorted events for sessions that only
//! gaps end, and lists of events in the order of arrival for every rule. With late and repeated events, commits that fail, and
//! restarts.

use std::{collections::BTreeMap, time::Duration};

use foretell::{
    events::prediction::{Prediction, ScoreTrigger},
    processors::gather::{ScoreWhen, session::SessionRules},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Value as Json, json};

use crate::{
    fixture::EPOCH_MS,
    scored::{Operation, Scored, Settings, time_is},
};

const HISTORIES: u32 = 200;
/// Seconds.
const GAP: i64 = 30;
const GRACE: i64 = 45;
const MAX: i64 = 2 * GAP;
const EVENTS_MAX: u32 = 5;

/// What happens to the task.
#[derive(Clone, Debug)]
enum Step {
    /// An event, `after` seconds after the one before by the clock of its producer, and `delay` seconds behind it in event time.
    Event {
        who: &'static str,
        after: i64,
        delay: i64,
        fields: Fields,
        /// Whether it is on the topic of the companion.
        is_order: bool,
    },
    /// The record before the last once more, or the last.
    Again {
        last: bool,
    },
    Commit,
    /// A commit that fails: everything since the last one is read again.
    Abort,
    /// A crash, or a move to another instance: as above, with stores that are restored.
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    /// Whether visits, plan and minutes are given.
    given: [bool; 3],
    done: bool,
}

/// An event of a history. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    /// The number of the step.
    step: usize,
    /// That of the step that it repeats, or its own.
    id: usize,
    /// Its number among the events of its source, which is its id there.
    number: usize,
    is_order: bool,
    who: &'static str,
    at: i64,
    fields: Fields,
}

/// What was scored. `answers` are the numbers of the events that gave them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    who: String,
    at: i64,
    trigger: &'static str,
    event: String,
    answers: [Option<usize>; 3],
}

/// Predictions, and the numbers of sessions by their ends.
type Scores = (Vec<Score>, BTreeMap<&'static str, u64>);

const ENDS: [&str; 5] = ["completed", "gap", "max", "events_max", "late"];

/// Histories with events up to `delay_max` late.
fn histories(delay_max: i64, can_complete: bool) -> impl Strategy<Value = Vec<Step>> {
    let who = prop_oneof![Just("ann"), Just("ann"), Just("ann"), Just("bob")];
    let after = prop_oneof![
        Just(0),
        1..10_i64,
        prop::sample::select(vec![GAP / 2, GAP - 1, GAP, GAP, GAP + 1]),
        prop::sample::select(vec![GAP / 2, GAP, GAP + GRACE, GAP + GRACE + 1]),
    ];
    let delay = prop_oneof![
        4 => Just(0),
        3 => 0..=delay_max.min(GAP),
        2 => 0..=delay_max,
    ];
    // Few events complete an observation, so that sessions become long.
    let fields =
        (any::<[bool; 2]>(), 0..6_u8, 0..12_u8).prop_map(move |([visits, plan], minutes, done)| {
            Fields {
                given: [visits, plan, minutes == 0 && can_complete],
                done: done == 0 && can_complete,
            }
        });
    let event = (who, after, delay, fields);
    let event = event.prop_map(|(who, after, delay, fields)| Step::Event {
        who,
        after,
        delay,
        fields,
        is_order: false,
    });
    let step = prop_oneof![
        16 => event,
        2 => any::<bool>().prop_map(|last| Step::Again { last }),
        1 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// The same histories with each event on one of two topics, without the answers that the topic does not have.
fn of_two_sources(histories: impl Strategy<Value = Vec<Step>>) -> impl Strategy<Value = Vec<Step>> {
    let sources = prop::collection::vec(any::<bool>(), 40);
    (histories, sources).prop_map(|(mut history, sources)| {
        for (step, order) in history.iter_mut().zip(sources) {
            if let Step::Event { fields, is_order, .. } = step {
                *is_order = order;
                fields.given[if order { 0 } else { 2 }] = false;
            }
        }
        history
    })
}

/// The events of a history, in the order of their arrival.
fn events(history: &[Step]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut now = 0;
    let mut numbers = [0, 0];
    for (step, what) in history.iter().enumerate() {
        match *what {
            Step::Event { who, after, delay, fields, is_order } => {
                now += after;
                let next = &mut numbers[usize::from(is_order)];
                let number = *next;
                *next += 1;
                let at = now - delay;
                events.push(Event { step, id: step, number, is_order, who, at, fields });
            }
            Step::Again { last } => {
                let before = events.len().checked_sub(if last { 1 } else { 2 });
                events.extend(before.map(|index| Event { step, ..events[index] }));
            }
            Step::Commit | Step::Abort | Step::Restart => {}
        }
    }
    events
}

/// Each answer says which event gave it.
fn operation(event: &Event) -> Operation {
    let Event { id, number, is_order, who, at, fields, .. } = *event;
    let [id_field, flag] = if is_order { ["number", "closed"] } else { ["id", "done"] };
    let mut json = json!({id_field: format!("e-{number}"), flag: fields.done});
    let answers: [(&str, Json); 3] =
        [("visits", json!(id)), ("plan", json!(id.to_string())), ("minutes", json!(id as f64))];
    for ((name, answer), is_given) in answers.into_iter().zip(fields.given) {
        if is_given {
            json[name] = answer;
        }
    }
    if is_order { Operation::Order(who, at, json) } else { Operation::Event(who, at, json) }
}

fn is_of_history(who: &str) -> bool {
    ["ann", "bob"].contains(&who)
}

/// What the topology makes of a history.
fn topology(history: &[Step], settings: &Settings) -> Scores {
    let mut scored = Scored::new(settings);
    let events = events(history);
    let mut uncommitted: Vec<Operation> = Vec::new();
    for (number, step) in history.iter().enumerate() {
        if let Ok(place) = events.binary_search_by_key(&number, |event| event.step) {
            let operation = operation(&events[place]);
            scored.apply(&operation);
            uncommitted.push(operation);
        }
        match step {
            Step::Commit => {
                scored.apply(&Operation::Commit);
                uncommitted.clear();
            }
            Step::Abort | Step::Restart => {
                let is_restart = matches!(step, Step::Restart);
                scored.apply(if is_restart { &Operation::Restart } else { &Operation::Abort });
                uncommitted.iter().for_each(|operation| scored.apply(operation));
            }
            Step::Event { .. } | Step::Again { .. } => {}
        }
    }
    let end = events.iter().map(|event| event.at).max().unwrap_or_default();
    // The session of the respondent that advances stream time stays open.
    for at in [end + 2 * (GAP + GRACE), end + 2 * (GAP + GRACE) + 2] {
        let order = Operation::Order("another-respondent", at, json!({"minutes": 1.0}));
        scored.apply(&if settings.two_sources { order } else { time_is(at) });
    }
    let predictions = scored.predictions();
    assert!(scored.dead_letters().is_empty());
    let of_history = predictions.iter().filter(|one| is_of_history(&one.respondent_id));
    let mut scores: Vec<Score> = of_history.map(|one| score_of(one, &scored)).collect();
    scores.sort();
    let ended = ENDS.map(|end| (end, scored.counter("foretell_sessions_total", Some(end))));
    (scores, ended.into_iter().filter(|(_, count)| *count > 0).collect())
}

fn score_of(prediction: &Prediction, scored: &Scored) -> Score {
    use foretell::events::questionnaire::Answer;
    let answers = scored.fixture.named_answers(&prediction.answers);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a number of a step"
    )]
    let given = answers.into_iter().map(|(_, answer)| {
        answer.map(|answer| match answer {
            Answer::Number(number) => number as usize,
            Answer::Text(text) => text.parse().unwrap(),
            Answer::Whole(whole) => whole as usize,
        })
    });
    Score {
        who: prediction.respondent_id.clone(),
        at: (prediction.event_time.0 - EPOCH_MS) / 1_000,
        trigger: prediction.trigger.name(),
        event: prediction.event_id.clone(),
        answers: given.collect::<Vec<_>>().try_into().unwrap(),
    }
}

/// The rules as numbers, for the models.
#[derive(Clone, Copy, Debug)]
struct Rules {
    when: ScoreWhen,
    at_end: bool,
    gap: i64,
    grace: i64,
    max: Option<i64>,
    events_max: Option<usize>,
}

impl Rules {
    fn settings(&self) -> Settings {
        let seconds = |seconds: i64| Duration::from_secs(seconds.cast_unsigned());
        let sessions = SessionRules {
            gap: seconds(self.gap),
            grace: seconds(self.grace),
            max: self.max.map(seconds),
            events_max: self.events_max.map(|most| u32::try_from(most).unwrap()),
        };
        Settings { when: self.when, at_session_end: self.at_end, sessions, ..Settings::default() }
    }
}

/// The last event of each session by time, and of those with one time the last that arrived.
fn last_of(session: &[Event]) -> Event {
    *session.iter().max_by_key(|event| (event.at, event.step)).unwrap()
}

/// The events that gave the answers: of each question, the latest.
fn answers_of(session: &[Event]) -> [Option<usize>; 3] {
    [0, 1, 2].map(|question| {
        let given = session.iter().filter(|event| event.fields.given[question]);
        given.max_by_key(|event| (event.at, event.step)).map(|event| event.id)
    })
}

fn score(session: &[Event], at: i64, trigger: ScoreTrigger, event: &Event) -> Score {
    Score {
        who: event.who.to_owned(),
        at,
        trigger: trigger.name(),
        event: format!("e-{}", event.number),
        answers: answers_of(session),
    }
}

/// Sessions that only gaps end: all events, sorted by time, are cut where there is a longer gap.
fn batch(history: &[Step], rules: &Rules) -> Scores {
    let mut of: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
    for event in events(history).into_iter().filter(|event| event.step == event.id) {
        of.entry(event.who).or_default().push(event);
    }
    let mut scores = Vec::new();
    for events in of.values_mut() {
        events.sort_by_key(|event| (event.at, event.step));
        for session in events.chunk_by(|one, next| next.at - one.at <= rules.gap) {
            let last = last_of(session);
            scores.push(score(session, last.at + rules.gap, ScoreTrigger::SessionEnd, &last));
        }
    }
    scores.sort();
    let ended = [("gap", scores.len() as u64)];
    (scores, ended.into_iter().filter(|(_, count)| *count > 0).collect())
}

/// An open session of the model of all rules.
struct Open {
    events: Vec<Event>,
    is_scored: bool,
}

impl Open {
    fn first(&self) -> i64 {
        self.events.iter().map(|event| event.at).min().unwrap()
    }

    fn last(&self) -> i64 {
        last_of(&self.events).at
    }
}

/// Every rule, on lists of the events of open sessions, which are searched from the beginning for each event.
struct Model {
    rules: Rules,
    open: Vec<Open>,
    scores: Vec<Score>,
    ended: BTreeMap<&'static str, u64>,
}

fn model(history: &[Step], rules: Rules) -> Scores {
    let mut model = Model { rules, open: Vec::new(), scores: Vec::new(), ended: BTreeMap::new() };
    let mut stream_time = i64::MIN / 2;
    for event in events(history).into_iter().filter(|event| event.step == event.id) {
        stream_time = stream_time.max(event.at);
        model.close(stream_time);
        model.add(event, stream_time);
    }
    model.close(i64::MAX);
    model.scores.sort();
    (model.scores, model.ended)
}

impl Model {
    fn close(&mut self, stream_time: i64) {
        let Rules { gap, grace, .. } = self.rules;
        let is_over = |open: &mut Open| open.last().saturating_add(gap + grace) < stream_time;
        let over: Vec<Open> = self.open.extract_if(.., is_over).collect();
        over.into_iter().for_each(|open| self.end(open, "gap"));
    }

    fn end(&mut self, open: Open, end: &'static str) {
        *self.ended.entry(end).or_default() += 1;
        let Rules { when, at_end, gap, .. } = self.rules;
        if end == "completed" || open.is_scored || !(at_end || when == ScoreWhen::SessionEnd) {
            return;
        }
        let last = last_of(&open.events);
        let at = last.at + if ["gap", "late"].contains(&end) { gap } else { 0 };
        self.scores.push(score(&open.events, at, ScoreTrigger::SessionEnd, &last));
    }

    fn add(&mut self, event: Event, stream_time: i64) {
        let Rules { when, gap, grace, max, events_max, .. } = self.rules;
        let mut session = Open { events: vec![event], is_scored: false };
        self.open.sort_by_key(Open::last);
        let mut near: Vec<Open> = self
            .open
            .extract_if(.., |open| {
                let is_near = open.first() - gap <= event.at && event.at <= open.last() + gap;
                open.events[0].who == event.who && is_near
            })
            .collect();
        while let Some(open) = near.pop() {
            let (first, last) =
                (open.first().min(session.first()), open.last().max(session.last()));
            let is_too_long = max.is_some_and(|max| last - first > max);
            let count = open.events.len() + session.events.len();
            let is_too_many = events_max.is_some_and(|most| count > most);
            let is_alone = session.events.len() == 1;
            if !is_too_long && !is_too_many {
                session.events.extend(&open.events);
                session.is_scored |= open.is_scored;
            } else if is_alone && event.at >= open.first() {
                self.end(open, if is_too_long { "max" } else { "events_max" });
            } else {
                self.open.push(open);
            }
        }
        let answers = answers_of(&session.events);
        let given = answers.iter().flatten().count();
        let is_complete = event.fields.done || given == 3;
        let is_due = match when {
            ScoreWhen::Complete => is_complete,
            ScoreWhen::Answers(enough) => !session.is_scored && (is_complete || given >= enough),
            ScoreWhen::EveryEvent => true,
            ScoreWhen::SessionEnd => false,
        };
        if is_due {
            let trigger = match when {
                _ if is_complete => ScoreTrigger::Complete,
                ScoreWhen::Answers(_) => ScoreTrigger::Answers,
                ScoreWhen::Complete | ScoreWhen::EveryEvent | ScoreWhen::SessionEnd => {
                    ScoreTrigger::Event
                }
            };
            self.scores.push(score(&session.events, session.last(), trigger, &event));
        }
        session.is_scored |= is_due;
        if is_complete {
            self.end(session, "completed");
        } else if session.last() + gap + grace < stream_time {
            self.end(session, "late");
        } else if events_max.is_some_and(|most| session.events.len() >= most) {
            self.end(session, "events_max");
        } else {
            self.open.push(session);
        }
    }
}

/// Only gaps end sessions, and every event is within the grace.
const BY_GAP: Rules = Rules {
    when: ScoreWhen::Complete,
    at_end: true,
    gap: GAP,
    grace: GRACE,
    max: None,
    events_max: None,
};

const BY_ALL: Rules = Rules { max: Some(MAX), events_max: Some(EVENTS_MAX as usize), ..BY_GAP };

/// Every condition for scoring, with and without scoring at the end of a session, and with each bound.
fn combinations() -> Vec<Rules> {
    let whens =
        [ScoreWhen::Complete, ScoreWhen::Answers(2), ScoreWhen::EveryEvent, ScoreWhen::SessionEnd];
    let mut all = Vec::new();
    for when in whens {
        for at_end in [true, false] {
            for bounds in [BY_GAP, Rules { grace: 0, ..BY_ALL }, BY_ALL] {
                all.push(Rules { when, at_end, ..bounds });
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES))]

    #[test]
    fn sessions_are_those_of_a_batch_in_any_order_within_the_grace(
        history in histories(GRACE, false),
    ) {
        prop_assert_eq!(topology(&history, &BY_GAP.settings()), batch(&history, &BY_GAP));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES / 2))]

    /// Every history with each of the 24 combinations of rules: 2,400 cases.
    #[test]
    fn scores_are_those_of_a_model_of_every_rule(
        history in histories(2 * (GAP + GRACE), true),
    ) {
        for rules in combinations() {
            let found = topology(&history, &rules.settings());
            prop_assert_eq!(found, model(&history, rules), "{:?}", rules);
        }
    }
}

/// The settings with the answers on two topics.
fn two_sources(settings: Settings) -> Settings {
    Settings { two_sources: true, ..settings }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES))]

    /// The observation is what all events of both topics are when they are sorted by event time.
    #[test]
    fn events_of_two_sources_are_merged_in_any_interleaving(
        history in of_two_sources(histories(GRACE, false)),
    ) {
        let settings = two_sources(BY_GAP.settings());
        prop_assert_eq!(topology(&history, &settings), batch(&history, &BY_GAP));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES / 4))]

    /// Every rule holds over both topics together: 1,200 cases.
    #[test]
    fn scores_of_two_sources_are_those_of_a_model_of_every_rule(
        history in of_two_sources(histories(2 * (GAP + GRACE), true)),
    ) {
        for rules in combinations() {
            let found = topology(&history, &two_sources(rules.settings()));
            prop_assert_eq!(found, model(&history, rules), "{:?}", rules);
        }
    }
}

/// The histories tell sessions by another rule from the right ones.
#[test]
fn a_session_that_breaks_a_rule_is_noticed() {
    let broken = [
        ("a shorter gap", Rules { gap: GAP - 1, ..BY_ALL }),
        ("a longer gap", Rules { gap: GAP + 1, ..BY_ALL }),
        ("a shorter grace", Rules { grace: GRACE - 1, ..BY_ALL }),
        ("a longer grace", Rules { grace: GRACE + 1, ..BY_ALL }),
        ("a shorter max", Rules { max: Some(MAX - 1), ..BY_ALL }),
        ("no max", Rules { max: None, ..BY_ALL }),
        ("fewer events", Rules { events_max: BY_ALL.events_max.map(|most| most - 1), ..BY_ALL }),
        ("no bound of events", Rules { events_max: None, ..BY_ALL }),
        ("no scores at the end", Rules { at_end: false, ..BY_ALL }),
        ("another condition", Rules { when: ScoreWhen::Answers(2), ..BY_ALL }),
        ("only the end", Rules { when: ScoreWhen::SessionEnd, ..BY_ALL }),
    ];
    let settings = BY_ALL.settings();
    let found: Vec<_> = sampled(histories(2 * (GAP + GRACE), true))
        .map(|history| (topology(&history, &settings), history))
        .collect();
    assert!(found.iter().all(|(found, history)| *found == model(history, BY_ALL)));
    for (name, rules) in broken {
        let is_noticed = found.iter().any(|(found, history)| *found != model(history, rules));
        assert!(is_noticed, "{name}");
    }
    // The batch of sorted events has the same rule of the gap.
    let settings = BY_GAP.settings();
    let wrong = Rules { gap: GAP + 1, ..BY_GAP };
    let mut sampled = sampled(histories(GRACE, false));
    assert!(sampled.any(|history| topology(&history, &settings) != batch(&history, &wrong)));
}

/// The histories of two sources tell a merge by arrival, and one that takes the sources apart, from the right one.
#[test]
fn a_wrong_merge_of_two_sources_is_noticed() {
    let settings = two_sources(BY_GAP.settings());
    let found: Vec<_> = sampled(of_two_sources(histories(GRACE, false)))
        .map(|history| (topology(&history, &settings), history))
        .collect();
    assert!(found.iter().all(|(found, history)| *found == batch(history, &BY_GAP)));
    let by_arrival = |history: &[Step]| {
        let mut wrong = history.to_vec();
        for step in &mut wrong {
            if let Step::Event { delay, .. } = step {
                *delay = 0;
            }
        }
        wrong
    };
    let of_one = |history: &[Step], of_orders: bool| {
        let mut wrong = history.to_vec();
        wrong
            .retain(|step| !matches!(step, Step::Event { is_order, .. } if *is_order != of_orders));
        wrong
    };
    let check = |wrong: &dyn Fn(&[Step]) -> Vec<Step>| {
        let is_noticed =
            found.iter().any(|(found, history)| *found != batch(&wrong(history), &BY_GAP));
        assert!(is_noticed);
    };
    check(&by_arrival);
    check(&|history| of_one(history, false));
    check(&|history| of_one(history, true));
}

/// The same histories in every run.
fn sampled(strategy: impl Strategy<Value = Vec<Step>>) -> impl Iterator<Item = Vec<Step>> {
    let mut runner = TestRunner::deterministic();
    (0..HISTORIES).map(move |_| strategy.new_tree(&mut runner).unwrap().current())
}
