//! A client of registries with Confluent's HTTP API: Confluent's own, Redpanda's, Karapace, Apicurio.
//!
//! `schema_registry_converter` makes most calls; its decoder's cache is not used, because it would keep errors such as 500
//! and 429. Calls block, so they must not be made in an async task. `responses` classifies the responses.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Mutex, PoisonError},
};

use reqwest::{
    StatusCode, Url,
    blocking::{Client, RequestBuilder},
};
use schema_registry_converter::{
    blocking::schema_registry::{
        SrSettings, get_referenced_schema, get_schema_by_id, perform_sr_call, post_schema,
    },
    error::SRCError,
    schema_registry_common::{
        RawError, RawRegisteredSchema, RegisteredReference, RegisteredSchema, SchemaType, SrCall,
        SuppliedSchema,
    },
};
use serde_json::json;

use crate::{
    access::{Credentials, RegistryClientConfig, chain},
    evolution::Level,
    references::{Reference, Stored, inline},
    registry::{Compatibility, RegistryError, SchemaRegistry, found, may_follow},
    responses::{by_code, compatibility_in, for_id, mode_in, status_in},
};
use foretell_address as address;

/// Maximum number of cached schemas; each is a few kilobytes.
const SCHEMAS_MAX: usize = 1_000;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A client of a registry over HTTP, with a cache of schemas by id.
#[derive(Debug)]
pub struct RegistryClient {
    settings: SrSettings,
    http: Client,
    url: String,
    credentials: Credentials,
    schemas: Mutex<BTreeMap<u32, String>>,
}

impl RegistryClient {
    /// Creates a client. It does not connect.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if the address or the certificates are invalid.
    pub fn new(config: &RegistryClientConfig) -> Result<Self, RegistryError> {
        let shown = address::shown(&config.url);
        let refused = |reason: String| RegistryError::Refused(format!("{shown}: {reason}"));
        let url = Url::parse(&config.url).map_err(|error| refused(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("the address must begin with http:// or https://".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("a name and a password do not belong into the address".to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused(
                "a query or a fragment does not belong into the address".to_owned(),
            ));
        }
        let url = config.url.trim_end_matches('/').to_owned();
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(config.timeout);
        match &config.credentials {
            Credentials::None => &mut builder,
            Credentials::Basic { user, password } => {
                builder.set_basic_authorization(user, Some(password))
            }
            Credentials::Bearer(token) => builder.set_token_authorization(token),
        };
        let tls = || config.tls.client().map_err(refused);
        let settings = builder.build_with(tls()?).map_err(|error| refused(error.to_string()))?;
        let http = tls()?.timeout(config.timeout).build();
        let http = http.map_err(|error| refused(chain(&error)))?;
        let credentials = config.credentials.clone();
        Ok(Self { settings, http, url, credentials, schemas: Mutex::default() })
    }

    fn fetch(&self, id: u32) -> Result<String, RegistryError> {
        let registered = self.attempt(|| get_schema_by_id(id, &self.settings));
        let registered = registered.map_err(for_id)?;
        if registered.schema_type != SchemaType::Avro {
            let kind = registered.schema_type;
            return Err(RegistryError::Incompatible(format!("schema {id} is {kind:?}, not Avro")));
        }
        self.complete(registered.schema, registered.references)
    }

    fn complete(
        &self,
        text: String,
        references: Vec<RegisteredReference>,
    ) -> Result<String, RegistryError> {
        inline(stored(text, references), |reference| {
            let mention: RegisteredReference = serde_json::from_value(json!({
                "name": reference.name, "subject": reference.subject, "version": reference.version,
            }))
            .expect("it has the fields that it is made of");
            let found: RegisteredSchema =
                self.attempt(|| get_referenced_schema(&self.settings, &mention)).map_err(for_id)?;
            Ok(stored(found.schema, found.references))
        })
    }

    /// The id and the text of a version.
    fn version_in(&self, answer: RawRegisteredSchema) -> Result<(u32, String), RegistryError> {
        let (Some(id), Some(text)) = (answer.id, answer.schema) else {
            return Err(self.lacks("an id and a schema"));
        };
        Ok((id, self.complete(text, answer.references.unwrap_or_default())?))
    }

    /// The numbers of all versions of a subject, oldest first, which the converter has no call for.
    fn numbers_of_versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(chain(&error));
        let url = format!("{}/subjects/{subject}/versions", self.url);
        let response = self.authorized(self.http.get(url)).send().map_err(unavailable)?;
        let status = response.status();
        let text = response.text().map_err(unavailable)?;
        if !status.is_success() {
            let code = serde_json::from_str::<RawError>(&text).map_or(0, |raw| raw.error_code);
            let message = format!("{}: {status}: {text}", self.url);
            return Err(by_code(code, Some(status.as_u16()), message));
        }
        serde_json::from_str(&text).map_err(|_| self.lacks("the numbers of versions"))
    }

    /// Makes one of the converter's raw calls; `None` if the registry does not have the subject or schema.
    fn ask(&self, call: SrCall<'_>) -> Result<Option<RawRegisteredSchema>, RegistryError> {
        found(self.attempt(|| perform_sr_call(&self.settings, call)))
    }

    /// Makes a call, and repeats it at once after a retriable error: the server may have been shutting down.
    fn attempt<T>(&self, call: impl Fn() -> Result<T, SRCError>) -> Result<T, RegistryError> {
        match call() {
            Err(error) if error.retriable => call(),
            result => result,
        }
        .map_err(|error| self.classify(&error))
    }

    fn classify(&self, error: &SRCError) -> RegistryError {
        let cause = error.cause.as_deref().unwrap_or("no cause given");
        let message = format!("{}: {}: {cause}", self.url, error.error);
        if error.retriable || is_cut_off(error) {
            return RegistryError::Unavailable(message);
        }
        let code = error.source().and_then(|source| source.downcast_ref::<RawError>());
        by_code(code.map_or(0, |raw| raw.error_code), status_in(&error.error), message)
    }

    /// The registry's mode, such as `READWRITE` or `READONLY`; `None` if it has no such endpoint.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    pub fn mode(&self) -> Result<Option<String>, RegistryError> {
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(chain(&error));
        let request = self.authorized(self.http.get(format!("{}/mode", self.url)));
        let response = request.send().map_err(unavailable)?;
        let status = response.status();
        let text = response.text().map_err(unavailable)?;
        match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            status if status.is_success() => {
                mode_in(&text).map(Some).ok_or_else(|| self.lacks("a mode"))
            }
            status => {
                Err(by_code(0, Some(status.as_u16()), format!("{}: {status}: {text}", self.url)))
            }
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials {
            Credentials::None => request,
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password)),
            Credentials::Bearer(token) => request.bearer_auth(token),
        }
    }

    /// Asks for compatibility with the latest version, which the converter has no call for.
    fn ask_compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        let url =
            format!("{}/compatibility/subjects/{subject}/versions/latest?verbose=true", self.url);
        let call = || {
            let request = self.http.post(&url).header("Content-Type", MEDIA_TYPE);
            self.authorized(request).body(body(schema)).send()
        };
        let is_shutting_down =
            |status| matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE);
        let response = match call() {
            Ok(response) if !is_shutting_down(response.status()) => Ok(response),
            Ok(_) | Err(_) => call(),
        };
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(chain(&error));
        let response = response.map_err(unavailable)?;
        let status = response.status();
        let text = response.text().map_err(unavailable)?;
        if status.is_success() {
            return compatibility_in(&text);
        }
        let code = serde_json::from_str::<RawError>(&text).map_or(0, |raw| raw.error_code);
        let message = format!("{}: {status}: {text}", self.url);
        let missing = found(Err(by_code(code, Some(status.as_u16()), message)))?;
        Ok(missing.unwrap_or(Compatibility::Compatible))
    }
}

impl SchemaRegistry for RegistryClient {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        // A panic cannot leave the map half-changed: each change is one insertion or removal.
        if let Some(text) = self.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(text.clone());
        }
        let text = self.fetch(id)?;
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if schemas.len() >= SCHEMAS_MAX {
            schemas.pop_first();
        }
        schemas.insert(id, text.clone());
        Ok(text)
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let post = || post_schema(&self.settings, subject.to_owned(), supplied.clone());
        Ok(self.attempt(post)?.id)
    }

    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        match self.ask(SrCall::PostForVersion(subject, &body(schema)))? {
            Some(answer) => match answer.id {
                Some(id) => Ok(Some(id)),
                None => Err(self.lacks("an id")),
            },
            None => Ok(None),
        }
    }

    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
        let Some(answer) = self.ask(SrCall::GetLatest(subject))? else {
            return Ok(None);
        };
        self.version_in(answer).map(Some)
    }

    fn versions(&self, subject: &str) -> Result<Vec<(u32, String)>, RegistryError> {
        let numbers = found(self.numbers_of_versions(subject))?.unwrap_or_default();
        let mut versions = Vec::new();
        for number in numbers {
            // It may have been deleted since.
            let answer = self.ask(SrCall::GetBySubjectAndVersion(subject, number))?;
            versions.extend(answer.map(|answer| self.version_in(answer)).transpose()?);
        }
        Ok(versions)
    }

    /// Combines the check of the registry with the one of this crate: some registries accept incompatible schemas, and records that are
    /// in the topic already must be readable at any compatibility level.
    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        let registry = self.ask_compatible(subject, schema)?;
        let own = match self.latest(subject)? {
            Some((_, latest)) => may_follow(Level::Backward, &[&latest], schema)?,
            None => Compatibility::Compatible,
        };
        let mut reasons = Vec::new();
        for result in [registry, own] {
            if let Compatibility::Incompatible { reasons: more } = result {
                reasons.extend(more);
            }
        }
        match reasons.is_empty() {
            true => Ok(Compatibility::Compatible),
            false => Ok(Compatibility::Incompatible { reasons }),
        }
    }

    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError> {
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(chain(&error));
        let request = self.http.put(format!("{}/config/{subject}", self.url));
        let request = self.authorized(request.header("Content-Type", MEDIA_TYPE));
        let response = request.body(json!({ "compatibility": level.name() }).to_string()).send();
        let response = response.map_err(unavailable)?;
        let status = response.status();
        let text = response.text().map_err(unavailable)?;
        match status {
            status if status.is_success() => Ok(true),
            // Apicurio refuses a level for a subject without versions; Redpanda and Confluent accept it.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            status => {
                Err(by_code(0, Some(status.as_u16()), format!("{}: {status}: {text}", self.url)))
            }
        }
    }
}

impl RegistryClient {
    fn lacks(&self, expected: &str) -> RegistryError {
        RegistryError::Refused(format!("{}: the response lacks {expected}", self.url))
    }
}

fn body(schema: &str) -> String {
    json!({ "schema": schema, "schemaType": "AVRO" }).to_string()
}

fn stored(text: String, references: Vec<RegisteredReference>) -> Stored {
    let reference = |reference: RegisteredReference| Reference {
        name: reference.name,
        subject: reference.subject,
        version: reference.version,
    };
    Stored { text, references: references.into_iter().map(reference).collect() }
}

/// Whether the body of the response was cut off. A complete body that is not the expected JSON is no such error.
fn is_cut_off(error: &SRCError) -> bool {
    let transport = error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
    let is_json = |cause: &(dyn Error + 'static)| cause.is::<serde_json::Error>();
    transport.is_some_and(|cause| !cause.source().is_some_and(is_json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::RegistryTls;
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread::JoinHandle,
        time::Duration,
    };

    /// A server that sends these responses, one per request. Joining it returns the request line and the authorization of
    /// each request.
    fn server(answers: &'static [(&str, &str)]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/a/path/", listener.local_addr().expect("it has an address"));
        let answer = move |(status, body): &(&str, &str)| {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut reader = BufReader::new(&stream);
            let (mut request, mut length) = (String::new(), 0);
            for line in reader.by_ref().lines().map(|line| line.expect("text")) {
                match line.split_once(": ") {
                    _ if line.is_empty() => break,
                    None => request = line,
                    Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                        request = format!("{request} {value}");
                    }
                    Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                        length = value.parse().expect("a length");
                    }
                    Some(_) => (),
                }
            }
            reader.read_exact(&mut vec![0; length]).expect("the whole body");
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}");
            write!(stream, "{head}\r\n\r\n{body}").expect("the client is connected");
            request
        };
        (url, std::thread::spawn(move || answers.iter().map(answer).collect()))
    }

    fn connect(url: &str, credentials: Credentials) -> RegistryClient {
        let timeout = Duration::from_secs(5);
        let tls = RegistryTls::default();
        let config = RegistryClientConfig { url: url.to_owned(), credentials, tls, timeout };
        RegistryClient::new(&config).expect("the address is one")
    }

    const UNAVAILABLE: (&str, &str) = ("503 Gone", "");
    const INT: (&str, &str) = ("200 OK", r#"{"schema":"\"int\""}"#);
    const BY_ID: &str = "GET /a/path/schemas/ids/7?deleted=true HTTP/1.1";

    #[test]
    fn a_schema_is_requested_once_and_again_after_a_503() {
        let (url, server) = server(&[UNAVAILABLE, INT]);
        let user = "u".to_owned();
        let client = connect(&url, Credentials::Basic { user, password: "p".to_owned() });
        for _ in 0..3 {
            assert_eq!(client.schema(7), Ok("\"int\"".to_owned()));
        }
        let request = format!("{BY_ID} Basic dTpw");
        assert_eq!(server.join().expect("it answered"), [request.clone(), request]);
    }

    #[test]
    fn errors_are_not_cached() {
        let (url, server) =
            server(&[UNAVAILABLE, UNAVAILABLE, ("500 Oh", "{}"), ("429 Slow", "{}"), INT]);
        let client = connect(&url, Credentials::Bearer("t".to_owned()));
        for _ in 0..3 {
            let error = client.schema(7);
            assert!(matches!(error, Err(RegistryError::Unavailable(_))), "{error:?}");
        }
        assert_eq!(client.schema(7), Ok("\"int\"".to_owned()));
        let request = format!("{BY_ID} Bearer t");
        assert_eq!(server.join().expect("it answered"), vec![request; 5]);
    }

    #[test]
    fn the_versions_of_a_subject_are_listed() {
        let (url, server) = server(&[
            ("200 OK", "[1, 3]"),
            ("200 OK", r#"{"id":7,"version":1,"schema":"\"int\""}"#),
            ("200 OK", r#"{"id":9,"version":3,"schema":"\"long\""}"#),
            ("404 Gone", r#"{"error_code":40401,"message":"no subject"}"#),
            ("200 OK", "<html>"),
        ]);
        let client = connect(&url, Credentials::None);
        let versions = vec![(7, "\"int\"".to_owned()), (9, "\"long\"".to_owned())];
        assert_eq!(client.versions("s"), Ok(versions));
        assert_eq!(client.versions("s"), Ok(Vec::new()), "no such subject");
        let other = client.versions("s");
        assert!(matches!(other, Err(RegistryError::Refused(_))), "{other:?}");
        let paths = ["", "/1", "/3", "", ""]
            .map(|number| format!("GET /a/path/subjects/s/versions{number} HTTP/1.1"));
        assert_eq!(server.join().expect("it answered"), paths);
    }

    /// Checks for each response to a request by id whether the record waits or the id is unknown.
    #[test]
    fn only_errors_that_can_pass_make_a_record_wait() {
        const ANSWERS: &[(&str, &str)] = &[
            ("404 Not Found", r#"{"error_code":40403,"message":"Schema not found"}"#),
            ("404 Not Found", r#"{"error_code":0,"message":"NumberFormatException"}"#),
            ("404 Not Found", "<html>"),
            ("400 Bad Request", r#"{"code":400,"message":"Invalid parameter 'id'"}"#),
            ("405 Method Not Allowed", ""),
            ("406 Not Acceptable", ""),
            ("409 Conflict", r#"{"error_code":409,"message":""}"#),
            ("410 Gone", ""),
            ("422 Unprocessable Entity", r#"{"error_code":42201,"message":""}"#),
            ("200 OK", "<html>"),
            ("200 OK", "{}"),
            ("304 Not Modified", ""),
            ("401 Unauthorized", r#"{"error_code":40101,"message":""}"#),
            ("403 Forbidden", "<html>"),
            ("408 Request Timeout", ""),
            ("429 Too Many Requests", ""),
            ("500 Internal Server Error", r#"{"error_code":50001,"message":""}"#),
            ("504 Gateway Timeout", "<html>"),
        ];
        const UNKNOWN_IDS: usize = 12;
        let (url, server) = server(ANSWERS);
        let client = connect(&url, Credentials::None);
        for (number, (status, body)) in ANSWERS.iter().enumerate() {
            let answer = client.schema(7).expect_err("none of them has a schema");
            let waits = matches!(answer, RegistryError::Unavailable(_) | RegistryError::Denied(_));
            assert_eq!(waits, number >= UNKNOWN_IDS, "{status} {body}: {answer:?}");
            let is_unknown = matches!(answer, RegistryError::NotFound(_));
            assert_eq!(is_unknown, number < UNKNOWN_IDS, "{status} {body}: {answer:?}");
        }
        server.join().expect("it answered");
    }

    #[test]
    fn a_truncated_response_can_be_retried() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a request");
            let lines = BufReader::new(&stream).lines().map(|line| line.expect("text"));
            assert!(lines.take_while(|line| !line.is_empty()).count() > 0, "a request has a head");
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"sch";
            (&stream).write_all(head.as_bytes()).expect("the client is connected");
        });
        let answer = connect(&url, Credentials::None).schema(7);
        assert!(matches!(answer, Err(RegistryError::Unavailable(_))), "{answer:?}");
        server.join().expect("it answered");
    }

    #[test]
    fn other_kinds_of_schemas_are_distinguished() {
        let (url, server) = server(&[("200 OK", r#"{"schema":"x","schemaType":"PROTOBUF"}"#)]);
        let protobuf = connect(&url, Credentials::None).schema(7);
        assert!(matches!(protobuf, Err(RegistryError::Incompatible(_))), "{protobuf:?}");
        assert_eq!(server.join().expect("it answered"), [BY_ID]);
    }

    #[test]
    fn the_registry_and_the_own_check_must_agree() {
        const YES: (&str, &str) = ("200 OK", r#"{"is_compatible":true}"#);
        const LONG: (&str, &str) = ("200 OK", r#"{"id":1,"schema":"\"long\""}"#);
        let (url, server) = server(&[UNAVAILABLE, YES, LONG]);
        let result = connect(&url, Credentials::Bearer("t".to_owned())).compatible("s", "\"int\"");
        assert!(matches!(result, Ok(Compatibility::Incompatible { .. })), "{result:?}");
        let requests = server.join().expect("it answered");
        let check = "/a/path/compatibility/subjects/s/versions/latest?verbose=true";
        assert_eq!(requests[1], format!("POST {check} HTTP/1.1 Bearer t"));
    }

    #[test]
    fn a_registry_without_a_mode_has_none() {
        let (url, server) = server(&[
            ("200 OK", r#"{"mode":"READONLY"}"#),
            ("404 Not Found", "no such page"),
            ("401 Unauthorized", "{}"),
        ]);
        let client = connect(&url, Credentials::Bearer("t".to_owned()));
        assert_eq!(client.mode(), Ok(Some("READONLY".to_owned())));
        assert_eq!(client.mode(), Ok(None));
        assert!(matches!(client.mode(), Err(RegistryError::Denied(_))));
        let requests = server.join().expect("it answered");
        assert_eq!(requests[0], "GET /a/path/mode HTTP/1.1 Bearer t");
    }

    #[test]
    fn invalid_settings_are_errors_that_show_no_secret() {
        let client = |url: &str| {
            RegistryClient::new(&RegistryClientConfig {
                url: url.to_owned(),
                credentials: Credentials::Bearer("secret".to_owned()),
                tls: RegistryTls::default(),
                timeout: Duration::from_secs(1),
            })
        };
        assert!(client("localhost:8081").is_err());
        assert!(client("not a url").is_err());
        let user = client("http://me:secret@localhost:8081").map(|_| ()).unwrap_err().to_string();
        assert!(!user.contains("secret") && user.contains("password"), "{user}");
        let shown = format!("{:?}", client("http://localhost:8081/").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
