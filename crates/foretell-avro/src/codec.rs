//! The codec for Rust structs, whose schema is fixed at compile time.

use std::{marker::PhantomData, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_avro_fast::{Schema, schema::SchemaError, ser::SerializerConfig};

use crate::{
    framing,
    layout::{Layout, NodeId},
    readers::{Framed, SchemaReader, malformed, unreadable},
    registry::SchemaRegistry,
    resolution::Resolution,
    wire::{Cursor, Malformed},
};
use foretell_streams::codec::{Codec, CodecError};

pub use crate::setup_error::CodecSetupError;

/// A struct with an Avro record schema, which has the same field names in the same order.
pub trait AvroRecord: Serialize + DeserializeOwned + Send + Sync {
    /// The schema as JSON, without references to other schemas.
    const SCHEMA: &'static str;
}

/// Encodes `T` with its schema, and decodes it from every writer schema that can be resolved to it.
pub struct AvroCodec<T: AvroRecord> {
    reader: SchemaReader<Resolution>,
    /// Wire layout of the reader schema.
    layout: Layout,
    root: NodeId,
    /// The reader schema, as serde_avro_fast takes it.
    schema: Schema,
    value: PhantomData<fn() -> T>,
}

impl<T: AvroRecord> AvroCodec<T> {
    /// Creates a codec for the schema of `T`, which must be registered under `subject`.
    ///
    /// # Errors
    /// [`CodecSetupError`] if the schema is invalid or not registered, or the registry fails.
    pub fn new(registry: Arc<dyn SchemaRegistry>, subject: &str) -> Result<Self, CodecSetupError> {
        let compile = Box::new(Resolution::compile);
        let reader = SchemaReader::new(registry, subject, T::SCHEMA, compile)?;
        let invalid = |reason| CodecSetupError::Schema { subject: subject.to_owned(), reason };
        let schema: Result<Schema, SchemaError> = T::SCHEMA.parse();
        let schema = schema.map_err(|error| invalid(error.to_string()))?;
        let (layout, root) = Layout::of(reader.schema()).map_err(invalid)?;
        Ok(Self { reader, layout, root, schema, value: PhantomData })
    }

    /// Checks that a datum is complete. serde_avro_fast does not check the lengths in it.
    fn check(&self, datum: &[u8]) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(datum);
        self.layout.skip(self.root, &mut cursor, 0)?;
        cursor.finish()
    }
}

impl<T: AvroRecord> Codec<T> for AvroCodec<T> {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = bytes.len();
        framing::frame(self.reader.id(), bytes);
        let mut config = SerializerConfig::new(&self.schema);
        let written = serde_avro_fast::to_datum(value, &mut *bytes, &mut config).map(drop);
        written.map_err(|error| {
            bytes.truncate(start);
            unreadable("unwritable", Some(self.reader.id()), &error.to_string())
        })
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let Framed { id, datum, plan } = self.reader.unframe(bytes)?;
        let mut rewritten = Vec::new();
        let checked = match plan {
            None => self.check(datum).map(|()| datum),
            Some(resolution) => resolution.rewrite(datum, &mut rewritten).map(|()| &*rewritten),
        };
        let datum = checked.map_err(|error| malformed(id, &error))?;
        serde_avro_fast::from_datum_slice(datum, &self.schema)
            .map_err(|error| unreadable("malformed", Some(id), &error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::LocalRegistry;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Trip {
        from: Stop,
        via: Vec<Stop>,
        note: Option<String>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Stop {
        name: String,
        minutes: i64,
    }

    /// The schema refers to `Stop` twice.
    impl AvroRecord for Trip {
        const SCHEMA: &'static str = r#"{"type":"record","name":"Trip","fields":[
            {"name":"from","type":{"type":"record","name":"Stop","fields":[
                {"name":"name","type":"string"},{"name":"minutes","type":"long"}]}},
            {"name":"via","type":{"type":"array","items":"Stop"}},
            {"name":"note","type":["null","string"],"default":null}]}"#;
    }

    /// An older schema: without notes, with minutes as ints, and with a field that was removed.
    const OLD: &str = r#"{"type":"record","name":"Trip","namespace":"old","fields":[
        {"name":"via","type":{"type":"array","items":{"type":"record","name":"Stop","fields":[
            {"name":"minutes","type":"int"},{"name":"gone","type":["null","Stop"]},
            {"name":"name","type":"string"}]}}},
        {"name":"from","type":"Stop"}]}"#;

    fn codec() -> AvroCodec<Trip> {
        let registry = Arc::new(LocalRegistry::new());
        registry.register("old", OLD).unwrap();
        registry.register("trips", Trip::SCHEMA).unwrap();
        AvroCodec::new(registry, "trips").unwrap()
    }

    fn stop(name: &str, minutes: i64) -> Stop {
        Stop { name: name.to_owned(), minutes }
    }

    #[test]
    fn encoded_values_are_decoded() {
        for via in [vec![], vec![stop("b", -1), stop("", i64::MAX)]] {
            let trip = Trip { from: stop("a", 1), via, note: Some("é".to_owned()) };
            let mut bytes = Vec::new();
            codec().encode(&trip, &mut bytes).unwrap();
            assert_eq!(bytes[..5], [0, 0, 0, 0, 2]);
            assert_eq!(codec().decode(&bytes), Ok(trip));
        }
    }

    #[test]
    fn records_of_another_writer_schema_are_decoded() {
        // via [(3, (9, null, "z"), "b")], from (1, null, "a")
        let datum = [2, 6, 2, 18, 0, 2, b'z', 2, b'b', 0, 2, 0, 2, b'a'];
        let bytes = [&[0, 0, 0, 0, 1], &datum[..]].concat();
        let expected = Trip { from: stop("a", 1), via: vec![stop("b", 3)], note: None };
        assert_eq!(codec().decode(&bytes), Ok(expected));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, id in 1_u8..4) {
            let codec = codec();
            drop(codec.decode(&bytes));
            drop(codec.decode(&[&[0, 0, 0, 0, id], bytes.as_slice()].concat()));
        }

        #[test]
        fn a_changed_record_does_not_panic_and_a_truncated_one_is_refused(place in 5_usize..20, byte: u8, cut in 0_usize..20) {
            let trip = Trip { from: stop("a", 1), via: vec![stop("b", 2)], note: None };
            let codec = codec();
            let mut bytes = Vec::new();
            codec.encode(&trip, &mut bytes).unwrap();
            prop_assert!(cut >= bytes.len() || codec.decode(&bytes[..cut]).is_err());
            if let Some(changed) = bytes.get_mut(place) {
                *changed = byte;
            }
            drop(codec.decode(&bytes));
        }
    }
}
