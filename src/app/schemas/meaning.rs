//! The meaning of a difference between two schemas, for readers, writers and the model.

use std::fmt;

use serde::Serialize;

use crate::app::schemas::answers::{AnswersVersion, EventFields, KindChange, kind_changes};
use foretell_avro::evolution::{Change, ChangeKind, Level, Schema, can_read, changes};

/// The difference between an old and a new schema, and what it means. A reason is `None` where nothing is wrong.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub changes: Vec<Meaning>,
    /// Why the new schema cannot read records of the old one.
    pub backward: Option<String>,
    /// Why the old schema cannot read records of the new one.
    pub forward: Option<String>,
    /// Compatibility levels under which the new schema may follow the old one.
    pub levels: Vec<&'static str>,
    /// Probable mistakes.
    pub hints: Vec<String>,
}

/// One change, and what it means.
#[derive(Debug, Serialize)]
pub struct Meaning {
    pub change: String,
    /// Why the new schema cannot read old records because of it.
    pub backward: Option<String>,
    /// Why the old schema cannot read new records because of it.
    pub forward: Option<String>,
    /// Effect on a model, if the records are events.
    pub model: Option<String>,
    /// Why predictions and labelled examples refuse it, if the records are events.
    pub answers: Option<String>,
}

/// Compares two schemas. `fields` says which fields are questions, if the records are events, which a model scores.
///
/// # Errors
/// If a schema names a type that it does not define.
pub fn difference(old: &Schema, new: &Schema, fields: &EventFields) -> anyhow::Result<Difference> {
    let kinds = fields.others().map_or_else(Vec::new, |others| {
        let version = |name: &str, schema| AnswersVersion::derived(name.to_owned(), schema, others);
        kind_changes(&[version("the old schema", old), version("the new one", new)])
    });
    difference_with(old, new, fields, &kinds)
}

/// Like [`difference`], with the questions whose kind differs from earlier versions, which may be older than `old`.
///
/// # Errors
/// If a schema names a type that it does not define.
pub fn difference_with(
    old: &Schema,
    new: &Schema,
    fields: &EventFields,
    kinds: &[KindChange],
) -> anyhow::Result<Difference> {
    let changes = changes(old, new).map_err(anyhow::Error::msg)?;
    let (backward, forward) = (can_read(old, new).err(), can_read(new, old).err());
    let may_follow = |level: &&Level| {
        !level.is_transitive()
            && (!level.is_backward() || backward.is_none())
            && (!level.is_forward() || forward.is_none())
    };
    let levels = Level::ALL.iter().filter(may_follow).map(|level| level.name()).collect();
    let hints = hints(&changes);
    let kind = |path: &str| kinds.iter().find(|kind| kind.question == path);
    let changes = changes.into_iter().map(|change| Meaning {
        model: fields.others().and_then(|_| meaning_for_model(&change)),
        answers: kind(&change.path).filter(|_| is_of_kind(&change.kind)).map(KindChange::meaning),
        change: change.to_string(),
        backward: change.backward.err(),
        forward: change.forward.err(),
    });
    let changes = changes.collect();
    Ok(Difference { changes, backward, forward, levels, hints })
}

/// Whether a change gives a question answers of another type. A question that is added may have been removed earlier.
fn is_of_kind(change: &ChangeKind) -> bool {
    matches!(change, ChangeKind::Retyped { .. } | ChangeKind::Added(_))
}

fn meaning_for_model(change: &Change) -> Option<String> {
    // Only top-level fields are questions.
    if change.path.contains('.') || change.path.is_empty() {
        return None;
    }
    let meaning = match &change.kind {
        ChangeKind::Added(_) => {
            "a new question: the serving model ignores it, the next training learns from it"
        }
        ChangeKind::Removed(_) => {
            "removed: once events are read with the new schema, `features.contract` decides about a model that was trained with it"
        }
        ChangeKind::Renamed { .. } => {
            "the same question: models that were trained with the old name still use it"
        }
        ChangeKind::Retyped { from, to } if is_number(from) == is_number(to) => {
            "the same kind of answer"
        }
        ChangeKind::Retyped { from, .. } if is_number(from) => {
            "a number became a category: `features.contract` decides about a model that was trained with the number"
        }
        ChangeKind::Retyped { .. } => {
            "a category became a number: `features.contract` decides about a model that was trained with the category"
        }
        ChangeKind::SymbolsAdded(_) => "scored as unseen categories until the next training",
        ChangeKind::SymbolsRemoved(_)
        | ChangeKind::Moved
        | ChangeKind::TypeRenamed { .. }
        | ChangeKind::Default { .. }
        | ChangeKind::AliasLost(_)
        | ChangeKind::Documented => return None,
    };
    Some(meaning.to_owned())
}

/// Whether a model reads values of a type, as [`Change`] displays it, as numbers.
fn is_number(kind: &str) -> bool {
    let mut branches = kind.split(" or ").filter(|branch| *branch != "null");
    branches.all(|branch| matches!(branch, "int" | "long" | "float" | "double"))
}

/// A removed field and an added one of the same type may be one field that was renamed without an alias.
fn hints(changes: &[Change]) -> Vec<String> {
    let mut hints = Vec::new();
    for removed in changes {
        let ChangeKind::Removed(old) = &removed.kind else { continue };
        for added in changes {
            if matches!(&added.kind, ChangeKind::Added(new) if new == old) {
                hints.push(format!(
                    "if {} is {} renamed, give it \"aliases\": [\"{}\"]",
                    added.path, removed.path, removed.path
                ));
            }
        }
    }
    hints
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Meaning { change, backward, forward, model, answers } in &self.changes {
            writeln!(f, "{change}")?;
            if let Some(reason) = backward {
                writeln!(f, "    new readers cannot read old records: {reason}")?;
            }
            if let Some(reason) = forward {
                writeln!(f, "    old readers cannot read new records: {reason}")?;
            }
            if let Some(meaning) = model {
                writeln!(f, "    model: {meaning}")?;
            }
            if let Some(refusal) = answers {
                writeln!(f, "    predictions and labelled-examples refuse it: {refusal}")?;
            }
        }
        for hint in &self.hints {
            writeln!(f, "hint: {hint}")?;
        }
        let order = match (&self.backward, &self.forward) {
            _ if self.changes.is_empty() => "the schemas are the same",
            (None, None) => "readers and writers may be upgraded in any order",
            (None, Some(_)) => "upgrade the readers first, then the writers",
            (Some(_), None) => {
                "upgrade the writers first, and the readers once all old records are read"
            }
            (Some(_), Some(_)) => "incompatible in both directions: use a new topic",
        };
        write!(f, "{order} (allowed under {})", self.levels.join(", "))
    }
}
