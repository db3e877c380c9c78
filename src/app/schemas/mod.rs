//! Evolution of schemas: the folder of a subject with its history, checks of the files and of the registry, the meaning
//! of a difference, what it does to the schemas that are derived from the event schema, and registration.
//!
//! ```text
//!   schemas/<subject>/subject.toml    compatibility = "FULL_TRANSITIVE", and the digest of each released version
//!                     v1.avsc …       all released versions, and at most one draft: the newest
//!
//!   evolve ─▶ next version (draft) ─▶ check (files) ─▶ check (registry) ─▶ register: released, never changed again
//! ```

mod answers;
mod event_schema;
mod evolve;
mod history;
mod meaning;
mod registry;

pub use answers::{EventFields, KindChange, check_answers, newest_kind_changes};
pub use event_schema::EventSchemaFile;
pub use evolve::{Edit, evolve, undescribed};
pub use history::{History, Version, histories, read_schema};
pub use meaning::{Difference, difference, difference_with};
pub use registry::{
    Registered, SetLevels, check_registry, register, register_with, registered_and_configured,
    schema_of,
};
