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
}

impl Sources {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), written: BTreeMap::new() }
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

    /// The source of `section.key` and its form in a file: `foretell.toml:12: [http] bind`.
    #[must_use]
    pub fn named(&self, key: &str) -> String {
        format!("{}: {}", self.of(key), written_form(key))
    }
}

/// The form of `section.key` in a file: `[section] key`.
pub(super) fn written_form(key: &str) -> String {
    let property = key.strip_prefix("broker.properties.");
    match property.map(|name| ("broker.properties", name)).or_else(|| key.rsplit_once('.')) {
        Some((section, key)) => format!("[{section}] {key}"),
        None => format!("[{key}]"),
    }
}
