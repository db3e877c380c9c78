//! Schema resolution: compares a writer schema with a reader schema, and compiles the conversion of records of one
//! into records of the other (<https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>).
//!
//! Two schemas are compared once. `rewrite` applies the result to whole records; `rows` derives from it how to read rows
//! of cells. It is stricter than the specification in one case: a time in another unit is refused, where the
//! specification would reinterpret the number.

use apache_avro::schema::{EnumSchema, Name, NamesRef, RecordSchema, ResolvedSchema, Schema};

use crate::{
    defaults::write_default,
    display::{any_of, cannot_be_read, in_words},
    layout::{Layout, NodeId, definition},
    scalars::{Base, base, unit},
    wire::Malformed,
};

/// The conversion of records of a writer schema into records of a reader schema.
#[derive(Debug)]
pub(crate) struct Resolution {
    layout: Layout,
    conversions: Vec<Conversion>,
    pub(super) root: ConversionId,
}

/// Index of a conversion in its [`Resolution`]. Conversions refer to each other by index, because types can be recursive.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConversionId(usize);

/// The conversion of a value of one type of the writer schema.
#[derive(Debug)]
pub(super) enum Conversion {
    /// The value has the same bytes in both schemas.
    Unchanged(NodeId),
    IntToLong,
    IntToFloat,
    IntToDouble,
    LongToFloat,
    LongToDouble,
    FloatToDouble,
    /// For each symbol of the writer's enum, its index in the reader's; `None` if the reader has neither the symbol nor
    /// a default.
    Symbols(Vec<Option<usize>>),
    /// For each branch of the writer's union, its conversion, or the reason why there is none.
    FromUnion(Vec<Result<ConversionId, String>>),
    IntoUnion {
        branch: usize,
        value: ConversionId,
    },
    Array(ConversionId),
    Map(ConversionId),
    Record {
        /// Fields of the writer schema, in its order.
        writer: Vec<WriterField>,
        /// Fields of the reader schema, in its order.
        reader: Vec<ReaderField>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WriterField {
    pub(super) node: NodeId,
    /// `None` if the reader schema lacks the field.
    pub(super) conversion: Option<ConversionId>,
}

#[derive(Debug)]
pub(super) enum ReaderField {
    /// The value of the writer's field with this index.
    FromWriter(usize),
    /// The default, encoded: the writer schema lacks the field.
    Default(Vec<u8>),
}

impl Resolution {
    /// Compares a writer schema with a reader schema.
    ///
    /// # Errors
    /// The reason why no record of `writer` can be read as one of `reader`.
    pub(crate) fn compile(writer: &Schema, reader: &Schema) -> Result<Self, String> {
        let writer_names = ResolvedSchema::new(writer).map_err(|error| error.to_string())?;
        let reader_names = ResolvedSchema::new(reader).map_err(|error| error.to_string())?;
        let mut compiler = Compiler {
            writer_names: writer_names.get_names(),
            reader_names: reader_names.get_names(),
            layout: Layout::default(),
            conversions: Vec::new(),
            records: Vec::new(),
        };
        let root = compiler.value(writer, reader)?;
        Ok(Self { layout: compiler.layout, conversions: compiler.conversions, root })
    }

    /// The first reason why some, but not all, records of `writer` cannot be read: a branch of a union or a symbol that
    /// the reader schema lacks. `None` if all can be read.
    pub(super) fn gap(&self, writer: &Schema) -> Option<String> {
        let (Some((fields, _)), Schema::Record(record)) = (self.fields(), writer) else {
            return self.gap_from(self.root);
        };
        let named = fields.iter().zip(&record.fields);
        let mut gaps = named.filter_map(|(field, named)| {
            let gap = self.gap_from(field.conversion?)?;
            Some(format!("field {}: {gap}", named.name))
        });
        gaps.next()
    }

    fn gap_from(&self, start: ConversionId) -> Option<String> {
        let (mut visited, mut pending) = (vec![false; self.conversions.len()], vec![start]);
        while let Some(id) = pending.pop() {
            if std::mem::replace(&mut visited[id.0], true) {
                continue;
            }
            match self.conversion(id) {
                Conversion::Unchanged(_)
                | Conversion::IntToLong
                | Conversion::IntToFloat
                | Conversion::IntToDouble
                | Conversion::LongToFloat
                | Conversion::LongToDouble
                | Conversion::FloatToDouble => (),
                Conversion::Symbols(indexes) if indexes.contains(&None) => {
                    let reason = "it has symbols that the reader's enum lacks, which has no default for them";
                    return Some(reason.to_owned());
                }
                Conversion::Symbols(_) => (),
                Conversion::FromUnion(branches) => {
                    for branch in branches {
                        match branch {
                            Ok(conversion) => pending.push(*conversion),
                            Err(reason) => return Some(reason.clone()),
                        }
                    }
                }
                Conversion::IntoUnion { value, .. }
                | Conversion::Array(value)
                | Conversion::Map(value) => {
                    pending.push(*value);
                }
                Conversion::Record { writer, .. } => {
                    pending.extend(writer.iter().filter_map(|field| field.conversion));
                }
            }
        }
        None
    }

    /// The fields of the writer and of the reader schema, each in its order; `None` if they are not records.
    pub(super) fn fields(&self) -> Option<(&[WriterField], &[ReaderField])> {
        let Conversion::Record { writer, reader } = self.conversion(self.root) else { return None };
        Some((writer, reader))
    }

    pub(super) fn conversion(&self, id: ConversionId) -> &Conversion {
        &self.conversions[id.0]
    }

    /// The wire layout of the writer schema.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The wire layout of the writer schema, for callers that need nothing else.
    pub(super) fn into_layout(self) -> Layout {
        self.layout
    }
}

pub(super) fn unresolvable(reason: &str) -> Malformed {
    Malformed::Unresolvable(reason.to_owned())
}

pub(super) fn unknown_symbol() -> Malformed {
    unresolvable("a symbol that the reader schema does not have")
}

struct Compiler<'s> {
    writer_names: &'s NamesRef<'s>,
    reader_names: &'s NamesRef<'s>,
    layout: Layout,
    conversions: Vec<Conversion>,
    /// Pairs of writer and reader records that are compiled or in progress, for recursive types.
    records: Vec<(Name, Name, ConversionId)>,
}

impl Compiler<'_> {
    fn push(&mut self, conversion: Conversion) -> ConversionId {
        self.conversions.push(conversion);
        ConversionId(self.conversions.len() - 1)
    }

    fn value(&mut self, writer: &Schema, reader: &Schema) -> Result<ConversionId, String> {
        let conversion = match (writer, reader) {
            (Schema::Ref { name }, _) => {
                return self.value(definition(name, self.writer_names)?, reader);
            }
            (_, Schema::Ref { name }) => {
                return self.value(writer, definition(name, self.reader_names)?);
            }
            (Schema::Union(union), _) => {
                let branches = union.variants().iter();
                let branches: Vec<_> = branches.map(|branch| self.value(branch, reader)).collect();
                if branches.iter().all(Result::is_err) {
                    return Err(cannot_be_read(writer, reader));
                }
                if self.is_identity(&branches, reader) {
                    return self.unchanged(writer);
                }
                Conversion::FromUnion(branches)
            }
            (_, Schema::Union(union)) => self.one_branch(writer, union.variants())?,
            (Schema::Array(writer), Schema::Array(reader)) => {
                Conversion::Array(self.value(&writer.items, &reader.items)?)
            }
            (Schema::Map(writer), Schema::Map(reader)) => {
                Conversion::Map(self.value(&writer.types, &reader.types)?)
            }
            (Schema::Record(writer), Schema::Record(reader)) => return self.record(writer, reader),
            (Schema::Enum(writer_enum), Schema::Enum(reader_enum)) => {
                let indexes = symbols(writer_enum, reader_enum)?;
                if indexes.iter().enumerate().all(|(index, reader)| *reader == Some(index)) {
                    return self.unchanged(writer);
                }
                Conversion::Symbols(indexes)
            }
            (_, _) => self.scalar(writer, reader)?,
        };
        Ok(self.push(conversion))
    }

    fn unchanged(&mut self, writer: &Schema) -> Result<ConversionId, String> {
        let node = self.layout.add(writer, self.writer_names)?;
        Ok(self.push(Conversion::Unchanged(node)))
    }

    /// Whether each branch of the writer's union has the same index and the same bytes in the reader's union.
    fn is_identity(&self, branches: &[Result<ConversionId, String>], reader: &Schema) -> bool {
        let unchanged =
            |id: &ConversionId| matches!(self.conversions[id.0], Conversion::Unchanged(_));
        let is_same = |(index, conversion): (usize, &Result<ConversionId, String>)| {
            let conversion = conversion.as_ref().ok().map(|id| &self.conversions[id.0]);
            matches!(conversion, Some(Conversion::IntoUnion { branch, value })
                if *branch == index && unchanged(value))
        };
        matches!(reader, Schema::Union(_)) && branches.iter().enumerate().all(is_same)
    }

    /// Converts into the union's branch of the same type, or else into the first one that the type can be promoted to.
    fn one_branch(&mut self, writer: &Schema, branches: &[Schema]) -> Result<Conversion, String> {
        let same = branches.iter().position(|reader| same_type(writer, reader));
        let order = same.into_iter().chain(0..branches.len());
        for branch in order {
            if let Ok(value) = self.value(writer, &branches[branch]) {
                return Ok(Conversion::IntoUnion { branch, value });
            }
        }
        Err(format!("{} is none of {}", in_words(writer), any_of(branches)))
    }

    fn record(
        &mut self,
        writer: &RecordSchema,
        reader: &RecordSchema,
    ) -> Result<ConversionId, String> {
        same_name(&writer.name, &reader.name, reader.aliases.as_ref())?;
        let pair = |(old, new, _): &&(Name, Name, ConversionId)| {
            (old, new) == (&writer.name, &reader.name)
        };
        if let Some((_, _, known)) = self.records.iter().find(pair) {
            return Ok(*known);
        }
        // A placeholder until the fields are compiled, one of which may be of this very type.
        let id = self.push(Conversion::LongToFloat);
        self.records.push((writer.name.clone(), reader.name.clone(), id));
        let conversion = self.fields(writer, reader);
        if conversion.is_err() {
            // If the record is a branch of a union, other branches are tried, which must not find the placeholder.
            self.records.retain(|(_, _, known)| known.0 != id.0);
        }
        self.conversions[id.0] = conversion?;
        Ok(id)
    }

    fn fields(
        &mut self,
        writer: &RecordSchema,
        reader: &RecordSchema,
    ) -> Result<Conversion, String> {
        // One per field of the writer.
        let mut conversions: Vec<Option<ConversionId>> = vec![None; writer.fields.len()];
        let mut reader_fields = Vec::with_capacity(reader.fields.len());
        let mut reasons = Vec::new();
        for field in &reader.fields {
            let name = &field.name;
            let mut names = std::iter::once(&field.name).chain(&field.aliases);
            let number =
                names.find_map(|name| writer.fields.iter().position(|field| field.name == *name));
            let Some(number) = number else {
                let mut default = Vec::new();
                match write_default(field, self.reader_names, &mut default) {
                    Ok(()) => reader_fields.push(ReaderField::Default(default)),
                    Err(reason) => {
                        reasons.push(format!("{reason}, and the writer's schema lacks it"));
                    }
                }
                continue;
            };
            if conversions[number].is_some() {
                reasons.push(format!("field {name}: another field has taken the writer's already"));
                continue;
            }
            match self.value(&writer.fields[number].schema, &field.schema) {
                Ok(conversion) => conversions[number] = Some(conversion),
                Err(reason) => reasons.push(format!("field {name}: {reason}")),
            }
            reader_fields.push(ReaderField::FromWriter(number));
        }
        if !reasons.is_empty() {
            return Err(reasons.join("; "));
        }
        let mut writer_fields = Vec::with_capacity(writer.fields.len());
        for (field, conversion) in writer.fields.iter().zip(conversions) {
            let node = self.layout.add(&field.schema, self.writer_names)?;
            writer_fields.push(WriterField { node, conversion });
        }
        Ok(Conversion::Record { writer: writer_fields, reader: reader_fields })
    }

    fn scalar(&mut self, writer: &Schema, reader: &Schema) -> Result<Conversion, String> {
        match (unit(writer), unit(reader)) {
            (Some(writer_unit), Some(reader_unit)) if writer_unit != reader_unit => {
                return Err(format!(
                    "a time in {writer_unit} cannot be read as one in {reader_unit}"
                ));
            }
            (_, _) => (),
        }
        if let (Schema::Decimal(old), Schema::Decimal(new)) = (writer, reader)
            && old.scale != new.scale
        {
            let (writer, reader) = (old.scale, new.scale);
            return Err(format!(
                "a decimal with {writer} digits after the point cannot be read as one with {reader}"
            ));
        }
        let conversion = match (base(writer), base(reader)) {
            (Base::Int, Base::Long) => Some(Conversion::IntToLong),
            (Base::Int, Base::Float) => Some(Conversion::IntToFloat),
            (Base::Int, Base::Double) => Some(Conversion::IntToDouble),
            (Base::Long, Base::Float) => Some(Conversion::LongToFloat),
            (Base::Long, Base::Double) => Some(Conversion::LongToDouble),
            (Base::Float, Base::Double) => Some(Conversion::FloatToDouble),
            (writer_base, reader_base)
                if writer_base == reader_base && writer_base != Base::Other =>
            {
                None
            }
            (_, _) => return Err(cannot_be_read(writer, reader)),
        };
        match conversion {
            Some(conversion) => Ok(conversion),
            None => Ok(Conversion::Unchanged(self.layout.add(writer, self.writer_names)?)),
        }
    }
}

/// The index in the reader's enum of each symbol of the writer's, or that of the reader's default.
fn symbols(writer: &EnumSchema, reader: &EnumSchema) -> Result<Vec<Option<usize>>, String> {
    same_name(&writer.name, &reader.name, reader.aliases.as_ref())?;
    let index = |symbol: &String| reader.symbols.iter().position(|known| known == symbol);
    let default = reader.default.as_ref().and_then(index);
    let indexes: Vec<_> = writer.symbols.iter().map(|name| index(name).or(default)).collect();
    if indexes.iter().all(Option::is_none) {
        return Err("none of its symbols is in the reader's enum".to_owned());
    }
    Ok(indexes)
}

/// Checks that the reader's name or one of its aliases is the writer's name. Namespaces are ignored, because they often
/// change when a project is moved.
pub(super) fn same_name(
    writer: &Name,
    reader: &Name,
    aliases: Option<&Vec<apache_avro::schema::Alias>>,
) -> Result<(), String> {
    let named = |alias: &apache_avro::schema::Alias| alias.name() == writer.name();
    if writer.name() == reader.name() || aliases.is_some_and(|aliases| aliases.iter().any(named)) {
        return Ok(());
    }
    Err(format!("it is a {}, not a {}", writer.name(), reader.name()))
}

fn same_type(writer: &Schema, reader: &Schema) -> bool {
    match (writer.name(), reader.name()) {
        (Some(writer), Some(reader)) => writer.name() == reader.name(),
        (None, None) => match (writer, reader) {
            (Schema::Array(_), Schema::Array(_)) | (Schema::Map(_), Schema::Map(_)) => true,
            // They have the same base, but are different types.
            (Schema::Bytes, Schema::String) | (Schema::String, Schema::Bytes) => false,
            (_, _) => base(writer) == base(reader) && base(writer) != Base::Other,
        },
        (_, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::{
        reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
    };
    use proptest::prelude::*;

    fn schema(text: &str) -> Schema {
        Schema::parse_str(text).expect(text)
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    fn of_type(kind: &str) -> String {
        record(&format!(r#"{{"name":"a","type":{kind}}}"#))
    }

    /// `datum` resolved by apache-avro, which has its own implementation.
    fn oracle(writer: &str, reader: &str, datum: &[u8]) -> Option<Vec<u8>> {
        let (writer, reader) =
            (Schema::parse_str(writer).unwrap(), Schema::parse_str(reader).unwrap());
        let datum_reader =
            GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        let value: Value = datum_reader.read_value(&mut &datum[..]).ok()?;
        GenericDatumWriter::builder(&reader).build().unwrap().write_value_to_vec(value).ok()
    }

    /// Checks that `datum` of `writer` becomes `expected` in `reader`, here and in apache-avro.
    fn check(writer: &str, reader: &str, datum: &[u8], expected: &[u8]) {
        let resolution = Resolution::compile(&schema(writer), &schema(reader)).expect(writer);
        let mut out = Vec::new();
        assert_eq!(resolution.rewrite(datum, &mut out), Ok(()), "{writer} as {reader}");
        assert_eq!(out, expected, "{writer} as {reader}");
        assert_eq!(
            oracle(writer, reader, datum).as_deref(),
            Some(expected),
            "{writer} as {reader}"
        );
    }

    #[test]
    fn the_branch_of_the_same_type_takes_precedence() {
        let check = |writer: &str, reader: &str, datum: &[u8], expected: &[u8]| {
            let (writer, reader) = (schema(&of_type(writer)), schema(&of_type(reader)));
            let resolution = Resolution::compile(&writer, &reader).unwrap();
            let mut out = Vec::new();
            assert_eq!(resolution.rewrite(datum, &mut out), Ok(()));
            assert_eq!(out, expected);
        };
        check(r#""int""#, r#"["long","int"]"#, &[6], &[2, 6]);
        check(r#""int""#, r#"["double","long"]"#, &[2], &[0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        check(r#""string""#, r#"["bytes","string"]"#, b"\x02x", b"\x02\x02x");
        check(r#""bytes""#, r#"["string","bytes"]"#, b"\x02x", b"\x02\x02x");
    }

    #[test]
    fn a_writers_field_is_read_as_one_field() {
        let writer = schema(&record(r#"{"name":"a","type":"int"}"#));
        let twice = r#"{"name":"b","aliases":["a"],"type":"int"},{"name":"c","aliases":["a"],"type":"int"}"#;
        let refused = Resolution::compile(&writer, &schema(&record(twice))).map(|_| ());
        assert!(refused.is_err_and(|reason| reason.contains("field c: another field has taken")));
    }

    fn check_type(writer: &str, reader: &str, datum: &[u8], expected: &[u8]) {
        check(&of_type(writer), &of_type(reader), datum, expected);
    }

    fn refuse(writer: &str, reader: &str, word: &str) {
        let refused = Resolution::compile(&schema(writer), &schema(reader));
        let reason = refused.err().unwrap_or_else(|| panic!("{writer} is read as {reader}"));
        assert!(reason.contains(word), "{reason:?} lacks {word:?}");
    }

    #[test]
    fn promotions() {
        check_type(r#""int""#, r#""long""#, &[6], &[6]);
        check_type(r#""int""#, r#""double""#, &[2], &1_f64.to_le_bytes());
        check_type(r#""long""#, r#""float""#, &[2], &1_f32.to_le_bytes());
        check_type(r#""float""#, r#""double""#, &1_f32.to_le_bytes(), &1_f64.to_le_bytes());
        check_type(r#""string""#, r#""bytes""#, &[2, b'x'], &[2, b'x']);
        refuse(&of_type(r#""long""#), &of_type(r#""int""#), "field a");
        refuse(&of_type(r#""string""#), &of_type(r#""int""#), "field a");
        let millis = of_type(r#"{"type":"long","logicalType":"timestamp-millis"}"#);
        let micros = of_type(r#"{"type":"long","logicalType":"timestamp-micros"}"#);
        check(&of_type(r#""long""#), &millis, &[2], &[2]);
        refuse(&micros, &millis, "microseconds");
    }

    #[test]
    fn unions() {
        check_type(r#""int""#, r#"["null","int"]"#, &[6], &[2, 6]);
        check_type(
            r#""int""#,
            r#"["null","double","long"]"#,
            &[2],
            &[2, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
        );
        check_type(r#"["int","null"]"#, r#"["null","int"]"#, &[0, 6], &[2, 6]);
        check_type(r#"["int","null"]"#, r#"["null","int"]"#, &[2], &[0]);
        check_type(r#"["null","int"]"#, r#"["null","string","int"]"#, &[2, 6], &[4, 6]);
        check_type(r#"["null","int"]"#, r#""int""#, &[2, 6], &[6]);
        refuse(&of_type(r#"["null","int"]"#), &of_type(r#""string""#), "field a");
        let resolution = Resolution::compile(
            &schema(&of_type(r#"["null","int"]"#)),
            &schema(&of_type(r#""int""#)),
        )
        .unwrap();
        let null = resolution.rewrite(&[0], &mut Vec::new());
        assert!(matches!(null, Err(Malformed::Unresolvable(_))), "{null:?}");
    }

    #[test]
    fn fields_can_be_added_removed_and_moved() {
        let ab = record(r#"{"name":"a","type":"int"},{"name":"b","type":"string"}"#);
        let ba = record(r#"{"name":"b","type":"string"},{"name":"a","type":"int"}"#);
        check(&ab, &ba, &[2, 2, b'x'], &[2, b'x', 2]);
        check(&ab, &record(r#"{"name":"b","type":"string"}"#), &[2, 2, b'x'], &[2, b'x']);
        let more = r#"{"name":"c","type":["null","int"],"default":null},{"name":"a","type":"int"}"#;
        check(&ab, &record(more), &[2, 2, b'x'], &[0, 2]);
        refuse(&ab, &record(r#"{"name":"c","type":"int"}"#), "field c");
        let renamed = Resolution::compile(
            &schema(&ab),
            &schema(&record(r#"{"name":"z","aliases":["a"],"type":"int"}"#)),
        );
        let mut out = Vec::new();
        assert_eq!(renamed.unwrap().rewrite(&[2, 2, b'x'], &mut out), Ok(()));
        assert_eq!(out, [2]);
        refuse(&ab, r#"{"type":"record","name":"S","fields":[]}"#, "not a S");
    }

    #[test]
    fn collections_and_symbols() {
        let blocks = [2, 2, 1, 2, 4, 0]; // two blocks, the second with its size
        check_type(
            r#"{"type":"array","items":"int"}"#,
            r#"{"type":"array","items":"long"}"#,
            &blocks,
            &[4, 2, 4, 0],
        );
        check_type(
            r#"{"type":"map","values":"int"}"#,
            r#"{"type":"map","values":"int"}"#,
            &[2, 2, b'k', 2, 0],
            &[2, 2, b'k', 2, 0],
        );
        let enumeration =
            |symbols| format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]}}"#);
        check_type(&enumeration(r#""A","B""#), &enumeration(r#""B","A""#), &[0], &[2]);
        let reader = r#"{"type":"enum","name":"E","symbols":["X","Z"],"default":"Z"}"#;
        check_type(&enumeration(r#""A","B""#), reader, &[0], &[2]);
        refuse(&of_type(&enumeration(r#""A""#)), &of_type(&enumeration(r#""B""#)), "symbols");
    }

    const LIST: &str = r#"{"type":"record","name":"List","fields":[
        {"name":"head","type":"int"}, {"name":"tail","type":["null","List"]}]}"#;
    const LONG_LIST: &str = r#"{"type":"record","name":"List","fields":[
        {"name":"tail","type":["null","List"]}, {"name":"head","type":"long"}]}"#;

    #[test]
    fn recursive_types() {
        let resolution = Resolution::compile(&schema(LIST), &schema(LONG_LIST)).unwrap();
        let mut out = Vec::new();
        assert_eq!(resolution.rewrite(&[2, 2, 4, 0], &mut out), Ok(()));
        assert_eq!(out, [2, 0, 4, 2]);
        let deep = resolution.rewrite(&[2; 100_001], &mut Vec::new());
        assert_eq!(deep, Err(Malformed::Depth));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(datum: Vec<u8>) {
            for (writer, reader) in [(LIST, LONG_LIST), (LIST, LIST)] {
                let resolution = Resolution::compile(&schema(writer), &schema(reader)).unwrap();
                drop(resolution.rewrite(&datum, &mut Vec::new()));
            }
        }
    }
}
