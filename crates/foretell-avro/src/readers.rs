//! Finds the writer schema of a record, and the plan that resolves it to the reader schema. The registry is asked once per
//! schema id, and two schemas are compared once; both results are cached.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use apache_avro::Schema;

use crate::{
    framing,
    registry::{RegistryError, SchemaRegistry},
    setup_error::CodecSetupError,
    wire::Malformed,
};
use foretell_streams::codec::CodecError;

/// Maximum number of cached writer schemas. A subject has a few dozen versions in its lifetime.
const SCHEMAS_MAX: usize = 256;

/// Maximum number of cached ids that the registry does not have.
const UNKNOWN_MAX: usize = 64;

/// Records with one unknown id that are refused before the registry is asked about it again. So a producer that writes
/// garbage causes at most one request per this many records.
const REFUSALS_MAX: u32 = 1_000;

/// Maximum length of an error message, which goes into headers and logs. Longer ones are truncated.
const MESSAGE_CHARACTERS_MAX: usize = 1_000;

/// Unframes records, and resolves their writer schemas to one reader schema.
pub(crate) struct SchemaReader<P> {
    registry: Arc<dyn SchemaRegistry>,
    /// The reader schema.
    schema: Schema,
    id: u32,
    compile: Compile<P>,
    /// Plans of other writer schemas, by id.
    plans: RwLock<BTreeMap<u32, CachedPlan<P>>>,
    unknown: Mutex<VecDeque<UnknownId>>,
}

/// Compiles a plan from a writer schema and the reader schema; the error is the reason why there is none.
pub(crate) type Compile<P> = Box<dyn Fn(&Schema, &Schema) -> Result<P, String> + Send + Sync>;

/// The plan that reads records of a writer schema, or the reason why they cannot be read.
type CachedPlan<P> = Result<Arc<P>, Arc<str>>;

/// A datum that is not decoded yet, with what is needed to decode it.
pub(crate) struct Framed<'a, P> {
    /// Id of the writer schema.
    pub(crate) id: u32,
    pub(crate) datum: &'a [u8],
    /// The plan to decode it with; `None` if the writer schema is the reader schema.
    pub(crate) plan: Option<Arc<P>>,
}

/// An id that the registry does not have, with the records refused since it was last asked.
#[derive(Debug)]
struct UnknownId {
    id: u32,
    refusals: u32,
}

impl<P> SchemaReader<P> {
    /// Creates a reader for `schema`, which must be registered under `subject`.
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
        let (plans, unknown) = (RwLock::default(), Mutex::default());
        Ok(Self { registry, schema: parsed, id, compile, plans, unknown })
    }

    /// The reader schema.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Id of the reader schema, with which records are written.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Unframes `bytes`, and finds the plan for its writer schema.
    pub(crate) fn unframe<'a>(&self, bytes: &'a [u8]) -> Result<Framed<'a, P>, CodecError> {
        let (id, datum) = framing::unframe(bytes)
            .map_err(|error| unreadable("framing", None, &error.to_string()))?;
        if id == self.id {
            return Ok(Framed { id, datum, plan: None });
        }
        match self.plan(id)? {
            Ok(plan) => Ok(Framed { id, datum, plan: Some(plan) }),
            Err(reason) => Err(unreadable("incompatible_schema", Some(id), &reason)),
        }
    }

    /// The plan for the writer schema with this id, from the cache or the registry.
    fn plan(&self, id: u32) -> Result<CachedPlan<P>, CodecError> {
        // A panic cannot leave these maps half-changed: each change is one insertion or removal.
        if let Some(known) = self.plans.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(known.clone());
        }
        if self.is_unknown(id) {
            return Err(unknown_schema(id));
        }
        let plan = match self.registry.schema(id) {
            Ok(text) => self.compile(&text),
            Err(RegistryError::NotFound(_) | RegistryError::Refused(_)) => {
                self.add_unknown(id);
                return Err(unknown_schema(id));
            }
            Err(RegistryError::Incompatible(reason)) => Err(Arc::from(reason)),
            // The record may be valid. If the credentials were refused, it waits for new settings.
            Err(error @ (RegistryError::Unavailable(_) | RegistryError::Denied(_))) => {
                return Err(CodecError::Unavailable { message: error.to_string() });
            }
        };
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= SCHEMAS_MAX {
            // The smallest id is the oldest schema.
            plans.pop_first();
        }
        plans.insert(id, plan.clone());
        Ok(plan)
    }

    fn compile(&self, text: &str) -> CachedPlan<P> {
        let writer = Schema::parse_str(text).map_err(|error| Arc::from(error.to_string()))?;
        match (self.compile)(&writer, &self.schema) {
            Ok(plan) => Ok(Arc::new(plan)),
            Err(reason) => Err(Arc::from(reason)),
        }
    }

    /// Whether to refuse a record with this id without asking the registry.
    fn is_unknown(&self, id: u32) -> bool {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = unknown.iter().position(|entry| entry.id == id) else {
            return false;
        };
        unknown[index].refusals += 1;
        if unknown[index].refusals < REFUSALS_MAX {
            return true;
        }
        unknown.remove(index);
        false
    }

    fn add_unknown(&self, id: u32) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= UNKNOWN_MAX {
            unknown.pop_front();
        }
        unknown.push_back(UnknownId { id, refusals: 0 });
    }
}

fn unknown_schema(id: u32) -> CodecError {
    unreadable("unknown_schema", Some(id), "the registry has no schema with this id")
}

pub(crate) fn malformed(id: u32, error: &Malformed) -> CodecError {
    unreadable(class_of(error), Some(id), &error.to_string())
}

/// The error class of a malformed record, for headers of dead letters and metrics.
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

/// An error for a record that no retry can decode. The message is truncated to its maximum length.
pub(crate) fn unreadable(class: &'static str, schema_id: Option<u32>, message: &str) -> CodecError {
    let message = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
    CodecError::Unreadable { class, schema_id, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::{LocalRegistry, tests::FlakyRegistry},
        resolution::Resolution,
    };

    const READER: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    const INT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    const TEXT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    fn reader() -> (Arc<FlakyRegistry>, SchemaReader<Resolution>) {
        let registry = Arc::new(FlakyRegistry::default());
        registry.register("s", READER).unwrap();
        registry.register("int", INT).unwrap();
        registry.register("text", TEXT).unwrap();
        let shared: Arc<dyn SchemaRegistry> = Arc::<FlakyRegistry>::clone(&registry);
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
    fn each_kind_of_bytes_has_its_error_class() {
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
    fn the_registry_is_asked_once_per_id() {
        let (registry, reader) = reader();
        for _ in 0..5 {
            assert_eq!(class(&reader, &[0, 0, 0, 0, 1, 6]), "ok");
            assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "ok");
            assert_eq!(class(&reader, &[0, 0, 0, 0, 3, 0]), "incompatible_schema");
        }
        assert_eq!(registry.requests(), 2, "one per id of another schema");
    }

    #[test]
    fn unknown_ids_cause_few_requests() {
        let (registry, reader) = reader();
        for _ in 0..10 * REFUSALS_MAX {
            assert_eq!(class(&reader, &[0, 0, 0, 0, 77, 6]), "unknown_schema");
        }
        assert!(registry.requests() <= 10);
        for id in 100..100 + 2 * UNKNOWN_MAX as u8 {
            assert_eq!(class(&reader, &[0, 0, 0, 0, id, 6]), "unknown_schema");
        }
        assert_eq!(reader.unknown.lock().unwrap().len(), UNKNOWN_MAX);
    }

    #[test]
    fn an_unknown_id_that_is_registered_later_is_found() {
        let (registry, reader) = reader();
        assert_eq!(class(&reader, &[0, 0, 0, 0, 4, 6]), "unknown_schema");
        registry
            .register(
                "new",
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","doc":"n"}]}"#,
            )
            .unwrap();
        let found = (0..REFUSALS_MAX).any(|_| class(&reader, &[0, 0, 0, 0, 4, 6]) == "ok");
        assert!(found, "the registry was not asked again");
    }

    #[test]
    fn records_of_uncached_schemas_wait_while_the_registry_is_unavailable() {
        let (registry, reader) = reader();
        registry.set_available(false);
        assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "unavailable");
        assert_eq!(class(&reader, &[0, 0, 0, 0, 1, 6]), "ok", "the reader schema is known");
        registry.set_available(true);
        assert_eq!(class(&reader, &[0, 0, 0, 0, 2, 6]), "ok");
    }

    #[test]
    fn the_reader_schema_must_be_registered() {
        let registry: Arc<dyn SchemaRegistry> = Arc::new(LocalRegistry::new());
        let reader = SchemaReader::new(registry, "s", READER, Box::new(Resolution::compile));
        let missing = reader.err().map(|error| error.to_string());
        assert!(missing.is_some_and(|message| message.contains("foretell init")));
    }
}
