//! `foretell deliver` on a real Kafka, to a real HTTP receiver and a real SMTP server that go away and come back, while the
//! process is killed in a loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    process::{Command, Stdio},
};

use foretell::{
    app::cluster::Cluster,
    config::Config,
    events::{
        action::{Action, ActionReasons, ActionState},
        answered::ClassProbability,
        questionnaire::Answer as Given,
    },
};
use foretell_streams::{
    record::OutputRecord,
    time::{Clock, EventTime, SystemClock},
};
use serde_json::Value as Json;

use crate::{
    application::{Application, secure},
    process::{Process, SOON, tool, until},
    receiver::{Answer, Receiver},
};

const SETUP: &str = ".ci/setup broker";
/// The bound of the records of a partition that a killed process repeats.
const IN_FLIGHT_MAX: usize = 20;
const SECRET: &str = "hunter2";

/// Writes actions to the topic of an application.
struct Actions {
    config: Config,
    cluster: Cluster,
}

impl Actions {
    fn of(application: &Application) -> Self {
        let config = application.config();
        let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
        Self { config, cluster }
    }

    /// Writes actions, each with an id, a respondent and an e-mail address.
    fn write<'a>(
        &self,
        actions: impl IntoIterator<Item = (&'a str, &'a str, &'a str, ActionState)>,
    ) {
        let topic = &self.config.topics.actions;
        let codec = self.cluster.codec::<Action>(&self.config, topic).unwrap();
        let mut publisher = self.cluster.broker.publish().unwrap();
        for (action_id, respondent_id, address, state) in actions {
            let action = self.action(action_id, respondent_id, address, state);
            let mut bytes = Vec::new();
            codec.encode(&action, &mut bytes).unwrap();
            let key = respondent_id.as_bytes();
            publisher.send(OutputRecord::new(topic, Some(key), Some(&bytes), action.due)).unwrap();
        }
        publisher.flush().unwrap();
    }

    fn action(&self, id: &str, respondent: &str, address: &str, state: ActionState) -> Action {
        let now = SystemClock::new().now();
        let probabilities = self.config.classes.iter();
        let probabilities = probabilities.map(|label| ClassProbability { label, probability: 0.5 });
        let questions = self.config.event_schema.questions().iter();
        let answers: Vec<Option<Given>> = questions
            .map(|question| {
                (question.name == "occupation").then(|| Given::Text(address.to_owned()))
            })
            .collect();
        Action {
            action_id: id.to_owned(),
            state,
            respondent_id: respondent.to_owned(),
            prediction_id: format!("p-{id}"),
            rule: "offer-call".to_owned(),
            rule_version: "0123456789ab".to_owned(),
            reason: "label == \">50K\"".to_owned(),
            due: EventTime(now.0),
            event_time: EventTime(now.0),
            decided_at: now,
            model_version: "m1".to_owned(),
            label: ">50K".to_owned(),
            probabilities: probabilities.collect(),
            propensity: 1.0,
            reasons: ActionReasons::default(),
            answers: self.config.event_schema.layout().row_of(&answers),
        }
    }

    /// The number of dead letters of each class.
    fn dead_letters(&self) -> BTreeMap<String, usize> {
        let mut classes = BTreeMap::new();
        let read = self.cluster.read_to_end(&self.config.topics.dead_letters, |record| {
            let class = record.headers.iter().find(|header| header.name == "foretell.error.class");
            let class = String::from_utf8(class.unwrap().value.clone()).unwrap();
            *classes.entry(class).or_default() += 1;
            Ok(ControlFlow::Continue(()))
        });
        read.unwrap();
        classes
    }
}

/// aiosmtpd in a process of its own, always on the same port.
struct MailServer {
    port: u16,
    process: Option<Process>,
    /// The messages of earlier processes.
    earlier: String,
}

impl MailServer {
    fn start() -> Self {
        let mut server = Self { port: 0, process: None, earlier: String::new() };
        server.come_back();
        server
    }

    fn come_back(&mut self) {
        let script = format!("{}/tests/broker/clients/smtp_server.py", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(tool("python3", SETUP));
        let files = ["broker.pem", "broker.key"].map(secure);
        command.arg(script).arg(self.port.to_string()).args(["shop", SECRET]).args(files);
        let process = Process::spawn("smtp_server.py".to_owned(), {
            command.stdin(Stdio::null());
            command
        });
        let first = until("the SMTP server listens", SOON, || {
            process.output().lines().next().map(str::to_owned)
        });
        let first: Json = serde_json::from_str(&first).unwrap();
        self.port = u16::try_from(first["port"].as_u64().unwrap()).unwrap();
        self.process = Some(process);
    }

    fn go_away(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("KILL");
            process.end(SOON);
            self.earlier += &process.output();
        }
    }

    /// The accepted messages.
    fn messages(&self) -> Vec<Json> {
        let present = self.process.as_ref().map(Process::output).unwrap_or_default();
        let lines = self.earlier.lines().chain(present.lines());
        let lines = lines.map(|line| serde_json::from_str::<Json>(line).unwrap());
        lines.filter(|line| line["id"].is_string()).collect()
    }

    fn ids(&self) -> Vec<String> {
        let messages = self.messages();
        messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The settings of a channel to it.
    fn channel(&self, more: &str) -> String {
        let (port, ca_file) = (self.port, secure("ca.pem").display().to_string());
        format!(
            "delivery.emails=[{{ name = \"mail\", smtp = \"smtp://shop:{SECRET}@localhost:{port}\", ca_file = \"{ca_file}\", \
             from = \"Shop <shop@example.com>\", to = \"occupation\", subject = \"An offer for {{{{ respondent_id }}}}\", \
             body = \"Dear {{{{ respondent_id }}}}, {{{{ (probabilities['>50K'] * 100)|round|int }}}} %\", {more} }}]"
        )
    }
}

fn application(name: &str, settings: &[String]) -> Application {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let bind = ["delivery.bind=127.0.0.1:0", "application.instance=one"];
    let application = Application::new(name, &[&bind[..], &settings].concat());
    application.init();
    application
}

/// Writes an action for each of 40 respondents, and two that are not to be done. Returns the ids of those that are.
fn write_round(actions: &Actions, round: usize) -> Vec<String> {
    const RESPONDENTS: usize = 40;
    let ids: Vec<_> = (0..RESPONDENTS).map(|number| format!("a{round}-{number}")).collect();
    let names: Vec<_> = (0..RESPONDENTS).map(|number| format!("r{number}")).collect();
    let addresses: Vec<_> = names.iter().map(|name| format!("{name}@example.com")).collect();
    let records = ids.iter().zip(&names).zip(&addresses);
    let records = records.map(|((id, name), address)| {
        (id.as_str(), name.as_str(), address.as_str(), ActionState::Requested)
    });
    actions.write(records);
    let not_due = [("c1", ActionState::Cancelled), ("h1", ActionState::HeldOut)];
    actions.write(not_due.map(|(id, state)| (id, "r1", "r1@example.com", state)));
    ids
}

/// Delivers some of `expected` actions in all, while the receiver is away at first if `is_receiver_away`, else the mail server;
/// then kills the process.
fn deliver_and_kill(
    application: &Application,
    receiver: &mut Receiver,
    mail: &mut MailServer,
    is_receiver_away: bool,
    expected: usize,
) {
    if is_receiver_away {
        receiver.go_away()
    } else {
        mail.go_away()
    }
    let before = (receiver.accepted().len(), mail.ids().len());
    let process = application.start(&["deliver"]);
    let has_progress = || {
        let after = (receiver.accepted().len(), mail.ids().len());
        if is_receiver_away { after.1 > before.1 } else { after.0 > before.0 }
    };
    until("the other channel delivers", SOON, || has_progress().then_some(()));
    if is_receiver_away {
        receiver.come_back()
    } else {
        mail.come_back()
    }
    let goal = (receiver.accepted().len() + 5, mail.ids().len() + 5);
    until("both deliver", SOON, || {
        let (hooks, mails) = (receiver.accepted().len(), mail.ids().len());
        (hooks >= goal.0.min(expected) && mails >= goal.1.min(expected)).then_some(())
    });
    // kill -9.
    drop(process);
}

#[test]
fn every_action_arrives_once_by_its_key_while_the_process_is_killed() {
    const ROUNDS: usize = 6;
    let (mut receiver, mut mail) = (Receiver::start(), MailServer::start());
    let webhook = format!(
        "delivery.webhooks=[{{ name = \"crm\", url = \"{}\", secret = \"{SECRET}\", timeout = \"2s\" }}]",
        receiver.url()
    );
    let bound = format!("delivery.in_flight_max={IN_FLIGHT_MAX}");
    let application =
        application("deliver", &[webhook, mail.channel("connections_max = 8"), bound]);
    let actions = Actions::of(&application);
    let mut expected = BTreeSet::new();
    for round in 0..ROUNDS {
        expected.extend(write_round(&actions, round));
        let is_receiver_away = round % 2 == 0;
        let number = expected.len();
        deliver_and_kill(&application, &mut receiver, &mut mail, is_receiver_away, number);
    }
    let mut process = application.start(&["deliver"]);
    let http = process.http();
    http.ready();
    let unique = |ids: Vec<String>| ids.into_iter().collect::<BTreeSet<_>>();
    let of_mail = |id: &String| id.trim_start_matches('<').split('@').next().unwrap().to_owned();
    let mailed = |mail: &MailServer| mail.ids().iter().map(of_mail).collect::<BTreeSet<_>>();
    until("everything is delivered", SOON, || {
        (unique(receiver.accepted()) == expected && mailed(&mail) == expected).then_some(())
    });
    until("nothing is open", SOON, || {
        (http.metric("foretell_deliveries_open") < 1.0).then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    let partitions = usize::try_from(actions.config.partitions).unwrap();
    let bound = expected.len() + ROUNDS * IN_FLIGHT_MAX * partitions;
    for (channel, number) in [("webhook", receiver.accepted().len()), ("e-mail", mail.ids().len())]
    {
        assert!(number <= bound, "{channel}: {number} of {} actions", expected.len());
    }
    check_order(&receiver.accepted());
    assert!(actions.dead_letters().is_empty(), "{:?}", actions.dead_letters());
    // A further start has nothing to deliver.
    let (hooks, mails) = (receiver.received().len(), mail.ids().len());
    let mut process = application.start(&["deliver"]);
    process.http().ready();
    actions.write([("last", "r1", "r1@example.com", ActionState::Requested)]);
    until("the last is delivered", SOON, || {
        (receiver.received().len() > hooks && mail.ids().len() > mails).then_some(())
    });
    assert_eq!((receiver.received().len(), mail.ids().len()), (hooks + 1, mails + 1));
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}

/// Checks that the first deliveries of the actions of each respondent are in the order of the topic.
fn check_order(accepted: &[String]) {
    let mut rounds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in accepted {
        let (round, respondent) = id.split_once('-').unwrap();
        let of_respondent = rounds.entry(respondent).or_default();
        if !of_respondent.contains(&round) {
            of_respondent.push(round);
        }
    }
    for (respondent, rounds) in rounds {
        assert!(rounds.is_sorted(), "{respondent}: {rounds:?}");
    }
}

#[test]
fn every_reply_of_a_mail_server_has_its_result() {
    let mut mail = MailServer::start();
    let application = application("mail", &[mail.channel("html = true")]);
    let actions = Actions::of(&application);
    let requested = |id, respondent, address| (id, respondent, address, ActionState::Requested);
    actions.write([
        requested("good", "<b>&ann", "ann@example.com"),
        requested("refused", "bob", "refused@example.com"),
        requested("busy", "carol", "busy@example.com"),
        requested("injected", "dave", "dave@example.com\r\nBcc: all@example.com"),
        requested("none", "eve", "no address"),
    ]);
    let mut process = application.start(&["deliver"]);
    process.http().ready();
    until("the good one and the busy one are delivered", SOON, || {
        (mail.ids().len() == 2).then_some(())
    });
    let expected = [("malformed_address".to_owned(), 2), ("refused_delivery".to_owned(), 1)];
    until("the others are dead letters", SOON, || {
        (actions.dead_letters() == expected.clone().into()).then_some(())
    });
    let messages = mail.messages();
    let good = messages.iter().find(|message| message["to"][0] == "ann@example.com").unwrap();
    assert_eq!(good["id"], "<good@mail.example.com>");
    assert_eq!(good["subject"], "An offer for <b>&ann");
    assert_eq!(good["body"].as_str().unwrap().trim_end(), "Dear &lt;b&gt;&amp;ann, 50 %");
    assert_eq!((&good["type"], &good["tls"]), (&"text/html".into(), &true.into()));
    let busy = messages.iter().find(|message| message["to"][0] == "busy@example.com");
    assert!(busy.is_some(), "{messages:?}");
    // A password that was changed is no reason to drop what is due.
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    let wrong = mail.channel("").replace(SECRET, "wrong");
    let mut process = application.with(&[wrong]).start(&["deliver"]);
    let http = process.http();
    actions.write([requested("later", "fred", "fred@example.com")]);
    until("the login failed", SOON, || {
        (http.metric("foretell_delivery_seconds_count") > 0.0).then_some(())
    });
    drop(process);
    let mut process = application.start(&["deliver"]);
    process.http();
    until("it is delivered", SOON, || {
        mail.ids().contains(&"<later@mail.example.com>".to_owned()).then_some(())
    });
    assert_eq!(actions.dead_letters(), expected.into());
    mail.go_away();
}

#[test]
fn the_documented_check_of_a_signature_works() {
    let receiver = Receiver::start();
    receiver.answer_all(Answer::Status(202));
    let webhook = format!(
        "delivery.webhooks=[{{ name = \"crm\", url = \"{}\", secret = \"{SECRET}\" }}]",
        receiver.url()
    );
    let application = application("signed", &[webhook]);
    let actions = Actions::of(&application);
    actions.write([("a1", "r\u{e4}1", "x", ActionState::Requested)]);
    let process = application.start(&["deliver"]);
    let request = until("it is delivered", SOON, || receiver.received().pop());
    drop(process);
    let page = include_str!("../../docs/delivery.md");
    let (_, snippet) = page.split_once("```python\n").unwrap();
    let (snippet, _) = snippet.split_once("```").unwrap();
    let header = &request.headers["foretell-signature"];
    let check = |secret: &str, header: &str, body: &str| {
        let code = format!(
            "import sys, time\n{snippet}\nprint(is_genuine(*[part.encode() for part in sys.argv[1:]]))"
        );
        let mut command = Command::new(tool("python3", SETUP));
        command.args(["-c", &code, secret, header, body]);
        Process::spawn("the documented snippet".to_owned(), command).succeed(SOON)
    };
    assert_eq!(check(SECRET, header, &request.body), "True\n");
    assert_eq!(check("other", header, &request.body), "False\n");
    assert_eq!(check(SECRET, header, &request.body.replace("a1", "a2")), "False\n");
    // An old request that is sent again.
    let (time, rest) = header.split_once(',').unwrap();
    let seconds: i64 = time.trim_start_matches("t=").parse().unwrap();
    let old = format!("t={},{rest}", seconds - 301);
    assert_eq!(check(SECRET, &old, &request.body), "False\n");
}
