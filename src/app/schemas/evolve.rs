//! The next version of a subject: a draft, with the defaults and aliases that keep it compatible.

use std::fs;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::{
    app::schemas::history::{History, Version, parse},
    events::similar_name,
};

/// One change to the outermost record of a schema. A `kind` is a type besides null: a name such as `string`, or JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Add a field that is nullable, null by default.
    Add { name: String, kind: String },
    /// Rename a field. Its old name becomes an alias.
    Rename { from: String, to: String },
    /// Remove a field.
    Remove { name: String },
    /// Change the type of a field. A nullable field stays nullable.
    Retype { name: String, kind: String },
    /// Set the description of a field.
    Describe { name: String, doc: String },
}

/// Applies `edits` to the newest version. The result takes its place if that is a draft, else it is the next version.
/// Nothing is written.
///
/// # Errors
/// If an edit is not possible; the message says which.
pub fn evolve(history: &History, edits: &[Edit]) -> anyhow::Result<Version> {
    let newest = history.newest();
    let mut schema: Value = serde_json::from_str(&newest.text)?;
    let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
    let fields = fields.with_context(|| format!("{} is not a record", newest.path.display()))?;
    for edit in edits {
        apply(fields, edit)?;
    }
    let text = format(&schema);
    let number = if history.has_draft() { newest.number } else { newest.number + 1 };
    let path = history.folder.join(format!("v{number}.avsc"));
    let schema = parse(&text).context("the result would not be a valid schema")?;
    Ok(Version { number, path, text, schema })
}

/// The fields that `edits` add and do not describe.
#[must_use]
pub fn undescribed(edits: &[Edit]) -> Vec<&str> {
    let is_described = |field: &str| {
        edits.iter().any(|edit| matches!(edit, Edit::Describe { name, .. } if name == field))
    };
    let added = edits.iter().filter_map(|edit| match edit {
        Edit::Add { name, .. } => Some(name.as_str()),
        Edit::Rename { .. } | Edit::Remove { .. } | Edit::Retype { .. } | Edit::Describe { .. } => {
            None
        }
    });
    added.filter(|name| !is_described(name)).collect()
}

impl Version {
    /// Writes the version to its file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let path = self.path.display();
        fs::write(&self.path, &self.text).with_context(|| format!("cannot write {path}"))
    }
}

fn apply(fields: &mut Vec<Value>, edit: &Edit) -> anyhow::Result<()> {
    match edit {
        Edit::Add { name, kind } => {
            ensure_unused(fields, name)?;
            fields.push(json!({"name": name, "type": ["null", type_of(kind)], "default": null}));
        }
        Edit::Rename { from, to } => {
            ensure_unused(fields, to)?;
            let field = field_mut(fields, from)?;
            let mut aliases = match field.shift_remove("aliases") {
                Some(Value::Array(aliases)) => aliases,
                Some(_) | None => Vec::new(),
            };
            aliases.push(json!(from));
            field.insert("name".to_owned(), json!(to));
            let name = field.keys().position(|key| key == "name").unwrap_or_default();
            field.shift_insert(name + 1, "aliases".to_owned(), Value::Array(aliases));
        }
        Edit::Remove { name } => {
            let index = index_of(fields, name)?;
            fields.remove(index);
        }
        Edit::Retype { name, kind } => {
            let field = field_mut(fields, name)?;
            let branches = field.get("type").and_then(Value::as_array);
            let is_nullable = branches.is_some_and(|branches| branches.contains(&json!("null")));
            let kind = type_of(kind);
            let kind = if is_nullable { json!(["null", kind]) } else { kind };
            field.insert("type".to_owned(), kind);
        }
        Edit::Describe { name, doc } => {
            field_mut(fields, name)?.insert("doc".to_owned(), json!(doc));
        }
    }
    Ok(())
}

fn ensure_unused(fields: &[Value], name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(index_of(fields, name).is_err(), "there is a field {name} already");
    Ok(())
}

fn field_mut<'f>(
    fields: &'f mut [Value],
    name: &str,
) -> anyhow::Result<&'f mut Map<String, Value>> {
    let index = index_of(fields, name)?;
    fields[index].as_object_mut().context("a field is not a JSON object")
}

fn index_of(fields: &[Value], name: &str) -> anyhow::Result<usize> {
    let index = fields.iter().position(|field| field["name"] == name);
    index.with_context(|| {
        let known: Vec<&str> = fields.iter().filter_map(|field| field["name"].as_str()).collect();
        let hint = similar_name::hint(name, &known);
        format!("there is no field {name}{hint}; there are {}", known.join(", "))
    })
}

/// A type's name, or JSON such as `{"type":"enum",…}`.
fn type_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

/// The schema as JSON with one field of the record a line.
fn format(schema: &Value) -> String {
    let Value::Object(object) = schema else { return format!("{}\n", format_inline(schema)) };
    let part = |(key, value): (&String, &Value)| match (key.as_str(), value) {
        ("fields", Value::Array(fields)) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("    {}", format_inline(field))).collect();
            format!("  \"fields\": [\n{}\n  ]", fields.join(",\n"))
        }
        (key, value) => format!("  {}: {}", json!(key), format_inline(value)),
    };
    let parts: Vec<String> = object.iter().map(part).collect();
    format!("{{\n{}\n}}\n", parts.join(",\n"))
}

fn format_inline(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let member = |(key, value): (&String, &Value)| {
                format!("{}: {}", json!(key), format_inline(value))
            };
            format!("{{{}}}", object.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(format_inline).collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
