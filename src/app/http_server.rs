//! The HTTP server of an instance: its tokio runtime, the gateway with its threads, and its stop.

use std::{future::Future, io, net::SocketAddr, num::NonZero, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use prometheus::Registry;
use rand::{TryRng, rngs::SysRng};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use crate::{
    app::cluster::Cluster,
    config::{Config, Secret},
    events::codecs::Codecs,
    http::{
        self, AccessRules, Dashboard, DeadLetterAccess, Hosts, HttpMetrics, HttpState,
        LargeRequests, LibraryAccess, Limits, ModelServer, ProbeState, ServingSettings,
        ServingState, Tls, Transport,
    },
    processors::{
        gateway::{EntrySettings, Gateway, GatewaySettings, GatewayThread},
        instances::ApplicationBoard,
        library::Library,
        model_table::Serving,
        overview::Overview,
    },
};
use foretell_ml::Scorer;
use foretell_streams::time::Clock;

/// The time that open requests may take at a stop.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// A bound socket that does not accept connections yet.
pub(super) struct BoundServer {
    runtime: Runtime,
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

/// What the API serves.
pub(super) struct ServedParts {
    pub(super) overview: Overview,
    pub(super) gateway: Gateway,
    pub(super) library: Library,
    pub(super) board: ApplicationBoard,
    pub(super) dead_letters: DeadLetterAccess,
}

/// A running server.
pub(super) struct HttpServer {
    runtime: Runtime,
    served: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// Checks that the configured address is free, and that the certificate can be used, before steps that take long.
///
/// # Errors
/// If an instance could not listen on it.
pub(super) fn check_address(config: &Config) -> anyhow::Result<()> {
    let bind = &config.http.bind;
    tls(config)?;
    let bound = std::net::TcpListener::bind(bind);
    bound.map(drop).map_err(|error| cannot_listen(config, "http", bind, &error))
}

fn cannot_listen(config: &Config, section: &str, bind: &str, error: &io::Error) -> anyhow::Error {
    let source = config.sources.of(&format!("{section}.bind"));
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let question = if is_taken { "is another instance running? " } else { "" };
    anyhow::anyhow!("{source}: cannot listen on {bind}: {error}: {question}set [{section}] bind")
}

impl BoundServer {
    /// Binds the address of an instance.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        Self::bind_to(config, "http", &config.http.bind)
    }

    /// Binds an address for a model alone, with a thread for each core.
    pub(super) fn bind_model(bind: &str) -> anyhow::Result<Self> {
        Self::with_threads(cores(), bind)?.map_err(|error| {
            anyhow::anyhow!("cannot listen on {bind}: {error}: choose another --host or --port")
        })
    }

    /// Binds the address of `foretell deliver`.
    pub(super) fn bind_probes(config: &Config) -> anyhow::Result<Self> {
        Self::bind_to(config, "delivery", &config.delivery.bind)
    }

    fn bind_to(config: &Config, section: &str, bind: &str) -> anyhow::Result<Self> {
        Self::with_threads(1, bind)?.map_err(|error| cannot_listen(config, section, bind, &error))
    }

    fn with_threads(threads: usize, bind: &str) -> io::Result<io::Result<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("http")
            .enable_all()
            .build()?;
        let bound = runtime.block_on(http::bind(bind));
        Ok(bound.map(|(listener, address)| Self { runtime, listener, address }))
    }

    pub(super) fn serve(
        self,
        config: &Config,
        parts: ServedParts,
        registry: &Registry,
    ) -> anyhow::Result<HttpServer> {
        let settings = &config.http;
        let transport = Transport { limits: limits(config), tls: tls(config)? };
        let ServedParts { overview, gateway, library, board, dead_letters } = parts;
        let (gateway, metrics) = (Arc::new(gateway), HttpMetrics::register(registry)?);
        let serving = ServingState {
            journal: config.serving.journal.then(|| Arc::clone(&gateway)),
            ..serving_state(config, overview.serving.clone(), metrics.clone())
        };
        let state = HttpState {
            routes: http::ROUTES,
            overview,
            dashboard: Dashboard::new(board, settings.streams_max),
            library: LibraryAccess::new(library),
            dead_letters,
            gateway,
            registry: registry.clone(),
            metrics,
            access: access_rules(
                config,
                Hosts::new(&settings.bind, self.address, &settings.allowed_hosts),
            ),
            serving,
            read_timeout: settings.read_timeout,
        };
        Ok(self.spawn(|listener, stopped| http::serve(listener, state, transport, stopped)))
    }

    /// Serves a model alone. Without `http.allowed_hosts` it is served under any name: there is nothing else to read, and nothing
    /// to write.
    pub(super) fn serve_model(
        self,
        config: &Config,
        model: Scorer,
        registry: &Registry,
    ) -> anyhow::Result<HttpServer> {
        let transport = Transport { limits: limits(config), tls: tls(config)? };
        let metrics = HttpMetrics::register(registry)?;
        let serving = serving_state(config, Serving::only(model), metrics.clone());
        let any = ["*".to_owned()];
        let allowed = match config.http.allowed_hosts.as_slice() {
            [] => &any,
            names => names,
        };
        let hosts = Hosts::new(&self.address.to_string(), self.address, allowed);
        let probes =
            ProbeState { registry: registry.clone(), metrics, is_ready: Arc::new(|| true) };
        let server = ModelServer { probes, serving, access: access_rules(config, hosts) };
        Ok(self.spawn(|listener, stopped| http::serve_model(listener, server, transport, stopped)))
    }

    /// Serves health and metrics only.
    pub(super) fn serve_probes(
        self,
        config: &Config,
        registry: &Registry,
        is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> anyhow::Result<HttpServer> {
        let metrics = HttpMetrics::register(registry)?;
        let state = ProbeState { registry: registry.clone(), metrics, is_ready };
        let limits = limits(config);
        Ok(self.spawn(|listener, stopped| http::serve_probes(listener, state, limits, stopped)))
    }

    fn spawn<F>(self, serve: impl FnOnce(TcpListener, Stopped) -> F) -> HttpServer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped: Stopped = Box::pin(async move {
            // A dropped sender stops the server, as a message does.
            drop(stopped.await);
        });
        let served = self.runtime.spawn(serve(self.listener, stopped));
        HttpServer { runtime: self.runtime, served, stop }
    }
}

fn serving_state(config: &Config, models: Serving, metrics: HttpMetrics) -> ServingState {
    let settings = &config.serving;
    ServingState {
        application: config.application().into(),
        models,
        schema: Arc::clone(config.event_schemas.lead()),
        journal: None,
        settings: ServingSettings {
            is_enabled: settings.enabled,
            rows_max: settings.rows_max,
            body_bytes_max: settings.body_bytes_max,
        },
        metrics,
        read_timeout: config.http.read_timeout,
        large: LargeRequests::for_cores(cores()),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn access_rules(config: &Config, hosts: Hosts) -> AccessRules {
    let text = |token: &Option<Secret>| token.as_ref().map(|token| Arc::from(token.reveal()));
    AccessRules {
        bearer_token: text(&config.http.bearer_token),
        read_token: text(&config.http.read_token),
        hosts: Arc::new(hosts),
    }
}

/// Resolves at the stop of a server.
type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

fn limits(config: &Config) -> Limits {
    let settings = &config.http;
    Limits { connections_max: settings.connections_max, read_timeout: settings.read_timeout }
}

/// Reads the certificate, if one is configured.
fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    let Some(files) = &config.http.tls else { return Ok(None) };
    let loaded = Tls::load(&files.certificate_file, &files.key_file);
    loaded.map(Some).with_context(|| format!("{}: [http.tls]", config.sources.of("http.tls")))
}

impl HttpServer {
    /// Completes open requests and stops. The gateway's threads end after it.
    ///
    /// # Errors
    /// If the server has panicked.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        // The limit is for clients that never complete their request.
        let closing = async { tokio::time::timeout(CLOSING_MAX, self.served).await };
        let served = self.runtime.block_on(closing);
        self.runtime.shutdown_timeout(CLOSING_MAX);
        if let Ok(served) = served {
            return served.context("the HTTP task ended");
        }
        tracing::warn!("open requests did not complete within {CLOSING_MAX:?}");
        Ok(())
    }
}

/// Opens the gateway, which writes the events, outcomes and commands of HTTP clients, and returns the threads to run.
pub(super) fn gateway(
    config: &Config,
    cluster: &Cluster,
    codecs: Codecs,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Gateway, [GatewayThread; 2])> {
    let entries = EntrySettings {
        schemas: config.event_schemas.clone(),
        labels: config.classes.clone(),
        times: config.time_bounds(),
        codecs,
        topics: config.topics.clone(),
    };
    // Not from the configured seed: no two processes may have the same name, at any time.
    let name = SysRng.try_next_u64().context("the system has no random numbers")?;
    let settings = GatewaySettings {
        name: format!("api-{name:016x}"),
        entries,
        partitions: config.partitions,
        waits_max: config.http.waits_max,
    };
    Ok(Gateway::open(&cluster.broker, settings, clock)?)
}
