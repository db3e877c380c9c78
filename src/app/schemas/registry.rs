//! The schemas of the configuration and the registry: the check before a deployment, and registration, which happens
//! only in `foretell init` and `foretell schema register`.

use std::{borrow::Cow, path::Path};

use anyhow::Context;

use crate::{
    app::{
        check_result::CheckResult,
        cluster,
        schemas::history::{History, parse},
    },
    config::Config,
    events::topics::subject,
};
use foretell_avro::{
    evolution::{Level, Schema},
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

/// The newest event schema of the registry, and the event schema of the configuration.
///
/// # Errors
/// If the registry has no event schema, or does not answer.
pub fn registered_and_configured(config: &Config) -> anyhow::Result<(Schema, Schema)> {
    let registry = cluster::registry_client(config)?;
    let subject = subject(&config.topics.questionnaire_events);
    let latest = registry.latest(&subject)?;
    let (_, latest) = latest.with_context(|| {
        format!("the registry has no subject {subject} yet: run `foretell schema register`")
    })?;
    Ok((parse(&latest)?, parse(config.event_schema.text())?))
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
}

/// The history of the event schema, if `events.schema` is a version in the folder of a subject.
fn event_history(config: &Config) -> anyhow::Result<Option<History>> {
    let path = &config.events.schema;
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.join("subject.toml").exists() {
        return Ok(None);
    }
    Ok(Some(History::read(folder)?))
}

fn subjects(config: &Config) -> anyhow::Result<Vec<Subject>> {
    let history = event_history(config)?;
    let events = &config.topics.questionnaire_events;
    let subject_of = |(topic, text): (&Topic, Cow<'_, str>)| {
        let name = subject(topic);
        match history.as_ref().filter(|_| topic == events) {
            Some(history) => {
                // Up to the version in use, which need not be the newest.
                let texts = history.versions.iter().map(|version| version.text.clone());
                let mut texts: Vec<String> = texts.collect();
                if let Some(index) = texts.iter().position(|version| *version == text) {
                    texts.truncate(index + 1);
                }
                Subject { name, level: Some(history.level), texts }
            }
            None => {
                let level = (topic != events).then_some(OWN_LEVEL);
                Subject { name, level, texts: vec![text.into_owned()] }
            }
        }
    };
    let in_use = config.topics.schemas(&config.event_schema);
    Ok(in_use.into_iter().map(subject_of).collect())
}

/// Checks the folder of the event schema, and whether the registry would accept all schemas of the configuration. It
/// changes nothing. `show` gets each result.
///
/// # Errors
/// If the folder of the event schema cannot be read.
pub fn check_registry(config: &Config, show: &mut dyn FnMut(CheckResult)) -> anyhow::Result<()> {
    let registry = cluster::registry_client(config)?;
    if let Some(history) = event_history(config)? {
        history.check().into_iter().for_each(&mut *show);
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
    Ok(match subject.may_follow(registry, local)? {
        Compatibility::Compatible => CheckResult::warning(
            name,
            format!("the local schema is not registered; it may follow the newest (id {latest})"),
            "run `foretell schema register`",
        ),
        Compatibility::Incompatible { reasons } => CheckResult::failed(
            name,
            format!(
                "the local schema may not follow the newest (id {latest}): {}",
                reasons.join("; ")
            ),
            "see what the change means (`foretell schema diff`), and make it in a compatible way",
        ),
    })
}

/// Registers the schemas of the configuration, and marks the versions in the folder of the event schema as released.
///
/// # Errors
/// As [`register_with`]; or if a check of the files fails.
pub fn register(config: &Config, show: &mut dyn FnMut(Registered)) -> anyhow::Result<()> {
    let mut history = event_history(config)?;
    let failed = history.iter().flat_map(History::check).find(|result| result.fix.is_some());
    if let Some(failed) = failed {
        anyhow::bail!("nothing was registered: {failed}");
    }
    register_with(config, &cluster::registry_client(config)?, SetLevels::Always, show)?;
    if let Some(history) = &mut history
        && history.newest().text == config.event_schema.text()
    {
        history.release()?;
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
/// If the registry refuses one, with the reason. Those after it are not registered.
pub fn register_with(
    config: &Config,
    registry: &dyn SchemaRegistry,
    levels: SetLevels,
    show: &mut dyn FnMut(Registered),
) -> anyhow::Result<()> {
    for subject in subjects(config)? {
        let known = subject.texts.iter().map(|text| registry.id_of(&subject.name, text));
        let known: Result<Vec<Option<u32>>, RegistryError> = known.collect();
        let known = known.map_err(|error| {
            let fix = cluster::registry_fix(&error);
            anyhow::Error::new(error).context(format!("cannot look up {}: {fix}", subject.name))
        })?;
        let new = known.iter().filter(|id| id.is_none()).count();
        if new == 0 && levels == SetLevels::WithNewVersions {
            let ids = known.into_iter().flatten().collect();
            show(Registered { subject: subject.name, level: None, ids, new });
            continue;
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
        show(Registered { subject: subject.name, level, ids, new });
    }
    Ok(())
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
