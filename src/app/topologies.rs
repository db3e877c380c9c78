//! Makes the two topologies from the configuration, for an instance and for a replay.

use crate::{
    config::Config,
    events::{codecs::Codecs, topics::Group},
    processors::{
        contract::ContractBoard,
        learning::trainer::Trainer,
        metrics::ApplicationMetrics,
        model_table::Serving,
        quality::QualityBoard,
        topology::{self, LearningParts, ScoringParts},
        uplift::{UpliftBoard, UpliftSettings},
    },
};
use foretell_streams::topology::Topology;

/// What both topologies are made of.
pub(super) struct TopologyParts<'a> {
    pub(super) config: &'a Config,
    pub(super) codecs: &'a Codecs,
    pub(super) serving: &'a Serving,
    pub(super) metrics: &'a ApplicationMetrics,
}

impl TopologyParts<'_> {
    pub(super) fn scoring(&self, board: ContractBoard) -> Topology {
        let config = self.config;
        topology::scoring(ScoringParts {
            application: Group::Scoring.name(&config.application()),
            topics: config.topics.clone(),
            codecs: self.codecs.clone(),
            gather: config.gather.clone(),
            events: config.event_schemas.clone(),
            join: config.join.clone(),
            actions: config.actions.clone(),
            partitions: config.partitions,
            times: config.time_bounds(),
            duplicates_within: config.events.duplicates_within,
            serving: self.serving.clone(),
            contract: config.contract.clone(),
            board,
            quality_window: config.quality.window,
            metrics: self.metrics.clone(),
        })
    }

    pub(super) fn learning(
        &self,
        trainer: &Trainer,
        quality_board: QualityBoard,
        uplift_board: UpliftBoard,
    ) -> Topology {
        let config = self.config;
        topology::learning(LearningParts {
            application: Group::Learning.name(&config.application()),
            topics: config.topics.clone(),
            codecs: self.codecs.clone(),
            rules: config.learning.rules.clone(),
            schedule: config.learning.schedule.clone(),
            metrics: self.metrics.clone(),
            serving: self.serving.clone(),
            trainer: trainer.clone(),
            quality: config.quality.clone(),
            quality_board,
            uplift: UpliftSettings {
                rules: config.actions.rules.versions(),
                classes: config.classes.clone(),
            },
            uplift_board,
        })
    }
}
