//! The registry, and whether it agrees: before a deployment, and when schemas are registered, which is done on
//! purpose only.

use std::path::Path;

use anyhow::Context;

use crate::{
    app::{
        check_result::CheckResult,
        cluster,
        schemas::history::{History, parse},
    },
    config::Config,
    events::{
        labelled_example::LabelledExample, model::Model, outcome::Outcome, prediction::Prediction,
        topics::subject, trial::Trial,
    },
};
use foretell_avro::{
    codec::AvroRecord as _,
    evolution::{Level, Schema},
    registry::{Compatibility, RegistryError, SchemaRegistry},
};
use foretell_streams::record::Topic;

/// Our own records are read by instances of earlier and of later releases.
const OUR_LEVEL: Level = Level::FullTransitive;

/// What became of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub subject: String,
    /// The level that was set; none if none was.
    pub level: Option<&'static str>,
    /// The ids of its versions, oldest first.
    pub ids: Vec<u32>,
    /// How many of them are new.
    pub new: usize,
}

/// The registry's newest event schema, and the configuration's.
///
/// # Errors
/// If the registry has none, or does not answer.
pub fn registered_and_configured(config: &Config) -> anyhow::Result<(Schema, Schema)> {
    let registry = cluster::registry_client(config)?;
    let subject = subject(&config.topics.questionnaire_events);
    let latest = registry.latest(&subject)?;
    let (_, latest) = latest.with_context(|| {
        format!("the registry has no subject {subject} yet: run `foretell schema register`")
    })?;
    Ok((parse(&latest)?, parse(config.event_schema.text())?))
}

/// The schema of every topic that has one.
#[must_use]
pub fn in_use(config: &Config) -> [(&Topic, &str); 6] {
    let topics = &config.topics;
    [
        (&topics.questionnaire_events, config.event_schema.text()),
        (&topics.outcomes, Outcome::SCHEMA),
        (&topics.predictions, Prediction::SCHEMA),
        (&topics.labelled_examples, LabelledExample::SCHEMA),
        (&topics.models, Model::SCHEMA),
        (&topics.trials, Trial::SCHEMA),
    ]
}

/// The schemas of one subject that are ours to bring.
struct Subject {
    name: String,
    /// None: whatever the registry's is.
    level: Option<Level>,
    /// Oldest first.
    texts: Vec<String>,
}

impl Subject {
    /// Whether `text` may follow what is registered. Where new schemas need not read old records, only the registry
    /// can say, when it is asked to take it.
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

/// The history of the event schema, if the configuration names a version in a subject's folder.
fn event_history(config: &Config) -> anyhow::Result<Option<History>> {
    let path = &config.raw.events.schema;
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.join("subject.toml").exists() {
        return Ok(None);
    }
    Ok(Some(History::read(folder)?))
}

fn subjects(config: &Config) -> anyhow::Result<Vec<Subject>> {
    let history = event_history(config)?;
    let events = &config.topics.questionnaire_events;
    let subject_of = |(topic, text): (&Topic, &str)| {
        let name = subject(topic);
        match history.as_ref().filter(|_| topic == events) {
            Some(history) => {
                // Up to the one in use: it need not be the newest.
                let texts = history.versions.iter().map(|version| version.text.clone());
                let mut texts: Vec<String> = texts.collect();
                if let Some(place) = texts.iter().position(|version| version == text) {
                    texts.truncate(place + 1);
                }
                Subject { name, level: Some(history.level), texts }
            }
            None => {
                let level = (topic != events).then_some(OUR_LEVEL);
                Subject { name, level, texts: vec![text.to_owned()] }
            }
        }
    };
    Ok(in_use(config).into_iter().map(subject_of).collect())
}

/// Whether the registry would take the configuration's schemas, and the files keep their promises. Changes nothing.
///
/// # Errors
/// If the event schema's folder can't be read.
pub fn check_registry(config: &Config, tell: &mut dyn FnMut(CheckResult)) -> anyhow::Result<()> {
    let registry = cluster::registry_client(config)?;
    if let Some(history) = event_history(config)? {
        history.check().into_iter().for_each(&mut *tell);
    }
    for subject in subjects(config)? {
        tell(judge(&registry, &subject).unwrap_or_else(|error| {
            CheckResult::failed(
                format!("registry {}", subject.name),
                error.to_string(),
                cluster::registry_fix(&error),
            )
        }));
    }
    Ok(())
}

fn judge(registry: &dyn SchemaRegistry, subject: &Subject) -> Result<CheckResult, RegistryError> {
    let name = format!("registry {}", subject.name);
    let newest = subject.texts.last().expect("a subject has a version");
    let Some((latest, _)) = registry.latest(&subject.name)? else {
        let detail = "not there yet: all versions would be registered";
        return Ok(CheckResult::warning(name, detail, "run `foretell schema register`"));
    };
    if let Some(id) = registry.id_of(&subject.name, newest)? {
        let newer = if id == latest { "the newest there" } else { "an older one there" };
        return Ok(CheckResult::ok(name, format!("ours is {newer} (id {id})")));
    }
    Ok(match subject.may_follow(registry, newest)? {
        Compatibility::Compatible => CheckResult::warning(
            name,
            format!("ours may follow the newest there (id {latest}), and is not registered"),
            "run `foretell schema register`",
        ),
        Compatibility::Incompatible { reasons } => CheckResult::failed(
            name,
            format!("ours may not follow the newest there (id {latest}): {}", reasons.join("; ")),
            "see what the change means (`foretell schema diff`), and make it another way",
        ),
    })
}

/// Registers the configuration's schemas, and notes in the event schema's folder that its versions are released.
///
/// # Errors
/// As [`register_with`]; or if the files do not keep their promises.
pub fn register(config: &Config, tell: &mut dyn FnMut(Registered)) -> anyhow::Result<()> {
    let mut history = event_history(config)?;
    let failed = history.iter().flat_map(History::check).find(|finding| finding.fix.is_some());
    if let Some(finding) = failed {
        anyhow::bail!("nothing was registered: {finding}");
    }
    register_with(config, &cluster::registry_client(config)?, SetLevels::Always, tell)?;
    if let Some(history) = &mut history
        && history.newest().text == config.event_schema.text()
    {
        history.release()?;
    }
    Ok(())
}

/// When a subject's level is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetLevels {
    /// Whenever somebody asks for it.
    Always,
    /// Only where there is something to add: where others look after the registry, we may have no right to.
    WithNewVersions,
}

/// Registers the configuration's schemas, every version in its order, each subject with its level. What is there
/// already stays as it is.
///
/// # Errors
/// At the first that is refused; the line says which and why.
pub fn register_with(
    config: &Config,
    registry: &dyn SchemaRegistry,
    levels: SetLevels,
    tell: &mut dyn FnMut(Registered),
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
            tell(Registered { subject: subject.name, level: None, ids, new });
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
                // There are registries in which a subject has a rule only once it has a version.
                has_level = set_level()?;
            }
        }
        let level = subject.level.filter(|_| has_level).map(Level::name);
        tell(Registered { subject: subject.name, level, ids, new });
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
