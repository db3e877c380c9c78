//! Cancels pending actions when an outcome or another event of the respondent arrives.

use crate::{
    events::{
        action::{Action, ActionRef},
        answered::Encoded,
        outcome::Outcome,
    },
    processors::{
        actions::{
            rule::CancelOn,
            timers::{ActionContext, Cause, Timers},
        },
        gather::Gathered,
        join_window::JoinWindow,
    },
};
use foretell_streams::topology::{ProcessError, Processor, Record};

/// The processor from outcomes to cancelled actions. Before the join, so that an action that was due before the outcome is on
/// its labelled example.
#[derive(Clone)]
pub(super) struct CancelOnOutcome {
    pub(super) timers: Timers,
    pub(super) join_window: JoinWindow,
}

/// The processor from gathered events to cancelled actions. Before observations are scored, so that an event does not cancel
/// the action that it causes.
#[derive(Clone)]
pub(super) struct CancelOnEvent {
    pub(super) timers: Timers,
}

impl Processor for CancelOnOutcome {
    type In = Outcome;
    type Out = Encoded<Action>;

    fn process(
        &mut self,
        record: &Record<Outcome>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let Outcome { respondent_id, outcome_time, .. } = &record.value;
        // An outcome of another prediction says nothing about the one that caused the action.
        let joined = self.join_window.near(*outcome_time, ctx.stream_time());
        let cause = Cause { on: CancelOn::Outcome, reason: "an outcome came" };
        let is_about = |action: ActionRef<'_>| joined.contains(&action.event_time);
        self.timers.cancel_on(cause, respondent_id, is_about, ctx)
    }
}

impl Processor for CancelOnEvent {
    type In = Gathered;
    type Out = Encoded<Action>;

    fn process(
        &mut self,
        record: &Record<Gathered>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let Gathered::Arrived { respondent_id } = &record.value else { return Ok(()) };
        let cause = Cause { on: CancelOn::Event, reason: "another event came" };
        self.timers.cancel_on(cause, respondent_id, |_| true, ctx)
    }
}
