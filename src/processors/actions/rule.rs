//! The rules of actions, checked and compiled.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::processors::actions::at_most::AtMost;
use foretell_rules::Condition;

/// Maximum number of rules: each is evaluated for every prediction, in up to 1 µs.
pub const RULES_MAX: usize = 100;
/// Maximum of `at_most.times`: the store keeps as many actions of a rule and a respondent.
pub const TIMES_MAX: u32 = 100;
/// Maximum number of reasons on an action.
pub const REASONS_MAX: usize = 100;
/// Maximum number of characters of a name: it is in every record of its actions and in the labels of metrics.
pub const NAME_MAX: usize = 64;
/// Maximum time from a prediction to its action.
pub const AFTER_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Bytes of the hash that is a rule's version.
const VERSION_BYTES: usize = 6;

/// A rule: when to act on a prediction, and how.
#[derive(Debug)]
pub struct ActionRule {
    /// The settings.
    pub settings: RuleSettings,
    /// The version: a hash of the settings, 12 hexadecimal digits.
    pub version: String,
    /// The compiled condition.
    pub condition: Condition,
}

/// The settings of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSettings {
    /// The name, which no other rule has.
    pub name: String,
    /// The text of the condition.
    pub when: String,
    /// The time from a prediction to its action.
    pub after: After,
    /// What cancels a pending action.
    pub cancel_on: Vec<CancelOn>,
    /// The maximum number of actions of a respondent.
    pub at_most: AtMost,
    /// The share of respondents for whom nothing is done, from 0 to below 1.
    pub control: f64,
    /// The number of reasons on the record of an action.
    pub reasons: usize,
}

/// The time from a prediction to its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Event time, so that a backfill acts as live traffic does; zero: at once.
    EventTime(Duration),
    /// Time of day.
    Wall(Duration),
}

/// What cancels a pending action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelOn {
    /// An outcome of the respondent arrives.
    Outcome,
    /// Another event of the respondent arrives, other than a repeat.
    Event,
    /// Another prediction of the respondent arrives whose event is not earlier: the rule is evaluated again.
    BetterPrediction,
}

impl CancelOn {
    const fn name(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Event => "event",
            Self::BetterPrediction => "better_prediction",
        }
    }
}

impl ActionRule {
    /// A rule with its compiled condition.
    #[must_use]
    pub fn new(settings: RuleSettings, condition: Condition) -> Self {
        Self { version: settings.version(), settings, condition }
    }

    /// Whether `cause` cancels its pending actions.
    pub(super) fn is_cancelled_on(&self, cause: CancelOn) -> bool {
        self.settings.cancel_on.contains(&cause)
    }

    /// Whether the respondent is in the control share.
    pub(super) fn is_control(&self, respondent: &str) -> bool {
        is_control(&self.settings.name, respondent, self.settings.control)
    }

    /// The idempotency key of the action for a prediction.
    pub(super) fn action_id(&self, prediction_id: &str) -> String {
        let parts = [prediction_id, &self.settings.name, &self.version].map(str::as_bytes);
        hex::encode(&hash(parts)[..16])
    }
}

impl RuleSettings {
    /// The version of a rule with these settings.
    fn version(&self) -> String {
        let after = match self.after {
            After::EventTime(after) => format!("event {}", after.as_millis()),
            After::Wall(after) => format!("wall {}", after.as_millis()),
        };
        let mut cancel_on: Vec<&str> = self.cancel_on.iter().map(|cause| cause.name()).collect();
        cancel_on.sort_unstable();
        let AtMost { times, per } = self.at_most;
        let at_most = format!("{times} {}", per.as_millis());
        let numbers = format!("{} {}", self.control, self.reasons);
        let cancel_on = cancel_on.join(" ");
        let parts = [&self.when, &after, &cancel_on, &at_most, &numbers];
        hex::encode(&hash(parts.map(|part| part.as_bytes()))[..VERSION_BYTES])
    }
}

/// Whether the respondent is in the control share of a rule. It depends on both names only, so a respondent stays in its group,
/// and a larger share has those of a smaller one.
#[must_use]
pub fn is_control(rule: &str, respondent: &str, control: f64) -> bool {
    let hash = hash([b"control", rule.as_bytes(), respondent.as_bytes()]);
    let bits = u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    // 53 bits: a 64-bit float represents each of these numbers exactly.
    let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    share < control
}

/// The hash of parts. Each is preceded by its length, so that different parts have different bytes.
fn hash<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The rules in the order of the configuration.
#[derive(Clone, Default)]
pub struct Rules(Arc<[ActionRule]>);

impl Rules {
    /// The rules, at most [`RULES_MAX`], with different names.
    #[must_use]
    pub fn new(rules: Vec<ActionRule>) -> Self {
        Self(rules.into())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules.
    pub fn iter(&self) -> impl Iterator<Item = &ActionRule> {
        self.0.iter()
    }

    /// The name and the version of each rule.
    #[must_use]
    pub fn versions(&self) -> Vec<(String, String)> {
        self.0.iter().map(|rule| (rule.settings.name.clone(), rule.version.clone())).collect()
    }

    /// The rule with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&ActionRule> {
        self.0.iter().find(|rule| rule.settings.name == name)
    }

    /// Whether `cause` cancels pending actions of any rule.
    pub(super) fn are_cancelled_on(&self, cause: CancelOn) -> bool {
        self.0.iter().any(|rule| rule.is_cancelled_on(cause))
    }

    /// The event time in which actions of any rule count for its maximum.
    pub(super) fn longest_per(&self) -> Duration {
        self.0.iter().map(|rule| rule.settings.at_most.per).max().unwrap_or_default()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|rule| &rule.settings)).finish()
    }
}
