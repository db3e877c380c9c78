//! Checks the values of a configuration. Errors name the key and the source of the value.

use std::{net::IpAddr, time::Duration};

use crate::{
    config::{
        ConfigError, HttpSettings, RegistrySettings, Secret, Sources,
        error::refused,
        raw::RawConfig,
        raw_serving::{BODY_BYTES, ROWS_MAX},
    },
    events::label,
    processors::{gather::ScoreWhen, outcome_join::UnlabelledPolicy},
};
use foretell_ml::training::{TrainingError, TuningSettings};

pub(super) fn values(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let refuse = |key: &str, problem: &str| Err(refused(sources, key, problem));
    names(raw, sources)?;
    servers(raw, sources)?;
    registry(&raw.schema_registry, sources)?;
    not_zero(raw, sources)?;
    sessions(raw, sources)?;
    outcomes(raw, sources)?;
    http(&raw.http, sources)?;
    if raw.serving.journal && !raw.events.companions.is_empty() {
        let problem = "rows have answers of [[events.companions]], too, so a row would be several events: set it to false";
        return refuse("serving.journal", problem);
    }
    if !(1..=ROWS_MAX).contains(&raw.serving.rows_max) {
        let problem = format!("it is {}: it must be from 1 to {ROWS_MAX}", raw.serving.rows_max);
        return refuse("serving.rows_max", &problem);
    }
    if !BODY_BYTES.contains(&raw.serving.body_bytes_max) {
        let (least, most) = (BODY_BYTES.start(), BODY_BYTES.end());
        let bytes = raw.serving.body_bytes_max;
        let problem = format!("it is {bytes}: it must be from {least} to {most}");
        return refuse("serving.body_bytes_max", &problem);
    }
    tables(raw, sources)?;
    if raw.streams.standby && raw.streams.state_dir.is_none() {
        return refuse("streams.standby", "standby copies are on disk: set [streams] state_dir");
    }
    let contract = &raw.features.contract;
    if !(0.0..=1.0).contains(&contract.mostly_missing) || contract.mostly_missing == 0.0 {
        let problem = "a share above 0 and up to 1, such as 0.9";
        return refuse("features.contract.mostly_missing", problem);
    }
    let first = raw.tuning.study();
    let later = raw.learning.tuning.plan(&raw.tuning).study;
    for (section, study) in [("tuning", &first), ("learning.tuning", &later)] {
        if study.folds < 2 {
            let key = format!("{section}.folds");
            return refuse(&key, "cross-validation needs at least 2 folds");
        }
        tuning(section, study, sources)?;
    }
    for (key, share) in
        [("psi_alert", raw.quality.psi_alert), ("log_loss_alert", raw.quality.log_loss_alert)]
    {
        if !(share >= 0.0 && share.is_finite()) {
            let problem = format!("it is {share}: set a number that is not negative, such as 0.25");
            return refuse(&format!("quality.{key}"), &problem);
        }
    }
    Ok(())
}

/// Rejects 0 for counts and times that need more. Keys for which 0 has a meaning, such as `learning.retrain_after`,
/// `streams.max_task_idle` and `events.duplicates_within`, are not checked.
fn not_zero(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let (streams, tuning, http) = (&raw.streams, &raw.tuning, &raw.http);
    let counts = [
        ("topics.partitions", raw.topics.partitions == 0),
        ("streams.threads", streams.threads == 0),
        ("streams.commit_records_max", streams.commit_records_max == 0),
        ("sessions.events_max", raw.sessions.events_max == Some(0)),
        ("outcomes.predictions_max", raw.outcomes.predictions_max == 0),
        ("features.contract.window", raw.features.contract.window == 0),
        ("quality.labels_min", raw.quality.labels_min == 0),
        ("quality.predictions_min", raw.quality.predictions_min == 0),
        ("tuning.trials", tuning.trials == 0),
        ("tuning.threads", tuning.threads == 0),
        ("tuning.iterations_max", tuning.iterations_max == 0),
        ("tuning.early_stopping_rounds", tuning.early_stopping_rounds == 0),
        ("learning.tuning.threads", raw.learning.tuning.threads == 0),
        ("learning.tuning.every", raw.learning.tuning.every == 0),
        ("http.connections_max", http.connections_max == 0),
        ("http.waits_max", http.waits_max == 0),
        ("http.streams_max", http.streams_max == 0),
    ];
    let times = [
        ("broker.session_timeout", raw.broker.session_timeout, "15s"),
        ("broker.transaction_timeout", raw.broker.transaction_timeout, "10s"),
        ("schema_registry.timeout", raw.schema_registry.timeout, "10s"),
        ("streams.commit_interval", streams.commit_interval, "100ms"),
        ("sessions.gap", raw.sessions.gap, "30m"),
        ("scoring.retention", raw.scoring.retention.unwrap_or(Duration::MAX), "30m"),
        ("outcomes.window", raw.outcomes.window, "30 days"),
        ("quality.window", raw.quality.window, "1h"),
        ("tuning.time", tuning.time, "120s"),
        ("learning.time_max", raw.learning.time_max, "30m"),
        ("learning.tuning.time", raw.learning.tuning.time, "60s"),
        ("http.read_timeout", http.read_timeout, "10s"),
    ];
    if let Some((key, _)) = counts.iter().find(|(_, is_zero)| *is_zero) {
        return Err(refused(sources, key, "it is 0: it must be at least 1"));
    }
    // The unit of librdkafka, of the registry's client and of tokio is a millisecond.
    if let Some((key, _, usual)) = times.iter().find(|(_, time, _)| time.as_millis() == 0) {
        let problem = format!("it must be at least 1 ms, such as {usual:?}");
        return Err(refused(sources, key, &problem));
    }
    Ok(())
}

/// Checks that the gap of sessions has one value, and is not longer than a session can be.
fn sessions(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    if raw.scoring.retention.is_some() && sources.is_written("sessions.gap") {
        let problem = "it is the former name of [sessions] gap, which is set, too: remove it";
        return Err(refused(sources, "scoring.retention", problem));
    }
    let rules = raw.sessions.rules(raw.scoring.retention);
    let Some(max) = rules.max.filter(|max| *max < rules.gap) else { return Ok(()) };
    let shown = humantime_serde::re::humantime::format_duration;
    let problem = format!(
        "it is {}, and [sessions] gap is {}: a session ends a gap after its last event, so set gap to at most max",
        shown(max),
        shown(rules.gap)
    );
    Err(refused(sources, "sessions.max", &problem))
}

/// Checks that the event schema has as many answers as `when` waits for.
pub(super) fn score_when(
    when: ScoreWhen,
    questions: usize,
    sources: &Sources,
) -> Result<(), ConfigError> {
    let ScoreWhen::Answers(enough) = when else { return Ok(()) };
    if (1..=questions).contains(&enough) {
        return Ok(());
    }
    let problem = format!(
        "answers is {enough}: it must be from 1 to {questions}, the number of answers in the event schema"
    );
    Err(refused(sources, "scoring.when", &problem))
}

/// Checks the address to listen on, and that other hosts cannot reach an instance that requires no token.
fn http(http: &HttpSettings, sources: &Sources) -> Result<(), ConfigError> {
    let refuse = |key: &str, problem: &str| Err(refused(sources, key, problem));
    address("http.bind", &http.bind, sources)?;
    let is_token =
        |token: &Option<Secret>| token.as_ref().is_some_and(|token| !token.reveal().is_empty());
    for (key, token) in
        [("http.bearer_token", &http.bearer_token), ("http.read_token", &http.read_token)]
    {
        if token.is_some() && !is_token(token) {
            return refuse(key, "it is empty: remove it, or set a token");
        }
    }
    match (&http.bearer_token, &http.read_token) {
        (None, Some(_)) => {
            let problem = "bearer_token is not set, so anyone could write: set it too";
            return refuse("http.read_token", problem);
        }
        (Some(write), Some(read)) if write == read => {
            let problem = "it is bearer_token, so it could write: set another token";
            return refuse("http.read_token", problem);
        }
        (None | Some(_), _) => {}
    }
    if http.bearer_token.is_some() || http.insecure || is_loopback(&http.bind) {
        return Ok(());
    }
    let problem = format!(
        "other hosts can reach {:?}, and no token is required: set [http] bearer_token; or set bind to loopback, such as \
         \"127.0.0.1:8000\"; or, if only trusted hosts can reach it, set [http] insecure = true",
        http.bind
    );
    refuse("http.bind", &problem)
}

/// Whether only this host can reach the address.
fn is_loopback(bind: &str) -> bool {
    let host = bind.rsplit_once(':').map_or(bind, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Checks that the value of `key` is an address to listen on.
pub(super) fn address(key: &str, bind: &str, sources: &Sources) -> Result<(), ConfigError> {
    let is_address = bind.rsplit_once(':').is_some_and(|(host, port)| {
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
        port.parse::<u16>().is_ok() && is_host && (is_v6 || !host.contains(':'))
    });
    if is_address {
        return Ok(());
    }
    let problem = format!(
        "{bind:?} is not an address: write a host and a port, such as \"127.0.0.1:8000\", \"0.0.0.0:8000\" or \"[::1]:8000\""
    );
    Err(refused(sources, key, &problem))
}

/// The CSV reader supports delimiters and comment characters of one byte.
fn tables(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    for (name, table) in [("initial", &raw.data.initial), ("play", &raw.data.play)] {
        let Some(table) = table else { continue };
        for (key, mark) in [("delimiter", Some(table.delimiter)), ("comment", table.comment)] {
            if let Some(mark) =
                mark.filter(|mark| !mark.is_ascii() || ['\n', '\r', '"'].contains(mark))
            {
                let problem = format!(
                    "{mark:?} is not supported: it must be one ASCII character, such as \";\""
                );
                return Err(refused(sources, &format!("data.{name}.{key}"), &problem));
            }
        }
        if table.comment == Some(table.delimiter) {
            let key = format!("data.{name}.comment");
            return Err(refused(sources, &key, "it is the delimiter, too: set another character"));
        }
        if !table.outcomes_if_acted.is_empty() && table.outcomes.is_empty() {
            let key = format!("data.{name}.outcomes_if_acted");
            let problem = "set outcomes, too: the column with the outcomes without an action";
            return Err(refused(sources, &key, problem));
        }
        let (truth, labels) = (table.truth.len(), raw.outcomes.labels.len());
        if truth != 0 && truth != labels {
            let problem = format!(
                "it names {truth} columns, and there are {labels} labels: name one for each of [outcomes] labels"
            );
            return Err(refused(sources, &format!("data.{name}.truth"), &problem));
        }
    }
    Ok(())
}

/// Checks the settings of a study before anything is written.
fn tuning(section: &str, study: &TuningSettings, sources: &Sources) -> Result<(), ConfigError> {
    let Err(error) = study.check() else { return Ok(()) };
    let name = match &error {
        TrainingError::Setting { name: "iterations", .. } => "iterations_max".to_owned(),
        TrainingError::Setting {
            name: name @ ("folds" | "trials" | "threads" | "early_stopping_rounds"),
            ..
        } => (*name).to_owned(),
        TrainingError::Setting { name, .. } => format!("space.{name}"),
        TrainingError::Parameter { name, .. } => format!("space.{name}"),
        TrainingError::NoExamples
        | TrainingError::OneClass { .. }
        | TrainingError::OneClassFirst { .. }
        | TrainingError::TooFew { .. }
        | TrainingError::Label { .. }
        | TrainingError::Classes { .. }
        | TrainingError::Unservable { .. }
        | TrainingError::Stopped
        | TrainingError::LightGbm(_) => "space".to_owned(),
    };
    Err(refused(sources, &format!("{section}.{name}"), &error.to_string()))
}

/// Whether a text has only characters of the names of topics.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c: char| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether a text can be the name of a topic.
pub(super) fn is_topic_name(text: &str) -> bool {
    !text.is_empty() && is_plain(text) && ![".", ".."].contains(&text)
}

/// The names of topics, groups and transactions begin with these.
fn names(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let problem = "the names of topics begin with it: use letters, digits, '.', '_' and '-' only";
    if raw.application.id.is_empty() || !is_plain(&raw.application.id) {
        return Err(refused(sources, "application.id", problem));
    }
    if !is_plain(&raw.topics.prefix) {
        return Err(refused(sources, "topics.prefix", problem));
    }
    Ok(())
}

fn servers(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let servers = &raw.broker.bootstrap_servers;
    let refuse = |problem| Err(refused(sources, "broker.bootstrap_servers", problem));
    if servers.trim().is_empty() {
        return refuse("name at least one, such as \"kafka:9092\"");
    }
    if servers.contains(['@', '?', '#']) {
        return refuse(
            "a server is host:port; write a user and a password in [broker.properties], as \
             \"sasl.username\" and \"sasl.password\"",
        );
    }
    Ok(())
}

/// The address is shown in logs and messages, so one with a secret in it is rejected here without showing it.
fn registry(registry: &RegistrySettings, sources: &Sources) -> Result<(), ConfigError> {
    let refuse = |key: &str, problem: &str| Err(refused(sources, key, problem));
    let url = "schema_registry.url";
    let Some(rest) =
        ["http://", "https://"].iter().find_map(|scheme| registry.url.strip_prefix(scheme))
    else {
        return refuse(url, "it must begin with http:// or https://");
    };
    if rest.contains(['?', '#']) {
        return refuse(
            url,
            "it must have no query (?…) and no fragment (#…); write credentials in username and password, or in \
             bearer_token",
        );
    }
    if rest.contains('@') {
        let problem = "a name or password in it must be percent-encoded ('@' is %40, '/' is %2F, ':' is %3A); \
                       in username and password they are written as they are";
        return refuse(url, problem);
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            if port.parse::<u16>().is_err() {
                return refuse(
                    url,
                    "the port after the host's ':' is not a number from 0 to 65535",
                );
            }
            host
        }
        Some(_) | None => authority,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == ',') {
        return refuse(url, "it has no host; write it as in http://registry:8081");
    }
    if registry.username.is_some() && registry.bearer_token.is_some() {
        let problem = "username is set, too: remove one";
        return refuse("schema_registry.bearer_token", problem);
    }
    if registry.password.is_some() && registry.username.is_none() {
        return refuse("schema_registry.password", "there is no username: set it, too");
    }
    if registry.username.is_some() && registry.password.is_none() {
        let problem = "there is no password: set it, too, if it is empty to \"\"";
        return refuse("schema_registry.username", problem);
    }
    if registry.certificate_file.is_some() != registry.key_file.is_some() {
        return refuse(
            "schema_registry",
            "certificate_file and key_file need each other: set both, or none",
        );
    }
    Ok(())
}

fn outcomes(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let refuse = |key: &str, problem: &str| Err(refused(sources, key, problem));
    let labels = &raw.outcomes.labels;
    if labels.len() < 2 {
        return refuse("outcomes.labels", "name at least two, such as [\"no\", \"yes\"]");
    }
    if let Some(twice) = (1..labels.len()).find(|index| labels[..*index].contains(&labels[*index]))
    {
        return refuse("outcomes.labels", &format!("duplicate label {:?}", labels[twice]));
    }
    if let UnlabelledPolicy::Label(label) = &raw.outcomes.unlabelled
        && label::class_of(label, labels) != Some(label)
    {
        let problem = format!("label {label:?} is not one of labels: {}", labels.join(", "));
        return refuse("outcomes.unlabelled", &problem);
    }
    Ok(())
}
