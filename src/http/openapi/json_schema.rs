//! JSON schemas of plain values, lists and objects.

use serde_json::{Value as Json, json};

pub(super) const TEXT: fn() -> Json = || json!({ "type": "string" });
pub(super) const WHOLE: fn() -> Json = || json!({ "type": "integer" });
pub(super) const OBJECT: fn() -> Json = || json!({ "type": "object" });

pub(super) fn or_null(kind: &str) -> Json {
    json!({ "type": [kind, "null"] })
}

pub(super) fn list(of: Json) -> Json {
    json!({ "type": "array", "items": of })
}

/// An object that has all of `members`, and perhaps more.
pub(super) fn object(members: &[(&str, Json)]) -> Json {
    let properties = members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone()));
    let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    json!({
        "type": "object",
        "properties": properties.collect::<serde_json::Map<_, _>>(),
        "required": names,
    })
}
