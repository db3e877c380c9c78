//! The server of a model alone, without a broker: the serving protocols, health and metrics. `foretell serve` runs it.

use std::future::Future;

use tokio::net::TcpListener;

use crate::http::{
    AccessRules, ProbeState, ROUTES, ServingState, Transport, guarded, observed, probes,
    route::Handler, server,
};

/// What the server has.
pub struct ModelServer {
    pub probes: ProbeState,
    pub serving: ServingState,
    pub access: AccessRules,
}

/// Serves until `stop` resolves and all current requests are answered.
pub async fn serve_model(
    listener: TcpListener,
    server: ModelServer,
    transport: Transport,
    stop: impl Future<Output = ()> + Send,
) {
    let ModelServer { probes: state, serving, access } = server;
    let metrics = state.metrics.clone();
    let routes = ROUTES.iter().filter_map(|route| match route.handler {
        Handler::Serving(handler) => Some((route, handler())),
        Handler::Instance(_) => None,
    });
    let routes = guarded(routes, &access).with_state(serving).merge(probes::probes(state));
    let router = observed(routes, metrics.clone());
    server::serve(listener, router, transport, metrics, stop).await;
}
