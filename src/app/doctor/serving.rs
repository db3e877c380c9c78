//! What an instance would serve, and where.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    ops::ControlFlow,
    time::Duration,
};

use crate::{
    app::{check_result::CheckResult, cluster::Cluster, telemetry},
    config::Config,
    events::model::Model,
    processors::{
        metrics::ApplicationMetrics,
        model_table::{ModelTable, Serving},
    },
};

/// The model that would serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelSeen {
    version: String,
    classes: Vec<String>,
    /// Examples of the initial data that it has learned from.
    pub(super) initial_examples: u64,
}

/// Reads the models as an instance does.
pub(super) fn read_model(config: &Config, cluster: &Cluster) -> anyhow::Result<Option<ModelSeen>> {
    let serving = Serving::default();
    let metrics = ApplicationMetrics::register(&telemetry::metrics_registry()?)?;
    let mut table = ModelTable::new(serving.clone(), metrics);
    let mut refused = None;
    cluster.read_values(&config.topics.models, |model: Model| {
        match table.apply(&model) {
            Ok(true) => refused = None,
            Ok(false) => {}
            Err(error) => refused = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    match (refused, serving.scorer()) {
        (Some(error), _) => Err(error.into()),
        (None, Some(scorer)) => Ok(Some(ModelSeen {
            version: scorer.version().as_str().to_owned(),
            classes: scorer.classes().to_vec(),
            initial_examples: scorer.lineage().origin.initial_examples,
        })),
        (None, None) => Ok(None),
    }
}

/// Whether a model serves that tells apart what the configuration says.
pub(super) fn model(seen: &anyhow::Result<Option<ModelSeen>>, labels: &[String]) -> CheckResult {
    let name = "model";
    match seen {
        Err(error) => CheckResult::failed(
            name,
            format!("the champion can't be read: {error:#}"),
            "start the release that made it, or run `foretell init`; if it says that a model serves already, with --force",
        ),
        Ok(None) => CheckResult::failed(name, "there is no champion yet", "run `foretell init`"),
        Ok(Some(seen)) if seen.classes != labels => CheckResult::failed(
            name,
            format!(
                "{} tells apart {:?}, and the configuration {labels:?}",
                seen.version, seen.classes
            ),
            "set [outcomes] labels to the model's, or make another with `foretell init --force`",
        ),
        Ok(Some(seen)) => {
            CheckResult::ok(name, format!("{} serves, and tells apart {labels:?}", seen.version))
        }
    }
}

/// Who has an address.
#[derive(Debug)]
pub(super) enum AddressSeen {
    /// Nobody.
    Free,
    /// A foretell.
    Foretell { application: String, instance: String },
    /// Somebody else.
    Taken,
    /// Nobody can have it here.
    Unusable(io::Error),
}

/// How long the server at the address may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// More than what a foretell says of itself.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Tries an address, and asks who has it.
pub(super) fn look(bind: &str) -> AddressSeen {
    match TcpListener::bind(bind) {
        Ok(_) => return AddressSeen::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return AddressSeen::Unusable(error),
    }
    let alive = get(bind, "/livez").is_ok_and(|body| body == "ok\n");
    let status = get(bind, "/api/v1/status").unwrap_or_default();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    let text = |key: &str| status.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    match (text("application"), text("instance")) {
        (Some(application), Some(instance)) if alive => {
            AddressSeen::Foretell { application, instance }
        }
        (_, _) => AddressSeen::Taken,
    }
}

/// The body of an answer 200. By hand: the HTTP client belongs to the registry.
fn get(bind: &str, path: &str) -> io::Result<String> {
    let address = bind.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    // In one piece: a server that answers the first of several and closes resets the connection.
    let asked = format!("GET {path} HTTP/1.0\r\nHost: {bind}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let is_fine = head.split(' ').nth(1) == Some("200");
    if is_fine { Ok(body.to_owned()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Whether an instance could serve HTTP, or does.
pub(super) fn http(bind: &str, seen: &AddressSeen, application: &str) -> CheckResult {
    let name = "http";
    match seen {
        AddressSeen::Free => CheckResult::ok(name, format!("{bind} is free")),
        AddressSeen::Foretell { application: theirs, instance } if theirs == application => {
            CheckResult::ok(name, format!("instance {instance} of {theirs} serves at {bind}"))
        }
        AddressSeen::Foretell { application: theirs, .. } => CheckResult::failed(
            name,
            format!("{bind} is taken by another application, {theirs}"),
            "set [http] bind",
        ),
        AddressSeen::Taken => CheckResult::failed(
            name,
            format!("{bind} is taken, and not by a foretell"),
            "set [http] bind to another address, or stop who has it",
        ),
        AddressSeen::Unusable(error) => CheckResult::failed(
            name,
            format!("cannot listen on {bind}: {error}"),
            "set [http] bind",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status::{self, Failed, Ok as Fine};

    #[test]
    fn a_model_fits_the_labels() {
        let labels = ["no".to_owned(), "yes".to_owned()];
        let check = |seen: anyhow::Result<Option<&[&str]>>, status: Status, words: &str| {
            let own = |classes: &[&str]| classes.iter().map(|class| (*class).to_owned()).collect();
            let seen = seen.map(|classes| {
                classes.map(|classes| ModelSeen {
                    version: "abc".into(),
                    classes: own(classes),
                    initial_examples: 0,
                })
            });
            let found = model(&seen, &labels);
            assert!(found.status == status && found.to_string().contains(words), "{found}");
        };
        check(Ok(Some(&["no", "yes"])), Fine, "abc serves");
        check(Ok(Some(&["yes", "no"])), Failed, "[outcomes] labels");
        check(Ok(None), Failed, "foretell init");
        check(Err(anyhow::anyhow!("broken")), Failed, "--force");
    }

    fn answering(bodies: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for body in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 1024];
                stream.read(&mut asked).map(drop).unwrap();
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
            }
        });
        bind
    }

    #[test]
    fn who_has_the_address_is_asked() {
        let check = |bind: &str, status: Status, words: &str| {
            let found = http(bind, &look(bind), "adult");
            assert!(found.status == status && found.to_string().contains(words), "{found}");
        };
        check("127.0.0.1:0", Fine, "is free");
        let ours = r#"{"application":"adult","instance":"one"}"#;
        let bodies: &'static [&'static str] = Box::leak(Box::new(["ok\n", ours]));
        check(&answering(bodies), Fine, "instance one of adult");
        check(
            &answering(&["ok\n", r#"{"application":"b","instance":"x"}"#]),
            Failed,
            "application, b",
        );
        check(&answering(&["hello", "{}"]), Failed, "not by a foretell");
        check("256.0.0.1:1", Failed, "cannot listen");
    }
}
