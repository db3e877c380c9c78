//! The section about the delivery of actions of the configuration as written: see `raw.rs`. `delivery.rs` checks it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::config::LazySecret;

/// Delivery of actions by `foretell deliver`: see [Delivery](delivery.md).
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDelivery {
    /// Address at which `foretell deliver` serves its health and metrics: a host and a port.
    pub bind: String,
    /// Maximum number of actions of one partition that are read and not committed; at least 1. If the process is killed, at most
    /// so many of each partition are delivered again, with the same idempotency key.
    pub in_flight_max: usize,
    /// Webhooks, each in a section `[[delivery.webhooks]]`.
    pub webhooks: Vec<RawWebhook>,
    /// E-mails, each in a section `[[delivery.emails]]`.
    pub emails: Vec<RawEmail>,
}

impl RawDelivery {
    /// Makes paths of files of secrets ones from the configuration's folder.
    pub(super) fn locate_secrets(&mut self, folder: &Path) {
        for RawWebhook { url, secret, headers, .. } in &mut self.webhooks {
            let secrets = [url].into_iter().chain(secret).chain(headers.values_mut());
            secrets.for_each(|secret| secret.locate(folder));
        }
        self.emails.iter_mut().for_each(|email| email.smtp.locate(folder));
    }
}

impl Default for RawDelivery {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8001".to_owned(),
            in_flight_max: 1000,
            webhooks: Vec::new(),
            emails: Vec::new(),
        }
    }
}

/// A webhook: every action is one HTTP POST with a JSON body.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    /// Name of the channel, in metrics, logs and dead letters: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Address to post to, beginning with `http://` or `https://`. Treated as a secret, because tokens are often a part of it.
    pub url: LazySecret,
    /// Rules whose actions are delivered. Unset: of every rule.
    #[serde(default)]
    pub actions: Option<Vec<String>>,
    /// Key of the signature in the header `Foretell-Signature`. Unset: requests are not signed.
    #[serde(default)]
    pub secret: Option<LazySecret>,
    /// Further headers, such as `{ Authorization = "Bearer …" }`. Each value is treated as a secret.
    #[serde(default)]
    pub headers: BTreeMap<String, LazySecret>,
    /// File with certificates (PEM) of certificate authorities to trust in addition to the system's, a path from the
    /// configuration's folder.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Time limit of one request; at least 1 ms.
    #[serde(default = "ten_seconds", with = "humantime_serde")]
    pub timeout: Duration,
    /// Time from the first attempt in which a failed delivery is tried again. After it, the action goes to the dead letters as
    /// `failed_delivery`. `0s`: one attempt.
    #[serde(default = "one_hour", with = "humantime_serde")]
    pub retry_for: Duration,
    /// Time after its due time from which an action is no longer delivered. It goes to the dead letters as `expired_action`. At
    /// least 1 ms; with `quiet_hours`, choose a longer time than these take.
    #[serde(default = "one_hour", with = "humantime_serde")]
    pub expires: Duration,
    /// Maximum number of requests at the same time; from 1 to 64.
    #[serde(default = "four")]
    pub connections_max: usize,
    /// Maximum number of requests of each rule in any time span of a length, by this process: `{ times = 100, per = "1m" }`.
    /// Further actions wait. Unset: no limit.
    #[serde(default)]
    pub rate: Option<RawRate>,
    /// Time of the day at which actions wait. Unset: none.
    #[serde(default)]
    pub quiet_hours: Option<RawQuietHours>,
}

/// An e-mail for every action, through an SMTP server.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmail {
    /// Name of the channel, in metrics, logs and dead letters: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Server, as `smtp://user:password@host:port`; user and password percent-encoded. Without a port, 587, or 465 with
    /// `tls = "tls"`. Treated as a secret.
    pub smtp: LazySecret,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: SmtpTls,
    /// File with certificates (PEM) of certificate authorities to trust in addition to the system's, a path from the
    /// configuration's folder.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Rules whose actions are delivered. Unset: of every rule.
    #[serde(default)]
    pub actions: Option<Vec<String>>,
    /// Sender, such as `Example Shop <shop@example.com>`.
    pub from: String,
    /// Answer with the e-mail address of the respondent, a text. An action whose answer is missing or is not an address goes to the dead
    /// letters as `malformed_address`.
    pub to: String,
    /// Template of the subject.
    pub subject: String,
    /// Template of the body.
    pub body: String,
    /// Whether the body is HTML; then values in it are escaped.
    #[serde(default)]
    pub html: bool,
    /// Time limit of one attempt, from the connection to the last answer of the SMTP server; at least 1 ms.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub timeout: Duration,
    /// As for webhooks.
    #[serde(default = "one_hour", with = "humantime_serde")]
    pub retry_for: Duration,
    /// As for webhooks.
    #[serde(default = "one_hour", with = "humantime_serde")]
    pub expires: Duration,
    /// Maximum number of connections at the same time; from 1 to 64.
    #[serde(default = "four")]
    pub connections_max: usize,
    /// Maximum number of attempts of each rule in any time span of a length, as for webhooks.
    #[serde(default)]
    pub rate: Option<RawRate>,
    /// As for webhooks.
    #[serde(default)]
    pub quiet_hours: Option<RawQuietHours>,
}

/// Maximum number of attempts in any time span of a length.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawRate {
    /// Number of attempts; from 1 to 100000.
    pub times: usize,
    /// Length of the time span; at least 1 ms.
    #[serde(with = "humantime_serde")]
    pub per: Duration,
}

/// Time of the day at which nothing is sent.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuietHours {
    /// Beginning, such as `20:00`.
    pub from: String,
    /// End, such as `08:00`. Before `from`: on the next day.
    pub to: String,
    /// Difference of the local time from UTC, such as `+01:00`. It does not follow daylight saving time.
    pub zone: String,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn one_hour() -> Duration {
    Duration::from_secs(60 * 60)
}

fn four() -> usize {
    4
}

/// Encryption of a connection to an SMTP server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// STARTTLS; a server that does not support it is refused.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// No encryption.
    None,
}
