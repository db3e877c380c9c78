//! Renames the types of a writer schema as the reader schema calls them. A reader may rename a record, an enum or a fixed
//! by an alias, but apache-avro's compatibility check ignores the aliases of types.

use std::collections::BTreeMap;

use apache_avro::schema::{Alias, Name, Schema, UnionSchema};

/// `written` with the names of `reading`; `None` if no alias of `reading` is the name of a type in `written`.
pub(super) fn with_names_of(reading: &Schema, written: &Schema) -> Option<Schema> {
    let mut names = BTreeMap::new();
    collect(reading, &mut names);
    let mut renamed = written.clone();
    rename(&mut renamed, &names).then_some(renamed)
}

/// Collects the reader's names by alias. Namespaces are ignored, as in resolution.
fn collect(schema: &Schema, names: &mut BTreeMap<String, Name>) {
    let mut named = |name: &Name, aliases: &Option<Vec<Alias>>| {
        for alias in aliases.iter().flatten() {
            names.insert(alias.name().to_owned(), name.clone());
        }
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it is apache_avro's enum: nothing else has a name or holds what has one"
    )]
    match schema {
        Schema::Record(record) => {
            named(&record.name, &record.aliases);
            record.fields.iter().for_each(|field| collect(&field.schema, names));
        }
        Schema::Enum(schema) => named(&schema.name, &schema.aliases),
        Schema::Fixed(schema) => named(&schema.name, &schema.aliases),
        Schema::Array(array) => collect(&array.items, names),
        Schema::Map(map) => collect(&map.types, names),
        Schema::Union(union) => union.variants().iter().for_each(|one| collect(one, names)),
        _ => (),
    }
}

/// Renames the types in a schema; returns whether there were any to rename.
fn rename(schema: &mut Schema, names: &BTreeMap<String, Name>) -> bool {
    let change = |name: &mut Name| match names.get(name.name()) {
        Some(new) => {
            name.clone_from(new);
            true
        }
        None => false,
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it is apache_avro's enum: nothing else has a name or holds what has one"
    )]
    match schema {
        Schema::Record(record) => {
            let fields = record.fields.iter_mut();
            let is_inside = fields.fold(false, |is, field| rename(&mut field.schema, names) | is);
            change(&mut record.name) | is_inside
        }
        Schema::Enum(schema) => change(&mut schema.name),
        Schema::Fixed(schema) => change(&mut schema.name),
        Schema::Ref { name } => change(name),
        Schema::Array(array) => rename(&mut array.items, names),
        Schema::Map(map) => rename(&mut map.types, names),
        Schema::Union(union) => {
            let mut variants = union.variants().to_vec();
            let is_inside = variants.iter_mut().fold(false, |is, one| rename(one, names) | is);
            // If two branches would become the same type, nothing is renamed, and the check reports the old names.
            match UnionSchema::new(variants) {
                Ok(renamed) if is_inside => *union = renamed,
                Ok(_) | Err(_) => return false,
            }
            true
        }
        _ => false,
    }
}
