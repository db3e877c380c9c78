//! Parses the declarations of types from the source: doc comments, fields and variants. The compiler drops the comments.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Expr, Item, Lit, Meta, Type};

/// A struct with its fields, or an enum with its variants.
#[derive(Clone)]
pub(super) struct Declaration {
    pub(super) docs: String,
    pub(super) members: Vec<Member>,
    pub(super) is_enum: bool,
}

/// A field or a variant.
#[derive(Clone)]
pub(super) struct Member {
    /// The name for serde.
    pub(super) name: String,
    pub(super) docs: String,
    /// The type of the field, or of the variant's content.
    pub(super) holds: Option<Type>,
}

/// The structs and enums that serde deserializes, of all crates of the workspace, by name. Names of two types are left out, so
/// that one is not mistaken for the other.
pub(super) fn declarations() -> BTreeMap<String, Declaration> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut ambiguous) = (BTreeMap::new(), Vec::new());
    for path in files(&root.join("src")).into_iter().chain(files(&root.join("crates"))) {
        let text = fs::read_to_string(path).unwrap();
        // Parsing every file takes long, and a configuration has only types that serde deserializes.
        if !text.contains("Deserialize") {
            continue;
        }
        for item in syn::parse_file(&text).unwrap().items {
            if let Some((name, declaration)) = declaration(&item)
                && found.insert(name.clone(), declaration).is_some()
            {
                ambiguous.push(name);
            }
        }
    }
    found.retain(|name, _| !ambiguous.contains(name));
    found
}

/// The Rust files under `folder`; none if it does not exist.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn declaration(item: &Item) -> Option<(String, Declaration)> {
    if let Item::Struct(item) = item {
        let members = item.fields.iter().filter_map(|field| {
            let name = field.ident.as_ref()?.to_string();
            Some(Member { name, docs: docs(&field.attrs), holds: Some(field.ty.clone()) })
        });
        let members = members.collect();
        let declaration = Declaration { docs: docs(&item.attrs), members, is_enum: false };
        return Some((item.ident.to_string(), declaration));
    }
    let Item::Enum(item) = item else { return None };
    let is_snake_case = serde_value(&item.attrs, "rename_all").as_deref() == Some("snake_case");
    let members = item.variants.iter().map(|variant| {
        let written = variant.ident.to_string();
        let usual = if is_snake_case { snake_case(&written) } else { written };
        let name = serde_value(&variant.attrs, "rename").unwrap_or(usual);
        let holds = variant.fields.iter().next().map(|field| field.ty.clone());
        Member { name, docs: docs(&variant.attrs), holds }
    });
    let members = members.collect();
    let declaration = Declaration { docs: docs(&item.attrs), members, is_enum: true };
    Some((item.ident.to_string(), declaration))
}

/// The doc comment as one line.
fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &pair.value else { return None };
        let Lit::Str(text) = &literal.lit else { return None };
        pair.path.is_ident("doc").then(|| text.value().trim().to_owned())
    });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// The value in `#[serde(key = "value")]`.
fn serde_value(attributes: &[Attribute], key: &str) -> Option<String> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let read = attribute.parse_nested_meta(|meta| {
            let Ok(value) = meta.value() else { return Ok(()) };
            let value: syn::LitStr = value.parse()?;
            if meta.path.is_ident(key) {
                found = Some(value.value());
            }
            Ok(())
        });
        read.unwrap();
    }
    found
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
