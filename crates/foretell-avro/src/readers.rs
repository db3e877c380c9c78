//! Which schema a record was written with, and by which plan it is read as one of ours: the registry
//! is asked once an id, the two schemas are compared once, and both are remembered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use apache_avro::Schema;

use crate::{
    codec::CodecSetupError,
    framing,
    registry::{RegistryError, SchemaRegistry},
    wire::Malformed,
};
use foretell_streams::codec::CodecError;

/// How many writers' schemas are remembered. A subject sees a few dozen in its life.
const SCHEMAS_MAX: usize = 256;

/// How many ids are remembered that the registry does not know.
const UNKNOWN_MAX: usize = 64;

/// How many records with one unknown id are refused before the registry is asked about it again:
/// a producer that writes garbage costs us one request in so many records.
const REFUSALS_MAX: u32 = 1_000;

/// Messages of errors go into headers and logs: longer ones are cut off.
const MESSAGE_CHARACTERS_MAX: usize = 1_000;

/// Knows our schema, and by which plan records of another are read as ours.
pub(crate) struct SchemaReader<P> {
    registry: Arc<dyn SchemaRegistry>,
    schema: Schema,
    id: u32,
    compile: Compile<P>,
    others: RwLock<BTreeMap<u32, Verdict<P>>>,
    unknown: Mutex<VecDeque<Unknown>>,
}

/// From a writer's schema and ours to a plan, or to why there is none.
pub(crate) type Compile<P> = Box<dyn Fn(&Schema, &Schema) -> Result<P, String> + Send + Sync>;

/// How to read records of another schema, or why that can't be done.
type Verdict<P> = Result<Arc<P>, Arc<str>>;

/// A record's datum, which nobody has looked at yet.
pub(crate) struct Framed<'a, P> {
    /// The schema it was written with.
    pub(crate) id: u32,
    pub(crate) datum: &'a [u8],
    /// How to read it; none if it was written with ours.
    pub(crate) plan: Option<Arc<P>>,
}

#[derive(Debug)]
struct Unknown {
    id: u32,
    refusals: u32,
}

impl<P> SchemaReader<P> {
    /// Reads as `schema`, which `subject` must hold.
    pub(crate) fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        schema: &str,
        compile: Compile<P>,
    ) -> Result<Self, CodecSetupError> {
        let invalid =
            |reason: String| CodecSetupError::Schema { subject: subject.to_owned(), reason };
        let parsed = Schema::parse_str(schema).map_err(|error| invalid(error.to_string()))?;
        let Some(id) = registry.id_of(subject, schema)? else {
            return Err(CodecSetupError::NotRegistered { subject: subject.to_owned() });
        };
        let (others, unknown) = (RwLock::default(), Mutex::default());
        Ok(Self { registry, schema: parsed, id, compile, others, unknown })
    }

    /// Our schema.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Our schema's id: what we write with.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The datum in `bytes`, and how to read it.
    pub(crate) fn unframe<'a>(&self, bytes: &'a [u8]) -> Result<Framed<'a, P>, CodecError> {
        let (id, datum) = framing::unframe(bytes)
            .map_err(|error| unreadable("framing", None, &error.to_string()))?;
        if id == self.id {
            return Ok(Framed { id, datum, plan: None });
        }
        match self.verdict(id)? {
            Ok(plan) => Ok(Framed { id, datum, plan: Some(plan) }),
            Err(reason) => Err(unreadable("incompatible_schema", Some(id), &reason)),
        }
    }

    fn verdict(&self, id: u32) -> Result<Verdict<P>, CodecError> {
        // A panic elsewhere can't leave these maps half-changed: each change is one insertion.
        if let Some(known) = self.others.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(known.clone());
        }
        if self.is_unknown(id) {
            return Err(unknown_schema(id));
        }
        let verdict = match self.registry.schema(id) {
            Ok(text) => self.compare(&text),
            Err(RegistryError::NotFound(_) | RegistryError::Refused(_)) => {
                self.remember_unknown(id);
                return Err(unknown_schema(id));
            }
            Err(RegistryError::Incompatible(reason)) => Err(Arc::from(reason)),
            // The record may be perfectly good; where it is denied, it has to wait for new settings.
            Err(error @ (RegistryError::Unavailable(_) | RegistryError::Denied(_))) => {
                return Err(CodecError::Unavailable { message: error.to_string() });
            }
        };
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if others.len() >= SCHEMAS_MAX {
            // The smallest id is the oldest schema.
            others.pop_first();
        }
        others.insert(id, verdict.clone());
        Ok(verdict)
    }

    fn compare(&self, text: &str) -> Verdict<P> {
        let writer = Schema::parse_str(text).map_err(|error| Arc::from(error.to_string()))?;
        match (self.compile)(&writer, &self.schema) {
            Ok(plan) => Ok(Arc::new(plan)),
            Err(reason) => Err(Arc::from(reason)),
        }
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

pub(crate) fn malformed(id: u32, error: &Malformed) -> CodecError {
    unreadable(class_of(error), Some(id), &error.to_string())
}

pub(crate) fn class_of(error: &Malformed) -> &'static str {
    match error {
        Malformed::Unresolvable(_) => "incompatible_schema",
        Malformed::Truncated
        | Malformed::Trailing(_)
        | Malformed::Overflow
        | Malformed::Length(_)
        | Malformed::Boolean(_)
        | Malformed::Text
        | Malformed::Choice { .. }
        | Malformed::Depth
        | Malformed::EmptyItems
        | Malformed::TooLarge => "malformed",
    }
}

/// An error that says that a record will never be readable.
pub(crate) fn unreadable(class: &'static str, schema_id: Option<u32>, message: &str) -> CodecError {
    let message = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
    CodecError::Unreadable { class, schema_id, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::{LocalRegistry, tests::Unsteady},
        resolution::Resolution,
    };

    const READER: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    const INT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    const TEXT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    fn reader() -> (Arc<Unsteady>, SchemaReader<Resolution>) {
        let registry = Arc::new(Unsteady::default());
        registry.register("s", READER).unwrap();
        registry.register("int", INT).unwrap();
        registry.register("text", TEXT).unwrap();
        let shared: Arc<dyn SchemaRegistry> = Arc::<Unsteady>::clone(&registry);
        let reader = SchemaReader::new(shared, "s", READER, Box::new(Resolution::compile));
        (registry, reader.unwrap())
    }

    fn class(reader: &SchemaReader<Resolution>, bytes: &[u8]) -> &'static str {
        match reader.unframe(bytes) {
            Ok(_) => "ok",
            Err(CodecError::Unreadable { class, .. }) => class,
            Err(CodecError::Unavailable { .. }) => "unavailable",
            Err(CodecError::OtherFormat { .. }) => "another format",
        }
    }

    #[test]
    fn classes_of_what_may_come() {
        let (_, reader) = reader();
        for (bytes, expected) in [
            (&[0, 0, 0, 0, 1, 6][..], "ok"),
            (&[0, 0, 0, 0, 2, 6], "ok"),
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
        assert_eq!(registry.questions(), 2, "one for each of the others");
    }

    #[test]
    fn garbage_does_not_hammer_the_registry() {
        let (registry, reader) = reader();
        for _ in 0..10 * REFUSALS_MAX {
            assert_eq!(class(&reader, &[0, 0, 0, 0, 77, 6]), "unknown_schema");
        }
        assert!(registry.questions() <= 10);
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
        registry.go_away();
        assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "unavailable");
        assert_eq!(class(&reader, &[0, 0, 0, 0, 1, 6]), "ok", "ours needs no registry");
        registry.come_back();
        assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "ok");
    }

    #[test]
    fn our_schema_must_be_registered() {
        let registry: Arc<dyn SchemaRegistry> = Arc::new(LocalRegistry::new());
        let reader = SchemaReader::new(registry, "s", READER, Box::new(Resolution::compile));
        let missing = reader.err().map(|error| error.to_string());
        assert!(missing.is_some_and(|message| message.contains("foretell init")));
    }
}
