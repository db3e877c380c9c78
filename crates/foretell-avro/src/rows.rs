//! Reads rows of cells from encoded records, by a plan that is made once per writer schema.
//!
//! A record is read in one pass over its bytes: texts are borrowed from them, and fields that were not requested are
//! skipped.

use apache_avro::schema::{NamesRef, RecordField, RecordSchema, Schema};

use crate::{
    defaults::write_default,
    field_type::{Cell, FieldType},
    layout::{Layout, NodeId},
    resolution::{
        Conversion, ConversionId, ReaderField, Resolution, WriterField, unknown_symbol,
        unresolvable,
    },
    wire::{Cursor, Malformed},
};

/// A field of the reader schema.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) field_type: FieldType,
    /// Index of the field's cell in a row; `None` if it was not requested.
    pub(super) index: Option<usize>,
    /// Encoded default of the field, or null if it may be; `None` if it must be written with a value.
    pub(super) default: Option<Vec<u8>>,
}

impl Column {
    pub(super) fn new(
        field: &RecordField,
        names: &NamesRef,
        requested: &[&str],
    ) -> Result<Self, String> {
        let field_type = FieldType::of(&field.schema, names)?;
        let mut default = Vec::new();
        let default = match write_default(field, names, &mut default) {
            Ok(()) => Some(default),
            Err(_) => {
                let mut null = Vec::new();
                field_type.write(Cell::Null, &mut null).map(|()| null)
            }
        };
        let index = requested.iter().position(|name| *name == field.name);
        Ok(Self { name: field.name.clone(), field_type, index, default })
    }
}

/// The plan that fills rows from records of one writer schema.
pub(super) struct RowPlan {
    layout: Layout,
    /// Fields of the writer schema, in the order of their bytes.
    fields: Vec<Field>,
    /// Cells of fields that the writer schema lacks, with their index in the row.
    defaults: Vec<(usize, Constant)>,
}

struct Field {
    name: String,
    decoder: CellDecoder,
    /// Index of the field's cell in the row; `None` if it was not requested.
    index: Option<usize>,
}

/// An owned cell: the default of a field that the writer schema lacks.
enum Constant {
    Text(String),
    Bytes(Vec<u8>),
    Other(Cell<'static>),
}

/// Decoder of an encoded value into a cell.
enum CellDecoder {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    IntAsFloat,
    IntAsDouble,
    LongAsFloat,
    LongAsDouble,
    Text,
    Bytes,
    Fixed(usize),
    /// For each symbol of the writer's enum, the reader's symbol; `None` if the reader lacks it.
    Symbols(Vec<Option<String>>),
    Union(Vec<CellDecoder>),
    /// A branch that the reader schema cannot represent, with the reason.
    Refused(String),
    /// A value that no cell can represent, or that was not requested: it is skipped.
    Other(NodeId),
}

/// A malformed record, with the name of the malformed field if it is known.
pub(super) struct RowError<'p> {
    pub(super) field: Option<&'p str>,
    pub(super) error: Malformed,
}

impl RowPlan {
    /// The plan for records of the reader schema itself, whose fields are `columns`.
    pub(super) fn of_reader(
        columns: &[Column],
        record: &RecordSchema,
        names: &NamesRef,
    ) -> Result<Self, String> {
        let mut layout = Layout::default();
        let mut fields = Vec::with_capacity(columns.len());
        for (column, field) in columns.iter().zip(&record.fields) {
            let node = layout.add(&field.schema, names)?;
            let decoder = match column.index {
                Some(_) => CellDecoder::unchanged(&column.field_type, node, &layout),
                None => CellDecoder::Other(node),
            };
            fields.push(Field { name: column.name.clone(), decoder, index: column.index });
        }
        Ok(Self { layout, fields, defaults: Vec::new() })
    }

    /// The plan for records of another writer schema. `columns` are the fields of `reader`, and `plan` is the plan for its
    /// own records.
    pub(super) fn of_writer(
        writer: &Schema,
        reader: &Schema,
        columns: &[Column],
        plan: &Self,
    ) -> Result<Self, String> {
        let resolution = Resolution::compile(writer, reader)?;
        let (Some((writer_fields, reader_fields)), Schema::Record(record)) =
            (resolution.fields(), writer)
        else {
            return Err("it is not a record".to_owned());
        };
        let skipped = |(field, writer_field): (&RecordField, &WriterField)| Field {
            name: field.name.clone(),
            decoder: CellDecoder::Other(writer_field.node),
            index: None,
        };
        let mut fields: Vec<Field> = record.fields.iter().zip(writer_fields).map(skipped).collect();
        let mut defaults = Vec::new();
        for (number, column) in columns.iter().enumerate() {
            let Some(index) = column.index else { continue };
            match &reader_fields[number] {
                ReaderField::FromWriter(writer_number) => {
                    let WriterField { node, conversion } = writer_fields[*writer_number];
                    let Some(conversion) = conversion else { continue };
                    let field = &mut fields[*writer_number];
                    field.decoder =
                        CellDecoder::resolved(&resolution, conversion, node, &column.field_type);
                    field.index = Some(index);
                }
                ReaderField::Default(bytes) => {
                    let decoder = &plan.fields[number].decoder;
                    let cell = decoder.cell(&plan.layout, &mut Cursor::new(bytes));
                    let cell = cell.map_err(|error| error.to_string())?;
                    defaults.push((index, Constant::new(cell)));
                }
            }
        }
        Ok(Self { layout: resolution.into_layout(), fields, defaults })
    }

    /// Reads `datum` into `row`, which has one cell per requested field.
    pub(super) fn read<'a>(
        &'a self,
        datum: &'a [u8],
        row: &mut [Cell<'a>],
    ) -> Result<(), RowError<'a>> {
        let mut cursor = Cursor::new(datum);
        for Field { name, decoder, index } in &self.fields {
            let cell = decoder.cell(&self.layout, &mut cursor);
            let cell = cell.map_err(|error| RowError { field: Some(name), error })?;
            if let Some(index) = index {
                row[*index] = cell;
            }
        }
        // Every value was read within bounds; only trailing bytes can still be wrong.
        cursor.finish().map_err(|error| RowError { field: None, error })?;
        for (index, default) in &self.defaults {
            row[*index] = default.cell();
        }
        Ok(())
    }
}

impl Constant {
    fn new(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Text(text) => Self::Text(text.to_owned()),
            Cell::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
            Cell::Null => Self::Other(Cell::Null),
            Cell::Boolean(value) => Self::Other(Cell::Boolean(value)),
            Cell::Long(value) => Self::Other(Cell::Long(value)),
            Cell::Double(value) => Self::Other(Cell::Double(value)),
            Cell::Other => Self::Other(Cell::Other),
        }
    }

    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Text(text) => Cell::Text(text),
            Self::Bytes(bytes) => Cell::Bytes(bytes),
            Self::Other(cell) => *cell,
        }
    }
}

impl CellDecoder {
    /// The decoder of a value of `field_type`, which has the wire layout `node` and needs no conversion.
    fn unchanged(field_type: &FieldType, node: NodeId, layout: &Layout) -> Self {
        match field_type {
            FieldType::Null => Self::Null,
            FieldType::Boolean => Self::Boolean,
            FieldType::Int => Self::Int,
            FieldType::Long => Self::Long,
            FieldType::Float => Self::Float,
            FieldType::Double => Self::Double,
            FieldType::Text => Self::Text,
            FieldType::Bytes => Self::Bytes,
            FieldType::Fixed(size) => Self::Fixed(*size),
            FieldType::Symbols(symbols) => {
                Self::Symbols(symbols.iter().cloned().map(Some).collect())
            }
            FieldType::Union(types) => {
                let branches = types.iter().zip(layout.branches(node));
                Self::Union(
                    branches
                        .map(|(field_type, node)| Self::unchanged(field_type, *node, layout))
                        .collect(),
                )
            }
            FieldType::Other => Self::Other(node),
        }
    }

    /// The decoder of a value of the writer schema, which has the wire layout `node` and is converted by `conversion` into
    /// one of `field_type`.
    fn resolved(
        resolution: &Resolution,
        conversion: ConversionId,
        node: NodeId,
        field_type: &FieldType,
    ) -> Self {
        match (resolution.conversion(conversion), field_type) {
            (Conversion::FromUnion(branches), field_type) => {
                let nodes = resolution.layout().branches(node);
                let branch =
                    |(conversion, node): (&Result<ConversionId, String>, &NodeId)| match conversion
                    {
                        Ok(value) => Self::resolved(resolution, *value, *node, field_type),
                        Err(reason) => Self::Refused(reason.clone()),
                    };
                Self::Union(branches.iter().zip(nodes).map(branch).collect())
            }
            (Conversion::IntoUnion { branch, value }, FieldType::Union(types)) => {
                Self::resolved(resolution, *value, node, &types[*branch])
            }
            (Conversion::Unchanged(_), field_type) => {
                Self::unchanged(field_type, node, resolution.layout())
            }
            (Conversion::IntToLong, _) => Self::Int,
            (Conversion::IntToFloat, _) => Self::IntAsFloat,
            (Conversion::IntToDouble, _) => Self::IntAsDouble,
            (Conversion::LongToFloat, _) => Self::LongAsFloat,
            (Conversion::LongToDouble, _) => Self::LongAsDouble,
            (Conversion::FloatToDouble, _) => Self::Float,
            (Conversion::Symbols(indexes), FieldType::Symbols(symbols)) => {
                let symbol = |index: &Option<usize>| Some(symbols[(*index)?].clone());
                Self::Symbols(indexes.iter().map(symbol).collect())
            }
            (
                Conversion::Symbols(_)
                | Conversion::IntoUnion { .. }
                | Conversion::Array(_)
                | Conversion::Map(_)
                | Conversion::Record { .. },
                _,
            ) => Self::Other(node),
        }
    }

    fn cell<'a>(&'a self, layout: &Layout, cursor: &mut Cursor<'a>) -> Result<Cell<'a>, Malformed> {
        Ok(match self {
            Self::Null => Cell::Null,
            Self::Boolean => Cell::Boolean(cursor.boolean()?),
            Self::Int => Cell::Long(i64::from(cursor.int()?)),
            Self::Long => Cell::Long(cursor.long()?),
            Self::Float => Cell::Double(f64::from(cursor.float()?)),
            Self::Double => Cell::Double(cursor.double()?),
            Self::IntAsFloat => Cell::Double(f64::from(cursor.int()? as f32)),
            Self::IntAsDouble => Cell::Double(f64::from(cursor.int()?)),
            Self::LongAsFloat => Cell::Double(f64::from(cursor.long()? as f32)),
            Self::LongAsDouble => Cell::Double(cursor.long()? as f64),
            Self::Text => Cell::Text(cursor.text()?),
            Self::Bytes => Cell::Bytes(cursor.blob()?),
            Self::Fixed(size) => Cell::Bytes(cursor.take(*size)?),
            Self::Symbols(symbols) => match &symbols[cursor.choice(symbols.len())?] {
                Some(symbol) => Cell::Text(symbol),
                None => return Err(unknown_symbol()),
            },
            Self::Union(branches) => {
                let branch = cursor.choice(branches.len())?;
                branches[branch].cell(layout, cursor)?
            }
            Self::Refused(reason) => return Err(unresolvable(reason)),
            Self::Other(node) => {
                layout.skip(*node, cursor, 0)?;
                Cell::Other
            }
        })
    }
}
