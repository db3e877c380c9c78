//! Arbitrary values of a type, for required fields whose value does not matter.

use apache_avro::schema::{InnerDecimalSchema, NamesRef, Schema, UuidSchema};

use crate::{
    layout::{definition, is_long},
    wire::{write_blob, write_count, write_long},
};

/// Maximum nesting depth: a record that always contains itself has no finite value.
const DEPTH_MAX: usize = 32;
/// Maximum number of values that are tried, because nested unions multiply the branches to try.
const VALUES_MAX: usize = 10_000;
const NIL_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// Appends a value of `schema`: zero, empty, null, or the first symbol or branch.
///
/// # Errors
/// A message, if no value is found within the bounds.
pub(crate) fn write_sample(
    schema: &Schema,
    names: &NamesRef,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    Sampler { names, values: 0 }.write(schema, DEPTH_MAX, out)
}

struct Sampler<'n> {
    names: &'n NamesRef<'n>,
    /// Number of values tried so far.
    values: usize,
}

impl Sampler<'_> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it is apache_avro's enum: all else has no sample"
    )]
    fn write(&mut self, schema: &Schema, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err("a record that contains itself has no value".to_owned());
        };
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(format!("it takes more than {VALUES_MAX} values to find one"));
        }
        match schema {
            Schema::Null => {}
            Schema::Boolean => out.push(0),
            Schema::Int | Schema::Date | Schema::TimeMillis => write_long(0, out),
            schema if is_long(schema) => write_long(0, out),
            Schema::Float => out.extend_from_slice(&0_f32.to_le_bytes()),
            Schema::Double => out.extend_from_slice(&0_f64.to_le_bytes()),
            Schema::Bytes | Schema::String => write_blob(&[], out),
            Schema::Uuid(UuidSchema::String) => write_blob(NIL_UUID.as_bytes(), out),
            Schema::Uuid(UuidSchema::Bytes) => write_blob(&[0; 16], out),
            Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                out.resize(out.len() + fixed.size, 0);
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => write_blob(&[0], out),
                InnerDecimalSchema::Fixed(fixed) => out.resize(out.len() + fixed.size, 0),
            },
            Schema::Duration(fixed) => out.resize(out.len() + fixed.size, 0),
            Schema::Enum(_) => write_count(0, out),
            // An empty collection has no block.
            Schema::Array(_) | Schema::Map(_) => out.push(0),
            Schema::Record(record) => {
                for field in &record.fields {
                    self.write(&field.schema, depth, out)?;
                }
            }
            Schema::Ref { name } => self.write(definition(name, self.names)?, depth, out)?,
            Schema::Union(union) => {
                // Null first, then types that cannot be recursive.
                let mut branches: Vec<_> = union.variants().iter().enumerate().collect();
                branches.sort_by_key(|(_, branch)| match branch {
                    Schema::Null => 0,
                    Schema::Record(_) | Schema::Ref { .. } => 2,
                    _ => 1,
                });
                let found = branches.into_iter().find_map(|(index, branch)| {
                    let mut bytes = Vec::new();
                    write_count(index, &mut bytes);
                    self.write(branch, depth, &mut bytes).ok().map(|()| bytes)
                });
                out.extend(found.ok_or("no branch of its union has a value")?);
            }
            other => return Err(format!("values of type {other:?} are not supported")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::{reader::datum::GenericDatumReader, schema::ResolvedSchema};

    use super::*;

    fn sample(schema: &str) -> Result<Vec<u8>, String> {
        let parsed = Schema::parse_str(schema).unwrap();
        let resolved = ResolvedSchema::new(&parsed).unwrap();
        let mut bytes = Vec::new();
        write_sample(&parsed, resolved.get_names(), &mut bytes)?;
        let mut rest = bytes.as_slice();
        let reader = GenericDatumReader::builder(&parsed).build().unwrap();
        let read: Result<apache_avro::types::Value, _> = reader.read_value(&mut rest);
        assert!(read.is_ok() && rest.is_empty(), "{schema}: {read:?}, {} bytes left", rest.len());
        Ok(bytes)
    }

    #[test]
    fn the_search_in_recursive_unions_is_bounded() {
        let fields = |branches: &str| {
            let field = |name: char| format!(r#"{{"name":"{name}","type":{branches}}}"#);
            ('a'..='f').map(field).collect::<Vec<_>>().join(",")
        };
        let record = |branches: &str| {
            format!(r#"{{"type":"record","name":"E","fields":[{}]}}"#, fields(branches))
        };
        assert_eq!(sample(&record(r#"["E","string"]"#)).unwrap().len(), 12, "all six empty texts");
        // None of its branches ends.
        let wide = r#"["E",{"type":"record","name":"%","fields":[{"name":"x","type":"E"}]}]"#;
        let first = format!(r#"{{"name":"a","type":{}}}"#, wide.replace('%', "F"));
        let rest = ('b'..='f').map(|name| format!(r#"{{"name":"{name}","type":["E","F"]}}"#));
        let fields = std::iter::once(first).chain(rest).collect::<Vec<_>>().join(",");
        let endless = format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
        assert!(sample(&endless).is_err());
    }

    #[test]
    fn apache_avro_decodes_the_sample_of_every_type() {
        for schema in [
            r#""boolean""#,
            r#""int""#,
            r#""long""#,
            r#""float""#,
            r#""double""#,
            r#""bytes""#,
            r#""string""#,
            r#"["string","null"]"#,
            r#"{"type":"string","logicalType":"uuid"}"#,
            r#"{"type":"fixed","name":"F","size":3}"#,
            r#"{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}"#,
            r#"{"type":"int","logicalType":"date"}"#,
            r#"{"type":"long","logicalType":"timestamp-micros"}"#,
            r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#,
            r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
            r#"{"type":"array","items":"string"}"#,
            r#"{"type":"map","values":"long"}"#,
            r#"{"type":"record","name":"Node","fields":[{"name":"id","type":"int"},
                {"name":"next","type":["Node","null"]},{"name":"more","type":{"type":"array","items":"Node"}}]}"#,
        ] {
            sample(schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        }
        assert_eq!(sample(r#"["string","null"]"#).unwrap(), [2], "null, if it may be");
    }

    #[test]
    fn a_record_that_always_contains_itself_has_no_sample() {
        let endless = r#"{"type":"record","name":"Node","fields":[{"name":"next","type":"Node"}]}"#;
        assert!(sample(endless).unwrap_err().contains("contains itself"));
    }
}
