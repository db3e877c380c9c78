//! Tracking in a real MLflow server, which is away at first, is killed while records are sent to it, and outlives an instance that
//! is killed, too. Python loads the champion from it and predicts what Foretell has predicted.

use std::{
    fs,
    net::TcpListener,
    ops::ControlFlow,
    path::PathBuf,
    process::{Command, Stdio},
};

use foretell::{app::cluster::Cluster, events::prediction::Prediction, http::json_of_answer};
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;

use crate::{
    application::Application,
    process::{Http, Process, SOON, at, tool, until},
};

const SETUP: &str = ".ci/setup broker";

/// An MLflow server with its data in a folder, always on the same port.
struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Process>,
    client: reqwest::blocking::Client,
}

impl Server {
    /// A server that does not run yet.
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = reqwest::blocking::Client::builder().timeout(SOON).build().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), port, process: None, client }
    }

    fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn come_back(&mut self) {
        let folder = self.folder.path().display();
        // In a session of its own, for it starts further processes.
        let mut command = Command::new("setsid");
        command
            .arg(tool("mlflow", SETUP))
            .args(["server", "--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--workers", "1", "--backend-store-uri", &format!("sqlite:///{folder}/db")])
            .args(["--artifacts-destination", &format!("{folder}/artifacts")])
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        self.process = Some(Process::spawn("mlflow server".to_owned(), command));
        until("the MLflow server answers", SOON, || {
            let answer = self.client.get(format!("{}/health", self.uri())).send().ok()?;
            answer.status().is_success().then_some(())
        });
    }

    fn go_away(&mut self) {
        if let Some(mut process) = self.process.take() {
            // All processes of the session.
            process.run_on("pkill -KILL -s");
            process.end(SOON);
        }
    }

    fn post(&self, path: &str, body: &Json) -> Option<Json> {
        let address = format!("{}/api/2.0/mlflow/{path}", self.uri());
        let answer = self.client.post(address).json(body).send().ok()?;
        answer.error_for_status().ok()?.json().ok()
    }

    /// The runs of the only experiment, newest first.
    fn runs(&self) -> Vec<Json> {
        let body = json!({ "experiment_ids": ["1"], "max_results": 1000 });
        let found = self.post("runs/search", &body).unwrap_or_default();
        found["runs"].as_array().cloned().unwrap_or_default()
    }

    /// The aliases of the registered model, with the model versions that they point to.
    fn aliases(&self, model: &str) -> Map<String, Json> {
        let get = |path: String| -> Option<Json> {
            let answer = self.client.get(format!("{}/api/2.0/mlflow/{path}", self.uri())).send();
            answer.ok()?.error_for_status().ok()?.json().ok()
        };
        let registered = get(format!("registered-models/get?name={model}")).unwrap_or_default();
        let aliases = registered.pointer("/registered_model/aliases").and_then(Json::as_array);
        let version_of = |alias: &Json| {
            let number = alias["version"].as_str().unwrap();
            let version = get(format!("model-versions/get?name={model}&version={number}")).unwrap();
            tag(&version["model_version"]["tags"], "foretell.model_version").unwrap()
        };
        let aliases = aliases.into_iter().flatten();
        aliases
            .map(|alias| (alias["alias"].as_str().unwrap().to_owned(), json!(version_of(alias))))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn tag(tags: &Json, key: &str) -> Option<String> {
    let tag = tags.as_array()?.iter().find(|tag| tag["key"] == key)?;
    Some(tag["value"].as_str()?.to_owned())
}

fn run_tag(run: &Json, key: &str) -> Option<String> {
    tag(run.pointer("/data/tags")?, key)
}

/// The runs of trainings by the id of the training, each with its status and the number of its trials.
fn trainings(runs: &[Json]) -> Vec<(String, String, usize)> {
    let of = |run: &Json| {
        let id = at(run, "/info/run_id").as_str().unwrap();
        let parent = Some(id.to_owned());
        let trials = runs.iter().filter(|run| run_tag(run, "mlflow.parentRunId") == parent).count();
        let status = at(run, "/info/status").as_str().unwrap().to_owned();
        Some((run_tag(run, "foretell.training_id")?, status, trials))
    };
    let mut trainings: Vec<_> = runs.iter().filter_map(of).collect();
    trainings.sort();
    trainings
}

/// Writes the predictions of a model to a file, with the answers by name.
fn write_predictions(application: &Application, version: &str) -> (PathBuf, usize) {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let events = &config.event_schema;
    let mut lines = Vec::new();
    let read = cluster.read_values(&config, &config.topics.predictions, |made: Prediction| {
        if made.model_version == version {
            let names = events.questions().iter().map(|question| question.name.clone());
            let answers = events.layout().answers(&made.answers).map(json_of_answer);
            let answers: Map<String, Json> = names.zip(answers).collect();
            let probabilities = made.probabilities.iter();
            let probabilities: Map<String, Json> = probabilities
                .map(|class| (class.label.to_owned(), json!(class.probability)))
                .collect();
            let line = json!({ "answers": answers, "probabilities": probabilities });
            lines.push(line.to_string());
        }
        ControlFlow::Continue(())
    });
    read.unwrap();
    let path = std::env::temp_dir().join(format!("predictions-{version}.jsonl"));
    fs::write(&path, lines.join("\n")).unwrap();
    (path, lines.len())
}

/// Loads the champion in Python in both ways, and compares it with the predictions of that model.
fn check_python(application: &Application, server: &Server, model: &str, version: &str) {
    let (predictions, count) = write_predictions(application, version);
    assert!(count > 50, "{count} predictions of {version}");
    // The Python of the environment that MLflow is installed in.
    let python = fs::canonicalize(tool("mlflow", SETUP)).unwrap().with_file_name("python3");
    let script = format!("{}/tests/broker/clients/mlflow_models.py", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command.arg(script).args([&server.uri(), model]).arg(&predictions).stdin(Stdio::null());
    command.env("MLFLOW_DISABLE_TELEMETRY", "true");
    let printed = Process::spawn("mlflow_models.py".to_owned(), command).succeed(SOON);
    let found: Json = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(found["rows"], count, "{found}");
    for way in ["pyfunc", "lightgbm"] {
        let difference = found[way].as_f64().unwrap();
        assert!(difference < 1e-9, "{way} differs by {difference}");
    }
    assert_eq!(found["foretell_model_version"], version, "{found}");
    assert_eq!(found["example"], 1.0, "the input example is scored: {found}");
    fs::remove_file(predictions).unwrap();
}

/// An application whose second model is due after 400 labels, and its server, which is away.
fn application() -> (Application, Server) {
    let server = Server::new();
    let uri = format!("mlflow.tracking_uri={}", server.uri());
    let settings = [
        "broker.session_timeout=6s",
        "broker.transaction_timeout=5s",
        "learning.retrain_after=400",
        "learning.judge.policy=always",
        "learning.tuning.trials=2",
        "tuning.trials=3",
        "tuning.iterations_max=40",
        "outcomes.window=10m",
        &uri,
    ];
    (Application::new("mlflow", &settings), server)
}

fn instance(application: &Application) -> (Process, Http) {
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    (process, http)
}

/// Plays respondents with their outcomes.
fn send(application: &Application, number: &str, seed: &str) {
    let send = ["send", "--quiet", "--rate", "250", "--outcome-delay", "1s", "--limit", number];
    let sent = application.start(&[&send[..], &["--seed", seed]].concat()).succeed(SOON);
    assert!(sent.contains(&format!("{number} of {number} predictions came back")), "{sent}");
}

/// The version that serves, after `examples` labelled examples.
fn serves_after(http: &Http, examples: usize) -> String {
    until("a model of the stream serves", SOON, || {
        let status = http.status();
        let is_trained = *at(&status, "/model/examples/1") == json!(examples);
        is_trained.then(|| at(&status, "/model/version").as_str().unwrap().to_owned())
    })
}

/// Waits until the alias `champion` points to a version.
fn until_champion(server: &Server, model: &str, version: &str) {
    until("the alias has followed", SOON, || {
        (server.aliases(model).get("champion") == Some(&json!(version))).then_some(())
    });
}

/// Waits until every decision is recorded, and asserts that each training and each trial has one run.
fn check_runs(server: &Server, expected: &[(&str, &str, usize)]) {
    until("every decision is there", SOON, || {
        let runs = server.runs();
        let decided = runs.iter().filter(|run| run_tag(run, "foretell.decision").is_some()).count();
        // The first model is not decided on.
        (decided == expected.len() - 1).then_some(())
    });
    let runs = server.runs();
    let owned = |(id, status, trials): &(&str, &str, usize)| {
        ((*id).to_owned(), (*status).to_owned(), *trials)
    };
    assert_eq!(trainings(&runs), expected.iter().map(owned).collect::<Vec<_>>());
    let trials: usize = expected.iter().map(|(_, _, trials)| trials).sum();
    assert_eq!(runs.len(), expected.len() + trials, "no other runs");
}

/// Waits until the run of a model has live metrics.
fn until_live_metrics(server: &Server, version: &str) {
    until("live metrics of the champion", SOON, || {
        let runs = server.runs();
        let of_model =
            |run: &&Json| run_tag(run, "foretell.model_version").as_deref() == Some(version);
        let run = runs.iter().find(of_model)?;
        let metrics = run.pointer("/data/metrics")?.as_array()?;
        let has = |name: &str| metrics.iter().any(|metric| metric["key"] == name);
        (has("live.predictions") && has("live.log_loss")).then_some(())
    });
}

#[test]
fn trainings_are_tracked_once_whoever_is_away_or_killed() {
    let (application, mut server) = application();
    application.init();
    let model = application.config().application();

    // The server is away: everything goes on without it.
    let (mut process, http) = instance(&application);
    send(&application, "500", "1");
    let second = serves_after(&http, 400);
    until("the server is reported as away", SOON, || {
        let is_away = http.metric("foretell_mlflow_up") < 0.5;
        (is_away && http.metric("foretell_mlflow_retries_total") > 0.0).then_some(())
    });

    // It comes, and is killed when it has the first runs. The instance is killed when there are more.
    server.come_back();
    until("the first runs are there", SOON, || (!server.runs().is_empty()).then_some(()));
    server.go_away();
    server.come_back();
    until("more runs are there", SOON, || (server.runs().len() > 2).then_some(()));
    process.signal("KILL");
    process.end(SOON);
    drop(process);
    let (mut process, http) = instance(&application);
    until_champion(&server, &model, &second);
    check_runs(&server, &[("training-0", "FINISHED", 3), ("training-1", "FINISHED", 2)]);

    // Live metrics are appended to the run of the model that made the predictions.
    send(&application, "500", "2");
    until_live_metrics(&server, &second);
    let third = serves_after(&http, 800);
    until_champion(&server, &model, &third);
    // Too few for one more training.
    send(&application, "150", "3");
    check_python(&application, &server, &model, &third);
    let trials = [("training-0", 3), ("training-1", 2), ("training-2", 2)];
    check_runs(&server, &trials.map(|(id, trials)| (id, "FINISHED", trials)));
    assert!(http.metric("foretell_mlflow_failed_total") < 0.5);
    assert!(http.metric("foretell_mlflow_up") > 0.5);

    // An alias follows a rollback.
    application.start(&["models", "rollback", "--reason", "a test"]).succeed(SOON);
    until_champion(&server, &model, &second);
    process.signal("TERM");
    assert!(process.end(SOON).success(), "{}", process.errors());
}
