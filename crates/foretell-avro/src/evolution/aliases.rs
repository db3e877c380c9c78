//! A writer's schema with its types under the names that a reader's schema has for them. Avro lets a reader rename a
//! record, an enum or a fixed by an alias; apache-avro's judge compares names alone.

use std::collections::BTreeMap;

use apache_avro::schema::{Alias, Name, Schema, UnionSchema};

/// `written` with the names of `reading`; none if no alias of `reading` is the name of a type of `written`.
pub(super) fn with_names_of(reading: &Schema, written: &Schema) -> Option<Schema> {
    let mut names = BTreeMap::new();
    collect(reading, &mut names);
    let mut renamed = written.clone();
    rename(&mut renamed, &names).then_some(renamed)
}

/// The reader's names, by their aliases. Namespaces do not count, as where records are read.
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

/// Whether something was renamed.
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
            // Two branches that the reader has as one stay two: the judge says what that is.
            match UnionSchema::new(variants) {
                Ok(renamed) if is_inside => *union = renamed,
                Ok(_) | Err(_) => return false,
            }
            true
        }
        _ => false,
    }
}
