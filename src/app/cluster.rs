//! Where ports meet adapters: a real broker and registry, or those in this process.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    config::{Config, Secret},
    events::{
        codecs::{self, Codecs},
        questionnaire::QuestionnaireEvent,
        topics::Topics,
    },
};
use foretell_avro::{
    access::{Credentials, RegistryClientConfig, RegistryTls},
    caching::CachingRegistry,
    client::RegistryClient,
    codec::AvroRecord,
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
    /// Whether it outlives this process.
    pub is_lasting: bool,
}

/// How long one look at a topic may wait for records.
const READ_WAIT: Duration = Duration::from_millis(200);

impl Cluster {
    /// Connects to those of the configuration.
    ///
    /// # Errors
    /// If one does not answer; the line says which, and what to set. A registry need not answer if what it said
    /// before is on disk.
    pub fn connect(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let place = || config.sources.of("broker.bootstrap_servers");
        let broker = KafkaBroker::connect(&kafka_config(config)).with_context(place)?;
        let registry = connect_registry(config, clock)?;
        Ok(Self { broker: Arc::new(broker), registry, is_lasting: true })
    }

    /// A broker and a registry in this process: nothing outlives it.
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
        Ok(Codecs::open(&self.registry, &config.topics, &config.event_schema)?)
    }

    /// Opens a codec for made-up events, which fills the ignored fields that have no default.
    ///
    /// # Errors
    /// If the schema is not registered.
    pub fn sample_codec(
        &self,
        config: &Config,
    ) -> anyhow::Result<Arc<dyn Codec<QuestionnaireEvent>>> {
        let codec = codecs::event_codec(&self.registry, &config.topics, &config.event_schema)?;
        Ok(Arc::new(codec.writing_samples()))
    }

    /// Opens the codec of a topic with values of type `T`.
    ///
    /// # Errors
    /// If its schema is not registered.
    pub fn codec<T: AvroRecord + 'static>(
        &self,
        topic: &Topic,
    ) -> anyhow::Result<Arc<dyn Codec<T>>> {
        Ok(codecs::codec(&self.registry, topic)?)
    }

    /// Hands every record of a topic to `visit`, partition by partition, until it breaks or each has
    /// been read to its end.
    ///
    /// # Errors
    /// If it can't be read, or `visit` says so.
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

    /// Like [`Self::read_to_end`], for values. Records that can't be read are passed over, for anybody may have written
    /// them and nothing would take them away; how many those were is returned.
    ///
    /// # Errors
    /// See [`Self::read_to_end`]; besides, if what is needed to read a value can't be had just now.
    pub fn read_values<T: AvroRecord + 'static>(
        &self,
        topic: &Topic,
        mut visit: impl FnMut(T) -> ControlFlow<()>,
    ) -> anyhow::Result<u64> {
        self.read_records(topic, |_, value| visit(value))
    }

    /// Like [`Self::read_values`], with the records.
    ///
    /// # Errors
    /// See [`Self::read_values`].
    pub fn read_records<T: AvroRecord + 'static>(
        &self,
        topic: &Topic,
        mut visit: impl FnMut(&InputRecord, T) -> ControlFlow<()>,
    ) -> anyhow::Result<u64> {
        let codec = self.codec::<T>(topic)?;
        let mut passed_over = 0;
        self.read_to_end(topic, |record| {
            let Some(bytes) = &record.value else { return Ok(ControlFlow::Continue(())) };
            match codec.decode(bytes) {
                Ok(value) => Ok(visit(record, value)),
                Err(CodecError::Unreadable { class, message, .. }) => {
                    passed_over += 1;
                    let (source, offset) = (&record.source, record.offset);
                    tracing::warn!(%source, %offset, class, message, "a record that can't be read is passed over");
                    Ok(ControlFlow::Continue(()))
                }
                Err(error @ (CodecError::OtherFormat { .. } | CodecError::Unavailable { .. })) => {
                    Err(error.into())
                }
            }
        })?;
        Ok(passed_over)
    }

    /// That every topic is there, before anything waits for it.
    ///
    /// # Errors
    /// Names the first one that is missing.
    pub fn check_topics(&self, topics: &Topics, partitions: u32) -> anyhow::Result<()> {
        for spec in topics.specs(partitions) {
            let there = self.broker.partitions(&spec.name)?;
            match there {
                None => {
                    anyhow::bail!("topic {} does not exist: run `foretell init` first", spec.name)
                }
                Some(there) if there != spec.partitions => anyhow::bail!(
                    "topic {} has {there} partitions, the configuration says {}: \
                     set [topics] partitions, or make the topic anew",
                    spec.name,
                    spec.partitions,
                ),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The configuration's registry, with what it said before for when it is away.
fn connect_registry(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn SchemaRegistry>> {
    let written = &config.schema_registry;
    let url = &written.url;
    let client = Arc::new(registry_client(config)?);
    let registry: Arc<dyn SchemaRegistry> = Arc::<RegistryClient>::clone(&client);
    let folder = written.cache_dir.as_deref();
    let cached = CachingRegistry::open(registry, url, folder, Arc::clone(clock));
    let kept = cached.kept();
    match cached.latest("foretell") {
        Ok(_) => {}
        Err(RegistryError::Unavailable(reason)) if kept > 0 => {
            tracing::warn!(
                url,
                reason,
                kept,
                "the schema registry is away: going on with what it said before"
            );
        }
        Err(error) => {
            let why = match error {
                RegistryError::Unavailable(_) => format!("no schema registry answers at {url}"),
                RegistryError::Denied(_) => {
                    format!("the schema registry at {url} wants to know who we are")
                }
                RegistryError::NotFound(_)
                | RegistryError::Incompatible(_)
                | RegistryError::Refused(_) => {
                    format!("no schema registry is what answers at {url}")
                }
            };
            let fix = registry_fix(&error);
            // The converter keeps to itself why nobody could be reached.
            let error = match (error, client.mode()) {
                (RegistryError::Unavailable(_), Err(told)) => told,
                (error, _) => error,
            };
            let place = config.sources.of("schema_registry.url");
            return Err(anyhow::Error::new(error).context(format!("{place}: {why}: {fix}")));
        }
    }
    let patient =
        RetryingRegistry::new(Arc::new(cached), written.unknown_id_wait, Arc::clone(clock));
    Ok(Arc::new(patient))
}

/// How the configuration's broker is reached.
#[must_use]
pub fn kafka_config(config: &Config) -> KafkaConfig {
    let written = &config.broker;
    let properties = written.properties.iter();
    KafkaConfig {
        bootstrap_servers: written.bootstrap_servers.clone(),
        client_id: format!("foretell-{}", config.instance()),
        session_timeout: written.session_timeout,
        transaction_timeout: written.transaction_timeout,
        token_file: written.token_file.clone(),
        properties: properties
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect(),
        ..KafkaConfig::default()
    }
}

/// What to do about a registry that does not do as we ask.
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

/// The configuration's registry; nobody is asked yet.
///
/// # Errors
/// If the settings can't be right.
pub fn registry_client(config: &Config) -> anyhow::Result<RegistryClient> {
    let written = &config.schema_registry;
    let credentials = match (&written.username, &written.bearer_token) {
        (Some(user), _) => Credentials::Basic {
            user: user.clone(),
            password: written.password.as_ref().map_or("", Secret::reveal).to_owned(),
        },
        (None, Some(token)) => Credentials::Bearer(token.reveal().to_owned()),
        (None, None) => Credentials::None,
    };
    let tls = RegistryTls {
        ca_file: written.ca_file.clone(),
        identity: written.certificate_file.clone().zip(written.key_file.clone()),
    };
    let url = written.url.clone();
    RegistryClient::new(&RegistryClientConfig { url, credentials, tls, timeout: written.timeout })
        .with_context(|| {
            format!("{}, or its certificates", config.sources.named("schema_registry.url"))
        })
}
