//! A proxy in front of the test registry that simulates an outage, or a replica that lags behind.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use crate::application::registry;

/// The proxy, on its own port until the test process ends.
pub(crate) struct Gateway {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Default)]
struct Shared {
    is_out: AtomicBool,
    /// Schema id that is answered with 404; 0 is none.
    hidden: AtomicU32,
    /// The request line of every request that was not refused by an outage.
    requests: Mutex<Vec<String>>,
}

impl Gateway {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // A client may close the connection early; that error is of no interest.
                thread::spawn(move || drop(shared.answer(stream)));
            }
        });
        Self { shared, port }
    }

    /// URL of the proxy, with the registry's path.
    pub(crate) fn url(&self) -> String {
        let (_, path) = split(&registry());
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Closes every connection without an answer from now on.
    pub(crate) fn begin_outage(&self) {
        self.shared.is_out.store(true, Ordering::SeqCst);
    }

    pub(crate) fn end_outage(&self) {
        self.shared.is_out.store(false, Ordering::SeqCst);
    }

    /// Answers 404 for schema `id`, as a replica that lags behind does; 0 hides none.
    pub(crate) fn hide(&self, id: u32) {
        self.shared.hidden.store(id, Ordering::SeqCst);
    }

    /// Number of requests with `text` in their request line.
    pub(crate) fn requests_with(&self, text: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|line| line.contains(text)).count()
    }
}

/// Splits a URL into `host:port` and the path.
fn split(url: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").expect("the test registry has no TLS");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (host.to_owned(), format!("/{path}"))
}

impl Shared {
    fn answer(&self, mut client: TcpStream) -> std::io::Result<()> {
        if self.is_out.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut reader = BufReader::new(client.try_clone()?);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let name = line
                .split_once(": ")
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()));
            match name {
                _ if line == "\r\n" => break,
                Some((name, value)) if name == "content-length" => {
                    length = value.parse().unwrap_or(0);
                    head.push_str(&line);
                }
                Some((name, _)) if name == "connection" => {}
                _ => head.push_str(&line),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let first = head.lines().next().unwrap_or_default().to_owned();
        let hidden = format!("/schemas/ids/{}?", self.hidden.load(Ordering::SeqCst));
        let is_hidden = first.contains(&hidden);
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(first);
        if is_hidden {
            return refuse(
                &mut client,
                "404 Not Found",
                r#"{"error_code":40403,"message":"not here"}"#,
            );
        }
        let mut upstream = TcpStream::connect(split(&registry()).0)?;
        write!(upstream, "{head}Connection: close\r\n\r\n")?;
        upstream.write_all(&body)?;
        std::io::copy(&mut upstream, &mut client).map(drop)
    }
}

fn refuse(client: &mut TcpStream, status: &str, answer: &str) -> std::io::Result<()> {
    let length = answer.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}"
    )
}
