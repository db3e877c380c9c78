//! A receiver of webhooks: an HTTP server on a port of its own, whose answers a test chooses. It can go away and come back.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A request that was received whole.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Header names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// The status that it was answered with; 0 without an answer.
    pub(crate) status: u16,
}

impl Received {
    pub(crate) fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

/// What the receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// A status with `Retry-After`, in seconds.
    Later(u16, u32),
    /// No answer while the receiver hangs.
    Hang,
}

pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// Chooses the answer of a request by its idempotency key.
    answers: Mutex<BTreeMap<String, Answer>>,
    usual: Mutex<Option<Answer>>,
    received: Mutex<Vec<Received>>,
    is_away: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Listens; every request is answered with 200.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut receiver = Self { address, state: Arc::default(), accepting: None };
        receiver.accept(listener);
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=hidden", self.address)
    }

    /// The answer to every request that has no answer of its own.
    pub(crate) fn answer_all(&self, answer: Answer) {
        *lock(&self.state.usual) = Some(answer);
    }

    /// The answer to requests with this idempotency key.
    pub(crate) fn answer(&self, key: &str, answer: Answer) {
        lock(&self.state.answers).insert(key.to_owned(), answer);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.state.received).clone()
    }

    /// The keys of the requests that were answered with a success, in order.
    pub(crate) fn accepted(&self) -> Vec<String> {
        let received = self.received();
        let accepted = received.iter().filter(|request| (200..300).contains(&request.status));
        accepted.map(|request| request.key().to_owned()).collect()
    }

    /// Closes every connection and the port.
    pub(crate) fn go_away(&mut self) {
        self.state.is_away.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        for stream in lock(&self.state.open).drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }

    /// Listens on the same port again.
    pub(crate) fn come_back(&mut self) {
        self.state.is_away.store(false, Ordering::SeqCst);
        self.accept(TcpListener::bind(self.address).unwrap());
    }

    fn accept(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.accepting = Some(thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if state.is_away.load(Ordering::SeqCst) {
                    return;
                }
                lock(&state.open).push(stream.try_clone().unwrap());
                let state = Arc::clone(&state);
                // A client may close its connection at any time.
                thread::spawn(move || drop(state.serve(stream)));
            }
        }));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go_away();
    }
}

impl State {
    /// Answers the requests of one connection.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut headers = BTreeMap::new();
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let Some((name, value)) = line.split_once(": ") else { break };
                headers.insert(name.to_ascii_lowercase(), value.trim_end().to_owned());
            }
            let length = headers.get("content-length").and_then(|length| length.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body)?;
            let key = headers.get("idempotency-key").cloned().unwrap_or_default();
            let of_key = lock(&self.answers).get(&key).copied();
            let answer = of_key.or(*lock(&self.usual)).unwrap_or(Answer::Status(200));
            let (status, later) = match answer {
                Answer::Status(status) => (status, String::new()),
                Answer::Later(status, seconds) => (status, format!("Retry-After: {seconds}\r\n")),
                Answer::Hang => (0, String::new()),
            };
            let body = String::from_utf8(body).unwrap();
            lock(&self.received).push(Received { headers, body, status });
            if status == 0 {
                // Until the client gives up.
                return reader.read_to_end(&mut Vec::new()).map(drop);
            }
            // 204 has no body.
            let text =
                if status == 204 { String::new() } else { format!("the answer is {status}") };
            let length = text.len();
            write!(
                stream,
                "HTTP/1.1 {status} Answer\r\n{later}Content-Length: {length}\r\n\r\n{text}"
            )?;
        }
    }
}
