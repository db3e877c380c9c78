//! `foretell generate`, and the worked example of a stream whose truth changes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value as Json;

use crate::process::{Process, SOON, at};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/drift/foretell.toml");

fn generate(arguments: &[&str]) -> String {
    Process::start(&[&["generate", "agrawal"], arguments].concat()).succeed(SOON)
}

fn refuse(arguments: &[&str]) -> String {
    let mut process = Process::start(&[&["generate", "agrawal"], arguments].concat());
    let status = process.end(SOON);
    assert!(!status.success(), "{arguments:?}: {}", process.output());
    process.errors()
}

#[test]
fn the_same_seed_gives_the_same_table_in_a_file_as_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let file = path.to_str().unwrap();
    let options = ["--rows", "50", "--seed", "3", "--from", "2026-01-01T00:00:00Z"];
    let printed = generate(&options);
    let mut lines = printed.lines();
    let header =
        "applicant_id,event_time,salary,commission,age,elevel,car,zipcode,hvalue,hyears,loan,group";
    assert_eq!(lines.next(), Some(header));
    assert!(lines.next().unwrap().starts_with("3-0,2026-01-01T00:00:00.000Z,"), "{printed}");
    assert_eq!(lines.count(), 49);
    assert_eq!(generate(&[&options[..], &["--output", file]].concat()), "");
    assert_eq!(fs::read_to_string(&path).unwrap(), printed);
    assert_ne!(generate(&["--rows", "50", "--seed", "4"]), generate(&["--rows", "50"]));
    let errors = refuse(&["--output", file]);
    assert!(errors.contains("rows.csv exists") && errors.contains("--force"), "{errors}");
    assert_eq!(fs::read_to_string(&path).unwrap(), printed, "it is unchanged");
    generate(&["--rows", "2", "--output", file, "--force"]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[test]
fn a_change_is_at_a_row_or_a_share_of_the_rows() {
    let labels = |options: &[&str]| -> Vec<String> {
        let text = generate(&[&["--rows", "400"], options].concat());
        text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().to_owned()).collect()
    };
    let (old, new) = (labels(&["--function", "0"]), labels(&["--function", "2"]));
    let changed = labels(&["--to", "2", "--change-at", "300"]);
    assert_eq!(changed[..300], old[..300]);
    assert_eq!(changed[300..], new[300..]);
    assert_eq!(labels(&["--to", "2", "--change-at", "75%"]), changed);
    let gradual = labels(&["--to", "2", "--change-at", "75%", "--width", "10%"]);
    assert!(gradual != changed && gradual[..100] == old[..100]);
}

#[test]
fn invalid_options_are_refused() {
    let check = |arguments: &[&str], words: &[&str]| {
        let errors = refuse(arguments);
        for word in words {
            assert!(errors.contains(word), "{word:?} in {errors}");
        }
    };
    check(&["--function", "10"], &["--function", "10 is not in 0..10"]);
    check(&["--change-at", "5"], &["--to"]);
    check(&["--to", "2", "--change-at", "120%"], &["a share of 0% to 100%"]);
    check(&["--noise", "-0.1"], &["a share of 0 to 1"]);
    check(&["--rows", "0"], &["--rows"]);
    check(&["--every", "1m"], &["--from"]);
    check(&["--from", "yesterday"], &["2026-01-01T00:00:00Z"]);
    check(&["--from", "9999-12-31T23:59:59Z", "--every", "1h"], &["after the year 9999"]);
    check(&["--output", "/nowhere/at/all.csv"], &["cannot write /nowhere/at/all.csv"]);
    check(&["--force"], &["--output"]);
}

#[test]
fn a_reader_may_take_the_first_rows_only() {
    let command =
        format!("{} generate agrawal --rows 1000000 | head -n 2", env!("CARGO_BIN_EXE_foretell"));
    // pipefail: the status of `generate` counts, too.
    let mut bash = Command::new("bash");
    bash.args(["-o", "pipefail", "-c", &command]).stdin(Stdio::null());
    let mut process = Process::spawn("generate | head".to_owned(), bash);
    let status = process.end(SOON);
    assert!(status.success() && process.errors().is_empty(), "{status} {}", process.errors());
    assert_eq!(process.output().lines().count(), 2);
}

#[test]
fn ctrl_c_leaves_no_half_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let rows = u64::MAX.to_string();
    let arguments = ["generate", "agrawal", "--rows", &rows, "--output", path.to_str().unwrap()];
    let mut process = Process::start(&arguments);
    crate::process::until("some rows are written", SOON, || {
        let part = fs::metadata(folder.path().join("rows.csv.part")).ok()?;
        (part.len() > 0).then_some(())
    });
    process.signal("INT");
    assert!(!process.end(SOON).success());
    assert!(process.errors().contains("stopped before the end"), "{}", process.errors());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The settings of the worked example for tables in `folder`, which are smaller than those of `make drift`.
fn small_tables(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let tables: [(&str, &[&str]); 3] = [
        ("initial.csv", &["--rows", "1000", "--seed", "1"]),
        ("oracle.csv", &["--rows", "1000", "--seed", "3", "--function", "2"]),
        (
            "stream.csv",
            &[
                "--rows",
                "5000",
                "--seed",
                "2",
                "--to",
                "2",
                "--change-at",
                "30%",
                "--from",
                "2026-01-01T00:00:00Z",
                "--every",
                "1m",
            ],
        ),
    ];
    for (name, options) in tables {
        generate(&[options, &["--noise", "0.1", "--output", &path(name)]].concat());
    }
    vec![
        format!("data.initial.path={}", path("initial.csv")),
        format!("data.play.path={}", path("stream.csv")),
        "http.bind=127.0.0.1:0".to_owned(),
        "streams.commit_interval=20ms".to_owned(),
        "tuning.trials=1".to_owned(),
        "tuning.iterations_max=60".to_owned(),
        "learning.tuning.trials=0".to_owned(),
        "learning.retrain_after=400".to_owned(),
        "learning.last=800".to_owned(),
    ]
}

fn demo(settings: &[String]) -> Json {
    let mut arguments = vec!["demo", "--json", "--rate", "0", "-c", CONFIG];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = Process::start(&arguments).succeed(Duration::from_secs(300));
    serde_json::from_str(&output).expect("one object, and nothing else")
}

/// As a user runs it: generate, then the demo, which fails if a check of it fails.
#[test]
fn the_example_of_drift_learns_the_new_truth() {
    let folder = tempfile::tempdir().unwrap();
    let summary = demo(&small_tables(folder.path()));
    let failed: Vec<&Json> = at(&summary, "/checks").as_array().unwrap().iter().collect();
    assert!(failed.iter().all(|check| check["ok"] != Json::Bool(false)), "{summary}");
    assert_eq!(at(&summary, "/rows_not_scored"), &serde_json::json!({}), "{summary}");
    let decisions = at(&summary, "/decisions");
    let decisions = decisions.as_array().unwrap();
    assert!(decisions.iter().any(|decision| decision["outcome"] == "promoted"), "{summary}");
    // A model of the old truth has a log loss above .9 on the new one; with one wrong label in ten, none is below .33.
    let last = at(&summary, "/log_loss_last").as_f64().unwrap();
    assert!(last < 0.6, "{last}: {summary}");
}

/// As a user runs it: generate, then replay the variants. After three times as many labels as a training waits for, the champion
/// is as good as a model of the new truth alone, and the first model is not.
#[test]
fn the_champion_of_the_example_catches_up_with_an_oracle() {
    const CHANGE: u64 = 2_000;
    const CAUGHT_UP: u64 = CHANGE + 3 * 1_000;
    let folder = tempfile::tempdir().unwrap();
    for name in ["foretell.toml", "loan-application.avsc", "variants.toml"] {
        fs::copy(Path::new(CONFIG).with_file_name(name), folder.path().join(name)).unwrap();
    }
    let path = |name: &str| folder.path().join(name).display().to_string();
    let table = |name: &str, options: &[&str]| {
        generate(&[options, &["--noise", "0.1", "--output", &path(name)]].concat());
    };
    let times = ["--from", "2026-01-01T00:00:00Z", "--every", "1m"];
    let change = ["--to", "2", "--change-at", &CHANGE.to_string()];
    table("initial.csv", &["--rows", "2000", "--seed", "1"]);
    table("stream.csv", &[&["--rows", "8000", "--seed", "2"], &change[..], &times[..]].concat());
    table("oracle.csv", &["--rows", "2000", "--seed", "3", "--function", "2"]);
    let (config, variants) = (path("foretell.toml"), path("variants.toml"));
    let arguments = ["replay", "-c", &config, "--variants", &variants, "--table", "--json"];
    let output = Process::start(&arguments).succeed(Duration::from_secs(900));
    let report: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    let log_loss = |name: &str| {
        let variants = report["variants"].as_array().unwrap();
        let variant = variants.iter().find(|variant| variant["name"] == name).unwrap();
        let (mut before, mut labels, mut sum) = (0, 0, 0.0);
        for window in variant["windows"].as_array().unwrap() {
            let of_window = window["labels"].as_u64().unwrap();
            if before >= CAUGHT_UP {
                labels += of_window;
                sum += window["log_loss"].as_f64().unwrap() * of_window as f64;
            }
            before += of_window;
        }
        assert!(labels > 1_000, "{name}: {variant}");
        sum / labels as f64
    };
    let oracle = log_loss("oracle");
    assert!(log_loss("current") < 1.05 * oracle, "{} {oracle}", log_loss("current"));
    assert!(log_loss("frozen") > 2.0 * oracle, "{} {oracle}", log_loss("frozen"));
    assert!(log_loss("always") < 1.5 * oracle, "{} {oracle}", log_loss("always"));
}
