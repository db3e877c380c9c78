//! Checks that files named in Markdown pages and comments exist, so that a renamed file is renamed there too. rumdl checks
//! links (`make check`); this checks names between backticks, such as `runtime/backlog.rs`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::PathBuf};

/// Extensions of the names that are checked: those with a folder, and for `.rs` those without one too. Names with other
/// extensions are often files of a user in examples.
const EXTENSIONS: [&str; 4] = [".py", ".rs", ".sh", ".tsv"];
/// Folders that are not searched.
const SKIPPED_FOLDERS: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn files_named_in_documents_and_comments_exist() {
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
                    faults.push(format!("{file}:{}: `{name}` does not exist", number + 1));
                }
            }
        }
    }
    assert!(named > 50, "found only {named} names: is the search wrong?");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn is_file(name: &str) -> bool {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let extension = EXTENSIONS.iter().find(|extension| name.ends_with(**extension));
    extension.is_some_and(|extension| {
        name.len() > extension.len()
            && name.chars().all(is_path)
            && (name.contains('/') || *extension == ".rs")
    })
}

/// Paths of all files of the repository, relative to its root.
fn files() -> Vec<String> {
    let (mut folders, mut files) = (vec![PathBuf::from(".")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !SKIPPED_FOLDERS.contains(&name) {
                folders.push(path);
            } else if path.is_file() {
                files.push(path.strip_prefix(".").unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// Shortens the path of a crate's file as comments do: `crates/foretell-avro/src/codec.rs` becomes `avro/codec.rs`.
fn short(file: &str) -> String {
    file.replacen("crates/foretell-", "", 1).replacen("/src/", "/", 1)
}

/// All suffixes of a path that begin at a folder or the file name: of `runtime/backlog.rs` itself and `backlog.rs`.
fn tails(file: &str) -> Vec<String> {
    let parts: Vec<&str> = file.split('/').collect();
    (0..parts.len()).map(|first| parts[first..].join("/")).collect()
}
