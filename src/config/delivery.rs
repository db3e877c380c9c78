//! The checked `[delivery]` section. Errors name the channel's section, the key and the line.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::config::{
    ConfigError, LazySecret, Secret, check, error,
    raw_delivery::{RawDelivery, RawEmail, RawQuietHours, RawRate, RawWebhook, SmtpTls},
    secret,
    source::Sources,
};
use crate::events::{
    questionnaire::{QuestionnaireSchema, RowType},
    similar_name::nearest,
};

/// The settings of `foretell deliver`.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// The address of the HTTP server.
    pub bind: String,
    /// The bound of the uncommitted actions of one partition.
    pub in_flight_max: usize,
    pub webhooks: Vec<WebhookSettings>,
    pub emails: Vec<EmailSettings>,
}

impl DeliverySettings {
    /// Whether there is something to deliver to.
    #[must_use]
    pub fn has_channels(&self) -> bool {
        !self.webhooks.is_empty() || !self.emails.is_empty()
    }
}

/// When and how often a channel sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSettings {
    pub name: String,
    /// The rules whose actions are delivered; none: every rule.
    pub rules: Option<Vec<String>>,
    /// The time limit of one attempt.
    pub timeout: Duration,
    /// Time from the first attempt in which a failed delivery is repeated.
    pub retry_for: Duration,
    /// Time after the due time from which an action is not delivered.
    pub expires: Duration,
    /// The bound of the attempts at the same time.
    pub connections_max: usize,
    pub rate: Option<Rate>,
    pub quiet_hours: Option<QuietHours>,
}

/// A bound of the attempts of one rule in any time span of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub times: usize,
    pub per: Duration,
}

/// A part of each day, in minutes of the local day. `to` is before `from` if it lies on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    pub from: i64,
    pub to: i64,
    /// Local time minus UTC.
    pub zone: i64,
}

impl QuietHours {
    /// How long they take.
    #[must_use]
    pub fn length(self) -> Duration {
        const DAY: i64 = 24 * 60;
        let minutes = (self.to - self.from).rem_euclid(DAY);
        Duration::from_secs(minutes.unsigned_abs() * 60)
    }
}

/// A webhook.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    pub channel: ChannelSettings,
    pub url: LazySecret,
    pub secret: Option<LazySecret>,
    pub headers: BTreeMap<String, LazySecret>,
    pub ca_file: Option<PathBuf>,
    /// The source and the section, for errors at the start.
    pub named: String,
}

/// An e-mail.
#[derive(Clone, Debug)]
pub struct EmailSettings {
    pub channel: ChannelSettings,
    pub smtp: LazySecret,
    pub tls: SmtpTls,
    pub ca_file: Option<PathBuf>,
    pub from: String,
    /// The name of the answer with the address.
    pub to: String,
    pub subject: String,
    pub body: String,
    pub is_html: bool,
    /// The source and the section, for errors at the start.
    pub named: String,
}

/// An SMTP server.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    pub host: String,
    pub port: u16,
    /// User and password.
    pub credentials: Option<(String, Secret)>,
}

/// The bound of `connections_max`: each is a thread.
const CONNECTIONS_MAX: usize = 64;
/// The bound of `rate.times`: that many times of past attempts are kept for each rule.
const RATE_TIMES_MAX: usize = 100_000;
/// The ports of submission (RFC 6409) and of submission over TLS (RFC 8314).
const PORTS: (u16, u16) = (587, 465);

impl RawDelivery {
    /// The checked settings. `answers` and `rules` have the names that channels may refer to.
    pub(super) fn settings(
        self,
        answers: &QuestionnaireSchema,
        rules: &[&str],
        sources: &Sources,
    ) -> Result<DeliverySettings, ConfigError> {
        check::address("delivery.bind", &self.bind, sources)?;
        if self.in_flight_max == 0 {
            let problem = "it is 0: it must be at least 1";
            return Err(error::refused(sources, "delivery.in_flight_max", problem));
        }
        let mut names = Vec::new();
        let mut webhooks = Vec::new();
        for (number, webhook) in self.webhooks.into_iter().enumerate() {
            let at = At { section: format!("delivery.webhooks.{number}"), rules, sources };
            at.unique(&webhook.name, &mut names)?;
            webhooks.push(webhook.settings(&at)?);
        }
        let mut emails = Vec::new();
        for (number, email) in self.emails.into_iter().enumerate() {
            let at = At { section: format!("delivery.emails.{number}"), rules, sources };
            at.unique(&email.name, &mut names)?;
            emails.push(email.settings(answers, &at)?);
        }
        let Self { bind, in_flight_max, .. } = self;
        Ok(DeliverySettings { bind, in_flight_max, webhooks, emails })
    }
}

/// The section of a channel.
struct At<'s> {
    section: String,
    /// The names of all rules.
    rules: &'s [&'s str],
    sources: &'s Sources,
}

impl At<'_> {
    fn refuse<T>(&self, key: &str, problem: &str) -> Result<T, ConfigError> {
        Err(error::refused(self.sources, &format!("{}.{key}", self.section), problem))
    }

    fn named(&self) -> String {
        self.sources.named(&self.section)
    }

    /// Checks a channel's name, and that no other channel has it.
    fn unique(&self, name: &str, names: &mut Vec<String>) -> Result<(), ConfigError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            return self.refuse("name", "use letters, digits, '.', '_' and '-' only");
        }
        if names.iter().any(|other| other == name) {
            return self.refuse("name", &format!("another channel has the name {name:?}, too"));
        }
        names.push(name.to_owned());
        Ok(())
    }

    /// Checks what each kind of channel has.
    fn checked(&self, channel: ChannelSettings) -> Result<ChannelSettings, ConfigError> {
        if channel.rules.as_ref().is_some_and(Vec::is_empty) {
            return self.refuse("actions", "it is empty: name rules, or remove it");
        }
        let mut rules = channel.rules.iter().flatten();
        if let Some(rule) = rules.find(|rule| !self.rules.contains(&rule.as_str())) {
            let near = did_you_mean(rule, self.rules.iter().copied());
            return self.refuse("actions", &format!("there is no rule {rule:?}{near}"));
        }
        let connections = channel.connections_max;
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            let problem = format!("it is {connections}: from 1 to {CONNECTIONS_MAX} are possible");
            return self.refuse("connections_max", &problem);
        }
        for (key, time) in [("timeout", channel.timeout), ("expires", channel.expires)] {
            if time.as_millis() == 0 {
                return self.refuse(key, "it must be at least 1 ms");
            }
        }
        Ok(channel)
    }

    fn rate(&self, rate: Option<RawRate>) -> Result<Option<Rate>, ConfigError> {
        let Some(RawRate { times, per }) = rate else { return Ok(None) };
        if !(1..=RATE_TIMES_MAX).contains(&times) {
            let problem = format!("it is {times}: from 1 to {RATE_TIMES_MAX} are possible");
            return self.refuse("rate.times", &problem);
        }
        if per.as_millis() == 0 {
            return self.refuse("rate.per", "it must be at least 1 ms");
        }
        Ok(Some(Rate { times, per }))
    }

    fn quiet_hours(&self, hours: Option<RawQuietHours>) -> Result<Option<QuietHours>, ConfigError> {
        let Some(hours) = hours else { return Ok(None) };
        let time = |key, text: &str| match minutes(text) {
            Some(minutes) => Ok(minutes),
            None => self.refuse(key, &format!("{text:?} is not a time such as \"20:00\"")),
        };
        let from = time("quiet_hours.from", &hours.from)?;
        let to = time("quiet_hours.to", &hours.to)?;
        if from == to {
            return self.refuse("quiet_hours.to", "it is `from`: nothing could ever be sent");
        }
        let Some(zone) = zone(&hours.zone) else {
            let problem = format!("{:?} is not a difference such as \"+01:00\"", hours.zone);
            return self.refuse("quiet_hours.zone", &problem);
        };
        Ok(Some(QuietHours { from, to, zone }))
    }
}

/// The end of a problem with a name that is not one of `known`: the nearest one, if there is one.
fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    let near = nearest(name, known);
    near.map_or(String::new(), |near| format!("; did you mean {near:?}?"))
}

impl RawWebhook {
    fn settings(self, at: &At<'_>) -> Result<WebhookSettings, ConfigError> {
        if let Some(Err(problem)) = self.url.text().map(check_url) {
            return at.refuse("url", problem);
        }
        let secret = self.secret.as_ref().and_then(LazySecret::text);
        if secret.is_some_and(|secret| secret.reveal().is_empty()) {
            return at.refuse("secret", "it is empty");
        }
        let channel = ChannelSettings {
            name: self.name,
            rules: self.actions,
            timeout: self.timeout,
            retry_for: self.retry_for,
            expires: self.expires,
            connections_max: self.connections_max,
            rate: at.rate(self.rate)?,
            quiet_hours: at.quiet_hours(self.quiet_hours)?,
        };
        Ok(WebhookSettings {
            channel: at.checked(channel)?,
            url: self.url,
            secret: self.secret,
            headers: self.headers,
            ca_file: self.ca_file,
            named: at.named(),
        })
    }
}

impl RawEmail {
    fn settings(
        self,
        answers: &QuestionnaireSchema,
        at: &At<'_>,
    ) -> Result<EmailSettings, ConfigError> {
        let mut questions = answers.questions().iter();
        let Some(to) = questions.position(|question| question.name == self.to) else {
            let names = answers.questions().iter().map(|question| question.name.as_str());
            let near = did_you_mean(&self.to, names);
            let problem = format!("the event schema has no answer {:?}{near}", self.to);
            return at.refuse("to", &problem);
        };
        if answers.layout().types()[to] != RowType::Text {
            let problem =
                format!("the answer {:?} is not a text: it cannot be an address", self.to);
            return at.refuse("to", &problem);
        }
        if let Some(Err(problem)) = self.smtp.text().map(|smtp| smtp_server(smtp, self.tls)) {
            return at.refuse("smtp", problem);
        }
        let channel = ChannelSettings {
            name: self.name,
            rules: self.actions,
            timeout: self.timeout,
            retry_for: self.retry_for,
            expires: self.expires,
            connections_max: self.connections_max,
            rate: at.rate(self.rate)?,
            quiet_hours: at.quiet_hours(self.quiet_hours)?,
        };
        Ok(EmailSettings {
            channel: at.checked(channel)?,
            smtp: self.smtp,
            tls: self.tls,
            ca_file: self.ca_file,
            from: self.from,
            to: self.to,
            subject: self.subject,
            body: self.body,
            is_html: self.html,
            named: at.named(),
        })
    }
}

impl WebhookSettings {
    /// The address; reads its file.
    ///
    /// # Errors
    /// If it cannot be read, or has another scheme. The message does not show it.
    pub fn read_url(&self) -> Result<Secret, ConfigError> {
        let named = format!("{} url", self.named);
        let url = self.url.read(&named)?;
        match check_url(&url) {
            Ok(()) => Ok(url),
            Err(problem) => Err(ConfigError::At { place: named, problem: problem.to_owned() }),
        }
    }
}

impl EmailSettings {
    /// The server; reads its file.
    ///
    /// # Errors
    /// If it cannot be read, or is not an address of a server. The message does not show it.
    pub fn read_server(&self) -> Result<SmtpServer, ConfigError> {
        let named = format!("{} smtp", self.named);
        let smtp = self.smtp.read(&named)?;
        smtp_server(&smtp, self.tls)
            .map_err(|problem| ConfigError::At { place: named, problem: problem.to_owned() })
    }
}

/// Checks the scheme of the address of a webhook.
fn check_url(url: &Secret) -> Result<(), &'static str> {
    let is_http = ["http://", "https://"].iter().any(|scheme| url.reveal().starts_with(scheme));
    if is_http { Ok(()) } else { Err("it must begin with http:// or https://") }
}

/// Parses the address of an SMTP server. The problem does not show it.
fn smtp_server(smtp: &Secret, tls: SmtpTls) -> Result<SmtpServer, &'static str> {
    const FORM: &str = "write it as smtp://host:port, or as smtp://user:password@host:port";
    let written = smtp.reveal();
    let (url, credentials) = match secret::without_user(written) {
        Some((url, user, Some(password))) => (url, Some((user, password))),
        Some((_, _, None)) => return Err("it has a user without a password"),
        None => (written.to_owned(), None),
    };
    let rest = url.strip_prefix("smtp://").ok_or(FORM)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let usual = match tls {
        SmtpTls::Starttls | SmtpTls::None => PORTS.0,
        SmtpTls::Tls => PORTS.1,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| FORM)?),
        Some(_) | None => (rest, usual),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c)) {
        return Err(FORM);
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(SmtpServer { host, port, credentials })
}

/// The minute of the day of a time such as `20:00`.
fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, below: i64| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_plain && *number < below)
    };
    Some(number(hours, 24)? * 60 + number(minutes, 60)?)
}

/// The minutes of a difference from UTC, such as `+01:00`. `Z` and `UTC` are none.
fn zone(text: &str) -> Option<i64> {
    if ["Z", "UTC"].contains(&text) {
        return Some(0);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    Some(sign * minutes(&text[1..])?).filter(|minutes| minutes.abs() <= 14 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_zones_are_read() {
        for (text, expected) in [
            ("00:00", Some(0)),
            ("08:30", Some(510)),
            ("23:59", Some(1439)),
            ("24:00", None),
            ("8:00", None),
            ("08:60", None),
            ("+8:00", None),
            ("0800", None),
        ] {
            assert_eq!(minutes(text), expected, "{text}");
        }
        for (text, expected) in [
            ("+01:00", Some(60)),
            ("-05:30", Some(-330)),
            ("Z", Some(0)),
            ("UTC", Some(0)),
            ("+15:00", None),
            ("01:00", None),
            ("Europe/Vienna", None),
            ("", None),
            ("\u{e4}01:00", None),
        ] {
            assert_eq!(zone(text), expected, "{text}");
        }
    }

    #[test]
    fn the_address_of_a_server_is_read() {
        let check = |url: &str, tls: SmtpTls, expected: Result<(&str, u16, Option<&str>), &str>| {
            let found = smtp_server(&Secret::new(url), tls);
            let found = found.as_ref().map(|server| {
                let user = server.credentials.as_ref();
                (server.host.as_str(), server.port, user.map(|(_, password)| password.reveal()))
            });
            match expected {
                Ok(expected) => assert_eq!(found, Ok(expected), "{url}"),
                Err(words) => assert!(found.unwrap_err().contains(words), "{url}"),
            }
        };
        check("smtp://mail.example.com", SmtpTls::Starttls, Ok(("mail.example.com", 587, None)));
        check("smtp://mail.example.com/", SmtpTls::Tls, Ok(("mail.example.com", 465, None)));
        check("smtp://u:p%40ss@mail:2525", SmtpTls::None, Ok(("mail", 2525, Some("p@ss"))));
        check("smtp://[::1]:25", SmtpTls::None, Ok(("::1", 25, None)));
        check("smtp://user@mail", SmtpTls::Starttls, Err("without a password"));
        for url in ["mail:25", "smtps://mail", "smtp://", "smtp://mail:port", "smtp://a b"] {
            check(url, SmtpTls::Starttls, Err("smtp://host:port"));
        }
    }
}
