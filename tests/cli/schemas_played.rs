//! `foretell demo` on schemas of other shapes than the worked example's: small tables, made here.

use std::{fmt::Write as _, fs, time::Duration};

use serde_json::Value as Json;

use crate::process::{Process, at};

const PATIENCE: Duration = Duration::from_secs(240);

/// A name, an Avro type, and what a row's number makes of it.
type Column = (&'static str, &'static str, fn(usize) -> String);

/// Plays 240 rows of `columns`.
fn check(name: &str, who: &str, columns: &[Column], more: &str) {
    let folder = tempfile::tempdir().unwrap();
    let fields: Vec<String> = columns
        .iter()
        .map(|(name, kind, _)| format!(r#"{{"name":"{name}","type":{kind}}}"#))
        .collect();
    let schema = format!(
        r#"{{"type":"record","name":"Visit","fields":[{{"name":"event_id","type":"string"}},
        {{"name":"who","type":"{who}"}},{{"name":"at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},
        {{"name":"done","type":"boolean"}},{}]}}"#,
        fields.join(",")
    );
    fs::write(folder.path().join("visit.avsc"), schema).unwrap();
    let mut table = columns.iter().map(|(name, ..)| format!("{name},")).collect::<String>();
    table.push_str("outcome\n");
    for row in 0..240 {
        columns.iter().for_each(|(.., cell)| write!(table, "{},", cell(row)).unwrap());
        table.push_str(if row * 7 % 10 < 5 { "no\n" } else { "yes\n" });
    }
    fs::write(folder.path().join("table.csv"), table).unwrap();
    let text = format!(
        "[application]\nid = \"visits\"\n[topics]\npartitions = 2\n[events]\nschema = \"visit.avsc\"\n\
         event_id = \"event_id\"\nrespondent_id = \"who\"\nevent_time = \"at\"\ncompleted = \"done\"\n\
         [outcomes]\nlabels = [\"no\", \"yes\"]\n[tuning]\ntrials = 1\niterations_max = 20\n\
         [data.initial]\npath = \"table.csv\"\nlabel = \"outcome\"\n[data.play]\npath = \"table.csv\"\n\
         label = \"outcome\"\n[http]\nbind = \"127.0.0.1:0\"\n{more}\n"
    );
    let config = folder.path().join("foretell.toml");
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let mut process = Process::start(&["demo", "--json", "--rate", "100", "-c", config]);
    let status = process.end(PATIENCE);
    assert!(status.success(), "{name}: {}{}", process.output(), process.errors());
    let summary: Json = serde_json::from_str(&process.output()).unwrap();
    let number = |key: &str| at(&summary, &format!("/{key}")).as_u64().unwrap();
    for none in ["predictions_missing", "predictions_doubled", "predictions_wrong_version"] {
        assert_eq!(number(none), 0, "{name}, {none}: {summary}");
    }
    assert!(number("retrainings") >= 1, "{name}: {summary}");
    assert!(process.errors().contains("learning.retrain_after is"), "{}", process.errors());
}

const AGE: Column = ("age", r#"["null","int"]"#, |row| (row * 7 % 10 * 5 + row % 3).to_string());
const JOB: Column = ("job", r#"["null","string"]"#, |row| ["cook", "nurse"][row % 2].to_owned());
const SMOKER: Column = ("smoker", r#"["null","boolean"]"#, |row| (row % 3 == 0).to_string());

#[test]
fn a_boolean_and_the_default_window() {
    check("boolean", "string", &[AGE, JOB, SMOKER], "");
}

#[test]
fn respondents_with_numbers_and_mandatory_answers() {
    let mandatory = [("age", "\"int\"", AGE.2), ("smoker", "\"boolean\"", SMOKER.2)];
    check("long ids, mandatory", "long", &mandatory, "");
}

#[test]
fn one_answer_and_no_category() {
    check("one answer", "string", &[AGE], "");
}

#[test]
fn every_event_is_scored() {
    check("every event", "string", &[AGE, JOB], "[scoring]\nwhen = \"every_event\"");
}
