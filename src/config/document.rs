//! The file and its overrides merged into one document, in which every key and value has the span of its source.
//!
//! ```text
//!   spans:   0 ……………………… n   n+1, n+2    n+3, n+4
//!            foretell.toml   variable    --set       one byte for the sections that it creates, one for its value
//! ```
//!
//! The TOML parser gives every key and value a span, and every error the span of its value. The overrides get spans after the
//! end of the file, so one look-up finds the source of any error.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue, Deserializer},
};

use crate::config::{
    ConfigError,
    keys::{Keys, Kind},
    secret,
    source::{Source, Sources, written_form},
    wording,
};
use foretell_address as address;
use foretell_ml::training;

/// A parsed document that is not deserialized yet.
pub(super) struct Document<'t> {
    root: DeTable<'t>,
    path: PathBuf,
    text: &'t str,
    /// The sources of the overrides, in order; the n-th has the n-th pair of bytes after the text.
    overrides: Vec<Source>,
}

impl<'t> Document<'t> {
    /// Parses the file, without overrides.
    pub(super) fn parse(path: &Path, text: &'t str) -> Result<Self, ConfigError> {
        let (root, overrides) = (DeTable::new(), Vec::new());
        let mut document = Self { root, path: path.to_owned(), text, overrides };
        document.root = DeTable::parse(text).map_err(|error| document.refuse(&error))?.into_inner();
        Ok(document)
    }

    /// Sets `key` (`section.key`) to `value`, which is parsed as TOML if possible, and is text otherwise.
    pub(super) fn set(
        &mut self,
        key: &str,
        value: &'t str,
        source: Source,
    ) -> Result<(), ConfigError> {
        let place = source.to_string();
        let refuse = |problem: String| Err(ConfigError::At { place: place.clone(), problem });
        let start = self.text.len() + 1 + 2 * self.overrides.len();
        let (section_span, span) = (start..start + 1, start + 1..start + 2);
        self.overrides.push(source);
        let mut parts: Vec<&str> = match secret::property_of(key) {
            Some(name) => vec!["broker", "properties", name],
            None => key.split('.').collect(),
        };
        let Some(name) = parts.pop().filter(|name| !name.is_empty()) else {
            return refuse("it has no key after the section".to_owned());
        };
        let mut table = &mut self.root;
        for part in parts {
            if !table.contains_key(part) {
                let section = DeValue::Table(DeTable::new());
                table.insert(
                    spanned(part, &section_span),
                    Spanned::new(section_span.clone(), section),
                );
            }
            let Some(DeValue::Table(inner)) = table.get_mut(part).map(Spanned::get_mut) else {
                return refuse(format!("`{part}` is not a section"));
            };
            table = inner;
        }
        // Removed first, because an insertion would keep the previous key and its span. The previous value shows whether the
        // new one is text, as a password of digits is.
        let previous = table.remove(name);
        let is_text = secret::is_secret(key)
            || previous.is_some_and(|previous| matches!(previous.get_ref(), DeValue::String(_)));
        // The text of a secret may begin like a list.
        if value.starts_with(['{', '[']) && !secret::is_secret(key) {
            DeValue::parse(value).map_err(|error| ConfigError::At {
                place,
                problem: format!(
                    "{}: {}",
                    written_form(key),
                    wording::plain(&error.message().trim().replace('\n', "; "))
                ),
            })?;
        }
        table.insert(spanned(name, &span), read(value, is_text, &span));
        Ok(())
    }

    /// Rejects an unknown key; the error names the most similar known key.
    pub(super) fn check_keys(&self, keys: &Keys) -> Result<(), ConfigError> {
        self.check_section(&self.root, "", keys)
    }

    fn check_section(
        &self,
        table: &DeTable<'t>,
        above: &str,
        keys: &Keys,
    ) -> Result<(), ConfigError> {
        for (name, value) in table.iter() {
            let key = joined(above, name.get_ref());
            match (keys.kind(&key), value.get_ref()) {
                (None, _) => {
                    let place = self.source_at(&name.span()).to_string();
                    return Err(ConfigError::At { place, problem: unknown(&key, keys) });
                }
                (Some(Kind::Section), DeValue::Table(inner)) => {
                    self.check_section(inner, &key, keys)?;
                }
                // Deserialization checks the values.
                (Some(Kind::Section | Kind::Open | Kind::Scalar | Kind::Value), _) => {}
            }
        }
        Ok(())
    }

    /// The source of each key.
    pub(super) fn sources(&self) -> Sources {
        let mut sources = Sources::new(&self.path);
        self.note_sources(&self.root, "", &mut sources);
        sources
    }

    fn note_sources(&self, table: &DeTable<'t>, above: &str, sources: &mut Sources) {
        for (name, value) in table.iter() {
            let key = joined(above, name.get_ref());
            sources.insert(key.clone(), self.source_at(&name.span()));
            if let DeValue::Table(inner) = value.get_ref() {
                self.note_sources(inner, &key, sources);
            }
            for (at, span, section) in sections_of_list(&key, value) {
                sources.insert(at.clone(), self.source_at(&span));
                self.note_sources(section, &at, sources);
                let texts = section.iter();
                let texts = texts.filter(|(name, _)| !secret::is_in_list(&key, name.get_ref()));
                texts.for_each(|(name, value)| {
                    self.note_text(&joined(&at, name.get_ref()), value, sources)
                });
            }
        }
    }

    /// Notes how a text is written, such as that of `actions.0.when`.
    fn note_text(&self, key: &str, value: &Spanned<DeValue<'t>>, sources: &mut Sources) {
        let (DeValue::String(_), Some(raw)) = (value.get_ref(), self.text.get(value.span())) else {
            return;
        };
        let before = &self.text[..value.span().start];
        let line = before.rsplit('\n').next().unwrap_or_default();
        let column = 1 + line.chars().count();
        sources.note_text(key.to_owned(), column, raw.to_owned());
    }

    /// The root table.
    pub(super) fn root(&self) -> &DeTable<'t> {
        &self.root
    }

    /// The root table, to change values in place.
    pub(super) fn root_mut(&mut self) -> &mut DeTable<'t> {
        &mut self.root
    }

    /// Deserializes the document.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        let root = Spanned::new(0..0, self.root.clone());
        T::deserialize(Deserializer::from(root)).map_err(|error| self.refuse(&error))
    }

    /// The error of the parser or of serde, with the source and the key of its value.
    pub(super) fn refuse(&self, error: &toml::de::Error) -> ConfigError {
        let message = wording::plain(&error.message().trim().replace('\n', "; "));
        let problem = address::hide_in(&message).into_owned();
        let about = error.span().filter(|span| *span != (0..0));
        let Some(span) = about else {
            return ConfigError::At { place: self.path.display().to_string(), problem };
        };
        let place = self.source_at(&span).to_string();
        match key_at(&self.root, "", &span) {
            Some(key) => {
                ConfigError::At { place, problem: format!("{}: {problem}", written_form(&key)) }
            }
            None => ConfigError::At { place, problem },
        }
    }

    fn source_at(&self, span: &Range<usize>) -> Source {
        let set = span.start.checked_sub(self.text.len() + 1);
        if let Some(source) = set.and_then(|number| self.overrides.get(number / 2)) {
            return source.clone();
        }
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Source::File { path: self.path.clone(), line }
    }
}

/// The problem with an unknown key.
pub(super) fn unknown(key: &str, keys: &Keys) -> String {
    let shown = written_form(key);
    if let Some((section, name)) = key.rsplit_once('.')
        && section.ends_with("tuning.space")
        && let Some(reason) = training::refusal(name)
    {
        return format!("{shown}: {reason}");
    }
    if let Some(nearest) = keys.nearest(key) {
        return format!("there is no {shown}: did you mean {}?", written_form(nearest));
    }
    match key.rsplit_once('.').map(|(section, _)| (section, keys.names_in(section))) {
        Some((section, names)) => {
            format!("there is no {shown}; [{section}] has {}", names.join(", "))
        }
        None => format!("there is no {shown}; there are {}", keys.names_in("").join(", ")),
    }
}

/// The sections of a list of sections, `[[key]]`, each with the key `key.number` and its span.
fn sections_of_list<'d, 't>(
    key: &str,
    value: &'d Spanned<DeValue<'t>>,
) -> Vec<(String, Range<usize>, &'d DeTable<'t>)> {
    let DeValue::Array(items) = value.get_ref() else { return Vec::new() };
    let sections = items.iter().enumerate().filter_map(|(number, item)| {
        let DeValue::Table(section) = item.get_ref() else { return None };
        Some((format!("{key}.{number}"), item.span(), section))
    });
    sections.collect()
}

/// The innermost key whose name or value contains `span`. An element of a list belongs to the key of the list, unless it is a
/// section.
fn key_at(table: &DeTable<'_>, above: &str, span: &Range<usize>) -> Option<String> {
    for (name, value) in table.iter() {
        let key = joined(above, name.get_ref());
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(found) = key_at(inner, &key, span)
        {
            return Some(found);
        }
        for (key, _, section) in sections_of_list(&key, value) {
            if let Some(found) = key_at(section, &key, span) {
                return Some(found);
            }
        }
        let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
        if holds(value.span()) || holds(name.span()) {
            return Some(key);
        }
    }
    None
}

fn joined(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

fn spanned<'t>(name: &str, span: &Range<usize>) -> Spanned<DeString<'t>> {
    Spanned::new(span.clone(), Cow::Owned(name.to_owned()))
}

/// The value of an override; each part of it has the span `span`.
fn read<'t>(value: &'t str, is_text: bool, span: &Range<usize>) -> Spanned<DeValue<'t>> {
    let text = || Spanned::new(span.clone(), DeValue::String(Cow::Borrowed(value)));
    // A list, a table or a quoted text is TOML, also in place of a text.
    if is_text && !value.starts_with(['{', '[', '"', '\'']) {
        return text();
    }
    DeValue::parse(value).map_or_else(|_| text(), |parsed| moved(parsed.into_inner(), span))
}

/// The value with the span `span` for each part.
fn moved<'t>(value: DeValue<'t>, span: &Range<usize>) -> Spanned<DeValue<'t>> {
    let value = match value {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| moved(item.into_inner(), span)).collect())
        }
        DeValue::Table(table) => {
            let part = |(name, value): (Spanned<DeString<'t>>, Spanned<DeValue<'t>>)| {
                (Spanned::new(span.clone(), name.into_inner()), moved(value.into_inner(), span))
            };
            DeValue::Table(table.into_iter().map(part).collect())
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => value,
    };
    Spanned::new(span.clone(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[topics]\nprefix = '7'\n\n[http]\nbind = 'a'\n";

    fn document<'t>(sets: &[(&'t str, &'t str)]) -> Result<Document<'t>, ConfigError> {
        let mut document = Document::parse(Path::new("x.toml"), FILE)?;
        for (key, value) in sets {
            document.set(key, value, Source::Set((*key).to_owned()))?;
        }
        Ok(document)
    }

    #[test]
    fn override_values_are_parsed_as_toml_if_possible() {
        let check = |key: &str, value: &str, expected: &str| {
            let found: toml::Table = document(&[(key, value)]).unwrap().read().unwrap();
            let expected = format!("{expected}\nhttp = {{ bind = 'a' }}");
            let expected = match key.starts_with("http") {
                true => expected.rsplit_once('\n').unwrap().0.to_owned(),
                false => expected,
            };
            let mut expected: toml::Table = expected.parse().unwrap();
            let topics = "prefix = '7'".parse().unwrap();
            expected.entry("topics").or_insert(toml::Value::Table(topics));
            assert_eq!(found, expected, "{key} = {value}");
        };
        check("topics.partitions", "12", "topics = { prefix = '7', partitions = 12 }");
        check("topics.prefix", "12", "topics = { prefix = '12' }");
        check("topics.prefix", "{ a = 1 }", "topics = { prefix = { a = 1 } }");
        check("http.bind", "0.0.0.0:1", "http = { bind = '0.0.0.0:1' }");
        check("schema_registry.password", "007", "schema_registry = { password = '007' }");
        check("schema_registry.password", "true", "schema_registry = { password = 'true' }");
        let file = "{ file = '/run/x' }";
        check(
            "schema_registry.password",
            file,
            &format!("schema_registry = {{ password = {file} }}"),
        );
        check(
            "broker.properties.sasl.password",
            "1",
            "broker = { properties = { 'sasl.password' = '1' } }",
        );
        assert!(document(&[("topics.prefix.b", "1")]).is_err());
        assert!(document(&[("topics.", "1")]).is_err());
    }

    #[test]
    fn every_value_has_its_source() {
        let sets = [("topics.partitions", "3"), ("http.bind", "b"), ("data.play.label", "c")];
        let sources = document(&sets).unwrap().sources();
        let check = |key: &str, expected: &str| assert_eq!(sources.named(key), expected);
        check("topics.prefix", "x.toml:2: [topics] prefix");
        check("topics.partitions", "--set topics.partitions: [topics] partitions");
        check("topics.nothing", "x.toml:1: [topics] nothing");
        check("http.bind", "--set http.bind: [http] bind");
        check("data.play.label", "--set data.play.label: [data.play] label");
        check("data.play", "--set data.play.label: [data] play");
        check("learning.seed", "x.toml: [learning] seed");
    }

    #[test]
    fn an_error_names_the_source_and_the_key() {
        #[derive(serde::Deserialize, Debug)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "read for its errors")]
        struct Wanted {
            topics: Topics,
            http: std::collections::BTreeMap<String, String>,
        }
        #[derive(serde::Deserialize, Debug)]
        #[expect(dead_code, reason = "read for its errors")]
        struct Topics {
            prefix: Vec<u8>,
            partitions: u32,
        }
        let check = |sets: &[(&str, &str)], expected: &str| {
            let error = document(sets).unwrap().read::<Wanted>().unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let prefix = ("topics.prefix", "[1]");
        check(
            &[],
            "x.toml:2: [topics] prefix: invalid type: string \"7\", expected a list, such as [\"a\", \"b\"]",
        );
        check(&[prefix], "x.toml:1: [topics]: missing field `partitions`");
        check(
            &[prefix, ("topics.partitions", "many")],
            "--set topics.partitions: [topics] partitions: invalid type: string \"many\", expected a whole number from 0 to 4294967295",
        );
        check(
            &[("topics.prefix", "[1, 'b']"), ("topics.partitions", "1")],
            "--set topics.prefix: [topics] prefix: invalid type: string \"b\", expected a whole number from 0 to 255",
        );
        check(
            &[prefix, ("topics.partitions", "1"), ("other.key", "1")],
            "--set other.key: [other]: unknown field `other`, expected `topics` or `http`",
        );
        let error = Document::parse(Path::new("x.toml"), "a = 1\nb = \n").err().unwrap();
        assert!(error.to_string().starts_with("x.toml:2: "), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
