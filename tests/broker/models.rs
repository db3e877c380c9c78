//! `foretell models` and `foretell retrain` on a real broker, with the learner of a running instance: list, promote, roll
//! back, and the same bytes again.

use std::{fs, ops::ControlFlow};

use foretell::{app::cluster::Cluster, events::command::Command};
use serde_json::Value as Json;

use crate::{
    application::{Application, INITIAL},
    process::{SOON, at, until},
};

/// A command that has ended.
struct Ended {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Application {
    fn end(&self, arguments: &[&str]) -> Ended {
        let mut process = self.start(arguments);
        let code = process.end(SOON).code();
        Ended { code, output: process.output(), errors: process.errors() }
    }

    /// Runs a command that must succeed.
    fn succeed(&self, arguments: &[&str]) -> String {
        let ended = self.end(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}\n{}", ended.output, ended.errors);
        ended.output
    }

    fn json(&self, arguments: &[&str]) -> Json {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    /// The number of commands.
    fn commands(&self) -> usize {
        let config = self.config();
        let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
        let mut commands = 0;
        let read = cluster.read_values(&config, &config.topics.commands, |_: Command| {
            commands += 1;
            ControlFlow::Continue(())
        });
        read.unwrap();
        commands
    }

    fn champion(&self) -> String {
        let list = self.json(&["models", "list", "--json"]);
        at(&list, "/aliases/champion/version").as_str().unwrap().to_owned()
    }
}

/// Exports the champion, and imports its trees and its pipeline as another model.
fn export_and_import(application: &Application) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let champion = application.champion();
    application.succeed(&["models", "export", "--to", path]);
    let again = application.end(&["models", "export", "--to", path]);
    assert!(again.code == Some(1) && again.errors.contains("--force"), "{}", again.errors);
    fs::remove_file(folder.path().join("lineage.json")).unwrap();
    let challenger = application.succeed(&["models", "import", path, "--by", "ann"]);
    assert!(challenger.contains("challenger"), "{challenger}");
    let list = application.json(&["models", "list", "--json"]);
    assert_eq!(*at(&list, "/aliases/champion/version"), champion.as_str());
    assert_eq!(at(&list, "/aliases/challenger/version"), at(&list, "/models/0/version"));
    let imported = application.end(&["models", "reproduce", "challenger"]);
    assert!(
        imported.code == Some(1) && imported.errors.contains("imported"),
        "{}",
        imported.errors
    );
}

const SETTINGS: &[&str] = &[
    "broker.session_timeout=6s",
    "broker.transaction_timeout=5s",
    "learning.retrain_after=100000",
    "tuning.iterations_max=30",
    "topics.partitions=1",
];

/// Shows the first model, and returns its version.
fn first_model(application: &Application) -> String {
    let early = application.end(&["models", "list"]);
    assert_eq!(early.code, Some(1), "{}", early.errors);
    assert!(early.errors.contains("run `foretell init` first"), "{}", early.errors);
    application.init();
    let first = application.champion();
    let shown = application.succeed(&["models", "show"]);
    for words in ["★ model", &first, "initial_examples", "Feature importance", "█"] {
        assert!(shown.contains(words), "{words:?} in {shown}");
    }
    let details = application.json(&["models", "show", &first[..5], "--json"]);
    assert_eq!(*at(&details, "/lineage/initial_examples"), INITIAL);
    let again = application.succeed(&["models", "promote", "champion", "--reason", "x"]);
    assert!(again.contains("is the champion already"), "{again}");
    let unknown = application.end(&["models", "show", "zzz"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.errors.contains(&format!("there are {first}")), "{}", unknown.errors);
    let none = application.end(&["models", "rollback", "--reason", "x"]);
    assert!(none.errors.contains("no predecessor"), "{}", none.errors);
    // The first model is reproduced before anything else has happened.
    let identical = application.succeed(&["models", "reproduce"]);
    assert!(identical.starts_with(&format!("identical: model {first}, ")), "{identical}");
    first
}

/// Requests two trainings while no learner runs: the commands stay on their topic.
fn without_a_learner(application: &Application) {
    let late = application.end(&["retrain", "--reason", "to start with", "--wait", "1s"]);
    assert_eq!(late.code, Some(3), "{}", late.errors);
    assert!(late.errors.contains("foretell doctor"), "{}", late.errors);
    // Ctrl-C ends the wait, not the command.
    let mut waiting = application.start(&["retrain", "--reason", "again"]);
    until("the second command is written", SOON, || (application.commands() == 2).then_some(()));
    waiting.signal("INT");
    assert_eq!(waiting.end(SOON).code(), Some(3), "{}", waiting.errors());
    assert!(waiting.errors().contains("stopped waiting"), "{}", waiting.errors());
}

#[test]
fn models_are_retrained_promoted_rolled_back_and_reproduced_from_the_command_line() {
    let application = Application::new("models", SETTINGS);
    let first = first_model(&application);
    without_a_learner(&application);
    let mut instance = application.instance("one");
    let http = instance.http();
    http.ready();
    until("the trainings that were requested before the start have ended", SOON, || {
        let list = application.json(&["models", "list", "--json"]);
        list.pointer("/models/2").map(drop)
    });
    application.succeed(&["send", "--limit", "60", "--rate", "200", "--outcome-delay", "1s", "-q"]);
    let labelled = until("every outcome is joined", SOON, || {
        let topics = application.topics();
        let is_joined = topics.labelled.len() == topics.outcomes.len();
        (is_joined && !topics.outcomes.is_empty()).then_some(topics.labelled.len())
    });
    let decided = application.succeed(&["retrain", "--reason", "new prices", "--by", "ann"]);
    assert!(decided.contains("training-3") && decided.contains("ann"), "{decided}");
    let list = application.json(&["models", "list", "--json"]);
    let newest = at(&list, "/models/0/version").as_str().unwrap().to_owned();
    assert!(at(&list, "/models/0/trigger").as_str().unwrap().starts_with("request "), "{list}");
    let newest_details = application.json(&["models", "show", &newest, "--json"]);
    assert_eq!(*at(&newest_details, "/lineage/stream_examples"), labelled);
    let difference = application.succeed(&["models", "diff", &first, &newest]);
    assert!(
        difference.contains("stream_examples") && !difference.contains("Columns"),
        "{difference}"
    );
    let text = application.succeed(&["models", "list"]);
    assert_eq!(text.lines().count(), 5, "the head and four models: {text}");

    // Promote the model that is not the champion, and roll back.
    let champion = application.champion();
    let other = if champion == newest { &first } else { &newest };
    let promoted = application.succeed(&["models", "promote", other, "--reason", "by hand"]);
    assert!(promoted.contains("promoted") && promoted.contains(other.as_str()), "{promoted}");
    assert_eq!(application.champion(), *other);
    until("it serves", SOON, || (at(&http.status(), "/model/version") == other).then_some(()));
    let back = application.succeed(&["models", "rollback", "--reason", "worse"]);
    assert!(back.contains("rolled back"), "{back}");
    assert_eq!(application.champion(), champion);
    for version in [&first, &newest] {
        let identical = application.succeed(&["models", "reproduce", version]);
        assert!(identical.starts_with(&format!("identical: model {version}, ")), "{identical}");
    }
    export_and_import(&application);
    instance.signal("TERM");
    assert_eq!(instance.end(SOON).code(), Some(0), "{}", instance.errors());
}
