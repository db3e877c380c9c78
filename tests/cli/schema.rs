//! `foretell schema` on files: how a schema evolves, what a change means, and what is refused.

use std::{fs, path::Path, time::Duration};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::process::{Process, at, example};

const WITHIN: Duration = Duration::from_secs(30);

const FIRST: &str = r#"{
  "type": "record",
  "name": "Event",
  "doc": "A piece of a questionnaire.",
  "fields": [
    {"name": "who", "type": "string", "doc": "Id of the respondent."},
    {"name": "gender", "type": ["null", "string"], "default": null, "doc": "Gender."},
    {"name": "age", "type": ["null", "int"], "default": null, "doc": "Age in years."}
  ]
}
"#;

/// A folder of a subject with one released version.
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
    hex::encode(sha2::Sha256::digest(text))
}

fn run(arguments: &[&str], folder: &Path, code: i32) -> (String, String) {
    let folder = folder.to_str().unwrap();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| if *argument == "FOLDER" { folder } else { argument })
        .collect();
    let mut process = Process::start(&arguments);
    let status = process.end(WITHIN);
    let (output, errors) = (process.output(), process.errors());
    assert_eq!(status.code(), Some(code), "{arguments:?}: {output}{errors}");
    (output, errors)
}

fn assert_contains(text: &str, words: &[&str]) {
    words.iter().for_each(|words| assert!(text.contains(words), "{words:?} in {text}"));
}

#[test]
fn fields_are_added_and_renamed() {
    let folder = subject("FULL_TRANSITIVE");
    let path = folder.path();
    let evolve =
        ["schema", "evolve", "FOLDER", "--add", "smoker:boolean", "--rename", "gender=sex"];
    let (shown, explained) = run(&[&evolve[..], &["--dry-run"]].concat(), path, 0);
    assert_contains(&explained, &["smoker: added, null or boolean", "--doc smoker="]);
    assert_contains(
        &shown,
        &[r#"{"name": "sex", "aliases": ["gender"], "type": ["null", "string"]"#],
    );
    assert!(!path.join("v2.avsc").exists(), "a dry run writes nothing");

    let (output, _) = run(&evolve, path, 0);
    assert_contains(
        &output,
        &[
            "sex: renamed, it was gender",
            "model: the same question",
            "smoker: added, null or boolean",
            "the next training learns from it",
            "readers and writers may be upgraded in any order",
            "v2.avsc is a draft",
        ],
    );
    let (output, _) = run(&["schema", "check", "FOLDER"], path, 1);
    assert_contains(&output, &["FAILED", "docs: v2 has no \"doc\" for smoker"]);
    let describe = ["schema", "evolve", "FOLDER", "--doc", "smoker=Whether they smoke."];
    run(&describe, path, 0);
    assert!(!path.join("v3.avsc").exists(), "a draft is changed in its place");
    let (output, _) = run(&["schema", "check", "FOLDER"], path, 0);
    assert_contains(&output, &["ok ", "2 versions, the newest a draft, FULL_TRANSITIVE"]);
}

#[test]
fn a_change_that_the_level_forbids_is_refused() {
    let folder = subject("FULL");
    let path = folder.path();
    let refuse = |edit: &[&str], words: &[&str]| {
        let (_, errors) = run(&[&["schema", "evolve", "FOLDER"], edit].concat(), path, 1);
        assert_contains(&errors, words);
        assert!(!path.join("v2.avsc").exists(), "nothing was written");
    };
    refuse(
        &["--retype", "age:string"],
        &["FULL does not allow this", "string is none of null or int"],
    );
    refuse(&["--remove", "who"], &["v1 cannot read records of v2", "field who: it has no default"]);
    refuse(
        &["--remove", "wage"],
        &["there is no field wage (did you mean age?); there are who, gender, age"],
    );
    refuse(&["--rename", "age=who"], &["there is a field who already"]);
    refuse(&["--add", "x:nonsense"], &["would not be a valid schema"]);
    refuse(&[], &["there is nothing to change"]);
    let (_, errors) = run(&["schema", "evolve", "FOLDER", "--add", "x"], path, 2);
    assert_contains(&errors, &["--add", "':'"]);
}

#[test]
fn invalid_folders_are_reported() {
    let check = |change: &dyn Fn(&Path), words: &[&str]| {
        let folder = subject("BACKWARD");
        change(folder.path());
        let (output, errors) = run(&["schema", "check", "FOLDER"], folder.path(), 1);
        assert_contains(&(output + &errors), words);
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
        &["compatibility: v2 cannot read records of v1, as BACKWARD requires", "field age"],
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
    let (output, errors) = run(&["schema", "check", "FOLDER"], folder.path(), 1);
    assert_contains(&(output + &errors), &["compatibility: v2 cannot read records of v1", "Event"]);
    let second = renamed(r#""name": "Visit", "aliases": ["Event"]"#);
    fs::write(folder.path().join("v2.avsc"), second).unwrap();
    run(&["schema", "check", "FOLDER"], folder.path(), 0);
    let (old, new) = (folder.path().join("v1.avsc"), folder.path().join("v2.avsc"));
    let diff = ["schema", "diff", old.to_str().unwrap(), new.to_str().unwrap()];
    let (output, _) = run(&diff, folder.path(), 0);
    assert_contains(&output, &["the schema: type Event is now called Visit"]);
}

#[test]
fn a_difference_is_shown_as_text_and_as_json() {
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
    let (output, _) = run(&diff, folder.path(), 0);
    assert_contains(
        &output,
        &[
            "age: null or int became long",
            "new readers cannot read old records: null cannot be read as long",
            "old readers cannot read new records: long is none of null or int",
            "model: the same kind of answer",
            "gender: removed, it was null or string",
            "hint: if sex is gender renamed, give it \"aliases\": [\"gender\"]",
            "incompatible in both directions: use a new topic (allowed under NONE)",
        ],
    );
    let (output, _) = run(&[&diff[..], &["--json"]].concat(), folder.path(), 0);
    let json: Json = serde_json::from_str(&output).unwrap();
    assert_eq!(*at(&json, "/levels"), serde_json::json!(["NONE"]));
    assert_eq!(at(&json, "/changes").as_array().unwrap().len(), 4);
    let (output, _) = run(&["schema", "diff", diff[2], diff[2]], folder.path(), 0);
    assert_contains(&output, &["the schemas are the same"]);
    let (_, errors) = run(&["schema", "diff", "/nowhere.avsc", diff[2]], folder.path(), 1);
    assert_contains(&errors, &["cannot read /nowhere.avsc"]);
}

const TOML: &str = r#"
    [application]
    id = "app"
    [broker]
    bootstrap_servers = "localhost:1"
    [schema_registry]
    url = "http://localhost:1"
    [events]
    schema = "v1.avsc"
    respondent_id = "who"
    event_time = "at"
    [outcomes]
    labels = ["no", "yes"]
"#;

/// A folder with the event schema of a configuration, which is in it too.
fn event_subject() -> TempDir {
    let folder = subject("BACKWARD");
    let at = r#"{"name": "at", "type": "long", "doc": "Time of the event."}"#;
    let first = FIRST.replace("  \"fields\": [\n", &format!("  \"fields\": [\n    {at},\n"));
    fs::write(folder.path().join("v1.avsc"), first).unwrap();
    fs::write(folder.path().join("foretell.toml"), TOML).unwrap();
    release(folder.path(), &["v1"]);
    folder
}

/// Marks versions as released.
fn release(folder: &Path, versions: &[&str]) {
    let digests = versions.iter().map(|version| {
        let text = fs::read_to_string(folder.join(format!("{version}.avsc"))).unwrap();
        format!("{version} = \"{}\"\n", sha256(&text))
    });
    let text =
        format!("compatibility = \"BACKWARD\"\n\n[released]\n{}", digests.collect::<String>());
    fs::write(folder.join("subject.toml"), text).unwrap();
}

#[test]
fn a_kind_that_changes_is_refused_before_anything_is_registered() {
    let folder = event_subject();
    let path = folder.path();
    let config = path.join("foretell.toml");
    let config = ["-c", config.to_str().unwrap()];
    let retype = ["schema", "evolve", "FOLDER", "--retype", "age:double"];
    let refusal = "the answers to age have type long in v1 and double in v2";
    let fix = "add one with another name, and remove the old one";
    let (_, errors) = run(&[&retype[..], &config].concat(), path, 1);
    assert_contains(&errors, &["nothing was written", refusal, fix]);
    let (_, dry) = run(&[&retype[..], &config, &["--dry-run"]].concat(), path, 1);
    assert_eq!(dry, errors, "a dry run refuses what a run refuses");
    assert!(!path.join("v2.avsc").exists());
    // Metadata are not answers.
    let (_, errors) =
        run(&["schema", "evolve", "FOLDER", "--retype", "at:string", "--dry-run"], path, 1);
    assert_contains(&errors, &["does not allow this; nothing was written"]);
    assert!(!errors.contains("labelled-examples refuse"), "{errors}");

    // Without a configuration it is not known what is a question.
    let (output, _) = run(&retype, path, 0);
    assert_contains(
        &output,
        &[
            "age: null or int became null or double",
            "predictions and labelled-examples refuse it",
            refusal,
            fix,
        ],
    );
    let check = ["schema", "check", "FOLDER"];
    let (output, _) = run(&check, path, 0);
    assert_contains(&output, &["warning  ", "answers: if age is a question, ", refusal, "(-c)"]);
    let (output, _) = run(&[&check[..], &config].concat(), path, 1);
    assert_contains(
        &output,
        &["FAILED   ", refusal, "predictions and labelled-examples refuse", fix],
    );
    let (_, errors) = run(&[&["schema", "register"], &config[..]].concat(), path, 1);
    assert_contains(&errors, &["nothing was registered", refusal]);

    let (old, new) = (path.join("v1.avsc"), path.join("v2.avsc"));
    let diff = ["schema", "diff", old.to_str().unwrap(), new.to_str().unwrap()];
    let (output, _) = run(&diff, path, 0);
    assert_contains(
        &output,
        &["refuse it: the answers to age have type long in the old schema", fix],
    );
    let (output, _) = run(&[&diff[..], &["--json"]].concat(), path, 0);
    let json: Json = serde_json::from_str(&output).unwrap();
    assert!(at(&json, "/changes/0/answers").as_str().unwrap().contains(fix), "{json}");
    let (output, _) = run(&[&diff[..], &["--no-model"]].concat(), path, 0);
    assert!(!output.contains("predictions"), "{output}");

    // What was released cannot be changed any more.
    release(path, &["v1", "v2"]);
    let (output, _) = run(&[&check[..], &config].concat(), path, 0);
    assert_contains(&output, &["warning  ", refusal, "`foretell schema check` (without folders)"]);
}

#[test]
fn a_question_that_was_removed_comes_back_with_its_kind_only() {
    let folder = event_subject();
    let path = folder.path();
    let config = path.join("foretell.toml");
    let evolve = ["schema", "evolve", "FOLDER", "-c", config.to_str().unwrap()];
    run(&[&evolve[..], &["--remove", "age"]].concat(), path, 0);
    release(path, &["v1", "v2"]);
    let (_, errors) = run(&[&evolve[..], &["--add", "age:string"]].concat(), path, 1);
    assert_contains(&errors, &["the answers to age have type long in v1 and string in v3"]);
    run(&[&evolve[..], &["--add", "age:long", "--doc", "age=Age in years."]].concat(), path, 0);
    run(&["schema", "check", "FOLDER", "-c", config.to_str().unwrap()], path, 0);
}

#[test]
fn the_schema_of_a_topic_is_printed() {
    let folder = event_subject();
    let config = folder.path().join("foretell.toml");
    let show = ["schema", "show", "-c", config.to_str().unwrap()];
    let (output, _) = run(&[&show[..], &["predictions"]].concat(), folder.path(), 0);
    let schema: Json = serde_json::from_str(&output).unwrap();
    let answers = schema["fields"].as_array().unwrap().last().unwrap();
    assert_eq!(at(answers, "/type/fields/0/name"), "gender");
    assert_eq!(*at(answers, "/type/fields/1/type"), serde_json::json!(["null", "long"]));
    assert_eq!(at(answers, "/type/fields/1/doc"), "Age in years.");
    let (_, errors) = run(&[&show[..], &["replies"]].concat(), folder.path(), 1);
    assert_contains(&errors, &["no topic replies has records with a schema", "labelled-examples"]);
}

#[test]
fn own_schemas_pass_and_a_missing_registry_is_reported() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (output, _) = run(&["schema", "check", "FOLDER", "--json"], &root.join("schemas"), 0);
    let report: Json = serde_json::from_str(&output).unwrap();
    assert_eq!(*at(&report, "/ok"), Json::Bool(true));
    assert_eq!(at(&report, "/checks").as_array().unwrap().len(), 10);
    let no_registry = ["--set", "schema_registry.url=http://127.0.0.1:1"];
    let (output, _) =
        run(&[&["schema", "check", "-c", example()], &no_registry[..]].concat(), root, 1);
    assert_contains(
        &output,
        &["ok       questionnaire-event", "FAILED   registry outcomes-value", "schema_registry"],
    );
    let (_, errors) =
        run(&[&["schema", "register", "-c", example()], &no_registry[..]].concat(), root, 1);
    assert_contains(
        &errors,
        &["error: cannot look up", "set [schema_registry] url", "not available just now"],
    );
}
