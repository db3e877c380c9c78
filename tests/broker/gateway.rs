//! A gateway before the registry: it can go away and come back, and lag behind.

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

/// In front of the test's registry, on a port of its own, until the test ends.
pub(crate) struct Gateway {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Default)]
struct Shared {
    is_away: AtomicBool,
    /// The id of a schema that has not arrived here yet; 0 is none.
    hidden: AtomicU32,
    /// The first line of every request.
    asked: Mutex<Vec<String>>,
}

impl Gateway {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serves = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serves);
                // A client that hangs up in the middle is none of our business.
                thread::spawn(move || drop(shared.answer(stream)));
            }
        });
        Self { shared, port }
    }

    /// Its address, with the registry's path.
    pub(crate) fn url(&self) -> String {
        let (_, path) = split(&registry());
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Every client finds the connection closed.
    pub(crate) fn go_away(&self) {
        self.shared.is_away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn come_back(&self) {
        self.shared.is_away.store(false, Ordering::SeqCst);
    }

    /// As a copy of the registry that lags behind has no schema of this id; 0: it has caught up.
    pub(crate) fn hide(&self, id: u32) {
        self.shared.hidden.store(id, Ordering::SeqCst);
    }

    /// How many requests had `words` in their first line.
    pub(crate) fn asked(&self, words: &str) -> usize {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|line| line.contains(words)).count()
    }
}

/// Host and port, and the path.
fn split(url: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").expect("the test's registry speaks plainly");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (host.to_owned(), format!("/{path}"))
}

impl Shared {
    fn answer(&self, mut client: TcpStream) -> std::io::Result<()> {
        if self.is_away.load(Ordering::SeqCst) {
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
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(first);
        if is_hidden {
            return refuse(
                &mut client,
                "404 Not Found",
                r#"{"error_code":40403,"message":"not here"}"#,
            );
        }
        let mut behind = TcpStream::connect(split(&registry()).0)?;
        write!(behind, "{head}Connection: close\r\n\r\n")?;
        behind.write_all(&body)?;
        std::io::copy(&mut behind, &mut client).map(drop)
    }
}

fn refuse(client: &mut TcpStream, status: &str, answer: &str) -> std::io::Result<()> {
    let length = answer.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}"
    )
}
