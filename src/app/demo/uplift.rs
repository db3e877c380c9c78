//! What the rules of a demo have done, and what it has changed: as the instance measures it, and in truth.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    app::play::PotentialLabels,
    events::{
        action::{Action, ActionState},
        labelled_example::LabelledExample,
    },
    processors::uplift::{Difference, RuleUplift},
};
use foretell_streams::time::EventTime;

/// What a rule has done, and its uplift.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    pub rule: String,
    pub requested: usize,
    pub cancelled: usize,
    pub held_out: usize,
    /// Respondents with an outcome on whom the rule has acted, and those whom it has held out.
    pub examples_acted: u64,
    pub examples_held_out: u64,
    /// For the label that counts of two, or for each of more.
    pub labels: Vec<LabelReport>,
}

/// How much more often a label comes when a rule has acted.
#[derive(Clone, Debug, Serialize)]
pub struct LabelReport {
    pub label: String,
    /// Share of the label among the respondents on whom the rule has acted.
    pub acted: Option<f64>,
    /// Share of the label among those that were held out.
    pub held_out: Option<f64>,
    /// The difference, as the instance measures it, with its interval of 95 %.
    pub uplift: Option<Difference>,
    /// The difference that acting makes for the same respondents, all of them; null if the table does not say what an action changes.
    pub truth: Option<f64>,
}

/// Actions and labelled examples of the topics.
#[derive(Clone, Debug, Default)]
pub(super) struct ActionContents {
    /// Number of records of each action.
    records: BTreeMap<String, usize>,
    /// For each rule, the number of records by the place of their state in [`ActionState::ALL`].
    states: BTreeMap<String, [usize; ActionState::ALL.len()]>,
    /// By example.
    due: BTreeMap<String, DueExample>,
}

/// An example of which actions were due.
#[derive(Clone, Debug)]
struct DueExample {
    respondent_id: String,
    event_time: EventTime,
    /// The place of the example in the log.
    number: usize,
    /// The rules that were due, and whether they acted.
    due: Vec<(String, bool)>,
}

impl ActionContents {
    pub(super) fn add_action(&mut self, action: Action) {
        *self.records.entry(action.action_id).or_default() += 1;
        self.states.entry(action.rule).or_default()[action.state as usize] += 1;
    }

    /// Adds an example, or a correction, which replaces it.
    pub(super) fn add_example(&mut self, example: &LabelledExample) {
        let due = example.actions.iter().map(|action| (action.rule.to_owned(), action.acted));
        let due: Vec<(String, bool)> = due.collect();
        let number = self.due.len();
        if let Some(known) = self.due.get_mut(&example.example_id) {
            known.due = due;
        } else if !due.is_empty() {
            let (respondent_id, event_time) = (example.respondent_id.clone(), example.event_time);
            let due = DueExample { respondent_id, event_time, number, due };
            self.due.insert(example.example_id.clone(), due);
        }
    }

    /// Whether a rule has acted on an example.
    pub(super) fn has_acted_on(&self, example_id: &str) -> bool {
        let example = self.due.get(example_id);
        example.is_some_and(|example| example.due.iter().any(|(_, acted)| *acted))
    }

    /// For each respondent, the earliest example of which a rule was due, and whether it acted.
    fn counted(&self, rule: &str) -> Vec<(&str, bool)> {
        let mut counted: BTreeMap<&str, (EventTime, usize, &str, bool)> = BTreeMap::new();
        for (id, example) in &self.due {
            let Some((_, acted)) = example.due.iter().find(|(name, _)| name == rule) else {
                continue;
            };
            let this = (example.event_time, example.number, id.as_str(), *acted);
            let earliest = counted.entry(&example.respondent_id).or_insert(this);
            *earliest = (*earliest).min(this);
        }
        counted.into_values().map(|(.., example, acted)| (example, acted)).collect()
    }

    /// Number of respondents that are counted, once for each rule.
    pub(super) fn counts(&self) -> usize {
        let due = self.due.values();
        let pairs = due.flat_map(|one| one.due.iter().map(|(rule, _)| (&one.respondent_id, rule)));
        pairs.collect::<BTreeSet<_>>().len()
    }

    /// Number of records.
    pub(super) fn records(&self) -> usize {
        self.records.values().sum()
    }

    /// Number of actions with more than one record.
    pub(super) fn doubled(&self) -> usize {
        self.records.values().filter(|records| **records > 1).count()
    }

    /// Whether the instance has counted the respondents of each rule, each once.
    pub(super) fn are_counted(&self, measured: &[RuleUplift]) -> bool {
        measured.iter().all(|uplift| {
            let of_group = |acted: bool| {
                let counted = self.counted(&uplift.rule).into_iter();
                let of_group = counted.filter(|(_, is_acted)| *is_acted == acted);
                u64::try_from(of_group.count()).unwrap_or(u64::MAX)
            };
            uplift.acted == of_group(true) && uplift.held_out == of_group(false)
        })
    }

    /// The reports about the rules that the instance measures.
    pub(super) fn reports(
        &self,
        measured: &[RuleUplift],
        potential: &BTreeMap<String, PotentialLabels>,
    ) -> Vec<RuleReport> {
        measured.iter().map(|uplift| self.report(uplift, potential)).collect()
    }

    fn report(
        &self,
        measured: &RuleUplift,
        potential: &BTreeMap<String, PotentialLabels>,
    ) -> RuleReport {
        let states = self.states.get(&measured.rule).copied().unwrap_or_default();
        let counted = self.counted(&measured.rule).into_iter();
        let potential: Vec<&PotentialLabels> =
            counted.filter_map(|(example, _)| potential.get(example)).collect();
        let labels = measured.labels.iter().map(|label| LabelReport {
            label: label.label.clone(),
            acted: label.acted,
            held_out: label.held_out,
            uplift: label.uplift,
            truth: true_uplift(&label.label, &potential),
        });
        RuleReport {
            rule: measured.rule.clone(),
            requested: states[ActionState::Requested as usize],
            cancelled: states[ActionState::Cancelled as usize],
            held_out: states[ActionState::HeldOut as usize],
            examples_acted: measured.acted,
            examples_held_out: measured.held_out,
            labels: labels.collect(),
        }
    }
}

/// The share of a label if all were acted on less that if none was; none without examples.
fn true_uplift(label: &str, potential: &[&PotentialLabels]) -> Option<f64> {
    let share = |of: fn(&PotentialLabels) -> &Option<String>| {
        potential.iter().filter(|labels| of(labels).as_deref() == Some(label)).count() as f64
    };
    let all = potential.len() as f64;
    let difference = share(|labels| &labels.if_acted) - share(|labels| &labels.without);
    (!potential.is_empty()).then(|| difference / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_uplift_is_what_acting_changes_for_the_same_predictions() {
        let labels = |without: &str, if_acted: &str| PotentialLabels {
            without: Some(without.to_owned()),
            if_acted: Some(if_acted.to_owned()),
        };
        let four = [
            labels("liked", "bought"),
            labels("liked", "liked"),
            labels("bought", "bought"),
            PotentialLabels::default(),
        ];
        let four: Vec<&PotentialLabels> = four.iter().collect();
        assert_eq!(true_uplift("bought", &four), Some(0.25));
        assert_eq!(true_uplift("liked", &four), Some(-0.25));
        assert_eq!(true_uplift("basket", &four), Some(0.0));
        assert_eq!(true_uplift("bought", &[]), None);
    }
}
