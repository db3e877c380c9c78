//! Tokens for SASL/OAUTHBEARER (KIP-255), from a file that another process keeps fresh, such as Kubernetes or the agent of an
//! identity provider. It is read when a client starts, and whenever librdkafka requests a new token.
//!
//! librdkafka can fetch tokens itself (`sasl.oauthbearer.method=oidc`, KIP-768), but only with libcurl, which is not linked.

#![expect(
    unsafe_code,
    reason = "rdkafka cannot pass a token to an admin client, which serves no callbacks"
)]

use std::{
    error::Error,
    ffi::{CStr, CString, c_char},
    fs, ptr,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{
    ClientConfig, ClientContext,
    bindings::rd_kafka_oauthbearer_set_token,
    client::{Client, OAuthToken},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};
use serde::Deserialize;

use foretell_streams::time::{Clock, SystemClock};

/// The property whose value librdkafka passes to its token callback; here, the name of the file.
pub(crate) const FILE: &str = "sasl.oauthbearer.config";

/// Assumed lifetime of a token without an expiration time, after which it is read again: 5 min.
const OPAQUE_MILLIS: i64 = 5 * 60 * 1000;

/// Size of the buffer for librdkafka's error message.
const REASON_BYTES: usize = 512;

/// The claims of a JWT (RFC 7519) that are used.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Option<String>,
    /// Expiration time in seconds since 1970, possibly with a fraction.
    exp: Option<f64>,
}

/// Implements librdkafka's token callback. The error never contains the token.
pub(crate) fn generate(file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    read(file).map_err(Into::into)
}

fn read(file: Option<&str>) -> Result<OAuthToken, String> {
    let file = file.ok_or("there is no token: set its file in [broker] token_file")?;
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| format!("cannot read [broker] token_file {file}: {error}"))?;
    Ok(token_of(text.trim(), SystemClock::new().now().0))
}

fn token_of(text: &str, now_millis: i64) -> OAuthToken {
    let claims = text.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Claims> = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (sub, exp) = claims.map_or((None, None), |claims| (claims.sub, claims.exp));
    #[expect(clippy::cast_possible_truncation, reason = "a float saturates")]
    let lifetime_ms = exp.map_or(now_millis + OPAQUE_MILLIS, |seconds| (seconds * 1000.0) as i64);
    let principal_name = sub.filter(|sub| !sub.is_empty() && !sub.contains('\0'));
    OAuthToken {
        token: text.to_owned(),
        principal_name: principal_name.unwrap_or_else(|| "foretell".to_owned()),
        lifetime_ms,
    }
}

/// Passes the token to a client, if `config` names a file. A new client would have none before it is polled, and an admin
/// client is never polled.
pub(crate) fn install<C: ClientContext>(
    client: &Client<C>,
    config: &ClientConfig,
) -> KafkaResult<()> {
    let Some(file) = config.get(FILE) else { return Ok(()) };
    let refused = |reason: &str| {
        let text = format!("the token of [broker] token_file {file} is refused: {reason}");
        KafkaError::ClientCreation(text)
    };
    let OAuthToken { token, principal_name, lifetime_ms } =
        read(Some(file)).map_err(KafkaError::ClientCreation)?;
    let token = CString::new(token).map_err(|_| refused("it contains a NUL character"))?;
    let name = CString::new(principal_name)
        .map_err(|_| refused("its subject contains a NUL character"))?;
    let mut reason: [c_char; REASON_BYTES] = [0; REASON_BYTES];
    // SAFETY: the client is alive while borrowed; both texts end with a NUL and are copied by the call, which gets no
    // extensions; it writes at most REASON_BYTES into `reason`, ending with a NUL.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            lifetime_ms,
            name.as_ptr(),
            ptr::null_mut(),
            0,
            reason.as_mut_ptr(),
            REASON_BYTES,
        )
    };
    if Code::from(code) == Code::NoError {
        return Ok(());
    }
    // SAFETY: the buffer was initialised with zeros, and the call leaves a NUL at its end.
    let reason = unsafe { CStr::from_ptr(reason.as_ptr()) };
    Err(refused(&reason.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: (&str, i64)) {
        let token = token_of(text, 1_000);
        assert_eq!((token.principal_name.as_str(), token.lifetime_ms), expected, "{text}");
        assert_eq!(token.token, text);
    }

    #[test]
    fn subject_and_lifetime_are_read_from_a_token() {
        let jwt = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        check(&jwt(r#"{"sub":"alice","exp":1700000000,"iat":1}"#), ("alice", 1_700_000_000_000));
        check(&jwt(r#"{"exp":1700000000.5}"#), ("foretell", 1_700_000_000_500));
        check(&jwt(r#"{"sub":"alice"}"#), ("alice", 301_000));
        check("opaque", ("foretell", 301_000));
        check("a.!!.b", ("foretell", 301_000));
    }

    #[test]
    fn a_missing_file_is_named() {
        let check = |file: Option<&str>, words: &str| {
            let error = read(file).map(|_| ()).unwrap_err();
            assert!(error.contains("[broker] token_file") && error.contains(words), "{error}");
        };
        check(None, "set its file");
        check(Some("/nowhere"), "/nowhere");
    }
}
