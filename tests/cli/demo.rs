//! `foretell demo --json`: one object, by which a program can tell whether the loop works.

use std::time::Duration;

use serde_json::Value as Json;

use crate::process::{Process, SOON, at, example, quick_settings};

const KEYS: &[&str] = &[
    "events_sent",
    "scored",
    "joined",
    "unlabelled",
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
    assert!(number("events_sent") > number("scored"), "some come in two: {output}");
    assert!(number("retrainings") >= 1, "{output}");
    let models = at(&summary, "/models").as_array().unwrap();
    assert_eq!(models.len() as u64, number("retrainings") + 1, "{output}");
    assert!(!at(&summary, "/dead_letters").as_object().unwrap().is_empty(), "{output}");
}

/// A schema of somebody's, with a table of 240 rows in which the first answer decides.
struct Case {
    /// Fields of the event schema besides `at`: ids, a flag, answers.
    fields: &'static str,
    /// Keys of `[events]` besides `schema` and `event_time`.
    events: &'static str,
    /// Keys of `[outcomes]`.
    outcomes: &'static str,
    header: String,
    row: fn(usize) -> String,
    /// Whether there is a `[data.play]`.
    is_played: bool,
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

/// Runs the demo on it: whether it succeeded, its summary, and what it said besides.
fn run(case: &Case, settings: &[&str]) -> (bool, String, String) {
    run_with(case, &[], settings)
}

/// The same, with more arguments.
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
    let play =
        if case.is_played { "[data.play]\npath = \"rows.csv\"\nlabel = \"outcome\"\n" } else { "" };
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
    let mut arguments = vec!["demo", "--json", "--rate", "0", "-c", &config];
    arguments.extend(more);
    arguments.extend(common.chain(settings).flat_map(|setting| ["--set", *setting]));
    let mut process = Process::start(&arguments);
    let status = process.end(SOON);
    (status.success(), process.output(), process.errors())
}

/// Runs it and holds it to what must be so of every schema; returns the summary and what it said.
fn play(case: &Case, settings: &[&str]) -> (Json, String) {
    let (is_ok, output, said) = run(case, settings);
    assert!(is_ok, "{said}\n{output}");
    let summary: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    for none in ["predictions_missing", "predictions_doubled", "predictions_wrong_version"] {
        assert_eq!(number(&summary, none), 0, "{none}: {output}");
    }
    let failed = checks(&summary, &|check| check["ok"] == Json::Bool(false));
    assert!(failed.is_empty(), "{failed:?}: {output}");
    assert!(number(&summary, "scored") >= 200, "{output}");
    (summary, said)
}

fn number(summary: &Json, key: &str) -> u64 {
    at(summary, &format!("/{key}")).as_u64().unwrap()
}

fn checks(summary: &Json, which: &dyn Fn(&Json) -> bool) -> Vec<String> {
    let checks = at(summary, "/checks").as_array().unwrap();
    checks.iter().filter(|check| which(check)).map(|check| check["name"].to_string()).collect()
}

/// Learning is there to be seen: respondents of the table were predicted by more than one model.
fn has_learned(summary: &Json) {
    assert!(number(summary, "retrainings") >= 1, "{summary}");
    let models = at(summary, "/models").as_array().unwrap();
    let in_play = models.iter().filter(|model| model["predictions_in_play"].as_u64() > Some(0));
    assert!(in_play.count() >= 2, "{summary}");
}

/// Checks that were not made are named, and no others.
fn not_checked(summary: &Json, names: &[&str]) {
    let open = checks(summary, &|check| check["ok"].is_null());
    assert_eq!(open.len(), names.len(), "{open:?}");
    for name in names {
        assert!(open.iter().any(|check| check.contains(name)), "{name}: {open:?}");
    }
    let says_why = |check: &Json| check["ok"].is_null() != check["not_checked"].is_string();
    assert_eq!(checks(summary, &says_why), Vec::<String>::new());
}

fn outcome(number: usize) -> &'static str {
    if number % 7 < 3 { "yes" } else { "no" }
}

/// S of the documented cases, with its boolean.
fn visits() -> Case {
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
        is_played: true,
    }
}

#[test]
fn a_boolean_among_the_answers() {
    let (summary, said) = play(&visits(), &[]);
    has_learned(&summary);
    not_checked(&summary, &[]);
    assert!(said.contains("learning.retrain_after is"), "{said}");
    assert!(said.contains("of event time"), "{said}");
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
        is_played: true,
    };
    let (summary, _) = play(&case, &[]);
    has_learned(&summary);
    not_checked(&summary, &["without a respondent"]);
    // Nothing comes in pieces, for no answer may be blank.
    let scored_and_bad = number(&summary, "scored") + 20;
    assert_eq!(number(&summary, "events_sent"), scored_and_bad, "{summary}");
}

#[test]
fn three_labels_and_no_other_table() {
    let case = Case {
        outcomes: "labels = [0, 1, 2]\nwindow = \"2h\"\ngrace = \"30m\"\nlearn_from = \"last\"",
        row: |n| format!("{},1.8,1.5,cook,true,{}", n % 7, n % 3),
        ..visits()
    };
    let case = Case { is_played: false, ..case };
    let (summary, said) = play(&case, &[]);
    has_learned(&summary);
    assert!(said.contains("the rows of [data.initial] are played"), "{said}");
}

#[test]
fn no_outcome_is_an_outcome_and_corrections_count() {
    let settings = ["outcomes.unlabelled={ label = \"no\" }", "outcomes.conflict=last"];
    let (summary, _) = play(&visits(), &settings);
    has_learned(&summary);
    let all = number(&summary, "scored") - 2; // of the events that close the windows nothing is known
    assert_eq!(number(&summary, "joined"), all, "{summary}");
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
        is_played: true,
    };
    let (summary, _) = play(&case, &[]);
    has_learned(&summary);
    not_checked(&summary, &["unseen categories"]);
}

#[test]
fn one_answer_and_no_more() {
    let case = Case {
        fields: r#"{"name":"who","type":["null","int"]},{"name":"smoker","type":"boolean"}"#,
        events: "respondent_id = \"who\"",
        header: "smoker,outcome".to_owned(),
        row: |n| format!("{},{}", n % 7 < 3, outcome(n)),
        ..visits()
    };
    let (summary, _) = play(&case, &[]);
    has_learned(&summary);
    not_checked(&summary, &["unseen categories", "numbers out of range"]);
}

#[test]
fn every_event_is_scored() {
    for learn_from in ["first", "last", "every"] {
        let learn_from = format!("outcomes.learn_from={learn_from}");
        let settings = ["scoring.when=every_event", &learn_from];
        let (summary, _) = play(&visits(), &settings);
        has_learned(&summary);
        assert!(number(&summary, "scored") > 270, "pieces, too: {summary}");
    }
}

#[test]
fn so_many_answers_are_enough_and_blanks_are_not() {
    let case = Case {
        events: "respondent_id = \"who\"\nevent_id = \"event_id\"\nignored = [\"done\"]",
        fields: BLANKS,
        header: "age,job,outcome".to_owned(),
        row: |n| format!("{},{},{}", n % 7, ["cook", "nurse", ""][n % 3], outcome(n)),
        ..visits()
    };
    let (summary, _) = play(&case, &["scoring.when={ answers = 1 }"]);
    has_learned(&summary);
    // A third of the rows is blank somewhere, is never scored, and has outcomes for nobody.
    let (is_ok, output, said) = run(&case, &[]);
    assert!(is_ok, "{said}\n{output}");
    let summary: Json = serde_json::from_str(&output).unwrap();
    has_learned(&summary);
    assert!(at(&summary, "/dead_letters/unmatched_outcome").as_u64() > Some(60), "{summary}");
    let not_scored = at(&summary, "/rows_not_scored").as_object().unwrap();
    let not_scored: Vec<_> = not_scored.iter().map(|(why, rows)| (why, rows.as_u64())).collect();
    assert!(matches!(not_scored.as_slice(), [(why, Some(80))] if why.contains("never complete")));
    not_checked(&summary, &["every row of the table was scored"]);
    assert!(said.contains("80 rows are not scored: they are never complete"), "{said}");
}

#[test]
fn a_window_of_thirty_days_shows_learning() {
    let case = Case { outcomes: TWO_LABELS, ..visits() };
    let (summary, _) = play(&case, &[]);
    has_learned(&summary);
    not_checked(&summary, &[]);
    // And the shortest that is of use.
    let case = Case {
        outcomes: "labels = [\"no\", \"yes\"]\nwindow = \"5s\"\ngrace = \"1s\"",
        ..visits()
    };
    let (summary, _) = play(&case, &["streams.quiet_after=1s", "events.time_behind_max=1m"]);
    has_learned(&summary);
}

#[test]
fn times_and_ids_of_the_table_are_played() {
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
    let (summary, said) = play(&case, &skip);
    has_learned(&summary);
    not_checked(&summary, &[]);
    assert!(said.contains("event times are the table's"), "{said}");
    assert!(said.contains("respondents and event ids are the table's"), "{said}");

    // Respondents who come back: what joins depends on the windows.
    let case = Case {
        row: |n| {
            let at = 1_790_000_000_000_u64 + 60_000 * u64::try_from(n).unwrap();
            format!("ann-{},e-{n},{at},x,{},1.8,1.5,cook,true,{}", n % 100, n % 7, outcome(n))
        },
        ..case
    };
    let (summary, said) = play(&case, &skip);
    not_checked(&summary, &[]);
    assert!(said.contains("100 of 100 respondents come back within [outcomes] window"), "{said}");
}

/// Sixty respondents, each of them four times, an hour apart: within a window of two hours each outcome is near several
/// predictions.
#[test]
fn respondents_who_come_back_under_every_policy() {
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
            let (summary, said) = play(&case, &[&settings[0], &settings[1]]);
            not_checked(&summary, &[]);
            let corrections = checks(&summary, &|check| {
                check["name"].as_str().unwrap().contains("corrections replaced")
            });
            assert_eq!(corrections.len(), usize::from(conflict == "last"), "{summary}");
            let words = ["60 of 60 respondents come back", "180 times, the soonest after 1h"];
            let learned = format!("learn_from = \"{learn_from}\"");
            for words in words.iter().chain(&[learned.as_str(), "set [outcomes] window below 1h"]) {
                assert_eq!(said.matches(words).count(), 1, "{words} once in {said}");
            }
        }
    }
}

#[test]
fn what_a_short_play_can_not_show_is_not_checked() {
    for limit in ["1", "3"] {
        let (is_ok, output, said) = run_with(&visits(), &["--limit", limit], &[]);
        assert!(is_ok, "{said}\n{output}");
        let summary: Json = serde_json::from_str(&output).unwrap();
        let failed = checks(&summary, &|check| check["ok"] == Json::Bool(false));
        assert!(failed.is_empty(), "{failed:?}");
    }
}

#[test]
fn a_table_too_small_to_cross_validate_is_refused_before_it_is_written() {
    let case = Case {
        row: |n| format!("{},1.8,1.5,cook,true,{}", n % 7, if n == 3 { "yes" } else { "no" }),
        ..visits()
    };
    let (is_ok, output, said) = run(&case, &[]);
    assert!(!is_ok && output.is_empty(), "{output}");
    for words in ["rows.csv: 240 rows, 239 of \"no\", 1 of \"yes\": ", "in 2 folds"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(!said.contains("training log"), "{said}");
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
    let (summary, _) = play(&case, &[]);
    has_learned(&summary);
}

#[test]
fn times_in_seconds_are_reported_of() {
    let case = Case {
        header: "who,at,age,height,score,job,smoker,outcome".to_owned(),
        row: |n| {
            let at = 1_790_000_000 + 60 * n;
            format!("ann-{n},{at},{},1.8,1.5,cook,true,{}", n % 7, outcome(n))
        },
        ..visits()
    };
    let (_, said) = play(&case, &[]);
    let words = "column \"at\": 240 of 240 event times are not between the years 2000 and 2200, such as 1790000000 ms: it looks like seconds";
    assert_eq!(said.matches(words).count(), 1, "{said}");
}

#[test]
fn a_table_of_which_nothing_would_be_scored_is_refused() {
    // Without a flag all answers count, and `job` is in no column.
    let case = Case {
        events: "respondent_id = \"who\"\nevent_id = \"event_id\"\nignored = [\"done\"]",
        fields: BLANKS,
        header: "age,outcome".to_owned(),
        row: |n| format!("{},{}", n % 7, outcome(n)),
        ..visits()
    };
    let (is_ok, output, said) = run(&case, &[]);
    assert!(!is_ok && output.is_empty(), "{output}");
    assert!(said.contains("no row of the table would be scored"), "{said}");
}
