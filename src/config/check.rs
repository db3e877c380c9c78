//! Values that are of the right type and can't be meant; each is told of with the place where it was written.

use crate::{
    config::{ConfigError, RawConfig, RawRegistry, Sources, source::written_form},
    processors::outcome_join::UnlabelledPolicy,
};

/// What is wrong with the value of `key` (`section.key`), and what to do.
pub(super) fn refused(sources: &Sources, key: &str, problem: &str) -> ConfigError {
    let problem = format!("{}: {problem}", written_form(key));
    ConfigError::At { place: sources.of(key), problem }
}

pub(super) fn values(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let refuse = |key: &str, problem: &str| Err(refused(sources, key, problem));
    names(raw, sources)?;
    servers(raw, sources)?;
    registry(&raw.schema_registry, sources)?;
    outcomes(raw, sources)?;
    if raw.http.read_timeout.is_zero() {
        return refuse("http.read_timeout", "it must be longer than 0 s, such as \"10s\"");
    }
    if raw.http.connections_max == 0 {
        return refuse("http.connections_max", "there must be at least 1");
    }
    if raw.topics.partitions == 0 {
        return refuse("topics.partitions", "there must be at least 1");
    }
    if raw.streams.threads == 0 {
        return refuse("streams.threads", "there must be at least 1");
    }
    if raw.streams.standby && raw.streams.state_dir.is_none() {
        return refuse("streams.standby", "warm copies are on disk: set [streams] state_dir");
    }
    if raw.streams.commit_interval.is_zero() {
        return refuse("streams.commit_interval", "it must be longer than 0 s, such as \"100ms\"");
    }
    if raw.learning.retrain_after == 0 {
        return refuse("learning.retrain_after", "it must be at least 1");
    }
    let contract = &raw.features.contract;
    if !(0.0..=1.0).contains(&contract.mostly_missing) || contract.mostly_missing == 0.0 {
        let problem = "a share above 0 and up to 1, such as 0.9";
        return refuse("features.contract.mostly_missing", problem);
    }
    if contract.window == 0 {
        return refuse("features.contract.window", "there must be at least 1 observation in it");
    }
    if raw.tuning.folds < 2 {
        return refuse("tuning.folds", "cross-validation needs at least 2");
    }
    Ok(())
}

/// Topics, groups and transactions are named after these.
fn names(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let problem = "topics are named after it: letters, digits, '.', '_' and '-' only";
    if raw.application.id.is_empty() || !raw.application.id.chars().all(is_plain) {
        return Err(refused(sources, "application.id", problem));
    }
    if !raw.topics.prefix.chars().all(is_plain) {
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
            "a server is host:port; a user and a password stand in [broker.properties], as \
             \"sasl.username\" and \"sasl.password\"",
        );
    }
    Ok(())
}

/// An address is used and shown in many places, so that it is refused here, where it is not shown.
fn registry(registry: &RawRegistry, sources: &Sources) -> Result<(), ConfigError> {
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
            "a registry has no query (?…) and no fragment (#…); what lets us in stands in username and \
             password, or in bearer_token",
        );
    }
    if rest.contains('@') {
        let problem = "a name or password in it must be percent-encoded ('@' is %40, '/' is %2F, ':' is %3A); \
                       username and password take them as they are";
        return refuse(url, problem);
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            if port.parse::<u16>().is_err() {
                return refuse(url, "what follows the host's ':' is no port");
            }
            host
        }
        Some(_) | None => authority,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == ',') {
        return refuse(url, "it names no host, such as http://registry:8081");
    }
    if registry.username.is_some() && registry.bearer_token.is_some() {
        let problem = "there is username, too: leave one out";
        return refuse("schema_registry.bearer_token", problem);
    }
    if registry.certificate_file.is_some() != registry.key_file.is_some() {
        return refuse(
            "schema_registry",
            "certificate_file and key_file go together: name both, or none",
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
        && !labels.contains(label)
    {
        return refuse("outcomes.unlabelled", &format!("{label:?} is not one of labels"));
    }
    if raw.outcomes.window.is_zero() {
        return refuse("outcomes.window", "it must be longer than 0 s");
    }
    if raw.outcomes.predictions_max == 0 {
        return refuse("outcomes.predictions_max", "there must be at least 1");
    }
    Ok(())
}
