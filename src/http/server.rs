//! The accept loop, which bounds the number of connections and the time that a client may take. axum's own loop sets
//! neither bound.
//!
//! ```text
//!   accept ─▶ below connections_max? ─no─▶ 503, close (with TLS, only close)
//!               └─yes─▶ TLS handshake within read_timeout? ─no─▶ close
//!                            └─yes─▶ head within read_timeout? ─no─▶ 408 if a part was received, close
//!                                         └─yes─▶ router (`body` has its own timeout) ─▶ response, each part within read_timeout
//!   stop ─▶ accept no more, answer current requests, close
//! ```

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, http::StatusCode};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};

use crate::http::{error, metrics::HttpMetrics, tls::Tls};

/// How clients are served.
#[derive(Clone)]
pub struct Transport {
    /// Bounds for clients.
    pub limits: Limits,
    /// The certificate; none for plain HTTP.
    pub tls: Option<Tls>,
}

/// Bounds for clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// Timeout of the TLS handshake, of the head of a request, of its body, and of each part of a response.
    pub read_timeout: Duration,
}

/// Maximum number of connections over the limit that get a 503 at the same time. Others are closed without a response.
const REFUSALS_MAX: usize = 64;
/// The same with TLS, where each needs a handshake first, which takes up to some milliseconds of CPU time.
const TLS_REFUSALS_MAX: usize = 8;
/// Timeout of each step with a client that is refused or leaves: its handshake, its request, and the end of its connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`, for example because there are no free file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves and all current requests are answered.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    Transport { limits, tls }: Transport,
    metrics: HttpMetrics,
    stop: impl Future<Output = ()>,
) {
    let free = Arc::new(Semaphore::new(limits.connections_max));
    let refusals_max = if tls.is_some() { TLS_REFUSALS_MAX } else { REFUSALS_MAX };
    let refusals = Arc::new(Semaphore::new(refusals_max));
    let (closing, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: trying again");
                sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
            let open = metrics.connection();
            let connection = Connection {
                router: router.clone(),
                read_timeout: limits.read_timeout,
                closing: closing.subscribe(),
            };
            let (tls, metrics) = (tls.clone(), metrics.clone());
            connections.spawn(async move {
                connection.accept(stream, tls, &metrics).await;
                drop((open, permit));
            });
        } else {
            metrics.connection_refused();
            if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                let tls = tls.clone();
                connections.spawn(async move {
                    refuse(stream, tls).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Whether an error of `accept` concerns only the connection that was accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What one connection needs.
struct Connection {
    router: Router,
    read_timeout: Duration,
    closing: watch::Receiver<bool>,
}

impl Connection {
    /// Serves a connection, after the handshake if there is a certificate, until it is closed.
    async fn accept(self, stream: TcpStream, tls: Option<Tls>, metrics: &HttpMetrics) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let Some(tls) = tls else { return self.serve(stream).await };
        let mut closing = self.closing.clone();
        let handshake = timeout(self.read_timeout, tls.accept(stream));
        let result = tokio::select! {
            result = handshake => result,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match result {
            Ok(Ok(stream)) => return self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake was not complete in time"),
        }
        metrics.handshake_failed();
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S) {
        let router = TowerToHyperService::new(self.router);
        let service = service_fn(move |request: Request<Incoming>| Box::pin(router.call(request)));
        let io = TokioIo::new(TimedStream::new(stream, self.read_timeout));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.read_timeout)
            .serve_connection(io, service);
        let mut served = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
        let result = tokio::select! {
            result = &mut served => Some(result),
            _ = self.closing.wait_for(|closing| *closing) => None,
        };
        let result = match result {
            Some(result) => result,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await
            }
        };
        let is_late = result.is_err_and(|error| error.is_timeout());
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner().stream;
        // A client that has sent nothing gets no response.
        if is_late && !parts.read_buf.is_empty() {
            let late = "the head of the request was not complete in time";
            finish(stream, &error::raw(StatusCode::REQUEST_TIMEOUT, "", late)).await;
        } else if timeout(CLOSE_WITHIN, stream.shutdown()).await.is_err() {
            tracing::debug!("a client did not take the end of its connection in time");
        }
    }
}

/// Answers a connection over the limit with 503, after the handshake if there is a certificate.
async fn refuse(stream: TcpStream, tls: Option<Tls>) {
    let Some(tls) = tls else { return refuse_request(stream).await };
    match timeout(CLOSE_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => refuse_request(stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake of a refused client failed"),
        Err(_) => tracing::debug!("a TLS handshake of a refused client was not complete in time"),
    }
}

/// Waits for the beginning of a request, because some clients take no response before they have sent one.
async fn refuse_request(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let answer = error::raw(
        StatusCode::SERVICE_UNAVAILABLE,
        "Retry-After: 1\r\n",
        "too many connections: try again, or raise [http] connections_max",
    );
    if timeout(CLOSE_WITHIN, stream.read(&mut [0; 1024])).await.is_err() {
        tracing::debug!("a refused client has sent nothing");
    }
    finish(stream, &answer).await;
}

/// Sends `answer`, and reads until the client closes: closing a socket with unread bytes resets the connection, and the
/// client may lose the response.
async fn finish(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    let finished = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    match timeout(CLOSE_WITHIN, finished).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a refused client closed its connection"),
        Err(_) => tracing::debug!("a refused client did not close its connection in time"),
    }
}

/// A stream whose writes fail if the client does not read for too long.
struct TimedStream<S> {
    stream: S,
    write_timeout: Duration,
    /// Set while a write is pending.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    fn new(stream: S, write_timeout: Duration) -> Self {
        Self { stream, write_timeout, deadline: None }
    }

    fn within<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let wait = self.write_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(wait)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.within(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::SocketAddr,
        sync::mpsc,
        thread::JoinHandle,
    };

    use axum::{body::Body, middleware::from_fn, response::Response, routing::get};
    use prometheus::Registry;
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use foretell_streams::time::{Clock, SystemClock};

    /// Bound of a wait, longer than any wait takes.
    const SOON: Duration = Duration::from_secs(60);

    struct Server {
        address: SocketAddr,
        metrics: HttpMetrics,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Server {
        fn start(router: Router, read_timeout: Duration) -> Self {
            let metrics = HttpMetrics::register(&Registry::new()).unwrap();
            let (sender, address) = mpsc::channel();
            let (stop, stopped) = oneshot::channel::<()>();
            let counted = metrics.clone();
            let thread = std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    sender.send(listener.local_addr().unwrap()).unwrap();
                    let limits = Limits { connections_max: 10, read_timeout };
                    let transport = Transport { limits, tls: None };
                    let router = router.layer(from_fn(error::as_problems));
                    serve(listener, router, transport, counted, async { drop(stopped.await) })
                        .await;
                });
            });
            let address = address.recv().unwrap();
            Self { address, metrics, stop: Some(stop), thread: Some(thread) }
        }

        fn request(&self, path: &str) -> std::net::TcpStream {
            let mut stream = std::net::TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        }

        fn end(&mut self) {
            drop(self.stop.take());
            self.thread.take().unwrap().join().unwrap();
        }
    }

    /// Reads until the server closes.
    fn rest(mut stream: std::net::TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn head(stream: &mut std::net::TcpStream) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_panic_is_a_response_and_the_connection_stays_open() {
        let router = Router::new().route("/", get(async || -> &str { panic!("on purpose") }));
        let mut server = Server::start(router, SOON);
        let mut stream = server.request("/");
        for _ in 0..2 {
            let head = head(&mut stream);
            assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
            assert!(head.contains("application/problem+json"), "{head}");
            let length = head.to_lowercase();
            let length = length.split_once("content-length: ").unwrap().1.lines().next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            assert!(body.starts_with(b"{\"type\":\"urn:foretell:problem:internal\""));
            write!(stream, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
        drop(stream);
        server.end();
    }

    #[test]
    fn current_requests_are_answered_before_the_end() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (has_begun, may_go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        let handler = async move || {
            has_begun.notify_one();
            may_go_on.notified().await;
            "done"
        };
        let router = Router::new().route("/", get(handler)).route("/at-once", get(async || "ok"));
        let mut server = Server::start(router, SOON);
        let mut idle = server.request("/at-once");
        assert!(head(&mut idle).starts_with("HTTP/1.1 200 "));
        let waiting = server.request("/");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(begun.notified());
        drop(server.stop.take());
        assert_eq!(rest(idle), "ok", "it is closed, because it had no request");
        go_on.notify_one();
        let answer = rest(waiting);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
        server.thread.take().unwrap().join().unwrap();
        assert!(std::net::TcpStream::connect(server.address).is_err());
    }

    #[test]
    fn a_client_that_does_not_read_is_disconnected() {
        let large = async || Response::new(Body::from(vec![0_u8; 64 << 20]));
        let mut server =
            Server::start(Router::new().route("/", get(large)), Duration::from_millis(50));
        let stream = server.request("/");
        let clock = SystemClock::new();
        // Its response has begun when a byte can be read.
        assert!(stream.peek(&mut [0]).unwrap() > 0);
        while server.metrics.connections_open() > 0 {
            assert!(clock.elapsed() < SOON, "still connected");
            std::thread::yield_now();
        }
        server.end();
    }
}
