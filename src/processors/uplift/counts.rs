//! The stored counts of a rule, and what an example was counted for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The group of a respondent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// The rule has acted.
    Acted,
    /// The respondent is in the control share.
    HeldOut,
}

impl Group {
    pub(super) fn of(acted: bool) -> Self {
        if acted { Self::Acted } else { Self::HeldOut }
    }
}

/// Labelled examples of one version of a rule, by label and group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// The version.
    pub version: String,
    /// By label: those that it has acted on, and those that it has held out.
    labels: BTreeMap<String, [u64; 2]>,
}

impl RuleCounts {
    /// The format version of this type. A changed field needs a new version.
    pub const FORMAT: u8 = 1;

    pub(super) fn new(version: &str) -> Self {
        Self { version: version.to_owned(), labels: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, group: Group, label: &str) {
        self.labels.entry(label.to_owned()).or_default()[group as usize] += 1;
    }

    /// Takes an example out that was added.
    pub(super) fn remove(&mut self, group: Group, label: &str) {
        if let Some(counts) = self.labels.get_mut(label) {
            counts[group as usize] = counts[group as usize].saturating_sub(1);
        }
    }

    /// The examples of a group with a label.
    pub(super) fn of(&self, group: Group, label: &str) -> u64 {
        self.labels.get(label).map_or(0, |counts| counts[group as usize])
    }

    /// The examples of a group.
    pub(super) fn all(&self, group: Group) -> u64 {
        self.labels.values().map(|counts| counts[group as usize]).sum()
    }
}

/// The rules that an example was counted for: name, version and group of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedExample(Vec<(String, String, Group)>);

impl CountedExample {
    /// The format version of this type. A changed field needs a new version.
    pub const FORMAT: u8 = 1;

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, rule: &str, version: &str, group: Group) {
        self.0.push((rule.to_owned(), version.to_owned(), group));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, Group)> {
        self.0.iter().map(|(rule, version, group)| (rule.as_str(), version.as_str(), *group))
    }
}
