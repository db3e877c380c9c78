//! Builds the two topologies. `tests/flow/drawings.rs` has snapshots of them.

use std::sync::Arc;

use crate::{
    events::{
        answered::Encoded,
        codecs::Codecs,
        labelled_example::LabelledExample,
        outcome::Outcome,
        prediction::Prediction,
        questionnaire::{EventSchemas, QuestionnaireEvent},
        reply::{Reply, ReplyCodec},
        topics::{TOPICS, Topics},
    },
    processors::{
        actions::{ActionParts, ActionSettings, Actions, KnownActions},
        contract::{ContractBoard, ContractSettings, ContractWatch},
        event_time::TimeBounds,
        gather::{Gather, GatherSettings, GatherSource, Gathered, StoredSession},
        learning::{
            learner::{Learner, Obey},
            outputs::{Learned, Select},
            rules::Rules,
            schedule::Schedule,
            state::LearningState,
            trainer::Trainer,
        },
        metrics::ApplicationMetrics,
        model_table::Serving,
        outcome_join::{Join, JoinSettings, OutcomeStore, StorePrediction},
        placement::Placement,
        quality::{self, QualityBoard, QualityParts, QualitySettings, Summarize},
        recent_events::{RecentEntry, RecentEvents},
        replies::{ReplyToEvent, ReplyToPrediction},
        respondent::{self, OpenSessions},
        scoring::{PreparedModels, Score},
        uplift::{self, UpliftBoard, UpliftSettings},
    },
};
use foretell_streams::{
    record::{InputRecord, Topic},
    state::StoreId,
    topology::{Edge, Topology, TopologyBuilder},
};

/// The parts of the scoring topology.
pub struct ScoringParts {
    /// The prefix of the changelog names.
    pub application: String,
    /// The names of the topics.
    pub topics: Topics,
    /// The codecs of the topics.
    pub codecs: Codecs,
    /// The settings of the gathering of observations.
    pub gather: GatherSettings,
    /// The event schemas, in the order of their topics.
    pub events: EventSchemas,
    /// The settings of the outcome join.
    pub join: JoinSettings,
    /// The rules of actions.
    pub actions: ActionSettings,
    /// The bounds of event times.
    pub times: TimeBounds,
    /// Event time within which repeated events are recognised; zero: never.
    pub duplicates_within: std::time::Duration,
    /// The number of partitions of the inputs.
    pub partitions: u32,
    /// The model that serves.
    pub serving: Serving,
    /// The feature contract.
    pub contract: ContractSettings,
    /// The violations of the contract on this instance.
    pub board: ContractBoard,
    /// The length of a window of live quality, in event time.
    pub quality_window: std::time::Duration,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
}

/// Builds the scoring topology: from events and outcomes to predictions and labelled examples.
#[must_use]
pub fn scoring(parts: ScoringParts) -> Topology {
    let ScoringParts { topics, codecs, metrics, serving, gather, board, .. } = parts;
    let mut topology = TopologyBuilder::new(&parts.application, topics.dead_letters.clone());
    let times = parts.times;
    topology.clock_tolerance(times.clock_tolerance);
    let placement = |topic: &Topic| {
        Placement::new(topic.clone(), parts.partitions, metrics.misplaced(topic.as_str()))
    };
    let gathered_from = gather_sources(&parts.events, &topics, placement);
    let of_outcomes = placement(&topics.outcomes);
    let (events, outcomes) = sources(&mut topology, &topics, &parts.events, &codecs, times);
    let sessions = topology.window_store("observations", Arc::new(StoredSession::codec()));
    let mut outcome_store =
        OutcomeStore::add_to(&mut topology, parts.join, &codecs.prediction, &metrics);
    let store = topology.key_value_store("recent-events", Arc::new(RecentEntry::codec()));
    let recent = RecentEvents::new(parts.duplicates_within, store);
    let mut actions = Actions::add_to(
        &mut topology,
        parts.actions,
        ActionParts {
            events: Arc::clone(parts.events.lead()),
            serving: serving.clone(),
            codec: codecs.action,
            join_window: outcome_store.settings.join_window(),
            metrics: metrics.actions.clone(),
        },
    );
    outcome_store.acted = actions.acted().cloned();
    // Each before the processor whose effect it must not see, or whose examples have its actions.
    actions.on_outcomes(&mut topology, outcomes);

    let open = OpenSessions { store: sessions.clone(), rules: gather.sessions };
    let kept = (open, outcome_store.clone());
    let (gathered, contract) = (gather.clone(), Arc::new(parts.contract));
    let summarize = Summarize::new(serving.clone(), gather.clone(), parts.quality_window);
    let stores = [recent.store_id(), sessions.id()];
    let (counts, announces) = (metrics.clone(), actions.are_cancelled_on_events());
    let observed = topology.process("gather", &events, &stores, move || {
        let (settings, sources) = (gather.clone(), Arc::clone(&gathered_from));
        Gather::new(settings, recent.clone(), sessions.clone(), &counts, sources, announces)
    });
    actions.on_events(&mut topology, observed);
    let predicted = topology.process("score", &[observed], &[], move || Score {
        serving: serving.clone(),
        gather: gathered.clone(),
        contract: ContractWatch::new(Arc::clone(&contract), board.clone()),
        metrics: metrics.clone(),
        prepared: PreparedModels::default(),
    });
    topology.sink("predictions", &[predicted], topics.predictions, codecs.prediction);
    quality::add_summaries_to(&mut topology, predicted, summarize, topics.window_summaries);
    actions.on_predictions(&mut topology, predicted);
    let known = actions.known();
    actions.write_to(&mut topology, topics.actions);
    let [to_events, to_predictions] =
        reply(&mut topology, observed, predicted, outcome_store.clone(), known.clone());
    let answered = respondent::add_to(&mut topology, topics.queries, kept.0, kept.1, known);
    let replies = Arc::new(ReplyCodec(Arc::clone(&outcome_store.codec.predictions)));
    topology.sink("replies", &[to_events, to_predictions, answered], topics.replies, replies);
    let labelled = join(&mut topology, predicted, outcomes, outcome_store, of_outcomes);
    let examples = codecs.labelled_example;
    topology.sink("labelled-examples", &labelled, topics.labelled_examples, examples);
    topology.build()
}

/// The topics with events, as `gather` needs them.
fn gather_sources(
    schemas: &EventSchemas,
    topics: &Topics,
    placement: impl Fn(&Topic) -> Placement,
) -> Arc<[GatherSource]> {
    let sources = schemas.iter().zip(topics.of_events()).map(|(schema, topic)| GatherSource {
        source: schema.source().clone(),
        asked: schema.asked().to_vec(),
        placement: placement(topic),
    });
    sources.collect()
}

/// Adds the sources of events, of which the lead is the first of the topology, and that of outcomes.
fn sources(
    topology: &mut TopologyBuilder,
    topics: &Topics,
    schemas: &EventSchemas,
    codecs: &Codecs,
    times: TimeBounds,
) -> (Vec<Edge<QuestionnaireEvent>>, Edge<Outcome>) {
    let names = [TOPICS.questionnaire_events.name].into_iter().chain(schemas.companions());
    let events = names.zip(topics.of_events()).zip(codecs.of_events());
    let events = events.map(|((name, topic), codec)| {
        let time = move |event: &QuestionnaireEvent, _: &InputRecord, now| {
            times.check(event.event_time, now)
        };
        topology.source_timed(name, topic.clone(), Arc::clone(codec), time)
    });
    let events = events.collect();
    let outcomes = topology.source_timed(
        "outcomes",
        topics.outcomes.clone(),
        Arc::clone(&codecs.outcome),
        move |outcome, _, now| times.check(outcome.outcome_time, now),
    );
    (events, outcomes)
}

/// Adds the processors of replies, which find the prediction of a repeated event in `store`.
fn reply(
    topology: &mut TopologyBuilder,
    observed: Edge<Gathered>,
    predicted: Edge<Encoded<Prediction>>,
    store: OutcomeStore,
    actions: KnownActions,
) -> [Edge<Reply>; 2] {
    let of_predictions = actions.clone();
    let stores: Vec<StoreId> = actions.stores().collect();
    let to_predictions =
        topology.process("reply-to-prediction", &[predicted], &stores, move || {
            ReplyToPrediction(of_predictions.clone())
        });
    let stores: Vec<StoreId> = stores.into_iter().chain([store.pending.id()]).collect();
    let to_events = topology.process("reply-to-event", &[observed], &stores, move || {
        ReplyToEvent { outcomes: store.clone(), actions: actions.clone() }
    });
    [to_events, to_predictions]
}

/// Adds the processors of the outcome join.
fn join(
    topology: &mut TopologyBuilder,
    predicted: Edge<Encoded<Prediction>>,
    outcomes: Edge<Outcome>,
    store: OutcomeStore,
    placement: Placement,
) -> [Edge<Encoded<LabelledExample>>; 2] {
    let stores: Vec<StoreId> = store.ids().collect();
    let of_predictions = store.clone();
    let stored = topology.process("store-prediction", &[predicted], &stores, move || {
        StorePrediction::new(of_predictions.clone())
    });
    let joined = topology
        .process("join", &[outcomes], &stores, move || Join::new(store.clone(), placement.clone()));
    [stored, joined]
}

/// The parts of the learning topology.
pub struct LearningParts {
    /// The prefix of the changelog names.
    pub application: String,
    /// The names of the topics.
    pub topics: Topics,
    /// The codecs of the topics.
    pub codecs: Codecs,
    /// The rules by which jobs become due and models are promoted.
    pub rules: Rules,
    /// The schedule of trainings.
    pub schedule: Option<Schedule>,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The model that serves.
    pub serving: Serving,
    /// The training thread.
    pub trainer: Trainer,
    /// The settings of drift and live quality.
    pub quality: QualitySettings,
    /// Where the learning task publishes quality.
    pub quality_board: QualityBoard,
    /// The rules whose uplift is counted.
    pub uplift: UpliftSettings,
    /// Where the learning task publishes uplift.
    pub uplift_board: UpliftBoard,
}

/// Builds the learning topology: from labelled examples and commands to models, decisions and trials.
#[must_use]
pub fn learning(parts: LearningParts) -> Topology {
    let quality = QualityParts {
        settings: parts.quality,
        board: parts.quality_board,
        serving: parts.serving.clone(),
        metrics: parts.metrics.clone(),
        topics: parts.topics.clone(),
        codecs: parts.codecs.clone(),
    };
    let LearningParts { topics, codecs, rules, schedule, metrics, serving, trainer, .. } = parts;
    let action_metrics = metrics.actions.clone();
    let mut topology = TopologyBuilder::new(&parts.application, topics.dead_letters);
    let labelled =
        topology.source("labelled-examples", topics.labelled_examples, codecs.labelled_example);
    let commands = topology.source("commands", topics.commands, codecs.command);
    let state = topology.key_value_store("learning", Arc::new(LearningState::codec()));
    let stores = [state.id()];
    let (store, counts, model) = (state.clone(), metrics.clone(), serving.clone());
    let learner = topology.process("learner", &[labelled], &stores, move || Learner {
        rules: rules.clone(),
        schedule: schedule.clone(),
        metrics: counts.clone(),
        running_since: None,
        serving: serving.clone(),
        trainer: trainer.clone(),
        state: store.clone(),
    });
    let obey = topology.process("obey", &[commands], &stores, move || Obey {
        serving: model.clone(),
        metrics: metrics.clone(),
        state: state.clone(),
    });
    let learned = [learner, obey];
    let models =
        topology.process("select-models", &learned, &[], || Select { select: Learned::model });
    topology.sink("models", &[models], topics.models, codecs.model);
    let decisions = topology
        .process("select-decisions", &learned, &[], || Select { select: Learned::decision });
    topology.sink("decisions", &[decisions], topics.decisions, codecs.decision);
    let trials =
        topology.process("select-trials", &learned, &[], || Select { select: Learned::trial });
    topology.sink("trials", &[trials], topics.trials, codecs.trial);
    quality::add_to(&mut topology, labelled, quality);
    uplift::add_to(&mut topology, labelled, parts.uplift, parts.uplift_board, action_metrics);
    topology.build()
}
