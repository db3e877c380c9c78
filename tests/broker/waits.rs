//! HTTP requests that wait for predictions, on a real Kafka: one consumer reads the replies for all of them.

use serde_json::json;

use crate::{
    application::Application,
    process::{SOON, at, waits},
};

#[test]
fn a_thousand_waits_share_one_consumer() {
    let application = Application::new("waits", &waits::SETTINGS);
    application.init();
    let mut instance = application.instance("one");
    let http = instance.http();
    http.ready();
    let idle = instance.resources();
    let first_piece = json!({"respondent_id": "slow", "event_id": "e1", "age": 30}).to_string();
    let wait = "/api/v1/events?wait=true&timeout_ms=60000";
    let (code, answer) = http.post(wait, &first_piece, None).unwrap();
    assert_eq!(code, 202, "{answer}");
    assert!(at(&answer, "/missing").is_array(), "{answer}");
    let last_piece =
        json!({"respondent_id": "slow", "event_id": "e2", "completed": true}).to_string();
    let (code, first) = http.post(wait, &last_piece, None).unwrap();
    assert_eq!((code, at(&first, "/features/age")), (200, &json!(30)), "{first}");
    assert_eq!(http.post(wait, &last_piece, None).unwrap(), (200, first), "a repeated event");
    waits::check(&instance, &http, idle);
    instance.signal("TERM");
    assert_eq!(instance.end(SOON).code(), Some(0), "{}", instance.errors());
}
