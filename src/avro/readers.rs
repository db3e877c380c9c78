//! Any record's bytes as a datum of our schema, whichever schema it was written with: asks the
//! registry once an id, and remembers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use apache_avro::schema::{ResolvedSchema, Schema};

use crate::{
    avro::{
        codec::CodecSetupError,
        framing,
        layout::{Layout, NodeId},
        registry::{RegistryError, SchemaRegistry},
        resolution::Resolution,
        wire::{Cursor, Malformed},
    },
    streams::codec::CodecError,
};

/// How many writers' schemas are remembered. A subject sees a few dozen in its life.
const SCHEMAS_MAX: usize = 256;

/// How many ids are remembered that the registry does not know.
const UNKNOWN_MAX: usize = 64;

/// How many records with one unknown id are refused before the registry is asked about it again:
/// a producer that writes garbage costs us one request in so many records.
const REFUSALS_MAX: u32 = 1_000;

/// Messages of errors go into headers and logs: longer ones are cut off.
const MESSAGE_CHARACTERS_MAX: usize = 400;

/// Reads records of every schema that can be read as ours.
pub(crate) struct SchemaReader {
    registry: Arc<dyn SchemaRegistry>,
    schema: Schema,
    id: u32,
    layout: Layout,
    root: NodeId,
    others: RwLock<BTreeMap<u32, Arc<Verdict>>>,
    unknown: Mutex<VecDeque<Unknown>>,
}

/// How to read records of another schema, or why that can't be done.
type Verdict = Result<Resolution, String>;

#[derive(Debug)]
struct Unknown {
    id: u32,
    refusals: u32,
}

impl SchemaReader {
    /// Reads as `schema`, which `subject` must hold.
    pub(crate) fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        schema: &str,
    ) -> Result<Self, CodecSetupError> {
        let invalid =
            |reason: String| CodecSetupError::Schema { subject: subject.to_owned(), reason };
        let parsed = Schema::parse_str(schema).map_err(|error| invalid(error.to_string()))?;
        let names = ResolvedSchema::new(&parsed).map_err(|error| invalid(error.to_string()))?;
        let mut layout = Layout::default();
        let root = layout.add(&parsed, names.get_names()).map_err(invalid)?;
        let Some(id) = registry.id_of(subject, schema)? else {
            return Err(CodecSetupError::NotRegistered { subject: subject.to_owned() });
        };
        Ok(Self {
            registry,
            schema: parsed,
            id,
            layout,
            root,
            others: RwLock::default(),
            unknown: Mutex::default(),
        })
    }

    /// Our schema.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Our schema's id: what we write with.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The datum in `bytes` as one of our schema, and the id of the schema it was written with. It
    /// is in `bytes` itself, and then nobody has looked at it yet; or in `rewritten`.
    pub(crate) fn datum<'a>(
        &self,
        bytes: &'a [u8],
        rewritten: &'a mut Vec<u8>,
    ) -> Result<(u32, &'a [u8]), CodecError> {
        let (id, datum) = framing::unframe(bytes)
            .map_err(|error| unreadable("framing", None, &error.to_string()))?;
        if id == self.id {
            return Ok((id, datum));
        }
        match &*self.verdict(id)? {
            Ok(resolution) => {
                rewritten.clear();
                resolution.rewrite(datum, rewritten).map_err(|error| malformed(id, &error))?;
                Ok((id, rewritten))
            }
            Err(reason) => Err(unreadable("incompatible_schema", Some(id), reason)),
        }
    }

    /// The same, known to be whole: for a reader that would believe any length in it.
    pub(crate) fn whole_datum<'a>(
        &self,
        bytes: &'a [u8],
        rewritten: &'a mut Vec<u8>,
    ) -> Result<(u32, &'a [u8]), CodecError> {
        let (id, datum) = self.datum(bytes, rewritten)?;
        let mut cursor = Cursor::new(datum);
        let whole = self.layout.skip(self.root, &mut cursor, 0).and_then(|()| cursor.finish());
        whole.map_err(|error| malformed(id, &error))?;
        Ok((id, datum))
    }

    fn verdict(&self, id: u32) -> Result<Arc<Verdict>, CodecError> {
        // A panic elsewhere can't leave these maps half-changed: each change is one insertion.
        if let Some(known) = self.others.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(known));
        }
        if self.is_unknown(id) {
            return Err(unknown_schema(id));
        }
        let verdict = match self.registry.schema(id) {
            Ok(text) => self.compare(&text),
            Err(RegistryError::NotFound(_)) => {
                self.remember_unknown(id);
                return Err(unknown_schema(id));
            }
            Err(RegistryError::Incompatible(reason)) => Err(reason),
            // Refused: the record may be perfectly good. It has to wait for new settings.
            Err(error @ (RegistryError::Unavailable(_) | RegistryError::Refused(_))) => {
                return Err(CodecError::Unavailable { message: error.to_string() });
            }
        };
        let verdict = Arc::new(verdict);
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if others.len() >= SCHEMAS_MAX {
            // The smallest id is the oldest schema.
            others.pop_first();
        }
        others.insert(id, Arc::clone(&verdict));
        Ok(verdict)
    }

    fn compare(&self, text: &str) -> Verdict {
        let theirs = Schema::parse_str(text).map_err(|error| error.to_string())?;
        Resolution::compile(&theirs, &self.schema)
    }

    fn is_unknown(&self, id: u32) -> bool {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = unknown.iter().position(|entry| entry.id == id) else {
            return false;
        };
        unknown[place].refusals += 1;
        if unknown[place].refusals < REFUSALS_MAX {
            return true;
        }
        unknown.remove(place);
        false
    }

    fn remember_unknown(&self, id: u32) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= UNKNOWN_MAX {
            unknown.pop_front();
        }
        unknown.push_back(Unknown { id, refusals: 0 });
    }
}

fn unknown_schema(id: u32) -> CodecError {
    unreadable("unknown_schema", Some(id), "the registry has no schema with this id")
}

fn malformed(id: u32, error: &Malformed) -> CodecError {
    let class = match error {
        Malformed::Unresolvable(_) => "incompatible_schema",
        Malformed::Truncated
        | Malformed::Trailing(_)
        | Malformed::Overflow
        | Malformed::Length(_)
        | Malformed::Boolean(_)
        | Malformed::Text
        | Malformed::Choice { .. }
        | Malformed::Depth
        | Malformed::EmptyItems => "malformed",
    };
    unreadable(class, Some(id), &error.to_string())
}

/// An error that says that a record will never be readable.
pub(crate) fn unreadable(class: &'static str, schema_id: Option<u32>, message: &str) -> CodecError {
    let message = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
    CodecError::Unreadable { class, schema_id, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{local::LocalRegistry, registry::Compatibility};
    use std::sync::atomic::{AtomicU32, Ordering};

    const OURS: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    const INT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    const TEXT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    /// Counts the questions, and can be cut off.
    #[derive(Default)]
    struct Counted {
        registry: LocalRegistry,
        questions: AtomicU32,
        down: AtomicU32,
    }

    impl SchemaRegistry for Counted {
        fn schema(&self, id: u32) -> Result<String, RegistryError> {
            self.questions.fetch_add(1, Ordering::SeqCst);
            match self.down.load(Ordering::SeqCst) {
                0 => self.registry.schema(id),
                _ => Err(RegistryError::Unavailable("down".to_owned())),
            }
        }
        fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
            self.registry.register(subject, schema)
        }
        fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
            self.registry.id_of(subject, schema)
        }
        fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
            self.registry.latest(subject)
        }
        fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
            self.registry.compatible(subject, schema)
        }
    }

    fn reader() -> (Arc<Counted>, SchemaReader) {
        let registry = Arc::new(Counted::default());
        registry.register("s", OURS).unwrap();
        registry.register("int", INT).unwrap();
        registry.register("text", TEXT).unwrap();
        let shared: Arc<dyn SchemaRegistry> = Arc::<Counted>::clone(&registry);
        (registry, SchemaReader::new(shared, "s", OURS).unwrap())
    }

    fn class(reader: &SchemaReader, bytes: &[u8]) -> &'static str {
        match reader.whole_datum(bytes, &mut Vec::new()) {
            Ok(_) => "ok",
            Err(CodecError::Unreadable { class, .. }) => class,
            Err(CodecError::Unavailable { .. }) => "unavailable",
        }
    }

    #[test]
    fn classes_of_what_may_come() {
        let (_, reader) = reader();
        for (bytes, expected) in [
            (&[0, 0, 0, 0, 1, 6][..], "ok"),
            (&[0, 0, 0, 0, 2, 6], "ok"),
            (&[0, 0, 0, 0, 1, 6, 6], "malformed"),
            (&[0, 0, 0, 0, 2, 6, 6], "malformed"),
            (&[0, 0, 0, 0, 1], "malformed"),
            (&[0, 0, 0, 0, 3, 2, b'x'], "incompatible_schema"),
            (&[0, 0, 0, 0, 9, 6], "unknown_schema"),
            (&[1, 0, 0, 0, 1, 6], "framing"),
            (&[], "framing"),
        ] {
            assert_eq!(class(&reader, bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_registry_is_asked_once_an_id() {
        let (registry, reader) = reader();
        for _ in 0..5 {
            assert_eq!(class(&reader, &[0, 0, 0, 0, 1, 6]), "ok");
            assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "ok");
            assert_eq!(class(&reader, &[0, 0, 0, 0, 3, 0]), "incompatible_schema");
        }
        assert_eq!(registry.questions.load(Ordering::SeqCst), 2, "one for each of the others");
    }

    #[test]
    fn garbage_does_not_hammer_the_registry() {
        let (registry, reader) = reader();
        for _ in 0..10 * REFUSALS_MAX {
            assert_eq!(class(&reader, &[0, 0, 0, 0, 77, 6]), "unknown_schema");
        }
        assert!(registry.questions.load(Ordering::SeqCst) <= 10);
        for id in 100..100 + 2 * UNKNOWN_MAX as u8 {
            assert_eq!(class(&reader, &[0, 0, 0, 0, id, 6]), "unknown_schema");
        }
        assert_eq!(reader.unknown.lock().unwrap().len(), UNKNOWN_MAX);
    }

    #[test]
    fn an_id_that_was_unknown_is_found_later() {
        let (registry, reader) = reader();
        assert_eq!(class(&reader, &[0, 0, 0, 0, 4, 6]), "unknown_schema");
        registry
            .register(
                "new",
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","doc":"n"}]}"#,
            )
            .unwrap();
        let found = (0..REFUSALS_MAX).any(|_| class(&reader, &[0, 0, 0, 0, 4, 6]) == "ok");
        assert!(found, "it is asked about again");
    }

    #[test]
    fn while_the_registry_is_down_records_wait() {
        let (registry, reader) = reader();
        registry.down.store(1, Ordering::SeqCst);
        assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "unavailable");
        assert_eq!(class(&reader, &[0, 0, 0, 0, 1, 6]), "ok", "ours needs no registry");
        registry.down.store(0, Ordering::SeqCst);
        assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "ok");
    }

    #[test]
    fn our_schema_must_be_registered() {
        let registry: Arc<dyn SchemaRegistry> = Arc::new(LocalRegistry::new());
        let missing = SchemaReader::new(registry, "s", OURS).err().map(|error| error.to_string());
        assert!(missing.is_some_and(|message| message.contains("foretell init")));
    }
}
