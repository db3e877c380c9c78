//! The worked example of recommendations: four labels, outcomes that upgrade, visitors who return, and a known truth.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::Value as Json;

use crate::process::{Process, SOON, at};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/recommendations/foretell.toml");
const LABELS: [&str; 4] = ["ignored", "liked", "basket", "bought"];
const ROWS: usize = 4_000;

fn generate(options: &[&str]) -> String {
    Process::start(&[&["generate", "recommendations"], options].concat()).succeed(SOON)
}

/// The settings of the worked example for tables in `folder`, which are smaller than those of `make recommendations`.
fn small_tables(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let rows = ROWS.to_string();
    let times = ["--from", "2026-01-01T00:00:00Z", "--every", "6s"];
    generate(&["--rows", "1500", "--seed", "1", "--output", &path("initial.csv")]);
    let stream = ["--rows", &rows, "--seed", "2", "--output", &path("stream.csv")];
    generate(&[&stream[..], &times].concat());
    vec![
        format!("data.initial.path={}", path("initial.csv")),
        format!("data.play.path={}", path("stream.csv")),
        "http.bind=127.0.0.1:0".to_owned(),
        "streams.commit_interval=20ms".to_owned(),
        "tuning.trials=1".to_owned(),
        "tuning.iterations_max=60".to_owned(),
        "learning.tuning.trials=0".to_owned(),
        "learning.retrain_after=800".to_owned(),
        "learning.judge.policy=always".to_owned(),
    ]
}

fn demo(settings: &[String]) -> Json {
    let mut arguments = vec!["demo", "--json", "--rate", "0", "-c", CONFIG];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = Process::start(&arguments).succeed(Duration::from_secs(300));
    serde_json::from_str(&output).expect("one object, and nothing else")
}

/// Rows of the table by their label.
fn labels_of(table: &Path) -> BTreeMap<String, u64> {
    let mut labels = BTreeMap::new();
    for line in fs::read_to_string(table).unwrap().lines().skip(1) {
        let label = line.rsplit(',').next().unwrap();
        *labels.entry(label.to_owned()).or_default() += 1;
    }
    labels
}

fn number_of(summary: &Json, key: &str) -> u64 {
    at(summary, key).as_u64().unwrap()
}

/// As a user runs it: generate, then the demo, which fails if a check of it fails.
#[test]
fn outcomes_upgrade_to_the_labels_of_the_table_and_models_come_close_to_its_truth() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = small_tables(folder.path());
    // Offers are made, and change nothing.
    settings.push("data.play.outcomes_if_acted=".to_owned());
    settings.push("data.play.skip=[\"outcomes_if_acted\"]".to_owned());
    let summary = demo(&settings);
    let checks = at(&summary, "/checks").as_array().unwrap();
    assert!(checks.iter().all(|check| check["ok"] == Json::Bool(true)), "{summary}");
    let upgraded = "corrections replaced labels before their examples were made";
    assert!(checks.iter().any(|check| check["name"] == upgraded), "{summary}");
    assert!(number_of(&summary, "/corrected") > 400, "{summary}");

    // Every outcome was joined with its prediction, and the highest one counts. Events that are not in the table were ignored.
    let expected = labels_of(&folder.path().join("stream.csv"));
    let classes = at(&summary, "/quality/classes").as_array().unwrap();
    assert_eq!(classes.len(), LABELS.len(), "{summary}");
    let mut others = number_of(&summary, "/quality/examples") - u64::try_from(ROWS).unwrap();
    assert!(others < 50, "{summary}");
    for (class, label) in classes.iter().zip(LABELS).rev() {
        assert_eq!(class["class"], label);
        let others = if label == "ignored" { std::mem::take(&mut others) } else { 0 };
        assert_eq!(class["support"].as_u64(), Some(expected[label] + others), "{label}: {summary}");
        assert!(class["auc"].as_f64().unwrap() > 0.6, "{label}: {summary}");
    }

    let confusion = at(&summary, "/quality/confusion").as_array().unwrap();
    let sum = |counts: &Json| counts.as_array().unwrap().iter().flat_map(Json::as_u64).sum::<u64>();
    let rows: Vec<u64> = confusion.iter().map(sum).collect();
    let support: Vec<u64> = classes.iter().flat_map(|class| class["support"].as_u64()).collect();
    assert_eq!(rows, support);

    assert_eq!(number_of(&summary, "/quality/truth/examples"), u64::try_from(ROWS).unwrap());
    let [first, found, best] = ["_first", "", "_best"].map(|of| {
        let number = |key: &str| at(&summary, &format!("/quality/truth/{key}{of}")).as_f64();
        (number("log_loss").unwrap(), number("auc").unwrap())
    });
    // Every model is promoted here, so those that served need not be better than the first.
    for (log_loss, auc) in [first, found] {
        assert!(best.0 < log_loss && log_loss < 1.2 * best.0, "{summary}");
        assert!(best.1 > auc && auc > 0.6, "{summary}");
    }
}

/// Outcomes depend on what the rule does, so its uplift is known.
#[test]
fn the_measured_uplift_of_the_offer_is_near_the_true_one() {
    let folder = tempfile::tempdir().unwrap();
    let summary = demo(&small_tables(folder.path()));
    let checks = at(&summary, "/checks").as_array().unwrap();
    assert!(checks.iter().all(|check| check["ok"] == Json::Bool(true)), "{summary}");
    let rule = at(&summary, "/actions/0");
    assert_eq!(rule["rule"], "offer");
    let count = |key: &str| rule[key].as_u64().unwrap();
    let (requested, held_out) = (count("requested"), count("held_out"));
    assert!(requested > 300 && held_out > 100 && count("cancelled") > 20, "{rule}");
    let share = held_out as f64 / (requested + held_out) as f64;
    assert!((0.2..0.4).contains(&share), "the control share is .3: {rule}");

    let bought = rule["labels"].as_array().unwrap().iter().find(|one| one["label"] == "bought");
    let bought = bought.unwrap();
    let number = |key: &str| bought.pointer(key).and_then(Json::as_f64).unwrap();
    let (low, high) = (number("/uplift/low"), number("/uplift/high"));
    let (found, truth) = (number("/uplift/difference"), number("/truth"));
    assert!(truth > 0.1, "{bought}");
    // The interval covers the truth in 95 of 100 cases; twice as wide, in all but one in ten thousand.
    assert!((found - truth).abs() < high - low, "{bought}");

    // The true probabilities are those without an offer, so predictions that led to one are not compared with them.
    // A few offers were for events that are not in the table.
    let acted = u64::try_from(ROWS).unwrap() - number_of(&summary, "/quality/truth/examples");
    assert!((count("examples_acted") - 50..=count("examples_acted")).contains(&acted), "{rule}");
}

/// With `conflict = "last"` a visitor who likes what they have bought is learned from as one who liked it.
#[test]
fn the_last_outcome_counts_if_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = small_tables(folder.path());
    settings.push("data.play.outcomes_if_acted=".to_owned());
    settings.push("data.play.skip=[\"outcomes_if_acted\"]".to_owned());
    settings.push("outcomes.conflict=last".to_owned());
    let summary = demo(&settings);
    let expected = labels_of(&folder.path().join("stream.csv"));
    let bought = number_of(&summary, "/quality/classes/3/support");
    assert!(bought > 0 && bought < expected["bought"], "{bought}: {summary}");
}

#[test]
fn invalid_columns_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let settings = small_tables(folder.path());
    let check_with = |more: &[&str], words: &[&str]| {
        let mut arguments = vec!["demo", "--json", "-c", CONFIG];
        let settings = settings.iter().map(String::as_str).chain(more.iter().copied());
        arguments.extend(settings.flat_map(|setting| ["--set", setting]));
        let mut process = Process::start(&arguments);
        assert!(!process.end(SOON).success(), "{more:?}");
        let errors = process.errors();
        for word in words {
            assert!(errors.contains(word), "{word:?} in {errors}");
        }
    };
    let check = |more: &str, words: &[&str]| check_with(&[more], words);
    check("data.play.truth=[\"p_liked\"]", &["data.play.truth", "1 columns", "4 labels"]);
    check("data.play.outcomes=steps", &["\"steps\"", "`outcomes`", "[data.play]"]);
    let unused = "data.play.skip=[\"outcomes\"]";
    check("data.play.outcomes=outcome", &["\"outcome\"", "`outcomes`", "name it once"]);
    check_with(
        &["data.play.outcomes=device", unused],
        &["line 2", "\"device\"", "liked after 12m"],
    );
}
