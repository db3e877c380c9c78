//! Topics that somebody deletes while an instance uses them: it ends, says which and what to do, and doing that helps.

use foretell_streams::record::Topic;
use serde_json::json;

use crate::{
    application::Application,
    operator::Operator,
    process::SOON,
    stores::{ready, send},
};

const QUICK: &[&str] = &["broker.session_timeout=6s", "broker.transaction_timeout=5s"];

/// Deletes the topic under way, and makes it again as is said.
fn check(application: &Application, topic: &Topic, what_to_do: &str) {
    let (mut process, http) = ready(application);
    send(application, 20, "1");
    Operator::new().delete(topic);
    // Something to read, to write and to remember, if it is still taken.
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
    assert_eq!(application.topics().dead_letters, 0, "nothing is to blame but the topic");
}

/// Somebody adds partitions to inputs: it ends, names them and says what to do, before a task without its other inputs
/// holds all up.
#[test]
fn partitions_that_are_added_end_the_instance() {
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
    // The two may be on two sides of one look.
    let grown = [(&topics.questionnaire_events, 6), (&topics.outcomes, 5)];
    let named = |(topic, has): (&Topic, u32)| {
        last.contains(&format!("topic {topic} has {has} partitions, it had 4 at the start"))
    };
    assert!(grown.into_iter().any(named) && last.contains("`foretell init`"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn an_input_that_is_deleted_ends_the_instance() {
    let application = Application::new("deleted-input", QUICK);
    application.init();
    let topics = application.config().topics;
    check(&application, &topics.questionnaire_events, "`foretell init`, and start again");
    check(&application, &topics.outcomes, "`foretell init`, and start again");
}

#[test]
fn an_output_that_is_deleted_ends_the_instance() {
    let application = Application::new("deleted-output", QUICK);
    application.init();
    let topics = application.config().topics;
    check(&application, &topics.predictions, "`foretell init`, and start again");
}

#[test]
fn a_changelog_that_is_deleted_ends_the_instance() {
    let application = Application::new("deleted-changelog", QUICK);
    application.init();
    let changelog = format!("{}-scoring-outcomes-changelog", application.config().application());
    check(&application, &Topic::new(&changelog), "the content of its store is lost");
}
