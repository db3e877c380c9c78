//! Holds the code to its drawing: which folder of `src` may use which, and who may name a foreign crate.
//!
//! Between the crates of the workspace, Cargo.toml says so and Cargo holds to it. `LAYERS` is in reading order, lowest
//! first, and a row may name only crates of ours and rows above it, so every arrow points one way by construction. To add
//! an arrow is to edit this file, where a reviewer sees it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

/// A top-level module of `src`, and the crates of ours and the top-level modules that it may use.
#[rustfmt::skip]
const LAYERS: &[(&str, &[&str])] = &[
    ("events",     &["foretell_streams", "foretell_avro"]),
    ("processors", &["foretell_streams", "foretell_ml", "events"]),
    ("http",       &["foretell_streams", "events", "processors"]),
    ("config",     &["foretell_address", "foretell_streams", "foretell_ml", "events", "processors"]),
    ("app",        &["foretell_address", "foretell_streams", "foretell_ml", "foretell_kafka", "foretell_avro",
                     "events", "processors", "http", "config"]),
    ("cli",        &["foretell_address", "foretell_ml", "events", "processors", "config", "app"]),
    // Tests that hold `docs/` to the code.
    ("reference",  &["foretell_streams", "events", "processors", "http", "config", "app"]),
];

/// A foreign crate and the only places that may name it. Which of our crates may use it at all is in their Cargo.toml.
#[rustfmt::skip]
const FENCES: &[(&str, &[&str])] = &[
    ("apache_avro",   &["crates/foretell-avro/", "src/events/"]),
    ("fjall",         &["crates/foretell-streams/src/state/disk/"]),
    ("lightgbm3_sys", &["crates/foretell-ml/src/lightgbm.rs"]),
    ("axum",          &["src/http/"]),
    ("hyper",         &["src/http/server.rs"]),
    ("hyper_util",    &["src/http/server.rs"]),
    ("tokio",         &["src/http/", "src/app/"]),
    ("prometheus",    &["crates/foretell-streams/src/metrics.rs", "src/processors/metrics.rs", "src/http/", "src/app/",
                       "src/reference/"]),
    ("reqwest",       &["crates/foretell-avro/src/access.rs", "crates/foretell-avro/src/client.rs"]),
    ("clap",          &["src/cli/"]),
    ("rustix",        &["src/app/open_files.rs"]),
];

const VAGUE_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "shared", "types", "manager"];
const FILE_LINES_MAX: usize = 500; // Without the `#[cfg(test)]` tail.

#[test]
fn arrows_point_one_way() {
    for (row, (layer, may_use)) in LAYERS.iter().enumerate() {
        for used in may_use.iter().filter(|used| !is_crate_of_ours(used)) {
            let below = LAYERS[..row].iter().any(|(name, _)| name == used);
            assert!(below, "`{layer}` may use `{used}`, but `{used}` is not above it in the table");
        }
    }
}

#[test]
fn code_follows_the_arrows() {
    assert_clean(|path, text| {
        let Some(path) = path.strip_prefix("src/") else {
            return Vec::new();
        };
        let here = top_level(path);
        if here == "lib" || here == "main" {
            return Vec::new();
        }
        let Some((_, may_use)) = LAYERS.iter().find(|(name, _)| *name == here) else {
            return vec![format!("`{here}` has no row in LAYERS")];
        };
        crate_paths(text)
            .into_iter()
            .chain(crates_of_ours(text))
            .filter(|used| used != here && !may_use.contains(&used.as_str()))
            .map(|used| format!("`{here}` may not use `{used}`"))
            .collect()
    });
}

#[test]
fn names_begin_at_their_crate() {
    assert_clean(|path, text| {
        let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
        let is_root = !inside.contains('/')
            || inside.matches('/').count() == 1 && inside.ends_with("/mod.rs");
        let body = without_tests(text);
        if body.contains("super::super") || (is_root && body.contains("super::")) {
            return vec!["name it by its `crate::` path".to_owned()];
        }
        Vec::new()
    });
}

#[test]
fn foreign_crates_stay_behind_their_fences() {
    assert_clean(|path, text| {
        FENCES
            .iter()
            .filter(|(krate, places)| {
                names(text, krate) && !places.iter().any(|place| path.starts_with(place))
            })
            .map(|(krate, places)| format!("`{krate}` belongs in {places:?}"))
            .collect()
    });
}

/// The other layers get settings that are checked.
#[test]
fn the_configuration_as_written_stays_in_config() {
    let mut number = 0;
    for file in fs::read_dir("src/config").unwrap() {
        let path = file.unwrap().path();
        for line in without_comments(&fs::read_to_string(&path).unwrap()).lines() {
            if let Some((before, _)) = line.split_once("struct Raw") {
                number += 1;
                let line = line.trim_end();
                assert_eq!(before, "pub(super) ", "{}: `{line}`", path.display());
            }
            let exports = line.starts_with("pub use") || line.starts_with("pub(crate) use");
            assert!(!exports || !line.contains("Raw"), "{}: `{line}`", path.display());
        }
    }
    assert!(number > 5, "`RawConfig` and its sections are not where they were: {number}");
}

#[test]
fn files_are_tidy() {
    assert_clean(|path, _| {
        let raw = fs::read_to_string(path).unwrap();
        let body = without_tests(&raw);
        let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
        let mut faults = Vec::new();
        if !raw.starts_with("//!") && !raw.starts_with("#![doc") {
            faults.push("opens without `//!`: say what this file is for".to_owned());
        }
        if body.lines().count() > FILE_LINES_MAX {
            faults
                .push(format!("is longer than {FILE_LINES_MAX} lines: find the second idea in it"));
        }
        if VAGUE_NAMES.contains(&stem) || path.split('/').any(|part| VAGUE_NAMES.contains(&part)) {
            faults.push("is named for nothing: name it after what it holds".to_owned());
        }
        faults
    });
}

/// Runs `check` on every source file of the workspace and fails with all the faults at once.
fn assert_clean(check: impl Fn(&str, &str) -> Vec<String>) {
    let mut faults = Vec::new();
    let crates = fs::read_dir("crates").unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut folders: Vec<_> = crates.chain([Path::new("src").to_path_buf()]).collect();
    assert!(folders.len() > 4, "the crates are not where they were: {folders:?}");
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = without_comments(&fs::read_to_string(&path).unwrap());
                let path = path.to_str().unwrap();
                faults
                    .extend(check(path, &text).into_iter().map(|fault| format!("{path}: {fault}")));
            }
        }
    }
    faults.sort();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn is_crate_of_ours(name: &str) -> bool {
    name.starts_with("foretell_")
}

/// Every crate of ours that is named, but for names that only look like one (a metric, a counter).
fn crates_of_ours(text: &str) -> Vec<String> {
    text.match_indices("foretell_")
        .map(|(index, _)| identifier(&text[index..]))
        .filter(|name| Path::new("crates").join(name.replace('_', "-")).is_dir())
        .collect()
}

fn top_level(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn without_tests(text: &str) -> &str {
    let end = ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub(crate) mod tests"];
    end.iter().filter_map(|end| text.find(end)).min().map_or(text, |at| &text[..at])
}

/// The `x` of every `crate::x` and of every `crate::{x::…, …}`.
fn crate_paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for after in text.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            found.push(identifier(after));
            continue;
        };
        let (mut depth, mut at_start) = (0_usize, true);
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                _ if at_start && !character.is_whitespace() => {
                    found.push(identifier(&group[index..]));
                    at_start = false;
                }
                _ => (),
            }
        }
    }
    found
}

fn names(text: &str, krate: &str) -> bool {
    text.match_indices(krate).any(|(index, _)| {
        let before = text[..index].chars().next_back();
        let after = &text[index + krate.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.')
            && (after.starts_with("::") || after.trim_start().starts_with(';'))
    })
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
