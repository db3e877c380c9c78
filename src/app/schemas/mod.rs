//! The schemas of a questionnaire through the years: their folder, what it promises, what a change means, and the
//! registry that has to agree.
//!
//! ```text
//!   schemas/<subject>/subject.toml    compatibility = "FULL_TRANSITIVE", and the digests of what is released
//!                     v1.avsc …       every version ever released, and at most one draft: the newest
//!
//!   evolve ─▶ the next version, a draft ─▶ check (files) ─▶ check (registry) ─▶ register: released, for ever
//! ```

mod evolve;
mod history;
mod meaning;
mod registry;

pub use evolve::{Edit, evolve};
pub use history::{History, Version, histories, read_schema};
pub use meaning::{Difference, difference};
pub use registry::{Registered, check_registry, in_use, register, registered_and_configured};
pub use registry::{SetLevels, register_with};
