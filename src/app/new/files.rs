//! The files of an application: the event schema, the configuration and the README.

use serde_json::{Value, json};

use crate::app::new::{
    decide::{COMPLETED, EVENT_ID, EVENT_TIME, RESPONDENT_ID},
    labels::Class,
    names,
    plan::{ColumnPlan, Role},
    report::Report,
};

/// What the files are made from.
pub(super) struct Application<'a> {
    pub(super) id: &'a str,
    pub(super) columns: &'a [ColumnPlan],
    pub(super) classes: &'a [Class],
    pub(super) report: &'a Report,
}

impl Application<'_> {
    fn field_of(&self, role: Role) -> Option<&ColumnPlan> {
        self.columns.iter().find(|column| column.role == role)
    }

    pub(super) fn respondent_id(&self) -> &str {
        self.field_of(Role::RespondentId).map_or(RESPONDENT_ID, |column| &column.field)
    }

    fn event_time(&self) -> &str {
        self.field_of(Role::EventTime).map_or(EVENT_TIME, |column| &column.field)
    }

    fn label(&self) -> &str {
        self.field_of(Role::Label).map_or("label", |column| &column.field)
    }

    fn answers(&self) -> impl Iterator<Item = &ColumnPlan> {
        self.columns.iter().filter(|column| column.role == Role::Answer)
    }

    /// The event schema, in Avro's JSON.
    pub(super) fn schema(&self) -> String {
        let respondent = self.field_of(Role::RespondentId);
        let is_whole = respondent.is_some_and(|column| column.is_whole_id);
        let mut fields = vec![
            json!({
                "name": EVENT_ID,
                "type": "string",
                "doc": format!(
                    "Names this event. Sent again under the same name, it is the same event.{}",
                    in_file(self.field_of(Role::EventId))
                ),
            }),
            json!({
                "name": self.respondent_id(),
                "type": if is_whole { "long" } else { "string" },
                "doc": format!("Who; the record's key.{}", in_file(respondent)),
            }),
            json!({
                "name": self.event_time(),
                "type": {"type": "long", "logicalType": "timestamp-millis"},
                "doc": format!("When.{}", in_file(self.field_of(Role::EventTime))),
            }),
            json!({"name": COMPLETED, "type": "boolean", "default": false, "doc": "No more answers are to be expected."}),
        ];
        fields.extend(self.answers().map(|column| {
            json!({
                "name": column.field,
                "type": ["null", column.form.kind.avro()],
                "default": null,
                "doc": format!("A {}.{}", column.form.kind.name(), in_file(Some(column))),
            })
        }));
        let fields: Vec<String> = fields.iter().map(|field| format!("    {field}")).collect();
        let quoted = |text: &str| Value::from(text).to_string();
        format!(
            "{{\n  \"type\": \"record\",\n  \"name\": {},\n  \"namespace\": {},\n  \"doc\": {},\n  \"fields\": [\n{}\n  ]\n}}\n",
            quoted(&names::of_type(&namespace(self.id))),
            quoted(&namespace(self.id)),
            quoted(&format!(
                "Some or all answers of one respondent, at one time. Made from {}.",
                self.report.file
            )),
            fields.join(",\n")
        )
    }

    /// `foretell.toml`.
    pub(super) fn configuration(&self) -> String {
        let labels: Vec<&str> = self.classes.iter().map(|class| class.name.as_str()).collect();
        let positive = match labels[..] {
            [_, positive] => {
                format!("# The second of two is the positive class: {}.\n", one_line(positive))
            }
            _ => String::new(),
        };
        let missing = if self.report.missing_marks.is_empty() {
            "# missing = [\"NA\"]                # texts that mean \"no answer\"\n".to_owned()
        } else {
            let missing: Vec<&str> = self.report.missing_marks.iter().map(String::as_str).collect();
            format!("missing = {}\n", list(&missing))
        };
        let folds = if self.report.rows_initial < 200 { "folds = 3\n" } else { "" };
        let label = quote(self.label());
        format!(
            "\
# Made by `foretell new` from {file}. README.md beside this file says what was assumed. Paths are relative to this file.
# docs/configuration.md of Foretell has every key.

[application]
id = {id}

# Your broker and schema registry. `foretell demo` needs neither.
# [broker]
# bootstrap_servers = \"localhost:9092\"
# [schema_registry]
# url = \"http://localhost:8081\"

[events]
schema = \"schemas/{folder}/v1.avsc\"
respondent_id = {respondent}
event_time = {event_time}
event_id = \"{EVENT_ID}\"
completed = \"{COMPLETED}\"
{missing}
[scoring]
when = \"complete\"                 # or {{ answers = 5 }}, \"every_event\" or \"session_end\"

[outcomes]
{positive}labels = {labels}
window = \"1d\"                     # change it: how long after a prediction its outcome may come
grace = \"1h\"
unlabelled = \"drop\"               # or {{ label = {first} }}: what no outcome within the window means

[features]
ignored = []                      # answers that the model must not use, such as those that are known too late
categorical = []                  # numbers that are codes, not quantities

[learning]
retrain_after = 1000              # labelled examples from the stream

[tuning]
trials = 20
time = \"60s\"
{folds}
# The rows that the first model is trained on.
[data.initial]
path = \"data/initial.csv\"
label = {label}

# The rows that `foretell demo` and `foretell send` play as live events.
[data.play]
path = \"data/play.csv\"
label = {label}

[http]
bind = \"127.0.0.1:8000\"
",
            file = one_line(&self.report.file),
            id = quote(self.id),
            folder = namespace(self.id),
            respondent = quote(self.respondent_id()),
            event_time = quote(self.event_time()),
            labels = list(&labels),
            first = quote(labels.first().copied().unwrap_or("")),
        )
    }

    /// The README of the application.
    pub(super) fn readme(&self) -> String {
        let Report { file, rows, rows_initial, rows_played, .. } = self.report;
        let mut text = format!(
            "# {id}\n\nA Foretell application that predicts `{label}`, made by `foretell new` from `{file}`\n({rows} rows).\n\n",
            id = self.id,
            label = self.label(),
            file = one_line(file),
        );
        text.push_str(&format!(
            "## Run it\n\n\
             ```sh\n\
             foretell demo -c foretell.toml            # everything in one process, without a broker\n\
             foretell run -c foretell.toml --embedded  # keeps running; send events yourself, as below\n\
             ```\n\n\
             The first model is trained on the {rows_initial} rows of `data/initial.csv`. The {rows_played} rows of `data/play.csv` are played:\n\
             {}.\n\n",
            self.report.split_reason()
        ));
        text.push_str(&self.readme_events());
        text.push_str("## What was assumed\n\n");
        text.push_str("| column | field | type | used as | missing | example | why |\n|---|---|---|---|---:|---|---|\n");
        for column in &self.report.columns {
            text.push_str(&format!(
                "| {} | {} | {} | {} | {:.1}% | {} | {} |\n",
                cell(&column.name),
                cell(&column.field),
                column.kind,
                column.role,
                column.missing * 100.0,
                cell(&column.example),
                cell(&column.why),
            ));
        }
        text.push('\n');
        for line in self.report.lines() {
            text.push_str(&format!("- {}\n", one_line(&line)));
        }
        text.push_str(
            "\n## Change it\n\n\
             - Leave an answer out of the model: `features.ignored` in `foretell.toml`.\n\
             - Take numbers for categories: `features.categorical`.\n\
             - Another respondent, event time, decimal mark, order of days and months: run `foretell new` again with\n  \
               `--respondent-id`, `--event-time`, `--decimal`, `--dates`, and `--force`; see `foretell new --help`.\n\
             - Newer rows in the file: run `foretell new` again with `--data-only`, which keeps what you have changed here.\n\
             - More answers later: `foretell schema evolve` in the folder of the schema.\n",
        );
        text
    }

    /// How an event and an outcome are sent.
    fn readme_events(&self) -> String {
        let mut event = serde_json::Map::new();
        let whole = self.field_of(Role::RespondentId).is_some_and(|column| column.is_whole_id);
        let respondent = if whole { json!(1) } else { json!("me") };
        event.insert(self.respondent_id().to_owned(), respondent.clone());
        event.insert(COMPLETED.to_owned(), json!(true));
        for column in self.answers().filter(|column| !column.example.is_empty()) {
            event.insert(column.field.clone(), column.example_json());
        }
        let outcome = json!({
            "respondent_id": respondent,
            "label": self.field_of(Role::Label).map_or("", |column| column.example.as_str()),
        });
        let shell = |value: &Value| value.to_string().replace('\'', "'\\''");
        format!(
            "## Send events\n\n\
             ```sh\n\
             curl -s 'localhost:8000/api/v1/events?wait=true' --json '{}'\n\
             curl -s localhost:8000/api/v1/outcomes --json '{}'   # later: what happened\n\
             ```\n\n\
             Values are as in `data/play.csv`: numbers with a decimal point, times in ISO 8601, booleans as true and false.\n\
             Set your broker and registry in `foretell.toml`, then `foretell init` and `foretell run`; producers write the Avro\n\
             schema in `schemas/{}/v1.avsc`.\n\n",
            shell(&Value::Object(event)),
            shell(&outcome),
            namespace(self.id),
        )
    }
}

/// The settings of the schema's subject.
pub(super) const SUBJECT: &str = "compatibility = \"FULL_TRANSITIVE\"\n";

/// The id as the name of a folder and of a namespace, whose parts cannot begin with a digit in Avro.
pub(super) fn namespace(id: &str) -> String {
    let name = names::of_application(id);
    if name.starts_with(|character: char| character.is_ascii_digit()) {
        format!("events_{name}")
    } else {
        name
    }
}

fn in_file(column: Option<&ColumnPlan>) -> String {
    match column {
        Some(column) if column.name != column.field => {
            format!(" Column {:?} of the file.", column.name)
        }
        Some(_) | None => String::new(),
    }
}

/// A text in TOML, on one line: JSON's escapes are TOML's, too, and JSON leaves DEL as it is.
fn quote(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn list(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A text without line ends and other control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A text in a cell of a table in Markdown.
fn cell(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}
