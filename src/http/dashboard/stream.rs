//! The stream of snapshots: server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! The first event of a viewer, `status`, has every section as JSON. One producer makes an event every second, while there are
//! viewers, and puts it into the queue of each: `change`, with the sections that have changed. A viewer whose queue is full is dropped, so a slow client
//! costs [`QUEUED_MAX`] events, and nothing waits for it. It connects again and gets all sections.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_core::Stream;
use serde_json::{Map, Value as Json};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    http::dashboard::{sections, whole},
    processors::instances::ApplicationBoard,
};

/// The time between two events. It is a heartbeat too: each has at least the time of the numbers.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// Events that wait for a client. One has a few kilobytes, the first some 50.
const QUEUED_MAX: usize = 4;

/// The type of the first event: it replaces what a client has.
const STATUS: &str = "status";
/// The type of the others: their sections replace those of the same names.
const CHANGE: &str = "change";

/// Everybody who watches. Clones share them.
#[derive(Clone)]
pub(super) struct Viewers {
    board: ApplicationBoard,
    streams_max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    queues: Vec<mpsc::Sender<Bytes>>,
    is_producing: bool,
    is_closed: bool,
}

impl Viewers {
    pub(super) fn new(board: ApplicationBoard, streams_max: usize) -> Self {
        Self { board, streams_max, open: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a viewer, and returns its stream; none if there are too many or the instance stops. Runs on the runtime of the
    /// server, where it starts the producer if none runs.
    pub(super) fn add(&self) -> Option<Body> {
        let mut open = self.open();
        open.queues.retain(|queue| !queue.is_closed());
        if open.is_closed || open.queues.len() >= self.streams_max {
            return None;
        }
        if !open.is_producing {
            open.is_producing = true;
            // What the first event has at least: it is made after this.
            let mut sent = BTreeMap::new();
            changed(sections(&self.board), &mut sent);
            tokio::spawn(self.clone().produce(sent));
        }
        let (queue, events) = mpsc::channel(QUEUED_MAX);
        // The queue is empty.
        drop(queue.try_send(event(STATUS, &whole(&self.board))));
        open.queues.push(queue);
        Some(Body::from_stream(Events(events)))
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        let mut open = self.open();
        open.is_closed = true;
        open.queues.clear();
    }

    /// Sends events with what differs from `sent`, until nobody watches.
    async fn produce(self, mut sent: BTreeMap<String, String>) {
        loop {
            sleep(EVENT_INTERVAL).await;
            let changed = changed(sections(&self.board), &mut sent);
            let event = event(CHANGE, &changed);
            let mut open = self.open();
            open.queues.retain(|queue| queue.try_send(event.clone()).is_ok());
            if open.queues.is_empty() {
                open.is_producing = false;
                return;
            }
        }
    }
}

/// The sections that are not as they were sent last, which `sent` has.
fn changed(
    mut sections: Map<String, Json>,
    sent: &mut BTreeMap<String, String>,
) -> Map<String, Json> {
    sections.retain(|name, section| {
        let text = section.to_string();
        let is_same = sent.get(name).is_some_and(|sent| *sent == text);
        if !is_same {
            sent.insert(name.clone(), text);
        }
        !is_same
    });
    sections
}

/// An event. JSON has no line breaks, which would end the data.
fn event(kind: &str, sections: &Map<String, Json>) -> Bytes {
    let json = serde_json::to_string(sections).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {json}\n\n"))
}

/// The events of one viewer.
struct Events(mpsc::Receiver<Bytes>);

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|event| event.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(json: Json) -> Map<String, Json> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_changed_sections_are_sent() {
        let mut sent = BTreeMap::new();
        let first = object(json!({"live": {"at": 1}, "quality": [1, 2]}));
        assert_eq!(changed(first.clone(), &mut sent), first);
        assert_eq!(changed(first, &mut sent), Map::new());
        let next = object(json!({"live": {"at": 2}, "quality": [1, 2]}));
        assert_eq!(changed(next, &mut sent), object(json!({"live": {"at": 2}})));
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let event = event(CHANGE, &object(json!({"text": "two\nlines\r\n\u{2028}"})));
        let text = String::from_utf8(event.to_vec()).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[0], "event: change");
        assert_eq!(lines.len(), 4, "{text:?}");
        let data: Json = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["text"], "two\nlines\r\n\u{2028}");
    }

    #[test]
    fn viewers_are_bounded_slow_ones_are_dropped_and_a_close_ends_all() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let viewers = Viewers::new(ApplicationBoard::default(), 3);
            let mut bodies: Vec<Body> = (0..3).filter_map(|_| viewers.add()).collect();
            assert_eq!(bodies.len(), 3);
            for _ in 0..1_000 {
                assert!(viewers.add().is_none());
            }
            // A client that disconnects makes room at once.
            drop(bodies.pop());
            bodies.extend(viewers.add());
            assert_eq!(bodies.len(), 3);
            // Nobody reads: the first event and three more fill a queue, and the next drops it.
            let until_dropped = async {
                while !viewers.open().queues.is_empty() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(180), until_dropped).await.unwrap();
            let until_idle = async {
                while viewers.open().is_producing {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(180), until_idle).await.unwrap();
            let body = viewers.add().unwrap();
            viewers.close();
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            assert!(bytes.starts_with(b"event: status\ndata: {"), "it ends after its first event");
            assert!(viewers.add().is_none());
        });
    }
}
