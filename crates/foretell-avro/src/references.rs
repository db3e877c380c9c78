//! Inlines the schemas that a schema refers to in the registry: the first mention of a referenced type is replaced by its
//! definition.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::registry::RegistryError;

/// Maximum number of schemas that a schema refers to, directly or indirectly.
const REFERENCES_MAX: usize = 64;

/// A schema as the registry stores it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) text: String,
    pub(crate) references: Vec<Reference>,
}

/// A reference to another schema in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Full name of the referenced type.
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) version: u32,
}

/// The text of `stored` with all referenced schemas inlined. `fetch` loads a referenced schema.
///
/// # Errors
/// [`RegistryError::Incompatible`] if a text is not JSON or there are too many references, or the error of `fetch`.
pub(crate) fn inline(
    stored: Stored,
    fetch: impl Fn(&Reference) -> Result<Stored, RegistryError>,
) -> Result<String, RegistryError> {
    if stored.references.is_empty() {
        return Ok(stored.text);
    }
    let mut definitions = BTreeMap::new();
    let mut wanted = stored.references;
    while let Some(reference) = wanted.pop() {
        if definitions.contains_key(&reference.name) {
            continue;
        }
        if definitions.len() == REFERENCES_MAX {
            let reason = format!("it refers to more than {REFERENCES_MAX} other schemas");
            return Err(RegistryError::Incompatible(reason));
        }
        let found = fetch(&reference)?;
        definitions.insert(reference.name, parse(&found.text)?);
        wanted.extend(found.references);
    }
    let mut schema = parse(&stored.text)?;
    expand(&mut schema, "", &mut definitions);
    Ok(schema.to_string())
}

fn parse(text: &str) -> Result<Value, RegistryError> {
    serde_json::from_str(text)
        .map_err(|error| RegistryError::Incompatible(format!("not a schema: {error}")))
}

/// Expands all positions where a schema can be, in reading order. The recursion is as deep as the JSON, whose depth the
/// parser bounds.
fn expand(schema: &mut Value, namespace: &str, definitions: &mut BTreeMap<String, Value>) {
    match schema {
        Value::String(name) => {
            if let Some(mut definition) = definitions.remove(&full_name(name, namespace)) {
                if let Value::Object(object) = &mut definition {
                    // Without a namespace, it would inherit that of the enclosing type.
                    object.entry("namespace").or_insert_with(|| Value::String(String::new()));
                }
                expand(&mut definition, "", definitions);
                *schema = definition;
            }
        }
        Value::Array(branches) => {
            for branch in branches {
                expand(branch, namespace, definitions);
            }
        }
        Value::Object(object) => expand_object(object, namespace, definitions),
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

fn expand_object(
    object: &mut Map<String, Value>,
    namespace: &str,
    definitions: &mut BTreeMap<String, Value>,
) {
    let own = namespace_of(object).unwrap_or(namespace).to_owned();
    if let Some(Value::Array(fields)) = object.get_mut("fields") {
        for field in fields {
            if let Some(kind) = field.get_mut("type") {
                expand(kind, &own, definitions);
            }
        }
        return;
    }
    for key in ["type", "items", "values"] {
        if let Some(inner) = object.get_mut(key) {
            expand(inner, &own, definitions);
        }
    }
}

/// The namespace that a named type sets for the types in it, if it sets one.
fn namespace_of(object: &Map<String, Value>) -> Option<&str> {
    let name = object.get("name")?.as_str()?;
    match name.rsplit_once('.') {
        Some((namespace, _)) => Some(namespace),
        None => object.get("namespace")?.as_str(),
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::Schema;

    fn refer(name: &str) -> Reference {
        Reference { name: name.to_owned(), subject: name.to_owned(), version: 1 }
    }

    fn stored(text: &str, references: &[&str]) -> Stored {
        let references = references.iter().copied().map(refer).collect();
        Stored { text: text.to_owned(), references }
    }

    fn registry(reference: &Reference) -> Result<Stored, RegistryError> {
        match reference.name.as_str() {
            "n.Inner" => Ok(stored(
                r#"{"type":"record","name":"Inner","namespace":"n","fields":[{"name":"e","type":"E"}]}"#,
                &["E"],
            )),
            "E" => Ok(stored(r#"{"type":"enum","name":"E","symbols":["A"]}"#, &[])),
            other => Err(RegistryError::NotFound(other.to_owned())),
        }
    }

    #[test]
    fn only_the_first_mention_is_replaced_by_the_definition() {
        let outer = stored(
            r#"{"type":"record","name":"Outer","namespace":"n","fields":[
                {"name":"a","type":["null","Inner"]},
                {"name":"b","type":{"type":"array","items":"n.Inner"}},
                {"name":"c","type":"string"}]}"#,
            &["n.Inner"],
        );
        // `E` is a simple name in the namespace `n`, so it means `n.E`, which is not defined.
        let text = inline(outer.clone(), registry).unwrap();
        assert!(Schema::parse_str(&text).is_err(), "{text}");

        let inner = r#"{"type":"record","name":"Inner","namespace":"n","fields":[]}"#;
        let text = inline(outer, |_| Ok(stored(inner, &[]))).unwrap();
        let schema = Schema::parse_str(&text).unwrap();
        assert_eq!(text.matches(r#""name":"Inner""#).count(), 1, "{text}");
        assert_eq!(schema.name().map(|name| name.fullname(None)).as_deref(), Some("n.Outer"));
    }

    #[test]
    fn a_definition_without_a_namespace_keeps_none() {
        let outer = r#"{"type":"record","name":"n.O","fields":[
            {"name":"a","type":{"type":"record","name":"P","namespace":"","fields":[
                {"name":"x","type":"E"}]}}]}"#;
        let text = inline(stored(outer, &["E"]), registry).unwrap();
        assert!(text.contains(r#""symbols":["A"],"namespace":"""#), "{text}");
        assert!(Schema::parse_str(&text).is_ok(), "{text}");
    }

    #[test]
    fn missing_and_endless_references_are_errors() {
        let lost = inline(stored(r#""x""#, &["gone"]), registry);
        assert_eq!(lost, Err(RegistryError::NotFound("gone".to_owned())));
        let endless = inline(stored(r#""x""#, &["0"]), |reference| {
            let next = format!("{}0", reference.name);
            Ok(stored(r#""int""#, &[next.as_str()]))
        });
        assert!(matches!(endless, Err(RegistryError::Incompatible(_))), "{endless:?}");
    }
}
