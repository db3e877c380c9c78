//! Benchmark of HTTP requests that wait for their predictions: a thousand concurrent ones against sequential ones in the same
//! instance, by latency, threads and memory. Embedded, or on a real Kafka (`FORETELL_TEST_BROKERS`, `FORETELL_TEST_REGISTRY`).
//! Prints a table, writes `target/bench/http.json`, and fails if a response is wrong or a bound is missed.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints, measures real time, and may panic"
)]

#[allow(dead_code, unused_imports, reason = "only the tests use all of it")]
#[path = "../tests/process/mod.rs"]
mod process;

use std::{fs, io::ErrorKind, path::Path, time::Duration, time::Instant};

use serde_json::json;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinSet};

use process::{Process, Resources, SOON, example, quick_settings};

/// Concurrent requests in each round.
const CONCURRENT: usize = 1000;
const ROUNDS: usize = 5;
const SEQUENTIAL: usize = 300;
/// Maximum ratio of the p99 latency of concurrent requests to that of sequential ones.
const P99_RATIO_MAX: f64 = 3.0;
/// Maximum number of additional threads under concurrent requests.
const THREADS_MAX: usize = 20;
/// Maximum of additional resident memory under concurrent requests, in bytes.
const MEMORY_MAX: usize = 100 << 20;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), 3000);
    settings.push("learning.retrain_after=1000000".to_owned());
    let variable = |name| std::env::var(name).ok();
    let cluster = variable("FORETELL_TEST_BROKERS").zip(variable("FORETELL_TEST_REGISTRY"));
    let mut run = vec!["run"];
    match &cluster {
        None => run.push("--embedded"),
        Some((brokers, registry)) => settings.extend([
            format!("topics.prefix=bench-{}-", std::process::id()),
            format!("broker.bootstrap_servers={brokers}"),
            format!("schema_registry.url={registry}"),
        ]),
    }
    let start = |command: &[&str]| {
        let sets = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
        let arguments: Vec<&str> =
            command.iter().copied().chain(["--config", example()]).chain(sets).collect();
        Process::start(&arguments)
    };
    if cluster.is_some() {
        start(&["init"]).succeed(SOON);
    }
    let mut instance = start(&run);
    let http = instance.http();
    http.ready();
    let address = http.base.trim_start_matches("http://").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = instance.resources();
    let mut numbers = 0..;
    let mut sequential = runtime.block_on(send_sequentially(&address, &mut numbers));
    let (mut concurrent, peak) = send_concurrently(&runtime, &address, &mut numbers, &instance);
    let (sequential, concurrent) = (quantiles(&mut sequential), quantiles(&mut concurrent));
    let ratio = concurrent[1] / sequential[1];
    let threads = peak.threads.saturating_sub(before.threads);
    let memory = peak.memory.saturating_sub(before.memory);
    println!("{}", if cluster.is_some() { "on Kafka" } else { "embedded" });
    println!("sequential          p50 {:6.1} ms   p99 {:6.1} ms", sequential[0], sequential[1]);
    println!(
        "{CONCURRENT} concurrent     p50 {:6.1} ms   p99 {:6.1} ms",
        concurrent[0], concurrent[1]
    );
    println!("p99 ratio           {ratio:.2}   (bound {P99_RATIO_MAX})");
    println!("additional threads  {threads}   (bound {THREADS_MAX})");
    println!("additional memory   {} MiB   (bound {})", memory >> 20, MEMORY_MAX >> 20);
    let is_met = ratio <= P99_RATIO_MAX && threads <= THREADS_MAX && memory <= MEMORY_MAX;
    let report = json!({
        "kafka": cluster.is_some(), "alone_ms": sequential, "at_once_ms": concurrent,
        "p99_ratio": ratio, "threads": threads, "memory_bytes": memory, "is_met": is_met,
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("http.json"), format!("{report:#}\n")).unwrap();
    instance.signal("TERM");
    assert!(instance.end(SOON).success(), "{}", instance.errors());
    assert!(is_met, "a bound is missed");
}

async fn send_sequentially(address: &str, numbers: &mut impl Iterator<Item = usize>) -> Vec<f64> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut latencies = Vec::new();
    // The first request warms up the instance and is not measured.
    for number in numbers.take(SEQUENTIAL + 1) {
        latencies.push(request(&stream, number).await);
    }
    latencies.split_off(1)
}

fn send_concurrently(
    runtime: &Runtime,
    address: &str,
    numbers: &mut impl Iterator<Item = usize>,
    instance: &Process,
) -> (Vec<f64>, Resources) {
    let (mut latencies, mut peak) = (Vec::new(), instance.resources());
    for _ in 0..ROUNDS {
        runtime.block_on(async {
            let mut streams = Vec::new();
            for number in numbers.take(CONCURRENT) {
                streams.push((TcpStream::connect(address).await.unwrap(), number));
            }
            let mut requests: JoinSet<f64> = streams
                .into_iter()
                .map(async |(stream, number)| request(&stream, number).await)
                .collect();
            while let Some(latency) = requests.join_next().await {
                latencies.push(latency.unwrap());
                if latencies.len() % 100 == 1 {
                    let now = instance.resources();
                    peak.threads = peak.threads.max(now.threads);
                    peak.memory = peak.memory.max(now.memory);
                }
            }
        });
    }
    (latencies, peak)
}

/// Sends a completed event and waits for its prediction; returns the latency in milliseconds.
async fn request(stream: &TcpStream, number: usize) -> f64 {
    let body = json!({
        "respondent_id": format!("r-{number}"), "completed": true, "age": 20 + number % 50,
        "hours_per_week": 40, "education": "Bachelors",
    });
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST /api/v1/events?wait=true&timeout_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let start = Instant::now();
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        stream.writable().await.unwrap();
        match stream.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    let (mut response, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    while !is_complete(&response) {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(0) => panic!("closed: {}", String::from_utf8_lossy(&response)),
            Ok(count) => response.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    let latency = start.elapsed();
    let response = String::from_utf8(response).unwrap();
    let is_right = response.starts_with("HTTP/1.1 200 ")
        && response.contains(&format!("\"respondent_id\":\"r-{number}\""));
    assert!(is_right, "{response}");
    milliseconds(latency)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Whether `response` has all the bytes that its `Content-Length` announces.
fn is_complete(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_lowercase();
    let length = length.split_once("content-length: ").unwrap().1.lines().next().unwrap();
    body.len() >= length.trim().parse().unwrap()
}

/// p50 and p99.
fn quantiles(latencies: &mut [f64]) -> [f64; 2] {
    latencies.sort_by(f64::total_cmp);
    [latencies.len() / 2, latencies.len() * 99 / 100].map(|index| latencies[index])
}
