//! Compares the generated parts of `docs/` with the code. Each is a part of a page between two comments, written by a test
//! from the declarations that the program itself uses. The test fails when the page is stale; `make docs` writes it.
//!
//! ```text
//!   config/raw.rs: doc comments, defaults ─▶ docs/configuration.md
//!   registrations of metrics              ─▶ docs/metrics.md
//!   http/routes.rs                        ─▶ docs/http-api.md
//!   events/topics.rs                      ─▶ docs/concepts.md, redpanda/topics.tsv
//! ```

mod configuration;
mod http_api;
mod metrics;
mod source;
mod topics;

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// The variable that makes the tests write the pages instead of comparing them.
const WRITE: &str = "FORETELL_WRITE_DOCS";

/// Compares the generated `part` of `docs/<page>` with `expected`.
fn assert_current(page: &str, part: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    // A stale page panics with the lock held, which says nothing of the others.
    let _pages = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- generated: {part} -->\n"), "<!-- end -->");
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("docs/{page} has no line {:?}", begin.trim_end()));
    let (_, after) = rest.split_once(end).unwrap();
    let expected = expected.trim_end();
    assert_same(&path, &text, &format!("{before}{begin}\n{expected}\n\n{end}{after}"));
}

/// Several tests may write parts of one page.
static PAGES: Mutex<()> = Mutex::new(());

/// Compares the content of a file with `expected`.
fn assert_same(path: &Path, found: &str, expected: &str) {
    if found == expected {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "of the test, not of the program")]
    let is_written = std::env::var(WRITE).is_ok_and(|value| value == "1");
    if is_written {
        fs::write(path, expected).unwrap();
        return;
    }
    let differs = |(found, expected): &(&str, &str)| found != expected;
    let lines = found.lines().chain([""]).zip(expected.lines().chain([""]));
    let (found, expected) = lines.into_iter().find(differs).unwrap_or_default();
    panic!("{} is stale, run `make docs`\n   found: {found}\nexpected: {expected}", path.display());
}

/// A row of a Markdown table.
fn row(cells: &[&str]) -> String {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// The header of a Markdown table.
fn head(cells: &[&str]) -> String {
    format!("{}|{}\n", row(cells), "---|".repeat(cells.len()))
}
