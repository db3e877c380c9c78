//! The files of the page. They are embedded as they are, and compressed once in memory when the first is requested: the binary
//! needs no build step, and compression takes some milliseconds.
//!
//! The page names its files by a hash of all of them, so that a browser may keep them for ever and still gets those of a new
//! release at once.

use std::{io::Write as _, sync::LazyLock};

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use crate::http::error::HttpError;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The name, type and content of each file but the page.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("app.js", SCRIPT, include_str!("assets/app.js")),
    ("charts.js", SCRIPT, include_str!("assets/charts.js")),
    ("connection.js", SCRIPT, include_str!("assets/connection.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("format.js", SCRIPT, include_str!("assets/format.js")),
    ("access.js", SCRIPT, include_str!("assets/access.js")),
    ("data.js", SCRIPT, include_str!("assets/data.js")),
    ("letters.js", SCRIPT, include_str!("assets/letters.js")),
    ("models.js", SCRIPT, include_str!("assets/models.js")),
    ("outcomes.js", SCRIPT, include_str!("assets/outcomes.js")),
    ("overview.js", SCRIPT, include_str!("assets/overview.js")),
    ("respondent.js", SCRIPT, include_str!("assets/respondent.js")),
    ("topology.js", SCRIPT, include_str!("assets/topology.js")),
];

/// The page, which has `{assets}` in place of the folder of its files.
const PAGE: &str = include_str!("assets/index.html");

/// Nothing but the files of this page and the API of this instance: no inline script, no other host, no frame around it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

struct Asset {
    name: &'static str,
    kind: &'static str,
    plain: String,
    gzip: Vec<u8>,
}

struct Assets {
    version: String,
    page: Asset,
    files: Vec<Asset>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, content) in FILES {
        hash.update(name);
        hash.update(content);
    }
    hash.update(PAGE);
    let version = hex::encode(hash.finalize())[..16].to_owned();
    let page = PAGE.replace("{assets}", &format!("assets/{version}"));
    let files =
        FILES.iter().map(|(name, kind, content)| Asset::new(name, kind, (*content).to_owned()));
    let files = files.collect();
    Assets { page: Asset::new("", "text/html; charset=utf-8", page), version, files }
});

impl Asset {
    fn new(name: &'static str, kind: &'static str, plain: String) -> Self {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        // Writing into memory does not fail. Without the compressed form, the plain one would be sent.
        let gzip = gzip.write_all(plain.as_bytes()).and_then(|()| gzip.finish());
        Self { name, kind, plain, gzip: gzip.unwrap_or_default() }
    }

    fn response(&'static self, request: &HeaderMap, caching: &'static str) -> Response {
        let etag = format!("\"{}\"", ASSETS.version);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CACHE_CONTROL, caching),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::VARY, "accept-encoding"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        if is_known(request, &etag) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if accepts_gzip(request) && !self.gzip.is_empty() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            (headers, Body::from(self.gzip.as_slice())).into_response()
        } else {
            (headers, self.plain.as_str()).into_response()
        }
    }
}

/// Whether the client has the content already (`If-None-Match`).
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let known = request.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    known.any(|one| {
        let one = one.trim();
        one == "*" || one.trim_start_matches("W/") == etag
    })
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let given = request.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings =
        given.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| {
            let weight =
                part.strip_prefix("q=").and_then(|weight| weight.trim().parse::<f64>().ok());
            weight.is_some_and(|weight| weight <= 0.0)
        });
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !is_refused
    })
}

/// `GET /`
pub(in crate::http) async fn page(request: HeaderMap) -> Response {
    ASSETS.page.response(&request, "no-cache")
}

/// `GET /assets/{version}/{file}`
pub(in crate::http) async fn asset(
    Path((version, name)): Path<(String, String)>,
    request: HeaderMap,
) -> Result<Response, HttpError> {
    let file = ASSETS.files.iter().find(|file| file.name == name && version == ASSETS.version);
    let Some(file) = file else {
        let message =
            format!("there is no file {name:?} of version {version:?}: load the page again");
        return Err(HttpError::new(StatusCode::NOT_FOUND, message));
    };
    Ok(file.response(&request, "public, max-age=31536000, immutable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dashboard may add this much to the binary.
    const BYTES_MAX: usize = 300_000;

    #[test]
    fn the_files_are_small_and_compress() {
        let plain: usize = ASSETS.files.iter().map(|file| file.plain.len()).sum();
        assert!(plain + PAGE.len() < BYTES_MAX, "{plain} bytes");
        let gzip: usize = ASSETS.files.iter().map(|file| file.gzip.len()).sum();
        assert!(gzip > 0 && gzip < plain / 2, "{gzip} of {plain}");
    }

    #[test]
    fn the_page_names_files_of_its_own_only() {
        let page = &ASSETS.page.plain;
        let folder = format!("assets/{}/", ASSETS.version);
        for link in ["href=\"", "src=\""] {
            for rest in page.split(link).skip(1) {
                let target = rest.split('"').next().unwrap();
                let name = target.strip_prefix(&folder);
                let is_file =
                    name.is_some_and(|name| ASSETS.files.iter().any(|it| it.name == name));
                assert!(is_file || target.starts_with('#'), "{target}");
            }
        }
        for (name, kind, content) in FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for rest in content.split("from \"./").skip(1) {
                let import = rest.split('"').next().unwrap();
                assert!(
                    FILES.iter().any(|(file, _, _)| *file == import),
                    "{name} imports {import}"
                );
            }
            for unsafe_call in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
            ] {
                assert!(!content.contains(unsafe_call), "{name} ({kind}) uses {unsafe_call}");
            }
        }
    }

    #[test]
    fn encodings_and_versions_are_negotiated() {
        let headers = |name: header::HeaderName, value: &str| {
            HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
        };
        for (accepted, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("br", false),
            ("", false),
        ] {
            let found = accepts_gzip(&headers(header::ACCEPT_ENCODING, accepted));
            assert_eq!(found, expected, "{accepted}");
        }
        for (known, expected) in [
            ("\"v1\"", true),
            ("\"v0\", W/\"v1\"", true),
            ("*", true),
            ("\"v0\"", false),
            ("v1", false),
        ] {
            assert_eq!(
                is_known(&headers(header::IF_NONE_MATCH, known), "\"v1\""),
                expected,
                "{known}"
            );
        }
    }
}
