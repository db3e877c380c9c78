//! The learning topology: from labelled examples and commands to models, decisions and trials.
//!
//! ```text
//!   labelled-examples ─▶ learner ─┬─ LearningState: which job is due, what follows from its result
//!   commands ──────────▶ obey ────┘       │ job             ▲ result
//!                                         ▼                 │
//!                                   Trainer (thread): Work = training log + models + foretell-ml
//! ```

pub mod commands;
pub mod job;
pub mod learner;
pub mod outputs;
pub mod rules;
pub mod schedule;
pub mod state;
pub mod state_formats;
pub mod trainer;
pub mod training_log;
pub mod work;
