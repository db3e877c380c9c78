//! `foretell replay` on a table, without a broker.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::Value as Json;

use crate::process::{Process, SOON, at, example, quick_settings, until};

/// A project with a small event schema, and a table in which an answer decides the label.
struct Project(tempfile::TempDir);

const SCHEMA: &str = r#"{"type": "record", "name": "Visit", "fields": [
    {"name": "who", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "age", "type": ["null", "int"], "default": null},
    {"name": "job", "type": ["null", "string"], "default": null}
]}"#;

/// Begin of the event times, and the time between two respondents: six hours, so that 400 take 100 days.
const START: i64 = 1_700_000_000_000;
const GAP: i64 = 6 * 3_600_000;

impl Project {
    /// A project with `labels`; the label is `rule` of the age.
    fn new(labels: &[&str], rule: fn(usize) -> usize) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let names = labels.iter().map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ");
        project.write("event.avsc", SCHEMA);
        project.write(
            "foretell.toml",
            &format!(
                "[application]\nid = \"visits\"\n\
                 [events]\nschema = \"event.avsc\"\nrespondent_id = \"who\"\nevent_time = \"at\"\n\
                 [scoring]\nwhen = \"every_event\"\n\
                 [outcomes]\nlabels = [{names}]\nwindow = \"30 days\"\n\
                 [learning]\nretrain_after = 100\n\
                 [learning.tuning]\ntrials = 0\n[learning.judge]\nholdout = 0.4\n\
                 [tuning]\ntrials = 1\niterations_max = 30\nfolds = 2\n\
                 [data.initial]\npath = \"initial.csv\"\nlabel = \"label\"\n\
                 [data.play]\npath = \"play.csv\"\nlabel = \"label\"\n"
            ),
        );
        project.table("initial.csv", 0..300, labels, rule, false);
        project.table("play.csv", 300..700, labels, rule, true);
        project
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Writes a table; with event times and respondents of its own if `is_timed`.
    fn table(
        &self,
        name: &str,
        rows: std::ops::Range<usize>,
        labels: &[&str],
        rule: fn(usize) -> usize,
        is_timed: bool,
    ) {
        let mut text =
            if is_timed { "who,at,age,job,label\n" } else { "age,job,label\n" }.to_owned();
        for number in rows {
            let age = number * 7 % 61;
            if is_timed {
                let at = START + i64::try_from(number).unwrap() * GAP;
                write!(text, "visitor-{number},{at},").unwrap();
            }
            // One label in ten is another one.
            let noise = usize::from(number % 10 == 3);
            let label = labels[(rule(age) + noise) % labels.len()];
            writeln!(text, "{age},job-{},{label}", number % 4).unwrap();
        }
        self.write(name, &text);
    }

    fn start(&self, more: &[&str]) -> Process {
        let config = self.path("foretell.toml");
        Process::start(&[&["replay", "-c", &config], more].concat())
    }

    fn json(&self, more: &[&str]) -> Json {
        let mut process = self.start(&[&["--table", "--json"], more].concat());
        let status = process.end(SOON);
        assert!(status.success(), "{}", process.errors());
        serde_json::from_str(&process.output()).expect("one object, and nothing else")
    }

    /// The error of a command that fails at once.
    fn error(&self, more: &[&str]) -> String {
        let mut process = self.start(more);
        assert!(!process.end(SOON).success() && process.output().is_empty(), "{more:?}");
        process.errors()
    }
}

/// The report without what depends on the time of the machine.
fn timeless(mut report: Json) -> Json {
    for variant in report["variants"].as_array_mut().unwrap() {
        variant["seconds"] = Json::Null;
    }
    report
}

fn number(report: &Json, variant: usize, key: &str) -> f64 {
    at(report, &format!("/variants/{variant}/{key}")).as_f64().unwrap()
}

const VARIANTS: &str = "[variants.often]\nlearning.retrain_after = 50\n\
    [variants.week]\nlearning.last = \"7d\"\nlearning.initial = \"age\"\n\
    [variants.frozen]\nlearning.retrain_after = 0\n";

#[test]
fn variants_of_a_table_are_compared_without_a_broker_and_always_with_the_same_numbers() {
    let project = Project::new(&["no", "yes"], |age| usize::from(age >= 30));
    project.write("variants.toml", VARIANTS);
    let (variants, page) = (project.path("variants.toml"), project.path("replay.html"));
    let arguments = ["--variants", &variants, "--html", &page];
    let report = project.json(&arguments);
    let names: Vec<&str> = (0..4)
        .map(|variant| at(&report, &format!("/variants/{variant}/name")).as_str().unwrap())
        .collect();
    assert_eq!(names, ["current", "often", "week", "frozen"]);
    let labelled = number(&report, 0, "total/labels");
    assert!((360.0..400.0).contains(&labelled), "some outcomes are lost: {labelled}");
    for (variant, every) in [(0, 100.0), (1, 50.0), (2, 100.0)] {
        assert!(number(&report, variant, "predictions") >= 400.0);
        let trainings = number(&report, variant, "trainings");
        assert!((trainings - (labelled / every).floor()).abs() < 0.5, "{variant}: {report}");
    }
    assert!(number(&report, 3, "trainings") < 0.5 && number(&report, 3, "promoted") < 0.5);
    for variant in 0..4 {
        let loss = number(&report, variant, "total/log_loss");
        assert!(loss > 0.1 && loss < 0.693, "{report}");
        assert!((number(&report, variant, "total/labels") - labelled).abs() < 0.5);
        assert!(number(&report, variant, "last_quarter/labels") < labelled / 2.0);
        assert!(at(&report, &format!("/variants/{variant}/error")).is_null());
    }
    assert!(
        at(&report, "/variants/0/improvement").is_null(),
        "it is what others are compared with"
    );
    let improvement = number(&report, 3, "improvement/log_loss");
    let difference = number(&report, 0, "total/log_loss") - number(&report, 3, "total/log_loss");
    assert!((improvement - difference).abs() < 1e-9, "{report}");
    assert_eq!(fs::read_to_string(&page).unwrap().matches("<svg").count(), 3);
    assert_eq!(timeless(project.json(&arguments)), timeless(report));
    let written: Vec<_> = fs::read_dir(project.0.path()).unwrap().collect();
    assert_eq!(written.len(), 6, "the page, and what the test wrote");
}

#[test]
fn a_variant_can_begin_with_a_model_of_another_table_and_replace_the_plain_configuration() {
    let labels = ["no", "yes"];
    // The concept of the table that is played is not that of the initial data.
    let project = Project::new(&labels, |age| usize::from(age >= 30));
    project.table("play.csv", 300..700, &labels, |age| usize::from(age < 30), true);
    project.table("new.csv", 700..1_000, &labels, |age| usize::from(age < 30), false);
    project.write(
        "variants.toml",
        "[variants.oracle]\nlearning.retrain_after = 0\ndata.initial.path = \"new.csv\"\n\
         [variants.current]\nlearning.retrain_after = 0\n",
    );
    let report = project.json(&["--variants", &project.path("variants.toml")]);
    assert_eq!(at(&report, "/variants").as_array().unwrap().len(), 2);
    assert_eq!(*at(&report, "/variants/0/name"), "current");
    assert!(number(&report, 0, "trainings") < 0.5, "it replaces the plain configuration");
    assert!(number(&report, 1, "improvement/low") > 0.0, "{report}");
    assert!(number(&report, 1, "total/auc") > 0.8 && number(&report, 0, "total/auc") < 0.3);
}

#[test]
fn schedules_go_by_the_time_of_the_history_and_more_than_two_labels_are_judged() {
    let project = Project::new(&["none", "some", "many"], |age| age / 21);
    project.write(
        "variants.toml",
        "[variants.monthly]\nlearning.retrain_after = 0\nlearning.schedule = \"0 3 1 * *\"\n",
    );
    let report = project.json(&["--variants", &project.path("variants.toml")]);
    // The table spans 100 days.
    let trainings = number(&report, 1, "trainings");
    assert!((3.0..=4.0).contains(&trainings), "{report}");
    assert!(number(&report, 1, "failed") < 0.5, "{report}");
    assert!(number(&report, 0, "total/accuracy") > 0.7, "{report}");
    assert!(number(&report, 0, "total/auc") > 0.7, "{report}");
}

#[test]
fn a_summary_has_both_tables_and_every_failure_and_a_line_says_when_a_variant_is_complete() {
    let project = Project::new(&["no", "yes"], |age| usize::from(age >= 30));
    project.write("variants.toml", "[variants.impatient]\nlearning.time_max = \"1ms\"\n");
    let variants = project.path("variants.toml");
    let mut process = project.start(&["--table", "--variants", &variants]);
    assert!(process.end(SOON).success(), "{}", process.errors());
    let (output, errors) = (process.output(), process.errors());
    for line in ["- current: 3 trainings, ", "- impatient: 3 trainings, "] {
        assert!(errors.contains(line), "{line:?} in {errors}");
    }
    for words in [
        "variant    predictions  labelled  trainings",
        "progressive metrics",
        "\ncurrent ",
        "\nimpatient ",
        "impatient: failed: training-1: it took longer than 1ms",
    ] {
        assert!(output.contains(words), "{words:?} in {output}");
    }
}

#[test]
fn other_tables_are_replayed_in_part_and_spread_over_a_span() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), 800);
    settings.push("learning.retrain_after=0".to_owned());
    settings.push("tuning.iterations_max=20".to_owned());
    let table = Path::new(example()).with_file_name("adult.test.gz");
    let mut arguments = vec!["replay", "-c", example(), "--table", table.to_str().unwrap()];
    arguments.extend(["--limit", "200", "--span", "50d", "--json"]);
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    let report: Json = serde_json::from_str(&Process::start(&arguments).succeed(SOON)).unwrap();
    assert!(number(&report, 0, "predictions") >= 200.0, "{report}");
    let time = |window: &Json| window["until"].as_i64().unwrap();
    let windows = at(&report, "/variants/0/windows").as_array().unwrap();
    let days = (time(windows.last().unwrap()) - time(&windows[0])) / 86_400_000;
    assert!((35..50).contains(&days), "{days} days");
}

#[test]
fn ctrl_c_shows_the_complete_variants_and_writes_no_page() {
    let project = Project::new(&["no", "yes"], |age| usize::from(age >= 30));
    project.write(
        "variants.toml",
        "[variants.current]\nlearning.retrain_after = 0\n\
         [variants.slow]\nlearning.tuning.trials = 10000\nlearning.tuning.time = \"1h\"\n",
    );
    let (variants, page) = (project.path("variants.toml"), project.path("replay.html"));
    let more = ["--table", "--variants", &variants, "--html", &page, "--log", "info"];
    let mut process = project.start(&more);
    until("the second variant trains", SOON, || {
        process.errors().contains("running a job of the learner").then_some(())
    });
    process.signal("INT");
    assert!(!process.end(SOON).success());
    assert!(process.errors().contains("stopped before the end"), "{}", process.errors());
    assert!(!Path::new(&page).exists());
    let output = process.output();
    assert!(output.contains("\ncurrent ") && !output.contains("\nslow"), "{output}");
}

#[test]
fn invalid_arguments_variants_and_tables_are_refused_before_anything_runs() {
    let project = Project::new(&["no", "yes"], |age| usize::from(age >= 30));
    let variants = project.path("variants.toml");
    let check = |text: &str, more: &[&str], expected: &str| {
        project.write("variants.toml", text);
        let error = project.error(&[&["--variants", &variants], more].concat());
        assert!(error.contains(expected) && !error.contains("panicked"), "{error}");
    };
    let table: &[&str] = &["--table"];
    check("[variants.x]\nlearning.last_ = 5", table, "variants.toml:2: variant x: there is no");
    check("[variants.x]\nhttp.bind = \"0:1\"", table, "a replay, which serves no HTTP");
    check("[variants.x]\ndata.initial.path = \"nowhere.csv\"", table, "variant x: ");
    check("[variants.x]\n", &["--table", "nowhere.csv"], "cannot open the data nowhere.csv");
    check("[variants.x]\n", &["--table", "--from", "7d"], "cannot be used with");
    check("[variants.x]\n", &["--limit", "5"], "--table");
    check("[variants.x]\n", &["--from", "yesterday"], "write `beginning`");
    check("[variants.x]\n", &["--from", "1d", "--until", "2d"], "it is not after --from");
    check("[variants.x]\n", &["--table", "--html", "/nowhere/x.html"], "there is no folder");
    let error = project.error(&["--table", "--variants", "nowhere.toml"]);
    assert!(error.contains("cannot read the variants nowhere.toml"), "{error}");
    project.write("play.csv", "who,at,age,job,label\n");
    assert!(project.error(table).contains("the table has no rows"));
}
