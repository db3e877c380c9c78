//! `foretell tune` on the worked example.

use std::fs;

use crate::process::{Process, SOON, example, quick_settings, until};

/// The arguments of a small comparison, and more of them.
fn arguments<'a>(settings: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["tune", "-c", example()];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    arguments.extend(more);
    arguments
}

fn small(folder: &tempfile::TempDir) -> Vec<String> {
    let mut settings = quick_settings(folder.path(), 800);
    settings.extend(["tuning.iterations_max=20".to_owned(), "tuning.folds=3".to_owned()]);
    settings
}

#[test]
fn samplers_are_compared_without_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, page) = (small(&folder), folder.path().join("samplers.html"));
    let more = ["--samplers", "gp,random", "--trials", "6", "--html", page.to_str().unwrap()];
    let output = Process::start(&arguments(&settings, &more)).succeed(SOON);
    let mut lines = output.lines();
    let title = "best log_loss by number of trials (lower is better; mean of 3 folds)";
    assert_eq!(lines.next(), Some(title), "{output}");
    let head: Vec<&str> = lines.nth(1).unwrap().split_whitespace().collect();
    assert_eq!(head, ["sampler", "1", "5", "6", "pruned", "failed", "seconds"], "{output}");
    let values = |output: &str, sampler: &str| -> Vec<f64> {
        let row = output.lines().find(|line| line.starts_with(sampler)).unwrap();
        row.split_whitespace().skip(1).take(3).map(|cell| cell.parse().unwrap()).collect()
    };
    for sampler in ["gp ", "random "] {
        let values = values(&output, sampler);
        assert!(values.is_sorted_by(|a, b| a >= b), "the best only gets better: {output}");
        assert!(values[0] > 0.2 && values[0] < 0.6, "{output}");
    }
    assert!(output.contains("best parameters: trial ") && !output.contains("tpe"), "{output}");
    let html = fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<svg").count(), 2, "by trials and by seconds");
    // The same seed gives the same trials, and trial 0 is the same for each sampler.
    let again = Process::start(&arguments(&settings, &more)).succeed(SOON);
    assert_eq!(values(&again, "gp "), values(&output, "gp "));
    assert_eq!(values(&again, "random ")[0].to_bits(), values(&output, "gp ")[0].to_bits());
}

#[test]
fn any_parameter_and_any_objective_can_be_set() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = small(&folder);
    settings.extend([
        "tuning.space.boosting=dart".to_owned(),
        "tuning.space.max_depth={ int = [2, 4] }".to_owned(),
        "tuning.space.extra_trees={ choice = [true] }".to_owned(),
        "tuning.objective=auc".to_owned(),
        "tuning.order=time".to_owned(),
    ]);
    let more = ["--samplers", "tpe", "--trials", "2"];
    let output = Process::start(&arguments(&settings, &more)).succeed(SOON);
    assert!(output.starts_with("best auc by number of trials (higher is better"), "{output}");
    for line in ["\n  max_depth = ", "\n  boosting = \"dart\"", "\n  extra_trees = true"] {
        assert!(output.contains(line), "{line:?} in {output}");
    }
}

#[test]
fn ctrl_c_shows_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let settings = small(&folder);
    let more = ["--trials", "10000", "--log", "info"];
    let process = Process::start(&arguments(&settings, &more));
    until("two trials are finished", SOON, || {
        (process.errors().matches("finished a trial").count() >= 2).then_some(())
    });
    process.signal("INT");
    let output = process.succeed(SOON);
    assert!(output.contains("best parameters: trial ") && output.contains("\ntpe "), "{output}");
    assert!(!output.contains("\nrandom "), "the comparison ended with the first: {output}");
}

#[test]
fn invalid_arguments_and_parameters_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = small(&folder);
    let check = |more: &[&str], expected: &[&str]| {
        let mut process = Process::start(&arguments(&settings, more));
        let status = process.end(SOON);
        let errors = process.errors();
        assert!(!status.success() && process.output().is_empty(), "{}", process.output());
        for words in expected {
            assert!(errors.contains(words), "{words:?} in {errors}");
        }
        assert!(!errors.contains("panicked"), "{errors}");
    };
    check(&["--samplers", "hyperopt"], &["hyperopt", "there are tpe, gp, random"]);
    check(&["--samplers", "gp,random,gp"], &["--samplers: gp is repeated"]);
    check(&["--trials", "0"], &["a whole number, 1 or more"]);
    check(&["--html", "/nowhere/at/all.html"], &["--html: there is no folder /nowhere/at"]);
    let set = |setting: &str, expected: &[&str]| check(&["--set", setting], expected);
    set(
        "tuning.space.objective=rmse",
        &["[tuning.space] objective: it cannot be searched", "labels"],
    );
    set("tuning.space.linear_tree=true", &["scoring does not support linear leaves"]);
    set("tuning.space.eta=0.1", &["[tuning.space] eta: name it learning_rate"]);
    set("tuning.space.num_leave=7", &["did you mean [tuning.space] num_leaves?"]);
    set("tuning.space.boosting=rf", &["[tuning.space] boosting", "rf is not gbdt or dart"]);
    set("tuning.space.max_depth={ int = [3, 99] }", &["max_depth is 99, not 3 to 64"]);
    set("tuning.space.max_depth={ int = [9, 3] }", &["max_depth", "a range from 9 to 3"]);
    set("tuning.space.max_depth={ uniform = [9, 3] }", &["max_depth", "a range from 9 to 3"]);
    set(
        "tuning.space.max_depth={ normal = [3, 9] }",
        &["[tuning.space.max_depth] normal: unknown field", "`choice`"],
    );
    set(
        "learning.tuning.space.max_bin={ int = [3, 9] }",
        &["[learning.tuning.space] max_bin", "up to 4"],
    );
    set("learning.tuning.folds=1", &["[learning.tuning] folds", "at least 2"]);
    set("learning.tuning.every=0", &["[learning.tuning] every", "at least 1"]);
    set("tuning.sampler=grid", &["[tuning] sampler", "grid", "tpe"]);
}

/// If LightGBM refuses some combinations, the others are compared.
#[test]
fn trials_that_lightgbm_refuses_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = small(&folder);
    settings
        .push("tuning.space.data_sample_strategy={ choice = [\"bagging\", \"goss\"] }".to_owned());
    let more = ["--samplers", "random", "--trials", "8"];
    let output = Process::start(&arguments(&settings, &more)).succeed(SOON);
    assert!(output.contains("LightGBM refused parameters of some trials: "), "{output}");
    assert!(output.contains("Cannot use bagging in GOSS"), "{output}");
}
