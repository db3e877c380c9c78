//! Scalar types: their encoding, and the unit of those that are dates or times.

use apache_avro::schema::{InnerDecimalSchema, Schema, UuidSchema};

use crate::layout::is_long;

/// The encoding of a scalar type; types with the same base have the same bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Blob,
    Fixed(usize),
    Other,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "it is apache_avro's enum: all else is `Other`")]
pub(super) fn base(schema: &Schema) -> Base {
    match schema {
        Schema::Null => Base::Null,
        Schema::Boolean => Base::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Base::Int,
        schema if is_long(schema) => Base::Long,
        Schema::Float => Base::Float,
        Schema::Double => Base::Double,
        Schema::Bytes
        | Schema::String
        | Schema::BigDecimal
        | Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => Base::Blob,
        Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Duration(fixed) => {
            Base::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Base::Blob,
            InnerDecimalSchema::Fixed(fixed) => Base::Fixed(fixed.size),
        },
        _ => Base::Other,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "it is apache_avro's enum: all else has no unit"
)]
pub(super) fn unit(schema: &Schema) -> Option<&'static str> {
    match schema {
        Schema::TimeMillis | Schema::TimestampMillis | Schema::LocalTimestampMillis => {
            Some("milliseconds")
        }
        Schema::TimeMicros | Schema::TimestampMicros | Schema::LocalTimestampMicros => {
            Some("microseconds")
        }
        Schema::TimestampNanos | Schema::LocalTimestampNanos => Some("nanoseconds"),
        Schema::Date => Some("days"),
        _ => None,
    }
}
