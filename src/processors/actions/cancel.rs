//! Cancels pending actions when an outcome or another event of the respondent arrives.

use crate::{
    events::{action::Action, answered::Encoded, outcome::Outcome},
    processors::{
        actions::{
            rule::CancelOn,
            timers::{ActionContext, Timers},
        },
        gather::Gathered,
    },
};
use foretell_streams::topology::{ProcessError, Processor, Record};

/// The processor from outcomes to cancelled actions. Before the join, so that an action that was due before the outcome is on
/// its labelled example.
#[derive(Clone)]
pub(super) struct CancelOnOutcome {
    pub(super) timers: Timers,
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
        let respondent = &record.value.respondent_id;
        self.timers.cancel_on(CancelOn::Outcome, respondent, "an outcome came", ctx)
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
        self.timers.cancel_on(CancelOn::Event, respondent_id, "another event came", ctx)
    }
}
