//! Checks of what an instance would serve: the model, and the HTTP address.

use std::{
    io::{self, Read},
    net::TcpListener,
    ops::ControlFlow,
    time::Duration,
};

use reqwest::{StatusCode, blocking::Client, redirect};

use crate::{
    app::{check_result::CheckResult, cluster::Cluster, telemetry},
    config::{Config, HttpSettings, Secret},
    events::model::Model,
    processors::{
        metrics::ApplicationMetrics,
        model_table::{CHAMPION, ModelTable, Serving},
    },
};

/// The champion, as far as it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Champion {
    version: String,
    classes: Vec<String>,
    /// Examples of the initial data in its training set.
    pub(super) initial_examples: u64,
}

/// Reads the topic of models as an instance does, and returns the champion, if there is one.
pub(super) fn read_champion(
    config: &Config,
    cluster: &Cluster,
) -> anyhow::Result<Option<Champion>> {
    let serving = Serving::default();
    let metrics = ApplicationMetrics::register(&telemetry::metrics_registry()?)?;
    let mut table = ModelTable::new(serving.clone(), metrics);
    let mut apply = |model: &Model| {
        if let Err(error) = table.apply(model) {
            tracing::debug!(%error, "a record of models cannot be applied");
        }
        table.lacks_bundle_of(model)
    };
    let (models, mut champion) = (&config.topics.models, None);
    cluster.read_values(config, models, |model: Model| {
        let lacks_bundle = apply(&model);
        if model.alias.as_deref() == Some(CHAMPION) {
            champion = lacks_bundle.then_some(model);
        }
        ControlFlow::Continue(())
    })?;
    // The table keeps few bundles, and the alias may point to an older one.
    if let Some(champion) = champion {
        cluster.read_values(config, models, |model: Model| {
            if model.bundle.is_some() && model.version == champion.version {
                apply(&model);
            }
            ControlFlow::Continue(())
        })?;
        apply(&champion);
    }
    if let Some(why) = table.refused() {
        anyhow::bail!("{why}");
    }
    Ok(serving.scorer().map(|scorer| Champion {
        version: scorer.version().as_str().to_owned(),
        classes: scorer.classes().to_vec(),
        initial_examples: scorer.lineage().origin.initial_examples,
    }))
}

/// Whether there is a champion with the labels of the configuration.
pub(super) fn model(champion: &anyhow::Result<Option<Champion>>, labels: &[String]) -> CheckResult {
    let name = "model";
    match champion {
        Err(error) => CheckResult::failed(
            name,
            format!("cannot read the champion: {error:#}"),
            "use the release that trained it, or run `foretell init`, with --force if that says that a model serves",
        ),
        Ok(None) => CheckResult::failed(name, "there is no champion yet", "run `foretell init`"),
        Ok(Some(champion)) if champion.classes != labels => CheckResult::failed(
            name,
            format!(
                "{} has the labels {:?}, but the configuration has {labels:?}",
                champion.version, champion.classes
            ),
            "set [outcomes] labels to the labels of the model, or train a new one with `foretell init --force`",
        ),
        Ok(Some(champion)) => CheckResult::ok(
            name,
            format!("{} serves, with the labels {labels:?}", champion.version),
        ),
    }
}

/// Use of an address.
#[derive(Debug)]
pub(super) enum AddressState {
    Free,
    Foretell {
        application: String,
        instance: String,
    },
    OtherProgram,
    /// This host cannot listen on it.
    Unusable(io::Error),
}

/// Timeout of a request to the program that listens on the address.
const RESPONSE_WITHIN: Duration = Duration::from_secs(3);

/// Bound of a response body; the status of an instance is much smaller.
const RESPONSE_BYTES_MAX: u64 = 1 << 20;

/// Tries to listen on `bind`. If it is taken, asks for the status of the instance there.
pub(super) fn probe_address(settings: &HttpSettings) -> AddressState {
    let bind = &settings.bind;
    match TcpListener::bind(bind) {
        Ok(_) => return AddressState::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return AddressState::Unusable(error),
    }
    read_instance(settings).unwrap_or(AddressState::OtherProgram)
}

/// The instance that serves there; `None` if it does not answer as one.
fn read_instance(settings: &HttpSettings) -> Option<AddressState> {
    let client = Client::builder()
        .timeout(RESPONSE_WITHIN)
        .no_proxy()
        .redirect(redirect::Policy::none())
        // Its name is that of a load balancer, perhaps. Nothing that it answers is trusted.
        .danger_accept_invalid_certs(true)
        .build()
        .ok()?;
    let get = |path, token| get(&client, settings, path, token);
    if get("/livez", None)? != "ok\n" {
        return None;
    }
    let status = get("/api/v1/status", settings.read_token.as_ref())?;
    let status: serde_json::Value = serde_json::from_str(&status).ok()?;
    let text = |key: &str| Some(status.get(key)?.as_str()?.to_owned());
    Some(AddressState::Foretell { application: text("application")?, instance: text("instance")? })
}

/// The body of a response with status 200.
fn get(
    client: &Client,
    settings: &HttpSettings,
    path: &str,
    token: Option<&Secret>,
) -> Option<String> {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let mut request = client.get(format!("{scheme}://{}{path}", settings.bind));
    if let Some(token) = token {
        request = request.bearer_auth(token.reveal());
    }
    let response = request.send().ok()?;
    if response.status() != StatusCode::OK {
        return None;
    }
    let mut body = String::new();
    response.take(RESPONSE_BYTES_MAX).read_to_string(&mut body).ok()?;
    Some(body)
}

/// Whether an instance of `application` can serve HTTP at `bind`, or does.
pub(super) fn http(bind: &str, state: &AddressState, application: &str) -> CheckResult {
    let name = "http";
    match state {
        AddressState::Free => CheckResult::ok(name, format!("{bind} is free")),
        AddressState::Foretell { application: other, instance } if other == application => {
            CheckResult::ok(name, format!("instance {instance} of {application} serves at {bind}"))
        }
        AddressState::Foretell { application: other, .. } => CheckResult::failed(
            name,
            format!("{bind} is taken by another application, {other}"),
            "set [http] bind",
        ),
        AddressState::OtherProgram => CheckResult::failed(
            name,
            format!("{bind} is taken by a program that is not a foretell"),
            "set [http] bind to another address, or stop that program",
        ),
        AddressState::Unusable(error) => CheckResult::failed(
            name,
            format!("cannot listen on {bind}: {error}"),
            "set [http] bind",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine};

    #[test]
    fn the_champion_must_have_the_labels_of_the_configuration() {
        let labels = ["no".to_owned(), "yes".to_owned()];
        let check = |classes: anyhow::Result<Option<&[&str]>>, status: Status, words: &str| {
            let champion = classes.map(|classes| {
                classes.map(|classes| Champion {
                    version: "abc".into(),
                    classes: classes.iter().map(|class| (*class).to_owned()).collect(),
                    initial_examples: 0,
                })
            });
            let result = model(&champion, &labels);
            assert!(result.status == status && result.to_string().contains(words), "{result}");
        };
        check(Ok(Some(&["no", "yes"])), Fine, "abc serves");
        check(Ok(Some(&["yes", "no"])), Failed, "[outcomes] labels");
        check(Ok(None), Failed, "foretell init");
        check(Err(anyhow::anyhow!("broken")), Failed, "--force");
    }

    /// Answers one request with each of `bodies`.
    fn serve(bodies: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for body in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                stream.read(&mut request).map(drop).unwrap();
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
            }
        });
        bind
    }

    #[test]
    fn the_program_at_the_address_is_identified() {
        let check = |bind: &str, status: Status, words: &str| {
            let settings = HttpSettings { bind: bind.to_owned(), ..HttpSettings::default() };
            let result = http(bind, &probe_address(&settings), "adult");
            assert!(result.status == status && result.to_string().contains(words), "{result}");
        };
        check("127.0.0.1:0", Fine, "is free");
        let same = r#"{"application":"adult","instance":"one"}"#;
        let bodies: &'static [&'static str] = Box::leak(Box::new(["ok\n", same]));
        check(&serve(bodies), Fine, "instance one of adult");
        let other = &["ok\n", r#"{"application":"b","instance":"x"}"#];
        check(&serve(other), Failed, "application, b");
        check(&serve(&["hello"]), Failed, "not a foretell");
        check(&serve(&["ok\n", "{}"]), Failed, "not a foretell");
        check("256.0.0.1:1", Failed, "cannot listen");
    }
}
