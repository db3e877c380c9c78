//! Access control, before a body is read. A request is granted by a token, or without one if its route needs none; then only
//! under an allowed name, by the headers Host and Origin, which pages in a browser cannot forge.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use subtle::ConstantTimeEq as _;

use crate::http::{Access, error::HttpError};

/// Who may ask what.
#[derive(Clone)]
pub struct AccessRules {
    /// Token that routes which write require. `None` requires no token.
    pub bearer_token: Option<Arc<str>>,
    /// Token that routes which read require, or else `bearer_token`. `None` requires no token to read.
    pub read_token: Option<Arc<str>>,
    /// Host names that are allowed for requests without a token.
    pub hosts: Arc<Hosts>,
}

/// Host names that are allowed in Host and Origin of a request without a token. A page in a browser can reach a server on
/// loopback or behind a firewall, but cannot choose these headers: Host is the name that it asked for, Origin the site
/// that it is from.
#[derive(Clone, Debug)]
pub struct Hosts {
    allowed: Vec<String>,
    bound: IpAddr,
}

impl Hosts {
    /// `bind` is the configured address and `address` the bound one; `allowed` adds names. `*` allows any.
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
        // An IP address is not resolved, so DNS cannot point it elsewhere.
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => {
                address.is_loopback() || address == self.bound || !self.bound.is_loopback()
            }
            Err(_) => false,
        }
    }
}

/// The host of `name` or `name:port`, in the form in which hosts are compared.
fn host_of(authority: &str) -> Option<String> {
    if authority.contains('@') {
        return None;
    }
    let authority: Authority = authority.parse().ok()?;
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

/// Paths that are allowed by any host name, for probes and scrapers. They show nothing about respondents.
const OPEN_PATHS: [&str; 9] = [
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/ping",
    "/health",
    "/execution-parameters",
    "/v2/health/live",
    "/v2/health/ready",
];

/// Checks the names of a request that has no token.
fn check_names(hosts: &Hosts, request: &Request) -> Result<(), HttpError> {
    if OPEN_PATHS.contains(&request.uri().path()) {
        return Ok(());
    }
    check_host(hosts, request)?;
    check_origin(hosts, request.headers())
}

const FIX: &str = "send a token of [http], or add it to [http] allowed_hosts";

fn check_host(hosts: &Hosts, request: &Request) -> Result<(), HttpError> {
    let mut given = request.headers().get_all(header::HOST).iter();
    let (host, another) = (given.next(), given.next());
    if another.is_some() {
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "the header Host is repeated"));
    }
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "the header Host is missing"));
    }
    let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let target = request.uri().authority().map(ToString::to_string);
    for name in host.into_iter().chain(target) {
        if !host_of(&name).is_some_and(|host| hosts.allows(&host)) {
            let message = format!("host {name:?} is not allowed: {FIX}");
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
            let message = format!("origin {origin:?} is not allowed: {FIX}");
            return Err(HttpError::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(())
}

/// Whether a request to a route may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// By its token, under any name.
    ByToken,
    /// The route needs no token: under an allowed name.
    Anonymous,
    /// No token, or one that is neither.
    TokenRequired,
    /// The token to read, for a route that writes.
    ReadOnly,
}

/// Middleware that requires a token, if one is set for this kind of access, and else an allowed name.
pub(super) async fn access(
    State((rules, access)): State<(AccessRules, Access)>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let given = bearer(request.headers());
    let (write, read) = (rules.bearer_token.as_deref(), rules.read_token.as_deref());
    match decide(access, given, write, read) {
        Decision::ByToken => Ok(next.run(request).await),
        Decision::Anonymous => {
            // With a token to read, what needs none shows only the files of the dashboard.
            if rules.read_token.is_none() {
                check_names(&rules.hosts, &request)?;
            }
            Ok(next.run(request).await)
        }
        Decision::TokenRequired => {
            let challenge = match given {
                None => "Bearer realm=\"foretell\"",
                Some(_) => "Bearer realm=\"foretell\", error=\"invalid_token\"",
            };
            let message = "send the header `Authorization: Bearer <token>`";
            Err(HttpError::new(StatusCode::UNAUTHORIZED, message)
                .with_header(header::WWW_AUTHENTICATE, challenge))
        }
        Decision::ReadOnly => {
            let challenge = "Bearer realm=\"foretell\", error=\"insufficient_scope\"";
            let message =
                "this is [http] read_token, which may only read: send [http] bearer_token";
            Err(HttpError::new(StatusCode::FORBIDDEN, message)
                .with_header(header::WWW_AUTHENTICATE, challenge))
        }
    }
}

fn decide(
    access: Access,
    given: Option<&str>,
    write: Option<&str>,
    read: Option<&str>,
) -> Decision {
    let is =
        |token: Option<&str>| given.zip(token).is_some_and(|(given, token)| is_same(given, token));
    // Both are compared, whatever the result of the first.
    let (is_write, is_read) = (is(write), is(read));
    let is_open = match access {
        Access::Open => true,
        Access::Read => read.is_none(),
        Access::Respondents => write.is_none() && read.is_none(),
        Access::Write => write.is_none(),
    };
    match access {
        _ if is_write => Decision::ByToken,
        Access::Open | Access::Read | Access::Respondents if is_read => Decision::ByToken,
        _ if is_open => Decision::Anonymous,
        Access::Write if is_read => Decision::ReadOnly,
        Access::Open | Access::Read | Access::Respondents | Access::Write => {
            Decision::TokenRequired
        }
    }
}

/// The token in `Authorization`. The scheme is not case-sensitive (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.trim_start().split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Compares in constant time, so that the duration does not show how many bytes are equal.
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
    fn a_loopback_address_allows_loopback_names_only() {
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
    fn another_address_allows_ip_addresses_and_its_own_name() {
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
    fn a_token_to_read_does_not_write() {
        use Decision::{Anonymous, ByToken, ReadOnly, TokenRequired};
        let check =
            |tokens: (Option<&str>, Option<&str>), given: Option<&str>, expected: [Decision; 4]| {
                let found = Access::ALL.map(|access| decide(access, given, tokens.0, tokens.1));
                assert_eq!(found, expected, "{tokens:?} {given:?}");
            };
        let (none, write, both) = ((None, None), (Some("w"), None), (Some("w"), Some("r")));
        check(none, None, [Anonymous; 4]);
        check(none, Some("x"), [Anonymous; 4]);
        check(write, None, [Anonymous, Anonymous, TokenRequired, TokenRequired]);
        check(write, Some("r"), [Anonymous, Anonymous, TokenRequired, TokenRequired]);
        check(write, Some("w"), [ByToken; 4]);
        check(both, None, [Anonymous, TokenRequired, TokenRequired, TokenRequired]);
        check(both, Some("x"), [Anonymous, TokenRequired, TokenRequired, TokenRequired]);
        check(both, Some("r"), [ByToken, ByToken, ByToken, ReadOnly]);
        check(both, Some("w"), [ByToken; 4]);
    }

    #[test]
    fn tokens_are_case_sensitive_and_schemes_are_not() {
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
