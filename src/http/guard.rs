//! Who may ask: by the names that a browser can't forge (Host, Origin) while there is no token, and by the token
//! where there is one. Both before a body is read.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use subtle::ConstantTimeEq as _;

use crate::http::{HttpState, error::HttpError};

/// The names under which we may be reached while there is no token. A page that a browser shows can reach a server on
/// loopback or behind a firewall, but not choose these: Host is what it asked for, Origin is where it came from.
#[derive(Clone, Debug)]
pub struct Hosts {
    allowed: Vec<String>,
    bound: IpAddr,
}

impl Hosts {
    /// `bind` as it was written, `address` as it was bound; `allowed` names more. `*` is any.
    #[must_use]
    pub fn new(bind: &str, address: SocketAddr, allowed: &[String]) -> Self {
        let names = allowed.iter().map(String::as_str).chain([bind]);
        let allowed = names.filter_map(|name| match name {
            "*" => Some("*".to_owned()),
            name => host_of(name),
        });
        Self { allowed: allowed.collect(), bound: address.ip() }
    }

    fn allows(&self, host: &str) -> bool {
        if host == "localhost" || host.ends_with(".localhost") {
            return true;
        }
        if self.allowed.iter().any(|allowed| allowed == "*" || allowed == host) {
            return true;
        }
        // An address in numbers is nobody's name to point elsewhere.
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => {
                address.is_loopback() || address == self.bound || !self.bound.is_loopback()
            }
            Err(_) => false,
        }
    }
}

/// `name` or `name:port`, as names are compared.
fn host_of(authority: &str) -> Option<String> {
    if authority.contains('@') {
        return None;
    }
    let authority: Authority = authority.parse().ok()?;
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

/// Probes and scrapers call us by names that we don't know; they change nothing, and learn nothing of respondents.
const OPEN_PATHS: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];

/// Refuses what comes by another name while there is no token.
pub(super) async fn names(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let is_open = OPEN_PATHS.contains(&request.uri().path());
    if state.bearer_token.is_none() && !is_open {
        check_host(&state.hosts, &request)?;
        check_origin(&state.hosts, request.headers())?;
    }
    Ok(next.run(request).await)
}

const WAY_OUT: &str = "set [http] bearer_token, or name it in [http] allowed_hosts";

fn check_host(hosts: &Hosts, request: &Request) -> Result<(), HttpError> {
    let mut given = request.headers().get_all(header::HOST).iter();
    let (host, another) = (given.next(), given.next());
    if another.is_some() {
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "the header Host is there twice"));
    }
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "the header Host is missing"));
    }
    let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let target = request.uri().authority().map(ToString::to_string);
    for name in host.into_iter().chain(target) {
        if !host_of(&name).is_some_and(|host| hosts.allows(&host)) {
            let message = format!("host {name:?} is not one of ours: {WAY_OUT}");
            return Err(HttpError::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(())
}

fn check_origin(hosts: &Hosts, headers: &HeaderMap) -> Result<(), HttpError> {
    for origin in headers.get_all(header::ORIGIN) {
        let uri = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let authority = uri.as_ref().filter(|uri| uri.scheme().is_some()).and_then(Uri::authority);
        let host = authority.and_then(|authority| host_of(authority.as_str()));
        if !host.is_some_and(|host| hosts.allows(&host)) {
            let message = format!("a page of {origin:?} may not ask us: {WAY_OUT}");
            return Err(HttpError::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(())
}

/// Refuses what has not the token, if there is one.
pub(super) async fn token(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    if let Some(token) = &state.bearer_token {
        let given = bearer(request.headers());
        if !given.is_some_and(|given| is_same(given, token)) {
            let challenge = match given {
                None => "Bearer realm=\"foretell\"",
                Some(_) => "Bearer realm=\"foretell\", error=\"invalid_token\"",
            };
            let message = "send the header `Authorization: Bearer <token>`";
            return Err(HttpError::new(StatusCode::UNAUTHORIZED, message)
                .with_header(header::WWW_AUTHENTICATE, challenge));
        }
    }
    Ok(next.run(request).await)
}

/// The token that is shown; the scheme's name in any case (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.trim_start().split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Compares in constant time, so that the time taken does not show how many bytes were right.
fn is_same(given: &str, token: &str) -> bool {
    given.as_bytes().ct_eq(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bind: &str, allowed: &[&str]) -> Hosts {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        let address = bind.parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8000)));
        Hosts::new(bind, address, &allowed)
    }

    fn check(hosts: &Hosts, host: &str, expected: bool) {
        let is_allowed = host_of(host).is_some_and(|host| hosts.allows(&host));
        assert_eq!(is_allowed, expected, "{host}");
    }

    #[test]
    fn on_loopback_its_names_alone() {
        let hosts = hosts("127.0.0.1:8000", &["score.example"]);
        for host in
            ["localhost", "LOCALHOST:8000", "127.0.0.1:9", "[::1]:8000", "a.localhost", "127.8.8.8"]
        {
            check(&hosts, host, true);
        }
        check(&hosts, "score.example:80", true);
        check(&hosts, "Score.Example.", true);
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.7",
            "127.0.0.1.evil.example",
            "",
            ":80",
            "localhost@evil.example",
            "evil.example@localhost",
            "notlocalhost",
        ] {
            check(&hosts, host, false);
        }
    }

    #[test]
    fn elsewhere_any_address_in_numbers_and_what_was_bound() {
        let hosts = hosts("0.0.0.0:8000", &[]);
        check(&hosts, "10.0.0.7:8000", true);
        check(&hosts, "[2001:db8::1]", true);
        check(&hosts, "foretell:8000", false);
        let named = Hosts::new("box.example:8000", SocketAddr::from(([10, 0, 0, 7], 8000)), &[]);
        check(&named, "box.example", true);
        check(&named, "evil.example", false);
        let any =
            Hosts::new("0.0.0.0:8000", SocketAddr::from(([0, 0, 0, 0], 8000)), &["*".to_owned()]);
        check(&any, "foretell:8000", true);
    }

    #[test]
    fn schemes_have_no_case_and_tokens_have() {
        let given = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(ToOwned::to_owned)
        };
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            assert_eq!(given(&format!("{scheme} tok")).as_deref(), Some("tok"));
        }
        assert_eq!(given("Bearer   tok ").as_deref(), Some("tok"));
        assert_eq!(given("Basic tok"), None);
        assert_eq!(given("Bearertok"), None);
        assert!(is_same("tok", "tok"));
        assert!(!is_same("Tok", "tok"));
        assert!(!is_same("to", "tok"));
        assert!(!is_same("", "tok"));
    }
}
