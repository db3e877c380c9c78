//! The next version of a subject: a draft, with the defaults and aliases that keep it compatible.

use std::fs;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::app::schemas::history::{History, Version, parse};

/// One change to a schema's outermost record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A new field: nullable, null by default.
    Add {
        /// Its name.
        name: String,
        /// Its type, besides null: a name such as `string`, or JSON.
        kind: String,
    },
    /// Another name; the old one becomes an alias.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// A field less.
    Remove {
        /// Its name.
        name: String,
    },
    /// Another type; whether it was nullable stays as it was.
    Retype {
        /// The field.
        name: String,
        /// Its type, besides null.
        kind: String,
    },
    /// A field's description.
    Describe {
        /// The field.
        name: String,
        /// What it is, in a sentence.
        doc: String,
    },
}

/// The newest version with `edits`: over the newest if that is a draft, else as the next version. Nothing is written.
///
/// # Errors
/// Which edit can't be made, and why.
pub fn evolve(history: &History, edits: &[Edit]) -> anyhow::Result<Version> {
    let newest = history.newest();
    let mut schema: Value = serde_json::from_str(&newest.text)?;
    let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
    let fields = fields.with_context(|| format!("{} is not a record", newest.path.display()))?;
    for edit in edits {
        apply(fields, edit)?;
    }
    let text = laid_out(&schema);
    let number = if history.has_draft() { newest.number } else { newest.number + 1 };
    let path = history.folder.join(format!("v{number}.avsc"));
    let schema = parse(&text).context("this would not be a valid schema")?;
    Ok(Version { number, path, text, schema })
}

impl Version {
    /// Writes it to its file.
    ///
    /// # Errors
    /// If that can't be done.
    pub fn write(&self) -> anyhow::Result<()> {
        let path = self.path.display();
        fs::write(&self.path, &self.text).with_context(|| format!("cannot write {path}"))
    }
}

fn apply(fields: &mut Vec<Value>, edit: &Edit) -> anyhow::Result<()> {
    let place =
        |fields: &[Value], name: &str| fields.iter().position(|field| field["name"] == name);
    let find = |fields: &[Value], name: &str| {
        place(fields, name).with_context(|| {
            let known: Vec<&str> =
                fields.iter().filter_map(|field| field["name"].as_str()).collect();
            format!("there is no field {name}; there are {}", known.join(", "))
        })
    };
    match edit {
        Edit::Add { name, kind } => {
            anyhow::ensure!(place(fields, name).is_none(), "there is a field {name} already");
            fields.push(json!({"name": name, "type": ["null", type_of(kind)], "default": null}));
        }
        Edit::Rename { from, to } => {
            let number = find(fields, from)?;
            anyhow::ensure!(place(fields, to).is_none(), "there is a field {to} already");
            let field = object(&mut fields[number])?;
            let aliases = field.get("aliases").and_then(Value::as_array).cloned();
            let mut aliases = aliases.unwrap_or_default();
            aliases.push(json!(from));
            // The aliases stand beside the name.
            let rest = std::mem::take(field);
            for (key, value) in rest {
                match key.as_str() {
                    "name" => {
                        field.insert(key, json!(to));
                        field.insert(
                            "aliases".to_owned(),
                            Value::Array(std::mem::take(&mut aliases)),
                        );
                    }
                    "aliases" => {}
                    _ => {
                        field.insert(key, value);
                    }
                }
            }
        }
        Edit::Remove { name } => {
            let number = find(fields, name)?;
            fields.remove(number);
        }
        Edit::Retype { name, kind } => {
            let number = find(fields, name)?;
            let field = object(&mut fields[number])?;
            let is_nullable = field
                .get("type")
                .and_then(Value::as_array)
                .is_some_and(|branches| branches.contains(&json!("null")));
            let kind = type_of(kind);
            let kind = if is_nullable { json!(["null", kind]) } else { kind };
            field.insert("type".to_owned(), kind);
        }
        Edit::Describe { name, doc } => {
            let number = find(fields, name)?;
            object(&mut fields[number])?.insert("doc".to_owned(), json!(doc));
        }
    }
    Ok(())
}

fn object(field: &mut Value) -> anyhow::Result<&mut Map<String, Value>> {
    field.as_object_mut().context("a field is not a JSON object")
}

/// A name, or JSON such as `{"type":"enum",…}`.
fn type_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

/// One line a field, as a person would write it.
fn laid_out(schema: &Value) -> String {
    let Value::Object(object) = schema else { return format!("{}\n", in_a_line(schema)) };
    let part = |(key, value): (&String, &Value)| match (key.as_str(), value) {
        ("fields", Value::Array(fields)) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("    {}", in_a_line(field))).collect();
            format!("  \"fields\": [\n{}\n  ]", fields.join(",\n"))
        }
        (key, value) => format!("  {}: {}", json!(key), in_a_line(value)),
    };
    let parts: Vec<String> = object.iter().map(part).collect();
    format!("{{\n{}\n}}\n", parts.join(",\n"))
}

fn in_a_line(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let parts: Vec<String> = object
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), in_a_line(value)))
                .collect();
            format!("{{{}}}", parts.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(in_a_line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
