//! The plain sequential model: what was sent, in order, and so what must be on the topics in the end. It knows
//! nothing of tasks, transactions or rebalances. No I/O, so that its own tests can plant what it must find.

use std::collections::{BTreeMap, BTreeSet};

/// Something that the load sent.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    /// A piece of a questionnaire. The first piece of a questionnaire has the age, which the model that scores
    /// the last piece must remember.
    Piece { respondent: String, event: String, age: Option<u32>, completed: bool },
    /// What turned out to be true. One a respondent at most.
    Outcome { respondent: String, label: String },
    /// Bytes that can't be used.
    Garbage { key: String },
}

/// What is committed on the topics, in the order of each partition; or what should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Topics {
    /// Respondent by respondent, the events that were scored, and the age that they were scored with.
    pub(super) predictions: BTreeMap<String, Vec<(String, Option<u32>)>>,
    /// Respondent by respondent, the event that was learned from, and its label.
    pub(super) examples: BTreeMap<String, Vec<(String, String)>>,
    /// The keys of what was dead-lettered.
    pub(super) dead_letters: Vec<String>,
    /// What the outcome store says of each respondent, sorted.
    pub(super) outcome_store: BTreeMap<String, Vec<String>>,
    /// The ages of the questionnaires that are still to be completed.
    pub(super) observation_store: BTreeMap<String, Option<u32>>,
    /// How many examples the learning task has counted.
    pub(super) learned: u64,
}

/// What must come of `sent`.
pub(super) fn expected(sent: &[Sent]) -> Topics {
    let mut topics = Topics::default();
    let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
    for one in sent {
        match one {
            Sent::Piece { respondent, event, age, completed } => {
                let before = topics.observation_store.remove(respondent).flatten();
                let age = age.or(before);
                if *completed {
                    let scored = topics.predictions.entry(respondent.clone()).or_default();
                    scored.push((event.clone(), age));
                } else {
                    topics.observation_store.insert(respondent.clone(), age);
                }
            }
            Sent::Outcome { respondent, label } => {
                let before = labels.insert(respondent, label);
                assert!(before.is_none(), "the load sends one outcome a respondent: {respondent}");
            }
            Sent::Garbage { key } => topics.dead_letters.push(key.clone()),
        }
    }
    // Whichever came first, the first prediction is learned from, and the others are passed over.
    for (respondent, scored) in &topics.predictions {
        let label = labels.remove(respondent.as_str());
        let fate = |(index, (event, _)): (usize, &(String, Option<u32>))| match (label, index) {
            (Some(label), 0) => format!("{event} learned {label}"),
            (Some(_), _) => format!("{event} passed over"),
            (None, _) => format!("{event} waiting"),
        };
        let mut stored: Vec<String> = scored.iter().enumerate().map(fate).collect();
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

/// How far what came of it is from what must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) lost: usize,
    pub(super) doubled: usize,
    pub(super) out_of_order: usize,
    /// Anything else: scored with the wrong state, joined with the wrong prediction, never sent, a store that
    /// says something else.
    pub(super) wrong: usize,
    /// Each of them in words.
    pub(super) findings: Vec<String>,
}

impl Verdict {
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn note(&mut self, count: impl FnOnce(&mut Self) -> &mut usize, finding: String) {
        *count(self) += 1;
        self.findings.push(finding);
    }

    /// Holds what came in a row against what should: each once, in this order, and nothing else.
    fn row<T: Clone + Ord + std::fmt::Debug>(&mut self, what: &str, wanted: &[T], found: &[T]) {
        let known: BTreeSet<&T> = wanted.iter().collect();
        let mut first_times: Vec<&T> = Vec::new();
        let mut seen: BTreeSet<&T> = BTreeSet::new();
        for one in found {
            if !known.contains(one) {
                self.note(|v| &mut v.wrong, format!("{what}: {one:?} should not be there"));
            } else if seen.insert(one) {
                first_times.push(one);
            } else {
                self.note(|v| &mut v.doubled, format!("{what}: {one:?} is there again"));
            }
        }
        for one in wanted.iter().filter(|one| !seen.contains(one)) {
            self.note(|v| &mut v.lost, format!("{what}: {one:?} is not there"));
        }
        let in_order: Vec<&T> = wanted.iter().filter(|one| seen.contains(one)).collect();
        if in_order != first_times {
            let finding = format!("{what}: {first_times:?} should be {in_order:?}");
            self.note(|v| &mut v.out_of_order, finding);
        }
    }

    fn rows<T: Clone + Ord + std::fmt::Debug>(
        &mut self,
        what: &str,
        wanted: &BTreeMap<String, Vec<T>>,
        found: &BTreeMap<String, Vec<T>>,
    ) {
        let everybody: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
        for respondent in everybody {
            let of = |all: &BTreeMap<String, Vec<T>>| all.get(respondent).cloned();
            let (wanted, found) = (of(wanted).unwrap_or_default(), of(found).unwrap_or_default());
            self.row(&format!("{what} of {respondent}"), &wanted, &found);
        }
    }
}

/// Holds `found` against what must come of `sent`.
pub(super) fn compare(sent: &[Sent], found: &Topics) -> Verdict {
    let wanted = expected(sent);
    let mut verdict = Verdict::default();
    verdict.rows("predictions", &wanted.predictions, &found.predictions);
    verdict.rows("examples", &wanted.examples, &found.examples);
    verdict.rows("the outcome store", &wanted.outcome_store, &found.outcome_store);
    // Several partitions have no order among them.
    let sorted = |keys: &[String]| {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys
    };
    let letters = [sorted(&wanted.dead_letters), sorted(&found.dead_letters)];
    verdict.row("dead letters", &letters[0], &letters[1]);
    let open = |topics: &Topics| topics.observation_store.clone().into_iter().collect::<Vec<_>>();
    verdict.row("the observation store", &open(&wanted), &open(found));
    if found.learned != wanted.learned {
        let (counted, should) = (found.learned, wanted.learned);
        let finding = format!("the learning store counts {counted} examples, not {should}");
        verdict.note(|v| &mut v.wrong, finding);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(respondent: &str, number: u32, age: Option<u32>, completed: bool) -> Sent {
        let event = format!("{respondent}-{number}");
        Sent::Piece { respondent: respondent.to_owned(), event, age, completed }
    }

    fn outcome(respondent: &str) -> Sent {
        Sent::Outcome { respondent: respondent.to_owned(), label: "yes".to_owned() }
    }

    fn sent() -> Vec<Sent> {
        vec![
            piece("ann", 0, Some(30), true),
            piece("bob", 0, Some(40), false),
            outcome("ann"),
            piece("ann", 1, Some(31), true),
            piece("bob", 1, None, true),
            Sent::Garbage { key: "garbage-0".to_owned() },
            piece("cat", 0, Some(50), false),
            outcome("dan"),
            piece("ann", 2, Some(32), true),
        ]
    }

    /// Plants `mistake` in the right result; the numbers are lost, doubled, out of order, wrong.
    fn check(mistake: impl FnOnce(&mut Topics), expected_counts: [usize; 4]) {
        let mut found = expected(&sent());
        mistake(&mut found);
        let verdict = compare(&sent(), &found);
        let counts = [verdict.lost, verdict.doubled, verdict.out_of_order, verdict.wrong];
        assert_eq!(counts, expected_counts, "{verdict:?}");
        assert_eq!(verdict.is_clean(), expected_counts == [0; 4]);
    }

    #[test]
    fn what_must_come_of_it() {
        let topics = expected(&sent());
        assert_eq!(topics.predictions["bob"], [("bob-1".to_owned(), Some(40))]);
        assert_eq!(topics.examples["ann"], [("ann-0".to_owned(), "yes".to_owned())]);
        let ann = ["ann-0 learned yes", "ann-1 passed over", "ann-2 passed over"];
        assert_eq!(topics.outcome_store["ann"], ann);
        assert_eq!(topics.outcome_store["bob"], ["bob-1 waiting"]);
        assert_eq!(topics.outcome_store["dan"], ["outcome yes waiting"]);
        assert_eq!(topics.observation_store, [("cat".to_owned(), Some(50))].into());
        check(|_| (), [0; 4]);
    }

    #[test]
    fn what_is_lost_is_found() {
        let of_ann = |topics: &mut Topics, index| {
            topics.predictions.get_mut("ann").unwrap().remove(index);
        };
        for index in 0..3 {
            check(|topics| of_ann(topics, index), [1, 0, 0, 0]);
        }
        check(|topics| drop(topics.predictions.remove("bob")), [1, 0, 0, 0]);
        check(|topics| drop(topics.examples.remove("ann")), [1, 0, 0, 0]);
        check(|topics| topics.dead_letters.clear(), [1, 0, 0, 0]);
        check(|topics| drop(topics.outcome_store.remove("dan")), [1, 0, 0, 0]);
        check(|topics| topics.observation_store.clear(), [1, 0, 0, 0]);
    }

    #[test]
    fn what_is_doubled_is_found() {
        let again = |topics: &mut Topics, index: usize, at: usize| {
            let ann = topics.predictions.get_mut("ann").unwrap();
            ann.insert(at, ann[index].clone());
        };
        // Also where a replay repeats a stretch: that is no change of order.
        check(|topics| again(topics, 0, 1), [0, 1, 0, 0]);
        check(|topics| again(topics, 0, 3), [0, 1, 0, 0]);
        let example = |topics: &mut Topics| {
            let ann = topics.examples.get_mut("ann").unwrap();
            ann.push(ann[0].clone());
        };
        check(example, [0, 1, 0, 0]);
        check(|topics| topics.dead_letters.push("garbage-0".to_owned()), [0, 1, 0, 0]);
    }

    #[test]
    fn another_order_is_found() {
        check(|topics| topics.predictions.get_mut("ann").unwrap().swap(0, 1), [0, 0, 1, 0]);
        check(|topics| topics.predictions.get_mut("ann").unwrap().swap(0, 2), [0, 0, 1, 0]);
    }

    #[test]
    fn a_state_that_went_wrong_is_found() {
        // Bob's first piece was forgotten: the prediction that should be there is not, another one is.
        check(|topics| topics.predictions.get_mut("bob").unwrap()[0].1 = None, [1, 0, 0, 1]);
        let other = |topics: &mut Topics| {
            topics.examples.get_mut("ann").unwrap()[0].0 = "ann-1".to_owned();
        };
        check(other, [1, 0, 0, 1]);
        let stays = |topics: &mut Topics| {
            topics.observation_store.insert("bob".to_owned(), Some(40));
        };
        check(stays, [0, 0, 0, 1]);
        let waits = |topics: &mut Topics| {
            topics.outcome_store.get_mut("ann").unwrap()[0] = "ann-0 waiting".to_owned();
        };
        check(waits, [1, 0, 0, 1]);
        let nobody = |topics: &mut Topics| {
            topics.predictions.insert("eve".to_owned(), vec![("eve-0".to_owned(), None)]);
        };
        check(nobody, [0, 0, 0, 1]);
        check(|topics| topics.learned += 1, [0, 0, 0, 1]);
        check(|topics| topics.learned = 0, [0, 0, 0, 1]);
    }
}
