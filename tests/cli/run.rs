//! `foretell run --embedded`, by HTTP.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use foretell::processors::metrics::DEAD_LETTER_CLASSES;
use serde_json::json;

use crate::process::{Http, Process, SOON, at, example, quick_settings, tool, until};

const TOKEN: &str = "a secret";

#[test]
fn it_serves_until_it_gets_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), 2000);
    settings.push(format!("http.bearer_token={TOKEN}"));
    settings.push("tuning.iterations_max=60".to_owned());
    let config = example();
    let mut arguments = vec!["run", "--embedded", "-c", &config];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let mut process = Process::start(&arguments);
    let http = process.http();
    assert_eq!(http.get("/livez"), Some((200, "ok\n".to_owned())));
    http.ready();
    assert_eq!(http.get("/startupz").map(|(code, _)| code), Some(200));
    assert_eq!(http.get("/nowhere").map(|(code, _)| code), Some(404));
    events(&http);
    invalid_events(&http);
    metrics(&http);

    process.signal("INT");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    assert!(!process.errors().contains("panicked"), "{}", process.errors());
    assert!(process.output().is_empty(), "{}", process.output());
    assert!(http.get("/livez").is_none(), "HTTP has stopped");
}

fn events(http: &Http) {
    let event = json!({
        "respondent_id": "me", "completed": true, "age": 39, "education": "Bachelors",
        "occupation": "unseen", "hours_per_week": null,
    });
    let event = event.to_string();
    let version = at(&http.status(), "/model/version").clone();
    let (code, prediction) =
        http.post("/api/v1/events?wait=true", &event, Some(TOKEN)).expect("a response");
    assert_eq!(code, 200, "{prediction}");
    assert_eq!(at(&prediction, "/respondent_id"), "me");
    assert_eq!(*at(&prediction, "/model_version"), version);
    let probabilities = at(&prediction, "/probabilities");
    let [low, high] = ["<=50K", ">50K"].map(|label| probabilities[label].as_f64().unwrap());
    assert!((low + high - 1.0).abs() < 1e-12, "{probabilities}");
    assert_eq!(*at(&prediction, "/features/age"), 39.0);
    assert!(at(&prediction, "/features/hours_per_week").is_null(), "{prediction}");

    let (code, accepted) = http.post("/api/v1/events", &event, Some(TOKEN)).expect("a response");
    assert_eq!((code, at(&accepted, "/respondent_id")), (202, &json!("me")), "{accepted}");
    assert!(at(&accepted, "/event_id").is_string(), "{accepted}");
    until("the second event is scored too", SOON, || {
        (http.metric("foretell_predictions_total") >= 2.0).then_some(())
    });
    assert!(http.metric("foretell_unseen_categories_total") >= 2.0);

    // Incomplete, so there is no prediction yet.
    let part = json!({"respondent_id": "slow", "age": 20}).to_string();
    let (code, answer) =
        http.post("/api/v1/events?wait=true", &part, Some(TOKEN)).expect("a response");
    assert_eq!(code, 202, "{answer}");
    assert!(at(&answer, "/missing").as_array().unwrap().contains(&json!("education")), "{answer}");
}

fn invalid_events(http: &Http) {
    let check = |event: &str, token, expected_code, expected: &str| {
        let (code, answer) = http.post("/api/v1/events", event, token).expect("a response");
        assert_eq!(code, expected_code, "{event}: {answer}");
        let error = at(&answer, "/detail").as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    };
    let good = r#"{"respondent_id": "me"}"#;
    check(good, None, 401, "Authorization: Bearer");
    check(good, Some("another"), 401, "Authorization: Bearer");
    let token = Some(TOKEN);
    check("{", token, 400, "not JSON");
    check("7", token, 400, "JSON object");
    check("{}", token, 422, "`respondent_id` is missing");
    check(
        r#"{"respondent_id": "me", "agee": 3}"#,
        token,
        400,
        "no field `agee` (did you mean age?); there are",
    );
    check(r#"{"respondent_id": "me", "age": "old"}"#, token, 400, "`age`");
}

/// Checks the metrics with promtool.
fn metrics(http: &Http) {
    let (_, text) = http.get("/metrics").expect("a response");
    let mut checking = Command::new(tool("promtool", ".ci/setup check"));
    checking.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut checking = checking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = checking.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let checked = checking.wait_with_output().unwrap();
    let problems = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && problems.is_empty(), "{problems}");
    for class in DEAD_LETTER_CLASSES {
        let line = format!("foretell_dead_letters_total{{class=\"{class}\"}} ");
        assert!(text.contains(&line), "{class} is not counted from the start");
        // The page lists what each class means.
        assert!(
            include_str!("../../docs/operations.md").contains(&format!("`{class}`")),
            "{class}"
        );
    }
    for line in [
        "foretell_outcomes_total{result=\"joined\"} 0",
        "foretell_trainings_total{result=\"failed\"} 0",
        "foretell_stream_commits_total{result=\"aborted\"} 0",
        "foretell_duplicate_events_total 0",
        "foretell_incomplete_observations_total 0",
        "foretell_predictions_not_kept_total 0",
    ] {
        assert!(text.contains(line), "{line}");
    }
}
