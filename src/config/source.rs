//! The source of each value of the configuration, for error messages.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of the configuration's file.
    File {
        /// The path as given.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A `--set` with this key.
    Set(String),
    /// A training job: the name of a hyperparameter or of a channel.
    Job(String),
    /// A line of a file of variants.
    Variant {
        /// The path as given.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The name of the variant.
        variant: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Set(key) => write!(f, "--set {key}"),
            Self::Job(place) => f.write_str(place),
            Self::Variant { path, line, variant } => {
                write!(f, "{}:{line}: variant {variant}", path.display())
            }
        }
    }
}

/// The sources of the configured values.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: PathBuf,
    written: BTreeMap<String, Source>,
    /// The column and the form in the file of texts in lists of tables, by key.
    texts: BTreeMap<String, (usize, String)>,
}

impl Sources {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    pub(super) fn insert(&mut self, key: String, source: Source) {
        self.written.insert(key, source);
    }

    /// The source of `key` (`section.key`), or else of its section, or else the file.
    #[must_use]
    pub fn of(&self, key: &str) -> String {
        let mut key = key;
        loop {
            if let Some(source) = self.written.get(key) {
                return source.to_string();
            }
            match key.rsplit_once('.') {
                Some((above, _)) => key = above,
                None => return self.file.display().to_string(),
            }
        }
    }

    pub(super) fn note_text(&mut self, key: String, column: usize, raw: String) {
        self.texts.insert(key, (column, raw));
    }

    /// The place of a character in the text of `key`, given by its line and column in the text, from 1: `foretell.toml:12:9`, or
    /// the source of the key and the place in the text if the file does not have the text as it is.
    #[must_use]
    pub fn inside(&self, key: &str, text: &str, at: (usize, usize)) -> String {
        let written = self.texts.get(key).zip(self.written.get(key));
        if let Some(((column, raw), Source::File { path, line })) = written
            && let Some((line, column)) = place_in(raw, text, (*line, *column), at)
        {
            return format!("{}:{line}:{column}", path.display());
        }
        let (line, column) = at;
        format!("{}: line {line}, column {column} of the text", self.of(key))
    }

    /// Whether the configuration has a value for `key` (`section.key`).
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.written.contains_key(key)
    }

    /// The source of `section.key` and its form in a file: `foretell.toml:12: [http] bind`.
    #[must_use]
    pub fn named(&self, key: &str) -> String {
        format!("{}: {}", self.of(key), written_form(key))
    }
}

/// The form of `section.key` in a file: `[section] key`. An element of a list of sections has a number as the last part of its
/// section, and the form `[[section]] key`.
pub(super) fn written_form(key: &str) -> String {
    if let Some((section, key)) = in_list(key) {
        return format!("[[{section}]] {key}").trim_end().to_owned();
    }
    let property = key.strip_prefix("broker.properties.");
    match property.map(|name| ("broker.properties", name)).or_else(|| key.rsplit_once('.')) {
        Some((section, key)) => format!("[{section}] {key}"),
        None => format!("[{key}]"),
    }
}

/// The line and column of a character of `text`, which begins at `start` in a file and is written there as `raw`; none if it is
/// written with escapes.
fn place_in(
    raw: &str,
    text: &str,
    start: (usize, usize),
    at: (usize, usize),
) -> Option<(usize, usize)> {
    let ((start_line, start_column), (line, column)) = (start, at);
    let is_long = ["\"\"\"", "'''"].iter().any(|quotes| raw.starts_with(quotes));
    let quotes = if is_long { 3 } else { 1 };
    let inner = raw.get(quotes..raw.len().checked_sub(quotes)?)?;
    // A long text may begin on the line after its quotes.
    let after_break = inner.strip_prefix('\n').or_else(|| inner.strip_prefix("\r\n"));
    let (skipped, inner) = match after_break.filter(|_| is_long) {
        Some(rest) => (1, rest),
        None => (0, inner),
    };
    if inner != text {
        return None;
    }
    let is_first = line + skipped == 1;
    let column = if is_first { start_column + quotes + column - 1 } else { column };
    Some((start_line + skipped + line - 1, column))
}

/// Splits `section.number.key` into the section of a list and the key, which is empty for the element itself.
fn in_list(key: &str) -> Option<(&str, &str)> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let dots = key.match_indices('.').map(|(dot, _)| dot);
    let mut numbers = dots.filter_map(|dot| {
        let (number, rest) = key[dot + 1..].split_once('.').unwrap_or((&key[dot + 1..], ""));
        is_number(number).then_some((&key[..dot], rest))
    });
    numbers.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_character_of_a_text_is_that_in_the_file() {
        let check =
            |raw: &str, text: &str, at: (usize, usize), expected: Option<(usize, usize)>| {
                assert_eq!(place_in(raw, text, (12, 8), at), expected, "{raw} {at:?}");
            };
        check("'label'", "label", (1, 1), Some((12, 9)));
        check("\"label\"", "label", (1, 5), Some((12, 13)));
        check("\"a \\\" b\"", "a \" b", (1, 5), None);
        check("'''a\nb'''", "a\nb", (1, 1), Some((12, 11)));
        check("'''a\nb'''", "a\nb", (2, 1), Some((13, 1)));
        check("\"\"\"\na\nb\"\"\"", "a\nb", (2, 3), Some((14, 3)));
        check("'''\na'''", "a", (1, 4), Some((13, 4)));
        check("'", "", (1, 1), None);
    }

    #[test]
    fn keys_have_the_form_of_the_file() {
        let check = |key: &str, expected: &str| assert_eq!(written_form(key), expected);
        check("http", "[http]");
        check("http.bind", "[http] bind");
        check("learning.tuning.every", "[learning.tuning] every");
        check("broker.properties.sasl.password", "[broker.properties] sasl.password");
        check("delivery.webhooks.0", "[[delivery.webhooks]]");
        check("delivery.webhooks.12.url", "[[delivery.webhooks]] url");
        check("delivery.webhooks.1.rate.per", "[[delivery.webhooks]] rate.per");
    }
}
