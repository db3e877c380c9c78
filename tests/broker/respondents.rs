//! Questions about respondents over HTTP, on a real Kafka: every instance answers about all of them.

use serde_json::{Value as Json, json};

use crate::{
    application::Application,
    end_to_end::{QUICK, scoring_partitions},
    process::{Http, SOON, until},
};

#[test]
fn any_instance_answers_about_a_respondent_of_any_partition() {
    let application = Application::new("respondents", QUICK);
    application.init();
    let mut one = application.instance("one");
    one.http().ready();
    let mut two = application.instance("two");
    let (of_one, of_two) = (one.http(), two.http());
    of_two.ready();
    until("each instance has tasks", SOON, || {
        let tasks = [&of_one, &of_two].map(scoring_partitions);
        tasks.iter().all(|tasks| !tasks.is_empty()).then_some(())
    });
    let ids: Vec<String> = (0..12).map(|number| format!("r{number}")).collect();
    for id in &ids {
        let event = json!({"respondent_id": id, "event_id": format!("e-{id}"), "age": 30, "completed": true});
        let wait = "/api/v1/events?wait=true&timeout_ms=60000";
        let (code, answer) = of_one.post(wait, &event.to_string(), None).unwrap();
        assert_eq!(code, 200, "{answer}");
    }
    let look_up = |http: &Http, id: &str| -> Json {
        let path = format!("/api/v1/respondents/{id}?timeout_ms=60000");
        let (code, body) = http.get(&path).unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let about = |http: &Http| -> Vec<Json> {
        ids.iter().map(|id| look_up(http, id)["predictions"].clone()).collect()
    };
    let known = about(&of_one);
    assert!(known.iter().all(|predictions| predictions[0]["state"] == "waiting"), "{known:?}");
    assert_eq!(about(&of_two), known, "asked on the other instance");
    // The tasks of a killed instance move, with their stores.
    one.signal("KILL");
    assert_eq!(about(&of_two), known);
    two.signal("TERM");
    assert_eq!(two.end(SOON).code(), Some(0), "{}", two.errors());
}
