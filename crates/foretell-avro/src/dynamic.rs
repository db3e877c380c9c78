//! A codec for records whose schema is known at run time only: it reads and writes rows, with one cell per requested field.

use std::sync::Arc;

use apache_avro::schema::{ResolvedSchema, Schema};

pub use crate::field_type::{Cell, shown};
use crate::{
    framing,
    readers::{Framed, SchemaReader, class_of, unreadable},
    registry::SchemaRegistry,
    rows::{Column, RowError, RowPlan},
    sample::write_sample,
    setup_error::CodecSetupError,
};
use foretell_streams::codec::CodecError;

/// A row of up to this many cells is decoded without an allocation.
const FEW_FIELDS: usize = 32;

/// Reads and writes a selection of the fields of a record schema.
pub struct DynamicCodec {
    reader: SchemaReader<RowPlan>,
    columns: Arc<[Column]>,
    /// The plan for records of the reader schema itself.
    plan: Arc<RowPlan>,
    fields: usize,
    /// For each column that was not requested and has no default, an encoded value of its type.
    samples: Vec<Option<Vec<u8>>>,
    writes_samples: bool,
}

impl DynamicCodec {
    /// Creates a codec for `schema`, which must be registered under `subject`. A row has one cell for each of `fields`, in
    /// their order.
    ///
    /// # Errors
    /// [`CodecSetupError`] if the schema is invalid, lacks one of the fields, or is not registered, or the registry fails.
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        schema: &str,
        fields: &[&str],
    ) -> Result<Self, CodecSetupError> {
        let invalid = |reason| CodecSetupError::Schema { subject: subject.to_owned(), reason };
        let parsed = Schema::parse_str(schema).map_err(|error| invalid(error.to_string()))?;
        let Schema::Record(record) = &parsed else {
            return Err(invalid("it is not a record".to_owned()));
        };
        let known = |name: &str| record.fields.iter().any(|field| field.name == name);
        if let Some(missing) = fields.iter().find(|name| !known(name)) {
            return Err(invalid(format!("it has no field {missing}")));
        }
        let names = ResolvedSchema::new(&parsed).map_err(|error| invalid(error.to_string()))?;
        let names = names.get_names();
        let columns = record.fields.iter().map(|field| Column::new(field, names, fields));
        let columns: Arc<[Column]> = columns.collect::<Result<_, _>>().map_err(invalid)?;
        let plan = Arc::new(RowPlan::of_reader(&columns, record, names).map_err(invalid)?);
        let (reader_columns, reader_plan) = (Arc::clone(&columns), Arc::clone(&plan));
        let compile = move |writer: &Schema, reader: &Schema| {
            RowPlan::of_writer(writer, reader, &reader_columns, &reader_plan)
        };
        let samples = columns.iter().zip(&record.fields).map(|(column, field)| {
            let mut bytes = Vec::new();
            let needs_sample = column.index.is_none() && column.default.is_none();
            (needs_sample && write_sample(&field.schema, names, &mut bytes).is_ok())
                .then_some(bytes)
        });
        let samples = samples.collect();
        let reader = SchemaReader::new(registry, subject, schema, Box::new(compile))?;
        let (fields, writes_samples) = (fields.len(), false);
        Ok(Self { reader, columns, plan, fields, samples, writes_samples })
    }

    /// Writes an arbitrary value of its type into each field that was not requested and has no default. Without this,
    /// such a field is an error of [`Self::encode`].
    #[must_use]
    pub fn writing_samples(self) -> Self {
        Self { writes_samples: true, ..self }
    }

    /// Decodes a record, and calls `read` with its row and the id of its writer schema.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes cannot be decoded, or the error of `read`.
    pub fn decode<R>(
        &self,
        bytes: &[u8],
        read: impl FnOnce(&[Cell<'_>], u32) -> Result<R, CodecError>,
    ) -> Result<R, CodecError> {
        let Framed { id, datum, plan } = self.reader.unframe(bytes)?;
        let (mut few, mut many) = ([Cell::Null; FEW_FIELDS], Vec::new());
        let row = match few.get_mut(..self.fields) {
            Some(row) => row,
            None => {
                many.resize(self.fields, Cell::Null);
                many.as_mut_slice()
            }
        };
        let filled = plan.as_ref().unwrap_or(&self.plan).read(datum, row);
        filled.map_err(|RowError { field, error }| {
            let prefix = field.map_or_else(String::new, |name| format!("field {name}: "));
            unreadable(class_of(&error), Some(id), &format!("{prefix}{error}"))
        })?;
        read(row, id)
    }

    /// Appends `row`, which has one cell for each requested field, to `bytes` as a framed record.
    ///
    /// # Errors
    /// [`CodecError::Unreadable`] of class `unwritable`, with the name of the field whose type cannot hold its cell.
    ///
    /// # Panics
    /// If the number of cells is not the number of requested fields.
    pub fn encode(&self, row: &[Cell<'_>], bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        assert_eq!(row.len(), self.fields, "a row has a cell for each field");
        let start = bytes.len();
        framing::frame(self.reader.id(), bytes);
        for (column, sample) in self.columns.iter().zip(&self.samples) {
            let cell = column.index.map_or(Cell::Other, |index| row[index]);
            let sample = sample.as_ref().filter(|_| self.writes_samples);
            let written = match (cell, column.default.as_ref().or(sample)) {
                (Cell::Other, Some(default)) => {
                    bytes.extend_from_slice(default);
                    Ok(())
                }
                (Cell::Other, None) => Err("it has no default, so it needs a value".to_owned()),
                (cell, _) => column.field_type.write(cell, bytes).ok_or_else(|| {
                    format!("{} is not {}", shown(cell), column.field_type.wanted())
                }),
            };
            if let Err(reason) = written {
                bytes.truncate(start);
                let message = format!("field {}: {reason}", column.name);
                return Err(unreadable("unwritable", Some(self.reader.id()), &message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::LocalRegistry;
    use proptest::prelude::*;

    const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"a","type":["null","int","double"],"default":null},
        {"name":"b","type":{"type":"map","values":"long"},"default":{}},
        {"name":"c","type":["null",{"type":"enum","name":"E","symbols":["X","Y"]}]},
        {"name":"d","type":"E","default":"Y"},
        {"name":"e","type":"float"},
        {"name":"f","type":["null","R"],"default":null}]}"#;

    fn codec(fields: &[&str]) -> Result<DynamicCodec, CodecSetupError> {
        let registry = Arc::new(LocalRegistry::new());
        registry.register("s", SCHEMA).unwrap();
        DynamicCodec::new(registry, "s", SCHEMA, fields)
    }

    /// Checks that the row is encoded as `datum` and decoded to the same row.
    fn check(fields: &[&str], row: &[Cell<'_>], datum: &[u8]) {
        let codec = codec(fields).expect("these fields");
        let mut bytes = Vec::new();
        codec.encode(row, &mut bytes).expect("it can be written");
        assert_eq!(bytes[5..], *datum, "{row:?}");
        let same = codec.decode(&bytes, |read, id| Ok((read == row, id)));
        assert_eq!(same, Ok((true, 1)), "{row:?}");
    }

    #[test]
    fn rows_are_in_the_order_of_the_requested_fields() {
        let (x, e) = (Cell::Text("X"), Cell::Double(1.0));
        check(&["e", "c"], &[e, x], &[0, 0, 2, 0, 2, 0, 0, 0x80, 0x3f, 0]);
        check(&["d", "e", "c"], &[x, e, Cell::Null], &[0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0]);
        check(&["e", "a"], &[e, Cell::Long(-1)], &[2, 1, 0, 0, 2, 0, 0, 0x80, 0x3f, 0]);
        let half = [4, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 0, 0, 2, 0, 0, 0x80, 0x3f, 0];
        check(&["e", "a"], &[e, Cell::Double(0.5)], &half);
    }

    #[test]
    fn a_row_can_have_any_number_of_fields() {
        for count in [1, FEW_FIELDS, FEW_FIELDS + 1, 200] {
            let names: Vec<String> = (0..count).map(|number| format!("f{number}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let fields = names.iter().map(|name| format!(r#"{{"name":"{name}","type":"int"}}"#));
            let fields = fields.collect::<Vec<_>>().join(",");
            let schema = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
            let registry = Arc::new(LocalRegistry::new());
            registry.register("s", &schema).unwrap();
            let codec = DynamicCodec::new(registry, "s", &schema, &names).unwrap();
            let row: Vec<Cell<'_>> = (0..).map(Cell::Long).take(count).collect();
            let mut bytes = Vec::new();
            codec.encode(&row, &mut bytes).unwrap();
            assert_eq!(codec.decode(&bytes, |read, _| Ok(read == row)), Ok(true), "{count} fields");
        }
    }

    #[test]
    fn encoding_errors_name_the_field() {
        let refuse = |fields: &[&str], row: &[Cell<'_>], words: &str| {
            let error = codec(fields).expect("these fields").encode(row, &mut Vec::new());
            let message = error.expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        };
        refuse(&["a"], &[Cell::Null], "field e: it has no default");
        refuse(&["e", "c"], &[Cell::Text("x"), Cell::Null], r#"field e: "x" is not a float"#);
        refuse(&["e", "c"], &[Cell::Long(1), Cell::Text("Z")], "one of X, Y");
        refuse(&["e", "a"], &[Cell::Long(1), Cell::Boolean(true)], "field a: true is not");
        refuse(&["e", "f"], &[Cell::Long(1), Cell::Long(1)], "field f: 1 is not");
        assert!(codec(&["zz"]).is_err_and(|error| error.to_string().contains("no field zz")));
    }

    #[test]
    fn a_required_field_that_was_not_requested_is_written_with_a_sample() {
        let codec = codec(&["a"]).expect("this field");
        assert!(codec.encode(&[Cell::Null], &mut Vec::new()).is_err());
        let codec = codec.writing_samples();
        let mut bytes = Vec::new();
        codec.encode(&[Cell::Long(3)], &mut bytes).expect("it can be written");
        let read = codec.decode(&bytes, |row, _| Ok(row == [Cell::Long(3)]));
        assert_eq!(read, Ok(true));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(datum: Vec<u8>) {
            let codec = codec(&["a", "b", "c", "d", "e", "f"]).expect("these fields");
            drop(codec.decode(&datum, |_, _| Ok(())));
            drop(codec.decode(&[&[0, 0, 0, 0, 1], datum.as_slice()].concat(), |_, _| Ok(())));
        }
    }
}
