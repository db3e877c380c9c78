//! The store of what was done for each respondent: for the maximum of each rule, and for the labelled examples.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::processors::actions::at_most::History;
use foretell_streams::{
    codec::{Stored, StoredSince},
    state::{StateError, WindowHandle},
    time::EventTime,
    topology::Context,
};

/// Maximum number of actions of one rule that are stored for one respondent; the one of the earliest event is removed. It is not less than the
/// maximum of `at_most.times`. With 100 rules, a respondent has at most 10,000 entries of some 200 bytes.
const ACTED_MAX: usize = super::rule::TIMES_MAX as usize;

/// Maximum number of entries to expire at once, which bounds the memory for a long backlog.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;

/// An action that was due: it was done, or its respondent is in the control share. Its time in the store is when it was due, in
/// event time, or the time of day at which it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acted {
    /// The idempotency key of the action.
    pub action_id: String,
    /// The prediction that caused it.
    pub prediction_id: String,
    /// The name of the rule.
    pub rule: String,
    /// The version of the rule.
    pub rule_version: String,
    /// Whether it was done; false in the control share.
    pub acted: bool,
    /// The probability with which the rule acts.
    pub propensity: f64,
    /// When it was due, by the time that its timer follows; none in an entry of format 1, which was due at its time in the store.
    pub due: Option<EventTime>,
    /// The event time of its prediction, which `at_most` counts by; none in an entry of format 1: its time in the store.
    pub event_time: Option<EventTime>,
}

/// Format 1.
#[derive(Debug, Deserialize, Serialize)]
pub struct ActedV1 {
    action_id: String,
    prediction_id: String,
    rule: String,
    rule_version: String,
    acted: bool,
    propensity: f64,
}

impl Acted {
    /// The format version of this type. A changed field needs a new version.
    pub const FORMAT: u8 = 2;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> StoredSince<Self, ActedV1> {
        StoredSince::new(Stored::version(Self::FORMAT), Stored::version(ActedV1::FORMAT))
    }
}

impl ActedV1 {
    const FORMAT: u8 = 1;
}

impl From<ActedV1> for Acted {
    fn from(old: ActedV1) -> Self {
        let ActedV1 { action_id, prediction_id, rule, rule_version, acted, propensity } = old;
        let (due, event_time) = (None, None);
        Self { action_id, prediction_id, rule, rule_version, acted, propensity, due, event_time }
    }
}

/// The actions of the respondents of a task, by event time.
#[derive(Clone, Debug)]
pub struct ActedStore {
    store: WindowHandle<Acted>,
    /// Stream time in which an action is kept.
    retention: Duration,
}

impl ActedStore {
    /// A store that keeps actions for `retention`.
    pub(super) fn new(store: WindowHandle<Acted>, retention: Duration) -> Self {
        Self { store, retention }
    }

    /// The handle, which lists the store in the topology.
    #[must_use]
    pub fn handle(&self) -> &WindowHandle<Acted> {
        &self.store
    }

    /// Adds an action.
    pub(super) fn add<Out: 'static>(
        &self,
        respondent: &str,
        time: EventTime,
        acted: &Acted,
        ctx: &mut Context<'_, Out>,
    ) -> Result<(), StateError> {
        let mut store = ctx.window(&self.store);
        let mut same_rule = store.fetch_all(respondent)?;
        same_rule.retain(|entry| entry.value.rule == acted.rule);
        same_rule.sort_by_key(|entry| entry.value.event_time.unwrap_or(entry.time));
        for earliest in same_rule.iter().take((same_rule.len() + 1).saturating_sub(ACTED_MAX)) {
            store.remove(earliest);
        }
        store.add(respondent, time, acted)
    }

    /// What is known about the actions of a rule for a respondent.
    pub(super) fn history<Out: 'static>(
        &self,
        respondent: &str,
        rule: &str,
        ctx: &mut Context<'_, Out>,
    ) -> Result<History, StateError> {
        let mut same_rule = ctx.window(&self.store).fetch_all(respondent)?;
        same_rule.retain(|entry| entry.value.rule == rule);
        let event_times = same_rule.iter();
        let event_times = event_times.map(|entry| entry.value.event_time.unwrap_or(entry.time));
        let mut event_times: Vec<EventTime> = event_times.collect();
        event_times.sort_unstable();
        let expired_before = ctx.stream_time() - self.retention;
        let complete_from = match event_times.first() {
            // Earlier ones may have been removed.
            Some(earliest) if event_times.len() >= ACTED_MAX => expired_before.max(*earliest),
            Some(_) | None => expired_before,
        };
        Ok(History { event_times, complete_from })
    }

    /// The actions of a respondent with times in `from..=to`, oldest first.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read.
    pub fn between<Out: 'static>(
        &self,
        respondent: &str,
        (from, to): (EventTime, EventTime),
        ctx: &mut Context<'_, Out>,
    ) -> Result<Vec<(EventTime, Acted)>, StateError> {
        let found = ctx.window(&self.store).fetch(respondent, from, to)?;
        Ok(found.into_iter().map(|entry| (entry.time, entry.value)).collect())
    }

    /// Removes the actions that neither a rule nor an example needs any more.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read.
    pub fn expire<Out: 'static>(
        &self,
        now: EventTime,
        ctx: &mut Context<'_, Out>,
    ) -> Result<(), StateError> {
        let mut expired = EXPIRED_AT_ONCE_MAX;
        while expired == EXPIRED_AT_ONCE_MAX {
            expired = 0;
            let mut store = ctx.window(&self.store);
            store.expire_bytes(now - self.retention, EXPIRED_AT_ONCE_MAX, |_, _, _| {
                expired += 1;
                Ok(())
            })?;
        }
        Ok(())
    }
}
