//! Where a value was written, so that what is wrong with it is told with the place to change.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// A place where a value may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration's file.
    File {
        /// As it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// A `--set` of this key.
    Set(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Set(key) => write!(f, "--set {key}"),
        }
    }
}

/// The source of every value that was written.
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

    /// Where `key` (`section.key`) was written, or else its section; the file alone, if neither was.
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

    /// `section.key` as it stands in a file, after where it was written: `foretell.toml:12: [http] bind`.
    #[must_use]
    pub fn named(&self, key: &str) -> String {
        format!("{}: {}", self.of(key), written_form(key))
    }
}

/// `section.key` as it stands in a file: `[section] key`.
pub(super) fn written_form(key: &str) -> String {
    let property = key.strip_prefix("broker.properties.");
    match property.map(|name| ("broker.properties", name)).or_else(|| key.rsplit_once('.')) {
        Some((section, key)) => format!("[{section}] {key}"),
        None => format!("[{key}]"),
    }
}
