//! The stream processors: the scoring topology, the learning topology, and the threads beside them.
//!
//! ```text
//!   questionnaire-events ─▶ gather ─▶ score ─▶ store-prediction ─┐
//!                       (observations)  │      (outcomes)        ├─▶ labelled-examples ─▶ learner ─▶ models, decisions
//!   outcomes ───────────────────────────┼─▶ join ────────────────┘                      (learning)
//!                                       ▼                                                  ▲ │
//!                                  predictions                                             │ ▼
//!                                                                                   Trainer (thread)
//! ```
//! `quality` counts beside both: predictions after `score`, and labels beside `trigger`.
//!
//! Each topology has a consumer group: [`topology::scoring`] with P tasks, [`topology::learning`] with one.

pub mod actions;
pub mod contract;
pub mod convert;
pub mod dead_letters;
pub mod event_time;
pub mod gateway;
pub mod gather;
pub mod initial_data;
pub mod instances;
pub mod join_window;
pub mod learning;
pub mod library;
pub mod metrics;
pub mod model_archive;
pub mod model_table;
pub mod outcome_join;

pub mod overview;
pub mod placement;
pub mod quality;
pub mod reasons;
pub mod recent_events;
pub mod replies;

pub mod respondent;
pub mod row_scorer;
pub mod scoring;
#[cfg(test)]
pub(crate) mod small_model;
pub mod topic_reader;
pub mod topology;
pub mod tracking_status;
pub mod trial_log;
pub mod uplift;
pub mod waiting;
