//! A thousand requests that wait for their predictions at once, against one at a time, in the same instance: latency,
//! threads and memory. Embedded, or on a real Kafka (`FORETELL_TEST_BROKERS`, `FORETELL_TEST_REGISTRY`). Prints a table,
//! writes `target/bench/http.json`, and fails if an answer is wrong or a bound is missed.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints, measures real time, and may panic"
)]

#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../tests/process/mod.rs"]
mod process;

use std::{fs, io::ErrorKind, path::Path, time::Duration, time::Instant};

use serde_json::json;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinSet};

use process::{Process, Resources, SOON, example, quick_settings};

const WAITS: usize = 1000;
const ROUNDS: usize = 5;
const ALONE: usize = 300;
/// p99 of a thousand at once, to that of one at a time.
const P99_MAX: f64 = 3.0;
const THREADS_MAX: usize = 20;
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
    let mut alone = runtime.block_on(one_at_a_time(&address, &mut numbers));
    let (mut at_once, peak) = a_thousand_at_once(&runtime, &address, &mut numbers, &instance);
    let (alone, at_once) = (quantiles(&mut alone), quantiles(&mut at_once));
    let ratio = at_once[1] / alone[1];
    let threads = peak.threads.saturating_sub(before.threads);
    let memory = peak.memory.saturating_sub(before.memory);
    println!("{}", if cluster.is_some() { "on Kafka" } else { "embedded" });
    println!("one at a time      p50 {:6.1} ms   p99 {:6.1} ms", alone[0], alone[1]);
    println!("{WAITS} at once       p50 {:6.1} ms   p99 {:6.1} ms", at_once[0], at_once[1]);
    println!("p99, to one's      {ratio:.2}   (bound {P99_MAX})");
    println!("threads more       {threads}   (bound {THREADS_MAX})");
    println!("memory more        {} MiB   (bound {})", memory >> 20, MEMORY_MAX >> 20);
    let is_met = ratio <= P99_MAX && threads <= THREADS_MAX && memory <= MEMORY_MAX;
    let report = json!({
        "kafka": cluster.is_some(), "alone_ms": alone, "at_once_ms": at_once, "p99_ratio": ratio,
        "threads": threads, "memory_bytes": memory, "is_met": is_met,
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("http.json"), format!("{report:#}\n")).unwrap();
    instance.signal("TERM");
    assert!(instance.end(SOON).success(), "{}", instance.errors());
    assert!(is_met, "a bound is missed");
}

async fn one_at_a_time(address: &str, numbers: &mut impl Iterator<Item = usize>) -> Vec<f64> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut latencies = Vec::new();
    // The first opens what the others find open.
    for number in numbers.take(ALONE + 1) {
        latencies.push(ask(&stream, number).await);
    }
    latencies.split_off(1)
}

fn a_thousand_at_once(
    runtime: &Runtime,
    address: &str,
    numbers: &mut impl Iterator<Item = usize>,
    instance: &Process,
) -> (Vec<f64>, Resources) {
    let (mut latencies, mut peak) = (Vec::new(), instance.resources());
    for _ in 0..ROUNDS {
        runtime.block_on(async {
            let mut streams = Vec::new();
            for number in numbers.take(WAITS) {
                streams.push((TcpStream::connect(address).await.unwrap(), number));
            }
            let mut asked: JoinSet<f64> = streams
                .into_iter()
                .map(async |(stream, number)| ask(&stream, number).await)
                .collect();
            while let Some(latency) = asked.join_next().await {
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

/// Milliseconds until the prediction is here.
async fn ask(stream: &TcpStream, number: usize) -> f64 {
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
    let begun = Instant::now();
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        stream.writable().await.unwrap();
        match stream.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    let (mut answer, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    while !is_whole(&answer) {
        stream.readable().await.unwrap();
        match stream.try_read(&mut piece) {
            Ok(0) => panic!("closed: {}", String::from_utf8_lossy(&answer)),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    let took = begun.elapsed();
    let answer = String::from_utf8(answer).unwrap();
    let is_right = answer.starts_with("HTTP/1.1 200 ")
        && answer.contains(&format!("\"respondent_id\":\"r-{number}\""));
    assert!(is_right, "{answer}");
    milliseconds(took)
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_lowercase();
    let length = length.split_once("content-length: ").unwrap().1.lines().next().unwrap();
    body.len() >= length.trim().parse().unwrap()
}

/// p50 and p99.
fn quantiles(latencies: &mut [f64]) -> [f64; 2] {
    latencies.sort_by(f64::total_cmp);
    [latencies.len() / 2, latencies.len() * 99 / 100].map(|place| latencies[place])
}
