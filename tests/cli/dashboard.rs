//! The dashboard over HTTP: its files, its numbers and its streams. `tests/browser` drives the page itself.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use reqwest::{blocking::Client, header::HeaderMap};
use serde_json::{Value as Json, json};

use crate::process::{Http, Process, SOON, at, example, quick_settings, until};

const TOKEN: &str = "a-token";

/// An embedded instance with a token and a small first model, for two viewers at once.
struct Instance {
    process: Process,
    http: Http,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Instance {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = quick_settings(folder.path(), 500);
        let more = [
            "tuning.iterations_max=20",
            "http.streams_max=2",
            "mlflow.tracking_uri=http://127.0.0.1:1",
        ];
        let more = more.map(str::to_owned);
        settings.extend(more);
        settings.push(format!("http.bearer_token={TOKEN}"));
        let config = example();
        let mut arguments = vec!["run", "--embedded", "-c", config];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut process = Process::start(&arguments);
        let http = process.http();
        http.ready();
        let client = Client::builder().timeout(SOON).build().unwrap();
        Self { process, http, client, _folder: folder }
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Vec<u8>) {
        let request = self.client.get(format!("{}{path}", self.http.base));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.bytes().unwrap().to_vec())
    }

    /// The snapshot of the whole application.
    fn snapshot(&self) -> Json {
        serde_json::from_slice(&self.get("/api/v1/dashboard", &[]).2).unwrap()
    }

    /// Opens a stream, and reads the head of the response.
    fn stream(&self) -> (String, BufReader<TcpStream>) {
        let mut stream = self.http.connect();
        write!(stream, "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let (mut reader, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        (head.to_lowercase(), reader)
    }
}

/// The type and the data of the next event.
fn event(stream: &mut BufReader<TcpStream>) -> (String, Json) {
    let mut kind = String::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(name) = line.strip_prefix("event: ") {
            kind = name.trim_end().to_owned();
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return (kind, serde_json::from_str(data).unwrap());
        }
    }
}

#[test]
fn files_are_safe_compressed_and_kept_and_streams_are_bounded_and_end_at_a_stop() {
    let mut instance = Instance::start();
    files(&instance);
    numbers(&instance);
    let refused = instance.get("/api/v1/dead-letters", &[]).0;
    assert_eq!(refused, 401, "they show data of respondents");
    let bearer = format!("Bearer {TOKEN}");
    let (status, _, letters) = instance.get("/api/v1/dead-letters", &[("authorization", &bearer)]);
    assert_eq!((status, letters.as_slice()), (200, &b"{\"dead_letters\":[]}"[..]));

    let streams = [instance.stream(), instance.stream()];
    let mut streams = streams.map(|(head, stream)| {
        assert!(head.starts_with("http/1.1 200 ") && head.contains("text/event-stream"), "{head}");
        stream
    });
    let (head, _) = instance.stream();
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: "), "{head}");
    for _ in 0..1_000 {
        assert_eq!(instance.get("/api/v1/stream", &[]).0, 503);
    }
    assert_eq!(instance.get("/readyz", &[]).0, 200, "refused viewers do no harm");
    for stream in &mut streams {
        let (kind, first) = event(stream);
        assert_eq!(kind, "status", "{first}");
        assert_eq!(at(&first, "/application"), "adult");
        assert!(!at(&first, "/history/at").as_array().unwrap().is_empty(), "{first}");
        let (kind, next) = event(stream);
        assert_eq!(kind, "change", "{next}");
        assert!(next.get("history").is_none() && next.get("application").is_none(), "{next}");
        assert!(at(&next, "/live/at").as_i64() > at(&first, "/live/at").as_i64());
    }
    // A viewer that leaves makes room.
    let [kept, left] = streams;
    drop(left);
    let (_, mut another) = until("room for another stream", SOON, || {
        let (head, stream) = instance.stream();
        head.starts_with("http/1.1 200 ").then_some((head, stream))
    });

    // A stop ends the streams, so that it need not wait for them.
    instance.process.signal("TERM");
    assert_eq!(instance.process.end(SOON).code(), Some(0), "{}", instance.process.errors());
    for mut stream in [kept.into_inner(), another.get_mut().try_clone().unwrap()] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    let errors = instance.process.errors();
    assert!(!errors.contains("open requests did not complete"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

fn files(instance: &Instance) {
    let (status, headers, page) = instance.get("/", &[]);
    let page = String::from_utf8(page).unwrap();
    assert_eq!(
        (status, headers["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-cache");
    let etag = headers["etag"].to_str().unwrap();
    let (status, _, body) = instance.get("/", &[("if-none-match", etag)]);
    assert_eq!((status, body.len()), (304, 0));

    let (_, rest) = page.split_once("src=\"").unwrap();
    let script = format!("/{}", rest.split('"').next().unwrap());
    let (status, headers, plain) = instance.get(&script, &[]);
    assert_eq!(status, 200, "{script}");
    assert!(headers["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(headers.get("content-encoding").is_none());
    let (_, headers, gzip) = instance.get(&script, &[("accept-encoding", "gzip")]);
    assert_eq!(headers["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(gzip.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain && gzip.len() < plain.len() / 2, "{} bytes", gzip.len());
    for path in [
        "/assets/0/app.js",
        &script.replace("app.js", "../../etc/passwd"),
        &script.replace("app.js", "none.js"),
    ] {
        let (status, headers, _) = instance.get(path, &[]);
        assert_eq!(status, 404, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
    }
}

fn numbers(instance: &Instance) {
    let event = r#"{"respondent_id": "me", "completed": true, "age": 39}"#;
    let posted = instance.client.post(format!("{}/api/v1/events?wait=true", instance.http.base));
    let posted = posted.bearer_auth(TOKEN).header("content-type", "application/json").body(event);
    assert_eq!(posted.send().unwrap().status().as_u16(), 200);
    let snapshot = until("the event is counted", SOON, || {
        let snapshot = instance.snapshot();
        (at(&snapshot, "/live/totals/predictions") == 1).then_some(snapshot)
    });
    let status = instance.http.status();
    assert_eq!(at(&snapshot, "/live/ready"), true);
    assert_eq!(at(&snapshot, "/instances/0/status/model"), at(&status, "/model"));
    assert_eq!(at(&snapshot, "/instances/0/gone"), false);
    let lag = until("the lag is known", SOON, || {
        at(&instance.snapshot(), "/live/lag").as_u64().filter(|lag| *lag == 0)
    });
    assert_eq!(lag, 0);
    // The outage of MLflow, and what waits: in the status, and in what the page shows.
    let status = until("the outage is in the status", SOON, || {
        let status = instance.http.status();
        at(&status, "/mlflow/unavailable_since").is_i64().then_some(status)
    });
    assert_eq!(at(&status, "/mlflow/sends"), true);
    assert!(at(&status, "/mlflow/reason").as_str().unwrap().contains("connect"), "{status}");
    assert_eq!(at(&status, "/waiting"), &json!({"predictions": 1, "outcomes": 0}));
    assert_eq!(at(&status, "/outcomes/late"), 0);
    assert_eq!(at(&status, "/topics/companions"), &json!([]));
    until("the page has them", SOON, || {
        let snapshot = instance.snapshot();
        let is_shown = at(&snapshot, "/instances/0/status/mlflow/unavailable_since").is_i64()
            && at(&snapshot, "/live/waiting/predictions") == 1;
        is_shown.then_some(())
    });
    let points = |snapshot: &Json| at(snapshot, "/history/events").as_array().unwrap().len();
    assert!(points(&snapshot) > 0);
}
