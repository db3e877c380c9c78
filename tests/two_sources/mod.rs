//! The worked example with its answers on two topics: some are on the one of a registration service, with a schema of its own.

use std::{fs, path::Path};

use serde_json::{Value as Json, json};

use crate::process::example;

/// The topic of the registrations, without the prefix.
pub(crate) const REGISTRATIONS: &str = "registrations";
/// The answers that only a registration has. `workclass` is in both.
pub(crate) const OF_REGISTRATIONS: [&str; 4] = ["age", "race", "gender", "native_country"];
const SHARED: &str = "workclass";

/// Writes `questionnaire.avsc`, `registration.avsc` and `foretell.toml` into a folder. Returns the path of the last.
pub(crate) fn write_to(folder: &Path) -> String {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    write("questionnaire.avsc", &questionnaire().to_string());
    write("registration.avsc", &registration().to_string());
    let text = fs::read_to_string(example()).unwrap();
    let data = Path::new(example()).parent().unwrap().display().to_string();
    let text = text
        .replace("../../schemas/questionnaire-event/v1.avsc", "questionnaire.avsc")
        .replace("path = \"adult", &format!("path = \"{data}/adult"));
    write("foretell.toml", &format!("{text}\n{COMPANION}"))
}

/// As a user adds it to the configuration.
pub(crate) const COMPANION: &str = r#"
[[events.companions]]
topic = "registrations"
schema = "registration.avsc"
event_id = "registration"
event_time = "registered_at"
ignored = ["tags"]
"#;

fn fields() -> Vec<Json> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/questionnaire-event/v1.avsc");
    let schema: Json = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    schema["fields"].as_array().unwrap().clone()
}

fn is_in(field: &Json, names: &[&str]) -> bool {
    names.iter().any(|name| field["name"] == **name)
}

fn questionnaire() -> Json {
    let mut fields = fields();
    fields.retain(|field| !is_in(field, &OF_REGISTRATIONS));
    json!({"type": "record", "name": "Questionnaire", "fields": fields})
}

/// Its metadata has other names, types and an order of its own; it has no completed flag.
fn registration() -> Json {
    let mut own = fields();
    own.retain(|field| is_in(field, &OF_REGISTRATIONS) || is_in(field, &[SHARED]));
    let metadata = [
        json!({"name": "registered_at", "type": {"type": "long", "logicalType": "timestamp-micros"}}),
        json!({"name": "respondent_id", "type": "string"}),
        json!({"name": "registration", "type": "long"}),
        json!({"name": "tags", "type": {"type": "array", "items": "string"}, "default": []}),
    ];
    own.extend(metadata);
    json!({"type": "record", "name": "Registration", "fields": own})
}
