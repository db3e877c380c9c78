//! Actions equal those of a plain model in any order of arrival, with late and repeated records, commits that fail, and restarts.

use std::{collections::BTreeMap, time::Duration};

use foretell::{
    events::action::ActionState,
    processors::actions::{After, AtMost, CancelOn, RuleSettings, is_control},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::json;

use crate::{
    actions::rule,
    fixture::{EPOCH_MS, NOW},
    scored::{GRACE, Operation, Scored, Settings, WINDOW, outcome, time_is},
};

const HISTORIES: u32 = 300;
const NEVER: i64 = i64::MIN / 2;
/// Seconds of stream time in which a prediction or an outcome can be joined.
const CLOSES: i64 = WINDOW + GRACE;
/// Seconds of the clock from event time 0 to the beginning.
const CLOCK: i64 = (NOW.0 - EPOCH_MS) / 1_000;
/// Seconds of stream time in which it is known what was done: twice the longest period of a rule, and the grace.
const KNOWN: i64 = 2 * 100 + GRACE;

/// What happens to the task. Times are in seconds.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An event, `after` the previous record by the clock of its producer, and `delay` behind it in event time. One without
    /// `done` is not scored.
    Event { who: &'static str, after: i64, delay: i64, visits: Option<i64>, done: bool },
    /// An outcome.
    Outcome { who: &'static str, after: i64, delay: i64, label: &'static str },
    /// The record before the last once more, or the last.
    Again { last: bool },
    /// Time of day passes.
    Wait(i64),
    /// A commit.
    Commit,
    /// A commit that fails: everything since the last one is read again.
    Abort,
    /// A crash, or a move to another instance: as above, with stores that are restored.
    Restart,
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let who = || prop_oneof![Just("ann"), Just("ann"), Just("bob"), Just("cem")];
    let after = || prop::sample::select(vec![0, 1, 4, 5, 6, 10, 11, 20]);
    let late = || prop::sample::select(vec![WINDOW, CLOSES, CLOSES + 1, 219, 220, 221, 300]);
    let delay = || prop_oneof![8 => Just(0), 2 => 1..GRACE, 1 => late()];
    let visits = prop::sample::select(vec![None, Some(3), Some(5), Some(9)]);
    let event = (who(), after(), delay(), visits, prop::bool::weighted(0.8));
    let event = event.prop_map(|(who, after, delay, visits, done)| Step::Event {
        who,
        after,
        delay,
        visits,
        done,
    });
    let label = prop::sample::select(vec!["no", "yes", "yes", "unknown"]);
    let outcome = (who(), after(), delay(), label);
    let outcome =
        outcome.prop_map(|(who, after, delay, label)| Step::Outcome { who, after, delay, label });
    let step = prop_oneof![
        14 => event,
        4 => outcome,
        2 => any::<bool>().prop_map(|last| Step::Again { last }),
        2 => prop::sample::select(vec![1, 5, 10, 11]).prop_map(Step::Wait),
        1 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Rules with every key in several combinations.
fn rules() -> Vec<RuleSettings> {
    let at_most = |times, per| AtMost { times, per: seconds(per) };
    let later = |after| After::EventTime(seconds(after));
    let rule = |name, when| RuleSettings { reasons: 0, ..rule(name, when) };
    vec![
        RuleSettings {
            after: later(10),
            cancel_on: vec![CancelOn::Outcome, CancelOn::Event],
            at_most: at_most(2, 60),
            control: 0.5,
            ..rule("soon", "answers.visits >= 5")
        },
        RuleSettings {
            after: After::Wall(seconds(10)),
            cancel_on: vec![CancelOn::Outcome],
            at_most: at_most(1, 30),
            ..rule("clock", "answers.visits >= 3")
        },
        RuleSettings { at_most: at_most(2, 20), control: 0.3, ..rule("now", "true") },
        RuleSettings {
            after: later(15),
            cancel_on: vec![CancelOn::BetterPrediction],
            at_most: at_most(3, 100),
            ..rule("best", "answers.visits < 9")
        },
        RuleSettings {
            after: later(5),
            at_most: at_most(1, 40),
            ..rule("sure", "answers.visits == null || answers.visits > 7")
        },
    ]
}

/// Whether the condition of a rule holds; none if it is undefined.
fn holds(rule: &RuleSettings, visits: Option<i64>) -> bool {
    match rule.name.as_str() {
        "soon" => visits.is_some_and(|visits| visits >= 5),
        "clock" => visits.is_some_and(|visits| visits >= 3),
        "now" => true,
        "best" => visits.is_some_and(|visits| visits < 9),
        _ => visits.is_none_or(|visits| visits > 7),
    }
}

/// A record of a step, as it arrives.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// The number of the step.
    step: usize,
    /// That of the record that it repeats, or its own.
    id: usize,
    at: i64,
    what: Step,
}

impl Record {
    fn operation(&self) -> Operation {
        match self.what {
            Step::Event { who, visits, done, .. } => {
                let id = format!("e-{}", self.id);
                let fields = match done {
                    true => json!({"id": id, "visits": visits, "minutes": 1.5, "done": true}),
                    false => json!({"id": id, "minutes": 1.5}),
                };
                Operation::Event(who, self.at, fields)
            }
            Step::Outcome { who, label, .. } => outcome(who, self.at, label),
            Step::Again { .. } | Step::Wait(_) | Step::Commit | Step::Abort | Step::Restart => {
                unreachable!("it is no record")
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
            Step::Event { after, delay, .. } | Step::Outcome { after, delay, .. } => {
                now += after;
                records.push(Record { step, id: step, at: now - delay, what: *what });
            }
            Step::Again { last } => {
                let before = records.len().checked_sub(if last { 1 } else { 2 });
                let record = before.map(|index| Record { step, ..records[index] });
                records.extend(record);
            }
            Step::Wait(_) | Step::Commit | Step::Abort | Step::Restart => {}
        }
    }
    records
}

/// The records of actions by respondent and rule, in order.
type Lines = BTreeMap<(String, String), Vec<String>>;

fn add(lines: &mut Lines, who: &str, rule: &str, line: String) {
    lines.entry((who.to_owned(), rule.to_owned())).or_default().push(line);
}

/// A due time in seconds: event time, or time of day.
fn due_line(state: ActionState, event: i64, due: i64) -> String {
    format!("{} for {event}, due {due}", state.name())
}

/// Begins the first interval of the time of day, also for an abort.
fn begin(scored: &mut Scored) {
    scored.driver.advance(Duration::ZERO).unwrap();
    scored.apply(&Operation::Commit);
}

/// What the topology makes of a history.
fn topology(history: &[Step]) -> Lines {
    let mut scored = Scored::new(&Settings { rules: rules(), ..Settings::default() });
    begin(&mut scored);
    let records = records(history);
    let mut uncommitted: Vec<Operation> = Vec::new();
    let (mut latest, mut committed) = (None, false);
    let mut commit =
        |scored: &mut Scored, latest: Option<i64>, uncommitted: &mut Vec<Operation>| {
            // A record that changes a store, so that a restart has the stream time.
            latest.into_iter().for_each(|at| scored.apply(&time_is(at)));
            scored.apply(&Operation::Commit);
            uncommitted.clear();
            committed = true;
        };
    for (number, step) in history.iter().enumerate() {
        if let Ok(place) = records.binary_search_by_key(&number, |record| record.step) {
            let operation = records[place].operation();
            scored.apply(&operation);
            uncommitted.push(operation);
            let is_known = !matches!(records[place].what, Step::Outcome { label: "unknown", .. });
            latest = latest.max(is_known.then_some(records[place].at));
        }
        match step {
            Step::Commit => commit(&mut scored, latest, &mut uncommitted),
            Step::Wait(time) => {
                commit(&mut scored, latest, &mut uncommitted);
                scored.driver.advance(seconds(time.cast_unsigned())).unwrap();
                scored.apply(&Operation::Commit);
            }
            Step::Abort | Step::Restart => {
                let is_restart = matches!(step, Step::Restart);
                scored.apply(if is_restart { &Operation::Restart } else { &Operation::Abort });
                if is_restart {
                    begin(&mut scored);
                }
                uncommitted.iter().for_each(|record| scored.apply(record));
            }
            Step::Event { .. } | Step::Outcome { .. } | Step::Again { .. } => {}
        }
    }
    let mut lines = Lines::new();
    for action in scored.actions() {
        let due = match action.rule.as_str() {
            "clock" => action.due.0 - NOW.0,
            _ => action.due.0 - EPOCH_MS,
        };
        let event = (action.event_time.0 - EPOCH_MS) / 1_000;
        let line = due_line(action.state, event, due / 1_000);
        add(&mut lines, &action.respondent_id, &action.rule, line);
    }
    lines
}

/// A rule of the model that is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Nothing,
    CancelsWhatWasDue,
    RepeatsCancel,
    UnknownOutcomesCancel,
    EarlierPredictionsCancel,
    LaterPredictionsKeep,
    OutcomesKeep,
    RequestsAgain,
    OneMore,
    LongerPeriod,
    LaterActionsCount,
    ForgetsLateEvents,
    OutcomesOfOthersCancel,
    NobodyHeldOut,
    FiresLate,
}

#[derive(Clone, Debug)]
struct Pending {
    who: &'static str,
    rule: usize,
    event: i64,
    due: i64,
}

/// An action that was due.
#[derive(Clone, Debug)]
struct Done {
    who: &'static str,
    rule: usize,
    /// The time of its event.
    event: i64,
    /// When it was due, or done by the clock.
    at: i64,
    is_acted: bool,
}

/// The plain model: lists in memory, one record after the other.
struct Model {
    rules: Vec<RuleSettings>,
    broken: Broken,
    stream_time: i64,
    wall: i64,
    partial: BTreeMap<&'static str, i64>,
    pending: Vec<Pending>,
    acted: Vec<Done>,
    lines: Lines,
}

impl Model {
    fn new(broken: Broken) -> Self {
        Self {
            rules: rules(),
            broken,
            stream_time: NEVER,
            wall: 0,
            partial: BTreeMap::new(),
            pending: Vec::new(),
            acted: Vec::new(),
            lines: Lines::new(),
        }
    }

    fn is_wall(&self, rule: usize) -> bool {
        matches!(self.rules[rule].after, After::Wall(_))
    }

    fn is_due(&self, pending: &Pending) -> bool {
        let now = if self.is_wall(pending.rule) { self.wall } else { self.stream_time };
        if self.broken == Broken::FiresLate { pending.due < now } else { pending.due <= now }
    }

    fn write(&mut self, pending: &Pending, state: ActionState) {
        let line = due_line(state, pending.event, pending.due);
        let rule = self.rules[pending.rule].name.clone();
        add(&mut self.lines, pending.who, &rule, line);
    }

    fn fire(&mut self, pending: &Pending) {
        let rule = &self.rules[pending.rule];
        let is_held = is_control(&rule.name, pending.who, rule.control)
            && self.broken != Broken::NobodyHeldOut;
        let state = if is_held { ActionState::HeldOut } else { ActionState::Requested };
        let at = if self.is_wall(pending.rule) { CLOCK + self.wall } else { pending.due };
        self.acted.push(Done {
            who: pending.who,
            rule: pending.rule,
            event: pending.event,
            at: at.max(pending.event),
            is_acted: !is_held,
        });
        self.write(pending, state);
    }

    fn fire_due(&mut self, is_of: impl Fn(&Pending) -> bool) {
        let pending = std::mem::take(&mut self.pending);
        let (mut due, left): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|one| is_of(one) && self.is_due(one));
        self.pending = left;
        due.sort_by_key(|one| one.due);
        due.iter().for_each(|one| self.fire(one));
    }

    fn cancel(&mut self, who: &str, cause: CancelOn, is_about: impl Fn(i64) -> bool) {
        if self.broken != Broken::CancelsWhatWasDue {
            self.fire_due(|one| one.who == who);
        }
        let pending = std::mem::take(&mut self.pending);
        for one in pending {
            if one.who == who
                && is_about(one.event)
                && self.rules[one.rule].cancel_on.contains(&cause)
            {
                self.write(&one, ActionState::Cancelled);
            } else {
                self.pending.push(one);
            }
        }
    }

    fn predicted(&mut self, who: &'static str, event: i64, visits: Option<i64>) {
        if self.broken == Broken::LaterPredictionsKeep {
            self.fire_due(|one| one.who == who);
        } else {
            let ignores_times = self.broken == Broken::EarlierPredictionsCancel;
            let is_about = |pending: i64| ignores_times || pending <= event;
            self.cancel(who, CancelOn::BetterPrediction, is_about);
        }
        for rule in 0..self.rules.len() {
            let settings = self.rules[rule].clone();
            let is_pending = self.pending.iter().any(|one| one.who == who && one.rule == rule)
                && self.broken != Broken::RequestsAgain;
            if !holds(&settings, visits) || is_pending {
                continue;
            }
            let (After::EventTime(after) | After::Wall(after)) = settings.after;
            let after = after.as_secs().cast_signed();
            if self.are_enough(who, rule, event) {
                continue;
            }
            let now = if self.is_wall(rule) { self.wall } else { event.min(self.stream_time) };
            let pending = Pending { who, rule, event, due: now + after };
            if self.is_due(&pending) || after == 0 {
                self.fire(&pending);
            } else {
                self.pending.push(pending);
            }
        }
    }

    /// Whether another action for an event would be one too many in some period, or that is not known.
    fn are_enough(&self, who: &str, rule: usize, event: i64) -> bool {
        let AtMost { times, per } = self.rules[rule].at_most;
        let times = times as usize + usize::from(self.broken == Broken::OneMore);
        let longer = i64::from(self.broken == Broken::LongerPeriod);
        let per = per.as_secs().cast_signed() + longer;
        let is_known = event - per + longer >= self.stream_time - KNOWN;
        if !is_known && self.broken != Broken::ForgetsLateEvents {
            return true;
        }
        let own = self.acted.iter().filter(|done| done.who == who && done.rule == rule);
        let events: Vec<i64> = own.map(|done| done.event).chain([event]).collect();
        let first = if self.broken == Broken::LaterActionsCount { event - per + 1 } else { NEVER };
        let in_period = |from: &i64| {
            let period = match self.broken == Broken::LaterActionsCount {
                true => first..i64::MAX,
                false => *from..*from + per,
            };
            events.iter().filter(|at| period.contains(at)).count()
        };
        let near = events.iter().filter(|from| (event - per + 1..=event).contains(from));
        near.map(in_period).any(|number| number > times)
    }

    fn record(&mut self, record: &Record) {
        let (at, is_repeat) = (record.at, record.id != record.step);
        match record.what {
            Step::Event { who, visits, done, .. } => {
                self.stream_time = self.stream_time.max(at);
                if !is_repeat || self.broken == Broken::RepeatsCancel {
                    self.cancel(who, CancelOn::Event, |_| true);
                }
                let before = self.partial.get(who).copied().unwrap_or(NEVER).max(at);
                if !is_repeat && done {
                    self.partial.remove(who);
                    self.predicted(who, before, visits);
                } else if !is_repeat {
                    self.partial.insert(who, before);
                }
            }
            Step::Outcome { who, label, .. } => {
                let is_known = label != "unknown";
                self.stream_time =
                    if is_known { self.stream_time.max(at) } else { self.stream_time };
                let is_used = is_known || self.broken == Broken::UnknownOutcomesCancel;
                if is_used && self.broken != Broken::OutcomesKeep {
                    let open = self.stream_time - CLOSES;
                    let of_others = self.broken == Broken::OutcomesOfOthersCancel;
                    let is_about =
                        |event: i64| of_others || (event - at).abs() <= WINDOW && event >= open;
                    self.cancel(who, CancelOn::Outcome, is_about);
                }
            }
            Step::Again { .. } | Step::Wait(_) | Step::Commit | Step::Abort | Step::Restart => {}
        }
        self.fire_due(|one| one.rule != 1);
    }

    fn wait(&mut self, time: i64) {
        self.wall += time;
        self.fire_due(|one| one.rule == 1);
    }
}

/// What the model makes of a history. It knows no commits.
fn model(history: &[Step], broken: Broken) -> Lines {
    let mut model = Model::new(broken);
    let records = records(history);
    for (number, step) in history.iter().enumerate() {
        if let Ok(place) = records.binary_search_by_key(&number, |record| record.step) {
            model.record(&records[place]);
        }
        if let Step::Wait(time) = step {
            model.wait(*time);
        }
    }
    model.lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(HISTORIES))]

    #[test]
    fn the_actions_are_those_of_a_plain_model(history in histories()) {
        prop_assert_eq!(topology(&history), model(&history, Broken::Nothing));
    }
}

/// The histories tell a broken rule from the right one.
#[test]
fn a_broken_rule_is_noticed() {
    for broken in [
        Broken::CancelsWhatWasDue,
        Broken::RepeatsCancel,
        Broken::UnknownOutcomesCancel,
        Broken::EarlierPredictionsCancel,
        Broken::LaterPredictionsKeep,
        Broken::OutcomesKeep,
        Broken::RequestsAgain,
        Broken::OneMore,
        Broken::LongerPeriod,
        Broken::LaterActionsCount,
        Broken::ForgetsLateEvents,
        Broken::OutcomesOfOthersCancel,
        Broken::NobodyHeldOut,
        Broken::FiresLate,
    ] {
        let mut runner = TestRunner::deterministic();
        let is_noticed = (0..HISTORIES).any(|_| {
            let history = histories().new_tree(&mut runner).unwrap().current();
            model(&history, Broken::Nothing) != model(&history, broken)
        });
        assert!(is_noticed, "{broken:?}");
    }
}

/// Without commits that fail, each example can be compared with what the model has done so far.
#[test]
fn an_example_has_the_actions_that_were_due_before_its_outcome() {
    let mut runner = TestRunner::deterministic();
    let (mut examples, mut actions) = (0, 0);
    for _ in 0..HISTORIES {
        let history = histories().new_tree(&mut runner).unwrap().current();
        let records = records(&history);
        let mut scored = Scored::new(&Settings { rules: rules(), ..Settings::default() });
        scored.driver.advance(Duration::ZERO).unwrap();
        let mut model = Model::new(Broken::Nothing);
        for (number, step) in history.iter().enumerate() {
            if let Ok(place) = records.binary_search_by_key(&number, |record| record.step) {
                scored.apply(&records[place].operation());
                model.record(&records[place]);
            }
            if let Step::Wait(time) = step {
                scored.driver.advance(seconds(time.cast_unsigned())).unwrap();
                model.wait(*time);
            }
            for example in scored.examples() {
                let time = |time: i64| (time - EPOCH_MS) / 1_000;
                let range = time(example.event_time.0)..=time(example.outcome_time.unwrap().0);
                let mut expected: Vec<(i64, String, bool)> = Vec::new();
                for Done { who, rule, at, is_acted, .. } in &model.acted {
                    if *who == example.respondent_id && range.contains(at) {
                        expected.push((*at, model.rules[*rule].name.clone(), *is_acted));
                    }
                }
                let found = example.actions.iter();
                let mut found: Vec<(i64, String, bool)> = found
                    .map(|one| (time(one.acted_at.0), one.rule.to_owned(), one.acted))
                    .collect();
                expected.sort();
                found.sort();
                assert_eq!(found, expected, "{history:?}");
                examples += 1;
                actions += found.len();
            }
        }
    }
    assert!(examples > 100 && actions > 100, "{examples} examples with {actions} actions");
}
