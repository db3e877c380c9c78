//! Two schemas, compared: the steps by which records of one become records of the other
//! (<https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>).
//!
//! They are compared once; by what comes out, `rewrite` makes a record one of ours, and `rows` reads a row out of it.
//! Stricter than the specification in one thing: a time in another unit is refused, where the
//! specification would have it read as if it were in ours.

use apache_avro::schema::{EnumSchema, Name, NamesRef, RecordSchema, ResolvedSchema, Schema};

use crate::{
    defaults::write_default,
    display::{any_of, cannot_be_read, in_words},
    layout::{Layout, NodeId, definition},
    scalars::{Base, base, unit},
    wire::Malformed,
};

/// How to rewrite records of one schema as records of another.
#[derive(Debug)]
pub(crate) struct Resolution {
    layout: Layout,
    steps: Vec<Step>,
    pub(super) root: StepId,
}

/// The number of a step in its [`Resolution`].
#[derive(Clone, Copy, Debug)]
pub(super) struct StepId(usize);

#[derive(Debug)]
pub(super) enum Step {
    /// The value has the same bytes in both.
    Copy(NodeId),
    IntToLong,
    IntToFloat,
    IntToDouble,
    LongToFloat,
    LongToDouble,
    FloatToDouble,
    /// Their symbols' places among ours; none where we have no such symbol.
    Symbols(Vec<Option<usize>>),
    /// What to do with each of their branches.
    FromUnion(Vec<Result<StepId, String>>),
    IntoUnion {
        branch: usize,
        value: StepId,
    },
    Array(StepId),
    Map(StepId),
    Record {
        /// Their fields, in the order they come in.
        writer: Vec<WriterField>,
        /// Our fields, in our order.
        reader: Vec<ReaderField>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WriterField {
    pub(super) form: NodeId,
    /// None where ours does not have it.
    pub(super) step: Option<StepId>,
}

#[derive(Debug)]
pub(super) enum ReaderField {
    /// Their field with this number.
    Theirs(usize),
    /// They have none: these bytes.
    Default(Vec<u8>),
}

impl Resolution {
    /// Compares `writer`, which records are written with, with `reader`.
    ///
    /// # Errors
    /// Why no record of `writer` can be read as one of `reader`.
    pub(crate) fn compile(writer: &Schema, reader: &Schema) -> Result<Self, String> {
        let their_names = ResolvedSchema::new(writer).map_err(|error| error.to_string())?;
        let our_names = ResolvedSchema::new(reader).map_err(|error| error.to_string())?;
        let mut compiler = Compiler {
            their_names: their_names.get_names(),
            our_names: our_names.get_names(),
            layout: Layout::default(),
            steps: Vec::new(),
            records: Vec::new(),
        };
        let root = compiler.value(writer, reader)?;
        Ok(Self { layout: compiler.layout, steps: compiler.steps, root })
    }

    /// Values of theirs that ours has no place for, though it has one for others of the same field: a branch of a
    /// union, a symbol. The first field that has such values, and what they are; `writer` is their schema.
    pub(super) fn gap(&self, writer: &Schema) -> Option<String> {
        let (Some((fields, _)), Schema::Record(record)) = (self.fields(), writer) else {
            return self.gap_from(self.root);
        };
        let named = fields.iter().zip(&record.fields);
        let mut gaps = named.filter_map(|(field, named)| {
            let gap = self.gap_from(field.step?)?;
            Some(format!("field {}: {gap}", named.name))
        });
        gaps.next()
    }

    fn gap_from(&self, start: StepId) -> Option<String> {
        let (mut seen, mut ahead) = (vec![false; self.steps.len()], vec![start]);
        while let Some(id) = ahead.pop() {
            if std::mem::replace(&mut seen[id.0], true) {
                continue;
            }
            match self.step(id) {
                Step::Copy(_)
                | Step::IntToLong
                | Step::IntToFloat
                | Step::IntToDouble
                | Step::LongToFloat
                | Step::LongToDouble
                | Step::FloatToDouble => (),
                Step::Symbols(places) if places.contains(&None) => {
                    let reason = "it has symbols that the reader's enum lacks, which has no default for them";
                    return Some(reason.to_owned());
                }
                Step::Symbols(_) => (),
                Step::FromUnion(branches) => {
                    for branch in branches {
                        match branch {
                            Ok(step) => ahead.push(*step),
                            Err(reason) => return Some(reason.clone()),
                        }
                    }
                }
                Step::IntoUnion { value: step, .. } | Step::Array(step) | Step::Map(step) => {
                    ahead.push(*step);
                }
                Step::Record { writer, .. } => {
                    ahead.extend(writer.iter().filter_map(|field| field.step));
                }
            }
        }
        None
    }

    /// Their fields in their order, and ours in ours; none if they are no records.
    pub(super) fn fields(&self) -> Option<(&[WriterField], &[ReaderField])> {
        let Step::Record { writer, reader } = self.step(self.root) else { return None };
        Some((writer, reader))
    }

    pub(super) fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0]
    }

    /// How their records lie in their bytes.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same, for callers that need nothing else.
    pub(super) fn into_layout(self) -> Layout {
        self.layout
    }
}

pub(super) fn unresolvable(reason: &str) -> Malformed {
    Malformed::Unresolvable(reason.to_owned())
}

pub(super) fn unknown_symbol() -> Malformed {
    unresolvable("a symbol that our schema does not have")
}

struct Compiler<'s> {
    their_names: &'s NamesRef<'s>,
    our_names: &'s NamesRef<'s>,
    layout: Layout,
    steps: Vec<Step>,
    /// Pairs of records under way or done, for types that contain themselves.
    records: Vec<(Name, Name, StepId)>,
}

impl Compiler<'_> {
    fn push(&mut self, step: Step) -> StepId {
        self.steps.push(step);
        StepId(self.steps.len() - 1)
    }

    fn value(&mut self, writer: &Schema, reader: &Schema) -> Result<StepId, String> {
        let step = match (writer, reader) {
            (Schema::Ref { name }, _) => {
                return self.value(definition(name, self.their_names)?, reader);
            }
            (_, Schema::Ref { name }) => {
                return self.value(writer, definition(name, self.our_names)?);
            }
            (Schema::Union(union), _) => {
                let branches = union.variants().iter();
                let branches: Vec<_> = branches.map(|branch| self.value(branch, reader)).collect();
                if branches.iter().all(Result::is_err) {
                    return Err(cannot_be_read(writer, reader));
                }
                if self.are_the_same(&branches, reader) {
                    return self.copy(writer);
                }
                Step::FromUnion(branches)
            }
            (_, Schema::Union(union)) => self.one_branch(writer, union.variants())?,
            (Schema::Array(writer), Schema::Array(reader)) => {
                Step::Array(self.value(&writer.items, &reader.items)?)
            }
            (Schema::Map(writer), Schema::Map(reader)) => {
                Step::Map(self.value(&writer.types, &reader.types)?)
            }
            (Schema::Record(writer), Schema::Record(reader)) => return self.record(writer, reader),
            (Schema::Enum(their_enum), Schema::Enum(our_enum)) => {
                let places = symbols(their_enum, our_enum)?;
                if places.iter().enumerate().all(|(place, reader)| *reader == Some(place)) {
                    return self.copy(writer);
                }
                Step::Symbols(places)
            }
            (_, _) => self.scalar(writer, reader)?,
        };
        Ok(self.push(step))
    }

    fn copy(&mut self, writer: &Schema) -> Result<StepId, String> {
        let form = self.layout.add(writer, self.their_names)?;
        Ok(self.push(Step::Copy(form)))
    }

    /// Whether each branch of their union is the branch of ours in the same place, with the same bytes.
    fn are_the_same(&self, branches: &[Result<StepId, String>], reader: &Schema) -> bool {
        let copied = |id: &StepId| matches!(self.steps[id.0], Step::Copy(_));
        let is_same = |(place, step): (usize, &Result<StepId, String>)| {
            let step = step.as_ref().ok().map(|id| &self.steps[id.0]);
            matches!(step, Some(Step::IntoUnion { branch, value }) if *branch == place && copied(value))
        };
        matches!(reader, Schema::Union(_)) && branches.iter().enumerate().all(is_same)
    }

    /// Into the branch of the very type; only then into one that it can be promoted to.
    fn one_branch(&mut self, writer: &Schema, branches: &[Schema]) -> Result<Step, String> {
        let same = branches.iter().position(|reader| same_type(writer, reader));
        let order = same.into_iter().chain(0..branches.len());
        for branch in order {
            if let Ok(value) = self.value(writer, &branches[branch]) {
                return Ok(Step::IntoUnion { branch, value });
            }
        }
        Err(format!("{} is none of {}", in_words(writer), any_of(branches)))
    }

    fn record(&mut self, writer: &RecordSchema, reader: &RecordSchema) -> Result<StepId, String> {
        same_name(&writer.name, &reader.name, reader.aliases.as_ref())?;
        let pair =
            |(their, our, _): &&(Name, Name, StepId)| (their, our) == (&writer.name, &reader.name);
        if let Some((_, _, known)) = self.records.iter().find(pair) {
            return Ok(*known);
        }
        let id = self.push(Step::LongToFloat);
        self.records.push((writer.name.clone(), reader.name.clone(), id));
        let step = self.fields(writer, reader);
        if step.is_err() {
            // A union may go on to try another branch: it must not find this one half-done.
            self.records.retain(|(_, _, known)| known.0 != id.0);
        }
        self.steps[id.0] = step?;
        Ok(id)
    }

    fn fields(&mut self, writer: &RecordSchema, reader: &RecordSchema) -> Result<Step, String> {
        let mut steps: Vec<Option<StepId>> = vec![None; writer.fields.len()];
        let mut our_fields = Vec::with_capacity(reader.fields.len());
        let mut reasons = Vec::new();
        for field in &reader.fields {
            let name = &field.name;
            let mut names = std::iter::once(&field.name).chain(&field.aliases);
            let number =
                names.find_map(|name| writer.fields.iter().position(|their| their.name == *name));
            let Some(number) = number else {
                let mut default = Vec::new();
                match write_default(field, self.our_names, &mut default) {
                    Ok(()) => our_fields.push(ReaderField::Default(default)),
                    Err(reason) => {
                        reasons.push(format!("{reason}, and the writer's schema lacks it"));
                    }
                }
                continue;
            };
            if steps[number].is_some() {
                reasons.push(format!("field {name}: another field has taken the writer's already"));
                continue;
            }
            match self.value(&writer.fields[number].schema, &field.schema) {
                Ok(step) => steps[number] = Some(step),
                Err(reason) => reasons.push(format!("field {name}: {reason}")),
            }
            our_fields.push(ReaderField::Theirs(number));
        }
        if !reasons.is_empty() {
            return Err(reasons.join("; "));
        }
        let mut their_fields = Vec::with_capacity(writer.fields.len());
        for (field, step) in writer.fields.iter().zip(steps) {
            let form = self.layout.add(&field.schema, self.their_names)?;
            their_fields.push(WriterField { form, step });
        }
        Ok(Step::Record { writer: their_fields, reader: our_fields })
    }

    fn scalar(&mut self, writer: &Schema, reader: &Schema) -> Result<Step, String> {
        match (unit(writer), unit(reader)) {
            (Some(their_unit), Some(our_unit)) if their_unit != our_unit => {
                return Err(format!("a time in {their_unit} can't be read as one in {our_unit}"));
            }
            (_, _) => (),
        }
        if let (Schema::Decimal(their), Schema::Decimal(our)) = (writer, reader)
            && their.scale != our.scale
        {
            let (writer, reader) = (their.scale, our.scale);
            return Err(format!(
                "a decimal with {writer} digits after the point can't be read as one with {reader}"
            ));
        }
        let step = match (base(writer), base(reader)) {
            (Base::Int, Base::Long) => Some(Step::IntToLong),
            (Base::Int, Base::Float) => Some(Step::IntToFloat),
            (Base::Int, Base::Double) => Some(Step::IntToDouble),
            (Base::Long, Base::Float) => Some(Step::LongToFloat),
            (Base::Long, Base::Double) => Some(Step::LongToDouble),
            (Base::Float, Base::Double) => Some(Step::FloatToDouble),
            (their_base, our_base) if their_base == our_base && their_base != Base::Other => None,
            (_, _) => return Err(cannot_be_read(writer, reader)),
        };
        match step {
            Some(step) => Ok(step),
            None => Ok(Step::Copy(self.layout.add(writer, self.their_names)?)),
        }
    }
}

/// The places of their symbols among ours.
fn symbols(writer: &EnumSchema, reader: &EnumSchema) -> Result<Vec<Option<usize>>, String> {
    same_name(&writer.name, &reader.name, reader.aliases.as_ref())?;
    let place = |symbol: &String| reader.symbols.iter().position(|our| our == symbol);
    let default = reader.default.as_ref().and_then(place);
    let places: Vec<_> = writer.symbols.iter().map(|their| place(their).or(default)).collect();
    if places.iter().all(Option::is_none) {
        return Err("none of its symbols is one of ours".to_owned());
    }
    Ok(places)
}

/// Namespaces do not count; they often change as a project moves.
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
            // `bytes` and `string` are one base, but the very type comes first.
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

    /// What apache-avro, which has its own resolution, makes of it.
    fn oracle(writer: &str, reader: &str, datum: &[u8]) -> Option<Vec<u8>> {
        let (writer, reader) =
            (Schema::parse_str(writer).unwrap(), Schema::parse_str(reader).unwrap());
        let datum_reader =
            GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        let value: Value = datum_reader.read_value(&mut &datum[..]).ok()?;
        GenericDatumWriter::builder(&reader).build().unwrap().write_value_to_vec(value).ok()
    }

    /// `datum` of `writer` is `expected` in `reader`, and apache-avro thinks so too.
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
    fn the_branch_of_the_very_type_comes_first() {
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
        assert!(reason.contains(word), "{reason:?} says nothing of {word:?}");
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
    fn fields_come_go_and_move() {
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
        fn anything_may_come(datum: Vec<u8>) {
            for (writer, reader) in [(LIST, LONG_LIST), (LIST, LIST)] {
                let resolution = Resolution::compile(&schema(writer), &schema(reader)).unwrap();
                drop(resolution.rewrite(&datum, &mut Vec::new()));
            }
        }
    }
}
