//! Wires the two topologies. Their drawings are snapshots in `tests/flow`.

use std::sync::Arc;

use crate::{
    events::{codecs::Codecs, reply::Reply, topics::Topics},
    processors::{
        contract::{ContractBoard, ContractSettings, ContractWatch},
        event_time::TimeBounds,
        gather::{Gather, GatherSettings, Partial},
        metrics::ApplicationMetrics,
        model_table::Serving,
        outcome_join::{Join, JoinSettings, OutcomeStore, Pending, StorePrediction},
        placement::Placement,
        recent_events::{RecentEntry, RecentEvents},
        replies::{ReplyToEvent, ReplyToPrediction},
        retrain_trigger::{LearningState, RetrainTrigger},
        scoring::Score,
        trainer::Trainer,
    },
};
use foretell_streams::{
    codec::Stored,
    record::Topic,
    topology::{Topology, TopologyBuilder},
};

/// How scoring is done.
pub struct ScoringParts {
    /// Prefixes the changelogs.
    pub application: String,
    /// What the topics are called.
    pub topics: Topics,
    /// How they are written.
    pub codecs: Codecs,
    /// When an observation is scored.
    pub gather: GatherSettings,
    /// How outcomes are joined.
    pub join: JoinSettings,
    /// How far an event time may lie from the clock.
    pub times: TimeBounds,
    /// How long, in event time, an event that comes again is known for a repeat; zero: never.
    pub duplicates_within: std::time::Duration,
    /// How many partitions the inputs have.
    pub partitions: u32,
    /// The model that serves.
    pub serving: Serving,
    /// What it is held to.
    pub contract: ContractSettings,
    /// Where breaches of that are told.
    pub board: ContractBoard,
    /// Where it counts.
    pub metrics: ApplicationMetrics,
}

/// Events and outcomes in; predictions and labelled examples out.
#[must_use]
pub fn scoring(parts: ScoringParts) -> Topology {
    let ScoringParts { topics, codecs, metrics, serving, gather, board, .. } = parts;
    let mut topology = TopologyBuilder::new(&parts.application, topics.dead_letters);
    let times = parts.times;
    topology.clock_tolerance(times.clock_tolerance);
    let placement = |topic: &Topic| {
        Placement::new(topic.clone(), parts.partitions, metrics.misplaced(topic.as_str()))
    };
    let of_events = placement(&topics.questionnaire_events);
    let of_outcomes = placement(&topics.outcomes);
    let events = topology.source_timed(
        "questionnaire-events",
        topics.questionnaire_events,
        codecs.questionnaire,
        move |event, _, now| times.check(event.event_time, now),
    );
    let outcomes = topology.source_timed(
        "outcomes",
        topics.outcomes,
        codecs.outcome,
        move |outcome, _, now| times.check(outcome.outcome_time, now),
    );
    let observations = topology.window_store("observations", Arc::new(Partial::codec()));
    let pending = topology.window_store("outcomes", Arc::new(Pending::codec()));
    let recent = RecentEvents {
        retention: parts.duplicates_within,
        store: topology
            .key_value_store("recent-events", Arc::new(Stored::version(RecentEntry::FORMAT))),
    };
    let outcome_store =
        OutcomeStore { settings: parts.join, pending: pending.clone(), metrics: metrics.clone() };

    let (questions, contract) = (Arc::clone(&gather.questions), Arc::new(parts.contract));
    let stores = [recent.store.id(), observations.id()];
    let counts = metrics.clone();
    let observed = topology.process("gather", &[events], &stores, move || Gather {
        settings: gather.clone(),
        recent: recent.clone(),
        observations: observations.clone(),
        metrics: counts.clone(),
        placement: of_events.clone(),
    });
    let predicted = topology.process("score", &[observed], &[], move || Score {
        serving: serving.clone(),
        questions: Arc::clone(&questions),
        contract: ContractWatch::new(Arc::clone(&contract), board.clone()),
        metrics: metrics.clone(),
        prepared: None,
    });
    topology.sink("predictions", &[predicted], topics.predictions, codecs.prediction);
    let store = outcome_store.clone();
    let stores = [pending.id()];
    let to_events = topology
        .process("reply-to-event", &[observed], &stores, move || ReplyToEvent(store.clone()));
    let to_predictions =
        topology.process("reply-to-prediction", &[predicted], &[], || ReplyToPrediction);
    let replies = [to_events, to_predictions];
    topology.sink("replies", &replies, topics.replies, Arc::new(Reply::codec()));
    let store = outcome_store.clone();
    let remembered =
        topology.process("remember", &[predicted], &stores, move || StorePrediction(store.clone()));
    let joined = topology.process("join", &[outcomes], &stores, move || {
        Join(outcome_store.clone(), of_outcomes.clone())
    });
    let labelled = [remembered, joined];
    topology.sink(
        "labelled-examples",
        &labelled,
        topics.labelled_examples,
        codecs.labelled_example,
    );
    topology.build()
}

/// How learning is done.
pub struct LearningParts {
    /// Prefixes the changelogs.
    pub application: String,
    /// What the topics are called.
    pub topics: Topics,
    /// How they are written.
    pub codecs: Codecs,
    /// Labelled examples between two trainings.
    pub retrain_after: u64,
    /// Where it counts.
    pub metrics: ApplicationMetrics,
    /// The model that serves.
    pub serving: Serving,
    /// The training thread.
    pub trainer: Trainer,
}

/// Labelled examples in; models out.
#[must_use]
pub fn learning(parts: LearningParts) -> Topology {
    let LearningParts { topics, codecs, retrain_after, metrics, serving, trainer, .. } = parts;
    let mut topology = TopologyBuilder::new(&parts.application, topics.dead_letters);
    let labelled =
        topology.source("labelled-examples", topics.labelled_examples, codecs.labelled_example);
    let state =
        topology.key_value_store("learning", Arc::new(Stored::version(LearningState::FORMAT)));
    let stores = [state.id()];
    let trained = topology.process("trigger", &[labelled], &stores, move || RetrainTrigger {
        retrain_after,
        metrics: metrics.clone(),
        requested_at: None,
        serving: serving.clone(),
        trainer: trainer.clone(),
        state: state.clone(),
    });
    topology.sink("models", &[trained], topics.models, codecs.model);
    topology.build()
}
