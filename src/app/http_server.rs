//! The HTTP server of an instance: a runtime of its own, the gateway and its threads; and its end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use prometheus::Registry;
use rand::{TryRng, rngs::SysRng};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use crate::{
    app::{cluster::Cluster, start::time_bounds},
    config::Config,
    events::codecs::Codecs,
    http::{self, Hosts, HttpMetrics, HttpState, Limits},
    processors::{
        gateway::{EntrySettings, Gateway, GatewaySettings, GatewayThread},
        overview::Overview,
    },
};
use foretell_streams::time::Clock;

/// How long requests under way may take when we stop.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// A socket, before there is anything to serve.
pub(super) struct BoundServer {
    runtime: Runtime,
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

/// A server that serves.
pub(super) struct HttpServer {
    runtime: Runtime,
    served: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// That an instance will be able to serve: asked before what takes long.
///
/// # Errors
/// If the address of the configuration is taken.
pub fn check_address(config: &Config) -> anyhow::Result<()> {
    let bind = &config.http.bind;
    std::net::TcpListener::bind(bind).map(drop).map_err(|error| cannot_listen(config, &error))
}

fn cannot_listen(config: &Config, error: &io::Error) -> anyhow::Error {
    let (place, bind) = (config.sources.of("http.bind"), &config.http.bind);
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let question = if is_taken { "is another instance running? " } else { "" };
    anyhow::anyhow!("{place}: cannot listen on {bind}: {error}: {question}set [http] bind")
}

impl BoundServer {
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("http")
            .enable_all()
            .build()?;
        let bind = &config.http.bind;
        let (listener, address) =
            runtime.block_on(http::bind(bind)).map_err(|error| cannot_listen(config, &error))?;
        Ok(Self { runtime, listener, address })
    }

    pub(super) fn serve(
        self,
        config: &Config,
        overview: Overview,
        gateway: Gateway,
        registry: &Registry,
    ) -> anyhow::Result<HttpServer> {
        let written = &config.http;
        let state = HttpState {
            overview,
            gateway: Arc::new(gateway),
            registry: registry.clone(),
            metrics: HttpMetrics::register(registry)?,
            bearer_token: written.bearer_token.as_ref().map(|token| Arc::from(token.reveal())),
            hosts: Arc::new(Hosts::new(&written.bind, self.address, &written.allowed_hosts)),
            read_timeout: written.read_timeout,
        };
        let limits =
            Limits { connections_max: written.connections_max, read_timeout: written.read_timeout };
        let (stop, stopped) = oneshot::channel::<()>();
        let served = self.runtime.spawn(http::serve(self.listener, state, limits, async move {
            // The sender gone means the same as the message: stop.
            drop(stopped.await);
        }));
        Ok(HttpServer { runtime: self.runtime, served, stop })
    }
}

impl HttpServer {
    /// Answers what is under way, and ends. The gateway's threads end after it.
    ///
    /// # Errors
    /// If serving has panicked.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        // A client that never ends its request does not keep us.
        let closing = async { tokio::time::timeout(CLOSING_MAX, self.served).await };
        let served = self.runtime.block_on(closing);
        self.runtime.shutdown_timeout(CLOSING_MAX);
        if let Ok(served) = served {
            return served.context("the HTTP task ended");
        }
        tracing::warn!("requests were under way when the time was up");
        Ok(())
    }
}

/// What takes events and outcomes of clients, and the threads that it needs.
pub(super) fn gateway(
    config: &Config,
    cluster: &Cluster,
    codecs: Codecs,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Gateway, [GatewayThread; 2])> {
    let entries = EntrySettings {
        schema: Arc::clone(&config.event_schema),
        names_events: config.events.event_id.is_some(),
        labels: config.classes.clone(),
        times: time_bounds(config),
        codecs,
        topics: config.topics.clone(),
    };
    // Of no use to anybody who wants to repeat a run: no two processes may have the same, whenever they start.
    let name = SysRng.try_next_u64().context("the system has no random numbers")?;
    let settings = GatewaySettings {
        name: format!("api-{name:016x}"),
        entries,
        partitions: config.partitions,
        waits_max: config.http.waits_max,
    };
    Ok(Gateway::open(&cluster.broker, settings, clock)?)
}
