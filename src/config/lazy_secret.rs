//! Secrets that only one command needs: their files are read by that command, so that the others start without them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error};
use toml::Value;

use crate::config::{
    ConfigError,
    secret::{EXPECTED, Secret, without_line_end},
};

/// A secret, or the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LazySecret(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Text(Secret),
    File(PathBuf),
}

impl LazySecret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Place::Text(Secret::new(text)))
    }

    /// The secret, if it is in the configuration.
    pub(super) fn text(&self) -> Option<&Secret> {
        match &self.0 {
            Place::Text(text) => Some(text),
            Place::File(_) => None,
        }
    }

    /// Makes the path of a file one from the configuration's folder.
    pub(super) fn locate(&mut self, folder: &Path) {
        if let Place::File(path) = &mut self.0 {
            *path = folder.join(&*path);
        }
    }

    /// The secret; reads its file. `named` is its source and its key, for the error.
    ///
    /// # Errors
    /// [`ConfigError::SecretFile`] if the file cannot be read, or is empty.
    pub fn read(&self, named: &str) -> Result<Secret, ConfigError> {
        let from = match &self.0 {
            Place::Text(text) => return Ok(text.clone()),
            Place::File(from) => from,
        };
        let refused = |source| ConfigError::SecretFile {
            named: named.to_owned(),
            from: from.clone(),
            source,
        };
        let text = fs::read_to_string(from).map_err(refused)?;
        match without_line_end(&text) {
            "" => Err(refused(io::Error::new(io::ErrorKind::InvalidData, "its file is empty"))),
            text => Ok(Secret::new(text)),
        }
    }
}

impl<'de> Deserialize<'de> for LazySecret {
    /// Written by hand, because the errors of a derived implementation show the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = || D::Error::custom(EXPECTED);
        match Value::deserialize(deserializer) {
            Ok(Value::String(text)) => Ok(Self::new(text)),
            Ok(Value::Table(table)) if table.len() == 1 => match table.get("file") {
                Some(Value::String(file)) => Ok(Self(Place::File(PathBuf::from(file)))),
                Some(_) | None => Err(refused()),
            },
            Ok(_) | Err(_) => Err(refused()),
        }
    }
}

/// Tests serialize a configuration, for its defaults.
#[cfg(test)]
impl serde::Serialize for LazySecret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_the_secret_is() {
        let folder = tempfile::tempdir().unwrap();
        let secret = |written: &str| {
            let value: Value = toml::from_str::<toml::Table>(written).unwrap()["a"].clone();
            let mut secret: LazySecret = value.try_into().unwrap();
            secret.locate(folder.path());
            secret
        };
        assert_eq!(secret("a = 'text'").read("n").unwrap().reveal(), "text");
        let from_file = secret("a = { file = 'later' }");
        assert!(from_file.text().is_none() && !format!("{from_file:?}").contains("p\u{e4}ss"));
        let error = from_file.read("x.toml: [[emails]] smtp").unwrap_err();
        assert!(
            error.to_string().contains("[[emails]] smtp") && error.to_string().contains("later")
        );
        fs::write(folder.path().join("later"), "p\u{e4}ss word\r\n").unwrap();
        assert_eq!(from_file.read("n").unwrap().reveal(), "p\u{e4}ss word");
        fs::write(folder.path().join("later"), "\n").unwrap();
        assert!(from_file.read("n").is_err());
    }

    #[test]
    fn another_form_is_refused_without_its_value() {
        for written in
            ["a = 31337", "a = { fil = '31337' }", "a = { file = 31337 }", "a = ['31337']"]
        {
            let value = toml::from_str::<toml::Table>(written).unwrap()["a"].clone();
            let error = value.try_into::<LazySecret>().unwrap_err().to_string();
            assert!(error.contains("file =") && !error.contains("31337"), "{error}");
        }
    }
}
