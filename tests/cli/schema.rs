//! `foretell schema` on files: from a change that somebody asks for to what it means, and what is refused.

use std::{fs, path::Path, time::Duration};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::process::{Process, at, example};

const PATIENCE: Duration = Duration::from_secs(30);

const FIRST: &str = r#"{
  "type": "record",
  "name": "Event",
  "doc": "A piece of a questionnaire.",
  "fields": [
    {"name": "who", "type": "string", "doc": "Who answers."},
    {"name": "gender", "type": ["null", "string"], "default": null, "doc": "Gender."},
    {"name": "age", "type": ["null", "int"], "default": null, "doc": "Age in years."}
  ]
}
"#;

/// A subject's folder with one released version.
fn subject(level: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("v1.avsc"), FIRST).unwrap();
    let digest = sha256(FIRST);
    let text = format!("compatibility = \"{level}\"\n\n[released]\nv1 = \"{digest}\"\n");
    fs::write(folder.path().join("subject.toml"), text).unwrap();
    folder
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(arguments: &[&str], folder: &Path, code: i32) -> (String, String) {
    let folder = folder.to_str().unwrap();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| if *argument == "FOLDER" { folder } else { argument })
        .collect();
    let mut process = Process::start(&arguments);
    let status = process.end(PATIENCE);
    let (output, errors) = (process.output(), process.errors());
    assert_eq!(status.code(), Some(code), "{arguments:?}: {output}{errors}");
    (output, errors)
}

fn tells(text: &str, words: &[&str]) {
    words.iter().for_each(|words| assert!(text.contains(words), "{words:?} in {text}"));
}

#[test]
fn a_questionnaire_evolves() {
    let folder = subject("FULL_TRANSITIVE");
    let path = folder.path();
    let evolve =
        ["schema", "evolve", "FOLDER", "--add", "smoker:boolean", "--rename", "gender=sex"];
    let (shown, _) = run(&[&evolve[..], &["--dry-run"]].concat(), path, 0);
    tells(&shown, &[r#"{"name": "sex", "aliases": ["gender"], "type": ["null", "string"]"#]);
    assert!(!path.join("v2.avsc").exists(), "a dry run writes nothing");

    let (told, _) = run(&evolve, path, 0);
    tells(
        &told,
        &[
            "sex: renamed, it was gender",
            "model: the same question",
            "smoker: added, null or boolean",
            "the next training learns from it",
            "readers and writers may be upgraded in any order",
            "v2.avsc is a draft",
        ],
    );
    let (told, _) = run(&["schema", "check", "FOLDER"], path, 1);
    tells(&told, &["FAILED", "docs: v2 has no \"doc\" for smoker"]);
    let describe = ["schema", "evolve", "FOLDER", "--doc", "smoker=Whether they smoke."];
    run(&describe, path, 0);
    assert!(!path.join("v3.avsc").exists(), "a draft is changed in its place");
    let (told, _) = run(&["schema", "check", "FOLDER"], path, 0);
    tells(&told, &["ok ", "2 versions, the newest a draft, FULL_TRANSITIVE"]);
}

#[test]
fn what_breaks_a_promise_is_refused() {
    let folder = subject("FULL");
    let path = folder.path();
    let refuse = |edit: &[&str], words: &[&str]| {
        let (_, errors) = run(&[&["schema", "evolve", "FOLDER"], edit].concat(), path, 1);
        tells(&errors, words);
        assert!(!path.join("v2.avsc").exists(), "nothing was written");
    };
    refuse(
        &["--retype", "age:string"],
        &["FULL does not allow this", "string is none of null or int"],
    );
    refuse(&["--remove", "who"], &["v1 can't read records of v2", "field who: it has no default"]);
    refuse(&["--remove", "wage"], &["there is no field wage; there are who, gender, age"]);
    refuse(&["--rename", "age=who"], &["there is a field who already"]);
    refuse(&["--add", "x:nonsense"], &["would not be a valid schema"]);
    refuse(&[], &["nothing is to be changed"]);
    let (_, errors) = run(&["schema", "evolve", "FOLDER", "--add", "x"], path, 2);
    tells(&errors, &["--add", "':'"]);
}

#[test]
fn what_was_changed_behind_its_back_is_reported() {
    let check = |change: &dyn Fn(&Path), words: &[&str]| {
        let folder = subject("BACKWARD");
        change(folder.path());
        let (told, errors) = run(&["schema", "check", "FOLDER"], folder.path(), 1);
        tells(&(told + &errors), words);
    };
    let write = |name: &'static str, text: String| {
        move |folder: &Path| fs::write(folder.join(name), &text).unwrap()
    };
    check(
        &write("v1.avsc", FIRST.replace("Age in", "Age, in")),
        &["released: v1 is not the file that was released"],
    );
    check(&write("v1.avsc", "{".to_owned()), &["v1.avsc is not a valid schema"]);
    check(&write("v3.avsc", FIRST.to_owned()), &["has no v2.avsc"]);
    check(&write("first.avsc", FIRST.to_owned()), &["first.avsc is no version"]);
    check(
        &write("subject.toml", "compatibility = \"SIDEWAYS\"".to_owned()),
        &["SIDEWAYS", "BACKWARD"],
    );
    check(&|folder| fs::remove_file(folder.join("v1.avsc")).unwrap(), &["has no v1.avsc"]);
    check(
        &|folder| fs::remove_file(folder.join("subject.toml")).unwrap(),
        &["holds no subject", "subject.toml"],
    );
    let string = FIRST.replace(r#"["null", "int"]"#, r#"["null", "string"]"#);
    check(
        &write("v2.avsc", string),
        &["compatibility: v2 can't read records of v1, against BACKWARD", "field age"],
    );
    check(
        &|folder| {
            fs::write(
                folder.join("v2.avsc"),
                FIRST.replace(r#""name": "age""#, r#""name": "years", "aliases": ["age"]"#),
            )
            .unwrap();
            fs::write(
                folder.join("v3.avsc"),
                FIRST.replace(r#""name": "age""#, r#""name": "years""#),
            )
            .unwrap();
        },
        &["aliases: v3: years: alias age removed", "released: v2 is older than the newest"],
    );
}

#[test]
fn a_type_is_renamed_with_an_alias_as_a_field_is() {
    let folder = subject("BACKWARD");
    let renamed = |second: &str| FIRST.replace(r#""name": "Event""#, second);
    fs::write(folder.path().join("v2.avsc"), renamed(r#""name": "Visit""#)).unwrap();
    let (told, errors) = run(&["schema", "check", "FOLDER"], folder.path(), 1);
    tells(&(told + &errors), &["compatibility: v2 can't read records of v1", "Event"]);
    let second = renamed(r#""name": "Visit", "aliases": ["Event"]"#);
    fs::write(folder.path().join("v2.avsc"), second).unwrap();
    run(&["schema", "check", "FOLDER"], folder.path(), 0);
    let (old, new) = (folder.path().join("v1.avsc"), folder.path().join("v2.avsc"));
    let diff = ["schema", "diff", old.to_str().unwrap(), new.to_str().unwrap()];
    let (told, _) = run(&diff, folder.path(), 0);
    tells(&told, &["the schema: type Event is now called Visit"]);
}

#[test]
fn a_difference_is_reported_to_people_and_to_programs() {
    let folder = subject("BACKWARD");
    let (old, new) = (folder.path().join("v1.avsc"), folder.path().join("new.json"));
    fs::write(
        &new,
        FIRST
            .replace(r#""name": "gender""#, r#""name": "sex""#)
            .replace(r#"["null", "int"], "default": null"#, r#""long""#),
    )
    .unwrap();
    let diff = ["schema", "diff", old.to_str().unwrap(), new.to_str().unwrap()];
    let (told, _) = run(&diff, folder.path(), 0);
    tells(
        &told,
        &[
            "age: null or int became long",
            "new readers can't read old records: null cannot be read as long",
            "old readers can't read new records: long is none of null or int",
            "model: the same kind of answer",
            "gender: removed, it was null or string",
            "hint: if sex is gender renamed, give it \"aliases\": [\"gender\"]",
            "neither reads the other: this takes another topic (allowed under NONE)",
        ],
    );
    let (told, _) = run(&[&diff[..], &["--json"]].concat(), folder.path(), 0);
    let json: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(*at(&json, "/levels"), serde_json::json!(["NONE"]));
    assert_eq!(at(&json, "/changes").as_array().unwrap().len(), 4);
    let (told, _) = run(&["schema", "diff", diff[2], diff[2]], folder.path(), 0);
    tells(&told, &["nothing is different"]);
    let (_, errors) = run(&["schema", "diff", "/nowhere.avsc", diff[2]], folder.path(), 1);
    tells(&errors, &["cannot read /nowhere.avsc"]);
}

#[test]
fn the_projects_own_schemas_are_in_order_and_nobody_answers_for_the_registry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (told, _) = run(&["schema", "check", "FOLDER", "--json"], &root.join("schemas"), 0);
    let report: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(*at(&report, "/ok"), Json::Bool(true));
    assert_eq!(at(&report, "/checks").as_array().unwrap().len(), 6);
    let nobody = ["--set", "schema_registry.url=http://127.0.0.1:1"];
    let (told, _) = run(&[&["schema", "check", "-c", example()], &nobody[..]].concat(), root, 1);
    tells(
        &told,
        &["ok       questionnaire-event", "FAILED   registry outcomes-value", "schema_registry"],
    );
    let (_, errors) =
        run(&[&["schema", "register", "-c", example()], &nobody[..]].concat(), root, 1);
    tells(
        &errors,
        &["error: cannot look up", "set [schema_registry] url", "not available just now"],
    );
}
