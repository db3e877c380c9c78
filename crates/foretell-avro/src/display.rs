//! Descriptions of schemas for messages.

use apache_avro::schema::{Schema, UuidSchema};

/// A short description of a type: `null or int`, `array of string`, `record Stop`.
pub(crate) fn in_words(schema: &Schema) -> String {
    let plain = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::BigDecimal => "big-decimal",
        Schema::Uuid(UuidSchema::Bytes | UuidSchema::String | UuidSchema::Fixed(_)) => "uuid",
        Schema::Date => "date",
        Schema::TimeMillis => "time-millis",
        Schema::TimeMicros => "time-micros",
        Schema::TimestampMillis => "timestamp-millis",
        Schema::TimestampMicros => "timestamp-micros",
        Schema::TimestampNanos => "timestamp-nanos",
        Schema::LocalTimestampMillis => "local-timestamp-millis",
        Schema::LocalTimestampMicros => "local-timestamp-micros",
        Schema::LocalTimestampNanos => "local-timestamp-nanos",
        Schema::Duration(_) => "duration",
        Schema::Decimal(decimal) => {
            return format!(
                "decimal of {} digits, {} of them behind the point",
                decimal.precision, decimal.scale
            );
        }
        Schema::Array(array) => return format!("array of {}", in_words(&array.items)),
        Schema::Map(map) => return format!("map of {}", in_words(&map.types)),
        Schema::Union(union) => return any_of(union.variants()),
        Schema::Record(record) => return format!("record {}", record.name.name()),
        Schema::Enum(symbols) => return format!("enum {}", symbols.name.name()),
        Schema::Fixed(fixed) => return format!("fixed of {} bytes", fixed.size),
        Schema::Ref { name } => return name.name().to_owned(),
    };
    plain.to_owned()
}

/// A description of the branches of a union.
pub(crate) fn any_of(branches: &[Schema]) -> String {
    let branches: Vec<String> = branches.iter().map(in_words).collect();
    branches.join(" or ")
}

/// The message for a writer type that cannot be resolved to a reader type.
pub(crate) fn cannot_be_read(writer: &Schema, reader: &Schema) -> String {
    format!("{} cannot be read as {}", in_words(writer), in_words(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_described() {
        for (schema, words) in [
            (r#"["null","int"]"#, "null or int"),
            (
                r#"{"type":"array","items":{"type":"map","values":"string"}}"#,
                "array of map of string",
            ),
            (r#"{"type":"record","name":"a.Stop","fields":[]}"#, "record Stop"),
            (r#"{"type":"long","logicalType":"timestamp-micros"}"#, "timestamp-micros"),
            (r#"{"type":"fixed","name":"F","size":3}"#, "fixed of 3 bytes"),
        ] {
            assert_eq!(in_words(&Schema::parse_str(schema).expect(schema)), words);
        }
    }
}
