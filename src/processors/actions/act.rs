//! Evaluates the rules for each prediction, and fires the timers.

use std::{sync::Arc, time::Duration};

use crate::{
    events::{
        action::{Action, ActionReasonRef, ActionReasons, ActionRef, ActionState},
        answered::{AnsweredRecord as _, Encoded},
        prediction::{Prediction, PredictionRef},
        questionnaire::QuestionnaireSchema,
    },
    processors::{
        actions::{
            rule::{ActionRule, After, CancelOn},
            timers::{ActionContext, PendingAction, Timeline, Timers},
            variables::Variables,
        },
        model_table::Serving,
        reasons::Reasons,
    },
};
use foretell_streams::{
    time::EventTime,
    topology::{ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The interval at which timers of the time of day fire. With one commit interval, it is how late an action can be.
const WALL_INTERVAL: Duration = Duration::from_millis(100);
/// Stream time is in milliseconds, so timers are looked at whenever it advances: with none due, that is a comparison.
const STREAM_INTERVAL: Duration = Duration::from_millis(1);

/// The processor from predictions to actions.
#[derive(Clone)]
pub(super) struct ActOnPrediction {
    pub(super) timers: Timers,
    pub(super) variables: Arc<Variables>,
    pub(super) events: Arc<QuestionnaireSchema>,
    pub(super) serving: Serving,
}

/// When an action is due.
#[derive(Clone, Copy)]
struct Due {
    timeline: Timeline,
    at: EventTime,
    is_now: bool,
}

impl Processor for ActOnPrediction {
    type In = Encoded<Prediction>;
    type Out = Encoded<Action>;

    fn start(&mut self, ctx: &mut ActionContext<'_>) {
        ctx.schedule(PunctuationKind::StreamTime, STREAM_INTERVAL);
        ctx.schedule(PunctuationKind::WallClock, WALL_INTERVAL);
        for rule in self.timers.rules.iter() {
            self.timers.metrics.begin(&rule.settings.name);
        }
    }

    fn process(
        &mut self,
        record: &Record<Encoded<Prediction>>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let prediction = record.value.get();
        let rules = &self.timers.rules;
        let values = self.variables.of(prediction);
        let mut holding: Vec<&ActionRule> = Vec::new();
        for rule in rules.iter() {
            match rule.condition.holds(&values) {
                Ok(true) => holding.push(rule),
                Ok(false) => {}
                Err(_) => {
                    let counter = self.timers.metrics.undefined(&rule.settings.name);
                    ctx.count(&counter, 1);
                }
            }
        }
        let is_cancelling = rules.are_cancelled_on(CancelOn::BetterPrediction);
        if holding.is_empty() && !is_cancelling {
            return Ok(());
        }
        let pending = self.timers.pending_after_due(prediction.respondent_id, ctx)?;
        let pending = self.cancel(prediction, pending, ctx)?;
        let pending = self.timers.rules_of(&pending)?;
        for rule in holding {
            if !pending.contains(&rule.settings.name) {
                self.request(rule, prediction, ctx)?;
            }
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        match punctuation {
            Punctuation::StreamTime(now) => self.timers.fire_due(Timeline::Stream, now, ctx),
            Punctuation::WallClock(now) => {
                self.timers.fire_due(Timeline::Wall, EventTime(now.0), ctx)?;
                Ok(self.timers.cancelled.expire(ctx)?)
            }
        }
    }
}

impl ActOnPrediction {
    /// Cancels the pending actions that a later prediction cancels. One whose event is earlier than theirs is not later.
    fn cancel(
        &self,
        prediction: PredictionRef<'_>,
        pending: Vec<PendingAction>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<Vec<PendingAction>, ProcessError> {
        let is_cancelled = |action: ActionRef<'_>| {
            let rule = self.timers.rules.named(action.rule);
            prediction.event_time >= action.event_time
                && rule.is_some_and(|rule| rule.is_cancelled_on(CancelOn::BetterPrediction))
        };
        let reason = "a later prediction came";
        self.timers.cancel(prediction.respondent_id, pending, reason, is_cancelled, ctx)
    }

    /// Requests the action of a rule whose condition holds: writes its record if it is due, or sets its timer.
    fn request(
        &self,
        rule: &ActionRule,
        prediction: PredictionRef<'_>,
        ctx: &mut ActionContext<'_>,
    ) -> Result<(), ProcessError> {
        let due = Due::of(rule.settings.after, prediction.event_time, ctx);
        let respondent = prediction.respondent_id;
        let history = self.timers.acted.history(respondent, &rule.settings.name, ctx)?;
        if !rule.settings.at_most.allows(&history, prediction.event_time) {
            return Ok(());
        }
        let is_control = rule.is_control(respondent);
        let state = if is_control { ActionState::HeldOut } else { ActionState::Requested };
        let reasons = self.reasons(rule, prediction);
        let action = ActionRef {
            action_id: &rule.action_id(prediction.prediction_id),
            state,
            respondent_id: respondent,
            prediction_id: prediction.prediction_id,
            rule: &rule.settings.name,
            rule_version: &rule.version,
            reason: &rule.settings.when,
            due: due.at,
            event_time: prediction.event_time,
            decided_at: ctx.now(),
            model_version: prediction.model_version,
            label: prediction.label,
            probabilities: prediction.probabilities,
            propensity: 1.0 - rule.settings.control,
            reasons: reasons.borrow(),
            answers: prediction.answers,
        };
        if due.is_now {
            return self.timers.fire(&self.timers.encoded(action), due.timeline, ctx);
        }
        self.timers.add(due.timeline, action, ctx)
    }

    /// The features that contribute most to the prediction; none if the model has none to tell.
    fn reasons(&self, rule: &ActionRule, prediction: PredictionRef<'_>) -> ActionReasons {
        if rule.settings.reasons == 0 {
            return ActionReasons::default();
        }
        let models = self.serving.models();
        let prediction = Prediction::of(prediction);
        match Reasons::of(&prediction, &[&models], &self.events, rule.settings.reasons) {
            Ok(reasons) => ActionReasons::of(reasons.largest.iter().map(|one| ActionReasonRef {
                feature: &one.feature,
                contribution: one.contribution,
            })),
            Err(error) => {
                tracing::debug!(%error, rule = rule.settings.name, "an action has no reasons");
                ActionReasons::default()
            }
        }
    }
}

impl Due {
    /// When an action is due that follows an event of `event_time`.
    ///
    /// An event whose time is ahead of the clock counts as one of the present stream time, so a fast clock of a producer does
    /// not delay the action.
    fn of(after: After, event_time: EventTime, ctx: &ActionContext<'_>) -> Self {
        let timeline = Timeline::of(after);
        let (now, known) = (timeline.now(ctx), event_time.min(ctx.stream_time()));
        let at = match after {
            After::EventTime(after) => known + after,
            After::Wall(after) => now + after,
        };
        Self { timeline, at, is_now: at <= now }
    }
}
