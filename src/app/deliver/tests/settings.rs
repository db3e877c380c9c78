//! Settings of channels that are refused, and what a template may do.

use std::{io::Write as _, net::TcpListener, time::Duration};

use crate::{
    app::{
        self,
        deliver::{
            self,
            action::{DueAction, tests::due_action},
            channel::Sender,
            tests::{Application, TOML, config},
        },
    },
    events::{action::Action, questionnaire::Answer as Given},
};
use foretell_streams::time::WallTime;

/// Expects that a configuration with these channels is refused with these words, and without a secret.
fn check(delivery: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let loaded = config(&folder, delivery);
    let clock = app::clock();
    let error = match loaded {
        Ok(config) => deliver::channels(&config, &clock).err().expect(delivery),
        Err(error) => error,
    };
    let error = format!("{error:#}");
    for words in expected {
        assert!(error.contains(words), "{words} in {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn invalid_channels_are_refused_with_their_line() {
    let line = TOML.lines().count() + 1;
    let at = |after: usize| format!("foretell.toml:{}: ", line + after);
    check("", &["there is no channel"]);
    let webhook = "[[delivery.webhooks]]\nname = 'a'\nurl = 'http://a/hunter2'\n";
    for (settings, key) in [
        ("retries = '1s'", "retries"),
        ("timeout = '0s'", "[[delivery.webhooks]] timeout: it must be at least 1 ms"),
        ("connections_max = 65", "[[delivery.webhooks]] connections_max: it is 65"),
        ("secret = ''", "[[delivery.webhooks]] secret: it is empty"),
        ("actions = []", "[[delivery.webhooks]] actions: it is empty"),
        (
            "actions = ['call', 'mial']",
            "[[delivery.webhooks]] actions: there is no rule \"mial\"; did you mean \"mail\"?",
        ),
        ("rate = { times = 0, per = '1s' }", "[[delivery.webhooks]] rate.times: it is 0"),
        ("rate = { times = 1, per = '0s' }", "[[delivery.webhooks]] rate.per"),
        (
            "quiet_hours = { from = '8pm', to = '08:00', zone = 'Z' }",
            "quiet_hours.from: \"8pm\" is not a time",
        ),
        (
            "quiet_hours = { from = '08:00', to = '08:00', zone = 'Z' }",
            "quiet_hours.to: it is `from`",
        ),
        (
            "quiet_hours = { from = '20:00', to = '08:00', zone = 'Vienna' }",
            "quiet_hours.zone: \"Vienna\"",
        ),
        ("ca_file = 'nowhere.pem'", "nowhere.pem"),
    ] {
        check(&format!("{webhook}{settings}\n"), &["foretell.toml:", key]);
    }
    let twice = format!("{webhook}{webhook}");
    check(&twice, &[&at(4), "[[delivery.webhooks]] name: another channel has the name \"a\""]);
    check(&webhook.replace("http:", "ftp:"), &[&at(2), "[[delivery.webhooks]] url: it must begin"]);
}

#[test]
fn invalid_emails_are_refused_with_their_line() {
    let email = "[[delivery.emails]]\nname = 'm'\nsmtp = 'smtp://u:hunter2@m'\nfrom = 'a@b.example'\nto = 'email'\n\
                 subject = 's'\nbody = 'b'\n";
    for (from, to, expected) in [
        ("to = 'email'", "to = 'mail'", "to: the event schema has no answer \"mail\""),
        ("to = 'email'", "to = 'emails'", "did you mean \"email\"?"),
        ("to = 'email'", "to = 'age'", "to: the answer \"age\" is not a text"),
        (
            "smtp = 'smtp://u:hunter2@m'",
            "smtp = { file = 'none' }",
            "[[delivery.emails]] smtp: cannot read",
        ),
        ("smtp://u:", "smtps://u:", "[[delivery.emails]] smtp: write it as smtp://"),
        ("a@b.example", "nobody", "from: \"nobody\" is not an address"),
        ("'b'\n", "'{{ answers.nothing }}'\n", "body"),
        ("'s'", "'{{ nothing }}'", "subject"),
        // In a branch that made-up values do not take.
        (
            "'b'",
            "'{% if label == \"never\" %}{{ answers.emails }}{% endif %}'",
            "answers.emails is not",
        ),
        ("'s'", "'{{ label or probability }}'", "the subject: undefined value: probability is not"),
        ("'s'", "'{% if %}'", "subject: line 1 of the template"),
        ("'s'", "'{{ label|nothing }}'", "subject"),
    ] {
        check(&email.replace(from, to), &["foretell.toml:", expected]);
    }
}

#[test]
fn emails_cannot_have_more_headers_or_elements_than_their_templates() {
    let email = |more: &str| {
        let channel = "[[delivery.emails]]\nname = 'letter'\nsmtp = 'smtp://nowhere'\nfrom = 'Shop <shop@example.com>'\nto = 'email'\n";
        let application = Application::new(&format!("{channel}{more}"));
        let sender = deliver::channels(&application.config, &application.clock).unwrap().remove(0);
        (application, sender.sender)
    };
    let shown = |(application, sender): &(Application, Box<dyn Sender>),
                 name: &str,
                 answers: [Option<Given>; 2]| {
        let answers = application.config.event_schema.layout().row_of(&answers);
        let action = Action { answers, ..application.action("a1", name) };
        let record = due_action("a1", name, "call", WallTime(0)).record.clone();
        sender.preview(&DueAction::new(action, record, &application.config.event_schema))
    };
    let to = |address: &str| Some(Given::Text(address.to_owned()));
    let template = "subject = 'To {{ respondent_id }}'\nbody = '{{ respondent_id }}, you are [{{ answers.age }}]'\n";
    let text = email(template);
    let message = shown(&text, "<b>\r\nBcc: all@example.com", [None, to("ann@example.com")]);
    assert!(message.contains("Subject: To <b>  Bcc: all@example.com\r\n"), "{message}");
    assert!(message.contains("you are []"), "a missing answer is left out: {message}");
    for header in [
        "From: Shop <shop@example.com>\r\n",
        "To: ann@example.com\r\n",
        "Message-ID: <a1@letter.example.com>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "Content-Type: text/plain; charset=utf-8\r\n",
    ] {
        assert_eq!(message.matches(header).count(), 1, "{header} in {message}");
    }
    let head = message.split("\r\n\r\n").next().unwrap();
    assert!(!head.contains("\nBcc"), "{head}");
    for address in
        ["ann@example.com\r\nBcc: b@example.com", "a@b.example, c@d.example", "ann", "", "ann@"]
    {
        let message = shown(&text, "ann", [None, to(address)]);
        assert!(message.starts_with("not sent, malformed_address: "), "{address:?}: {message}");
        assert!(!message.contains("ann@"), "{message}");
    }
    let message = shown(&text, "ann", [None, None]);
    assert!(message.contains("\"email\" is missing"), "{message}");

    let html = email(&format!("{template}html = true\n"));
    let message = shown(&html, "<script>", [Some(Given::Number(30.0)), to("ann@example.com")]);
    assert!(message.contains("&lt;script&gt;, you are [30]"), "{message}");
    assert!(message.contains("Content-Type: text/html; charset=utf-8\r\n"), "{message}");

    // The values of an action may have no result, although those of the check at the start have.
    let division = "subject = 's'\nbody = '{{ 1 // answers.age|int }}'\n";
    let message = shown(&email(division), "ann", [Some(Given::Number(0.0)), to("a@b.example")]);
    assert!(message.starts_with("not sent, unrenderable_email: the body"), "{message}");
}

#[test]
fn settings_that_lose_actions_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let warnings = |more: &str| {
        let all = config(&folder, more).unwrap().warnings();
        let of_actions = |warning: &String| !warning.starts_with("[scoring]");
        all.into_iter().filter(of_actions).collect::<Vec<_>>()
    };
    let webhook = |expires: &str| {
        format!(
            "[[delivery.webhooks]]\nname = 'crm'\nurl = 'http://a'\nexpires = '{expires}'\n\
             quiet_hours = {{ from = '20:00', to = '08:00', zone = 'Z' }}\n"
        )
    };
    let [warning] = &warnings(&webhook("12h"))[..] else { panic!("no warning") };
    assert!(warning.contains("\"crm\": quiet_hours take 12h, and expires is 12h"), "{warning}");
    assert_eq!(warnings(&webhook("12h 1s")), [""; 0]);
    let rule =
        |after: &str| format!("[[actions]]\nname = 'slow'\nwhen = 'true'\nafter = {after}\n");
    for after in ["'1000h'", "{ wall = '1000h' }"] {
        let found = warnings(&rule(after));
        let is_slow = |warning: &String| warning.contains("\"slow\" after is 1month");
        assert!(found.iter().any(is_slow), "{after}: {found:?}");
    }
    assert_eq!(warnings(&rule("'1s'")), [""; 0]);
}

#[test]
fn a_configuration_loads_without_the_secrets_of_its_channels() {
    let folder = tempfile::tempdir().unwrap();
    let channels = "[[delivery.webhooks]]\nname = 'crm'\nurl = { file = 'url' }\nsecret = { file = 'key' }\n\
                    headers = { A = { file = 'a' } }\n[[delivery.emails]]\nname = 'm'\nsmtp = { file = 'smtp' }\n\
                    from = 'a@b.example'\nto = 'email'\nsubject = 's'\nbody = 'b'\n";
    let config = config(&folder, channels).unwrap();
    let refused = || {
        let error = deliver::channels(&config, &app::clock()).err();
        error.map(|error| format!("{error:#}"))
    };
    let contents = [
        ("url", "https://a/hunter2", "[[delivery.webhooks]] url: cannot read"),
        ("a", "hunter2", "[[delivery.webhooks]] headers.A: cannot read"),
        ("key", "hunter2", "[[delivery.webhooks]] secret: cannot read"),
        ("smtp", "smtp://u:hunter2@m", "[[delivery.emails]] smtp: cannot read"),
    ];
    for (file, content, words) in contents {
        let error = refused().expect(words);
        assert!(error.contains("foretell.toml:") && error.contains(words), "{error}");
        std::fs::write(folder.path().join(file), format!("{content}\n")).unwrap();
    }
    assert_eq!(refused(), None);
    std::fs::write(folder.path().join("url"), "ftp://hunter2").unwrap();
    let error = refused().unwrap();
    assert!(error.contains("url: it must begin with") && !error.contains("hunter2"), "{error}");
}

/// A server that answers a byte at a time never ends its answer.
#[test]
fn an_attempt_with_a_mail_server_ends_at_its_time_limit() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        // Until the client closes the connection.
        while client.write_all(b"2").is_ok() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let channel = format!(
        "[[delivery.emails]]\nname = 'm'\nsmtp = 'smtp://127.0.0.1:{port}'\ntls = 'none'\ntimeout = '200ms'\n\
         from = 'a@b.example'\nto = 'email'\nsubject = 's'\nbody = 'b'\n"
    );
    let config = config(&folder, &channel).unwrap();
    let sender = deliver::channels(&config, &app::clock()).unwrap().remove(0).sender;
    let outcome = sender.send(&due_action("a1", "ann", "call", WallTime(0)));
    let reason = outcome.reason().expect("it is not delivered").to_owned();
    assert!(reason.contains("within 0.2 s"), "{reason}");
    answers.join().unwrap();
}
