//! Parameters of operations: the type of each query parameter by its name, and the header `Idempotency-Key`.

use serde_json::{Value as Json, json};

use crate::http::parameters::Named;

/// The names of the parameters in a path.
pub(super) fn names_in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// A parameter in the path. The model of the Open Inference Protocol has one name, the application's.
pub(super) fn in_path(name: &str, application: &str) -> Json {
    let schema = match name {
        "model" => json!({ "type": "string", "enum": [application] }),
        "version" => json!({ "type": "string", "minLength": 1, "examples": ["champion"] }),
        _ => json!({ "type": "string", "minLength": 1 }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// A query parameter of a route.
pub(super) fn in_query((name, meaning): &Named) -> Json {
    json!({
        "name": name,
        "in": "query",
        "required": false,
        "description": super::without_links(meaning),
        "schema": schema_of(name),
    })
}

/// The type of a query parameter. One name has one type in all routes.
fn schema_of(name: &str) -> Json {
    match name {
        "wait" => json!({ "type": "boolean", "default": false }),
        "timeout_ms" => {
            json!({ "type": "integer", "minimum": 1, "maximum": 60_000, "default": 10_000 })
        }
        "reasons" => json!({ "type": "integer", "minimum": 1, "maximum": 100 }),
        "since" => json!({ "type": "integer" }),
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 50 }),
        _ => json!({ "type": "string" }),
    }
}

pub(super) fn idempotency_key() -> Json {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "The same for a request that is sent again: it has the effect of one.",
        "schema": { "type": "string", "pattern": "^[!#-\\[\\]-~]{1,255}$" },
    })
}
