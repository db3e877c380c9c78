//! Records whose fields are known only when the program runs: a row of cells, one for each field
//! that was asked for.

use std::sync::Arc;

use apache_avro::schema::{NamesRef, RecordField, ResolvedSchema, Schema};

use crate::{
    avro::{
        codec::CodecSetupError,
        defaults::write_default,
        framing,
        layout::{Layout, NodeId, definition, is_long},
        readers::{SchemaReader, unreadable},
        registry::SchemaRegistry,
        wire::{Cursor, Malformed, write_blob, write_count, write_long},
    },
    streams::codec::CodecError,
};

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// `null`
    Null,
    /// `boolean`
    Boolean(bool),
    /// `int` or `long`, logical types included
    Long(i64),
    /// `float` or `double`; to be written, also a whole number for an `int` or a `long`
    Double(f64),
    /// `string`, or an `enum`'s symbol
    Text(&'a str),
    /// Read: a value of any other type. To be written: the field's default.
    Other,
}

/// Reads and writes some of the fields of one record schema.
pub struct DynamicCodec {
    reader: SchemaReader,
    layout: Layout,
    columns: Vec<Column>,
    fields: usize,
}

/// A field of the schema.
struct Column {
    name: String,
    form: Form,
    /// Its place in the row, if it was asked for.
    place: Option<usize>,
    /// What is written where nothing else is, if there is such a thing.
    default: Option<Vec<u8>>,
}

enum Form {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Symbols(Vec<String>),
    Union(Vec<Form>),
    Other(NodeId),
}

impl DynamicCodec {
    /// For records of `subject`, which must hold `schema`; a row has a cell for each of `fields`.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as for a field that the schema does not have.
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        schema: &str,
        fields: &[&str],
    ) -> Result<Self, CodecSetupError> {
        let invalid = |reason| CodecSetupError::Schema { subject: subject.to_owned(), reason };
        let reader = SchemaReader::new(registry, subject, schema)?;
        let Schema::Record(record) = reader.schema() else {
            return Err(invalid("it is not a record".to_owned()));
        };
        let known = |name: &str| record.fields.iter().any(|field| field.name == name);
        if let Some(missing) = fields.iter().find(|name| !known(name)) {
            return Err(invalid(format!("it has no field {missing}")));
        }
        let mut layout = Layout::default();
        let mut columns = Vec::with_capacity(record.fields.len());
        let resolved = ResolvedSchema::new(reader.schema());
        let resolved = resolved.map_err(|error| invalid(error.to_string()))?;
        let names = resolved.get_names();
        for field in &record.fields {
            let place = fields.iter().position(|name| *name == field.name);
            columns.push(column(field, place, &mut layout, names).map_err(invalid)?);
        }
        Ok(Self { reader, layout, columns, fields: fields.len() })
    }

    /// Reads a record, and hands `read` its row and the id of the schema it was written with.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes can't be read, or what `read` returns.
    pub fn decode<R>(
        &self,
        bytes: &[u8],
        read: impl FnOnce(&[Cell<'_>], u32) -> Result<R, CodecError>,
    ) -> Result<R, CodecError> {
        let mut rewritten = Vec::new();
        let (id, datum) = self.reader.datum(bytes, &mut rewritten)?;
        let mut cursor = Cursor::new(datum);
        let mut row = vec![Cell::Null; self.fields];
        for column in &self.columns {
            let cell = self.cell(&column.form, &mut cursor);
            let cell = cell.map_err(|error| {
                unreadable("malformed", Some(id), &format!("field {}: {error}", column.name))
            })?;
            if let Some(place) = column.place {
                row[place] = cell;
            }
        }
        // Every cell was read within bounds; so what is left is all that can still be wrong.
        let whole = cursor.finish();
        whole.map_err(|error| unreadable("malformed", Some(id), &error.to_string()))?;
        read(&row, id)
    }

    /// Appends `row`, a cell for each of the fields, as a record.
    ///
    /// # Errors
    /// [`CodecError::Unreadable`] of class `unwritable`, naming the field that can't hold its cell.
    ///
    /// # Panics
    /// If the row has another number of cells than the codec has fields.
    pub fn encode(&self, row: &[Cell<'_>], bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        assert_eq!(row.len(), self.fields, "a row has a cell for each field");
        let start = bytes.len();
        framing::frame(self.reader.id(), bytes);
        for column in &self.columns {
            let cell = column.place.map_or(Cell::Other, |place| row[place]);
            let written = match (cell, &column.default) {
                (Cell::Other, Some(default)) => {
                    bytes.extend_from_slice(default);
                    Ok(())
                }
                (Cell::Other, None) => Err("it has no default, so it needs a value".to_owned()),
                (cell, _) => column
                    .form
                    .write(cell, bytes)
                    .ok_or_else(|| format!("{} is not {}", shown(cell), column.form.wanted())),
            };
            if let Err(reason) = written {
                bytes.truncate(start);
                let message = format!("field {}: {reason}", column.name);
                return Err(unreadable("unwritable", Some(self.reader.id()), &message));
            }
        }
        Ok(())
    }

    fn cell<'a>(&'a self, form: &'a Form, cursor: &mut Cursor<'a>) -> Result<Cell<'a>, Malformed> {
        Ok(match form {
            Form::Null => Cell::Null,
            Form::Boolean => Cell::Boolean(cursor.boolean()?),
            Form::Int => Cell::Long(i64::from(cursor.int()?)),
            Form::Long => Cell::Long(cursor.long()?),
            Form::Float => Cell::Double(f64::from(cursor.float()?)),
            Form::Double => Cell::Double(cursor.double()?),
            Form::Text => Cell::Text(cursor.text()?),
            Form::Symbols(symbols) => Cell::Text(&symbols[cursor.choice(symbols.len())?]),
            Form::Union(branches) => {
                let branch = cursor.choice(branches.len())?;
                self.cell(&branches[branch], cursor)?
            }
            Form::Other(node) => {
                self.layout.skip(*node, cursor, 0)?;
                Cell::Other
            }
        })
    }
}

impl Form {
    /// Appends `cell`, if this form can hold it; else nothing.
    fn write(&self, cell: Cell<'_>, out: &mut Vec<u8>) -> Option<()> {
        match (self, cell) {
            (Self::Null, Cell::Null) => (),
            (Self::Boolean, Cell::Boolean(value)) => out.push(u8::from(value)),
            (Self::Int, cell) => write_long(i64::from(i32::try_from(whole(cell)?).ok()?), out),
            (Self::Long, cell) => write_long(whole(cell)?, out),
            (Self::Float, cell) => out.extend_from_slice(&(number(cell)? as f32).to_le_bytes()),
            (Self::Double, cell) => out.extend_from_slice(&number(cell)?.to_le_bytes()),
            (Self::Text, Cell::Text(text)) => write_blob(text.as_bytes(), out),
            (Self::Symbols(symbols), Cell::Text(text)) => {
                write_count(symbols.iter().position(|symbol| symbol == text)?, out);
            }
            (Self::Union(branches), cell) => return write_branch(branches, cell, out),
            (Self::Null | Self::Boolean | Self::Text | Self::Symbols(_) | Self::Other(_), _) => {
                return None;
            }
        }
        Some(())
    }

    /// What it can hold, in words.
    fn wanted(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Boolean => "a boolean".to_owned(),
            Self::Int => "an int".to_owned(),
            Self::Long => "a long".to_owned(),
            Self::Float => "a float".to_owned(),
            Self::Double => "a double".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Symbols(symbols) => format!("one of {}", symbols.join(", ")),
            Self::Union(branches) => {
                let wanted: Vec<_> = branches.iter().map(Self::wanted).collect();
                wanted.join(" or ")
            }
            Self::Other(_) => "something that only its default can be".to_owned(),
        }
    }
}

/// Into the first branch that can hold it.
fn write_branch(branches: &[Form], cell: Cell<'_>, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    for (index, branch) in branches.iter().enumerate() {
        write_count(index, out);
        if branch.write(cell, out).is_some() {
            return Some(());
        }
        out.truncate(start);
    }
    None
}

fn column(
    field: &RecordField,
    place: Option<usize>,
    layout: &mut Layout,
    names: &NamesRef,
) -> Result<Column, String> {
    let form = form(&field.schema, layout, names)?;
    let mut default = Vec::new();
    let default = match write_default(field, names, &mut default) {
        Ok(()) => Some(default),
        Err(_) => {
            let mut null = Vec::new();
            form.write(Cell::Null, &mut null).map(|()| null)
        }
    };
    Ok(Column { name: field.name.clone(), form, place, default })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "it is apache_avro's enum: all else is `Other`")]
fn form(schema: &Schema, layout: &mut Layout, names: &NamesRef) -> Result<Form, String> {
    Ok(match schema {
        Schema::Null => Form::Null,
        Schema::Boolean => Form::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Form::Int,
        schema if is_long(schema) => Form::Long,
        Schema::Float => Form::Float,
        Schema::Double => Form::Double,
        Schema::String => Form::Text,
        Schema::Enum(symbols) => Form::Symbols(symbols.symbols.clone()),
        Schema::Union(union) => {
            let branches = union.variants().iter();
            Form::Union(
                branches.map(|branch| form(branch, layout, names)).collect::<Result<_, _>>()?,
            )
        }
        // A record that contains itself ends here, as `Other`.
        Schema::Ref { name } => match definition(name, names)? {
            Schema::Enum(symbols) => Form::Symbols(symbols.symbols.clone()),
            _ => Form::Other(layout.add(schema, names)?),
        },
        _ => Form::Other(layout.add(schema, names)?),
    })
}

/// The whole number in a cell, if it holds one: 2^63 and more are beyond a long.
fn whole(cell: Cell<'_>) -> Option<i64> {
    const LONGS_END: f64 = 9_223_372_036_854_775_808.0;
    match cell {
        Cell::Long(long) => Some(long),
        Cell::Double(double)
            if double.fract() == 0.0 && (-LONGS_END..LONGS_END).contains(&double) =>
        {
            Some(double as i64)
        }
        Cell::Double(_) | Cell::Null | Cell::Boolean(_) | Cell::Text(_) | Cell::Other => None,
    }
}

fn number(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Double(double) => Some(double),
        Cell::Long(long) => Some(long as f64),
        Cell::Null | Cell::Boolean(_) | Cell::Text(_) | Cell::Other => None,
    }
}

/// A value as it is shown to people.
fn shown(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Boolean(value) => value.to_string(),
        Cell::Long(value) => value.to_string(),
        Cell::Double(value) => value.to_string(),
        Cell::Text(value) => format!("{value:?}"),
        Cell::Other => "a value of another type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::local::LocalRegistry;
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

    /// The row is written as `datum`, and read back as it was.
    fn check(fields: &[&str], row: &[Cell<'_>], datum: &[u8]) {
        let codec = codec(fields).expect("these fields");
        let mut bytes = Vec::new();
        codec.encode(row, &mut bytes).expect("it can be written");
        assert_eq!(bytes[5..], *datum, "{row:?}");
        let same = codec.decode(&bytes, |read, id| Ok((read == row, id)));
        assert_eq!(same, Ok((true, 1)), "{row:?}");
    }

    #[test]
    fn rows_are_in_the_order_asked_for() {
        let (x, e) = (Cell::Text("X"), Cell::Double(1.0));
        check(&["e", "c"], &[e, x], &[0, 0, 2, 0, 2, 0, 0, 0x80, 0x3f, 0]);
        check(&["d", "e", "c"], &[x, e, Cell::Null], &[0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0]);
        check(&["e", "a"], &[e, Cell::Long(-1)], &[2, 1, 0, 0, 2, 0, 0, 0x80, 0x3f, 0]);
        let half = [4, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 0, 0, 2, 0, 0, 0x80, 0x3f, 0];
        check(&["e", "a"], &[e, Cell::Double(0.5)], &half);
    }

    #[test]
    fn what_can_not_be_written_names_its_field() {
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

    proptest! {
        #[test]
        fn anything_may_come(datum: Vec<u8>) {
            let codec = codec(&["a", "b", "c", "d", "e", "f"]).expect("these fields");
            drop(codec.decode(&datum, |_, _| Ok(())));
            drop(codec.decode(&[&[0, 0, 0, 0, 1], datum.as_slice()].concat(), |_, _| Ok(())));
        }
    }
}
