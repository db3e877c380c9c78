//! Labelled examples that are made when their windows close.

use foretell::processors::outcome_join::{ConflictPolicy, Emit, LearnFrom, UnlabelledPolicy};
use proptest::prelude::*;

use crate::{
    fixture::{SCHEMA, classes},
    outcomes::check,
    scored::{
        GRACE, Operation, PREDICTIONS_MAX, Scored, Settings, WINDOW, outcome, time_is, visit,
    },
};

/// No punctuation is due between the last second in which the window of an event of second 0 is open, and this one.
const CLOSED: i64 = WINDOW + GRACE + 5;

fn on_close() -> Settings {
    Settings { emit: Emit::OnClose, ..Settings::default() }
}

fn learned(scored: &mut Scored) -> Vec<String> {
    let mut lines = scored.outputs();
    lines.retain(|line| !line.starts_with("scored"));
    lines
}

#[test]
fn an_example_is_made_when_its_window_closes_with_the_label_of_then() {
    let classes = classes(&["ignored", "liked", "bought"]);
    let unlabelled = UnlabelledPolicy::Label("ignored".to_owned());
    let settings = Settings { conflict: ConflictPolicy::Max, classes, unlabelled, ..on_close() };
    let open = [
        visit("ann", 0),
        visit("bob", 1),
        visit("cem", 2),
        outcome("ann", 5, "liked"),
        outcome("ann", 7, "bought"),
        outcome("ann", 8, "liked"),
        outcome("cem", 9, "liked"),
        // Inside the window by its time, and received within the grace.
        time_is(WINDOW + GRACE),
        outcome("cem", 10, "bought"),
    ];
    let counted = [("joined", 2), ("conflicting", 1), ("corrected", 2)];
    check(&settings, &open, &[], &counted);
    let closed = [&open[..], &[time_is(CLOSED + 2)]].concat();
    let lines = [
        "learned ann@0 bought after 7 s 3 gold 1.5",
        "learned bob@1 ignored by policy 3 gold 1.5",
        "learned cem@2 bought after 8 s 3 gold 1.5",
    ];
    let counted = [("joined", 2), ("conflicting", 1), ("corrected", 2), ("unlabelled", 1)];
    check(&settings, &closed, &lines, &counted);
    // Closed windows have no example twice.
    let later =
        [&closed[..], &[Operation::Commit, Operation::Restart, time_is(2 * CLOSED)]].concat();
    check(&settings, &later, &lines, &counted);
}

#[test]
fn an_outcome_before_its_prediction_is_held_until_its_window_closes() {
    let happens = [outcome("ann", 5, "yes"), visit("ann", 0)];
    let counted = [("joined", 1), ("waiting", 1)];
    check(&on_close(), &happens, &[], &counted);
    let closed = [&happens[..], &[time_is(CLOSED)]].concat();
    check(&on_close(), &closed, &["learned ann@0 yes after 5 s 3 gold 1.5"], &counted);
}

/// An upgrade, or a change of the setting, keeps what the store has.
#[test]
fn a_change_of_the_setting_makes_each_example_once() {
    let last = |emit| Settings { emit, conflict: ConflictPolicy::Last, ..Settings::default() };
    let (at_once, on_close) = (last(Emit::OnUpdate), last(Emit::OnClose));
    let first = [visit("ann", 0), outcome("ann", 5, "yes")];
    let second = [visit("bob", 6), outcome("bob", 7, "yes"), outcome("ann", 8, "no")];

    let mut scored = Scored::new(&at_once);
    first.iter().for_each(|one| scored.apply(one));
    assert_eq!(learned(&mut scored), ["learned ann@0 yes after 5 s 3 gold 1.5"]);
    scored.evolve(&on_close, SCHEMA);
    second.iter().for_each(|one| scored.apply(one));
    // It was learned from, so its correction is needed now.
    assert_eq!(learned(&mut scored), ["corrected ann@0 no after 8 s 3 gold 1.5"]);
    scored.apply(&time_is(CLOSED + 6));
    assert_eq!(learned(&mut scored), ["learned bob@6 yes after 1 s 3 gold 1.5"]);

    let mut scored = Scored::new(&on_close);
    first.iter().for_each(|one| scored.apply(one));
    assert_eq!(learned(&mut scored), [""; 0]);
    scored.evolve(&at_once, SCHEMA);
    second.iter().for_each(|one| scored.apply(one));
    assert_eq!(learned(&mut scored), ["learned bob@6 yes after 1 s 3 gold 1.5"]);
    scored.apply(&time_is(CLOSED + 6));
    assert_eq!(learned(&mut scored), ["learned ann@0 no after 8 s 3 gold 1.5"]);
}

#[test]
fn the_example_of_a_prediction_without_room_is_made_before_its_window_closes() {
    let visits = |from: i64| (from..).take(PREDICTIONS_MAX).map(|at| visit("ann", at));
    let every = Settings { learn_from: LearnFrom::Every, ..on_close() };
    let happens: Vec<Operation> = visits(0).chain([outcome("ann", 20, "yes")]).collect();
    check(&every, &happens, &[], &[("joined", 10)]);
    let happens = [&happens[..], &[visit("ann", 30)]].concat();
    let oldest = "learned ann@0 yes after 20 s 3 gold 1.5";
    check(&every, &happens, &[oldest], &[("joined", 11)]);
    // The outcome is after the window of those that are kept, and inside that of the new one.
    let waits = outcome("ann", WINDOW + 20, "yes");
    let happens: Vec<Operation> = [waits].into_iter().chain(visits(0)).collect();
    let happens = [&happens[..], &[visit("ann", 30)]].concat();
    let newest = "learned ann@30 yes after 90 s 3 gold 1.5";
    check(&on_close(), &happens, &[newest], &[("joined", 1), ("waiting", 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Once all windows have closed, each prediction has the same label as with the examples at once and their corrections.
    #[test]
    fn the_labels_in_the_end_are_those_of_examples_at_once(
        learn_from in prop::sample::select(vec![LearnFrom::First, LearnFrom::Last, LearnFrom::Every]),
        conflict in prop::sample::select(vec![ConflictPolicy::First, ConflictPolicy::Last, ConflictPolicy::Max]),
        happens in prop::collection::vec((0..8_u8, 0..3_usize, 0..150_i64), 1..60),
    ) {
        let labels = [Emit::OnUpdate, Emit::OnClose].map(|emit| {
            let unlabelled = UnlabelledPolicy::Label("no".to_owned());
            let settings = Settings { learn_from, conflict, unlabelled, emit, ..Settings::default() };
            let mut scored = Scored::new(&settings);
            for (kind, who, at) in &happens {
                let who = ["ann", "bob", "cem"][*who];
                scored.apply(&match kind {
                    0..=3 => visit(who, *at),
                    4..=5 => outcome(who, *at, "yes"),
                    6 => outcome(who, *at, "no"),
                    _ => Operation::Commit,
                });
            }
            scored.apply(&time_is(1_000));
            let examples = scored.examples().into_iter();
            let labels = examples.map(|one| (one.example_id, (one.label, one.outcome_time)));
            labels.collect::<std::collections::BTreeMap<_, _>>()
        });
        prop_assert_eq!(&labels[0], &labels[1]);
    }
}
