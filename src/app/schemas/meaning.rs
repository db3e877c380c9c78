//! What the difference of two schemas means: for who reads, for who writes, and for the model.

use std::fmt;

use serde::Serialize;

use foretell_avro::evolution::{Change, ChangeKind, Level, Schema, can_read, changes};

/// The difference of two schemas, and what it means.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// Each change.
    pub changes: Vec<Meaning>,
    /// Why the new schema can't read what was written with the old one, if so.
    pub backward: Option<String>,
    /// Why the old schema can't read what is written with the new one, if so.
    pub forward: Option<String>,
    /// The levels under which the new one may follow the old one.
    pub levels: Vec<&'static str>,
    /// What may have been meant otherwise.
    pub hints: Vec<String>,
}

/// One change, in words.
#[derive(Debug, Serialize)]
pub struct Meaning {
    /// What was changed.
    pub change: String,
    /// Why the new schema can't read old records because of it.
    pub backward: Option<String>,
    /// Why the old schema can't read new records because of it.
    pub forward: Option<String>,
    /// What a model of such events makes of it.
    pub model: Option<String>,
}

/// What is different in `new`, and what that means. Whether the records are events that a model reads, `is_event` says.
///
/// # Errors
/// If one of them names a type that it does not define.
pub fn difference(old: &Schema, new: &Schema, is_event: bool) -> anyhow::Result<Difference> {
    let found = changes(old, new).map_err(anyhow::Error::msg)?;
    let (backward, forward) = (can_read(old, new).err(), can_read(new, old).err());
    let may_follow = |level: &&Level| {
        !level.is_transitive()
            && (!level.is_backward() || backward.is_none())
            && (!level.is_forward() || forward.is_none())
    };
    let levels = Level::ALL.iter().filter(may_follow).map(|level| level.name()).collect();
    let hints = hints(&found);
    let changes = found.into_iter().map(|change| Meaning {
        model: if is_event { for_the_model(&change) } else { None },
        change: change.to_string(),
        backward: change.backward.err(),
        forward: change.forward.err(),
    });
    let changes = changes.collect();
    Ok(Difference { changes, backward, forward, levels, hints })
}

fn for_the_model(change: &Change) -> Option<String> {
    // What is inside a field is no answer.
    if change.path.contains('.') || change.path.is_empty() {
        return None;
    }
    let meaning = match &change.kind {
        ChangeKind::Added(_) => {
            "a new question: the model that serves ignores it, the next training learns from it"
        }
        ChangeKind::Removed(_) => {
            "gone: once events are read with the new schema, `features.contract` says what becomes of a model that was fitted on it"
        }
        ChangeKind::Renamed { .. } => {
            "the same question: what was learned under the old name goes on"
        }
        ChangeKind::Retyped { from, to } if is_number(from) == is_number(to) => {
            "the same kind of answer"
        }
        ChangeKind::Retyped { from, .. } if is_number(from) => {
            "a number became a category: `features.contract` says what becomes of a model that was fitted on the number"
        }
        ChangeKind::Retyped { .. } => {
            "a category became a number: `features.contract` says what becomes of a model that was fitted on the category"
        }
        ChangeKind::SymbolsAdded(_) => "scored as categories never seen, until the next training",
        ChangeKind::SymbolsRemoved(_)
        | ChangeKind::Moved
        | ChangeKind::TypeRenamed { .. }
        | ChangeKind::Default { .. }
        | ChangeKind::AliasLost(_)
        | ChangeKind::Documented => return None,
    };
    Some(meaning.to_owned())
}

/// Whether a type, in words, is a number, as far as a model cares.
fn is_number(words: &str) -> bool {
    let mut branches = words.split(" or ").filter(|branch| *branch != "null");
    branches.all(|branch| matches!(branch, "int" | "long" | "float" | "double"))
}

/// One field that went and one of the same type that came may be one that was renamed.
fn hints(changes: &[Change]) -> Vec<String> {
    let mut hints = Vec::new();
    for gone in changes {
        let ChangeKind::Removed(old) = &gone.kind else { continue };
        for come in changes {
            if matches!(&come.kind, ChangeKind::Added(new) if new == old) {
                hints.push(format!(
                    "if {} is {} renamed, give it \"aliases\": [\"{}\"]",
                    come.path, gone.path, gone.path
                ));
            }
        }
    }
    hints
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Meaning { change, backward, forward, model } in &self.changes {
            writeln!(f, "{change}")?;
            if let Some(reason) = backward {
                writeln!(f, "    new readers can't read old records: {reason}")?;
            }
            if let Some(reason) = forward {
                writeln!(f, "    old readers can't read new records: {reason}")?;
            }
            if let Some(meaning) = model {
                writeln!(f, "    model: {meaning}")?;
            }
        }
        for hint in &self.hints {
            writeln!(f, "hint: {hint}")?;
        }
        let order = match (&self.backward, &self.forward) {
            _ if self.changes.is_empty() => "nothing is different",
            (None, None) => "readers and writers may be upgraded in any order",
            (None, Some(_)) => "upgrade the readers first, then the writers",
            (Some(_), None) => {
                "upgrade the writers first, and the readers when all old records are read"
            }
            (Some(_), Some(_)) => "neither reads the other: this takes another topic",
        };
        write!(f, "{order} (allowed under {})", self.levels.join(", "))
    }
}
