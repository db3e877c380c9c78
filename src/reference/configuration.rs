//! `docs/configuration.md`: every key, from the doc comments of `config/raw.rs` and of the types in it, with the defaults
//! of a configuration that sets only the required keys.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value as Json;
use syn::{GenericArgument, PathArguments, Type, TypePath};

use crate::{
    config::{key_names, values_of},
    reference::{
        assert_current, head, row,
        source::{self, Declaration, Member},
    },
};
use foretell_ml::{
    Params,
    training::{SEARCHABLE, Space},
};

/// A configuration of the required keys.
const REQUIRED: &str = r#"
application.id = "a"
events = { schema = "a.avsc", respondent_id = "who", event_time = "at", companions = [{ topic = "t", schema = "t.avsc" }] }
outcomes.labels = ["no", "yes"]
data.initial = { path = "a.csv", label = "label" }
data.play = { path = "b.csv", label = "label" }
http.tls = { certificate_file = "a.pem", key_file = "b.pem" }
[[actions]]
name = "a"
when = "true"
[[delivery.webhooks]]
name = "a"
url = "https://a"
rate = { times = 1, per = "1s" }
quiet_hours = { from = "20:00", to = "08:00", zone = "Z" }
[[delivery.emails]]
name = "b"
smtp = "smtp://b"
from = "b@b"
to = "c"
subject = "d"
body = "e"
"#;

/// A key as the page shows it.
struct Key {
    path: String,
    declared_type: Type,
    docs: String,
}

/// The keys of one struct, and the names of the sections that have this type.
struct Section {
    names: Vec<String>,
    docs: String,
    keys: Vec<Key>,
    /// Whether its keys are the parameters that a study may search.
    is_space: bool,
}

fn sections(types: &BTreeMap<String, Declaration>) -> Vec<Section> {
    let mut sections: Vec<(String, Section)> = Vec::new();
    collect("", "RawConfig", types, &mut sections);
    let sections = sections.into_iter().map(|(_, section)| section);
    sections.filter(|one| one.is_space || !one.keys.is_empty()).collect()
}

/// Appends the section of the struct named `of`, and the sections inside it.
fn collect(
    path: &str,
    of: &str,
    types: &BTreeMap<String, Declaration>,
    sections: &mut Vec<(String, Section)>,
) {
    if let Some((_, same)) = sections.iter_mut().find(|(name, _)| name == of) {
        same.names.push(path.to_owned());
        return;
    }
    let declaration = &types[of];
    let docs = declaration.docs.clone();
    let is_space = of == "Space";
    let section = Section { names: vec![path.to_owned()], docs, keys: Vec::new(), is_space };
    let index = sections.len();
    sections.push((of.to_owned(), section));
    if is_space {
        return;
    }
    for Member { name, docs, holds } in &declaration.members {
        let declared_type = holds.clone().unwrap();
        let outer = ["Option", "Vec"].iter().find_map(|outer| argument(&declared_type, outer));
        let inner = name_of(outer.unwrap_or(&declared_type));
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if types.get(&inner).is_some_and(|inner| !inner.is_enum) {
            collect(&path, &inner, types, sections);
            if docs.is_empty() {
                continue;
            }
        }
        if !path.contains('.') {
            continue;
        }
        assert!(!docs.is_empty(), "the key {path} has no doc comment");
        sections[index].1.keys.push(Key { path, declared_type, docs: docs.clone() });
    }
}

/// The last segment of a type's path.
fn name_of(of: &Type) -> String {
    let Type::Path(TypePath { path, .. }) = of else { return String::new() };
    path.segments.last().unwrap().ident.to_string()
}

/// The type argument of `Name<T>`, or the last of several.
fn argument<'t>(of: &'t Type, name: &str) -> Option<&'t Type> {
    let Type::Path(TypePath { path, .. }) = of else { return None };
    let last = path.segments.last().unwrap();
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let Some(GenericArgument::Type(inner)) = arguments.args.last() else { return None };
    (last.ident == name).then_some(inner)
}

/// The name of a type for users.
fn type_in_words(of: &Type, types: &BTreeMap<String, Declaration>) -> String {
    let within = |inner| type_in_words(inner, types);
    if let Some(inner) = argument(of, "Option") {
        return within(inner);
    }
    if let Some(inner) = argument(of, "Vec") {
        return format!("list of {}s", within(inner));
    }
    if let Some(inner) = argument(of, "BTreeMap") {
        return format!("table of {}s", within(inner).trim_end_matches('s'));
    }
    if let Type::Tuple(_) = of {
        return "pair".to_owned();
    }
    let words = match name_of(of).as_str() {
        "String" => "text",
        "PathBuf" => "path",
        "Duration" | "RawAfter" => "duration",
        "u32" | "u64" | "usize" => "whole number",
        "f64" => "number",
        "bool" => "boolean",
        "char" => "character",
        "Secret" | "LazySecret" => "secret",
        // Their keys are in a section of their own, and the docs of the key show them in one line.
        "AtMost" | "RawRate" | "RawQuietHours" => "table",
        name => match types.get(name) {
            Some(named) if named.is_enum => "choice",
            Some(_) => "section",
            None => panic!("the type {name} has no name for users"),
        },
    };
    words.to_owned()
}

/// The variants of an enum, in the form of TOML.
fn choices<'t>(of: &Type, types: &'t BTreeMap<String, Declaration>) -> Vec<(String, &'t Member)> {
    let inner = ["Option", "Vec", "BTreeMap"].iter().find_map(|outer| argument(of, outer));
    if let Some(inner) = inner {
        return choices(inner, types);
    }
    let Some(declaration) = types.get(&name_of(of)).filter(|found| found.is_enum) else {
        return Vec::new();
    };
    let written = |variant: &Member| match &variant.holds {
        None => format!("\"{}\"", variant.name),
        Some(holds) if name_of(holds) == "String" => format!("{{ {} = \"…\" }}", variant.name),
        Some(_) => format!("{{ {} = N }}", variant.name),
    };
    declaration.members.iter().map(|variant| (written(variant), variant)).collect()
}

/// A value in the form of TOML, in one line.
fn in_toml(value: &Json) -> String {
    match value {
        Json::Array(items) => {
            format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", "))
        }
        Json::Object(pairs) if pairs.is_empty() => "{}".to_owned(),
        Json::Object(pairs) => {
            let pairs = pairs.iter().map(|(name, value)| format!("{name} = {}", in_toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.to_string(),
    }
}

fn pointed<'v, V>(
    root: &'v V,
    path: &str,
    get: impl Fn(&'v V, &str) -> Option<&'v V>,
) -> Option<&'v V> {
    path.split('.').try_fold(root, get)
}

/// The value of a key of a section, or of the first of a list of sections.
fn in_toml_section<'v>(section: &'v toml::Value, name: &str) -> Option<&'v toml::Value> {
    section.get(0).unwrap_or(section).get(name)
}

fn in_json_section<'v>(section: &'v Json, name: &str) -> Option<&'v Json> {
    section.get(0).unwrap_or(section).get(name)
}

/// Whether `REQUIRED` has a value at `path` that satisfies `is_it`.
fn required_is(path: &str, is_it: impl FnOnce(&toml::Value) -> bool) -> bool {
    let required: toml::Value = toml::from_str(REQUIRED).unwrap();
    pointed(&required, path, in_toml_section).is_some_and(is_it)
}

fn is_required(path: &str) -> bool {
    let is_table = toml::Value::is_table;
    required_is(path, |value| !is_table(value) && value.get(0).is_none_or(|one| !is_table(one)))
}

/// Whether a section is one of a list: `[[section]]`.
fn is_list(section: &str) -> bool {
    required_is(section, toml::Value::is_array)
}

fn page(sections: &[Section], types: &BTreeMap<String, Declaration>) -> String {
    let defaults = values_of(toml::from_str(REQUIRED).unwrap()).unwrap();
    let mut page = String::new();
    for Section { names, docs, keys, is_space } in sections {
        let name = |name: &String| match is_list(name) {
            true => format!("`[[{name}]]`"),
            false => format!("`[{name}]`"),
        };
        let names: Vec<String> = names.iter().map(name).collect();
        write!(page, "\n## {}\n\n{docs}\n\n", names.join(", ")).unwrap();
        if *is_space {
            page += &searchable_parameters();
            continue;
        }
        page += &head(&["key", "type", "default", "meaning"]);
        for Key { path, declared_type, docs } in keys {
            let name = path.rsplit('.').next().unwrap();
            let kind = type_in_words(declared_type, types);
            let default = pointed(&defaults, path, in_json_section);
            let default = match default {
                _ if is_required(path) => "required".to_owned(),
                _ if kind == "section" || kind == "list of sections" => "none".to_owned(),
                // It is in `REQUIRED` for the keys in it.
                _ if kind == "table" && required_is(path, toml::Value::is_table) => {
                    "unset".to_owned()
                }
                None | Some(Json::Null) => "unset".to_owned(),
                Some(value) => format!("`{}`", in_toml(value)),
            };
            let choices = choices(declared_type, types).into_iter().fold(
                String::new(),
                |mut list, (written, variant)| {
                    assert!(!variant.docs.is_empty(), "{written} of {path} has no doc comment");
                    write!(list, "<br>`{written}`: {}", variant.docs).unwrap();
                    list
                },
            );
            page += &row(&[&format!("`{name}`"), &kind, &default, &format!("{docs}{choices}")]);
        }
    }
    page
}

/// The table of the parameters that a study may search.
fn searchable_parameters() -> String {
    let mut table = head(&["parameter", "values", "searched by default", "meaning"]);
    for parameter in SEARCHABLE {
        let name = parameter.name;
        let searched = match (Space::default().domain(name), Params::default().get(name)) {
            (Some(domain), _) => format!("`{domain}`"),
            (None, Some(value)) => format!("no: `{value}`"),
            (None, None) => panic!("{name} has no value"),
        };
        let values = parameter.values_in_words();
        table += &row(&[&format!("`{name}`"), &values, &searched, parameter.docs]);
    }
    table
}

#[test]
fn every_key_is_in_the_docs() {
    let types = source::declarations();
    let sections = sections(&types);
    let documented: Vec<&str> = sections
        .iter()
        .flat_map(|section| section.names.iter().zip(std::iter::repeat(section)))
        .flat_map(|(_, section)| section.keys.iter().map(|key| key.path.as_str()))
        .collect();
    for key in key_names() {
        // Sections of one type are shown once.
        let shown = key.replace("data.play.", "data.initial.");
        let parameter = key.split_once("tuning.space.").map(|(_, name)| name);
        let is_searchable =
            parameter.is_some_and(|name| SEARCHABLE.iter().any(|other| other.name == name));
        let inside = format!("{key}.");
        let is_shown = is_searchable
            || documented.contains(&shown.as_str())
            || documented.iter().any(|path| path.starts_with(&inside));
        assert!(is_shown, "the key {key} is not in the docs");
    }
    assert_current("configuration.md", "keys", &page(&sections, &types));
}

/// The choices on the page are valid values.
#[test]
fn every_documented_choice_is_valid() {
    let types = source::declarations();
    for key in sections(&types).iter().flat_map(|section| &section.keys) {
        for (written, _) in choices(&key.declared_type, &types) {
            let value = written.replace('N', "3").replace('…', "no");
            let value = match type_in_words(&key.declared_type, &types).as_str() {
                "choice" => value,
                "list of choices" if key.path.starts_with("actions.") => format!("[{value}]"),
                _ => format!("{{ a = [{value}] }}"),
            };
            let set: toml::Value = toml::from_str(&format!("{} = {value}", key.path)).unwrap();
            let mut whole: toml::Value = toml::from_str(REQUIRED).unwrap();
            let (sections, name) = key.path.rsplit_once('.').unwrap();
            let section = sections.split('.').fold(&mut whole, |table, name| {
                let table = table.as_table_mut().unwrap();
                let inner = table.entry(name).or_insert_with(|| toml::Table::new().into());
                if inner.is_array() { &mut inner[0] } else { inner }
            });
            let set = pointed(&set, &key.path, |table, name| table.get(name)).unwrap();
            section.as_table_mut().unwrap().insert(name.to_owned(), set.clone());
            if let Err(error) = values_of(whole) {
                panic!("{} = {value}: {error}", key.path);
            }
        }
    }
}

/// A configuration without one of the required keys is invalid.
#[test]
fn required_keys_are_required() {
    let whole: toml::Table = toml::from_str(REQUIRED).unwrap();
    for path in [
        "application.id",
        "events.schema",
        "events.respondent_id",
        "events.event_time",
        "outcomes.labels",
        "data.initial.path",
        "data.initial.label",
    ] {
        assert!(is_required(path), "{path}");
        let mut less = whole.clone();
        let (sections, name) = path.rsplit_once('.').unwrap();
        let section = sections.split('.').try_fold(&mut less, |table, name| {
            table.get_mut(name).and_then(toml::Value::as_table_mut)
        });
        section.unwrap().remove(name);
        assert!(values_of(less.into()).is_err(), "{path}");
    }
}
