//! Request bodies: JSON by content type, with a bounded size, within a timeout.

use std::{future::poll_fn, pin::Pin, time::Duration};

use axum::{
    body::HttpBody,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use serde_json::Value as Json;

use crate::http::{error::HttpError, json};

/// A megabyte is a questionnaire of ten thousand questions, or a thousand small events.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Bound up to which a body that is too large is read and discarded: many clients read no response before they have sent
/// the whole body.
const DISCARDED_MAX: usize = 16 << 20;

/// Reads the JSON in the body.
///
/// # Errors
/// 415, 413, 408 or 400.
pub(super) async fn json(request: Request, within: Duration) -> Result<Json, HttpError> {
    check_type(request.headers())?;
    let bytes = bytes(request, within, BODY_BYTES_MAX).await?;
    json::parse(&bytes).map_err(|message| HttpError::new(StatusCode::BAD_REQUEST, message))
}

/// Reads a body of at most `bytes_max`, whatever its type.
///
/// # Errors
/// 413, 408 or 400.
pub(super) async fn bytes(
    request: Request,
    within: Duration,
    bytes_max: usize,
) -> Result<Vec<u8>, HttpError> {
    let Ok(bytes) = tokio::time::timeout(within, read(request, bytes_max)).await else {
        let message = format!(
            "the body was not complete within {} s ([http] read_timeout)",
            within.as_secs_f64()
        );
        return Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, message)
            .with_header(header::CONNECTION, "close"));
    };
    bytes
}

async fn read(request: Request, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let (head, mut body) = request.into_parts();
    let too_large = || {
        let message = format!("the body is larger than {bytes_max} bytes: send less at a time");
        HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    // A client that sends `Expect` waits for an answer before it sends the body.
    let expects_answer = head.headers.contains_key(header::EXPECT);
    let discarded_max = DISCARDED_MAX.max(bytes_max);
    if announced > if expects_answer { bytes_max } else { discarded_max } {
        return Err(too_large());
    }
    let (mut bytes, mut size) = (Vec::new(), 0);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| {
            HttpError::new(StatusCode::BAD_REQUEST, format!("the body is incomplete: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size <= bytes_max {
            bytes.extend_from_slice(&data);
        } else if size > discarded_max {
            break;
        }
    }
    if size > bytes_max { Err(too_large()) } else { Ok(bytes) }
}

/// Requires JSON. A page in a browser can send some other types to any site without a CORS preflight. It can also send no
/// type, but then with an `Origin`, so that only other clients may leave the type out.
fn check_type(headers: &HeaderMap) -> Result<(), HttpError> {
    if is_of_type(headers, is_json) {
        return Ok(());
    }
    let message = "send the header `Content-Type: application/json` (curl: --json)";
    Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
        .with_header(header::ACCEPT, "application/json"))
}

/// Whether the body has a type that `is_allowed`, or none from a client that is no browser.
pub(super) fn is_of_type(headers: &HeaderMap, is_allowed: impl Fn(&str) -> bool) -> bool {
    let is_browser = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    match (given.next(), given.next()) {
        (None, _) => !is_browser,
        (Some(kind), None) => kind.to_str().is_ok_and(is_allowed),
        (Some(_), Some(_)) => false,
    }
}

/// The media type without its parameters, in lower case.
pub(super) fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the media type is JSON.
pub(super) fn is_json(kind: &str) -> bool {
    let kind = essence(kind);
    let Some(subtype) = kind.strip_prefix("application/") else { return false };
    subtype == "json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_checked() {
        let check = |kinds: &[&str], origin: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::new();
            for kind in kinds {
                headers.append(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(check_type(&headers).is_ok(), expected, "{kinds:?} {origin:?}");
        };
        for kind in
            ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
        {
            check(&[kind], None, true);
            check(&[kind], Some("http://localhost"), true);
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/json",
            "application/+json",
            "application/jsonp",
            "",
            "text/plain; application/json",
        ] {
            check(&[kind], None, false);
        }
        check(&["application/json", "text/plain"], None, false);
        check(&[], None, true);
        check(&[], Some("http://localhost"), false);
    }
}
