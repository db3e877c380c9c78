//! TLS of the HTTP server, with certificates that are made here.

use std::{fs, io::Read, path::Path, time::Duration};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    x509::{
        X509, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use reqwest::blocking::Client;

use crate::{
    http::Instance,
    process::{Process, SOON, example, until},
};

/// A certificate for localhost that signs itself, and its key.
struct Certificate {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    fn new(serial: u32) -> Self {
        let key: PKey<Private> = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", &format!("test {serial}")).unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder
            .set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap())
            .unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
        let names = SubjectAlternativeName::new()
            .dns("localhost")
            .ip("127.0.0.1")
            .build(&builder.x509v3_context(None, None))
            .unwrap();
        builder.append_extension(names).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build().to_pem().unwrap();
        Self { certificate, key: key.private_key_to_pem_pkcs8().unwrap() }
    }

    /// Replaces the files, as a tool that renews certificates does.
    fn write(&self, folder: &Path) {
        for (name, content) in [("certificate.pem", &self.certificate), ("key.pem", &self.key)] {
            let new = folder.join("new");
            fs::write(&new, content).unwrap();
            fs::rename(&new, folder.join(name)).unwrap();
        }
    }

    /// A client that trusts only this certificate.
    fn client(&self) -> Client {
        let root = reqwest::Certificate::from_pem(&self.certificate).unwrap();
        let client = Client::builder().timeout(SOON).tls_certs_only([root]);
        client.build().unwrap()
    }
}

fn settings(folder: &Path) -> [String; 2] {
    let path = |name: &str| folder.join(name).display().to_string();
    [
        format!("http.tls.certificate_file={}", path("certificate.pem")),
        format!("http.tls.key_file={}", path("key.pem")),
    ]
}

#[test]
fn a_renewed_certificate_is_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Certificate::new(1), Certificate::new(2));
    first.write(folder.path());
    let [certificate, key] = settings(folder.path());
    let instance = Instance::start_tls(&[&certificate, &key, "http.read_timeout=2s"]);
    let address = instance.http.base.replace("http://", "https://");
    let live = |client: &Client| {
        let answer = client.get(format!("{address}/livez")).send().ok()?;
        (answer.text().ok()? == "ok\n").then_some(())
    };
    until("the first certificate is served", SOON, || live(&first.client()));
    assert!(live(&second.client()).is_none(), "it is not that certificate yet");
    assert!(instance.http.get("/livez").is_none(), "plain HTTP is not served");

    // A key that does not fit its certificate: the former pair stays.
    fs::write(folder.path().join("key.pem"), &second.key).unwrap();
    assert!(live(&first.client()).is_some());
    until("the log says so", SOON, || {
        instance.process.errors().contains("the former one stays").then_some(())
    });
    second.write(folder.path());
    assert!(live(&second.client()).is_some());
    assert!(live(&first.client()).is_none());

    // A client that does not complete its handshake is disconnected, and so is one that sends no TLS.
    let mut slow = instance.http.connect();
    assert_eq!(slow.read(&mut [0; 16]).unwrap(), 0);
    let client = second.client();
    let metrics = client.get(format!("{address}/metrics")).send().unwrap().text().unwrap();
    let name = "foretell_http_tls_handshakes_failed_total ";
    let failed = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert!(failed.parse::<f64>().unwrap() >= 1.0, "{failed}");
    drop(client);
    instance.end();
}

#[test]
fn a_client_over_the_limit_is_answered_503_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(1);
    certificate.write(folder.path());
    let [files, key] = settings(folder.path());
    let more = ["http.connections_max=20", "http.read_timeout=10m", "http.bearer_token=tok"];
    let instance = Instance::start_tls(&[&[files.as_str(), &key], &more[..]].concat());
    let address = instance.http.base.replace("http://", "https://");
    // Each request has a connection of its own.
    let status = || {
        let answer = certificate.client().get(format!("{address}/livez")).send().ok()?;
        Some((answer.status().as_u16(), answer.headers().contains_key("retry-after")))
    };
    until("it serves", SOON, || (status()? == (200, false)).then_some(()));
    // Those of requests that are answered count until they are closed.
    let mut connections = Vec::new();
    until("every connection is taken", SOON, || {
        connections.push(instance.http.connect());
        (status()? == (503, true)).then_some(())
    });
    // More clients than are answered at the same time, which send nothing: they are closed, and the others still get an answer.
    let mut silent: Vec<_> = (0..100).map(|_| instance.http.connect()).collect();
    for stream in &mut silent {
        let _closed_or_reset = stream.read(&mut [0; 16]);
    }
    until("it answers again", SOON, || (status()? == (503, true)).then_some(()));
    drop(connections);
    until("it serves again", SOON, || (status()? == (200, false)).then_some(()));
    instance.end();
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Certificate::new(1), Certificate::new(2));
    let check = |words: &[&str]| {
        let [certificate, key] = settings(folder.path());
        let arguments =
            ["run", "--embedded", "-c", example(), "--set", &certificate, "--set", &key];
        let mut process = Process::start(&arguments);
        assert_eq!(process.end(Duration::from_secs(60)).code(), Some(1));
        let errors = process.errors();
        for words in words {
            assert!(errors.contains(words), "{words:?} in {errors}");
        }
    };
    check(&["[http.tls]", "cannot read", "certificate.pem"]);
    first.write(folder.path());
    fs::write(folder.path().join("key.pem"), &second.key).unwrap();
    check(&["cannot be used together", "key.pem"]);
    fs::write(folder.path().join("key.pem"), "no key").unwrap();
    check(&["key.pem is not a key (PEM, without a password)"]);
    let encrypted = PKey::private_key_from_pem(&first.key).unwrap();
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let encrypted = encrypted.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
    fs::write(folder.path().join("key.pem"), encrypted).unwrap();
    check(&["key.pem is not a key (PEM, without a password)"]);
}
