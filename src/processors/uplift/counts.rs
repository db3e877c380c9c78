//! The stored counts of a rule, and the respondents that it was counted for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use foretell_streams::{
    codec::{Stored, StoredSince},
    time::EventTime,
};

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

/// Respondents of one version of a rule, by label and group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// The version.
    pub version: String,
    /// By label: those that it has acted on, and those that it has held out.
    labels: BTreeMap<String, [u64; 2]>,
}

/// Format 1, with the same fields, which counted examples: the counts begin again.
#[derive(Debug, Deserialize, Serialize)]
pub struct RuleCountsV1 {
    version: String,
    labels: BTreeMap<String, [u64; 2]>,
}

impl RuleCountsV1 {
    const FORMAT: u8 = 1;
}

impl From<RuleCountsV1> for RuleCounts {
    fn from(_: RuleCountsV1) -> Self {
        Self::default()
    }
}

impl RuleCounts {
    /// The format version of this type. A changed field needs a new version.
    pub const FORMAT: u8 = 2;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> StoredSince<Self, RuleCountsV1> {
        StoredSince::new(Stored::version(Self::FORMAT), Stored::version(RuleCountsV1::FORMAT))
    }

    pub(super) fn new(version: &str) -> Self {
        Self { version: version.to_owned(), labels: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, group: Group, label: &str) {
        self.labels.entry(label.to_owned()).or_default()[group as usize] += 1;
    }

    /// Takes a respondent out that was added.
    pub(super) fn remove(&mut self, group: Group, label: &str) {
        if let Some(counts) = self.labels.get_mut(label) {
            counts[group as usize] = counts[group as usize].saturating_sub(1);
        }
    }

    /// The respondents of a group with a label.
    pub(super) fn of(&self, group: Group, label: &str) -> u64 {
        self.labels.get(label).map_or(0, |counts| counts[group as usize])
    }

    /// The respondents of both groups.
    pub(super) fn respondents(&self) -> u64 {
        self.all(Group::Acted) + self.all(Group::HeldOut)
    }

    /// The respondents of a group.
    pub(super) fn all(&self, group: Group) -> u64 {
        self.labels.values().map(|counts| counts[group as usize]).sum()
    }
}

/// A respondent that was counted for a version of a rule: about 50 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedRespondent {
    /// The version of the rule.
    pub version: String,
    /// A hash of the id of the example that counts.
    pub example: u64,
    /// The event time of that example.
    pub event_time: EventTime,
    /// The group.
    pub group: Group,
    /// The label that is counted.
    pub label: String,
}

impl CountedRespondent {
    /// The format version of this type. A changed field needs a new version.
    pub const FORMAT: u8 = 1;
}
