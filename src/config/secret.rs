//! Secrets: a type that never prints its value, and the sources outside the file that may hold a secret.
//!
//! ```text
//!   password = "…"                              in the file
//!   password = { file = "/run/secrets/x" }      in a file of its own, a path from the configuration's folder
//!   FORETELL_SCHEMA_REGISTRY_PASSWORD=…         in the environment, either of these
//! ```

use std::{borrow::Cow, fmt, fs, path::Path};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de::Error};
use toml::{
    Value,
    de::{DeTable, DeValue},
};

use crate::config::{
    ConfigError,
    source::{Sources, written_form},
};

/// A password, a token or a key. It is neither printed nor written: `Debug` hides it, and it has no `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the client that sends it to a server.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Written by hand, because the errors of a derived implementation show the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer) {
            Ok(Value::String(text)) => Ok(Self(text)),
            Ok(_) | Err(_) => Err(D::Error::custom(EXPECTED)),
        }
    }
}

/// Tests serialize a configuration, for its defaults.
#[cfg(test)]
impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[hidden]")
    }
}

pub(super) const EXPECTED: &str = "expected a text in quotes, or { file = \"/run/secrets/…\" }";

const EXPECTED_PROPERTY: &str = "expected a text in quotes, or { file = \"/run/secrets/…\" } (a name with dots \
     stands in quotes itself)";

/// The sections and keys of secrets. A user name may come from a file too, since it is often kept with its password.
const PLACES: &[(&str, &str)] = &[
    ("broker", PROPERTIES),
    ("schema_registry", "username"),
    ("schema_registry", "password"),
    ("schema_registry", "bearer_token"),
    ("http", "bearer_token"),
    ("http", "read_token"),
    ("mlflow", "token"),
    ("mlflow", "username"),
    ("mlflow", "password"),
];

/// The lists of sections with the keys of secrets in each. A table among them has secrets only. Their files are read by the command
/// that needs them: [`LazySecret`](crate::config::LazySecret).
const LISTS: &[(&str, &str, &[&str])] =
    &[("delivery", "webhooks", &["url", "secret", "headers"]), ("delivery", "emails", &["smtp"])];

/// The table of librdkafka's properties. Each is treated as a secret, because some are passwords and keys.
const PROPERTIES: &str = "properties";

/// The property that `path` (`section.key`) names, if any. Names of properties have dots themselves.
pub(super) fn property_of(path: &str) -> Option<&str> {
    path.strip_prefix("broker.properties.").filter(|name| !name.is_empty())
}

/// Whether `path` (`section.key`) names a secret. Its value is text, also if it looks like a number.
pub(super) fn is_secret(path: &str) -> bool {
    let is_place = |(section, key): &(&str, &str)| {
        *key != PROPERTIES
            && path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(key)
    };
    property_of(path).is_some() || PLACES.iter().any(is_place)
}

/// Whether `key` of each section of the list `list` (`section.list`) is a secret.
pub(super) fn is_in_list(list: &str, key: &str) -> bool {
    let of = |(section, name, _): &&(&str, &str, _)| list == format!("{section}.{name}");
    LISTS.iter().find(of).is_some_and(|(.., keys)| keys.contains(&key))
}

/// Replaces every `{ file = "…" }` by the content of the file.
///
/// # Errors
/// [`ConfigError`] for a value that is neither this nor text; it never shows the value.
pub(super) fn resolve(
    file: &mut DeTable<'_>,
    folder: &Path,
    sources: &Sources,
) -> Result<(), ConfigError> {
    for (section, key) in PLACES {
        let path = format!("{section}.{key}");
        let no_table = |key: &str| refused(sources, key, "expected a table");
        let table = match file.get_mut(*section).map(toml::Spanned::get_mut) {
            None => continue,
            Some(DeValue::Table(table)) => table,
            Some(_) => return Err(no_table(section)),
        };
        match table.get_mut(*key).map(toml::Spanned::get_mut) {
            None => {}
            Some(value) if *key != PROPERTIES => {
                fill(value, &path, EXPECTED, folder, sources)?;
            }
            Some(DeValue::Table(properties)) => {
                for (name, value) in properties.iter_mut() {
                    let path = format!("{path}.{}", name.get_ref());
                    fill(value.get_mut(), &path, EXPECTED_PROPERTY, folder, sources)?;
                }
            }
            Some(_) => return Err(no_table(&path)),
        }
    }
    LISTS.iter().try_for_each(|list| check_list(file, list, sources))
}

/// Checks the form of the secrets in a list of sections. Another value than a list is an error of the deserialization.
fn check_list(
    file: &DeTable<'_>,
    (section, list, keys): &(&str, &str, &[&str]),
    sources: &Sources,
) -> Result<(), ConfigError> {
    let Some(DeValue::Table(table)) = file.get(*section).map(toml::Spanned::get_ref) else {
        return Ok(());
    };
    let Some(DeValue::Array(items)) = table.get(*list).map(toml::Spanned::get_ref) else {
        return Ok(());
    };
    for (number, item) in items.iter().enumerate() {
        let DeValue::Table(item) = item.get_ref() else { continue };
        for key in *keys {
            let path = format!("{section}.{list}.{number}.{key}");
            match item.get(*key).map(toml::Spanned::get_ref) {
                None => {}
                Some(DeValue::Table(secrets)) if *key == "headers" => {
                    for (name, value) in secrets.iter() {
                        let path = format!("{path}.{}", name.get_ref());
                        file_of(value.get_ref()).map_err(|()| refused(sources, &path, EXPECTED))?;
                    }
                }
                Some(value) => {
                    file_of(value).map_err(|()| refused(sources, &path, EXPECTED))?;
                }
            }
        }
    }
    Ok(())
}

/// The file of a secret; none if it is text.
fn file_of<'v>(value: &'v DeValue<'_>) -> Result<Option<&'v str>, ()> {
    match value {
        DeValue::String(_) => Ok(None),
        DeValue::Table(table) if table.len() == 1 => {
            let file = table.get("file").and_then(|file| file.get_ref().as_str());
            file.map(Some).ok_or(())
        }
        DeValue::Table(_)
        | DeValue::Array(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Float(_)
        | DeValue::Integer(_) => Err(()),
    }
}

/// The text without its last line end: editors and `echo` end a file with one, which is not part of the secret.
pub(super) fn without_line_end(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

fn refused(sources: &Sources, key: &str, problem: &str) -> ConfigError {
    let problem = format!("{}: {problem}", written_form(key));
    ConfigError::At { place: sources.of(key), problem }
}

fn fill(
    value: &mut DeValue<'_>,
    key: &str,
    expected: &'static str,
    folder: &Path,
    sources: &Sources,
) -> Result<(), ConfigError> {
    let named = match file_of(value) {
        Ok(None) => return Ok(()),
        Ok(Some(named)) => named,
        Err(()) => return Err(refused(sources, key, expected)),
    };
    let from = folder.join(named);
    let text = match fs::read_to_string(&from) {
        Ok(text) => text,
        Err(source) => {
            return Err(ConfigError::SecretFile { named: sources.named(key), from, source });
        }
    };
    let text = without_line_end(&text);
    if text.is_empty() {
        return Err(refused(sources, key, "its file is empty"));
    }
    *value = DeValue::String(Cow::Owned(text.to_owned()));
    Ok(())
}

/// Splits an address into the address without a user, the user's name and the password. Addresses are printed.
pub(super) fn without_user(url: &str) -> Option<(String, String, Option<Secret>)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, host) = rest[..end].rsplit_once('@')?;
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(Secret(percent_decoded(password)))),
        None => (user, None),
    };
    Some((format!("{scheme}://{host}{}", &rest[end..]), percent_decoded(name), password))
}

/// Decodes percent-encoding: `p%40ss` in an address is `p@ss`.
fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;
    use crate::config::document::Document;

    fn resolved(toml: &str) -> Result<Table, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), "p\u{e4}ss word\r\n").unwrap();
        fs::write(folder.path().join("empty"), "\n").unwrap();
        let mut document = Document::parse(Path::new("x.toml"), toml).unwrap();
        let sources = document.sources();
        resolve(document.root_mut(), folder.path(), &sources)?;
        document.read()
    }

    #[test]
    fn a_file_is_replaced_by_its_content() {
        let check = |written: &str, expected: &str| {
            assert_eq!(resolved(written).unwrap(), expected.parse::<Table>().unwrap(), "{written}");
        };
        check(
            "[schema_registry]\npassword = { file = 'password' }",
            "[schema_registry]\npassword = 'p\u{e4}ss word'",
        );
        check(
            "[broker.properties]\n'sasl.password' = { file = 'password' }\na = 'b'",
            "[broker.properties]\n'sasl.password' = 'p\u{e4}ss word'\na = 'b'",
        );
        check("[topics]\nprefix = 'x'", "[topics]\nprefix = 'x'");
        // Read when they are needed.
        let list = "[[delivery.webhooks]]\nurl = 'u'\nsecret = { file = 'password' }\nheaders = { A = { file = 'none' } }";
        check(list, list);
    }

    #[test]
    fn errors_name_the_key_and_do_not_show_the_value() {
        let check = |written: &str, expected: &[&str]| {
            let error = resolved(written).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2") && !text.contains("31337"), "{text}");
            for words in expected.iter().chain(&["x.toml:"]) {
                assert!(text.contains(words), "{words} in {text}");
            }
        };
        check("[http]\nbearer_token = 31337", &["[http] bearer_token", "file ="]);
        check("[broker.properties]\na = ['hunter2']", &["[broker.properties] a", "file ="]);
        check("[broker]\nproperties = 'hunter2'", &["[broker] properties", "a table"]);
        check("broker = 'hunter2'", &["[broker]", "a table"]);
        check("[http]\nbearer_token = { file = 'empty' }", &["[http] bearer_token", "is empty"]);
        check("[http]\nbearer_token = { file = 'none' }", &["[http] bearer_token", "/none"]);
        check("[http]\nbearer_token = { fil = 'hunter2' }", &["[http] bearer_token", "file ="]);
        let list = "[[delivery.emails]]\nsmtp = 'a'\n[[delivery.emails]]\nsmtp = 31337";
        check(list, &["x.toml:4: [[delivery.emails]] smtp", "file ="]);
    }

    #[test]
    fn a_secret_is_neither_printed_nor_in_errors() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[hidden]");
        let number: Result<Secret, _> = Value::Integer(31337).try_into();
        assert!(!number.unwrap_err().to_string().contains("31337"));
    }

    #[test]
    fn the_sources_have_no_text_of_a_secret() {
        let list = "[[delivery.webhooks]]\nname = 'crm'\nurl = 'hunter2'\nsecret = 'hunter2'\n";
        let sources = Document::parse(Path::new("x.toml"), list).unwrap().sources();
        let shown = format!("{sources:?}");
        assert!(shown.contains("crm") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn keys_of_secrets_are_recognised() {
        for path in
            ["http.bearer_token", "schema_registry.password", "broker.properties.sasl.password"]
        {
            assert!(is_secret(path), "{path}");
        }
        for path in ["http.bind", "broker.properties", "broker.properties.", "broker", "http"] {
            assert!(!is_secret(path), "{path}");
        }
    }

    #[test]
    fn the_user_is_split_from_an_address() {
        let check = |url: &str, expected: Option<(&str, &str, Option<&str>)>| {
            let found = without_user(url);
            let found = found.as_ref().map(|(url, name, password)| {
                (url.as_str(), name.as_str(), password.as_ref().map(Secret::reveal))
            });
            assert_eq!(found, expected, "{url}");
        };
        check("http://a:8081/x@y", None);
        check("https://u:p%40%2fs@a:1/x", Some(("https://a:1/x", "u", Some("p@/s"))));
        check("http://key@a", Some(("http://a", "key", None)));
        check("http://u:p@ss%@a", Some(("http://a", "u", Some("p@ss%"))));
        check("nothing", None);
    }
}
