//! A thousand requests that wait at the same time, and the resources that an instance needs for them.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::process::{Http, Process, Resources, SOON, until};

/// Settings of an instance on which requests wait: features that the model was trained with are missing, so the contract
/// holds the stream back.
pub(crate) const SETTINGS: [&str; 3] = [
    r#"features.contract={policy="hold_back", mostly_missing=0.9, window=1}"#,
    "http.waits_max=1000",
    "http.connections_max=1500",
];

const WAITS: usize = 1000;
/// Bounds of what an instance needs for them, compared with the idle instance.
const THREADS_MAX: usize = 20;
const MEMORY_MAX: usize = 100 << 20;

/// Asserts the bounds on an instance with [`SETTINGS`], and that waits end when their clients disconnect. `before` is the
/// use of resources of the idle instance.
#[expect(clippy::print_stderr, reason = "shown with --nocapture")]
pub(crate) fn check(process: &Process, http: &Http, before: Resources) {
    let event = |number: usize| {
        json!({"respondent_id": format!("r-{number}"), "completed": true}).to_string()
    };
    foretell::app::open_files::raise();
    let waiting = || http.metric("foretell_http_waits");
    let (mut streams, mut number) = (BTreeMap::new(), 0);
    // The first events of each partition are scored, later ones are held back.
    until("a thousand requests wait", SOON, || {
        while streams.len() < WAITS {
            streams.insert(number, ask(http, &event(number)));
            number += 1;
        }
        streams.retain(|_, stream| is_waiting(stream));
        (waiting() >= WAITS as f64).then_some(())
    });
    let after = process.resources();
    let (code, answer) = http.post("/api/v1/events?wait=true", &event(0), None).unwrap();
    assert_eq!(code, 503, "{answer}");
    assert!(http.metric("foretell_http_waits_refused_total") >= 1.0);
    let threads = after.threads.saturating_sub(before.threads);
    assert!(threads <= THREADS_MAX, "{threads} threads more: {before:?} {after:?}");
    let memory = after.memory.saturating_sub(before.memory);
    assert!(memory <= MEMORY_MAX, "{memory} bytes more: {before:?} {after:?}");
    // An event without `wait` does not queue behind them.
    let (code, answer) = http.post("/api/v1/events", &event(0), None).unwrap();
    assert_eq!(code, 202, "{answer}");
    drop(streams);
    until("no request waits after the clients disconnected", SOON, || {
        (waiting() < 0.5).then_some(())
    });
    eprintln!("{WAITS} waits: {threads} threads and {} KiB more than {before:?}", memory >> 10);
}

fn ask(http: &Http, body: &str) -> TcpStream {
    let mut stream = http.connect();
    let length = body.len();
    write!(
        stream,
        "POST /api/v1/events?wait=true&timeout_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream
}

/// Whether there is no response yet.
fn is_waiting(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let is_waiting =
        stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    is_waiting
}
