//! Holds the code to its drawing: which folder may use which, and who may name a foreign crate.
//!
//! `LAYERS` is in reading order, lowest first, and a row may name only rows above it, so every arrow
//! points one way by construction. To add an arrow is to edit this file, where a reviewer sees it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

/// A top-level module and the top-level modules it may use.
#[rustfmt::skip]
const LAYERS: &[(&str, &[&str])] = &[
    ("address",    &[]),
    ("streams",    &[]),
    ("ml",         &[]),
    ("kafka",      &["address", "streams"]),
    ("avro",       &["address", "streams"]),
    ("events",     &["streams", "avro"]),
    ("processors", &["streams", "ml", "events"]),
    ("http",       &["streams", "events", "processors"]),
    ("config",     &["address", "streams", "ml", "events", "processors"]),
    ("app",        &["address", "streams", "ml", "kafka", "avro", "events", "processors", "http", "config"]),
    ("cli",        &["address", "ml", "events", "processors", "config", "app"]),
];

/// A foreign crate and the only places that may name it.
#[rustfmt::skip]
const FENCES: &[(&str, &[&str])] = &[
    ("rdkafka",     &["kafka/"]),
    ("apache_avro", &["avro/", "events/"]),
    ("serde_avro_fast", &["avro/"]),
    ("fjall",       &["streams/state/disk/"]),
    ("lightgbm3_sys", &["ml/lightgbm.rs"]),
    ("axum",        &["http/"]),
    ("hyper",       &["http/server.rs"]),
    ("hyper_util",  &["http/server.rs"]),
    ("tokio",       &["http/", "app/"]),
    ("prometheus",  &["streams/metrics.rs", "processors/metrics.rs", "http/", "app/"]),
    ("schema_registry_converter", &["avro/"]),
    ("reqwest",     &["avro/access.rs", "avro/client.rs"]),
    ("clap",        &["cli/"]),
    ("rustix",      &["app/open_files.rs"]),
];

const VAGUE_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "shared", "types", "manager"];
const FILE_LINES_MAX: usize = 500; // Without the `#[cfg(test)]` tail.

#[test]
fn arrows_point_one_way() {
    for (row, (layer, may_use)) in LAYERS.iter().enumerate() {
        for used in *may_use {
            let below = LAYERS[..row].iter().any(|(name, _)| name == used);
            assert!(below, "`{layer}` may use `{used}`, but `{used}` is not above it in the table");
        }
    }
}

#[test]
fn code_follows_the_arrows() {
    assert_clean(|path, text| {
        let here = top_level(path);
        if here == "lib" || here == "main" {
            return Vec::new();
        }
        let Some((_, may_use)) = LAYERS.iter().find(|(name, _)| *name == here) else {
            return vec![format!("`{here}` has no row in LAYERS")];
        };
        let is_root = path.matches('/').count() == 0 || path == format!("{here}/mod.rs");
        let mut faults: Vec<String> = crate_paths(text)
            .into_iter()
            .filter(|used| used != here && !may_use.contains(&used.as_str()))
            .map(|used| format!("`{here}` may not use `{used}`"))
            .collect();
        let body = without_tests(text);
        if body.contains("super::super") || (is_root && body.contains("super::")) {
            faults.push("name it by its `crate::` path".to_owned());
        }
        faults
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

#[test]
fn files_are_tidy() {
    assert_clean(|path, _| {
        let raw = fs::read_to_string(Path::new("src").join(path)).unwrap();
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

/// Runs `check` on every source file and fails with all the faults at once.
fn assert_clean(check: impl Fn(&str, &str) -> Vec<String>) {
    let mut faults = Vec::new();
    let mut folders = vec![Path::new("src").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = without_comments(&fs::read_to_string(&path).unwrap());
                let path = path.strip_prefix("src").unwrap().to_str().unwrap().to_owned();
                faults.extend(
                    check(&path, &text).into_iter().map(|fault| format!("src/{path}: {fault}")),
                );
            }
        }
    }
    faults.sort();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn top_level(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
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
