//! Query parameters: only those that the route knows, each at most once.

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};

use crate::{events::similar_name::hint, http::error::HttpError};

/// A query parameter: its name and its description.
pub type Named = (&'static str, &'static str);

/// The query parameters of a request, as text.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) =
            query.map_err(|_| wrong("the query is not of the form name=value&name=value"))?;
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// Rejects unknown and repeated parameters.
    pub(super) fn check(&self, known: &[Named]) -> Result<(), HttpError> {
        for (number, (name, _)) in self.0.iter().enumerate() {
            if !known.iter().any(|(known, _)| known == name) {
                let known: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
                return Err(wrong(match known.as_slice() {
                    [] => format!("there is no parameter `{name}`: this route has none"),
                    known => format!(
                        "there is no parameter `{name}`{}; there are {}",
                        hint(name, known),
                        known.join(", ")
                    ),
                }));
            }
            if self.0[..number].iter().any(|(before, _)| before == name) {
                return Err(wrong(format!("parameter `{name}` is repeated")));
            }
        }
        Ok(())
    }

    /// The value of a boolean parameter; `false` by default.
    pub(super) fn flag(&self, name: &str) -> Result<bool, HttpError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(wrong(format!("parameter `{name}` is {other:?}: it must be true or false")))
            }
        }
    }

    /// The value of a parameter from 1 to `max`.
    pub(super) fn number(&self, name: &str, default: u64, max: u64) -> Result<u64, HttpError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().ok().filter(|number| (1..=max).contains(number)).ok_or_else(|| {
            wrong(format!(
                "parameter `{name}` is {text:?}: it must be a whole number from 1 to {max}"
            ))
        })
    }

    /// The value of a parameter; none if it is not given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn wrong(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, message)
}
