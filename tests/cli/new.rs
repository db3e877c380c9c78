//! `foretell new`: what it says and writes for real files, and the demo of what it wrote.

use std::{fs, path::Path, time::Duration};

use serde_json::Value as Json;

use crate::process::{Process, SOON, at};

const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/golden/new");

fn table(name: &str) -> Vec<u8> {
    fs::read(Path::new(TABLES).join(name)).unwrap()
}

/// Runs `foretell new` on a file in a new folder. Returns the folder, its output, and its output on standard error.
fn make(name: &str, bytes: &[u8], options: &[&str]) -> (tempfile::TempDir, Result<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, bytes).unwrap();
    let made = folder.path().join("made");
    let mut arguments = vec!["new", file.to_str().unwrap(), "--directory", made.to_str().unwrap()];
    arguments.extend(options);
    let mut process = Process::start(&arguments);
    let is_ok = process.end(SOON).success();
    let result = if is_ok { Ok(process.output()) } else { Err(process.errors()) };
    (folder, result)
}

/// What is said and written, with the first rows of the tables.
fn made(name: &str, bytes: &[u8], options: &[&str]) -> String {
    let (folder, output) = make(name, bytes, options);
    let output = output.unwrap().replace(&*folder.path().to_string_lossy(), "");
    let mut text = output + "\n";
    let files = ["foretell.toml", "schemas/made/v1.avsc", "schemas/made/subject.toml", "README.md"];
    let read = |file: &str| fs::read_to_string(folder.path().join("made").join(file)).unwrap();
    for file in files {
        text += &format!("\n===== {file}\n{}", read(file));
    }
    for file in ["data/initial.csv", "data/play.csv"] {
        let rows: Vec<String> = read(file).lines().take(4).map(str::to_owned).collect();
        text += &format!("\n===== {file}\n{}\n", rows.join("\n"));
    }
    text
}

/// The penguins as a German spreadsheet saves them.
fn german() -> Vec<u8> {
    let text = String::from_utf8(table("penguins.csv")).unwrap();
    let mut out = "Art;Insel;Schnabellänge (mm);Schnabelhöhe (mm);Flossenlänge (mm);Gewicht [g];Männlich;Gezählt am\n".to_owned();
    for (number, line) in text.lines().skip(1).enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| if *cell == "NA" { "" } else { cell }.replace('.', ","))
            .collect();
        let [species, island, length, depth, flipper, mass, sex, year] = &cells[..] else {
            panic!("{line}");
        };
        let male = match sex.as_str() {
            "male" => "ja",
            "female" => "nein",
            other => other,
        };
        let day = format!("{}.{}.{year}", number % 28 + 1, number % 12 + 1);
        out += &format!("{species};{island};{length};{depth};{flipper};{mass};{male};{day}\n");
    }
    // The code points below 256 are the bytes of Windows-1252, as far as they are used here.
    let out = out.replace('\n', "\r\n");
    out.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect()
}

fn check(name: &str, snapshot: &str, bytes: &[u8], options: &[&str]) {
    let text = made(name, bytes, options);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden/new");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(snapshot, text));
}

#[test]
fn penguins() {
    check("penguins.csv", "penguins", &table("penguins.csv"), &["--label", "species"]);
}

#[test]
fn iris_has_no_names_and_is_sorted() {
    check("iris.csv", "iris", &table("iris.csv"), &["--label", "5"]);
}

#[test]
fn weather_has_event_times() {
    check("weather.csv", "weather", &table("seattle-weather.csv"), &["--label", "weather"]);
}

#[test]
fn a_german_spreadsheet() {
    check("pinguine.csv", "german", &german(), &["--label", "Art"]);
}

#[test]
fn the_summary_is_one_object() {
    let (folder, output) =
        make("penguins.csv", &table("penguins.csv"), &["--label", "species", "--json"]);
    let summary: Json =
        serde_json::from_str(&output.unwrap()).expect("one object, and nothing else");
    assert_eq!(at(&summary, "/rows"), 344);
    assert_eq!(at(&summary, "/columns/2/type"), "decimal number");
    assert_eq!(at(&summary, "/labels/0/label"), "Adelie");
    for path in at(&summary, "/written").as_array().unwrap() {
        assert!(Path::new(path.as_str().unwrap()).is_file(), "{path}");
    }
    drop(folder);
}

#[test]
fn mistakes_are_explained() {
    let check = |options: &[&str], words: &[&str]| {
        let (folder, output) = make("penguins.csv", &table("penguins.csv"), options);
        let errors = output.unwrap_err();
        for word in words {
            assert!(errors.contains(word), "{word:?} in {errors}");
        }
        assert!(!folder.path().join("made").exists(), "nothing is written");
    };
    check(&[], &["--label \"sex\"", "--label \"species\"", "\"Adelie\""]);
    check(&["--label", "bill_length"], &["Did you mean \"bill_length_mm\"?", "island"]);
    check(&["--label", "bill_length_mm"], &["a quantity", "classes"]);
    check(&["--label", "species", "--delimiter", "x"], &["--delimiter"]);
    check(&["--label", "species", "--encoding", "klingon"], &["klingon", "windows-1252"]);
    check(&["--label", "species", "--ignore", "nothing"], &["--ignore", "\"nothing\""]);
}

/// As a user does it: new, then the demo of what was written.
fn demo(name: &str, bytes: &[u8], options: &[&str]) -> Json {
    let (folder, output) = make(name, bytes, options);
    let output = output.unwrap();
    let config = folder.path().join("made/foretell.toml").display().to_string();
    assert!(output.contains(&format!("next: foretell demo --config {config}")), "{output}");
    let settings = [
        "http.bind=127.0.0.1:0",
        "tuning.trials=1",
        "tuning.iterations_max=20",
        "learning.tuning.trials=0",
        "streams.commit_interval=20ms",
        "topics.partitions=2",
    ];
    let mut arguments = vec!["demo", "--json", "--rate", "0", "--config", &config];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = Process::start(&arguments).succeed(Duration::from_secs(300));
    let summary: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    let failed: Vec<&Json> = at(&summary, "/checks").as_array().unwrap().iter().collect();
    assert!(failed.iter().all(|check| check["ok"] != Json::Bool(false)), "{summary}");
    assert_eq!(at(&summary, "/rows_not_scored"), &serde_json::json!({}), "{summary}");
    assert!(at(&summary, "/retrainings").as_u64() >= Some(1), "{summary}");
    summary
}

#[test]
fn the_demo_runs_on_what_is_written() {
    let summary = demo("pinguine.csv", &german(), &["--label", "Art"]);
    assert!(at(&summary, "/scored").as_u64() >= Some(103), "{summary}");
}

#[test]
fn the_demo_scores_each_of_several_rows_of_a_respondent_on_one_day() {
    let rows = (0..200).map(|row| {
        let label = if row * 7 % 10 < 4 { "yes" } else { "no" };
        format!("c{},2026-05-{:02},{},{label}\n", row % 7, row / 20 + 1, row * row % 17)
    });
    let text = format!("who,day,x,out\n{}", rows.collect::<String>());
    let options = ["--label", "out", "--respondent-id", "who"];
    let summary = demo("visits.csv", text.as_bytes(), &options);
    assert!(at(&summary, "/scored").as_u64() >= Some(60), "{summary}");
}

#[test]
fn the_demo_runs_on_a_small_file_that_is_sorted_by_the_label() {
    demo("iris.csv", &table("iris.csv"), &["--label", "5"]);
}
