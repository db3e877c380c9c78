//! The difference of two schemas as a list of changes, with their effect on compatibility.

use std::fmt;

use apache_avro::schema::{
    Alias, Aliases, EnumSchema, Name, NamesRef, RecordField, RecordSchema, ResolvedSchema, Schema,
};

use crate::{display::in_words, evolution::can_read, layout::definition, resolution::same_name};

/// One change between two schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Names of the fields from the outermost record on, separated by points; empty for the schema itself.
    pub path: String,
    /// Kind of the change.
    pub kind: ChangeKind,
    /// Whether the new schema can still read old records; the error is the reason why it cannot.
    pub backward: Result<(), String>,
    /// Whether the old schema can read new records; the error is the reason why it cannot.
    pub forward: Result<(), String>,
}

/// Kinds of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A field was added, with this type.
    Added(String),
    /// A field was removed, which had this type.
    Removed(String),
    /// A field was renamed; the old name is one of its aliases.
    Renamed {
        /// Old name.
        from: String,
    },
    /// A record, an enum or a fixed was renamed.
    TypeRenamed {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// The type was changed.
    Retyped {
        /// Description of the old type.
        from: String,
        /// Description of the new type.
        to: String,
    },
    /// Symbols were added to an enum.
    SymbolsAdded(Vec<String>),
    /// Symbols were removed from an enum.
    SymbolsRemoved(Vec<String>),
    /// The field has another position in its record.
    Moved,
    /// The default was changed, added or removed.
    Default {
        /// Old default as JSON, if there was one.
        from: Option<String>,
        /// New default as JSON, if there is one.
        to: Option<String>,
    },
    /// An alias was removed, under which older records have the field.
    AliasLost(String),
    /// The documentation was changed.
    Documented,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the schema" } else { &self.path };
        let json = |default: &Option<String>| {
            default
                .clone()
                .map_or_else(|| "no default".to_owned(), |text| format!("default {text}"))
        };
        match &self.kind {
            ChangeKind::Added(kind) => write!(f, "{path}: added, {kind}"),
            ChangeKind::Removed(kind) => write!(f, "{path}: removed, it was {kind}"),
            ChangeKind::Renamed { from } => write!(f, "{path}: renamed, it was {from}"),
            ChangeKind::TypeRenamed { from, to } => {
                write!(f, "{path}: type {from} is now called {to}")
            }
            ChangeKind::Retyped { from, to } => write!(f, "{path}: {from} became {to}"),
            ChangeKind::SymbolsAdded(symbols) => {
                write!(f, "{path}: symbols added: {}", symbols.join(", "))
            }
            ChangeKind::SymbolsRemoved(symbols) => {
                write!(f, "{path}: symbols removed: {}", symbols.join(", "))
            }
            ChangeKind::Moved => write!(f, "{path}: moved to another position"),
            ChangeKind::Default { from, to } => {
                write!(f, "{path}: {} became {}", json(from), json(to))
            }
            ChangeKind::AliasLost(alias) => write!(f, "{path}: alias {alias} removed"),
            ChangeKind::Documented => write!(f, "{path}: documentation changed"),
        }
    }
}

/// The changes from `old` to `new`, in the order of the new fields; removed fields come last.
///
/// # Errors
/// A message, if one of the schemas refers to an undefined type.
pub fn changes(old: &Schema, new: &Schema) -> Result<Vec<Change>, String> {
    let old_names = ResolvedSchema::new(old).map_err(|error| error.to_string())?;
    let new_names = ResolvedSchema::new(new).map_err(|error| error.to_string())?;
    let mut comparison = Comparison {
        old_names: old_names.get_names(),
        new_names: new_names.get_names(),
        compared: Vec::new(),
        found: Vec::new(),
    };
    comparison.compare("", old, new)?;
    Ok(comparison.found)
}

struct Comparison<'s> {
    old_names: &'s NamesRef<'s>,
    new_names: &'s NamesRef<'s>,
    /// Pairs of records that are compared already, for recursive types.
    compared: Vec<(String, String)>,
    found: Vec<Change>,
}

impl Comparison<'_> {
    fn push(&mut self, path: &str, kind: ChangeKind) {
        self.push_with(path, kind, Ok(()), Ok(()));
    }

    fn push_with(
        &mut self,
        path: &str,
        kind: ChangeKind,
        backward: Result<(), String>,
        forward: Result<(), String>,
    ) {
        self.found.push(Change { path: path.to_owned(), kind, backward, forward });
    }

    fn compare(&mut self, path: &str, old: &Schema, new: &Schema) -> Result<(), String> {
        match (old, new) {
            (Schema::Ref { name }, _) => {
                self.compare(path, definition(name, self.old_names)?, new)?;
            }
            (_, Schema::Ref { name }) => {
                self.compare(path, old, definition(name, self.new_names)?)?;
            }
            (Schema::Record(old), Schema::Record(new)) => self.records(path, old, new)?,
            (Schema::Enum(old), Schema::Enum(new)) => self.symbols(path, old, new),
            (Schema::Array(old), Schema::Array(new)) => {
                self.compare(path, &old.items, &new.items)?
            }
            (Schema::Map(old), Schema::Map(new)) => self.compare(path, &old.types, &new.types)?,
            (Schema::Union(old_union), Schema::Union(new_union)) => {
                let (old_branches, new_branches) = (old_union.variants(), new_union.variants());
                let is_alike = |(old, new): (&Schema, &Schema)| in_words(old) == in_words(new);
                if old_branches.len() == new_branches.len()
                    && old_branches.iter().zip(new_branches).all(is_alike)
                {
                    for (old, new) in old_branches.iter().zip(new_branches) {
                        self.compare(path, old, new)?;
                    }
                } else {
                    self.retyped(path, old, new);
                }
            }
            (_, _) if in_words(old) == in_words(new) => (),
            (_, _) => self.retyped(path, old, new),
        }
        Ok(())
    }

    fn retyped(&mut self, path: &str, old: &Schema, new: &Schema) {
        let kind = ChangeKind::Retyped { from: in_words(old), to: in_words(new) };
        // A part that refers to a type defined elsewhere cannot be checked by itself; the whole schemas are checked.
        let check = |written, reading| match ResolvedSchema::new(written)
            .and_then(|_| ResolvedSchema::new(reading))
        {
            Ok(_) => can_read(written, reading),
            Err(_) => Ok(()),
        };
        let (backward, forward) = (check(old, new), check(new, old));
        self.push_with(path, kind, backward, forward);
    }

    fn names(&mut self, path: &str, old: (&Name, &Aliases), new: (&Name, &Aliases)) {
        let (from, to) = (old.0.name().to_owned(), new.0.name().to_owned());
        if from != to {
            let backward = same_name(old.0, new.0, new.1.as_ref());
            let forward = same_name(new.0, old.0, old.1.as_ref());
            self.push_with(path, ChangeKind::TypeRenamed { from, to }, backward, forward);
        }
        let is_known = |alias: &&Alias| {
            let mut known = new.1.iter().flatten().map(Alias::name).chain([new.0.name()]);
            known.any(|name| name == alias.name())
        };
        for lost in old.1.iter().flatten().filter(|alias| !is_known(alias)) {
            self.push(path, ChangeKind::AliasLost(lost.name().to_owned()));
        }
    }

    fn symbols(&mut self, path: &str, old: &EnumSchema, new: &EnumSchema) {
        self.names(path, (&old.name, &old.aliases), (&new.name, &new.aliases));
        let only_in = |one: &EnumSchema, other: &EnumSchema| -> Vec<String> {
            one.symbols.iter().filter(|symbol| !other.symbols.contains(symbol)).cloned().collect()
        };
        let refused = |symbols: &[String], reading: &EnumSchema| match &reading.default {
            None => Err(format!(
                "{} is no symbol there, and the enum has no default",
                symbols.join(", ")
            )),
            Some(_) => Ok(()),
        };
        let (added, removed) = (only_in(new, old), only_in(old, new));
        if !added.is_empty() {
            let forward = refused(&added, old);
            self.push_with(path, ChangeKind::SymbolsAdded(added), Ok(()), forward);
        }
        if !removed.is_empty() {
            let backward = refused(&removed, new);
            self.push_with(path, ChangeKind::SymbolsRemoved(removed), backward, Ok(()));
        }
        if old.doc != new.doc {
            self.push(path, ChangeKind::Documented);
        }
    }

    fn records(
        &mut self,
        path: &str,
        old: &RecordSchema,
        new: &RecordSchema,
    ) -> Result<(), String> {
        let pair = (old.name.to_string(), new.name.to_string());
        if self.compared.contains(&pair) {
            return Ok(());
        }
        self.compared.push(pair);
        self.names(path, (&old.name, &old.aliases), (&new.name, &new.aliases));
        if old.doc != new.doc {
            self.push(path, ChangeKind::Documented);
        }
        let mut taken = vec![false; old.fields.len()];
        let mut furthest = 0;
        for field in &new.fields {
            let mut names = std::iter::once(&field.name).chain(&field.aliases);
            let number = names.find_map(|name| old.fields.iter().position(|old| old.name == *name));
            let path = join(path, &field.name);
            let Some(number) = number.filter(|number| !taken[*number]) else {
                let backward = match field.default {
                    Some(_) => Ok(()),
                    None => Err("it has no default for records that lack it".to_owned()),
                };
                let kind = ChangeKind::Added(in_words(&field.schema));
                self.push_with(&path, kind, backward, Ok(()));
                continue;
            };
            taken[number] = true;
            self.fields(&path, &old.fields[number], field)?;
            if number < furthest {
                self.push(&path, ChangeKind::Moved);
            }
            furthest = furthest.max(number);
        }
        for (field, _) in old.fields.iter().zip(taken).filter(|(_, taken)| !taken) {
            let forward = without(field, "lack it");
            let kind = ChangeKind::Removed(in_words(&field.schema));
            self.push_with(&join(path, &field.name), kind, Ok(()), forward);
        }
        Ok(())
    }

    fn fields(&mut self, path: &str, old: &RecordField, new: &RecordField) -> Result<(), String> {
        if old.name != new.name {
            let kind = ChangeKind::Renamed { from: old.name.clone() };
            self.push_with(path, kind, Ok(()), without(old, "have it under its new name"));
        }
        let known = |alias: &&String| **alias == new.name || new.aliases.contains(alias);
        for alias in old.aliases.iter().filter(|alias| !known(alias)) {
            self.push(path, ChangeKind::AliasLost(alias.clone()));
        }
        self.compare(path, &old.schema, &new.schema)?;
        if old.default != new.default {
            let json = |field: &RecordField| field.default.as_ref().map(ToString::to_string);
            let kind = ChangeKind::Default { from: json(old), to: json(new) };
            self.push(path, kind);
        }
        if old.doc != new.doc {
            self.push(path, ChangeKind::Documented);
        }
        Ok(())
    }
}

/// Whether the old schema can read records without this field.
fn without(field: &RecordField, why: &str) -> Result<(), String> {
    match field.default {
        Some(_) => Ok(()),
        None => Err(format!("it had no default for records that {why}")),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &str) -> Schema {
        let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        Schema::parse_str(&text).expect(fields)
    }

    /// Checks each change's text, followed by `<` if new readers cannot read old records, and by `>` if old readers cannot
    /// read new records.
    fn check(old: &str, new: &str, expected: &[&str]) {
        let found = changes(&schema(old), &schema(new)).expect("all types are defined");
        let shown = found.iter().map(|change| {
            let backward = if change.backward.is_ok() { "" } else { "<" };
            let forward = if change.forward.is_ok() { "" } else { ">" };
            format!("{change}{backward}{forward}")
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        // The schemas are compatible if all changes are.
        let (old, new) = (schema(old), schema(new));
        let is_ok = |part: fn(&Change) -> bool| found.iter().all(part);
        assert_eq!(can_read(&old, &new).is_ok(), is_ok(|change| change.backward.is_ok()));
        assert_eq!(can_read(&new, &old).is_ok(), is_ok(|change| change.forward.is_ok()));
    }

    const A: &str = r#"{"name":"a","type":"int"}"#;

    #[test]
    fn fields() {
        check(A, A, &[]);
        check(
            A,
            r#"{"name":"a","type":"int"},{"name":"b","type":"int","default":0}"#,
            &["b: added, int"],
        );
        check(A, r#"{"name":"a","type":"int"},{"name":"b","type":"int"}"#, &["b: added, int<"]);
        check(
            r#"{"name":"a","type":"int"},{"name":"b","type":"int","default":0}"#,
            A,
            &["b: removed, it was int"],
        );
        check(
            r#"{"name":"b","type":"int"},{"name":"a","type":"int"}"#,
            A,
            &["b: removed, it was int>"],
        );
        check(A, r#"{"name":"z","aliases":["a"],"type":"int"}"#, &["z: renamed, it was a>"]);
        check(
            r#"{"name":"a","type":"int","default":1}"#,
            r#"{"name":"z","aliases":["a"],"type":"int","default":1}"#,
            &["z: renamed, it was a"],
        );
        check(
            r#"{"name":"a","type":"int"},{"name":"b","type":"int"}"#,
            r#"{"name":"b","type":"int"},{"name":"a","type":"int","doc":"A."}"#,
            &["a: documentation changed", "a: moved to another position"],
        );
        check(r#"{"name":"a","aliases":["y"],"type":"int"}"#, A, &["a: alias y removed"]);
        check(r#"{"name":"a","type":"int","default":1}"#, A, &["a: default 1 became no default"]);
    }

    #[test]
    fn names_of_types() {
        let kind = |name: &str| {
            format!(r#"{{"name":"a","type":{{"type":"enum",{name},"symbols":["X"]}}}}"#)
        };
        let (old, new) = (kind(r#""name":"E""#), kind(r#""name":"F","aliases":["E"]"#));
        check(&old, &new, &["a: type E is now called F>"]);
        check(&old, &kind(r#""name":"F""#), &["a: type E is now called F<>"]);
        check(&new, &kind(r#""name":"F""#), &["a: alias E removed"]);
    }

    #[test]
    fn types() {
        check(A, r#"{"name":"a","type":"long"}"#, &["a: int became long>"]);
        check(r#"{"name":"a","type":"long"}"#, A, &["a: long became int<"]);
        check(A, r#"{"name":"a","type":["null","int"]}"#, &["a: int became null or int>"]);
        check(A, r#"{"name":"a","type":"string"}"#, &["a: int became string<>"]);
        check(
            r#"{"name":"a","type":["null",{"type":"record","name":"I","fields":[{"name":"x","type":"int"}]}]}"#,
            r#"{"name":"a","type":["null",{"type":"record","name":"I","fields":[{"name":"x","type":"long"}]}]}"#,
            &["a.x: int became long>"],
        );
        check(
            r#"{"name":"a","type":{"type":"enum","name":"E","symbols":["X","Y"]}}"#,
            r#"{"name":"a","type":{"type":"enum","name":"E","symbols":["Y","Z"],"default":"Z"}}"#,
            &["a: symbols added: Z>", "a: symbols removed: X"],
        );
    }
}
