//! HTTP: valid, invalid and hostile requests.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use foretell::http::{Access, PROBLEMS, ROUTES};
use reqwest::{Method, blocking::Client, header::HeaderMap};
use serde_json::{Value as Json, json};

use crate::process::{Http, Process, SOON, at, example, quick_settings, until, waits};

/// An embedded instance with a small first model.
pub(crate) struct Instance {
    pub(crate) process: Process,
    pub(crate) http: Http,
    client: Client,
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Json,
}

impl Instance {
    pub(crate) fn start(more: &[&str]) -> Self {
        let instance = Self::start_tls(more);
        instance.http.ready();
        instance
    }

    /// Starts an instance that perhaps does not serve plain HTTP, so that nothing is asked of it yet.
    pub(crate) fn start_tls(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = quick_settings(folder.path(), 500);
        settings.push("tuning.iterations_max=20".to_owned());
        settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        let config = example();
        let mut arguments = vec!["run", "--embedded", "-c", config];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut process = Process::start(&arguments);
        let http = process.http();
        let client = Client::builder().timeout(SOON).build().unwrap();
        Self { process, http, client, _folder: folder }
    }

    /// A process that serves already, with the folder that it needs.
    pub(crate) fn of(mut process: Process, folder: tempfile::TempDir) -> Self {
        let http = process.http();
        let client = Client::builder().timeout(SOON).build().unwrap();
        Self { process, http, client, _folder: folder }
    }

    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.http.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        assert_documented(&method, path, status);
        let text = answer.text().unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Json::String(text));
        Answer { status, headers, body }
    }

    pub(crate) fn post(&self, path: &str, body: &Json) -> Answer {
        self.ask(Method::POST, path, &[("content-type", "application/json")], &body.to_string())
    }

    /// Sends bytes, and reads the response until the server closes.
    fn send_raw(&self, bytes: &str) -> String {
        let mut stream = self.http.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        read_to_end(&mut stream)
    }

    pub(crate) fn end(mut self) {
        self.process.signal("TERM");
        assert_eq!(self.process.end(SOON).code(), Some(0), "{}", self.process.errors());
        assert!(!self.process.errors().contains("panicked"), "{}", self.process.errors());
    }
}

/// Whether every route may answer with the status code: the part "Errors" of `docs/http-api.md`.
fn is_everywhere(status: u16) -> bool {
    PROBLEMS.iter().any(|problem| problem.status == status && problem.is_everywhere)
}

/// Asserts that the table of routes, and so `docs/http-api.md`, lists the status code.
fn assert_documented(method: &Method, path: &str, status: u16) {
    let path = path.split('?').next().unwrap();
    let is_of = |route: &str| {
        let segments = route.split('/').zip(path.split('/'));
        route.matches('/').count() == path.matches('/').count()
            && segments.into_iter().all(|(of, given)| of == given || of.starts_with('{'))
    };
    let of_method = || ROUTES.iter().filter(|route| route.method == *method);
    // A path without parameters comes before one with them, as in the router.
    let route = of_method().find(|route| route.path == path);
    let route = route.or_else(|| of_method().find(|route| is_of(route.path)));
    let listed = route.map_or(&[][..], |route| route.answers);
    let is_listed = listed.iter().any(|(code, _)| *code == status);
    assert!(
        is_listed || is_everywhere(status),
        "{method} {path} answered {status}, which http/routes.rs does not list"
    );
}

/// Reads until the server closes or resets the connection. It may close with bytes unread.
fn read_to_end(stream: &mut TcpStream) -> String {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(bytes).unwrap()
}

const EVENT: &str = r#"{"respondent_id": "me", "completed": true, "age": 39}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn every_error_is_json_and_requests_of_other_sites_are_refused() {
    let instance = Instance::start(&["http.allowed_hosts=[\"score.example\"]"]);
    errors_are_json(&instance);
    content_types(&instance);
    names(&instance);
    let text = instance.http.get("/metrics").unwrap().1;
    for line in [
        "foretell_http_requests_total{route=\"/api/v1/outcomes\",status=\"5xx\"} 0",
        "foretell_http_requests_total{route=\"unknown\",status=\"4xx\"} 1",
        "foretell_http_waits 0",
        "foretell_http_waits_refused_total 0",
        "foretell_http_connections_refused_total 0",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    instance.end();
}

fn errors_are_json(instance: &Instance) {
    let check = |method: Method, path: &str, body: &str, status: u16, words: &str| {
        let answer = instance.ask(method, path, &[JSON], body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        assert_eq!(at(&answer.body, "/status"), status, "{path}");
        let kind = PROBLEMS.iter().find(|problem| problem.status == status).unwrap();
        assert_eq!(at(&answer.body, "/type"), &kind.uri(), "{path}");
        assert_eq!(at(&answer.body, "/title"), kind.title, "{path}");
        let error = at(&answer.body, "/detail").as_str().unwrap();
        assert!(error.contains(words), "{words:?} in {error:?}");
        answer
    };
    check(Method::GET, "/nowhere", "", 404, "/nowhere");
    let answer = check(Method::GET, "/api/v1/events", "", 405, "GET");
    assert_eq!(answer.headers["allow"], "POST");
    let answer = check(Method::DELETE, "/livez", "", 405, "DELETE");
    assert_eq!(answer.headers["allow"], "GET,HEAD");
    check(Method::POST, "/api/v1/events?wait=perhaps", EVENT, 400, "wait");
    check(Method::POST, "/api/v1/events?awaits=true", EVENT, 400, "awaits");
    check(Method::POST, "/api/v1/events?wait=true&wait=false", EVENT, 400, "wait");
    check(Method::POST, "/api/v1/events?wait=perhaps", EVENT, 400, "true or false");
    check(Method::POST, "/api/v1/events?awaits=true", EVENT, 400, "there are wait, timeout_ms");
    for timeout in ["600000", "0", "-1", "1e3", "soon"] {
        let path = format!("/api/v1/events?wait=true&timeout_ms={timeout}");
        check(Method::POST, &path, EVENT, 400, "it must be a whole number from 1 to 60000");
    }
    for reasons in ["0", "101", "-1", "all"] {
        let path = format!("/api/v1/events?wait=true&reasons={reasons}");
        check(Method::POST, &path, EVENT, 400, "it must be a whole number from 1 to 100");
    }
    check(Method::POST, "/api/v1/events?reasons=5", EVENT, 400, "add wait=true");
    check(Method::POST, "/api/v1/events?wait=false&reasons=5", EVENT, 400, "add wait=true");
    check(Method::POST, "/api/v1/outcomes?wait=true", "{}", 400, "wait");
    check(Method::GET, "/api/v1/status?verbose=1", "", 400, "verbose");
    check(Method::POST, "/api/v1/events", "{", 400, "not JSON");
    check(Method::POST, "/api/v1/events", "", 400, "not JSON");
    let twice = r#"{"respondent_id": "a", "respondent_id": "b"}"#;
    for path in ["/api/v1/events", "/api/v1/outcomes"] {
        check(Method::POST, path, twice, 400, "key \"respondent_id\" is repeated");
    }
    check(Method::POST, "/api/v1/events", "[]", 400, "1 to 1000");
    check(Method::POST, "/api/v1/events?wait=true", "[{}]", 400, "this is an array");
    let large = format!("{{\"respondent_id\": \"{}\"}}", "x".repeat(2 << 20));
    check(Method::POST, "/api/v1/events", &large, 413, "1048576");
    let late = json!({"respondent_id": "me", "event_time": 99_999_999_999_999_i64}).to_string();
    let answer = check(Method::POST, "/api/v1/events", &late, 422, "time_ahead_max");
    assert_eq!(*at(&answer.body, "/class"), "future_time");
    let blank = json!({"respondent_id": " ", "age": 30}).to_string();
    let answer = check(Method::POST, "/api/v1/events", &blank, 422, "`respondent_id`");
    assert_eq!(*at(&answer.body, "/class"), "missing_field");
    let many = format!("[{late}, {EVENT}]");
    let answer = instance.ask(Method::POST, "/api/v1/events", &[JSON], &many);
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(*at(&answer.body, "/results/0/class"), "future_time");
}

fn content_types(instance: &Instance) {
    let status = |headers: &[(&str, &str)]| {
        instance.ask(Method::POST, "/api/v1/events", headers, EVENT).status
    };
    assert_eq!(status(&[JSON]), 202);
    assert_eq!(status(&[("content-type", "application/vnd.api+json; charset=utf-8")]), 202);
    assert_eq!(
        status(&[]),
        202,
        "without an Origin it is not a browser, which always sends a type"
    );
    assert_eq!(status(&[("origin", "http://localhost:3000")]), 415);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(status(&[("content-type", kind)]), 415, "{kind}");
    }
}

fn names(instance: &Instance) {
    let post = |name: &str, value: &str| {
        let headers = [JSON, (name, value)];
        instance.ask(Method::POST, "/api/v1/events", &headers, EVENT)
    };
    for host in ["localhost", "127.0.0.1:1", "[::1]:8000", "score.example"] {
        assert_eq!(post("host", host).status, 202, "{host}");
    }
    for host in ["evil.example", "evil.example:8000", "localhost.evil.example"] {
        let answer = post("host", host);
        assert_eq!(answer.status, 403, "{host}");
        let error = at(&answer.body, "/detail").as_str().unwrap();
        assert!(error.contains(host) && error.contains("allowed_hosts"), "{error}");
        let status = instance.ask(Method::GET, "/api/v1/status", &[("host", host)], "").status;
        assert_eq!(status, 403, "other sites must not read the status");
        for open in ["/livez", "/readyz", "/startupz", "/metrics"] {
            assert_eq!(
                instance.ask(Method::GET, open, &[("host", host)], "").status,
                200,
                "{open}"
            );
        }
    }
    assert_eq!(post("origin", "http://localhost:3000").status, 202);
    assert_eq!(post("origin", "https://score.example").status, 202);
    for origin in ["http://evil.example", "null", "http://127.0.0.1.evil.example", "localhost"] {
        assert_eq!(post("origin", origin).status, 403, "{origin}");
    }
    let twice = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(instance.send_raw(twice).starts_with("HTTP/1.1 400 "));
    let target = "GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(instance.send_raw(target).starts_with("HTTP/1.1 403 "));
    let none = "GET /api/v1/status HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(instance.send_raw(none).starts_with("HTTP/1.1 400 "));
    another_name(instance, |_| Some(403));
}

/// Asks every route under the name of another site, as a page does whose DNS points to this server, and from the page of another
/// site. `expected` is the status by what the route requires; none if it answers as ever. Probes and `/metrics` always do.
fn another_name(instance: &Instance, expected: impl Fn(Access) -> Option<u16>) {
    for route in ROUTES {
        let path: Vec<&str> = route
            .path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect();
        let path = path.join("/");
        let last = path.rsplit('/').next().unwrap();
        let is_probe = ["livez", "readyz", "startupz", "metrics", "ping", "health", "live"]
            .contains(&last)
            || ["/v2/health/ready", "/execution-parameters"].contains(&path.as_str());
        let expected = if is_probe { None } else { expected(route.access) };
        for header in [("host", "evil.example"), ("origin", "http://evil.example")] {
            let status = instance.ask(route.method.clone(), &path, &[JSON, header], "{}").status;
            match expected {
                Some(expected) => {
                    assert_eq!(status, expected, "{} {path} {header:?}", route.method)
                }
                None => {
                    assert!(![401, 403].contains(&status), "{} {path} {header:?}", route.method)
                }
            }
        }
    }
}

#[test]
fn the_token_is_checked_before_the_body_and_slow_clients_are_disconnected() {
    let more = ["http.bearer_token=tok", "http.read_timeout=3s", "http.connections_max=20"];
    let instance = Instance::start(&more);
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let headers = [JSON, ("authorization", &format!("{scheme} tok")), ("host", "any.example")];
        assert_eq!(instance.ask(Method::POST, "/api/v1/events", &headers, EVENT).status, 202);
    }
    let answer = instance.ask(Method::POST, "/api/v1/events", &[JSON], EVENT);
    assert_eq!(answer.status, 401);
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"foretell\"");
    let headers = [JSON, ("authorization", "bearer another")];
    let answer = instance.ask(Method::POST, "/api/v1/events", &headers, EVENT);
    assert_eq!(answer.status, 401);
    let challenge = answer.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer ") && challenge.contains("invalid_token"), "{challenge}");

    let head = |token: &str| {
        format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 1000\r\n\r\n{{"
        )
    };
    let answer = instance.send_raw(&head("wrong"));
    assert!(answer.starts_with("HTTP/1.1 401 "), "before the body, which is never sent: {answer}");
    let answer = instance.send_raw(&head("tok"));
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("{\"type\":\"urn:foretell:problem:"),
        "{answer}"
    );
    let answer = instance.send_raw("POST /api/v1/events HTTP/1.1\r\nHost: loc");
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("{\"type\":\"urn:foretell:problem:"),
        "{answer}"
    );
    assert_eq!(instance.send_raw(""), "", "a connection without a request gets no response");
    another_name(&instance, |access| match access {
        Access::Open | Access::Read => Some(403),
        Access::Respondents | Access::Write => Some(401),
    });
    let headers = [("authorization", "Bearer tok"), ("host", "any.example")];
    assert_eq!(instance.ask(Method::GET, "/api/v1/status", &headers, "").status, 200);

    too_many(&instance);
    instance.end();
}

fn too_many(instance: &Instance) {
    // No request is sent: 20 connections are closed without a response, and each one beyond them is refused.
    let mut streams: Vec<TcpStream> = (0..40).map(|_| instance.http.connect()).collect();
    let answers: Vec<String> = streams.iter_mut().map(read_to_end).collect();
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 "));
    let refused: Vec<&String> = refused.collect();
    assert!((20..40).contains(&refused.len()), "{answers:?}");
    assert!(
        refused[0].contains("Retry-After: ")
            && refused[0].contains("{\"type\":\"urn:foretell:problem:")
    );
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 503 ")));
    until("it serves again", SOON, || (instance.http.get("/livez")?.0 == 200).then_some(()));
    assert!(instance.http.metric("foretell_http_connections_refused_total") >= 1.0);
}

#[test]
fn the_read_token_reads_and_does_not_write() {
    let more = ["http.bearer_token=tok", "http.read_token=read-me", "http.bind=0.0.0.0:0"];
    let instance = Instance::start(&more);
    let status = |method: &Method, path: &str, token: Option<&str>| {
        let token = token.map(|token| format!("Bearer {token}"));
        let headers =
            [JSON].into_iter().chain(token.as_deref().map(|token| ("authorization", token)));
        let answer = instance.ask(method.clone(), path, &headers.collect::<Vec<_>>(), EVENT);
        (answer.status, answer.headers.get("www-authenticate").is_some())
    };
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(status(&Method::GET, path, None), (200, false), "{path}");
    }
    for path in ["/api/v1/status", "/api/v1/models", "/api/v1/decisions", "/api/v1/respondents/me"]
    {
        assert_eq!(status(&Method::GET, path, None), (401, true), "{path}");
        assert_eq!(status(&Method::GET, path, Some("read")), (401, true), "{path}");
        for token in ["read-me", "tok"] {
            let (status, _) = status(&Method::GET, path, Some(token));
            assert!(status == 200 || path.ends_with("/me") && status == 404, "{path}: {status}");
        }
    }
    for path in ["/api/v1/events", "/api/v1/outcomes", "/api/v1/trainings"] {
        assert_eq!(status(&Method::POST, path, Some("read-me")), (403, true), "{path}");
    }
    assert_eq!(status(&Method::POST, "/api/v1/events", Some("tok")), (202, false));
    another_name(&instance, |access| match access {
        Access::Open => None,
        Access::Read | Access::Respondents | Access::Write => Some(401),
    });
    instance.end();
}

#[test]
fn a_model_is_trained_from_outcomes_over_http() {
    let instance = Instance::start(&["learning.retrain_after=40", "learning.judge.policy=always"]);
    let outcome = |body: &Json| instance.post("/api/v1/outcomes", body);
    let class_of = |body: &Json, status: u16, words: &str| {
        let answer = outcome(body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let error = at(&answer.body, "/detail").as_str().unwrap();
        assert!(error.contains(words), "{words:?} in {error:?}");
        answer.body.get("class").and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    let refuse = |body: Json, words: &str| assert_eq!(class_of(&body, 400, words), "", "{body}");
    let unusable = |body: Json, class: &str, words: &str| {
        assert_eq!(class_of(&body, 422, words), class, "{body}");
    };
    refuse(json!("x"), "JSON object");
    unusable(json!({"label": ">50K"}), "missing_field", "`respondent_id` is missing");
    unusable(
        json!({"respondent_id": "", "label": ">50K"}),
        "missing_field",
        "`respondent_id` is missing",
    );
    refuse(json!({"respondent_id": ["r"], "label": ">50K"}), "`respondent_id`");
    refuse(json!({"respondent_id": "r"}), "`label` is missing");
    unusable(json!({"respondent_id": "r", "label": "rich"}), "unknown_label", "one of <=50K, >50K");
    refuse(json!({"respondent_id": "r", "label": ">50K", "labels": 1}), "`labels`");
    refuse(json!({"respondent_id": "r", "label": ">50K", "outcome_time": "noon"}), "milliseconds");
    unusable(
        json!({"respondent_id": "r", "label": ">50K", "outcome_time": 99_999_999_999_999_i64}),
        "future_time",
        "time_ahead_max",
    );

    // A prediction whose outcome is not known when the model is swapped.
    let reasons = "/api/v1/events?wait=true&timeout_ms=60000&reasons=3";
    let first = json!({"respondent_id": "r", "event_id": "first", "completed": true, "age": 40});
    let before = instance.post(reasons, &first);
    assert_eq!(at(&before.body, "/reasons/features").as_array().unwrap().len(), 3, "{before:?}");

    for number in 0..50 {
        let respondent = format!("r-{number}");
        let event = json!({
            "respondent_id": respondent, "completed": true, "age": 20 + number, "hours_per_week": 40,
        });
        let answer = instance.post("/api/v1/events?wait=true&timeout_ms=60000", &event);
        assert_eq!(answer.status, 200, "{answer:?}");
        let label = if number % 2 == 0 { "<=50K" } else { ">50K" };
        let answer = outcome(&json!({"respondent_id": respondent, "label": label}));
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(*at(&answer.body, "/label"), label);
        assert!(at(&answer.body, "/outcome_time").is_i64(), "{answer:?}");
    }
    until("a model that was trained with them serves", SOON, || {
        (instance.http.status().pointer("/model/training")?.as_u64()? >= 1).then_some(())
    });
    let repeated = instance.post(reasons, &first);
    let version = at(&before.body, "/model_version");
    assert_eq!((repeated.status, at(&repeated.body, "/model_version")), (200, version));
    assert_eq!(*at(&repeated.body, "/reasons"), Json::Null, "{repeated:?}");
    let error = at(&repeated.body, "/reasons_error").as_str().unwrap();
    assert!(error.contains(version.as_str().unwrap()), "{error}");

    // An array gets a result for each item.
    let many =
        json!([{"respondent_id": "a", "label": ">50K"}, {"respondent_id": "b", "label": "rich"}]);
    let answer = outcome(&many);
    assert_eq!(answer.status, 207, "{answer:?}");
    assert_eq!(*at(&answer.body, "/results/0/respondent_id"), "a");
    assert!(at(&answer.body, "/results/1/detail").as_str().unwrap().contains("one of"));
    let many = json!([{"respondent_id": "a", "age": 30}, {"respondent_id": "b", "age": 31}]);
    let answer = instance.post("/api/v1/events", &many);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(*at(&answer.body, "/results/1/respondent_id"), "b");
    instance.end();
}

#[test]
fn models_are_listed_and_commands_are_written_over_http() {
    let instance = Instance::start(&["http.bearer_token=tok"]);
    let get = |path: &str, status: u16| {
        let answer = instance.ask(Method::GET, path, &[], "");
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer.body
    };
    let list = get("/api/v1/models", 200);
    let version = at(&list, "/models/0/version").as_str().unwrap();
    assert_eq!(at(&list, "/models/0/aliases"), &json!(["champion"]));
    assert_eq!(at(&list, "/aliases/champion/version"), version);
    assert!(at(&list, "/models/0/metrics/auc").as_f64().unwrap() > 0.5);
    let model = get(&format!("/api/v1/models/{version}"), 200);
    assert_eq!(get("/api/v1/models/champion", 200), model);
    assert_eq!(get(&format!("/api/v1/models/{}", &version[..5]), 200), model);
    assert_eq!(at(&model, "/lineage/initial_examples"), 500);
    assert!(at(&model, "/importance/0/gain").as_f64().unwrap() > 0.0);
    let unknown = get("/api/v1/models/xyz", 404);
    assert_eq!(at(&unknown, "/near"), &json!([version]));
    let none = get("/api/v1/models/challenger", 404);
    let error = at(&none, "/detail").as_str().unwrap();
    assert!(error.contains("there is no challenger now"), "{none}");
    assert_eq!(get("/api/v1/decisions", 200), json!({"decisions": []}));
    assert_eq!(get("/api/v1/decisions?limit=5&command_id=x", 200), json!({"decisions": []}));
    get("/api/v1/decisions?limit=0", 400);
    get("/api/v1/models?limit=5", 400);

    let token = [JSON, ("authorization", "Bearer tok")];
    let reason = json!({"reason": "worse since noon", "requested_by": "ann"}).to_string();
    let post = |path: &str, headers: &[(&str, &str)], body: &str, status: u16| {
        let answer = instance.ask(Method::POST, path, headers, body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer.body
    };
    let promote = format!("/api/v1/models/{}/promote", &version[..5]);
    for path in [&promote, "/api/v1/models/rollback", "/api/v1/trainings"] {
        post(path, &[JSON], &reason, 401);
        let refused = post(path, &token, "{}", 400);
        assert!(at(&refused, "/detail").as_str().unwrap().contains("reason"), "{refused}");
        let refused = post(path, &token, r#"{"reason": "one", "reason": "two"}"#, 400);
        let error = at(&refused, "/detail").as_str().unwrap();
        assert!(error.contains("key \"reason\" is repeated"), "{refused}");
        let accepted = post(path, &token, &reason, 202);
        assert_eq!(at(&accepted, "/command_id").as_str().unwrap().len(), 36, "{accepted}");
        let keyed = [token[0], token[1], ("idempotency-key", path)];
        let repeated = post(path, &keyed, &reason, 202);
        assert_eq!(post(path, &keyed, &reason, 202), repeated);
        assert_ne!(accepted, repeated);
    }
    let accepted = post(&promote, &token, &reason, 202);
    assert_eq!(at(&accepted, "/model_version"), version);
    post("/api/v1/models/xyz/promote", &token, &reason, 404);
    instance.end();
}

#[test]
fn waiting_requests_get_the_result_of_their_event() {
    let contract = r#"features.contract={policy="refuse", mostly_missing=0.9, window=1}"#;
    let instance = Instance::start(&[contract, "topics.partitions=1"]);
    let wait = "/api/v1/events?wait=true&timeout_ms=60000";

    let part = json!({"respondent_id": "slow", "event_id": "e1", "age": 30, "education": null});
    let answer = instance.post(wait, &part);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(*at(&answer.body, "/event_id"), "e1");
    let missing = at(&answer.body, "/missing").as_array().unwrap();
    assert!(
        missing.contains(&json!("education")) && !missing.contains(&json!("age")),
        "{answer:?}"
    );
    let again = instance.post(wait, &part);
    assert_eq!((again.status, &again.body["event_id"]), (202, &json!("e1")), "{again:?}");
    assert_eq!(again.headers["idempotent-replayed"], "true");

    // Null takes an earlier answer back.
    let rest = json!({"respondent_id": "slow", "event_id": "e2", "age": null, "completed": true,
        "hours_per_week": 40});
    let answer = instance.post(wait, &rest);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(at(&answer.body, "/features/age").is_null(), "{answer:?}");
    assert_eq!(*at(&answer.body, "/features/hours_per_week"), 40.0);

    // A repeat gets the first prediction.
    let again = instance.post(wait, &rest);
    assert_eq!((again.status, &again.body), (200, &answer.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");

    // This event lacks features with which the model was trained, as the one before did.
    let lacking = json!({"respondent_id": "fast", "event_id": "e3", "completed": true, "age": 30});
    let answer = instance.post(wait, &lacking);
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(
        (at(&answer.body, "/class"), at(&answer.body, "/event_id")),
        (&json!("feature_contract"), &json!("e3"))
    );
    assert!(at(&answer.body, "/detail").as_str().unwrap().contains("mostly_missing"), "{answer:?}");
    assert!(instance.http.metric("foretell_http_waits").abs() < 0.5, "no request waits any more");
    instance.end();
}

#[test]
fn a_respondent_is_looked_up() {
    let instance = Instance::start(&["topics.partitions=3"]);
    let look_up = |id: &str| {
        let path = format!("/api/v1/respondents/{id}?timeout_ms=60000");
        instance.ask(Method::GET, &path, &[], "")
    };
    let unknown = look_up("nobody");
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert!(unknown.body["detail"].as_str().unwrap().contains("nothing is stored"), "{unknown:?}");

    let wait = "/api/v1/events?wait=true&timeout_ms=60000";
    let event = json!({"respondent_id": "me/2", "event_id": "e1", "completed": true, "age": 52});
    let prediction = instance.post(wait, &event);
    assert_eq!(prediction.status, 200, "{prediction:?}");
    let piece = json!({"respondent_id": "me/2", "event_id": "e2", "age": 53, "education": null});
    assert_eq!(instance.post(wait, &piece).status, 202);
    let found = look_up("%20me%2F2");
    assert_eq!(found.status, 200, "{found:?}");
    assert_eq!(found.body["respondent_id"], "me/2", "in its canonical form");
    assert_eq!(found.body["open"]["answers"]["age"], 53.0, "{found:?}");
    assert_eq!(found.body["open"]["scored"], false);
    assert_eq!(found.body["predictions"][0]["state"], "waiting");
    let mut answered = prediction.body;
    assert_eq!(answered.as_object_mut().unwrap().remove("actions"), Some(json!([])));
    assert_eq!(found.body["predictions"][0]["prediction"], answered, "as it was answered");
    assert_eq!(found.body["actions"], json!([]));

    let outcome = json!({"respondent_id": "me/2", "label": ">50K"});
    assert_eq!(instance.post("/api/v1/outcomes", &outcome).status, 202);
    let learned = until("the outcome is joined", SOON, || {
        let found = look_up("me%2F2").body;
        (found["predictions"][0]["state"] == "learned").then_some(found)
    });
    assert_eq!(learned["predictions"][0]["outcome"], ">50K", "{learned}");
    instance.end();
}

#[test]
fn reasons_add_up_to_the_prediction() {
    let instance = Instance::start(&[]);
    let wait = "/api/v1/events?wait=true&timeout_ms=60000";
    let event = json!({"respondent_id": "me", "event_id": "e1", "completed": true, "age": 52,
        "education": "Masters", "occupation": "Exec-managerial", "hours_per_week": 50});
    let plain = instance.post(wait, &event);
    assert!(plain.body.get("reasons").is_none(), "{plain:?}");
    for most in [1, 4, 100] {
        // The repeat of the event has the same prediction.
        let answer = instance.post(&format!("{wait}&reasons={most}"), &event);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(at(&answer.body, "/prediction_id"), at(&plain.body, "/prediction_id"));
        let number = |json: &Json| json.as_f64().unwrap();
        let reasons = at(&answer.body, "/reasons/features").as_array().unwrap();
        let listed: Vec<f64> = reasons.iter().map(|one| number(&one["contribution"])).collect();
        assert!(!listed.is_empty() && listed.len() <= most, "{answer:?}");
        assert!(listed.is_sorted_by(|a, b| a.abs() >= b.abs()), "{listed:?}");
        let log_odds = number(at(&answer.body, "/reasons/base"))
            + listed.iter().sum::<f64>()
            + number(at(&answer.body, "/reasons/others"));
        let label = at(&answer.body, "/label").as_str().unwrap();
        let probability = number(&answer.body["probabilities"][label]);
        let expected = (probability / (1.0 - probability)).ln();
        assert!((log_odds - expected).abs() < 1e-9, "{log_odds}, not {expected}");
        for reason in reasons {
            let (name, value) = (reason["feature"].as_str().unwrap(), &reason["value"]);
            match name.split_once("_x_") {
                // A cross has the answers to both of its questions.
                Some((left, right)) => {
                    let features = &answer.body["features"];
                    assert_eq!(*value, json!([features[left], features[right]]), "{reason}");
                }
                None => assert_eq!(*value, answer.body["features"][name], "{reason}"),
            }
        }
    }
    instance.end();
}

#[test]
fn a_repeated_request_is_the_same_event() {
    let instance = Instance::start(&[]);
    let wait = "/api/v1/events?wait=true&timeout_ms=60000";
    let event = json!({"respondent_id": "me", "completed": true, "age": 30}).to_string();
    let with_key = |key: &str| {
        let answer = instance.ask(Method::POST, wait, &[JSON, ("idempotency-key", key)], &event);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let (first, second) = (with_key("\"k-1\""), with_key("k-1"));
    assert_eq!(first.body, second.body);
    assert_eq!(*at(&first.body, "/event_id"), "k-1");
    assert!(second.headers.contains_key("idempotent-replayed"));
    assert_ne!(at(&with_key("k-2").body, "/prediction_id"), at(&first.body, "/prediction_id"));
    let ids: std::collections::BTreeSet<String> = (0..3)
        .map(|_| {
            let answer = instance.post(wait, &serde_json::from_str(&event).unwrap());
            at(&answer.body, "/event_id").as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 3, "without a key each is another event");
    let answer = instance.ask(Method::POST, wait, &[JSON, ("idempotency-key", "\"\"")], &event);
    assert_eq!(answer.status, 400, "{answer:?}");
    instance.end();
}

#[test]
fn a_thousand_waits_take_few_threads_and_little_memory_and_end_with_their_clients() {
    let instance = Instance::start(&waits::SETTINGS);
    let idle = instance.process.resources();
    waits::check(&instance.process, &instance.http, idle);
}
