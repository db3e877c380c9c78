//! The outcome join: every row of the table of outcomes in docs/concepts.md.

use foretell::processors::{
    outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
    waiting::WaitingNow,
};
use foretell_streams::record::Header;
use proptest::prelude::*;

use crate::{
    fixture::classes,
    scored::{GRACE, Operation, Scored, Settings, WINDOW, header, outcome, time_is, visit},
};

/// Applies the operations; expects these output lines without the scores, and these counts of outcomes and unlabelled predictions.
pub(crate) fn check(
    settings: &Settings,
    happens: &[Operation],
    expected: &[&str],
    counted: &[(&str, u64)],
) {
    let mut scored = Scored::new(settings);
    for what in happens {
        scored.apply(what);
    }
    let mut lines = scored.outputs();
    lines.retain(|line| !line.starts_with("scored"));
    assert_eq!(lines, expected, "{happens:?}");
    let results = ["joined", "waiting", "duplicate", "conflicting", "corrected", "unmatched"];
    let outcomes =
        results.map(|result| (result, scored.counter("foretell_outcomes_total", Some(result))));
    let unlabelled = ("unlabelled", scored.counter("foretell_unlabelled_total", None));
    let all = outcomes.into_iter().chain([unlabelled]).filter(|(_, count)| *count > 0);
    assert_eq!(all.collect::<Vec<_>>(), counted, "{happens:?}");
}

const ANN_YES: &str = "learned ann@0 yes after 5 s 3 gold 1.5";

#[test]
fn what_waits_is_counted_until_it_is_joined_or_its_window_has_passed() {
    let mut scored = Scored::new(&Settings::default());
    let mut after = |happens: &[Operation], predictions: u64, outcomes: u64| {
        happens.iter().chain([&Operation::Commit]).for_each(|one| scored.apply(one));
        let expected = WaitingNow { predictions: Some(predictions), outcomes: Some(outcomes) };
        assert_eq!(scored.waiting(), expected, "{happens:?}");
    };
    after(&[], 0, 0);
    after(&[visit("ann", 0), visit("bob", 0), outcome("cem", 1, "yes")], 2, 1);
    after(&[outcome("cem", 1, "yes")], 2, 1);
    after(&[Operation::Restart], 2, 1);
    after(&[outcome("ann", 2, "yes"), visit("cem", 3)], 1, 0);
    after(&[outcome("dee", 4, "no"), Operation::Abort], 1, 0);
    after(&[time_is(WINDOW + GRACE + 10)], 0, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What is counted as it enters and leaves is what a task that starts counts in its store.
    #[test]
    fn what_waits_is_what_the_store_has(
        learn_from in prop::sample::select(vec![LearnFrom::First, LearnFrom::Last, LearnFrom::Every]),
        conflict in prop::sample::select(vec![ConflictPolicy::First, ConflictPolicy::Last, ConflictPolicy::Max]),
        has_label in any::<bool>(),
        happens in prop::collection::vec((0..12_u8, 0..3_usize, 0..400_i64), 1..60),
    ) {
        let unlabelled = if has_label {
            UnlabelledPolicy::Label("no".to_owned())
        } else {
            UnlabelledPolicy::Drop
        };
        let settings = Settings { learn_from, conflict, unlabelled, ..Settings::default() };
        let mut scored = Scored::new(&settings);
        for (kind, who, at) in happens {
            let who = ["ann", "bob", "cem"][who];
            scored.apply(&match kind {
                0..=5 => visit(who, at),
                6..=7 => outcome(who, at, "yes"),
                8 => outcome(who, at, "no"),
                9 => time_is(at),
                10 => Operation::Abort,
                _ => Operation::Commit,
            });
        }
        scored.apply(&Operation::Commit);
        let counted = scored.waiting();
        scored.apply(&Operation::Restart);
        scored.apply(&Operation::Commit);
        prop_assert_eq!(counted, scored.waiting());
    }
}

#[test]
fn an_outcome_after_its_prediction_is_joined() {
    let check = |happens: &[Operation], expected: &[&str], counted: &[(&str, u64)]| {
        check(&Settings::default(), happens, expected, counted);
    };
    check(&[visit("ann", 0), outcome("ann", 5, "yes")], &[ANN_YES], &[("joined", 1)]);
    let last = [visit("ann", 0), outcome("ann", WINDOW, "no")];
    check(&last, &["learned ann@0 no after 100 s 3 gold 1.5"], &[("joined", 1)]);
    // Inside the window by its time, and received within the grace.
    let in_grace = [visit("ann", 0), time_is(WINDOW + GRACE), outcome("ann", 5, "yes")];
    check(&in_grace, &[ANN_YES], &[("joined", 1)]);
    let others = [visit("ann", 0), visit("bob", 1), outcome("ann", 5, "yes")];
    check(&others, &[ANN_YES], &[("joined", 1)]);
}

#[test]
fn an_outcome_before_its_prediction_waits_for_it() {
    let happens = [outcome("ann", 5, "yes"), visit("ann", 0)];
    check(&Settings::default(), &happens, &[ANN_YES], &[("joined", 1), ("waiting", 1)]);
    // Also if its time is before the event's.
    let happens = [outcome("ann", 0, "yes"), visit("ann", WINDOW)];
    let line = "learned ann@100 yes after -100 s 3 gold 1.5";
    check(&Settings::default(), &happens, &[line], &[("joined", 1), ("waiting", 1)]);
}

#[test]
fn the_same_outcome_again_is_ignored() {
    let again = [visit("ann", 0), outcome("ann", 5, "yes"), outcome("ann", 7, "yes")];
    check(&Settings::default(), &again, &[ANN_YES], &[("joined", 1), ("duplicate", 1)]);
    let both_early = [outcome("ann", 5, "yes"), outcome("ann", 5, "yes"), visit("ann", 0)];
    let counted = [("joined", 1), ("waiting", 1), ("duplicate", 1)];
    check(&Settings::default(), &both_early, &[ANN_YES], &counted);
}

#[test]
fn of_two_different_outcomes_the_policy_says_which_counts() {
    let happens = [visit("ann", 0), outcome("ann", 5, "yes"), outcome("ann", 9, "no")];
    check(&Settings::default(), &happens, &[ANN_YES], &[("joined", 1), ("conflicting", 1)]);
    let last = Settings { conflict: ConflictPolicy::Last, ..Settings::default() };
    let corrected = "corrected ann@0 no after 9 s 3 gold 1.5";
    check(&last, &happens, &[ANN_YES, corrected], &[("joined", 1), ("corrected", 1)]);
    // Back to the first.
    let back = [&happens[..], &[outcome("ann", 11, "yes")]].concat();
    let twice = "corrected ann@0 yes after 11 s 3 gold 1.5";
    check(&last, &back, &[ANN_YES, corrected, twice], &[("joined", 1), ("corrected", 2)]);
    // Up in the order of the labels, and never down.
    let classes = classes(&["ignored", "liked", "bought"]);
    let max = Settings { conflict: ConflictPolicy::Max, classes, ..Settings::default() };
    let happens = [("liked", 5), ("ignored", 6), ("bought", 7), ("liked", 8)];
    let happens = happens.map(|(label, at)| outcome("ann", at, label));
    let happens = [&[visit("ann", 0)], &happens[..]].concat();
    let lines =
        ["learned ann@0 liked after 5 s 3 gold 1.5", "corrected ann@0 bought after 7 s 3 gold 1.5"];
    check(&max, &happens, &lines, &[("joined", 1), ("conflicting", 2), ("corrected", 1)]);
}

#[test]
fn an_outcome_that_waited_and_was_joined_is_matched() {
    let end = 5 + WINDOW + GRACE + 1;
    let happens = [outcome("ann", 5, "yes"), visit("ann", 0), time_is(end), time_is(end + 10)];
    for learn_from in [LearnFrom::First, LearnFrom::Last, LearnFrom::Every] {
        let settings = Settings { learn_from, ..Settings::default() };
        check(&settings, &happens, &[ANN_YES], &[("joined", 1), ("waiting", 1)]);
    }
}

#[test]
fn of_two_different_outcomes_that_wait_the_policy_says_which_counts() {
    let happens = [outcome("ann", 5, "yes"), outcome("ann", 6, "no"), visit("ann", 0)];
    let counted = [("joined", 1), ("waiting", 2), ("conflicting", 1)];
    check(&Settings::default(), &happens, &[ANN_YES], &counted);
    let last = Settings { conflict: ConflictPolicy::Last, ..Settings::default() };
    let corrected = "corrected ann@0 no after 6 s 3 gold 1.5";
    let counted = [("joined", 1), ("waiting", 2), ("corrected", 1)];
    check(&last, &happens, &[ANN_YES, corrected], &counted);
}

#[test]
fn with_every_a_prediction_without_an_outcome_is_unlabelled_and_another_is_joined() {
    let every = Settings { learn_from: LearnFrom::Every, ..Settings::default() };
    let end = 95 + WINDOW + GRACE + 1;
    // The second is in the window of the first, and not in that of its outcome.
    let happens = [visit("ann", 0), outcome("ann", -10, "yes"), visit("ann", 95)];
    let happens = [&happens[..], &[time_is(end), time_is(end + 10)]].concat();
    let learned = "learned ann@0 yes after -10 s 3 gold 1.5";
    check(&every, &happens, &[learned], &[("joined", 1), ("unlabelled", 1)]);
}

#[test]
fn a_late_outcome_is_dead_lettered() {
    let closes = WINDOW + GRACE;
    let happens = [visit("ann", 0), time_is(5 + closes + 1), outcome("ann", 5, "yes")];
    check(
        &Settings::default(),
        &happens,
        &["dead-lettered shop.outcomes@0: late_outcome"],
        &[("unlabelled", 1)],
    );
    // The window is relative to the outcome: one second earlier it still waits for a prediction.
    let happens = [time_is(5 + closes), outcome("ann", 5, "yes")];
    check(&Settings::default(), &happens, &[], &[("waiting", 1)]);
}

/// A stream-time punctuation removes closed entries every five seconds. At `time`, the entries of second 7 have closed or not, and
/// no punctuation is due: the last one was at 126.
fn at(time: i64, before: &[Operation], after: &[Operation]) -> Vec<Operation> {
    let jump = [time_is(126), time_is(time)];
    [&[time_is(0)][..], before, &jump, after].concat()
}

const CLOSES: i64 = 7 + WINDOW + GRACE;

#[test]
fn a_prediction_that_has_closed_is_not_joined_though_it_is_still_stored() {
    let predicted = [visit("ann", 7)];
    let happens = at(CLOSES, &predicted, &[outcome("ann", 50, "yes")]);
    let learned = "learned ann@7 yes after 43 s 3 gold 1.5";
    check(&Settings::default(), &happens, &[learned], &[("joined", 1)]);
    let closed = [outcome("ann", 50, "yes")];
    check(&Settings::default(), &at(CLOSES + 1, &predicted, &closed), &[], &[("waiting", 1)]);
    // Nor does it count as learned from, or as one of those that wait: a later one is joined with the outcome.
    let again = [outcome("ann", 50, "yes"), visit("ann", 60)];
    let counted = [("joined", 1), ("waiting", 1)];
    let learned = "learned ann@60 yes after -10 s 3 gold 1.5";
    check(&Settings::default(), &at(CLOSES + 1, &predicted, &again), &[learned], &counted);
    // A later one is joined, with every policy.
    let predicted = [visit("ann", 7), visit("ann", 30)];
    let happens = at(CLOSES + 1, &predicted, &[outcome("ann", 50, "yes")]);
    for learn_from in [LearnFrom::First, LearnFrom::Last, LearnFrom::Every] {
        let settings = Settings { learn_from, ..Settings::default() };
        check(&settings, &happens, &["learned ann@30 yes after 20 s 3 gold 1.5"], &[("joined", 1)]);
    }
}

#[test]
fn an_outcome_that_has_closed_is_not_joined_though_it_is_still_stored() {
    for learn_from in [LearnFrom::First, LearnFrom::Last, LearnFrom::Every] {
        let settings = Settings { learn_from, ..Settings::default() };
        let known = [outcome("ann", 7, "yes")];
        let happens = at(CLOSES, &known, &[visit("ann", 100)]);
        let learned = "learned ann@100 yes after -93 s 3 gold 1.5";
        check(&settings, &happens, &[learned], &[("joined", 1), ("waiting", 1)]);
        let mut happens = at(CLOSES + 1, &known, &[visit("ann", 100)]);
        check(&settings, &happens, &[], &[("waiting", 1)]);
        // The next punctuation removes it.
        happens.push(time_is(CLOSES + 5));
        let unmatched = "dead-lettered shop.outcomes@0: unmatched_outcome";
        check(&settings, &happens, &[unmatched], &[("waiting", 1), ("unmatched", 1)]);
    }
}

#[test]
fn an_outcome_that_arrives_after_its_window_does_not_wait() {
    check(
        &Settings::default(),
        &at(CLOSES, &[], &[outcome("ann", 7, "yes")]),
        &[],
        &[("waiting", 1)],
    );
    let late = "dead-lettered shop.outcomes@0: late_outcome";
    check(&Settings::default(), &at(CLOSES + 1, &[], &[outcome("ann", 7, "yes")]), &[late], &[]);
}

#[test]
fn the_policy_labels_a_prediction_without_an_outcome() {
    let end = WINDOW + GRACE + 1;
    // The first event starts the interval of the punctuation.
    let happens = [visit("ann", 0), time_is(end - 1), time_is(end + 10)];
    check(&Settings::default(), &happens, &[], &[("unlabelled", 1)]);
    let label =
        Settings { unlabelled: UnlabelledPolicy::Label("no".to_owned()), ..Settings::default() };
    check(&label, &happens, &["learned ann@0 no by policy 3 gold 1.5"], &[("unlabelled", 1)]);
    // A prediction with an outcome is not labelled again.
    let known = [&[visit("ann", 0), outcome("ann", 5, "yes")], &happens[1..]].concat();
    check(&label, &known, &[ANN_YES], &[("joined", 1)]);
}

#[test]
fn one_prediction_of_a_respondent_is_learned_from() {
    let last = Settings { learn_from: LearnFrom::Last, ..Settings::default() };
    let again =
        [visit("ann", 0), outcome("ann", 5, "yes"), visit("ann", 3), outcome("ann", 5, "yes")];
    check(&last, &again, &[ANN_YES], &[("joined", 1), ("duplicate", 1)]);
    // A respondent with an outcome is not labelled by the policy, in any order of arrival.
    let label =
        Settings { unlabelled: UnlabelledPolicy::Label("no".to_owned()), ..Settings::default() };
    let end = WINDOW + GRACE + 1;
    let early = [outcome("ann", 5, "yes"), visit("ann", 0), visit("ann", 3)];
    let early = [&early[..], &[time_is(end), time_is(end + 40)]].concat();
    check(&label, &early, &[ANN_YES], &[("joined", 1), ("waiting", 1)]);
}

#[test]
fn the_configured_predictions_of_several_are_learned_from() {
    let learn = |learn_from| Settings { learn_from, ..Settings::default() };
    let happens = [visit("ann", 0), visit("ann", 3), outcome("ann", 5, "yes")];
    let second = "learned ann@3 yes after 2 s 3 gold 1.5";
    check(&learn(LearnFrom::First), &happens, &[ANN_YES], &[("joined", 1)]);
    check(&learn(LearnFrom::Last), &happens, &[second], &[("joined", 1)]);
    check(&learn(LearnFrom::Every), &happens, &[ANN_YES, second], &[("joined", 2)]);
    // A prediction that comes after its outcome is learned from as well.
    let after = [visit("ann", 0), outcome("ann", 5, "yes"), visit("ann", 3)];
    check(&learn(LearnFrom::Every), &after, &[ANN_YES, second], &[("joined", 2)]);
    // Predictions that are passed over do not count as unlabelled.
    let end = [&happens[..], &[time_is(150), time_is(300)]].concat();
    check(&learn(LearnFrom::First), &end, &[ANN_YES], &[("joined", 1)]);
    check(&learn(LearnFrom::Last), &end, &[second], &[("joined", 1)]);
}

#[test]
fn an_unmatched_outcome_is_dead_lettered_unchanged() {
    let end = WINDOW + GRACE + 6;
    let happens = [time_is(0), outcome("ann", 5, "yes"), time_is(end), time_is(end + 10)];
    let line = "dead-lettered shop.outcomes@0: unmatched_outcome";
    check(&Settings::default(), &happens, &[line], &[("waiting", 1), ("unmatched", 1)]);

    let mut scored = Scored::new(&Settings::default());
    for what in &happens {
        scored.apply(what);
    }
    let letters = scored.dead_letters();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.key.as_deref(), Some(&b"ann"[..]));
    assert_eq!(letter.value, Some(scored.outcome("ann", 5, "yes")));
    let headers = ["topic", "partition", "offset", "error.class", "error.message"];
    let headers = headers.map(|name| header(letter, &format!("foretell.{name}")));
    let message = "no prediction for respondent \"ann\" in its window";
    assert_eq!(headers, ["shop.outcomes", "0", "0", "unmatched_outcome", message]);
    // A waiting outcome is stored with the headers of its record.
    let mut scored = Scored::new(&Settings::default());
    let trace = Header { name: "trace-id".to_owned(), value: b"7".to_vec() };
    scored.outcome_with_headers("ann", 5, "yes", vec![trace.clone()]);
    scored.apply(&Operation::Commit);
    scored.apply(&Operation::Restart);
    for end in [end, end + 10] {
        scored.apply(&time_is(end));
    }
    let letters = scored.dead_letters();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.headers[0], trace);
    assert_eq!(header(letter, "foretell.headers"), "1");
    // A prediction of another respondent, or outside the window, does not match.
    let happens = [
        visit("bob", 0),
        outcome("ann", 5, "yes"),
        visit("ann", 5 + WINDOW + 1),
        time_is(end),
        time_is(end + 10),
    ];
    let counted = [("waiting", 1), ("unmatched", 1), ("unlabelled", 1)];
    check(&Settings::default(), &happens, &[line], &counted);
}

#[test]
fn white_space_around_a_label_is_ignored() {
    let happens = [visit("ann", 0), outcome("ann", 5, " yes ")];
    let expected = ["learned ann@0 yes after 5 s 3 gold 1.5"];
    check(&Settings::default(), &happens, &expected, &[("joined", 1)]);
}

#[test]
fn another_spelling_of_a_respondent_or_a_class_is_the_same_one() {
    let settings = Settings { classes: classes(&["false", "true"]), ..Settings::default() };
    let happens = [visit("ann", 0), outcome(" ann", 5, "TRUE")];
    let expected = ["learned ann@0 true after 5 s 3 gold 1.5"];
    check(&settings, &happens, &expected, &[("joined", 1)]);
    let settings = Settings { classes: classes(&["0", "1"]), ..Settings::default() };
    let happens = [visit("ann", 0), outcome("ann", 5, "1.0")];
    let expected = ["learned ann@0 1 after 5 s 3 gold 1.5"];
    check(&settings, &happens, &expected, &[("joined", 1)]);
}

/// A late event between a waiting outcome and a prediction that was learned from: it is joined with that outcome, and counts as
/// learned from when another outcome arrives.
#[test]
fn a_late_event_is_learned_from_once() {
    let settings = Settings { conflict: ConflictPolicy::Last, ..Settings::default() };
    let happens = [
        visit("ann", 110),
        outcome("ann", 115, "yes"),
        outcome("ann", 5, "no"),
        visit("ann", 60),
        outcome("ann", 6, "yes"),
    ];
    let expected = [
        "learned ann@110 yes after 5 s 3 gold 1.5",
        "learned ann@60 no after -55 s 3 gold 1.5",
        "corrected ann@60 yes after -54 s 3 gold 1.5",
    ];
    let counted = [("joined", 2), ("waiting", 1), ("corrected", 1)];
    check(&settings, &happens, &expected, &counted);
}
