//! `foretell doctor` on a real cluster: a healthy one, ones with something wrong, and ones that want to know who
//! we are.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use foretell_kafka::{KafkaBroker, KafkaConfig};
use foretell_streams::{
    runtime::broker::{Broker, Cleanup, TopicSpec},
    time::{Clock, SystemClock},
};
use serde_json::Value as Json;

use crate::{
    application::{Application, brokers, secure},
    process::{Process, SOON, at, until},
};

/// The findings of one run of it, after checking that its end fits them.
struct Findings(Vec<Json>);

impl Findings {
    fn of(application: &Application, more: &[&str]) -> Self {
        let mut process = application.start(&[&["doctor", "--json"], more].concat());
        let code = process.end(SOON).code();
        let report: Json = serde_json::from_str(&process.output())
            .unwrap_or_else(|_| panic!("{} {}", process.output(), process.errors()));
        assert_eq!(code, Some(i32::from(*at(&report, "/ok") != true)), "{report}");
        let findings = Self(at(&report, "/checks").as_array().unwrap().clone());
        assert_eq!(*at(&report, "/ok") == true, findings.with("failed").is_empty(), "{report}");
        findings
    }

    /// `name: detail: fix` of those with a status.
    fn with(&self, status: &str) -> Vec<String> {
        let of_status = self.0.iter().filter(|check| at(check, "/status") == status);
        let text = |check: &Json, path| at(check, path).as_str().unwrap_or_default().to_owned();
        of_status
            .map(|check| ["/name", "/detail", "/fix"].map(|path| text(check, path)).join(": "))
            .collect()
    }

    /// That these fail, in this order, and nothing else does.
    fn check_failed(&self, expected: &[(&str, &str)]) {
        let failed = self.with("failed");
        assert_eq!(failed.len(), expected.len(), "{failed:#?}");
        for (found, (name, words)) in failed.iter().zip(expected) {
            assert!(found.contains(name) && found.contains(words), "{name}, {words}: {found}");
        }
    }

    /// That one is fine, and says so.
    fn check_ok(&self, name: &str, words: &str) {
        let fine = self.with("ok");
        let is_it = |found: &String| found.contains(name) && found.contains(words);
        assert!(fine.iter().any(is_it), "{name}, {words}: {fine:#?}");
    }
}

#[test]
fn a_healthy_cluster_passes_from_init_to_run() {
    let application = Application::new("doctor", &[]);
    let topics = || {
        let broker = KafkaBroker::connect(&KafkaConfig {
            bootstrap_servers: brokers(),
            ..KafkaConfig::default()
        });
        let prefix = application.config().topic_prefix;
        let seen = broker.unwrap().examiner().cluster().unwrap().topics;
        seen.iter().filter(|topic| topic.as_str().starts_with(&prefix)).count()
    };
    let before = Findings::of(&application, &[]);
    before.check_failed(&[("topics", "is not initialised: none of its")]);
    assert!(before.with("failed")[0].contains("run `foretell init`"));
    before.check_ok("transactions", "-doctor");
    assert_eq!(topics(), 0, "looking makes nothing");

    application.init();
    let after = Findings::of(&application, &[]);
    after.check_failed(&[]);
    after.check_ok("model", "serves");
    after.check_ok("changelogs", "none yet");

    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let sent = ["send", "--limit", "20", "--rate", "100", "--outcome-delay", "1s", "--quiet"];
    application.start(&sent).succeed(SOON);
    let bind = http.base.trim_start_matches("http://");
    let running = Findings::of(&application, &["--set", &format!("http.bind={bind}")]);
    running.check_failed(&[]);
    running.check_ok("scoring-outcomes-changelog", "partitions: 4, compact");
    running.check_ok("learning-learning-changelog", "partitions: 1, compact");
    running.check_ok("adult-scoring", "behind in 8 partitions, 1 member");
    running.check_ok("http", "instance one");

    // Another application finds the address taken.
    let other = Application::new("doctor-other", &[]);
    let found = Findings::of(&other, &["--set", &format!("http.bind={bind}")]);
    assert!(found.with("failed").iter().any(|found| found.contains("another application")));
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}

#[test]
fn topics_that_are_not_as_they_should_be_are_found() {
    let application = Application::new("doctor-topics", &[]);
    let config = application.config();
    let broker = KafkaBroker::connect(&KafkaConfig {
        bootstrap_servers: brokers(),
        ..KafkaConfig::default()
    });
    let mut specs: Vec<TopicSpec> = config.topics.specs(config.partitions);
    let mut change = |name: &str, change: fn(&mut TopicSpec)| {
        let is_it = |spec: &&mut TopicSpec| spec.name.as_str().ends_with(name);
        change(specs.iter_mut().find(is_it).unwrap());
    };
    change("outcomes", |spec| spec.partitions = 3);
    change("models", |spec| spec.cleanup = Cleanup::Delete { retention: None });
    change("trials", |spec| spec.partitions = 2);
    change("labelled-examples", |spec| {
        spec.cleanup = Cleanup::Delete { retention: Some(Duration::from_secs(3600)) };
    });
    change("predictions", |spec| spec.cleanup = Cleanup::Compact);
    change("dead-letters", |spec| spec.message_bytes_max = None);
    broker.unwrap().create_topics(&specs).unwrap();
    let found = Findings::of(&application, &[]);
    let failed = found.with("failed");
    let check = |found: &[String], name: &str, words: &str| {
        let is_it = |found: &String| found.contains(name) && found.contains(words);
        assert!(found.iter().any(is_it), "{name}, {words}: {found:#?}");
    };
    check(&failed, "-outcomes", "3 partitions, not 4");
    check(&failed, "-models", "cleanup.policy=compact");
    check(&failed, "-trials", "2 partitions, not 1");
    check(&failed, "-predictions", "cleanup.policy=delete");
    let warned = found.with("warning");
    check(&warned, "-labelled-examples", "it forgets");
    check(&warned, "-dead-letters", "max.message.bytes=2097152");
    assert!(!failed.iter().any(|found| found.contains("questionnaire-events: ")), "{failed:#?}");
    // The limits of the broker's times.
    let long = ["--set", "broker.session_timeout=1h", "--set", "broker.transaction_timeout=30m"];
    let failed = Findings::of(&application, &long).with("failed");
    check(&failed, "timeouts", "group.max.session.timeout.ms");
    check(&failed, "timeouts", "transaction.max.timeout.ms");
}

fn listener(name: &str) -> String {
    let servers = std::fs::read_to_string(secure(name)).unwrap();
    format!("broker.bootstrap_servers={}", servers.trim())
}

fn property(name: &str, value: impl std::fmt::Display) -> String {
    format!("broker.properties.{name}={value}")
}

/// By name and password over TLS.
fn by_password(mechanism: &str) -> Vec<String> {
    vec![
        listener("sasl_ssl"),
        property("security.protocol", "SASL_SSL"),
        property("ssl.ca.location", secure("ca.pem").display()),
        property("sasl.mechanisms", mechanism),
        property("sasl.username", "alice"),
        property("sasl.password", format!("{{ file = '{}' }}", secure("password").display())),
    ]
}

fn application(name: &str, settings: &[String]) -> Application {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Application::new(name, &settings)
}

#[test]
fn everything_works_by_password_over_tls_and_no_secret_is_reported() {
    let application = application("scram", &by_password("SCRAM-SHA-256"));
    application.init();
    let secret = std::fs::read_to_string(secure("password")).unwrap();
    let secret = secret.trim();
    let silent = |process: &Process| {
        let printed = process.output() + &process.errors();
        assert!(
            !printed.contains(secret),
            "{:?}",
            printed.lines().find(|line| line.contains(secret))
        );
    };
    let loud = ["--log", "trace", "--set", "broker.properties.debug=all"];
    let mut run = application.start(&[&["run"], &loud[..]].concat());
    run.http().ready();
    let limit = ["send", "--limit", "5", "--rate", "50", "--outcome-delay", "1s"];
    let mut send = application.start(&limit);
    assert!(send.end(SOON).success(), "{}", send.errors());
    assert!(send.output().contains("5 of 5 predictions came back"), "{}", send.output());
    let mut doctor = application.start(&[&["doctor"], &loud[..]].concat());
    assert!(doctor.end(SOON).success(), "{}", doctor.output());
    assert!(doctor.errors().contains("SCRAM"), "its debugging lines were wanted");
    run.signal("TERM");
    assert!(run.end(SOON).success(), "{}", run.errors());
    for process in [&run, &send, &doctor] {
        silent(process);
    }
}

#[test]
fn who_is_not_let_in_is_reported_why() {
    let broker = |settings: &[String], words: &[&str]| {
        let findings = Findings::of(&application("refused", settings), &[]);
        let failed = findings.with("failed");
        for words in words {
            assert!(failed[0].starts_with("broker: ") && failed[0].contains(words), "{failed:#?}");
        }
    };
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let wrong = [by_password(mechanism), vec![property("sasl.password", "wrong")]].concat();
        broker(&wrong, &["does not accept who we are", "Authentication failed", "sasl.password"]);
    }
    let other = [by_password("PLAIN"), vec![property("sasl.mechanisms", "SCRAM-SHA-512")]].concat();
    broker(&other, &["does not accept who we are", "SCRAM-SHA-512", "sasl.mechanisms"]);
    let system = property("ssl.ca.location", secure("client.pem").display());
    broker(
        &[by_password("PLAIN"), vec![system]].concat(),
        &["no TLS connection", "ssl.ca.location"],
    );
    broker(&[listener("sasl_ssl")], &["hangs up", "security.protocol"]);
}

#[test]
fn certificates_let_in_on_both_sides() {
    let without = [
        listener("mtls"),
        property("security.protocol", "SSL"),
        property("ssl.ca.location", secure("ca.pem").display()),
    ];
    let failed = Findings::of(&application("mtls", &without), &[]).with("failed");
    assert!(failed[0].contains("no TLS connection"), "{failed:#?}");
    assert!(failed[0].contains("ssl.certificate.location"), "{failed:#?}");
    let ours = [
        property("ssl.certificate.location", secure("client.pem").display()),
        property("ssl.key.location", secure("client.key").display()),
    ];
    let application = application("mtls", &[&without[..], &ours[..]].concat());
    application.init();
    Findings::of(&application, &[]).check_failed(&[]);
}

/// A token of alice's that nobody signed, for so many seconds.
fn token(seconds: i64) -> String {
    let now = SystemClock::new().now().0 / 1000;
    let claims = serde_json::json!({ "sub": "alice", "iat": now, "exp": now + seconds });
    let [header, claims] = [r#"{"alg":"none"}"#.to_owned(), claims.to_string()]
        .map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{claims}.\n")
}

#[test]
fn a_token_in_a_file_lets_in_for_as_long_as_something_keeps_it_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    // Replaced at once, as such a file should be: it is never half written.
    let write = |seconds: i64| {
        let part = folder.path().join("part");
        std::fs::write(&part, token(seconds)).unwrap();
        std::fs::rename(part, &file).unwrap();
    };
    let settings = [
        listener("sasl_ssl"),
        property("security.protocol", "SASL_SSL"),
        property("ssl.ca.location", secure("ca.pem").display()),
        format!("broker.token_file={}", file.display()),
    ];
    let application = application("token", &settings);
    let failed = || Findings::of(&application, &[]).with("failed");
    assert!(failed()[0].contains("cannot read [broker] token_file"), "{:#?}", failed());
    write(-60);
    assert!(failed()[0].contains("unexpired"), "{:#?}", failed());
    write(60);
    application.init();
    write(30);
    let mut run = application.instance("one");
    run.http().ready();
    // The broker ends a connection whose token has ended: one of 30 s has to be shown again after 27 s.
    let (clock, mut written) = (SystemClock::new(), Duration::ZERO);
    until("40 s have passed", SOON, || {
        if clock.elapsed() > written + Duration::from_secs(5) {
            written = clock.elapsed();
            write(30);
        }
        (clock.elapsed() > Duration::from_secs(40)).then_some(())
    });
    write(60);
    let sent = ["send", "--limit", "5", "--rate", "50", "--outcome-delay", "1s"];
    let printed = application.start(&sent).succeed(SOON);
    assert!(printed.contains("5 of 5 predictions came back"), "{printed}");
    run.signal("TERM");
    assert!(run.end(SOON).success(), "{}", run.errors());
    Findings::of(&application, &[]).check_failed(&[]);
}

/// Serves one file, over TLS, to clients with a certificate; killed when dropped.
struct HttpsServer(Child);

impl HttpsServer {
    fn start(address: &str, folder: &Path) -> Self {
        let mode = r#"{"mode":"READWRITE"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{mode}", mode.len());
        std::fs::write(folder.join("mode"), answer).unwrap();
        let mut command = Command::new("openssl");
        command.args([
            "s_server",
            "-HTTP",
            "-Verify",
            "1",
            "-verify_return_error",
            "-accept",
            address,
        ]);
        for (flag, file) in [("-cert", "broker.pem"), ("-key", "broker.key"), ("-CAfile", "ca.pem")]
        {
            command.arg(flag).arg(secure(file));
        }
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self(command.spawn().unwrap());
        until("it listens", SOON, || TcpStream::connect(address).ok());
        server
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).expect("it is ours");
    }
}

#[test]
fn a_registry_with_certificates_is_reached_with_ours() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _server = HttpsServer::start(&address, folder.path());
    let url = format!("schema_registry.url=https://{address}");
    let file = |key: &str, name: &str| format!("schema_registry.{key}={}", secure(name).display());
    let ca = file("ca_file", "ca.pem");
    let ours = [file("certificate_file", "client.pem"), file("key_file", "client.key")];
    let registry = |settings: &[String], status: &str, words: &str| {
        let found = Findings::of(&application("https", settings), &[]).with(status);
        let is_it = |found: &String| found.starts_with("registry: ") && found.contains(words);
        assert!(found.iter().any(is_it), "{words}: {found:#?}");
    };
    registry(std::slice::from_ref(&url), "failed", "certificate verify failed");
    registry(&[url.clone(), ca.clone()], "failed", "certificate required");
    registry(&[&[url, ca], &ours[..]].concat(), "ok", "takes new schemas");
}
