//! Benchmark of scores over HTTP: one row a request at 2,000 requests/s on loopback, in an open loop, alone and while a model is
//! trained, and batches of 1,000 rows. The limit is a server that answers with bytes of the same length, measured in the same run.
//! Prints a table, writes `target/bench/serving.json`, and fails if an answer is wrong or a bound is missed.
//!
//! A request is due at its time whether or not the one before it is answered, and its latency begins when it is due. So a server that
//! stalls has the latencies of everything that was due meanwhile (no coordinated omission).

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints, measures real time, and may panic"
)]

#[allow(dead_code, reason = "the benchmarks of the job use all of it")]
#[path = "measure/verdicts.rs"]
mod verdicts;

#[allow(dead_code, unused_imports, reason = "only the tests use all of it")]
#[path = "../tests/process/mod.rs"]
mod process;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use process::{Http, Process, SOON, example, quick_settings, until};
use verdicts::Verdicts;

/// Initial rows, of which the model is made.
const ROWS: usize = 10_000;
const REQUESTS_A_SECOND: u32 = 2_000;
const SECONDS: u32 = 15;
/// Connections, each with a thread: as many as keep up if an answer takes 2 ms.
const CONNECTIONS: u32 = 4;
/// Bound of the 99th percentile, in milliseconds.
const P99_MAX: f64 = 1.0;
const BATCH_ROWS: usize = 1_000;
const BATCH_SECONDS: u64 = 5;
/// A sleep may last this much too long, so the last part of a wait is spent in a loop.
const SLEEP_SLACK: Duration = Duration::from_micros(150);

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), ROWS);
    settings.extend(
        [
            "learning.retrain_after=1000000",
            "learning.tuning.trials=10000",
            "learning.tuning.time=1h",
            "learning.time_max=2h",
        ]
        .map(str::to_owned),
    );
    let sets = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
    let arguments: Vec<&str> =
        ["run", "--embedded", "--config", example()].into_iter().chain(sets).collect();
    let mut instance = Process::start(&arguments);
    let http = instance.http();
    http.ready();
    let address = http.base.trim_start_matches("http://").to_owned();
    let mut verdicts = Verdicts::default();

    let answer = exchange(&mut TcpStream::connect(&address).unwrap(), &one_row(0));
    let bare = bare_server(&answer);
    let limit = Latencies::of(&bare);
    limit.add_to(&mut verdicts, "bare server", None);
    let alone = Latencies::of(&address);
    alone.add_to(&mut verdicts, "one row", Some(P99_MAX));
    verdicts.ratio("  p99 to that of the bare server", alone.p99 / limit.p99, None);
    for (name, kind, body) in batches() {
        let rows = rows_a_second(&address, kind, &body);
        verdicts.row(
            &format!("rows/s, batches of 1,000 ({name})"),
            "-",
            format!("{rows:.0}"),
            None,
        );
        verdicts.figure(&format!("rows_a_second_{name}"), json!(rows));
    }
    start_training(&http);
    let training = Latencies::of(&address);
    assert!(is_training(&http), "the training ended before the measurement");
    training.add_to(&mut verdicts, "one row, while a model is trained", None);

    let is_met = alone.p99 <= P99_MAX;
    verdicts.figure("one_row_ms", alone.json());
    verdicts.figure("one_row_while_training_ms", training.json());
    verdicts.figure("bare_ms", limit.json());
    verdicts.print("ms");
    verdicts.write("serving").unwrap();
    instance.signal("TERM");
    assert!(instance.end(SOON).success(), "{}", instance.errors());
    assert!(
        is_met,
        "a bound is missed; the p99 of the bare server is {:.3} ms: on a quiet machine it is a fraction of {P99_MAX} ms",
        limit.p99
    );
}

fn start_training(http: &Http) {
    let (status, body) =
        http.post("/api/v1/trainings", "{\"reason\": \"benchmark\"}", None).unwrap();
    assert_eq!(status, 202, "{body}");
    until("a study runs", SOON, || (http.status()["training"]["phase"] == "tuning").then_some(()));
}

fn is_training(http: &Http) -> bool {
    http.status()["training"]["phase"] == "tuning"
}

/// The answers of a respondent, which differ from request to request.
fn row(number: u32) -> Json {
    json!({
        "age": 20 + number % 50, "workclass": "Private", "education": "Bachelors",
        "marital_status": "Never-married", "occupation": "Adm-clerical", "hours_per_week": 30 + number % 20,
        "capital_gain": 0, "capital_loss": 0, "native_country": "United-States",
    })
}

fn one_row(number: u32) -> Vec<u8> {
    post("application/json", &json!({ "instances": [row(number)] }).to_string())
}

fn post(kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    (head + body).into_bytes()
}

fn batches() -> [(&'static str, &'static str, String); 2] {
    let rows: Vec<Json> = (0..).take(BATCH_ROWS).map(row).collect();
    let names: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let line = |row: &Json| {
        let cells = names.iter().map(|name| row[*name].to_string().replace('"', ""));
        cells.collect::<Vec<String>>().join(",") + "\n"
    };
    let csv = names.join(",") + "\n" + &rows.iter().map(line).collect::<String>();
    let json = json!({ "instances": rows }).to_string();
    [("json", "application/json", json), ("csv", "text/csv", csv)]
}

/// Percentiles of latencies in milliseconds.
struct Latencies {
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Latencies {
    /// Sends requests on schedule over several connections.
    fn of(address: &str) -> Self {
        let all = REQUESTS_A_SECOND * SECONDS;
        let interval = Duration::from_secs(1) / REQUESTS_A_SECOND;
        let warm_up = REQUESTS_A_SECOND;
        let start = Instant::now() + Duration::from_millis(100);
        let sent = |connection: u32| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut latencies = Vec::new();
            for number in (connection..warm_up + all).step_by(CONNECTIONS as usize) {
                let request = one_row(number);
                let due = start + interval * number;
                wait_until(due);
                let answer = exchange(&mut stream, &request);
                let latency = due.elapsed();
                assert!(
                    answer.starts_with(b"HTTP/1.1 200 "),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
                if number >= warm_up {
                    latencies.push(latency.as_secs_f64() * 1000.0);
                }
            }
            latencies
        };
        let mut latencies: Vec<f64> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..CONNECTIONS).map(|connection| scope.spawn(move || sent(connection))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        latencies.sort_by(f64::total_cmp);
        let [p50, p99, p999] =
            [500, 990, 999].map(|permille| latencies[latencies.len() * permille / 1000]);
        Self { p50, p99, p999 }
    }

    fn add_to(&self, verdicts: &mut Verdicts, name: &str, bound: Option<f64>) {
        let holds = bound.map(|bound| self.p99 <= bound);
        let text = bound.map_or("-".to_owned(), |bound| format!("<= {bound:.2}"));
        verdicts.row(&format!("{name}: p50"), "-", format!("{:.3}", self.p50), None);
        verdicts.row("  p99", &text, format!("{:.3}", self.p99), holds);
        verdicts.row("  p99.9", "-", format!("{:.3}", self.p999), None);
    }

    fn json(&self) -> Json {
        json!({ "p50": self.p50, "p99": self.p99, "p99.9": self.p999 })
    }
}

fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match left.checked_sub(SLEEP_SLACK) {
            Some(sleep) => thread::sleep(sleep),
            None => std::hint::spin_loop(),
        }
    }
}

/// Sends a request, and reads its answer.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).unwrap();
    let (mut message, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while !is_complete(&message) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&message));
        message.extend_from_slice(&buffer[..count]);
    }
    message
}

/// Whether a request or an answer has all the bytes that its `Content-Length` announces.
fn is_complete(message: &[u8]) -> bool {
    let Some(end) = message.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&message[..end]).to_lowercase();
    let length = head.split_once("content-length: ").unwrap().1.lines().next().unwrap();
    message.len() >= end + 4 + length.trim().parse::<usize>().unwrap()
}

/// A server that answers every request with these bytes.
fn bare_server(answer: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = answer.to_vec();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let (mut request, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    request.extend_from_slice(&buffer[..count]);
                    if is_complete(&request) {
                        request.clear();
                        stream.write_all(&answer).unwrap();
                    }
                }
            });
        }
    });
    address
}

fn rows_a_second(address: &str, kind: &str, body: &str) -> f64 {
    let (mut stream, request) = (TcpStream::connect(address).unwrap(), post(kind, body));
    stream.set_nodelay(true).unwrap();
    exchange(&mut stream, &request);
    let (start, mut rows) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(BATCH_SECONDS) {
        let answer = exchange(&mut stream, &request);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        rows += BATCH_ROWS;
    }
    rows as f64 / start.elapsed().as_secs_f64()
}
