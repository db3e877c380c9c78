//! Cancels pending actions when an outcome or another event of the respondent arrives.

use crate::{
    events::{
        action::Action,
        answered::Encoded,
        outcome::Outcome,
        questionnaire::{EventIdentity, QuestionnaireEvent},
    },
    processors::{
        actions::{
            rule::CancelOn,
            timers::{ActionContext, Timers},
        },
        gather::{self, GatherSettings},
        recent_events::RecentEvents,
    },
};
use foretell_streams::topology::{ProcessError, Processor, Record};

/// The processor from outcomes to cancelled actions. Before the join, so that an action that was due before the outcome is on
/// its labelled example.
#[derive(Clone)]
pub(super) struct CancelOnOutcome {
    pub(super) timers: Timers,
}

/// The processor from events to cancelled actions. Before the observation is scored, so that an event does not cancel the
/// action that it causes.
#[derive(Clone)]
pub(super) struct CancelOnEvent {
    pub(super) timers: Timers,
    pub(super) gather: GatherSettings,
    pub(super) recent: RecentEvents,
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
    type In = QuestionnaireEvent;
    type Out = Encoded<Action>;

    fn process(
        &mut self,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let event = &record.value;
        let respondent = &event.respondent_id;
        if !self.timers.have_pending(respondent, ctx)? {
            return Ok(());
        }
        let withdrawn = ctx.input().map(gather::withdrawn).unwrap_or_default();
        let GatherSettings { questions, layout, .. } = &self.gather;
        let identity = EventIdentity::of(event, questions, layout, &withdrawn);
        if self.recent.contains(&identity.fingerprint(), ctx)? {
            return Ok(());
        }
        self.timers.cancel_on(CancelOn::Event, respondent, "another event came", ctx)
    }
}
