//! Holds the generated parts of `docs/` to the code. Each is a part of a page between two comments, made by a test from
//! what the program itself uses. A test fails when the page has something else; `make docs` writes it.
//!
//! ```text
//!   config/raw.rs: doc comments, defaults ─▶ docs/configuration.md
//!   registrations of metrics              ─▶ docs/metrics.md
//!   http/routes.rs                        ─▶ docs/http-api.md
//! ```

mod configuration;
mod http_api;
mod metrics;
mod source;

use std::{fs, path::Path};

/// Set to write the pages instead of comparing them.
const WRITE: &str = "FORETELL_WRITE_DOCS";

/// Compares the generated `part` of `docs/<page>` with `expected`.
fn assert_current(page: &str, part: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- generated: {part} -->\n"), "<!-- end -->");
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("docs/{page} has no line {:?}", begin.trim_end()));
    let (found, after) = rest.split_once(end).unwrap();
    let expected = format!("\n{}\n\n", expected.trim_end());
    if found == expected {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "of the test, not of the program")]
    let is_written = std::env::var(WRITE).is_ok_and(|value| value == "1");
    if is_written {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    let differs = |(found, expected): &(&str, &str)| found != expected;
    let lines = found.lines().chain([""]).zip(expected.lines().chain([""]));
    let (found, expected) = lines.into_iter().find(differs).unwrap_or_default();
    panic!(
        "docs/{page} is stale, run `make docs`: in its part {part:?}\n   found: {found}\nexpected: {expected}"
    );
}

/// A row of a Markdown table.
fn row(cells: &[&str]) -> String {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// The head of a Markdown table.
fn head(cells: &[&str]) -> String {
    format!("{}|{}\n", row(cells), "---|".repeat(cells.len()))
}
