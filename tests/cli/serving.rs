//! The serving protocols: every form of a request gets the scores of the stream, and clients that exist are served.

use std::{process::Command, sync::mpsc, thread};

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::{
    http::{Answer, Instance},
    process::{SOON, at, tool, until},
};

const JSON: (&str, &str) = ("content-type", "application/json");

fn invoke(instance: &Instance, body: &Json) -> Answer {
    instance.post("/invocations", body)
}

/// The probability of the second class of each row.
fn probabilities(answer: &Answer) -> Vec<f64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let predictions = at(&answer.body, "/predictions").as_array().unwrap();
    predictions.iter().map(|one| one["probabilities"][">50K"].as_f64().unwrap()).collect()
}

#[test]
fn every_protocol_scores_as_the_stream() {
    let instance = Instance::start(&["serving.rows_max=30", "serving.body_bytes_max=65536"]);
    let answers = json!({"age": 52, "education": "Masters", "occupation": "Exec-managerial",
        "hours_per_week": 50});
    let mut event = answers.clone();
    event["respondent_id"] = json!("me");
    event["completed"] = json!(true);
    let predicted = instance.post("/api/v1/events?wait=true&timeout_ms=60000&reasons=3", &event);
    assert_eq!(predicted.status, 200, "{predicted:?}");
    let expected = predicted.body["probabilities"][">50K"].as_f64().unwrap();

    let columns: Vec<&String> = answers.as_object().unwrap().keys().collect();
    let values: Vec<&Json> = answers.as_object().unwrap().values().collect();
    let lists = columns.iter().zip(&values).map(|(name, value)| ((*name).clone(), json!([value])));
    let lists: serde_json::Map<String, Json> = lists.collect();
    for body in [
        json!({"dataframe_split": {"columns": columns, "data": [values]}}),
        json!({"dataframe_records": [answers]}),
        json!({"instances": [event]}),
        json!({"inputs": lists}),
    ] {
        let answer = invoke(&instance, &body);
        assert_eq!(probabilities(&answer), [expected], "{body}");
        assert_eq!(at(&answer.body, "/predictions/0/label"), at(&predicted.body, "/label"));
        let version = at(&predicted.body, "/model_version");
        assert_eq!(at(&answer.body, "/model_version"), version);
        assert_eq!(answer.headers["foretell-model-version"], version.as_str().unwrap());
    }
    // As MLflow's client sends a data frame without an occupation and an age.
    let frame = r#"{"dataframe_split": {"columns": ["age", "occupation"], "data": [[NaN, "Sales"], [52.0, NaN]]}}"#;
    let missing = json!({"dataframe_split": {"columns": ["age", "occupation"], "data": [[null, "Sales"], [52.0, null]]}});
    let sent = instance.ask(Method::POST, "/invocations", &[JSON], frame);
    assert_eq!(probabilities(&sent), probabilities(&invoke(&instance, &missing)));
    let explained = json!({"instances": [answers], "params": {"reasons": 3}});
    let explained = invoke(&instance, &explained);
    assert_eq!(at(&explained.body, "/predictions/0/reasons"), at(&predicted.body, "/reasons"));
    let csv = "age,education,occupation,hours_per_week\n52, Masters ,Exec-managerial,50\n";
    let csv_of = |kind| instance.ask(Method::POST, "/invocations", &[("content-type", kind)], csv);
    assert_eq!(probabilities(&csv_of("text/csv; charset=utf-8")), [expected]);
    assert_eq!(csv_of("text/plain").status, 415, "a page of another site could send it");

    // More rows than are scored at once.
    let many = invoke(&instance, &json!({"instances": vec![answers.clone(); 30]}));
    assert_eq!(probabilities(&many), [expected; 30]);
    refusals(&instance, &answers);
    let rows = instance.http.metric("foretell_http_rows_scored_total");
    assert!((rows - 41.0).abs() < 0.5, "{rows}");
    assert!((instance.http.metric("foretell_predictions_total") - 1.0).abs() < 0.5);
    instance.end();
}

fn refusals(instance: &Instance, answers: &Json) {
    let refused = |body: Json, status: u16, words: &str| {
        let answer = invoke(instance, &body);
        assert_eq!(answer.status, status, "{answer:?}");
        let detail = at(&answer.body, "/detail").as_str().unwrap();
        assert!(detail.contains(words), "{words:?} in {detail:?}");
        answer
    };
    refused(json!({"instances": []}), 400, "1 to 30 rows");
    refused(json!({"instances": vec![answers; 31]}), 400, "1 to 30 rows");
    refused(json!({"rows": []}), 400, "no member `rows`: the body has one of dataframe_split");
    let wrong = refused(json!({"instances": [{}, {"age": "old"}]}), 400, "`age` is \"old\"");
    assert_eq!(at(&wrong.body, "/row"), 1);
    let hint = "no field `ages` (did you mean age?); there are ";
    for body in [
        json!({"instances": [{"ages": 3}]}),
        json!({"dataframe_records": [{"ages": 3}]}),
        json!({"dataframe_split": {"columns": ["ages"], "data": [[3]]}}),
        json!({"inputs": {"ages": [3]}}),
    ] {
        refused(body, 400, hint);
    }
    for (kind, body) in [
        ("application/jsonlines", "{\"ages\": 3}\n"),
        ("text/csv; header=present", "ages\n3\n"),
        ("text/csv", "ages,education\n3,Masters\n"),
    ] {
        let answer = instance.ask(Method::POST, "/invocations", &[("content-type", kind)], body);
        assert_eq!(answer.status, 400, "{answer:?}");
        let detail = at(&answer.body, "/detail").as_str().unwrap();
        assert!(detail.contains(hint), "{kind}: {detail}");
    }
    refused(json!({"instances": [{"salary": 3}]}), 400, "no field `salary`; there are ");
    let large = json!({"instances": [{"education": "x".repeat(2 << 20)}]});
    refused(large, 413, "65536");
    let infer = |body: &Json| instance.post("/v2/models/adult/infer", body);
    let tensor = |shape: Json| json!({"inputs": [{"name": "age", "datatype": "FP64", "shape": shape, "data": [1]}]});
    let misspelt = json!({"name": "ages", "datatype": "FP64", "shape": [1], "data": [1]});
    let misspelt = json!({ "inputs": [misspelt] });
    for (body, words) in [
        (json!({}), "missing field `inputs`"),
        (json!({"inputs": []}), "1 to 30 rows"),
        (tensor(json!([2])), "shape [2]"),
        (tensor(json!([-1])), "invalid value"),
        (json!({"inputs": [], "outputs": [{"name": "score"}]}), "no output `score`"),
        (misspelt, hint),
    ] {
        let answer = infer(&body);
        assert_eq!(answer.status, 400, "{answer:?}");
        let error = at(&answer.body, "/error").as_str().unwrap();
        assert!(error.contains(words), "{words:?} in {error:?}");
    }
    assert_eq!(instance.post("/v2/models/other/infer", &tensor(json!([1]))).status, 404);
    assert_eq!(infer(&tensor(json!([1]))).status, 200);
    for path in ["/ping", "/health", "/v2/health/live", "/v2/health/ready", "/version", "/v2"] {
        assert_eq!(instance.ask(Method::GET, path, &[], "").status, 200, "{path}");
    }
}

#[test]
fn tritonclient_scores() {
    let instance = Instance::start(&[]);
    let mut python = Command::new(tool("python3", ".ci/setup test"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/clients/triton.py");
    let address = instance.http.base.trim_start_matches("http://");
    let output = python.args([script, address, "adult"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let found: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(at(&found, "/id"), "7");
    assert_eq!(at(&found, "/classes"), &json!(["<=50K", ">50K"]));
    assert_eq!(at(&found, "/versions/0"), at(&found, "/version"));
    assert_eq!(
        (at(&found, "/inputs/age"), at(&found, "/inputs/education")),
        (&json!("INT32"), &json!("BYTES"))
    );
    check_datatypes(&instance, at(&found, "/inputs"));
    assert!(at(&found, "/error").as_str().unwrap().contains("version \"x\" does not serve"));
    assert_eq!(at(&found, "/reasons/1/features").as_array().unwrap().len(), 2);
    // The second row has NaN for the age, which is no answer.
    let rows = json!([
        {"age": 39, "education": "Bachelors", "hours_per_week": 40},
        {"education": "Masters", "hours_per_week": 60},
    ]);
    let expected = probabilities(&invoke(&instance, &json!({"instances": rows})));
    for (row, expected) in expected.iter().enumerate() {
        let probability = at(&found, &format!("/probabilities/{row}/1")).as_f64().unwrap();
        assert!((probability - expected).abs() < 1e-15, "{found}");
    }
    instance.end();
}

/// A value of the datatype that the metadata has is accepted for every question.
fn check_datatypes(instance: &Instance, inputs: &Json) {
    for (name, datatype) in inputs.as_object().unwrap() {
        let value = match datatype.as_str().unwrap() {
            "INT32" => json!(i32::MAX),
            "INT64" => json!(i64::MAX),
            "FP32" | "FP64" => json!(39.7),
            "BOOL" => json!(true),
            other => json!(other),
        };
        let tensor = json!({"name": name, "datatype": datatype, "shape": [1], "data": [value]});
        let answer = instance.post("/v2/models/adult/infer", &json!({ "inputs": [tensor] }));
        assert_eq!(answer.status, 200, "{name} {datatype}: {answer:?}");
    }
}

#[test]
fn a_journal_writes_what_it_scores_and_serving_can_be_off() {
    let instance = Instance::start(&["serving.journal=true", "topics.partitions=1"]);
    let row = |respondent: &str| json!({"respondent_id": respondent, "completed": true, "age": 30});
    let refused = invoke(&instance, &json!({"instances": [row("a"), {"age": 30}]}));
    assert_eq!((refused.status, at(&refused.body, "/row")), (422, &json!(1)), "{refused:?}");
    assert_eq!(at(&refused.body, "/class"), "missing_field");
    let scored = invoke(&instance, &json!({"instances": [row("b"), row("c")]}));
    let look_up = |id: &str| {
        let path = format!("/api/v1/respondents/{id}?timeout_ms=60000");
        instance.ask(Method::GET, &path, &[], "")
    };
    let found = until("the stream has scored it too", SOON, || {
        let found = look_up("c").body;
        found["predictions"][0]["prediction"].is_object().then_some(found)
    });
    assert_eq!(
        found["predictions"][0]["prediction"]["probabilities"],
        scored.body["predictions"][1]["probabilities"]
    );
    assert_eq!(look_up("a").status, 404, "the request was refused as a whole");
    instance.end();

    let instance = Instance::start(&["serving.enabled=false"]);
    assert_eq!(invoke(&instance, &json!({"instances": [{}]})).status, 404);
    assert_eq!(instance.ask(Method::GET, "/ping", &[], "").status, 404);
    instance.end();
}

#[test]
fn requests_at_the_same_time_get_their_own_scores() {
    let instance = Instance::start(&[]);
    let alone: Vec<f64> = (0..8)
        .map(|age| {
            probabilities(&invoke(&instance, &json!({"instances": [{"age": 20 + 5 * age}]})))[0]
        })
        .collect();
    let (results, found) = mpsc::channel();
    thread::scope(|scope| {
        for (age, expected) in alone.iter().enumerate() {
            let (instance, results) = (&instance, results.clone());
            scope.spawn(move || {
                for _ in 0..20 {
                    let body = json!({"instances": [{"age": 20 + 5 * age}]}).to_string();
                    let answer = instance.ask(Method::POST, "/invocations", &[JSON], &body);
                    results.send((probabilities(&answer)[0], *expected)).unwrap();
                }
            });
        }
    });
    drop(results);
    let mut count = 0;
    for (probability, expected) in found {
        assert!((probability - expected).abs() < 1e-15);
        count += 1;
    }
    assert_eq!(count, 160);
    instance.end();
}
