//! Values of a field whose schema is known at run time only, and their encoding.

use apache_avro::schema::{InnerDecimalSchema, NamesRef, Schema, UuidSchema};

use crate::{
    layout::{definition, is_long},
    wire::{write_blob, write_count, write_long},
};

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// `null`
    Null,
    /// `boolean`
    Boolean(bool),
    /// `int` or `long`, logical types included
    Long(i64),
    /// `float` or `double`; when encoding, also a whole number for an `int` or a `long`
    Double(f64),
    /// `string`, or an `enum`'s symbol
    Text(&'a str),
    /// `bytes` or `fixed`, logical types included
    Bytes(&'a [u8]),
    /// When decoding: a value of any other type. When encoding: the field's default.
    Other,
}

/// The type of a field, by which its cell is encoded.
pub(super) enum FieldType {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    Fixed(usize),
    Symbols(Vec<String>),
    Union(Vec<FieldType>),
    Other,
}

impl FieldType {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it is apache_avro's enum: all else is `Other`"
    )]
    pub(super) fn of(schema: &Schema, names: &NamesRef) -> Result<Self, String> {
        Ok(match schema {
            Schema::Null => Self::Null,
            Schema::Boolean => Self::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Self::Int,
            schema if is_long(schema) => Self::Long,
            Schema::Float => Self::Float,
            Schema::Double => Self::Double,
            Schema::String | Schema::Uuid(UuidSchema::String) => Self::Text,
            Schema::Bytes | Schema::Uuid(UuidSchema::Bytes) => Self::Bytes,
            Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Self::Fixed(fixed.size)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Self::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Self::Fixed(fixed.size),
            },
            Schema::Enum(symbols) => Self::Symbols(symbols.symbols.clone()),
            Schema::Union(union) => {
                let branches = union.variants().iter();
                Self::Union(
                    branches.map(|branch| Self::of(branch, names)).collect::<Result<_, _>>()?,
                )
            }
            // The recursion ends here for a record that contains itself.
            Schema::Ref { name } => match definition(name, names)? {
                Schema::Record(_) => Self::Other,
                defined => Self::of(defined, names)?,
            },
            _ => Self::Other,
        })
    }

    /// Encodes `cell`; `None`, with nothing appended, if this type cannot hold it.
    pub(super) fn write(&self, cell: Cell<'_>, out: &mut Vec<u8>) -> Option<()> {
        match (self, cell) {
            (Self::Null, Cell::Null) => (),
            (Self::Boolean, Cell::Boolean(value)) => out.push(u8::from(value)),
            (Self::Int, cell) => write_long(i64::from(i32::try_from(whole(cell)?).ok()?), out),
            (Self::Long, cell) => write_long(whole(cell)?, out),
            (Self::Float, cell) => out.extend_from_slice(&(number(cell)? as f32).to_le_bytes()),
            (Self::Double, cell) => out.extend_from_slice(&number(cell)?.to_le_bytes()),
            (Self::Text, Cell::Text(text)) => write_blob(text.as_bytes(), out),
            (Self::Bytes, Cell::Bytes(bytes)) => write_blob(bytes, out),
            (Self::Fixed(size), Cell::Bytes(bytes)) if bytes.len() == *size => {
                out.extend_from_slice(bytes);
            }
            (Self::Symbols(symbols), Cell::Text(text)) => {
                write_count(symbols.iter().position(|symbol| symbol == text)?, out);
            }
            (Self::Union(branches), cell) => return write_branch(branches, cell, out),
            (
                Self::Null
                | Self::Boolean
                | Self::Text
                | Self::Bytes
                | Self::Fixed(_)
                | Self::Symbols(_)
                | Self::Other,
                _,
            ) => return None,
        }
        Some(())
    }

    /// Description of the values of this type, for error messages.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Boolean => "a boolean".to_owned(),
            Self::Int => "an int".to_owned(),
            Self::Long => "a long".to_owned(),
            Self::Float => "a float".to_owned(),
            Self::Double => "a double".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Fixed(size) => format!("{size} bytes"),
            Self::Symbols(symbols) => format!("one of {}", symbols.join(", ")),
            Self::Union(branches) => {
                let wanted: Vec<_> = branches.iter().map(Self::wanted).collect();
                wanted.join(" or ")
            }
            Self::Other => "of a supported type, only its default can be written".to_owned(),
        }
    }
}

/// Encodes `cell` as the first branch of a union that can hold it.
fn write_branch(branches: &[FieldType], cell: Cell<'_>, out: &mut Vec<u8>) -> Option<()> {
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

/// The number in a cell as a long, if it is whole and below 2^63.
fn whole(cell: Cell<'_>) -> Option<i64> {
    const LONGS_END: f64 = 9_223_372_036_854_775_808.0;
    match cell {
        Cell::Long(long) => Some(long),
        Cell::Double(double)
            if double.fract() == 0.0 && (-LONGS_END..LONGS_END).contains(&double) =>
        {
            Some(double as i64)
        }
        Cell::Double(_)
        | Cell::Null
        | Cell::Boolean(_)
        | Cell::Text(_)
        | Cell::Bytes(_)
        | Cell::Other => None,
    }
}

fn number(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Double(double) => Some(double),
        Cell::Long(long) => Some(long as f64),
        Cell::Null | Cell::Boolean(_) | Cell::Text(_) | Cell::Bytes(_) | Cell::Other => None,
    }
}

/// A value as text for messages.
#[must_use]
pub fn shown(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Boolean(value) => value.to_string(),
        Cell::Long(value) => value.to_string(),
        Cell::Double(value) => value.to_string(),
        Cell::Text(value) => format!("{value:?}"),
        Cell::Bytes(value) => format!("{} bytes", value.len()),
        Cell::Other => "a value of another type".to_owned(),
    }
}
