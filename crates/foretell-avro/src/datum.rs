//! The codec for records whose schema is known at run time and whose datum the caller writes and reads itself.

use std::sync::Arc;

use crate::{
    codec::CodecSetupError,
    framing,
    readers::{Framed, SchemaReader, malformed},
    registry::SchemaRegistry,
    resolution::Resolution,
    wire::Malformed,
};
use foretell_streams::codec::CodecError;

/// Frames data of a reader schema, and resolves those of every other writer schema to it.
pub struct DatumCodec {
    reader: SchemaReader<Resolution>,
}

impl DatumCodec {
    /// Creates a codec for `schema`, which must be registered under `subject`.
    ///
    /// # Errors
    /// [`CodecSetupError`] if the schema is invalid or not registered, or the registry fails.
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        schema: &str,
    ) -> Result<Self, CodecSetupError> {
        let compile = Box::new(Resolution::compile);
        Ok(Self { reader: SchemaReader::new(registry, subject, schema, compile)? })
    }

    /// Appends the header of a record of the reader schema, after which its datum must be appended.
    pub fn frame(&self, bytes: &mut Vec<u8>) {
        framing::frame(self.reader.id(), bytes);
    }

    /// Passes the datum of a framed record to `read`, in the reader schema. `read` must check that the datum is complete.
    ///
    /// # Errors
    /// [`CodecError`] if the record cannot be resolved, or for the error of `read`.
    pub fn read<T>(
        &self,
        bytes: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, CodecError> {
        let Framed { id, datum, plan } = self.reader.unframe(bytes)?;
        let result = match plan {
            None => read(datum),
            Some(resolution) => {
                let mut resolved = Vec::new();
                let written = resolution.rewrite(datum, &mut resolved);
                written.and_then(|()| read(&resolved))
            }
        };
        result.map_err(|error| malformed(id, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{local::LocalRegistry, wire::Cursor};

    const OLD: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"gone","type":"string"},{"name":"a","type":"int"}]}"#;
    const NEW: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"a","type":"long"},{"name":"b","type":"long","default":7}]}"#;

    fn codec() -> DatumCodec {
        let registry = Arc::new(LocalRegistry::new());
        registry.register("old", OLD).unwrap();
        registry.register("new", NEW).unwrap();
        DatumCodec::new(registry, "new", NEW).unwrap()
    }

    fn pair(bytes: &[u8]) -> Result<(i64, i64), CodecError> {
        codec().read(bytes, |datum| {
            let mut cursor = Cursor::new(datum);
            let pair = (cursor.long()?, cursor.long()?);
            cursor.finish()?;
            Ok(pair)
        })
    }

    #[test]
    fn data_are_read_in_the_reader_schema() {
        let mut bytes = Vec::new();
        codec().frame(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 0, 2]);
        bytes.extend([2, 4]);
        assert_eq!(pair(&bytes), Ok((1, 2)));
        assert_eq!(pair(&[0, 0, 0, 0, 1, 2, b'x', 6]), Ok((3, 7)));
    }

    #[test]
    fn a_datum_that_is_not_complete_has_the_id_of_its_schema() {
        for bytes in [&[0, 0, 0, 0, 2, 2][..], &[0, 0, 0, 0, 2, 2, 4, 6]] {
            let Err(CodecError::Unreadable { class, schema_id, .. }) = pair(bytes) else {
                panic!("{bytes:?}")
            };
            assert_eq!((class, schema_id), ("malformed", Some(2)));
        }
        let truncated = pair(&[0, 0, 0, 0, 1, 2, b'x']);
        let is_old = |error| matches!(error, CodecError::Unreadable { schema_id: Some(1), .. });
        assert!(truncated.is_err_and(is_old));
    }
}
