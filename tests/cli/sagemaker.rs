//! `foretell train` and `foretell serve` as SageMaker runs them: folders, environment, requests, signals.

use std::{fs, process::Command};

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::{
    http::{Answer, Instance},
    process::{Process, SOON, at, tool, until},
    training_job::{ROWS, TrainingJob, lines},
};

/// The questions of the example that its table has, in the order of the event schema, with the columns of the table.
const CELLS: [(&str, usize); 13] = [
    ("age", 0),
    ("workclass", 1),
    ("fnlwgt", 2),
    ("education", 3),
    ("marital_status", 5),
    ("occupation", 6),
    ("relationship", 7),
    ("race", 8),
    ("gender", 9),
    ("capital_gain", 10),
    ("capital_loss", 11),
    ("hours_per_week", 12),
    ("native_country", 13),
];

/// Rows of the test table as lines of CSV without a header, and as JSON.
fn rows(number: usize) -> (String, Vec<Json>) {
    let (mut csv, mut json) = (String::new(), Vec::new());
    for line in lines("adult.test.gz", number + 1).iter().skip(1) {
        let cells: Vec<&str> = line.trim().split(", ").collect();
        let answer = |column: usize| if cells[column] == "?" { "" } else { cells[column] };
        let values: Vec<&str> = CELLS.iter().map(|(_, column)| answer(*column)).collect();
        csv += &(values.join(",") + "\n");
        let named = CELLS.iter().map(|(name, column)| ((*name).to_owned(), json!(answer(*column))));
        json.push(Json::Object(named.collect()));
    }
    (csv, json)
}

fn ask(instance: &Instance, kind: &str, accept: &str, body: &str) -> Answer {
    let headers = [("content-type", kind), ("accept", accept)];
    instance.ask(Method::POST, "/invocations", &headers, body)
}

/// The cells of a line of an answer: the label, and the probabilities to the bit.
fn scores_of_csv(answer: &Answer) -> Vec<(String, Vec<u64>)> {
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (200, &"text/csv".parse().unwrap())
    );
    let lines = answer.body.as_str().unwrap().lines();
    let scores = lines.map(|line| {
        let (label, numbers) = line.split_once(',').unwrap();
        let bits = numbers.split(',').map(|number| number.parse::<f64>().unwrap().to_bits());
        (label.to_owned(), bits.collect())
    });
    scores.collect()
}

fn scores_of_json<'j>(predictions: impl IntoIterator<Item = &'j Json>) -> Vec<(String, Vec<u64>)> {
    let scores = predictions.into_iter().map(|one| {
        let probabilities = one["probabilities"].as_object().unwrap().values();
        let bits = probabilities.map(|number| number.as_f64().unwrap().to_bits());
        (one["label"].as_str().unwrap().to_owned(), bits.collect())
    });
    scores.collect()
}

#[test]
fn a_job_makes_the_model_of_init_which_serves_the_same_scores() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    // That of an earlier run of the job.
    job.write("output/failure", "it was out of memory");
    let output = job.train();
    assert!(!job.root.join("output/failure").exists());
    check_metric_definitions(&output);
    let toml = job.read("model/foretell.toml");
    assert!(toml.contains("event.avsc") && !toml.contains("localhost"), "{toml}");

    // The same table in one file, by `init` in an instance.
    let table = folder.path().join("all.csv");
    fs::write(&table, lines("adult.data.gz", ROWS).concat()).unwrap();
    let config = job.root.join("input/data/config/foretell.toml");
    let mut arguments = vec!["run", "--embedded", "-c", config.to_str().unwrap()];
    let sets = [
        format!("data.initial.path={}", table.display()),
        format!("data.play.path={}", job.root.join("input/data/validation/test.csv").display()),
        "tuning.trials=1".to_owned(),
        "tuning.iterations_max=20".to_owned(),
        "http.bind=127.0.0.1:0".to_owned(),
    ];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let whole = Instance::of(Process::start(&arguments), tempfile::tempdir().unwrap());
    whole.http.ready();
    let served = Instance::of(job.serve(), folder);

    let (csv, json) = rows(200);
    let expected = whole.post("/invocations", &json!({ "instances": json }));
    let version = at(&expected.body, "/model_version").as_str().unwrap();
    assert!(output.contains(&format!("model {version}: ")), "{version} in {output}");
    let expected = scores_of_json(at(&expected.body, "/predictions").as_array().unwrap());
    assert_eq!(expected.len(), 200);
    for instance in [&whole, &served] {
        assert_eq!(scores_of_csv(&ask(instance, "text/csv", "text/csv", &csv)), expected);
        let lines: String = json.iter().map(|row| format!("{row}\n")).collect();
        let answer = ask(instance, "application/jsonlines", "application/jsonlines", &lines);
        assert_eq!(answer.headers["content-type"], "application/jsonlines");
        assert_eq!(answer.headers["foretell-model-version"], version);
        let predictions = answer.body.as_str().unwrap().lines().map(serde_json::from_str);
        let predictions: Vec<Json> = predictions.collect::<Result<_, _>>().unwrap();
        assert_eq!(scores_of_json(&predictions), expected);
    }
    whole.end();
    check_endpoint(&served, &csv);
    served.end();
}

/// What SageMaker asks of an endpoint and of a batch transform.
fn check_endpoint(served: &Instance, csv: &str) {
    let get = |path: &str| served.ask(Method::GET, path, &[], "");
    assert_eq!(get("/ping").status, 200);
    assert_eq!(get("/livez").status, 200);
    assert_eq!(get("/readyz").body, json!({ "ready": true }));
    let limits = get("/execution-parameters").body;
    assert_eq!(
        (&limits["MaxPayloadInMB"], &limits["BatchStrategy"]),
        (&json!(6), &json!("MULTI_RECORD"))
    );
    // Its front end may call it by any name.
    let host = [("host", "model.internal:8080"), ("content-type", "text/csv")];
    assert_eq!(served.ask(Method::POST, "/invocations", &host, csv).status, 200);
    assert_eq!(
        served.ask(Method::GET, "/api/v1/status", &[], "").status,
        404,
        "there is no stream"
    );
    // A payload of a batch transform is 6 MB at most.
    let batch = csv.repeat((6 << 20) / csv.len());
    let answer = ask(served, "text/csv", "text/csv", &batch);
    assert_eq!(scores_of_csv(&answer).len(), batch.lines().count());
    let too_large = csv.repeat((6 << 20) / csv.len() + 1);
    assert_eq!(ask(served, "text/csv", "text/csv", &too_large).status, 413);
    assert_eq!(ask(served, "text/csv", "image/png", csv).status, 406);
    let reasons = json!({"instances": [{"age": 40}], "params": {"reasons": 2}}).to_string();
    assert_eq!(ask(served, "application/json", "text/csv", &reasons).status, 400);
    assert!(served.http.metric("foretell_http_rows_scored_total") > 1000.0);
    assert!(served.http.metric("process_resident_memory_bytes") > 0.0);
}

/// Each definition of a metric in the documentation finds a number in the output of a job.
fn check_metric_definitions(output: &str) {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/serving.md")).unwrap();
    let definitions: Vec<&str> = docs
        .lines()
        .map(|line| line.trim().trim_end_matches(','))
        .filter(|line| line.starts_with("{\"Name\": "))
        .collect();
    assert!(definitions.len() >= 3, "{definitions:?}");
    let script = "import json, re, sys\n\
        for definition in json.loads(sys.argv[1]):\n    \
            print(definition['Name'], float(re.findall(definition['Regex'], sys.argv[2])[-1]))";
    let definitions = format!("[{}]", definitions.join(","));
    let mut python = Command::new(tool("python3", ".ci/setup test"));
    let found = python.args(["-c", script, &definitions, output]).output().unwrap();
    let errors = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "{errors}\n{definitions}\n{output}");
}

#[test]
fn a_repeated_job_leaves_the_files_of_one_model_and_names_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    job.train();
    let names = || {
        let entries = fs::read_dir(job.root.join("model")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let mut expected = names();
    // As if the model before had another topic with events.
    let toml = job.read("model/foretell.toml");
    let companion = "[[events.companions]]\ntopic = \"orders\"\nschema = \"orders.avsc\"\n";
    job.write("model/foretell.toml", &format!("{toml}\n{companion}"));
    job.write("model/orders.avsc", "{}");
    job.write("model/notes.txt", "mine");
    let mut process = job.start();
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    expected.insert("notes.txt".to_owned());
    assert_eq!(names(), expected);
    let errors = process.errors();
    let warning = "model has files that are not the model's, which stay: notes.txt";
    assert!(errors.contains(warning), "{errors}");
}

#[test]
fn a_stopped_job_saves_the_best_model_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    job.set(&[("tuning.trials", "10000"), ("tuning.time", "10h")]);
    let mut process = job.start();
    until("two trials are finished", SOON, || {
        process.output().contains("trial 2 of 10000: ").then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    let output = process.output();
    assert!(output.contains("best of ") && output.contains("validation: log_loss="), "{output}");
    let served = Instance::of(job.serve(), folder);
    assert_eq!(ask(&served, "text/csv", "text/csv", "age\n40\n").status, 200);
    served.end();
}

#[test]
fn a_failure_is_written_where_sagemaker_looks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    let fails = |words: &[&str]| {
        let mut process = job.start();
        assert_eq!(process.end(SOON).code(), Some(1), "{}", process.output());
        let (reason, errors) = (job.read("output/failure"), process.errors());
        for words in words {
            assert!(reason.contains(words) && errors.contains(words), "{words:?} in {reason:?}");
        }
        assert!(!errors.contains("panicked"), "{errors}");
    };
    job.set(&[("tuning.trails", "5")]);
    fails(&["hyperparameter tuning.trails: ", "did you mean [tuning] trials?"]);
    job.set(&[("tuning.trials", "many")]);
    fails(&["hyperparameter tuning.trials: [tuning] trials: "]);
    job.set(&[]);
    job.write("input/data/training/part-2.csv", "old, Private, 1\n");
    fails(&["part-2.csv, line 1: "]);
    job.write("input/data/training/part-2.csv", "");
    job.write("input/config/resourceconfig.json", "{\"hosts\": [\"algo-1\", \"algo-2\"]}");
    fails(&["2 hosts", "instance count"]);
    job.write("input/config/resourceconfig.json", "{");
    fails(&["resourceconfig.json: EOF"]);
    job.write("input/config/resourceconfig.json", "{}");
    let pipe = "{\"training\": {\"TrainingInputMode\": \"Pipe\"}}";
    job.write("input/config/inputdataconfig.json", pipe);
    fails(&["channel training has the input mode Pipe"]);
    job.write("input/config/inputdataconfig.json", "{}");
    job.write("input/data/test/one.csv", "");
    fails(&["the channels validation and test"]);
    fs::remove_dir_all(job.root.join("input/data/test")).unwrap();
    job.write("input/data/validation/two.csv", "");
    fails(&["channel validation has 2 files"]);
    fs::remove_dir_all(job.root.join("input/data/config")).unwrap();
    fails(&["no foretell.toml in the channel config or training"]);
    assert!(!job.root.join("model").exists());
    let mut serve = job.serve();
    assert_eq!(serve.end(SOON).code(), Some(1));
    assert!(serve.errors().contains("there is no model.txt in "), "{}", serve.errors());
}

#[test]
fn a_model_that_gives_everyone_the_same_probabilities_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    // No leaf can have as many examples.
    job.set(&[("tuning.space.min_data_in_leaf", "100000")]);
    let mut process = job.start();
    assert!(process.end(SOON).success(), "{}", process.errors());
    assert!(process.errors().contains("the model has no split"), "{}", process.errors());
}

#[test]
fn a_channel_that_is_not_read_as_it_is_meant_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    let data = job.root.join("input/data");
    let fails = |words: &str| {
        let mut process = job.start();
        assert_eq!(process.end(SOON).code(), Some(1), "{}", process.output());
        let reason = job.read("output/failure");
        assert!(reason.contains(words), "{words:?} in {reason:?}");
    };
    job.set(&[("broker.bootstrap_servers", "a:1")]);
    fails("hyperparameter broker.bootstrap_servers: [broker] bootstrap_servers: it has no effect");
    job.set(&[("trials", "5")]);
    fails("did you mean [tuning] trials?");
    job.set(&[]);
    let test = job.read("input/data/validation/test.csv");
    job.write("input/data/validation/test.csv", "");
    fails("test.csv: it has no row to evaluate the model on");
    // With the names of the columns only.
    job.set(&[("data.play.columns", "[]")]);
    job.write("input/data/validation/test.csv", "age,income_bracket\n");
    fails("test.csv: it has no row to evaluate the model on: give it rows, or leave it out");
    job.set(&[]);
    job.write("input/data/validation/test.csv", &test);
    fs::rename(data.join("training"), data.join("trainings")).unwrap();
    fails("there is no channel training or train; there are config, trainings, validation");
    fs::create_dir(data.join("training")).unwrap();
    fs::rename(data.join("trainings"), data.join("training/2026")).unwrap();
    fails("channel training has no file with data: its folders are not read (2026)");
    fs::remove_dir_all(data.join("training")).unwrap();
    fails("there is no channel training or train; there are config, validation");
}

#[test]
fn a_relative_root_is_one_from_the_working_directory() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    job.set(&[("serving.journal", "False"), ("tuning.trials", "\"1\"")]);
    job.write("input/data/training/more/part-2.csv", "");
    let first = format!("cd {}", folder.path().display());
    let mut process = Process::start_after(&first, &["train", "--root", "ml"]);
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    let warning = "channel training: its folders are not read (more)";
    assert!(process.errors().contains(warning), "{}", process.errors());
    job.write("input/data/training/part-0.csv", "");
    job.write("input/data/training/part-1.csv", "");
    let mut process = Process::start_after(&first, &["train", "--root", "ml"]);
    assert_eq!(process.end(SOON).code(), Some(1), "{}", process.errors());
    let reason = job.read("output/failure");
    assert!(reason.contains("part-0.csv") && !reason.contains("config/ml"), "{reason}");
}

#[test]
fn a_model_is_refused_that_does_not_fit_what_is_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    job.train();
    let fails = |words: &str| {
        let mut serve = job.serve();
        assert_eq!(serve.end(SOON).code(), Some(1), "{}", serve.errors());
        assert!(serve.errors().contains(words), "{words:?} in {}", serve.errors());
    };
    let toml = job.read("model/foretell.toml");
    job.write("model/foretell.toml", &toml.replace("\"<=50K\", ", "\"low\", "));
    fails("its classes are [\"<=50K\", \">50K\"]");
    job.write("model/foretell.toml", &toml);
    let model = job.read("model/model.txt");
    job.write("model/model.txt", &model[..model.len() / 2]);
    fails("model.txt");
    let first = "export FORETELL_SERVING_JOURNAL=true";
    let mut serve = Process::start_after(first, &["serve", "--root", job.root.to_str().unwrap()]);
    assert_eq!(serve.end(SOON).code(), Some(1));
    assert!(serve.errors().contains("[serving] journal to false"), "{}", serve.errors());
    for (set, words) in [
        ("serving.enabled=false", "--set serving.enabled: a model alone serves nothing but"),
        ("http.bind=127.0.0.1:0", "--set http.bind: it has no effect here: use --host and --port"),
    ] {
        let root = job.root.to_str().unwrap();
        let mut serve = Process::start(&["serve", "--root", root, "--set", set]);
        assert_eq!(serve.end(SOON).code(), Some(1));
        assert!(serve.errors().contains(words), "{}", serve.errors());
    }
    fs::remove_file(job.root.join("model/foretell.toml")).unwrap();
    fails("there is no foretell.toml in ");
    fs::remove_file(job.root.join("model/model.txt")).unwrap();
    fails("there is no model.txt");
}

#[test]
fn boto_scores_as_with_an_endpoint_of_sagemaker() {
    let folder = tempfile::tempdir().unwrap();
    let job = TrainingJob::new(folder.path());
    job.train();
    let served = Instance::of(job.serve(), folder);
    let (csv, json) = rows(2);
    let mut python = Command::new(tool("python3", ".ci/setup test"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/clients/sagemaker.py");
    let rows = json!({ "instances": json }).to_string();
    let output = python.args([script, &served.http.base, &csv, &rows]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let found: Json = serde_json::from_slice(&output.stdout).unwrap();
    let expected = served.post("/invocations", &json!({ "instances": json })).body;
    assert_eq!(at(&found, "/json"), &expected);
    assert_eq!(at(&found, "/lines"), at(&expected, "/predictions"));
    let labels: Vec<&str> = at(&found, "/csv")
        .as_str()
        .unwrap()
        .lines()
        .map(|line| line.split(',').next().unwrap())
        .collect();
    let predictions = at(&expected, "/predictions").as_array().unwrap();
    let expected: Vec<&str> =
        predictions.iter().map(|one| one["label"].as_str().unwrap()).collect();
    assert_eq!(labels, expected);
    assert!(at(&found, "/error").as_str().unwrap().contains("no field `ages`"), "{found}");
    served.end();
}
