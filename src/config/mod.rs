//! The TOML file, the environment and the flags: read once, validated once, handed out as each
//! layer's own settings.
//!
//! ```text
//!   defaults ◀─ foretell.toml ◀─ FORETELL_SECTION_KEY ◀─ --set section.key=value     (the last one wins)
//!                      └──────▶ RawConfig ──check──▶ Config
//! ```

mod overrides;
mod raw;
mod secret;
mod warnings;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use raw::{RawBroker, RawConfig, RawRegistry, RawTable};
pub use secret::Secret;

use crate::{
    events::questionnaire::{
        MetadataFields, MomentKind, QuestionnaireSchema, QuestionnaireSchemaError, ReadingRules,
    },
    events::topics::Topics,
    ml::{CalendarFeature, ColumnKind, PipelineSpec, Scaling, SpecError, TimeUnit},
    processors::{
        contract::ContractSettings,
        convert,
        gather::GatherSettings,
        outcome_join::{JoinSettings, UnlabelledPolicy},
    },
};

/// What is wrong with a configuration; each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("cannot read {what} {path}", path = path.display())]
    Unreadable {
        /// What kind of file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The TOML is not TOML, or not ours.
    #[error("{path}: {message}", path = path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's words, one line.
        message: String,
    },
    /// An override that can't be set.
    #[error("{0}")]
    Override(String),
    /// A secret that is none. It is named, and not shown.
    #[error("{path}: {problem}")]
    Secret {
        /// Its section and key.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file of a secret can't be read.
    #[error("cannot read {path} from {from}", from = from.display())]
    SecretFile {
        /// The secret's section and key.
        path: String,
        /// Its file.
        from: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The event schema does not fit.
    #[error("[events] schema {path}", path = path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Why.
        source: QuestionnaireSchemaError,
    },
    /// The features do not fit the schema.
    #[error("[features]")]
    Features(#[from] SpecError),
    /// A value out of bounds.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// A configuration as it is meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// What was written, where nothing had to be worked out.
    pub raw: RawConfig,
    /// The event schema, understood.
    pub event_schema: Arc<QuestionnaireSchema>,
    /// What the topics are called.
    pub topics: Topics,
    /// What is asked, in the order of the schema.
    pub gather: GatherSettings,
    /// How outcomes are joined.
    pub join: JoinSettings,
    /// How features are made.
    pub pipeline: PipelineSpec,
    /// What a model is held to.
    pub contract: ContractSettings,
}

impl Config {
    /// Reads the file at `path`, with the environment and `sets` (each `section.key=value`) over it.
    ///
    /// # Errors
    /// [`ConfigError`], in one line.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let text = read(path, "the configuration")?;
        let toml = |error: toml::de::Error| ConfigError::Toml {
            path: path.to_owned(),
            message: one_line(&error, &text),
        };
        let mut file: toml::Table = text.parse().map_err(toml)?;
        for (key, value) in overrides::from_environment(environment()) {
            overrides::set(&mut file, &key, &value).map_err(ConfigError::Override)?;
        }
        for set in sets {
            let Some((key, value)) = set.split_once('=') else {
                let problem = format!("--set {set}: expected section.key=value");
                return Err(ConfigError::Override(problem));
            };
            overrides::set(&mut file, key.trim(), value.trim()).map_err(ConfigError::Override)?;
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        secret::resolve(&mut file, folder)?;
        let mut raw: RawConfig = toml::Value::Table(file).try_into().map_err(|error| {
            // Overrides included, so there is no place in the file to point at.
            ConfigError::Toml { path: path.to_owned(), message: one_line(&error, "") }
        })?;
        raw.events.schema = folder.join(&raw.events.schema);
        let registry = &mut raw.schema_registry;
        let files = [
            &mut registry.ca_file,
            &mut registry.certificate_file,
            &mut registry.key_file,
            &mut registry.cache_dir,
            &mut raw.broker.token_file,
            &mut raw.streams.state_dir,
        ];
        for file in files.into_iter().flatten() {
            *file = folder.join(&*file);
        }
        let beside_the_stores = raw.streams.state_dir.as_ref().map(|folder| folder.join("schemas"));
        registry.cache_dir = registry.cache_dir.take().or(beside_the_stores);
        for table in [&mut raw.data.initial, &mut raw.data.play].into_iter().flatten() {
            table.path = folder.join(&table.path);
        }
        take_user_from_url(&mut raw.schema_registry)?;
        Self::check(raw)
    }

    fn check(raw: RawConfig) -> Result<Self, ConfigError> {
        check_values(&raw)?;
        let schema_path = &raw.events.schema;
        let text = read(schema_path, "the event schema")?;
        let fields = MetadataFields {
            event_id: raw.events.event_id.clone(),
            respondent_id: raw.events.respondent_id.clone(),
            event_time: raw.events.event_time.clone(),
            completed: raw.events.completed.clone(),
        };
        let event_schema = QuestionnaireSchema::new(&text, &fields, &raw.events.ignored)
            .map_err(|source| ConfigError::Schema { path: schema_path.clone(), source })?;
        let event_schema = event_schema.read_as(&ReadingRules {
            categorical: raw.features.categorical.clone(),
            numeric: raw.features.numeric.clone(),
            missing: raw.events.missing.clone(),
        });
        let questions = event_schema.questions();
        let gather = GatherSettings {
            when: raw.scoring.when,
            retention: raw.scoring.retention,
            questions: questions.into(),
        };
        let pipeline = pipeline_of(&raw, &event_schema)?;
        let written = &raw.features.contract;
        let contract = ContractSettings {
            policy: written.policy,
            mostly_missing: written.mostly_missing,
            window: written.window,
            columns: pipeline.columns().to_vec(),
        };
        let join = JoinSettings {
            window: raw.outcomes.window,
            grace: raw.outcomes.grace,
            conflict: raw.outcomes.conflict,
            learn_from: raw.outcomes.learn_from,
            predictions_max: raw.outcomes.predictions_max,
            unlabelled: raw.outcomes.unlabelled.clone(),
            classes: raw.outcomes.labels.clone(),
        };
        let topics = Topics::with_prefix(&raw.topics.prefix);
        let event_schema = Arc::new(event_schema);
        Ok(Self { raw, event_schema, topics, gather, join, pipeline, contract })
    }

    /// The group, changelog and transaction names all begin with it.
    #[must_use]
    pub fn application(&self) -> String {
        format!("{}{}", self.raw.topics.prefix, self.raw.application.id)
    }

    /// This process's name among those of the application.
    #[must_use]
    pub fn instance(&self) -> String {
        let written = self.raw.application.instance.clone();
        let host = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = written.or_else(host).unwrap_or_default();
        let name = name.trim();
        if name.is_empty() { "instance".to_owned() } else { name.to_owned() }
    }
}

/// The address is printed; what is in front of its `@` must not be.
fn take_user_from_url(registry: &mut RawRegistry) -> Result<(), ConfigError> {
    let Some((url, name, password)) = secret::without_user(&registry.url) else { return Ok(()) };
    registry.url = url;
    if registry.username.is_some() || registry.bearer_token.is_some() {
        return Err(ConfigError::Value {
            key: "[schema_registry] url",
            problem: "it names a user, and so does another key: leave one out".to_owned(),
        });
    }
    registry.username = Some(name);
    registry.password = password.or(registry.password.take());
    Ok(())
}

fn pipeline_of(raw: &RawConfig, schema: &QuestionnaireSchema) -> Result<PipelineSpec, ConfigError> {
    let features = &raw.features;
    for name in features.ignored.iter().chain(&features.categorical).chain(&features.numeric) {
        if !schema.questions().iter().any(|question| &question.name == name) {
            let problem = format!("the event schema has no answer {name:?}");
            return Err(ConfigError::Value { key: "[features]", problem });
        }
    }
    if let Some(name) = features.numeric.iter().find(|name| !schema.may_be_number(name)) {
        let problem = format!("{name:?} can't be a number, as its type in the event schema is");
        return Err(ConfigError::Value { key: "[features] numeric", problem });
    }
    let questions = schema.questions().iter();
    let learned = questions.filter(|question| !features.ignored.contains(&question.name));
    let columns = learned.map(|question| {
        let mut column = convert::column_of(question);
        if features.categorical.contains(&column.name) {
            column.kind = ColumnKind::Categorical;
        } else if features.numeric.contains(&column.name) {
            column.kind = ColumnKind::Numeric;
        }
        column
    });
    let scaling: Scaling = features.scaling;
    let spec = PipelineSpec::new(columns.collect(), scaling, features.crossed.clone())?;
    Ok(spec.with_calendar(calendar_of(raw, schema)?)?)
}

/// The parts of dates and times that are named, as far as the answers have them.
fn calendar_of(
    raw: &RawConfig,
    schema: &QuestionnaireSchema,
) -> Result<Vec<CalendarFeature>, ConfigError> {
    let mut calendar = Vec::new();
    for (name, parts) in &raw.features.calendar {
        let refuse = |problem: &str| {
            let problem = format!("{name:?} {problem}");
            Err(ConfigError::Value { key: "[features] calendar", problem })
        };
        let Some(kind) = schema.moment(name) else {
            return refuse("is no date or time of the event schema");
        };
        let (has_date, has_time) = match kind {
            MomentKind::Date => (true, false),
            MomentKind::Time { .. } => (false, true),
            MomentKind::Timestamp { .. } => (true, true),
        };
        let unit = match kind {
            MomentKind::Date => TimeUnit::Days,
            MomentKind::Time { per_second } | MomentKind::Timestamp { per_second } => {
                TimeUnit::PartsOfSecond(u32::try_from(per_second).unwrap_or(u32::MAX))
            }
        };
        for part in parts {
            if !(if part.is_of_day() { has_time } else { has_date }) {
                return refuse(&format!("has no {}", part.name()));
            }
            calendar.push(CalendarFeature { column: name.clone(), part: *part, unit });
        }
    }
    Ok(calendar)
}

fn check_http(http: &raw::RawHttp) -> Result<(), ConfigError> {
    let refuse = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
    if http.read_timeout.is_zero() {
        return refuse("[http] read_timeout", "it must be longer than 0 s, such as \"10s\"");
    }
    if http.connections_max == 0 {
        return refuse("[http] connections_max", "there must be at least 1");
    }
    Ok(())
}

fn check_values(raw: &RawConfig) -> Result<(), ConfigError> {
    let refuse = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
    let labels = &raw.outcomes.labels;
    if labels.len() < 2 {
        return refuse("[outcomes] labels", "name at least two, such as [\"no\", \"yes\"]");
    }
    if (1..labels.len()).any(|index| labels[..index].contains(&labels[index])) {
        return refuse("[outcomes] labels", "one is there twice");
    }
    if let UnlabelledPolicy::Label(label) = &raw.outcomes.unlabelled
        && !labels.contains(label)
    {
        return refuse("[outcomes] unlabelled", "it is not one of labels");
    }
    if raw.outcomes.window.is_zero() {
        return refuse("[outcomes] window", "it must be longer than 0 s");
    }
    if raw.outcomes.predictions_max == 0 {
        return refuse("[outcomes] predictions_max", "there must be at least 1");
    }
    if raw.topics.partitions == 0 {
        return refuse("[topics] partitions", "there must be at least 1");
    }
    if raw.streams.threads == 0 {
        return refuse("[streams] threads", "there must be at least 1");
    }
    if raw.streams.standby && raw.streams.state_dir.is_none() {
        return refuse("[streams] standby", "warm copies are on disk: set [streams] state_dir");
    }
    if raw.streams.commit_interval.is_zero() {
        return refuse(
            "[streams] commit_interval",
            "it must be longer than 0 s, such as \"100ms\"",
        );
    }
    if raw.learning.retrain_after == 0 {
        return refuse("[learning] retrain_after", "it must be at least 1");
    }
    let registry = &raw.schema_registry;
    if registry.username.is_some() && registry.bearer_token.is_some() {
        return refuse("[schema_registry]", "it has both username and bearer_token: leave one out");
    }
    if registry.certificate_file.is_some() != registry.key_file.is_some() {
        return refuse(
            "[schema_registry]",
            "certificate_file and key_file go together: name both, or none",
        );
    }
    check_http(&raw.http)?;
    let contract = &raw.features.contract;
    if !(0.0..=1.0).contains(&contract.mostly_missing) || contract.mostly_missing == 0.0 {
        return refuse(
            "[features.contract] mostly_missing",
            "a share above 0 and up to 1, such as 0.9",
        );
    }
    if contract.window == 0 {
        return refuse("[features.contract] window", "there must be at least 1 observation in it");
    }
    if raw.tuning.folds < 2 {
        return refuse("[tuning] folds", "cross-validation needs at least 2");
    }
    let id = &raw.application.id;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if id.is_empty() || !id.chars().all(is_plain) || !raw.topics.prefix.chars().all(is_plain) {
        return refuse(
            "[application] id, [topics] prefix",
            "topics are named after them: letters, digits, '.', '_' and '-' only",
        );
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, _)| {
        let name = name.into_string().ok()?;
        let value = std::env::var(&name).ok()?;
        Some((name, value))
    })
}

fn read(path: &Path, what: &'static str) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

fn one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim().replace('\n', "; ");
    match error.span().filter(|_| !text.is_empty()) {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}
