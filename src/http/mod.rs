//! Health, metrics and the API over HTTP. Handlers read snapshots and the library of models, and pass records to the gateway.
//!
//! ```text
//!   server (TLS, connections, timeouts) ─▶ count ─▶ errors as problems ─┬▶ health, metrics
//!                                                                       ├▶ names (Host, Origin) ─▶ dashboard
//!                                                                       ├▶ either token, or names ─▶ status, models, respondents
//!                                                                       └▶ token, or names ─▶ events, outcomes, commands
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
    routing::MethodRouter,
};
use prometheus::Registry;
use tokio::net::TcpListener;

pub use dashboard::Dashboard;
pub use dead_letters::DeadLetterAccess;
pub use guard::{AccessRules, Hosts};
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
pub use serving::{LargeRequests, ModelServer, ServingSettings, ServingState, serve_model};
pub use tls::{Tls, TlsError};

use crate::{
    http::route::Handler,
    processors::{gateway::Gateway, overview::Overview},
};

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
    /// Tokens and host names.
    pub access: AccessRules,
    /// What the serving protocols need.
    pub serving: ServingState,
    /// Timeout of reading a body.
    pub read_timeout: Duration,
}

fn router(state: HttpState) -> Router {
    let routes = ROUTES.iter().map(|route| {
        let handler = match route.handler {
            Handler::Instance(handler) => handler(),
            Handler::Serving(handler) => handler().with_state(state.serving.clone()),
        };
        (route, handler)
    });
    let (rules, metrics) = (state.access.clone(), state.metrics.clone());
    observed(guarded(routes, &rules).with_state(state), metrics)
}

/// The routes, each behind the token of its kind of access.
fn guarded<S: Clone + Send + Sync + 'static>(
    routes: impl Iterator<Item = (&'static Route, MethodRouter<S>)>,
    rules: &AccessRules,
) -> Router<S> {
    let routes: Vec<_> = routes.collect();
    let guarded = Access::ALL.into_iter().map(|access| {
        let of_it = routes.iter().filter(|(route, _)| route.access == access);
        let router = of_it.fold(Router::new(), |router, (route, handler)| {
            router.route(route.path, handler.clone())
        });
        // A layer on a router without routes would panic.
        if !router.has_routes() {
            return router;
        }
        router.route_layer(from_fn_with_state((rules.clone(), access), guard::access))
    });
    guarded.fold(Router::new(), Router::merge)
}

/// What every request passes before and after its route.
fn observed(routes: Router, metrics: HttpMetrics) -> Router {
    routes
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn(error::as_problems))
        .layer(from_fn_with_state(metrics, metrics::count))
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
