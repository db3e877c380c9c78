//! `foretell demo --json`, with the worked example and with other schemas.

use std::time::Duration;

use serde_json::Value as Json;

use crate::process::{Process, SOON, at, example, quick_settings, until};

const KEYS: &[&str] = &[
    "events_sent",
    "scored",
    "joined",
    "unlabelled",
    "examples",
    "dead_letters",
    "retrainings",
    "models",
    "predictions_missing",
    "predictions_doubled",
    "predictions_wrong_version",
    "auc_first",
    "auc_last",
    "log_loss_first",
    "log_loss_last",
    "latency_p99_ms_idle",
    "latency_p99_ms_training",
    "seconds",
];

#[test]
fn the_summary_is_one_object_with_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), 2000);
    settings.push("learning.retrain_after=100".to_owned());
    settings.push("tuning.iterations_max=60".to_owned());
    let config = example();
    let mut arguments = vec!["demo", "--json", "--limit", "300", "--rate", "0", "-c", &config];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = Process::start(&arguments).succeed(Duration::from_secs(120));
    let summary: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    let missing: Vec<&&str> = KEYS.iter().filter(|key| summary.get(**key).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} in {output}");
    let number = |key: &str| at(&summary, &format!("/{key}")).as_u64().unwrap();
    for none in ["predictions_missing", "predictions_doubled", "predictions_wrong_version"] {
        assert_eq!(number(none), 0, "{none}: {output}");
    }
    assert!(number("scored") >= 300 && number("joined") > 250, "{output}");
    assert!(
        number("events_sent") > number("scored"),
        "some questionnaires have two events: {output}"
    );
    assert!(number("retrainings") >= 1, "{output}");
    let models = at(&summary, "/models").as_array().unwrap();
    assert_eq!(models.len() as u64, number("retrainings") + 1, "{output}");
    assert!(!at(&summary, "/dead_letters").as_object().unwrap().is_empty(), "{output}");
}

/// An event schema, and a table of 240 rows in which the first answer decides the outcome.
pub(crate) struct Case {
    /// Fields of the event schema besides `at`: ids, a flag, answers.
    fields: &'static str,
    /// Keys of `[events]` besides `schema` and `event_time`.
    events: &'static str,
    /// Keys of `[outcomes]`.
    outcomes: &'static str,
    header: String,
    row: fn(usize) -> String,
    has_play_table: bool,
}

const ROWS: usize = 240;
const ID_AND_WHO: &str = r#"{"name":"event_id","type":"string"},{"name":"who","type":"string"},
    {"name":"done","type":"boolean"}"#;
const ID_AND_DONE: &str = "respondent_id = \"who\"\nevent_id = \"event_id\"\ncompleted = \"done\"";
const BLANKS: &str = r#"{"name":"event_id","type":"string"},{"name":"who","type":"string"},
    {"name":"done","type":["null","boolean"],"default":null},
    {"name":"age","type":["null","int"],"default":null},
    {"name":"job","type":["null","string"],"default":null}"#;
const TWO_LABELS: &str = "labels = [\"no\", \"yes\"]";
const TWO_HOURS: &str = "labels = [\"no\", \"yes\"]\nwindow = \"2h\"\ngrace = \"30m\"";

/// Runs the demo. Returns whether it succeeded, its summary, and its output on standard error.
fn run(case: &Case, settings: &[&str]) -> (bool, String, String) {
    run_with(case, &[], settings)
}

/// As [`run`], with more arguments.
fn run_with(case: &Case, more: &[&str], settings: &[&str]) -> (bool, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let time = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}"#;
    let fields = format!("{time},{}", case.fields);
    write("visit.avsc", &format!(r#"{{"type":"record","name":"Visit","fields":[{fields}]}}"#));
    let rows: String = (0..ROWS).map(|number| (case.row)(number) + "\n").collect();
    write("rows.csv", &format!("{}\n{rows}", case.header));
    let play = if case.has_play_table {
        "[data.play]\npath = \"rows.csv\"\nlabel = \"outcome\"\n"
    } else {
        ""
    };
    let config = write(
        "foretell.toml",
        &format!(
            "[application]\nid = \"visits\"\n[topics]\npartitions = 2\n\
             [events]\nschema = \"visit.avsc\"\nevent_time = \"at\"\n{}\n\
             [outcomes]\n{}\n\
             [data.initial]\npath = \"rows.csv\"\nlabel = \"outcome\"\n\
             {play}",
            case.events, case.outcomes
        ),
    );
    let common = ["http.bind=127.0.0.1:0", "tuning.trials=1", "tuning.iterations_max=20"];
    let common = common.iter().chain(&["tuning.folds=2", "streams.commit_interval=20ms"]);
    let common = common.chain(&["learning.judge.policy=always", "learning.tuning.trials=0"]);
    let mut arguments = vec!["demo", "--json", "--rate", "0", "-c", &config];
    arguments.extend(more);
    arguments.extend(common.chain(settings).flat_map(|setting| ["--set", *setting]));
    let mut process = Process::start(&arguments);
    let status = process.end(SOON);
    (status.success(), process.output(), process.errors())
}

/// Runs the demo, and asserts what holds for every schema. Returns the summary and the output on standard error.
pub(crate) fn run_and_check(case: &Case, settings: &[&str]) -> (Json, String) {
    let (is_ok, output, errors) = run(case, settings);
    assert!(is_ok, "{errors}\n{output}");
    let summary: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    for none in ["predictions_missing", "predictions_doubled", "predictions_wrong_version"] {
        assert_eq!(number(&summary, none), 0, "{none}: {output}");
    }
    let failed = checks(&summary, &|check| check["ok"] == Json::Bool(false));
    assert!(failed.is_empty(), "{failed:?}: {output}");
    assert!(number(&summary, "scored") >= 200, "{output}");
    (summary, errors)
}

pub(crate) fn number(summary: &Json, key: &str) -> u64 {
    at(summary, &format!("/{key}")).as_u64().unwrap()
}

pub(crate) fn checks(summary: &Json, which: &dyn Fn(&Json) -> bool) -> Vec<String> {
    let checks = at(summary, "/checks").as_array().unwrap();
    checks.iter().filter(|check| which(check)).map(|check| check["name"].to_string()).collect()
}

/// Asserts that more than one model predicted respondents of the table.
fn assert_learned(summary: &Json) {
    assert!(number(summary, "retrainings") >= 1, "{summary}");
    let models = at(summary, "/models").as_array().unwrap();
    let in_play = models.iter().filter(|model| model["predictions_in_play"].as_u64() > Some(0));
    assert!(in_play.count() >= 2, "{summary}");
}

/// Asserts that exactly these checks were skipped, each with a reason.
fn assert_not_checked(summary: &Json, names: &[&str]) {
    let open = checks(summary, &|check| check["ok"].is_null());
    assert_eq!(open.len(), names.len(), "{open:?}");
    for name in names {
        assert!(open.iter().any(|check| check.contains(name)), "{name}: {open:?}");
    }
    let lacks_reason = |check: &Json| check["ok"].is_null() != check["not_checked"].is_string();
    assert_eq!(checks(summary, &lacks_reason), Vec::<String>::new());
}

fn outcome(number: usize) -> &'static str {
    if number % 7 < 3 { "yes" } else { "no" }
}

/// A schema with every common type of answer.
pub(crate) fn visits() -> Case {
    Case {
        fields: r#"{"name":"event_id","type":"string"},{"name":"who","type":"string"},
            {"name":"done","type":"boolean"},{"name":"age","type":["null","int"],"default":null},
            {"name":"height","type":["null","double"],"default":null},
            {"name":"score","type":["null","float"],"default":null},
            {"name":"job","type":["null","string"],"default":null},
            {"name":"smoker","type":["null","boolean"],"default":null}"#,
        events: ID_AND_DONE,
        outcomes: TWO_HOURS,
        header: "age,height,score,job,smoker,outcome".to_owned(),
        row: |n| {
            let job = ["cook", "nurse", ""][n % 3];
            format!("{},1.{},{}.5,{job},{},{}", n % 7, n % 9, n % 5, n % 2 == 0, outcome(n))
        },
        has_play_table: true,
    }
}

#[test]
fn a_boolean_among_the_answers() {
    let (summary, errors) = run_and_check(&visits(), &[]);
    assert_learned(&summary);
    assert_not_checked(&summary, &[]);
    assert!(errors.contains("learning.retrain_after is"), "{errors}");
    assert!(errors.contains("of event time"), "{errors}");
}

#[test]
fn numbers_for_ids_mandatory_answers_and_enums() {
    let case = Case {
        fields: r#"{"name":"who","type":"long"},{"name":"age","type":"int"},
            {"name":"smoker","type":"boolean"},
            {"name":"size","type":{"type":"enum","name":"Size","symbols":["S","L"]}},
            {"name":"born","type":{"type":"int","logicalType":"date"}},
            {"name":"seen","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"pay","type":{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}},
            {"name":"badge","type":["null",{"type":"fixed","name":"Id","size":16,"logicalType":"uuid"}]}"#,
        events: "respondent_id = \"who\"",
        outcomes: TWO_HOURS,
        header: "age,smoker,size,born,seen,pay,badge,outcome".to_owned(),
        row: |n| {
            let (size, month) = (["S", "L"][n % 2], 1 + n % 9);
            let badge = format!("00000000-0000-4000-8000-00000000000{}", n % 4);
            format!(
                "{},{},{size},1990-0{month}-17,2026-0{month}-01T08:00:00Z,{}.25,{badge},{}",
                n % 7,
                n % 3 == 0,
                n % 50,
                outcome(n)
            )
        },
        has_play_table: true,
    };
    let (summary, _) = run_and_check(&case, &[]);
    assert_learned(&summary);
    assert_not_checked(&summary, &["without a respondent"]);
    // No questionnaire is split, because no answer may be blank.
    let scored_and_bad = number(&summary, "scored") + 20;
    assert_eq!(number(&summary, "events_sent"), scored_and_bad, "{summary}");
}

#[test]
fn three_labels_and_no_play_table() {
    let case = Case {
        outcomes: "labels = [0, 1, 2]\nwindow = \"2h\"\ngrace = \"30m\"\nlearn_from = \"last\"",
        row: |n| format!("{},1.8,1.5,cook,true,{}", n % 7, n % 3),
        ..visits()
    };
    let case = Case { has_play_table: false, ..case };
    let (summary, errors) = run_and_check(&case, &[]);
    assert_learned(&summary);
    assert!(errors.contains("the rows of [data.initial] are played"), "{errors}");
}

#[test]
fn missing_outcomes_get_a_label_and_corrections_replace_examples() {
    let settings = ["outcomes.unlabelled={ label = \"no\" }", "outcomes.conflict=last"];
    let (summary, _) = run_and_check(&visits(), &settings);
    assert_learned(&summary);
    let all = number(&summary, "scored") - 2; // without the events that close the windows
    let (joined, unlabelled) = (number(&summary, "joined"), number(&summary, "unlabelled"));
    assert!(joined > 0 && unlabelled > 0, "{summary}");
    assert_eq!(number(&summary, "examples"), joined + unlabelled, "{summary}");
    assert_eq!(number(&summary, "examples"), all, "{summary}");
}

#[test]
fn a_hundred_numbers_and_no_category() {
    static FIELDS: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let answers = (0..100).map(|n| format!(r#",{{"name":"q{n}","type":["null","double"]}}"#));
        format!("{ID_AND_WHO}{}", answers.collect::<String>())
    });
    let names: String = (0..100).map(|n| format!("q{n},")).collect();
    let case = Case {
        fields: &FIELDS,
        events: ID_AND_DONE,
        outcomes: "labels = [\"no\", \"yes\"]\nwindow = \"2h\"",
        header: names + "outcome",
        row: |n| {
            let cells: String = (0..100).map(|q| format!("{}.5,", (n + q) % 7)).collect();
            cells + outcome(n)
        },
        has_play_table: true,
    };
    let (summary, _) = run_and_check(&case, &[]);
    assert_learned(&summary);
    assert_not_checked(&summary, &["unseen categories"]);
}

#[test]
fn a_single_answer() {
    let case = Case {
        fields: r#"{"name":"who","type":["null","int"]},{"name":"smoker","type":"boolean"}"#,
        events: "respondent_id = \"who\"",
        header: "smoker,outcome".to_owned(),
        row: |n| format!("{},{}", n % 7 < 3, outcome(n)),
        ..visits()
    };
    let (summary, _) = run_and_check(&case, &[]);
    assert_learned(&summary);
    assert_not_checked(&summary, &["unseen categories", "numbers out of range"]);
}

#[test]
fn every_event_is_scored() {
    for learn_from in ["first", "last", "every"] {
        let learn_from = format!("outcomes.learn_from={learn_from}");
        let settings = ["scoring.when=every_event", &learn_from];
        let (summary, _) = run_and_check(&visits(), &settings);
        assert_learned(&summary);
        assert!(number(&summary, "scored") > 270, "incomplete questionnaires, too: {summary}");
    }
}

#[test]
fn scoring_after_a_number_of_answers_and_rows_that_are_never_complete() {
    let case = Case {
        events: "respondent_id = \"who\"\nevent_id = \"event_id\"\nignored = [\"done\"]",
        fields: BLANKS,
        header: "age,job,outcome".to_owned(),
        row: |n| format!("{},{},{}", n % 7, ["cook", "nurse", ""][n % 3], outcome(n)),
        ..visits()
    };
    let (summary, _) = run_and_check(&case, &["scoring.when={ answers = 1 }"]);
    assert_learned(&summary);
    // A third of the rows has a blank answer: they are never scored, and their outcomes match no prediction.
    let (is_ok, output, errors) = run(&case, &[]);
    assert!(is_ok, "{errors}\n{output}");
    let summary: Json = serde_json::from_str(&output).unwrap();
    assert_learned(&summary);
    assert!(at(&summary, "/dead_letters/unmatched_outcome").as_u64() > Some(60), "{summary}");
    let not_scored = at(&summary, "/rows_not_scored").as_object().unwrap();
    let not_scored: Vec<_> = not_scored.iter().map(|(why, rows)| (why, rows.as_u64())).collect();
    assert!(matches!(not_scored.as_slice(), [(why, Some(80))] if why.contains("never complete")));
    assert_not_checked(&summary, &["every row of the table was scored"]);
    assert!(errors.contains("80 rows are not scored: they are never complete"), "{errors}");
}

#[test]
fn rows_that_are_never_complete_are_scored_when_their_sessions_end() {
    let case = Case {
        events: "respondent_id = \"who\"\nevent_id = \"event_id\"\nignored = [\"done\"]",
        fields: BLANKS,
        header: "age,job,outcome".to_owned(),
        row: |n| format!("{},{},{}", n % 7, ["cook", "nurse", ""][n % 3], outcome(n)),
        ..visits()
    };
    for gap in ["30m", "100m"] {
        let gap = format!("sessions.gap={gap}");
        let (summary, _) = run_and_check(&case, &["scoring.at_session_end=true", &gap]);
        assert!(at(&summary, "/rows_not_scored").as_object().unwrap().is_empty(), "{summary}");
        // Every third row, by the end of its session.
        assert!(number(&summary, "scored") >= 240, "{summary}");
        // If outcomes do not wait for the ends of sessions long enough, what joins depends on stream time.
        let skipped = checks(&summary, &|check| check["ok"].is_null());
        let is_joined = !skipped.iter().any(|name| name.contains("every outcome was joined"));
        assert_eq!(is_joined, gap.ends_with("30m"), "{skipped:?}");
    }
}

#[test]
fn a_window_of_thirty_days_shows_learning() {
    let case = Case { outcomes: TWO_LABELS, ..visits() };
    let (summary, _) = run_and_check(&case, &[]);
    assert_learned(&summary);
    assert_not_checked(&summary, &[]);
    // And the shortest window that is usable.
    let case = Case {
        outcomes: "labels = [\"no\", \"yes\"]\nwindow = \"5s\"\ngrace = \"1s\"",
        ..visits()
    };
    let (summary, _) =
        run_and_check(&case, &["streams.quiet_after=1s", "events.time_behind_max=1m"]);
    assert_learned(&summary);
}

#[test]
fn event_times_and_ids_of_the_table_are_used() {
    let case = Case {
        header: "who,event_id,at,note,age,height,score,job,smoker,outcome".to_owned(),
        row: |n| {
            let (day, hour) = (1 + n / 24, n % 24);
            let at = format!("2026-10-{day:02}T{hour:02}:00:00Z");
            format!("ann-{n},e-{n},{at},x,{},1.8,1.5,cook,true,{}", n % 7, outcome(n))
        },
        ..visits()
    };
    let skip = ["data.initial.skip=[\"note\"]", "data.play.skip=[\"note\"]"];
    let (summary, errors) = run_and_check(&case, &skip);
    assert_learned(&summary);
    assert_not_checked(&summary, &[]);
    assert!(errors.contains("event times are the table's"), "{errors}");
    assert!(errors.contains("respondents and event ids are the table's"), "{errors}");

    // Respondents with several rows: what joins depends on the windows.
    let case = Case {
        row: |n| {
            let at = 1_790_000_000_000_u64 + 60_000 * u64::try_from(n).unwrap();
            format!("ann-{},e-{n},{at},x,{},1.8,1.5,cook,true,{}", n % 100, n % 7, outcome(n))
        },
        ..case
    };
    let (summary, errors) = run_and_check(&case, &skip);
    assert_not_checked(&summary, &[]);
    assert!(
        errors.contains("100 of 100 respondents come back within [outcomes] window"),
        "{errors}"
    );
}

/// Sixty respondents with four rows each, an hour apart: within a window of two hours each outcome is near several
/// predictions.
#[test]
fn returning_respondents_under_every_policy() {
    let case = Case {
        header: "who,event_id,at,age,height,score,job,smoker,outcome".to_owned(),
        row: |n| {
            let at = 1_790_000_000_000_u64 + 60_000 * u64::try_from(n).unwrap();
            format!("ann-{},e-{n},{at},{},1.8,1.5,cook,true,{}", n % 60, n % 7, outcome(n))
        },
        ..visits()
    };
    for conflict in ["first", "last"] {
        for learn_from in ["first", "last", "every"] {
            let settings = [
                format!("outcomes.conflict={conflict}"),
                format!("outcomes.learn_from={learn_from}"),
            ];
            let (summary, errors) = run_and_check(&case, &[&settings[0], &settings[1]]);
            assert_not_checked(&summary, &[]);
            let corrections = checks(&summary, &|check| {
                check["name"].as_str().unwrap().contains("corrections replaced")
            });
            assert_eq!(corrections.len(), usize::from(conflict == "last"), "{summary}");
            let words = ["60 of 60 respondents come back", "180 times, the soonest after 1h"];
            let learned = format!("learn_from = \"{learn_from}\"");
            for words in words.iter().chain(&[learned.as_str(), "set [outcomes] window below 1h"]) {
                assert_eq!(errors.matches(words).count(), 1, "{words} once in {errors}");
            }
        }
    }
}

#[test]
fn checks_that_a_short_table_cannot_satisfy_are_skipped() {
    for limit in ["1", "3"] {
        let (is_ok, output, errors) = run_with(&visits(), &["--limit", limit], &[]);
        assert!(is_ok, "{errors}\n{output}");
        let summary: Json = serde_json::from_str(&output).unwrap();
        let failed = checks(&summary, &|check| check["ok"] == Json::Bool(false));
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// A decision about a failed training is one, too: nothing waits for a model that never comes.
#[test]
fn a_demo_that_keeps_running_serves_until_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quick_settings(folder.path(), 2000);
    let mut arguments =
        vec!["demo", "--keep-running", "--limit", "200", "--rate", "0", "-c", example()];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let mut process = Process::start(&arguments);
    let address = until("the demo serves", Duration::from_secs(300), || {
        let text = process.errors();
        let (before, _) = text.split_once(" until Ctrl-C")?;
        Some(before.rsplit_once("http://")?.1.to_owned())
    });
    let url = format!("http://{address}/readyz");
    assert_eq!(reqwest::blocking::get(url).unwrap().status().as_u16(), 200);
    process.signal("INT");
    // So small a demo may fail a check of its own, which is its status.
    assert!(process.end(SOON).code().is_some(), "{}", process.errors());
}

#[test]
fn a_demo_in_which_every_training_fails_ends() {
    let (is_ok, output, errors) = run(&visits(), &["learning.time_max=1ms"]);
    assert!(!is_ok, "{output}");
    let summary: Json = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{errors}"));
    let decisions = at(&summary, "/decisions").as_array().unwrap();
    assert!(!decisions.is_empty() && number(&summary, "retrainings") == 0, "{output}");
    assert!(decisions.iter().all(|decision| decision["outcome"] == "failed"), "{output}");
    let failed = checks(&summary, &|check| check["ok"] == Json::Bool(false));
    assert!(failed.iter().any(|name| name.contains("models were trained")), "{failed:?}");
    assert!(!failed.iter().any(|name| name.contains("in time")), "{failed:?}");
}

#[test]
fn a_table_too_small_to_cross_validate_is_refused_before_it_is_written() {
    let case = Case {
        row: |n| format!("{},1.8,1.5,cook,true,{}", n % 7, if n == 3 { "yes" } else { "no" }),
        ..visits()
    };
    let (is_ok, output, errors) = run(&case, &[]);
    assert!(!is_ok && output.is_empty(), "{output}");
    for words in ["rows.csv: 240 rows, 239 of \"no\", 1 of \"yes\": ", "in 2 folds"] {
        assert!(errors.contains(words), "{words} in {errors}");
    }
    assert!(!errors.contains("training log"), "{errors}");
}

#[test]
fn a_mandatory_field_that_is_ignored() {
    let case = Case {
        fields: r#"{"name":"event_id","type":"string"},{"name":"who","type":"string"},
            {"name":"done","type":"boolean"},{"name":"token","type":"bytes"},
            {"name":"page","type":{"type":"record","name":"Page","fields":[
                {"name":"url","type":"string"},{"name":"tags","type":{"type":"array","items":"string"}}]}},
            {"name":"age","type":["null","int"],"default":null}"#,
        events: "respondent_id = \"who\"\nevent_id = \"event_id\"\ncompleted = \"done\"\nignored = [\"token\", \"page\"]",
        header: "age,outcome".to_owned(),
        row: |n| format!("{},{}", n % 7, outcome(n)),
        ..visits()
    };
    let (summary, _) = run_and_check(&case, &[]);
    assert_learned(&summary);
}

#[test]
fn event_times_in_seconds_are_warned_about() {
    let case = Case {
        header: "who,at,age,height,score,job,smoker,outcome".to_owned(),
        row: |n| {
            let at = 1_790_000_000 + 60 * n;
            format!("ann-{n},{at},{},1.8,1.5,cook,true,{}", n % 7, outcome(n))
        },
        ..visits()
    };
    let (_, errors) = run_and_check(&case, &[]);
    let words = "column \"at\": 240 of 240 event times are not between the years 2000 and 2200, such as 1790000000 ms: it looks like seconds";
    assert_eq!(errors.matches(words).count(), 1, "{errors}");
}

#[test]
fn a_table_without_a_scorable_row_is_refused() {
    // Without a flag, a questionnaire is complete when it has all answers, and the table has no column `job`.
    let case = Case {
        events: "respondent_id = \"who\"\nevent_id = \"event_id\"\nignored = [\"done\"]",
        fields: BLANKS,
        header: "age,outcome".to_owned(),
        row: |n| format!("{},{}", n % 7, outcome(n)),
        ..visits()
    };
    let (is_ok, output, errors) = run(&case, &[]);
    assert!(!is_ok && output.is_empty(), "{output}");
    assert!(errors.contains("no row of the table would be scored"), "{errors}");
}
