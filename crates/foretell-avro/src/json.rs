//! A record's value as JSON, by the schema that it was written with: for people who look at it.

use apache_avro::{Schema, reader::datum::GenericDatumReader};

use crate::{
    framing::{FramingError, unframe},
    registry::{RegistryError, SchemaRegistry},
};

/// Why a value cannot be shown as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is not in the wire format.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Its schema is not to be had.
    #[error("schema {id}: {source}")]
    Schema {
        /// The id of its writer schema.
        id: u32,
        /// The cause.
        source: RegistryError,
    },
    /// It is not a datum of its schema.
    #[error("it is not a value of schema {id}: {reason}")]
    Malformed {
        /// The id of its writer schema.
        id: u32,
        /// The reason.
        reason: String,
    },
}

/// What is put behind a datum.
const END: [u8; 16] = [0xff; 16];

/// Decodes a value by the schema whose id it has.
///
/// # Errors
/// [`JsonError`].
pub fn to_json(
    registry: &dyn SchemaRegistry,
    bytes: &[u8],
) -> Result<serde_json::Value, JsonError> {
    let (id, datum) = unframe(bytes)?;
    let schema = registry.schema(id).map_err(|source| JsonError::Schema { id, source })?;
    let malformed = |reason: String| JsonError::Malformed { id, reason };
    let schema = Schema::parse_str(&schema).map_err(|error| malformed(error.to_string()))?;
    // apache-avro reads null where a datum ends too early, so one that is too short is told by what it takes of the end.
    let ended = [datum, &END].concat();
    let mut rest = ended.as_slice();
    let reader = GenericDatumReader::builder(&schema).build();
    let value = reader.and_then(|reader| reader.read_value(&mut rest));
    let value = value.map_err(|error| malformed(error.to_string()))?;
    if rest.len() < END.len() {
        return Err(malformed("it ends too early".to_owned()));
    }
    if rest.len() > END.len() {
        return Err(malformed(format!("{} bytes follow it", rest.len() - END.len())));
    }
    serde_json::Value::try_from(value).map_err(|error| malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::LocalRegistry;

    const SCHEMA: &str = r#"{"type": "record", "name": "Order", "fields": [
        {"name": "what", "type": "string"}, {"name": "count", "type": ["null", "int"]}]}"#;

    fn shown(datum: &[u8]) -> Result<String, String> {
        let registry = LocalRegistry::new();
        let id = registry.register("orders-value", SCHEMA).unwrap();
        let mut bytes = Vec::new();
        crate::framing::frame(id, &mut bytes);
        bytes.extend_from_slice(datum);
        to_json(&registry, &bytes).map(|json| json.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_is_shown_by_its_own_schema() {
        assert_eq!(shown(b"\x06tea\x02\x0e").unwrap(), r#"{"what":"tea","count":7}"#);
        assert_eq!(shown(b"\x06tea\x00").unwrap(), r#"{"what":"tea","count":null}"#);
    }

    #[test]
    fn what_is_not_a_value_is_an_error() {
        assert!(shown(b"\x06te").unwrap_err().starts_with("it is not a value of schema 1"));
        assert!(shown(b"\x06tea\x00\x00").unwrap_err().ends_with("1 bytes follow it"));
        let registry = LocalRegistry::new();
        assert!(matches!(to_json(&registry, b"{}").unwrap_err(), JsonError::Framing(_)));
        let unknown = to_json(&registry, &[0, 0, 0, 0, 9]).unwrap_err();
        assert!(matches!(unknown, JsonError::Schema { id: 9, .. }));
    }
}
