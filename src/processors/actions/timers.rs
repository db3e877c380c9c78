//! Pending actions: records that are written when they are due, in two stores whose times are the due times.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    events::{
        action::{Action, ActionRef, ActionState},
        answered::{AnsweredCodec, Encoded},
        respondent::{Respondent, RespondentAction},
    },
    processors::actions::{
        Acted, ActedStore,
        cancelled::{Cancelled, CancelledStore},
        metrics::ActionMetrics,
        rule::{After, CancelOn, Rules},
    },
};
use foretell_streams::{
    codec::CodecError,
    state::{Position, StoreId, WindowHandle},
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Record},
};

/// Maximum number of timers that one punctuation fires, which bounds the memory after an outage: the next one, 100 ms later or
/// with the next advance of stream time, fires as many.
const FIRED_AT_ONCE_MAX: usize = 10_000;

pub(super) type ActionContext<'t> = Context<'t, Encoded<Action>>;

/// The time that a timer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeline {
    Stream,
    Wall,
}

impl Timeline {
    const ALL: [Self; 2] = [Self::Stream, Self::Wall];

    pub(super) fn of(after: After) -> Self {
        match after {
            After::EventTime(_) => Self::Stream,
            After::Wall(_) => Self::Wall,
        }
    }

    /// The present time.
    pub(super) fn now(self, ctx: &ActionContext<'_>) -> EventTime {
        match self {
            Self::Stream => ctx.stream_time(),
            Self::Wall => EventTime(ctx.now().0),
        }
    }
}

/// A pending action, as it is stored.
pub(super) struct PendingAction {
    timeline: Timeline,
    position: Position,
    bytes: Vec<u8>,
}

/// Why pending actions are cancelled.
#[derive(Clone, Copy)]
pub(super) struct Cause {
    pub(super) on: CancelOn,
    /// In words.
    pub(super) reason: &'static str,
}

/// The stores of pending actions and of those that were due, and what every processor of actions needs.
#[derive(Clone)]
pub(super) struct Timers {
    pub(super) rules: Rules,
    pub(super) by_stream_time: WindowHandle<Encoded<Action>>,
    pub(super) by_wall_clock: WindowHandle<Encoded<Action>>,
    pub(super) acted: ActedStore,
    pub(super) cancelled: CancelledStore,
    pub(super) codec: Arc<AnsweredCodec<Action>>,
    pub(super) metrics: ActionMetrics,
}

impl Timers {
    /// The stores that a processor of actions uses.
    pub(super) fn stores(&self) -> [StoreId; 4] {
        let [acted, cancelled] = [self.acted.handle().id(), self.cancelled.handle().id()];
        [self.by_stream_time.id(), self.by_wall_clock.id(), acted, cancelled]
    }

    fn store(&self, timeline: Timeline) -> &WindowHandle<Encoded<Action>> {
        match timeline {
            Timeline::Stream => &self.by_stream_time,
            Timeline::Wall => &self.by_wall_clock,
        }
    }

    /// Stores an action until it is due.
    pub(super) fn add(
        &self,
        timeline: Timeline,
        action: ActionRef<'_>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let (time, bytes) = (action.due, self.encoded(action));
        ctx.window(self.store(timeline)).add_bytes(action.respondent_id, time, &bytes)?;
        Ok(())
    }

    /// The newest actions about a respondent: those that were cancelled, those that were due, then those that are pending.
    pub(super) fn about<Out: 'static>(
        &self,
        respondent: &str,
        ctx: &mut Context<'_, Out>,
    ) -> Result<Vec<RespondentAction>, ProcessError> {
        let always = (EventTime::MIN, EventTime::MAX);
        let due = self.acted.between(respondent, always, ctx)?;
        let due = due.into_iter().map(|(time, acted)| RespondentAction {
            action_id: acted.action_id,
            prediction_id: acted.prediction_id,
            rule: acted.rule,
            rule_version: acted.rule_version,
            is_control: !acted.acted,
            is_pending: false,
            due: acted.due.unwrap_or(time),
            cancelled: None,
        });
        let mut actions = self.cancelled.about(respondent, ctx)?;
        actions.extend(due);
        for timeline in Timeline::ALL {
            let mut pending = Vec::new();
            ctx.window(self.store(timeline)).fetch_bytes(
                respondent,
                always.0,
                always.1,
                |_, bytes| {
                    pending.push(bytes.to_vec());
                    ControlFlow::Continue(())
                },
            )?;
            for bytes in pending {
                actions.extend(self.read(&bytes, |action| RespondentAction {
                    action_id: action.action_id.to_owned(),
                    prediction_id: action.prediction_id.to_owned(),
                    rule: action.rule.to_owned(),
                    rule_version: action.rule_version.to_owned(),
                    is_control: action.state == ActionState::HeldOut,
                    is_pending: true,
                    due: action.due,
                    cancelled: None,
                })?);
            }
        }
        let most = actions.len().saturating_sub(Respondent::ACTIONS_MAX);
        Ok(actions.split_off(most))
    }

    /// Fires the pending actions of a respondent that are due, and returns the others.
    ///
    /// So a record cancels nothing that was due before it, whether other records have made the timers fire or not.
    pub(super) fn pending_after_due(
        &self,
        respondent: &str,
        ctx: &mut ActionContext<'_>,
    ) -> Result<Vec<PendingAction>, ProcessError> {
        let mut pending = Vec::new();
        for timeline in Timeline::ALL {
            let (from, to) = (EventTime::MIN, EventTime::MAX);
            let store = self.store(timeline);
            ctx.window(store).fetch_bytes(respondent, from, to, |position, bytes| {
                pending.push(PendingAction { timeline, position, bytes: bytes.to_vec() });
                ControlFlow::Continue(())
            })?;
        }
        let mut left = Vec::with_capacity(pending.len());
        for one in pending {
            if one.position.time > one.timeline.now(ctx) {
                left.push(one);
                continue;
            }
            ctx.window(self.store(one.timeline)).remove_at(respondent, one.position);
            self.fire(&one.bytes, one.timeline, ctx)?;
        }
        Ok(left)
    }

    /// Cancels the pending actions for which `is_cancelled` is true, and returns the others.
    pub(super) fn cancel(
        &self,
        respondent: &str,
        pending: Vec<PendingAction>,
        reason: &str,
        is_cancelled: impl Fn(ActionRef<'_>) -> bool,
        ctx: &mut ActionContext<'_>,
    ) -> Result<Vec<PendingAction>, ProcessError> {
        let mut left = Vec::with_capacity(pending.len());
        for one in pending {
            let cancelled = self.read(&one.bytes, |action| {
                is_cancelled(action).then(|| cancelled(action, reason, ctx.now()))
            })?;
            match cancelled {
                Some(Some((action, cancelled))) => {
                    ctx.window(self.store(one.timeline)).remove_at(respondent, one.position);
                    self.forward(action, Some(&cancelled), ctx)?;
                }
                Some(None) => left.push(one),
                // Its schema is lost: `fire` reports it when it is due.
                None => left.push(one),
            }
        }
        Ok(left)
    }

    /// Cancels the pending actions of a respondent that `cause` is about and whose rules name it.
    pub(super) fn cancel_on(
        &self,
        cause: Cause,
        respondent: &str,
        is_about: impl Fn(ActionRef<'_>) -> bool,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let pending = self.pending_after_due(respondent, ctx)?;
        let is_cancelled = |action: ActionRef<'_>| {
            let rule = self.rules.named(action.rule);
            rule.is_some_and(|rule| rule.is_cancelled_on(cause.on)) && is_about(action)
        };
        self.cancel(respondent, pending, cause.reason, is_cancelled, ctx).map(drop)
    }

    /// Fires the timers of all respondents that are due at `now`, in the order of their due times, up to a bound.
    pub(super) fn fire_due(
        &self,
        timeline: Timeline,
        now: EventTime,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let mut due: Vec<Vec<u8>> = Vec::new();
        let before = EventTime(now.0.saturating_add(1));
        let mut store = ctx.window(self.store(timeline));
        store.expire_bytes(before, FIRED_AT_ONCE_MAX, |_, _, bytes| {
            due.push(bytes.to_vec());
            Ok(())
        })?;
        due.iter().try_for_each(|bytes| self.fire(bytes, timeline, ctx))
    }

    /// The names of the rules of pending actions.
    pub(super) fn rules_of(&self, pending: &[PendingAction]) -> Result<Vec<String>, ProcessError> {
        let mut rules = Vec::with_capacity(pending.len());
        for one in pending {
            rules.extend(self.read(&one.bytes, |action| action.rule.to_owned())?);
        }
        Ok(rules)
    }

    /// An action as it is stored.
    pub(super) fn encoded(&self, action: ActionRef<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.codec.write(action, &mut bytes);
        bytes
    }

    /// Writes the record of an action that is due.
    pub(super) fn fire(
        &self,
        bytes: &[u8],
        timeline: Timeline,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let clock = EventTime(ctx.now().0);
        let fired = self.read(bytes, |action| {
            if self.rules.named(action.rule).is_none() {
                let (action, cancelled) = cancelled(action, "the rule is gone", ctx.now());
                return (action, Err(cancelled));
            }
            let acted_at = match timeline {
                Timeline::Stream => action.due,
                // An outcome of before now came before the action, whether stream time has reached it or not.
                Timeline::Wall => clock,
            };
            let acted = (acted_at.max(action.event_time), acted_of(action));
            let (state, reason) = (action.state, action.reason);
            (ended(action, state, reason, ctx.now()), Ok(acted))
        })?;
        match fired {
            Some((action, Ok((time, acted)))) => {
                self.acted.add(action.get().respondent_id, time, &acted, ctx)?;
                self.forward(action, None, ctx)
            }
            Some((action, Err(cancelled))) => self.forward(action, Some(&cancelled), ctx),
            None => Ok(()),
        }
    }

    /// Forwards the record of an action, and counts it. One that was cancelled is stored for look-ups.
    fn forward(
        &self,
        action: Encoded<Action>,
        cancelled: Option<&Cancelled>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let (rule, state, respondent, time) = {
            let action = action.get();
            let respondent = action.respondent_id.to_owned();
            (action.rule.to_owned(), action.state, respondent, action.event_time)
        };
        if let Some(cancelled) = cancelled {
            self.cancelled.add(&respondent, time, cancelled, ctx)?;
        }
        ctx.count(&self.metrics.actions(&rule, state.name()), 1);
        ctx.forward(&Record { key: Some(respondent.into_bytes()), value: action, time })
    }

    /// Reads a pending action; none, and a message, if its writer schema is lost.
    fn read<T>(
        &self,
        bytes: &[u8],
        visit: impl FnOnce(ActionRef<'_>) -> T,
    ) -> Result<Option<T>, ProcessError> {
        match self.codec.read(bytes, visit) {
            Ok(read) => Ok(Some(read)),
            Err(CodecError::Unavailable { message }) => Err(ProcessError::Retry(message)),
            // It was written with a schema that the registry does not have any more. No retry would help.
            Err(error @ (CodecError::Unreadable { .. } | CodecError::OtherFormat { .. })) => {
                tracing::error!(%error, "a pending action cannot be read");
                Ok(None)
            }
        }
    }
}

/// The record that cancels a pending action, and what is stored about it.
fn cancelled(action: ActionRef<'_>, reason: &str, now: WallTime) -> (Encoded<Action>, Cancelled) {
    let stored = Cancelled::new(action, reason);
    (ended(action, ActionState::Cancelled, reason, now), stored)
}

/// The record that ends a pending action.
fn ended(
    action: ActionRef<'_>,
    state: ActionState,
    reason: &str,
    decided_at: WallTime,
) -> Encoded<Action> {
    Encoded::new(ActionRef { state, reason, decided_at, ..action })
}

fn acted_of(action: ActionRef<'_>) -> Acted {
    Acted {
        action_id: action.action_id.to_owned(),
        prediction_id: action.prediction_id.to_owned(),
        rule: action.rule.to_owned(),
        rule_version: action.rule_version.to_owned(),
        acted: action.state == ActionState::Requested,
        propensity: action.propensity,
        due: Some(action.due),
        event_time: Some(action.event_time),
    }
}
