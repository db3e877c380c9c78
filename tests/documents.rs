//! Checks what documents say about the code: files between backticks, such as `runtime/backlog.rs`, log and error messages,
//! metrics, modules and dependencies. So a rename or a new wording fails until the documents follow. rumdl checks links
//! (`make check`).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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

#[test]
fn messages_quoted_by_tables_of_failures_are_in_the_code() {
    let code: String = files()
        .iter()
        .filter(|file| file.ends_with(".rs") && !file.starts_with("tests/"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    // Joins string literals that are continued on the next line.
    let code = code.split("\\\n").map(str::trim_start).collect::<String>();
    let tables = [
        ("docs/operations.md", "## When something fails", "## Upgrade"),
        ("ARCHITECTURE.md", "## What waits, and for what", "## How formats evolve"),
    ];
    let (mut quoted, mut faults) = (0, Vec::new());
    for (page, from, to) in tables {
        let text = fs::read_to_string(page).unwrap();
        let section = text.split_once(from).unwrap().1.split_once(to).unwrap().0;
        for row in section.lines().filter(|line| line.starts_with("| ")) {
            let last_column = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
            let messages = last_column.split('`').skip(1).step_by(2);
            for message in
                messages.filter(|text| text.contains(' ') && !text.starts_with("foretell "))
            {
                quoted += 1;
                if !code.contains(message) {
                    faults.push(format!("{page}: no message has `{message}`"));
                }
            }
        }
    }
    assert!(quoted > 10, "found only {quoted} messages: is the search wrong?");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn metrics_named_in_documents_and_alerts_exist() {
    let metrics = fs::read_to_string("docs/metrics.md").unwrap();
    let metrics: BTreeSet<&str> = metrics.split('`').skip(1).step_by(2).collect();
    let (mut named, mut faults) = (0, Vec::new());
    let files = files();
    for file in &files {
        let is_query =
            ["deploy/prometheus/", "deploy/grafana/"].iter().any(|it| file.starts_with(it));
        if !is_query && !file.ends_with(".md") {
            continue;
        }
        let text = fs::read_to_string(file).unwrap();
        for name in words(&text).filter(|word| word.starts_with("foretell_")) {
            // Crates and Python modules have names like metrics.
            let is_crate = Path::new("crates").join(name.replace('_', "-")).is_dir();
            if is_crate || files.iter().any(|file| file.ends_with(&format!("/{name}.py"))) {
                continue;
            }
            named += 1;
            // The series of a histogram.
            let ends = ["", "_bucket", "_sum", "_count"];
            if !ends.iter().any(|end| name.strip_suffix(end).is_some_and(|it| metrics.contains(it)))
            {
                faults.push(format!("{file}: there is no metric `{name}`"));
            }
        }
    }
    assert!(named > 50, "found only {named} metrics: is the search wrong?");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_architecture_lists_every_module_crate_and_dependency() {
    let page = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let dependencies = manifest.split_once("[workspace.dependencies]").unwrap().1;
    let dependencies = dependencies.split_once("\n[").unwrap().0.lines();
    let dependencies = dependencies.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let (_, table) = page.split_once("## Dependencies").unwrap();
    let listed: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|names| names.split(", "))
        .collect();
    let is_ours = |name: &&str| name.starts_with("foretell-");
    let mut faults: Vec<String> = dependencies
        .filter(|name| !is_ours(name) && !name.starts_with('#') && !listed.contains(name))
        .map(|name| format!("`{name}` is not in the table of dependencies"))
        .collect();
    let entries = |folder: &str| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let folders = entries.filter(|path| path.is_dir());
        folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
    };
    let code_map = page.split_once("## Code map").unwrap().1;
    let code_map = code_map.split_once("## Where to add what").unwrap().0;
    for name in entries("src").chain(entries("crates")).map(|name| name.replace('-', "_")) {
        if ![format!("[`{name}`]"), format!("`src/{name}`")].iter().any(|it| code_map.contains(it))
        {
            faults.push(format!("`{name}` is not in the code map"));
        }
    }
    faults.sort();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Sequences of letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
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
