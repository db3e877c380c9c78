//! Encodes a field's default, which its schema gives as JSON.

use apache_avro::schema::{NamesRef, RecordField, RecordSchema, Schema, UnionSchema};
use serde_json::Value;

use crate::{
    layout::definition,
    layout::is_long,
    wire::{write_blob, write_count, write_long},
};

/// Appends the encoded default of `field`.
///
/// # Errors
/// A message, if the field has no default, or one of the wrong type.
pub(crate) fn write_default(
    field: &RecordField,
    names: &NamesRef,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let name = &field.name;
    match &field.default {
        Some(value) => write(value, &field.schema, names, out),
        None => Err("it has no default".to_owned()),
    }
    .map_err(|reason| format!("field {name}: {reason}"))
}

fn write(
    value: &Value,
    schema: &Schema,
    names: &NamesRef,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (schema, value) {
        (Schema::Ref { name }, _) => write(value, definition(name, names)?, names, out)?,
        (Schema::Union(union), _) => write_union(value, union, names, out)?,
        (Schema::Null, Value::Null) => (),
        (Schema::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
        (Schema::Int | Schema::Date | Schema::TimeMillis, Value::Number(number)) => {
            let int = number.as_i64().and_then(|long| i32::try_from(long).ok());
            write_long(i64::from(int.ok_or_else(|| mismatch(value, schema))?), out);
        }
        (schema, Value::Number(number)) if is_long(schema) => {
            write_long(number.as_i64().ok_or_else(|| mismatch(value, schema))?, out);
        }
        (Schema::Float, Value::Number(number)) => {
            let double = number.as_f64().ok_or_else(|| mismatch(value, schema))?;
            out.extend_from_slice(&(double as f32).to_le_bytes());
        }
        (Schema::Double, Value::Number(number)) => {
            let double = number.as_f64().ok_or_else(|| mismatch(value, schema))?;
            out.extend_from_slice(&double.to_le_bytes());
        }
        (Schema::String | Schema::Uuid(_), Value::String(text)) => write_blob(text.as_bytes(), out),
        (Schema::Bytes, Value::String(text)) => write_blob(&latin1(text)?, out),
        (Schema::Fixed(fixed), Value::String(text)) => {
            let bytes = latin1(text)?;
            if bytes.len() != fixed.size {
                return Err(mismatch(value, schema));
            }
            out.extend_from_slice(&bytes);
        }
        (Schema::Enum(symbols), Value::String(text)) => {
            let index = symbols.symbols.iter().position(|symbol| symbol == text);
            write_count(index.ok_or_else(|| mismatch(value, schema))?, out);
        }
        (Schema::Array(array), Value::Array(items)) => {
            write_block(items.len(), out);
            for item in items {
                write(item, &array.items, names, out)?;
            }
            out.push(0);
        }
        (Schema::Map(map), Value::Object(entries)) => {
            write_block(entries.len(), out);
            for (key, entry) in entries {
                write_blob(key.as_bytes(), out);
                write(entry, &map.types, names, out)?;
            }
            out.push(0);
        }
        (Schema::Record(record), Value::Object(fields)) => {
            write_record(fields, record, names, out)?;
        }
        (schema, value) => return Err(mismatch(value, schema)),
    }
    Ok(())
}

/// Encodes a union's default as the first branch that fits. Avro 1.11 and older require the first branch of all, newer
/// versions allow any.
fn write_union(
    value: &Value,
    union: &UnionSchema,
    names: &NamesRef,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    for (index, branch) in union.variants().iter().enumerate() {
        let mut bytes = Vec::new();
        if write(value, branch, names, &mut bytes).is_ok() {
            write_count(index, out);
            out.append(&mut bytes);
            return Ok(());
        }
    }
    Err(format!("its default {value} fits no branch of its union"))
}

fn write_record(
    fields: &serde_json::Map<String, Value>,
    record: &RecordSchema,
    names: &NamesRef,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    for field in &record.fields {
        match fields.get(&field.name) {
            Some(value) => write(value, &field.schema, names, out)?,
            None => write_default(field, names, out)?,
        }
    }
    Ok(())
}

/// Starts a block of items, unless there are none. The caller appends the items, and the zero that ends the collection.
fn write_block(items: usize, out: &mut Vec<u8>) {
    if items > 0 {
        write_count(items, out);
    }
}

/// Decodes bytes in a schema's JSON, where the code points 0 to 255 stand for the bytes 0 to 255.
fn latin1(text: &str) -> Result<Vec<u8>, String> {
    let byte = |character| {
        u8::try_from(u32::from(character)).map_err(|_| format!("{character:?} is not a byte"))
    };
    text.chars().map(byte).collect()
}

fn mismatch(value: &Value, schema: &Schema) -> String {
    format!("its default {value} is not of its type {schema}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::schema::ResolvedSchema;

    fn check(field: &str, expected: Result<&[u8], &str>) {
        let text = format!(r#"{{"type":"record","name":"R","fields":[{field}]}}"#);
        let schema = Schema::parse_str(&text).expect("a schema");
        let names = ResolvedSchema::new(&schema).expect("all names are defined");
        let Schema::Record(record) = &schema else { panic!("a record") };
        let mut out = Vec::new();
        let result = write_default(&record.fields[0], names.get_names(), &mut out);
        match expected {
            Ok(bytes) => assert_eq!((result, out.as_slice()), (Ok(()), bytes), "{field}"),
            Err(word) => assert!(result.is_err_and(|reason| reason.contains(word)), "{field}"),
        }
    }

    #[test]
    fn defaults_of_each_type_are_encoded() {
        check(r#"{"name":"a","type":["null","int"],"default":null}"#, Ok(&[0]));
        check(r#"{"name":"a","type":["int","null"],"default":3}"#, Ok(&[0, 6]));
        check(r#"{"name":"a","type":"boolean","default":true}"#, Ok(&[1]));
        check(r#"{"name":"a","type":"long","default":-1}"#, Ok(&[1]));
        check(r#"{"name":"a","type":"float","default":1}"#, Ok(&[0, 0, 0x80, 0x3f]));
        check(r#"{"name":"a","type":"double","default":0}"#, Ok(&[0; 8]));
        check(r#"{"name":"a","type":"string","default":"é"}"#, Ok(&[4, 0xc3, 0xa9]));
        check(r#"{"name":"a","type":"bytes","default":"\u00ff"}"#, Ok(&[2, 0xff]));
        check(r#"{"name":"a","type":{"type":"array","items":"int"},"default":[]}"#, Ok(&[0]));
        check(
            r#"{"name":"a","type":{"type":"array","items":"int"},"default":[1]}"#,
            Ok(&[2, 2, 0]),
        );
        check(
            r#"{"name":"a","type":{"type":"map","values":"int"},"default":{"k":1}}"#,
            Ok(&[2, 2, b'k', 2, 0]),
        );
        check(
            r#"{"name":"a","type":{"type":"enum","name":"E","symbols":["X","Y"]},"default":"Y"}"#,
            Ok(&[2]),
        );
        check(
            r#"{"name":"a","type":{"type":"record","name":"I","fields":[
                {"name":"x","type":"int","default":2},{"name":"y","type":"int"}]},"default":{"y":1}}"#,
            Ok(&[4, 2]),
        );
        check(r#"{"name":"a","type":"int"}"#, Err("field a: it has no default"));
    }
}
