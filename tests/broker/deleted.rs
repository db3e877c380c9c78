//! Topics that an operator deletes or grows while an instance uses them: the instance ends with an error that names the
//! topic and what to do, and works again once that is done.

use foretell_streams::record::Topic;
use serde_json::json;

use crate::{
    application::Application,
    operator::Operator,
    process::SOON,
    stores::{ready, send},
};

const QUICK: &[&str] = &["broker.session_timeout=6s", "broker.transaction_timeout=5s"];

/// Deletes `topic` while an instance runs, checks the error, and follows its advice.
fn check(application: &Application, topic: &Topic, what_to_do: &str) {
    let (mut process, http) = ready(application);
    send(application, 20, "1");
    Operator::new().delete(topic);
    // Gives the instance input, so that it reads, writes and stores; the requests may fail once it has ended.
    for number in 0..20 {
        let event =
            json!({"respondent_id": format!("late-{number}"), "completed": true, "age": 39});
        http.post("/api/v1/events", &event.to_string(), None);
    }
    assert_eq!(process.end(SOON).code(), Some(1), "{}", process.errors());
    let errors = process.errors();
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("error: topic {topic} was deleted")), "{errors}");
    assert!(last.contains(what_to_do) && !errors.contains("panicked"), "{errors}");

    application.start(&["init"]).succeed(SOON);
    let (mut process, _) = ready(application);
    send(application, 20, "2");
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    assert_eq!(application.topics().dead_letters, 0, "no record was at fault");
}

/// The instance ends and names the topics before a task whose co-partitioned input lacks a partition blocks the stream.
#[test]
fn adding_partitions_ends_the_instance() {
    let application = Application::new("grown", QUICK);
    application.init();
    let topics = application.config().topics;
    let (mut process, _) = ready(&application);
    send(&application, 20, "1");
    let operator = Operator::new();
    operator.add_partitions(&topics.questionnaire_events, 6);
    operator.add_partitions(&topics.outcomes, 5);
    assert_eq!(process.end(SOON).code(), Some(1), "{}", process.errors());
    let errors = process.errors();
    let last = errors.lines().last().unwrap_or_default();
    // The topic monitor may have run between the two changes, so one of the topics may be unnamed.
    let grown = [(&topics.questionnaire_events, 6), (&topics.outcomes, 5)];
    let named = |(topic, has): (&Topic, u32)| {
        last.contains(&format!("topic {topic} has {has} partitions, it had 4 at the start"))
    };
    assert!(grown.into_iter().any(named) && last.contains("`foretell init`"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn deleting_an_input_ends_the_instance() {
    let application = Application::new("deleted-input", QUICK);
    application.init();
    let topics = application.config().topics;
    check(&application, &topics.questionnaire_events, "`foretell init`, and start again");
    check(&application, &topics.outcomes, "`foretell init`, and start again");
}

#[test]
fn deleting_an_output_ends_the_instance() {
    let application = Application::new("deleted-output", QUICK);
    application.init();
    let topics = application.config().topics;
    check(&application, &topics.predictions, "`foretell init`, and start again");
}

#[test]
fn deleting_a_changelog_ends_the_instance() {
    let application = Application::new("deleted-changelog", QUICK);
    application.init();
    let changelog = format!("{}-scoring-outcomes-changelog", application.config().application());
    check(&application, &Topic::new(&changelog), "the content of its store is lost");
}
