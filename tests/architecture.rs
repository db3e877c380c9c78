//! Checks the architecture: which top-level module of `src` may use which other one, which files may use a foreign crate, and
//! the shape of files.
//!
//! Cargo enforces the dependencies between the crates of the workspace. `LAYERS` lists the modules lowest first, and a row may
//! name only workspace crates and rows above it, so there are no cycles. A new dependency is a change of this file, which a
//! reviewer sees.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

/// Top-level modules of `src`, each with the workspace crates and the top-level modules that it may use.
#[rustfmt::skip]
const LAYERS: &[(&str, &[&str])] = &[
    ("events",     &["foretell_streams", "foretell_avro"]),
    ("processors", &["foretell_streams", "foretell_ml", "foretell_rules", "events"]),
    ("http",       &["foretell_streams", "events", "processors"]),
    ("config",     &["foretell_address", "foretell_streams", "foretell_ml", "foretell_rules", "events", "processors"]),
    ("tracking",   &["foretell_streams", "foretell_ml", "events", "processors", "config"]),
    ("app",        &["foretell_address", "foretell_streams", "foretell_ml", "foretell_kafka", "foretell_avro",
                     "foretell_generate", "events", "processors", "http", "config", "tracking"]),
    ("cli",        &["foretell_address", "foretell_generate", "foretell_ml", "events", "processors", "config", "app"]),
    // Generates pages of `docs/` and tests that they are up to date.
    ("reference",  &["foretell_streams", "foretell_ml", "events", "processors", "http", "config", "tracking",
                     "app"]),
];

/// Foreign crates, each with the only folders and files that may use it. Each crate's Cargo.toml says which it may use at all.
#[rustfmt::skip]
const FOREIGN_CRATES: &[(&str, &[&str])] = &[
    ("apache_avro",   &["crates/foretell-avro/", "src/events/"]),
    ("fjall",         &["crates/foretell-streams/src/state/disk/"]),
    ("lightgbm3_sys", &["crates/foretell-ml/src/lightgbm/"]),
    ("regex",         &["crates/foretell-rules/"]),
    ("strsim",        &["crates/foretell-rules/", "src/events/similar_name.rs"]),
    ("encoding_rs",   &["src/app/new/"]),
    ("chardetng",     &["src/app/new/"]),
    ("axum",          &["src/http/"]),
    ("hyper",         &["src/http/server.rs"]),
    ("hyper_util",    &["src/http/server.rs"]),
    ("openssl",       &["src/http/tls.rs"]),
    ("tokio_openssl", &["src/http/tls.rs"]),
    ("tokio",         &["src/http/", "src/app/"]),
    ("prometheus",    &["crates/foretell-streams/src/metrics.rs", "src/processors/metrics.rs",
                       "src/processors/actions/metrics.rs", "src/processors/quality/metrics.rs",
                       "src/processors/waiting.rs", "src/http/",
                       "src/tracking/metrics.rs", "src/tracking/tests/", "src/app/", "src/reference/"]),
    ("reqwest",       &["crates/foretell-avro/src/access.rs", "crates/foretell-avro/src/client.rs",
                       "src/tracking/client.rs", "src/app/doctor/serving.rs", "src/app/deliver/webhook.rs"]),
    ("hmac",          &["src/app/deliver/signature.rs"]),
    ("lettre",        &["src/app/deliver/email.rs"]),
    ("minijinja",     &["src/app/deliver/email.rs"]),
    ("clap",          &["src/cli/"]),
    ("plotters",      &["src/app/plot.rs"]),
    ("rustix",        &["src/app/open_files.rs"]),
    ("xxhash_rust",   &["src/processors/learning/training_log/blocks.rs"]),
];

const VAGUE_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "shared", "types", "manager"];
/// Maximum number of lines of a file, without its `#[cfg(test)]` module at the end.
const FILE_LINES_MAX: usize = 500;

#[test]
fn layers_depend_on_lower_layers_only() {
    for (row, (layer, may_use)) in LAYERS.iter().enumerate() {
        for used in may_use.iter().filter(|used| !is_workspace_crate(used)) {
            let below = LAYERS[..row].iter().any(|(name, _)| name == used);
            assert!(below, "`{layer}` may use `{used}`, but `{used}` is not above it in the table");
        }
    }
}

#[test]
fn modules_use_only_the_layers_that_they_may_use() {
    assert_clean(|path, text| {
        let Some(path) = path.strip_prefix("src/") else {
            return Vec::new();
        };
        let module = top_level(path);
        if module == "lib" || module == "main" {
            return Vec::new();
        }
        let Some((_, may_use)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            return vec![format!("`{module}` has no row in LAYERS")];
        };
        crate_paths(text)
            .into_iter()
            .chain(workspace_crates(text))
            .filter(|used| used != module && !may_use.contains(&used.as_str()))
            .map(|used| format!("`{module}` may not use `{used}`"))
            .collect()
    });
}

#[test]
fn paths_to_other_modules_begin_with_crate() {
    assert_clean(|path, text| {
        let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
        let is_root = !inside.contains('/')
            || inside.matches('/').count() == 1 && inside.ends_with("/mod.rs");
        let body = without_tests(text);
        if body.contains("super::super") || (is_root && body.contains("super::")) {
            return vec!["use the `crate::` path in place of `super::`".to_owned()];
        }
        Vec::new()
    });
}

#[test]
fn foreign_crates_are_used_in_their_files_only() {
    assert_clean(|path, text| {
        FOREIGN_CRATES
            .iter()
            .filter(|(krate, allowed)| {
                uses_crate(text, krate) && !allowed.iter().any(|prefix| path.starts_with(prefix))
            })
            .map(|(krate, allowed)| format!("`{krate}` may be used in {allowed:?} only"))
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
fn files_are_short_documented_and_named_for_their_content() {
    assert_clean(|path, _| {
        let raw = fs::read_to_string(path).unwrap();
        let body = without_tests(&raw);
        let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
        let mut faults = Vec::new();
        if !raw.starts_with("//!") && !raw.starts_with("#![doc") {
            faults.push("begins without `//!`: document what this file is for".to_owned());
        }
        if body.lines().count() > FILE_LINES_MAX {
            faults.push(format!("is longer than {FILE_LINES_MAX} lines: split it"));
        }
        if VAGUE_NAMES.contains(&stem) || path.split('/').any(|part| VAGUE_NAMES.contains(&part)) {
            faults.push("has a vague name: name it for its content".to_owned());
        }
        faults
    });
}

/// Runs `check` on the path and the text without comments of every source file, and fails with all the faults at once.
fn assert_clean(check: impl Fn(&str, &str) -> Vec<String>) {
    let mut faults = Vec::new();
    let crates = fs::read_dir("crates").unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut folders: Vec<_> = crates.chain([Path::new("src").to_path_buf()]).collect();
    assert!(folders.len() > 4, "cannot find the crates of the workspace: {folders:?}");
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

fn is_workspace_crate(name: &str) -> bool {
    name.starts_with("foretell_")
}

/// The workspace crates that `text` names. Names of metrics begin with `foretell_` too, but have no folder in `crates`.
fn workspace_crates(text: &str) -> Vec<String> {
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

/// The first segment after `crate::` of every path, including those in groups: `crate::x` and `crate::{x::…, y}`.
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

/// Whether `text` has a path or a `use` that begins with the crate `krate`.
fn uses_crate(text: &str, krate: &str) -> bool {
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
