//! The store of actions that were cancelled, so that a look-up of their respondent shows them and why. Nothing is decided by it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::events::{
    action::{ActionRef, ActionState},
    respondent::RespondentAction,
};
use foretell_streams::{
    codec::Stored,
    state::{StateError, WindowHandle},
    time::EventTime,
    topology::Context,
};

/// Maximum number of cancelled actions of one respondent; the one that was cancelled first is removed.
const CANCELLED_MAX: usize = 20;
/// Maximum number of entries to expire at once: a punctuation follows 100 ms later.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;

/// An action that was cancelled before it was due. Its time in the store is the stream time at which it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    action_id: String,
    prediction_id: String,
    rule: String,
    rule_version: String,
    is_control: bool,
    /// When it would have been due.
    due: EventTime,
    reason: String,
}

impl Cancelled {
    /// The format version of this type. A changed field needs a new version.
    pub const FORMAT: u8 = 1;

    /// The codec of the store.
    #[must_use]
    pub fn codec() -> Stored<Self> {
        Stored::version(Self::FORMAT)
    }

    /// A pending action that is cancelled.
    pub(super) fn new(action: ActionRef<'_>, reason: &str) -> Self {
        Self {
            action_id: action.action_id.to_owned(),
            prediction_id: action.prediction_id.to_owned(),
            rule: action.rule.to_owned(),
            rule_version: action.rule_version.to_owned(),
            is_control: action.state == ActionState::HeldOut,
            due: action.due,
            reason: reason.to_owned(),
        }
    }
}

impl From<Cancelled> for RespondentAction {
    fn from(cancelled: Cancelled) -> Self {
        let Cancelled { action_id, prediction_id, rule, rule_version, is_control, due, reason } =
            cancelled;
        let (is_pending, cancelled) = (false, Some(reason));
        Self {
            action_id,
            prediction_id,
            rule,
            rule_version,
            is_control,
            is_pending,
            due,
            cancelled,
        }
    }
}

/// The cancelled actions of the respondents of a task, by stream time.
#[derive(Clone, Debug)]
pub(super) struct CancelledStore {
    store: WindowHandle<Cancelled>,
    /// Stream time in which an action is kept.
    retention: Duration,
}

impl CancelledStore {
    /// A store that keeps actions for `retention`.
    pub(super) fn new(store: WindowHandle<Cancelled>, retention: Duration) -> Self {
        Self { store, retention }
    }

    pub(super) fn handle(&self) -> &WindowHandle<Cancelled> {
        &self.store
    }

    /// Adds an action of an event at a time.
    pub(super) fn add<Out: 'static>(
        &self,
        respondent: &str,
        event_time: EventTime,
        cancelled: &Cancelled,
        ctx: &mut Context<'_, Out>,
    ) -> Result<(), StateError> {
        let now = ctx.stream_time().max(event_time);
        let mut store = ctx.window(&self.store);
        let earlier = store.fetch_all(respondent)?;
        for earliest in earlier.iter().take((earlier.len() + 1).saturating_sub(CANCELLED_MAX)) {
            store.remove(earliest);
        }
        store.add(respondent, now, cancelled)
    }

    /// The actions of a respondent, in the order in which they were cancelled.
    pub(super) fn about<Out: 'static>(
        &self,
        respondent: &str,
        ctx: &mut Context<'_, Out>,
    ) -> Result<Vec<RespondentAction>, StateError> {
        // A punctuation may not have removed those that are too old.
        let from = ctx.stream_time() - self.retention;
        let found = ctx.window(&self.store).fetch(respondent, from, EventTime::MAX)?;
        Ok(found.into_iter().map(|entry| entry.value.into()).collect())
    }

    /// Removes the actions that are too old.
    pub(super) fn expire<Out: 'static>(
        &self,
        ctx: &mut Context<'_, Out>,
    ) -> Result<(), StateError> {
        let before = ctx.stream_time() - self.retention;
        let mut store = ctx.window(&self.store);
        store.expire_bytes(before, EXPIRED_AT_ONCE_MAX, |_, _, _| Ok(()))
    }
}
