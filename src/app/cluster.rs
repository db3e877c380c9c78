//! Connects to the configured broker and schema registry, or creates those in this process; opens codecs and reads topics.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    config::{Config, Secret},
    events::{
        codecs::{self, Codecs, Schemas, TopicValue},
        questionnaire::{QuestionnaireCodec, QuestionnaireEvent},
        topics::Topics,
    },
    processors::dead_letters::DeadLetters,
};
use foretell_avro::{
    access::{Credentials, RegistryClientConfig, RegistryTls},
    caching::CachingRegistry,
    client::RegistryClient,
    json::to_json,
    local::LocalRegistry,
    registry::{RegistryError, SchemaRegistry},
    retrying::RetryingRegistry,
};
use foretell_kafka::{KafkaBroker, KafkaConfig};
use foretell_streams::{
    codec::{Codec, CodecError},
    local::LocalBroker,
    record::{InputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{Broker, ReadFrom, ReadTo},
    time::Clock,
};

/// A broker and a schema registry.
#[derive(Clone)]
pub struct Cluster {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The registry.
    pub registry: Arc<dyn SchemaRegistry>,
    /// Whether the data outlive this process.
    pub is_lasting: bool,
}

/// The time that one read of a topic may wait for records.
const READ_WAIT: Duration = Duration::from_millis(200);

impl Cluster {
    /// Connects to the configured broker and registry.
    ///
    /// # Errors
    /// If one does not answer; the message says which, and what to set. A registry need not answer if its schemas are
    /// cached on disk.
    pub fn connect(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let source = || config.sources.of("broker.bootstrap_servers");
        let broker = KafkaBroker::connect(&kafka_config(config)).with_context(source)?;
        let registry = connect_registry(config, clock)?;
        Ok(Self { broker: Arc::new(broker), registry, is_lasting: true })
    }

    /// Creates a broker and a registry in this process; their data end with it.
    #[must_use]
    pub fn embedded(clock: &Arc<dyn Clock>) -> Self {
        let broker = LocalBroker::new(Arc::clone(clock));
        let registry = Arc::new(LocalRegistry::new());
        Self { broker: Arc::new(broker), registry, is_lasting: false }
    }

    /// Opens the codecs of the topics.
    ///
    /// # Errors
    /// If a schema is not registered; the message says what to run.
    pub fn codecs(&self, config: &Config) -> anyhow::Result<Codecs> {
        Ok(Codecs::open(&self.registry, &config.topics, &config.event_schemas)?)
    }

    /// Opens codecs for made-up events, which fill the ignored fields that have no default, in the order of the topics of events.
    ///
    /// # Errors
    /// If a schema is not registered.
    pub fn sample_codecs(
        &self,
        config: &Config,
    ) -> anyhow::Result<Vec<Arc<dyn Codec<QuestionnaireEvent>>>> {
        let codecs = codecs::event_codecs(&self.registry, &config.topics, &config.event_schemas)?;
        let writing = |codec: QuestionnaireCodec| {
            Arc::new(codec.writing_samples()) as Arc<dyn Codec<QuestionnaireEvent>>
        };
        Ok(codecs.into_iter().map(writing).collect())
    }

    /// Opens the codec of a topic with values of type `T`.
    ///
    /// # Errors
    /// If its schema is not registered.
    pub fn codec<T: TopicValue>(
        &self,
        config: &Config,
        topic: &Topic,
    ) -> anyhow::Result<Arc<dyn Codec<T>>> {
        let schemas = Schemas { registry: &self.registry, events: &config.event_schema };
        Ok(T::codec(schemas, topic)?)
    }

    /// The dead letters of the application.
    #[must_use]
    pub fn dead_letters(&self, config: &Config, clock: &Arc<dyn Clock>) -> DeadLetters {
        let registry = Arc::clone(&self.registry);
        DeadLetters {
            broker: Arc::clone(&self.broker),
            topic: config.topics.dead_letters.clone(),
            application: config.application(),
            clock: Arc::clone(clock),
            decode: Arc::new(move |value| {
                to_json(registry.as_ref(), value).map_err(|error| error.to_string())
            }),
        }
    }

    /// Passes every record of a topic to `visit`, partition by partition, until `visit` breaks or every partition is read
    /// to its end.
    ///
    /// # Errors
    /// If the topic cannot be read, or `visit` fails.
    pub fn read_to_end(
        &self,
        topic: &Topic,
        mut visit: impl FnMut(&InputRecord) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let partitions = self.broker.partitions(topic)?;
        let partitions = partitions.with_context(|| format!("topic {topic} does not exist"))?;
        for number in 0..partitions {
            let partition = Partition(i32::try_from(number)?);
            let source = TopicPartition { topic: topic.clone(), partition };
            let mut reader = self.broker.read(&source, ReadFrom::Beginning)?;
            let mut read_to = ReadTo::More;
            while read_to == ReadTo::More {
                let mut records = Vec::new();
                read_to = reader.read(READ_WAIT, &mut records)?;
                for record in &records {
                    if visit(record)?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Like [`Self::read_to_end`], with decoded values. Records that cannot be decoded are skipped, because other clients may
    /// have written them and they cannot be removed. Returns the number of skipped records.
    ///
    /// # Errors
    /// See [`Self::read_to_end`]; also if the schema of a value is not available now.
    pub fn read_values<T: TopicValue>(
        &self,
        config: &Config,
        topic: &Topic,
        mut visit: impl FnMut(T) -> ControlFlow<()>,
    ) -> anyhow::Result<u64> {
        self.read_records(config, topic, |_, value| visit(value))
    }

    /// Like [`Self::read_values`]; `visit` also gets the record.
    ///
    /// # Errors
    /// See [`Self::read_values`].
    pub fn read_records<T: TopicValue>(
        &self,
        config: &Config,
        topic: &Topic,
        mut visit: impl FnMut(&InputRecord, T) -> ControlFlow<()>,
    ) -> anyhow::Result<u64> {
        let codec = self.codec::<T>(config, topic)?;
        let mut skipped = 0;
        self.read_to_end(topic, |record| {
            let Some(bytes) = &record.value else { return Ok(ControlFlow::Continue(())) };
            match codec.decode(bytes) {
                Ok(value) => Ok(visit(record, value)),
                Err(CodecError::Unreadable { class, message, .. }) => {
                    skipped += 1;
                    let (source, offset) = (&record.source, record.offset);
                    tracing::warn!(%source, %offset, class, message, "skipping a record that cannot be decoded");
                    Ok(ControlFlow::Continue(()))
                }
                Err(error @ (CodecError::OtherFormat { .. } | CodecError::Unavailable { .. })) => {
                    Err(error.into())
                }
            }
        })?;
        Ok(skipped)
    }

    /// Checks that every topic exists with the configured number of partitions.
    ///
    /// # Errors
    /// At the first topic that is missing or has other partitions.
    pub fn check_topics(&self, topics: &Topics, partitions: u32) -> anyhow::Result<()> {
        for spec in topics.specs(partitions) {
            match self.broker.partitions(&spec.name)? {
                None => {
                    anyhow::bail!("topic {} does not exist: run `foretell init` first", spec.name)
                }
                Some(found) if found != spec.partitions => anyhow::bail!(
                    "topic {} has {found} partitions, the configuration says {}: \
                     set [topics] partitions, or recreate the topic",
                    spec.name,
                    spec.partitions,
                ),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Connects to the configured registry. Cached schemas stand in for it while it does not answer.
fn connect_registry(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn SchemaRegistry>> {
    let settings = &config.schema_registry;
    let url = &settings.url;
    let client = Arc::new(registry_client(config)?);
    let registry: Arc<dyn SchemaRegistry> = Arc::<RegistryClient>::clone(&client);
    let folder = settings.cache_dir.as_deref();
    let caching = CachingRegistry::open(registry, url, folder, Arc::clone(clock));
    let kept = caching.cached_files();
    match caching.latest("foretell") {
        Ok(_) => {}
        Err(RegistryError::Unavailable(reason)) if kept > 0 => {
            tracing::warn!(
                url,
                reason,
                kept,
                "the schema registry does not answer: using cached schemas"
            );
        }
        Err(error) => {
            let why = match error {
                RegistryError::Unavailable(_) => format!("no schema registry answers at {url}"),
                RegistryError::Denied(_) => {
                    format!("the schema registry at {url} rejected the credentials")
                }
                RegistryError::NotFound(_)
                | RegistryError::Incompatible(_)
                | RegistryError::Refused(_) => {
                    format!("the server at {url} is not a schema registry")
                }
            };
            let fix = registry_fix(&error);
            // The converter does not say why the registry could not be reached; the client's own request does.
            let error = match (error, client.mode()) {
                (RegistryError::Unavailable(_), Err(cause)) => cause,
                (error, _) => error,
            };
            let source = config.sources.of("schema_registry.url");
            return Err(anyhow::Error::new(error).context(format!("{source}: {why}: {fix}")));
        }
    }
    let retrying =
        RetryingRegistry::new(Arc::new(caching), settings.unknown_id_wait, Arc::clone(clock));
    Ok(Arc::new(retrying))
}

/// The client settings for the configured broker.
#[must_use]
pub fn kafka_config(config: &Config) -> KafkaConfig {
    let settings = &config.broker;
    let properties = settings.properties.iter();
    KafkaConfig {
        bootstrap_servers: settings.bootstrap_servers.clone(),
        client_id: format!("foretell-{}", config.instance()),
        session_timeout: settings.session_timeout,
        transaction_timeout: settings.transaction_timeout,
        token_file: settings.token_file.clone(),
        properties: properties
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect(),
        ..KafkaConfig::default()
    }
}

/// The advice for an error of the registry.
pub(super) fn registry_fix(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Unavailable(_) => {
            "is it running? set [schema_registry] url; for https, ca_file, if its certificate is your own"
        }
        RegistryError::Denied(_) => {
            "set [schema_registry] username and password, or bearer_token, to what it accepts"
        }
        RegistryError::NotFound(_) | RegistryError::Incompatible(_) | RegistryError::Refused(_) => {
            "set [schema_registry] url to the Confluent-style API"
        }
    }
}

/// Creates a client of the configured registry, without a request to it.
///
/// # Errors
/// If the settings are invalid.
pub fn registry_client(config: &Config) -> anyhow::Result<RegistryClient> {
    let settings = &config.schema_registry;
    let credentials = match (&settings.username, &settings.bearer_token) {
        (Some(user), _) => Credentials::Basic {
            user: user.clone(),
            password: settings.password.as_ref().map_or("", Secret::reveal).to_owned(),
        },
        (None, Some(token)) => Credentials::Bearer(token.reveal().to_owned()),
        (None, None) => Credentials::None,
    };
    let tls = RegistryTls {
        ca_file: settings.ca_file.clone(),
        identity: settings.certificate_file.clone().zip(settings.key_file.clone()),
    };
    let url = settings.url.clone();
    RegistryClient::new(&RegistryClientConfig { url, credentials, tls, timeout: settings.timeout })
        .with_context(|| {
            format!("{}, or its certificates", config.sources.named("schema_registry.url"))
        })
}
