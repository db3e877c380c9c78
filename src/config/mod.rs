//! Reads the TOML file, the environment and the flags, checks the values, and returns the settings of each layer.
//!
//! ```text
//!   defaults ◀─ foretell.toml ◀─ FORETELL_SECTION_KEY ◀─ --set section.key=value     (the last one counts)
//!                      └──▶ Document ──▶ RawConfig ──check──▶ Config
//!                               └──────▶ Sources ─────────────┘
//! ```
//!
//! The source of each value is kept, and every error names it. `RawConfig` is the configuration as written, and stays in this
//! module.

mod check;
mod companions;
mod delivery;
mod document;
mod error;
mod features;
mod job;
mod keys;
mod lazy_secret;
mod overrides;
mod portable;
mod raw;
mod raw_actions;
mod raw_companions;
mod raw_delivery;
mod raw_learning;
mod raw_mlflow;
mod raw_quality;
mod raw_serving;
mod raw_sessions;
mod raw_tuning;
mod secret;
mod source;
mod text;
mod variants;
mod warnings;
mod wording;

use std::{ffi::OsString, fs, path::Path, sync::Arc, time::Duration};

pub use delivery::{
    ChannelSettings, DeliverySettings, EmailSettings, QuietHours, Rate, SmtpServer, WebhookSettings,
};
pub use error::ConfigError;
pub use lazy_secret::LazySecret;
pub use portable::{CONFIGURATION, SCHEMA_FILE, written_with};
pub use raw::{
    BrokerSettings, EventSettings, HttpSettings, RegistrySettings, StreamsSettings, TlsSettings,
};
use raw::{RawConfig, RawContract};
pub use raw_companions::CompanionSettings;
pub use raw_delivery::SmtpTls;
pub use raw_learning::{DataSettings, LearningSettings, TableSettings};
pub use raw_mlflow::{MlflowCredentials, MlflowSettings};
pub use raw_serving::ServingSettings;
pub use secret::Secret;
pub use source::{Source, Sources};
pub use variants::Variant;

use crate::{
    config::{document::Document, keys::Keys, overrides::Override},
    events::questionnaire::{EventSchemas, QuestionnaireSchema},
    events::topics::Topics,
    processors::{
        actions::{ActionSettings, Variables},
        contract::ContractSettings,
        event_time::TimeBounds,
        gather::GatherSettings,
        outcome_join::JoinSettings,
        quality::QualitySettings,
    },
};
use foretell_ml::{PipelineSpec, training::TuningSettings};

/// A checked configuration, as the settings of each part of the program.
#[derive(Clone, Debug)]
pub struct Config {
    application: String,
    instance: String,
    /// The prefix of all names of topics, groups, transactions and changelogs.
    pub topic_prefix: String,
    /// The names of the topics.
    pub topics: Topics,
    /// Partitions of the topics that are keyed by respondent.
    pub partitions: u32,
    /// The parsed event schema, with the questions of all sources of events.
    pub event_schema: Arc<QuestionnaireSchema>,
    /// The parsed event schemas of all sources, in the order of their topics: `event_schema` first.
    pub event_schemas: EventSchemas,
    /// The place where each value was written.
    pub sources: Sources,
    /// The `[broker]` section.
    pub broker: BrokerSettings,
    /// The `[schema_registry]` section.
    pub schema_registry: RegistrySettings,
    /// The `[streams]` section.
    pub streams: StreamsSettings,
    /// The `[events]` section.
    pub events: EventSettings,
    /// The questions in the order of the event schema, and when an observation is scored.
    pub gather: GatherSettings,
    /// The classes, in the order of `[outcomes] labels`.
    pub classes: Vec<String>,
    /// The settings of the outcome join.
    pub join: JoinSettings,
    /// The rules of actions.
    pub actions: ActionSettings,
    /// The feature pipeline before it is fitted.
    pub pipeline: PipelineSpec,
    /// The feature contract.
    pub contract: ContractSettings,
    /// The `[learning]` section.
    pub learning: LearningSettings,
    /// The tuning of the first model.
    pub tuning: Tuning,
    /// Drift and live quality.
    pub quality: QualitySettings,
    /// The `[data]` section.
    pub data: DataSettings,
    /// The `[delivery]` section.
    pub delivery: DeliverySettings,
    /// The `[mlflow]` section; none if nothing is tracked.
    pub mlflow: Option<MlflowSettings>,
    /// The `[http]` section.
    pub http: HttpSettings,
    /// The `[serving]` section.
    pub serving: ServingSettings,
    /// The sections that scoring depends on, as written.
    portable: toml::Table,
}

/// A value that a training job sets.
#[derive(Clone, Debug)]
pub struct JobValue {
    /// Where the job has it, for messages.
    pub place: String,
    /// As `section.key`.
    pub key: String,
    pub value: String,
}

/// The tuning of the first model.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The study.
    pub study: TuningSettings,
    /// The time after which the study ends.
    pub time: Duration,
}

impl Config {
    /// Reads the file at `path`. Variables of the environment override it, and `sets` (each `section.key=value`) override both.
    ///
    /// # Errors
    /// [`ConfigError`], whose message is one line.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        Self::load_with(path, &[], sets, &[])
    }

    /// As [`Self::load`]. The values of a training job override the environment, and the flags override them.
    ///
    /// # Errors
    /// [`ConfigError`], which names the place of the value. A key that a job does not read is one, too.
    pub fn load_job(path: &Path, job: &[JobValue], sets: &[String]) -> Result<Self, ConfigError> {
        let keys = Keys::of_configuration();
        let given = job::overrides(job, &keys)?;
        job::check(&overrides::from_flags(sets, &keys)?, &keys)?;
        Self::load_with(path, &given, sets, &[])
    }

    /// As [`Self::load`]; `job` overrides the environment, and `last` overrides the flags.
    fn load_with(
        path: &Path,
        job: &[Override],
        sets: &[String],
        last: &[Override],
    ) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            what: "the configuration",
            path: path.to_owned(),
            source,
        })?;
        let keys = Keys::of_configuration();
        let variables = overrides::from_environment(environment(), &keys)?;
        let flags = overrides::from_flags(sets, &keys)?;
        let mut document = Document::parse(path, &text)?;
        for over in variables.iter().chain(job).chain(&flags).chain(last) {
            document.set(&over.key, &over.value, over.source.clone())?;
        }
        document.check_keys(&keys)?;
        let sources = document.sources();
        let folder = path.parent().unwrap_or(Path::new("."));
        let portable = portable::sections_of(&document)?;
        secret::resolve(document.root_mut(), folder, &sources)?;
        let mut raw: RawConfig = document.read()?;
        raw.events.schema = folder.join(&raw.events.schema);
        for companion in &mut raw.events.companions {
            companion.schema = folder.join(&companion.schema);
        }
        let registry = &mut raw.schema_registry;
        let files = [
            &mut registry.ca_file,
            &mut registry.certificate_file,
            &mut registry.key_file,
            &mut registry.cache_dir,
            &mut raw.broker.token_file,
            &mut raw.streams.state_dir,
            &mut raw.mlflow.ca_file,
        ];
        raw.delivery.locate_secrets(folder);
        let delivery = &mut raw.delivery;
        let webhooks = delivery.webhooks.iter_mut().map(|webhook| &mut webhook.ca_file);
        let emails = delivery.emails.iter_mut().map(|email| &mut email.ca_file);
        for file in
            raw.http.tls.iter_mut().flat_map(|tls| [&mut tls.certificate_file, &mut tls.key_file])
        {
            *file = folder.join(&*file);
        }
        for file in files.into_iter().chain(webhooks).chain(emails).flatten() {
            *file = folder.join(&*file);
        }
        let default_cache = raw.streams.state_dir.as_ref().map(|folder| folder.join("schemas"));
        registry.cache_dir = registry.cache_dir.take().or(default_cache);
        for table in [&mut raw.data.initial, &mut raw.data.play].into_iter().flatten() {
            table.path = folder.join(&table.path);
        }
        move_user_from_url(&mut raw.schema_registry, &sources)?;
        Self::check(raw, sources, portable)
    }

    fn check(raw: RawConfig, sources: Sources, portable: toml::Table) -> Result<Self, ConfigError> {
        check::values(&raw, &sources)?;
        let event_schemas = companions::event_schemas(&raw, &sources)?;
        let event_schema = Arc::clone(event_schemas.lead());
        let questions = event_schema.questions();
        check::score_when(raw.scoring.when, questions.len(), &sources)?;
        let rules: Vec<&str> = raw.actions.iter().map(|rule| rule.name.as_str()).collect();
        let delivery = raw.delivery.clone().settings(&event_schema, &rules, &sources)?;
        let gather = GatherSettings {
            when: raw.scoring.when,
            at_session_end: raw.scoring.at_session_end,
            sessions: raw.sessions.rules(raw.scoring.retention),
            questions: questions.into(),
            layout: event_schema.layout().clone(),
        };
        let pipeline = features::pipeline_of(&raw, &sources, &event_schema)?;
        let RawContract { policy, mostly_missing, window } = raw.features.contract;
        let contract = ContractSettings {
            policy,
            mostly_missing,
            window,
            columns: pipeline.columns().to_vec(),
        };
        let join = raw.outcomes.settings();
        let variables = Variables::new(&event_schema, &raw.outcomes.labels);
        let actions = raw_actions::settings(&raw.actions, variables, &sources)?;
        let quality = raw.quality.settings(join.labels_within());
        let tuning = Tuning { study: raw.tuning.study(), time: raw.tuning.time };
        let learning = raw.learning.settings(&raw.tuning).map_err(|(key, problem)| {
            error::refused(&sources, &format!("learning.{key}"), &problem)
        })?;
        let application = format!("{}{}", raw.topics.prefix, raw.application.id);
        let mlflow = raw.mlflow.settings(&application, &sources)?;
        Ok(Self {
            application,
            instance: instance_name(raw.application.instance),
            topics: Topics::with_prefix(&raw.topics.prefix)
                .with_companions(&raw.topics.prefix, event_schemas.companions()),
            topic_prefix: raw.topics.prefix,
            partitions: raw.topics.partitions,
            event_schema,
            event_schemas,
            sources,
            broker: raw.broker,
            schema_registry: raw.schema_registry,
            streams: raw.streams,
            events: raw.events,
            gather,
            classes: raw.outcomes.labels,
            join,
            actions,
            pipeline,
            contract,
            learning,
            tuning,
            quality,
            data: raw.data,
            delivery,
            mlflow,
            http: raw.http,
            serving: raw.serving,
            portable,
        })
    }

    /// The bounds of event times, for the topology and for HTTP.
    #[must_use]
    pub fn time_bounds(&self) -> TimeBounds {
        TimeBounds {
            ahead_max: self.events.time_ahead_max,
            behind_max: self.events.time_behind_max,
            clock_tolerance: self.streams.clock_tolerance,
        }
    }

    /// The application's name. The names of its groups, changelogs and transactions begin with it.
    #[must_use]
    pub fn application(&self) -> String {
        self.application.clone()
    }

    /// The name of this process among those of the application.
    #[must_use]
    pub fn instance(&self) -> String {
        self.instance.clone()
    }
}

/// The configured name of the process, or else the name of the host.
fn instance_name(configured: Option<String>) -> String {
    let host = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = configured.or_else(host).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "instance".to_owned() } else { name.to_owned() }
}

/// Moves the user and the password from the registry's address, which is printed, to the keys for them.
fn move_user_from_url(
    registry: &mut RegistrySettings,
    sources: &Sources,
) -> Result<(), ConfigError> {
    let Some((url, name, password)) = secret::without_user(&registry.url) else { return Ok(()) };
    registry.url = url;
    if registry.username.is_some() || registry.bearer_token.is_some() {
        let problem = "it has a user, and so has another key: remove one";
        return Err(error::refused(sources, "schema_registry.url", problem));
    }
    registry.username = Some(name);
    // As in HTTP, a user in an address without a password has an empty one.
    let empty = || Some(Secret::new(""));
    registry.password = password.or(registry.password.take()).or_else(empty);
    Ok(())
}

/// Every key (`section.key`), without the sections themselves.
#[cfg(test)]
pub(crate) fn key_names() -> Vec<String> {
    let keys = Keys::of_configuration();
    let keys = keys.iter().filter(|(_, kind)| *kind != keys::Kind::Section);
    keys.map(|(key, _)| key.to_owned()).collect()
}

/// Every key with its value in the configuration `written`, defaults included.
#[cfg(test)]
pub(crate) fn values_of(written: toml::Value) -> Result<serde_json::Value, toml::de::Error> {
    let raw: RawConfig = written.try_into()?;
    Ok(serde_json::to_value(&raw).expect("a configuration has no map with other keys than text"))
}

/// The one place that reads the environment.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}
