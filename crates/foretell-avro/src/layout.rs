//! The wire layout of a schema: enough to find the end of an encoded value, and to check that a record is complete,
//! without decoding it.

use apache_avro::schema::{InnerDecimalSchema, Name, NamesRef, ResolvedSchema, Schema, UuidSchema};

use crate::wire::{Cursor, DEPTH_MAX, Malformed};

/// The wire types of a schema's values. They refer to each other by index, because types can be recursive.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    nodes: Vec<Node>,
    named: Vec<(Name, NodeId)>,
}

/// Index of a wire type in its [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

#[derive(Clone, Debug)]
enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Blob,
    Fixed(usize),
    Enum(usize),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<NodeId>),
}

impl Layout {
    /// The layout of a complete schema, and the index of its outermost type.
    ///
    /// # Errors
    /// A message, if the schema refers to an undefined type.
    pub(crate) fn of(schema: &Schema) -> Result<(Self, NodeId), String> {
        let names = ResolvedSchema::new(schema).map_err(|error| error.to_string())?;
        let mut layout = Self::default();
        let root = layout.add(schema, names.get_names())?;
        Ok((layout, root))
    }

    /// Adds the types of `schema`, and returns the index of the outermost.
    ///
    /// # Errors
    /// A message, if the schema refers to a type that `names` lacks.
    pub(crate) fn add(&mut self, schema: &Schema, names: &NamesRef) -> Result<NodeId, String> {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Node::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Node::Long,
            Schema::Float => Node::Fixed(size_of::<f32>()),
            Schema::Double => Node::Fixed(size_of::<f64>()),
            Schema::Bytes
            | Schema::String
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => Node::Blob,
            Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Node::Fixed(fixed.size)
            }
            Schema::Duration(fixed) => Node::Fixed(fixed.size),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Blob,
                InnerDecimalSchema::Fixed(fixed) => Node::Fixed(fixed.size),
            },
            Schema::Enum(symbols) => Node::Enum(symbols.symbols.len()),
            Schema::Array(array) => Node::Array(self.add(&array.items, names)?),
            Schema::Map(map) => Node::Map(self.add(&map.types, names)?),
            Schema::Union(union) => {
                let branches = union.variants().iter();
                Node::Union(
                    branches.map(|branch| self.add(branch, names)).collect::<Result<_, _>>()?,
                )
            }
            Schema::Record(record) => {
                if let Some(known) = self.known(&record.name) {
                    return Ok(known);
                }
                // Registered before its fields, one of which may be of this very type.
                let id = self.push(Node::Null);
                self.named.push((record.name.clone(), id));
                let fields = record.fields.iter();
                let fields =
                    fields.map(|field| self.add(&field.schema, names)).collect::<Result<_, _>>()?;
                self.nodes[id.0] = Node::Record(fields);
                return Ok(id);
            }
            Schema::Ref { name } => {
                return match self.known(name) {
                    Some(known) => Ok(known),
                    None => self.add(definition(name, names)?, names),
                };
            }
        };
        Ok(self.push(node))
    }

    /// The branches of a union; empty for any other type.
    pub(crate) fn branches(&self, id: NodeId) -> &[NodeId] {
        if let Node::Union(branches) = &self.nodes[id.0] { branches } else { &[] }
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    fn known(&self, name: &Name) -> Option<NodeId> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, id)| *id)
    }

    /// Skips one value, which is nested `depth` levels deep in its record.
    pub(crate) fn skip(
        &self,
        id: NodeId,
        cursor: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        match &self.nodes[id.0] {
            Node::Null => Ok(()),
            Node::Boolean => cursor.boolean().map(drop),
            Node::Int => cursor.int().map(drop),
            Node::Long => cursor.long().map(drop),
            Node::Blob => cursor.blob().map(drop),
            Node::Fixed(bytes) => cursor.take(*bytes).map(drop),
            Node::Enum(symbols) => cursor.choice(*symbols).map(drop),
            Node::Array(item) => {
                cursor.items(|cursor| self.skip(*item, cursor, depth + 1)).map(drop)
            }
            Node::Map(value) => {
                let entry = |cursor: &mut Cursor<'_>| {
                    cursor.blob()?;
                    self.skip(*value, cursor, depth + 1)
                };
                cursor.items(entry).map(drop)
            }
            Node::Union(branches) => {
                let branch = cursor.choice(branches.len())?;
                self.skip(branches[branch], cursor, depth + 1)
            }
            Node::Record(fields) => {
                for field in fields {
                    self.skip(*field, cursor, depth + 1)?;
                }
                Ok(())
            }
        }
    }
}

/// The definition of the type `name`.
pub(crate) fn definition<'s>(name: &Name, names: &NamesRef<'s>) -> Result<&'s Schema, String> {
    names.get(name).copied().ok_or_else(|| format!("the type {name} is not defined"))
}

/// Whether values of `schema`, logical types included, are encoded as longs.
pub(super) fn is_long(schema: &Schema) -> bool {
    matches!(
        schema,
        Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(schema: &str, datum: &[u8]) -> Result<(), Malformed> {
        let schema = Schema::parse_str(schema).expect("a schema");
        let (layout, root) = Layout::of(&schema).expect("all names are defined");
        let mut cursor = Cursor::new(datum);
        layout.skip(root, &mut cursor, 0)?;
        cursor.finish()
    }

    const LIST: &str = r#"{"type":"record","name":"List","fields":[
        {"name":"head","type":"int"}, {"name":"tail","type":["null","List"]}]}"#;

    const MIXED: &str = r#"{"type":"record","name":"Mixed","fields":[
        {"name":"a","type":{"type":"array","items":{"type":"map","values":"boolean"}}},
        {"name":"b","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
        {"name":"c","type":{"type":"fixed","name":"F","size":3}},
        {"name":"d","type":["null",{"type":"array","items":"E"},"F","double","float"]}]}"#;

    #[test]
    fn recursive_values_are_skipped_up_to_the_maximum_depth() {
        assert_eq!(whole(LIST, &[2, 2, 4, 0]), Ok(()));
        assert_eq!(whole(LIST, &[2, 2, 4]), Err(Malformed::Truncated));
        assert_eq!(whole(LIST, &[2; 1_000_001]), Err(Malformed::Depth));
    }

    #[test]
    fn every_wire_type_is_skipped() {
        assert_eq!(whole(MIXED, &[2, 2, 2, b'k', 1, 0, 0, 2, 7, 7, 7, 0]), Ok(()));
        assert_eq!(whole(MIXED, &[0, 2, 7, 7, 7, 2, 4, 0, 2, 0]), Ok(()));
        assert_eq!(whole(MIXED, &[0, 2, 7, 7, 7, 4, 1, 2, 3]), Ok(()));
        assert_eq!(whole(MIXED, &[0, 2, 7, 7, 7, 0, 0]), Err(Malformed::Trailing(1)));
        let unknown_symbol = whole(MIXED, &[0, 4]);
        assert_eq!(unknown_symbol, Err(Malformed::Choice { index: 2, count: 2 }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(datum: Vec<u8>) {
            for schema in [LIST, MIXED, r#"{"type":"array","items":"null"}"#] {
                drop(whole(schema, &datum));
            }
        }
    }
}
