//! A server with the part of MLflow's REST API that tracking uses, in memory. A test can make requests fail, before or after they
//! took effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use serde_json::{Value as Json, json};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It takes effect, and the response is lost.
    AfterEffect,
    /// It takes no effect, and is answered with this status.
    Status(u16),
    /// It takes no effect, and is not answered while the server runs.
    Hang,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FakeRun {
    pub(super) name: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) parameters: BTreeMap<String, String>,
    /// Name, step, time and value.
    pub(super) metrics: BTreeSet<(String, i64, i64, String)>,
    pub(super) status: String,
    pub(super) start: i64,
    pub(super) end: Option<i64>,
    pub(super) datasets: BTreeSet<String>,
    pub(super) models: Vec<String>,
    pub(super) is_deleted: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FakeModel {
    pub(super) run: String,
    pub(super) is_ready: bool,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FakeVersion {
    pub(super) run: String,
    pub(super) model: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) is_deleted: bool,
}

/// What the server has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    pub(super) experiments: Vec<String>,
    pub(super) runs: Vec<FakeRun>,
    pub(super) models: Vec<FakeModel>,
    pub(super) registered: BTreeSet<String>,
    pub(super) versions: Vec<FakeVersion>,
    pub(super) aliases: BTreeMap<String, String>,
    /// Number of requests that were received.
    pub(super) requests: usize,
}

impl Contents {
    /// The runs that are not deleted and have a tag.
    pub(super) fn runs_with(&self, tag: &str) -> Vec<&FakeRun> {
        self.runs.iter().filter(|run| !run.is_deleted && run.tags.contains_key(tag)).collect()
    }
}

type Faults = Box<dyn FnMut(usize, &str) -> Option<Fault> + Send>;

struct State {
    contents: Contents,
    /// Chooses the fault of a request by its number, from 0, and its path.
    faults: Faults,
}

pub(super) struct FakeServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Connections that hang wait for its end.
    _running: mpsc::Sender<()>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeServer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { contents: Contents::default(), faults: Box::new(|_, _| None) };
        let state = Arc::new(Mutex::new(state));
        let (running, stopped) = mpsc::channel::<()>();
        let stopped = Arc::new(Mutex::new(stopped));
        let accepted = Arc::clone(&state);
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (state, stopped) = (Arc::clone(&accepted), Arc::clone(&stopped));
                thread::spawn(move || drop(serve(stream, &state, &stopped)));
            }
        });
        Self { address, state, _running: running }
    }

    pub(super) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn contents(&self) -> Contents {
        lock(&self.state).contents.clone()
    }

    /// Changes what the server has, as an operator could.
    pub(super) fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut lock(&self.state).contents);
    }

    /// Chooses the faults of the following requests, whose numbers begin at 0 again.
    pub(super) fn fail(&self, faults: impl FnMut(usize, &str) -> Option<Fault> + Send + 'static) {
        let mut state = lock(&self.state);
        state.faults = Box::new(faults);
        state.contents.requests = 0;
    }
}

/// Answers the requests of one connection.
fn serve(
    mut stream: TcpStream,
    state: &Mutex<State>,
    stopped: &Mutex<mpsc::Receiver<()>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim_end().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, answer) = {
            let mut state = lock(state);
            let number = state.contents.requests;
            state.contents.requests += 1;
            match (state.faults)(number, &path) {
                None => state.contents.answer(&method, &path, &body),
                Some(Fault::AfterEffect) => {
                    state.contents.answer(&method, &path, &body);
                    return Ok(());
                }
                Some(Fault::Status(status)) => (status, json!({ "message": "a fault" })),
                Some(Fault::Hang) => {
                    drop(state);
                    let stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                    return stopped.recv().map_err(std::io::Error::other);
                }
            }
        };
        let text = answer.to_string();
        let head = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n\r\n", text.len());
        // In one write: with several, the client's system would delay each answer.
        stream.write_all((head + &text).as_bytes())?;
    }
}

fn error(status: u16, code: &str) -> (u16, Json) {
    (status, json!({ "error_code": code, "message": code }))
}

fn pairs(json: &Json) -> BTreeMap<String, String> {
    let pairs = json.as_array().into_iter().flatten();
    pairs.map(|pair| (text(&pair["key"]), text(&pair["value"]))).collect()
}

fn text(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), ToOwned::to_owned)
}

/// The name and the value of a filter `name = 'value'`. Names of tags stand between backticks.
fn filter_of(filter: &str) -> (String, String) {
    let (name, value) = filter.split_once(" = ").unwrap();
    let name = name.trim_start_matches("tags.").trim_matches('`');
    (name.to_owned(), value.trim_matches('\'').to_owned())
}

impl Contents {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Json) {
        if let Some(file) = path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/1/models/") {
            let (model, file) = file.split_once("/artifacts/").unwrap();
            let model: usize = model.parse().unwrap();
            self.models[model].files.insert(file.to_owned(), body.to_vec());
            return (200, json!({}));
        }
        let body: Json = serde_json::from_slice(body).unwrap_or(Json::Null);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let call = path.strip_prefix("/api/2.0/mlflow/").unwrap();
        let query = |key: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")));
            percent_encoding::percent_decode_str(found.unwrap()).decode_utf8_lossy().into_owned()
        };
        match (method, call) {
            ("GET", "experiments/get-by-name") => {
                let name = query("experiment_name");
                if !self.experiments.contains(&name) {
                    return error(404, "RESOURCE_DOES_NOT_EXIST");
                }
                (
                    200,
                    json!({ "experiment": { "experiment_id": "1", "lifecycle_stage": "active" } }),
                )
            }
            ("POST", "experiments/create") => {
                self.experiments.push(text(&body["name"]));
                (200, json!({ "experiment_id": "1" }))
            }
            ("POST", call) if call.starts_with("runs/") => self.answer_of_run(call, &body),
            ("POST", "logged-models/search") => {
                let (_, run) = filter_of(&text(&body["filter"]));
                let found = self.models.iter().enumerate().filter(|(_, model)| model.run == run);
                (
                    200,
                    json!({ "models": found.map(|(id, model)| model.json(id)).collect::<Json>() }),
                )
            }
            ("POST", "logged-models") => {
                let run = text(&body["source_run_id"]);
                self.models.push(FakeModel { run, ..FakeModel::default() });
                let id = self.models.len() - 1;
                (200, json!({ "model": self.models[id].json(id) }))
            }
            ("PATCH", call) if call.starts_with("logged-models/") => {
                let id: usize = text(&body["model_id"]).parse().unwrap();
                self.models[id].is_ready = true;
                (200, json!({}))
            }
            (_, call) => {
                let filter =
                    if call == "model-versions/search" { query("filter") } else { String::new() };
                self.answer_of_registry(method, call, &body, &filter)
            }
        }
    }

    fn answer_of_run(&mut self, call: &str, body: &Json) -> (u16, Json) {
        if call == "runs/create" {
            self.runs.push(FakeRun {
                name: text(&body["run_name"]),
                tags: pairs(&body["tags"]),
                status: "RUNNING".to_owned(),
                start: body["start_time"].as_i64().unwrap(),
                ..FakeRun::default()
            });
            let id = (self.runs.len() - 1).to_string();
            return (200, json!({ "run": { "info": { "run_id": id } } }));
        }
        if call == "runs/search" {
            let (tag, value) = filter_of(&text(&body["filter"]));
            let mut found: Vec<_> = self.runs.iter().enumerate().collect();
            found.retain(|(_, run)| !run.is_deleted && run.tags.get(&tag) == Some(&value));
            found.sort_by_key(|(_, run)| -run.start);
            return (
                200,
                json!({ "runs": found.iter().map(|(id, run)| run.json(*id)).collect::<Json>() }),
            );
        }
        let id: usize = text(&body["run_id"]).parse().unwrap();
        let Some(run) = self.runs.get_mut(id).filter(|run| !run.is_deleted) else {
            return error(404, "RESOURCE_DOES_NOT_EXIST");
        };
        match call {
            "runs/log-batch" => {
                let parameters = pairs(&body["params"]);
                let changes = |(key, value): (&String, &String)| {
                    run.parameters.get(key).is_some_and(|old| old != value)
                };
                if parameters.iter().any(changes) {
                    return error(400, "INVALID_PARAMETER_VALUE");
                }
                run.parameters.extend(parameters);
                run.tags.extend(pairs(&body["tags"]));
                run.metrics.extend(body["metrics"].as_array().into_iter().flatten().map(
                    |metric| {
                        let number = |key: &str| metric[key].as_i64().unwrap();
                        (
                            text(&metric["key"]),
                            number("step"),
                            number("timestamp"),
                            text(&metric["value"]),
                        )
                    },
                ));
            }
            "runs/log-inputs" => {
                run.datasets.insert(text(&body["datasets"][0]["dataset"]["digest"]));
            }
            "runs/outputs" => {
                let model = text(&body["models"][0]["model_id"]);
                if run.models.contains(&model) {
                    return error(400, "INVALID_PARAMETER_VALUE");
                }
                run.models.push(model);
            }
            "runs/update" => {
                run.status = text(&body["status"]);
                run.end = body["end_time"].as_i64();
            }
            "runs/delete" => run.is_deleted = true,
            other => panic!("{other}"),
        }
        (200, json!({}))
    }

    fn answer_of_registry(
        &mut self,
        method: &str,
        call: &str,
        body: &Json,
        filter: &str,
    ) -> (u16, Json) {
        match (method, call) {
            ("POST", "registered-models/create") => {
                if !self.registered.insert(text(&body["name"])) {
                    return error(400, "RESOURCE_ALREADY_EXISTS");
                }
            }
            ("GET", "model-versions/search") => {
                let (_, filter) = filter.split_once(" AND ").unwrap();
                let (name, value) = filter_of(filter);
                let versions = self.versions.iter().enumerate();
                let found = versions.filter(|(_, version)| {
                    let own =
                        if name == "run_id" { Some(&version.run) } else { version.tags.get(&name) };
                    !version.is_deleted && own == Some(&value)
                });
                // The newest first, as MLflow answers.
                let mut found: Vec<Json> = found
                    .map(|(number, _)| json!({ "version": (number + 1).to_string() }))
                    .collect();
                found.reverse();
                return (200, json!({ "model_versions": found }));
            }
            ("POST", "model-versions/create") => self.versions.push(FakeVersion {
                run: text(&body["run_id"]),
                model: text(&body["model_id"]),
                tags: pairs(&body["tags"]),
                is_deleted: false,
            }),
            ("DELETE", "model-versions/delete") => {
                let number: usize = text(&body["version"]).parse().unwrap();
                self.versions[number - 1].is_deleted = true;
            }
            ("POST", "registered-models/alias") => {
                self.aliases.insert(text(&body["alias"]), text(&body["version"]));
            }
            ("DELETE", "registered-models/alias") => {
                self.aliases.remove(&text(&body["alias"]));
            }
            other => panic!("{other:?}"),
        }
        (200, json!({}))
    }
}

impl FakeRun {
    fn json(&self, id: usize) -> Json {
        let pairs = |of: &BTreeMap<String, String>| {
            of.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect::<Json>()
        };
        // They are in the order of the step and the time.
        let last: BTreeMap<&str, &str> =
            self.metrics.iter().map(|(key, _, _, value)| (key.as_str(), value.as_str())).collect();
        let metrics = last.into_iter().map(|(key, value)| {
            let value = value.parse::<f64>().map_or(json!(value), |value| json!(value));
            json!({ "key": key, "value": value })
        });
        let models = self.models.iter().map(|model| json!({ "model_id": model }));
        let mut info = json!({ "run_id": id.to_string(), "status": self.status });
        if let Some(end) = self.end {
            info["end_time"] = json!(end);
        }
        json!({
            "info": info,
            "data": {
                "tags": pairs(&self.tags),
                "params": pairs(&self.parameters),
                "metrics": metrics.collect::<Json>(),
            },
            "outputs": { "model_outputs": models.collect::<Json>() },
        })
    }
}

impl FakeModel {
    fn json(&self, id: usize) -> Json {
        let status = if self.is_ready { "LOGGED_MODEL_READY" } else { "LOGGED_MODEL_PENDING" };
        json!({ "info": {
            "model_id": id.to_string(),
            "status": status,
            "artifact_uri": format!("mlflow-artifacts:/1/models/{id}/artifacts"),
        } })
    }
}
