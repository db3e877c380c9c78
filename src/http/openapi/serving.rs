//! The JSON schemas of the serving protocols.

use serde_json::{Map, Value as Json, json};

use crate::{
    http::openapi::json_schema::{OBJECT, TEXT, WHOLE, list, object},
    processors::gateway::Gateway,
};

/// The body of `/invocations`: one of four forms.
pub(super) fn invocations(gateway: &Gateway) -> Json {
    let row = row(gateway);
    let columns = gateway.event_schema().questions().iter().map(|question| &question.name);
    let columns: Vec<&String> = columns.collect();
    let form = |name: &str, of: Json| {
        let mut properties = Map::from_iter([(name.to_owned(), of)]);
        let params = json!({
            "type": ["object", "null"],
            "properties": { "reasons": { "type": ["integer", "null"], "minimum": 1, "maximum": 100 } },
            "additionalProperties": false,
        });
        properties.insert("params".to_owned(), params);
        json!({
            "type": "object", "properties": properties, "required": [name], "additionalProperties": false,
        })
    };
    let split = json!({
        "type": "object",
        "properties": {
            "columns": { "type": "array", "items": { "enum": columns }, "uniqueItems": true },
            "data": list(list(json!({ "type": ["number", "string", "boolean", "null"] }))),
            "index": { "type": "array" },
        },
        "required": ["columns", "data"],
        "additionalProperties": false,
    });
    json!({ "anyOf": [
        form("dataframe_split", split),
        form("dataframe_records", list(row.clone())),
        form("instances", list(row.clone())),
        form("inputs", list(row)),
    ] })
}

/// The answers of one row, and perhaps its metadata.
fn row(gateway: &Gateway) -> Json {
    let mut event = gateway.event_schema().json_schema();
    if let Some(event) = event.as_object_mut() {
        event.remove("required");
        event.remove("description");
    }
    event
}

/// The score of a row.
pub(super) fn scored(probabilities: Json) -> Json {
    let mut scored = object(&[("label", TEXT()), ("probabilities", probabilities)]);
    scored["properties"]["reasons"] = OBJECT();
    scored
}

/// A tensor, with its data or as metadata.
pub(super) fn tensor(has_data: bool) -> Json {
    let mut members = vec![("name", TEXT()), ("datatype", TEXT()), ("shape", list(WHOLE()))];
    if has_data {
        members.push(("data", json!({ "type": "array" })));
    }
    object(&members)
}

/// The body of `…/infer`, in JSON.
pub(super) fn inference_request() -> Json {
    let mut request = object(&[("inputs", list(tensor(true)))]);
    request["properties"]["id"] = TEXT();
    request["properties"]["parameters"] = OBJECT();
    request["properties"]["outputs"] = list(object(&[("name", TEXT())]));
    request
}
