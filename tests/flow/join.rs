//! The outcome join equals a batch join of the whole input, in any order of arrival, with late records, repeated records,
//! corrections, commits that fail, and restarts.

use std::time::Duration;

use foretell::{
    app::play::{Action, JoinedExample, Joins, ScheduledAction, join_examples},
    events::{
        outcome::Outcome,
        questionnaire::{AnswerRow, EventSource, QuestionnaireEvent},
    },
    processors::outcome_join::{ConflictPolicy, Emit, JoinSettings, LearnFrom, UnlabelledPolicy},
};
use foretell_streams::time::EventTime;
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::json;

use crate::{
    fixture::{EPOCH_MS, classes},
    scored::{GRACE, Operation, Scored, Settings, WINDOW, header, outcome, time_is},
};

const HISTORIES: u32 = 100;

/// What happens to the task. Times are in seconds.
#[derive(Clone, Debug)]
enum Step {
    /// A record of a respondent, `after` the previous one by the clock of its producer, and `delay` behind it in event time:
    /// an event that is scored, or the outcome with a label.
    Record { who: &'static str, after: i64, delay: i64, label: Option<&'static str> },
    /// The record before the last once more, or the last.
    Again { last: bool },
    /// A commit.
    Commit,
    /// A commit that fails: everything since the last one is read again.
    Abort,
    /// A crash, or a move to another instance: as above, with stores that are restored.
    Restart,
}

/// A labelled example. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Example {
    who: String,
    predicted: i64,
    label: String,
    outcome: Option<i64>,
    correction: bool,
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let label = [Some("no"), Some("maybe"), Some("yes"), None, None, None];
    let label = prop::sample::select(label.to_vec());
    let who = prop_oneof![Just("ann"), Just("ann"), Just("ann"), Just("bob")];
    let after = prop_oneof![
        Just(0),
        Just(1),
        Just(5),
        Just(10),
        Just(40),
        Just(60),
        Just(WINDOW),
        Just(101)
    ];
    let closes = WINDOW + GRACE;
    let delay = prop_oneof![
        4 => Just(0),
        1 => 1..WINDOW,
        1 => prop_oneof![Just(WINDOW - 1), Just(WINDOW), Just(WINDOW + 1)],
        1 => prop_oneof![Just(closes - 1), Just(closes), Just(closes + 1), Just(2 * WINDOW)],
    ];
    let record = (label, who, after, delay).prop_map(|(label, who, after, delay)| Step::Record {
        who,
        after,
        delay,
        label,
    });
    let step = prop_oneof![
        16 => record,
        2 => any::<bool>().prop_map(|last| Step::Again { last }),
        1 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

fn settings() -> Settings {
    Settings { classes: classes(&["no", "maybe", "yes"]), ..Settings::default() }
}

/// Every combination of the policies.
fn combinations() -> Vec<Settings> {
    let mut all = Vec::new();
    for conflict in [ConflictPolicy::First, ConflictPolicy::Last, ConflictPolicy::Max] {
        for learn_from in [LearnFrom::First, LearnFrom::Last, LearnFrom::Every] {
            for unlabelled in [UnlabelledPolicy::Drop, UnlabelledPolicy::Label("no".to_owned())] {
                for emit in [Emit::OnUpdate, Emit::OnClose] {
                    let unlabelled = unlabelled.clone();
                    all.push(Settings { conflict, learn_from, unlabelled, emit, ..settings() });
                }
            }
        }
    }
    all
}

/// A record of a step.
#[derive(Clone, Copy)]
struct Record {
    /// The number of the step.
    step: usize,
    /// That of the record that it repeats, or its own.
    id: usize,
    who: &'static str,
    at: i64,
    label: Option<&'static str>,
}

impl Record {
    fn operation(&self) -> Operation {
        let Self { id, who, at, label, .. } = *self;
        match label {
            Some(label) => outcome(who, at, label),
            None => {
                let id = format!("e-{id}");
                let fields = json!({"id": id, "visits": 3, "plan": "gold", "minutes": 1.5});
                Operation::Event(who, at, fields)
            }
        }
    }
}

/// The records of a history, in the order of their arrival.
fn records(history: &[Step]) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut now = 0;
    for (step, what) in history.iter().enumerate() {
        match *what {
            Step::Record { who, after, delay, label } => {
                now += after;
                records.push(Record { step, id: step, who, at: now - delay, label });
            }
            Step::Again { last } => {
                let before = records.len().checked_sub(if last { 1 } else { 2 });
                let record = before.map(|index| Record { step, ..records[index] });
                records.extend(record);
            }
            Step::Commit | Step::Abort | Step::Restart => {}
        }
    }
    records
}

/// What the topology makes of a history.
fn topology(history: &[Step], settings: &Settings) -> (Vec<Example>, Joins) {
    let mut scored = Scored::new(settings);
    let records = records(history);
    let mut uncommitted: Vec<Operation> = Vec::new();
    for (number, step) in history.iter().enumerate() {
        if let Ok(place) = records.binary_search_by_key(&number, |record| record.step) {
            let operation = records[place].operation();
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
                uncommitted.iter().for_each(|record| scored.apply(record));
            }
            Step::Record { .. } | Step::Again { .. } => {}
        }
    }
    let end = records.iter().map(|record| record.at).max().unwrap_or_default();
    scored.apply(&time_is(end + 2 * (WINDOW + GRACE)));
    let examples = scored.examples();
    let seconds = |time: EventTime| (time.0 - EPOCH_MS) / 1_000;
    let examples = examples.into_iter().map(|example| Example {
        who: example.respondent_id,
        predicted: seconds(example.event_time),
        label: example.label,
        outcome: example.outcome_time.map(seconds),
        correction: example.correction,
    });
    let examples: Vec<Example> = examples.collect();
    let by_label = |source| count(scored.counter("foretell_labelled_examples_total", Some(source)));
    let counted = ["outcome", "policy", "correction"].map(by_label);
    assert_eq!(counted, by_source(&examples), "{history:?}");
    let letters = scored.dead_letters();
    let class = |name: &str| {
        let is_it = |letter: &&_| header(letter, "foretell.error.class") == name;
        letters.iter().filter(is_it).count()
    };
    let outcomes = |result| count(scored.counter("foretell_outcomes_total", Some(result)));
    let joins = Joins {
        joined: outcomes("joined"),
        corrected: outcomes("corrected"),
        unlabelled: count(scored.counter("foretell_unlabelled_total", None)),
        unmatched: class("unmatched_outcome"),
        late: class("late_outcome"),
    };
    (examples, joins)
}

/// What the batch join makes of it.
fn batch(history: &[Step], settings: &JoinSettings) -> (Vec<Example>, Joins) {
    let time = |seconds: i64| EventTime(seconds * 1_000);
    let actions = records(history).into_iter().map(|Record { step, id, who, at, label }| {
        let respondent_id = who.to_owned();
        let action = match label {
            Some(label) => Action::Outcome(Outcome {
                respondent_id,
                outcome_time: time(at),
                label: label.to_owned(),
                outcome_id: None,
            }),
            None => Action::Event {
                event: QuestionnaireEvent {
                    source: EventSource::Lead,
                    event_id: id.to_string(),
                    respondent_id,
                    event_time: time(at),
                    completed: true,
                    answers: AnswerRow::default(),
                },
                prediction_id: id.to_string(),
                // A repeated event is not scored again.
                is_scored: step == id,
            },
        };
        ScheduledAction { at: time(at), action }
    });
    let actions: Vec<ScheduledAction> = actions.collect();
    let (examples, joins) = join_examples(&actions, settings);
    let examples = examples.into_iter().map(|example: JoinedExample<'_>| Example {
        who: example.respondent_id.to_owned(),
        predicted: example.predicted.0 / 1_000,
        label: example.label.to_owned(),
        outcome: example.outcome_time.map(|time| time.0 / 1_000),
        correction: example.correction,
    });
    (examples.collect(), joins)
}

/// The numbers of examples with the label of an outcome and with that of the policy, and of corrections.
fn by_source(examples: &[Example]) -> [usize; 3] {
    let of = |source: (bool, bool)| {
        examples.iter().filter(|one| (one.correction, one.outcome.is_some()) == source).count()
    };
    [of((false, true)), of((false, false)), of((true, true))]
}

fn count(count: u64) -> usize {
    usize::try_from(count).unwrap()
}

/// Those that are made at once are in the same order. The others are made when their windows close, which is not before the next
/// punctuation.
fn in_order(examples: Vec<Example>, emit: Emit) -> (Vec<Example>, Vec<Example>) {
    let is_at_once = |example: &Example| emit == Emit::OnUpdate && example.outcome.is_some();
    let (at_once, mut closed): (Vec<_>, Vec<_>) = examples.into_iter().partition(is_at_once);
    closed.sort();
    (at_once, closed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES))]

    /// Every history with each of the 36 combinations of policies: 3,600 cases.
    #[test]
    fn the_labelled_examples_are_those_of_a_batch_join(history in histories()) {
        for settings in combinations() {
            let (examples, joins) = topology(&history, &settings);
            let (expected, expected_joins) = batch(&history, &settings.join());
            let Settings { conflict, learn_from, ref unlabelled, emit, .. } = settings;
            let policies = (conflict, learn_from, unlabelled, emit);
            let [examples, expected] = [examples, expected].map(|all| in_order(all, emit));
            prop_assert_eq!(examples, expected, "{:?}", policies);
            prop_assert_eq!(joins, expected_joins, "{:?}", policies);
        }
    }
}

/// The histories tell a join with another rule from the right one.
#[test]
fn a_join_that_breaks_a_rule_is_noticed() {
    const SECOND: Duration = Duration::from_secs(1);
    let right = settings().join();
    let broken = [
        ("a shorter window", JoinSettings { window: right.window - SECOND, ..right.clone() }),
        ("a longer window", JoinSettings { window: right.window + SECOND, ..right.clone() }),
        ("a shorter grace", JoinSettings { grace: right.grace - SECOND, ..right.clone() }),
        ("a longer grace", JoinSettings { grace: right.grace + SECOND, ..right.clone() }),
        ("another conflict", JoinSettings { conflict: ConflictPolicy::Last, ..right.clone() }),
        ("a conflict by order", JoinSettings { conflict: ConflictPolicy::Max, ..right.clone() }),
        ("the last prediction", JoinSettings { learn_from: LearnFrom::Last, ..right.clone() }),
        ("every prediction", JoinSettings { learn_from: LearnFrom::Every, ..right }),
    ];
    let settings = settings();
    for (name, join) in broken {
        let mut runner = TestRunner::deterministic();
        let is_noticed = (0..HISTORIES).any(|_| {
            let history = histories().new_tree(&mut runner).unwrap().current();
            let (examples, joins) = topology(&history, &settings);
            let (expected, expected_joins) = batch(&history, &join);
            let [examples, expected] = [examples, expected].map(|all| in_order(all, join.emit));
            (examples, joins) != (expected, expected_joins)
        });
        assert!(is_noticed, "{name}");
    }
}

/// The histories tell a join that gives each prediction without an outcome the label from one that gives it to one of a group.
#[test]
fn a_join_that_labels_every_prediction_without_an_outcome_is_noticed() {
    let label = UnlabelledPolicy::Label("no".to_owned());
    for learn_from in [LearnFrom::First, LearnFrom::Last] {
        let settings = Settings { learn_from, unlabelled: label.clone(), ..settings() };
        // Without a label it counts each of them.
        let each = JoinSettings { unlabelled: UnlabelledPolicy::Drop, ..settings.join() };
        let other = match learn_from {
            LearnFrom::First => LearnFrom::Last,
            LearnFrom::Last | LearnFrom::Every => LearnFrom::First,
        };
        let other = JoinSettings { learn_from: other, ..settings.join() };
        let mut runner = TestRunner::deterministic();
        let mut noticed = [false; 2];
        for _ in 0..HISTORIES {
            let history = histories().new_tree(&mut runner).unwrap().current();
            let (examples, joins) = topology(&history, &settings);
            noticed[0] |= joins.unlabelled < batch(&history, &each).1.unlabelled;
            let chosen = batch(&history, &other).0;
            let [examples, chosen] = [examples, chosen].map(|all| in_order(all, Emit::OnUpdate).1);
            noticed[1] |= examples != chosen;
        }
        assert_eq!(noticed, [true; 2], "{learn_from:?}");
    }
}
