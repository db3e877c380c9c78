//! Rows of cells out of records of one schema, ours or another, by a plan that was made when its first record came.
//! A record takes one pass over its bytes: text is borrowed from them, and what nobody asked for is stepped over.

use apache_avro::schema::{NamesRef, RecordField, RecordSchema, Schema};

use crate::{
    defaults::write_default,
    field_type::{Cell, FieldType},
    layout::{Layout, NodeId},
    resolution::{
        ReaderField, Resolution, Step, StepId, WriterField, unknown_symbol, unresolvable,
    },
    wire::{Cursor, Malformed},
};

/// A field of our schema.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) form: FieldType,
    /// Its place in the row, if it was asked for.
    pub(super) place: Option<usize>,
    /// What is written where nothing else is, if there is such a thing.
    pub(super) default: Option<Vec<u8>>,
}

impl Column {
    pub(super) fn new(
        field: &RecordField,
        names: &NamesRef,
        asked: &[&str],
    ) -> Result<Self, String> {
        let form = FieldType::of(&field.schema, names)?;
        let mut default = Vec::new();
        let default = match write_default(field, names, &mut default) {
            Ok(()) => Some(default),
            Err(_) => {
                let mut null = Vec::new();
                form.write(Cell::Null, &mut null).map(|()| null)
            }
        };
        let place = asked.iter().position(|name| *name == field.name);
        Ok(Self { name: field.name.clone(), form, place, default })
    }
}

/// How rows are filled from records of one schema.
pub(super) struct RowPlan {
    layout: Layout,
    /// In the order in which they come.
    fields: Vec<Field>,
    /// The cells that none of them fills, by their places.
    lacking: Vec<(usize, Constant)>,
}

struct Field {
    name: String,
    reading: Reading,
    /// Its place in the row, if it was asked for.
    place: Option<usize>,
}

/// What fills the cell of a field that their schema lacks.
enum Constant {
    Text(String),
    Bytes(Vec<u8>),
    Other(Cell<'static>),
}

/// What to make of a value.
enum Reading {
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
    /// Our symbol for each of theirs, if we have one.
    Symbols(Vec<Option<String>>),
    Union(Vec<Reading>),
    /// Nothing: our schema has no place for it, and why.
    Refused(String),
    /// No cell can hold it: a step over it.
    Other(NodeId),
}

/// What is wrong with a record, and in which of its fields.
pub(super) struct RowError<'p> {
    pub(super) field: Option<&'p str>,
    pub(super) error: Malformed,
}

impl RowPlan {
    /// For records of our schema, whose fields are `columns`.
    pub(super) fn of_reader(
        columns: &[Column],
        record: &RecordSchema,
        names: &NamesRef,
    ) -> Result<Self, String> {
        let mut layout = Layout::default();
        let mut fields = Vec::with_capacity(columns.len());
        for (column, field) in columns.iter().zip(&record.fields) {
            let node = layout.add(&field.schema, names)?;
            let reading = match column.place {
                Some(_) => Reading::as_it_is(&column.form, node, &layout),
                None => Reading::Other(node),
            };
            fields.push(Field { name: column.name.clone(), reading, place: column.place });
        }
        Ok(Self { layout, fields, lacking: Vec::new() })
    }

    /// For records of `writer`, held against our schema `reader`, whose fields are `columns` and whose plan is `plan`.
    pub(super) fn of_writer(
        writer: &Schema,
        reader: &Schema,
        columns: &[Column],
        plan: &Self,
    ) -> Result<Self, String> {
        let resolution = Resolution::compile(writer, reader)?;
        let (Some((their_fields, our_fields)), Schema::Record(record)) =
            (resolution.fields(), writer)
        else {
            return Err("it is not a record".to_owned());
        };
        let stepped_over = |(field, their): (&RecordField, &WriterField)| Field {
            name: field.name.clone(),
            reading: Reading::Other(their.form),
            place: None,
        };
        let mut fields: Vec<Field> =
            record.fields.iter().zip(their_fields).map(stepped_over).collect();
        let mut lacking = Vec::new();
        for (number, column) in columns.iter().enumerate() {
            let Some(place) = column.place else { continue };
            match &our_fields[number] {
                ReaderField::Theirs(their_number) => {
                    let WriterField { form, step } = their_fields[*their_number];
                    let Some(step) = step else { continue };
                    let field = &mut fields[*their_number];
                    field.reading = Reading::resolved(&resolution, step, form, &column.form);
                    field.place = Some(place);
                }
                ReaderField::Default(bytes) => {
                    let reading = &plan.fields[number].reading;
                    let cell = reading.cell(&plan.layout, &mut Cursor::new(bytes));
                    let cell = cell.map_err(|error| error.to_string())?;
                    lacking.push((place, Constant::new(cell)));
                }
            }
        }
        Ok(Self { layout: resolution.into_layout(), fields, lacking })
    }

    /// Fills `row`.
    pub(super) fn read<'a>(
        &'a self,
        datum: &'a [u8],
        row: &mut [Cell<'a>],
    ) -> Result<(), RowError<'a>> {
        let mut cursor = Cursor::new(datum);
        for Field { name, reading, place } in &self.fields {
            let cell = reading.cell(&self.layout, &mut cursor);
            let cell = cell.map_err(|error| RowError { field: Some(name), error })?;
            if let Some(place) = place {
                row[*place] = cell;
            }
        }
        // Every cell was read within bounds; so what is left is all that can still be wrong.
        cursor.finish().map_err(|error| RowError { field: None, error })?;
        for (place, default) in &self.lacking {
            row[*place] = default.cell();
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

impl Reading {
    /// A value of `form` that lies in its bytes as `node` says.
    fn as_it_is(form: &FieldType, node: NodeId, layout: &Layout) -> Self {
        match form {
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
            FieldType::Union(forms) => {
                let branches = forms.iter().zip(layout.branches(node));
                Self::Union(
                    branches.map(|(form, node)| Self::as_it_is(form, *node, layout)).collect(),
                )
            }
            FieldType::Other => Self::Other(node),
        }
    }

    /// A value of theirs that lies in its bytes as `node` says, and becomes one of our `form` by `step`.
    fn resolved(resolution: &Resolution, step: StepId, node: NodeId, form: &FieldType) -> Self {
        match (resolution.step(step), form) {
            (Step::FromUnion(branches), form) => {
                let nodes = resolution.layout().branches(node);
                let branch = |(step, node): (&Result<StepId, String>, &NodeId)| match step {
                    Ok(step) => Self::resolved(resolution, *step, *node, form),
                    Err(reason) => Self::Refused(reason.clone()),
                };
                Self::Union(branches.iter().zip(nodes).map(branch).collect())
            }
            (Step::IntoUnion { branch, value }, FieldType::Union(forms)) => {
                Self::resolved(resolution, *value, node, &forms[*branch])
            }
            (Step::Copy(_), form) => Self::as_it_is(form, node, resolution.layout()),
            (Step::IntToLong, _) => Self::Int,
            (Step::IntToFloat, _) => Self::IntAsFloat,
            (Step::IntToDouble, _) => Self::IntAsDouble,
            (Step::LongToFloat, _) => Self::LongAsFloat,
            (Step::LongToDouble, _) => Self::LongAsDouble,
            (Step::FloatToDouble, _) => Self::Float,
            (Step::Symbols(places), FieldType::Symbols(symbols)) => {
                let reader = |place: &Option<usize>| Some(symbols[(*place)?].clone());
                Self::Symbols(places.iter().map(reader).collect())
            }
            (
                Step::Symbols(_)
                | Step::IntoUnion { .. }
                | Step::Array(_)
                | Step::Map(_)
                | Step::Record { .. },
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
