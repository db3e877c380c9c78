//! What stands behind the `?` of a request: parameters that the route knows, each at most once.

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};

use crate::http::{error::HttpError, routes::Named};

/// The parameters of a request, still texts.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = query
            .map_err(|_| wrong("the parameters behind the ? are not name=value&name=value"))?;
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// Refuses what is not among `known`, and what is there twice.
    pub(super) fn only(&self, known: &[Named]) -> Result<(), HttpError> {
        for (number, (name, _)) in self.0.iter().enumerate() {
            if !known.iter().any(|(known, _)| known == name) {
                let known: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
                return Err(wrong(match known.as_slice() {
                    [] => format!("there is no parameter `{name}`: this takes none"),
                    known => {
                        format!("there is no parameter `{name}`; there are {}", known.join(", "))
                    }
                }));
            }
            if self.0[..number].iter().any(|(before, _)| before == name) {
                return Err(wrong(format!("parameter `{name}` is there twice")));
            }
        }
        Ok(())
    }

    /// A parameter's value, or the one of none.
    pub(super) fn flag(&self, name: &str) -> Result<bool, HttpError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(wrong(format!("parameter `{name}` is {other:?}: it must be true or false")))
            }
        }
    }

    /// A number from 1 to `most`, or the `usual` one.
    pub(super) fn number(&self, name: &str, usual: u64, most: u64) -> Result<u64, HttpError> {
        let Some(text) = self.get(name) else { return Ok(usual) };
        text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
            wrong(format!(
                "parameter `{name}` is {text:?}: it must be a whole number from 1 to {most}"
            ))
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn wrong(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, message)
}
