//! The OpenAPI document, and an instance that schemathesis calls with what the document allows and forbids.

use std::process::Command;

use foretell::http::ROUTES;
use reqwest::Method;
use serde_json::json;

use crate::{
    http::Instance,
    process::{at, tool},
};

#[test]
fn the_document_has_every_route_and_the_questions_of_the_application() {
    let instance = Instance::start(&["http.bearer_token=tok"]);
    let document = instance.ask(Method::GET, "/api/v1/openapi.json", &[], "").body;
    assert_eq!(at(&document, "/openapi"), "3.1.0");
    let paths = at(&document, "/paths");
    for route in ROUTES {
        let operation = &paths[route.path][route.method.as_str().to_lowercase()];
        assert!(operation["responses"].is_object(), "{} {}", route.method, route.path);
    }
    let age = at(&document, "/components/schemas/Event/properties/age");
    assert_eq!(age["type"], json!(["integer", "null"]), "{age}");
    let labels = at(&document, "/components/schemas/Outcome/properties/label/enum");
    assert_eq!(labels, &json!(["<=50K", ">50K"]));
    assert_eq!(paths["/api/v1/events"]["post"]["security"], json!([{ "token": [] }]));
    assert_eq!(paths["/livez"]["get"]["security"], json!([]));
    instance.end();
}

/// Every answer is documented: its status, its media type, its shape. Requests come from a seed, so a failure repeats.
#[test]
fn answers_are_as_the_document_says() {
    let instance = Instance::start(&["learning.retrain_after=1000000"]);
    let mut schemathesis = Command::new(tool("schemathesis", ".ci/setup test"));
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/schemathesis.toml");
    let document = format!("{}/api/v1/openapi.json", instance.http.base);
    let folder = tempfile::tempdir().unwrap();
    let output = schemathesis
        .current_dir(folder.path())
        .args(["--config-file", config, "run", &document, "--seed", "1", "--max-examples", "15"])
        .args(["--phases", "examples,coverage,fuzzing", "--no-color"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let status = instance.http.status();
    assert_eq!(at(&status, "/ready"), true, "{status}");
    instance.end();
}
