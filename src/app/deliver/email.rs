//! E-mails: an action is one message to the address in an answer, through an SMTP server.
//!
//! ```text
//!   accepted                                        delivered
//!   4xx, no answer, credentials rejected            failed: another attempt follows
//!   any other 5xx                                   refused: dead letter
//!   no address, a template without a result         dead letter, without an attempt
//! ```

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::Envelope,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, escape_formatter};
use serde_json::Value as Json;
use tokio::{runtime, time};

use crate::{
    app::deliver::{
        action::{DueAction, sample_payload},
        channel::Sender,
        outcome::{MALFORMED_ADDRESS, Outcome, REFUSED, Rejection, UNRENDERABLE},
    },
    config::{Config, EmailSettings, SmtpTls},
};
use foretell_streams::time::Clock;

/// Replies about the credentials, which say nothing about the message: authentication required, mechanism too weak, credentials
/// invalid, encryption required (RFC 4954).
const AUTHENTICATION_REPLIES: [u16; 4] = [530, 534, 535, 538];

const SUBJECT: &str = "subject";
/// Maximum number of characters of a subject; the rest is cut.
const SUBJECT_MAX: usize = 200;

/// The sender of e-mails.
pub(super) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    /// The time limit of an attempt.
    timeout: Duration,
    templates: Templates,
    from: Mailbox,
    /// The name of the answer with the address.
    to: String,
    is_html: bool,
    /// The part of message ids after `@`.
    id_domain: String,
    clock: Arc<dyn Clock>,
}

impl Email {
    /// Checks the settings and the templates. Connects to nothing.
    ///
    /// # Errors
    /// If the sender is not an address, a certificate is invalid, or a template has an error or an unknown name.
    pub(super) fn new(
        settings: &EmailSettings,
        config: &Config,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let named = &settings.named;
        let from: Mailbox = settings.from.parse().map_err(|_| {
            anyhow::anyhow!(
                "{named} from: {:?} is not an address, such as \"Shop <shop@example.com>\"",
                settings.from
            )
        })?;
        let templates = Templates::new(settings)?;
        let sample = sample_payload(&config.event_schema, &config.classes);
        templates.check(&sample).with_context(|| named.clone())?;
        let transport = transport(settings);
        Ok(Self {
            transport: transport.with_context(|| named.clone())?,
            timeout: settings.channel.timeout,
            templates,
            id_domain: format!("{}.{}", settings.channel.name, from.email.domain()),
            from,
            to: settings.to.clone(),
            is_html: settings.is_html,
            clock: Arc::clone(clock),
        })
    }

    /// The message for an action.
    fn message(&self, action: &DueAction) -> Result<Message, Rejection> {
        let malformed = |problem: String| {
            Rejection::new(MALFORMED_ADDRESS, format!("the answer {:?} {problem}", self.to))
        };
        let Some(to) = action.answer(&self.to) else {
            return Err(malformed("is missing".to_owned()));
        };
        // The address itself stays out of messages and logs.
        let to: Address =
            to.parse().map_err(|error| malformed(format!("is not an e-mail address: {error}")))?;
        // Many servers have no SMTPUTF8, so it would be tried again and again.
        if !to.to_string().is_ascii() {
            return Err(malformed("is not ASCII: a domain has its xn-- form".to_owned()));
        }
        let unrenderable = |error| Rejection::new(UNRENDERABLE, format!("{error:#}"));
        let [subject, body] = self.templates.render(&action.payload).map_err(unrenderable)?;
        let sent_at = Duration::from_millis(u64::try_from(self.clock.now().0).unwrap_or(0));
        let content = if self.is_html { ContentType::TEXT_HTML } else { ContentType::TEXT_PLAIN };
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        // Not taken from the header `To`, in which a quoted part may be read in another way.
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.clone()])
            .map_err(|error| malformed(format!("cannot be used: {error}")))?;
        Message::builder()
            .envelope(envelope)
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .message_id(Some(format!("<{}@{}>", action.action_id, self.id_domain)))
            .date(UNIX_EPOCH + sent_at)
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(content)
            .body(body)
            .map_err(|error| unrenderable(error.into()))
    }
}

impl Email {
    /// Makes an attempt, which ends at its time limit, also if the server sends its answers a byte at a time.
    fn transmit(&self, message: Message) -> Outcome {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Outcome::failed(format!("cannot start an attempt: {error}")),
        };
        let attempt = async { time::timeout(self.timeout, self.transport.send(message)).await };
        let sent = runtime.block_on(attempt);
        // Resolving a name cannot be ended: it goes on beside.
        runtime.shutdown_background();
        match sent {
            Ok(Ok(_)) => Outcome::Delivered,
            Ok(Err(error)) => outcome(&error),
            Err(_) => {
                let limit = self.timeout.as_secs_f64();
                Outcome::failed(format!("the server did not accept the message within {limit} s"))
            }
        }
    }
}

impl Sender for Email {
    fn send(&self, action: &DueAction) -> Outcome {
        let message = match self.message(action) {
            Ok(message) => message,
            Err(rejection) => return rejection.into(),
        };
        self.transmit(message)
    }

    fn preview(&self, action: &DueAction) -> String {
        match self.message(action) {
            Ok(message) => String::from_utf8_lossy(&message.formatted()).into_owned(),
            Err(Rejection { class, reason }) => format!("not sent, {class}: {reason}"),
        }
    }
}

/// What an error of the SMTP client means.
fn outcome(error: &smtp::Error) -> Outcome {
    let reason = chain(error);
    let is_about_credentials =
        error.status().is_some_and(|code| AUTHENTICATION_REPLIES.contains(&code.into()));
    if error.is_permanent() && !is_about_credentials {
        return Rejection::new(REFUSED, reason).into();
    }
    Outcome::failed(reason)
}

fn transport(settings: &EmailSettings) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
    let server = settings.read_server()?;
    let parameters = || -> anyhow::Result<TlsParameters> {
        let mut parameters = TlsParameters::builder(server.host.clone());
        if let Some(path) = &settings.ca_file {
            let pem = fs::read(path).with_context(|| format!("ca_file: {}", path.display()))?;
            let trusted = Certificate::from_pem(&pem)
                .with_context(|| format!("ca_file: {} is not PEM", path.display()))?;
            parameters = parameters.add_root_certificate(trusted);
        }
        Ok(parameters.build()?)
    };
    let tls = match settings.tls {
        SmtpTls::Starttls => Tls::Required(parameters()?),
        SmtpTls::Tls => Tls::Wrapper(parameters()?),
        SmtpTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
        .port(server.port)
        .tls(tls)
        .timeout(Some(settings.channel.timeout));
    if let Some((user, password)) = &server.credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

/// The two templates of an e-mail.
struct Templates {
    environment: Environment<'static>,
    body: &'static str,
}

impl Templates {
    fn new(settings: &EmailSettings) -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        // A missing answer is null: it is left out. A name that does not exist is an error.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(|out, state, value| match value.is_none() {
            true => Ok(()),
            false => escape_formatter(out, state, value),
        });
        // The ending selects whether values are escaped.
        let body = if settings.is_html { "body.html" } else { "body.txt" };
        for (name, key, text) in
            [(SUBJECT, "subject", &settings.subject), (body, "body", &settings.body)]
        {
            let added = environment.add_template_owned(name, text.clone());
            added.map_err(|error| {
                let line = error.line().unwrap_or(1);
                anyhow::anyhow!("{} {key}: line {line} of the template: {error}", settings.named)
            })?;
        }
        Ok(Self { environment, body })
    }

    /// Renders the subject and the body.
    fn render(&self, payload: &Json) -> anyhow::Result<[String; 2]> {
        let values = Value::from_serialize(payload);
        let render = |name: &str| self.environment.get_template(name)?.render(&values);
        let subject = render(SUBJECT).context("the subject")?;
        let body = render(self.body).context("the body")?;
        // A header is one line, of at most 998 bytes (RFC 5322, section 2.1.1).
        let subject = subject.split(char::is_control).collect::<Vec<_>>().join(" ");
        let subject = subject.chars().take(SUBJECT_MAX).collect();
        // A carriage return alone is not allowed in a message: some servers take it for the end of a line, and so a part of an
        // answer for the end of the message.
        let body = body.replace("\r\n", "\n").replace('\r', "\n");
        Ok([subject, body])
    }

    /// Checks the names in the templates, and renders them with made-up values. An error that may be due to the values is none here.
    fn check(&self, sample: &Json) -> anyhow::Result<()> {
        self.check_names(sample)?;
        match self.render(sample) {
            Ok(_) => Ok(()),
            Err(error) => {
                let cause = error.downcast_ref::<minijinja::Error>();
                let is_unknown = cause.is_some_and(|error| {
                    matches!(
                        error.kind(),
                        ErrorKind::UndefinedError
                            | ErrorKind::UnknownFilter
                            | ErrorKind::UnknownTest
                            | ErrorKind::UnknownFunction
                            | ErrorKind::UnknownMethod
                            | ErrorKind::TemplateNotFound
                    )
                });
                if is_unknown { Err(error) } else { Ok(()) }
            }
        }
    }
}

impl Templates {
    /// Checks that the members that the templates name exist, also in branches that the made-up values do not take.
    fn check_names(&self, sample: &Json) -> anyhow::Result<()> {
        for (key, name) in [(SUBJECT, SUBJECT), ("body", self.body)] {
            let template = self.environment.get_template(name)?;
            let names: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
            let globals: BTreeSet<&str> =
                self.environment.globals().map(|(name, _)| name).collect();
            for name in names {
                let mut parts = name.split('.');
                let is_global = parts.next().is_some_and(|first| globals.contains(first));
                let known = name.split('.').try_fold(sample, |value, part| value.get(part));
                if known.is_none() && !is_global {
                    anyhow::bail!(
                        "the {key}: undefined value: {name} is not a member of an action"
                    );
                }
            }
        }
        Ok(())
    }
}

/// The messages of an error and all its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}
