//! `GET /api/v1/openapi.json`: the OpenAPI 3.1 document of this instance. The operations are the table of routes, and the
//! schema of events is that of the application, so clients that are generated from it have its questions.

mod json_schema;
mod parameters;
pub(super) mod schemas;
mod serving;

use axum::{Json as JsonBody, extract::State};
use serde_json::{Map, Value as Json, json};

use crate::http::{
    HttpState, PROBLEMS,
    error::{HttpError, PROBLEM_JSON},
    parameters::Parameters,
    route::{Access, Route},
};
use schemas::Shape;

/// `GET /api/v1/openapi.json`
pub(super) async fn openapi(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<JsonBody<Json>, HttpError> {
    parameters.check(&[])?;
    Ok(JsonBody(document(&state)))
}

fn document(state: &HttpState) -> Json {
    let mut paths = Map::new();
    for route in state.routes {
        let path = paths.entry(route.path).or_insert_with(|| Json::Object(Map::new()));
        path[route.method.as_str().to_lowercase()] = operation(route, state);
    }
    let shapes = Shape::ALL.iter();
    let named = shapes.map(|shape| (shape.name().to_owned(), shape.schema(&state.gateway)));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Foretell: {}", state.overview.application),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Score now, learn from what happens.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": named.collect::<Map<_, _>>(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

/// Whether the configuration requires a token for the route.
fn needs_token(state: &HttpState, route: &Route) -> bool {
    let (is_write, is_read) =
        (state.access.bearer_token.is_some(), state.access.read_token.is_some());
    match route.access {
        Access::Open => false,
        Access::Read => is_read,
        Access::Respondents | Access::Write => is_write,
    }
}

fn operation(route: &Route, state: &HttpState) -> Json {
    let application = &state.overview.application;
    let mut parameters: Vec<Json> = parameters::names_in_path(route.path)
        .map(|name| parameters::in_path(name, application))
        .collect();
    parameters.extend(route.parameters.iter().map(parameters::in_query));
    if route.content.is_idempotent {
        parameters.push(parameters::idempotency_key());
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "description": without_links(route.purpose),
        "parameters": parameters,
        "responses": responses(route),
        "security": if needs_token(state, route) { json!([{ "token": [] }]) } else { json!([]) },
    });
    if !route.content.bodies.is_empty() {
        let bodies = route.content.bodies.iter();
        let bodies = bodies.map(|(kind, shape)| ((*kind).to_owned(), in_content(*shape)));
        operation["requestBody"] =
            json!({ "required": true, "content": bodies.collect::<Map<_, _>>() });
    }
    operation
}

/// A name for functions of generated clients: `post_events`, `get_models_by_version`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1");
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let words = segments.map(|segment| match segment.strip_prefix('{') {
        Some(name) => format!("by_{}", name.trim_end_matches('}')),
        None => segment.replace(['.', '-'], "_"),
    });
    let method = route.method.as_str().to_lowercase();
    [method].into_iter().chain(words).collect::<Vec<String>>().join("_")
}

/// The answers that the route lists, and the problems that every route may answer with.
fn responses(route: &Route) -> Json {
    let mut responses: Map<String, Json> = Map::new();
    for (status, meaning) in route.answers {
        let shapes = route.content.answers.iter();
        let shape =
            shapes.into_iter().find(|(listed, _)| listed == status).map(|(_, shape)| *shape);
        let content = shape.map_or_else(problem_content, in_answer);
        let response = json!({ "description": without_links(meaning), "content": content });
        responses.insert(status.to_string(), response);
    }
    let everywhere = PROBLEMS.iter().filter(|problem| problem.is_everywhere);
    for problem in everywhere {
        let listed = responses.entry(problem.status.to_string()).or_insert_with(
            || json!({ "description": problem.meaning, "content": problem_content() }),
        );
        // 503 of a probe is an answer of its own; the limit of connections is a problem.
        if listed["content"].get(PROBLEM_JSON).is_none() {
            listed["content"][PROBLEM_JSON] = in_content(Shape::Problem);
        }
    }
    responses.sort_keys();
    Json::Object(responses)
}

fn problem_content() -> Json {
    json!({ PROBLEM_JSON: in_content(Shape::Problem) })
}

fn in_answer(shape: Shape) -> Json {
    if shape == Shape::Nothing {
        return json!({});
    }
    json!({ shape.media_type(): in_content(shape) })
}

fn in_content(shape: Shape) -> Json {
    json!({ "schema": { "$ref": format!("#/components/schemas/{}", shape.name()) } })
}

/// Markdown without links: those of the table lead to pages beside `docs/http-api.md`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain += before;
        match link
            .split_once("](")
            .and_then(|(name, target)| Some((name, target.split_once(')')?.1)))
        {
            Some((name, after)) if !name.contains('[') => {
                plain += name;
                rest = after;
            }
            Some(_) | None => {
                plain += "[";
                rest = link;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ROUTES;

    #[test]
    fn links_become_their_text() {
        let check = |text: &str, expected: &str| assert_eq!(without_links(text), expected);
        check("as in [Values](schemas.md#values).", "as in Values.");
        check("[`reasons`](reasons.md) and [a](b)", "`reasons` and a");
        check("`{\"models\": […]}`", "`{\"models\": […]}`");
        check("[…] and [a](b)", "[…] and a");
    }

    #[test]
    fn every_answer_below_400_has_a_shape_and_operations_have_names_of_their_own() {
        let mut names: Vec<String> = ROUTES.iter().map(operation_id).collect();
        for route in ROUTES {
            for (status, _) in route.answers.iter().filter(|(status, _)| *status < 400) {
                let has_shape = route.content.answers.iter().any(|(shaped, _)| shaped == status);
                assert!(has_shape, "{} {}: {status}", route.method, route.path);
            }
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
