//! Health, metrics and the API over HTTP. Handlers read snapshots and the library of models, and pass records to the gateway.
//!
//! ```text
//!   server (TLS, connections, timeouts) ─▶ count ─▶ errors as problems ─▶ names (Host, Origin) ─┬▶ health, metrics, dashboard
//!                                                                                               ├▶ either token ─▶ status, models, respondents
//!                                                                                               └▶ token ─▶ events, outcomes, commands
//! ```

mod answers;
mod api;
mod body;
mod dashboard;
mod dead_letters;
mod error;
mod events;
mod exchange;
mod guard;
mod health;
mod json;
mod metrics;
mod models;
mod openapi;
mod parameters;
mod probes;
mod problems;
mod reasons;
mod respondents;
mod route;
mod routes;
mod server;
mod serving;
mod tls;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
};
use prometheus::Registry;
use tokio::net::TcpListener;

pub use dashboard::Dashboard;
pub use dead_letters::DeadLetterAccess;
pub use guard::Hosts;
pub use metrics::HttpMetrics;
pub use models::LibraryAccess;
pub use openapi::schemas::Shape;
pub use parameters::Named;
pub use probes::{ProbeState, serve_probes};
pub use problems::{PROBLEMS, Problem};
pub use reasons::json_of_answer;
pub use route::{Access, Content, Route};
pub use routes::ROUTES;
pub use server::{Limits, Transport};
pub use serving::ServingSettings;
pub use tls::{Tls, TlsError};

use crate::processors::{gateway::Gateway, overview::Overview};

/// State of the handlers.
#[derive(Clone)]
pub struct HttpState {
    /// The table of routes, which the OpenAPI document describes.
    pub routes: &'static [Route],
    /// Source of snapshots.
    pub overview: Overview,
    /// The models and the decisions about them.
    pub library: LibraryAccess,
    /// The dead letters.
    pub dead_letters: DeadLetterAccess,
    /// What the dashboard shows, and who watches it.
    pub dashboard: Dashboard,
    /// Writes events, outcomes and commands.
    pub gateway: Arc<Gateway>,
    /// The metrics that `/metrics` shows.
    pub registry: Registry,
    /// The metrics of HTTP itself.
    pub metrics: HttpMetrics,
    /// Token that routes which write require. `None` requires no token.
    pub bearer_token: Option<Arc<str>>,
    /// Token that routes which read require, or else `bearer_token`. `None` requires no token to read.
    pub read_token: Option<Arc<str>>,
    /// Host names that are allowed while there is no token.
    pub hosts: Arc<Hosts>,
    /// Settings of the serving protocols.
    pub serving: ServingSettings,
    /// Timeout of reading a body.
    pub read_timeout: Duration,
}

fn router(state: HttpState) -> Router {
    let serve =
        |router: Router<HttpState>, route: &Route| router.route(route.path, (route.handler)());
    let by_access = Access::ALL.map(|access| {
        let routes = ROUTES.iter().filter(|route| route.access == access);
        let router = routes.fold(Router::new(), serve);
        // A layer on a router without routes would panic.
        if !router.has_routes() {
            return router;
        }
        router.route_layer(from_fn_with_state((state.clone(), access), guard::token))
    });
    by_access
        .into_iter()
        .fold(Router::new(), Router::merge)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(state.clone(), guard::names))
        .layer(from_fn(error::as_problems))
        .layer(from_fn_with_state(state.metrics.clone(), metrics::count))
        .with_state(state)
}

/// Binds the socket, so that a taken port is an error before anything else starts.
///
/// # Errors
/// If the address cannot be bound.
pub async fn bind(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until `stop` resolves and all current requests are answered.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    transport: Transport,
    stop: impl Future<Output = ()> + Send,
) {
    let (metrics, dashboard) = (state.metrics.clone(), state.dashboard.clone());
    // A stream never ends by itself, and the server waits for its responses.
    let stop = async move {
        stop.await;
        dashboard.close();
    };
    server::serve(listener, router(state), transport, metrics, stop).await;
}
