//! The schemas of the configuration and the registry: the check before a deployment, and registration, which happens
//! only in `foretell init` and `foretell schema register`.

use std::borrow::Cow;

use anyhow::Context;

use crate::{
    app::{
        check_result::{CheckResult, Status},
        cluster,
        schemas::{
            EventFields, EventSchemaFile, KindChange,
            answers::{AnswersVersion, kind_changes},
            check_answers,
            history::{History, parse},
        },
    },
    config::Config,
    events::topics::subject,
};
use foretell_avro::{
    evolution::{Level, Schema, breaches},
    registry::{Compatibility, RegistryError, SchemaRegistry},
};
use foretell_streams::record::Topic;

/// Level of the schemas that the application defines: earlier and later releases read each other's records.
const OWN_LEVEL: Level = Level::FullTransitive;

/// Result of the registration of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub subject: String,
    /// The level that was set, if one was.
    pub level: Option<&'static str>,
    /// Ids of the versions, oldest first.
    pub ids: Vec<u32>,
    /// Number of versions that were not registered before.
    pub new: usize,
}

/// The newest event schema of the registry, and the event schema of the configuration: those of a `source`.
///
/// # Errors
/// If the registry has no event schema, or does not answer.
pub fn registered_and_configured(
    config: &Config,
    source: &EventSchemaFile<'_>,
) -> anyhow::Result<(Schema, Schema)> {
    let registry = cluster::registry_client(config)?;
    let subject = subject(source.topic);
    let latest = registry.latest(&subject)?;
    let (_, latest) = latest.with_context(|| {
        format!("the registry has no subject {subject} yet: run `foretell schema register`")
    })?;
    Ok((parse(&latest)?, parse(source.schema.text())?))
}

/// The schema of a topic's records, with the answers of the configured event schema. `topic` is its name with the prefix or
/// without it.
///
/// # Errors
/// If there is no such topic, or its values have no schema; the message lists those that have one.
pub fn schema_of(config: &Config, topic: &str) -> anyhow::Result<String> {
    let schemas = config.topics.schemas(&config.event_schemas);
    let plain = |name: &Topic| {
        let name = name.as_str();
        name.strip_prefix(&config.topic_prefix).unwrap_or(name).to_owned()
    };
    let found = schemas.iter().find(|(name, _)| name.as_str() == topic || plain(name) == topic);
    let (_, text) = found.with_context(|| {
        let known: Vec<String> = schemas.iter().map(|(name, _)| plain(name)).collect();
        format!("no topic {topic} has records with a schema; these have: {}", known.join(", "))
    })?;
    let schema: serde_json::Value = serde_json::from_str(text)?;
    Ok(serde_json::to_string_pretty(&schema)?)
}

/// A subject with the versions to register.
struct Subject {
    name: String,
    /// `None` keeps the level of the registry.
    level: Option<Level>,
    /// Schemas, oldest first; never empty.
    texts: Vec<String>,
}

impl Subject {
    /// Whether `text` may follow the registered versions. Under a level that does not ask for backward compatibility
    /// that is known only when the registry accepts or refuses it.
    fn may_follow(
        &self,
        registry: &dyn SchemaRegistry,
        text: &str,
    ) -> Result<Compatibility, RegistryError> {
        if self.level.is_none_or(Level::is_backward) {
            return registry.compatible(&self.name, text);
        }
        Ok(Compatibility::Compatible)
    }

    /// The ids of the versions that are registered.
    fn known(&self, registry: &dyn SchemaRegistry) -> Result<Vec<Option<u32>>, RegistryError> {
        self.texts.iter().map(|text| registry.id_of(&self.name, text)).collect()
    }

    /// Why the versions that are not registered may not follow those that are. With a level of its own, the subject is checked
    /// against that, which is set before the registration, and without one by the registry.
    fn refusal(
        &self,
        registry: &dyn SchemaRegistry,
        known: &[Option<u32>],
    ) -> Result<Option<Refusal>, RegistryError> {
        let new = self.texts.iter().zip(known).filter(|(_, id)| id.is_none());
        let new: Vec<&str> = new.map(|(text, _)| text.as_str()).collect();
        let Some(level) = self.level else {
            return match new.last() {
                Some(text) => Ok(Refusal::of(registry.compatible(&self.name, text)?)),
                None => Ok(None),
            };
        };
        if new.is_empty() {
            return Ok(None);
        }
        let registered = match level.is_transitive() {
            true => registry.versions(&self.name)?,
            false => registry.latest(&self.name)?.into_iter().collect(),
        };
        let answers = registered.iter().map(|(id, text)| (format!("schema {id}"), text.as_str()));
        let answers = answers.chain(new.iter().map(|text| ("the local schema".to_owned(), *text)));
        let answers = answers.map(|(name, text)| AnswersVersion::in_record(name, text));
        let kinds = kind_changes(&answers.collect::<Vec<_>>());
        // A field of an event may be called `answers`, too.
        if level == OWN_LEVEL && !kinds.is_empty() {
            let reasons = kinds.iter().map(ToString::to_string).collect();
            return Ok(Some(Refusal { reasons, fix: KindChange::FIX }));
        }
        // What is not an Avro schema is of another producer, which the registry compares.
        let mut schemas: Vec<Schema> =
            registered.iter().filter_map(|(_, text)| parse(text).ok()).collect();
        let registered = schemas.len();
        schemas.extend(new.into_iter().filter_map(|text| parse(text).ok()));
        let breaches = breaches(level, &schemas).into_iter();
        let breaches = breaches.filter(|breach| breach.written.max(breach.reading) > registered);
        let reasons: Vec<String> = breaches.map(|breach| breach.reason).collect();
        Ok(Refusal::of(Compatibility::Incompatible { reasons }))
    }
}

/// Why a schema may not follow the registered ones, and what to do.
struct Refusal {
    reasons: Vec<String>,
    fix: &'static str,
}

impl Refusal {
    fn of(verdict: Compatibility) -> Option<Self> {
        let fix =
            "see what the change means (`foretell schema diff`), and make it in a compatible way";
        match verdict {
            Compatibility::Incompatible { reasons } if !reasons.is_empty() => {
                Some(Self { reasons, fix })
            }
            Compatibility::Incompatible { .. } | Compatibility::Compatible => None,
        }
    }
}

/// The histories of the event schemas that are versions in the folders of subjects.
fn event_histories(config: &Config) -> anyhow::Result<Vec<(EventSchemaFile<'_>, History)>> {
    let mut histories = Vec::new();
    for source in EventSchemaFile::all(config) {
        if source.folder().join("subject.toml").exists() {
            let history = History::read(source.folder())?;
            histories.push((source, history));
        }
    }
    Ok(histories)
}

fn subjects(config: &Config) -> anyhow::Result<Vec<Subject>> {
    let histories = event_histories(config)?;
    let of_events: Vec<&Topic> = config.topics.of_events().collect();
    let subject_of = |(topic, text): (&Topic, Cow<'_, str>)| {
        let name = subject(topic);
        match histories.iter().find(|(source, _)| source.topic == topic) {
            Some((_, history)) => {
                // Up to the version in use, which need not be the newest.
                let texts = history.versions.iter().map(|version| version.text.clone());
                let mut texts: Vec<String> = texts.collect();
                if let Some(index) = texts.iter().position(|version| *version == text) {
                    texts.truncate(index + 1);
                }
                Subject { name, level: Some(history.level), texts }
            }
            None => {
                let level = (!of_events.contains(&topic)).then_some(OWN_LEVEL);
                Subject { name, level, texts: vec![text.into_owned()] }
            }
        }
    };
    let in_use = config.topics.schemas(&config.event_schemas);
    Ok(in_use.into_iter().map(subject_of).collect())
}

/// Checks the folders of the event schemas, and whether the registry would accept all schemas of the configuration. It
/// changes nothing. `show` gets each result.
///
/// # Errors
/// If the folder of an event schema cannot be read.
pub fn check_registry(config: &Config, show: &mut dyn FnMut(CheckResult)) -> anyhow::Result<()> {
    let registry = cluster::registry_client(config)?;
    for (_, history) in event_histories(config)? {
        history.check().into_iter().for_each(&mut *show);
        let fields = EventFields::of(&history.folder, Some(config));
        check_answers(&history, &fields).into_iter().for_each(&mut *show);
    }
    for subject in subjects(config)? {
        show(check_subject(&registry, &subject).unwrap_or_else(|error| {
            CheckResult::failed(
                format!("registry {}", subject.name),
                error.to_string(),
                cluster::registry_fix(&error),
            )
        }));
    }
    Ok(())
}

fn check_subject(
    registry: &dyn SchemaRegistry,
    subject: &Subject,
) -> Result<CheckResult, RegistryError> {
    let name = format!("registry {}", subject.name);
    let local = subject.texts.last().expect("a subject has a version");
    let Some((latest, _)) = registry.latest(&subject.name)? else {
        let detail = "the registry has no such subject yet: all versions would be registered";
        return Ok(CheckResult::warning(name, detail, "run `foretell schema register`"));
    };
    if let Some(id) = registry.id_of(&subject.name, local)? {
        let version = if id == latest { "the newest" } else { "an older" };
        let detail = format!("the local schema is {version} version in the registry (id {id})");
        return Ok(CheckResult::ok(name, detail));
    }
    let refusal = match subject.refusal(registry, &subject.known(registry)?)? {
        Some(refusal) => Some(refusal),
        None => Refusal::of(subject.may_follow(registry, local)?),
    };
    Ok(match refusal {
        None => CheckResult::warning(
            name,
            format!("the local schema is not registered; it may follow the newest (id {latest})"),
            "run `foretell schema register`",
        ),
        Some(Refusal { reasons, fix }) => CheckResult::failed(
            name,
            format!(
                "the local schema may not follow the newest (id {latest}): {}",
                reasons.join("; ")
            ),
            fix,
        ),
    })
}

/// Registers the schemas of the configuration, and marks the versions in the folders of the event schemas as released.
///
/// # Errors
/// As [`register_with`]; or if a check of the files fails.
pub fn register(config: &Config, show: &mut dyn FnMut(Registered)) -> anyhow::Result<()> {
    let histories = event_histories(config)?;
    let results = histories.iter().flat_map(|(_, history)| {
        let fields = EventFields::of(&history.folder, Some(config));
        [history.check(), check_answers(history, &fields)].concat()
    });
    let failed = results.into_iter().find(|result| result.status == Status::Failed);
    if let Some(failed) = failed {
        anyhow::bail!("nothing was registered: {failed}");
    }
    register_with(config, &cluster::registry_client(config)?, SetLevels::Always, show)?;
    for (source, mut history) in histories {
        if history.newest().text == source.schema.text() {
            history.release()?;
        }
    }
    Ok(())
}

/// Condition under which the level of a subject is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetLevels {
    Always,
    /// Only together with a new version: in a registry that others administer, `init` may lack the right to set it.
    WithNewVersions,
}

/// Registers the schemas of the configuration: each subject with its level, and its versions in order. Registered
/// versions keep their ids. `show` gets the result of each subject.
///
/// # Errors
/// If one is refused, with the reason. All are checked before the first is registered; if the registry refuses one
/// nevertheless, those after it are not registered.
pub fn register_with(
    config: &Config,
    registry: &dyn SchemaRegistry,
    levels: SetLevels,
    show: &mut dyn FnMut(Registered),
) -> anyhow::Result<()> {
    let mut plans = Vec::new();
    let (mut refused, mut fixes) = (Vec::new(), Vec::new());
    for subject in subjects(config)? {
        let plan = subject.known(registry).and_then(|known| {
            let refusal = subject.refusal(registry, &known)?;
            Ok((known, refusal))
        });
        let (known, refusal) = plan.map_err(|error| {
            let fix = cluster::registry_fix(&error);
            anyhow::Error::new(error).context(format!("cannot look up {}: {fix}", subject.name))
        })?;
        if let Some(Refusal { reasons, fix }) = refusal {
            refused.push(format!("{}: {}", subject.name, reasons.join("; ")));
            fixes.push(fix);
        }
        plans.push((subject, known));
    }
    if let Some(fix) = fixes.first() {
        let refused = refused.join("; ");
        anyhow::bail!(
            "nothing was registered, because a schema cannot follow the registered ones: {refused}: {fix}"
        );
    }
    for (subject, known) in plans {
        show(register_subject(registry, subject, known, levels)?);
    }
    Ok(())
}

fn register_subject(
    registry: &dyn SchemaRegistry,
    subject: Subject,
    known: Vec<Option<u32>>,
    levels: SetLevels,
) -> anyhow::Result<Registered> {
    let new = known.iter().filter(|id| id.is_none()).count();
    if new == 0 && levels == SetLevels::WithNewVersions {
        let ids = known.into_iter().flatten().collect();
        return Ok(Registered { subject: subject.name, level: None, ids, new });
    }
    let set_level = || match subject.level {
        Some(level) => registry
            .set_level(&subject.name, level)
            .with_context(|| format!("cannot set the level of {}", subject.name)),
        None => Ok(true),
    };
    let mut has_level = set_level()?;
    let mut ids = Vec::new();
    for (index, (text, known)) in subject.texts.iter().zip(known).enumerate() {
        let id = match known {
            Some(id) => id,
            None => add(registry, &subject, index + 1, text)?,
        };
        ids.push(id);
        if !has_level {
            // Some registries accept a level only for a subject that has a version.
            has_level = set_level()?;
        }
    }
    let level = subject.level.filter(|_| has_level).map(Level::name);
    Ok(Registered { subject: subject.name, level, ids, new })
}

fn add(
    registry: &dyn SchemaRegistry,
    subject: &Subject,
    version: usize,
    text: &str,
) -> anyhow::Result<u32> {
    let name = &subject.name;
    if let Compatibility::Incompatible { reasons } = subject.may_follow(registry, text)? {
        anyhow::bail!(
            "the schema of {name} (version {version}) cannot follow the registered one: {}",
            reasons.join("; ")
        );
    }
    let added = registry.register(name, text);
    added.with_context(|| format!("cannot register version {version} of {name}"))
}
