//! The sequential model: computes from the records sent, in order, what must be on the topics at the end, without tasks,
//! transactions or rebalances. It does no I/O, so its own tests can plant the errors that the comparison must find.

use std::collections::{BTreeMap, BTreeSet};

/// A record that the load sent.
#[derive(Clone, Debug)]
pub(super) enum SentRecord {
    /// A piece of a questionnaire. Only its first piece has the age, so the prediction of the last piece has the age only if
    /// the observation store kept it.
    Piece { respondent: String, event: String, age: Option<u32>, completed: bool },
    /// An outcome, at most one a respondent.
    Outcome { respondent: String, label: String },
    /// Bytes that cannot be decoded.
    Garbage { key: String },
}

/// Committed contents of topics and stores, or the expected ones. Lists are in the order of their partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Topics {
    /// Scored events with the age that they were scored with, by respondent.
    pub(super) predictions: BTreeMap<String, Vec<(String, Option<u32>)>>,
    /// Labelled examples as event and label, by respondent.
    pub(super) examples: BTreeMap<String, Vec<(String, String)>>,
    /// Keys of the dead letters.
    pub(super) dead_letters: Vec<String>,
    /// Descriptions of the entries of the outcome store, sorted, by respondent.
    pub(super) outcome_store: BTreeMap<String, Vec<String>>,
    /// Ages of incomplete observations, by respondent.
    pub(super) observation_store: BTreeMap<String, Option<u32>>,
    /// Number of examples that the learning task has counted.
    pub(super) learned: u64,
}

/// Computes what `sent` must lead to.
pub(super) fn expected(sent: &[SentRecord]) -> Topics {
    let mut topics = Topics::default();
    let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
    for record in sent {
        match record {
            SentRecord::Piece { respondent, event, age, completed } => {
                let before = topics.observation_store.remove(respondent).flatten();
                let age = age.or(before);
                if *completed {
                    let scored = topics.predictions.entry(respondent.clone()).or_default();
                    scored.push((event.clone(), age));
                } else {
                    topics.observation_store.insert(respondent.clone(), age);
                }
            }
            SentRecord::Outcome { respondent, label } => {
                let before = labels.insert(respondent, label);
                assert!(before.is_none(), "the load sends one outcome a respondent: {respondent}");
            }
            SentRecord::Garbage { key } => topics.dead_letters.push(key.clone()),
        }
    }
    // Whether the outcome came before or after, the first prediction is learned from and the others are not.
    for (respondent, scored) in &topics.predictions {
        let label = labels.remove(respondent.as_str());
        let state = |(index, (event, _)): (usize, &(String, Option<u32>))| match (label, index) {
            (Some(label), 0) => format!("learned {label}"),
            (Some(_), _) => format!("{event} passed over"),
            (None, _) => format!("{event} waiting"),
        };
        let mut stored: Vec<String> = scored.iter().enumerate().map(state).collect();
        stored.sort_unstable();
        topics.outcome_store.insert(respondent.clone(), stored);
        if let Some(label) = label {
            let example = (scored[0].0.clone(), label.to_owned());
            topics.examples.insert(respondent.clone(), vec![example]);
            topics.learned += 1;
        }
    }
    for (respondent, label) in labels {
        let waiting = vec![format!("outcome {label} waiting")];
        topics.outcome_store.insert(respondent.to_owned(), waiting);
    }
    topics
}

/// Result of comparing committed with expected contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) lost: usize,
    pub(super) duplicated: usize,
    pub(super) out_of_order: usize,
    /// Other differences: scored with wrong state, joined with the wrong prediction, never sent, a wrong store entry.
    pub(super) wrong: usize,
    /// A description of each difference.
    pub(super) differences: Vec<String>,
}

impl Comparison {
    pub(super) fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn add(&mut self, count: impl FnOnce(&mut Self) -> &mut usize, difference: String) {
        *count(self) += 1;
        self.differences.push(difference);
    }

    /// Compares two lists that must have the same items in the same order, each once.
    fn add_list<T: Clone + Ord + std::fmt::Debug>(
        &mut self,
        name: &str,
        expected: &[T],
        actual: &[T],
    ) {
        let expected_items: BTreeSet<&T> = expected.iter().collect();
        let mut first_occurrences: Vec<&T> = Vec::new();
        let mut present: BTreeSet<&T> = BTreeSet::new();
        for item in actual {
            if !expected_items.contains(item) {
                self.add(|all| &mut all.wrong, format!("{name}: unexpected {item:?}"));
            } else if present.insert(item) {
                first_occurrences.push(item);
            } else {
                self.add(|all| &mut all.duplicated, format!("{name}: duplicate {item:?}"));
            }
        }
        for item in expected.iter().filter(|item| !present.contains(item)) {
            self.add(|all| &mut all.lost, format!("{name}: missing {item:?}"));
        }
        let in_order: Vec<&T> = expected.iter().filter(|item| present.contains(item)).collect();
        if in_order != first_occurrences {
            let difference =
                format!("{name}: in the order {first_occurrences:?}, expected {in_order:?}");
            self.add(|all| &mut all.out_of_order, difference);
        }
    }

    /// Compares the lists of each respondent.
    fn add_lists<T: Clone + Ord + std::fmt::Debug>(
        &mut self,
        name: &str,
        expected: &BTreeMap<String, Vec<T>>,
        actual: &BTreeMap<String, Vec<T>>,
    ) {
        let respondents: BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
        for respondent in respondents {
            let list = |all: &BTreeMap<String, Vec<T>>| all.get(respondent).cloned();
            let expected = list(expected).unwrap_or_default();
            let actual = list(actual).unwrap_or_default();
            self.add_list(&format!("{name} of {respondent}"), &expected, &actual);
        }
    }
}

/// Compares the committed contents with those that `sent` must lead to.
pub(super) fn compare(sent: &[SentRecord], actual: &Topics) -> Comparison {
    let expected = expected(sent);
    let mut comparison = Comparison::default();
    comparison.add_lists("predictions", &expected.predictions, &actual.predictions);
    comparison.add_lists("examples", &expected.examples, &actual.examples);
    comparison.add_lists("outcome store", &expected.outcome_store, &actual.outcome_store);
    // Dead letters come from several partitions, which have no order among them.
    let sorted = |keys: &[String]| {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys
    };
    let letters = [sorted(&expected.dead_letters), sorted(&actual.dead_letters)];
    comparison.add_list("dead letters", &letters[0], &letters[1]);
    let entries =
        |topics: &Topics| topics.observation_store.clone().into_iter().collect::<Vec<_>>();
    comparison.add_list("observation store", &entries(&expected), &entries(actual));
    if actual.learned != expected.learned {
        let (actual, expected) = (actual.learned, expected.learned);
        let difference = format!("the learning store counts {actual} examples, not {expected}");
        comparison.add(|all| &mut all.wrong, difference);
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(respondent: &str, number: u32, age: Option<u32>, completed: bool) -> SentRecord {
        let event = format!("{respondent}-{number}");
        SentRecord::Piece { respondent: respondent.to_owned(), event, age, completed }
    }

    fn outcome(respondent: &str) -> SentRecord {
        SentRecord::Outcome { respondent: respondent.to_owned(), label: "yes".to_owned() }
    }

    fn sent() -> Vec<SentRecord> {
        vec![
            piece("ann", 0, Some(30), true),
            piece("bob", 0, Some(40), false),
            outcome("ann"),
            piece("ann", 1, Some(31), true),
            piece("bob", 1, None, true),
            SentRecord::Garbage { key: "garbage-0".to_owned() },
            piece("cat", 0, Some(50), false),
            outcome("dan"),
            piece("ann", 2, Some(32), true),
        ]
    }

    /// Plants `error` in the expected contents, and checks the numbers of lost, duplicated, reordered and wrong items.
    fn check(error: impl FnOnce(&mut Topics), expected_counts: [usize; 4]) {
        let mut actual = expected(&sent());
        error(&mut actual);
        let Comparison { lost, duplicated, out_of_order, wrong, differences } =
            compare(&sent(), &actual);
        let counts = [lost, duplicated, out_of_order, wrong];
        assert_eq!(counts, expected_counts, "{differences:?}");
        assert_eq!(differences.is_empty(), expected_counts == [0; 4]);
    }

    #[test]
    fn the_expected_contents_follow_from_the_records_sent() {
        let topics = expected(&sent());
        assert_eq!(topics.predictions["bob"], [("bob-1".to_owned(), Some(40))]);
        assert_eq!(topics.examples["ann"], [("ann-0".to_owned(), "yes".to_owned())]);
        let ann = ["ann-1 passed over", "ann-2 passed over", "learned yes"];
        assert_eq!(topics.outcome_store["ann"], ann);
        assert_eq!(topics.outcome_store["bob"], ["bob-1 waiting"]);
        assert_eq!(topics.outcome_store["dan"], ["outcome yes waiting"]);
        assert_eq!(topics.observation_store, [("cat".to_owned(), Some(50))].into());
        check(|_| (), [0; 4]);
    }

    #[test]
    fn lost_items_are_found() {
        let remove_anns = |topics: &mut Topics, index| {
            topics.predictions.get_mut("ann").unwrap().remove(index);
        };
        for index in 0..3 {
            check(|topics| remove_anns(topics, index), [1, 0, 0, 0]);
        }
        check(|topics| drop(topics.predictions.remove("bob")), [1, 0, 0, 0]);
        check(|topics| drop(topics.examples.remove("ann")), [1, 0, 0, 0]);
        check(|topics| topics.dead_letters.clear(), [1, 0, 0, 0]);
        check(|topics| drop(topics.outcome_store.remove("dan")), [1, 0, 0, 0]);
        check(|topics| topics.observation_store.clear(), [1, 0, 0, 0]);
    }

    #[test]
    fn duplicates_are_found() {
        let repeat = |topics: &mut Topics, index: usize, position: usize| {
            let ann = topics.predictions.get_mut("ann").unwrap();
            ann.insert(position, ann[index].clone());
        };
        // A repetition later on, as by a replay, is a duplicate and not a change of order.
        check(|topics| repeat(topics, 0, 1), [0, 1, 0, 0]);
        check(|topics| repeat(topics, 0, 3), [0, 1, 0, 0]);
        let repeat_example = |topics: &mut Topics| {
            let ann = topics.examples.get_mut("ann").unwrap();
            ann.push(ann[0].clone());
        };
        check(repeat_example, [0, 1, 0, 0]);
        check(|topics| topics.dead_letters.push("garbage-0".to_owned()), [0, 1, 0, 0]);
    }

    #[test]
    fn a_changed_order_is_found() {
        check(|topics| topics.predictions.get_mut("ann").unwrap().swap(0, 1), [0, 0, 1, 0]);
        check(|topics| topics.predictions.get_mut("ann").unwrap().swap(0, 2), [0, 0, 1, 0]);
    }

    #[test]
    fn wrong_contents_are_found() {
        // Scored without Bob's first piece: the expected prediction is missing, and another one is unexpected.
        check(|topics| topics.predictions.get_mut("bob").unwrap()[0].1 = None, [1, 0, 0, 1]);
        let wrong_prediction = |topics: &mut Topics| {
            topics.examples.get_mut("ann").unwrap()[0].0 = "ann-1".to_owned();
        };
        check(wrong_prediction, [1, 0, 0, 1]);
        let stale_observation = |topics: &mut Topics| {
            topics.observation_store.insert("bob".to_owned(), Some(40));
        };
        check(stale_observation, [0, 0, 0, 1]);
        let still_waiting = |topics: &mut Topics| {
            topics.outcome_store.get_mut("ann").unwrap()[0] = "ann-0 waiting".to_owned();
        };
        check(still_waiting, [1, 0, 0, 1]);
        let never_sent = |topics: &mut Topics| {
            topics.predictions.insert("eve".to_owned(), vec![("eve-0".to_owned(), None)]);
        };
        check(never_sent, [0, 0, 0, 1]);
        check(|topics| topics.learned += 1, [0, 0, 0, 1]);
        check(|topics| topics.learned = 0, [0, 0, 0, 1]);
    }
}
