//! What MLflow's client and Python make of a model that `foretell train` has written. It needs no broker, but MLflow.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value as Json;

use crate::{
    process::{Process, SOON, tool},
    training_job::TrainingJob,
};

#[test]
fn the_client_and_the_files_give_the_same_scores() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    job.train();
    let mut serving = job.serve();
    let http = serving.http();
    let python = fs::canonicalize(tool("mlflow", ".ci/setup broker")).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/clients/mlflow_scoring.py");
    let mut command = Command::new(python.with_file_name("python3"));
    let port = http.base.rsplit(':').next().unwrap();
    command.args([script, port]).arg(job.root.join("model")).stdin(Stdio::null());
    command.env("MLFLOW_DISABLE_TELEMETRY", "true");
    let printed = Process::spawn("mlflow_scoring.py".to_owned(), command).succeed(SOON);
    let found: Json = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(found["rows"], 3, "{found}");
    let difference = found["difference"].as_f64().unwrap();
    assert!(difference < 1e-9, "{found}");
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"), "{found}");
    serving.signal("TERM");
    assert_eq!(serving.end(SOON).code(), Some(0), "{}", serving.errors());
}
