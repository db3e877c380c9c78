//! The application: an event in, a question to `ml`, an event out.
//!
//! ```text
//!   questionnaire-events ─▶ gather ─▶ score ─▶ remember ─┐
//!                          (observations)  │     (outcomes)  ├─▶ labelled-examples ─▶ trigger ─▶ models
//!   outcomes ──────────────────────────────┼─▶ join ─────┘      (training)   ▲ │
//!                                          ▼                                 │ ▼
//!                                     predictions                          Trainer, a thread of its own
//! ```
//! Two topologies, each a group of its own: [`topology::scoring`] in P tasks, [`topology::learning`] in one.

pub mod contract;
pub mod convert;
pub mod event_time;
pub mod gateway;
pub mod gather;
pub mod initial_data;
pub mod metrics;
pub mod model_table;
pub mod outcome_join;
pub mod overview;
pub mod placement;
pub mod recent_events;
pub mod replies;
pub mod retrain_trigger;
pub mod scoring;
#[cfg(test)]
pub(crate) mod small_model;
pub mod topology;
pub mod trainer;
pub mod training_log;
