//! One row of the table of routes.

use axum::{http::Method, routing::MethodRouter};

use crate::http::{HttpState, ServingState, openapi::schemas::Shape, parameters::Named};

/// One route.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
    pub purpose: &'static str,
    /// Query parameters.
    pub parameters: &'static [Named],
    /// Responses by status, without those of every route.
    pub answers: &'static [(u16, &'static str)],
    /// Bodies and answers in the OpenAPI document.
    pub content: Content,
    pub(super) handler: Handler,
}

/// The handler of a route, by the state that it needs.
pub(super) enum Handler {
    /// An instance.
    Instance(fn() -> MethodRouter<HttpState>),
    /// A model, so that `foretell serve` has the route, too.
    Serving(fn() -> MethodRouter<ServingState>),
}

/// The tokens that a route requires, if they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None: probes and metrics, which show nothing about respondents.
    Open,
    /// `http.read_token` or `http.bearer_token`, if `http.read_token` is set.
    Read,
    /// Either of them, if one is set: what is stored about respondents.
    Respondents,
    /// `http.bearer_token`.
    Write,
}

impl Access {
    /// Every kind.
    pub(super) const ALL: [Self; 4] = [Self::Open, Self::Read, Self::Respondents, Self::Write];
}

/// What a route takes and answers with, besides problems.
pub struct Content {
    /// The shape of the body by its media type; empty if the route takes none.
    pub bodies: &'static [(&'static str, Shape)],
    /// The shape of each answer that is not a problem.
    pub answers: &'static [(u16, Shape)],
    /// Whether the header `Idempotency-Key` has a meaning.
    pub is_idempotent: bool,
}

impl Content {
    /// A route without a body.
    pub(super) const fn of(answers: &'static [(u16, Shape)]) -> Self {
        Self { bodies: &[], answers, is_idempotent: false }
    }

    /// A route that computes from what it takes.
    pub(super) const fn taking(
        bodies: &'static [(&'static str, Shape)],
        answers: &'static [(u16, Shape)],
    ) -> Self {
        Self { bodies, answers, is_idempotent: false }
    }

    /// A route that writes what it takes.
    pub(super) const fn writing(
        bodies: &'static [(&'static str, Shape)],
        answers: &'static [(u16, Shape)],
    ) -> Self {
        Self { bodies, answers, is_idempotent: true }
    }
}
