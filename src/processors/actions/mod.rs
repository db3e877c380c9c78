//! Acts on predictions: rules say when, at once or after a time in which something may cancel it.
//!
//! ```text
//!   prediction ─▶ act-on-prediction ─condition holds─▶ pending ──due──▶ REQUESTED, or HELD_OUT in the control share
//!                     (each rule)                      [timers]          [acted] ─▶ labelled examples (the join)
//!   another event ─▶ cancel-on-event ────────────────────┤
//!   outcome ───────▶ cancel-on-outcome ──────────────────┤
//!   later prediction ────────────────────────────────────┴──────────▶ CANCELLED [cancelled-actions] ─▶ look-ups of respondents
//! ```
//!
//! A pending action is its record, encoded, in a window store whose times are the due times: one store for stream time, one for
//! the time of day. A respondent has at most one pending action of each rule. An action that was held out waits and is cancelled
//! as the others are, so both groups are comparable at the time at which they are due.

mod act;
mod acted;
mod at_most;
mod cancel;
mod cancelled;
pub mod metrics;
mod rule;
mod timers;
mod variables;

use std::sync::Arc;

use crate::{
    events::{
        action::Action,
        answered::{AnsweredCodec, Encoded},
        outcome::Outcome,
        prediction::Prediction,
        questionnaire::QuestionnaireSchema,
        respondent::RespondentAction,
    },
    processors::{
        actions::{
            act::ActOnPrediction,
            cancel::{CancelOnEvent, CancelOnOutcome},
            cancelled::{Cancelled, CancelledStore},
            metrics::ActionMetrics,
            timers::Timers,
        },
        gather::Gathered,
        join_window::JoinWindow,
        model_table::Serving,
    },
};
use foretell_streams::{
    codec::Codec,
    record::Topic,
    state::StoreId,
    topology::{Context, Edge, ProcessError, TopologyBuilder},
};

pub use acted::{Acted, ActedStore};
pub use at_most::AtMost;
pub use rule::{
    AFTER_MAX, ActionRule, After, CancelOn, NAME_MAX, REASONS_MAX, RULES_MAX, RuleSettings, Rules,
    TIMES_MAX, is_control,
};
pub use variables::Variables;

/// The rules, and the variables that their conditions were compiled with.
#[derive(Clone, Debug)]
pub struct ActionSettings {
    /// The rules.
    pub rules: Rules,
    /// The variables.
    pub variables: Arc<Variables>,
}

/// What the processors of actions need beside the rules.
pub struct ActionParts {
    /// The event schema.
    pub events: Arc<QuestionnaireSchema>,
    /// The model that serves.
    pub serving: Serving,
    /// The codec of the actions.
    pub codec: Arc<AnsweredCodec<Action>>,
    /// Which outcomes are joined with a prediction.
    pub join_window: JoinWindow,
    /// The metrics.
    pub metrics: ActionMetrics,
}

/// The processors of actions of a scoring topology; none without rules. They are added one by one, because the processors of a
/// record run in the order in which they are added.
pub struct Actions(Option<Added>);

/// What is added so far.
struct Added {
    timers: Timers,
    parts: ActionParts,
    variables: Arc<Variables>,
    written: Vec<Edge<Encoded<Action>>>,
}

/// What the stores know about the actions of respondents: nothing without rules.
#[derive(Clone)]
pub struct KnownActions(Option<Timers>);

impl KnownActions {
    /// The stores that a processor reads.
    pub fn stores(&self) -> impl Iterator<Item = StoreId> {
        self.0.iter().flat_map(Timers::stores)
    }

    /// The newest actions about a respondent: those that were cancelled, those that were due, then those that are pending.
    ///
    /// # Errors
    /// [`ProcessError::Retry`] if the schema of one is not available now; others if a store cannot be read.
    pub fn about<Out: 'static>(
        &self,
        respondent: &str,
        ctx: &mut Context<'_, Out>,
    ) -> Result<Vec<RespondentAction>, ProcessError> {
        match &self.0 {
            Some(timers) => timers.about(respondent, ctx),
            None => Ok(Vec::new()),
        }
    }
}

impl Actions {
    /// Adds the stores to a topology.
    #[must_use]
    pub fn add_to(
        topology: &mut TopologyBuilder,
        settings: ActionSettings,
        parts: ActionParts,
    ) -> Self {
        let ActionSettings { rules, variables } = settings;
        if rules.is_empty() {
            return Self(None);
        }
        let mut timers = |name| {
            let values: Arc<dyn Codec<Encoded<Action>>> =
                Arc::<AnsweredCodec<Action>>::clone(&parts.codec);
            topology.window_store(name, values)
        };
        let by_stream_time = timers("actions-by-stream-time");
        let by_wall_clock = timers("actions-by-wall-clock");
        let acted = topology.window_store("acted", Arc::new(Acted::codec()));
        let cancelled = topology.window_store("cancelled-actions", Arc::new(Cancelled::codec()));
        let JoinWindow { window, grace } = parts.join_window;
        // An event that is one period late needs the actions of the period before it.
        let retention = window.max(rules.longest_per().saturating_mul(2)).saturating_add(grace);
        let timers = Timers {
            rules,
            by_stream_time,
            by_wall_clock,
            acted: ActedStore::new(acted, retention),
            cancelled: CancelledStore::new(cancelled, retention),
            codec: Arc::clone(&parts.codec),
            metrics: parts.metrics.clone(),
        };
        Self(Some(Added { timers, parts, variables, written: Vec::new() }))
    }

    /// The actions about each respondent, for replies.
    #[must_use]
    pub fn known(&self) -> KnownActions {
        KnownActions(self.0.as_ref().map(|added| added.timers.clone()))
    }

    /// The store of actions that were due, for the join.
    #[must_use]
    pub fn acted(&self) -> Option<&ActedStore> {
        self.0.as_ref().map(|added| &added.timers.acted)
    }

    /// Whether a rule is cancelled by another event.
    #[must_use]
    pub fn are_cancelled_on_events(&self) -> bool {
        self.0.as_ref().is_some_and(|added| added.timers.rules.are_cancelled_on(CancelOn::Event))
    }

    /// Adds the processor of gathered events, if a rule is cancelled by them; before they are scored.
    pub fn on_events(&mut self, topology: &mut TopologyBuilder, gathered: Edge<Gathered>) {
        if !self.are_cancelled_on_events() {
            return;
        }
        let Some(Added { timers, written, .. }) = &mut self.0 else { return };
        let cancel = CancelOnEvent { timers: timers.clone() };
        let make = move || cancel.clone();
        let stores = timers.stores();
        written.push(topology.process("cancel-on-event", &[gathered], &stores, make));
    }

    /// Adds the processor of outcomes; before the join.
    pub fn on_outcomes(&mut self, topology: &mut TopologyBuilder, outcomes: Edge<Outcome>) {
        let Some(Added { timers, parts, written, .. }) = &mut self.0 else { return };
        let cancel = CancelOnOutcome { timers: timers.clone(), join_window: parts.join_window };
        let make = move || cancel.clone();
        let stores = timers.stores();
        written.push(topology.process("cancel-on-outcome", &[outcomes], &stores, make));
    }

    /// Adds the processor of predictions; before the join stores them.
    pub fn on_predictions(
        &mut self,
        topology: &mut TopologyBuilder,
        predicted: Edge<Encoded<Prediction>>,
    ) {
        let Some(Added { timers, parts, variables, written }) = &mut self.0 else { return };
        let act = ActOnPrediction {
            timers: timers.clone(),
            variables: Arc::clone(variables),
            events: Arc::clone(&parts.events),
            serving: parts.serving.clone(),
        };
        let make = move || act.clone();
        let stores = timers.stores();
        written.push(topology.process("act-on-prediction", &[predicted], &stores, make));
    }

    /// Adds the sink.
    pub fn write_to(self, topology: &mut TopologyBuilder, topic: Topic) {
        let Some(Added { parts, written, .. }) = self.0 else { return };
        topology.sink("actions", &written, topic, parts.codec);
    }
}
