//! Holds documents and comments to the files that they name, so that a file that is renamed is found where it is mentioned.
//! Links are checked by rumdl (`make check`); this is for names between backticks, such as `runtime/backlog.rs`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::PathBuf};

/// A name with a folder and one of these endings is a file's of ours; one that ends in `.rs` is, without a folder too. Other
/// endings are those of a user's files, which examples make up.
const ENDINGS: [&str; 4] = [".py", ".rs", ".sh", ".tsv"];
/// What is built, and what git keeps.
const PASSED_OVER: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn files_that_are_named_are_there() {
    let files = files();
    let names: BTreeSet<String> =
        files.iter().flat_map(|file| [file.clone(), short(file)]).flat_map(|f| tails(&f)).collect();
    let mut faults = Vec::new();
    let mut named = 0;
    for file in &files {
        let is_code = file.ends_with(".rs");
        if !is_code && !file.ends_with(".md") {
            continue;
        }
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let text = if is_code { line.split_once("//").map_or("", |(_, it)| it) } else { line };
            for name in text.split('`').skip(1).step_by(2).filter(|name| is_file(name)) {
                named += 1;
                if !names.contains(name) {
                    faults.push(format!("{file}:{}: there is no `{name}`", number + 1));
                }
            }
        }
    }
    assert!(named > 50, "names are hardly found: {named}");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn is_file(name: &str) -> bool {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let ending = ENDINGS.iter().find(|ending| name.ends_with(**ending));
    ending.is_some_and(|ending| {
        name.len() > ending.len()
            && name.chars().all(is_path)
            && (name.contains('/') || *ending == ".rs")
    })
}

/// Every file of the repository, from its root.
fn files() -> Vec<String> {
    let (mut folders, mut files) = (vec![PathBuf::from(".")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !PASSED_OVER.contains(&name) {
                folders.push(path);
            } else if path.is_file() {
                files.push(path.strip_prefix(".").unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// A crate's file as it is spoken of: `avro/wire.rs`.
fn short(file: &str) -> String {
    file.replacen("crates/foretell-", "", 1).replacen("/src/", "/", 1)
}

/// The path, and what is left of it without its first folders.
fn tails(file: &str) -> Vec<String> {
    let parts: Vec<&str> = file.split('/').collect();
    (0..parts.len()).map(|first| parts[first..].join("/")).collect()
}
