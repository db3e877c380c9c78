//! SASL/OAUTHBEARER with a token that somebody else keeps fresh in a file, as Kubernetes and the agents of identity
//! providers do. It is read when a client starts, and again whenever librdkafka asks for another.
//!
//! librdkafka can fetch tokens itself (`sasl.oauthbearer.method=oidc`), but only with libcurl, which we do not link.

#![expect(
    unsafe_code,
    reason = "rdkafka can't hand a token to an admin client, which serves no callbacks"
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

/// The property by which librdkafka hands the file's name back to us.
pub(crate) const FILE: &str = "sasl.oauthbearer.config";

/// A token that does not tell when it ends is read again after at most this long: 5 min.
const OPAQUE_MILLIS: i64 = 5 * 60 * 1000;

/// Room for librdkafka's words.
const REASON_BYTES: usize = 512;

/// What we read of a token's claims.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Option<String>,
    /// In seconds since 1970; some write a fraction.
    exp: Option<f64>,
}

/// For librdkafka's callback. The error never shows the token.
pub(crate) fn generate(file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    read(file).map_err(Into::into)
}

fn read(file: Option<&str>) -> Result<OAuthToken, String> {
    let file = file.ok_or("there is no token: name its file in [broker] token_file")?;
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

/// Hands the token to a client, if `config` names a file: a new client has none before it is polled, and an
/// admin client is never polled.
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
    let token = CString::new(token).map_err(|_| refused("it has a zero in it"))?;
    let name = CString::new(principal_name).map_err(|_| refused("its name has a zero in it"))?;
    let mut reason: [c_char; REASON_BYTES] = [0; REASON_BYTES];
    // SAFETY: the client is alive while borrowed; both texts end with a zero and are copied by the call, which
    // takes no extensions; what it writes into `reason` is as long as told at most, and ends with a zero.
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
    // SAFETY: it was all zeros before, and the call leaves one at its end.
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
    fn a_token_tells_whose_it_is_and_how_long_it_lasts() {
        let jwt = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        check(&jwt(r#"{"sub":"alice","exp":1700000000,"iat":1}"#), ("alice", 1_700_000_000_000));
        check(&jwt(r#"{"exp":1700000000.5}"#), ("foretell", 1_700_000_000_500));
        check(&jwt(r#"{"sub":"alice"}"#), ("alice", 301_000));
        check("opaque", ("foretell", 301_000));
        check("a.!!.b", ("foretell", 301_000));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let check = |file: Option<&str>, words: &str| {
            let error = read(file).map(|_| ()).unwrap_err();
            assert!(error.contains("[broker] token_file") && error.contains(words), "{error}");
        };
        check(None, "name its file");
        check(Some("/nowhere"), "/nowhere");
    }
}
