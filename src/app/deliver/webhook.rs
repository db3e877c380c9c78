//! Webhooks: an action is one HTTP POST.
//!
//! ```text
//!   2xx                              delivered
//!   408, 425, 429, 5xx, no answer    failed: another attempt follows (429 and 503: after Retry-After)
//!   any other status                 refused: dead letter
//! ```

use std::{error::Error, fs, io::Read, sync::Arc, time::Duration};

use chrono::DateTime;
use reqwest::{
    Certificate, StatusCode, Url,
    blocking::{Client, Response},
    header::{self, HeaderMap, HeaderName, HeaderValue},
    redirect,
};

use crate::{
    app::deliver::{
        action::DueAction,
        channel::Sender,
        outcome::{Outcome, REFUSED, Rejection},
        signature,
    },
    config::{Secret, WebhookSettings},
};
use foretell_streams::time::{Clock, WallTime};

/// The bound of the part of a response that is read, for the reason of a failure.
const RESPONSE_BYTES_MAX: usize = 1024;

/// The header by which a receiver recognises an action that it already has.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const SIGNATURE: &str = "foretell-signature";

/// Headers that the settings cannot set.
const RESERVED: [&str; 5] = ["content-type", "content-length", "host", IDEMPOTENCY_KEY, SIGNATURE];

/// The sender of a webhook.
pub(super) struct Webhook {
    client: Client,
    url: Url,
    secret: Option<Secret>,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// Checks the settings. Connects to nothing.
    ///
    /// # Errors
    /// If the address, a header or a certificate is invalid. The message shows no secret.
    pub(super) fn new(settings: &WebhookSettings, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let named = &settings.named;
        let url = settings.read_url()?;
        let url = Url::parse(url.reveal());
        let url = url.map_err(|error| anyhow::anyhow!("{named} url: {error}"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let refuse = |problem: &str| anyhow::anyhow!("{named} headers: {name:?} {problem}");
            let header = HeaderName::from_bytes(name.as_bytes());
            let header = header.map_err(|_| refuse("is not the name of a header"))?;
            if RESERVED.contains(&header.as_str()) {
                return Err(refuse("is set by Foretell: remove it"));
            }
            let value = value.read(&format!("{named} headers.{name}"))?;
            let value = HeaderValue::from_str(value.reveal());
            let mut value = value.map_err(|_| refuse("has a value that a header cannot have"))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let mut builder = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("foretell/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(settings.channel.timeout)
            .pool_max_idle_per_host(settings.channel.connections_max);
        if let Some(path) = &settings.ca_file {
            let refuse =
                |problem: String| anyhow::anyhow!("{named} ca_file: {} {problem}", path.display());
            let pem = fs::read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
            let trusted = Certificate::from_pem_bundle(&pem);
            let trusted = trusted.map_err(|error| refuse(format!("is not PEM: {error}")))?;
            if trusted.is_empty() {
                return Err(refuse("holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_merge(trusted);
        }
        let client = builder.build().map_err(|error| anyhow::anyhow!("{named}: {error}"))?;
        let secret = settings.secret.as_ref();
        let secret = secret.map(|secret| secret.read(&format!("{named} secret"))).transpose()?;
        Ok(Self { client, url, secret, clock: Arc::clone(clock) })
    }

    /// The headers of a request with this body, besides the configured ones.
    fn headers(&self, action: &DueAction, body: &[u8]) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            (IDEMPOTENCY_KEY, action.action_id.clone()),
        ];
        if let Some(secret) = &self.secret {
            headers.push((SIGNATURE, signature::of(body, secret, self.clock.now())));
        }
        headers
    }
}

impl Sender for Webhook {
    fn send(&self, action: &DueAction) -> Outcome {
        let body = action.body();
        let mut request = self.client.post(self.url.clone());
        for (name, value) in self.headers(action, &body) {
            request = request.header(name, value);
        }
        match request.body(body).send() {
            Ok(response) => outcome(response, self.clock.now()),
            Err(error) => Outcome::failed(chain(&error.without_url())),
        }
    }

    fn preview(&self, action: &DueAction) -> String {
        let body = action.body();
        let host = self.url.host_str().unwrap_or_default();
        let mut text = format!("POST to {host}\n");
        for (name, value) in self.headers(action, &body) {
            text += &format!("{name}: {value}\n");
        }
        text + &String::from_utf8_lossy(&body)
    }
}

/// What a response means.
fn outcome(response: Response, now: WallTime) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Delivered;
    }
    let asked_for = response.headers().get(header::RETRY_AFTER);
    let asked_for = asked_for.and_then(|value| retry_after(value.to_str().ok()?, now));
    let reason = reason(response);
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Outcome::Failed { reason, retry_after: asked_for }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Outcome::failed(reason),
        status if status.is_server_error() => Outcome::failed(reason),
        _ => Rejection::new(REFUSED, reason).into(),
    }
}

/// The status, and the beginning of the body. A body that does not come has no part in it.
fn reason(mut response: Response) -> String {
    let status = response.status();
    let mut bytes = [0; RESPONSE_BYTES_MAX];
    let read = response.read(&mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..read]);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    format!("status {status}: {}", words.join(" ")).trim_end_matches([' ', ':']).to_owned()
}

/// The value of `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: WallTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some(WallTime(date.timestamp_millis()).since(now))
}

/// The messages of an error and all its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LazySecret;
    use crate::{
        app::deliver::{
            action::tests::due_action,
            tests::receiver::{Answer, Receiver},
        },
        config::ChannelSettings,
    };
    use foretell_streams::time::{ManualClock, SystemClock};

    const SOON: Duration = Duration::from_secs(60);

    fn settings(url: &str, timeout: Duration) -> WebhookSettings {
        WebhookSettings {
            channel: ChannelSettings {
                name: "crm".to_owned(),
                rules: None,
                timeout,
                retry_for: SOON,
                expires: SOON,
                connections_max: 1,
                rate: None,
                quiet_hours: None,
            },
            url: LazySecret::new(url),
            secret: Some(LazySecret::new("hunter2")),
            headers: [("Authorization".to_owned(), LazySecret::new("Bearer t0ken"))].into(),
            ca_file: None,
            named: "x.toml:1: [[delivery.webhooks]]".to_owned(),
        }
    }

    fn webhook(receiver: &Receiver, timeout: Duration) -> Webhook {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(WallTime(1_795_910_400_000)));
        Webhook::new(&settings(&receiver.url(), timeout), &clock).unwrap()
    }

    #[test]
    fn a_request_has_the_key_the_signature_and_the_json() {
        let receiver = Receiver::start();
        let action = due_action("a1", "ann", "call", WallTime(0));
        assert_eq!(webhook(&receiver, SOON).send(&action), Outcome::Delivered);
        let [request] = receiver.received().try_into().unwrap();
        assert_eq!(request.body.as_bytes(), action.body());
        let body = request.body.as_bytes();
        let at = WallTime(1_795_910_400_000);
        for (name, value) in [
            ("idempotency-key", "a1"),
            ("content-type", "application/json"),
            ("authorization", "Bearer t0ken"),
            ("foretell-signature", &signature::of(body, &Secret::new("hunter2"), at)),
        ] {
            assert_eq!(request.headers[name], value, "{name}");
        }
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let receiver = Receiver::start();
        let webhook = webhook(&receiver, SOON);
        let action = due_action("a1", "ann", "call", WallTime(0));
        let check = |answer: Answer, expected: &dyn Fn(&Outcome) -> bool| {
            receiver.answer_all(answer);
            let outcome = webhook.send(&action);
            assert!(expected(&outcome), "{answer:?}: {outcome:?}");
        };
        for status in [200, 201, 202, 204] {
            check(Answer::Status(status), &|outcome| *outcome == Outcome::Delivered);
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            check(Answer::Status(status), &|outcome| {
                let Outcome::Failed { reason, retry_after: None } = outcome else { return false };
                reason.starts_with(&format!("status {status}"))
            });
        }
        for status in [301, 302, 400, 401, 403, 404, 409, 410, 422] {
            check(Answer::Status(status), &|outcome| {
                let Outcome::Rejected(Rejection { class: REFUSED, reason }) = outcome else {
                    return false;
                };
                reason.ends_with(&format!("the answer is {status}"))
            });
        }
        for (status, expected) in [(429, Some(7)), (503, Some(7)), (500, None)] {
            let expected = expected.map(Duration::from_secs);
            check(Answer::Later(status, 7), &|outcome| {
                let Outcome::Failed { retry_after, .. } = outcome else { return false };
                *retry_after == expected
            });
        }
        assert_eq!(receiver.received().len(), 23, "redirects are not followed");
    }

    #[test]
    fn a_receiver_that_hangs_or_is_away_is_a_failure_without_its_address() {
        let mut receiver = Receiver::start();
        receiver.answer_all(Answer::Hang);
        let action = due_action("a1", "ann", "call", WallTime(0));
        let webhook = webhook(&receiver, Duration::from_millis(50));
        let check = || {
            let Outcome::Failed { reason, retry_after: None } = webhook.send(&action) else {
                panic!("it did not fail");
            };
            assert!(!reason.contains("token") && !reason.contains("http://"), "{reason}");
            reason
        };
        let reason = check();
        assert!(reason.contains("timed out"), "{reason}");
        receiver.go_away();
        let reason = check();
        assert!(reason.contains("onnect"), "{reason}");
    }

    #[test]
    fn invalid_settings_are_errors_without_secrets() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let good = settings("https://example.com/hunter2", SOON);
        let check = |change: &dyn Fn(&mut WebhookSettings), expected: &str| {
            let mut settings = good.clone();
            change(&mut settings);
            let error = Webhook::new(&settings, &clock).err().unwrap().to_string();
            assert!(error.starts_with("x.toml:1: [[delivery.webhooks]]"), "{error}");
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        check(&|settings| settings.url = LazySecret::new("https://hunter2:port"), "url");
        let header = |name: &str, value: &str| [(name.to_owned(), LazySecret::new(value))].into();
        check(&|settings| settings.headers = header("a b", "hunter2"), "\"a b\"");
        check(&|settings| settings.headers = header("a", "hunter2\nb: c"), "\"a\" has a value");
        check(&|settings| settings.headers = header("Idempotency-Key", "x"), "by Foretell");
        check(&|settings| settings.ca_file = Some("/nowhere.pem".into()), "/nowhere.pem");
    }

    #[test]
    fn a_date_to_retry_after_is_read() {
        // 2026-11-29 00:00:00 UTC.
        let now = WallTime(1_795_910_400_000);
        for (value, expected) in [
            ("120", Some(120)),
            ("Sun, 29 Nov 2026 00:01:00 GMT", Some(60)),
            ("Sat, 28 Nov 2026 00:01:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
