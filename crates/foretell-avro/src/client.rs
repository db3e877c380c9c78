//! A Confluent-style registry over HTTP: Confluent's own, Redpanda's, Karapace, Apicurio.
//!
//! `schema_registry_converter` makes the calls, without its decoder's cache, which would keep
//! errors such as 500 and 429. Calls block: not for use inside an async task.

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
use serde::Deserialize;
use serde_json::json;

use crate::{
    access::{Credentials, RegistryClientConfig, chain},
    evolution::Level,
    references::{Reference, Stored, inline},
    registry::{Compatibility, RegistryError, SchemaRegistry, found, may_follow},
};
use foretell_address as address;

/// How many schemas are remembered; each is a few kilobytes.
const SCHEMAS_MAX: usize = 1_000;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A registry over HTTP.
#[derive(Debug)]
pub struct RegistryClient {
    settings: SrSettings,
    http: Client,
    url: String,
    credentials: Credentials,
    schemas: Mutex<BTreeMap<u32, String>>,
}

impl RegistryClient {
    /// Does not connect yet.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if the settings can't be right.
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
        let registered = registered.map_err(about_the_id)?;
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
            let found: RegisteredSchema = self
                .attempt(|| get_referenced_schema(&self.settings, &mention))
                .map_err(about_the_id)?;
            Ok(stored(found.schema, found.references))
        })
    }

    /// What one of the converter's raw calls answers; none if the registry does not have it.
    fn ask(&self, call: SrCall<'_>) -> Result<Option<RawRegisteredSchema>, RegistryError> {
        found(self.attempt(|| perform_sr_call(&self.settings, call)))
    }

    /// A second attempt at once, where the first may have met a server that was going away.
    fn attempt<T>(&self, call: impl Fn() -> Result<T, SRCError>) -> Result<T, RegistryError> {
        match call() {
            Err(error) if error.retriable => call(),
            result => result,
        }
        .map_err(|error| self.classify(&error))
    }

    fn classify(&self, error: &SRCError) -> RegistryError {
        let cause = error.cause.as_deref().unwrap_or("no more is known");
        let message = format!("{}: {}: {cause}", self.url, error.error);
        if error.retriable || is_cut_off(error) {
            return RegistryError::Unavailable(message);
        }
        let code = error.source().and_then(|source| source.downcast_ref::<RawError>());
        by_code(code.map_or(0, |raw| raw.error_code), status_in(&error.error), message)
    }

    /// Whether it takes new schemas: `READWRITE`, `READONLY` and the like; none if it does not tell.
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
                let answer: Result<Mode, _> = serde_json::from_str(&text);
                answer.map(|answer| Some(answer.mode)).map_err(|_| self.odd_answer("a mode"))
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

    /// The one call of ours that the converter does not have. Against the newest version only, as the
    /// default rule has it.
    fn ask_compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        let url =
            format!("{}/compatibility/subjects/{subject}/versions/latest?verbose=true", self.url);
        let call = || {
            let request = self.http.post(&url).header("Content-Type", MEDIA_TYPE);
            self.authorized(request).body(body(schema)).send()
        };
        let gone =
            |status| matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE);
        let response = match call() {
            Ok(response) if !gone(response.status()) => Ok(response),
            Ok(_) | Err(_) => call(),
        };
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(chain(&error));
        let response = response.map_err(unavailable)?;
        let status = response.status();
        let text = response.text().map_err(unavailable)?;
        if status.is_success() {
            return verdict(&text);
        }
        let code = serde_json::from_str::<RawError>(&text).map_or(0, |raw| raw.error_code);
        let message = format!("{}: {status}: {text}", self.url);
        let verdict = found(Err(by_code(code, Some(status.as_u16()), message)))?;
        Ok(verdict.unwrap_or(Compatibility::Compatible))
    }
}

impl SchemaRegistry for RegistryClient {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        // A panic elsewhere can't leave the map half-changed: each change is one insertion.
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
                None => Err(self.odd_answer("an id")),
            },
            None => Ok(None),
        }
    }

    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
        let Some(answer) = self.ask(SrCall::GetLatest(subject))? else {
            return Ok(None);
        };
        let (Some(id), Some(text)) = (answer.id, answer.schema) else {
            return Err(self.odd_answer("an id and a schema"));
        };
        Ok(Some((id, self.complete(text, answer.references.unwrap_or_default())?)))
    }

    /// The registry's verdict, and ours: one registry in the field lets incompatible schemas pass,
    /// and whatever a subject's rule is, we have to read what is in the topic already.
    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        let writer = self.ask_compatible(subject, schema)?;
        let reader = match self.latest(subject)? {
            Some((_, latest)) => may_follow(Level::Backward, &[&latest], schema)?,
            None => Compatibility::Compatible,
        };
        let mut reasons = Vec::new();
        for verdict in [writer, reader] {
            if let Compatibility::Incompatible { reasons: more } = verdict {
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
            // Apicurio's has no rule for a subject without versions; Redpanda's has, and so has Confluent's.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            status => {
                Err(by_code(0, Some(status.as_u16()), format!("{}: {status}: {text}", self.url)))
            }
        }
    }
}

impl RegistryClient {
    fn odd_answer(&self, wanted: &str) -> RegistryError {
        RegistryError::Refused(format!("{}: the answer lacks {wanted}", self.url))
    }
}

/// The answer to the question for the mode.
#[derive(Deserialize)]
struct Mode {
    mode: String,
}

/// The answer to a compatibility check.
#[derive(Deserialize)]
struct Verdict {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

fn verdict(text: &str) -> Result<Compatibility, RegistryError> {
    let verdict: Verdict = serde_json::from_str(text)
        .map_err(|error| RegistryError::Refused(format!("no verdict ({error}): {text}")))?;
    if verdict.is_compatible {
        return Ok(Compatibility::Compatible);
    }
    let mut reasons = verdict.messages;
    if reasons.is_empty() {
        reasons.push("the registry says no, and not why".to_owned());
    }
    Ok(Compatibility::Incompatible { reasons })
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

/// Whether the body of an answer broke off. One that came whole and is not what was asked for is an answer.
fn is_cut_off(error: &SRCError) -> bool {
    let transport = error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
    let is_json = |cause: &(dyn Error + 'static)| cause.is::<serde_json::Error>();
    transport.is_some_and(|cause| !cause.source().is_some_and(is_json))
}

/// What an answer to the question for an id means. Registries refuse an id that they do not have in different ways
/// (Confluent 404 with a code of its own, Redpanda 400, Apicurio 404 without a code for an id of 2^31 or more), and an
/// id that nobody has must not hold up its partition for ever. So whatever does not pass by itself is an answer about
/// the id.
fn about_the_id(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::NotFound(message)
        | RegistryError::Incompatible(message)
        | RegistryError::Refused(message) => RegistryError::NotFound(message),
        RegistryError::Unavailable(_) | RegistryError::Denied(_) => error,
    }
}

/// Confluent's error codes are the HTTP status and two more digits. A 404 without a code comes from something that is
/// no registry, or from one that does not know the question; [`about_the_id`] has the one exception.
fn by_code(code: u32, status: Option<u16>, message: String) -> RegistryError {
    let status = status.unwrap_or(0);
    match (status, code) {
        (408 | 429 | 500..=599, _) => RegistryError::Unavailable(message),
        (401 | 403, _) => RegistryError::Denied(message),
        (_, 40_401..=40_403) => RegistryError::NotFound(message),
        (409, _) | (_, 409 | 40_901) => RegistryError::Incompatible(message),
        (_, _) => RegistryError::Refused(message),
    }
}

/// The converter puts the status into its message only: `… failed with status 404 Not Found`.
fn status_in(message: &str) -> Option<u16> {
    let (_, after) = message.rsplit_once("status ")?;
    after.get(..3)?.parse().ok()
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

    /// A server that gives these answers, one a request, and then tells what it was asked: the
    /// request line and the authorization of each.
    fn server(answers: &'static [(&str, &str)]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/a/path/", listener.local_addr().expect("it has an address"));
        let answer = move |(status, body): &(&str, &str)| {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut reader = BufReader::new(&stream);
            let (mut asked, mut length) = (String::new(), 0);
            for line in reader.by_ref().lines().map(|line| line.expect("text")) {
                match line.split_once(": ") {
                    _ if line.is_empty() => break,
                    None => asked = line,
                    Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                        asked = format!("{asked} {value}");
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
            write!(stream, "{head}\r\n\r\n{body}").expect("it is still there");
            asked
        };
        (url, std::thread::spawn(move || answers.iter().map(answer).collect()))
    }

    fn connect(url: &str, credentials: Credentials) -> RegistryClient {
        let timeout = Duration::from_secs(5);
        let tls = RegistryTls::default();
        let config = RegistryClientConfig { url: url.to_owned(), credentials, tls, timeout };
        RegistryClient::new(&config).expect("the address is one")
    }

    const GONE: (&str, &str) = ("503 Gone", "");
    const INT: (&str, &str) = ("200 OK", r#"{"schema":"\"int\""}"#);
    const BY_ID: &str = "GET /a/path/schemas/ids/7?deleted=true HTTP/1.1";

    #[test]
    fn an_id_is_asked_for_once_and_once_more_if_the_server_goes_away() {
        let (url, server) = server(&[GONE, INT]);
        let user = "u".to_owned();
        let client = connect(&url, Credentials::Basic { user, password: "p".to_owned() });
        for _ in 0..3 {
            assert_eq!(client.schema(7), Ok("\"int\"".to_owned()));
        }
        let asked = format!("{BY_ID} Basic dTpw");
        assert_eq!(server.join().expect("it answered"), [asked.clone(), asked]);
    }

    #[test]
    fn no_error_is_remembered() {
        let (url, server) = server(&[GONE, GONE, ("500 Oh", "{}"), ("429 Slow", "{}"), INT]);
        let client = connect(&url, Credentials::Bearer("t".to_owned()));
        for _ in 0..3 {
            let error = client.schema(7);
            assert!(matches!(error, Err(RegistryError::Unavailable(_))), "{error:?}");
        }
        assert_eq!(client.schema(7), Ok("\"int\"".to_owned()));
        let asked = format!("{BY_ID} Bearer t");
        assert_eq!(server.join().expect("it answered"), vec![asked; 5]);
    }

    /// What each answer to the question for an id makes of the record that names it.
    #[test]
    fn only_what_can_pass_by_itself_is_waited_for() {
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
        const ABOUT_THE_ID: usize = 12;
        let (url, server) = server(ANSWERS);
        let client = connect(&url, Credentials::None);
        for (number, (status, body)) in ANSWERS.iter().enumerate() {
            let answer = client.schema(7).expect_err("none of them has a schema");
            let waits = matches!(answer, RegistryError::Unavailable(_) | RegistryError::Denied(_));
            assert_eq!(waits, number >= ABOUT_THE_ID, "{status} {body}: {answer:?}");
            let is_told = matches!(answer, RegistryError::NotFound(_));
            assert_eq!(is_told, number < ABOUT_THE_ID, "{status} {body}: {answer:?}");
        }
        server.join().expect("it answered");
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a request");
            let lines = BufReader::new(&stream).lines().map(|line| line.expect("text"));
            assert!(lines.take_while(|line| !line.is_empty()).count() > 0, "a request has a head");
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"sch";
            (&stream).write_all(head.as_bytes()).expect("it is still there");
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
    fn both_verdicts_count() {
        const YES: (&str, &str) = ("200 OK", r#"{"is_compatible":true}"#);
        const LONG: (&str, &str) = ("200 OK", r#"{"id":1,"schema":"\"long\""}"#);
        let (url, server) = server(&[GONE, YES, LONG]);
        let verdict = connect(&url, Credentials::Bearer("t".to_owned())).compatible("s", "\"int\"");
        assert!(matches!(verdict, Ok(Compatibility::Incompatible { .. })), "{verdict:?}");
        let asked = server.join().expect("it answered");
        let check = "/a/path/compatibility/subjects/s/versions/latest?verbose=true";
        assert_eq!(asked[1], format!("POST {check} HTTP/1.1 Bearer t"));
    }

    fn kind(code: u32, status: Option<u16>) -> &'static str {
        match by_code(code, status, String::new()) {
            RegistryError::NotFound(_) => "not found",
            RegistryError::Incompatible(_) => "incompatible",
            RegistryError::Unavailable(_) => "unavailable",
            RegistryError::Denied(_) => "denied",
            RegistryError::Refused(_) => "refused",
        }
    }

    #[test]
    fn what_errors_mean() {
        for (code, status, expected) in [
            (40_401, Some(404), "not found"),
            (40_403, Some(404), "not found"),
            (0, Some(404), "refused"),
            (409, Some(409), "incompatible"),
            (40_101, Some(401), "denied"),
            (0, Some(403), "denied"),
            (42_201, Some(422), "refused"),
            (50_001, Some(500), "unavailable"),
            (0, Some(429), "unavailable"),
            (40_403, Some(500), "unavailable"),
            (40_403, Some(401), "denied"),
            (0, None, "refused"),
        ] {
            assert_eq!(kind(code, status), expected, "{code} {status:?}");
        }
        assert_eq!(status_in("HTTP request failed with status 404 Not Found"), Some(404));
        assert_eq!(status_in("could not parse"), None);
    }

    #[test]
    fn the_mode_may_be_unknown() {
        let (url, server) = server(&[
            ("200 OK", r#"{"mode":"READONLY"}"#),
            ("404 Not Found", "no such page"),
            ("401 Unauthorized", "{}"),
        ]);
        let client = connect(&url, Credentials::Bearer("t".to_owned()));
        assert_eq!(client.mode(), Ok(Some("READONLY".to_owned())));
        assert_eq!(client.mode(), Ok(None));
        assert!(matches!(client.mode(), Err(RegistryError::Denied(_))));
        let asked = server.join().expect("it answered");
        assert_eq!(asked[0], "GET /a/path/mode HTTP/1.1 Bearer t");
    }

    #[test]
    fn verdicts() {
        assert_eq!(verdict(r#"{"is_compatible":true}"#), Ok(Compatibility::Compatible));
        let reasons = vec!["because".to_owned()];
        let no = verdict(r#"{"is_compatible":false,"messages":["because"]}"#);
        assert_eq!(no, Ok(Compatibility::Incompatible { reasons }));
        assert!(verdict("<html>").is_err());
    }

    #[test]
    fn settings_that_can_not_be_right() {
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
