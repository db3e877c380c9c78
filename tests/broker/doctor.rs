//! `foretell doctor` on a real cluster: a healthy one, topics with wrong settings, and listeners that require TLS and
//! authentication.

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

/// The checks that one run of `foretell doctor --json` reported.
struct Report(Vec<Json>);

impl Report {
    /// Runs `doctor` and asserts that its exit code and `ok` agree with the checks.
    fn of(application: &Application, more: &[&str]) -> Self {
        let mut process = application.start(&[&["doctor", "--json"], more].concat());
        let code = process.end(SOON).code();
        let report: Json = serde_json::from_str(&process.output())
            .unwrap_or_else(|_| panic!("{} {}", process.output(), process.errors()));
        assert_eq!(code, Some(i32::from(*at(&report, "/ok") != true)), "{report}");
        let checks = Self(at(&report, "/checks").as_array().unwrap().clone());
        let has_failed = !checks.with_status("failed").is_empty();
        assert_eq!(*at(&report, "/ok") == true, !has_failed, "{report}");
        checks
    }

    /// The checks with `status`, each as `name: detail: fix`.
    fn with_status(&self, status: &str) -> Vec<String> {
        let of_status = self.0.iter().filter(|check| at(check, "/status") == status);
        let text = |check: &Json, path| at(check, path).as_str().unwrap_or_default().to_owned();
        of_status
            .map(|check| ["/name", "/detail", "/fix"].map(|path| text(check, path)).join(": "))
            .collect()
    }

    /// Asserts that exactly the `expected` checks (name and part of the text) failed, in this order.
    fn assert_failed(&self, expected: &[(&str, &str)]) {
        let failed = self.with_status("failed");
        assert_eq!(failed.len(), expected.len(), "{failed:#?}");
        for (check, (name, text)) in failed.iter().zip(expected) {
            assert!(check.contains(name) && check.contains(text), "{name}, {text}: {check}");
        }
    }

    /// Asserts that a check passed, and that its line has `text`.
    fn assert_ok(&self, name: &str, text: &str) {
        let passed = self.with_status("ok");
        let matches = |check: &String| check.contains(name) && check.contains(text);
        assert!(passed.iter().any(matches), "{name}, {text}: {passed:#?}");
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
        let topics = broker.unwrap().examiner().cluster().unwrap().topics;
        topics.iter().filter(|topic| topic.as_str().starts_with(&prefix)).count()
    };
    let before = Report::of(&application, &[]);
    before.assert_failed(&[("topics", "is not initialised: none of its")]);
    assert!(before.with_status("failed")[0].contains("run `foretell init`"));
    before.assert_ok("transactions", "-doctor");
    assert_eq!(topics(), 0, "doctor creates no topics");

    application.init();
    let after = Report::of(&application, &[]);
    after.assert_failed(&[]);
    after.assert_ok("model", "serves");
    after.assert_ok("changelogs", "none yet");

    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let sent = ["send", "--limit", "20", "--rate", "100", "--outcome-delay", "1s", "--quiet"];
    application.start(&sent).succeed(SOON);
    let bind = http.base.trim_start_matches("http://");
    let running = Report::of(&application, &["--set", &format!("http.bind={bind}")]);
    running.assert_failed(&[]);
    running.assert_ok("scoring-outcomes-changelog", "partitions: 4, compact");
    running.assert_ok("learning-learning-changelog", "partitions: 1, compact");
    running.assert_ok("adult-scoring", "behind in 12 partitions, 1 member");
    running.assert_ok("http", "instance one");

    // For another application, the address is taken.
    let other = Application::new("doctor-other", &[]);
    let report = Report::of(&other, &["--set", &format!("http.bind={bind}")]);
    let failed = report.with_status("failed");
    assert!(failed.iter().any(|check| check.contains("another application")));
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}

#[test]
fn topics_with_wrong_settings_are_reported() {
    let application = Application::new("doctor-topics", &[]);
    let config = application.config();
    let broker = KafkaBroker::connect(&KafkaConfig {
        bootstrap_servers: brokers(),
        ..KafkaConfig::default()
    });
    let mut specs: Vec<TopicSpec> = config.topics.specs(config.partitions);
    let mut change = |name: &str, change: fn(&mut TopicSpec)| {
        let is_named = |spec: &&mut TopicSpec| spec.name.as_str().ends_with(name);
        change(specs.iter_mut().find(is_named).unwrap());
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
    let report = Report::of(&application, &[]);
    let failed = report.with_status("failed");
    let check = |checks: &[String], name: &str, text: &str| {
        let matches = |check: &String| check.contains(name) && check.contains(text);
        assert!(checks.iter().any(matches), "{name}, {text}: {checks:#?}");
    };
    check(&failed, "-outcomes", "3 partitions, not 4");
    check(&failed, "-models", "cleanup.policy=compact");
    check(&failed, "-trials", "2 partitions, not 1");
    check(&failed, "-predictions", "cleanup.policy=delete");
    let warnings = report.with_status("warning");
    check(&warnings, "-labelled-examples", "its records expire");
    check(&warnings, "-dead-letters", "max.message.bytes=2097152");
    assert!(!failed.iter().any(|check| check.contains("questionnaire-events: ")), "{failed:#?}");
    // Timeouts beyond the broker's limits.
    let long = ["--set", "broker.session_timeout=1h", "--set", "broker.transaction_timeout=30m"];
    let failed = Report::of(&application, &long).with_status("failed");
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

/// Settings of a client that authenticates with a user name and password over TLS.
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
fn every_command_works_with_a_password_over_tls_and_prints_no_secret() {
    let application = application("scram", &by_password("SCRAM-SHA-256"));
    application.init();
    let secret = std::fs::read_to_string(secure("password")).unwrap();
    let secret = secret.trim();
    let assert_no_secret = |process: &Process| {
        let printed = process.output() + &process.errors();
        assert!(
            !printed.contains(secret),
            "{:?}",
            printed.lines().find(|line| line.contains(secret))
        );
    };
    let verbose = ["--log", "trace", "--set", "broker.properties.debug=all"];
    let mut run = application.start(&[&["run"], &verbose[..]].concat());
    run.http().ready();
    let limit = ["send", "--limit", "5", "--rate", "50", "--outcome-delay", "1s"];
    let mut send = application.start(&limit);
    assert!(send.end(SOON).success(), "{}", send.errors());
    assert!(send.output().contains("5 of 5 predictions came back"), "{}", send.output());
    let mut doctor = application.start(&[&["doctor"], &verbose[..]].concat());
    assert!(doctor.end(SOON).success(), "{}", doctor.output());
    assert!(doctor.errors().contains("SCRAM"), "librdkafka logged its debug lines");
    run.signal("TERM");
    assert!(run.end(SOON).success(), "{}", run.errors());
    for process in [&run, &send, &doctor] {
        assert_no_secret(process);
    }
}

#[test]
fn a_refused_connection_is_reported_with_its_reason() {
    let check = |settings: &[String], expected: &[&str]| {
        let report = Report::of(&application("refused", settings), &[]);
        let failed = report.with_status("failed");
        for text in expected {
            assert!(failed[0].starts_with("broker: ") && failed[0].contains(text), "{failed:#?}");
        }
    };
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let wrong = [by_password(mechanism), vec![property("sasl.password", "wrong")]].concat();
        check(&wrong, &["rejected the credentials", "Authentication failed", "sasl.password"]);
    }
    let other = [by_password("PLAIN"), vec![property("sasl.mechanisms", "SCRAM-SHA-512")]].concat();
    check(&other, &["rejected the credentials", "SCRAM-SHA-512", "sasl.mechanisms"]);
    let wrong_ca = property("ssl.ca.location", secure("client.pem").display());
    check(
        &[by_password("PLAIN"), vec![wrong_ca]].concat(),
        &["no TLS connection", "ssl.ca.location"],
    );
    check(&[listener("sasl_ssl")], &["closed the connection", "security.protocol"]);
}

#[test]
fn mutual_tls_needs_a_client_certificate() {
    let without = [
        listener("mtls"),
        property("security.protocol", "SSL"),
        property("ssl.ca.location", secure("ca.pem").display()),
    ];
    let failed = Report::of(&application("mtls", &without), &[]).with_status("failed");
    assert!(failed[0].contains("no TLS connection"), "{failed:#?}");
    assert!(failed[0].contains("ssl.certificate.location"), "{failed:#?}");
    let certificate = [
        property("ssl.certificate.location", secure("client.pem").display()),
        property("ssl.key.location", secure("client.key").display()),
    ];
    let application = application("mtls", &[&without[..], &certificate[..]].concat());
    application.init();
    Report::of(&application, &[]).assert_failed(&[]);
}

/// An unsigned OAuth token for the user alice that is valid for `seconds` from now.
fn token(seconds: i64) -> String {
    let now = SystemClock::new().now().0 / 1000;
    let claims = serde_json::json!({ "sub": "alice", "iat": now, "exp": now + seconds });
    let [header, claims] = [r#"{"alg":"none"}"#.to_owned(), claims.to_string()]
        .map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{claims}.\n")
}

#[test]
fn a_token_file_is_read_again_before_the_token_expires() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    // Replaces the file atomically, as whatever refreshes such a file should.
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
    let failed = || Report::of(&application, &[]).with_status("failed");
    assert!(failed()[0].contains("cannot read [broker] token_file"), "{:#?}", failed());
    write(-60);
    assert!(failed()[0].contains("unexpired"), "{:#?}", failed());
    write(60);
    application.init();
    write(30);
    let mut run = application.instance("one");
    run.http().ready();
    // The broker closes a connection when its token expires. So with tokens of 30 s, the client has to authenticate again
    // within the 40 s.
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
    Report::of(&application, &[]).assert_failed(&[]);
}

/// An HTTPS server for one file that requires a client certificate; killed when dropped.
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
        until("the HTTPS server listens", SOON, || TcpStream::connect(address).ok());
        server
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).expect("our child can be killed");
    }
}

#[test]
fn a_registry_behind_mutual_tls_is_reached_with_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _server = HttpsServer::start(&address, folder.path());
    let url = format!("schema_registry.url=https://{address}");
    let file = |key: &str, name: &str| format!("schema_registry.{key}={}", secure(name).display());
    let ca = file("ca_file", "ca.pem");
    let certificate = [file("certificate_file", "client.pem"), file("key_file", "client.key")];
    let check = |settings: &[String], status: &str, text: &str| {
        let checks = Report::of(&application("https", settings), &[]).with_status(status);
        let matches = |check: &String| check.starts_with("registry: ") && check.contains(text);
        assert!(checks.iter().any(matches), "{text}: {checks:#?}");
    };
    check(std::slice::from_ref(&url), "failed", "certificate verify failed");
    check(&[url.clone(), ca.clone()], "failed", "certificate required");
    check(&[&[url, ca], &certificate[..]].concat(), "ok", "takes new schemas");
}
