//! Acts on predictions: rules say when, at once or after a time in which something may cancel it.
//!
//! ```text
//!   prediction ─▶ act-on-prediction ─condition holds─▶ pending ──due──▶ REQUESTED, or HELD_OUT in the control share
//!                     (each rule)                      [timers]          [acted] ─▶ labelled examples (the join)
//!   another event ─▶ cancel-on-event ────────────────────┤
//!   outcome ───────▶ cancel-on-outcome ──────────────────┤
//!   later prediction ────────────────────────────────────┴──────────▶ CANCELLED
//! ```
//!
//! A pending action is its record, encoded, in a window store whose times are the due times: one store for stream time, one for
//! the time of day. A respondent has at most one pending action of each rule. An action that was held out waits and is cancelled
//! as the others are, so both groups are comparable at the time at which they are due.

mod act;
mod acted;
mod cancel;
mod metrics;
mod rule;
mod timers;
mod variables;

use std::{sync::Arc, time::Duration};

use crate::{
    events::{
        action::Action,
        answered::{AnsweredCodec, Encoded},
        outcome::Outcome,
        prediction::Prediction,
        questionnaire::{QuestionnaireEvent, QuestionnaireSchema},
    },
    processors::{
        actions::{
            act::ActOnPrediction,
            cancel::{CancelOnEvent, CancelOnOutcome},
            timers::Timers,
        },
        gather::GatherSettings,
        model_table::Serving,
        recent_events::RecentEvents,
    },
};
use foretell_streams::{
    codec::Codec,
    record::Topic,
    state::StoreId,
    topology::{Edge, TopologyBuilder},
};

pub use acted::{Acted, ActedStore};
pub use metrics::ActionMetrics;
pub use rule::{
    AFTER_MAX, ActionRule, After, AtMost, CancelOn, NAME_MAX, REASONS_MAX, RULES_MAX, RuleSettings,
    Rules, TIMES_MAX, is_control,
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
    /// The settings by which events are recognised.
    pub gather: GatherSettings,
    /// The recent events.
    pub recent: RecentEvents,
    /// The model that serves.
    pub serving: Serving,
    /// The codec of the actions.
    pub codec: Arc<AnsweredCodec<Action>>,
    /// Event time in which an outcome of a prediction is joined.
    pub joined_within: Duration,
    /// Stream time after that in which records that arrive late still count.
    pub grace: Duration,
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
    stores: [StoreId; 3],
    written: Vec<Edge<Encoded<Action>>>,
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
        let stores = [by_stream_time.id(), by_wall_clock.id(), acted.id()];
        let retention = parts.joined_within.max(rules.longest_per()) + parts.grace;
        let timers = Timers {
            rules,
            by_stream_time,
            by_wall_clock,
            acted: ActedStore::new(acted, retention),
            codec: Arc::clone(&parts.codec),
            metrics: parts.metrics.clone(),
        };
        Self(Some(Added { timers, parts, variables, stores, written: Vec::new() }))
    }

    /// The store of actions that were due, for the join.
    #[must_use]
    pub fn acted(&self) -> Option<&ActedStore> {
        self.0.as_ref().map(|added| &added.timers.acted)
    }

    /// Adds the processor of events; before the one that gathers them.
    pub fn on_events(
        &mut self,
        topology: &mut TopologyBuilder,
        events: &[Edge<QuestionnaireEvent>],
    ) {
        let Some(Added { timers, parts, stores, written, .. }) = &mut self.0 else { return };
        if !timers.rules.are_cancelled_on(CancelOn::Event) {
            return;
        }
        let (gather, recent) = (parts.gather.clone(), parts.recent.clone());
        let stores: Vec<StoreId> = stores.iter().copied().chain([recent.store_id()]).collect();
        let cancel = CancelOnEvent { timers: timers.clone(), gather, recent };
        let make = move || cancel.clone();
        written.push(topology.process("cancel-on-event", events, &stores, make));
    }

    /// Adds the processor of outcomes; before the join.
    pub fn on_outcomes(&mut self, topology: &mut TopologyBuilder, outcomes: Edge<Outcome>) {
        let Some(Added { timers, stores, written, .. }) = &mut self.0 else { return };
        let cancel = CancelOnOutcome { timers: timers.clone() };
        let make = move || cancel.clone();
        written.push(topology.process("cancel-on-outcome", &[outcomes], &*stores, make));
    }

    /// Adds the processor of predictions; before the join stores them.
    pub fn on_predictions(
        &mut self,
        topology: &mut TopologyBuilder,
        predicted: Edge<Encoded<Prediction>>,
    ) {
        let Some(Added { timers, parts, variables, stores, written }) = &mut self.0 else { return };
        let act = ActOnPrediction {
            timers: timers.clone(),
            variables: Arc::clone(variables),
            events: Arc::clone(&parts.events),
            serving: parts.serving.clone(),
        };
        let make = move || act.clone();
        written.push(topology.process("act-on-prediction", &[predicted], &*stores, make));
    }

    /// Adds the sink.
    pub fn write_to(self, topology: &mut TopologyBuilder, topic: Topic) {
        let Some(Added { parts, written, .. }) = self.0 else { return };
        topology.sink("actions", &written, topic, parts.codec);
    }
}
